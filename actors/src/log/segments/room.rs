//! Room: whether a batch may be written, and what goes so that it may.

use bytes::Bytes;

use super::{
    super::{CommitError, Ordinal},
    config::WhenFull,
    format::{DATA_START, record_size},
    shared::{NoRoom, Shared},
    writer::Writer,
};

/// Bytes that groups leave free on the file system, whatever the settings: without a place for positions and
/// checkpoints a full log would stay full.
const HEADROOM: u64 = 256 << 10;
/// After so many written bytes the writer looks again how much room the file system has.
const LOOK_BYTES: u64 = 16 << 20;

/// Why there is no room.
enum Full {
    Log { held: u64 },
    Disk { free: u64, keep: u64 },
}

impl Writer {
    /// The batch's length, if there is room for it behind `before` bytes of the same group.
    pub(super) fn admit(&mut self, bytes: &Bytes, before: u64) -> Result<u32, CommitError> {
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
                self.has_room_again();
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
        state.troubles.full = Some(NoRoom { why, bytes: size });
        Err(error)
    }

    /// Says so where what was refused last would find room by now, though nobody sends it again.
    pub(super) fn look_for_room(&mut self) {
        let Some(bytes) = self.shared.state.lock().troubles.full.as_ref().map(|full| full.bytes) else {
            return;
        };
        self.let_passed_go();
        if self.room_for(bytes).is_ok() {
            self.has_room_again();
        }
    }

    /// Says so, if it had none.
    fn has_room_again(&self) {
        if self.shared.state.lock().troubles.full.take().is_some() {
            tracing::info!(dir = %self.shared.paths.dir.display(), "the span log has room again");
        }
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
                self.let_passed_go();
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

    /// Removes what everyone has passed, the segment that is written too.
    fn let_passed_go(&mut self) {
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

    fn remove_first(&self, number: u64) -> bool {
        if let Err(error) = self.remove(number) {
            self.shared.state.lock().stats.write_errors += 1;
            tracing::warn!(segment = number, %error, "a segment of the span log cannot be removed");
            return false;
        }
        let synced = match self.is_power() {
            // In order: an old segment that came back without those behind it would look like damage.
            true => self.shared.disk.sync_dir(&self.shared.paths.segments()),
            false => Ok(()),
        };
        let mut state = self.shared.state.lock();
        state.stats.sync_errors += u64::from(synced.is_err());
        state.segments.pop_front_if(|first| first.number == number);
        true
    }
}
