//! Stable references to supervised actors.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use actix::{Actor, Context, Handler, Message};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};

use super::{
    errors::{AskError, Closed, TrySendError},
    inbox::Inbox,
    queue::{Gate, Queue},
    settings::after,
};

/// A stable reference to a supervised actor: it stays valid while the actor crashes, is restarted
/// and moves between threads. Messages sent in between wait in the inbox.
///
/// Messages of one sender are handled in the order in which they were accepted.
pub struct ActorRef<A: Actor> {
    inbox: Arc<Inbox<A>>,
}

impl<A: Actor<Context = Context<A>>> ActorRef<A> {
    pub(super) fn new(inbox: Arc<Inbox<A>>) -> Self {
        Self { inbox }
    }

    /// Puts a message into the inbox.
    ///
    /// # Errors
    /// [`TrySendError`], with the message, where the inbox is full or closed.
    pub fn try_send<M>(&self, message: M) -> Result<(), TrySendError<M>>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        self.inbox.try_tell(message)
    }

    /// Puts a message into the inbox, and waits for room where there is none. Dropped while it
    /// waits, the message is not sent.
    ///
    /// # Errors
    /// [`Closed`], with the message, where the actor is stopped for good.
    pub async fn send<M>(&self, message: M) -> Result<(), Closed<M>>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        self.inbox.tell(message).await
    }

    /// Sends a message and waits for its answer, `limit` altogether.
    ///
    /// # Errors
    /// [`AskError`]; it hands the message back where the actor never saw it.
    pub async fn ask<M>(&self, message: M, limit: Duration) -> Result<M::Result, AskError<M>>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        let deadline = after(Instant::now(), limit);
        let slot = match timeout_at(deadline, self.inbox.reserve()).await {
            Ok(Some(slot)) => slot,
            Ok(None) => return Err(AskError::Closed(message)),
            Err(_) => return Err(AskError::NotAccepted(message)),
        };
        let (reply, answer) = oneshot::channel();
        self.inbox.ask(slot, message, reply);
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(AskError::Lost),
            Err(_) => Err(AskError::Timeout),
        }
    }

    /// Makes the actor panic with this text when the messages before have been handled: for demonstrations
    /// and tests of what a crash does.
    ///
    /// # Errors
    /// [`TrySendError`] where the inbox is full or closed.
    pub fn crash(&self, why: &'static str) -> Result<(), TrySendError<()>> {
        self.inbox.crash(why)
    }

    /// Messages that wait in the inbox, including those that are being sent at this moment.
    pub fn depth(&self) -> usize {
        self.inbox.depth()
    }

    /// The same inbox for one type of message, without the actor's type: what neighbours are handed.
    pub fn recipient<M>(&self) -> Recipient<M>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        Recipient { accept: Arc::clone(&self.inbox) as Arc<dyn Accept<M>> }
    }
}

impl<A: Actor> Clone for ActorRef<A> {
    fn clone(&self) -> Self {
        Self { inbox: Arc::clone(&self.inbox) }
    }
}

impl<A: Actor> fmt::Debug for ActorRef<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorRef").finish_non_exhaustive()
    }
}

/// Whoever takes messages of type `M`. A stage knows the next stage's messages, not its actor.
pub struct Recipient<M> {
    accept: Arc<dyn Accept<M>>,
}

impl<M: Send + 'static> Recipient<M> {
    /// A recipient that is a plain bounded channel, and its other end: for a consumer that is no
    /// actor, and for tests.
    pub fn channel(capacity: usize) -> (Self, mpsc::Receiver<M>) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        (Self { accept: Arc::new(sender) }, receiver)
    }

    pub(super) fn of_thread(inbox: Arc<Queue<M>>) -> Self {
        Self { accept: Arc::new(OfThread(inbox)) }
    }

    /// As [`ActorRef::try_send`].
    ///
    /// # Errors
    /// [`TrySendError`], with the message, where the inbox is full or closed.
    pub fn try_send(&self, message: M) -> Result<(), TrySendError<M>> {
        self.accept.try_accept(message)
    }

    /// As [`ActorRef::send`]. Allocates only where it has to wait.
    ///
    /// # Errors
    /// [`Closed`], with the message, where the actor is stopped for good.
    pub async fn send(&self, message: M) -> Result<(), Closed<M>> {
        match self.accept.try_accept(message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(message)) => Err(Closed(message)),
            Err(TrySendError::Full(message)) => self.accept.accept(message).await,
        }
    }

    /// As [`Recipient::send`], but waits for room no longer than `limit`.
    ///
    /// # Errors
    /// [`TrySendError`], with the message: `Full` where there was no room within the limit.
    pub async fn send_within(&self, message: M, limit: Duration) -> Result<(), TrySendError<M>> {
        match self.accept.try_accept(message) {
            Err(TrySendError::Full(message)) => self.accept.accept_within(message, limit).await,
            sent_or_closed => sent_or_closed,
        }
    }

    /// As [`ActorRef::depth`].
    pub fn depth(&self) -> usize {
        self.accept.depth()
    }
}

impl<M> Clone for Recipient<M> {
    fn clone(&self) -> Self {
        Self { accept: Arc::clone(&self.accept) }
    }
}

impl<M> fmt::Debug for Recipient<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recipient").finish_non_exhaustive()
    }
}

type Accepting<'a, E> = Pin<Box<dyn Future<Output = Result<(), E>> + Send + 'a>>;

trait Accept<M>: Send + Sync {
    fn try_accept(&self, message: M) -> Result<(), TrySendError<M>>;
    fn accept(&self, message: M) -> Accepting<'_, Closed<M>>;
    fn accept_within(&self, message: M, limit: Duration) -> Accepting<'_, TrySendError<M>>;
    fn depth(&self) -> usize;
}

impl<A, M> Accept<M> for Inbox<A>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn try_accept(&self, message: M) -> Result<(), TrySendError<M>> {
        self.try_tell(message)
    }

    fn accept(&self, message: M) -> Accepting<'_, Closed<M>> {
        Box::pin(self.tell(message))
    }

    fn accept_within(&self, message: M, limit: Duration) -> Accepting<'_, TrySendError<M>> {
        Box::pin(async move {
            match timeout(limit, self.reserve()).await {
                Ok(Some(slot)) => {
                    self.tell_into(slot, message);
                    Ok(())
                }
                Ok(None) => Err(TrySendError::Closed(message)),
                Err(_) => Err(TrySendError::Full(message)),
            }
        })
    }

    fn depth(&self) -> usize {
        Queue::depth(self)
    }
}

struct OfThread<M>(Arc<Queue<M>>);

impl<M: Send + 'static> Accept<M> for OfThread<M> {
    fn try_accept(&self, message: M) -> Result<(), TrySendError<M>> {
        match self.0.try_reserve() {
            Ok(slot) => {
                self.0.fill(slot, message);
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(())) => Err(TrySendError::Full(message)),
            Err(mpsc::error::TrySendError::Closed(())) => Err(TrySendError::Closed(message)),
        }
    }

    fn accept(&self, message: M) -> Accepting<'_, Closed<M>> {
        Box::pin(async move {
            match self.0.reserve().await {
                Some(slot) => {
                    self.0.fill(slot, message);
                    Ok(())
                }
                None => Err(Closed(message)),
            }
        })
    }

    fn accept_within(&self, message: M, limit: Duration) -> Accepting<'_, TrySendError<M>> {
        Box::pin(async move {
            match timeout(limit, self.0.reserve()).await {
                Ok(Some(slot)) => {
                    self.0.fill(slot, message);
                    Ok(())
                }
                Ok(None) => Err(TrySendError::Closed(message)),
                Err(_) => Err(TrySendError::Full(message)),
            }
        })
    }

    fn depth(&self) -> usize {
        self.0.depth()
    }
}

impl<M: Send + 'static> Accept<M> for mpsc::Sender<M> {
    fn try_accept(&self, message: M) -> Result<(), TrySendError<M>> {
        self.try_send(message).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(message) => TrySendError::Full(message),
            mpsc::error::TrySendError::Closed(message) => TrySendError::Closed(message),
        })
    }

    fn accept(&self, message: M) -> Accepting<'_, Closed<M>> {
        Box::pin(async move { self.send(message).await.map_err(|refused| Closed(refused.0)) })
    }

    fn accept_within(&self, message: M, limit: Duration) -> Accepting<'_, TrySendError<M>> {
        Box::pin(async move {
            self.send_timeout(message, limit).await.map_err(|refused| match refused {
                mpsc::error::SendTimeoutError::Timeout(message) => TrySendError::Full(message),
                mpsc::error::SendTimeoutError::Closed(message) => TrySendError::Closed(message),
            })
        })
    }

    fn depth(&self) -> usize {
        self.max_capacity() - self.capacity()
    }
}
