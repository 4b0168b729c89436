//! A trace request as JSON, made from its protobuf form (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>):
//! names in lowerCamelCase, ids in hexadecimal digits, 64-bit numbers as decimal strings. Fields stand in the order in which
//! they come, so that who writes protobuf as he reads gives back the same bytes.

use std::io::Write as _;

use crate::wire::{Fields, Malformed, Value};

/// What a field is in JSON.
#[derive(Clone, Copy)]
enum Form {
    Text,
    /// Bytes in hexadecimal digits.
    Id,
    /// A number of 32 bits, or of an enum.
    Number,
    /// A number of 64 bits.
    Long,
    Message(&'static [Field]),
    /// Messages of a repeated field, which stand together.
    Messages(&'static [Field]),
}

/// Number, name and form.
type Field = (u64, &'static str, Form);

const REQUEST: &[Field] = &[(1, "resourceSpans", Form::Messages(RESOURCE_SPANS))];
const RESOURCE_SPANS: &[Field] = &[
    (1, "resource", Form::Message(RESOURCE)),
    (2, "scopeSpans", Form::Messages(SCOPE_SPANS)),
    (3, "schemaUrl", Form::Text),
];
const RESOURCE: &[Field] = &[(1, "attributes", Form::Messages(KEY_VALUE))];
const SCOPE_SPANS: &[Field] =
    &[(1, "scope", Form::Message(SCOPE)), (2, "spans", Form::Messages(SPAN)), (3, "schemaUrl", Form::Text)];
const SCOPE: &[Field] = &[(1, "name", Form::Text), (2, "version", Form::Text)];
const SPAN: &[Field] = &[
    (1, "traceId", Form::Id),
    (2, "spanId", Form::Id),
    (4, "parentSpanId", Form::Id),
    (5, "name", Form::Text),
    (6, "kind", Form::Number),
    (7, "startTimeUnixNano", Form::Long),
    (8, "endTimeUnixNano", Form::Long),
    (9, "attributes", Form::Messages(KEY_VALUE)),
    (15, "status", Form::Message(STATUS)),
    (16, "flags", Form::Number),
];
const STATUS: &[Field] = &[(2, "message", Form::Text), (3, "code", Form::Number)];
const KEY_VALUE: &[Field] = &[(1, "key", Form::Text), (2, "value", Form::Message(ANY_VALUE))];
const ANY_VALUE: &[Field] = &[(1, "stringValue", Form::Text), (3, "intValue", Form::Long)];

/// Appends the JSON form of an encoded `ExportTraceServiceRequest` of numbered spans.
///
/// # Errors
/// Where the request is malformed or has a field that numbered spans do not have.
pub(crate) fn put_request(out: &mut Vec<u8>, request: &[u8]) -> Result<(), Malformed> {
    put_message(out, request, REQUEST)
}

fn put_message(out: &mut Vec<u8>, message: &[u8], fields: &[Field]) -> Result<(), Malformed> {
    out.push(b'{');
    // The field before this one, and whether an array of its messages is open.
    let mut before = None;
    let mut open = false;
    for field in Fields::new(message) {
        let (number, value) = field?;
        let &(_, name, form) =
            fields.iter().find(|(known, ..)| *known == number).ok_or(Malformed("unknown field"))?;
        if before == Some(number) {
            if !open {
                return Err(Malformed("repeated field"));
            }
            out.push(b',');
        } else {
            out.extend_from_slice(match (before, open) {
                (None, _) => b"",
                (Some(_), false) => b",",
                (Some(_), true) => b"],",
            });
            put(out, format_args!("\"{name}\":"));
            open = matches!(form, Form::Messages(_));
            if open {
                out.push(b'[');
            }
            before = Some(number);
        }
        put_value(out, form, value)?;
    }
    out.extend_from_slice(if open { b"]}" } else { b"}" });
    Ok(())
}

fn put_value(out: &mut Vec<u8>, form: Form, value: Value<'_>) -> Result<(), Malformed> {
    match (form, value) {
        (Form::Message(fields) | Form::Messages(fields), Value::Bytes(message)) => {
            put_message(out, message, fields)?;
        }
        (Form::Text, Value::Bytes(text)) => {
            let text = std::str::from_utf8(text).map_err(|_| Malformed("text that is not utf-8"))?;
            serde_json::to_writer(out, text).map_err(|_| Malformed("text that makes no JSON"))?;
        }
        (Form::Id, Value::Bytes(id)) => {
            out.push(b'"');
            for byte in id {
                put(out, format_args!("{byte:02x}"));
            }
            out.push(b'"');
        }
        (Form::Number, Value::Varint(number)) => put(out, format_args!("{number}")),
        (Form::Number, Value::Fixed32(number)) => put(out, format_args!("{}", u32::from_le_bytes(number))),
        (Form::Long, Value::Varint(number)) => put(out, format_args!("\"{number}\"")),
        (Form::Long, Value::Fixed64(number)) => put(out, format_args!("\"{}\"", u64::from_le_bytes(number))),
        _ => return Err(Malformed("field of another type")),
    }
    Ok(())
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector cannot fail.
    let _infallible = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::*;
    use crate::spans::Generator;
    use crate::wire::put_uint;

    fn json_of(first: u64, count: u64) -> Json {
        let (mut request, mut out) = (Vec::new(), Vec::new());
        Generator::new(1).put_request(&mut request, first, count);
        put_request(&mut out, &request).unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn a_request_of_two_resources_and_three_scopes_has_every_span_in_json() {
        let json = json_of(250, 300);
        let resources = json["resourceSpans"].as_array().unwrap();
        let scopes: Vec<&Json> =
            resources.iter().flat_map(|resource| resource["scopeSpans"].as_array().unwrap()).collect();
        let spans: usize = scopes.iter().map(|scope| scope["spans"].as_array().unwrap().len()).sum();
        assert_eq!((resources.len(), scopes.len(), spans), (2, 3, 300));
        assert_eq!(resources[0]["resource"]["attributes"][0]["value"]["stringValue"], "stream-gateway");
        assert_eq!(scopes[0]["scope"]["name"], "io.example.instrumentation.server");
        assert_eq!(scopes[2]["schemaUrl"], "https://opentelemetry.io/schemas/1.34.0");
    }

    #[test]
    fn a_span_in_json_has_ids_in_digits_and_long_numbers_as_texts() {
        let json = json_of(1, 1);
        let span = &json["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        let id = span["spanId"].as_str().unwrap();
        let id = u64::from_str_radix(id, 16).unwrap().to_be_bytes();
        assert_eq!(Generator::new(1).sequence(id), Some(1));
        assert_eq!(span["traceId"].as_str().unwrap().len(), 32);
        assert_eq!(span["startTimeUnixNano"], "1767225600000001000");
        assert_eq!(span["flags"], 257);
        let attributes = span["attributes"].as_array().unwrap();
        assert_eq!(attributes[3]["key"], "http.response.status_code");
        assert!(["200", "503"].contains(&attributes[3]["value"]["intValue"].as_str().unwrap()));
    }

    #[test]
    fn a_field_that_numbered_spans_do_not_have_is_not_left_out_in_silence() {
        let mut request = Vec::new();
        put_uint(&mut request, 9, 1);
        assert_eq!(put_request(&mut Vec::new(), &request), Err(Malformed("unknown field")));
    }
}
