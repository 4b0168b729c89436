use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::KeyValue,
    trace::v1::{ResourceSpans, ScopeSpans, Span, span::Link},
};
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::span::{
    scan,
    testing::{Seen, Tape, mutate, request, scanned, wild},
};

type Change = fn(&mut Span);

const HORIZON: u64 = 1_000_000;

fn good(number: u64) -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: (number + 1).to_be_bytes().to_vec(),
        name: format!("span {number}"),
        start_time_unix_nano: 10,
        end_time_unix_nano: 20,
        ..Span::default()
    }
}

/// A request with these spans, one scope for each.
fn of(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = spans.into_iter().map(|span| ScopeSpans { spans: vec![span], ..ScopeSpans::default() });
    let resource_spans = ResourceSpans { scope_spans: scope_spans.collect(), ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

/// What is found, and the names of those that are kept by both ways.
fn inspected(bytes: &[u8]) -> (Inspection, Vec<Seen>) {
    let mut seen = Vec::new();
    let found = inspect(bytes, HORIZON, |view| seen.push(Seen::from(view))).unwrap();
    let mut out = b"before".to_vec();
    assert_eq!(keep_valid(bytes, &mut out).unwrap(), found.kept);
    let out = out.strip_prefix(b"before").unwrap();
    assert_eq!(scanned(out).unwrap(), seen, "what is written is what was shown");
    (found, seen)
}

fn alone(change: impl FnOnce(&mut Span)) -> Inspection {
    let mut span = good(1);
    change(&mut span);
    let (found, seen) = inspected(&of(vec![good(0), span, good(2)]).encode_to_vec());
    assert!(seen.len() >= 2, "the others are kept");
    assert_eq!(found.kept as usize, seen.len());
    found
}

#[test]
fn ids_of_zeros_or_of_the_wrong_length_take_their_span_out_and_no_other() {
    let changes: [(&str, Change); 9] = [
        ("trace id of zeros", |span| span.trace_id = vec![0; 16]),
        ("span id of zeros", |span| span.span_id = vec![0; 8]),
        ("no trace id", |span| span.trace_id.clear()),
        ("no span id", |span| span.span_id.clear()),
        ("short trace id", |span| span.trace_id = vec![1; 15]),
        ("long span id", |span| span.span_id = vec![1; 9]),
        ("short parent", |span| span.parent_span_id = vec![1; 7]),
        ("link's trace id", |span| span.links.push(Link { trace_id: vec![1; 8], ..Link::default() })),
        ("link's span id", |span| {
            span.links.push(Link { trace_id: vec![1; 16], span_id: vec![1; 16], ..Link::default() });
        }),
    ];
    for (what, change) in changes {
        let rejected = Rejected { invalid_id: 1, first: Some(1), ..Rejected::default() };
        assert_eq!(alone(change), Inspection { kept: 2, rejected, odd: Odd::default() }, "{what}");
    }
    // A root says so in one of two ways.
    for parent in [vec![], vec![0; 8]] {
        assert_eq!(alone(|span| span.parent_span_id = parent).kept, 3);
    }
}

#[test]
fn a_name_over_its_limit_takes_its_span_out() {
    assert_eq!(alone(|span| span.name = "n".repeat(NAME_BYTES_MAX)).kept, 3);
    let found = alone(|span| span.name = "n".repeat(NAME_BYTES_MAX + 1));
    let rejected = Rejected { name_too_long: 1, first: Some(1), ..Rejected::default() };
    assert_eq!(found, Inspection { kept: 2, rejected, odd: Odd::default() });
}

#[test]
fn one_attribute_too_many_takes_its_span_out() {
    let with = |count: usize| alone(|span| span.attributes = vec![KeyValue::default(); count]);
    assert_eq!(with(ATTRIBUTES_MAX).kept, 3);
    let rejected = Rejected { too_many_attributes: 1, first: Some(1), ..Rejected::default() };
    assert_eq!(with(ATTRIBUTES_MAX + 1), Inspection { kept: 2, rejected, odd: Odd::default() });
}

#[test]
fn what_is_odd_is_kept_and_counted() {
    let odd = |change: fn(&mut Span)| {
        let found = alone(change);
        assert_eq!((found.kept, found.rejected.total()), (3, 0));
        let Odd { end_before_start, empty_name, far_future } = found.odd;
        (end_before_start, empty_name, far_future)
    };
    assert_eq!(odd(|_| {}), (0, 0, 0));
    assert_eq!(odd(|span| span.end_time_unix_nano = 9), (1, 0, 0));
    assert_eq!(odd(|span| span.end_time_unix_nano = 10), (0, 0, 0));
    assert_eq!(odd(|span| span.name.clear()), (0, 1, 0));
    assert_eq!(odd(|span| span.end_time_unix_nano = HORIZON), (0, 0, 0));
    assert_eq!(odd(|span| span.end_time_unix_nano = HORIZON + 1), (0, 0, 1));
    assert_eq!(odd(|span| (span.start_time_unix_nano, span.name) = (u64::MAX, String::new())), (1, 1, 1));
}

#[test]
fn nothing_is_left_of_a_request_without_a_valid_span() {
    let (found, seen) = inspected(&of(vec![Span::default(), Span::default()]).encode_to_vec());
    let rejected = Rejected { invalid_id: 2, first: Some(0), ..Rejected::default() };
    assert_eq!((found, seen), (Inspection { rejected, ..Inspection::default() }, vec![]));
}

#[test]
fn a_request_whose_structure_is_broken_is_refused_as_a_whole() {
    let mut bytes = of(vec![good(0), Span::default()]).encode_to_vec();
    bytes.extend_from_slice(b"\x0a\x05no");
    let error = inspect(&bytes, HORIZON, |_| {}).unwrap_err();
    assert!(matches!(error.fault, super::super::ScanFault::Truncated { .. }), "{error}");
    let mut out = b"before".to_vec();
    assert!(keep_valid(&bytes, &mut out).is_err());
    assert_eq!(out, b"before");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn spans_are_kept_or_counted_by_the_rules_and_keep_their_bytes(
        tape in prop::collection::vec(any::<u8>(), 0..600),
        faults in prop::collection::vec(0_u8..6, 0..12),
    ) {
        let mut request = request(&mut Tape::new(&tape));
        let spans = request.resource_spans.iter_mut().flat_map(|around| &mut around.scope_spans);
        for (span, fault) in spans.flat_map(|scope_spans| &mut scope_spans.spans).zip(&faults) {
            match fault {
                1 => span.trace_id = vec![0; 16],
                2 => span.span_id.truncate(3),
                3 => span.parent_span_id = vec![7; 3],
                4 => span.attributes = vec![KeyValue::default(); 1025],
                _ => {}
            }
        }
        let is_valid = |span: &Span| {
            let is = |id: &[u8], length| id.len() == length && id.iter().any(|byte| *byte != 0);
            is(&span.trace_id, 16) && is(&span.span_id, 8) && matches!(span.parent_span_id.len(), 0 | 8)
                && span.attributes.len() <= 1024
        };
        let whole = request.encode_to_vec();
        let mut valid = request.clone();
        let mut rejected = 0;
        for around in &mut valid.resource_spans {
            for scope_spans in &mut around.scope_spans {
                let before = scope_spans.spans.len();
                scope_spans.spans.retain(is_valid);
                rejected += before - scope_spans.spans.len();
            }
            around.scope_spans.retain(|scope_spans| !scope_spans.spans.is_empty());
        }
        valid.resource_spans.retain(|around| !around.scope_spans.is_empty());
        let (found, seen) = inspected(&whole);
        prop_assert_eq!(found.rejected.total() as usize, rejected);
        prop_assert_eq!(found.kept as usize, seen.len());
        let mut out = Vec::new();
        keep_valid(&whole, &mut out).unwrap();
        // As prost encodes them: a NaN equals nothing.
        prop_assert_eq!(ExportTraceServiceRequest::decode(&*out).unwrap().encode_to_vec(), valid.encode_to_vec());
    }

    #[test]
    fn whatever_a_scan_takes_is_inspected_and_what_is_kept_scans(
        tape in prop::collection::vec(any::<u8>(), 0..1500),
        change in prop::collection::vec(any::<u8>(), 0..12),
    ) {
        let mut bytes = wild(&mut Tape::new(&tape));
        mutate(&mut Tape::new(&change), &mut bytes);
        let inspection = inspect(&bytes, HORIZON, |_| {});
        if let Ok(scan) = scan(&bytes, |_| {}) {
            let found = inspection.unwrap();
            prop_assert_eq!(found.kept + found.rejected.total(), scan.spans);
        } else if inspection.is_ok() {
            prop_assert!(inspection.unwrap().rejected.invalid_id > 0, "it takes what a scan refuses for ids alone");
        }
        let mut out = Vec::new();
        match keep_valid(&bytes, &mut out) {
            Ok(kept) => {
                prop_assert_eq!(inspection.unwrap().kept, kept);
                prop_assert_eq!(scan(&out, |_| {}).unwrap().spans, kept);
            }
            Err(_) => prop_assert!(inspection.is_err() && out.is_empty()),
        }
    }
}
