//! Backoff, intensity, escalation.

use std::{sync::Arc, time::Duration};

use actix::ActorContext;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::supervise::{
    Backoff, ChildSpec, ChildState, FailureCause, Intensity, Restart, SettingsError, Strategy, Supervisor,
    TreeError, TrySendError,
    testing::{At, Do, Note, Run, Script, Tree, paused, record, settle, spec, until, workers},
};

const MS: fn(u64) -> Duration = Duration::from_millis;

fn crash() -> Run {
    Run::new(|_, _| panic!("boom"))
}

/// The times between the starts of a worker, in ms.
fn gaps(script: &Script) -> Vec<u128> {
    let starts = script.times("a started");
    starts.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect()
}

#[test]
fn backoffs_grow_exactly_up_to_their_cap() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        for _ in 0..7 {
            tree.refs[0].try_send(crash()).unwrap();
        }
        until("seven restarts", || tree.script.seen("a started") == 8).await;
        assert_eq!(gaps(&tree.script), [100, 200, 400, 800, 1_600, 2_000, 2_000]);
    });
}

#[test]
fn backoffs_begin_anew_only_after_stable_uptime() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        let crash_after = async |uptime: Duration| {
            sleep(uptime).await;
            let begin = Instant::now();
            let before = tree.script.seen("a started");
            tree.refs[0].try_send(crash()).unwrap();
            until("restart", || tree.script.seen("a started") > before).await;
            let started = *tree.script.times("a started").last().unwrap();
            let waited = started - begin;
            until("ready", || tree.record("a").state == ChildState::Running).await;
            (waited, started)
        };
        assert_eq!(crash_after(Duration::ZERO).await.0, MS(100));
        assert_eq!(crash_after(MS(9_900)).await.0, MS(200));
        let (waited, started) = crash_after(MS(9_900)).await;
        assert_eq!(waited, MS(400));
        let stable = started + MS(10_000) - Instant::now();
        assert_eq!(crash_after(stable).await.0, MS(100));
    });
}

#[test]
fn one_restart_more_than_the_intensity_escalates() {
    paused(async {
        let script = Script::default();
        let intensity = Intensity { max_restarts: 3, window: Duration::from_secs(10) };
        let (supervisor, refs) = workers(&script, Strategy::OneForOne, intensity, &["a", "b"]);
        let running = supervisor.start().await.unwrap();
        for _ in 0..3 {
            refs[0].try_send(crash()).unwrap();
        }
        until("three restarts", || script.seen("a started") == 4).await;
        let escalated = tokio::time::timeout(MS(1_000), running.escalated());
        assert!(escalated.await.is_err(), "escalated within its intensity");

        refs[0].try_send(crash()).unwrap();
        let failure = running.escalated().await;
        assert_eq!(failure.cause, FailureCause::Escalated);
        assert_eq!(
            failure.message.split(" at ").next().unwrap(),
            "more than 3 restarts within 10s, last of a: boom"
        );
        assert_eq!(record(&running, "a").state, ChildState::Stopped);
        assert_eq!(record(&running, "a").panics, 4);
        assert_eq!(record(&running, "b").state, ChildState::Running);

        // The neighbour drains in order, and what waited for the one that gave up has one more go.
        refs[0].try_send(Note(1)).unwrap();
        refs[1].try_send(Note(2)).unwrap();
        let report = running.shutdown(MS(60_000)).await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((script.seen("a: 1"), script.seen("b: 2")), (1, 1));
        assert!(matches!(refs[0].try_send(Note(3)), Err(TrySendError::Closed(Note(3)))));
    });
}

#[test]
fn restarts_that_left_the_window_do_not_count() {
    paused(async {
        let script = Script::default();
        let intensity = Intensity { max_restarts: 2, window: Duration::from_secs(10) };
        let (supervisor, refs) = workers(&script, Strategy::OneForOne, intensity, &["a"]);
        let running = supervisor.start().await.unwrap();
        for restart in 2..10 {
            refs[0].try_send(crash()).unwrap();
            until("restart", || script.seen("a started") == restart).await;
            sleep(MS(5_000)).await;
        }
        assert_eq!(record(&running, "a").restarts, 8);
        assert_eq!(record(&running, "a").state, ChildState::Running);
    });
}

#[test]
fn children_that_crash_at_the_same_instant_are_all_restarted() {
    const NAMES: [&str; 3] = ["a", "b", "c"];
    for crashing in [&[0, 2][..], &[0, 1, 2]] {
        paused(async {
            let tree = Tree::start(Strategy::OneForOne, &NAMES).await;
            for index in crashing {
                tree.refs[*index].try_send(crash()).unwrap();
            }
            let starts =
                || NAMES.iter().map(|name| tree.script.seen(&format!("{name} started"))).sum::<usize>();
            until("all restarts", || starts() == 3 + crashing.len()).await;
            settle().await;
            for (index, name) in NAMES.iter().enumerate() {
                let record = tree.record(name);
                let restarts = u64::from(crashing.contains(&index));
                assert_eq!((record.state, record.restarts), (ChildState::Running, restarts), "{name}");
            }
        });
    }
}

#[test]
fn with_the_defaults_a_child_that_hangs_in_each_start_escalates() {
    paused(async {
        let script = Script::default();
        let mut supervisor = Supervisor::new("root", Strategy::OneForOne, Intensity::default());
        let a = supervisor.child(ChildSpec::new("a"), script.factory("a"));
        let running = supervisor.start().await.unwrap();
        (0..10).for_each(|_| script.plan("a", At::Started, Do::Hang));
        a.try_send(crash()).unwrap();
        let failure = running.escalated().await;
        assert_eq!(failure.message, "more than 10 restarts within 120s, last of a: not ready within 5s");
    });
}

#[test]
fn a_permanent_child_is_restarted_when_it_stops_by_itself() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        tree.refs[0].try_send(Run::new(|_, ctx| ctx.stop())).unwrap();
        tree.refs[0].try_send(Note(1)).unwrap();
        until("the message", || tree.script.seen("a: 1") == 1).await;
        let record = tree.record("a");
        assert_eq!((record.restarts, record.panics, record.last_failure), (1, 0, None));
    });
}

#[test]
fn a_transient_child_is_restarted_only_after_a_failure() {
    paused(async {
        let script = Script::default();
        let mut supervisor = Supervisor::new("root", Strategy::OneForOne, Intensity::default());
        let a = supervisor.child(spec("a").restart(Restart::Transient), script.factory("a"));
        let running = supervisor.start().await.unwrap();
        a.try_send(crash()).unwrap();
        until("restart", || script.seen("a started") == 2).await;
        a.try_send(Run::new(|_, ctx| ctx.stop())).unwrap();
        a.try_send(Note(1)).unwrap();
        settle().await;
        let record = record(&running, "a");
        assert_eq!((record.state, record.restarts), (ChildState::Stopped, 1));
        assert_eq!((record.inbox.handled, record.inbox.lost, record.inbox.abandoned), (1, 1, 1));
        assert!(matches!(a.try_send(Note(2)), Err(TrySendError::Closed(Note(2)))));
    });
}

#[test]
fn a_temporary_child_is_never_restarted() {
    paused(async {
        let script = Script::default();
        let mut supervisor = Supervisor::new("root", Strategy::OneForOne, Intensity::default());
        let a = supervisor.child(spec("a").restart(Restart::Temporary), script.factory("a"));
        let running = supervisor.start().await.unwrap();
        a.try_send(crash()).unwrap();
        settle().await;
        assert_eq!((record(&running, "a").state, record(&running, "a").restarts), (ChildState::Stopped, 0));
        assert!(matches!(a.send(Note(2)).await, Err(crate::supervise::Closed(Note(2)))));
    });
}

#[test]
fn backoffs_that_outlast_the_window_are_refused() {
    paused(async {
        let mut supervisor = Supervisor::new(
            "root",
            Strategy::OneForOne,
            Intensity { max_restarts: 4, window: Duration::from_secs(1) },
        );
        supervisor.child(spec("a"), Script::default().factory("a"));
        let refused = supervisor.start().await.err().unwrap();
        assert!(matches!(refused, TreeError::Settings(SettingsError::OutlastsWindow { .. })));
        assert_eq!(
            refused.to_string(),
            "child a: 4 backoffs add up to 1.5s, which is not within the intensity window of 1s, so that it \
             could never exceed 4 restarts"
        );
    });
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let refused = |initial, factor, cap, jitter| {
        Backoff::new(MS(initial), factor, MS(cap), jitter, MS(1)).unwrap_err().to_string()
    };
    assert_eq!(refused(0, 2.0, 10, 0.0), "backoff: initial of 0ns is below 1ms");
    assert_eq!(refused(20, 2.0, 10, 0.0), "backoff: cap of 10ms is below the initial 20ms");
    assert_eq!(refused(1, 0.5, 10, 0.0), "backoff: factor of 0.5 is below 1");
    assert_eq!(refused(1, f64::NAN, 10, 0.0), "backoff: factor of NaN is below 1");
    assert_eq!(refused(1, 2.0, 10, 1.5), "backoff: jitter of 1.5 is not within 0 and 1");
}

#[test]
fn a_name_that_is_taken_is_refused() {
    paused(async {
        let (mut supervisor, _) =
            workers(&Script::default(), Strategy::OneForOne, Intensity::default(), &["a"]);
        supervisor.child(ChildSpec::new("a"), Script::default().factory("a"));
        assert_eq!(supervisor.start().await.err().unwrap().to_string(), "child a: the name is taken");
    });
}

proptest::proptest! {
    #[test]
    fn a_wait_is_shortened_by_jitter_and_never_longer_than_nominal(
        initial in 1u64..10_000, factor in 1.0f64..10.0, more in 0u64..100_000, jitter in 0.0f64..=1.0,
        attempt in 0u32..200, random in 0.0f64..=1.0,
    ) {
        let backoff = Backoff::new(MS(initial), factor, MS(initial + more), jitter, MS(1)).unwrap();
        let (nominal, wait) = (backoff.nominal(attempt), backoff.wait(attempt, random));
        proptest::prop_assert!(nominal >= MS(initial) && nominal <= MS(initial + more));
        proptest::prop_assert!(wait <= nominal);
        proptest::prop_assert!(wait.as_secs_f64() >= nominal.as_secs_f64() * (1.0 - jitter) - 1e-6);
        proptest::prop_assert!(backoff.nominal(attempt + 1) >= nominal);
    }
}

#[test]
fn an_actor_can_be_made_to_panic_by_its_name() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a", "b"]).await;
        let monitor = tree.running.monitor();
        assert_eq!(monitor.crash("nobody", "at all"), Err(TrySendError::Closed(())));
        monitor.crash("b", "on purpose").unwrap();
        until("a restart", || tree.script.seen("b started") == 2).await;
        assert_eq!(tree.record("b").last_failure.unwrap().message, "on purpose");
        assert_eq!(tree.record("a").restarts, 0);
    });
}

#[test]
fn who_asks_is_told_of_each_restart_when_the_child_is_ready_again() {
    paused(async {
        let told = Arc::new(Mutex::new(Vec::new()));
        let script = Script::default();
        let (root, refs) = workers(&script, Strategy::OneForOne, Intensity::default(), &["a"]);
        let listener = Arc::clone(&told);
        let root = root.on_restart(move |restarted| {
            let failure = restarted.failure.map(|failure| failure.message.clone());
            listener.lock().push((
                restarted.child.to_owned(),
                restarted.incarnation,
                restarted.lasted,
                failure,
            ));
        });
        let running = root.start().await.unwrap();
        assert_eq!(told.lock().len(), 0, "the first start is none");
        refs[0].try_send(crash()).unwrap();
        refs[0].try_send(Run::new(|_, ctx| ctx.stop())).unwrap();
        until("both restarts", || told.lock().len() == 2).await;
        assert_eq!(
            *told.lock(),
            [("a".to_owned(), 2, MS(100), Some("boom".to_owned())), ("a".to_owned(), 3, MS(200), None),]
        );
        running.shutdown(Duration::from_secs(5)).await;
    });
}
