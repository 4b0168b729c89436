//! Futures on another runtime share their actor's fate.

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use actix::{ActorFutureExt, AsyncContext, WrapFuture};
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
};

use crate::supervise::{
    FailureCause, Linked, Strategy,
    testing::{Note, Run, Tree, threads},
};

const LIMIT: Duration = Duration::from_secs(10);

/// A runtime on a thread of its own, until it is dropped.
struct Io {
    handle: Handle,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Io {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (end, ends) = oneshot::channel();
        let handle = runtime.handle().clone();
        let thread = std::thread::spawn(move || drop(runtime.block_on(ends)));
        Self { handle, end: Some(end), thread: Some(thread) }
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        drop(self.end.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A System whose time is real, because the other runtime's is.
fn with_io(test: impl AsyncFnOnce(Handle, Tree)) {
    let io = Io::start();
    threads(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        test(io.handle.clone(), tree).await;
    });
}

#[test]
fn a_linked_future_gives_its_actor_a_value() {
    with_io(async |io, tree| {
        let (told, tell) = oneshot::channel();
        let link = move |actor: &mut crate::supervise::testing::Worker, ctx: &mut actix::Context<_>| {
            let linked = Linked::spawn(&io, async { 7 });
            ctx.spawn(linked.into_actor(actor).map(move |value, _, _| told.send(value).unwrap()));
        };
        tree.refs[0].try_send(Run::new(link)).unwrap();
        assert_eq!(tell.await.unwrap(), 7);
        assert_eq!(tree.record("a").panics, 0);
    });
}

#[test]
fn a_linked_futures_panic_becomes_its_actors_with_its_location() {
    with_io(async |io, tree| {
        let (line, column) = (line!() + 2, 58);
        let link = move |actor: &mut crate::supervise::testing::Worker, ctx: &mut actix::Context<_>| {
            let linked = Linked::spawn(&io, async move { panic!("socket is on fire") });
            ctx.spawn(linked.into_actor(actor));
        };
        tree.refs[0].try_send(Run::new(link)).unwrap();
        for number in 0..10 {
            tree.refs[0].try_send(Note(number)).unwrap();
        }
        while tree.script.seen("a: 9") == 0 || tree.script.seen("a started") < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(tree.refs[0].ask(Note(10), LIMIT).await.unwrap(), 10);
        assert!((0..=10).all(|number| tree.script.seen(&format!("a: {number}")) == 1));
        let record = tree.record("a");
        assert_eq!((record.panics, record.inbox.handled, record.inbox.lost), (1, 12, 0));
        let failure = record.last_failure.unwrap();
        assert_eq!((failure.cause, failure.message.as_str()), (FailureCause::Panicked, "socket is on fire"));
        assert_eq!(failure.location, Some(format!("{}:{line}:{column}", file!())));
    });
}

#[test]
fn a_linked_future_is_aborted_with_its_actor() {
    struct Tell(Arc<Notify>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    with_io(async |io, tree| {
        let (running, aborted) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (is_running, tell) = (Arc::clone(&running), Tell(Arc::clone(&aborted)));
        let link = move |actor: &mut crate::supervise::testing::Worker, ctx: &mut actix::Context<_>| {
            let linked = Linked::spawn(&io, async move {
                is_running.notify_one();
                std::future::pending::<()>().await;
                drop(tell);
            });
            ctx.spawn(linked.into_actor(actor));
        };
        tree.refs[0].try_send(Run::new(link)).unwrap();
        running.notified().await;
        tree.refs[0].try_send(Run::new(|_, _| panic!("boom"))).unwrap();
        aborted.notified().await;
        assert_eq!(tree.record("a").last_failure.unwrap().message, "boom");
    });
}

#[test]
fn a_runtime_that_ends_under_a_linked_future_is_its_actors_failure() {
    let io = Io::start();
    threads(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        let handle = io.handle.clone();
        let link = move |actor: &mut crate::supervise::testing::Worker, ctx: &mut actix::Context<_>| {
            ctx.spawn(Linked::spawn(&handle, std::future::pending::<()>()).into_actor(actor));
        };
        tree.refs[0].ask(Run::new(link), LIMIT).await.unwrap();
        drop(io);
        while tree.record("a").panics == 0 {
            tokio::task::yield_now().await;
        }
        let failure = tree.record("a").last_failure.unwrap();
        assert_eq!(failure.message, "the runtime of a linked future is gone");
    });
}
