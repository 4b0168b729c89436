//! Protobuf by hand: just enough to write numbered spans and to read them back. It shares nothing with the
//! measured program's own reader, so that a fault there cannot hide itself here.

/// Why bytes are no protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// The value of one field, as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

/// Walks the fields of one message; ends after the first fault.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn next_field(&mut self) -> Result<(u64, Value<'a>), Malformed> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(self.fixed()?),
            2 => {
                let len = self.varint()?;
                let len = usize::try_from(len).map_err(|_| Malformed("length past the end"))?;
                let (value, rest) =
                    self.rest.split_at_checked(len).ok_or(Malformed("length past the end"))?;
                self.rest = rest;
                Value::Bytes(value)
            }
            5 => Value::Fixed32(self.fixed()?),
            _ => return Err(Malformed("unknown wire type")),
        };
        match key >> 3 {
            0 => Err(Malformed("field number 0")),
            number => Ok((number, value)),
        }
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (value, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed("fixed value cut short"))?;
        self.rest = rest;
        Ok(*value)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for (index, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = self.rest.get(index + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(Malformed("varint without an end"))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.next_field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_uint(out: &mut Vec<u8>, field: u64, value: u64) {
    put_varint(out, field << 3);
    put_varint(out, value);
}

pub(crate) fn put_fixed64(out: &mut Vec<u8>, field: u64, value: u64) {
    put_varint(out, field << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_fixed32(out: &mut Vec<u8>, field: u64, value: u32) {
    put_varint(out, field << 3 | 5);
    out.extend_from_slice(&value.to_le_bytes());
}

/// The number of bytes that `value` takes as a varint.
pub(crate) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_field_reads_back_as_written() {
        let mut out = Vec::new();
        put_uint(&mut out, 1, 300);
        put_fixed64(&mut out, 2, 7);
        put_bytes(&mut out, 3, b"abc");
        put_fixed32(&mut out, 16, 9);
        let fields: Result<Vec<_>, _> = Fields::new(&out).collect();
        assert_eq!(
            fields,
            Ok(vec![
                (1, Value::Varint(300)),
                (2, Value::Fixed64(7u64.to_le_bytes())),
                (3, Value::Bytes(b"abc")),
                (16, Value::Fixed32(9u32.to_le_bytes())),
            ])
        );
    }

    #[test]
    fn a_message_cut_short_is_malformed_at_every_place_inside_its_field() {
        let mut out = Vec::new();
        put_bytes(&mut out, 3, b"abcdef");
        for end in 1..out.len() {
            assert!(Fields::new(&out[..end]).any(|field| field.is_err()), "cut at {end}");
        }
    }

    #[test]
    fn the_length_of_a_varint_is_what_is_written() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(varint_len(value), out.len(), "{value}");
        }
    }
}
