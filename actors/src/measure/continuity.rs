//! How the counters stand to their checkpoints, and to what was on a page before the process began (level 0).
//!
//! A page must not show what the next process cannot repeat. Counts can be repeated: the checkpoint has them,
//! or the log has the spans. When a series began cannot be read from the log. So it is said to have begun with
//! the checkpoint before it, in which it was still 0, and a series that begins while a checkpoint is on its way
//! is not shown until it is known which checkpoint that will be:
//!
//! ```text
//! checkpoint k stored        k+1 begun                 k+1 stored
//! ──────┬───────────────────────┬─────────────────────────┬──────────────► positions
//!       │ began with k, shown   │ not shown yet           │ began with k+1, shown
//! ```
//!
//! For the same reason nothing is shown until everything is counted again that the log held when it was opened.

use std::time::Duration;

/// Counting again what was counted before the process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restoring {
    /// Spans counted again by now.
    pub done: u64,
    /// Spans to be counted again in all.
    pub of: u64,
}

/// A checkpoint on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flight {
    /// Every span before this ordinal is counted in it.
    pub(super) position: u64,
    /// When the series begin that it does not have.
    pub(super) since: Duration,
}

/// What is known about checkpoints.
#[derive(Debug)]
pub(super) struct Continuity {
    /// When new series begin; `None` where no checkpoint is ever stored: then when they are first counted.
    since: Option<Duration>,
    /// The position of the last checkpoint stored of these counters.
    stored: Option<u64>,
    flight: Option<Flight>,
    /// Nobody knows what became of an earlier one: its actor did not live to be told.
    lost_sight: bool,
    /// Series that begin here or later are not shown for now.
    shown_before: u64,
    /// The position at the beginning of the process.
    began: u64,
    /// The log's end at the beginning of the process.
    complete_from: u64,
    /// The counters go on from a checkpoint: what lies between it and the log's end may have been on a page.
    goes_on: bool,
    checkpoints: u64,
    errors: u64,
    error: Option<String>,
}

impl Continuity {
    /// Nothing outlives the process.
    pub(super) fn volatile(position: u64) -> Self {
        Self {
            since: None,
            stored: None,
            flight: None,
            lost_sight: false,
            shown_before: u64::MAX,
            began: position,
            complete_from: position,
            goes_on: false,
            checkpoints: 0,
            errors: 0,
            error: None,
        }
    }

    /// Counters that begin at 0, at `position` of a log that ends at `end`.
    pub(super) fn fresh(position: u64, end: u64, now: Duration) -> Self {
        let complete_from = end.max(position);
        Self { since: Some(now), shown_before: position, complete_from, ..Self::volatile(position) }
    }

    /// Counters from a checkpoint.
    pub(super) fn restored(checkpoint: Flight, end: u64) -> Self {
        let Flight { position, since } = checkpoint;
        Self {
            since: Some(since),
            stored: Some(position),
            complete_from: end.max(position),
            goes_on: true,
            ..Self::volatile(position)
        }
    }

    /// Counters begin at 0 again, at `position`.
    pub(super) fn begin_anew(&mut self, position: u64, now: Duration) {
        self.since = self.since.map(|since| since.max(now));
        self.stored = None;
        self.flight = None;
        self.lost_sight = false;
        self.shown_before = position;
        self.goes_on = false;
    }

    pub(super) fn is_durable(&self) -> bool {
        self.since.is_some()
    }

    /// A checkpoint of these counters is stored.
    pub(super) fn is_stored(&self) -> bool {
        self.stored.is_some()
    }

    /// When a series begins that is first counted now.
    pub(super) fn since(&self, now: Duration) -> Duration {
        self.since.unwrap_or(now)
    }

    /// Whether a series is shown that was first counted at this ordinal.
    pub(super) fn is_shown(&self, born: u64) -> bool {
        born < self.shown_before
    }

    /// What is still to be counted again, if anything is.
    pub(super) fn restoring(&self, position: u64) -> Option<Restoring> {
        let of = self.complete_from - self.began;
        (position < self.complete_from).then_some(Restoring { done: position.saturating_sub(self.began), of })
    }

    /// Whether spans that cannot be read at this position may have been counted on a page.
    pub(super) fn would_go_back(&self, position: u64) -> bool {
        self.goes_on && position < self.complete_from
    }

    /// A checkpoint at this position begins, unless it is stored already: when the series begin that it does
    /// not have.
    pub(super) fn begin(&mut self, position: u64, now: Duration) -> Option<Duration> {
        let before = self.since?;
        if self.stored == Some(position) {
            return None;
        }
        // What was counted behind the last checkpoint may have been on a page, and began with that one. A clock that
        // goes back does not make a beginning go back.
        let since = if position < self.complete_from { before } else { before.max(now) };
        self.shown_before = self.shown_before.min(position);
        self.lost_sight |= self.flight.is_some();
        self.flight = Some(Flight { position, since });
        Some(since)
    }

    /// The checkpoint on its way is stored: series that begin behind it begin with it.
    pub(super) fn stored(&mut self) -> Option<Flight> {
        let flight = self.flight.take()?;
        self.stored = Some(flight.position);
        self.since = Some(flight.since);
        self.lost_sight = false;
        self.shown_before = u64::MAX;
        self.checkpoints = self.checkpoints.saturating_add(1);
        Some(flight)
    }

    /// The checkpoint on its way is not stored: the one before it counts, if there is one and it is known which.
    pub(super) fn failed(&mut self) {
        if self.flight.take().is_some() {
            self.errors = self.errors.saturating_add(1);
            if self.stored.is_some() && !self.lost_sight {
                self.shown_before = u64::MAX;
            }
        }
    }

    /// Remembers why the last checkpoint is not stored, `None` where it is; returns what was known before.
    pub(super) fn replace_error(&mut self, error: Option<String>) -> Option<String> {
        std::mem::replace(&mut self.error, error)
    }

    pub(super) fn checkpoints(&self) -> u64 {
        self.checkpoints
    }

    pub(super) fn errors(&self) -> u64 {
        self.errors
    }

    pub(super) fn error(&self) -> Option<&String> {
        self.error.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Duration = Duration::from_secs(100);
    const T1: Duration = Duration::from_secs(200);
    const T2: Duration = Duration::from_secs(300);

    #[test]
    fn a_series_begins_with_the_last_checkpoint_that_does_not_have_it() {
        let mut it = Continuity::fresh(0, 0, T0);
        it.begin(0, T1);
        it.failed();
        assert!(!it.is_shown(0), "before the first checkpoint");
        assert_eq!(it.begin(0, T1), Some(T1));
        assert_eq!(it.stored(), Some(Flight { position: 0, since: T1 }));
        assert_eq!((it.since(T2), it.is_shown(0)), (T1, true));
        assert_eq!(it.begin(0, T2), None, "it is stored");
        assert_eq!(it.begin(5, T2), Some(T2));
        assert_eq!((it.is_shown(4), it.is_shown(5), it.since(T2)), (true, false, T1));
        it.failed();
        assert_eq!((it.is_shown(5), it.since(T2)), (true, T1));
        assert_eq!(it.begin(5, T0), Some(T1), "a clock that goes back");
        assert_eq!((it.checkpoints(), it.errors()), (1, 2));
    }

    #[test]
    fn what_may_have_been_shown_by_an_earlier_process_begins_as_it_did_there() {
        let mut it = Continuity::restored(Flight { position: 10, since: T0 }, 100);
        assert_eq!(it.restoring(50), Some(Restoring { done: 40, of: 90 }));
        assert_eq!(it.begin(50, T1), Some(T0), "series between 50 and 100 began with the checkpoint at 10");
        assert_eq!(it.stored(), Some(Flight { position: 50, since: T0 }));
        assert_eq!((it.begin(100, T1), it.restoring(100)), (Some(T1), None));
    }

    #[test]
    fn nothing_is_shown_that_began_behind_a_checkpoint_that_may_be_stored_or_not() {
        let mut it = Continuity::restored(Flight { position: 10, since: T0 }, 10);
        assert_eq!(it.begin(20, T1), Some(T1));
        // The actor is gone, and nobody is told of this one.
        assert_eq!(it.begin(30, T2), Some(T2));
        it.failed();
        assert_eq!((it.is_shown(19), it.is_shown(20)), (true, false));
        assert_eq!(it.begin(40, T2), Some(T2));
        it.stored();
        assert!(it.is_shown(20));
    }

    #[test]
    fn counters_that_begin_anew_are_not_mixed_up_with_those_before() {
        let mut it = Continuity::restored(Flight { position: 10, since: T0 }, 100);
        assert!(it.would_go_back(99) && !it.would_go_back(100));
        it.begin(20, T1);
        it.begin_anew(60, T2);
        assert_eq!(it.stored(), None, "the checkpoint on its way is of the counters before");
        assert_eq!((it.is_stored(), it.is_shown(60), it.since(T2)), (false, false, T2));
        assert!(!it.would_go_back(60), "once is enough");
    }
}
