//! What damage, a failing disk and a full one do to the log, on a simulated disk and without threads.

mod anywhere;
mod comings;
mod destinations;
mod embedded;
mod errors;
mod full;
mod killed;
mod places;
mod slow;

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;

use super::{
    LogDestination, OpenError, SegmentLogConfig, StartAt,
    format::{DATA_START, RecordHeader, SegmentHeader},
    testing::Inline,
};
use crate::log::{
    Advance, CommitError, Committed, DeadLetter, DestinationId, DestinationLedger, DropReason, Durability,
    Ordinal, ReadError, ReadLimit, SpanLog as _,
    conformance::{append_bytes, wait},
    disk::sim::SimDisk,
};

const WIDE: ReadLimit = ReadLimit { spans: u64::MAX, bytes: usize::MAX };
const A: DestinationId = DestinationId(0);
const B: DestinationId = DestinationId(1);
const BOTH: [Durability; 2] = [Durability::Process, Durability::Power];

/// A record as it was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sent {
    first: Ordinal,
    end: Ordinal,
    bytes: Bytes,
}

/// Two destinations, and a segment for every two or three groups.
fn config(durability: Durability) -> SegmentLogConfig {
    let destination = |name: &str| LogDestination { name: name.to_owned(), start: StartAt::End };
    SegmentLogConfig {
        durability,
        max_bytes: 1 << 20,
        min_free_bytes: 0,
        segment_bytes: 400,
        destinations: ["a", "b"].map(destination).to_vec(),
        ..SegmentLogConfig::new("/log")
    }
}

fn open(disk: &SimDisk, config: &SegmentLogConfig) -> Inline {
    try_open(disk, config).unwrap()
}

fn try_open(disk: &SimDisk, config: &SegmentLogConfig) -> Result<Inline, OpenError> {
    Inline::open(Arc::new(disk.clone()), config)
}

/// Bytes that are those of this record alone; of any length, as senders' are.
fn payload(first: Ordinal, spans: u32) -> Bytes {
    let length = 3 * u64::from(spans) + 11 + first % 8;
    (0..length).map(|at| (first * 31 + at * 7 + 1) as u8).collect()
}

/// Commits a group of these payloads.
fn commit_bytes(log: &Inline, group: Vec<(Bytes, u32)>) -> Vec<Result<Committed, CommitError>> {
    let (group, replies): (Vec<_>, Vec<_>) =
        group.into_iter().map(|(bytes, spans)| append_bytes(bytes, spans)).unzip();
    wait(log.log.commit(group));
    replies.into_iter().map(|mut reply| reply.try_recv().expect("every append is answered")).collect()
}

/// Commits a group of batches with so many spans.
fn try_commit(log: &Inline, group: &[u32]) -> Result<Vec<Sent>, CommitError> {
    let mut first = log.log.end();
    let batches: Vec<_> = group
        .iter()
        .map(|&spans| {
            let bytes = payload(first, spans);
            first += u64::from(spans);
            (bytes, spans)
        })
        .collect();
    let replies = commit_bytes(log, batches.clone());
    let sent = |(reply, (bytes, spans)): (Result<Committed, _>, (Bytes, u32))| {
        let first = reply?.first;
        Ok(Sent { first, end: first + u64::from(spans), bytes })
    };
    replies.into_iter().zip(batches).map(sent).collect()
}

fn commit(log: &Inline, group: &[u32]) -> Vec<Sent> {
    try_commit(log, group).unwrap()
}

fn ledger(log: &Inline, id: DestinationId) -> DestinationLedger {
    log.log.ledger(id).unwrap()
}

fn export(log: &Inline, id: DestinationId, to: Ordinal) {
    let exported = to - ledger(log, id).position;
    log.log.advance(id, &Advance { to, exported, ..Advance::default() }).unwrap();
}

/// The metrics have counted and stored everything before this.
fn checkpoint(log: &Inline, position: Ordinal) {
    log.log.measured(position);
    wait(log.log.checkpoint(position, Bytes::from_static(b"what was counted"))).unwrap();
}

fn letter(ordinal: Ordinal) -> DeadLetter {
    let (message, bytes) = ("not wanted".to_owned(), payload(ordinal, 1));
    DeadLetter { ordinal, reason: DropReason::Invalid, message, bytes }
}

/// What a consumer got on its way from its position to the log's end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Delivered {
    records: Vec<Sent>,
    damaged: u64,
    evicted: u64,
}

/// Reads and advances to the end as an exporter does; the ledger balances at each step.
fn deliver(log: &Inline, id: DestinationId) -> Delivered {
    let mut delivered = Delivered::default();
    for _ in 0..1_000 {
        let position = ledger(log, id).position;
        let mut advance = Advance::default();
        match wait(log.log.read(position, WIDE)) {
            Ok(records) if records.is_empty() => {
                assert_eq!(ledger(log, id).queued(), 0);
                return delivered;
            }
            Ok(records) => {
                assert!(records[0].first <= position && position < records[0].end(), "{records:?}");
                assert!(records.windows(2).all(|pair| pair[0].end() == pair[1].first), "{records:?}");
                advance.to = records.last().unwrap().end();
                advance.exported = advance.to - position;
                let sent = records.into_iter().map(|record| Sent {
                    first: record.first,
                    end: record.end(),
                    bytes: record.bytes,
                });
                delivered.records.extend(sent);
            }
            Err(ReadError::Damaged { from, to }) => {
                assert_eq!(from, position);
                (advance.to, advance.dropped) = (to, vec![(DropReason::Damaged, to - from)]);
                delivered.damaged += to - from;
            }
            Err(ReadError::Released { from, start }) => {
                assert_eq!(from, position);
                (advance.to, advance.dropped) = (start, vec![(DropReason::Evicted, start - from)]);
                delivered.evicted += start - from;
            }
        }
        assert!(advance.to > position, "{advance:?} from {position}");
        let ledger = log.log.advance(id, &advance).unwrap();
        assert!(ledger.balances(), "{ledger:?}");
    }
    panic!("a read without an end");
}

fn damaged_spans(log: &Inline) -> u64 {
    log.log.stats().disk.unwrap().damaged_spans
}

fn quarantined(log: &Inline) -> u64 {
    log.log.stats().disk.unwrap().quarantined_bytes
}

fn segment(number: u64) -> PathBuf {
    PathBuf::from(format!("/log/segments/{number:012}.segment"))
}

/// The segments' paths, oldest first.
fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|path| path.extension().is_some_and(|name| name == "segment")).collect()
}

/// The whole records at the beginning of a segment file, with their places.
fn records_of(bytes: &[u8]) -> Vec<(usize, RecordHeader)> {
    let key = SegmentHeader::decode(bytes).unwrap().key;
    let (mut at, mut records) = (DATA_START as usize, Vec::new());
    while let Some(header) = bytes.get(at..).and_then(|rest| RecordHeader::decode(&key, at as u64, rest)) {
        records.push((at, header));
        at += header.size() as usize;
    }
    records
}

/// A log of three segments and seven groups that was ended in order, with everything that a log can have.
struct Kept {
    disk: SimDisk,
    config: SegmentLogConfig,
    sent: Vec<Sent>,
}

/// Where destination `a` stands in it: within a record.
const A_AT: Ordinal = 4;
/// Where destination `b` stands: behind two dead letters.
const B_AT: Ordinal = 3;

fn kept(durability: Durability) -> Kept {
    let (disk, config) = (SimDisk::with_dir("/log"), config(durability));
    let log = open(&disk, &config);
    let mut sent = Vec::new();
    for group in [&[3, 2][..], &[4, 7], &[1, 1, 5], &[2], &[6, 3], &[9], &[2, 2]] {
        sent.extend(commit(&log, group));
    }
    export(&log, A, 2);
    export(&log, A, A_AT);
    for ordinal in [1, 2] {
        log.log.dead_letter(B, letter(ordinal));
    }
    let dropped = vec![(DropReason::Invalid, 2)];
    log.log.advance(B, &Advance { to: B_AT, exported: 1, dropped, ..Advance::default() }).unwrap();
    checkpoint(&log, 5);
    log.close();
    let disk = disk.crash_process();
    assert_eq!(segments(&disk), [segment(1), segment(2), segment(3)]);
    Kept { disk, config, sent }
}

impl Kept {
    /// What a destination at this position is to get.
    fn behind(&self, position: Ordinal) -> Vec<Sent> {
        self.sent.iter().filter(|sent| sent.end > position).cloned().collect()
    }

    fn end(&self) -> Ordinal {
        self.sent.last().unwrap().end
    }
}
