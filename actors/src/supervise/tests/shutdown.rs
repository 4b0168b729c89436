//! Ordered stop: drain, deadlines, reports.

use std::time::Duration;

use actix::{ActorContext, AsyncContext, WrapFuture};
use tokio::time::Instant;

use crate::supervise::{
    AskError, ChildSpec, ChildState, FailureCause, Intensity, Strategy, Supervisor, TrySendError, Watchdog,
    testing::{At, Do, Note, Run, Script, Slow, Tree, paused, settle, threads, until, workers},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_slow_backlog_is_drained_in_reverse_order() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a", "b"]).await;
        tree.script.log();
        for number in 0..3 {
            tree.refs[0].try_send(Slow(number, SECOND)).unwrap();
            tree.refs[1].try_send(Slow(number, SECOND)).unwrap();
        }
        let begin = Instant::now();
        assert!(tree.running.shutdown(MINUTE).await.is_clean());
        assert_eq!(begin.elapsed().as_secs(), 3);
        let log = tree.script.log();
        let of_b: Vec<_> = log.iter().filter(|line| line.starts_with('b')).collect();
        assert_eq!(of_b, ["b: 0", "b: 1", "b: 2", "b stopping", "b stopped", "b drop"]);
        let stop_of_a = ["a stopping", "a stopped", "a drop"];
        assert_eq!(log[log.len() - 3..], stop_of_a);
        for name in ["a", "b"] {
            let record = tree.record(name);
            assert_eq!((record.state, record.inbox.handled), (ChildState::Stopped, 3));
        }
    });
}

#[test]
fn messages_sent_by_one_that_drains_reach_those_that_stop_after_it() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a", "b"]).await;
        let a = tree.refs[0].clone();
        tree.refs[1].try_send(Slow(1, SECOND)).unwrap();
        tree.refs[1].try_send(Run::new(move |_, _| a.try_send(Note(9)).unwrap())).unwrap();
        assert!(tree.running.shutdown(MINUTE).await.is_clean());
        assert_eq!(tree.script.seen("a: 9"), 1);
    });
}

#[test]
fn a_child_that_does_not_stop_is_given_up_at_its_deadline_and_named() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a", "b", "c"]).await;
        tree.script.log();
        let hang = Run::new(|actor, ctx| {
            ctx.wait(std::future::pending().into_actor(actor));
        });
        tree.refs[1].try_send(hang).unwrap();
        for number in 0..3 {
            tree.refs[1].try_send(Note(number)).unwrap();
        }
        let asked = tree.refs[1].ask(Note(3), MINUTE);
        let begin = Instant::now();
        let (asked, report) = tokio::join!(asked, tree.running.shutdown(MINUTE));
        assert_eq!(begin.elapsed().as_secs(), 5);
        assert_eq!((report.given_up, report.abandoned), (vec!["b".to_owned()], 4));
        assert!(matches!(asked, Err(AskError::Lost)), "an asker whose message is abandoned is told");
        let record = tree.record("b");
        assert_eq!((record.state, record.inbox.handled, record.inbox.abandoned), (ChildState::Stopped, 1, 4));
        let failure = record.last_failure.unwrap();
        assert_eq!(
            (failure.cause, failure.message.as_str()),
            (FailureCause::GivenUp, "did not stop within 5s")
        );
        let log = ["c stopping", "c stopped", "c drop", "b drop", "a stopping", "a stopped", "a drop"];
        assert_eq!(tree.script.log(), log);
    });
}

#[test]
fn an_actor_that_refuses_to_stop_is_given_up() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        tree.script.plan("a", At::Stopping, Do::Refuse);
        let report = tree.running.shutdown(MINUTE).await;
        assert_eq!((report.given_up, report.abandoned), (vec!["a".to_owned()], 0));
        assert_eq!(tree.script.seen("a stopping"), 1);
    });
}

#[test]
fn the_overall_deadline_cuts_off_all_that_are_left() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a", "b"]).await;
        for worker in &tree.refs {
            worker.try_send(Slow(1, MINUTE)).unwrap();
            worker.try_send(Note(2)).unwrap();
        }
        let begin = Instant::now();
        let report = tree.running.shutdown(SECOND).await;
        assert_eq!(begin.elapsed(), SECOND);
        assert_eq!((report.given_up, report.abandoned), (vec!["b".to_owned(), "a".to_owned()], 2));
        assert!(matches!(tree.refs[0].try_send(Note(3)), Err(TrySendError::Closed(Note(3)))));
        settle().await;
        assert_eq!(tree.script.alive(), 0);
    });
}

#[test]
fn a_second_shutdown_may_bring_the_deadline_nearer() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        tree.refs[0].try_send(Slow(1, MINUTE)).unwrap();
        let begin = Instant::now();
        let (first, second) = tokio::join!(tree.running.shutdown(MINUTE), tree.running.shutdown(SECOND));
        assert_eq!(begin.elapsed(), SECOND);
        assert_eq!((&first.given_up, &first), (&vec!["a".to_owned()], &second));
        assert_eq!(tree.running.shutdown(MINUTE).await, first);
    });
}

#[test]
fn what_waits_for_a_child_in_its_backoff_gets_one_more_go() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        tree.refs[0].try_send(Run::new(|_, _| panic!("boom"))).unwrap();
        for number in 0..3 {
            tree.refs[0].try_send(Note(number)).unwrap();
        }
        settle().await;
        assert_eq!(tree.record("a").state, ChildState::BackingOff);
        let begin = Instant::now();
        assert!(tree.running.shutdown(MINUTE).await.is_clean());
        assert!(begin.elapsed() < Duration::from_millis(100), "a drain does not wait for a backoff");
        let counts = tree.record("a").inbox;
        assert_eq!((counts.handled, counts.lost, counts.abandoned), (3, 1, 0));
    });
}

#[test]
fn what_is_left_after_that_go_is_abandoned() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        for _ in 0..3 {
            tree.refs[0].try_send(Run::new(|_, _| panic!("boom"))).unwrap();
        }
        settle().await;
        let report = tree.running.shutdown(MINUTE).await;
        assert_eq!((report.given_up.len(), report.abandoned), (0, 1));
        let record = tree.record("a");
        assert_eq!((record.panics, record.inbox.lost, record.inbox.abandoned), (2, 2, 1));
    });
}

#[test]
fn a_child_that_crashes_while_it_drains_gets_one_more_go() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        tree.refs[0].try_send(Slow(1, SECOND)).unwrap();
        tree.refs[0].try_send(Run::new(|_, _| panic!("boom"))).unwrap();
        tree.refs[0].try_send(Note(2)).unwrap();
        assert!(tree.running.shutdown(MINUTE).await.is_clean());
        let counts = tree.record("a").inbox;
        assert_eq!((counts.handled, counts.lost, counts.abandoned), (2, 1, 0));
    });
}

#[test]
fn a_child_in_its_backoff_without_messages_is_not_started_for_a_shutdown() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        tree.refs[0].try_send(Run::new(|_, _| panic!("boom"))).unwrap();
        settle().await;
        assert!(tree.running.shutdown(MINUTE).await.is_clean());
        assert_eq!(tree.script.seen("a started"), 1);
    });
}

#[test]
fn a_child_that_stops_itself_while_others_drain_is_not_restarted() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a", "b"]).await;
        tree.refs[1].try_send(Slow(1, SECOND)).unwrap();
        let a = tree.refs[0].clone();
        tree.refs[1]
            .try_send(Run::new(move |_, _| a.try_send(Run::new(|_, ctx| ctx.stop())).unwrap()))
            .unwrap();
        assert!(tree.running.shutdown(MINUTE).await.is_clean());
        assert_eq!(tree.script.seen("a started"), 1);
    });
}

#[test]
fn a_tree_whose_handle_is_dropped_stops_in_order() {
    paused(async {
        let Tree { script, running, refs } = Tree::start(Strategy::OneForOne, &["a", "b"]).await;
        refs[0].try_send(Note(1)).unwrap();
        script.log();
        let monitor = running.monitor();
        drop(running);
        until("the stop", || monitor.records().iter().all(|child| child.state == ChildState::Stopped)).await;
        let log = script.log();
        assert_eq!(log[1..], ["b stopping", "b stopped", "b drop", "a stopping", "a stopped", "a drop"]);
    });
}

#[test]
fn a_shutdown_without_end_is_no_fault() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        assert_eq!(tree.refs[0].ask(Note(1), Duration::MAX).await.unwrap(), 1);
        assert!(tree.running.shutdown(Duration::MAX).await.is_clean());
    });
}

#[test]
fn a_watchdog_names_those_who_have_not_stopped_when_an_actor_blocks_the_supervisors_own_thread() {
    threads(async {
        let script = Script::default();
        let (root, refs) = workers(&script, Strategy::OneForOne, Intensity::default(), &["a", "b", "c"]);
        let running = root.start().await.unwrap();
        let (bite, bitten) = std::sync::mpsc::channel();
        let bite = move |names| bite.send(names).unwrap();
        let _watchdog = Watchdog::arm_with(running.monitor(), SECOND / 20, bite).unwrap();
        let (told, tell) = tokio::sync::oneshot::channel();
        let monitor = running.monitor();
        let until_c_stopped = Run::new(move |actor, ctx| {
            let stopped = async move {
                while monitor.records()[2].state != ChildState::Stopped {
                    tokio::task::yield_now().await;
                }
            };
            ctx.wait(stopped.into_actor(actor));
        });
        refs[1].try_send(until_c_stopped).unwrap();
        let block = Run::new(move |_, _| {
            // No timer of this thread can fire any more; the watchdog's does.
            let _nobody_waits_any_more = told.send(bitten.recv().unwrap());
        });
        refs[1].try_send(block).unwrap();
        running.shutdown(MINUTE).await;
        assert_eq!(tell.await.unwrap(), ["a", "b"]);
    });
}

#[test]
fn a_watchdog_that_is_dropped_in_time_does_nothing() {
    threads(async {
        let (root, _) = workers(&Script::default(), Strategy::OneForOne, Intensity::default(), &["a"]);
        let running = root.start().await.unwrap();
        let (bite, bitten) = std::sync::mpsc::channel::<Vec<String>>();
        let watchdog = Watchdog::arm_with(running.monitor(), MINUTE, move |names| bite.send(names).unwrap());
        drop(watchdog.unwrap());
        assert_eq!(bitten.recv(), Err(std::sync::mpsc::RecvError), "its thread has ended");
    });
}

#[test]
fn a_child_with_work_outside_its_inbox_gets_one_more_go_without_messages() {
    struct Worker(std::sync::Arc<std::sync::atomic::AtomicU32>);
    impl actix::Actor for Worker {
        type Context = actix::Context<Self>;
        fn started(&mut self, _: &mut Self::Context) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
    for (spec, starts) in [(ChildSpec::new("a"), 1), (ChildSpec::new("a").drains_more(), 2)] {
        paused(async move {
            let started = std::sync::Arc::default();
            let mut tree = Supervisor::new("root", Strategy::OneForOne, Intensity::default());
            let counter = std::sync::Arc::clone(&started);
            let worker = tree.child(spec, move || Ok(Worker(std::sync::Arc::clone(&counter))));
            let running = tree.start().await.unwrap();
            worker.crash("boom").unwrap();
            settle().await;
            assert_eq!(running.records()[0].state, ChildState::BackingOff);
            assert!(running.shutdown(MINUTE).await.is_clean());
            assert_eq!(started.load(std::sync::atomic::Ordering::Relaxed), starts);
        });
    }
}

#[test]
fn a_child_that_stops_in_order_gets_no_further_go() {
    paused(async {
        let mut more = Supervisor::new("more", Strategy::OneForOne, Intensity::default());
        let idle = more.child(ChildSpec::new("idle").drains_more(), || Ok(Idle));
        let running = more.start().await.unwrap();
        drop(idle);
        assert!(running.shutdown(MINUTE).await.is_clean());
        assert_eq!(running.records()[0].incarnation, 1);
    });
}

struct Idle;

impl actix::Actor for Idle {
    type Context = actix::Context<Self>;
}
