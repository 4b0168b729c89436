//! From the RED counters to a metrics page (level 1).

use super::{RedCounts, RedKey, RedSnapshot};
use crate::{
    metrics::{
        HistogramValue, MEASURE_CAUGHT_UP, MEASURE_CHECKPOINT_ERRORS, MEASURE_CHECKPOINTS, MEASURE_CUT,
        MEASURE_EXPIRED, MEASURE_FOLDED, MEASURE_MAX_SERIES, MEASURE_POSITION, MEASURE_SERIES,
        MEASURE_UNMEASURED, Page, SPAN_COUNT, SPAN_DURATION, SPAN_ERRORS,
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

fn counters(red: &RedSnapshot, page: &mut Page) {
    let bounds: Vec<f64> = red.settings.bounds.seconds().collect();
    let mut all = |labels: [&str; 5], more: &[(&str, &str)], counts: &RedCounts| {
        page.counter_with(&SPAN_COUNT, labels, more, counts.count, counts.created);
        let sum = counts.sum_nanos as f64 / 1e9;
        let value =
            HistogramValue { bounds: &bounds, buckets: &counts.buckets, sum, created: counts.created };
        page.histogram_with(&SPAN_DURATION, labels, more, value);
    };
    for series in &red.series {
        let key = series.key();
        all(labels(&key, series.status), &dimensions(red, &key), &series.counts);
    }
    if let Some(overflow) = &red.overflow {
        all(OVERFLOW, &[], overflow);
    }
    errors(red, page);
    let created = red.created.unwrap_or(page.started());
    let totals = &red.totals;
    page.counter_since(&MEASURE_CAUGHT_UP, [], totals.caught_up, created);
    page.counter_since(&MEASURE_FOLDED, [], totals.folded, created);
    page.counter_since(&MEASURE_CUT, [], totals.cut, created);
    page.counter_since(&MEASURE_EXPIRED, [], totals.expired, created);
    page.counter_since(&MEASURE_UNMEASURED, ["damaged"], totals.unmeasured.damaged, created);
    page.counter_since(&MEASURE_UNMEASURED, ["released"], totals.unmeasured.released, created);
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
fn errors(red: &RedSnapshot, page: &mut Page) {
    for statuses in red.series.chunk_by(|a, b| a.key().is_operation_of(&b.key())) {
        let Some(first) = statuses.first() else { continue };
        let errors = statuses.iter().fold(0_u64, |sum, series| sum.saturating_add(series.counts.errors));
        let created = statuses.iter().map(|series| series.counts.created).min().unwrap_or_default();
        let key = first.key();
        let labels = labels(&key, StatusCode::Error);
        page.counter_with(&SPAN_ERRORS, labels, &dimensions(red, &key), errors, created);
    }
    if let Some(overflow) = &red.overflow {
        page.counter_since(&SPAN_ERRORS, OVERFLOW, overflow.errors, overflow.created);
    }
}
