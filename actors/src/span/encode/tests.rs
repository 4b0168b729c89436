use std::borrow::Cow;

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value},
    trace::v1::{
        Span, Status,
        span::{Event, Link},
    },
};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::span::{Reporter, RequestBuffer, TraceFlags, TraceId, scan, testing::Tape};

fn context(byte: u8) -> SpanContext {
    SpanContext {
        trace_id: TraceId::from_bytes([byte; 16]),
        span_id: SpanId::from_bytes([byte; 8]),
        flags: TraceFlags::SAMPLED,
    }
}

fn start(name: &str) -> SpanStart<'_> {
    SpanStart {
        context: context(0xab),
        parent: Some(SpanId::from_bytes([0xcd; 8])),
        parent_is_remote: true,
        name,
        kind: SpanKind::Server,
        start_unix_nano: 0x0102_0304_0506_0708,
    }
}

fn decoded(bytes: &[u8]) -> Span {
    Span::decode(bytes).unwrap()
}

/// The value as the types of `opentelemetry-proto` have it.
fn model(value: &Value<'_>) -> AnyValue {
    let value = match value {
        Value::String(text) => any_value::Value::StringValue(text.to_string()),
        Value::Bool(truth) => any_value::Value::BoolValue(*truth),
        Value::Int(number) => any_value::Value::IntValue(*number),
        Value::Double(number) => any_value::Value::DoubleValue(*number),
        Value::Bytes(bytes) => any_value::Value::BytesValue(bytes.to_vec()),
        Value::Array(values) => {
            any_value::Value::ArrayValue(ArrayValue { values: values.iter().map(model).collect() })
        }
        Value::Map(entries) => {
            let values = entries.iter().map(|(key, value)| model_attribute(key, value)).collect();
            any_value::Value::KvlistValue(KeyValueList { values })
        }
    };
    AnyValue { value: Some(value) }
}

fn model_attribute(key: &str, value: &Value<'_>) -> KeyValue {
    KeyValue { key: key.into(), value: Some(model(value)), key_strindex: 0 }
}

fn any_value(tape: &mut Tape<'_>, depth: u8) -> Value<'static> {
    let text = ["", "GET", "größe 🦀", "k"][usize::from(tape.choose(4))];
    let number = u64::from(tape.byte()) << (tape.byte() % 57);
    match tape.choose(if depth < 4 { 8 } else { 6 }) {
        0 => text.into(),
        1 => text.repeat(usize::from(tape.byte())).into(),
        2 => (number as i64).wrapping_sub(tape.byte().into()).into(),
        3 => (tape.byte() > 127).into(),
        4 => (f64::from(tape.byte()) / 3.0).into(),
        5 => vec![tape.byte(); usize::from(tape.byte())].into(),
        6 => Value::array((0..tape.choose(6)).map(|_| any_value(tape, depth + 1))),
        _ => Value::Map(
            (0..tape.choose(6)).map(|_| (Cow::Borrowed(text), any_value(tape, depth + 1))).collect(),
        ),
    }
}

fn attributes(tape: &mut Tape<'_>) -> Vec<(&'static str, Value<'static>)> {
    let keys = ["a", "http.request.method", "größe"];
    (0..tape.choose(5)).map(|index| (keys[usize::from(index) % 3], any_value(tape, 0))).collect()
}

fn model_attributes(attributes: &[(&str, Value<'_>)]) -> Vec<KeyValue> {
    attributes.iter().map(|(key, value)| model_attribute(key, value)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn what_was_told_is_what_prost_decodes(tape in prop::collection::vec(any::<u8>(), 0..1500)) {
        let mut tape = Tape::new(&tape);
        let mut encoder = SpanEncoder::default();
        encoder.start(&start("a span"));
        let mut expected = Span {
            trace_id: vec![0xab; 16],
            span_id: vec![0xab; 8],
            parent_span_id: vec![0xcd; 8],
            flags: 0x301,
            name: "a span".into(),
            kind: 2,
            start_time_unix_nano: 0x0102_0304_0506_0708,
            end_time_unix_nano: 9,
            ..Span::default()
        };
        for _ in 0..tape.choose(12) {
            match tape.choose(8) {
                0..3 => for (key, value) in attributes(&mut tape) {
                    expected.attributes.push(model_attribute(key, &value));
                    encoder.attribute(key, value);
                },
                3 => {
                    let attributes = attributes(&mut tape);
                    encoder.event(7, "event", &attributes);
                    expected.events.push(Event {
                        time_unix_nano: 7,
                        name: "event".into(),
                        attributes: model_attributes(&attributes),
                        dropped_attributes_count: 0,
                    });
                }
                4 => {
                    let attributes = attributes(&mut tape);
                    let trace_state = ["", "a=b"][usize::from(tape.choose(2))];
                    encoder.link(&context(5), trace_state, &attributes);
                    expected.links.push(Link {
                        trace_id: vec![5; 16],
                        span_id: vec![5; 8],
                        trace_state: trace_state.into(),
                        attributes: model_attributes(&attributes),
                        dropped_attributes_count: 0,
                        flags: 1,
                    });
                }
                5 => {
                    let code = StatusCode::from_wire(tape.choose(3).into());
                    let message = ["", "why"][usize::from(tape.choose(2))];
                    encoder.status(code, message);
                    expected.status = Some(Status { message: message.into(), code: code as i32 });
                }
                6 => {
                    encoder.trace_state("vendor=1");
                    expected.trace_state = "vendor=1".into();
                }
                _ => {
                    encoder.name("renamed");
                    expected.name = "renamed".into();
                }
            }
        }
        let bytes = encoder.end(9);
        prop_assert_eq!(decoded(bytes), expected.clone());

        let mut request = RequestBuffer::new(&Reporter { resource: &[], scope_name: "", scope_version: "" }, 0);
        request.push(bytes);
        let (bytes, _) = request.take();
        let mut seen = vec![];
        scan(&bytes, |view| seen.push((view.name.to_owned(), view.status as i32, view.end_unix_nano))).unwrap();
        prop_assert_eq!(seen, [(expected.name, expected.status.map_or(0, |status| status.code), 9)]);
    }
}

#[test]
fn a_span_has_these_bytes() {
    let mut encoder = SpanEncoder::default();
    encoder.start(&start("GET"));
    encoder.attribute("k", "v");
    encoder.attribute("n", 300);
    encoder.status(StatusCode::Error, "no");
    let golden = [
        &[0x0a, 16][..],
        &[0xab; 16],
        &[0x12, 8],
        &[0xab; 8],
        &[0x39, 8, 7, 6, 5, 4, 3, 2, 1],
        &[0x85, 0x01, 0x01, 0x03, 0, 0],
        &[0x30, 2],
        &[0x22, 8],
        &[0xcd; 8],
        &[0x2a, 3, b'G', b'E', b'T'],
        &[0x4a, 8, 0x0a, 1, b'k', 0x12, 3, 0x0a, 1, b'v'],
        &[0x4a, 8, 0x0a, 1, b'n', 0x12, 3, 0x18, 0xac, 0x02],
        &[0x7a, 6, 0x12, 2, b'n', b'o', 0x18, 2],
        &[0x41, 1, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    assert_eq!(encoder.end(1), golden);
}

#[test]
fn a_span_knows_nothing_of_the_one_before() {
    let mut encoder =
        SpanEncoder::new(SpanLimits { attributes: 1, events: 0, links: 0, ..SpanLimits::default() });
    encoder.start(&start("first"));
    encoder.attribute("a", 1);
    encoder.attribute("b", 2);
    encoder.event(1, "e", &[]);
    encoder.link(&context(1), "", &[]);
    let first = decoded(encoder.end(1));
    assert_eq!(
        (first.dropped_attributes_count, first.dropped_events_count, first.dropped_links_count),
        (1, 1, 1)
    );
    encoder.start(&SpanStart { parent: None, parent_is_remote: false, ..start("second") });
    let second = decoded(encoder.end(1));
    let expected = Span {
        name: "second".into(),
        parent_span_id: vec![],
        flags: 0x101,
        attributes: vec![],
        dropped_attributes_count: 0,
        dropped_events_count: 0,
        dropped_links_count: 0,
        ..first
    };
    assert_eq!(second, expected);
}

#[test]
fn what_goes_beyond_a_limit_is_dropped_and_counted() {
    let limits = SpanLimits {
        attributes: 2,
        events: 2,
        links: 2,
        text_bytes: 5,
        span_bytes: SpanLimits::default().span_bytes,
    };
    let mut encoder = SpanEncoder::new(limits);
    encoder.start(&start("größe ist alles"));
    encoder.status(StatusCode::Error, "a message");
    encoder.trace_state("a=b,c=d");
    let three = [("a", 1.into()), ("b", 2.into()), ("c", 3.into())];
    for (key, value) in three.clone() {
        encoder.attribute(key, value);
        encoder.event(1, "an event", &three);
        encoder.link(&context(1), "a=b,c=d", &three);
    }
    let span = decoded(encoder.end(1));
    assert_eq!(span.name, "grö", "cut where a character ends");
    assert_eq!((span.status.unwrap().message.as_str(), span.trace_state.as_str()), ("a mes", "a=b,c"));
    assert_eq!((span.attributes.len(), span.dropped_attributes_count), (2, 1));
    assert_eq!((span.events.len(), span.dropped_events_count), (2, 1));
    assert_eq!((span.links.len(), span.dropped_links_count), (2, 1));
    assert_eq!((span.events[1].attributes.len(), span.events[1].dropped_attributes_count), (2, 1));
    assert_eq!((span.links[1].attributes.len(), span.links[1].dropped_attributes_count), (2, 1));
    assert_eq!((span.events[0].name.as_str(), span.links[0].trace_state.as_str()), ("an ev", "a=b,c"));
}

#[test]
fn a_span_takes_no_more_than_its_bytes() {
    let mut encoder = SpanEncoder::new(SpanLimits { span_bytes: 500, ..SpanLimits::default() });
    encoder.start(&start("s"));
    encoder.attribute("large", "x".repeat(600));
    encoder.attribute("small", 1);
    let large = [("large", Value::from("x".repeat(600))), ("small", 1.into())];
    encoder.event(1, "e", &large);
    encoder.event(1, &"e".repeat(600), &[]);
    encoder.link(&context(1), &"e".repeat(600), &[]);
    let span = decoded(encoder.end(1));
    assert_eq!((span.attributes.len(), span.dropped_attributes_count), (1, 1));
    assert_eq!((span.events.len(), span.dropped_events_count, span.dropped_links_count), (1, 1, 1));
    assert_eq!((span.events[0].attributes.len(), span.events[0].dropped_attributes_count), (1, 1));
}

#[test]
fn a_value_nests_as_deep_as_any_decoder_follows_and_no_deeper() {
    let nested = |depth| (0..depth).fold(Value::from(1), |value, _| Value::map([("k", value)]));
    let mut encoder = SpanEncoder::default();
    encoder.start(&start("s"));
    encoder.attribute("deepest", nested(VALUE_DEPTH_MAX));
    encoder.attribute("deeper", nested(VALUE_DEPTH_MAX + 1));
    encoder.attribute("list", Value::array([nested(VALUE_DEPTH_MAX)]));
    let arrays = (0..=VALUE_DEPTH_MAX).fold(Value::from(1), |value, _| Value::array([value]));
    encoder.attribute("arrays", arrays);
    encoder.event(1, "e", &[("deepest", nested(VALUE_DEPTH_MAX)), ("deeper", nested(VALUE_DEPTH_MAX + 1))]);
    let span = decoded(encoder.end(1));
    assert_eq!((span.attributes.len(), span.dropped_attributes_count), (1, 3));
    assert_eq!((span.events[0].attributes.len(), span.events[0].dropped_attributes_count), (1, 1));
}

#[test]
fn a_large_span_leaves_no_large_buffer() {
    let mut encoder = SpanEncoder::default();
    encoder.start(&start("s"));
    encoder.attribute("large", "x".repeat(200_000));
    assert!(encoder.end(1).len() > 200_000);
    encoder.start(&start("s"));
    assert!(encoder.bytes.capacity() <= KEPT_CAPACITY_MAX);
}

#[test]
fn a_request_holds_its_reporter_once_and_the_spans_in_order() {
    let resource = [("service.name", "shop".into()), ("host.id", Value::Bytes(Cow::Borrowed(&[1, 2])))];
    let reporter = Reporter { resource: &resource, scope_name: "nyx", scope_version: "1.0" };
    let mut request = RequestBuffer::new(&reporter, 1000);
    assert_eq!((request.len(), request.is_empty(), request.take()), (0, true, (bytes::Bytes::new(), 0)));

    let mut encoder = SpanEncoder::default();
    for round in 0..2 {
        for name in ["a", "b", &"c".repeat(200)] {
            encoder.start(&start(name));
            request.push(encoder.end(round));
        }
        let length = request.len();
        assert_eq!((request.spans(), request.is_empty()), (3, false));
        let (bytes, spans) = request.take();
        assert_eq!((bytes.len(), spans), (length, 3));
        let decoded = ExportTraceServiceRequest::decode(bytes.clone()).unwrap();
        let [resource_spans] = &decoded.resource_spans[..] else { panic!("{decoded:?}") };
        let [scope_spans] = &resource_spans.scope_spans[..] else { panic!("{resource_spans:?}") };
        let resource_model = model_attributes(&resource);
        assert_eq!(resource_spans.resource.as_ref().unwrap().attributes, resource_model);
        let scope = scope_spans.scope.as_ref().unwrap();
        assert_eq!((scope.name.as_str(), scope.version.as_str()), ("nyx", "1.0"));
        let mut seen = vec![];
        scan(&bytes, |view| seen.push((view.service.to_owned(), view.name.to_owned(), view.end_unix_nano)))
            .unwrap();
        let expected = ["a", "b", &"c".repeat(200)].map(|name| ("shop".to_owned(), name.to_owned(), round));
        assert_eq!(seen, expected);
    }
}

#[test]
fn a_value_prints_its_type_and_length_and_not_what_it_says() {
    let value = Value::map([("key", Value::array([Value::from("secret"), 5.into()]))]);
    assert_eq!(format!("{value:?}"), "Map(1 entries)");
    let values: [Value<'_>; 6] =
        ["secret".into(), true.into(), 5_i64.into(), 0.5.into(), b"secret".into(), vec!["secret"].into()];
    assert_eq!(format!("{values:?}"), "[String(6 bytes), Bool, Int, Double, Bytes(6), Array(1 values)]");
}
