use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    measure::Bounds,
    span::{Sampler, SpanBytes, SpanId, TraceId},
};

fn span<'a>(service: &'a str, name: &'a str, status: StatusCode, nanos: u64) -> SpanView<'a> {
    SpanView {
        service,
        name,
        kind: SpanKind::Server,
        status,
        start_unix_nano: 1_000,
        end_unix_nano: 1_000 + nanos,
        trace_id: TraceId::from_int(1),
        span_id: SpanId::from_int(1),
        bytes: SpanBytes::default(),
    }
}

fn scratch() -> RedScratch {
    RedScratch::new(Arc::default())
}

#[test]
fn spans_with_the_same_four_labels_are_one_entry() {
    let mut scratch = scratch();
    scratch.observe(&span("shop", "pay", StatusCode::Unset, 1_000_000));
    scratch.observe(&span("shop", "pay", StatusCode::Unset, 3_000_000));
    scratch.observe(&span("shop", "pay", StatusCode::Error, 20_000_000_000));
    let delta = scratch.take();
    let entries: Vec<_> = delta.entries().map(|e| (e.key.status, e.count, e.sum_nanos)).collect();
    assert_eq!(entries, [(StatusCode::Unset, 2, 4_000_000), (StatusCode::Error, 1, 20_000_000_000)]);
    let error = delta.entries().nth(1).unwrap();
    assert_eq!(error.buckets.iter().position(|&n| n == 1), Some(16));
    assert_eq!(delta.spans(), 3);
    assert_eq!(scratch.take().spans(), 0, "a scratch is empty after a take");
}

#[test]
fn a_discarded_batch_leaves_nothing_in_the_next_one() {
    let mut scratch = scratch();
    scratch.observe(&span("shop", "pay", StatusCode::Unset, 1));
    scratch.discard();
    scratch.observe(&span("shop", "sell", StatusCode::Unset, 1));
    let delta = scratch.take();
    let names: Vec<_> = delta.entries().map(|entry| (entry.key.service, entry.key.name)).collect();
    assert_eq!((names, delta.spans()), (vec![("shop", "sell")], 1));
}

#[test]
fn a_border_between_service_and_name_is_not_blurred() {
    let mut scratch = scratch();
    scratch.observe(&span("ab", "c", StatusCode::Unset, 1));
    scratch.observe(&span("a", "bc", StatusCode::Unset, 1));
    scratch.observe(&span("", "", StatusCode::Unset, 1));
    assert_eq!(scratch.take().entries().count(), 3);
}

#[test]
fn a_long_label_is_cut_at_a_characters_boundary() {
    let mut scratch = scratch();
    let long = format!("{}é{}", "x".repeat(255), "y".repeat(1 << 16));
    scratch.observe(&span(&long, &long, StatusCode::Unset, 1));
    let delta = scratch.take();
    let entry = delta.entries().next().unwrap();
    assert_eq!(entry.key.name, "x".repeat(255));
    assert_eq!(entry.key.service, "x".repeat(255));
    assert_eq!(delta.cut(), 2, "and counted");
    scratch.observe(&span("s", "n", StatusCode::Unset, 1));
    assert_eq!(scratch.take().cut(), 0);
}

#[test]
fn a_batch_of_too_many_series_makes_a_small_incomplete_delta() {
    let mut scratch = scratch();
    let names: Vec<String> = (0..SERIES_MAX + 10).map(|i| format!("name {i}")).collect();
    for name in &names {
        scratch.observe(&span("s", name, StatusCode::Unset, 1));
    }
    let delta = scratch.take();
    assert!(!delta.is_complete());
    assert_eq!(delta.entries().count(), SERIES_MAX);
    assert_eq!(delta.spans(), names.len() as u64);
    assert_eq!(
        format!("{delta:?}"),
        "RedDelta { spans: 2058, series: 2048, uncounted: 10, .. }",
        "the debug form gives counts, never contents"
    );
    scratch.observe(&span("s", "again", StatusCode::Unset, 1));
    assert!(scratch.take().is_complete(), "the next batch begins anew");
}

#[test]
fn an_exemplar_is_the_first_span_of_its_bucket_whose_trace_a_destination_gets() {
    let settings = RedSettings { exemplars: Some(Sampler::new(0.5)), ..RedSettings::default() };
    let mut scratch = RedScratch::new(Arc::new(settings));
    // By the last 56 bits: the upper half is kept.
    let (kept, dropped) = (TraceId::from_int(1 << 55), TraceId::from_int((1 << 55) - 1));
    let ms = 1_000_000;
    for (trace_id, name, millis) in [
        (dropped, "a", 1),
        (kept, "a", 2),
        (kept, "a", 1),
        (kept, "b", 3),
        (kept, "a", 20_000),
        (dropped, "b", 9),
    ] {
        scratch.observe(&SpanView { trace_id, ..span("s", name, StatusCode::Unset, millis * ms) });
    }
    let delta = scratch.take();
    let exemplars: Vec<Vec<_>> = delta
        .entries()
        .map(|entry| entry.exemplars.iter().map(|(_, it)| (it.bucket, it.nanos / ms, it.trace_id)).collect())
        .collect();
    assert_eq!(exemplars, [vec![(0, 2, kept), (16, 20_000, kept)], vec![(1, 3, kept)]]);
    scratch.observe(&SpanView { trace_id: kept, ..span("s", "a", StatusCode::Unset, ms) });
    assert_eq!(scratch.take().entries().next().unwrap().exemplars.len(), 1, "the next batch begins anew");

    let mut none = RedScratch::new(Arc::default());
    none.observe(&SpanView { trace_id: kept, ..span("s", "a", StatusCode::Unset, ms) });
    assert!(none.take().entries().all(|entry| entry.exemplars.is_empty()), "nobody gets it");
}

/// A span of a small world, so that series repeat.
type Plain = (String, String, i32, i32, u64, u64);

fn plain() -> impl Strategy<Value = Plain> {
    let text = prop_oneof!["[a-c]{0,2}", "é{120,140}"];
    let time = prop_oneof![0u64..4, 0u64..20_000_000_000, Just(u64::MAX)];
    (text.clone(), text, 0i32..7, 0i32..4, time.clone(), time)
}

fn view(plain: &Plain) -> SpanView<'_> {
    let (service, name, kind, status, start, end) = plain;
    SpanView {
        service,
        name,
        kind: SpanKind::from_wire(*kind),
        status: StatusCode::from_wire(*status),
        start_unix_nano: *start,
        end_unix_nano: *end,
        trace_id: TraceId::from_int(1),
        span_id: SpanId::from_int(1),
        bytes: SpanBytes::default(),
    }
}

/// Characters one by one, as long as they fit.
fn naive_cut(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if out.len() + c.len_utf8() > LABEL_BYTES_MAX {
            break;
        }
        out.push(c);
    }
    out
}

type Naive = BTreeMap<(String, String, SpanKind, StatusCode), (u64, u64, u128, Vec<u64>)>;

fn naive(spans: &[Plain]) -> Naive {
    let bounds: Vec<f64> = Bounds::default().seconds().collect();
    let mut out = Naive::new();
    for plain in spans {
        let span = view(plain);
        let key = (naive_cut(span.service), naive_cut(span.name), span.kind, span.status);
        let entry = out.entry(key).or_insert((0, 0, 0, vec![0; bounds.len() + 1]));
        let nanos = (i128::from(span.end_unix_nano) - i128::from(span.start_unix_nano)).max(0) as u64;
        entry.0 += 1;
        entry.1 += u64::from(span.status == StatusCode::Error);
        entry.2 += u128::from(nanos);
        let bucket = bounds.iter().position(|b| u128::from(nanos) <= (b * 1e9).round() as u128);
        entry.3[bucket.unwrap_or(bounds.len())] += 1;
    }
    out
}

proptest! {
    #[test]
    fn scratch_and_merge_equal_a_naive_count(batches in prop::collection::vec(prop::collection::vec(plain(), 0..40), 0..6)) {
        let shared = crate::measure::RedShared::default();
        let mut scratch = RedScratch::new(shared.settings());
        let mut first = 0;
        for batch in &batches {
            batch.iter().for_each(|span| scratch.observe(&view(span)));
            let delta = scratch.take();
            prop_assert_eq!(delta.spans(), batch.len() as u64);
            shared.merge(first, &delta, std::time::Duration::ZERO);
            first += delta.spans();
        }
        let snapshot = shared.snapshot();
        prop_assert_eq!(snapshot.position, first);
        let counted: Naive = snapshot.series.iter().map(|s| {
            let c = &s.counts;
            let key = (s.service.to_string(), s.name.to_string(), s.kind, s.status);
            (key, (c.count, c.errors, c.sum_nanos, c.buckets.to_vec()))
        }).collect();
        prop_assert_eq!(counted, naive(&batches.concat()));
        prop_assert!(snapshot.series.is_sorted_by(|a, b| a.key() < b.key()));
    }
}
