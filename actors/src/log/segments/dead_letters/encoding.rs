//! The bytes of a file of dead letters (level 0: pure); their layout is drawn in the module above.

use std::collections::HashSet;

use bytes::Bytes;

use super::super::{
    super::{
        DeadLetter, DropReason, Ordinal,
        letters::{DEAD_LETTER_BYTES_MAX, DEAD_LETTER_MESSAGE_MAX, KeptLetters},
    },
    codec::{Reader, Writer},
    files::{Unreadable, ordinal, unseal},
};

pub(super) const MAGIC: [u8; 8] = *b"nyx-let\0";
pub(super) const VERSION: u32 = 1;
/// Bytes of one copy of the header.
pub(super) const HEADER: usize = 32;
/// Where the first letter is.
pub(super) const DATA_START: u64 = 2 * HEADER as u64;
/// Bytes of a letter before its message.
pub(super) const LETTER_HEADER: usize = 28;

const LETTER_MAGIC: [u8; 4] = *b"nyxl";

/// Salts a file's checksums.
pub(super) type Key = [u8; 16];

/// What the bytes of a file of dead letters say.
#[derive(Debug)]
pub(in crate::log) struct Decoded {
    pub(super) key: Key,
    /// The newest letters.
    pub(in crate::log) letters: KeptLetters,
    /// Of all letters in the file.
    pub(super) ordinals: HashSet<Ordinal>,
    /// Where the last letter ends; what is behind it is torn, or bad.
    pub(super) whole: u64,
    /// Whether one copy of the header does not check.
    pub(super) one_header: bool,
    /// What does not check, without a torn tail.
    pub(in crate::log) bad: Vec<u8>,
}

/// A letter's header that checks, and says something possible.
struct Header {
    ordinal: Ordinal,
    reason: DropReason,
    message: usize,
    span: usize,
    sum: [u8; 4],
}

/// Puts a letter behind `out`; it will be at this offset of the file.
pub(super) fn encode(key: &Key, offset: u64, letter: &DeadLetter, out: &mut Vec<u8>) {
    let DeadLetter { ordinal, reason, message, bytes } = letter;
    let mut header = [0; LETTER_HEADER];
    let mut fields = Writer::new(&mut header);
    fields.put(&LETTER_MAGIC);
    fields.put(&[reason.code(), 0]);
    // A letter that is kept is bounded, far below what these fields hold.
    fields.put(&u16::try_from(message.len()).unwrap_or(u16::MAX).to_le_bytes());
    fields.put(&ordinal.to_le_bytes());
    fields.put(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    fields.put(&sum(key, offset, &[message.as_bytes(), bytes]));
    let header_sum = sum(key, offset, &[fields.written()]);
    fields.put(&header_sum);
    out.extend_from_slice(&header);
    out.extend_from_slice(message.as_bytes());
    out.extend_from_slice(bytes);
}

/// The letters that the bytes of a file say.
///
/// # Errors
/// [`Unreadable`], where neither copy of the header gives the key.
pub(in crate::log) fn decode(bytes: &[u8]) -> Result<Decoded, Unreadable> {
    let copies =
        [bytes.get(..HEADER), bytes.get(HEADER..2 * HEADER)].map(|copy| key(copy.unwrap_or_default()));
    let (key, one_header) = match copies {
        [Ok(key), other] => (key, other.is_err()),
        [Err(_), Ok(key)] => (key, true),
        [Err(Unreadable::Damaged), Err(other)] | [Err(other), Err(_)] => return Err(other),
    };
    let (letters, ordinals) = (KeptLetters::default(), HashSet::new());
    let mut found = Decoded { key, letters, ordinals, whole: DATA_START, one_header, bad: Vec::new() };
    let mut at = DATA_START as usize;
    while let Some((start, letter, end)) = next_letter(&key, bytes, at) {
        found.bad.extend_from_slice(bytes.get(at..start).unwrap_or_default());
        if found.ordinals.insert(letter.ordinal) {
            found.letters.push(letter);
        }
        found.whole = end as u64;
        at = end;
    }
    let tail = bytes.get(at..).unwrap_or_default();
    if !is_torn(&key, at as u64, tail) {
        found.bad.extend_from_slice(tail);
    }
    Ok(found)
}

fn key(header: &[u8]) -> Result<Key, Unreadable> {
    unseal(header, &MAGIC, VERSION)?.take().ok_or(Unreadable::Damaged)
}

/// The first letter at `from` or behind it, with its beginning and its end.
fn next_letter(key: &Key, bytes: &[u8], from: usize) -> Option<(usize, DeadLetter, usize)> {
    let mut at = from;
    loop {
        let rest = bytes.get(at..)?;
        let skipped = rest.windows(LETTER_MAGIC.len()).position(|window| window == LETTER_MAGIC)?;
        let start = at + skipped;
        if let Some((letter, size)) = letter(key, start as u64, bytes.get(start..)?) {
            return Some((start, letter, start + size));
        }
        at = start + 1;
    }
}

/// The letter at this offset, at the front of `bytes`, with its size.
fn letter(key: &Key, offset: u64, bytes: &[u8]) -> Option<(DeadLetter, usize)> {
    let Header { ordinal, reason, message, span, sum: expected } = header(key, offset, bytes)?;
    let mut fields = Reader(bytes.get(LETTER_HEADER..)?);
    let (message, span) = (fields.bytes(message)?, fields.bytes(span)?);
    if sum(key, offset, &[message, span]) != expected {
        return None;
    }
    let size = LETTER_HEADER + message.len() + span.len();
    let message = std::str::from_utf8(message).ok()?.to_owned();
    Some((DeadLetter { ordinal, reason, message, bytes: Bytes::copy_from_slice(span) }, size))
}

fn header(key: &Key, offset: u64, bytes: &[u8]) -> Option<Header> {
    let (sealed, header_sum) = bytes.first_chunk::<LETTER_HEADER>()?.split_last_chunk::<4>()?;
    if !sealed.starts_with(&LETTER_MAGIC) || sum(key, offset, &[sealed]) != *header_sum {
        return None;
    }
    let mut fields = Reader(sealed.get(LETTER_MAGIC.len()..)?);
    let [code, _zero] = fields.take()?;
    let message = usize::from(fields.u16()?);
    let ordinal = ordinal(&mut fields)?;
    let span = fields.u32()? as usize;
    let possible = message <= DEAD_LETTER_MESSAGE_MAX && span <= DEAD_LETTER_BYTES_MAX;
    let reason = DropReason::from_code(code).filter(|_| possible)?;
    Some(Header { ordinal, reason, message, span, sum: fields.take()? })
}

/// Whether the bytes behind the last letter are what an append leaves that was cut off, rather than damage.
fn is_torn(key: &Key, offset: u64, tail: &[u8]) -> bool {
    tail.len() < LETTER_HEADER
        || tail.iter().all(|&byte| byte == 0)
        || header(key, offset, tail)
            .is_some_and(|header| tail.len() < LETTER_HEADER + header.message + header.span)
}

fn sum(key: &Key, offset: u64, parts: &[&[u8]]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&offset.to_le_bytes());
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().to_le_bytes()
}
