//! Records in memory, in order and without gaps.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{Ordinal, ReadLimit, Record};

/// A batch below this many bytes is copied into a shared chunk: it came in a network buffer that is
/// larger than itself, and would keep all of it.
const SMALL_BATCH: usize = 8 * 1024;
/// The size of a shared chunk in bytes.
const CHUNK: usize = 64 * 1024;
/// Charged for a record besides its bytes.
const RECORD_OVERHEAD: usize = 128;

/// Records in memory, and what they are charged with.
#[derive(Debug, Default)]
pub(super) struct Records {
    records: VecDeque<Record>,
    bytes: usize,
    chunk: BytesMut,
}

impl Records {
    /// Appends a record, which begins where the one before ends.
    pub(super) fn push(&mut self, record: Record) {
        self.bytes += charge(&record.bytes);
        let small = record.bytes.len() < SMALL_BATCH;
        let bytes = if small { self.copy_to_chunk(&record.bytes) } else { record.bytes };
        self.records.push_back(Record { bytes, ..record });
    }

    fn copy_to_chunk(&mut self, bytes: &[u8]) -> Bytes {
        if self.chunk.capacity() < bytes.len() {
            self.chunk = BytesMut::with_capacity(CHUNK);
        }
        self.chunk.extend_from_slice(bytes);
        self.chunk.split().freeze()
    }

    /// Lets go of the oldest record, if this holds of it.
    pub(super) fn pop_if(&mut self, holds: impl FnOnce(&Record) -> bool) -> bool {
        match self.records.pop_front_if(|record| holds(record)) {
            Some(record) => {
                self.bytes -= charge(&record.bytes);
                true
            }
            None => false,
        }
    }

    /// The records from the one that holds `from` on, within `limit`.
    pub(super) fn read(&self, from: Ordinal, limit: ReadLimit) -> Vec<Record> {
        let at = self.records.partition_point(|record| record.end() <= from);
        let mut taken = Taken::new(from, limit);
        self.records.range(at..).take_while(|record| taken.takes(record)).cloned().collect()
    }

    /// The ordinal of the first span.
    pub(super) fn start(&self) -> Option<Ordinal> {
        self.records.front().map(|record| record.first)
    }

    /// The number of records.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// What they are charged with, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What a batch is charged with in memory, in bytes.
pub(super) fn charge(bytes: &Bytes) -> usize {
    bytes.len() + RECORD_OVERHEAD
}

/// How much a read has taken of its limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    from: Ordinal,
    limit: ReadLimit,
    records: usize,
    bytes: usize,
}

impl Taken {
    pub(super) fn new(from: Ordinal, limit: ReadLimit) -> Self {
        Self { from, limit, records: 0, bytes: 0 }
    }

    /// Whether the record still belongs to the read; the first always does.
    pub(super) fn takes(&mut self, record: &Record) -> bool {
        let bytes = self.bytes.saturating_add(record.bytes.len());
        let over = bytes > self.limit.bytes || record.end() - self.from > self.limit.spans;
        if self.records > 0 && over {
            return false;
        }
        self.records += 1;
        self.bytes = bytes;
        true
    }

    /// Bytes that may still be taken.
    pub(super) fn bytes_left(&self) -> usize {
        self.limit.bytes.saturating_sub(self.bytes)
    }

    /// Whether even the smallest record would be too much.
    pub(super) fn is_full(&self, end: Ordinal) -> bool {
        self.records > 0 && (self.bytes >= self.limit.bytes || end - self.from >= self.limit.spans)
    }
}
