//! Attributes in a scan: `KeyValue` and `AnyValue`, checked and stepped over.

use super::{
    error::Fault,
    fields::{any_value, array_value, key_value, key_value_list},
    wire::{NESTING_MAX, Reader, enter, is_ascii},
};

const STRING_VALUE: &str = "any_value.string_value";

/// A `KeyValue`; `left` levels may nest inside.
#[inline(always)]
pub(super) fn attribute(bytes: &[u8], left: u32) -> Result<(), Fault> {
    if left > 0 && is_plain(bytes) { Ok(()) } else { any_attribute(bytes, left) }
}

/// Whether it is a `KeyValue` as nearly all are, which is quickly seen to be valid: an ASCII key of less than
/// 128 bytes, then a value, which is such a text, a bool, an integer below 2^14 or a double, and no more.
#[inline(always)]
fn is_plain(bytes: &[u8]) -> bool {
    const KEY: u8 = key_value::KEY as u8;
    const VALUE: u8 = key_value::VALUE as u8;
    const STRING: u8 = any_value::STRING as u8;
    const BOOL: u8 = any_value::BOOL as u8;
    const INT: u8 = any_value::INT as u8;
    const DOUBLE: u8 = any_value::DOUBLE as u8;
    let [KEY, key_len @ 0..0x80, rest @ ..] = bytes else { return false };
    let Some((key, [VALUE, value_len @ 0..0x80, value @ ..])) = rest.split_at_checked((*key_len).into())
    else {
        return false;
    };
    if usize::from(*value_len) != value.len() || !is_ascii(key) {
        return false;
    }
    match value {
        [STRING, length @ 0..0x80, text @ ..] => usize::from(*length) == text.len() && is_ascii(text),
        [BOOL | INT, 0..0x80] | [BOOL | INT, 0x80..=0xff, 0..0x80] => true,
        [DOUBLE, number @ ..] => number.len() == 8,
        _ => false,
    }
}

#[inline(never)]
fn any_attribute(bytes: &[u8], left: u32) -> Result<(), Fault> {
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.key()? {
            key_value::KEY => reader.check_text("key_value.key")?,
            key_value::VALUE => {
                let value = reader.bytes()?;
                any_value(value, enter(left, value)?)?;
            }
            key_value::KEY_INDEX => reader.skip_varint()?,
            key => reader.unknown(key, key_value::KNOWN, left)?,
        }
    }
    Ok(())
}

#[inline(always)]
fn any_value(bytes: &[u8], left: u32) -> Result<(), Fault> {
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.key()? {
            any_value::STRING => reader.check_text(STRING_VALUE)?,
            any_value::BOOL | any_value::INT | any_value::STRING_INDEX => reader.skip_varint()?,
            any_value::DOUBLE => reader.skip_fixed(8)?,
            any_value::ARRAY => {
                let values = reader.bytes()?;
                array(values, enter(left, values)?)?;
            }
            any_value::KVLIST => {
                let values = reader.bytes()?;
                kvlist(values, enter(left, values)?)?;
            }
            any_value::BYTES => reader.skip_bytes()?,
            key => reader.unknown(key, any_value::KNOWN, left)?,
        }
    }
    Ok(())
}

#[inline(never)]
fn array(bytes: &[u8], left: u32) -> Result<(), Fault> {
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.key()? {
            array_value::VALUES => {
                let value = reader.bytes()?;
                any_value(value, enter(left, value)?)?;
            }
            key => reader.unknown(key, array_value::KNOWN, left)?,
        }
    }
    Ok(())
}

#[inline(never)]
fn kvlist(bytes: &[u8], left: u32) -> Result<(), Fault> {
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.key()? {
            key_value_list::VALUES => {
                let value = reader.bytes()?;
                attribute(value, enter(left, value)?)?;
            }
            key => reader.unknown(key, key_value_list::KNOWN, left)?,
        }
    }
    Ok(())
}

/// The value of an attribute that was found valid, if it is named `service.name` and is a string.
pub(super) fn service_name(attribute: &[u8]) -> Result<Option<&str>, Fault> {
    let mut name: &[u8] = &[];
    let mut service = None;
    let mut reader = Reader::new(attribute);
    while !reader.is_empty() {
        match reader.key()? {
            key_value::KEY => name = reader.bytes()?,
            key_value::VALUE => {
                let mut value = Reader::new(reader.bytes()?);
                while !value.is_empty() {
                    match value.key()? {
                        any_value::STRING => service = Some(value.text(STRING_VALUE)?),
                        // Another member of the oneof takes the string's place, an unknown field does not.
                        key => {
                            if key >> 3 <= 8 {
                                service = None;
                            }
                            value.skip(key, NESTING_MAX)?;
                        }
                    }
                }
            }
            key => reader.skip(key, NESTING_MAX)?,
        }
    }
    Ok(service.filter(|_| name == b"service.name"))
}
