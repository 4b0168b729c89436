//! The segment form of the span log: append-only files that survive the process, and under `power` the machine.
//!
//! ```text
//! log.dir/
//!   lock                               held by the one process that uses the folder
//!   segments/000000000001.segment      records (format.rs); the highest number is written
//!   positions/<destination>.position   position and ledger, two slots (positions.rs)
//!   dead_letters/<destination>.letters spans that a destination will never take (dead_letters.rs)
//!   red.checkpoint                     the span metrics, as of a position (checkpoint.rs)
//!   clean                              there while nothing runs and everything was synced (clean.rs)
//!   quarantine/                        bytes that do not check
//! ```
//!
//! One thread writes ([`Writer`]), one reads what is no longer in memory ([`LogReader`]); whoever has the [`SegmentLog`] only moves
//! counts in memory and leaves them work. A segment is written by one process, front to back, and never touched again:
//! what a crash left at its end is not cut off in the file, but does not count, because the next segment begins before it.

mod checkpoint;
mod clean;
mod config;
#[cfg(test)]
mod damage;
mod dead_letters;
mod destinations;
mod files;
mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod lock;
mod open;
mod positions;
mod quarantine;
mod read;
mod recover;
mod roll;
mod room;
mod segment;
mod settle;
mod shared;
mod standing;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod testing;
mod walk;
mod writer;

use std::{
    fmt,
    future::ready,
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    Advance, AdvanceError, Append, DeadLetter, DestinationError, DestinationId, DestinationLedger,
    GroupOutcome, LogFuture, LogStats, Ordinal, ReadError, ReadLimit, Record, Restored, SpanLog,
};
use crate::codec;
use shared::Shared;

pub use config::{LogDestination, SegmentLogConfig, StartAt, WhenFull};
pub use lock::{DirLock, LockError};
pub use open::{OpenError, OpenLog, Unsent, unsent};
pub use writer::{Damaged, Work, Writer};

/// How long a failed read waits before it is tried again.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// A writer that is busy for longer is worth a word in `/health`.
const BUSY_LONG: Duration = Duration::from_secs(5);

/// Takes work for a thread, or gives it back.
type Submit<T> = Arc<dyn Fn(T) -> Result<(), T> + Send + Sync>;

/// A span log of segment files, as its users see it. Its writer and its reader are elsewhere.
pub struct SegmentLog {
    shared: Arc<Shared>,
    write: Submit<Work>,
    read: Submit<ReadRequest>,
}

/// A read that needs the files.
#[derive(Debug)]
pub struct ReadRequest {
    from: Ordinal,
    limit: ReadLimit,
    reply: oneshot::Sender<io::Result<Result<Vec<Record>, ReadError>>>,
}

/// Reads what is no longer in memory.
#[derive(Debug)]
pub struct LogReader {
    shared: Arc<Shared>,
}

impl OpenLog {
    /// The one writer. A new one may be made where the one before failed.
    pub fn writer(&self) -> Writer {
        Writer::new(Arc::clone(&self.shared))
    }

    /// A reader.
    pub fn reader(&self) -> LogReader {
        LogReader { shared: Arc::clone(&self.shared) }
    }

    /// The log, whose writer and reader get their work through these.
    pub fn log(
        &self,
        write: impl Fn(Work) -> Result<(), Work> + Send + Sync + 'static,
        read: impl Fn(ReadRequest) -> Result<(), ReadRequest> + Send + Sync + 'static,
    ) -> SegmentLog {
        SegmentLog { shared: Arc::clone(&self.shared), write: Arc::new(write), read: Arc::new(read) }
    }

    /// The names of the destinations that it was opened for, in the order of their ids.
    pub fn destinations(&self) -> impl Iterator<Item = &str> {
        self.shared.config.destinations.iter().map(|destination| destination.name.as_str())
    }
}

impl LogReader {
    /// Answers a request. What is found damaged goes to `report`, for the writer.
    pub fn handle(&self, request: ReadRequest, report: &mut dyn FnMut(Work)) {
        let ReadRequest { from, limit, reply } = request;
        let answer = self.shared.read_files(from, limit, report);
        let mut state = self.shared.state.lock();
        state.stats.disk_reads += 1;
        state.stats.read_errors += u64::from(answer.is_err());
        let trouble = answer.as_ref().err().map(|error| format!("span log cannot read: {error}"));
        if trouble.is_some() && state.troubles.read != trouble {
            tracing::error!(dir = %self.shared.paths.dir.display(), from, "{}: it is tried again", trouble.as_deref().unwrap_or_default());
        }
        state.troubles.read = trouble;
        drop(state);
        // Whoever asked may be gone.
        let _gone = reply.send(answer);
    }
}

impl fmt::Debug for SegmentLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentLog").field("dir", &self.shared.paths.dir).finish_non_exhaustive()
    }
}

impl SpanLog for SegmentLog {
    fn commit(&self, group: Vec<Append>) -> LogFuture<GroupOutcome> {
        let batches = group.len();
        let (outcome, told) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        // Refused, the group is dropped here, and its senders learn that it is lost.
        let _lost = (self.write)(Work::Commit { group, outcome });
        Box::pin(async move {
            told.await.unwrap_or_else(|_| GroupOutcome {
                firsts: vec![None; batches],
                end: shared.end.load(Ordering::Acquire),
                committed_unix: Duration::ZERO,
            })
        })
    }

    fn read(&self, from: Ordinal, limit: ReadLimit) -> LogFuture<Result<Vec<Record>, ReadError>> {
        {
            let state = self.shared.state.lock();
            if from >= state.end {
                return Box::pin(ready(Ok(Vec::new())));
            }
            if state.cache.start().is_some_and(|start| start <= from) {
                return Box::pin(ready(Ok(state.cache.read(from, limit))));
            }
        }
        let read = Arc::clone(&self.read);
        Box::pin(async move {
            loop {
                let (reply, answer) = oneshot::channel();
                let _full = read(ReadRequest { from, limit, reply });
                if let Ok(Ok(read)) = answer.await {
                    return read;
                }
                tokio::time::sleep(READ_AGAIN).await;
            }
        })
    }

    fn advance(&self, id: DestinationId, advance: &Advance) -> Result<DestinationLedger, AdvanceError> {
        let ledger = {
            let mut state = self.shared.state.lock();
            let end = state.end;
            let destination = state.destination(id)?;
            destination.ledger.advance(advance, end)?;
            let ledger = destination.ledger.clone();
            state.trim_cache();
            ledger
        };
        self.settle();
        Ok(ledger)
    }

    fn settled(&self, id: DestinationId) -> Ordinal {
        let mut state = self.shared.state.lock();
        state.destination(id).map(|destination| destination.settled).unwrap_or_default()
    }

    fn settles(&self, id: DestinationId) -> LogFuture<()> {
        let (told, settles) = oneshot::channel();
        {
            let mut state = self.shared.state.lock();
            if let Ok(destination) = state.destination(id) {
                match destination.settled == destination.ledger.position {
                    true => drop(told),
                    false => destination.settles.push(told),
                }
            }
        }
        Box::pin(async move {
            // A writer that fails tells nobody; the next one begins with settling.
            let _told = settles.await;
        })
    }

    fn dead_letter(&self, id: DestinationId, letter: DeadLetter) {
        // The letter's span shares its record's memory: a copy of its own lets the record go.
        let letter = DeadLetter { bytes: Bytes::copy_from_slice(&letter.bytes), ..letter };
        let mut state = self.shared.state.lock();
        // It is written before the position that passes it.
        if let Ok(destination) = state.destination(id) {
            destination.letters.push(letter);
        }
    }

    fn dead_letters(&self, id: DestinationId) -> Vec<DeadLetter> {
        let mut state = self.shared.state.lock();
        let letters =
            state.destination(id).map(|destination| destination.letters.kept.iter().cloned().collect());
        letters.unwrap_or_default()
    }

    fn ledger(&self, id: DestinationId) -> Result<DestinationLedger, AdvanceError> {
        let mut state = self.shared.state.lock();
        let end = state.end;
        state.destination(id).map(|destination| destination.ledger.at_end(end))
    }

    fn take_in(&self, destination: LogDestination) -> LogFuture<Result<DestinationId, DestinationError>> {
        let (done, told) = oneshot::channel();
        let (shared, name) = (Arc::clone(&self.shared), destination.name.clone());
        if shared.state.lock().destinations.iter().any(|destination| destination.name == name) {
            return Box::pin(ready(Err(DestinationError::Taken(name))));
        }
        let _full = (self.write)(Work::TakeIn { destination, done });
        Box::pin(async move {
            told.await.unwrap_or_else(|_| {
                // A writer that failed in the middle of it may have done it.
                let state = shared.state.lock();
                let found = state.destinations.iter().find(|destination| destination.name == name);
                found.map(|destination| destination.id).ok_or(DestinationError::Busy)
            })
        })
    }

    fn let_go(&self, id: DestinationId) -> LogFuture<Result<DestinationLedger, DestinationError>> {
        let (done, told) = oneshot::channel();
        let Ok(ledger) = self.ledger(id) else { return Box::pin(ready(Err(DestinationError::Unknown))) };
        let shared = Arc::clone(&self.shared);
        let _full = (self.write)(Work::LetGo { id, done });
        Box::pin(async move {
            // As above.
            let lost = || match shared.state.lock().destination(id) {
                Ok(_) => Err(DestinationError::Busy),
                Err(_) => Ok(ledger),
            };
            told.await.unwrap_or_else(|_| lost())
        })
    }

    fn measured(&self, to: Ordinal) {
        let mut state = self.shared.state.lock();
        let end = state.end;
        if let Some(measured) = &mut state.measured {
            measured.counted = to.min(end).max(measured.counted);
            state.trim_cache();
        }
    }

    fn checkpoint(&self, position: Ordinal, bytes: Bytes) -> LogFuture<Result<(), String>> {
        let (done, told) = oneshot::channel();
        let _full = (self.write)(Work::Checkpoint { position, bytes, done });
        Box::pin(async move {
            told.await.unwrap_or_else(|_| Err("the log's writer did not take the checkpoint".to_owned()))
        })
    }

    fn restored(&self) -> Restored {
        self.shared.restored.clone()
    }

    fn troubles(&self) -> Vec<String> {
        if self.shared.state.lock().troubles.full.is_some() {
            // Room that somebody else makes on the file system tells nobody: who asks has it looked for.
            self.settle();
        }
        let state = self.shared.state.lock();
        let troubles = &state.troubles;
        let mut all = troubles.found.clone();
        let now = [&troubles.write, &troubles.settle, &troubles.read];
        all.extend(now.into_iter().flatten().cloned());
        all.extend(troubles.full.as_ref().map(|full| full.why.clone()));
        if let Some(busy) = troubles.busy_since.map(|since| since.elapsed()).filter(|busy| *busy > BUSY_LONG)
        {
            all.push(format!("span log has been writing for {} s", busy.as_secs()));
        }
        let damaged = state.stats.damaged_spans.saturating_sub(troubles.found_spans);
        if damaged > 0 {
            all.push(format!("{damaged} spans of the span log are damaged, see quarantine/ in its folder"));
        }
        all
    }

    fn end(&self) -> Ordinal {
        self.shared.end.load(Ordering::Acquire)
    }

    fn stats(&self) -> LogStats {
        let state = self.shared.state.lock();
        let as_usize = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let first = state.segments.front().map_or(state.next_sequence, |first| first.begin.sequence);
        LogStats {
            durability: self.shared.config.durability,
            start: state.start(),
            end: state.end,
            records: as_usize(state.next_sequence.saturating_sub(first)),
            bytes: as_usize(state.bytes()),
            max_bytes: as_usize(self.shared.config.max_bytes),
            dead_letters: state.destinations.iter().map(|destination| destination.letters.kept.len()).sum(),
            disk: Some(super::DiskStats {
                segments: state.segments.len(),
                cached_bytes: state.cache.bytes(),
                ..state.stats
            }),
        }
    }
}

impl SegmentLog {
    /// Has positions persisted, soon: moves until then are one write.
    fn settle(&self) {
        if !self.shared.dirty.swap(true, Ordering::AcqRel) && (self.write)(Work::Settle).is_err() {
            // Busy: it settles after each turn.
            self.shared.dirty.store(false, Ordering::Release);
        }
    }
}

/// In nanoseconds, as in a header.
fn nanos(since_epoch: Duration) -> u64 {
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
