//! Attributes of a span that a scan found valid, for those who want some of them.
//!
//! A scan checks every attribute and keeps none. Whoever needs values reads the span's bytes once more; whoever does not
//! pays nothing.

use super::{
    error::Fault,
    fields::{any_value, key_value, resource, resource_spans, span},
    wire::{NESTING_MAX, Reader},
};

/// Where a span lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpanBytes<'a> {
    /// The content of the `ResourceSpans` around it.
    pub resource_spans: &'a [u8],
    /// The content of its `Span`.
    pub span: &'a [u8],
}

/// A value that is neither a list, nor a map, nor bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar<'a> {
    /// A text.
    Text(&'a str),
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Double(f64),
}

impl<'a> SpanBytes<'a> {
    /// Shows `visit` the key and value of each of the span's attributes that has a [`Scalar`], in the order of the wire.
    pub fn attributes(&self, mut visit: impl FnMut(&'a [u8], Scalar<'a>)) {
        // A scan found the bytes valid.
        let _whole = each(self.span, span::ATTRIBUTES, |attribute| show(attribute, &mut visit));
    }

    /// As [`SpanBytes::attributes`], of the span's resource.
    pub fn resource_attributes(&self, mut visit: impl FnMut(&'a [u8], Scalar<'a>)) {
        let _whole = each(self.resource_spans, resource_spans::RESOURCE, |resource| {
            each(resource, resource::ATTRIBUTES, |attribute| show(attribute, &mut visit))
        });
    }
}

/// Shows the content of each field with this key, whose wire type says that it has a length.
fn each<'a>(
    message: &'a [u8],
    wanted: u32,
    mut visit: impl FnMut(&'a [u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut reader = Reader::new(message);
    while !reader.is_empty() {
        match reader.key()? {
            key if key == wanted => visit(reader.bytes()?)?,
            key => reader.skip(key, NESTING_MAX)?,
        }
    }
    Ok(())
}

fn show<'a>(attribute: &'a [u8], visit: &mut impl FnMut(&'a [u8], Scalar<'a>)) -> Result<(), Fault> {
    let mut key: &[u8] = &[];
    let mut value = None;
    let mut reader = Reader::new(attribute);
    while !reader.is_empty() {
        match reader.key()? {
            key_value::KEY => key = reader.bytes()?,
            key_value::VALUE => scalar(reader.bytes()?, &mut value)?,
            other => reader.skip(other, NESTING_MAX)?,
        }
    }
    if let Some(value) = value {
        visit(key, value);
    }
    Ok(())
}

/// The last member of the oneof wins; one that is no scalar takes a scalar's place.
fn scalar<'a>(bytes: &'a [u8], value: &mut Option<Scalar<'a>>) -> Result<(), Fault> {
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.key()? {
            any_value::STRING => *value = Some(Scalar::Text(reader.text("any_value.string_value")?)),
            any_value::BOOL => *value = Some(Scalar::Bool(reader.varint()? != 0)),
            any_value::INT => *value = Some(Scalar::Int(reader.varint()? as i64)),
            any_value::DOUBLE => *value = Some(Scalar::Double(f64::from_bits(reader.fixed64()?))),
            key => {
                if key >> 3 <= 8 {
                    *value = None;
                }
                reader.skip(key, NESTING_MAX)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest,
        common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value},
        resource::v1::Resource,
        trace::v1::{ResourceSpans, ScopeSpans, Span},
    };
    use prost::Message as _;

    use super::*;
    use crate::span::scan;

    fn attribute(key: &str, value: Option<Value>) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(AnyValue { value }), ..KeyValue::default() }
    }

    #[test]
    fn scalars_of_span_and_resource_are_shown_and_others_are_not() {
        let span = Span {
            trace_id: vec![1; 16],
            span_id: vec![1; 8],
            attributes: vec![
                attribute("text", Some(Value::StringValue("é".to_owned()))),
                attribute("yes", Some(Value::BoolValue(true))),
                attribute("negative", Some(Value::IntValue(-7))),
                attribute("half", Some(Value::DoubleValue(0.5))),
                attribute("list", Some(Value::ArrayValue(ArrayValue::default()))),
                attribute("bytes", Some(Value::BytesValue(vec![1]))),
                attribute("none", None),
                KeyValue { key: "no value".to_owned(), ..KeyValue::default() },
            ],
            ..Span::default()
        };
        let resource = Resource {
            attributes: vec![attribute("host", Some(Value::StringValue("a".to_owned())))],
            ..Resource::default()
        };
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
        let resource_spans =
            vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }];
        let request = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let (mut own, mut of_resource) = (Vec::new(), Vec::new());
        scan(&request, |span| {
            span.bytes.attributes(|key, value| own.push((key, value)));
            span.bytes.resource_attributes(|key, value| of_resource.push((key, value)));
        })
        .unwrap();
        let expected = [
            (&b"text"[..], Scalar::Text("é")),
            (b"yes", Scalar::Bool(true)),
            (b"negative", Scalar::Int(-7)),
            (b"half", Scalar::Double(0.5)),
        ];
        assert_eq!(own, expected);
        assert_eq!(of_resource, [(&b"host"[..], Scalar::Text("a"))]);
    }

    #[test]
    fn of_several_members_of_a_oneof_the_last_counts() {
        let text = AnyValue { value: Some(Value::StringValue("text".to_owned())) }.encode_to_vec();
        let list = AnyValue { value: Some(Value::ArrayValue(ArrayValue::default())) }.encode_to_vec();
        let int = AnyValue { value: Some(Value::IntValue(3)) }.encode_to_vec();
        let read = |parts: &[&[u8]]| {
            let mut value = None;
            parts.iter().for_each(|part| scalar(part, &mut value).unwrap_or_default());
            value.map(|value| format!("{value:?}"))
        };
        assert_eq!(read(&[&text, &int]).as_deref(), Some("Int(3)"));
        assert_eq!(read(&[&text, &list]), None);
        assert_eq!(read(&[&[&list[..], &int].concat()]).as_deref(), Some("Int(3)"));
    }
}
