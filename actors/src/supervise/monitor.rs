//! One incarnation of an actor, watched: its panic ends it, and nothing else.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context as TaskContext, Poll, Waker},
};

use actix::{Actor, ActorContext, Context, dev::ContextFut};
use futures_util::task::AtomicWaker;

use super::failure::{Failure, FailureCause, watch};

/// The string by which an incarnation is held, from any thread.
#[derive(Default)]
pub(super) struct Life {
    killed: AtomicBool,
    crash: OnceLock<&'static str>,
    born: AtomicBool,
    waker: AtomicWaker,
}

impl Life {
    /// Ends the incarnation without any hook, as soon as its thread comes to it.
    pub(super) fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Makes the incarnation panic with this text; of several, the first one counts.
    pub(super) fn crash(&self, why: &'static str) {
        let _first_one_counts = self.crash.set(why);
        self.waker.wake();
    }

    #[allow(clippy::panic, reason = "that is what it is for")]
    fn crash_if_told(&self) {
        if let Some(why) = self.crash.get() {
            panic!("{why}");
        }
    }

    /// Lets the incarnation look at its inbox.
    pub(super) fn nudge(&self) {
        self.waker.wake();
    }

    /// Who is woken by the other calls.
    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    pub(super) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// Its thread begins to make it.
    pub(super) fn born(&self) {
        self.born.store(true, Ordering::Release);
    }

    pub(super) fn is_born(&self) -> bool {
        self.born.load(Ordering::Acquire)
    }
}

/// How an incarnation ended.
pub(super) enum Exit {
    /// It stopped, by itself or because it was told to.
    Normal,
    /// Its [`Life`] was taken.
    Killed,
    /// It failed.
    Failed(Failure),
}

/// Who is told how an incarnation ended; told exactly once.
pub(super) trait Watcher: Unpin + 'static {
    /// It ended.
    fn ended(self, exit: Exit);
}

/// A watcher on its way with its incarnation. Dropped untold, because the thread ended under it, it
/// says so.
pub(super) struct Watching<W: Watcher>(Option<W>);

impl<W: Watcher> Watching<W> {
    pub(super) fn new(watcher: W) -> Self {
        Self(Some(watcher))
    }

    pub(super) fn ended(&mut self, exit: Exit) {
        if let Some(watcher) = self.0.take() {
            watcher.ended(exit);
        }
    }
}

impl<W: Watcher> Drop for Watching<W> {
    fn drop(&mut self) {
        self.ended(Exit::Failed(Failure::new(FailureCause::ArbiterGone, "arbiter is gone")));
    }
}

/// The task of one incarnation.
pub(super) struct Monitor<A: Actor<Context = Context<A>>, W: Watcher> {
    actor: Option<ContextFut<A, Context<A>>>,
    life: Arc<Life>,
    watching: Watching<W>,
}

impl<A: Actor<Context = Context<A>>, W: Watcher> Monitor<A, W> {
    pub(super) fn new(actor: ContextFut<A, Context<A>>, life: Arc<Life>, watching: Watching<W>) -> Self {
        Self { actor: Some(actor), life, watching }
    }

    /// Terminated first, a context runs no hook when it is dropped: the actor may be torn.
    fn discard(&mut self) -> Result<(), Failure> {
        let Some(mut actor) = self.actor.take() else { return Ok(()) };
        watch(move || {
            actor.ctx().terminate();
            drop(actor);
        })
        .result
    }

    fn end(&mut self, exit: Exit) {
        let exit = match (exit, self.discard()) {
            (Exit::Normal, Err(panic)) => Exit::Failed(panic),
            (exit, _) => exit,
        };
        self.watching.ended(exit);
    }
}

impl<A: Actor<Context = Context<A>>, W: Watcher> Future for Monitor<A, W> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.life.register(cx.waker());
        if this.life.is_killed() {
            this.end(Exit::Killed);
            return Poll::Ready(());
        }
        let Some(actor) = &mut this.actor else { return Poll::Ready(()) };
        let life = &this.life;
        let watched = watch(|| {
            life.crash_if_told();
            Pin::new(actor).poll(cx)
        });
        let exit = match (watched.result, watched.failed) {
            (Err(panic), _) => Exit::Failed(panic),
            (Ok(_), Some(why)) => Exit::Failed(Failure::new(FailureCause::Failed, why)),
            (Ok(Poll::Ready(())), None) => Exit::Normal,
            (Ok(Poll::Pending), None) => return Poll::Pending,
        };
        this.end(exit);
        Poll::Ready(())
    }
}

impl<A: Actor<Context = Context<A>>, W: Watcher> Drop for Monitor<A, W> {
    fn drop(&mut self) {
        let _panic_of_a_drop = self.discard();
    }
}
