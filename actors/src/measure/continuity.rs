//! How the counters stand to their checkpoints, and to what was on a page before the process began (level 0).
//!
//! After a restart the counters are those of the last checkpoint, and so behind what was shown before it. They are not
//! shown until everything is counted again that the log held when it was opened. What they are then follows from the
//! log alone: which spans are counted, in which order series found room, and when each began.
//!
//! ```text
//! checkpoint          log's end when it was opened       log's end
//! ────┬──────────────────────────┬──────────────────────────┬──► positions
//!     │ restoring: not shown     │ shown                    │
//! ```

/// Counting again what was counted before the process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restoring {
    /// Spans counted again by now.
    pub done: u64,
    /// Spans to be counted again in all.
    pub of: u64,
}

/// What is known about checkpoints.
#[derive(Debug)]
pub(super) struct Continuity {
    /// Whether checkpoints are stored.
    durable: bool,
    /// The position of the last one that this process stored of these counters.
    stored: Option<u64>,
    /// The position at the beginning of the process.
    began: u64,
    /// The log's end at the beginning of the process.
    complete_from: u64,
    /// The counters go on from those of an earlier process: what the log held may have been on a page.
    goes_on: bool,
    checkpoints: u64,
    errors: u64,
    error: Option<String>,
}

impl Continuity {
    /// Counters at `position` of a log that ends at `end`; without checkpoints, and with no process before this one,
    /// unless it is `durable`.
    pub(super) fn new(durable: bool, position: u64, end: u64) -> Self {
        Self {
            durable,
            stored: None,
            began: position,
            complete_from: end.max(position),
            goes_on: durable,
            checkpoints: 0,
            errors: 0,
            error: None,
        }
    }

    /// The counters begin at 0 again.
    pub(super) fn begin_anew(&mut self) {
        self.stored = None;
        self.goes_on = false;
    }

    /// The checkpoint that is stored may be of other counters: these are worth storing again.
    pub(super) fn is_in_doubt(&mut self) {
        self.stored = None;
    }

    pub(super) fn is_durable(&self) -> bool {
        self.durable
    }

    /// Whether a checkpoint at this position is one that is not stored yet.
    pub(super) fn is_worth_storing(&self, position: u64) -> bool {
        self.durable && self.stored != Some(position)
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

    /// The checkpoint at this position is stored, or is not, for this reason. Returns the reason before.
    pub(super) fn answered(&mut self, position: u64, error: Option<String>) -> Option<String> {
        if error.is_none() {
            self.stored = Some(position);
            self.checkpoints = self.checkpoints.saturating_add(1);
        } else {
            self.errors = self.errors.saturating_add(1);
        }
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

    #[test]
    fn counters_are_behind_until_the_end_that_the_log_had_is_reached() {
        let mut it = Continuity::new(true, 10, 100);
        assert_eq!(it.restoring(50), Some(Restoring { done: 40, of: 90 }));
        assert!(it.would_go_back(99) && !it.would_go_back(100));
        assert_eq!(it.restoring(100), None);
        it.begin_anew();
        assert!(!it.would_go_back(99), "once is enough");
        assert_eq!(Continuity::new(true, 0, 0).restoring(0), None);
        assert!(!Continuity::new(false, 0, 100).would_go_back(0), "nobody was before it");
    }

    #[test]
    fn a_checkpoint_is_worth_storing_where_none_is() {
        let mut it = Continuity::new(true, 0, 0);
        assert!(it.is_worth_storing(0), "though an earlier process stored it, on another boot perhaps");
        assert_eq!(it.answered(0, None), None);
        assert!(!it.is_worth_storing(0) && it.is_worth_storing(1));
        assert_eq!(it.answered(1, Some("full".to_owned())), None);
        assert!(it.is_worth_storing(1));
        assert_eq!(it.answered(1, None).as_deref(), Some("full"));
        it.begin_anew();
        assert!(it.is_worth_storing(1), "of other counters");
        assert_eq!((it.checkpoints(), it.errors()), (2, 1));
        assert!(!Continuity::new(false, 0, 0).is_worth_storing(1));
    }
}
