//! The bytes of a segment file (level 0: pure). Numbers are little-endian.
//!
//! ```text
//! segment file = header, header again, records; each record begins at a multiple of 8
//!
//! header, 64 bytes                              record header, 48 bytes
//!  0  magic "nyx-seg\0"                  8       0  magic "nyxr"                       4
//!  8  version                            4       4  length of the payload in bytes     4
//! 12  flags (1: each group is synced;    4       8  sequence, of records               8
//!     2: counting began anew)
//! 16  key, random                       16      16  ordinal of the first span          8
//! 32  sequence of the first record       8      24  number of spans                    4
//! 40  ordinal of the first span          8      28  bytes of the group behind this
//! 48  created, ns since the Unix epoch   8          record, in eights                  4
//! 56  zero                               4      32  committed, ns since the Unix epoch 8
//! 60  CRC-32 of bytes 0..60              4      40  CRC-32 of key, offset, payload     4
//!                                               44  CRC-32 of key, offset, bytes 0..44 4
//!                                               48  payload: an ExportTraceServiceRequest as it came
//!                                                   zeros up to the next multiple of 8
//! ```
//!
//! A payload is its sender's and may contain anything, even a record. A record's checksums are therefore salted with the segment's
//! key, which no sender knows, and with the record's own offset, so that a copy of a record of this very file does not check either.
//! The header has a checksum of its own: where only the payload is damaged, it still tells which spans are lost.
//!
//! A group is what one write wrote and one answer acknowledged; "bytes of the group behind this record" is 0 in its last record.
//! A segment ends where the next one begins: records at or behind the next segment's first ordinal do not count. So a segment
//! that could not be cut back after a failed write, or whose last group failed to sync, is left as it is and continued elsewhere.

use super::{
    codec::{Reader, Writer},
    files::ordinal,
};

/// Bytes of a segment's header.
const HEADER: usize = 64;
/// Where the first record is: behind two copies of the header.
pub(crate) const DATA_START: u64 = 2 * HEADER as u64;
/// Bytes of a record's header.
pub(crate) const RECORD_HEADER: usize = 48;
/// The only version that there is.
pub(crate) const VERSION: u32 = 1;
/// Records begin at multiples of this.
pub(crate) const ALIGN: u64 = 8;

const SEGMENT_MAGIC: [u8; 8] = *b"nyx-seg\0";
pub(super) const RECORD_MAGIC: [u8; 4] = *b"nyxr";
const FLAG_SYNCED: u32 = 1;
const FLAG_ANEW: u32 = 2;

/// What a segment's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Salts the checksums of the records.
    pub(crate) key: [u8; 16],
    /// Whether each group was synced before it was acknowledged (`power`).
    pub(crate) synced: bool,
    /// Whether the span metrics began anew before it, and had stored nothing yet: no earlier checkpoint goes on here.
    pub(crate) anew: bool,
    /// The sequence of the first record.
    pub(crate) sequence: u64,
    /// The ordinal of its first span.
    pub(crate) first: u64,
    /// When the segment was made, in nanoseconds since the Unix epoch.
    pub(crate) created: u64,
}

/// A segment's header does not give a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SegmentHeaderError {
    /// It checks, and is of another version.
    #[error("format version {0}: this program reads version {VERSION}")]
    Version(u32),
    /// Neither copy checks.
    #[error("header is damaged")]
    Damaged,
}

/// What a record's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// Bytes of the payload.
    pub(crate) length: u32,
    /// The number of the record in the log, counted from 0.
    pub(crate) sequence: u64,
    /// The ordinal of its first span.
    pub(crate) first: u64,
    /// Its spans, at least 1.
    pub(crate) spans: u32,
    /// Bytes of the group behind this record, in eights; 0 in the group's last.
    pub(crate) group_left: u32,
    /// When it was committed, in nanoseconds since the Unix epoch.
    pub(crate) committed: u64,
    payload_sum: u32,
}

impl SegmentHeader {
    /// The bytes of both copies.
    pub(crate) fn encode(&self) -> [u8; DATA_START as usize] {
        let mut out = [0; DATA_START as usize];
        let (one, two) = out.split_at_mut(HEADER);
        let mut fields = Writer::new(one);
        fields.put(&SEGMENT_MAGIC);
        fields.put(&VERSION.to_le_bytes());
        let flag = |is: bool, flag: u32| if is { flag } else { 0 };
        let flags = flag(self.synced, FLAG_SYNCED) | flag(self.anew, FLAG_ANEW);
        fields.put(&flags.to_le_bytes());
        fields.put(&self.key);
        fields.put(&self.sequence.to_le_bytes());
        fields.put(&self.first.to_le_bytes());
        fields.put(&self.created.to_le_bytes());
        fields.put(&0u32.to_le_bytes());
        let sum = crc32fast::hash(fields.written());
        fields.put(&sum.to_le_bytes());
        two.copy_from_slice(one);
        out
    }

    /// Reads whichever copy checks; `bytes` is the beginning of the file, as far as there is one.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, SegmentHeaderError> {
        let copies = [bytes.get(..HEADER), bytes.get(HEADER..2 * HEADER)];
        let mut found = Err(SegmentHeaderError::Damaged);
        for copy in copies.into_iter().flatten() {
            match Self::decode_one(copy) {
                Ok(header) => return Ok(header),
                Err(error @ SegmentHeaderError::Version(_)) => found = Err(error),
                Err(SegmentHeaderError::Damaged) => {}
            }
        }
        found
    }

    fn decode_one(bytes: &[u8]) -> Result<Self, SegmentHeaderError> {
        let damaged = SegmentHeaderError::Damaged;
        let (fields, sum) = bytes.split_at_checked(HEADER - 4).ok_or(damaged)?;
        if crc32fast::hash(fields).to_le_bytes() != *sum {
            return Err(damaged);
        }
        let mut fields = Reader(fields);
        let magic: [u8; 8] = fields.take().ok_or(damaged)?;
        if magic != SEGMENT_MAGIC {
            return Err(damaged);
        }
        let version = fields.u32().ok_or(damaged)?;
        if version != VERSION {
            return Err(SegmentHeaderError::Version(version));
        }
        let header = (|| {
            let flags = fields.u32()?;
            let (synced, anew) = (flags & FLAG_SYNCED != 0, flags & FLAG_ANEW != 0);
            let (key, sequence, first) = (fields.take()?, ordinal(&mut fields)?, ordinal(&mut fields)?);
            Some(Self { key, synced, anew, sequence, first, created: fields.u64()? })
        })();
        header.ok_or(damaged)
    }
}

impl RecordHeader {
    /// A header for this payload at this offset of a segment with this key.
    pub(crate) fn seal(
        key: &[u8; 16],
        offset: u64,
        payload: &[u8],
        fields: UnsealedHeader,
    ) -> [u8; RECORD_HEADER] {
        let UnsealedHeader { length, sequence, first, spans, group_left, committed } = fields;
        let salt = salt(key, offset);
        let mut out = [0; RECORD_HEADER];
        let mut fields = Writer::new(&mut out);
        fields.put(&RECORD_MAGIC);
        fields.put(&length.to_le_bytes());
        fields.put(&sequence.to_le_bytes());
        fields.put(&first.to_le_bytes());
        fields.put(&spans.to_le_bytes());
        fields.put(&group_left.to_le_bytes());
        fields.put(&committed.to_le_bytes());
        fields.put(&sum(salt.clone(), payload).to_le_bytes());
        let header_sum = sum(salt, fields.written());
        fields.put(&header_sum.to_le_bytes());
        out
    }

    /// The header at this offset, if there is one that checks and says something possible. Its payload is yet
    /// to be [checked](Self::checks).
    pub(crate) fn decode(key: &[u8; 16], offset: u64, bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER)?;
        if !bytes.starts_with(&RECORD_MAGIC) {
            return None;
        }
        let (fields, header_sum) = bytes.split_at_checked(RECORD_HEADER - 4)?;
        if sum(salt(key, offset), fields).to_le_bytes() != *header_sum {
            return None;
        }
        let mut fields = Reader(fields.get(RECORD_MAGIC.len()..)?);
        let length = fields.u32()?;
        let (sequence, first) = (ordinal(&mut fields)?, ordinal(&mut fields)?);
        let (spans, group_left) = (fields.u32()?, fields.u32()?);
        let (committed, payload_sum) = (fields.u64()?, fields.u32()?);
        (spans > 0).then_some(())?;
        Some(Self { length, sequence, first, spans, group_left, committed, payload_sum })
    }

    /// Whether this is the payload that the header was made for.
    pub(crate) fn checks(&self, key: &[u8; 16], offset: u64, payload: &[u8]) -> bool {
        payload.len() == self.length as usize && sum(salt(key, offset), payload) == self.payload_sum
    }

    /// The ordinal behind the last span.
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::from(self.spans)
    }

    /// Bytes of the record in the file, header and padding included.
    pub(crate) fn size(&self) -> u64 {
        record_size(self.length)
    }

    /// Where the record's group ends, if the record is at this offset.
    pub(crate) fn group_end(&self, offset: u64) -> u64 {
        offset + self.size() + u64::from(self.group_left) * ALIGN
    }
}

/// What a record's header says, before it has its checksums.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnsealedHeader {
    pub(crate) length: u32,
    pub(crate) sequence: u64,
    pub(crate) first: u64,
    pub(crate) spans: u32,
    pub(crate) group_left: u32,
    pub(crate) committed: u64,
}

/// Bytes in the file of a record with a payload of this length.
pub(crate) fn record_size(length: u32) -> u64 {
    RECORD_HEADER as u64 + u64::from(length).next_multiple_of(ALIGN)
}

/// A checksum that has begun with what salts it.
fn salt(key: &[u8; 16], offset: u64) -> crc32fast::Hasher {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&offset.to_le_bytes());
    hasher
}

fn sum(mut salted: crc32fast::Hasher, bytes: &[u8]) -> u32 {
    salted.update(bytes);
    salted.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 16] = [7; 16];

    fn header() -> SegmentHeader {
        SegmentHeader { key: KEY, synced: true, anew: true, sequence: 3, first: 40, created: 5 }
    }

    fn record(offset: u64, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap();
        let fields =
            UnsealedHeader { length, sequence: 9, first: 100, spans: 7, group_left: 2, committed: 11 };
        [&RecordHeader::seal(&KEY, offset, payload, fields), payload].concat()
    }

    #[test]
    fn a_segment_header_survives_any_flipped_bit() {
        let bytes = header().encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&flipped), Ok(header()), "bit {bit}");
        }
        assert_eq!(SegmentHeader::decode(&bytes[..100]), Ok(header()), "the second copy is cut off");
        assert_eq!(SegmentHeader::decode(&bytes[..63]), Err(SegmentHeaderError::Damaged));
        assert_eq!(SegmentHeader::decode(&[0; 128]), Err(SegmentHeaderError::Damaged));
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = header().encode();
        for copy in [0, 64] {
            bytes[copy + 8] = 2;
            let sum = crc32fast::hash(&bytes[copy..copy + 60]);
            bytes[copy + 60..copy + 64].copy_from_slice(&sum.to_le_bytes());
        }
        let error = SegmentHeader::decode(&bytes).unwrap_err();
        assert_eq!(error.to_string(), "format version 2: this program reads version 1");
    }

    #[test]
    fn a_record_says_what_it_was_sealed_with() {
        let bytes = record(128, b"payload");
        let header = RecordHeader::decode(&KEY, 128, &bytes).unwrap();
        assert_eq!((header.sequence, header.first, header.end(), header.committed), (9, 100, 107, 11));
        assert_eq!((header.size(), header.group_end(128)), (56, 128 + 56 + 16));
        assert!(header.checks(&KEY, 128, b"payload"));
        assert!(!header.checks(&KEY, 128, b"payloac"));
        assert!(!header.checks(&KEY, 128, b"payloadd"));
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        let bytes = record(128, b"payload");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let whole = RecordHeader::decode(&KEY, 128, &flipped)
                .is_some_and(|header| header.checks(&KEY, 128, &flipped[RECORD_HEADER..]));
            assert!(!whole, "bit {bit}");
        }
    }

    #[test]
    fn numbers_that_no_log_gets_to_are_damage() {
        for (sequence, first) in [(0, 1 << 62), (1 << 62, 0), (u64::MAX, u64::MAX)] {
            let far = SegmentHeader { sequence, first, ..header() };
            assert_eq!(SegmentHeader::decode(&far.encode()), Err(SegmentHeaderError::Damaged));
            let fields = UnsealedHeader { length: 1, sequence, first, spans: 1, group_left: 0, committed: 0 };
            assert_eq!(RecordHeader::decode(&KEY, 128, &RecordHeader::seal(&KEY, 128, b"x", fields)), None);
        }
    }

    #[test]
    fn a_record_checks_in_its_own_place_alone() {
        let bytes = record(128, b"payload");
        assert_eq!(RecordHeader::decode(&KEY, 136, &bytes), None);
        assert_eq!(RecordHeader::decode(&[8; 16], 128, &bytes), None);
        assert_eq!(RecordHeader::decode(&KEY, 128, &[0; RECORD_HEADER]), None);
        assert_eq!(RecordHeader::decode(&KEY, 128, &bytes[..RECORD_HEADER - 1]), None);
    }
}
