//! `[metrics]`: how the RED metrics are kept.

use std::{ops::RangeInclusive, time::Duration};

use config::{Value, ValueKind};
use humantime_serde::re::humantime;
use nyx_telemetry::measure::{Bounds, Dimensions, Profile, RedSettings};

use super::{
    kinds::{Kind, duration, flag, whole, word},
    layers::is_text_only,
    section::declare,
};

/// A series may be forgotten after so long: not within a rate's window, which would then see it begin again.
const EXPIRE_AFTER: RangeInclusive<Duration> = Duration::from_secs(600)..=Duration::from_secs(30 * 86_400);

declare! {
    /// `[metrics]`.
    pub struct Metrics {
        /// Series of span metrics at most. Beyond a service's share new values of its label with most values are counted
        /// together, as `__other__`; see [metrics.md](metrics.md#the-cap).
        max_series: usize = whole(RedSettings::MAX_SERIES),
        /// The upper bounds of the duration histogram's buckets. In a variable: `2ms,1s`.
        histogram_bounds: Bounds = bounds(),
        /// Attributes that become labels of the span metrics; a span's wins over its resource's. In a label's name everything
        /// but ASCII letters, digits and `_` becomes `_`; a name that is taken is refused. In a variable:
        /// `http.route,host.name`.
        dimensions: Dimensions = dimensions(),
        /// The series of an operation are removed when nothing was counted in any of them for so long; if it comes back, they
        /// begin at 0 with a new created timestamp. Not set means never. Choose it longer than the windows of your `rate()`.
        expire_after: Option<Duration> = duration(EXPIRE_AFTER).or_unset(),
        /// By whose names the span metrics are exported: nyx's own, those of the spanmetrics connector of the OpenTelemetry
        /// collector, or those of Grafana Tempo's metrics generator; see [metrics.md](metrics.md#profiles).
        profile: Profile = word([
            ("nyx", Profile::Nyx),
            ("spanmetrics", Profile::SpanMetrics),
            ("tempo", Profile::Tempo),
        ]),
        /// Whether there are families for each span name, too: `nyx_span_count_NAME`, `nyx_span_duration_ms_NAME` and
        /// `nyx_span_errors_NAME`.
        seed_families: bool = flag(),
    }
}

impl Metrics {
    /// The same, as the library has it.
    pub(crate) fn red(&self) -> RedSettings {
        RedSettings {
            max_series: self.max_series,
            bounds: self.histogram_bounds.clone(),
            dimensions: self.dimensions.clone(),
            expire_after: self.expire_after,
            profile: self.profile,
            seed_families: self.seed_families,
            exemplars: None,
        }
    }
}

fn bounds() -> Kind<Bounds> {
    Kind::new("up to 64 durations above 0, ascending", |value| {
        let example = if is_text_only(value) { "10ms,1s" } else { "[\"10ms\", \"1s\"]" };
        let rule = format!("must be a list of durations, such as {example}");
        let Some(texts) = texts(value) else { return Err(rule) };
        let bounds = texts.iter().map(|text| {
            humantime::parse_duration(text).map_err(|_| format!("{rule}: {:?} is none", shortened(text)))
        });
        let bounds = bounds.collect::<Result<Vec<_>, _>>()?;
        Bounds::new(&bounds).map_err(|error| format!("must be ascending durations: {error}"))
    })
    .list()
}

fn dimensions() -> Kind<Dimensions> {
    Kind::new("up to 8 keys of 1 to 128 bytes", |value| {
        let texts = texts(value).ok_or("must be a list of attributes' keys, such as [\"http.route\"]")?;
        Dimensions::new(&texts).map_err(|error| format!("must be attributes that can be labels: {error}"))
    })
    .list()
}

fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(100)).unwrap_or_default()
}

/// A list of texts; in a variable or a flag a text with commas between them.
pub(super) fn texts(value: &Value) -> Option<Vec<String>> {
    match &value.kind {
        ValueKind::Array(values) => {
            let text = |value: &Value| match &value.kind {
                ValueKind::String(text) => Some(text.clone()),
                _ => None,
            };
            values.iter().map(text).collect()
        }
        ValueKind::String(_) if !is_text_only(value) => None,
        ValueKind::String(list) if list.trim().is_empty() => Some(Vec::new()),
        ValueKind::String(list) => Some(list.split(',').map(|part| part.trim().to_owned()).collect()),
        _ => None,
    }
}
