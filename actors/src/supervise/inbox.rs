//! The durable inbox: it belongs to a child's definition, not to an incarnation of its actor, so
//! that what waits in it outlives a crash.
//!
//! ```text
//!            accepted                   in hand (0 or 1)
//! senders ──────────────► depth ──take──────────────────► handled
//!                           │                  │
//!                           │ abandoned        │ lost (its handler died, or was given up on)
//!                           ▼                  ▼
//! ```
//!
//! At every moment accepted = handled + lost + abandoned + depth + in hand.
//!
//! Incarnations are fenced by number: only the one that the inbox belongs to may take from it, and
//! the number is compared under the same lock as the taking. A thread that was given up on finds the
//! inbox closed to it, whenever it comes back.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
    task::{Context as TaskContext, Poll},
    thread,
};

use actix::{
    Actor, Context, Handler, Message,
    dev::{MessageResponse, OneshotSender},
};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::mpsc::{self, error::TryRecvError};

use super::errors::{Closed, TrySendError};

/// How often [`Inbox::abandon`] looks again for a sender that holds a slot, but has not filled it yet.
const STRAGGLER_LOOKS: u32 = 1_000;

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

/// What an incarnation gets when it asks for the next message.
pub(super) enum Take<A: Actor> {
    /// A message, which is in hand from now on.
    Next(Envelope<A>),
    /// None at present; the task is woken when there is one.
    Empty,
    /// The inbox is closed and empty.
    Drained,
    /// The incarnation is to take no more, though others may come after it.
    Halted,
    /// The inbox belongs to another incarnation by now.
    Fenced,
}

/// Where the messages of an inbox are, for its child's record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct InboxCounts {
    /// Messages that the inbox ever took.
    pub accepted: u64,
    /// Messages whose handler returned.
    pub handled: u64,
    /// Messages whose handler died with them, or was given up on.
    pub lost: u64,
    /// Messages that no handler saw before the child was stopped for good.
    pub abandoned: u64,
    /// Messages with a handler at this moment, 0 or 1.
    pub in_hand: u64,
    /// Messages that wait.
    pub depth: u64,
}

/// The inbox of one child.
pub(super) struct Inbox<A: Actor> {
    sender: mpsc::Sender<Envelope<A>>,
    /// Counted before a message can be taken, so never behind what was taken.
    accepted: AtomicU64,
    intake: Mutex<Intake<A>>,
}

/// The taking end. Nothing that runs under its lock can panic.
struct Intake<A: Actor> {
    receiver: mpsc::Receiver<Envelope<A>>,
    /// The incarnation that may take; 0 is nobody.
    owner: u64,
    halted: bool,
    /// The type of the message in hand.
    in_hand: Option<&'static str>,
    handled: u64,
    lost: u64,
    abandoned: u64,
}

impl<A: Actor> Intake<A> {
    fn lose(&mut self) -> Option<&'static str> {
        let in_hand = self.in_hand.take();
        self.lost += u64::from(in_hand.is_some());
        in_hand
    }
}

impl<A: Actor<Context = Context<A>>> Inbox<A> {
    /// An empty inbox for `capacity` messages, at least one.
    pub(super) fn new(capacity: usize) -> Self {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        let intake =
            Intake { receiver, owner: 0, halted: false, in_hand: None, handled: 0, lost: 0, abandoned: 0 };
        Self { sender, accepted: AtomicU64::new(0), intake: Mutex::new(intake) }
    }

    /// Takes a message, or hands it back; a refusal allocates nothing.
    pub(super) fn try_tell<M>(&self, message: M) -> Result<(), TrySendError<M>>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
    {
        match self.sender.try_reserve() {
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
        match self.sender.reserve().await {
            Ok(slot) => {
                self.fill(slot, Box::new(Told(message)));
                Ok(())
            }
            Err(_) => Err(Closed(message)),
        }
    }

    /// Waits for a slot; `None` where the inbox is closed.
    pub(super) async fn reserve(&self) -> Option<mpsc::Permit<'_, Envelope<A>>> {
        self.sender.reserve().await.ok()
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

    // Nobody holds a slot for longer than this takes: no await lies between a slot and its filling.
    fn fill(&self, slot: mpsc::Permit<'_, Envelope<A>>, envelope: Envelope<A>) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        slot.send(envelope);
    }

    /// Messages that wait, including those that are being sent at this moment.
    pub(super) fn depth(&self) -> usize {
        self.sender.max_capacity() - self.sender.capacity()
    }

    /// The next message for `incarnation`; the one it had in hand is handled.
    pub(super) fn take(&self, incarnation: u64, cx: &mut TaskContext<'_>) -> Take<A> {
        let mut intake = self.intake.lock();
        if intake.owner != incarnation {
            return Take::Fenced;
        }
        if intake.in_hand.take().is_some() {
            intake.handled += 1;
        }
        if intake.halted {
            return Take::Halted;
        }
        match intake.receiver.poll_recv(cx) {
            Poll::Ready(Some(envelope)) => {
                intake.in_hand = Some(envelope.message_type());
                Take::Next(envelope)
            }
            Poll::Ready(None) => Take::Drained,
            Poll::Pending => Take::Empty,
        }
    }

    /// The handler of `incarnation` returned, and takes nothing at present.
    pub(super) fn settle(&self, incarnation: u64) {
        let mut intake = self.intake.lock();
        if intake.owner == incarnation && intake.in_hand.take().is_some() {
            intake.handled += 1;
        }
    }
}

/// The inbox as supervision sees it, whatever its actor is.
pub(super) trait Gate: Send + Sync {
    /// From now on only `incarnation` may take. What another had in hand is lost.
    fn admit(&self, incarnation: u64);
    /// From now on nobody may take. What was in hand is lost.
    fn fence(&self);
    /// The owner is to take no more; what waits is for the next one.
    fn halt(&self);
    /// No more messages are accepted; what waits may still be taken.
    fn close(&self);
    /// The inbox is over: what waits is abandoned. Returns how many messages are abandoned by now.
    fn abandon(&self) -> u64;
    /// `incarnation` died: what it had in hand is lost. Returns the full name of its type.
    fn forfeit(&self, incarnation: u64) -> Option<&'static str>;
    /// Takes a message that panics in its handler's place.
    fn crash(&self, why: &'static str) -> Result<(), TrySendError<()>>;
    /// Where the messages are.
    fn counts(&self) -> InboxCounts;
}

impl<A: Actor<Context = Context<A>>> Gate for Inbox<A> {
    fn admit(&self, incarnation: u64) {
        let mut intake = self.intake.lock();
        intake.lose();
        intake.owner = incarnation;
        intake.halted = false;
    }

    fn fence(&self) {
        self.admit(0);
    }

    fn halt(&self) {
        self.intake.lock().halted = true;
    }

    fn close(&self) {
        self.intake.lock().receiver.close();
    }

    fn abandon(&self) -> u64 {
        self.close();
        let mut looks = 0;
        loop {
            let mut intake = self.intake.lock();
            match intake.receiver.try_recv() {
                Ok(envelope) => {
                    intake.abandoned += 1;
                    drop(intake);
                    // Whatever a message's own drop does, the next ones are to be counted too.
                    let _panic = catch_unwind(AssertUnwindSafe(|| drop(envelope)));
                }
                // A sender got its slot before the closing and is about to fill it; or it waited for
                // one, and will find the inbox closed when it is polled next.
                Err(TryRecvError::Empty) if looks < STRAGGLER_LOOKS => {
                    drop(intake);
                    looks += 1;
                    thread::yield_now();
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return intake.abandoned,
            }
        }
    }

    fn forfeit(&self, incarnation: u64) -> Option<&'static str> {
        let mut intake = self.intake.lock();
        if intake.owner == incarnation { intake.lose() } else { None }
    }

    fn crash(&self, why: &'static str) -> Result<(), TrySendError<()>> {
        match self.sender.try_reserve() {
            Ok(slot) => {
                self.fill(slot, Box::new(Crash(why)));
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(())) => Err(TrySendError::Full(())),
            Err(mpsc::error::TrySendError::Closed(())) => Err(TrySendError::Closed(())),
        }
    }

    fn counts(&self) -> InboxCounts {
        let intake = self.intake.lock();
        let (handled, lost, abandoned) = (intake.handled, intake.lost, intake.abandoned);
        let in_hand = u64::from(intake.in_hand.is_some());
        let accepted = self.accepted.load(Ordering::Relaxed);
        drop(intake);
        let depth = accepted.saturating_sub(handled + lost + abandoned + in_hand);
        InboxCounts { accepted, handled, lost, abandoned, in_hand, depth }
    }
}
