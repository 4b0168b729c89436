//! The span log: the spine of nyx (level 1; knows no actor).
//!
//! The collector commits groups of batches; everyone downstream is a consumer with
//! a position. A position is a span ordinal: every span that the log ever accepted
//! has the next number, and a record knows the ordinal of its first span, so that a
//! position may lie inside a record.
//!
//! ```text
//!            start                                             end
//!              │   record      record            record         │
//!   ordinals   ├────────────┬─────────┬──────────────────────┬──┤
//!              0            512       768                    1780
//!                             ▲ position of destination "default" = 600:
//!                               spans 0..600 are exported, sampled out or dropped,
//!                               spans 600..1780 are queued
//! ```
//!
//! A record is released once every destination and the metrics have passed it.

#[cfg(test)]
pub(crate) mod conformance;
pub(crate) mod disk;
mod ledger;
mod letters;
mod memory;
mod records;
pub mod segments;
#[cfg(test)]
pub(crate) mod testing;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use thiserror::Error;
use tokio::{sync::oneshot, time::Instant};

pub use ledger::{
    Advance, AdvanceError, DestinationLedger, DropReason, Oddity, PendingSpans, RejectReason, Settle,
    SpanCounts, SpanLedger,
};
pub(crate) use ledger::{Labelled, reasons};
pub use memory::{MemoryLog, MemoryLogConfig};
use segments::LogDestination;

/// The number of a span in the log, counted from 0 in the order of acceptance.
pub type Ordinal = u64;

/// Which destination of the log: those that it was opened for in the order of their configuration, then those that came
/// later. None is another's again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationId(pub usize);

/// A batch on its way into the log.
pub struct Append {
    /// The spans, as the bytes of an `ExportTraceServiceRequest` that a scan accepted.
    pub bytes: Bytes,
    /// The batch's entry in the span ledger; it knows the number of spans, at least 1.
    pub pending: PendingSpans,
    /// Told when the batch is as durable as `log.durability` asks, or refused.
    pub reply: CommitReply,
}

impl fmt::Debug for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Append")
            .field("bytes", &self.bytes.len())
            .field("spans", &self.pending.spans())
            .finish_non_exhaustive()
    }
}

/// Where the answer to an [`Append`] goes; dropped unanswered, its sender learns that the batch is lost.
pub type CommitReply = oneshot::Sender<Result<Committed, CommitError>>;

/// A batch is in the log: acknowledged means kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The ordinal of the batch's first span.
    pub first: Ordinal,
}

/// A batch was not taken; its sender may try again.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommitError {
    /// No room until a destination has taken something.
    #[error("span log is full: {held} of {limit} bytes held, a batch of {bytes} bytes does not fit")]
    Full {
        /// Bytes that the batch would be charged with.
        bytes: usize,
        /// Bytes held.
        held: usize,
        /// `log.memory_max_bytes`, or `log.max_bytes`.
        limit: usize,
    },
    /// No room on the file system until something is removed from it.
    #[error(
        "file system of the span log is full: {free} bytes free, {keep} are kept free, a batch of {bytes} bytes does not fit"
    )]
    NoSpace {
        /// Bytes of the batch.
        bytes: usize,
        /// Bytes free.
        free: u64,
        /// Bytes that the log leaves free: `log.min_free_bytes`, or what its own small files need.
        keep: u64,
    },
    /// The batch would not fit even into an empty log.
    #[error("batch of {bytes} bytes is larger than the span log's limit of {limit} bytes")]
    TooLarge {
        /// Bytes that the batch would be charged with.
        bytes: usize,
        /// `log.memory_max_bytes`, or `log.max_bytes`.
        limit: usize,
    },
    /// The file system did not take it.
    #[error("span log cannot write: {why}")]
    Disk {
        /// The system's words.
        why: String,
    },
}

/// What became of each [`Append`] of a group, in the group's order; the replies have been sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct GroupOutcome {
    /// The first ordinal of each batch that was accepted, `None` for one that was refused.
    pub firsts: Vec<Option<Ordinal>>,
    /// The log's end after the group.
    pub end: Ordinal,
    /// When it was committed, since the Unix epoch: what [`Record::committed_unix`] says of each record.
    pub committed_unix: Duration,
}

/// One record of the log.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// The ordinal of the record's first span.
    pub first: Ordinal,
    /// The number of spans, at least 1.
    pub spans: u32,
    /// The bytes of an `ExportTraceServiceRequest` with these spans.
    pub bytes: Bytes,
    /// When it was committed, on this process's clock.
    pub committed_at: Instant,
    /// When it was committed, since the Unix epoch: the same after a restart.
    pub committed_unix: Duration,
}

impl Record {
    /// The ordinal behind the record's last span.
    pub fn end(&self) -> Ordinal {
        self.first + u64::from(self.spans)
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("first", &self.first)
            .field("spans", &self.spans)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

/// How much one read may return; at least one record comes back where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    /// Stop before the record that would pass this number of spans (counted from the position).
    pub spans: u64,
    /// Stop before the record that would pass this number of bytes (whole records counted).
    pub bytes: usize,
}

/// A read failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The spans at this position are gone: every consumer had passed them, or the log was full and is to drop
    /// the oldest.
    #[error("ordinal {from} was released: the log begins at {start}")]
    Released {
        /// The position asked for.
        from: Ordinal,
        /// The first ordinal that the log still holds.
        start: Ordinal,
    },
    /// The spans at this position are damaged: they cannot be read, and never will be.
    #[error("ordinals {from} to {to} are damaged")]
    Damaged {
        /// The position asked for.
        from: Ordinal,
        /// The ordinal behind the damage: that of the next readable span, or the log's end.
        to: Ordinal,
    },
}

/// A destination did not come, or did not go; everything is as it was.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DestinationError {
    /// There is one of this name.
    #[error("the span log has a destination {0} already")]
    Taken(String),
    /// There is no such one.
    #[error("the span log has no such destination")]
    Unknown,
    /// Its small files cannot be read or written.
    #[error("the span log cannot read or write its files: {0}")]
    Disk(String),
    /// The log's writer did not come to it.
    #[error("the span log's writer is down or has too much to do")]
    Busy,
}

/// What an acknowledged span survives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The crash of an actor, not the end of the process: it is held in memory.
    #[default]
    Memory,
    /// The end of the process, however sudden: it is in the page cache. Not the machine's.
    Process,
    /// A power cut: it was synced to the device.
    Power,
}

impl Durability {
    /// As in the configuration.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Process => "process",
            Self::Power => "power",
        }
    }
}

/// What the log gives back of the span metrics' last checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    /// There is none: the metrics begin at this position, with nothing counted.
    Fresh(Ordinal),
    /// The checkpoint, and the log holds every span behind its position.
    Checkpoint {
        /// Every span before it is counted in the checkpoint.
        position: Ordinal,
        /// What [`SpanLog::checkpoint`] was given.
        bytes: Bytes,
    },
    /// What was counted cannot be told from what was not: counters begin at 0, at this position.
    Broken {
        /// Where counting begins.
        position: Ordinal,
        /// Why, in words.
        why: String,
    },
}

/// What the log holds, for `/stats` and `/metrics`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct LogStats {
    /// What an acknowledged span survives.
    pub durability: Durability,
    /// The first ordinal held.
    pub start: Ordinal,
    /// The ordinal behind the last span.
    pub end: Ordinal,
    /// Records held.
    pub records: usize,
    /// Bytes held, as charged against the limit.
    pub bytes: usize,
    /// The limit in bytes.
    pub max_bytes: usize,
    /// Dead letters kept (the newest ones; the ledgers count them all).
    pub dead_letters: usize,
    /// What the segment form knows besides.
    #[serde(flatten)]
    pub disk: Option<DiskStats>,
}

/// What a log of segment files knows besides, since the start of the process unless it says otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct DiskStats {
    /// Segment files at this moment.
    pub segments: usize,
    /// Bytes of records that are held in memory too, for consumers that keep up.
    pub cached_bytes: usize,
    /// Bytes free on the file system when the log last looked.
    pub free_bytes: u64,
    /// Groups written.
    pub groups: u64,
    /// Bytes of the batches in these groups.
    pub payload_bytes: u64,
    /// Bytes written to files, whatever for: segments, positions, dead letters, checkpoints.
    pub written_bytes: u64,
    /// Syncs that succeeded.
    pub syncs: u64,
    /// Writes, truncations, renames and removals that failed.
    pub write_errors: u64,
    /// Syncs that failed.
    pub sync_errors: u64,
    /// Reads that failed.
    pub read_errors: u64,
    /// Reads that no record in memory could answer.
    pub disk_reads: u64,
    /// Spans in damaged places that were found.
    pub damaged_spans: u64,
    /// Bytes set aside in `quarantine/`, earlier processes' included.
    pub quarantined_bytes: u64,
    /// Bytes of groups that were never whole, cut off the log's end when it was opened.
    pub torn_bytes: u64,
    /// Spans that `drop_oldest` took from destinations that had not had them.
    pub evicted_spans: u64,
    /// When the last checkpoint of the span metrics was stored, in seconds since the Unix epoch.
    pub checkpointed_at: Option<u64>,
}

/// A span that a destination will never take, kept for an operator.
#[derive(Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The span's ordinal: the letter's key.
    pub ordinal: Ordinal,
    /// Why.
    pub reason: DropReason,
    /// The destination's words, cut at 256 bytes.
    pub message: String,
    /// The span, as the bytes of an `ExportTraceServiceRequest` with it alone.
    pub bytes: Bytes,
}

impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("ordinal", &self.ordinal)
            .field("reason", &self.reason)
            .field("message", &self.message)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

/// The wall clock since the Unix epoch, in whole nanoseconds as a record's header has them; 0 where it stands
/// before that.
fn unix_now() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_nanos(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

/// A future of the log; it is complete at once where nothing has to be waited for.
pub type LogFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A span log. All forms pass one conformance suite (`log/conformance.rs`).
///
/// Only the collector commits; each destination and the metrics move their own position.
pub trait SpanLog: Send + Sync + fmt::Debug {
    /// Commits a group in its order and answers each batch's reply.
    ///
    /// The group is on its way when this returns: dropping the future does not take it back.
    fn commit(&self, group: Vec<Append>) -> LogFuture<GroupOutcome>;

    /// The records from the one that holds `from` on, within `limit`, without a gap between them; none at the
    /// log's end. Where a disk fails for now, it waits and tries again.
    ///
    /// # Errors
    /// [`ReadError::Released`] where `from` lies before everything held, [`ReadError::Damaged`] where it lies in
    /// a gap.
    fn read(&self, from: Ordinal, limit: ReadLimit) -> LogFuture<Result<Vec<Record>, ReadError>>;

    /// Moves a destination's position and its ledger as one.
    ///
    /// # Errors
    /// [`AdvanceError`], and nothing moved, where the counts do not add up to the distance or the
    /// new position is behind the old one or past the log's end.
    fn advance(
        &self,
        destination: DestinationId,
        advance: &Advance,
    ) -> Result<DestinationLedger, AdvanceError>;

    /// Where a destination stood when its position was last persisted, or could not be: what it takes behind this
    /// arrives twice after a crash.
    fn settled(&self, destination: DestinationId) -> Ordinal;

    /// Complete when [`SpanLog::settled`] may have moved on since this was called.
    fn settles(&self, destination: DestinationId) -> LogFuture<()>;

    /// Keeps a dead letter. It is durable before the position passes its ordinal; one letter an ordinal.
    fn dead_letter(&self, destination: DestinationId, letter: DeadLetter);

    /// The dead letters kept for a destination, oldest first.
    fn dead_letters(&self, destination: DestinationId) -> Vec<DeadLetter>;

    /// A destination's ledger at this moment.
    ///
    /// # Errors
    /// [`AdvanceError::Unknown`] where there is no such destination.
    fn ledger(&self, destination: DestinationId) -> Result<DestinationLedger, AdvanceError>;

    /// Takes in a destination that the log does not have, as it would be taken in by a start: it stands where its position was
    /// kept, or else where it is to begin. From then on records are kept for it.
    ///
    /// Not to be dropped half-way: it would be there, and nobody would know its id.
    ///
    /// # Errors
    /// [`DestinationError`]
    fn take_in(&self, destination: LogDestination) -> LogFuture<Result<DestinationId, DestinationError>>;

    /// Lets a destination go, as a start without it would: records are not kept for it any more, and its position is forgotten.
    /// Returns its account as of then.
    ///
    /// # Errors
    /// [`DestinationError`]
    fn let_go(&self, id: DestinationId) -> LogFuture<Result<DestinationLedger, DestinationError>>;

    /// The metrics have counted every span before `to`. Moving back is ignored.
    fn measured(&self, to: Ordinal);

    /// Stores what the metrics have counted before `position`, in place of the checkpoint before. Records that
    /// no stored checkpoint includes are kept, where the log outlives the process.
    ///
    /// # Errors
    /// In words, where it cannot be stored; the checkpoint before it stays.
    fn checkpoint(&self, position: Ordinal, bytes: Bytes) -> LogFuture<Result<(), String>>;

    /// The last checkpoint, as found when the log was opened.
    fn restored(&self) -> Restored;

    /// What is wrong with the log at this moment, a sentence each, for `/health`.
    fn troubles(&self) -> Vec<String>;

    /// The ordinal behind the last span.
    fn end(&self) -> Ordinal;

    /// What the log holds.
    fn stats(&self) -> LogStats;
}
