use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    trace::v1::{
        Span, Status,
        span::{Event, Link},
    },
};
use proptest::prelude::*;
use prost::Message as _;
use serde_json::{Map, Value, json};

use super::*;
use crate::span::{
    scan,
    testing::{Tape, request, span},
};

fn converted(text: &str) -> Result<ExportTraceServiceRequest, JsonError> {
    let mut out = b"before".to_vec();
    from_json(text.as_bytes(), &mut out)?;
    let bytes = out.strip_prefix(b"before").unwrap();
    assert!(bytes.len() <= text.len() + text.len() / 8, "{} bytes of {text}", bytes.len());
    Ok(ExportTraceServiceRequest::decode(bytes).unwrap())
}

/// A request with one span.
fn of_span(span: &str) -> String {
    format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}"#)
}

fn converted_span(span: &str) -> Span {
    let request = converted(&of_span(span)).unwrap_or_else(|error| panic!("{span}: {error}"));
    request.resource_spans[0].scope_spans[0].spans[0].clone()
}

fn converted_value(value: &str) -> Option<any_value::Value> {
    let span = converted_span(&format!(r#"{{"attributes":[{{"key":"k","value":{value}}}]}}"#));
    span.attributes[0].value.clone().unwrap().value
}

fn refused(text: &str) -> String {
    let error = converted(text).unwrap_err();
    assert!(error.to_string().len() < 600, "{error}");
    error.to_string()
}

/// Why a span is refused, without line and column.
fn refused_span(span: &str) -> String {
    let JsonError { place, why, .. } = converted(&of_span(span)).unwrap_err();
    format!("{} {why}", place.strip_prefix("resourceSpans[0].scopeSpans[0].spans[0].").unwrap_or(&place))
}

#[test]
fn the_specifications_example_is_what_prost_makes_of_it() {
    let text = r#"{
        "resourceSpans": [{
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "my.service"}}]},
            "scopeSpans": [{
                "scope": {
                    "name": "my.library", "version": "1.0.0",
                    "attributes": [{"key": "my.scope.attribute", "value": {"stringValue": "some scope attribute"}}]
                },
                "spans": [{
                    "traceId": "5B8EFFF798038103D269B633813FC60C",
                    "spanId": "EEE19B7EC3C1B174",
                    "parentSpanId": "EEE19B7EC3C1B173",
                    "name": "I'm a server span",
                    "startTimeUnixNano": "1544712660000000000",
                    "endTimeUnixNano": "1544712661000000000",
                    "kind": 2,
                    "attributes": [{"key": "my.span.attr", "value": {"stringValue": "some value"}}]
                }]
            }]
        }]
    }"#;
    let request = converted(text).unwrap();
    let scope_spans = &request.resource_spans[0].scope_spans[0];
    let scope = scope_spans.scope.clone().unwrap();
    assert_eq!(
        (scope.name.as_str(), scope.version.as_str(), scope.attributes.len()),
        ("my.library", "1.0.0", 1)
    );
    let text = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) }),
        ..KeyValue::default()
    };
    let attributes = &request.resource_spans[0].resource.as_ref().unwrap().attributes;
    assert_eq!(attributes, &[text("service.name", "my.service")]);
    let expected = Span {
        trace_id: 0x5b8efff798038103d269b633813fc60c_u128.to_be_bytes().to_vec(),
        span_id: 0xeee19b7ec3c1b174_u64.to_be_bytes().to_vec(),
        parent_span_id: 0xeee19b7ec3c1b173_u64.to_be_bytes().to_vec(),
        name: "I'm a server span".to_owned(),
        start_time_unix_nano: 1_544_712_660_000_000_000,
        end_time_unix_nano: 1_544_712_661_000_000_000,
        kind: 2,
        attributes: vec![text("my.span.attr", "some value")],
        ..Span::default()
    };
    assert_eq!(scope_spans.spans, [expected]);
}

#[test]
fn ids_are_hexadecimal_of_any_case_and_of_any_length() {
    let span = converted_span(r#"{"traceId":"00aAfF","spanId":"","parentSpanId":"0123456789abcdefABCDEF"}"#);
    assert_eq!((span.trace_id, span.span_id.len()), (vec![0, 0xaa, 0xff], 0));
    assert_eq!(span.parent_span_id, [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0xab, 0xcd, 0xef]);
    for id in [r#""0g""#, r#""abc""#, r#""ü0""#, "12", "true", "[]", "{}", r#""AAECAwQFBgcICQoLDA0ODw==""#] {
        let why = refused_span(&format!(r#"{{"traceId":{id}}}"#));
        assert_eq!(why, "traceId must be a text of hexadecimal digits, two a byte", "{id}");
    }
}

#[test]
fn integers_of_64_bits_are_texts_or_numbers() {
    for (number, expected) in [
        ("0", 0),
        ("1544712660000000000", 1_544_712_660_000_000_000),
        (r#""1544712660000000000""#, 1_544_712_660_000_000_000),
        ("18446744073709551615", u64::MAX),
        (r#""18446744073709551615""#, u64::MAX),
        ("1.5e3", 1_500),
        (r#""007""#, 7),
        ("null", 0),
    ] {
        let span = converted_span(&format!(r#"{{"startTimeUnixNano":{number}}}"#));
        assert_eq!(span.start_time_unix_nano, expected, "{number}");
    }
    let rule = "startTimeUnixNano must be an integer from 0 to 18446744073709551615, as a number or a text";
    for number in [
        "-1",
        r#""-1""#,
        "1.5",
        "18446744073709551616",
        "1e20",
        r#""""#,
        r#"" 1""#,
        r#""+1""#,
        r#""1e3""#,
        "[]",
    ] {
        assert_eq!(refused_span(&format!(r#"{{"startTimeUnixNano":{number}}}"#)), rule, "{number}");
    }
    for (number, expected) in [
        ("-9223372036854775808", i64::MIN),
        (r#""-9223372036854775808""#, i64::MIN),
        (r#""9223372036854775807""#, i64::MAX),
        ("-0", 0),
    ] {
        let value = converted_value(&format!(r#"{{"intValue":{number}}}"#));
        assert_eq!(value, Some(any_value::Value::IntValue(expected)), "{number}");
    }
    for number in ["9223372036854775808", r#""9223372036854775808""#] {
        let why = refused_span(&format!(r#"{{"attributes":[{{"value":{{"intValue":{number}}}}}]}}"#));
        let place = "attributes[0].value.intValue";
        assert_eq!(why, format!("{place} must be an integer of 64 bits, as a number or a text"), "{number}");
    }
}

#[test]
fn integers_of_32_bits_are_texts_or_numbers_too_within_their_range() {
    let span =
        converted_span(r#"{"flags":257,"droppedAttributesCount":"3","droppedEventsCount":4294967295}"#);
    assert_eq!((span.flags, span.dropped_attributes_count, span.dropped_events_count), (257, 3, u32::MAX));
    for number in ["-1", "4294967296", r#""4294967296""#] {
        let why = refused_span(&format!(r#"{{"droppedLinksCount":{number}}}"#));
        assert_eq!(why, "droppedLinksCount must be an integer from 0 to 4294967295, as a number or a text");
    }
}

#[test]
fn enums_are_integers_and_not_names() {
    let span = converted_span(r#"{"kind":3,"status":{"code":2,"message":"late"}}"#);
    assert_eq!((span.kind, span.status), (3, Some(Status { message: "late".into(), code: 2 })));
    assert_eq!(converted_span(r#"{"kind":-7}"#).kind, -7);
    assert_eq!(converted_span(r#"{"kind":99}"#).kind, 99);
    for kind in [r#""SPAN_KIND_SERVER""#, r#""2""#, "2.5", "3000000000", "false"] {
        let why = refused_span(&format!(r#"{{"kind":{kind}}}"#));
        assert_eq!(why, "kind must be the integer of an enum, not its name", "{kind}");
    }
}

#[test]
fn unknown_fields_are_ignored_and_names_in_any_other_case_are_unknown() {
    let span = converted_span(
        r#"{"new":{"deep":[1,{"x":null}]},"trace_id":5,"Name":"no","start_time_unix_nano":"x","name":"yes","":0}"#,
    );
    assert_eq!(span, Span { name: "yes".into(), ..Span::default() });
    assert_eq!(converted(r#"{"resource_spans":7}"#).unwrap(), ExportTraceServiceRequest::default());
}

#[test]
fn null_is_as_good_as_absent_except_in_a_list() {
    let span = converted_span(
        r#"{"traceId":null,"name":null,"kind":null,"attributes":null,"events":null,"links":null,"status":null}"#,
    );
    assert_eq!(span, Span::default());
    assert_eq!(converted(r#"{"resourceSpans":null}"#).unwrap(), ExportTraceServiceRequest::default());
    assert_eq!(
        converted_value(r#"{"stringValue":null,"intValue":"5"}"#),
        Some(any_value::Value::IntValue(5))
    );
    assert_eq!(refused_span(r#"{"attributes":[null]}"#), "attributes[0] must be an object");
    let entity = r#"{"resourceSpans":[{"resource":{"entityRefs":[{"idKeys":["a",null]}]}}]}"#;
    let place = "resourceSpans[0].resource.entityRefs[0].idKeys[1]";
    assert!(refused(entity).ends_with(&format!("({place}): must be a text")), "{}", refused(entity));
}

#[test]
fn a_value_may_be_any_of_its_kinds_also_where_it_is_0_or_empty() {
    use any_value::Value::{BoolValue, BytesValue, DoubleValue, IntValue, StringValue, StringValueStrindex};
    for (text, expected) in [
        (r#"{"stringValue":""}"#, StringValue(String::new())),
        (r#"{"boolValue":false}"#, BoolValue(false)),
        (r#"{"intValue":0}"#, IntValue(0)),
        (r#"{"doubleValue":0}"#, DoubleValue(0.0)),
        (r#"{"doubleValue":-1.25e-3}"#, DoubleValue(-1.25e-3)),
        // To the last bit: the nearest number, not the one beside it.
        (r#"{"doubleValue":1.5e-300}"#, DoubleValue(1.5e-300)),
        (r#"{"doubleValue":"2.5"}"#, DoubleValue(2.5)),
        (r#"{"doubleValue":"Infinity"}"#, DoubleValue(f64::INFINITY)),
        (r#"{"doubleValue":"-Infinity"}"#, DoubleValue(f64::NEG_INFINITY)),
        (r#"{"doubleValue":18446744073709551615}"#, DoubleValue(18_446_744_073_709_551_615.0)),
        (r#"{"bytesValue":""}"#, BytesValue(Vec::new())),
        (r#"{"bytesValue":"+/+/AA=="}"#, BytesValue(vec![0xfb, 0xff, 0xbf, 0])),
        (r#"{"bytesValue":"-_-_AA"}"#, BytesValue(vec![0xfb, 0xff, 0xbf, 0])),
        (r#"{"stringValueStrindex":3}"#, StringValueStrindex(3)),
    ] {
        assert_eq!(converted_value(text), Some(expected), "{text}");
    }
    let Some(DoubleValue(nan)) = converted_value(r#"{"doubleValue":"NaN"}"#) else { panic!("no double") };
    assert!(nan.is_nan());
    assert_eq!(converted_value("{}"), None);
    for empty in
        [r#"{"arrayValue":{}}"#, r#"{"arrayValue":{"values":null}}"#, r#"{"arrayValue":{"values":[]}}"#]
    {
        assert_eq!(converted_value(empty), Some(any_value::Value::ArrayValue(Default::default())), "{empty}");
    }
    let kvlist = converted_value(r#"{"kvlistValue":{"values":[{"key":"k","value":{"boolValue":true}}]}}"#);
    let Some(any_value::Value::KvlistValue(list)) = kvlist else { panic!("no list") };
    assert_eq!(list.values[0].value.clone().unwrap().value, Some(BoolValue(true)));
    for (value, why) in [
        (r#"{"boolValue":"true"}"#, ".boolValue must be true or false"),
        (r#"{"bytesValue":"!"}"#, ".bytesValue must be a text in base64"),
        (
            r#"{"doubleValue":"nan"}"#,
            ".doubleValue must be a number, or \"NaN\", \"Infinity\" or \"-Infinity\"",
        ),
        (r#"{"stringValue":{}}"#, ".stringValue invalid type: map, expected a text"),
        (r#"{"arrayValue":[]}"#, ".arrayValue must be an object"),
        (r#"{"intValue":1,"boolValue":true}"#, " has more than one value"),
        ("7", " must be an object"),
    ] {
        let text = format!(r#"{{"attributes":[{{"value":{value}}}]}}"#);
        assert_eq!(refused_span(&text), format!("attributes[0].value{why}"), "{value}");
    }
}

#[test]
fn texts_keep_every_character_and_half_a_pair_becomes_a_replacement() {
    let span = converted_span(r#"{"name":"größe \u00fc \"\\\/\b\f\n\r\t 🦀 \ud83e\udd80 "}"#);
    assert_eq!(span.name, "größe ü \"\\/\u{8}\u{c}\n\r\t 🦀 🦀 ");
    let half = converted_span(r#"{"name":"cut \ud83e","traceState":"kept"}"#);
    assert!(half.name.starts_with("cut \u{fffd}") && half.trace_state == "kept", "{half:?}");
    assert_eq!(
        converted_span("{\"name\":\"a\u{1}b\"}").name,
        "a\u{1}b",
        "what should be escaped harms nobody"
    );
}

#[test]
fn what_is_no_json_is_refused_with_its_place() {
    for (text, line, place, why) in [
        ("", 1, "", "EOF while parsing a value"),
        ("spans", 1, "", "expected value"),
        ("[]", 1, "", "must be an object"),
        ("null", 1, "", "must be an object"),
        ("{\n \"resourceSpans\": [\n}", 3, "resourceSpans[0]", "expected value"),
        ("{}\n{}", 2, "", "trailing characters"),
        ("{\"resourceSpans\":[],\"resourceSpans\":[]}", 1, "resourceSpans", "is there twice"),
        ("{\"resourceSpans\":{}}", 1, "resourceSpans", "must be a list"),
    ] {
        let error = converted(text).unwrap_err();
        assert_eq!((error.line, error.place.as_str(), error.why.as_str()), (line, place, why), "{text:?}");
    }
    assert_eq!(refused("[]"), "invalid JSON at line 1, column 2: must be an object");
    let mut out = Vec::new();
    let error = from_json(b"{\n\"a\": \"\xff\"}", &mut out).unwrap_err();
    assert_eq!(error.to_string(), "invalid JSON at line 2, column 7: not utf-8");
}

#[test]
fn an_error_shows_nothing_of_what_is_in_the_request() {
    let secret = "hunter2".repeat(1_000);
    for span in [
        format!(r#"{{"kind":"{secret}"}}"#),
        format!(r#"{{"traceId":"{secret}"}}"#),
        format!(r#"{{"{secret}":"{secret}","kind":[]}}"#),
        format!(r#"{{"attributes":"{secret}"}}"#),
        format!(r#"{{"attributes":[{{"key":["{secret}"]}}]}}"#),
        format!(r#"{{"name":"{secret}" "{secret}"}}"#),
    ] {
        let error = refused(&of_span(&span));
        assert!(!error.contains("hunter") && error.len() < 300, "{error}");
    }
}

#[test]
fn json_that_nests_too_deep_is_refused_and_not_followed() {
    let nested = |levels: usize| {
        let (open, close) = (r#"{"arrayValue":{"values":["#.repeat(levels), "]}}".repeat(levels));
        let ids = r#""traceId":"01010101010101010101010101010101","spanId":"0101010101010101""#;
        of_span(&format!(r#"{{{ids},"attributes":[{{"key":"k","value":{open}{{}}{close}}}]}}"#))
    };
    let deep = converted(&nested(35)).unwrap();
    assert!(scan(&deep.encode_to_vec(), |_| {}).is_ok());
    let error = refused(&nested(100_000));
    assert!(error.ends_with("…): recursion limit exceeded"), "{error}");
    // What nobody looks at is not followed either.
    let ignored = format!(r#"{{"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(converted_span(&ignored), Span::default());
}

#[test]
fn what_is_short_in_json_and_long_in_bytes_stays_within_the_bound() {
    for span in
        [r#"{"kind":-1}"#, "{}", r#"{"status":{"code":-1}}"#, r#"{"attributes":[{},{},{"keyStrindex":-1}]}"#]
    {
        let spans = vec![span; 300].join(",");
        converted(&of_span(&spans)).unwrap();
    }
}

/// As an OpenTelemetry SDK would write it: fields in the order of their numbers, what is 0 or empty left out.
fn json_of(request: &ExportTraceServiceRequest) -> Value {
    let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02X}")).collect::<String>();
    let resource_spans = request.resource_spans.iter().map(|resource_spans| {
        let resource = resource_spans.resource.as_ref().map(|resource| {
            let entity_refs = resource.entity_refs.iter().map(|entity| {
                object([
                    ("schemaUrl", some(&entity.schema_url)),
                    ("type", some(&entity.r#type)),
                    ("idKeys", Some(json!(entity.id_keys))),
                    ("descriptionKeys", Some(json!(entity.description_keys))),
                ])
            });
            object([
                ("attributes", attributes(&resource.attributes)),
                ("droppedAttributesCount", count(resource.dropped_attributes_count)),
                ("entityRefs", list(entity_refs)),
            ])
        });
        let scope_spans = resource_spans.scope_spans.iter().map(|scope_spans| {
            let scope = scope_spans.scope.as_ref().map(|scope| {
                object([
                    ("name", some(&scope.name)),
                    ("version", some(&scope.version)),
                    ("attributes", attributes(&scope.attributes)),
                    ("droppedAttributesCount", count(scope.dropped_attributes_count)),
                ])
            });
            let spans = scope_spans.spans.iter().map(|span| {
                object([
                    ("traceId", some(&hex(&span.trace_id))),
                    ("spanId", some(&hex(&span.span_id))),
                    ("traceState", some(&span.trace_state)),
                    ("parentSpanId", some(&hex(&span.parent_span_id))),
                    ("name", some(&span.name)),
                    ("kind", (span.kind != 0).then(|| json!(span.kind))),
                    ("startTimeUnixNano", nanos(span.start_time_unix_nano)),
                    ("endTimeUnixNano", nanos(span.end_time_unix_nano)),
                    ("attributes", attributes(&span.attributes)),
                    ("droppedAttributesCount", count(span.dropped_attributes_count)),
                    ("events", list(span.events.iter().map(event))),
                    ("droppedEventsCount", count(span.dropped_events_count)),
                    ("links", list(span.links.iter().map(|link| link_of(link, hex)))),
                    ("droppedLinksCount", count(span.dropped_links_count)),
                    ("status", span.status.as_ref().map(status)),
                    ("flags", count(span.flags)),
                ])
            });
            object([("scope", scope), ("spans", list(spans)), ("schemaUrl", some(&scope_spans.schema_url))])
        });
        object([
            ("resource", resource),
            ("scopeSpans", list(scope_spans)),
            ("schemaUrl", some(&resource_spans.schema_url)),
        ])
    });
    object([("resourceSpans", list(resource_spans))])
}

fn event(event: &Event) -> Value {
    object([
        ("timeUnixNano", nanos(event.time_unix_nano)),
        ("name", some(&event.name)),
        ("attributes", attributes(&event.attributes)),
        ("droppedAttributesCount", count(event.dropped_attributes_count)),
    ])
}

fn link_of(link: &Link, hex: impl Fn(&[u8]) -> String) -> Value {
    object([
        ("traceId", some(&hex(&link.trace_id))),
        ("spanId", some(&hex(&link.span_id))),
        ("traceState", some(&link.trace_state)),
        ("attributes", attributes(&link.attributes)),
        ("droppedAttributesCount", count(link.dropped_attributes_count)),
        ("flags", count(link.flags)),
    ])
}

fn status(status: &Status) -> Value {
    object([("message", some(&status.message)), ("code", (status.code != 0).then(|| json!(status.code)))])
}

fn attributes(attributes: &[KeyValue]) -> Option<Value> {
    list(attributes.iter().map(key_value))
}

fn key_value(attribute: &KeyValue) -> Value {
    object([("key", some(&attribute.key)), ("value", attribute.value.as_ref().map(any_value))])
}

fn any_value(value: &AnyValue) -> Value {
    use any_value::Value::{
        ArrayValue, BoolValue, BytesValue, DoubleValue, IntValue, KvlistValue, StringValue,
        StringValueStrindex,
    };
    use base64::Engine as _;
    match &value.value {
        None => json!({}),
        Some(StringValue(text)) => json!({ "stringValue": text }),
        Some(BoolValue(value)) => json!({ "boolValue": value }),
        Some(IntValue(number)) => json!({ "intValue": number.to_string() }),
        Some(DoubleValue(number)) => json!({ "doubleValue": number }),
        Some(BytesValue(bytes)) => {
            json!({ "bytesValue": base64::engine::general_purpose::STANDARD.encode(bytes) })
        }
        Some(StringValueStrindex(index)) => json!({ "stringValueStrindex": index }),
        Some(ArrayValue(array)) => {
            json!({ "arrayValue": object([("values", list(array.values.iter().map(any_value)))]) })
        }
        Some(KvlistValue(pairs)) => {
            json!({ "kvlistValue": object([("values", list(pairs.values.iter().map(key_value)))]) })
        }
    }
}

/// In the order given: a map of serde_json's would sort it.
fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    // Names sort by their place, and lose it again in `written`.
    let numbered = fields.into_iter().enumerate();
    let there = numbered.filter_map(|(at, (name, value))| Some((format!("{at:02}{name}"), value?)));
    Value::Object(there.collect::<Map<_, _>>())
}

/// The text of a value of [`object`]s.
fn written(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| {
                let name = name.trim_start_matches(|c: char| c.is_ascii_digit());
                format!("{}:{}", json!(name), written(value))
            });
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        Value::Array(values) => format!("[{}]", values.iter().map(written).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

fn some(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| json!(text))
}

fn count(count: u32) -> Option<Value> {
    (count != 0).then(|| json!(count))
}

fn nanos(nanos: u64) -> Option<Value> {
    (nanos != 0).then(|| json!(nanos.to_string()))
}

fn list(values: impl Iterator<Item = Value>) -> Option<Value> {
    let values: Vec<_> = values.collect();
    (!values.is_empty()).then_some(Value::Array(values))
}

#[test]
fn a_span_of_every_field_becomes_the_bytes_of_prost() {
    let tape: Vec<u8> = (0..4_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut tape = Tape::new(&tape);
    for _ in 0..20 {
        let request = request(&mut tape);
        let mut out = Vec::new();
        from_json(written(&json_of(&request)).as_bytes(), &mut out).unwrap();
        assert_eq!(out, request.encode_to_vec());
        let _more = span(&mut tape);
    }
}

proptest! {
    #[test]
    fn what_prost_encodes_comes_out_of_its_json_byte_by_byte(tape in prop::collection::vec(any::<u8>(), 0..600)) {
        let request = request(&mut Tape::new(&tape));
        let text = written(&json_of(&request));
        let mut out = Vec::new();
        from_json(text.as_bytes(), &mut out).map_err(|error| TestCaseError::fail(format!("{error}: {text}")))?;
        prop_assert_eq!(&out, &request.encode_to_vec());
        let scans = scan(&out, |_| {}).is_ok();
        prop_assert!(scans);
    }

    #[test]
    fn any_text_is_converted_within_the_bound_or_refused(text in "[\\[\\]{}:,\"0-9a-zA-Z .\\-\\\\]{0,80}") {
        let mut out = Vec::new();
        if from_json(text.as_bytes(), &mut out).is_ok() {
            prop_assert!(out.len() <= text.len() + text.len() / 8);
        }
    }

    #[test]
    fn a_request_that_is_cut_or_changed_is_converted_to_a_request_or_refused(
        tape in prop::collection::vec(any::<u8>(), 0..300),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut text = written(&json_of(&request(&mut Tape::new(&tape)))).into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        for text in [&text[..], &text[..at]] {
            let mut out = Vec::new();
            if from_json(text, &mut out).is_ok() {
                prop_assert!(ExportTraceServiceRequest::decode(&*out).is_ok());
                prop_assert!(out.len() <= text.len() + text.len() / 8);
            }
        }
    }
}
