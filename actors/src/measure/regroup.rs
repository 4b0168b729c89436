//! The counters under other dimensions, cap or expiry (level 0).
//!
//! A series goes on where it can still be the same one: a dimension that is new is empty in it, as in a span without that
//! attribute, and one that is left out has to be empty. A series with a value of a dimension that is left out ends, and what it
//! would have counted begins at 0 elsewhere. So no two series become one, and what is shown under the same labels goes on.
//!
//! ```text
//! dimensions   route                    route, host                     host
//! series       GET, route=/a      ──►   GET, route=/a, host=    ──►     ends
//!              GET, route=        ──►   GET, route=,   host=    ──►     GET, host=
//! ```
//!
//! What comes out is what a checkpoint holds, so that this process goes on as the next one would from there.

use std::collections::BTreeSet;

use super::{
    Dimensions, OTHER, RedSeries,
    cap::StoredFolding,
    checkpoint::Checkpoint,
    key::{Joined, Label},
    seed,
};

/// Where each dimension's values are among other dimensions.
struct Places {
    /// For each new dimension the number of the one with the same label before.
    from: Vec<Option<usize>>,
    /// For each dimension before the number that it has now.
    to: Vec<Option<usize>>,
}

impl Places {
    fn new(before: &Dimensions, now: &Dimensions) -> Self {
        let among = |label: &str, all: &Dimensions| all.labels().position(|other| other == label);
        Self {
            from: now.labels().map(|label| among(label, before)).collect(),
            to: before.labels().map(|label| among(label, now)).collect(),
        }
    }

    /// Whether the series can be the same one still.
    fn goes_on(&self, series: &RedSeries) -> bool {
        let values = series.dimensions.values();
        self.to.iter().enumerate().all(|(number, to)| to.is_some() || values.get(number).is_empty())
    }

    /// The series as it goes on.
    fn series(&self, series: RedSeries) -> RedSeries {
        let mut joined = Joined::default();
        for from in &self.from {
            joined.push(from.map_or("", |number| series.dimensions.values().get(number)));
        }
        let dimensions = joined.values().into();
        RedSeries { dimensions, ..series }
    }

    /// What is folded, if it is a label still.
    fn folding(&self, folding: StoredFolding) -> Option<StoredFolding> {
        let label = match folding.label.dimension() {
            None => Label::NAME,
            Some(number) => Label::of_dimension(self.to.get(number).copied().flatten()?)?,
        };
        Some(StoredFolding { label, ..folding })
    }
}

/// The counters with these dimensions in place of those before, and how many series ended.
pub(super) fn regroup(checkpoint: Checkpoint, before: &Dimensions, now: &Dimensions) -> (Checkpoint, usize) {
    if before == now {
        return (checkpoint, 0);
    }
    let places = Places::new(before, now);
    let Checkpoint { series, foldings, mut departed, .. } = checkpoint;
    let (stay, ended): (Vec<_>, Vec<_>) = series.into_iter().partition(|series| places.goes_on(series));
    let stay: Vec<_> = stay.into_iter().map(|series| places.series(series)).collect();
    // The sums of a name go on though all its series may have ended: its spans come under others from now on.
    let mut names: BTreeSet<String> =
        stay.iter().chain(&ended).map(|series| seed::name_of(&series.name)).collect();
    if checkpoint.overflow.is_some() {
        names.insert(seed::name_of(OTHER));
    }
    for series in &ended {
        departed.entry(seed::name_of(&series.name)).or_default().add(&series.counts);
    }
    departed.retain(|name, _| names.contains(name));
    let foldings = foldings.into_iter().filter_map(|folding| places.folding(folding)).collect();
    (Checkpoint { series: stay, foldings, departed, ..checkpoint }, ended.len())
}

#[cfg(test)]
mod tests;
