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
        Append, CommitError, CommitReply, Committed, Durability, GroupOutcome, Ordinal, PendingSpans, Record,
        RejectReason, Restored,
        disk::{DiskFile, write_full},
        unix_now,
    },
    config::WhenFull,
    format::{ALIGN, DATA_START, RECORD_HEADER, RecordHeader, SegmentHeader, UnsealedHeader, record_size},
    nanos,
    read::Damage,
    segment::Segment,
    settle::Files,
    shared::Shared,
    walk::Point,
};

/// Buffers in one write at most (`IOV_MAX` of Linux).
const BUFFERS_MAX: usize = 1024;
/// Bytes that groups leave free on the file system, whatever the settings: without a place for positions and
/// checkpoints a full log would stay full.
const HEADROOM: u64 = 256 << 10;
/// So many empty segments may resist removal before no further one is begun.
const LEFT_OVER_MAX: usize = 4;
/// After so many written bytes the writer looks again how much room the file system has.
const LOOK_BYTES: u64 = 16 << 20;

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
}

/// A damaged place, as a reader found it.
#[derive(Debug)]
pub struct Damaged(pub(super) Damage);

/// The one who writes.
#[derive(Debug)]
pub struct Writer {
    pub(super) shared: Arc<Shared>,
    /// The number of the segment that takes the next group, if there is one.
    active: Option<u64>,
    /// Whether each destination has its position in a file.
    introduced: bool,
    pub(super) files: Files,
    /// Bytes that may be written before the file system is looked at again.
    room: u64,
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
        let files = Files::default();
        Self { shared, active: None, introduced: false, files, room: 0, checkpoint_bytes: 0 }
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
            }
        }
        self.settle();
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

    /// Sees to it that every destination has its position in a file.
    fn introduce(&mut self) -> Result<(), CommitError> {
        let known = |writer: &Self| {
            writer.shared.state.lock().destinations.iter().all(|destination| destination.persisted.is_some())
        };
        self.introduced = self.introduced || known(self);
        if !self.introduced {
            self.settle();
            self.introduced = known(self);
        }
        if self.introduced {
            return Ok(());
        }
        let why = self.shared.state.lock().troubles.settle.clone();
        Err(CommitError::Disk { why: why.unwrap_or_else(|| "a destination has no position".to_owned()) })
    }

    fn commit(&mut self, group: Vec<Append>) -> GroupOutcome {
        // One that no file knows would begin behind this group after a crash.
        if let Err(error) = self.introduce() {
            let firsts = vec![None; group.len()];
            for Append { pending, reply, .. } in group {
                pending.reject(RejectReason::LogFailed);
                let _gone = reply.send(Err(error.clone()));
            }
            let end = self.shared.end.load(Ordering::Acquire);
            return GroupOutcome { firsts, end, committed_unix: Duration::ZERO };
        }
        let mut firsts = Vec::with_capacity(group.len());
        let mut placed = Vec::with_capacity(group.len());
        let mut size = 0u64;
        let (mut first, mut sequence) = {
            let state = self.shared.state.lock();
            (state.end, state.next_sequence)
        };
        let committed_unix = unix_now();
        let committed = nanos(committed_unix);
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
                Err(error) => {
                    firsts.push(None);
                    pending.reject(RejectReason::LogFull);
                    // A sender that gave up is told nothing.
                    let _gone = reply.send(Err(error));
                }
            }
        }
        let mut left = size;
        for batch in &mut placed {
            left -= record_size(batch.header.length);
            batch.header.group_left = u32::try_from(left / ALIGN).unwrap_or(u32::MAX);
        }
        if !placed.is_empty() {
            match self.write_group(&placed, size) {
                Ok(()) => {
                    self.shared.state.lock().troubles.write = None;
                    for Placed { header, pending, reply, .. } in placed {
                        pending.accept();
                        let _gone = reply.send(Ok(Committed { first: header.first }));
                    }
                }
                Err(error) => {
                    self.said(&error);
                    firsts.fill(None);
                    let why = error.to_string();
                    for Placed { pending, reply, .. } in placed {
                        pending.reject(RejectReason::LogFailed);
                        let _gone = reply.send(Err(CommitError::Disk { why: why.clone() }));
                    }
                }
            }
        }
        GroupOutcome { firsts, end: self.shared.end.load(Ordering::Acquire), committed_unix }
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

    /// The batch's length, if there is room for it behind `before` bytes of the same group.
    fn admit(&mut self, bytes: &Bytes, before: u64) -> Result<u32, CommitError> {
        let limit = self.shared.config.max_bytes;
        let as_usize = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let too_large = CommitError::TooLarge { bytes: bytes.len(), limit: as_usize(limit) };
        let Ok(length) = u32::try_from(bytes.len()) else { return Err(too_large) };
        let size = record_size(length);
        if size + DATA_START > limit {
            return Err(too_large);
        }
        let full = match self.make_room(before + size) {
            Ok(()) => {
                self.shared.state.lock().troubles.full = None;
                return Ok(length);
            }
            Err(full) => full,
        };
        let bytes = bytes.len();
        let (why, error) = match full {
            Full::Log { held } => (
                format!("span log is full: {held} of {limit} bytes (log.max_bytes)"),
                CommitError::Full { bytes, held: as_usize(held), limit: as_usize(limit) },
            ),
            Full::Disk { free, keep } => (
                format!(
                    "span log is full: {free} bytes are free on its file system, at least {keep} are kept free (log.min_free_bytes)"
                ),
                CommitError::NoSpace { bytes, free, keep },
            ),
        };
        let mut state = self.shared.state.lock();
        if state.troubles.full.is_none() {
            tracing::warn!(dir = %self.shared.paths.dir.display(), "{why}: senders are told to come back");
        }
        state.troubles.full = Some(why);
        Err(error)
    }

    /// Sees to it that `more` bytes of records may be written.
    fn make_room(&mut self, more: u64) -> Result<(), Full> {
        let mut settled = false;
        loop {
            let full = match self.room_for(more) {
                Ok(()) => return Ok(()),
                Err(full) => full,
            };
            // What is persisted now may have passed a segment; the active one, too, can go.
            if !settled {
                settled = true;
                self.settle();
                let passed = {
                    let state = self.shared.state.lock();
                    let passed = state.passed();
                    state.segments.back().is_some_and(|last| last.end <= passed && last.length > DATA_START)
                };
                if passed {
                    self.active = None;
                    let _kept = self.may_lose_last();
                }
                self.release();
                continue;
            }
            match self.shared.config.when_full {
                WhenFull::Refuse => return Err(full),
                // Nothing that goes would make room for it.
                WhenFull::DropOldest if more + DATA_START > self.shared.config.max_bytes => return Err(full),
                WhenFull::DropOldest => {
                    if !self.evict() {
                        return Err(full);
                    }
                }
            }
        }
    }

    fn room_for(&mut self, more: u64) -> Result<(), Full> {
        let Shared { config, disk, paths, state, .. } = &*self.shared;
        let (held, takes) = {
            let state = &mut *state.lock();
            let active = self.active.and_then(|number| state.segment(number).map(|segment| segment.length));
            (state.bytes(), active.is_some_and(|length| length < config.segment_bytes))
        };
        let more = if takes { more } else { more + DATA_START };
        if held.saturating_add(more) > config.max_bytes {
            return Err(Full::Log { held });
        }
        if self.room < more {
            // Where it cannot be known, the write will tell.
            let free = disk.free_bytes(&paths.segments()).unwrap_or(u64::MAX);
            state.lock().stats.free_bytes = free;
            // Positions and checkpoints are what lets segments go: groups leave them room.
            let keep = config.min_free_bytes.max(HEADROOM + 2 * self.checkpoint_bytes);
            let usable = free.saturating_sub(keep);
            if usable < more {
                return Err(Full::Disk { free, keep });
            }
            self.room = usable.min(LOOK_BYTES.max(more));
        }
        Ok(())
    }

    fn write_group(&mut self, group: &[Placed], size: u64) -> io::Result<()> {
        self.room = self.room.saturating_sub(size);
        let synced = self.shared.config.durability == Durability::Power;
        match self.write_once(group, size, synced) {
            Ok(()) => Ok(()),
            Err(Trouble::Write(error)) => Err(error),
            // What did not reach the device once is not trusted to the same file again: elsewhere, once.
            Err(Trouble::Sync(error)) => {
                tracing::error!(%error, "a sync of the span log failed: the group is written again to a new segment");
                self.write_once(group, size, synced).map_err(|trouble| match trouble {
                    Trouble::Write(error) | Trouble::Sync(error) => error,
                })
            }
        }
    }

    fn write_once(&mut self, group: &[Placed], size: u64, synced: bool) -> Result<(), Trouble> {
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

    /// Removes a segment that has no record.
    fn discard_empty(&mut self, number: u64) {
        let state = self.shared.state.lock();
        // The only one stays, empty, where nothing else tells how far the log has come.
        if !state.can_spare(number) {
            return;
        }
        drop(state);
        // One that cannot be removed has nothing that counts, as the next begins at the same ordinal. It stays in the
        // list, to go before that one does: later its ordinals would be somebody else's.
        if self.remove(number).is_err() {
            self.shared.state.lock().stats.write_errors += 1;
            return;
        }
        let mut state = self.shared.state.lock();
        if state.segments.back().is_some_and(|last| last.number == number && last.length == DATA_START) {
            state.segments.pop_back();
        }
    }

    /// The segment that takes the next group; a new one where the last is full, or was given up.
    fn segment_for_group(&mut self) -> Result<u64, Trouble> {
        if let Some(number) = self.active {
            let mut state = self.shared.state.lock();
            if state.segment(number).is_some_and(|segment| segment.length < self.shared.config.segment_bytes)
            {
                return Ok(number);
            }
        }
        self.active = None;
        self.discard_left_over()?;
        let (number, sequence, first, anew) = {
            let mut state = self.shared.state.lock();
            let number = state.next_number;
            state.next_number += 1;
            let begins =
                matches!(self.shared.restored, Restored::Broken { position, .. } if position == state.end);
            let anew = begins && state.measured.as_ref().is_some_and(|measured| measured.anew);
            (number, state.next_sequence, state.end, anew)
        };
        let synced = self.shared.config.durability == Durability::Power;
        let header =
            SegmentHeader { key: rand::random(), synced, anew, sequence, first, created: nanos(unix_now()) };
        let path = self.shared.paths.segment(number);
        let created = self.shared.disk.create(&path);
        let made = created.map(|file| {
            let begun = self.begin_segment(&*file, &header);
            (Segment::new(number, file, header.key, sequence, first), begun)
        });
        let error = match made {
            Ok((segment, Ok(()))) => {
                let mut state = self.shared.state.lock();
                state.stats.written_bytes += DATA_START;
                self.room = self.room.saturating_sub(DATA_START);
                // Where the one before was given up, what it has behind this does not count.
                state.segments.push_back(segment);
                self.active = Some(number);
                return Ok(number);
            }
            Ok((mut segment, Err(error))) => {
                segment.begun = false;
                // One that cannot be removed stays in the list, to go before the next one does.
                if self.remove(number).is_err() {
                    self.shared.state.lock().segments.push_back(segment);
                }
                error
            }
            Err(error) => error,
        };
        self.shared.state.lock().stats.write_errors += 1;
        self.room = 0;
        Err(Trouble::Write(error))
    }

    /// Removes empty segments that resisted before; an error where there are too many of them.
    fn discard_left_over(&mut self) -> Result<(), Trouble> {
        loop {
            let (number, left_over) = {
                let state = self.shared.state.lock();
                let empty =
                    |segment: &&Segment| segment.length == DATA_START && segment.begin.first == segment.end;
                let last = state.segments.back().filter(empty).map(|last| last.number);
                let Some(number) = last.filter(|number| state.can_spare(*number)) else { return Ok(()) };
                (number, state.segments.iter().rev().take_while(empty).count())
            };
            match self.remove(number) {
                Ok(()) => drop(self.shared.state.lock().segments.pop_back()),
                Err(error) => {
                    self.shared.state.lock().stats.write_errors += 1;
                    return if left_over < LEFT_OVER_MAX { Ok(()) } else { Err(Trouble::Write(error)) };
                }
            }
        }
    }

    fn begin_segment(&self, file: &dyn DiskFile, header: &SegmentHeader) -> io::Result<()> {
        write_full(file, &header.encode(), 0)?;
        if header.synced {
            // Before any record: a header that does not check is then damage, and no torn write.
            let synced = file.sync().and_then(|()| self.shared.disk.sync_dir(&self.shared.paths.segments()));
            self.shared.state.lock().stats.sync_errors += u64::from(synced.is_err());
            synced?;
        }
        Ok(())
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

    /// Removes segments that everyone has passed, as far as a restart would know; the active one stays.
    pub(super) fn release(&mut self) {
        loop {
            let number = {
                let state = self.shared.state.lock();
                let passed = state.passed();
                match state.segments.front() {
                    Some(first)
                        if first.end <= passed
                            && Some(first.number) != self.active
                            && state.can_spare(first.number) =>
                    {
                        first.number
                    }
                    Some(_) | None => return,
                }
            };
            if !self.remove_first(number) {
                return;
            }
        }
    }

    /// Removes the oldest segment, whoever has not had it; the active one becomes an old one.
    fn evict(&mut self) -> bool {
        if !self.may_lose_last() {
            return false;
        }
        let (number, missed) = {
            let state = self.shared.state.lock();
            let Some(first) = state.segments.front() else { return false };
            let missed = |position: Ordinal| first.end.saturating_sub(position.max(first.begin.first));
            let missed: u64 = state.destinations.iter().map(|d| missed(d.ledger.position)).sum();
            (first.number, missed)
        };
        if self.active == Some(number) {
            self.active = None;
        }
        let removed = self.remove_first(number);
        self.shared.state.lock().trim_cache_to_start();
        if removed && missed > 0 {
            self.shared.state.lock().stats.evicted_spans += missed;
            tracing::warn!(
                segment = number,
                spans = missed,
                "the span log is full: the oldest segment is dropped"
            );
        }
        removed
    }

    /// Sees to it that the log's end is known without the oldest segment: where that is the only one, another begins.
    fn may_lose_last(&mut self) -> bool {
        {
            let state = self.shared.state.lock();
            match state.segments.front() {
                None => return false,
                Some(first) if Some(first.number) == self.active && first.length == DATA_START => {
                    return false;
                }
                Some(first) if state.can_spare(first.number) => return true,
                Some(_) => {}
            }
        }
        self.active = None;
        self.segment_for_group().is_ok()
    }

    /// Removes a segment's file; that there is none is fine.
    fn remove(&self, number: u64) -> io::Result<()> {
        match self.shared.disk.remove(&self.shared.paths.segment(number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn remove_first(&self, number: u64) -> bool {
        if let Err(error) = self.remove(number) {
            self.shared.state.lock().stats.write_errors += 1;
            tracing::warn!(segment = number, %error, "a segment of the span log cannot be removed");
            return false;
        }
        let synced = match self.shared.config.durability {
            // In order: an old segment that came back without those behind it would look like damage.
            Durability::Power => self.shared.disk.sync_dir(&self.shared.paths.segments()),
            Durability::Memory | Durability::Process => Ok(()),
        };
        let mut state = self.shared.state.lock();
        state.stats.sync_errors += u64::from(synced.is_err());
        state.segments.pop_front_if(|first| first.number == number);
        true
    }
}

enum Full {
    Log { held: u64 },
    Disk { free: u64, keep: u64 },
}

enum Trouble {
    Write(io::Error),
    Sync(io::Error),
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
    // Empty buffers in front would look like a write of nothing.
    IoSlice::advance_slices(&mut rest, 0);
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
