//! What becomes of a series for which there may be no room (level 0).
//!
//! Series that are there go on whatever happens, and nothing is ever merged into another series. Of a new one this
//! decides whether it gets its own place. A service may take most of the room while it is free, and less of it the less
//! is left, so that one that puts ids into its span names leaves room for the others:
//!
//! ```text
//! max_series = own series, 9 in 10  +  folded series, 1 in 10       and one overflow series
//!
//! a service's own series < 8 × the places that are free             as long as nothing of it is folded
//!                        < 32 × the places that are free            with known values of what is folded
//! ```
//!
//! Beyond its share the label with most distinct values among the service's series is folded: new values of it become
//! [`OTHER`], in a series of its own with `otel_metric_overflow="true"` that begins at 0. Values that were there before
//! still get series. Where even folded series find no room, all labels of the span are folded, and then it is counted in
//! the one overflow series; so are spans of new services when little room is left, or when there are many.
//!
//! All of it follows from the order in which series come up, so that a process that counts the log again comes to
//! the same.

use std::{cmp::Reverse, sync::Arc};

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};

use super::{
    OTHER, RedKey, RedSeries,
    key::{Joined, Label},
    sketch::Sketch,
    table::Table,
};

/// A service may have so many times as many own series as there are places left ...
const SHARE: usize = 8;
/// ... and so many times, where the value of the folded label is a known one.
const SHARE_KNOWN: usize = 32;

/// New services leave one place in so many to those that are there.
const KEPT_FROM_NEW_SERVICES: usize = 20;

/// Decides.
#[derive(Debug)]
pub(super) struct Cap {
    dimensions: usize,
    own_max: usize,
    folded_max: usize,
    services_max: usize,
    own: usize,
    folded: usize,
    services: HashMap<Arc<str>, Service, RandomState>,
    turned_away: Sketch,
}

/// A service that has own series.
#[derive(Debug, Default)]
struct Service {
    own: usize,
    foldings: Vec<Folding>,
}

/// A label of a service whose new values are folded.
#[derive(Debug)]
struct Folding {
    label: Label,
    /// The values that were there before.
    known: HashSet<Box<str>, RandomState>,
    /// All values that were seen.
    distinct: Sketch,
}

/// What a checkpoint keeps of a [`Folding`]: the known values are those of the series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredFolding {
    pub(super) service: Arc<str>,
    pub(super) label: Label,
    pub(super) distinct: Sketch,
}

/// Where a span is counted that has no series yet.
#[derive(Debug)]
pub(super) enum Place<'a> {
    /// In a new series of its own.
    Own,
    /// In this series, which may be new.
    Folded(Folded<'a>),
    /// In the overflow series.
    Overflow,
}

/// A key of which some labels are folded.
#[derive(Debug)]
pub(super) struct Folded<'a> {
    key: RedKey<'a>,
    name: &'a str,
    dimensions: Joined,
}

/// A set of labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Labels(u16);

impl Labels {
    fn all(dimensions: usize) -> Self {
        Label::all(dimensions).fold(Self::default(), Self::with)
    }

    fn with(self, label: Label) -> Self {
        Self(self.0 | 1 << label.number())
    }

    fn has(self, label: Label) -> bool {
        self.0 >> label.number() & 1 == 1
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl<'a> Folded<'a> {
    fn of(key: &RedKey<'a>, labels: Labels, dimensions: usize) -> Self {
        let value = |label| if labels.has(label) { OTHER } else { key.label(label) };
        let mut joined = Joined::default();
        Label::all(dimensions).skip(1).for_each(|label| joined.push(value(label)));
        Self { key: *key, name: value(Label::NAME), dimensions: joined }
    }

    pub(super) fn key(&self) -> RedKey<'_> {
        RedKey { name: self.name, dimensions: self.dimensions.values(), overflow: true, ..self.key }
    }
}

impl Service {
    /// The folded labels of which the key has a value that was not there before.
    fn unknown(&self, key: &RedKey<'_>) -> Labels {
        let unknown =
            self.foldings.iter().filter(|folding| !folding.known.contains(key.label(folding.label)));
        unknown.fold(Labels::default(), |labels, folding| labels.with(folding.label))
    }

    /// Folds the label that has most values, of those that are not folded. Returns false if all are.
    fn fold(&mut self, service: &str, dimensions: usize, table: &Table) -> bool {
        let left = Label::all(dimensions).filter(|&label| self.foldings.iter().all(|it| it.label != label));
        let worst = left.map(|label| (label, known(service, label, table)));
        let Some((label, known)) = worst.max_by_key(|(label, known)| (known.len(), Reverse(*label))) else {
            return false;
        };
        let mut distinct = Sketch::EMPTY;
        known.iter().for_each(|value| distinct.see(value));
        self.foldings.push(Folding { label, known: known.into_iter().map(Box::from).collect(), distinct });
        true
    }
}

/// The values that a label has in the series of a service, but for the one that stands for others.
fn known<'a>(service: &str, label: Label, table: &'a Table) -> HashSet<&'a str, RandomState> {
    table.distinct(service, |key| {
        let value = key.label(label);
        (!key.overflow || value != OTHER).then_some(value)
    })
}

impl Cap {
    /// Nothing is there yet.
    pub(super) fn new(max_series: usize, dimensions: usize) -> Self {
        let folded_max = (max_series / 10).max(1).min(max_series);
        let own_max = max_series - folded_max;
        let services_max = (own_max / 2).max(1);
        Self {
            dimensions,
            own_max,
            folded_max,
            services_max,
            own: 0,
            folded: 0,
            services: HashMap::with_capacity_and_hasher(services_max, RandomState::default()),
            turned_away: Sketch::EMPTY,
        }
    }

    /// With the series of a table, and what a checkpoint said of them.
    pub(super) fn restored(
        max_series: usize,
        dimensions: usize,
        table: &Table,
        foldings: Vec<StoredFolding>,
        turned_away: Sketch,
    ) -> Self {
        let mut cap = Self { turned_away, ..Self::new(max_series, dimensions) };
        cap.recount(table);
        for StoredFolding { service, label, distinct } in foldings {
            if let Some(it) = cap.services.get_mut(&service) {
                let known = known(&service, label, table).into_iter().map(Box::from).collect();
                it.foldings.push(Folding { label, known, distinct });
            }
        }
        cap
    }

    /// What a checkpoint keeps, in the order of the services.
    pub(super) fn stored(&self) -> (Vec<StoredFolding>, Sketch) {
        let of_service = |(service, it): (&Arc<str>, &Service)| {
            let service = Arc::clone(service);
            let of = |it: &Folding| StoredFolding {
                service: Arc::clone(&service),
                label: it.label,
                distinct: it.distinct,
            };
            it.foldings.iter().map(of).collect::<Vec<_>>()
        };
        let mut foldings: Vec<_> = self.services.iter().flat_map(of_service).collect();
        // Stable: the foldings of a service stay in the order in which they came.
        foldings.sort_by(|a, b| a.service.cmp(&b.service));
        (foldings, self.turned_away)
    }

    /// The foldings, with about how many distinct values there were, and about how many services found no room.
    pub(super) fn offenders(&self) -> (Vec<(Arc<str>, Label, u64)>, u64) {
        let (foldings, turned_away) = self.stored();
        let foldings = foldings.into_iter().map(|it| (it.service, it.label, it.distinct.estimate()));
        (foldings.collect(), turned_away.estimate())
    }

    /// Services that have series.
    pub(super) fn services(&self) -> usize {
        self.services.len()
    }

    /// Begins anew.
    pub(super) fn clear(&mut self) {
        self.services.clear();
        (self.own, self.folded, self.turned_away) = (0, 0, Sketch::EMPTY);
    }

    /// These series are gone from the table: what is left is counted again, and their services are folded anew when
    /// they need it.
    pub(super) fn gone(&mut self, gone: &[RedSeries], table: &Table) {
        for series in gone {
            if let Some(service) = self.services.get_mut(&series.service) {
                service.foldings.clear();
            }
        }
        self.recount(table);
    }

    fn recount(&mut self, table: &Table) {
        (self.own, self.folded) = (0, 0);
        self.services.values_mut().for_each(|service| service.own = 0);
        for series in table.iter() {
            if series.overflow {
                self.folded += 1;
            } else {
                self.own += 1;
                self.services.entry(Arc::clone(&series.service)).or_default().own += 1;
            }
        }
        self.services.retain(|_, service| service.own > 0);
    }

    /// Where to count what has this key, which is no series of the table. Own and folded series are counted as there
    /// from now on.
    pub(super) fn place<'a>(&mut self, key: &RedKey<'a>, table: &Table) -> Place<'a> {
        let free = self.own_max.saturating_sub(self.own);
        let Some(service) = self.services.get_mut(key.service) else {
            if free <= self.own_max / KEPT_FROM_NEW_SERVICES || self.services.len() >= self.services_max {
                self.turned_away.see(key.service);
                return Place::Overflow;
            }
            self.services.insert(key.service.into(), Service { own: 1, foldings: Vec::new() });
            self.own += 1;
            return Place::Own;
        };
        let mut labels = service.unknown(key);
        let share = |service: &Service| if service.foldings.is_empty() { SHARE } else { SHARE_KNOWN };
        let has_room = |service: &Service| service.own < free.saturating_mul(share(service));
        while labels.is_empty() && !has_room(service) {
            if !service.fold(key.service, self.dimensions, table) {
                labels = Labels::all(self.dimensions);
                break;
            }
            labels = service.unknown(key);
        }
        if labels.is_empty() {
            service.own += 1;
            self.own += 1;
            return Place::Own;
        }
        for folding in service.foldings.iter_mut().filter(|folding| labels.has(folding.label)) {
            folding.distinct.see(key.label(folding.label));
        }
        self.fold(key, labels, table)
    }

    fn fold<'a>(&mut self, key: &RedKey<'a>, labels: Labels, table: &Table) -> Place<'a> {
        let all = Labels::all(self.dimensions);
        // Half of the places are for series of which everything is folded.
        for (labels, room) in [(labels, self.folded_max - self.folded_max / 2), (all, self.folded_max)] {
            let room = if labels == all { self.folded_max } else { room };
            let folded = Folded::of(key, labels, self.dimensions);
            let is_there = table.contains(&folded.key());
            if is_there || self.folded < room {
                self.folded += usize::from(!is_there);
                return Place::Folded(folded);
            }
        }
        Place::Overflow
    }
}

#[cfg(test)]
mod tests;
