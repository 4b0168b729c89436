//! The protobuf wire format, read one field at a time (<https://protobuf.dev/programming-guides/encoding/>).
//!
//! Every read is checked against the bytes at hand. What counts as valid follows prost: varints of up to
//! ten bytes, padded ones too; keys of 32 bits; groups are skipped when balanced.

use super::error::{Fault, ScanFault};

pub(super) const VARINT: u32 = 0;
pub(super) const FIXED64: u32 = 1;
pub(super) const LEN: u32 = 2;
pub(super) const GROUP: u32 = 3;
pub(super) const GROUP_END: u32 = 4;
pub(super) const FIXED32: u32 = 5;

/// How deep messages and groups may nest below the request; the limit of prost and of the C++ decoder.
pub const NESTING_MAX: u32 = 100;

/// A field's key: its number and its wire type.
pub(super) const fn key(field: u32, wire_type: u32) -> u32 {
    field << 3 | wire_type
}

/// What is known of a message.
#[derive(Clone, Copy)]
pub(super) struct Known {
    /// Its name in error texts.
    pub(super) message: &'static str,
    /// A bit for the number of each of its fields.
    pub(super) fields: u32,
}

/// The levels left inside a message that stands where `left` levels are left.
#[inline(always)]
pub(super) fn enter(left: u32, at: &[u8]) -> Result<u32, Fault> {
    match left.checked_sub(1) {
        Some(left) => Ok(left),
        None => Err(Fault::new(at, ScanFault::Nesting { limit: NESTING_MAX })),
    }
}

/// The fields of one message that are still unread.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[inline(always)]
    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What was read between this state of the reader and a later one.
    #[inline(always)]
    pub(super) fn until(&self, later: &Self) -> &'a [u8] {
        let read = self.rest.len().saturating_sub(later.rest.len());
        self.rest.get(..read).unwrap_or_default()
    }

    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64, Fault> {
        match self.rest {
            [first, rest @ ..] if *first < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*first))
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0;
        for (index, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                if index == 9 && *byte > 1 {
                    break;
                }
                self.rest = self.rest.get(index + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        let fault = match self.rest.len() {
            left @ 0..10 => ScanFault::Truncated { needed: left as u64 + 1, left },
            _ => ScanFault::Varint,
        };
        Err(Fault::new(self.rest, fault))
    }

    /// The next field's key, which may still be no valid one: a caller matches the keys that it knows and
    /// hands the others to [`Reader::unknown`] or [`Reader::skip`].
    #[inline(always)]
    pub(super) fn key(&mut self) -> Result<u32, Fault> {
        match self.rest {
            [first, rest @ ..] if *first < 0x80 => {
                self.rest = rest;
                Ok(u32::from(*first))
            }
            _ => self.long_key(),
        }
    }

    #[inline(never)]
    fn long_key(&mut self) -> Result<u32, Fault> {
        if let [low @ 0x80..=0xff, high @ 0..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u32::from(low & 0x7f) | u32::from(*high) << 7);
        }
        let at = self.rest;
        let key = self.varint()?;
        u32::try_from(key).map_err(|_| Fault::new(at, ScanFault::Key { key }))
    }

    #[inline(always)]
    pub(super) fn take(&mut self, length: u64) -> Result<&'a [u8], Fault> {
        let taken = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        match taken {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => {
                let fault = ScanFault::Truncated { needed: length, left: self.rest.len() };
                Err(Fault::new(self.rest, fault))
            }
        }
    }

    /// A length and that many bytes.
    #[inline(always)]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        if let [length, rest @ ..] = self.rest
            && *length < 0x80
            && let Some((taken, rest)) = rest.split_at_checked((*length).into())
        {
            self.rest = rest;
            return Ok(taken);
        }
        self.long_bytes()
    }

    #[inline(never)]
    fn long_bytes(&mut self) -> Result<&'a [u8], Fault> {
        let length = match self.rest {
            // A span's length, mostly.
            [low @ 0x80..=0xff, high @ 0..0x80, rest @ ..] => {
                self.rest = rest;
                u64::from(low & 0x7f) | u64::from(*high) << 7
            }
            _ => self.varint()?,
        };
        self.take(length)
    }

    #[inline(always)]
    pub(super) fn fixed64(&mut self) -> Result<u64, Fault> {
        match self.rest.split_first_chunk::<8>() {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(u64::from_le_bytes(*taken))
            }
            None => Err(Fault::new(self.rest, ScanFault::Truncated { needed: 8, left: self.rest.len() })),
        }
    }

    #[inline(always)]
    pub(super) fn skip_varint(&mut self) -> Result<(), Fault> {
        self.varint().map(|_| ())
    }

    #[inline(always)]
    pub(super) fn skip_bytes(&mut self) -> Result<(), Fault> {
        self.bytes().map(|_| ())
    }

    #[inline(always)]
    pub(super) fn skip_fixed(&mut self, length: u64) -> Result<(), Fault> {
        self.take(length).map(|_| ())
    }

    /// A string, valid UTF-8.
    #[inline(always)]
    pub(super) fn text(&mut self, field: &'static str) -> Result<&'a str, Fault> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| Fault::new(bytes, ScanFault::Utf8 { field }))
    }

    /// A string that nobody looks at; it must be valid UTF-8 all the same.
    #[inline(always)]
    pub(super) fn check_text(&mut self, field: &'static str) -> Result<(), Fault> {
        let bytes = self.bytes()?;
        // Most strings are ASCII, which is the quicker thing to prove.
        if is_ascii(bytes) || std::str::from_utf8(bytes).is_ok() {
            Ok(())
        } else {
            Err(Fault::new(bytes, ScanFault::Utf8 { field }))
        }
    }

    /// Skips a field whose key matched none of its message's. A number that is known all the same came with
    /// the wrong wire type.
    #[cold]
    #[inline(never)]
    pub(super) fn unknown(&mut self, key: u32, known: Known, left: u32) -> Result<(), Fault> {
        let field = key >> 3;
        if field < 32 && known.fields >> field & 1 == 1 {
            let fault = ScanFault::WireType { message: known.message, field, wire_type: key & 7 };
            return Err(Fault::new(self.rest, fault));
        }
        self.skip(key, left)
    }

    /// Skips a field whatever it holds; `left` levels may nest here.
    pub(super) fn skip(&mut self, key: u32, left: u32) -> Result<(), Fault> {
        if key >> 3 == 0 {
            return Err(Fault::new(self.rest, ScanFault::Key { key: key.into() }));
        }
        let left = enter(left, self.rest)?;
        match key & 7 {
            VARINT => self.skip_varint(),
            FIXED64 => self.skip_fixed(8),
            LEN => self.skip_bytes(),
            GROUP => self.skip_group(key >> 3, left),
            FIXED32 => self.skip_fixed(4),
            GROUP_END => Err(Fault::new(self.rest, ScanFault::Group { field: key >> 3 })),
            _ => Err(Fault::new(self.rest, ScanFault::Key { key: key.into() })),
        }
    }

    fn skip_group(&mut self, group: u32, left: u32) -> Result<(), Fault> {
        loop {
            let inner = self.key()?;
            if inner == key(group, GROUP_END) {
                return Ok(());
            }
            self.skip(inner, left)?;
        }
    }
}

/// As the standard library's, but inlined, and made for short texts.
#[inline(always)]
pub(super) fn is_ascii(text: &[u8]) -> bool {
    let high_bits = if let Some(last) = text.last_chunk::<16>() {
        // The last sixteen bytes may overlap those before them.
        let (chunks, _) = text.as_chunks::<16>();
        let bits = |chunk: &[u8; 16]| u128::from_ne_bytes(*chunk);
        let all = chunks.iter().fold(bits(last), |all, chunk| all | bits(chunk));
        all as u64 | (all >> 64) as u64
    } else if let (Some(first), Some(last)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        u64::from_ne_bytes(*first) | u64::from_ne_bytes(*last)
    } else if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        u64::from(u32::from_ne_bytes(*first) | u32::from_ne_bytes(*last))
    } else {
        text.iter().fold(0, |all, byte| all | u64::from(*byte))
    };
    high_bits & 0x8080_8080_8080_8080 == 0
}

/// Length of a varint in bytes, 1 to 10.
#[inline(always)]
pub(super) const fn varint_len(value: u64) -> usize {
    // Seven bits a byte; 0 takes one byte too.
    (63 - (value | 1).leading_zeros() as usize) / 7 + 1
}

#[inline(always)]
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that a length takes where it is written before it is known.
pub(super) const PADDED_LEN: usize = 5;

/// The length as a varint padded to five bytes (35 bits). Padding is legal, and five bytes is what
/// decoders that read a length as 32 bits take too.
pub(super) const fn padded_varint(length: usize) -> [u8; PADDED_LEN] {
    [
        length as u8 | 0x80,
        (length >> 7) as u8 | 0x80,
        (length >> 14) as u8 | 0x80,
        (length >> 21) as u8 | 0x80,
        (length >> 28) as u8 & 0x7f,
    ]
}

/// Appends a key of one byte (a field up to 15) and room for a length; returns where the content begins.
pub(super) fn open_message(out: &mut Vec<u8>, key: u32) -> usize {
    out.push(key as u8);
    out.extend_from_slice(&padded_varint(0));
    out.len()
}

/// Writes the length of the message whose content began at `content` and ends here.
pub(super) fn close_message(out: &mut [u8], content: usize) {
    let length = out.len().saturating_sub(content);
    let slot = content.checked_sub(PADDED_LEN).and_then(|slot| out.get_mut(slot..content));
    if let Some(slot) = slot {
        slot.copy_from_slice(&padded_varint(length));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_beyond_ascii_is_seen_wherever_it_stands_in_a_text_of_any_length() {
        for length in 0..=70 {
            let mut text = vec![0x7f; length];
            assert!(is_ascii(&text), "{length} bytes");
            for at in 0..length {
                text[at] = 0x80;
                assert!(!is_ascii(&text), "byte {at} of {length}");
                text[at] = 0x7f;
            }
        }
    }

    #[test]
    fn padded_and_shortest_varints_are_read_by_prost_as_what_was_written() {
        for shift in 0..35 {
            for number in [1_usize << shift, (1 << shift) - 1, (1 << shift) | 5] {
                let mut bytes = &padded_varint(number)[..];
                assert_eq!(prost::encoding::decode_varint(&mut bytes), Ok(number as u64));
                assert!(bytes.is_empty());
            }
        }
        for shift in 0..64 {
            for number in [1_u64 << shift, (1 << shift) - 1] {
                let mut bytes = vec![];
                put_varint(&mut bytes, number);
                assert_eq!(bytes.len(), varint_len(number));
                assert_eq!(prost::encoding::decode_varint(&mut &bytes[..]), Ok(number));
                assert!(matches!(Reader::new(&bytes).varint(), Ok(read) if read == number));
            }
        }
    }
}
