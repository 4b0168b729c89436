//! The progress check: who has messages and handles none is replaced.

use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, WrapFuture};
use actix_rt::Arbiter;
use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use crate::supervise::{
    ActorRef, ChildSpec, ChildState, FailureCause, Intensity, Restart, RunningTree, Strategy, Supervisor,
    progress::Progress,
    queue::Standing,
    testing::{Note, Run, Script, Slow, Tree, Worker, paused, record, settle, spec, threads, until},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// It waits for ever, and takes no message meanwhile.
fn hang() -> Run {
    Run::new(|actor, ctx| ctx.wait(std::future::pending().into_actor(actor)))
}

#[test]
fn an_actor_that_handles_none_of_its_messages_is_replaced_within_a_quarter_more_than_the_deadline() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a", "b"]).await;
        sleep(SECOND * 11).await;
        let begin = Instant::now();
        tree.refs[0].try_send(hang()).unwrap();
        for number in 0..10 {
            tree.refs[0].try_send(Note(number)).unwrap();
        }
        until("the replacement", || tree.record("a").stuck == 1).await;
        let noticed = begin.elapsed();
        assert!((SECOND * 30..=SECOND * 38).contains(&noticed), "{noticed:?}");
        until("the last message", || tree.script.seen("a: 9") == 1).await;
        let record = tree.record("a");
        assert_eq!((record.restarts, record.panics, record.stuck), (1, 0, 1));
        assert_eq!((record.inbox.handled, record.inbox.lost), (11, 0));
        let failure = record.last_failure.unwrap();
        assert_eq!(
            (failure.cause, failure.message.as_str()),
            (FailureCause::Stuck, "handled nothing for 30s while 10 messages waited")
        );
        assert_eq!(failure.message_type, None);
        assert_eq!((tree.script.alive(), tree.record("b").restarts), (2, 0));
        assert_eq!(tree.script.seen("a stopping"), 0, "a hook ran on the one that was stuck");
    });
}

#[test]
fn an_actor_that_waits_for_less_than_the_deadline_is_left_alone() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        for number in 0..5 {
            tree.refs[0].try_send(Slow(number, SECOND * 29)).unwrap();
        }
        until_long("the last message", || tree.script.seen("a: 4") == 1).await;
        assert_eq!((tree.record("a").restarts, tree.record("a").stuck), (0, 0));
    });
}

#[test]
fn an_actor_without_messages_may_wait_for_ever() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        tree.refs[0].try_send(hang()).unwrap();
        sleep(MINUTE * 10).await;
        assert_eq!(tree.record("a").restarts, 0);
    });
}

#[test]
fn an_actor_that_is_never_without_messages_is_left_alone_as_long_as_it_handles_some() {
    paused(async {
        let script = Script::default();
        let mut root = Supervisor::new("root", Strategy::OneForOne, Intensity::default());
        let a = root.child(spec("a").progress_deadline(Some(SECOND)).inbox_capacity(64), script.factory("a"));
        let running = root.start().await.unwrap();
        let begin = Instant::now();
        for number in 0.. {
            a.send(Slow(number, SECOND / 10)).await.unwrap();
            if begin.elapsed() > MINUTE {
                break;
            }
        }
        let child = record(&running, "a");
        assert!(child.inbox.depth >= 60, "{:?}", child.inbox);
        assert_eq!(child.restarts, 0);
    });
}

#[test]
fn without_a_deadline_nobody_is_stuck() {
    paused(async {
        let script = Script::default();
        let mut root = Supervisor::new("root", Strategy::OneForOne, Intensity::default());
        let a = root.child(spec("a").progress_deadline(None), script.factory("a"));
        let running = root.start().await.unwrap();
        a.try_send(hang()).unwrap();
        a.try_send(Note(1)).unwrap();
        sleep(MINUTE * 10).await;
        assert_eq!((record(&running, "a").restarts, record(&running, "a").inbox.depth), (0, 1));
    });
}

#[test]
fn a_temporary_child_that_is_stuck_is_over_and_its_senders_are_told() {
    paused(async {
        let script = Script::default();
        let mut root = Supervisor::new("root", Strategy::OneForOne, Intensity::default());
        let a = root.child(spec("a").restart(Restart::Temporary), script.factory("a"));
        let running = root.start().await.unwrap();
        a.try_send(hang()).unwrap();
        a.try_send(Note(1)).unwrap();
        until("the end", || record(&running, "a").state == ChildState::Stopped).await;
        settle().await;
        assert_eq!((record(&running, "a").inbox.abandoned, script.alive()), (1, 0));
    });
}

#[test]
fn a_supervisor_that_was_held_up_itself_takes_nobody_for_stuck() {
    paused(async {
        let waiting = Standing { waiting: 1, moved: 7 };
        let mut progress = Progress::new(Instant::now(), Some(SECOND * 4));
        assert!(!progress.look(Instant::now(), SECOND * 4, waiting));
        // One look after an hour is one look.
        sleep(MINUTE * 60 - SECOND).await;
        for _ in 0..3 {
            assert!(!progress.look(Instant::now(), SECOND * 4, waiting));
            assert_eq!(progress.next() - Instant::now(), SECOND);
        }
        assert!(progress.look(Instant::now(), SECOND * 4, waiting));
        assert!(!progress.look(Instant::now(), SECOND * 4, Standing { waiting: 1, moved: 8 }));
    });
}

async fn until_long(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < MINUTE * 30, "{what} did not happen within half an hour");
        sleep(SECOND).await;
    }
}

/// An actor whose handler blocks its thread until it is let go, in real time.
struct Blocked {
    script: Script,
    running: RunningTree,
    a: ActorRef<Worker>,
    let_go: std::sync::mpsc::Sender<()>,
}

impl Blocked {
    async fn start(place: impl FnOnce(ChildSpec) -> ChildSpec) -> Self {
        let script = Script::default();
        let mut root = Supervisor::new("root", Strategy::OneForOne, Intensity::default());
        let spec = spec("a").progress_deadline(Some(SECOND / 4)).start_deadline(SECOND);
        let a = root.child(place(spec), script.factory("a"));
        let running = root.start().await.unwrap();
        let (blocked, is_blocked) = oneshot::channel();
        let (let_go, gate) = std::sync::mpsc::channel::<()>();
        a.try_send(Run::new(move |_, _| {
            blocked.send(()).unwrap();
            gate.recv().unwrap_err();
        }))
        .unwrap();
        a.try_send(Note(1)).unwrap();
        is_blocked.await.unwrap();
        Self { script, running, a, let_go }
    }
}

#[test]
fn where_a_handler_blocks_the_only_arbiter_that_its_actor_may_live_on_the_supervisor_gives_up() {
    threads(async {
        let arbiter = Arbiter::new();
        let blocked = Blocked::start(|spec| spec.arbiter(arbiter.handle())).await;
        let failure = blocked.running.escalated().await;
        assert_eq!(failure.message, "a cannot be restarted: its arbiter took no start within 1s");
        let child = record(&blocked.running, "a");
        assert_eq!((child.stuck, child.restarts, child.state), (1, 1, ChildState::Stopped));
        assert_eq!(child.last_failure.unwrap().cause, FailureCause::ArbiterBlocked);
        assert_eq!((child.inbox.lost, child.inbox.depth, child.inbox.handled), (1, 1, 0));

        // What was fenced comes back and finds nothing to do; so does the start that came too late.
        drop(blocked.let_go);
        arbiter.stop();
        arbiter.join().unwrap();
        assert_eq!(blocked.script.log(), ["a started", "a drop"]);
        assert_eq!(blocked.running.shutdown(MINUTE).await.abandoned, 1);
    });
}

#[test]
fn an_actor_that_may_live_elsewhere_leaves_the_arbiter_that_its_handler_blocks() {
    threads(async {
        let arbiters = [Arbiter::new(), Arbiter::new()];
        let handles = Mutex::new(arbiters.iter().map(Arbiter::handle).collect::<Vec<_>>());
        let blocked = Blocked::start(|spec| spec.placed(move || handles.lock().pop().unwrap())).await;
        assert_eq!(blocked.a.ask(Note(2), MINUTE).await.unwrap(), 2);
        let child = record(&blocked.running, "a");
        assert_eq!((child.stuck, child.restarts, child.inbox.lost), (1, 1, 1));
        assert_eq!(blocked.script.log(), ["a started", "a started", "a: 1", "a: 2"]);
        drop(blocked.let_go);
        assert!(blocked.running.shutdown(MINUTE).await.is_clean());
        for arbiter in arbiters {
            arbiter.stop();
            arbiter.join().unwrap();
        }
        assert_eq!(blocked.script.alive(), 0);
    });
}

#[test]
fn a_choice_of_an_arbiter_that_panics_is_a_failed_start() {
    paused(async {
        let script = Script::default();
        let mut root = Supervisor::new("root", Strategy::OneForOne, Intensity::default());
        let times = Mutex::new(0);
        let choose = move || {
            *times.lock() += 1;
            assert!(*times.lock() != 2, "no arbiter to be had");
            Arbiter::current()
        };
        let a = root.child(spec("a").placed(choose), script.factory("a"));
        let running = root.start().await.unwrap();
        a.try_send(Run::new(|_, _| panic!("boom"))).unwrap();
        until("the restart", || record(&running, "a").incarnation == 3).await;
        assert_eq!(record(&running, "a").last_failure.unwrap().message, "no arbiter to be had");
        assert_eq!(a.ask(Note(1), SECOND).await.unwrap(), 1);
    });
}

#[test]
fn an_actor_that_spawns_its_work_is_left_alone() {
    /// Takes messages at once, and works on them beside.
    fn beside() -> Run {
        Run::new(|actor, ctx| {
            let work = sleep(MINUTE).into_actor(actor).map(|(), actor, _| actor.script.note("done"));
            ctx.spawn(work);
        })
    }
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        for _ in 0..10 {
            tree.refs[0].try_send(beside()).unwrap();
        }
        until_long("the work", || tree.script.seen("done") == 10).await;
        assert_eq!(tree.record("a").restarts, 0);
    });
}
