//! The log's files by their drawings alone: checksums made anew, so that a change gets past them, and records found
//! in the simplest way. Nothing here is shared with what is tested.

use std::ops::Range;

/// Where a segment's records begin.
pub const DATA_START: usize = 128;
/// Bytes of a record before its payload.
pub const RECORD_HEADER: usize = 48;
/// Where letters begin.
pub const LETTERS_START: usize = 64;
/// Bytes of a letter before its message.
pub const LETTER_HEADER: usize = 28;

/// The number at this place.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The number at this place.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Puts bytes in place of those that are there, if they all have a place.
pub fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + new.len()) {
        place.copy_from_slice(new);
    }
}

/// Makes the checksum at a frame's end, which is all of `frame`.
pub fn frame(bytes: &mut [u8], frame: Range<usize>) {
    let end = frame.end.saturating_sub(4);
    if let Some(sealed) = bytes.get(frame.start..end) {
        let sum = crc32fast::hash(sealed);
        put(bytes, end, &sum.to_le_bytes());
    }
}

fn frame_checks(bytes: &[u8]) -> bool {
    bytes.split_last_chunk::<4>().is_some_and(|(sealed, sum)| crc32fast::hash(sealed).to_le_bytes() == *sum)
}

fn salted(key: &[u8], offset: usize, bytes: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&(offset as u64).to_le_bytes());
    hasher.update(bytes);
    hasher.finalize().to_le_bytes()
}

/// The key, and the number and first ordinal of the first record, from the copy of a segment's header that checks.
pub fn segment_header(bytes: &[u8]) -> Option<([u8; 16], u64, u64)> {
    let copies = [bytes.get(..64), bytes.get(64..128)];
    let good = copies
        .into_iter()
        .flatten()
        .find(|copy| frame_checks(copy) && copy.starts_with(b"nyx-seg\0") && u32_at(copy, 8) == Some(1))?;
    Some((*good.get(16..)?.first_chunk()?, u64_at(good, 32)?, u64_at(good, 40)?))
}

/// A record that checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRecord {
    /// Where it is.
    pub offset: usize,
    /// Its number in the log.
    pub sequence: u64,
    /// The ordinal of its first span.
    pub first: u64,
    /// Its spans.
    pub spans: u32,
    /// Where its payload is.
    pub payload: Range<usize>,
    /// Where the next record can be.
    pub behind: usize,
    /// Where its group ends.
    pub group_end: u64,
}

/// The record at this place, if there is one that checks.
pub fn record(bytes: &[u8], key: &[u8], offset: usize) -> Option<SealedRecord> {
    let header = bytes.get(offset..offset + RECORD_HEADER).filter(|header| header.starts_with(b"nyxr"))?;
    if salted(key, offset, header.get(..44)?) != *header.get(44..48)? {
        return None;
    }
    let length = u32_at(header, 4)? as usize;
    let payload = offset + RECORD_HEADER..offset + RECORD_HEADER + length;
    if salted(key, offset, bytes.get(payload.clone())?) != *header.get(40..44)? {
        return None;
    }
    let behind = payload.end.next_multiple_of(8);
    // One whose padding is cut off was not written to its end.
    (behind <= bytes.len()).then_some(())?;
    let group_end = behind as u64 + u64::from(u32_at(header, 28)?) * 8;
    let (sequence, first) = (u64_at(header, 8)?, u64_at(header, 16)?);
    let spans = u32_at(header, 24)?;
    Some(SealedRecord { offset, sequence, first, spans, payload, behind, group_end })
}

/// Every record of a segment that checks, wherever it is.
pub fn records(bytes: &[u8]) -> Vec<SealedRecord> {
    let Some((key, ..)) = segment_header(bytes) else { return Vec::new() };
    (DATA_START..bytes.len()).step_by(8).filter_map(|offset| record(bytes, &key, offset)).collect()
}

/// Makes every checksum of a segment anew.
pub fn segment(bytes: &mut [u8]) {
    frame(bytes, 0..64);
    frame(bytes, 64..128);
    let Some(key) = bytes.get(16..32).map(<[u8]>::to_vec) else { return };
    let mut at = DATA_START;
    while at + RECORD_HEADER <= bytes.len() {
        at = record_at(bytes, &key, at).unwrap_or(at + 8);
    }
}

/// Makes the checksums of the record at this place, if one begins here; returns where it ends.
fn record_at(bytes: &mut [u8], key: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.starts_with(b"nyxr").then_some(())?;
    let end = at + RECORD_HEADER + u32_at(bytes, at + 4)? as usize;
    if let Some(payload) = bytes.get(at + RECORD_HEADER..end) {
        let sum = salted(key, at, payload);
        put(bytes, at + 40, &sum);
    }
    let sum = salted(key, at, bytes.get(at..at + 44)?);
    put(bytes, at + 44, &sum);
    (end <= bytes.len()).then(|| end.next_multiple_of(8))
}

/// The places where records of a segment begin, or seem to.
pub fn record_places(bytes: &[u8]) -> Vec<usize> {
    let starts = |at: &usize| bytes.get(*at..).is_some_and(|rest| rest.starts_with(b"nyxr"));
    (DATA_START..bytes.len()).step_by(8).filter(starts).collect()
}

/// Makes every checksum of a position file anew.
pub fn position(bytes: &mut [u8]) {
    frame(bytes, 0..512);
    frame(bytes, 512..1024);
}

/// Makes the checksums of a checkpoint anew, and its length too if `length`.
pub fn checkpoint(bytes: &mut [u8], length: bool) {
    let Some(payload) = bytes.get(64..) else { return };
    let (size, sum) = (payload.len() as u32, crc32fast::hash(payload));
    if length {
        put(bytes, 40, &size.to_le_bytes());
    }
    put(bytes, 44, &sum.to_le_bytes());
    frame(bytes, 0..64);
}

/// Makes every checksum of a file of dead letters anew.
pub fn letters(bytes: &mut [u8]) {
    frame(bytes, 0..32);
    frame(bytes, 32..64);
    let Some(key) = bytes.get(12..28).map(<[u8]>::to_vec) else { return };
    let mut at = LETTERS_START;
    while at + LETTER_HEADER <= bytes.len() {
        at = letter_at(bytes, &key, at).unwrap_or(at + 1);
    }
}

fn letter_at(bytes: &mut [u8], key: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.starts_with(b"nyxl").then_some(())?;
    let message = u32_at(bytes, at + 4)? >> 16;
    let end = at + LETTER_HEADER + message as usize + u32_at(bytes, at + 16)? as usize;
    if let Some(content) = bytes.get(at + LETTER_HEADER..end) {
        let sum = salted(key, at, content);
        put(bytes, at + 20, &sum);
    }
    let sum = salted(key, at, bytes.get(at..at + 24)?);
    put(bytes, at + 24, &sum);
    (end <= bytes.len()).then_some(end)
}

/// A letter that checks: the span's ordinal, and where its message and its span are.
pub type SealedLetter = (u64, Range<usize>, Range<usize>);

/// Every letter of a file that checks, wherever it is.
pub fn sealed_letters(bytes: &[u8]) -> Vec<SealedLetter> {
    let key = [0, 32].into_iter().find_map(|at| {
        let copy = bytes.get(at..at + 32)?;
        (frame_checks(copy) && copy.starts_with(b"nyx-let\0") && u32_at(copy, 8) == Some(1))
            .then(|| copy.get(12..28))
            .flatten()
    });
    let Some(key) = key else { return Vec::new() };
    let letter = |at: usize| {
        let header = bytes.get(at..at + LETTER_HEADER).filter(|header| header.starts_with(b"nyxl"))?;
        let message = at + LETTER_HEADER + (u32_at(header, 4)? >> 16) as usize;
        let end = message + u32_at(header, 16)? as usize;
        let content = bytes.get(at + LETTER_HEADER..end)?;
        let checks = salted(key, at, header.get(..24)?) == *header.get(24..28)?
            && salted(key, at, content) == *header.get(20..24)?;
        checks.then_some((u64_at(header, 8)?, at + LETTER_HEADER..message, message..end))
    };
    (LETTERS_START..bytes.len()).filter_map(letter).collect()
}
