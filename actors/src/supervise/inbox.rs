//! The inbox of an actor: a durable [`Queue`] of messages of any type that the actor handles.

use actix::{
    Actor, Context, Handler, Message,
    dev::{MessageResponse, OneshotSender},
};
use tokio::sync::mpsc;

use super::{
    errors::{Closed, TrySendError},
    queue::Queue,
};

/// A message on its way, its type erased.
pub(super) type Envelope<A> = Box<dyn Handle<A> + Send>;

/// What can be done with a message whose type is erased.
pub(super) trait Handle<A: Actor> {
    /// Calls the actor's handler.
    fn handle(self: Box<Self>, actor: &mut A, ctx: &mut A::Context);
    /// The full name of the message's type.
    fn message_type(&self) -> &'static str;
}

struct Told<M>(M);

struct Asked<M: Message> {
    message: M,
    reply: OneshotSender<M::Result>,
}

impl<A, M> Handle<A> for Told<M>
where
    A: Handler<M>,
    M: Message + Send + 'static,
{
    fn handle(self: Box<Self>, actor: &mut A, ctx: &mut A::Context) {
        actor.handle(self.0, ctx).handle(ctx, None);
    }

    fn message_type(&self) -> &'static str {
        std::any::type_name::<M>()
    }
}

impl<A, M> Handle<A> for Asked<M>
where
    A: Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn handle(self: Box<Self>, actor: &mut A, ctx: &mut A::Context) {
        let Self { message, reply } = *self;
        actor.handle(message, ctx).handle(ctx, Some(reply));
    }

    fn message_type(&self) -> &'static str {
        std::any::type_name::<M>()
    }
}

/// A message that no handler survives.
struct Crash(&'static str);

impl<A: Actor> Handle<A> for Crash {
    #[allow(clippy::panic, reason = "that is what it is for")]
    fn handle(self: Box<Self>, _actor: &mut A, _ctx: &mut A::Context) {
        panic!("{}", self.0);
    }

    fn message_type(&self) -> &'static str {
        std::any::type_name::<Self>()
    }
}

/// The inbox of one actor.
pub(super) type Inbox<A> = Queue<Envelope<A>>;

/// An empty inbox for `capacity` messages, at least one.
pub(super) fn inbox<A: Actor>(capacity: usize) -> Inbox<A> {
    Queue::new(capacity, |envelope| envelope.message_type(), Some(|why| Box::new(Crash(why))))
}

impl<A: Actor<Context = Context<A>>> Inbox<A> {
    /// Takes a message, or hands it back; a refusal allocates nothing.
    pub(super) fn try_tell<M>(&self, message: M) -> Result<(), TrySendError<M>>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
    {
        match self.try_reserve() {
            Ok(slot) => {
                self.fill(slot, Box::new(Told(message)));
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(())) => Err(TrySendError::Full(message)),
            Err(mpsc::error::TrySendError::Closed(())) => Err(TrySendError::Closed(message)),
        }
    }

    /// Waits for a slot and fills it.
    pub(super) async fn tell<M>(&self, message: M) -> Result<(), Closed<M>>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
    {
        match self.reserve().await {
            Some(slot) => {
                self.fill(slot, Box::new(Told(message)));
                Ok(())
            }
            None => Err(Closed(message)),
        }
    }

    /// Fills a slot with a message that nobody waits for.
    pub(super) fn tell_into<M>(&self, slot: mpsc::Permit<'_, Envelope<A>>, message: M)
    where
        A: Handler<M>,
        M: Message + Send + 'static,
    {
        self.fill(slot, Box::new(Told(message)));
    }

    /// Fills a slot with a message whose answer goes to `reply`.
    pub(super) fn ask<M>(
        &self,
        slot: mpsc::Permit<'_, Envelope<A>>,
        message: M,
        reply: OneshotSender<M::Result>,
    ) where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        self.fill(slot, Box::new(Asked { message, reply }));
    }
}
