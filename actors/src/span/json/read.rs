//! The reading of a text, value by value, each written as soon as it is read.

use std::fmt;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    error::{JsonError, Step},
    schema::{Field, Kind, Message, ROOT},
};
use crate::span::wire::{put_varint, varint_len};

const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING);

pub(super) fn request(text: &str, out: &mut Vec<u8>) -> Result<(), JsonError> {
    let mut state = State { out, path: Vec::new(), why: None };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let root = Value { state: &mut state, field: &ROOT, place: Place::Root };
    let read = root.deserialize(&mut deserializer);
    read.and_then(|_is_there| deserializer.end())
        .map_err(|error| JsonError::new(&error, &state.path, state.why))
}

struct State<'o> {
    out: &'o mut Vec<u8>,
    /// Where the reading is; after an error, where it was.
    path: Vec<Step>,
    /// Our own words for an error.
    why: Option<String>,
}

impl State<'_> {
    fn error<E: Error>(&mut self, why: impl Into<String>) -> E {
        self.why = Some(why.into());
        E::custom("see above")
    }

    fn key(&mut self, field: &Field) {
        put_varint(self.out, field.key.into());
    }

    /// Writes a field's frame and what `write` puts into it, with the shortest length.
    fn framed<T, E>(&mut self, field: &Field, write: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        if field.key == 0 {
            return write(self);
        }
        self.key(field);
        // Most are short: the length's first byte is where it would stand, and what is long moves on.
        let at = self.out.len();
        self.out.push(0);
        let written = write(self)?;
        let length = self.out.len() - at - 1;
        let mut head = Vec::with_capacity(varint_len(length as u64));
        put_varint(&mut head, length as u64);
        self.out.splice(at..=at, head);
        Ok(written)
    }

    fn bytes(&mut self, field: &Field, bytes: &[u8]) {
        self.key(field);
        put_varint(self.out, bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    fn object<'de, A: MapAccess<'de>>(
        &mut self,
        message: &'static Message,
        mut map: A,
    ) -> Result<(), A::Error> {
        let mut seen = 0_u32;
        let mut members = 0;
        while let Some(known) = map.next_key_seed(Name(message))? {
            let Some((index, field)) = known else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            self.path.push(Step::Field(field.name));
            if seen >> index & 1 == 1 {
                return Err(self.error("is there twice"));
            }
            seen |= 1 << index;
            let place = if message.is_oneof { Place::Member } else { Place::Field };
            members += u32::from(map.next_value_seed(Value { state: self, field, place })?);
            self.path.pop();
        }
        if message.is_oneof && members > 1 {
            return Err(self.error("has more than one value"));
        }
        Ok(())
    }
}

/// A field's name: which it is of a message's, if any.
struct Name(&'static Message);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<(usize, &'static Field)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<(usize, &'static Field)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.fields.iter().enumerate().find(|(_, field)| field.name == name))
    }
}

/// Where a value stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    /// A member of a oneof.
    Member,
    /// An element of a list.
    Element,
}

/// A value; tells whether it is there, which `null` is not.
struct Value<'s, 'o> {
    state: &'s mut State<'o>,
    field: &'static Field,
    place: Place,
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        if matches!(self.field.kind, Kind::Text) && !self.is_list() {
            // As bytes half a surrogate pair is let through; what is there otherwise was found to be UTF-8.
            return deserializer.deserialize_option(Text(self));
        }
        deserializer.deserialize_any(self)
    }
}

impl Value<'_, '_> {
    fn is_list(&self) -> bool {
        self.field.is_list && self.place != Place::Element
    }

    /// A scalar that is 0 or empty is left out, unless that says something.
    fn may_be_left_out(&self) -> bool {
        self.place == Place::Field
    }

    fn wrong<E: Error>(self) -> E {
        let rule = if self.is_list() { "must be a list" } else { self.field.kind.rule() };
        self.state.error(rule)
    }

    fn integer<E: Error>(self, value: i128) -> Result<bool, E> {
        let within = |low: i128, high: i128| (low..=high).contains(&value).then_some(value);
        let checked = match self.field.kind {
            _ if self.is_list() => None,
            Kind::Double => return self.double(value as f64),
            Kind::Int64 => within(i64::MIN.into(), i64::MAX.into()),
            Kind::Int32 | Kind::Enum => within(i32::MIN.into(), i32::MAX.into()),
            Kind::Uint32 | Kind::Fixed32 => within(0, u32::MAX.into()),
            Kind::Fixed64 => within(0, u64::MAX.into()),
            Kind::Message(_) | Kind::Text | Kind::Id | Kind::Bytes | Kind::Bool => None,
        };
        let Some(value) = checked else { return Err(self.wrong()) };
        if value == 0 && self.may_be_left_out() {
            return Ok(true);
        }
        self.state.key(self.field);
        match self.field.kind {
            Kind::Fixed64 => self.state.out.extend_from_slice(&(value as u64).to_le_bytes()),
            Kind::Fixed32 => self.state.out.extend_from_slice(&(value as u32).to_le_bytes()),
            // A negative one is as long as 64 bits are.
            _ => put_varint(self.state.out, value as u64),
        }
        Ok(true)
    }

    fn double<E: Error>(self, value: f64) -> Result<bool, E> {
        self.state.key(self.field);
        self.state.out.extend_from_slice(&value.to_le_bytes());
        Ok(true)
    }

    fn text<E: Error>(self, text: &str) -> Result<bool, E> {
        let bytes = match self.field.kind {
            _ if self.is_list() => None,
            Kind::Id => hexadecimal(text),
            Kind::Bytes => BASE64.decode(text).or_else(|_| BASE64_URL.decode(text)).ok(),
            Kind::Text => Some(text.as_bytes().to_vec()),
            Kind::Double => {
                return match text {
                    "NaN" => self.double(f64::NAN),
                    "Infinity" => self.double(f64::INFINITY),
                    "-Infinity" => self.double(f64::NEG_INFINITY),
                    other => match other.parse::<f64>() {
                        Ok(number) if number.is_finite() => self.double(number),
                        Ok(_) | Err(_) => Err(self.wrong()),
                    },
                };
            }
            Kind::Int64 | Kind::Int32 | Kind::Uint32 | Kind::Fixed64 | Kind::Fixed32 => {
                let digits = text.strip_prefix('-').unwrap_or(text);
                let is_decimal = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
                return match text.parse::<i128>() {
                    Ok(number) if is_decimal => self.integer(number),
                    Ok(_) | Err(_) => Err(self.wrong()),
                };
            }
            Kind::Message(_) | Kind::Bool | Kind::Enum => None,
        };
        let Some(bytes) = bytes else { return Err(self.wrong()) };
        if !(bytes.is_empty() && self.may_be_left_out()) {
            self.state.bytes(self.field, &bytes);
        }
        Ok(true)
    }
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    pairs.iter().map(|&[high, low]| Some((digit(high)? << 4 | digit(low)?) as u8)).collect()
}

impl<'de> Visitor<'de> for Value<'_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.field.kind.rule())
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        match self.place {
            Place::Field | Place::Member => Ok(false),
            Place::Root | Place::Element => Err(self.wrong()),
        }
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        if !matches!(self.field.kind, Kind::Bool) || self.is_list() {
            return Err(self.wrong());
        }
        self.state.key(self.field);
        self.state.out.push(value.into());
        Ok(true)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<bool, E> {
        self.integer(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<bool, E> {
        self.integer(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<bool, E> {
        match self.field.kind {
            Kind::Double if !self.is_list() => self.double(value),
            // 1e3 is an integer too; what is beyond 64 bits is refused as one.
            _ if value.fract() == 0.0 && value.abs() < 1e20 => self.integer(value as i128),
            _ => Err(self.wrong()),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
        self.text(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        if !self.is_list() {
            return Err(self.wrong());
        }
        let Self { state, field, .. } = self;
        for index in 0.. {
            state.path.push(Step::Element(index));
            let element = Value { state, field, place: Place::Element };
            let is_over = list.next_element_seed(element)?.is_none();
            state.path.pop();
            if is_over {
                break;
            }
        }
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<bool, A::Error> {
        let Kind::Message(message) = self.field.kind else { return Err(self.wrong()) };
        if self.is_list() {
            return Err(self.wrong());
        }
        self.state.framed(self.field, |state| state.object(message, map))?;
        Ok(true)
    }
}

/// A text, or `null`.
struct Text<'s, 'o>(Value<'s, 'o>);

impl<'de> Visitor<'de> for Text<'_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_none<E: Error>(self) -> Result<bool, E> {
        self.0.visit_unit()
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_bytes(self)
    }

    fn visit_bytes<E: Error>(self, text: &[u8]) -> Result<bool, E> {
        match std::str::from_utf8(text) {
            Ok(text) => self.0.text(text),
            Err(_half_a_pair) => self.0.text(&String::from_utf8_lossy(text)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<bool, A::Error> {
        Err(self.0.wrong())
    }
}
