//! Values of attributes (`AnyValue` of OTLP's `common.proto`).

use std::{borrow::Cow, fmt};

use super::{
    fields::{any_value, array_value, key_value, key_value_list},
    wire::{put_varint, varint_len},
};

/// How deep arrays and maps may nest in a value. A decoder stops at 100 levels of messages, of which a map
/// takes three; this stays far below.
pub const VALUE_DEPTH_MAX: u32 = 16;

/// The value of an attribute. A text or a byte string is borrowed where it can be.
///
/// ```
/// use nyx_telemetry::span::Value;
///
/// let _: Value<'_> = "GET".into();
/// let _: Value<'_> = 200.into();
/// let _: Value<'_> = vec!["a", "b"].into();
/// let _ = Value::map([("bytes_in", 1500_i64), ("bytes_out", 20)]);
/// ```
#[derive(Clone, PartialEq)]
pub enum Value<'a> {
    /// A text.
    String(Cow<'a, str>),
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Double(f64),
    /// A byte string.
    Bytes(Cow<'a, [u8]>),
    /// Values in their order, of any types.
    Array(Vec<Value<'a>>),
    /// Keys, each with a value, in their order.
    Map(Vec<(Cow<'a, str>, Value<'a>)>),
}

impl<'a> Value<'a> {
    /// An array of these values.
    pub fn array<V: Into<Self>>(values: impl IntoIterator<Item = V>) -> Self {
        Self::Array(values.into_iter().map(Into::into).collect())
    }

    /// A map of these keys and values.
    pub fn map<K: Into<Cow<'a, str>>, V: Into<Self>>(entries: impl IntoIterator<Item = (K, V)>) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }

    /// Whether arrays and maps nest at most `depth` deep.
    #[inline]
    pub(super) fn nests_within(&self, depth: u32) -> bool {
        match self {
            Self::Array(values) => {
                depth > 0 && values.iter().all(|value| value.nests_within(depth.saturating_sub(1)))
            }
            Self::Map(entries) => {
                depth > 0 && entries.iter().all(|(_, value)| value.nests_within(depth.saturating_sub(1)))
            }
            Self::String(_) | Self::Bool(_) | Self::Int(_) | Self::Double(_) | Self::Bytes(_) => true,
        }
    }

    /// Length of the content of an `AnyValue` message with this value.
    #[inline]
    pub(super) fn content_len(&self) -> usize {
        match self {
            Self::String(text) => framed_len(text.len()),
            Self::Bytes(bytes) => framed_len(bytes.len()),
            Self::Bool(_) => 2,
            Self::Int(number) => 1 + varint_len(*number as u64),
            Self::Double(_) => 9,
            Self::Array(values) => framed_len(values_len(values)),
            Self::Map(entries) => framed_len(entries_len(entries)),
        }
    }

    /// Appends the content of an `AnyValue` message with this value.
    #[inline]
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::String(text) => put_framed(out, any_value::STRING, text.as_bytes()),
            Self::Bytes(bytes) => put_framed(out, any_value::BYTES, bytes),
            Self::Bool(truth) => out.extend_from_slice(&[any_value::BOOL as u8, u8::from(*truth)]),
            Self::Int(number) => {
                out.push(any_value::INT as u8);
                put_varint(out, *number as u64);
            }
            Self::Double(number) => {
                out.push(any_value::DOUBLE as u8);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Self::Array(values) => put_array(out, values),
            Self::Map(entries) => put_map(out, entries),
        }
    }
}

/// Length of a field with a key of one byte and this much content.
#[inline(always)]
pub(super) const fn framed_len(content: usize) -> usize {
    1 + varint_len(content as u64) + content
}

/// Appends a key of one byte (a field up to 15) and a length.
#[inline(always)]
pub(super) fn put_head(out: &mut Vec<u8>, key: u32, length: usize) {
    if length < 0x80 {
        out.extend_from_slice(&[key as u8, length as u8]);
    } else {
        out.push(key as u8);
        put_varint(out, length as u64);
    }
}

/// Appends a field with a key of one byte.
#[inline(always)]
pub(super) fn put_framed(out: &mut Vec<u8>, key: u32, content: &[u8]) {
    put_head(out, key, content.len());
    out.extend_from_slice(content);
}

/// Length of a `KeyValue` message's content.
#[inline(always)]
pub(super) fn key_value_len(key: &str, value_len: usize) -> usize {
    framed_len(key.len()) + framed_len(value_len)
}

/// Appends a `KeyValue` message as the field `field`.
#[inline(always)]
pub(super) fn put_key_value(out: &mut Vec<u8>, field: u32, key: &str, value: &Value<'_>) {
    let value_len = value.content_len();
    put_head(out, field, key_value_len(key, value_len));
    put_framed(out, key_value::KEY, key.as_bytes());
    put_head(out, key_value::VALUE, value_len);
    value.put(out);
}

fn values_len(values: &[Value<'_>]) -> usize {
    values.iter().map(|value| framed_len(value.content_len())).sum()
}

fn entries_len(entries: &[(Cow<'_, str>, Value<'_>)]) -> usize {
    entries.iter().map(|(key, value)| framed_len(key_value_len(key, value.content_len()))).sum()
}

#[inline(never)]
fn put_array(out: &mut Vec<u8>, values: &[Value<'_>]) {
    put_head(out, any_value::ARRAY, values_len(values));
    for value in values {
        put_head(out, array_value::VALUES, value.content_len());
        value.put(out);
    }
}

#[inline(never)]
fn put_map(out: &mut Vec<u8>, entries: &[(Cow<'_, str>, Value<'_>)]) {
    put_head(out, any_value::KVLIST, entries_len(entries));
    for (key, value) in entries {
        put_key_value(out, key_value_list::VALUES, key, value);
    }
}

impl fmt::Debug for Value<'_> {
    /// The type and the length: what a value says stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(text) => write!(f, "String({} bytes)", text.len()),
            Self::Bool(_) => f.write_str("Bool"),
            Self::Int(_) => f.write_str("Int"),
            Self::Double(_) => f.write_str("Double"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Array(values) => write!(f, "Array({} values)", values.len()),
            Self::Map(entries) => write!(f, "Map({} entries)", entries.len()),
        }
    }
}

macro_rules! from {
    ($($from:ty, $given:ident => $value:expr;)*) => {
        $(impl<'a> From<$from> for Value<'a> {
            #[inline]
            fn from($given: $from) -> Self {
                $value
            }
        })*
    };
}

from! {
    &'a str, text => Self::String(Cow::Borrowed(text));
    &'a String, text => Self::String(Cow::Borrowed(text));
    String, text => Self::String(Cow::Owned(text));
    Cow<'a, str>, text => Self::String(text);
    bool, truth => Self::Bool(truth);
    i32, number => Self::Int(number.into());
    i64, number => Self::Int(number);
    u16, number => Self::Int(number.into());
    u32, number => Self::Int(number.into());
    f32, number => Self::Double(number.into());
    f64, number => Self::Double(number);
    &'a [u8], bytes => Self::Bytes(Cow::Borrowed(bytes));
    Vec<u8>, bytes => Self::Bytes(Cow::Owned(bytes));
    Cow<'a, [u8]>, bytes => Self::Bytes(bytes);
    Vec<Value<'a>>, values => Self::Array(values);
    Vec<&'a str>, values => Self::array(values);
    Vec<String>, values => Self::array(values);
    Vec<bool>, values => Self::array(values);
    Vec<i64>, values => Self::array(values);
    Vec<f64>, values => Self::array(values);
}

impl<'a, const N: usize> From<&'a [u8; N]> for Value<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Bytes(Cow::Borrowed(bytes))
    }
}
