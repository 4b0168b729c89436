//! Conservation: every span is accounted for, by construction.
//!
//! * At the scan: scanned = accepted + rejected{reason} + pending ([`SpanLedger`]).
//! * For each destination: end − start = exported + sampled out + dropped{reason} + queued
//!   ([`DestinationLedger`]); what is in flight is queued.
//!
//! A [`PendingSpans`] owns the pending count that it stands for, so that no way out of any
//! function, not even a panic, can leave a span uncounted.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use serde::Serialize;
use thiserror::Error;

use super::Ordinal;

/// An enum whose values are the labels of a count.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident => $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every reason, in the order of its label's declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The reason as a metric's label.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }
    };
}
pub(crate) use reasons;

reasons! {
    /// Why scanned spans did not reach the log. Their sender was told, and may try again; the last three are the spans'
    /// own faults, and no retry mends them.
    RejectReason {
        /// The log had no room.
        LogFull => "log_full",
        /// The log could not write.
        LogFailed => "log_failed",
        /// The collector did not take them in time.
        Overloaded => "overloaded",
        /// The daemon is on its way down.
        ShuttingDown => "shutting_down",
        /// An actor failed with them in hand, or their sender gave up before the collector had room.
        Lost => "lost",
        /// An id of zeros, or of the wrong length.
        InvalidId => "invalid_id",
        /// A name over its limit.
        NameTooLong => "name_too_long",
        /// More attributes than their limit.
        TooManyAttributes => "too_many_attributes",
    }
}

reasons! {
    /// What is odd about spans that the log took all the same.
    Oddity {
        /// The end lies before the start; their duration counts as 0.
        EndBeforeStart => "end_before_start",
        /// They have no name.
        EmptyName => "empty_name",
        /// They start or end more than a day from now.
        FarFuture => "far_future",
    }
}

reasons! {
    /// Why a destination will never get a span.
    DropReason {
        /// The destination said so in a partial success.
        Rejected => "rejected",
        /// The destination called the span invalid.
        Invalid => "invalid",
        /// The span alone is larger than the destination takes.
        TooLarge => "too_large",
        /// `max_retries` or `max_elapsed` was reached.
        RetriesExhausted => "retries_exhausted",
        /// The destination answered with a status that no retry will mend.
        Refused => "refused",
        /// The log could not read the span back.
        Damaged => "damaged",
        /// The log let go of the span before the destination had it: it was full, and is to drop the oldest.
        Evicted => "evicted",
    }
}

impl DropReason {
    /// The reason's number in files. A number is never given to another reason.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Rejected => 1,
            Self::Invalid => 2,
            Self::TooLarge => 3,
            Self::RetriesExhausted => 4,
            Self::Refused => 5,
            Self::Damaged => 6,
            Self::Evicted => 7,
        }
    }

    /// The reason with this number.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.code() == code)
    }
}

/// A count for each reason.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ByReason<const N: usize>([u64; N]);

impl<const N: usize> Default for ByReason<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

impl<const N: usize> ByReason<N> {
    fn add(&mut self, reason: usize, count: u64) {
        if let Some(slot) = self.0.get_mut(reason) {
            *slot += count;
        }
    }

    fn get(&self, reason: usize) -> u64 {
        self.0.get(reason).copied().unwrap_or_default()
    }

    fn sum(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// The span counts of all doors together.
#[derive(Debug, Default)]
pub struct SpanLedger(Mutex<SpanCounts>);

/// The span ledger at one moment: `scanned = accepted + rejected + pending`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SpanCounts {
    /// Spans that a scan found.
    pub scanned: u64,
    /// Spans that the log holds or held.
    pub accepted: u64,
    /// Spans between the scan and the log.
    pub pending: u64,
    rejected: ByReason<{ RejectReason::ALL.len() }>,
    odd: ByReason<{ Oddity::ALL.len() }>,
}

impl SpanCounts {
    /// Accepted spans that are odd in this way, of those that came from other processes. One span may be odd in several.
    pub fn odd(&self, oddity: Oddity) -> u64 {
        self.odd.get(oddity as usize)
    }

    /// Spans rejected for this reason.
    pub fn rejected(&self, reason: RejectReason) -> u64 {
        self.rejected.get(reason as usize)
    }

    /// True if every scanned span is accounted for.
    pub fn balances(&self) -> bool {
        self.scanned == self.accepted + self.rejected.sum() + self.pending
    }
}

impl fmt::Debug for SpanCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("SpanCounts");
        out.field("scanned", &self.scanned).field("accepted", &self.accepted).field("pending", &self.pending);
        for &reason in RejectReason::ALL {
            out.field(reason.label(), &self.rejected(reason));
        }
        out.finish()
    }
}

impl SpanLedger {
    /// A scan found `spans` spans; the value returned owes the ledger their fate.
    pub fn scanned(self: &Arc<Self>, spans: u32) -> PendingSpans {
        let mut counts = self.0.lock();
        counts.scanned += u64::from(spans);
        counts.pending += u64::from(spans);
        drop(counts);
        PendingSpans { ledger: Arc::clone(self), spans, odd: [0; Oddity::ALL.len()], tell: None }
    }

    /// The counts at this moment.
    pub fn counts(&self) -> SpanCounts {
        self.0.lock().clone()
    }
}

/// Learns, once, what became of a batch: [`PendingSpans::and_tell`].
///
/// It is told in the middle of a commit, with locks held: it counts, and does nothing else.
pub trait Settle: Send {
    /// The batch is in the log, or why it is not.
    fn settle(self: Box<Self>, outcome: Result<(), RejectReason>);
}

/// Scanned spans whose fate is open. Dropped, they count as rejected{lost}.
pub struct PendingSpans {
    ledger: Arc<SpanLedger>,
    spans: u32,
    /// Odd ones among them.
    odd: [u32; Oddity::ALL.len()],
    /// `None` too once it was told.
    tell: Option<Box<dyn Settle>>,
}

impl fmt::Debug for PendingSpans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingSpans").field("spans", &self.spans).finish_non_exhaustive()
    }
}

impl PendingSpans {
    /// How many.
    pub fn spans(&self) -> u32 {
        self.spans
    }

    /// Whoever took the batch in learns of its fate with the ledger, whether it still waits for the
    /// answer or not: its own account, and the memory it charged, stay exact.
    #[must_use]
    pub fn and_tell(mut self, whom: Box<dyn Settle>) -> Self {
        self.tell = Some(whom);
        self
    }

    /// So many of them are odd in this way.
    pub fn note_odd(&mut self, oddity: Oddity, spans: u32) {
        if let Some(count) = self.odd.get_mut(oddity as usize) {
            *count = spans;
        }
    }

    /// So many of them, and no more than there are, will not be in the log; the fate of the others stays open.
    pub fn reject_some(&mut self, spans: u32, reason: RejectReason) {
        let spans = spans.min(self.spans);
        self.spans -= spans;
        let mut counts = self.ledger.0.lock();
        counts.pending -= u64::from(spans);
        counts.rejected.add(reason as usize, spans.into());
    }

    fn told(&mut self, outcome: Result<(), RejectReason>) {
        if let Some(whom) = self.tell.take() {
            whom.settle(outcome);
        }
    }

    /// The log has them.
    pub fn accept(mut self) {
        let spans = u64::from(std::mem::take(&mut self.spans));
        let mut counts = self.ledger.0.lock();
        counts.pending -= spans;
        counts.accepted += spans;
        for (at, &odd) in self.odd.iter().enumerate() {
            counts.odd.add(at, odd.into());
        }
        drop(counts);
        self.told(Ok(()));
    }

    /// The log will not have them.
    pub fn reject(mut self, reason: RejectReason) {
        self.settle_rejected(reason);
    }

    fn settle_rejected(&mut self, reason: RejectReason) {
        let spans = u64::from(std::mem::take(&mut self.spans));
        if spans > 0 {
            let mut counts = self.ledger.0.lock();
            counts.pending -= spans;
            counts.rejected.add(reason as usize, spans);
        }
        self.told(Err(reason));
    }
}

impl Drop for PendingSpans {
    fn drop(&mut self) {
        self.settle_rejected(RejectReason::Lost);
    }
}

/// A step of a destination's position, with what became of the spans that it passes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advance {
    /// The new position.
    pub to: Ordinal,
    /// Spans that the destination acknowledged.
    pub exported: u64,
    /// Spans that the sampling rate left out.
    pub sampled_out: u64,
    /// Spans that the destination will never get.
    pub dropped: Vec<(DropReason, u64)>,
}

/// A step that the ledger refuses.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AdvanceError {
    /// There is no such destination.
    #[error("destination {0} is not one of the log's")]
    Unknown(usize),
    /// The position would go back, or past the log's end.
    #[error("position {to} is not between {from} and the log's end {end}")]
    OutOfRange {
        /// The position now.
        from: Ordinal,
        /// The position asked for.
        to: Ordinal,
        /// The log's end.
        end: Ordinal,
    },
    /// The counts do not add up to the distance.
    #[error("a step of {distance} spans accounts for {counted}")]
    Unbalanced {
        /// New position minus old.
        distance: u64,
        /// Exported, sampled out and dropped.
        counted: u64,
    },
}

/// A destination's account: `end − start = exported + sampled_out + dropped + queued`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DestinationLedger {
    /// The first ordinal that this destination was to get.
    pub start: Ordinal,
    /// Everything before it is settled.
    pub position: Ordinal,
    /// The log's end when the ledger was read.
    pub end: Ordinal,
    /// Spans that the destination acknowledged.
    pub exported: u64,
    /// Spans that the sampling rate left out.
    pub sampled_out: u64,
    dropped: ByReason<{ DropReason::ALL.len() }>,
}

impl DestinationLedger {
    /// A destination that begins at `start`.
    pub fn starting_at(start: Ordinal) -> Self {
        Self { start, position: start, end: start, ..Self::default() }
    }

    /// An account as it was stored, whose end is its position; `None` where it does not balance.
    pub(crate) fn restore(
        start: Ordinal,
        position: Ordinal,
        exported: u64,
        sampled_out: u64,
        dropped: impl IntoIterator<Item = (DropReason, u64)>,
    ) -> Option<Self> {
        let mut ledger = Self { start, position, end: position, exported, sampled_out, ..Self::default() };
        let mut counted = exported.checked_add(sampled_out)?;
        for (reason, count) in dropped {
            counted = counted.checked_add(count)?;
            ledger.dropped.add(reason as usize, count);
        }
        (position.checked_sub(start)? == counted).then_some(ledger)
    }

    /// The same account, with the log's end as it is now.
    pub fn at_end(&self, end: Ordinal) -> Self {
        Self { end, ..self.clone() }
    }

    /// Spans dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped.get(reason as usize)
    }

    /// Spans dropped, whatever the reason.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.sum()
    }

    /// Spans that are still to be delivered, in flight or not.
    pub fn queued(&self) -> u64 {
        self.end.saturating_sub(self.position)
    }

    /// True if every span since the start is accounted for.
    pub fn balances(&self) -> bool {
        self.end - self.start == self.exported + self.sampled_out + self.dropped_total() + self.queued()
    }

    /// Takes a step, or none.
    ///
    /// # Errors
    /// [`AdvanceError`]; the ledger is as it was.
    pub fn advance(&mut self, advance: &Advance, end: Ordinal) -> Result<(), AdvanceError> {
        let from = self.position;
        if advance.to < from || advance.to > end {
            return Err(AdvanceError::OutOfRange { from, to: advance.to, end });
        }
        let dropped: u64 = advance.dropped.iter().map(|&(_, count)| count).sum();
        let counted = advance.exported + advance.sampled_out + dropped;
        let distance = advance.to - from;
        if counted != distance {
            return Err(AdvanceError::Unbalanced { distance, counted });
        }
        self.position = advance.to;
        self.end = end;
        self.exported += advance.exported;
        self.sampled_out += advance.sampled_out;
        for &(reason, count) in &advance.dropped {
            self.dropped.add(reason as usize, count);
        }
        Ok(())
    }
}

impl fmt::Debug for DestinationLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("DestinationLedger");
        out.field("start", &self.start).field("position", &self.position).field("end", &self.end);
        out.field("exported", &self.exported).field("sampled_out", &self.sampled_out);
        for &reason in DropReason::ALL {
            out.field(reason.label(), &self.dropped(reason));
        }
        out.finish()
    }
}

/// Counts by reason as a map from label to count, in the order of the reasons.
pub(crate) struct Labelled<'a, R, C = u64>(
    pub(crate) &'a [R],
    pub(crate) fn(R) -> &'static str,
    pub(crate) &'a [C],
);

impl<R: Copy, C: Serialize> Serialize for Labelled<'_, R, C> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(self.2).map(|(&reason, count)| ((self.1)(reason), count)))
    }
}

impl Serialize for SpanCounts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("SpanCounts", 5)?;
        out.serialize_field("scanned", &self.scanned)?;
        out.serialize_field("accepted", &self.accepted)?;
        let rejected = Labelled(RejectReason::ALL, RejectReason::label, &self.rejected.0);
        out.serialize_field("rejected", &rejected)?;
        out.serialize_field("pending", &self.pending)?;
        out.serialize_field("odd", &Labelled(Oddity::ALL, Oddity::label, &self.odd.0))?;
        out.end()
    }
}

impl Serialize for DestinationLedger {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("DestinationLedger", 7)?;
        out.serialize_field("start", &self.start)?;
        out.serialize_field("position", &self.position)?;
        out.serialize_field("end", &self.end)?;
        out.serialize_field("exported", &self.exported)?;
        out.serialize_field("sampled_out", &self.sampled_out)?;
        out.serialize_field("dropped", &Labelled(DropReason::ALL, DropReason::label, &self.dropped.0))?;
        out.serialize_field("queued", &self.queued())?;
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_spans_that_are_forgotten_count_as_lost() {
        let ledger = Arc::new(SpanLedger::default());
        let pending = ledger.scanned(5);
        assert_eq!((ledger.counts().pending, ledger.counts().balances()), (5, true));
        drop(pending);
        let counts = ledger.counts();
        assert_eq!((counts.pending, counts.rejected(RejectReason::Lost)), (0, 5));
        assert!(counts.balances());
    }

    #[test]
    fn each_fate_settles_the_spans_once() {
        let ledger = Arc::new(SpanLedger::default());
        ledger.scanned(3).accept();
        ledger.scanned(4).reject(RejectReason::LogFull);
        let counts = ledger.counts();
        assert_eq!((counts.scanned, counts.accepted, counts.pending), (7, 3, 0));
        assert_eq!((counts.rejected(RejectReason::LogFull), counts.rejected(RejectReason::Lost)), (4, 0));
        assert!(counts.balances());
    }

    #[test]
    fn some_of_a_batch_may_be_rejected_and_what_is_odd_counts_once_it_is_accepted() {
        let ledger = Arc::new(SpanLedger::default());
        let mut pending = ledger.scanned(9);
        pending.reject_some(2, RejectReason::InvalidId);
        pending.reject_some(1, RejectReason::NameTooLong);
        pending.note_odd(Oddity::EmptyName, 4);
        assert_eq!((ledger.counts().pending, ledger.counts().odd(Oddity::EmptyName)), (6, 0));
        assert!(ledger.counts().balances());
        pending.accept();
        let counts = ledger.counts();
        assert_eq!((counts.scanned, counts.accepted, counts.pending), (9, 6, 0));
        assert_eq!((counts.rejected(RejectReason::InvalidId), counts.odd(Oddity::EmptyName)), (2, 4));
        assert!(counts.balances());
        // No more than there are, and what is refused was not accepted, however odd.
        let mut pending = ledger.scanned(2);
        pending.note_odd(Oddity::FarFuture, 2);
        pending.reject_some(5, RejectReason::TooManyAttributes);
        drop(pending);
        let counts = ledger.counts();
        assert_eq!((counts.rejected(RejectReason::TooManyAttributes), counts.odd(Oddity::FarFuture)), (2, 0));
        assert!(counts.balances());
    }

    #[test]
    fn whoever_is_to_be_told_learns_of_each_fate_once() {
        struct Told(Arc<Mutex<Vec<Result<(), RejectReason>>>>);
        impl Settle for Told {
            fn settle(self: Box<Self>, outcome: Result<(), RejectReason>) {
                self.0.lock().push(outcome);
            }
        }
        let ledger = Arc::new(SpanLedger::default());
        let told = Arc::new(Mutex::new(Vec::new()));
        let pending = |spans| ledger.scanned(spans).and_tell(Box::new(Told(Arc::clone(&told))));
        pending(1).accept();
        pending(2).reject(RejectReason::LogFull);
        drop(pending(3));
        let seen = told.lock().clone();
        assert_eq!(seen, [Ok(()), Err(RejectReason::LogFull), Err(RejectReason::Lost)]);
    }

    #[test]
    fn a_step_that_does_not_add_up_is_refused_and_moves_nothing() {
        let mut ledger = DestinationLedger::starting_at(10);
        let step = |to, exported| Advance { to, exported, ..Advance::default() };
        let before = ledger.clone();
        let error = ledger.advance(&step(15, 4), 20).unwrap_err();
        assert_eq!(error, AdvanceError::Unbalanced { distance: 5, counted: 4 });
        assert_eq!(error.to_string(), "a step of 5 spans accounts for 4");
        let error = ledger.advance(&step(21, 11), 20).unwrap_err();
        assert_eq!(error.to_string(), "position 21 is not between 10 and the log's end 20");
        assert!(ledger.advance(&step(9, 0), 20).is_err());
        assert_eq!(ledger, before);
    }

    #[test]
    fn a_step_accounts_for_every_span_that_it_passes() {
        let mut ledger = DestinationLedger::starting_at(10);
        let dropped = vec![(DropReason::Rejected, 2), (DropReason::Invalid, 1)];
        ledger.advance(&Advance { to: 20, exported: 4, sampled_out: 3, dropped }, 25).unwrap();
        assert_eq!((ledger.queued(), ledger.dropped_total()), (5, 3));
        assert!(ledger.balances());
    }

    #[test]
    fn a_reason_has_a_number_of_its_own() {
        let mut codes: Vec<_> = DropReason::ALL.iter().map(|reason| reason.code()).collect();
        for (&reason, &code) in DropReason::ALL.iter().zip(&codes) {
            assert_eq!(DropReason::from_code(code), Some(reason));
        }
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), DropReason::ALL.len());
        assert_eq!(DropReason::from_code(0), None);
    }

    #[test]
    fn a_stored_account_that_does_not_balance_is_none() {
        let dropped = [(DropReason::Damaged, 3)];
        let restored = DestinationLedger::restore(10, 20, 5, 2, dropped).unwrap();
        assert_eq!((restored.end, restored.dropped(DropReason::Damaged), restored.balances()), (20, 3, true));
        assert_eq!(DestinationLedger::restore(10, 21, 5, 2, dropped), None);
        assert_eq!(DestinationLedger::restore(20, 10, 5, 2, dropped), None);
        assert_eq!(DestinationLedger::restore(0, 1, u64::MAX, 2, []), None);
    }
}
