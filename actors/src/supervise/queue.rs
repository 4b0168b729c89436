//! The durable queue of a child: it belongs to the child's definition, not to an incarnation, so that
//! what waits in it outlives a crash.
//!
//! ```text
//!            accepted                   in hand (an actor: 0 or 1; a thread: its batch)
//! senders ──────────────► depth ──take──────────────────► handled
//!                           │                  │
//!                           │ abandoned        │ lost (its handler died, or was given up on)
//!                           ▼                  ▼
//! ```
//!
//! At every moment accepted = handled + lost + abandoned + depth + in hand.
//!
//! Incarnations are fenced by number: only the one that the queue belongs to may take from it, and
//! the number is compared under the same lock as the taking. A thread that was given up on finds the
//! queue closed to it, whenever it comes back.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
    task::{Context as TaskContext, Poll, Waker},
    thread,
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::mpsc::{
    self,
    error::{TryRecvError, TrySendError as TryReserveError},
};

use super::errors::TrySendError;

/// How often [`Gate::abandon`] looks again for a sender that holds a slot, but has not filled it yet.
const STRAGGLER_LOOKS: u32 = 1_000;

/// What an incarnation gets when it asks for the next message.
pub(super) enum Take<T> {
    /// This is in hand from now on.
    Next(T),
    /// None at present; the task is woken when there is one.
    Empty,
    /// The queue is closed and empty.
    Drained,
    /// The incarnation is to take no more, though others may come after it.
    Halted,
    /// The queue belongs to another incarnation by now.
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
    /// Messages with a handler at this moment: 0 or 1 of an actor, a batch of a thread.
    pub in_hand: u64,
    /// Messages that wait.
    pub depth: u64,
}

/// A queue of messages that waits for one child.
pub(super) struct Queue<T> {
    sender: mpsc::Sender<T>,
    /// Counted before a message can be taken, so never behind what was taken.
    accepted: AtomicU64,
    /// Signs of life between two messages.
    beats: AtomicU64,
    /// The full name of a message's type.
    type_of: fn(&T) -> &'static str,
    /// Makes a message that no handler survives, if there is such a thing.
    crash: Option<fn(&'static str) -> T>,
    /// Without such a message: why the owner is to panic when it takes the next time.
    doom: Mutex<Option<&'static str>>,
    /// Wakes an owner that waits for that.
    doomed: AtomicWaker,
    intake: Mutex<Intake<T>>,
}

/// The taking end. Nothing that runs under its lock can panic.
struct Intake<T> {
    receiver: mpsc::Receiver<T>,
    /// The incarnation that may take; 0 is nobody.
    owner: u64,
    halted: bool,
    in_hand: u64,
    /// The type of the first message in hand.
    in_hand_type: Option<&'static str>,
    handled: u64,
    lost: u64,
    abandoned: u64,
}

impl<T> Intake<T> {
    fn lose(&mut self) -> Option<&'static str> {
        self.lost += std::mem::take(&mut self.in_hand);
        self.in_hand_type.take()
    }

    fn settle(&mut self) {
        self.handled += std::mem::take(&mut self.in_hand);
        self.in_hand_type = None;
    }
}

impl<T: Send> Queue<T> {
    /// An empty queue for `capacity` messages, at least one.
    pub(super) fn new(
        capacity: usize,
        type_of: fn(&T) -> &'static str,
        crash: Option<fn(&'static str) -> T>,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        let intake = Intake {
            receiver,
            owner: 0,
            halted: false,
            in_hand: 0,
            in_hand_type: None,
            handled: 0,
            lost: 0,
            abandoned: 0,
        };
        let (accepted, beats) = (AtomicU64::new(0), AtomicU64::new(0));
        let (doom, doomed) = (Mutex::new(None), AtomicWaker::new());
        Self { sender, accepted, beats, type_of, crash, doom, doomed, intake: Mutex::new(intake) }
    }

    /// A slot, if there is one.
    pub(super) fn try_reserve(&self) -> Result<mpsc::Permit<'_, T>, TryReserveError<()>> {
        self.sender.try_reserve()
    }

    /// Waits for a slot; `None` where the queue is closed.
    pub(super) async fn reserve(&self) -> Option<mpsc::Permit<'_, T>> {
        self.sender.reserve().await.ok()
    }

    // Nobody holds a slot for longer than this takes: no await lies between a slot and its filling.
    pub(super) fn fill(&self, slot: mpsc::Permit<'_, T>, message: T) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        slot.send(message);
    }

    /// Messages that wait, including those that are being sent at this moment.
    pub(super) fn depth(&self) -> usize {
        self.sender.max_capacity() - self.sender.capacity()
    }

    /// The next message for `incarnation`; what it had in hand is handled.
    pub(super) fn take(&self, incarnation: u64, cx: &mut TaskContext<'_>) -> Take<T> {
        let mut intake = self.intake.lock();
        if intake.owner != incarnation {
            return Take::Fenced;
        }
        intake.settle();
        if intake.halted {
            return Take::Halted;
        }
        match intake.receiver.poll_recv(cx) {
            Poll::Ready(Some(message)) => {
                intake.in_hand = 1;
                intake.in_hand_type = Some((self.type_of)(&message));
                Take::Next(message)
            }
            Poll::Ready(None) => Take::Drained,
            Poll::Pending => Take::Empty,
        }
    }

    /// As [`Queue::take`], up to `max` messages at once, which are put behind those in `batch`.
    pub(super) fn take_many(
        &self,
        incarnation: u64,
        cx: &mut TaskContext<'_>,
        batch: &mut Vec<T>,
        max: usize,
    ) -> Take<()> {
        let before = batch.len();
        let max = max.clamp(1, self.sender.max_capacity());
        // Not under the lock.
        batch.reserve(max);
        let mut intake = self.intake.lock();
        if intake.owner != incarnation {
            return Take::Fenced;
        }
        intake.settle();
        if intake.halted {
            return Take::Halted;
        }
        match intake.receiver.poll_recv_many(cx, batch, max) {
            Poll::Ready(0) => Take::Drained,
            Poll::Ready(taken) => {
                intake.in_hand = taken as u64;
                intake.in_hand_type = batch.get(before).map(self.type_of);
                Take::Next(())
            }
            Poll::Pending => Take::Empty,
        }
    }

    /// Panics if it was told to, with what was just taken in hand.
    #[allow(clippy::panic, reason = "that is what it is for")]
    pub(super) fn crash_if_told(&self) {
        let told = self.doom.lock().take();
        if let Some(why) = told {
            panic!("{why}");
        }
    }

    /// Whether it was told to panic; otherwise `waker` is woken when it is.
    pub(super) fn is_told_to_crash(&self, waker: &Waker) -> bool {
        self.doomed.register(waker);
        self.doom.lock().is_some()
    }

    /// `incarnation` is done with what it had in hand, and takes nothing at present.
    pub(super) fn settle(&self, incarnation: u64) {
        let mut intake = self.intake.lock();
        if intake.owner == incarnation {
            intake.settle();
        }
    }

    /// Whether `incarnation` may take.
    pub(super) fn belongs_to(&self, incarnation: u64) -> bool {
        self.intake.lock().owner == incarnation
    }

    /// Whether `incarnation` is to end, once it has taken what it may.
    pub(super) fn is_ending(&self, incarnation: u64) -> bool {
        let intake = self.intake.lock();
        intake.owner != incarnation || intake.halted || self.sender.is_closed()
    }

    /// The owner is alive, though it has handled nothing.
    pub(super) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a [progress check](super::progress::Progress) looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// Messages that wait or are in hand.
    pub(super) waiting: u64,
    /// Changes with every message that left and with every sign of life.
    pub(super) moved: u64,
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
    /// Takes a message that panics in its handler's place; an owner that takes several at once panics with those that
    /// it takes next, or with none if none come soon.
    fn crash(&self, why: &'static str) -> Result<(), TrySendError<()>>;
    /// Where the messages are.
    fn counts(&self) -> InboxCounts;
    /// Whether messages wait, and whether any moved since the last time.
    fn standing(&self) -> Standing;
}

impl<T: Send> Gate for Queue<T> {
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
                Ok(message) => {
                    intake.abandoned += 1;
                    drop(intake);
                    // Whatever a message's own drop does, the next ones are to be counted too.
                    let _panic = catch_unwind(AssertUnwindSafe(|| drop(message)));
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
        let Some(crash) = self.crash else {
            if self.sender.is_closed() {
                return Err(TrySendError::Closed(()));
            }
            *self.doom.lock() = Some(why);
            self.doomed.wake();
            return Ok(());
        };
        match self.try_reserve() {
            Ok(slot) => {
                self.fill(slot, crash(why));
                Ok(())
            }
            Err(TryReserveError::Full(())) => Err(TrySendError::Full(())),
            Err(TryReserveError::Closed(())) => Err(TrySendError::Closed(())),
        }
    }

    fn counts(&self) -> InboxCounts {
        let intake = self.intake.lock();
        let (handled, lost, abandoned) = (intake.handled, intake.lost, intake.abandoned);
        let in_hand = intake.in_hand;
        let accepted = self.accepted.load(Ordering::Relaxed);
        drop(intake);
        let depth = accepted.saturating_sub(handled + lost + abandoned + in_hand);
        InboxCounts { accepted, handled, lost, abandoned, in_hand, depth }
    }

    fn standing(&self) -> Standing {
        let InboxCounts { handled, lost, depth, in_hand, .. } = self.counts();
        let beats = self.beats.load(Ordering::Relaxed);
        Standing { waiting: depth + in_hand, moved: handled + lost + beats }
    }
}
