//! Ordered start, the three strategies, nested supervisors.

use std::time::Duration;

use tokio::time::sleep;

use crate::supervise::{
    ChildState, Intensity, Restart, Strategy, Supervisor, TreeError, TrySendError,
    testing::{At, Do, Note, Run, Script, Tree, exact_backoff, paused, record, settle, spec, until, workers},
};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn crash() -> Run {
    Run::new(|_, _| panic!("boom"))
}

/// What happens when the second of four children crashes.
fn log_of_a_crash(strategy: Strategy) -> Vec<String> {
    paused(async {
        let tree = Tree::start(strategy, &NAMES).await;
        assert_eq!(tree.script.log(), ["a started", "b started", "c started", "d started"]);
        tree.refs[1].try_send(crash()).unwrap();
        for (number, worker) in (1..).zip(&tree.refs) {
            worker.try_send(Note(number)).unwrap();
        }
        sleep(Duration::from_secs(1)).await;
        for name in NAMES {
            let record = tree.record(name);
            assert_eq!(record.state, ChildState::Running);
            assert_eq!(record.inbox.accepted - record.inbox.lost, 1);
            assert_eq!(record.inbox.handled, 1);
        }
        tree.script.log()
    })
}

#[test]
fn one_for_one_restarts_the_one_that_failed() {
    assert_eq!(log_of_a_crash(Strategy::OneForOne), ["b drop", "a: 1", "c: 3", "d: 4", "b started", "b: 2"]);
}

#[test]
fn rest_for_one_restarts_it_and_those_behind_it_in_order() {
    assert_eq!(
        log_of_a_crash(Strategy::RestForOne),
        [
            "b drop",
            "a: 1",
            "c: 3",
            "d: 4",
            "d stopping",
            "d stopped",
            "d drop",
            "c stopping",
            "c stopped",
            "c drop",
            "b started",
            "b: 2",
            "c started",
            "d started"
        ]
    );
}

#[test]
fn one_for_all_restarts_all_in_order() {
    assert_eq!(
        log_of_a_crash(Strategy::OneForAll),
        [
            "b drop",
            "a: 1",
            "c: 3",
            "d: 4",
            "d stopping",
            "d stopped",
            "d drop",
            "c stopping",
            "c stopped",
            "c drop",
            "a stopping",
            "a stopped",
            "a drop",
            "a started",
            "b started",
            "b: 2",
            "c started",
            "d started"
        ]
    );
}

#[test]
fn a_temporary_child_that_is_taken_along_drains_and_stays_down() {
    paused(async {
        let script = Script::default();
        let (mut root, refs) = workers(&script, Strategy::RestForOne, Intensity::default(), &["a"]);
        let b = root.child(spec("b").restart(Restart::Temporary), script.factory("b"));
        let running = root.start().await.unwrap();
        script.log();
        refs[0].try_send(crash()).unwrap();
        b.try_send(Note(1)).unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(script.log(), ["a drop", "b: 1", "b stopping", "b stopped", "b drop", "a started"]);
        assert_eq!(record(&running, "b").state, ChildState::Stopped);
        assert!(matches!(b.try_send(Note(2)), Err(TrySendError::Closed(Note(2)))));
    });
}

#[test]
fn a_child_starts_when_the_one_before_it_is_ready() {
    paused(async {
        let script = Script::default();
        let mut supervisor = Supervisor::new("root", Strategy::OneForOne, Intensity::default());
        let slow = script.clone();
        supervisor.child(spec("a"), move || {
            slow.note("a made");
            slow.worker("a")
        });
        supervisor.child(spec("b"), script.factory("b"));
        script.plan("a", At::Started, Do::Hang);
        let mut start = Box::pin(supervisor.start());
        tokio::select! {
            _ = &mut start => panic!("ready, though a is not"),
            () = sleep(Duration::from_secs(4)) => {}
        }
        assert_eq!(script.log(), ["a made", "a started"]);
        let TreeError::Start(Some(failure)) = start.await.err().unwrap() else { panic!("no failure") };
        assert_eq!(failure.message, "child a: not ready within 5s");
        settle().await;
        assert_eq!(script.log(), ["a drop"]);
    });
}

#[test]
fn a_failing_first_start_stops_those_already_started_in_reverse() {
    for (what, text) in
        [(Do::Panic, "child c: factory of c panics at "), (Do::Fail, "child c: no such device")]
    {
        paused(async {
            let script = Script::default();
            let (supervisor, refs) = workers(&script, Strategy::OneForOne, Intensity::default(), &NAMES);
            script.plan("c", At::Factory, what);
            refs[3].try_send(Note(1)).unwrap();
            let error = supervisor.start().await.err().unwrap();
            assert!(error.to_string().starts_with(text), "{error}");
            let log = [
                "a started",
                "b started",
                "b stopping",
                "b stopped",
                "b drop",
                "a stopping",
                "a stopped",
                "a drop",
            ];
            assert_eq!(script.log(), log);
            for worker in refs {
                assert!(matches!(worker.try_send(Note(2)), Err(TrySendError::Closed(Note(2)))));
            }
        });
    }
}

#[test]
fn a_child_that_crashes_too_often_before_all_are_ready_fails_the_start() {
    paused(async {
        let script = Script::default();
        let intensity = Intensity { max_restarts: 1, window: Duration::from_secs(10) };
        let (supervisor, refs) = workers(&script, Strategy::OneForOne, intensity, &["a", "b"]);
        script.plan("b", At::Started, Do::Hang);
        for _ in 0..3 {
            refs[0].try_send(crash()).unwrap();
        }
        let error = supervisor.start().await.err().unwrap().to_string();
        assert!(error.starts_with("more than 1 restarts within 10s, last of a: boom at "), "{error}");
        settle().await;
        assert_eq!((script.alive(), script.seen("b started")), (0, 1));
    });
}

/// root: a, inner (x, y), b.
fn nested(
    script: &Script,
    outer: Intensity,
) -> (Supervisor, crate::supervise::ActorRef<crate::supervise::testing::Worker>) {
    let (mut root, _) = workers(script, Strategy::OneForOne, outer, &["a"]);
    let inner = Intensity { max_restarts: 1, window: Duration::from_secs(10) };
    let mut inner = Supervisor::new("inner", Strategy::OneForOne, inner).backoff(exact_backoff());
    let x = inner.child(spec("x"), script.factory("x"));
    inner.child(spec("y"), script.factory("y"));
    root.nest(inner);
    root.child(spec("b"), script.factory("b"));
    (root, x)
}

#[test]
fn a_nested_supervisor_starts_and_stops_in_its_place() {
    paused(async {
        let script = Script::default();
        let (root, x) = nested(&script, Intensity::default());
        let running = root.start().await.unwrap();
        assert_eq!(script.log(), ["a started", "x started", "y started", "b started"]);
        let names: Vec<_> = running.records().into_iter().map(|record| record.name).collect();
        assert_eq!(names, ["a", "inner", "inner/x", "inner/y", "b"]);
        x.try_send(Note(1)).unwrap();
        assert!(running.shutdown(Duration::from_secs(60)).await.is_clean());
        assert_eq!(
            script.log(),
            [
                "x: 1",
                "b stopping",
                "b stopped",
                "b drop",
                "y stopping",
                "y stopped",
                "y drop",
                "x stopping",
                "x stopped",
                "x drop",
                "a stopping",
                "a stopped",
                "a drop"
            ]
        );
        assert!(matches!(x.try_send(Note(2)), Err(TrySendError::Closed(Note(2)))));
    });
}

#[test]
fn an_inner_escalation_is_restarted_by_the_outer_supervisor_with_its_references_valid() {
    paused(async {
        let script = Script::default();
        let (root, x) = nested(&script, Intensity::default());
        let running = root.start().await.unwrap();
        script.log();
        x.try_send(crash()).unwrap();
        x.try_send(crash()).unwrap();
        x.try_send(Note(1)).unwrap();
        until("the message", || script.seen("x: 1") == 1).await;
        settle().await;
        assert_eq!(
            script.log(),
            [
                "x drop",
                "x started",
                "x drop",
                "y stopping",
                "y stopped",
                "y drop",
                "x started",
                "x: 1",
                "y started"
            ]
        );
        let inner = record(&running, "inner");
        assert_eq!((inner.state, inner.restarts), (ChildState::Running, 1));
        let failure = inner.last_failure.unwrap();
        assert!(
            failure.message.starts_with("more than 1 restarts within 10s, last of inner/x: boom at "),
            "{failure}"
        );
        let x = record(&running, "inner/x");
        assert_eq!((x.state, x.restarts, x.inbox.lost, x.inbox.handled), (ChildState::Running, 2, 2, 1));
    });
}

#[test]
fn escalations_add_up_to_the_roots() {
    paused(async {
        let script = Script::default();
        let outer = Intensity { max_restarts: 1, window: Duration::from_secs(10) };
        let (root, x) = nested(&script, outer);
        let running = root.start().await.unwrap();
        for _ in 0..4 {
            x.try_send(crash()).unwrap();
        }
        x.try_send(Note(1)).unwrap();
        let failure = running.escalated().await;
        assert!(failure.message.starts_with("more than 1 restarts within 10s, last of inner: more than 1"));
        assert_eq!(record(&running, "a").state, ChildState::Running);
        // What still waits for an inner child has one more go at the shutdown.
        assert!(running.shutdown(Duration::from_secs(60)).await.is_clean());
        assert_eq!(script.seen("x: 1"), 1);
        assert_eq!(script.alive(), 0);
    });
}
