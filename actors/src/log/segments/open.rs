//! Opening a folder: what is there, and where everyone stands.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
};

use parking_lot::Mutex;
use thiserror::Error;

use super::{
    super::{
        DestinationLedger, DiskStats, Durability, Ordinal, Restored,
        disk::{Disk, OsDisk, read_full},
        letters::KeptLetters,
        records::Records,
    },
    checkpoint::{self, BootId},
    clean,
    config::{LogDestination, SegmentLogConfig, StartAt, WhenFull},
    dead_letters::{self, LetterFile},
    format::{DATA_START, RecordHeader, SegmentHeader, SegmentHeaderError},
    lock::DirLock,
    positions::{self, PositionFile},
    quarantine::{Quarantine, damaged_bytes},
    segment::{Paths, Segment, file_name, number_of},
    shared::{Destination, Letters, Measured, Shared, State, Troubles},
    walk::{Point, Step, Walk},
};

/// Bytes that recovery reads at a time.
const BLOCK: usize = 1 << 20;

/// A folder cannot be used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A file is of another version of the program.
    #[error("{} has format version {found}: this program reads version 1; use the version that wrote it, or move the folder away", file.display())]
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The file system refuses.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

/// What of a folder nobody has had yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsent {
    /// Spans that the slowest destination has not had.
    pub spans: u64,
    /// Each destination with the spans that it has not had.
    pub destinations: Vec<(String, u64)>,
}

/// A log of segment files that was opened and read, and is not written to yet. Clones are of the same log.
#[derive(Debug, Clone)]
pub struct OpenLog {
    pub(super) shared: Arc<Shared>,
}

impl OpenLog {
    /// Opens the folder. It blocks: recovery reads the last segment, 64 MiB as a rule, and nothing else of the
    /// backlog. The lock is held until the log is closed, or the last clone is gone.
    ///
    /// # Errors
    /// [`OpenError`], and the folder is as it was.
    pub fn open(config: &SegmentLogConfig, lock: DirLock) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(OsDisk), config, Some(lock))
    }

    pub(in crate::log) fn open_on(
        disk: Arc<dyn Disk>,
        config: &SegmentLogConfig,
        lock: Option<DirLock>,
    ) -> Result<Self, OpenError> {
        Self::open_in(disk, config, lock, checkpoint::boot_id())
    }

    /// Opens the folder in this start of the machine.
    pub(in crate::log) fn open_in(
        disk: Arc<dyn Disk>,
        config: &SegmentLogConfig,
        lock: Option<DirLock>,
        boot: Option<BootId>,
    ) -> Result<Self, OpenError> {
        let paths = Paths { dir: config.dir.clone() };
        for dir in
            [paths.dir.clone(), paths.segments(), paths.positions(), paths.dead_letters(), paths.quarantine()]
        {
            disk.create_dir(&dir).map_err(io_error("make the folder", &dir))?;
        }
        if config.durability == Durability::Power {
            let above = paths.dir.parent().filter(|above| !above.as_os_str().is_empty());
            for dir in above.into_iter().chain([&*paths.dir]) {
                disk.sync_dir(dir).map_err(io_error("sync the folder", dir))?;
            }
            sync_found(&*disk, &paths)?;
        }
        let mut opening = Opening::new(&*disk, &paths)?;
        let (segments, next_number) = opening.segments()?;
        let (mut state, restored) = opening.state(config, segments, next_number, boot)?;
        state.troubles.found = std::mem::take(&mut opening.found);
        state.troubles.found_spans = opening.stats.damaged_spans;
        let free_bytes = disk.free_bytes(&paths.segments()).unwrap_or_default();
        state.stats = DiskStats { quarantined_bytes: opening.quarantine.held(), free_bytes, ..opening.stats };
        let end = AtomicU64::new(state.end);
        let shared = Shared {
            config: config.clone(),
            disk: Arc::clone(&disk),
            paths,
            boot,
            restored,
            state: Mutex::new(state),
            end,
            dirty: AtomicBool::new(false),
            lock: Mutex::new(lock),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

/// What the folder's destinations have not had; `None` where it has no log, or nobody misses anything.
///
/// # Errors
/// [`OpenError`] where it cannot be read.
pub fn unsent(dir: &Path) -> Result<Option<Unsent>, OpenError> {
    unsent_on(&OsDisk, dir)
}

pub(in crate::log) fn unsent_on(disk: &dyn Disk, dir: &Path) -> Result<Option<Unsent>, OpenError> {
    let paths = Paths { dir: dir.to_owned() };
    match disk.list(&paths.segments()) {
        Ok(names) if names.iter().any(|name| number_of(name).is_some()) => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("list", &paths.segments())(error)),
    }
    let mut opening = Opening::new(disk, &paths)?;
    let (segments, _) = opening.segments()?;
    let end = segments.back().map_or(0, |last| last.end);
    let mut destinations = Vec::new();
    for name in opening.known_destinations()? {
        let path = paths.position(&name);
        let found = PositionFile::open(disk, &path, false).map_err(io_error("read", &path))?;
        let position = match found {
            positions::Found::Read { ledger, .. } => ledger.position,
            // It would begin with the first span that is there.
            positions::Found::Damaged(_) => segments.front().map_or(end, |first| first.begin.first),
            positions::Found::Absent => continue,
            positions::Found::OtherVersion(found) => return Err(OpenError::Version { file: path, found }),
        };
        destinations.push((name, end.saturating_sub(position)));
    }
    let spans = destinations.iter().map(|(_, spans)| *spans).max().unwrap_or_default();
    Ok((spans > 0).then_some(Unsent { spans, destinations }))
}

/// Makes durable what a process that was killed may have left in the page cache: what is built upon from here on
/// must not go while that stays.
fn sync_found(disk: &dyn Disk, paths: &Paths) -> Result<(), OpenError> {
    for dir in [paths.segments(), paths.positions(), paths.dead_letters()] {
        let mut names = disk.list(&dir).map_err(io_error("list", &dir))?;
        if dir == paths.segments() {
            // Those before the last were synced, or were never acknowledged and do not count.
            let last = names.iter().filter_map(|name| number_of(name)).max();
            names.retain(|name| number_of(name).is_some_and(|number| Some(number) == last));
        }
        for path in names.iter().map(|name| dir.join(name)) {
            disk.open(&path).and_then(|file| file.sync()).map_err(io_error("sync", &path))?;
        }
        disk.sync_dir(&dir).map_err(io_error("sync the folder", &dir))?;
    }
    Ok(())
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { what, path, source }
}

/// A folder that is being looked at.
struct Opening<'a> {
    disk: &'a dyn Disk,
    paths: &'a Paths,
    /// What is worth a word in `/health`.
    found: Vec<String>,
    stats: DiskStats,
    quarantine: Quarantine,
    /// What is to be changed once everything was read.
    changes: Vec<Change>,
    /// Where the log ended when it was closed in order, if it was.
    closed_at: Option<Ordinal>,
    /// Where counting last began anew, as segments say: no checkpoint before it has a continuation.
    anew: Option<Ordinal>,
    /// Whether the newest segment is set aside: nobody knows how far the log went.
    newest_lost: bool,
}

/// A change to a folder that is being opened.
enum Change {
    /// Keep these bytes in the quarantine, by this name.
    SetAside(String, Vec<u8>),
    /// Move this file of so many bytes to the quarantine, by this name.
    Move(PathBuf, String, u64),
    Remove(PathBuf),
}

impl<'a> Opening<'a> {
    fn new(disk: &'a dyn Disk, paths: &'a Paths) -> Result<Self, OpenError> {
        let dir = paths.quarantine();
        let quarantine = Quarantine::open(disk, &dir, false).map_err(io_error("list", &dir))?;
        let marker = paths.clean();
        let closed_at = match clean::read(disk, &marker).map_err(io_error("read", &marker))? {
            clean::Taken::Clean(end) => Some(end),
            clean::Taken::OtherVersion(found) => return Err(OpenError::Version { file: marker, found }),
            clean::Taken::Absent | clean::Taken::Damaged => None,
        };
        Ok(Self {
            disk,
            paths,
            found: Vec::new(),
            stats: DiskStats::default(),
            quarantine,
            changes: Vec::new(),
            closed_at,
            anew: None,
            newest_lost: false,
        })
    }

    /// The segments, oldest first, and the number of the next one. Only the last is read.
    fn segments(&mut self) -> Result<(VecDeque<Segment>, u64), OpenError> {
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
    fn change(&mut self, durable: bool) -> Result<(), OpenError> {
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

    fn say(&mut self, text: String) {
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
                                && kept.first >= self.closed_at.unwrap_or_default() =>
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
    fn aside(&mut self, name: &str, bytes: &[u8]) -> usize {
        if bytes.iter().all(|byte| *byte == 0) {
            return 0;
        }
        self.changes.push(Change::SetAside(name.to_owned(), bytes.to_vec()));
        bytes.len()
    }

    fn known_destinations(&self) -> Result<Vec<String>, OpenError> {
        let dir = self.paths.positions();
        let names = match self.disk.list(&dir) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(io_error("list", &dir)(error)),
        };
        let mut known: Vec<_> =
            names.iter().filter_map(|name| name.strip_suffix(".position")).map(str::to_owned).collect();
        known.sort_unstable();
        Ok(known)
    }

    /// A destination's ledger, as its file has it: `Err` of nothing where the file is damaged.
    fn position(&mut self, name: &str) -> Result<Known, OpenError> {
        let path = self.paths.position(name);
        match PositionFile::open(self.disk, &path, false).map_err(io_error("read", &path))? {
            positions::Found::Read { ledger, fell_back, .. } => {
                if fell_back {
                    tracing::warn!(
                        destination = name,
                        "the last step of a position is unreadable: a part is delivered again"
                    );
                }
                Ok(Known::At(ledger))
            }
            positions::Found::Absent => Ok(Known::No),
            positions::Found::OtherVersion(found) => Err(OpenError::Version { file: path, found }),
            positions::Found::Damaged(bytes) => {
                // It stays until the writer replaces it: a destination that no file knows would begin at the end.
                self.aside(&format!("{name}.position"), &bytes);
                self.say(format!(
                    "the position of {name} is damaged: it begins with the first span that the log holds"
                ));
                Ok(Known::Forgotten)
            }
        }
    }

    /// The dead letters that a destination's file has.
    fn letters(&mut self, name: &str) -> Result<KeptLetters, OpenError> {
        let path = self.paths.letters(name);
        match LetterFile::open(self.disk, &path).map_err(io_error("read", &path))? {
            dead_letters::Found::Absent => Ok(KeptLetters::default()),
            dead_letters::Found::OtherVersion(found) => Err(OpenError::Version { file: path, found }),
            dead_letters::Found::Read { letters, bad, .. } if bad.is_empty() => Ok(letters),
            dead_letters::Found::Read { letters, bad, .. } => {
                // The end of a write that a crash cut off is no news.
                self.aside(&format!("{name}.letters"), &bad);
                Ok(letters)
            }
            dead_letters::Found::Damaged(bytes) => {
                self.aside(&format!("{name}.letters"), &bytes);
                self.say(format!("the dead letters of {name} are damaged: they are in quarantine/"));
                self.changes.push(Change::Remove(path));
                Ok(KeptLetters::default())
            }
        }
    }

    /// Everyone's place, and where the log ends: behind everything that anybody ever counted, so that no ordinal
    /// is used twice.
    fn state(
        &mut self,
        config: &SegmentLogConfig,
        mut segments: VecDeque<Segment>,
        next_number: u64,
        boot: Option<BootId>,
    ) -> Result<(State, Restored), OpenError> {
        let recovered = segments.back().map_or(0, |last| last.end);
        let next_sequence = segments.back().map_or(0, |last| last.next_sequence);
        let mut end = recovered;
        let mut removed = Vec::new();
        for name in self.known_destinations()? {
            if config.destinations.iter().any(|destination| destination.name == name) {
                continue;
            }
            match self.position(&name)? {
                Known::At(ledger) => {
                    end = end.max(ledger.position);
                    removed.push((name, ledger));
                }
                Known::Forgotten => self.changes.push(Change::Remove(self.paths.position(&name))),
                Known::No => {}
            }
        }
        let mut known = Vec::new();
        for LogDestination { name, .. } in &config.destinations {
            let position = self.position(name)?;
            if let Known::At(ledger) = &position {
                end = end.max(ledger.position);
            }
            let letters = self.letters(name)?;
            end = letters.iter().map(|letter| letter.ordinal.saturating_add(1)).fold(end, Ordinal::max);
            known.push((position, letters));
        }
        // How far the log has come as far as files tell that stay.
        let mut anchor = known.iter().fold(recovered, |anchor, (position, _)| match position {
            Known::At(ledger) => anchor.max(ledger.position),
            Known::No | Known::Forgotten => anchor,
        });
        let checkpoint = checkpoint::read(self.disk, &self.paths.checkpoint())
            .map_err(io_error("read", &self.paths.checkpoint()))?;
        if let checkpoint::Found::Read(frame) = &checkpoint {
            end = end.max(frame.position);
            anchor = anchor.max(frame.position);
        }
        if let checkpoint::Found::Damaged(bytes) = &checkpoint {
            self.aside("red.checkpoint", bytes);
        }
        if let checkpoint::Found::OtherVersion(found) = checkpoint {
            return Err(OpenError::Version { file: self.paths.checkpoint(), found });
        }
        // What was behind the last readable record and is known to somebody.
        if let Some(last) = segments.back_mut().filter(|last| last.end < end) {
            last.end = end;
            // Counted below.
            last.damage.insert(end);
        }
        let start = segments.front().map_or(end, |first| first.begin.first);
        let destinations: Vec<Destination> = config
            .destinations
            .iter()
            .zip(known)
            .map(|(LogDestination { name, start: start_at }, (position, letters))| {
                let (ledger, persisted) = match (position, start_at) {
                    (Known::At(ledger), _) => {
                        let persisted = ledger.position;
                        (ledger, Some(persisted))
                    }
                    (Known::Forgotten, _) | (Known::No, StartAt::Beginning) => {
                        (DestinationLedger::starting_at(start), None)
                    }
                    (Known::No, StartAt::End) => (DestinationLedger::starting_at(end), None),
                };
                let letters = Letters { kept: letters, unsaved: 0 };
                let settled = ledger.position;
                Destination { name: name.clone(), ledger, persisted, settled, settles: Vec::new(), letters }
            })
            .collect();
        let waiting = destinations.iter().map(|destination| destination.ledger.position).min();
        let lost = end - recovered.max(waiting.unwrap_or(end)).min(end);
        if lost > 0 && !segments.is_empty() {
            self.stats.damaged_spans += lost;
            self.say(format!("{lost} spans at the end of the log are lost: they never reached the disk"));
        }
        let missing = waiting.filter(|_| config.when_full == WhenFull::Refuse).map(|waiting| waiting..start);
        let missing = missing.unwrap_or_default();
        if !missing.is_empty() {
            let spans = missing.end - missing.start;
            self.stats.damaged_spans += spans;
            self.say(format!("{spans} spans at the beginning of the log are missing"));
        }
        let path = self.paths.clean();
        let clean = clean::take(self.disk, &path).map_err(io_error("take", &path))?;
        if let clean::Taken::OtherVersion(found) = clean {
            return Err(OpenError::Version { file: path, found });
        }
        let clean = matches!(clean, clean::Taken::Clean(at) if at == end);
        let gap = (end > recovered && !segments.is_empty()).then_some(end);
        let damaged = segments.back().and_then(|last| last.damage.last().copied()).max(gap).max(self.anew);
        let damaged = if self.newest_lost { Some(Ordinal::MAX) } else { damaged };
        let restored = restored(&checkpoint, start, end, damaged, clean, boot);
        let counted = match &restored {
            Restored::Fresh(position)
            | Restored::Checkpoint { position, .. }
            | Restored::Broken { position, .. } => *position,
        };
        let mut leaving = Vec::new();
        for (name, ledger) in removed {
            let queued = ledger.at_end(end).queued();
            tracing::info!(
                destination = name,
                position = ledger.position,
                queued,
                "a destination is no longer configured: the log does not keep its spans"
            );
            match ledger.position <= anchor {
                true => self.changes.push(Change::Remove(self.paths.position(&name))),
                // Another file has to tell first how far the log has come.
                false => leaving.push(name),
            }
        }
        self.change(config.durability == Durability::Power)?;
        let state = State {
            segments,
            next_number,
            next_sequence,
            end,
            missing,
            cache: Records::default(),
            destinations,
            leaving,
            measured: config.measured.then(|| {
                let anew = matches!(restored, Restored::Broken { .. });
                Measured { counted, stored: counted, anew }
            }),
            stats: DiskStats::default(),
            troubles: Troubles::default(),
        };
        Ok((state, restored))
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

/// What a file says of a destination.
enum Known {
    At(DestinationLedger),
    No,
    /// It was there, and its file is damaged.
    Forgotten,
}

/// Whether the checkpoint and the log together tell what was counted.
fn restored(
    checkpoint: &checkpoint::Found,
    start: Ordinal,
    end: Ordinal,
    damaged: Option<Ordinal>,
    clean: bool,
    boot: Option<BootId>,
) -> Restored {
    let broken = |why: String| Restored::Broken { position: end, why };
    match checkpoint {
        // The log has everything that there ever was.
        checkpoint::Found::Absent if start == 0 && damaged.is_none() => Restored::Fresh(0),
        checkpoint::Found::Absent => broken("there is no checkpoint".to_owned()),
        checkpoint::Found::Damaged(_) | checkpoint::Found::OtherVersion(_) => {
            broken("the checkpoint is damaged".to_owned())
        }
        checkpoint::Found::Read(frame) => {
            let same_boot = frame.boot.is_some() && frame.boot == boot;
            let synced = frame.durability == Durability::Power;
            if frame.position < start {
                broken(format!("the log begins at {start}, behind the checkpoint at {}", frame.position))
            } else if damaged.is_some_and(|damaged| damaged > frame.position) {
                broken(format!("spans behind the checkpoint at {} are damaged or lost", frame.position))
            } else if !(synced || same_boot || clean) {
                broken("the machine was restarted, and log.durability was not \"power\"".to_owned())
            } else {
                Restored::Checkpoint { position: frame.position, bytes: frame.bytes.clone() }
            }
        }
    }
}
