//! The one who writes: groups, positions, dead letters, checkpoints, what is set aside, and what is removed.
//!
//! ```text
//! a group:   room? ─► segment ─► write ─► (power: sync) ─► published ─► answered
//! a settle:  dead letters ─► positions ─► (power: sync) ─► segments that everyone has passed are removed
//! ```
//!
//! Whatever fails, what is published stays as it is: a segment that could not be cut back after a failed write, or whose last
//! group failed to sync, gets no further group, and the next one begins elsewhere.

use std::{
    io::{self, IoSlice},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::oneshot, time::Instant};

use super::{
    super::{
        Append, CommitError, CommitReply, Committed, DestinationError, DestinationId, DestinationLedger,
        Durability, GroupOutcome, Ordinal, PendingSpans, Record, RejectReason, disk::DiskFile, unix_now,
    },
    config::LogDestination,
    format::{ALIGN, DATA_START, RECORD_HEADER, RecordHeader, UnsealedHeader, record_size},
    nanos,
    read::Damage,
    settle::Files,
    shared::Shared,
    walk::Point,
};

/// Buffers in one write at most (`IOV_MAX` of Linux).
const BUFFERS_MAX: usize = 1024;
/// What the writer is asked to do.
#[derive(Debug)]
pub enum Work {
    /// Write a group and answer its senders.
    Commit {
        /// The group.
        group: Vec<Append>,
        /// Told what became of it.
        outcome: oneshot::Sender<GroupOutcome>,
    },
    /// Positions have moved.
    Settle,
    /// Store a checkpoint of the metrics.
    Checkpoint {
        /// Every span before it is counted.
        position: Ordinal,
        /// The counters.
        bytes: Bytes,
        /// Told how it went.
        done: oneshot::Sender<Result<(), String>>,
    },
    /// Set a damaged place aside.
    Damaged(Damaged),
    /// Take a destination in.
    TakeIn {
        /// Which, and where it begins.
        destination: LogDestination,
        /// Told its id.
        done: oneshot::Sender<Result<DestinationId, DestinationError>>,
    },
    /// Let a destination go.
    LetGo {
        /// Which.
        id: DestinationId,
        /// Told its account.
        done: oneshot::Sender<Result<DestinationLedger, DestinationError>>,
    },
}

/// A damaged place, as a reader found it.
#[derive(Debug)]
pub struct Damaged(pub(super) Damage);

/// The one who writes.
#[derive(Debug)]
pub struct Writer {
    pub(super) shared: Arc<Shared>,
    /// The number of the segment that takes the next group, if there is one.
    pub(super) active: Option<u64>,
    pub(super) files: Files,
    /// Bytes that may be written before the file system is looked at again.
    pub(super) room: u64,
    /// Bytes of the last checkpoint.
    pub(super) checkpoint_bytes: u64,
}

/// A batch that has its place in the log.
struct Placed {
    header: UnsealedHeader,
    bytes: Bytes,
    pending: PendingSpans,
    reply: CommitReply,
}

impl Writer {
    /// A writer that goes on where the log stands. It begins with a new segment, as after any failure.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        // The one before may have ended in the middle of something.
        shared.state.lock().troubles.busy_since = None;
        Self { shared, active: None, files: Files::default(), room: 0, checkpoint_bytes: 0 }
    }

    /// Does all of this, in order.
    pub fn handle(&mut self, batch: impl IntoIterator<Item = Work>) {
        self.busy(true);
        for work in batch {
            match work {
                Work::Commit { group, outcome } => {
                    // The collector may be gone; its group is not.
                    let _gone = outcome.send(self.commit(group));
                }
                Work::Settle => {}
                Work::Checkpoint { position, bytes, done } => {
                    let _gone = done.send(self.store_checkpoint(position, &bytes));
                }
                Work::Damaged(Damaged(damage)) => self.set_aside(&damage),
                Work::TakeIn { destination, done } => {
                    let _gone = done.send(self.take_in(&destination));
                }
                Work::LetGo { id, done } => {
                    let _gone = done.send(self.let_go(id));
                }
            }
        }
        self.settle();
        self.look_for_room();
        self.busy(false);
    }

    /// Makes everything durable and says so, for the next start, and gives the folder free.
    pub fn close(&mut self) {
        self.busy(true);
        self.settle();
        self.finish();
        self.busy(false);
        // Nothing is written any more, though somebody may still look at the log.
        drop(self.shared.lock.lock().take());
    }

    fn busy(&self, is: bool) {
        self.shared.state.lock().troubles.busy_since = is.then(Instant::now);
    }

    pub(super) fn is_power(&self) -> bool {
        self.shared.config.durability == Durability::Power
    }

    /// Sees to it that every destination has its position in a file: one that no file knows would begin, after a
    /// crash, behind what is acknowledged from here on.
    fn introduce(&mut self) -> Result<(), CommitError> {
        let known = |writer: &Self| {
            writer.shared.state.lock().destinations.iter().all(|destination| destination.persisted.is_some())
        };
        if !known(self) {
            self.settle();
        }
        if known(self) {
            return Ok(());
        }
        let why = self.shared.state.lock().troubles.settle.clone();
        Err(CommitError::Disk { why: why.unwrap_or_else(|| "a destination has no position".to_owned()) })
    }

    fn commit(&mut self, group: Vec<Append>) -> GroupOutcome {
        let committed_unix = unix_now();
        let firsts = match self.introduce() {
            Ok(()) => self.commit_known(group, nanos(committed_unix)),
            Err(error) => group
                .into_iter()
                .map(|Append { pending, reply, .. }| {
                    refuse(pending, reply, RejectReason::LogFailed, error.clone())
                })
                .collect(),
        };
        GroupOutcome { firsts, end: self.shared.end.load(Ordering::Acquire), committed_unix }
    }

    /// Writes what there is room for as one group and answers everyone: the first ordinal of each batch.
    fn commit_known(&mut self, group: Vec<Append>, committed: u64) -> Vec<Option<Ordinal>> {
        let mut firsts = Vec::with_capacity(group.len());
        let mut placed = Vec::with_capacity(group.len());
        let mut size = 0u64;
        let (mut first, mut sequence) = {
            let state = self.shared.state.lock();
            (state.end, state.next_sequence)
        };
        for Append { bytes, pending, reply } in group {
            let spans = pending.spans();
            match self.admit(&bytes, size) {
                Ok(length) => {
                    size += record_size(length);
                    firsts.push(Some(first));
                    let header = UnsealedHeader { length, sequence, first, spans, group_left: 0, committed };
                    placed.push(Placed { header, bytes, pending, reply });
                    first += u64::from(spans);
                    sequence += 1;
                }
                Err(error) => firsts.push(refuse(pending, reply, RejectReason::LogFull, error)),
            }
        }
        if placed.is_empty() {
            return firsts;
        }
        let mut left = size;
        for batch in &mut placed {
            left -= record_size(batch.header.length);
            batch.header.group_left = u32::try_from(left / ALIGN).unwrap_or(u32::MAX);
        }
        match self.write_group(&placed, size) {
            Ok(()) => {
                self.shared.state.lock().troubles.write = None;
                for Placed { header, pending, reply, .. } in placed {
                    pending.accept();
                    // A sender that gave up does not take its batch back.
                    let _gone = reply.send(Ok(Committed { first: header.first }));
                }
            }
            Err(error) => {
                self.said(&error);
                firsts.fill(None);
                for Placed { pending, reply, .. } in placed {
                    refuse(
                        pending,
                        reply,
                        RejectReason::LogFailed,
                        CommitError::Disk { why: error.to_string() },
                    );
                }
            }
        }
        firsts
    }

    /// Shows a failed write, and logs it when it is another one than before.
    fn said(&self, error: &io::Error) {
        let text = format!("span log cannot write: {error}");
        let mut state = self.shared.state.lock();
        if state.troubles.write.as_ref() != Some(&text) {
            tracing::error!(dir = %self.shared.paths.dir.display(), %error, "the span log cannot write: senders are told to come back");
            state.troubles.write = Some(text);
        }
    }

    fn write_group(&mut self, group: &[Placed], size: u64) -> io::Result<()> {
        self.room = self.room.saturating_sub(size);
        match self.write_once(group, size) {
            // What did not reach the device once is not trusted to the same file again: elsewhere, once.
            Err(Trouble::Sync(error)) => {
                tracing::error!(%error, "a sync of the span log failed: the group is written again to a new segment");
                self.write_once(group, size)
            }
            other => other,
        }
        .map_err(|(Trouble::Write(error) | Trouble::Sync(error))| error)
    }

    fn write_once(&mut self, group: &[Placed], size: u64) -> Result<(), Trouble> {
        let number = self.segment_for_group()?;
        let (file, key, offset) = {
            let mut state = self.shared.state.lock();
            let Some(segment) = state.segment(number) else {
                return Err(Trouble::Write(io::Error::other("the segment is gone")));
            };
            (Arc::clone(&segment.file), segment.key, segment.length)
        };
        if let Err(error) = write_records(&*file, &key, offset, group) {
            self.give_up_tail(number, &*file, offset, &error);
            return Err(Trouble::Write(error));
        }
        let synced = self.is_power();
        if synced && let Err(error) = file.sync() {
            self.shared.state.lock().stats.sync_errors += 1;
            // Cut as far as that goes: what is there was not acknowledged. It is never synced again.
            let _left = file.truncate(offset);
            self.active = None;
            return Err(Trouble::Sync(error));
        }
        self.publish(number, offset, size, group, synced);
        Ok(())
    }

    /// After a failed write: cuts the segment back, or leaves it for good.
    fn give_up_tail(&mut self, number: u64, file: &dyn DiskFile, offset: u64, error: &io::Error) {
        let cut = file.truncate(offset);
        let mut state = self.shared.state.lock();
        state.stats.write_errors += 1 + u64::from(cut.is_err());
        drop(state);
        // A full disk is no defect of the segment.
        if cut.is_err() || error.kind() != io::ErrorKind::StorageFull {
            self.active = None;
        }
        // So that the next attempt looks again.
        self.room = 0;
        if offset == DATA_START {
            self.active = None;
            self.discard_empty(number);
        }
    }

    fn publish(&self, number: u64, offset: u64, size: u64, group: &[Placed], synced: bool) {
        let now = Instant::now();
        let mut state = self.shared.state.lock();
        let state = &mut *state;
        let mut at = offset;
        let mut payload = 0;
        for Placed { header, bytes, .. } in group {
            if let Some(segment) = state.segment(number) {
                segment.note(Point { offset: at, sequence: header.sequence, first: header.first });
            }
            at += record_size(header.length);
            payload += bytes.len() as u64;
            state.end = header.first + u64::from(header.spans);
            state.next_sequence = header.sequence + 1;
            state.cache.push(Record {
                first: header.first,
                spans: header.spans,
                bytes: bytes.clone(),
                committed_at: now,
                committed_unix: Duration::from_nanos(header.committed),
            });
        }
        let end = state.end;
        if let Some(segment) = state.segment(number) {
            segment.length = offset + size;
            segment.end = end;
            segment.synced = synced;
        }
        state.stats.groups += 1;
        state.stats.payload_bytes += payload;
        state.stats.written_bytes += size;
        state.stats.syncs += u64::from(synced);
        state.trim_cache();
        self.shared.end.store(end, Ordering::Release);
    }
}

/// Why a group is not written.
pub(super) enum Trouble {
    Write(io::Error),
    Sync(io::Error),
}

/// Tells a sender that its batch is not in the log; it has no ordinal.
fn refuse(
    pending: PendingSpans,
    reply: CommitReply,
    reason: RejectReason,
    error: CommitError,
) -> Option<Ordinal> {
    pending.reject(reason);
    // A sender that gave up is told nothing.
    let _gone = reply.send(Err(error));
    None
}

/// Writes a group's records one behind the other, in as few writes as the system takes.
fn write_records(file: &dyn DiskFile, key: &[u8; 16], offset: u64, group: &[Placed]) -> io::Result<()> {
    let mut at = offset;
    let headers: Vec<[u8; RECORD_HEADER]> = group
        .iter()
        .map(|Placed { header, bytes, .. }| {
            let sealed = RecordHeader::seal(key, at, bytes, *header);
            at += record_size(header.length);
            sealed
        })
        .collect();
    const PADDING: [u8; ALIGN as usize] = [0; ALIGN as usize];
    let mut buffers = Vec::with_capacity(group.len() * 3);
    for (header, Placed { bytes, .. }) in headers.iter().zip(group) {
        let padding = bytes.len().next_multiple_of(PADDING.len()) - bytes.len();
        buffers.push(IoSlice::new(header));
        buffers.push(IoSlice::new(bytes));
        buffers.push(IoSlice::new(PADDING.get(..padding).unwrap_or_default()));
    }
    let mut rest = buffers.as_mut_slice();
    let mut at = offset;
    while !rest.is_empty() {
        match file.write_at(rest.get(..rest.len().min(BUFFERS_MAX)).unwrap_or_default(), at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                at += written as u64;
                IoSlice::advance_slices(&mut rest, written);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
