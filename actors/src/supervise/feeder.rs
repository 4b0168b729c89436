//! Feeds an actor from its inbox, inside its own context.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use actix::{Actor, ActorContext, ActorFuture, AsyncContext, Context};

use super::{child::Ready, inbox::Inbox, queue::Take};

/// Messages handled in one go; then the actor's other futures and its neighbours have their turn.
const BUDGET: usize = 64;

/// The future that takes from the inbox for one incarnation. Its first poll comes after `started`
/// and after all that `started` waits for: the incarnation is ready.
pub(super) struct Feeder<A: Actor> {
    inbox: Arc<Inbox<A>>,
    incarnation: u64,
    ready: Option<Ready>,
    stopping: bool,
}

impl<A: Actor> Feeder<A> {
    pub(super) fn new(inbox: Arc<Inbox<A>>, incarnation: u64, ready: Ready) -> Self {
        Self { inbox, incarnation, ready: Some(ready), stopping: false }
    }
}

impl<A: Actor<Context = Context<A>>> ActorFuture<A> for Feeder<A> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, actor: &mut A, ctx: &mut Context<A>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        if let Some(ready) = this.ready.take() {
            ready.report();
        }
        // An actor that refuses to stop is not asked again: it stops itself, or is given up on.
        if this.stopping {
            return Poll::Pending;
        }
        for _ in 0..BUDGET {
            match this.inbox.take(this.incarnation, cx) {
                Take::Next(envelope) => envelope.handle(actor, ctx),
                Take::Empty => return Poll::Pending,
                Take::Drained | Take::Halted => {
                    this.stopping = true;
                    ctx.stop();
                    return Poll::Pending;
                }
                // Its monitor lets it go without a hook.
                Take::Fenced => return Poll::Pending,
            }
            // The handler has put a future in front of the next message, or stops the actor. The
            // context polls this again afterwards.
            if ctx.waiting() {
                this.inbox.settle(this.incarnation);
                return Poll::Pending;
            }
        }
        this.inbox.settle(this.incarnation);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
