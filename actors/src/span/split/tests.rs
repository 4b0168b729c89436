use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::span::{
    scan,
    testing::{Tape, mutate, oracle, request, scanned, wild},
};

fn tape(length: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..length)
}

/// A span with all that stands around it: what a request means, independent of its grouping. As prost
/// encodes it, because a decoded NaN equals nothing.
fn meaning(bytes: &[u8]) -> Vec<Vec<u8>> {
    let request = ExportTraceServiceRequest::decode(bytes).unwrap();
    let mut placed = Vec::new();
    for around in request.resource_spans {
        for scope_spans in &around.scope_spans {
            placed.extend(scope_spans.spans.iter().map(|span| {
                let scope_spans = vec![ScopeSpans { spans: vec![span.clone()], ..scope_spans.clone() }];
                ResourceSpans { scope_spans, ..around.clone() }.encode_to_vec()
            }));
        }
    }
    placed
}

/// The span fields themselves, unknown fields and all, and the other fields around each.
fn raw(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    walk(bytes, |_, leaf| {
        let (mut resource, mut scope) = (vec![], vec![]);
        others(leaf.resource_spans, resource_spans::SCOPE_SPANS, |field| resource.extend(field))?;
        others(leaf.scope_spans, scope_spans::SPANS, |field| scope.extend(field))?;
        all.push((resource, scope, leaf.field.to_vec()));
        Ok(())
    })
    .unwrap();
    all
}

fn request_level(bytes: &[u8]) -> Vec<u8> {
    let mut fields = vec![];
    assert!(others(bytes, request::RESOURCE_SPANS, |field| fields.extend(field)).is_ok());
    fields
}

/// The groups of a request: which spans share a container.
fn containers(bytes: &[u8]) -> usize {
    ExportTraceServiceRequest::decode(bytes).unwrap().resource_spans.len()
}

/// A valid request with unknown fields and whatever else the wire format allows, or a plain one.
fn any_valid(first: &[u8]) -> Vec<u8> {
    let bytes = wild(&mut Tape::new(first));
    if oracle(&bytes).is_some() { bytes } else { request(&mut Tape::new(first)).encode_to_vec() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn cuts_one_after_the_other_mean_what_the_whole_meant(
        source in tape(1500),
        limits in prop::collection::vec((1_u32..6, 0_usize..1500), 1..8),
    ) {
        let whole = any_valid(&source);
        let total = scan(&whole, |_| {}).unwrap().spans;
        let mut joined = vec![];
        let mut first = 0;
        for (max_spans, max_bytes) in limits.iter().cycle() {
            let begin = joined.len();
            let written = cut(&whole, first, *max_spans, *max_bytes, &mut joined).unwrap();
            let piece = &joined[begin..];
            if first == total {
                prop_assert_eq!((written, piece.len()), (0, 0));
                break;
            }
            prop_assert!(written >= 1 && written <= *max_spans);
            prop_assert_eq!(scan(piece, |_| {}).unwrap().spans, written);
            let framing = piece.len() - request_level(piece).len();
            prop_assert!(framing <= *max_bytes || written == 1, "{} bytes of {}", framing, max_bytes);
            first += written;
        }
        prop_assert_eq!(meaning(&joined), meaning(&whole));
        prop_assert_eq!(raw(&joined), raw(&whole));
        if total > 0 {
            prop_assert_eq!(request_level(&joined), request_level(&whole));
        }
    }

    #[test]
    fn a_cut_is_the_longest_that_fits(source in tape(1500), first in 0_u32..5, max_bytes in 0_usize..1500) {
        let whole = request(&mut Tape::new(&source)).encode_to_vec();
        let total = scan(&whole, |_| {}).unwrap().spans;
        let mut piece = vec![];
        let written = cut(&whole, first, u32::MAX, max_bytes, &mut piece).unwrap();
        if first + written < total {
            let mut longer = vec![];
            prop_assert_eq!(cut(&whole, first, written + 1, usize::MAX, &mut longer).unwrap(), written + 1);
            prop_assert!(longer.len() > max_bytes);
        }
        // And the same bytes as a cut by count, so that the two limits agree on what a piece is.
        let mut by_count = vec![];
        cut(&whole, first, written, usize::MAX, &mut by_count).unwrap();
        prop_assert_eq!(piece, by_count);
    }

    #[test]
    fn a_selection_keeps_what_was_chosen_and_nothing_else(source in tape(1500), pattern: u32) {
        let whole = any_valid(&source);
        let chosen = |index: usize| pattern >> (index % 32) & 1 == 1;
        let mut out = b"before".to_vec();
        let mut shown = vec![];
        let kept = select(&whole, |index, view| {
            shown.push(crate::span::testing::Seen::from(view));
            chosen(index as usize)
        }, &mut out).unwrap();
        prop_assert_eq!(shown, scanned(&whole).unwrap());
        let out = out.strip_prefix(b"before").unwrap();
        let choose = |(index, placed)| chosen(index).then_some(placed);
        let expected: Vec<_> = meaning(&whole).into_iter().enumerate().filter_map(choose).collect();
        prop_assert_eq!(kept as usize, expected.len());
        prop_assert_eq!(meaning(out), expected);
        let choose = |(index, placed)| chosen(index).then_some(placed);
        prop_assert_eq!(raw(out), raw(&whole).into_iter().enumerate().filter_map(choose).collect::<Vec<_>>());
        prop_assert_eq!(request_level(out), if kept > 0 { request_level(&whole) } else { vec![] });
        prop_assert!(containers(out) <= containers(&whole));
    }

    #[test]
    fn broken_bytes_are_refused_without_a_trace(source in tape(600), second in tape(12), first in 0_u32..3) {
        let mut bytes = any_valid(&source);
        mutate(&mut Tape::new(&second), &mut bytes);
        let mut out = b"before".to_vec();
        let selected = select(&bytes, |_, _| true, &mut out);
        prop_assert_eq!(selected.map_err(|_| ()), scanned(&bytes).map(|seen| seen.len() as u32).map_err(|_| ()));
        if selected.is_err() {
            prop_assert_eq!(&out[..], b"before");
        }
        let mut out = b"before".to_vec();
        if cut(&bytes, first, 2, 300, &mut out).is_err() {
            prop_assert_eq!(&out[..], b"before");
        }
    }
}

fn spans(count: u8) -> Vec<Span> {
    let span = |id| Span { trace_id: vec![1; 16], span_id: vec![id; 8], name: "s".into(), ..Span::default() };
    (0..count).map(span).collect()
}

fn two_resources() -> Vec<u8> {
    let resource_spans = |count| ResourceSpans {
        scope_spans: vec![ScopeSpans {
            spans: spans(count),
            schema_url: "u".into(),
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans(3), resource_spans(2)] }.encode_to_vec()
}

#[test]
fn a_container_is_written_once_a_piece_with_a_padded_length() {
    let whole = two_resources();
    let mut piece = vec![];
    assert_eq!(cut(&whole, 1, 2, usize::MAX, &mut piece), Ok(2));
    // 33 bytes a span field, 6 for each of the two heads, 3 for the schema URL.
    assert_eq!(piece.len(), 2 * 33 + 2 * 6 + 3);
    assert_eq!(
        piece[..15],
        [0x0a, 0xcb, 0x80, 0x80, 0x80, 0, 0x12, 0xc5, 0x80, 0x80, 0x80, 0, 0x1a, 1, b'u']
    );
    assert_eq!(piece[15..], whole[whole.len() - 2 * 33 - 3 - 4 - 3 - 2 * 33..][..2 * 33]);

    piece.clear();
    assert_eq!(cut(&whole, 0, 100, usize::MAX, &mut piece), Ok(5));
    assert_eq!(piece.len(), 5 * 33 + 4 * 6 + 2 * 3);
}

#[test]
fn a_limit_is_met_to_the_byte() {
    let whole = two_resources();
    for (max_bytes, expected) in [(0, 1), (48, 1), (80, 1), (81, 2), (113, 2), (114, 3), (161, 3), (162, 4)] {
        let mut piece = vec![];
        assert_eq!(cut(&whole, 0, 100, max_bytes, &mut piece), Ok(expected), "{max_bytes} bytes");
    }
    let mut piece = vec![0; 1000];
    assert_eq!(cut(&whole, 0, 100, 81, &mut piece), Ok(2), "what stood before does not count");
    assert_eq!(cut(&whole, 0, 0, 1000, &mut vec![]), Ok(1), "no span at all would never end");
    assert_eq!(cut(&whole, 5, 1, 1000, &mut vec![]), Ok(0));
}

#[test]
fn an_unknown_field_of_the_request_goes_with_the_span_before_it() {
    let (before, between, after) = ([0x48, 1], [0x48, 2], [0x48, 3]);
    let whole = two_resources();
    let second = 2 + usize::from(whole[1]);
    let whole = [&before, &whole[..second], &between, &whole[second..], &after].concat();
    let piece = |first, max_spans| {
        let mut piece = vec![];
        cut(&whole, first, max_spans, usize::MAX, &mut piece).unwrap();
        request_level(&piece)
    };
    assert_eq!(piece(0, 2), before);
    assert_eq!(piece(2, 1), between);
    assert_eq!(piece(3, 1), [0; 0]);
    assert_eq!(piece(3, 9), after);
    assert_eq!(piece(0, 9), [before, between, after].concat());
    let mut none = vec![];
    assert_eq!(cut(&before, 0, 1, 1000, &mut none), Ok(0));
    assert!(none.is_empty());
}
