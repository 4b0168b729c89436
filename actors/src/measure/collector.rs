//! From the RED counters to a metrics page (level 1).

use super::{Exemplar, Profile, RedCounts, RedKey, RedSnapshot, seed};
use crate::{
    metrics::{
        Counter, ExemplarValue, Histogram, HistogramValue, MEASURE_CAUGHT_UP, MEASURE_CHECKPOINT_ERRORS,
        MEASURE_CHECKPOINTS, MEASURE_CUT, MEASURE_EXPIRED, MEASURE_FOLDED, MEASURE_MAX_SERIES,
        MEASURE_POSITION, MEASURE_SERIES, MEASURE_UNMEASURED, Page, SPAN_COUNT, SPAN_DURATION, SPAN_ERRORS,
        SPANMETRICS_CALLS, SPANMETRICS_DURATION, TEMPO_CALLS, TEMPO_LATENCY,
    },
    span::{SpanKind, StatusCode},
};

/// A kind as the spanmetrics connector spells it.
pub const fn kind_label(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Unspecified => "SPAN_KIND_UNSPECIFIED",
        SpanKind::Internal => "SPAN_KIND_INTERNAL",
        SpanKind::Server => "SPAN_KIND_SERVER",
        SpanKind::Client => "SPAN_KIND_CLIENT",
        SpanKind::Producer => "SPAN_KIND_PRODUCER",
        SpanKind::Consumer => "SPAN_KIND_CONSUMER",
    }
}

/// A status code as the spanmetrics connector spells it.
pub const fn status_label(status: StatusCode) -> &'static str {
    match status {
        StatusCode::Unset => "STATUS_CODE_UNSET",
        StatusCode::Ok => "STATUS_CODE_OK",
        StatusCode::Error => "STATUS_CODE_ERROR",
    }
}

/// Puts the RED metrics and what there is to know about them onto a page. As long as counters may be behind what
/// a page showed before the process began, they are left out: none goes back.
pub fn collect(red: &RedSnapshot, page: &mut Page) {
    if red.restoring.is_none() {
        counters(red, page);
    }
    page.gauge(&MEASURE_POSITION, [], red.position as f64);
    page.gauge(&MEASURE_SERIES, [], red.series.len() as f64);
    page.gauge(&MEASURE_MAX_SERIES, [], red.settings.max_series as f64);
    page.counter(&MEASURE_CHECKPOINTS, [], red.checkpoints);
    page.counter(&MEASURE_CHECKPOINT_ERRORS, [], red.checkpoint_errors);
}

/// The families of a profile.
struct Names {
    count: &'static Counter<5>,
    duration: &'static Histogram<5>,
    /// Nanoseconds in the histogram's unit.
    unit: f64,
    /// Where errors have a family of their own, beside the label.
    errors: Option<&'static Counter<5>>,
}

impl Names {
    fn of(profile: Profile) -> Self {
        match profile {
            Profile::Nyx => {
                Self { count: &SPAN_COUNT, duration: &SPAN_DURATION, unit: 1e9, errors: Some(&SPAN_ERRORS) }
            }
            Profile::SpanMetrics => {
                Self { count: &SPANMETRICS_CALLS, duration: &SPANMETRICS_DURATION, unit: 1e6, errors: None }
            }
            Profile::Tempo => Self { count: &TEMPO_CALLS, duration: &TEMPO_LATENCY, unit: 1e9, errors: None },
        }
    }
}

fn counters(red: &RedSnapshot, page: &mut Page) {
    let Names { count, duration, unit, errors: of_errors } = Names::of(red.settings.profile);
    let bounds: Vec<f64> = red.settings.bounds.in_units_of(unit).collect();
    let mut all = |labels: [&str; 5], more: &[(&str, &str)], counts: &RedCounts| {
        let RedCounts { count: spans, sum_nanos, buckets, created, .. } = counts;
        page.counter_with(count, labels, more, *spans, *created);
        let exemplars = exemplars(counts, unit);
        let (sum, created) = (*sum_nanos as f64 / unit, *created);
        let value = HistogramValue { bounds: &bounds, buckets, sum, created, exemplars: &exemplars };
        page.histogram_with(duration, labels, more, value);
    };
    for series in &red.series {
        let key = series.key();
        all(labels(&key, series.status), &dimensions(red, &key), &series.counts);
    }
    if let Some(overflow) = &red.overflow {
        all(OVERFLOW, &[], overflow);
    }
    if let Some(family) = of_errors {
        errors(red, family, page);
    }
    if red.settings.seed_families {
        seed::collect(red, page);
    }
    let created = red.created.unwrap_or(page.started());
    let totals = &red.totals;
    page.counter_since(&MEASURE_CAUGHT_UP, [], totals.caught_up, created);
    page.counter_since(&MEASURE_FOLDED, [], totals.folded, created);
    page.counter_since(&MEASURE_CUT, [], totals.cut, created);
    page.counter_since(&MEASURE_EXPIRED, [], totals.expired, created);
    page.counter_since(&MEASURE_UNMEASURED, ["damaged"], totals.unmeasured.damaged, created);
    page.counter_since(&MEASURE_UNMEASURED, ["released"], totals.unmeasured.released, created);
}

fn exemplars(counts: &RedCounts, unit: f64) -> Vec<ExemplarValue> {
    let of = |bucket| counts.exemplars.get(bucket).map(|it| (bucket, it));
    let value = |(bucket, it): (usize, &Exemplar)| ExemplarValue {
        bucket,
        trace_id: it.trace_id,
        span_id: it.span_id,
        value: it.nanos as f64 / unit,
        at: it.ended,
    };
    (0..counts.buckets.len()).filter_map(of).map(value).collect()
}

const OVERFLOW: [&str; 5] = ["", "", "", "", "true"];

fn labels<'a>(key: &RedKey<'a>, status: StatusCode) -> [&'a str; 5] {
    let overflow = if key.overflow { "true" } else { "" };
    [key.service, key.name, kind_label(key.kind), status_label(status), overflow]
}

fn dimensions<'a>(red: &'a RedSnapshot, key: &RedKey<'a>) -> Vec<(&'a str, &'a str)> {
    let values = key.dimensions;
    red.settings.dimensions.labels().enumerate().map(|(number, name)| (name, values.get(number))).collect()
}

/// The errors of each operation, 0 where it had none yet: a ratio and the first increase are then there from
/// the first span on. The series are in order, so that an operation's statuses stand together.
fn errors(red: &RedSnapshot, family: &'static Counter<5>, page: &mut Page) {
    for statuses in red.series.chunk_by(|a, b| a.key().is_operation_of(&b.key())) {
        let Some(first) = statuses.first() else { continue };
        let errors = statuses.iter().fold(0_u64, |sum, series| sum.saturating_add(series.counts.errors));
        let created = statuses.iter().map(|series| series.counts.created).min().unwrap_or_default();
        let key = first.key();
        let labels = labels(&key, StatusCode::Error);
        page.counter_with(family, labels, &dimensions(red, &key), errors, created);
    }
    if let Some(overflow) = &red.overflow {
        page.counter_since(family, OVERFLOW, overflow.errors, overflow.created);
    }
}
