use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::*;
use crate::{
    measure::{RedScratch, RedSettings},
    span::{
        Reporter, RequestBuffer, SpanContext, SpanEncoder, SpanId, SpanKind, SpanStart, TraceFlags, TraceId,
        Value, scan,
    },
};

/// A span of a batch.
#[derive(Clone, Copy)]
struct Made {
    trace: u128,
    name: &'static str,
    error: bool,
    ms: u64,
}

const PLAIN: Made = Made { trace: 1, name: "plain", error: false, ms: 1 };
const ERROR: Made = Made { trace: 2, name: "failed", error: true, ms: 1 };
const SLOW: Made = Made { trace: 3, name: "slow", error: false, ms: 1_000 };
/// Not slow, but in the histogram's bucket of those that are.
const NEARLY: Made = Made { trace: 4, name: "nearly slow", error: false, ms: 999 };

/// The bytes of a batch and what it adds to the RED metrics. Each span is padded to about 1 KiB.
fn batch(spans: &[Made]) -> (Bytes, RedDelta) {
    let resource = [("service.name", Value::from("s"))];
    let reporter = Reporter { resource: &resource, scope_name: "", scope_version: "" };
    let (mut request, mut encoder) = (RequestBuffer::new(&reporter, 0), SpanEncoder::default());
    for made in spans {
        encoder.start(&SpanStart {
            context: SpanContext {
                trace_id: TraceId::from_int(made.trace),
                span_id: SpanId::from_int(1),
                flags: TraceFlags::SAMPLED,
            },
            parent: None,
            parent_is_remote: false,
            name: made.name,
            kind: SpanKind::Internal,
            start_unix_nano: 1,
        });
        encoder.attribute("connection.id", i64::try_from(made.trace).unwrap() * 100);
        encoder.attribute("padding", "x".repeat(900));
        encoder.status(if made.error { StatusCode::Error } else { StatusCode::Unset }, "");
        request.push(encoder.end(1 + made.ms * 1_000_000));
    }
    let (bytes, _) = request.take();
    let mut scratch = RedScratch::new(Arc::new(RedSettings::default()));
    scan(&bytes, |span| scratch.observe(span)).unwrap();
    (bytes, scratch.take())
}

fn retention(max_bytes: usize) -> Retention {
    Retention::new(RetentionConfig { max_bytes, ..RetentionConfig::default() })
}

fn retain(retention: &Retention, spans: &[Made]) -> bool {
    let (bytes, delta) = batch(spans);
    retention.retain([(bytes, &delta)].into_iter())
}

fn query() -> SpanQuery {
    SpanQuery { trace_id: None, connection: None, name: None, limit: 1_000_000 }
}

/// The names of what is found, in the order of the answer, and whether there is more.
fn found(retention: &Retention, query: &SpanQuery) -> (Vec<String>, bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let found = runtime.block_on(retention.find(query));
    let mut names = Vec::new();
    for request in &found.requests {
        scan(request, |span| names.push(span.name.to_owned())).unwrap();
    }
    assert_eq!(names.len(), found.spans);
    (names, found.truncated)
}

fn all(retention: &Retention) -> Vec<String> {
    found(retention, &query()).0
}

#[test]
fn the_last_spans_are_found_by_trace_connection_and_name_the_newest_first() {
    let retention = retention(1 << 20);
    assert!(!retain(&retention, &[PLAIN, ERROR]));
    assert!(!retain(&retention, &[SLOW, PLAIN]));
    assert_eq!(all(&retention), ["slow", "plain", "plain", "failed"]);
    let by = |query: SpanQuery| found(&retention, &query);
    assert_eq!(
        by(SpanQuery { trace_id: Some(TraceId::from_int(1)), ..query() }),
        (vec!["plain".to_owned(); 2], false)
    );
    assert_eq!(
        by(SpanQuery { connection: Some("300".to_owned()), ..query() }),
        (vec!["slow".to_owned()], false)
    );
    let name = Some("failed".to_owned());
    assert_eq!(by(SpanQuery { name: name.clone(), ..query() }), (vec!["failed".to_owned()], false));
    // Every condition has to hold.
    assert_eq!(by(SpanQuery { name, trace_id: Some(TraceId::from_int(1)), ..query() }), (vec![], false));
    assert_eq!(by(SpanQuery { connection: Some("30".to_owned()), ..query() }), (vec![], false));
}

#[test]
fn an_answer_has_no_more_than_its_limit_and_says_that_there_is_more() {
    let retention = retention(1 << 20);
    retain(&retention, &[PLAIN, PLAIN]);
    retain(&retention, &[SLOW, ERROR, PLAIN]);
    let with = |limit| found(&retention, &SpanQuery { limit, ..query() });
    assert_eq!(with(2), (vec!["slow".to_owned(), "failed".to_owned()], true));
    assert_eq!(with(4).0.len(), 4);
    assert!(with(4).1);
    assert_eq!((with(5).0.len(), with(5).1), (5, false), "no more than there are is not too many");
}

#[test]
fn an_answer_has_a_bound_in_bytes() {
    let retention = retention(64 << 20);
    let many = [PLAIN; 3_000];
    retain(&retention, &many);
    retain(&retention, &many);
    // 3,000 spans of about 1 KiB fit, 6,000 do not.
    let (names, truncated) = found(&retention, &query());
    assert_eq!((names.len(), truncated), (3_000, true));
}

#[test]
fn errors_and_slow_spans_stay_when_others_have_made_room() {
    let retention = retention(80 << 10);
    retain(&retention, &[PLAIN, ERROR, PLAIN, SLOW, NEARLY]);
    for _ in 0..200 {
        retain(&retention, &[PLAIN]);
        retention.sift();
    }
    let names = all(&retention);
    let (kept, recent): (Vec<_>, Vec<_>) = names.iter().partition(|name| *name != "plain");
    assert_eq!(kept, ["failed", "slow"], "alone, without what was beside them");
    assert!(recent.len() > 20 && recent.len() < 40, "{}", recent.len());
    let stats = retention.stats();
    assert_eq!((stats.kept_spans, stats.recent_spans), (2, recent.len() as u64));
    assert_eq!(stats.unsifted_spans, 0);
}

#[test]
fn what_is_in_transit_stays_readable_until_it_is_looked_through() {
    let retention = retention(80 << 10);
    retain(&retention, &[ERROR, PLAIN]);
    // Half of 80 KiB is for recent batches of more than 1 KiB each.
    for _ in 0..40 {
        retain(&retention, &[PLAIN]);
    }
    let failed = SpanQuery { name: Some("failed".to_owned()), ..query() };
    assert_eq!(found(&retention, &failed).0.len(), 1);
    assert_eq!(retention.stats().kept_spans, 0);
    retention.sift();
    assert_eq!(found(&retention, &failed).0.len(), 1);
    assert_eq!(retention.stats().kept_spans, 1);
}

#[test]
fn memory_is_bounded_whatever_comes_and_what_was_not_looked_through_is_counted() {
    let retention = retention(80 << 10);
    let mut woken = false;
    let mut spans = 0;
    for round in 0..500 {
        woken |= retain(&retention, &[ERROR; 3]);
        spans += 3;
        if round == 400 {
            assert!(woken, "the thread is told that there is work");
            assert!(retention.stats().unsifted_spans > 0, "nobody looked");
            retention.sift();
        }
        let RetentionStats { bytes, max_bytes, .. } = retention.stats();
        assert!(bytes <= max_bytes, "{bytes}");
    }
    let stats = retention.stats();
    assert_eq!(stats.max_bytes, 80 << 10);
    assert!(stats.recent_spans + stats.kept_spans + stats.unsifted_spans <= spans, "{stats:?}");
}

#[test]
fn a_batch_that_is_larger_than_its_part_is_counted_and_pushes_nothing_out() {
    let retention = retention(16 << 10);
    retain(&retention, &[PLAIN]);
    let before = retention.stats();
    retain(&retention, &[PLAIN; 40]);
    retain(&retention, &[ERROR; 40]);
    assert_eq!(all(&retention).len(), 1);
    assert_eq!(retention.stats(), RetentionStats { unsifted_spans: 80, ..before });
}

#[test]
fn the_batch_in_the_hand_of_a_thread_that_failed_is_counted_and_not_tried_again() {
    let mut buffer = Buffer::new(16 << 10);
    let (bytes, _) = batch(&[ERROR]);
    let cost = bytes.len();
    // Seven are recent, one is in transit.
    for _ in 0..9 {
        buffer.push(Batch { bytes: bytes.clone(), spans: 1, cost, has_worthy: true });
    }
    assert!(buffer.next().is_some());
    assert_eq!(buffer.newest_first().len(), 8, "what is in hand is readable");
    assert!(buffer.next().is_none());
    assert_eq!(buffer.stats().unsifted_spans, 2, "one found no room, one was in hand");
    assert_eq!(buffer.newest_first().len(), 7);
}

#[test]
fn one_query_runs_at_a_time_and_lets_others_run_between_its_steps() {
    let retention = retention(16 << 20);
    for _ in 0..4 {
        retain(&retention, &[PLAIN; 300]);
    }
    let (first_query, second_query) = (query(), query());
    let mut first = Box::pin(retention.find(&first_query));
    assert!((&mut first).now_or_never().is_none(), "more than a step");
    let mut second = Box::pin(retention.find(&second_query));
    assert!((&mut second).now_or_never().is_none());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        assert_eq!(first.await.spans, 1_200);
        assert_eq!(second.await.spans, 1_200);
    });
}

#[test]
fn a_batch_without_a_complete_account_is_looked_through() {
    let retention = retention(1 << 20);
    let (_, plain) = batch(&[PLAIN]);
    let (_, nearly) = batch(&[NEARLY]);
    let (_, slow) = batch(&[SLOW]);
    assert!(!retention.may_have_worthy(&plain));
    assert!(retention.may_have_worthy(&slow));
    assert!(retention.may_have_worthy(&nearly), "the buckets do not tell");
    let mut scratch = RedScratch::new(Arc::new(RedSettings::default()));
    let (bytes, _) = batch(&[PLAIN]);
    let names: Vec<_> = (0..3_000).map(|number| number.to_string()).collect();
    for name in &names {
        scan(&bytes, |span| scratch.observe(&crate::span::SpanView { name, ..*span })).unwrap();
    }
    assert!(retention.may_have_worthy(&scratch.take()));
    let never = Retention::new(RetentionConfig { slow: Duration::MAX, ..RetentionConfig::default() });
    assert!(!never.may_have_worthy(&slow));
}

#[test]
fn the_thread_is_told_to_look_no_more_often_than_its_pace() {
    let mut buffer = Buffer::new(16 << 10);
    let (bytes, _) = batch(&[ERROR]);
    let cost = bytes.len();
    let begin = Instant::now();
    assert!(!buffer.wakes(begin), "there is nothing to look through");
    for _ in 0..9 {
        buffer.push(Batch { bytes: bytes.clone(), spans: 1, cost, has_worthy: true });
    }
    let told: Vec<u64> = (0..1_000).filter(|ms| buffer.wakes(begin + Duration::from_millis(*ms))).collect();
    assert_eq!(told, [0, 250, 500, 750]);
}
