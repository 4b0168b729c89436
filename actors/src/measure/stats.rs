//! What `/stats` says of the RED metrics (level 0).

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use serde::Serialize;

use super::{OTHER, RedSeries, RedSettings, RedSnapshot, key::Label};

/// Offenders that are shown at most: those with most spans.
const OFFENDERS_MAX: usize = 20;

/// The RED metrics on `/stats`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RedStats {
    /// Every span before this ordinal is counted.
    pub position: u64,
    /// Series, without the overflow series.
    pub series: usize,
    /// Series at most.
    pub max_series: usize,
    /// Services that have series of their own.
    pub services: usize,
    /// Spans counted in a series that stands for many.
    pub folded_spans: u64,
    /// Which labels are folded; 20 at most, those with most spans first.
    pub offenders: Vec<Offender>,
}

/// A label with more values than there was room for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Offender {
    /// The service; `None` where services themselves were too many.
    pub service: Option<String>,
    /// The label.
    pub label: String,
    /// About how many values there were.
    pub distinct_values: u64,
    /// Spans that are counted in series with the value `__other__` of it, or in the overflow series.
    pub folded_spans: u64,
}

impl RedStats {
    pub(super) fn of(
        red: &RedSnapshot,
        services: usize,
        foldings: Vec<(Arc<str>, Label, u64)>,
        turned_away: u64,
    ) -> Self {
        let mut folded: BTreeMap<&str, Vec<&RedSeries>> = BTreeMap::new();
        for series in red.series.iter().filter(|series| series.overflow) {
            folded.entry(&series.service).or_default().push(series);
        }
        let mut offenders: Vec<_> = foldings
            .into_iter()
            .map(|(service, label, distinct_values)| {
                let of_service = folded.get(&*service).into_iter().flatten();
                let of_it = of_service.filter(|series| series.key().label(label) == OTHER);
                Offender {
                    service: Some(service.to_string()),
                    label: name_of(label, &red.settings),
                    distinct_values,
                    folded_spans: of_it.fold(0, |spans, series| spans.saturating_add(series.counts.count)),
                }
            })
            .collect();
        if let Some(overflow) = &red.overflow {
            offenders.push(Offender {
                service: None,
                label: "service_name".to_owned(),
                distinct_values: turned_away,
                folded_spans: overflow.count,
            });
        }
        offenders.sort_by_key(|offender| Reverse(offender.folded_spans));
        offenders.truncate(OFFENDERS_MAX);
        Self {
            position: red.position,
            series: red.series.len(),
            max_series: red.settings.max_series,
            services,
            folded_spans: red.totals.folded,
            offenders,
        }
    }
}

fn name_of(label: Label, settings: &RedSettings) -> String {
    let dimension = usize::from(label.number()).checked_sub(1);
    let name = dimension.and_then(|dimension| settings.dimensions.labels().nth(dimension));
    name.unwrap_or("span_name").to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        measure::{Dimensions, RedScratch, RedShared},
        span::{SpanBytes, SpanId, SpanKind, SpanView, StatusCode, TraceId},
    };

    /// The statistics after spans of these services and names.
    fn stats(settings: RedSettings, spans: impl Iterator<Item = (String, String)>) -> RedStats {
        let red = RedShared::new(settings);
        for (at, (service, name)) in (0..).zip(spans) {
            let mut scratch = RedScratch::new(red.settings());
            scratch.observe(&SpanView {
                service: &service,
                name: &name,
                kind: SpanKind::Server,
                status: StatusCode::Unset,
                start_unix_nano: 0,
                end_unix_nano: 1,
                trace_id: TraceId::from_int(1),
                span_id: SpanId::from_int(1),
                bytes: SpanBytes::default(),
            });
            red.merge(at, &scratch.take(), Duration::ZERO);
        }
        red.stats()
    }

    #[test]
    fn of_many_offenders_those_with_most_spans_are_shown() {
        // In turn, so that all of them come to fold; the last has most spans.
        let each = (0..40).flat_map(|name| (0..30).map(move |service| (service, name)));
        let last = (40..140).map(|name| (29, name));
        let spans =
            each.chain(last).map(|(service, name)| (format!("service {service:02}"), format!("name {name}")));
        let stats = stats(RedSettings { max_series: 600, ..RedSettings::default() }, spans);
        assert_eq!((stats.services, stats.offenders.len()), (30, 20));
        let worst = &stats.offenders[0];
        assert_eq!((worst.service.as_deref(), worst.label.as_str()), (Some("service 29"), "span_name"));
        assert!((100..140).contains(&worst.folded_spans), "{worst:?}");
        assert!(stats.folded_spans > worst.folded_spans && stats.series <= 600);
    }

    #[test]
    fn services_that_are_too_many_are_an_offender_of_nobodys() {
        let settings = RedSettings {
            max_series: 10,
            dimensions: Dimensions::new(&["route".to_owned()]).unwrap(),
            ..RedSettings::default()
        };
        let stats = stats(settings, (0..50).map(|service| (format!("service {service}"), "run".to_owned())));
        let [offender] = &stats.offenders[..] else { panic!("{stats:?}") };
        assert_eq!((offender.service.as_deref(), offender.label.as_str()), (None, "service_name"));
        assert_eq!(offender.folded_spans, stats.folded_spans);
    }
}
