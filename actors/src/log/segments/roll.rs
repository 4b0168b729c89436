//! Segments as they come: a new one where the last is full or was given up, and those that never held anything go.

use std::io;

use super::{
    super::{
        Restored,
        disk::{DiskFile, write_full},
        unix_now,
    },
    format::{DATA_START, SegmentHeader},
    nanos,
    segment::Segment,
    writer::{Trouble, Writer},
};

/// So many empty segments may resist removal before no further one is begun.
const LEFT_OVER_MAX: usize = 4;

impl Writer {
    /// Removes a segment that has no record.
    pub(super) fn discard_empty(&mut self, number: u64) {
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
    pub(super) fn segment_for_group(&mut self) -> Result<u64, Trouble> {
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
        let synced = self.is_power();
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

    /// Removes a segment's file; that there is none is fine.
    pub(super) fn remove(&self, number: u64) -> io::Result<()> {
        match self.shared.disk.remove(&self.shared.paths.segment(number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}
