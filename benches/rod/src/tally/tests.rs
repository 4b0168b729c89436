use super::*;
use crate::wire::put_bytes;

fn request(first: u64, count: u64) -> Vec<u8> {
    let mut out = Vec::new();
    Generator::new(1).put_request(&mut out, first, count);
    out
}

/// A request that holds one span under the resource and scope of the number `around`.
fn single(sequence: u64, around: u64) -> Vec<u8> {
    let generator = Generator::new(1);
    let (mut span, mut scope_spans, mut resource_spans, mut out) = Default::default();
    generator.put_span(&mut span, sequence);
    put_bytes(&mut scope_spans, 1, generator.scope(around));
    put_bytes(&mut scope_spans, 2, &span);
    put_bytes(&mut scope_spans, 3, generator.schema_url());
    put_bytes(&mut resource_spans, 1, generator.resource(around));
    put_bytes(&mut resource_spans, 2, &scope_spans);
    put_bytes(&mut resource_spans, 3, generator.schema_url());
    put_bytes(&mut out, 1, &resource_spans);
    out
}

fn after(requests: &[Vec<u8>], expected: u64) -> Report {
    let mut tally = Tally::new(1, 4_096);
    for request in requests {
        let _ = tally.take(request);
    }
    tally.report(expected)
}

#[test]
fn what_arrives_as_sent_is_exact() {
    let report = after(&[request(0, 512), request(512, 512)], 1_024);
    assert!(report.is_exact(), "{report:?}");
    assert_eq!((report.counts.spans, report.counts.distinct, report.counts.requests), (1_024, 1_024, 2));
}

#[test]
fn merged_requests_verify() {
    let merged = [request(0, 512), request(512, 512), request(1_024, 100)].concat();
    assert!(after(&[merged], 1_124).is_exact());
}

#[test]
fn requests_split_at_any_span_verify() {
    let parts: Vec<_> = (0..11).map(|part| request(part * 100, 100)).collect();
    assert!(after(&parts, 1_100).is_exact());
}

#[test]
fn spans_that_come_one_by_one_in_any_order_verify() {
    let parts: Vec<_> = (0..1_024).rev().map(|sequence| single(sequence, sequence)).collect();
    assert!(after(&parts, 1_024).is_exact());
}

#[test]
fn a_dropped_span_is_missing() {
    let report = after(&[request(0, 300), request(301, 211)], 512);
    assert_eq!((report.missing, report.counts.duplicates, report.counts.corrupted), (1, 0, 0));
    assert!(!report.is_exact());
}

#[test]
fn a_repeated_span_is_a_duplicate_and_hides_no_missing_one() {
    let report = after(&[request(0, 300), request(299, 1), request(301, 211)], 512);
    assert_eq!((report.missing, report.counts.duplicates, report.counts.corrupted), (1, 1, 0));
    assert_eq!(report.counts.examples, ["span 299 came again"]);
}

#[test]
fn a_flipped_byte_anywhere_is_noticed() {
    let sound = request(510, 4);
    for at in 0..sound.len() {
        let mut flipped = sound.clone();
        flipped[at] ^= 1;
        let mut tally = Tally::new(1, 514);
        let _ = tally.take(&request(0, 510));
        let _ = tally.take(&flipped);
        assert!(!tally.report(514).is_exact(), "byte {at} flipped unnoticed");
    }
}

#[test]
fn a_flipped_byte_in_a_span_is_corruption_of_that_span() {
    let mut flipped = request(0, 512);
    let at = flipped.windows(13).position(|bytes| bytes == b"stream.codec\x12").unwrap();
    flipped[at] ^= 1;
    let report = after(&[flipped], 512);
    assert_eq!((report.missing, report.counts.duplicates, report.counts.corrupted), (0, 0, 1));
}

#[test]
fn a_span_under_the_resource_of_another_service_is_corrupted() {
    let report = after(&[single(0, 512)], 1);
    assert_eq!(report.counts.corrupted, 1);
    assert_eq!(report.counts.examples, ["the resource of span 0 differs from what was sent"]);
}

#[test]
fn a_span_that_lost_its_resource_is_corrupted_and_counted_as_such() {
    let generator = Generator::new(1);
    let (mut span, mut scope_spans, mut resource_spans, mut out) = Default::default();
    generator.put_span(&mut span, 0);
    put_bytes(&mut scope_spans, 1, generator.scope(0));
    put_bytes(&mut scope_spans, 2, &span);
    put_bytes(&mut scope_spans, 3, generator.schema_url());
    put_bytes(&mut resource_spans, 2, &scope_spans);
    put_bytes(&mut resource_spans, 3, generator.schema_url());
    put_bytes(&mut out, 1, &resource_spans);
    let report = after(&[out], 1);
    assert_eq!((report.counts.corrupted, report.counts.without_resource), (1, 1));
}

#[test]
fn a_span_under_another_scope_is_corrupted() {
    let report = after(&[single(0, 256)], 1);
    assert_eq!(report.counts.corrupted, 1);
    assert_eq!(report.counts.examples, ["the scope of span 0 differs from what was sent"]);
}

#[test]
fn a_span_of_another_run_or_with_a_number_never_sent_is_foreign() {
    let mut other = Vec::new();
    Generator::new(2).put_request(&mut other, 0, 1);
    let report = after(&[other, request(4_096, 1)], 0);
    assert_eq!(report.counts.foreign, 2);
    assert_eq!(report.counts.examples, ["a span with no id of this run", "span 4096 was never sent"]);
}

#[test]
fn a_request_cut_short_is_malformed() {
    let whole = request(0, 512);
    let report = after(&[whole[..whole.len() - 1].to_vec()], 512);
    assert_eq!(report.counts.malformed, 1);
    assert_eq!(report.counts.examples, ["malformed request: length past the end"]);
}
