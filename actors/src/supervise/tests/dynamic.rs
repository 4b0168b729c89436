//! Dynamic children.

use std::{sync::Arc, time::Duration};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use actix_rt::{Arbiter, ArbiterHandle};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::supervise::{
    AdmissionError, ChildKind, ChildState, DynamicRef, DynamicSpec, FailureCause, Intensity, PanicRate,
    RunningTree, StartError, StopSignal, Strategy, Supervisor,
    testing::{exact_backoff, paused, record, settle, threads, until},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// What a connection of the tests does when it is told to.
#[derive(Clone, Copy, PartialEq)]
enum OnStop {
    EndAfter(Duration),
    Ignore,
}

struct Connection {
    faults: Faults,
    stop: StopSignal,
    on_stop: OnStop,
    _socket: Arc<()>,
}

impl Actor for Connection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Faults { crash, fail } = self.faults.clone();
        let (stop, on_stop) = (self.stop.clone(), self.on_stop);
        ctx.spawn(async move { crash.notified().await }.into_actor(self).map(|(), _, _| panic!("bad frame")));
        ctx.spawn(
            async move { fail.notified().await }
                .into_actor(self)
                .map(|(), _, ctx| crate::supervise::fail(ctx, "reset by peer")),
        );
        let end = async move {
            stop.wait().await;
            match on_stop {
                OnStop::EndAfter(pause) => tokio::time::sleep(pause).await,
                OnStop::Ignore => std::future::pending().await,
            }
        };
        ctx.spawn(end.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

/// How a connection is made to crash, and to fail.
#[derive(Clone, Default)]
struct Faults {
    crash: Arc<Notify>,
    fail: Arc<Notify>,
}

struct Set {
    running: RunningTree,
    connections: DynamicRef,
    arbiter: ArbiterHandle,
    socket: Arc<()>,
    faults: Mutex<Vec<Faults>>,
}

impl Set {
    async fn start(spec: DynamicSpec) -> Self {
        let mut root = Supervisor::new("root", Strategy::OneForOne, Intensity::default());
        let connections = root.dynamic(spec.backoff(exact_backoff()));
        let running = root.start().await.unwrap();
        let arbiter = Arbiter::current();
        Self { running, connections, arbiter, socket: Arc::default(), faults: Mutex::default() }
    }

    fn open(&self, on_stop: OnStop) -> Result<crate::supervise::ChildHandle, AdmissionError> {
        let faults = Faults::default();
        let socket = Arc::clone(&self.socket);
        self.faults.lock().push(faults.clone());
        let handle = self.connections.start(&self.arbiter, "peer", move |stop| {
            Ok(Connection { faults, stop, on_stop, _socket: socket })
        })?;
        Ok(handle)
    }

    fn crash(&self, index: usize) {
        self.faults.lock()[index].crash.notify_one();
    }

    fn sockets(&self) -> usize {
        Arc::strong_count(&self.socket) - 1
    }
}

fn quick() -> OnStop {
    OnStop::EndAfter(Duration::ZERO)
}

#[test]
fn a_panic_ends_that_child_only_and_is_counted() {
    paused(async {
        let set = Set::start(DynamicSpec::new("connections", 100)).await;
        for _ in 0..3 {
            set.open(quick()).unwrap();
        }
        settle().await;
        set.crash(1);
        settle().await;
        assert_eq!((set.connections.live(), set.sockets()), (2, 2));
        let record = record(&set.running, "connections");
        assert_eq!(
            (record.kind, record.state, record.restarts),
            (ChildKind::Dynamic, ChildState::Running, 0)
        );
        assert_eq!(record.panics, 1);
        let failure = record.last_failure.unwrap();
        assert_eq!((failure.cause, failure.message.as_str()), (FailureCause::Panicked, "bad frame"));
        assert!(failure.location.unwrap().starts_with(file!()));
        let counts = record.dynamic.unwrap();
        assert_eq!((counts.live, counts.started_total, counts.failed_total), (2, 3, 0));
    });
}

#[test]
fn a_failure_that_is_no_panic_is_counted_apart() {
    paused(async {
        let spec =
            DynamicSpec::new("connections", 100).panic_rate(PanicRate { max_panics: 0, window: MINUTE });
        let set = Set::start(spec).await;
        set.open(quick()).unwrap();
        let refuse = |_| Err::<Connection, _>(StartError::new("no such peer"));
        set.connections.start(&set.arbiter, "peer", refuse).unwrap();
        settle().await;
        set.faults.lock()[0].fail.notify_one();
        settle().await;
        let record = record(&set.running, "connections");
        assert_eq!((record.panics, record.state), (0, ChildState::Running));
        assert_eq!(record.last_failure.unwrap().message, "reset by peer");
        let counts = record.dynamic.unwrap();
        assert_eq!((counts.live, counts.started_total, counts.failed_total), (0, 2, 2));
    });
}

#[test]
fn no_more_are_admitted_than_there_may_be() {
    paused(async {
        let set = Set::start(DynamicSpec::new("connections", 2)).await;
        set.open(quick()).unwrap();
        set.open(quick()).unwrap();
        let refused = set.open(quick()).unwrap_err();
        assert_eq!(refused.to_string(), "2 children of connections are alive, which is the limit");
        settle().await;
        set.crash(0);
        settle().await;
        set.open(quick()).unwrap();
    });
}

#[test]
fn a_killed_child_drops_what_it_owns() {
    paused(async {
        let set = Set::start(DynamicSpec::new("connections", 100)).await;
        let handle = set.open(OnStop::Ignore).unwrap();
        set.open(OnStop::Ignore).unwrap();
        settle().await;
        assert_eq!(set.sockets(), 2);
        handle.kill();
        settle().await;
        assert_eq!((set.sockets(), set.connections.live()), (1, 1));
        assert_eq!(set.connections.counts().killed_total, 1);
        // One that is killed before it was made is never made.
        set.open(OnStop::Ignore).unwrap().kill();
        settle().await;
        assert_eq!((set.sockets(), set.connections.live()), (1, 1));
    });
}

#[test]
fn a_drain_is_parallel() {
    paused(async {
        let set = Set::start(DynamicSpec::new("connections", 100)).await;
        for seconds in [1, 3, 2] {
            set.open(OnStop::EndAfter(SECOND * seconds)).unwrap();
        }
        settle().await;
        let begin = Instant::now();
        let report = set.running.shutdown(MINUTE).await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(begin.elapsed().as_secs(), 3);
        assert_eq!(set.sockets(), 0);
        let refused = set.open(quick()).unwrap_err();
        assert_eq!(refused.to_string(), "connections takes no children at present");
        assert_eq!(set.connections.counts().killed_total, 0);
    });
}

#[test]
fn a_drain_is_bounded() {
    paused(async {
        let set = Set::start(DynamicSpec::new("connections", 100).stop_deadline(SECOND * 2)).await;
        for on_stop in [quick(), OnStop::Ignore, OnStop::Ignore] {
            set.open(on_stop).unwrap();
        }
        settle().await;
        let begin = Instant::now();
        let report = set.running.shutdown(MINUTE).await;
        assert_eq!(begin.elapsed(), SECOND * 2);
        assert_eq!(report.given_up, ["connections"]);
        settle().await;
        assert_eq!((set.sockets(), set.connections.live()), (0, 0));
        assert_eq!(set.connections.counts().killed_total, 2);
    });
}

#[test]
fn too_many_panics_within_the_window_fail_the_set() {
    paused(async {
        let spec =
            DynamicSpec::new("connections", 100).panic_rate(PanicRate { max_panics: 2, window: SECOND * 10 });
        let set = Set::start(spec).await;
        for _ in 0..6 {
            set.open(OnStop::Ignore).unwrap();
        }
        settle().await;
        // Two, and two more when those have left the window: bearable.
        for index in 0..4 {
            set.crash(index);
            tokio::time::sleep(SECOND * 5).await;
        }
        assert_eq!(record(&set.running, "connections").restarts, 0);
        assert_eq!(set.connections.live(), 2);

        set.open(OnStop::Ignore).unwrap();
        settle().await;
        set.crash(4);
        set.crash(5);
        settle().await;
        assert_eq!(set.connections.live(), 0, "the one that did no harm is killed with the set");
        assert!(matches!(set.open(quick()), Err(AdmissionError::Closed { .. })));
        let failed = record(&set.running, "connections");
        assert_eq!((failed.state, failed.panics), (ChildState::BackingOff, 6));
        let failure = failed.last_failure.unwrap();
        assert_eq!(failure.cause, FailureCause::Escalated);
        assert_eq!(failure.message, "more than 2 panics within 10s");

        until("the restart", || record(&set.running, "connections").state == ChildState::Running).await;
        assert_eq!(record(&set.running, "connections").restarts, 1);
        set.open(quick()).unwrap();
        settle().await;
        assert_eq!((set.connections.live(), set.sockets()), (1, 1));
        assert!(set.running.shutdown(MINUTE).await.is_clean());
    });
}

#[test]
fn an_arbiter_that_is_gone_takes_no_child_and_fails_those_it_had() {
    threads(async {
        let mut set = Set::start(DynamicSpec::new("connections", 100)).await;
        let arbiter = Arbiter::new();
        set.arbiter = arbiter.handle();
        set.open(OnStop::Ignore).unwrap();
        while set.sockets() == 0 {
            tokio::task::yield_now().await;
        }
        arbiter.stop();
        arbiter.join().unwrap();
        assert_eq!((set.connections.live(), set.sockets()), (0, 0));
        let failure = record(&set.running, "connections").last_failure.unwrap();
        assert_eq!(failure.cause, FailureCause::ArbiterGone);
        let refused = set.open(quick()).unwrap_err();
        assert_eq!(refused.to_string(), "the arbiter of peer is gone");
        assert_eq!((set.connections.live(), set.connections.counts().live), (0, 0));
        assert!(set.running.shutdown(MINUTE).await.is_clean());
    });
}

#[test]
fn a_set_that_is_not_started_takes_no_children() {
    paused(async {
        let mut root = Supervisor::new("root", Strategy::OneForOne, Intensity::default());
        let connections = root.dynamic(DynamicSpec::new("connections", 1));
        let refuse = |_| Err::<Connection, _>(StartError::new("unused"));
        let refused = connections.start(&Arbiter::current(), "peer", refuse);
        assert!(matches!(refused, Err(AdmissionError::Closed { .. })));
    });
}

#[test]
fn the_oldest_child_can_be_made_to_panic() {
    paused(async {
        let set = Set::start(DynamicSpec::new("connections", 100)).await;
        assert!(!set.connections.crash_oldest("nobody is there"));
        set.open(quick()).unwrap();
        set.open(quick()).unwrap();
        settle().await;
        assert!(set.connections.crash_oldest("one"));
        assert!(set.connections.crash_oldest("two"), "the one that is about to panic is still the oldest");
        settle().await;
        assert_eq!(set.connections.live(), 1);
        let record = record(&set.running, "connections");
        assert_eq!((record.panics, record.last_failure.unwrap().message.as_str()), (1, "one"));
    });
}
