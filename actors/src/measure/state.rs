//! The RED counters themselves, and the position in the log up to which they count (level 0).

use std::{
    hash::BuildHasher as _,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::{
    Bounds, RedDelta,
    checkpoint::Checkpoint,
    continuity::{Continuity, Restoring},
    red::{RedEntry, RedKey},
};
use crate::span::{SpanKind, StatusCode};

/// Series at most by default; what needs one more is counted in the overflow series.
pub const SERIES_MAX_DEFAULT: usize = 2_000;

/// What became of a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// It is counted, and the position lies behind it.
    Counted,
    /// Its spans had been counted before; nothing changed.
    Already,
    /// Something lies between the position and the delta, the delta lies on both sides of the position, or it
    /// is incomplete; nothing changed. The spans up to its end are to be counted from the log.
    Gap,
}

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
    /// The status code.
    pub status: StatusCode,
    /// What it counted.
    pub counts: RedCounts,
}

/// The RED counters at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct RedSnapshot {
    /// Every span before this ordinal is counted.
    pub position: u64,
    /// The bounds of the histograms.
    pub bounds: Arc<Bounds>,
    /// The series, in the order of their labels.
    pub series: Vec<RedSeries>,
    /// What found no room among the series.
    pub overflow: Option<RedCounts>,
    /// The most series that are kept.
    pub series_max: usize,
    /// Spans that no series counts.
    pub unmeasured: Unmeasured,
    /// Spans that were counted by reading the log rather than from a delta.
    pub caught_up: u64,
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

/// The RED counters: bounded, and without a byte of the log.
#[derive(Debug)]
pub struct RedState {
    bounds: Arc<Bounds>,
    hasher: RandomState,
    /// Has room for `series_max` from the start: nothing grows under the lock.
    series: HashTable<(u64, RedSeries)>,
    series_max: usize,
    overflow: Option<RedCounts>,
    position: u64,
    unmeasured: Unmeasured,
    caught_up: u64,
    created: Option<Duration>,
    /// The latest commit that is counted, or when the counters began at 0 again: no series begins before one that is
    /// in the log before it, whatever the clock did, or with those that it is not to be mixed up with.
    latest: Duration,
    pub(super) continuity: Continuity,
}

impl RedCounts {
    fn new(buckets: usize, created: Duration) -> Self {
        Self { count: 0, errors: 0, sum_nanos: 0, buckets: vec![0; buckets].into(), created }
    }

    fn add(&mut self, entry: &RedEntry<'_>) {
        self.count = self.count.saturating_add(entry.count);
        if entry.key.status == StatusCode::Error {
            self.errors = self.errors.saturating_add(entry.count);
        }
        self.sum_nanos = self.sum_nanos.saturating_add(entry.sum_nanos);
        for (mine, more) in self.buckets.iter_mut().zip(entry.buckets) {
            *mine = mine.saturating_add(*more);
        }
    }
}

impl RedSeries {
    /// What tells this series from another.
    pub fn key(&self) -> RedKey<'_> {
        RedKey { service: &self.service, name: &self.name, kind: self.kind, status: self.status }
    }
}

impl RedState {
    /// No series yet, nothing counted before ordinal 0, and nothing that outlives the process.
    pub fn new(bounds: Arc<Bounds>, series_max: usize) -> Self {
        Self::at(bounds, series_max, 0, None, Continuity::new(false, 0, 0))
    }

    /// No series yet, nothing counted before `position`.
    pub(super) fn at(
        bounds: Arc<Bounds>,
        series_max: usize,
        position: u64,
        created: Option<Duration>,
        continuity: Continuity,
    ) -> Self {
        Self {
            bounds,
            hasher: RandomState::default(),
            series: HashTable::with_capacity(series_max.saturating_add(1)),
            series_max,
            overflow: None,
            position,
            unmeasured: Unmeasured::default(),
            caught_up: 0,
            created,
            latest: Duration::ZERO,
            continuity,
        }
    }

    /// No series begins before this moment.
    pub(super) fn not_before(self, moment: Duration) -> Self {
        Self { latest: self.latest.max(moment), ..self }
    }

    /// The counters of a checkpoint, which has no more series than `series_max`; the log ends at `end`.
    pub(super) fn restored(bounds: Arc<Bounds>, series_max: usize, checkpoint: Checkpoint, end: u64) -> Self {
        let Checkpoint { position, created, latest, caught_up, unmeasured, overflow, series } = checkpoint;
        let continuity = Continuity::new(true, position, end);
        let mut state = Self::at(bounds, series_max, position, Some(created), continuity);
        for series in series {
            let hash = state.hasher.hash_one(series.key());
            state.series.insert_unique(hash, (hash, series), |(hash, _)| *hash);
        }
        Self { latest, caught_up, unmeasured, overflow, ..state }
    }

    /// Every span before this ordinal is counted.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Counts the delta of the spans from ordinal `first` on, if they are the next ones. Whole or not at all. They were
    /// committed at `committed`, since the Unix epoch: that is when series begin that they are the first of.
    pub fn merge(&mut self, first: u64, delta: &RedDelta, committed: Duration) -> Merge {
        let end = first.saturating_add(delta.spans());
        if end <= self.position {
            return Merge::Already;
        }
        let same_bounds = delta.bounds().is_some_and(|bounds| **bounds == *self.bounds);
        if first != self.position || !delta.is_complete() || !same_bounds {
            return Merge::Gap;
        }
        self.latest = self.latest.max(committed);
        for entry in delta.entries() {
            self.counts(&entry.key).add(&entry);
        }
        self.position = end;
        Merge::Counted
    }

    /// As [`Self::merge`], for a delta that was made by reading the log.
    pub(super) fn merge_caught_up(&mut self, first: u64, delta: &RedDelta, committed: Duration) -> Merge {
        let merge = self.merge(first, delta, committed);
        if merge == Merge::Counted {
            self.caught_up = self.caught_up.saturating_add(delta.spans());
        }
        merge
    }

    /// Passes the spans from `from` to `to`, which the log cannot give back, and counts under the reason that
    /// `choose` picks those that lie behind the position. Nothing is passed that lies before `from`.
    ///
    /// Returns true where these spans may have been counted on a page before the process began: the counters
    /// then begin at 0 again, behind them.
    pub(super) fn skip(
        &mut self,
        from: u64,
        to: u64,
        now: Duration,
        choose: fn(&mut Unmeasured) -> &mut u64,
    ) -> bool {
        if self.position < from || self.position >= to {
            return false;
        }
        let anew = self.continuity.would_go_back(self.position);
        if anew {
            self.continuity.begin_anew();
            self.series.clear();
            self.overflow = None;
            self.unmeasured = Unmeasured::default();
            self.caught_up = 0;
            self.latest = self.latest.max(now);
            self.created = self.created.max(Some(now));
        } else {
            let count = choose(&mut self.unmeasured);
            *count = count.saturating_add(to - self.position);
        }
        self.position = to;
        anew
    }

    /// The counters for a checkpoint; `None` where it is stored already, or none ever is.
    pub(super) fn checkpoint(&self) -> Option<Checkpoint> {
        if !self.continuity.is_worth_storing(self.position) {
            return None;
        }
        Some(Checkpoint {
            position: self.position,
            created: self.created.unwrap_or_default(),
            latest: self.latest,
            caught_up: self.caught_up,
            unmeasured: self.unmeasured,
            overflow: self.overflow.clone(),
            series: self.all_series(),
        })
    }

    fn counts(&mut self, key: &RedKey<'_>) -> &mut RedCounts {
        let hash = self.hasher.hash_one(key);
        let (buckets, created) = (self.bounds.buckets(), self.latest);
        let full = self.series.len() >= self.series_max;
        let found = |(other, series): &(u64, RedSeries)| *other == hash && series.key() == *key;
        // `find_entry` would borrow for too long in the branch of the overflow series.
        if full && self.series.find(hash, found).is_none() {
            return self.overflow.get_or_insert_with(|| RedCounts::new(buckets, created));
        }
        let (_, series) = self
            .series
            .entry(hash, found, |(hash, _)| *hash)
            .or_insert_with(|| {
                let series = RedSeries {
                    service: key.service.into(),
                    name: key.name.into(),
                    kind: key.kind,
                    status: key.status,
                    counts: RedCounts::new(buckets, created),
                };
                (hash, series)
            })
            .into_mut();
        &mut series.counts
    }

    fn all_series(&self) -> Vec<RedSeries> {
        let mut series = Vec::with_capacity(self.series.len());
        series.extend(self.series.iter().map(|(_, series)| series.clone()));
        series
    }

    pub(super) fn snapshot(&self) -> RedSnapshot {
        RedSnapshot {
            position: self.position,
            bounds: Arc::clone(&self.bounds),
            series: self.all_series(),
            overflow: self.overflow.clone(),
            series_max: self.series_max,
            unmeasured: self.unmeasured,
            caught_up: self.caught_up,
            created: self.created,
            restoring: self.continuity.restoring(self.position),
            checkpoints: self.continuity.checkpoints(),
            checkpoint_errors: self.continuity.errors(),
            checkpoint_error: self.continuity.error().cloned(),
        }
    }
}

/// The wall clock since the Unix epoch; 0 where it stands before that.
pub(super) fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
