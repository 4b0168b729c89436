//! From the RED counters to a metrics page (level 1).

use super::{RedCounts, RedSnapshot};
use crate::{
    metrics::{
        HistogramValue, MEASURE_CAUGHT_UP, MEASURE_CHECKPOINT_ERRORS, MEASURE_CHECKPOINTS,
        MEASURE_MAX_SERIES, MEASURE_POSITION, MEASURE_SERIES, MEASURE_UNMEASURED, Page, SPAN_COUNT,
        SPAN_DURATION, SPAN_ERRORS,
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
    page.gauge(&MEASURE_MAX_SERIES, [], red.series_max as f64);
    page.counter(&MEASURE_CHECKPOINTS, [], red.checkpoints);
    page.counter(&MEASURE_CHECKPOINT_ERRORS, [], red.checkpoint_errors);
}

fn counters(red: &RedSnapshot, page: &mut Page) {
    let bounds: Vec<f64> = red.bounds.seconds().collect();
    let mut all = |labels: [&str; 5], counts: &RedCounts| {
        page.counter_since(&SPAN_COUNT, labels, counts.count, counts.created);
        let sum = counts.sum_nanos as f64 / 1e9;
        let value =
            HistogramValue { bounds: &bounds, buckets: &counts.buckets, sum, created: counts.created };
        page.histogram(&SPAN_DURATION, labels, value);
    };
    for series in &red.series {
        let (kind, status) = (kind_label(series.kind), status_label(series.status));
        all([&series.service, &series.name, kind, status, ""], &series.counts);
    }
    if let Some(overflow) = &red.overflow {
        all(OVERFLOW, overflow);
    }
    errors(red, page);
    let created = red.created.unwrap_or(page.started());
    page.counter_since(&MEASURE_CAUGHT_UP, [], red.caught_up, created);
    page.counter_since(&MEASURE_UNMEASURED, ["damaged"], red.unmeasured.damaged, created);
    page.counter_since(&MEASURE_UNMEASURED, ["released"], red.unmeasured.released, created);
}

const OVERFLOW: [&str; 5] = ["", "", "", "", "true"];

/// The errors of each operation, 0 where it had none yet: a ratio and the first increase are then there from
/// the first span on. The series are in order, so that an operation's statuses stand together.
fn errors(red: &RedSnapshot, page: &mut Page) {
    let operation = red.series.chunk_by(|a, b| {
        let (a, b) = (a.key(), b.key());
        (a.service, a.name, a.kind) == (b.service, b.name, b.kind)
    });
    for statuses in operation {
        let Some(first) = statuses.first() else { continue };
        let errors = statuses.iter().map(|series| series.counts.errors).sum();
        let created = statuses.iter().map(|series| series.counts.created).min().unwrap_or_default();
        let labels =
            [&*first.service, &*first.name, kind_label(first.kind), status_label(StatusCode::Error), ""];
        page.counter_since(&SPAN_ERRORS, labels, errors, created);
    }
    if let Some(overflow) = &red.overflow {
        page.counter_since(&SPAN_ERRORS, OVERFLOW, overflow.errors, overflow.created);
    }
}
