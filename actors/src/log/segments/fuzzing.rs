//! What fuzz targets see of the log: a folder in memory, a log without threads, and the bytes of its files.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::oneshot;

use super::{
    super::{
        Append, CommitError, Committed, DeadLetter, DestinationLedger, Durability, Ordinal, ReadError,
        ReadLimit, Record, SpanLedger, SpanLog, disk::Disk as _,
    },
    OpenError, SegmentLogConfig, checkpoint, clean, dead_letters,
    files::Unreadable,
    positions,
    testing::Inline,
    walk::{Point, Step, Walk},
};

pub use super::super::disk::memory::MemoryDisk;

/// What bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said<T> {
    /// This.
    Value(T),
    /// Nothing that checks.
    Damaged,
    /// They are of this version.
    OtherVersion(u32),
}

impl<T> Said<T> {
    fn of(result: Result<T, Unreadable>) -> Self {
        match result {
            Ok(value) => Self::Value(value),
            Err(Unreadable::Damaged) => Self::Damaged,
            Err(Unreadable::OtherVersion(version)) => Self::OtherVersion(version),
        }
    }
}

/// A log whose writer and reader work on the caller's thread. Dropped, it is as if its process were killed.
#[derive(Debug)]
pub struct Log(Inline);

impl Log {
    /// Opens the folder.
    ///
    /// # Errors
    /// As [`OpenLog::open`](super::OpenLog::open).
    pub fn open(disk: &MemoryDisk, config: &SegmentLogConfig) -> Result<Self, OpenError> {
        Inline::open(Arc::new(disk.clone()), config).map(Self)
    }

    /// The log.
    pub fn log(&self) -> &dyn SpanLog {
        &*self.0.log
    }

    /// Commits a group; the first ordinal of each batch that was acknowledged.
    pub fn commit(&self, group: impl IntoIterator<Item = (Bytes, u32)>) -> Vec<Option<Ordinal>> {
        let (batches, replies): (Vec<_>, Vec<_>) = group
            .into_iter()
            .map(|(bytes, spans)| {
                let (reply, told) = oneshot::channel();
                (Append { bytes, pending: Arc::new(SpanLedger::default()).scanned(spans), reply }, told)
            })
            .unzip();
        let _outcome = self.log().commit(batches).now_or_never();
        let first = |mut told: oneshot::Receiver<Result<Committed, CommitError>>| {
            Some(told.try_recv().ok()?.ok()?.first)
        };
        replies.into_iter().map(first).collect()
    }

    /// Reads; `None` where the log waits for the disk to recover.
    pub fn read(&self, from: Ordinal, limit: ReadLimit) -> Option<Result<Vec<Record>, ReadError>> {
        self.log().read(from, limit).now_or_never()
    }

    /// An orderly end.
    pub fn close(self) {
        self.0.close();
    }
}

/// A step of a walk over a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalkStep {
    /// A record that checks.
    Record {
        /// Where it is.
        offset: u64,
        /// Its number in the log.
        sequence: u64,
        /// The ordinal of its first span.
        first: Ordinal,
        /// Its spans.
        spans: u32,
        /// Its payload.
        payload: Bytes,
    },
    /// Bytes that hold no record that checks.
    Bad {
        /// Where they begin.
        from: u64,
        /// Where they end.
        to: u64,
        /// Bytes of the record at their beginning, if its header checks.
        size: Option<u64>,
    },
}

/// Walks over a segment's bytes from a record on that should be at `offset` with this number and ordinal, up to
/// the ordinal `end`, `block` bytes at a time.
///
/// # Errors
/// None: a memory disk can be read.
pub fn walk(
    bytes: &[u8],
    key: [u8; 16],
    (offset, sequence, first): (u64, u64, Ordinal),
    end: Ordinal,
    block: usize,
) -> std::io::Result<Vec<WalkStep>> {
    let disk = MemoryDisk::default();
    disk.put("/segment", bytes.to_vec());
    let file = disk.open(Path::new("/segment"))?;
    let mut walk = Walk::new(&*file, key, Point { offset, sequence, first }, bytes.len() as u64, end, block);
    let mut steps = Vec::new();
    while let Some(step) = walk.next()? {
        steps.push(match step {
            Step::Record { header, offset, payload } => WalkStep::Record {
                offset,
                sequence: header.sequence,
                first: header.first,
                spans: header.spans,
                payload,
            },
            Step::Bad { from, to, header } => {
                WalkStep::Bad { from, to, size: header.map(|header| header.size()) }
            }
        });
    }
    Ok(steps)
}

/// What a position file says: the slot's sequence, the ledger, and whether only one slot checks.
pub fn position(bytes: &[u8]) -> Said<(u64, DestinationLedger, bool)> {
    let decoded = positions::decode(bytes);
    Said::of(decoded.map(|positions::Decoded { sequence, ledger, fell_back }| (sequence, ledger, fell_back)))
}

/// A position file after one more step; with nothing before it, a new one.
///
/// # Errors
/// None: a memory disk can be written.
pub fn write_position(
    before: Option<&[u8]>,
    ledger: &DestinationLedger,
    durable: bool,
) -> std::io::Result<Vec<u8>> {
    let (disk, path) = (MemoryDisk::default(), Path::new("/position"));
    if let Some(before) = before {
        disk.put(path, before.to_vec());
    }
    match positions::PositionFile::open(&disk, path, durable)? {
        positions::Found::Read { mut file, .. } => file.write(ledger).map(drop)?,
        positions::Found::Absent | positions::Found::Damaged(_) | positions::Found::OtherVersion(_) => {
            positions::PositionFile::create(&disk, path, ledger, durable).map(drop)?;
        }
    }
    Ok(disk.bytes(path).unwrap_or_default())
}

/// What a file of dead letters says: the newest letters, and the bytes that do not check.
pub fn letters(bytes: &[u8]) -> Said<(Vec<DeadLetter>, Vec<u8>)> {
    Said::of(dead_letters::decode(bytes).map(|found| (found.letters.iter().cloned().collect(), found.bad)))
}

/// A file of dead letters with more of them; with nothing before it, a new one. One that is to be rewritten is.
///
/// # Errors
/// None: a memory disk can be written.
pub fn write_letters(before: Option<&[u8]>, letters: &[DeadLetter]) -> std::io::Result<Vec<u8>> {
    let (disk, path) = (MemoryDisk::default(), Path::new("/letters"));
    if let Some(before) = before {
        disk.put(path, before.to_vec());
    }
    match dead_letters::LetterFile::open(&disk, path)? {
        dead_letters::Found::Read { mut file, letters: kept, .. } => {
            if file.needs_rewrite() {
                file.rewrite(&disk, path, kept.iter(), false)?;
            }
            file.append(letters).map(drop)?;
        }
        dead_letters::Found::Absent
        | dead_letters::Found::Damaged(_)
        | dead_letters::Found::OtherVersion(_) => {
            dead_letters::LetterFile::create(&disk, path, letters, false).map(drop)?;
        }
    }
    Ok(disk.bytes(path).unwrap_or_default())
}

/// A checkpoint of the span metrics, as its file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Every span before it is counted.
    pub position: Ordinal,
    /// What the log survived.
    pub durability: Durability,
    /// Which start of the machine.
    pub boot: Option<[u8; 16]>,
    /// What was counted.
    pub bytes: Bytes,
}

/// What a checkpoint's file says.
pub fn checkpoint(bytes: &[u8]) -> Said<Checkpoint> {
    let decoded = checkpoint::decode(bytes);
    Said::of(decoded.map(|checkpoint::Checkpoint { position, durability, boot, bytes }| Checkpoint {
        position,
        durability,
        boot,
        bytes,
    }))
}

/// A checkpoint's file.
///
/// # Errors
/// Where the payload is too large.
pub fn write_checkpoint(checkpoint: &Checkpoint) -> std::io::Result<Vec<u8>> {
    let Checkpoint { position, durability, boot, bytes } = checkpoint.clone();
    let (disk, path) = (MemoryDisk::default(), Path::new("/checkpoint"));
    checkpoint::write(&disk, path, &checkpoint::Checkpoint { position, durability, boot, bytes }, false)?;
    Ok(disk.bytes(path).unwrap_or_default())
}

/// The end that the marker of an orderly end says.
pub fn clean(bytes: &[u8]) -> Said<Ordinal> {
    Said::of(clean::decode(bytes))
}

/// The marker of an orderly end.
///
/// # Errors
/// None: a memory disk can be written.
pub fn write_clean(end: Ordinal) -> std::io::Result<Vec<u8>> {
    let (disk, path) = (MemoryDisk::default(), Path::new("/clean"));
    clean::write(&disk, path, end)?;
    Ok(disk.bytes(path).unwrap_or_default())
}
