//! The series by their keys (level 0).

use std::{hash::BuildHasher as _, time::Duration};

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet, HashTable};

use super::{RedCounts, RedKey, RedSeries};
use crate::span::StatusCode;

/// Every series, found by its key. Keys come from strangers, so the hash is randomly seeded.
#[derive(Debug)]
pub(super) struct Table {
    hasher: RandomState,
    series: HashTable<(u64, RedSeries)>,
}

impl Table {
    /// Has room for so many from the start.
    pub(super) fn with_capacity(series: usize) -> Self {
        Self { hasher: RandomState::default(), series: HashTable::with_capacity(series) }
    }

    pub(super) fn len(&self) -> usize {
        self.series.len()
    }

    pub(super) fn get_mut(&mut self, key: &RedKey<'_>) -> Option<&mut RedSeries> {
        let hash = self.hasher.hash_one(key);
        let found = self.series.find_mut(hash, |(other, series)| *other == hash && series.key() == *key);
        found.map(|(_, series)| series)
    }

    pub(super) fn contains(&self, key: &RedKey<'_>) -> bool {
        let hash = self.hasher.hash_one(key);
        self.series.find(hash, |(other, series)| *other == hash && series.key() == *key).is_some()
    }

    /// Adds a series that is not there.
    pub(super) fn insert(&mut self, series: RedSeries) -> &mut RedSeries {
        let hash = self.hasher.hash_one(series.key());
        &mut self.series.insert_unique(hash, (hash, series), |(hash, _)| *hash).into_mut().1
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &RedSeries> {
        self.series.iter().map(|(_, series)| series)
    }

    /// Their counts: what tells a series from others stays.
    pub(super) fn counts_mut(&mut self) -> impl Iterator<Item = &mut RedCounts> {
        self.series.iter_mut().map(|(_, series)| &mut series.counts)
    }

    pub(super) fn of_service(&self, service: &str) -> impl Iterator<Item = &RedSeries> {
        self.iter().filter(move |series| &*series.service == service)
    }

    pub(super) fn to_vec(&self) -> Vec<RedSeries> {
        let mut series = Vec::with_capacity(self.len());
        series.extend(self.iter().cloned());
        series
    }

    pub(super) fn clear(&mut self) {
        self.series.clear();
    }

    /// Removes the operations in which nothing was counted since `before`, and returns the series that went. An operation goes
    /// as a whole: its errors are shown as long as it is.
    pub(super) fn expire(&mut self, before: Duration) -> Vec<RedSeries> {
        let operation = |hasher: &RandomState, series: &RedSeries| {
            hasher.hash_one(RedKey { status: StatusCode::Unset, ..series.key() })
        };
        let mut last: HashMap<u64, Duration, RandomState> = HashMap::default();
        for (_, series) in &self.series {
            let last = last.entry(operation(&self.hasher, series)).or_default();
            *last = (*last).max(series.counts.last);
        }
        let hasher = &self.hasher;
        let is_idle = |(_, series): &mut (u64, RedSeries)| {
            last.get(&operation(hasher, series)).is_some_and(|&last| last < before)
        };
        self.series.extract_if(is_idle).map(|(_, series)| series).collect()
    }

    /// How many distinct texts `label` gives.
    pub(super) fn distinct<'a>(
        &'a self,
        service: &str,
        label: impl Fn(RedKey<'a>) -> Option<&'a str>,
    ) -> HashSet<&'a str, RandomState> {
        self.of_service(service).filter_map(|series| label(series.key())).collect()
    }
}
