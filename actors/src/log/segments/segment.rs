//! What is known of one segment file.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{super::disk::DiskFile, format::DATA_START, walk::Point};

/// A segment knows where records are, this many bytes apart.
pub(super) const INDEX_SPACING: u64 = 64 * 1024;

/// A segment file that is part of the log.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its number; segments are in the order of their numbers.
    pub(super) number: u64,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) key: [u8; 16],
    /// Its first record.
    pub(super) begin: Point,
    /// Bytes of it that count.
    pub(super) length: u64,
    /// The ordinal behind its last span, which is where the next segment begins.
    pub(super) end: u64,
    /// The number of the record behind its last; known of the newest segment alone.
    pub(super) next_sequence: u64,
    /// Whether a restart finds it: its header is there, and durable where that is promised.
    pub(super) begun: bool,
    /// Whether it was synced since it was written to last.
    pub(super) synced: bool,
    /// Records at a distance of [`INDEX_SPACING`] or more, in order.
    index: Vec<Point>,
    /// Where damage was found that has been counted.
    pub(super) damage: BTreeSet<u64>,
}

impl Segment {
    pub(super) fn new(
        number: u64,
        file: Arc<dyn DiskFile>,
        key: [u8; 16],
        sequence: u64,
        first: u64,
    ) -> Self {
        let begin = Point { offset: DATA_START, sequence, first };
        Self {
            number,
            file,
            key,
            begin,
            length: DATA_START,
            end: first,
            next_sequence: sequence,
            begun: true,
            synced: false,
            index: Vec::new(),
            damage: BTreeSet::new(),
        }
    }

    /// Remembers where a record is, if that is worth it.
    pub(super) fn note(&mut self, point: Point) {
        let last = self.index.last().unwrap_or(&self.begin).offset;
        if point.offset >= last.saturating_add(INDEX_SPACING) {
            self.index.push(point);
        }
    }

    /// Forgets where records are from this offset on: they do not count.
    pub(super) fn forget_from(&mut self, offset: u64) {
        self.index.retain(|point| point.offset < offset);
    }

    /// A record at or before the one that holds this ordinal.
    pub(super) fn point_before(&self, ordinal: u64) -> Point {
        let at = self.index.partition_point(|point| point.first <= ordinal);
        at.checked_sub(1).and_then(|at| self.index.get(at)).copied().unwrap_or(self.begin)
    }
}

/// The file name of a segment.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:012}.segment")
}

/// The number in a segment's file name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".segment")?.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// Where the log's files are.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    pub(super) dir: PathBuf,
}

impl Paths {
    /// The folder that the log's is in.
    pub(super) fn above(&self) -> Option<&Path> {
        self.dir.parent().filter(|above| !above.as_os_str().is_empty())
    }

    pub(super) fn segments(&self) -> PathBuf {
        self.dir.join("segments")
    }

    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.segments().join(file_name(number))
    }

    pub(super) fn positions(&self) -> PathBuf {
        self.dir.join("positions")
    }

    pub(super) fn position(&self, destination: &str) -> PathBuf {
        self.positions().join(format!("{destination}.position"))
    }

    pub(super) fn dead_letters(&self) -> PathBuf {
        self.dir.join("dead_letters")
    }

    pub(super) fn letters(&self, destination: &str) -> PathBuf {
        self.dead_letters().join(format!("{destination}.letters"))
    }

    pub(super) fn quarantine(&self) -> PathBuf {
        self.dir.join("quarantine")
    }

    pub(super) fn checkpoint(&self) -> PathBuf {
        self.dir.join("red.checkpoint")
    }

    pub(super) fn clean(&self) -> PathBuf {
        self.dir.join("clean")
    }
}
