//! Recovery: which segments there are, where the last one ends, and what of it does not check.
//!
//! Nothing is changed while the folder is read: what is to be set aside or removed is remembered, and done once it is known
//! that the folder can be used.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::Range,
    path::PathBuf,
    sync::Arc,
};

use super::{
    super::{
        DiskStats, Ordinal,
        disk::{Disk, read_full},
    },
    clean,
    format::{DATA_START, RecordHeader, SegmentHeader, SegmentHeaderError},
    open::{OpenError, io_error},
    quarantine::{Quarantine, damaged_bytes},
    segment::{Paths, Segment, file_name, number_of},
    walk::{Point, Step, Walk},
};

/// Bytes that recovery reads at a time.
const BLOCK: usize = 1 << 20;

/// A folder that is being looked at.
pub(super) struct Opening<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) paths: &'a Paths,
    /// What is worth a word in `/health`.
    pub(super) found: Vec<String>,
    pub(super) stats: DiskStats,
    pub(super) quarantine: Quarantine,
    /// What is to be changed once everything was read.
    pub(super) changes: Vec<Change>,
    /// What the process before left of its end.
    pub(super) marker: clean::Marker,
    /// Where counting last began anew, as segments say: no checkpoint before it has a continuation.
    pub(super) anew: Option<Ordinal>,
    /// Whether the newest segment is set aside: nobody knows how far the log went.
    pub(super) newest_lost: bool,
}

/// A change to a folder that is being opened.
pub(super) enum Change {
    /// Keep these bytes in the quarantine, by this name.
    SetAside(String, Vec<u8>),
    /// Move this file of so many bytes to the quarantine, by this name.
    Move(PathBuf, String, u64),
    Remove(PathBuf),
}

impl<'a> Opening<'a> {
    pub(super) fn new(disk: &'a dyn Disk, paths: &'a Paths) -> Result<Self, OpenError> {
        let dir = paths.quarantine();
        let quarantine = Quarantine::open(disk, &dir, false).map_err(io_error("list", &dir))?;
        let path = paths.clean();
        let marker = clean::read(disk, &path).map_err(io_error("read", &path))?;
        if let clean::Marker::OtherVersion(found) = marker {
            return Err(OpenError::Version { file: path, found });
        }
        Ok(Self {
            disk,
            paths,
            found: Vec::new(),
            stats: DiskStats::default(),
            quarantine,
            changes: Vec::new(),
            marker,
            anew: None,
            newest_lost: false,
        })
    }

    /// Where the log ended when it was closed in order, if it was.
    pub(super) fn closed_at(&self) -> Option<Ordinal> {
        match self.marker {
            clean::Marker::Clean(end) => Some(end),
            clean::Marker::Absent | clean::Marker::Damaged | clean::Marker::OtherVersion(_) => None,
        }
    }

    /// The segments, oldest first, and the number of the next one. Only the last is read.
    pub(super) fn segments(&mut self) -> Result<(VecDeque<Segment>, u64), OpenError> {
        let dir = self.paths.segments();
        let names = self.disk.list(&dir).map_err(io_error("list", &dir))?;
        let numbers: BTreeSet<u64> = names.iter().filter_map(|name| number_of(name)).collect();
        let next_number = numbers.last().map_or(1, |last| last + 1);
        let mut segments = VecDeque::new();
        for number in numbers {
            let Some(segment) = self.segment(number)? else { continue };
            // Written by one writer, they are in order; one that is not is none of this log's.
            let before: Option<&mut Segment> = segments.back_mut();
            match before {
                Some(before) if segment.begin.first < before.begin.first => {
                    self.set_segment_aside(number, segment.length, "does not follow the one before it");
                    continue;
                }
                Some(before) => before.end = segment.begin.first,
                None => {}
            }
            segments.push_back(segment);
            self.newest_lost = false;
        }
        if let Some(last) = segments.back_mut() {
            self.recover(last)?;
        }
        Ok((segments, next_number))
    }

    fn segment(&mut self, number: u64) -> Result<Option<Segment>, OpenError> {
        let path = self.paths.segment(number);
        let file = self.disk.open(&path).map_err(io_error("open", &path))?;
        let length = file.len().map_err(io_error("read", &path))?;
        let mut bytes = [0; DATA_START as usize];
        let read = read_full(&*file, &mut bytes, 0).map_err(io_error("read", &path))?;
        match SegmentHeader::decode(bytes.get(..read).unwrap_or_default()) {
            Ok(header) => {
                let mut segment = Segment::new(number, file, header.key, header.sequence, header.first);
                (segment.length, segment.synced) = (length, header.synced);
                if header.anew {
                    self.anew = self.anew.max(Some(header.first));
                }
                Ok(Some(segment))
            }
            Err(SegmentHeaderError::Version(found)) => Err(OpenError::Version { file: path, found }),
            // Made, and the process ended before it had its header: it never held anything.
            Err(SegmentHeaderError::Damaged) if length <= DATA_START => {
                self.changes.push(Change::Remove(path));
                Ok(None)
            }
            Err(SegmentHeaderError::Damaged) => {
                self.set_segment_aside(number, length, "has no header that checks");
                Ok(None)
            }
        }
    }

    /// Moves a whole segment to the quarantine.
    fn set_segment_aside(&mut self, number: u64, length: u64, why: &str) {
        self.changes.push(Change::Move(self.paths.segment(number), file_name(number), length));
        self.newest_lost = true;
        self.say(format!("segment {number} {why}: {length} bytes are in quarantine/"));
    }

    /// Makes the changes that were found to be due.
    pub(super) fn change(&mut self, durable: bool) -> Result<(), OpenError> {
        let names = self.changes.iter().any(|change| !matches!(change, Change::SetAside(..)));
        for change in std::mem::take(&mut self.changes) {
            match change {
                Change::SetAside(name, bytes) => {
                    if let Err(error) = self.quarantine.set_aside(self.disk, &name, &bytes) {
                        tracing::warn!(%error, name, "damaged bytes cannot be set aside");
                    }
                }
                Change::Move(from, name, length) => {
                    let moved = self.quarantine.take(self.disk, &from, &name, length);
                    moved.map_err(io_error("set aside", &from))?;
                }
                Change::Remove(path) => self.disk.remove(&path).map_err(io_error("remove", &path))?,
            }
        }
        // What came back after a power cut would be of another time.
        let dirs = [self.paths.segments(), self.paths.positions(), self.paths.dead_letters()];
        for dir in dirs.iter().filter(|_| durable && names) {
            self.disk.sync_dir(dir).map_err(io_error("sync the folder", dir))?;
        }
        Ok(())
    }

    pub(super) fn say(&mut self, text: String) {
        tracing::error!(dir = %self.paths.dir.display(), "{text}");
        self.found.push(text);
    }

    /// Finds the last segment's end.
    fn recover(&mut self, segment: &mut Segment) -> Result<(), OpenError> {
        let path = self.paths.segment(segment.number);
        let file = Arc::clone(&segment.file);
        let length = segment.length;
        let mut walk = Walk::new(&*file, segment.key, segment.begin, length, Ordinal::MAX, BLOCK);
        let mut kept = segment.begin;
        let mut gap: Option<Gap> = None;
        let mut holes: Vec<Hole> = Vec::new();
        segment.length = DATA_START.min(length);
        while let Some(step) = walk.next().map_err(io_error("read", &path))? {
            let (Step::Record { offset: at, .. } | Step::Bad { from: at, .. }) = step;
            if holes.last().is_some_and(|hole| hole.group_end <= at) {
                // Another group was written behind it: this one was acknowledged.
                self.lost_in(segment, &mut holes);
            }
            match step {
                Step::Record { header, offset, .. } => {
                    let group_end = header.group_end(offset);
                    let whole = group_end <= length;
                    let torn_from = match gap.take() {
                        // A power cut may leave holes in the last group, which nobody was told is kept.
                        Some(gap)
                            if whole
                                && !gap.was_acknowledged(segment, offset)
                                && !walk.was_unreadable()
                                && kept.first >= self.closed_at().unwrap_or_default() =>
                        {
                            let next = (header.first, header.sequence);
                            holes.push(Hole { point: kept, bytes: gap.from..offset, next, group_end });
                            offset
                        }
                        Some(gap) if whole || gap.was_acknowledged(segment, offset) => {
                            self.lost(segment, gap.from..offset, &mut kept, (header.first, header.sequence));
                            offset
                        }
                        Some(gap) => gap.from,
                        None => offset,
                    };
                    // The write of this group came to no end: nobody was told that it is kept.
                    if !whole {
                        self.stats.torn_bytes += length - torn_from;
                        break;
                    }
                    segment.note(Point { offset, sequence: header.sequence, first: header.first });
                    kept = walk.point();
                    segment.length = kept.offset;
                }
                Step::Bad { from, to, header } => {
                    if let Some(header) = header
                        && let Some(gap) = gap.take_if(|gap| gap.was_acknowledged(segment, from))
                    {
                        self.lost(segment, gap.from..from, &mut kept, (header.first, header.sequence));
                    }
                    let gap = gap.get_or_insert(Gap { from, header });
                    if to == length {
                        self.tail(segment, gap, to, &mut kept);
                    }
                }
            }
        }
        if let Some(Hole { point, .. }) = holes.first() {
            kept = *point;
            segment.length = kept.offset;
            segment.forget_from(kept.offset);
            self.cut_off(segment, kept.offset..length);
        }
        segment.end = kept.first;
        segment.next_sequence = kept.sequence;
        Ok(())
    }

    /// Counts holes as damage.
    fn lost_in(&mut self, segment: &mut Segment, holes: &mut Vec<Hole>) {
        for Hole { mut point, bytes, next, .. } in holes.drain(..) {
            self.lost(segment, bytes, &mut point, next);
        }
    }

    /// Counts the end of a segment as torn. The bytes are kept, in case they say anything.
    fn cut_off(&mut self, segment: &Segment, bytes: Range<u64>) {
        self.stats.torn_bytes += bytes.end - bytes.start;
        let aside = self.bytes_aside(segment, bytes);
        if aside > 0 {
            let segment = segment.number;
            tracing::warn!(
                segment,
                bytes = aside,
                "the end of the span log is unreadable: cut off and set aside"
            );
        }
    }

    /// The end of the last segment, which holds no record that checks.
    fn tail(&mut self, segment: &mut Segment, gap: &Gap, to: u64, kept: &mut Point) {
        match gap.header {
            Some(header) if header.group_end(gap.from) > to => self.stats.torn_bytes += to - gap.from,
            // The group is all there, and a process that is killed leaves no holes in it. (Where groups are
            // synced, a power cut may: this one's sync had not come to its end.)
            Some(header) if !segment.synced => {
                let next = (header.end(), header.sequence.saturating_add(1));
                self.lost(segment, gap.from..to, kept, next);
            }
            // A write that came to no end, or a damaged header.
            Some(_) | None => self.cut_off(segment, gap.from..to),
        }
    }

    /// Counts the spans between what is kept and what comes next, by ordinal and sequence.
    fn lost(&mut self, segment: &mut Segment, bytes: Range<u64>, kept: &mut Point, next: (Ordinal, u64)) {
        let spans = next.0.saturating_sub(kept.first);
        if spans == 0 {
            return;
        }
        self.stats.damaged_spans += spans;
        segment.damage.insert(next.0);
        self.bytes_aside(segment, bytes);
        self.say(format!("{spans} spans of segment {} are damaged", segment.number));
        (kept.first, kept.sequence) = next;
    }

    /// Sets a segment's bytes aside that are not all zero; returns how many.
    fn bytes_aside(&mut self, segment: &Segment, bytes: Range<u64>) -> usize {
        let Range { start: from, end: to } = bytes;
        let mut content = vec![0; usize::try_from((to - from).min(64 << 20)).unwrap_or_default()];
        let read = read_full(&*segment.file, &mut content, from).unwrap_or_default();
        content.truncate(read);
        self.aside(&damaged_bytes(segment.number, from), &content)
    }

    /// Sets bytes aside that are not all zero; returns how many.
    pub(super) fn aside(&mut self, name: &str, bytes: &[u8]) -> usize {
        if bytes.iter().all(|byte| *byte == 0) {
            return 0;
        }
        self.changes.push(Change::SetAside(name.to_owned(), bytes.to_vec()));
        bytes.len()
    }
}

/// A damaged place of the last segment that is of its last group, as far as is known.
struct Hole {
    /// What is kept before it.
    point: Point,
    bytes: Range<u64>,
    /// The ordinal and the sequence of the next record.
    next: (Ordinal, u64),
    /// Where the group ends.
    group_end: u64,
}

/// A damaged place of the last segment.
struct Gap {
    from: u64,
    /// The header at its beginning, if that checks.
    header: Option<RecordHeader>,
}

impl Gap {
    /// Whether somebody was told that it is kept, when a header that checks follows at this offset. A process that is
    /// killed leaves no holes in what it wrote; a power cut may, in the last group.
    fn was_acknowledged(&self, segment: &Segment, next: u64) -> bool {
        !segment.synced || self.header.is_some_and(|header| header.group_end(self.from) <= next)
    }
}
