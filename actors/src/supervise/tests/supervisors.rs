//! What happens when supervision itself fails.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::supervise::{
    ChildKind, ChildState, FailureCause, Intensity, Restart, Strategy, Supervisor, TrySendError,
    child::{Definition, Event, Incarnation, Policy, Report},
    monitor::Exit,
    node::Node,
    record::Vital,
    testing::{Note, Run, Script, exact_backoff, paused, record, settle, spec, threads, until, workers},
};

/// A child whose start panics in the supervisor's own loop, once.
struct Bomb {
    policy: Policy,
    vital: Arc<Vital>,
    armed: bool,
}

impl Bomb {
    fn new() -> Box<Self> {
        let policy = Policy {
            name: "bomb".to_owned(),
            restart: Restart::Permanent,
            backoff: exact_backoff(),
            start_deadline: Duration::from_secs(1),
            stop_deadline: Duration::from_secs(1),
            drains_more: false,
            progress_deadline: None,
            bound: false,
        };
        Box::new(Self { policy, vital: Vital::new(ChildKind::Actor, None), armed: false })
    }
}

impl Definition for Bomb {
    fn policy(&self) -> &Policy {
        &self.policy
    }

    fn vital(&self) -> &Arc<Vital> {
        &self.vital
    }

    fn backlog(&self) -> u64 {
        0
    }

    fn abandon(&self) -> u64 {
        0
    }

    fn start(&mut self, report: Report) -> Box<dyn Incarnation> {
        if std::mem::replace(&mut self.armed, true) {
            self.armed = false;
            panic!("a fault of the supervisor");
        }
        report.ready();
        struct Nothing;
        impl Incarnation for Nothing {
            fn stop(&self, _: crate::supervise::child::Stop, _: Option<tokio::time::Instant>) {}
            fn kill(&self) {}
        }
        Box::new(Nothing)
    }
}

fn crash() -> Run {
    Run::new(|_, _| panic!("boom"))
}

#[test]
fn the_report_of_an_incarnation_that_was_replaced_changes_nothing() {
    paused(async {
        let bomb = Bomb::new();
        let vital = Arc::clone(&bomb.vital);
        let mut node = Node::new("root".to_owned(), Strategy::OneForOne, Intensity::default(), vec![bomb]);
        let (_, mut events) = node.begin();
        node.step(Instant::now());
        node.hear(events.recv().await.unwrap());
        assert_eq!(vital.record().state, ChildState::Running);
        let ended = |incarnation| Event::Ended { child: 0, incarnation, exit: Exit::Normal };

        node.hear(ended(1));
        assert_eq!(vital.record().state, ChildState::BackingOff);
        node.hear(ended(1));
        sleep(Duration::from_millis(100)).await;
        node.tick(Instant::now());
        assert!(catch_unwind(AssertUnwindSafe(|| node.step(Instant::now()))).is_err());
        node.step(Instant::now());
        assert_eq!(vital.record().state, ChildState::Starting);
        node.hear(ended(1));
        node.hear(ended(2));
        node.hear(Event::Ready { child: 0, incarnation: 1 });
        assert_eq!((vital.record().state, vital.record().incarnation), (ChildState::Starting, 3));
        node.hear(Event::Ready { child: 0, incarnation: 3 });
        assert_eq!(vital.record().state, ChildState::Running);
    });
}

#[test]
fn a_panic_of_the_roots_own_loop_takes_its_children_down_and_is_told() {
    paused(async {
        let script = Script::default();
        let (mut root, refs) = workers(&script, Strategy::OneForAll, Intensity::default(), &["a", "b"]);
        root.define(Bomb::new());
        let running = root.start().await.unwrap();
        refs[0].try_send(crash()).unwrap();
        // The bomb does not stop; its deadline makes the supervisor go on, and start it again.
        let failure = running.escalated().await;
        assert_eq!(
            (failure.cause, failure.message.as_str()),
            (FailureCause::Panicked, "a fault of the supervisor")
        );
        settle().await;
        assert_eq!(script.alive(), 0);
        assert!(matches!(refs[1].try_send(Note(1)), Err(TrySendError::Closed(Note(1)))));
        let report = running.shutdown(Duration::from_secs(1)).await;
        assert_eq!(report.given_up, ["b", "a"]);
    });
}

#[test]
fn a_panic_of_a_nested_supervisors_loop_is_its_failure() {
    paused(async {
        let script = Script::default();
        let mut inner = Supervisor::new("inner", Strategy::OneForAll, Intensity::default());
        let x = inner.child(spec("x"), script.factory("x"));
        inner.define(Bomb::new());
        let (mut root, _) = workers(&script, Strategy::OneForOne, Intensity::default(), &["a"]);
        root.nest(inner.backoff(exact_backoff()));
        let running = root.start().await.unwrap();
        x.try_send(crash()).unwrap();
        x.try_send(Note(1)).unwrap();
        until("the restart", || record(&running, "inner").restarts == 1 && script.seen("x started") == 3)
            .await;
        settle().await;
        let inner = record(&running, "inner");
        assert_eq!(inner.last_failure.unwrap().message, "a fault of the supervisor");
        assert_eq!((script.seen("x: 1"), script.seen("a started"), script.alive()), (1, 1, 2));
    });
}

#[test]
fn a_system_that_ends_takes_children_on_other_threads_with_it() {
    let (script, arbiter) = (Script::default(), std::cell::Cell::new(None));
    let system = actix_rt::System::new();
    let a = system.block_on(async {
        let mut root = Supervisor::new("root", Strategy::OneForOne, Intensity::default());
        let own = actix_rt::Arbiter::new();
        let a = root.child(spec("a").arbiter(own.handle()), script.factory("a"));
        arbiter.set(Some(own));
        std::mem::forget(root.start().await.unwrap());
        a
    });
    a.try_send(Note(1)).unwrap();
    drop(system);
    threads(async {
        while script.alive() > 0 {
            tokio::task::yield_now().await;
        }
    });
    let own = arbiter.take().unwrap();
    own.stop();
    own.join().unwrap();
}
