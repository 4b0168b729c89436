//! Spans as OTLP/JSON (OTLP specification, "JSON Protobuf Encoding"): ids in hexadecimal, 64-bit integers as texts, bytes in
//! base64, enums as numbers. What has its default value is left out.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Event, Link},
    },
};
use serde_json::{Map, Value, json};

/// An object whose fields are left out where they have their default value.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn with(mut self, name: &str, value: Value) -> Self {
        let default = match &value {
            Value::Null => true,
            Value::String(text) => text.is_empty() || text == "0",
            Value::Number(number) => number.as_i64() == Some(0),
            Value::Array(values) => values.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(_) => false,
        };
        if !default {
            self.0.insert(name.to_owned(), value);
        }
        self
    }

    fn text(mut self, name: &str, text: String) -> Self {
        if !text.is_empty() {
            self.0.insert(name.to_owned(), Value::String(text));
        }
        self
    }

    fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

fn list<T>(values: Vec<T>, each: impl Fn(T) -> Value) -> Value {
    Value::Array(values.into_iter().map(each).collect())
}

fn hex(bytes: &[u8]) -> Value {
    Value::String(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn whole(number: u64) -> Value {
    Value::String(number.to_string())
}

/// The spans of a resource.
pub(crate) fn resource_spans(of: ResourceSpans) -> Value {
    let resource =
        of.resource.map_or(Value::Null, |Resource { attributes, dropped_attributes_count, .. }| {
            Object::default()
                .with("attributes", list(attributes, key_value))
                .with("droppedAttributesCount", json!(dropped_attributes_count))
                .into_value()
        });
    Object::default()
        .with("resource", resource)
        .with("scopeSpans", list(of.scope_spans, scope_spans))
        .text("schemaUrl", of.schema_url)
        .into_value()
}

fn scope_spans(of: ScopeSpans) -> Value {
    let scope = of.scope.map_or(
        Value::Null,
        |InstrumentationScope { name, version, attributes, dropped_attributes_count }| {
            Object::default()
                .text("name", name)
                .text("version", version)
                .with("attributes", list(attributes, key_value))
                .with("droppedAttributesCount", json!(dropped_attributes_count))
                .into_value()
        },
    );
    Object::default()
        .with("scope", scope)
        .with("spans", list(of.spans, span))
        .text("schemaUrl", of.schema_url)
        .into_value()
}

fn span(span: Span) -> Value {
    let status = span.status.map_or(Value::Null, |Status { message, code }| {
        Object::default().text("message", message).with("code", json!(code)).into_value()
    });
    Object::default()
        .with("traceId", hex(&span.trace_id))
        .with("spanId", hex(&span.span_id))
        .text("traceState", span.trace_state)
        .with("parentSpanId", hex(&span.parent_span_id))
        .with("flags", json!(span.flags))
        .text("name", span.name)
        .with("kind", json!(span.kind))
        .with("startTimeUnixNano", whole(span.start_time_unix_nano))
        .with("endTimeUnixNano", whole(span.end_time_unix_nano))
        .with("attributes", list(span.attributes, key_value))
        .with("droppedAttributesCount", json!(span.dropped_attributes_count))
        .with("events", list(span.events, event))
        .with("droppedEventsCount", json!(span.dropped_events_count))
        .with("links", list(span.links, link))
        .with("droppedLinksCount", json!(span.dropped_links_count))
        .with("status", status)
        .into_value()
}

fn event(event: Event) -> Value {
    Object::default()
        .with("timeUnixNano", whole(event.time_unix_nano))
        .text("name", event.name)
        .with("attributes", list(event.attributes, key_value))
        .with("droppedAttributesCount", json!(event.dropped_attributes_count))
        .into_value()
}

fn link(link: Link) -> Value {
    Object::default()
        .with("traceId", hex(&link.trace_id))
        .with("spanId", hex(&link.span_id))
        .text("traceState", link.trace_state)
        .with("attributes", list(link.attributes, key_value))
        .with("droppedAttributesCount", json!(link.dropped_attributes_count))
        .with("flags", json!(link.flags))
        .into_value()
}

fn key_value(KeyValue { key, value, .. }: KeyValue) -> Value {
    json!({ "key": key, "value": value.map_or_else(|| json!({}), any_value) })
}

/// A value keeps its default: `false` is not nothing. Nesting is bounded by what a scan accepts.
fn any_value(AnyValue { value }: AnyValue) -> Value {
    match value {
        None => json!({}),
        Some(any_value::Value::StringValue(text)) => json!({ "stringValue": text }),
        Some(any_value::Value::StringValueStrindex(index)) => json!({ "stringValueStrindex": index }),
        Some(any_value::Value::BoolValue(truth)) => json!({ "boolValue": truth }),
        Some(any_value::Value::IntValue(number)) => json!({ "intValue": number.to_string() }),
        Some(any_value::Value::DoubleValue(number)) => json!({ "doubleValue": double(number) }),
        Some(any_value::Value::BytesValue(bytes)) => json!({ "bytesValue": STANDARD.encode(bytes) }),
        Some(any_value::Value::ArrayValue(array)) => {
            json!({ "arrayValue": { "values": list(array.values, any_value) } })
        }
        Some(any_value::Value::KvlistValue(entries)) => {
            json!({ "kvlistValue": { "values": list(entries.values, key_value) } })
        }
    }
}

/// What JSON has no number for is a text (protobuf's JSON mapping).
fn double(number: f64) -> Value {
    match number {
        number if number.is_finite() => json!(number),
        number if number.is_nan() => json!("NaN"),
        number if number > 0.0 => json!("Infinity"),
        _ => json!("-Infinity"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_the_specification_says() {
        use any_value::Value::{ArrayValue, BoolValue, BytesValue, DoubleValue, IntValue, StringValue};
        let one = |value| any_value(AnyValue { value: Some(value) });
        assert_eq!(one(StringValue("ü".to_owned())), json!({ "stringValue": "ü" }));
        assert_eq!(one(IntValue(i64::MIN)), json!({ "intValue": "-9223372036854775808" }));
        assert_eq!(one(BoolValue(false)), json!({ "boolValue": false }));
        assert_eq!(one(DoubleValue(0.5)), json!({ "doubleValue": 0.5 }));
        assert_eq!(one(DoubleValue(f64::NEG_INFINITY)), json!({ "doubleValue": "-Infinity" }));
        assert_eq!(one(DoubleValue(f64::NAN)), json!({ "doubleValue": "NaN" }));
        assert_eq!(one(BytesValue(vec![0, 255])), json!({ "bytesValue": "AP8=" }));
        let array =
            opentelemetry_proto::tonic::common::v1::ArrayValue { values: vec![AnyValue { value: None }] };
        assert_eq!(one(ArrayValue(array)), json!({ "arrayValue": { "values": [{}] } }));
    }

    #[test]
    fn a_span_has_its_ids_in_hexadecimal_and_nothing_that_was_not_said() {
        let span = span(Span {
            trace_id: vec![0xab; 16],
            span_id: vec![1; 8],
            name: "0".to_owned(),
            end_time_unix_nano: u64::MAX,
            status: Some(Status { message: String::new(), code: 2 }),
            ..Span::default()
        });
        let expected = json!({
            "traceId": "ab".repeat(16),
            "spanId": "01".repeat(8),
            "name": "0",
            "endTimeUnixNano": "18446744073709551615",
            "status": { "code": 2 },
        });
        assert_eq!(span, expected);
    }
}
