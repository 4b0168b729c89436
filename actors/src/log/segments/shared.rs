//! What the log's writer, its readers and its users share.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use super::{
    super::{
        AdvanceError, DeadLetter, DestinationId, DestinationLedger, DiskStats, Ordinal, Restored, disk::Disk,
        letters::KeptLetters, records::Records,
    },
    checkpoint::BootId,
    config::SegmentLogConfig,
    lock::DirLock,
    segment::{Paths, Segment},
};

/// Bytes of recent records that stay in memory for the consumers that keep up.
const CACHE_MAX: usize = 16 << 20;

/// What the log's writer, its readers and its users share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: SegmentLogConfig,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) paths: Paths,
    /// This start of the machine.
    pub(super) boot: Option<BootId>,
    pub(super) restored: Restored,
    pub(super) state: Mutex<State>,
    /// The state's end, readable without its lock.
    pub(super) end: AtomicU64,
    /// A position has moved, and the writer has been told.
    pub(super) dirty: AtomicBool,
    /// Held until the log is closed, or nobody has it any more; `None` in tests on a simulated disk.
    pub(super) lock: Mutex<Option<DirLock>>,
}

#[derive(Debug)]
pub(super) struct State {
    /// Oldest first.
    pub(super) segments: VecDeque<Segment>,
    /// The number of the next segment.
    pub(super) next_number: u64,
    /// The number of the next record.
    pub(super) next_sequence: u64,
    pub(super) end: Ordinal,
    /// Spans before the first segment that somebody was yet to get when the log was opened.
    pub(super) missing: Range<Ordinal>,
    /// Recent records, up to the end.
    pub(super) cache: Records,
    pub(super) destinations: Vec<Destination>,
    /// The id of the next destination that comes: none is used twice.
    pub(super) next_destination: usize,
    /// Destinations that are no longer configured and still have a position file.
    pub(super) leaving: Vec<String>,
    /// What the metrics have counted, and what of it a stored checkpoint includes; `None` where there are no
    /// metrics to wait for.
    pub(super) measured: Option<Measured>,
    pub(super) stats: DiskStats,
    pub(super) troubles: Troubles,
}

#[derive(Debug)]
pub(super) struct Measured {
    pub(super) counted: Ordinal,
    pub(super) stored: Ordinal,
    /// Counting began anew, and no checkpoint was stored since: the one that there may be has no continuation.
    pub(super) anew: bool,
}

#[derive(Debug)]
pub(super) struct Destination {
    pub(super) id: DestinationId,
    pub(super) name: String,
    pub(super) ledger: DestinationLedger,
    /// Its position as a file has it; `None` before the first.
    pub(super) persisted: Option<Ordinal>,
    /// Its position when it was last persisted, or could not be.
    pub(super) settled: Ordinal,
    /// Told when that is next.
    pub(super) settles: Vec<oneshot::Sender<()>>,
    pub(super) letters: Letters,
}

/// The newest dead letters of a destination.
#[derive(Debug, Default)]
pub(super) struct Letters {
    pub(super) kept: KeptLetters,
    /// So many of the newest are in no file yet.
    pub(super) unsaved: usize,
}

/// What is wrong at this moment.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    /// The last write or sync failed.
    pub(super) write: Option<String>,
    /// Positions, dead letters or checkpoints cannot be written.
    pub(super) settle: Option<String>,
    /// A read fails.
    pub(super) read: Option<String>,
    /// The last group was refused for want of room, and there is none yet.
    pub(super) full: Option<NoRoom>,
    /// What was found damaged or missing when the log was opened.
    pub(super) found: Vec<String>,
    /// Damaged spans that it speaks of.
    pub(super) found_spans: u64,
    /// The writer has been at its present work since.
    pub(super) busy_since: Option<Instant>,
}

/// A batch that found no room.
#[derive(Debug)]
pub(super) struct NoRoom {
    pub(super) why: String,
    /// Bytes that its record would have taken.
    pub(super) bytes: u64,
}

impl State {
    /// The first ordinal that is held.
    pub(super) fn start(&self) -> Ordinal {
        self.segments.front().map_or(self.end, |segment| segment.begin.first)
    }

    /// Bytes of all segment files.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }

    /// Everything before it has been passed by everyone, and a restart would know that.
    pub(super) fn passed(&self) -> Ordinal {
        let positions = self.destinations.iter().map(|d| d.persisted.unwrap_or(d.ledger.start));
        let stored = self.measured.as_ref().map(|measured| measured.stored);
        positions.chain(stored).min().unwrap_or(self.end)
    }

    /// Whether a restart knows the log's end by a segment or a position.
    pub(super) fn end_is_kept(&self) -> bool {
        self.end_is_persisted() || self.segments.iter().any(|segment| segment.begun)
    }

    /// Whether it does so without this segment.
    pub(super) fn can_spare(&self, number: u64) -> bool {
        self.end_is_persisted()
            || self.segments.iter().any(|segment| segment.begun && segment.number != number)
    }

    fn end_is_persisted(&self) -> bool {
        self.destinations.iter().any(|destination| destination.persisted == Some(self.end))
    }

    /// Lets go of cached records that everyone has, and of the oldest where there are too many.
    pub(super) fn trim_cache(&mut self) {
        let positions = self.destinations.iter().map(|d| d.ledger.position);
        let counted = self.measured.as_ref().map(|measured| measured.counted);
        let slowest = positions.chain(counted).min().unwrap_or(self.end);
        while self.cache.pop_if(|record| record.end() <= slowest) {}
        while self.cache.bytes() > CACHE_MAX && self.cache.pop_if(|_| true) {}
    }

    /// Lets go of cached records whose segments are gone.
    pub(super) fn trim_cache_to_start(&mut self) {
        let start = self.start();
        while self.cache.pop_if(|record| record.end() <= start) {}
    }

    pub(super) fn destination(&mut self, id: DestinationId) -> Result<&mut Destination, AdvanceError> {
        let found = self.destinations.iter_mut().find(|destination| destination.id == id);
        found.ok_or(AdvanceError::Unknown(id.0))
    }

    pub(super) fn segment(&mut self, number: u64) -> Option<&mut Segment> {
        self.segments.iter_mut().rev().find(|segment| segment.number == number)
    }
}

impl Letters {
    /// Keeps a letter, if there is none of its ordinal.
    pub(super) fn push(&mut self, letter: DeadLetter) {
        let new = self.kept.push(letter);
        self.unsaved = (self.unsaved + usize::from(new)).min(self.kept.len());
    }

    /// Those that are in no file yet.
    pub(super) fn unsaved(&self) -> Vec<DeadLetter> {
        self.kept.iter().skip(self.kept.len() - self.unsaved).cloned().collect()
    }

    /// The letter of this ordinal and those before it are in a file now.
    pub(super) fn saved(&mut self, last: Ordinal) {
        let behind = self.kept.iter().rev().position(|letter| letter.ordinal == last);
        self.unsaved = self.unsaved.min(behind.unwrap_or(self.unsaved));
    }
}
