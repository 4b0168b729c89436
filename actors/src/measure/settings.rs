//! What an operator may choose about the RED metrics (level 0).

use std::{ops::RangeInclusive, time::Duration};

use super::{Bounds, Dimensions};
use crate::span::Sampler;

/// How the RED metrics are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct RedSettings {
    /// Series at most, without the overflow series. See `measure/cap.rs` for what becomes of further ones.
    pub max_series: usize,
    /// The bounds of the duration histogram.
    pub bounds: Bounds,
    /// Labels from attributes.
    pub dimensions: Dimensions,
    /// How long nothing was counted in any series of an operation until they are removed; `None`: never.
    pub expire_after: Option<Duration>,
    /// By which names the span metrics are exported.
    pub profile: Profile,
    /// Whether there are families for each span name, too.
    pub seed_families: bool,
    /// Of which traces exemplars may be; `None`: there are none. What a destination gets: the tree's matter.
    pub exemplars: Option<Sampler>,
}

/// By whose names the span metrics are exported. What is counted is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// nyx's own.
    #[default]
    Nyx,
    /// Those of the spanmetrics connector of the OpenTelemetry collector.
    SpanMetrics,
    /// Those of the metrics generator of Grafana Tempo.
    Tempo,
}

impl RedSettings {
    /// What [`RedSettings::max_series`] may be in a configuration.
    pub const MAX_SERIES: RangeInclusive<usize> = 10..=100_000;

    /// Whether the counters go on alike under the one as under the other: only how they are shown may differ, and of which
    /// traces exemplars are.
    pub(super) fn goes_on_like(&self, other: &Self) -> bool {
        let RedSettings { max_series, expire_after, .. } = other;
        self.counts_like(other) && self.max_series == *max_series && self.expire_after == *expire_after
    }

    /// Whether what was counted under the one can be added to what was counted under the other.
    pub(super) fn counts_like(&self, other: &Self) -> bool {
        self.bounds == other.bounds && self.dimensions == other.dimensions
    }
}

impl Default for RedSettings {
    fn default() -> Self {
        Self {
            max_series: 2_000,
            bounds: Bounds::default(),
            dimensions: Dimensions::default(),
            expire_after: None,
            profile: Profile::Nyx,
            seed_families: true,
            exemplars: None,
        }
    }
}
