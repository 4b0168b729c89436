//! A family for each span name, as the first design of this bridge has them: `nyx_span_count_NAME`,
//! `nyx_span_duration_ms_NAME` and `nyx_span_errors_NAME` (level 0).
//!
//! They are sums over the series of the span metrics, so that they are bounded by the same cap, and go on over a restart.

use std::collections::{BTreeMap, BTreeSet};

use super::{OTHER, RedCounts, RedSeries, RedSnapshot};
use crate::metrics::{Page, SEED_COUNT, SEED_DURATION, SEED_ERRORS};

/// Endings by which OpenMetrics tells the samples of other types.
const RESERVED: [&str; 8] = ["_total", "_created", "_bucket", "_count", "_sum", "_info", "_gcount", "_gsum"];

/// What is summed up under one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sums {
    pub(super) count: u64,
    pub(super) errors: u64,
    pub(super) sum_nanos: u128,
}

impl Sums {
    pub(super) fn add(&mut self, counts: &RedCounts) {
        self.count = self.count.saturating_add(counts.count);
        self.errors = self.errors.saturating_add(counts.errors);
        self.sum_nanos = self.sum_nanos.saturating_add(counts.sum_nanos);
    }
}

/// Sums of series that are gone, by their names: as long as another series has the same name its sum does not go back.
pub(super) type Departed = BTreeMap<String, Sums>;

/// Takes over the sums of series that are gone, where others with their names stay, and forgets names that none has any more.
pub(super) fn depart<'a>(
    departed: &mut Departed,
    gone: &[RedSeries],
    stay: impl Iterator<Item = &'a RedSeries>,
    overflow: Option<&RedCounts>,
) {
    if gone.is_empty() {
        return;
    }
    for series in gone {
        departed.entry(name_of(&series.name)).or_default().add(&series.counts);
    }
    let stay = stay.map(|series| &*series.name).chain(overflow.map(|_| OTHER));
    let names: BTreeSet<String> = stay.map(name_of).collect();
    departed.retain(|name, _| names.contains(name));
}

/// A span's name as the end of a metric's: everything but ASCII letters, digits and `_` becomes `_`, and one that would
/// end like a sample of another type gets a `_` behind it. Names that become the same are summed.
pub(super) fn name_of(span_name: &str) -> String {
    let mut name = String::with_capacity(span_name.len() + 1);
    name.extend(span_name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }));
    // A family's prefix ends with a `_`.
    let is_reserved = |ending: &&str| name.ends_with(*ending) || ending.strip_prefix('_') == Some(&name);
    if RESERVED.iter().any(is_reserved) {
        name.push('_');
    }
    name
}

/// Puts the families onto a page.
pub(super) fn collect(red: &RedSnapshot, page: &mut Page) {
    let mut sums = red.departed.clone();
    for series in &red.series {
        sums.entry(name_of(&series.name)).or_default().add(&series.counts);
    }
    if let Some(overflow) = &red.overflow {
        sums.entry(name_of(OTHER)).or_default().add(overflow);
    }
    for (name, Sums { count, errors, sum_nanos }) in sums {
        page.unknown(&SEED_COUNT, &name, count as f64);
        page.unknown(&SEED_DURATION, &name, sum_nanos as f64 / 1e6);
        page.unknown(&SEED_ERRORS, &name, errors as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{ALL, PROFILES};

    #[test]
    fn a_name_that_ends_like_a_sample_of_another_type_gets_an_underscore() {
        assert_eq!(name_of("connection_start"), "connection_start");
        assert_eq!(name_of("GET /pay-é:x"), "GET__pay___x");
        assert_eq!(name_of("bytes_total"), "bytes_total_");
        assert_eq!(name_of("total"), "total_");
        assert_eq!(name_of("subtotal"), "subtotal");
        assert_eq!(name_of("rows_gsum"), "rows_gsum_");
        assert_eq!(name_of(""), "");
    }

    #[test]
    fn no_span_name_makes_a_family_that_is_declared() {
        let declared: Vec<_> = ALL.iter().chain(PROFILES).map(|family| family.open_name()).collect();
        for prefix in [&SEED_COUNT, &SEED_DURATION, &SEED_ERRORS].map(|seed| seed.prefix) {
            for name in &declared {
                for ending in RESERVED.iter().chain(&[""]) {
                    let Some(rest) = format!("{name}{ending}").strip_prefix(prefix).map(str::to_owned) else {
                        continue;
                    };
                    assert_ne!(name_of(&rest), rest, "{prefix}{rest}");
                }
            }
        }
    }
}
