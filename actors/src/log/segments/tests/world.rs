//! A log on a simulated disk beside a plain account of what it was given, which it is held against.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::super::{
    Advance, DeadLetter, DestinationId, DestinationLedger, LogDestination, LogReader, Ordinal, ReadError,
    ReadLimit, ReadRequest, Record, Restored, SegmentLogConfig, StartAt, WhenFull, format::DATA_START,
    testing::Inline,
};
use crate::log::{
    Append, Committed, DropReason, Durability, LogFuture, SpanLedger, SpanLog as _,
    disk::sim::{Effect, SimDisk, Trigger},
};

pub(super) const WIDE: ReadLimit = ReadLimit { spans: u64::MAX, bytes: usize::MAX };
/// Shows each operation of a failing case, where `NYX_MODEL_TRACE` is set.
macro_rules! trace {
    ($($what:tt)*) => {
        if *TRACE {
            println!($($what)*);
        }
    };
}

static TRACE: LazyLock<bool> = LazyLock::new(|| std::env::var_os("NYX_MODEL_TRACE").is_some());

pub(super) const DIR: &str = "/var/log";

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// In order.
    Close,
    /// It is killed.
    Kill,
    /// The power goes; by this seed.
    Power(u64),
    /// In order, and then the power goes.
    CloseAndPower(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Batch {
    spans: u32,
    bytes: Bytes,
}

impl Batch {
    fn is(&self, record: &Record) -> bool {
        (self.spans, &self.bytes) == (record.spans, &record.bytes)
    }
}

#[derive(Debug, Clone)]
struct Destination {
    ledger: DestinationLedger,
    /// What a file may say of it: the last that was surely written, and what came later. `None` is no file.
    possible: Vec<Option<DestinationLedger>>,
    /// What the file may still say on the device, where a sync has failed in an earlier process.
    doubtful: Vec<Option<DestinationLedger>>,
    /// It was away, or lost its place: the log need not have kept what it has not had.
    adrift: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Checkpoint {
    position: Ordinal,
    bytes: Bytes,
    boot: u8,
}

pub(super) struct World {
    pub(super) disk: SimDisk,
    pub(super) config: SegmentLogConfig,
    log: Option<Inline>,
    /// The start of the machine.
    boot: u8,
    /// Every batch that has ordinals, by the first.
    batches: BTreeMap<Ordinal, Batch>,
    /// Every batch, whatever became of it.
    given: Vec<Batch>,
    /// Those that were refused and turned up in the page cache, from where no sync may write them.
    unpromised: BTreeSet<Ordinal>,
    /// Batches that were refused: they may turn up after a crash, behind everything else.
    refused: Vec<Batch>,
    destinations: BTreeMap<String, Destination>,
    /// Those that were not configured the last time.
    removed: BTreeMap<String, Vec<Option<DestinationLedger>>>,
    letters: BTreeMap<(String, Ordinal), DeadLetter>,
    /// What the file may hold: the last one that was surely stored, and those behind it.
    checkpoints: Vec<Option<Checkpoint>>,
    /// All that it may ever have held.
    ever: Vec<Option<Checkpoint>>,
    /// Counting began anew, and no checkpoint was stored since.
    anew: bool,
    pub(super) counted: Ordinal,
    next_batch: u64,
    start: Ordinal,
    /// Behind the last ordinal that anybody was ever told.
    told: Ordinal,
    bytes_at_open: usize,
    /// The end at the last end in order.
    closed_at: Option<Ordinal>,
    evicted: u64,
    /// They could at some time.
    was_faulty: bool,
    /// Faults that were planned for one process strike the next one, too.
    pub(super) keeps_faults: bool,
    /// Faults of any kind may strike.
    pub(super) faulty: bool,
    /// A sync has failed, so that pages may be in the cache that no sync will write.
    pub(super) unsyncable: bool,
    /// A power cut has taken what was acknowledged: there are holes.
    holes: bool,
}

/// What an inline log answers at once; `None` where it waits for the disk.
pub(super) fn now<T>(mut future: LogFuture<T>) -> Option<T> {
    // It may look at the clock.
    static RUNTIME: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap());
    let _entered = RUNTIME.enter();
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

/// The letter of a span is always the same, as its destination would refuse it again.
fn letter(name: &str, ordinal: Ordinal) -> DeadLetter {
    DeadLetter {
        ordinal,
        reason: DropReason::Invalid,
        message: format!("{name} does not take {ordinal}"),
        bytes: Bytes::from(vec![ordinal as u8; (ordinal % 40) as usize]),
    }
}

impl World {
    pub(super) fn new(config: SegmentLogConfig) -> Self {
        Self::new_on(config, |_| {})
    }

    /// One whose disk was prepared.
    pub(super) fn new_on(config: SegmentLogConfig, before: impl FnOnce(&SimDisk)) -> Self {
        let mut world = Self {
            disk: SimDisk::with_dir(DIR),
            config,
            log: None,
            boot: 0,
            batches: BTreeMap::new(),
            given: Vec::new(),
            unpromised: BTreeSet::new(),
            refused: Vec::new(),
            destinations: BTreeMap::new(),
            removed: BTreeMap::new(),
            letters: BTreeMap::new(),
            checkpoints: vec![None],
            ever: vec![None],
            anew: false,
            counted: 0,
            next_batch: 0,
            start: 0,
            told: 0,
            bytes_at_open: 0,
            closed_at: None,
            evicted: 0,
            was_faulty: false,
            keeps_faults: false,
            faulty: false,
            unsyncable: false,
            holes: false,
        };
        before(&world.disk);
        world.log = Some(loop {
            match Inline::open_in(Arc::new(world.disk.clone()), &world.config, [0; 16]) {
                _ if world.disk.is_dead() => world.disk = world.disk.crash_process(),
                Ok(log) => break log,
                Err(_) => world.disk.heal(),
            }
        });
        for LogDestination { name, .. } in world.config.destinations.clone() {
            let ledger = DestinationLedger::default();
            world
                .destinations
                .insert(name, Destination { ledger, possible: vec![None], doubtful: vec![], adrift: false });
        }
        world.opened(true, Clean::No, false);
        world
    }

    pub(super) fn log(&self) -> &Inline {
        self.log.as_ref().expect("the log is open")
    }

    pub(super) fn end(&self) -> Ordinal {
        self.log().log.end()
    }

    pub(super) fn start(&self) -> Ordinal {
        self.start
    }

    pub(super) fn torn_bytes(&self) -> u64 {
        self.log().log.stats().disk.unwrap().torn_bytes
    }

    pub(super) fn name(&self, id: usize) -> String {
        self.config.destinations[id].name.clone()
    }

    pub(super) fn position(&self, id: usize) -> Ordinal {
        self.destinations[&self.name(id)].ledger.position
    }

    fn power(&self) -> bool {
        self.config.durability == Durability::Power
    }

    /// There may be holes. Under `power` also where a batch was refused as no sync succeeded, nor a truncation, and
    /// was yet found in the page cache by the next process.
    fn may_miss(&self) -> bool {
        self.holes || (self.unsyncable && self.power())
    }

    // Operations.

    /// Commits a group of batches of these (bytes, spans); returns how many were taken.
    pub(super) fn commit(&mut self, group: &[(usize, u32)]) -> usize {
        let ledger = Arc::new(SpanLedger::default());
        let before = self.end();
        let mut appends = Vec::new();
        let mut given = Vec::new();
        for &(size, spans) in group {
            self.next_batch += 1;
            let mut bytes: Vec<u8> =
                (0..size).map(|at| (self.next_batch.wrapping_mul(31) as usize + at * 7) as u8).collect();
            for (to, from) in bytes.iter_mut().zip(self.next_batch.to_le_bytes()) {
                *to = from;
            }
            let (reply, told) = oneshot::channel();
            let bytes = Bytes::from(bytes);
            self.given.push(Batch { spans, bytes: bytes.clone() });
            appends.push(Append { bytes: bytes.clone(), pending: ledger.scanned(spans), reply });
            given.push((Batch { spans, bytes }, told));
        }
        let outcome = now(self.log().log.commit(appends)).expect("a commit waits for nothing");
        trace!("  commit {group:?} -> {outcome:?}");
        let (mut end, mut taken) = (before, 0);
        for ((batch, mut told), first) in given.into_iter().zip(&outcome.firsts) {
            match told.try_recv().expect("every batch is answered") {
                Ok(Committed { first: told }) => {
                    assert_eq!((Some(told), told), (*first, end), "ordinals follow each other");
                    assert!(told >= self.told, "ordinal {told} is used again: {} were told", self.told);
                    taken += 1;
                    end += u64::from(batch.spans);
                    self.batches.insert(told, batch);
                }
                Err(_) => {
                    assert_eq!(*first, None);
                    self.refused.push(batch);
                }
            }
        }
        assert_eq!((outcome.end, self.end()), (end, end));
        let counts = ledger.counts();
        assert!(counts.balances() && counts.pending == 0, "{counts:?}");
        assert_eq!(counts.accepted, end - before);
        self.told = self.told.max(end);
        if taken > 0 {
            // From here on nobody may be forgotten.
            for destination in self.destinations.values_mut() {
                destination.possible.retain(Option::is_some);
                if destination.possible.is_empty() {
                    destination.possible.push(Some(destination.ledger.clone()));
                }
            }
        }
        self.after_settle();
        taken
    }

    /// Moves a destination, with letters for these spans.
    pub(super) fn advance(&mut self, id: usize, mut step: Advance, letters: &[Ordinal]) {
        let name = self.name(id);
        for &ordinal in letters {
            let letter = letter(&name, ordinal);
            self.log().log.dead_letter(DestinationId(id), letter.clone());
            self.letters.insert((name.clone(), ordinal), letter);
        }
        if !letters.is_empty() {
            step.dropped.push((DropReason::Invalid, letters.len() as u64));
        }
        let end = self.end();
        let destination = self.destinations.get_mut(&name).unwrap();
        if step.to > destination.ledger.position {
            destination.doubtful.clear();
        }
        destination.ledger.advance(&step, end).unwrap();
        destination.possible.push(Some(destination.ledger.clone()));
        let expected = destination.ledger.clone();
        let ledger = self.log().log.advance(DestinationId(id), &step).unwrap();
        assert_eq!(ledger, expected);
        trace!("  advance {name} {step:?} {letters:?}");
        self.after_settle();
    }

    pub(super) fn checkpoint(&mut self, position: Ordinal) {
        self.counted = position;
        self.next_batch += 1;
        let bytes = Bytes::from(format!("{} before {position}", self.next_batch));
        self.log().log.measured(position);
        let stored = now(self.log().log.checkpoint(position, bytes.clone())).unwrap();
        let checkpoint = Some(Checkpoint { position, bytes, boot: self.boot });
        trace!("  checkpoint {position} -> {stored:?}");
        // One that failed may be there all the same.
        self.anew = false;
        if stored.is_ok() {
            self.checkpoints.clear();
        }
        self.ever.push(checkpoint.clone());
        self.checkpoints.push(checkpoint);
        self.after_settle();
    }

    /// Reads as a destination does.
    pub(super) fn read(&mut self, from: Ordinal, limit: ReadLimit) {
        match now(self.log().log.read(from, limit)) {
            Some(Ok(records)) => {
                assert!(from >= self.start, "{from} was released");
                self.check_read(from, limit, &records);
            }
            Some(Err(ReadError::Released { from: at, start })) => {
                assert!(at == from && from < start && start == self.start, "{from} {start} {}", self.start);
            }
            Some(Err(ReadError::Damaged { from: at, to })) => {
                assert!(self.holes && at == from && to > from, "{from} to {to} are damaged");
            }
            None => assert!(self.faulty, "a read waits for a disk without faults"),
        }
    }

    fn check_read(&self, from: Ordinal, limit: ReadLimit, records: &[Record]) {
        assert_eq!(records.is_empty(), from >= self.end());
        let mut expected = records.first().map_or(from, |first| first.first);
        assert!(expected <= from);
        for record in records {
            assert_eq!(record.first, expected, "a read has a gap");
            assert!(record.end() > from);
            let batch = self.batches.get(&record.first);
            assert!(batch.is_some_and(|batch| batch.is(record)), "{record:?} is not {batch:?}");
            expected = record.end();
        }
        if records.len() > 1 {
            let bytes: usize = records.iter().map(|record| record.bytes.len()).sum();
            assert!(bytes <= limit.bytes && expected - from <= limit.spans);
        }
    }

    /// Reads from the files alone; `None` where they cannot be read for now.
    fn read_files(&self, from: Ordinal) -> Option<Result<Vec<Record>, ReadError>> {
        let (reply, mut answer) = oneshot::channel();
        let inline = self.log();
        let reader = LogReader { shared: Arc::clone(&inline.log.shared) };
        let request = ReadRequest { from, limit: ReadLimit { spans: 7, bytes: 3_000 }, reply };
        reader.handle(request, &mut |work| inline.writer.lock().handle([work]));
        answer.try_recv().unwrap().ok()
    }

    /// All that the files hold.
    fn read_all(&self) -> Option<Vec<Record>> {
        let (mut from, end) = (self.log().log.stats().start, self.end());
        let mut all = Vec::new();
        while from < end {
            match self.read_files(from)? {
                Ok(records) => {
                    assert!(!records.is_empty(), "there is nothing at {from} of {end}");
                    assert_eq!(records[0].first, from);
                    from = records.last().unwrap().end();
                    all.extend(records);
                }
                Err(ReadError::Damaged { to, .. }) => {
                    assert!(self.may_miss(), "{from} to {to} are damaged");
                    assert!(to > from);
                    from = to;
                }
                // Damage that was found gave the writer a turn.
                Err(ReadError::Released { start, .. }) if start > from && self.may_miss() => from = start,
                Err(error) => panic!("{error}"),
            }
        }
        Some(all)
    }

    /// The disk is well from here on.
    pub(super) fn well(&mut self) {
        self.disk.heal();
        self.disk.set_capacity(None);
        self.faulty = false;
    }

    /// Settles everything with a disk that is well, after which nothing is wrong any more.
    pub(super) fn heal(&mut self) {
        self.well();
        for id in 0..self.config.destinations.len() {
            self.catch_up(id);
        }
        if self.config.measured {
            self.checkpoint(self.end());
        }
        assert_eq!(self.commit(&[(20, 2)]), 1, "there is room: {:?}", self.log().log.stats());
        for id in 0..self.config.destinations.len() {
            let position = self.position(id);
            self.advance(id, Advance { to: position + 2, exported: 1, ..Advance::default() }, &[position]);
        }
        if self.config.measured {
            self.checkpoint(self.end());
        }
        if self.start < self.end() {
            self.read_all().expect("a disk without faults is read");
            self.read_files(self.end() - 1).unwrap().unwrap();
        }
        let found = self.log().log.shared.state.lock().troubles.found.clone();
        let mut troubles = self.log().log.troubles();
        if self.may_miss() {
            troubles.retain(|trouble| !found.contains(trouble) && !trouble.contains("damaged"));
        }
        assert_eq!(troubles, [""; 0]);
    }

    pub(super) fn catch_up(&mut self, id: usize) {
        let (position, end) = (self.position(id), self.end());
        let evicted = self.start.clamp(position, end) - position;
        let mut step = Advance { to: end, exported: end - position - evicted, ..Advance::default() };
        if evicted > 0 {
            step.dropped.push((DropReason::Evicted, evicted));
        }
        self.advance(id, step, &[]);
    }

    /// After the writer had a turn: positions are written, unless it says that they are not.
    fn after_settle(&mut self) {
        let settled = self.log().log.shared.state.lock().troubles.settle.is_none();
        if settled && !self.disk.is_dead() {
            for destination in self.destinations.values_mut() {
                destination.possible = destination.doubtful.clone();
                destination.possible.push(Some(destination.ledger.clone()));
            }
        }
        self.check();
    }

    // What always holds.

    fn check(&mut self) {
        let log = Arc::clone(&self.log().log);
        let (stats, end) = (log.stats(), log.end());
        let disk = stats.disk.unwrap();
        assert!(stats.start <= stats.end && stats.end == end, "{stats:?}");
        assert!(stats.start >= self.start, "the start goes back");
        // Where the last segment is to go, another one begins before; and some empty ones may resist removal.
        let max = stats.max_bytes.max(self.bytes_at_open) + 6 * usize::try_from(DATA_START).unwrap();
        assert!(stats.bytes <= max, "{stats:?}");
        if !(self.may_miss()) {
            assert_eq!(disk.damaged_spans, 0);
            let held: u64 = self.batches.range(stats.start..).map(|(_, batch)| u64::from(batch.spans)).sum();
            assert_eq!(held, end - stats.start, "{stats:?}");
            assert_eq!(stats.records, self.batches.range(stats.start..).count(), "{stats:?}");
        }
        let mut letters = 0;
        for (id, LogDestination { name, .. }) in self.config.destinations.iter().enumerate() {
            let Destination { ledger, .. } = &self.destinations[name];
            let found = log.ledger(DestinationId(id)).unwrap();
            assert!(found.balances(), "{found:?}");
            assert_eq!(found, ledger.at_end(end));
            if stats.start > ledger.position.max(self.start) {
                assert_eq!(self.config.when_full, WhenFull::DropOldest, "{name} has not had everything");
                self.evicted += stats.start - ledger.position.max(self.start);
            }
            let found = log.dead_letters(DestinationId(id));
            letters += found.len();
            let found: BTreeMap<_, _> =
                found.into_iter().map(|letter| ((name.clone(), letter.ordinal), letter)).collect();
            let of_name = self.letters.iter().filter(|((of, _), _)| of == name);
            assert_eq!(found, of_name.map(|(key, letter)| (key.clone(), letter.clone())).collect());
        }
        assert_eq!(stats.dead_letters, letters, "a span has one letter");
        assert_eq!(disk.evicted_spans, self.evicted);
        if self.config.when_full == WhenFull::Refuse && self.config.measured {
            let stored =
                self.checkpoints.iter().map(|stored| stored.as_ref().map_or(0, |stored| stored.position));
            assert!(stats.start <= stored.max().unwrap_or(0).max(self.counted), "not yet in a checkpoint");
        }
        self.start = stats.start;
    }

    // The end of a process, and the next one.

    /// Ends the process, and starts the next with these destinations; its start may meet a fault.
    pub(super) fn restart(
        &mut self,
        end: End,
        destinations: Vec<LogDestination>,
        fault: Option<(Trigger, Effect)>,
    ) {
        trace!("  {end:?}, then {destinations:?} {fault:?}");
        let closing = matches!(end, End::Close | End::CloseAndPower(_));
        let log = self.log.take().expect("the log is open");
        if closing {
            log.close();
        }
        let closed = closing && !self.faulty && !self.disk.is_dead();
        if closed {
            for destination in self.destinations.values_mut() {
                destination.possible = destination.doubtful.clone();
                destination.possible.push(Some(destination.ledger.clone()));
            }
        }
        if closing {
            self.closed_at = Some(self.told);
        }
        let died = self.disk.is_dead();
        self.was_faulty |= self.faulty || fault.is_some();
        let lossless = match end {
            End::Close | End::Kill => true,
            End::CloseAndPower(_) => self.power() || (closed && !self.unsyncable),
            End::Power(_) => self.power(),
        };
        self.end_disk(end);
        for LogDestination { name, .. } in &self.config.destinations {
            if destinations.iter().all(|kept| kept.name != *name) {
                let gone = self.destinations.remove(name).unwrap();
                self.removed.insert(name.clone(), gone.possible);
            }
        }
        self.config.destinations = destinations;
        if !self.keeps_faults {
            self.well();
        }
        let planned = fault.map(|(trigger, effect)| self.disk.plan(trigger, effect));
        let mut opens = 0;
        trace!("    {:?}", self.disk.paths());
        loop {
            opens += 1;
            match Inline::open_in(Arc::new(self.disk.clone()), &self.config, [self.boot; 16]) {
                // What cannot be set aside is no error; a process that has ended has ended.
                _ if self.disk.is_dead() => self.end_disk(match end {
                    End::Power(seed) | End::CloseAndPower(seed) if self.power() => End::Power(seed + opens),
                    End::Close | End::Kill | End::Power(_) | End::CloseAndPower(_) => End::Kill,
                }),
                Ok(log) => break self.log = Some(log),
                Err(error) => {
                    assert!(opens < 3 && (planned.is_some() || self.faulty), "cannot open: {error}");
                    self.disk.heal();
                    self.disk.set_capacity(None);
                }
            }
        }
        planned.into_iter().for_each(|fault| self.disk.take_back(fault));
        let clean = match closing {
            true if closed && opens == 1 => Clean::Yes,
            true => Clean::Perhaps,
            false => Clean::No,
        };
        self.opened(lossless, clean, died);
    }

    fn end_disk(&mut self, end: End) {
        match end {
            End::Close | End::Kill => {
                if self.disk.is_dead() {
                    self.disk = self.disk.crash_process();
                }
            }
            End::Power(seed) | End::CloseAndPower(seed) => {
                self.disk = self.disk.crash_power(seed);
                self.boot += 1;
            }
        }
    }

    /// Holds a log that was just opened against what is known.
    fn opened(&mut self, lossless: bool, clean: Clean, died: bool) {
        self.holes |= !lossless;
        self.evicted = 0;
        if !lossless {
            self.checkpoints = self.ever.clone();
        }
        let log = Arc::clone(&self.log().log);
        let stats = log.stats();
        let (start, end) = (stats.start, stats.end);
        trace!("    unsyncable {} unpromised {:?}", self.unsyncable, self.unpromised);
        trace!("    {lossless} {clean:?} {died} {:?} {stats:?}", log.restored());
        self.bytes_at_open = stats.bytes;
        assert!(
            !lossless || self.may_miss() || end >= self.told,
            "the end goes back from {} to {end}",
            self.told
        );
        // Destinations.
        let mut floor = end;
        for (id, LogDestination { name, start: start_at }) in self.config.destinations.iter().enumerate() {
            let found = log.ledger(DestinationId(id)).unwrap();
            assert!(found.balances(), "{found:?}");
            let fresh = DestinationLedger::starting_at(match start_at {
                StartAt::End => end,
                StartAt::Beginning => start,
            });
            let at = |ledger: &DestinationLedger| ledger.at_end(0);
            let known = self.destinations.get(name);
            let added = known.is_none();
            let possible = known
                .map(|known| known.possible.clone())
                .unwrap_or_else(|| self.removed.remove(name).into_iter().flatten().chain([None]).collect());
            let remembered = possible.iter().flatten().any(|ledger| at(ledger) == at(&found));
            let forgotten = (!lossless || possible.contains(&None)) && at(&fresh) == at(&found);
            let any = !lossless || (added && self.holes);
            assert!(any || remembered || forgotten, "{name}: {found:?} is none of {possible:?}");
            let adrift = known.is_some_and(|known| known.adrift) || added || !lossless;
            if !adrift {
                floor = floor.min(found.position);
            }
            let letters = log.dead_letters(DestinationId(id));
            let ordinals: BTreeSet<_> = letters.iter().map(|letter| letter.ordinal).collect();
            assert_eq!(ordinals.len(), letters.len(), "a span has one letter");
            for letter in &letters {
                assert_eq!(self.letters.get(&(name.clone(), letter.ordinal)), Some(letter));
            }
            self.letters.retain(|(of, ordinal), _| {
                let saved = of != name || ordinals.contains(ordinal);
                let passed = lossless && remembered && !added && *ordinal < found.position;
                assert!(saved || !passed, "{name} is at {} without the letter of {ordinal}", found.position);
                saved
            });
            let doubtful = if self.power() && self.unsyncable { possible } else { vec![] };
            let possible = if remembered && !forgotten { vec![] } else { vec![None] };
            let possible = doubtful.iter().cloned().chain(possible).chain([Some(found.clone())]).collect();
            self.destinations.insert(name.clone(), Destination { ledger: found, possible, doubtful, adrift });
        }
        // The metrics.
        let mut complete_from = None;
        match log.restored() {
            Restored::Checkpoint { position, bytes } => {
                let stored =
                    self.checkpoints.iter().flatten().find(|c| c.position == position && c.bytes == bytes);
                let stored = stored.expect("what is restored was stored").clone();
                // The marker's removal may not have come to the device: it is still true where nothing was added.
                let clean = clean != Clean::No || self.closed_at == Some(end);
                assert!(self.power() || stored.boot == self.boot || clean, "the machine was restarted");
                assert!(start <= position, "spans from {position} to {start} are gone");
                // Holes in any but the last segment are found when they are read, and told then.
                complete_from = Some(position).filter(|_| !self.may_miss());
                floor = floor.min(position);
                self.counted = position;
                if !(self.power() && self.unsyncable) {
                    self.checkpoints = vec![Some(stored)];
                }
                assert!(!lossless || !self.anew, "counting has begun anew");
            }
            Restored::Fresh(position) => {
                assert_eq!((position, start), (0, 0));
                assert!(!lossless || self.checkpoints.contains(&None));
                self.counted = 0;
                if self.config.measured && lossless {
                    floor = 0;
                }
                if !(self.power() && self.unsyncable) {
                    self.checkpoints = vec![None];
                }
            }
            Restored::Broken { position, why } => {
                assert_eq!(position, end);
                let proven =
                    |stored: &Checkpoint| self.power() || stored.boot == self.boot || clean == Clean::Yes;
                let breaks = |stored: &Option<Checkpoint>| match stored {
                    None => start > 0,
                    Some(stored) => start > stored.position || !proven(stored),
                };
                assert!(
                    self.anew || self.may_miss() || self.checkpoints.iter().any(breaks),
                    "{why}, and yet the log begins at {start}, with one of {:?}",
                    self.checkpoints
                );
                self.counted = end;
                self.anew = true;
            }
        }
        // Spans.
        if self.config.when_full == WhenFull::Refuse {
            assert!(start <= floor, "spans from {floor} to {start} are gone");
        } else if !died && !self.was_faulty {
            // (A removal may have failed, and taken place.)
            assert!(start <= floor.max(self.start), "spans from {floor} to {start} are gone");
        }
        let mut found = BTreeMap::new();
        let records = self.read_all().expect("a disk without faults is read");
        // Damage that was found gave the writer a turn.
        let start = log.stats().start;
        let mut at = start;
        let mut unpromised = BTreeSet::new();
        for record in records.into_iter().filter(|record| record.first >= start) {
            if at < record.first {
                assert!(complete_from.is_none_or(|from| record.first <= from), "spans at {at} are missing");
            }
            at = record.end();
            let kept = self.batches.get(&record.first).filter(|batch| batch.is(&record));
            // What a power cut took may be given back by none, or be told again.
            let others = if lossless && !self.holes { &self.refused } else { &self.given };
            let batch = kept.or_else(|| others.iter().find(|batch| batch.is(&record)));
            let batch = batch.unwrap_or_else(|| panic!("nobody gave {record:?}")).clone();
            if self.power() && self.unsyncable && (kept.is_none() || self.unpromised.contains(&record.first))
            {
                unpromised.insert(record.first);
            }
            found.insert(record.first, batch);
        }
        assert!(at == end || complete_from.is_none_or(|from| end <= from), "spans at {at} are missing");
        if lossless {
            let promised = |(first, _): &(&Ordinal, &Batch)| {
                !self.unpromised.contains(first) && (!self.may_miss() || **first >= self.start)
            };
            for (first, batch) in self.batches.range(start..).filter(promised) {
                assert_eq!(found.get(first), Some(batch), "spans at {first} are missing");
            }
        }
        self.unpromised = unpromised;
        self.batches.split_off(&start);
        self.batches.extend(found);
        let promised = self.batches.iter().rev().find(|(first, _)| !self.unpromised.contains(first));
        let promised = promised.map_or(0, |(first, batch)| first + u64::from(batch.spans));
        self.told = if self.unpromised.is_empty() { end } else { promised };
        self.start = start;
        let troubles = log.troubles();
        if !(self.may_miss()) {
            assert_eq!(troubles, [""; 0]);
        }
        self.check();
    }
}

/// Whether the process before said that everything is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clean {
    Yes,
    Perhaps,
    No,
}
