//! The RED counters themselves, and the position in the log up to which they count (level 0).

use std::{
    hash::BuildHasher as _,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use parking_lot::Mutex;

use super::{
    Bounds, RedDelta,
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
    /// When the counts began at 0, since the Unix epoch.
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
    /// No series yet, nothing counted before ordinal 0.
    pub fn new(bounds: Arc<Bounds>, series_max: usize) -> Self {
        Self {
            bounds,
            hasher: RandomState::default(),
            series: HashTable::with_capacity(series_max.saturating_add(1)),
            series_max,
            overflow: None,
            position: 0,
            unmeasured: Unmeasured::default(),
            caught_up: 0,
        }
    }

    /// Every span before this ordinal is counted.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Counts the delta of the spans from ordinal `first` on, if they are the next ones. Whole or not at all.
    pub fn merge(&mut self, first: u64, delta: &RedDelta, now: Duration) -> Merge {
        let end = first.saturating_add(delta.spans());
        if end <= self.position {
            return Merge::Already;
        }
        let same_bounds = delta.bounds().is_some_and(|bounds| **bounds == *self.bounds);
        if first != self.position || !delta.is_complete() || !same_bounds {
            return Merge::Gap;
        }
        for entry in delta.entries() {
            self.counts(&entry.key, now).add(&entry);
        }
        self.position = end;
        Merge::Counted
    }

    /// As [`Self::merge`], for a delta that was made by reading the log.
    fn merge_caught_up(&mut self, first: u64, delta: &RedDelta, now: Duration) -> Merge {
        let merge = self.merge(first, delta, now);
        if merge == Merge::Counted {
            self.caught_up = self.caught_up.saturating_add(delta.spans());
        }
        merge
    }

    /// Passes the spans from `from` to `to`, which the log cannot give back, and counts under the reason that
    /// `choose` picks those that lie behind the position. Nothing is passed that lies before `from`.
    fn skip(&mut self, from: u64, to: u64, choose: fn(&mut Unmeasured) -> &mut u64) {
        if self.position >= from && self.position < to {
            let count = choose(&mut self.unmeasured);
            *count = count.saturating_add(to - self.position);
            self.position = to;
        }
    }

    fn counts(&mut self, key: &RedKey<'_>, now: Duration) -> &mut RedCounts {
        let hash = self.hasher.hash_one(key);
        let buckets = self.bounds.buckets();
        let full = self.series.len() >= self.series_max;
        let found = |(other, series): &(u64, RedSeries)| *other == hash && series.key() == *key;
        // `find_entry` would borrow for too long in the branch of the overflow series.
        if full && self.series.find(hash, found).is_none() {
            return self.overflow.get_or_insert_with(|| RedCounts::new(buckets, now));
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
                    counts: RedCounts::new(buckets, now),
                };
                (hash, series)
            })
            .into_mut();
        &mut series.counts
    }

    fn snapshot(&self) -> RedSnapshot {
        let mut series = Vec::with_capacity(self.series.len());
        series.extend(self.series.iter().map(|(_, series)| series.clone()));
        RedSnapshot {
            position: self.position,
            bounds: Arc::clone(&self.bounds),
            series,
            overflow: self.overflow.clone(),
            series_max: self.series_max,
            unmeasured: self.unmeasured,
            caught_up: self.caught_up,
        }
    }
}

/// The RED counters where the actor, which may fail, and the pages both reach them.
#[derive(Debug)]
pub struct RedShared {
    bounds: Arc<Bounds>,
    state: Mutex<RedState>,
}

impl RedShared {
    /// No series yet, nothing counted before ordinal 0.
    pub fn new(bounds: Bounds, series_max: usize) -> Self {
        let bounds = Arc::new(bounds);
        Self { state: Mutex::new(RedState::new(Arc::clone(&bounds), series_max)), bounds }
    }

    /// The bounds, which every scratch shares.
    pub fn bounds(&self) -> &Arc<Bounds> {
        &self.bounds
    }

    /// Every span before this ordinal is counted.
    pub fn position(&self) -> u64 {
        self.state.lock().position
    }

    /// The counters at this moment.
    pub fn snapshot(&self) -> RedSnapshot {
        let mut snapshot = self.state.lock().snapshot();
        snapshot.series.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
        snapshot
    }

    /// [`RedState::merge`] under the lock; nothing in it can panic, which the lock would hide.
    pub fn merge(&self, first: u64, delta: &RedDelta, now: Duration) -> Merge {
        self.state.lock().merge(first, delta, now)
    }

    pub(super) fn merge_caught_up(&self, first: u64, delta: &RedDelta, now: Duration) -> Merge {
        self.state.lock().merge_caught_up(first, delta, now)
    }

    pub(super) fn skip(&self, from: u64, to: u64, choose: fn(&mut Unmeasured) -> &mut u64) {
        self.state.lock().skip(from, to, choose);
    }
}

impl Default for RedShared {
    fn default() -> Self {
        Self::new(Bounds::default(), SERIES_MAX_DEFAULT)
    }
}

/// The wall clock since the Unix epoch; 0 where it stands before that.
pub(super) fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
