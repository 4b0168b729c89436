//! A series, and all of them at one moment (level 0).

use std::{sync::Arc, time::Duration};

use super::{
    Exemplars, RedKey, RedSettings,
    continuity::Restoring,
    key::OwnedValues,
    red::RedEntry,
    seed::{self, Departed},
};
use crate::span::{Sampler, SpanKind, StatusCode};

/// Spans that no series counts, because the log could not give them back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unmeasured {
    /// In a record that does not scan.
    pub damaged: u64,
    /// In a record that was gone from the log.
    pub released: u64,
}

/// The counts of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct RedCounts {
    /// Spans.
    pub count: u64,
    /// Those with status error.
    pub errors: u64,
    /// The sum of their durations in nanoseconds.
    pub sum_nanos: u128,
    /// Spans in each bucket, not cumulated; one more than there are bounds.
    pub buckets: Box<[u64]>,
    /// When its first span was committed, since the Unix epoch: the counts were 0 before.
    pub created: Duration,
    /// When its last span was committed.
    pub last: Duration,
    /// Spans of its buckets, as far as this process saw some.
    pub exemplars: Exemplars,
}

/// One series.
#[derive(Debug, Clone, PartialEq)]
pub struct RedSeries {
    /// `service.name`.
    pub service: Arc<str>,
    /// The span's name.
    pub name: Arc<str>,
    /// The span's kind.
    pub kind: SpanKind,
    /// The values of the dimensions.
    pub dimensions: OwnedValues,
    /// Whether [`OTHER`](super::OTHER) stands for further values of a label.
    pub overflow: bool,
    /// The status code.
    pub status: StatusCode,
    /// What it counted.
    pub counts: RedCounts,
}

/// The counters that have no labels, and what goes with them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RedTotals {
    /// Spans that no series counts.
    pub unmeasured: Unmeasured,
    /// Spans that were counted by reading the log rather than from a delta.
    pub caught_up: u64,
    /// Spans counted in a series that stands for many, because the cap left no room for one of their own.
    pub folded: u64,
    /// Labels' values that were cut.
    pub cut: u64,
    /// Series that were removed because nothing was counted in them for long.
    pub expired: u64,
}

/// The RED counters at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct RedSnapshot {
    /// Every span before this ordinal is counted.
    pub position: u64,
    /// How they are kept.
    pub settings: Arc<RedSettings>,
    /// The series, in the order of their keys.
    pub series: Vec<RedSeries>,
    /// What found no room among the series.
    pub overflow: Option<RedCounts>,
    /// Sums of series that are gone, by the name that others of the same still have in a metric's.
    pub(super) departed: Departed,
    /// The counters without labels.
    pub totals: RedTotals,
    /// When the counters without labels began at 0, since the Unix epoch; `None`: with the process.
    pub created: Option<Duration>,
    /// What a process before this one may have shown and is still to be counted again: until then the counters
    /// may be behind.
    pub restoring: Option<Restoring>,
    /// Checkpoints stored by this process.
    pub checkpoints: u64,
    /// Checkpoints that this process could not store.
    pub checkpoint_errors: u64,
    /// Why the last one could not be stored, until one is.
    pub checkpoint_error: Option<String>,
}

impl RedSnapshot {
    /// Leaves the operations out in which nothing was counted since `before`; the series are in order.
    pub(super) fn leave_out_idle(&mut self, before: Duration) {
        let is_busy = |series: &[RedSeries]| series.iter().any(|series| series.counts.last >= before);
        let operations = self.series.chunk_by(|a, b| a.key().is_operation_of(&b.key()));
        let (busy, idle): (Vec<_>, Vec<_>) = operations.partition(|operation| is_busy(operation));
        let (busy, idle) = (busy.concat(), idle.concat());
        seed::depart(&mut self.departed, &idle, busy.iter(), self.overflow.as_ref());
        self.series = busy;
    }
}

impl RedCounts {
    pub(super) fn new(buckets: usize, created: Duration) -> Self {
        Self {
            count: 0,
            errors: 0,
            sum_nanos: 0,
            buckets: vec![0; buckets].into(),
            created,
            last: created,
            exemplars: Exemplars::default(),
        }
    }

    /// Adds what a batch brought; exemplars of those traces alone that the sampler keeps.
    pub(super) fn add(&mut self, entry: &RedEntry<'_>, committed: Duration, exemplars: Option<Sampler>) {
        self.count = self.count.saturating_add(entry.count);
        if entry.key.status == StatusCode::Error {
            self.errors = self.errors.saturating_add(entry.count);
        }
        self.sum_nanos = self.sum_nanos.saturating_add(entry.sum_nanos);
        for (mine, more) in self.buckets.iter_mut().zip(entry.buckets) {
            *mine = mine.saturating_add(*more);
        }
        self.last = committed;
        // The batch may have been scanned when others were.
        let Some(sampler) = exemplars else { return };
        let kept = entry.exemplars.iter().filter(|(_, exemplar)| sampler.keeps(exemplar.trace_id));
        kept.for_each(|(_, exemplar)| self.exemplars.put(*exemplar));
    }
}

impl RedSeries {
    /// Nothing counted yet.
    pub(super) fn new(key: &RedKey<'_>, buckets: usize, created: Duration) -> Self {
        Self {
            service: key.service.into(),
            name: key.name.into(),
            kind: key.kind,
            dimensions: key.dimensions.into(),
            overflow: key.overflow,
            status: key.status,
            counts: RedCounts::new(buckets, created),
        }
    }

    /// What tells this series from another.
    pub fn key(&self) -> RedKey<'_> {
        RedKey {
            service: &self.service,
            name: &self.name,
            kind: self.kind,
            dimensions: self.dimensions.values(),
            overflow: self.overflow,
            status: self.status,
        }
    }
}
