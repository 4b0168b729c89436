//! What a simulated disk was asked, and what goes wrong when.

use std::{
    error, fmt, io,
    ops::Range,
    path::{Path, PathBuf},
};

use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

/// What an operation does. Lengths and settings are not operations: they are neither counted nor failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Only where a folder was missing.
    CreateDir,
    Create,
    Write,
    Sync,
    SyncDir,
    Rename,
    Remove,
    Truncate,
    Open,
    Read,
    List,
    Free,
}

impl Kind {
    /// Those that change something.
    pub(crate) const CHANGES: [Self; 8] = [
        Self::CreateDir,
        Self::Create,
        Self::Write,
        Self::Sync,
        Self::SyncDir,
        Self::Rename,
        Self::Remove,
        Self::Truncate,
    ];
    /// Those that only look.
    pub(crate) const LOOKS: [Self; 4] = [Self::Open, Self::Read, Self::List, Self::Free];
}

/// One operation, as logged when it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operation {
    /// From 0 on, in the order of all operations of the disk.
    pub(crate) number: u64,
    pub(crate) kind: Kind,
    /// The file's present name (that of an open file that was removed: its last).
    pub(crate) path: PathBuf,
    /// The new name, of a rename.
    pub(crate) to: Option<PathBuf>,
    /// Of a read or write; the new length of a truncation.
    pub(crate) offset: u64,
    /// Bytes asked for, of a read or write.
    pub(crate) length: u64,
    /// It took place, if perhaps shortened, and its caller was told so.
    pub(crate) ok: bool,
}

/// Some of the operations.
#[derive(Debug, Clone)]
pub(crate) struct Ops {
    kinds: Vec<Kind>,
    ending: Option<String>,
    containing: Option<String>,
    bytes: Option<Range<u64>>,
}

impl Ops {
    /// Operations of these kinds.
    pub(crate) fn of(kinds: impl IntoIterator<Item = Kind>) -> Self {
        Self { kinds: kinds.into_iter().collect(), ending: None, containing: None, bytes: None }
    }

    /// All that change something.
    pub(crate) fn changes() -> Self {
        Self::of(Kind::CHANGES)
    }

    /// All.
    pub(crate) fn any() -> Self {
        Self::of(Kind::CHANGES.into_iter().chain(Kind::LOOKS))
    }

    /// Of these, those on a path (of a rename: either) that ends like this.
    pub(crate) fn ending(mut self, suffix: &str) -> Self {
        self.ending = Some(suffix.to_owned());
        self
    }

    /// Of these, those on a path (of a rename: either) with this in it.
    pub(crate) fn containing(mut self, part: &str) -> Self {
        self.containing = Some(part.to_owned());
        self
    }

    /// Of these, the reads and writes that touch these bytes of the file. A failing read that begins before
    /// them is shortened instead, as the kernel does it.
    pub(crate) fn touching(mut self, bytes: Range<u64>) -> Self {
        self.bytes = Some(bytes);
        self
    }

    pub(crate) fn matches(&self, operation: &Operation) -> bool {
        let paths = || [Some(&operation.path), operation.to.as_ref()].into_iter().flatten();
        let like = |what: fn(&str, &str) -> bool, part: &Option<String>| match part {
            Some(part) => paths().any(|path| what(&path.to_string_lossy(), part)),
            None => true,
        };
        self.kinds.contains(&operation.kind)
            && like(|path, part| path.ends_with(part), &self.ending)
            && like(|path, part| path.contains(part), &self.containing)
            && self.bytes.as_ref().is_none_or(|bytes| {
                let end = operation.offset + operation.length;
                matches!(operation.kind, Kind::Read | Kind::Write)
                    && operation.offset < bytes.end
                    && bytes.start < end
            })
    }

    /// Every one of them.
    pub(crate) fn always(self) -> Trigger {
        self.when(When::Numbers(0..u64::MAX))
    }

    /// The one with this number among them, counted from 0 from when the fault is planned.
    pub(crate) fn nth(self, number: u64) -> Trigger {
        self.when(When::Numbers(number..number + 1))
    }

    /// Those with these numbers among them (`5..u64::MAX`: from the sixth on).
    pub(crate) fn numbers(self, numbers: Range<u64>) -> Trigger {
        self.when(When::Numbers(numbers))
    }

    /// Each with this probability, by the seed.
    pub(crate) fn chance(self, probability: f64, seed: u64) -> Trigger {
        self.when(When::Chance { probability, rng: Box::new(SmallRng::seed_from_u64(seed)) })
    }

    fn when(self, when: When) -> Trigger {
        Trigger { ops: self, when }
    }
}

/// Which operations a fault meets.
#[derive(Debug, Clone)]
pub(crate) struct Trigger {
    ops: Ops,
    when: When,
}

#[derive(Debug, Clone)]
enum When {
    Numbers(Range<u64>),
    Chance { probability: f64, rng: Box<SmallRng> },
}

/// An error as the operating system names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Errno {
    /// `ENOSPC`, [`io::ErrorKind::StorageFull`].
    NoSpace,
    /// `EIO`, of no named kind.
    Io,
    /// `EROFS`, [`io::ErrorKind::ReadOnlyFilesystem`].
    ReadOnly,
    /// `EACCES`, [`io::ErrorKind::PermissionDenied`].
    Denied,
    /// `EINTR`, [`io::ErrorKind::Interrupted`].
    Interrupted,
}

impl Errno {
    pub(crate) fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::NoSpace => 28,
            Self::Io => 5,
            Self::ReadOnly => 30,
            Self::Denied => 13,
            Self::Interrupted => 4,
        })
    }
}

/// How much of an operation takes place all the same. For other operations than writes, less than
/// [`Done::Whole`] is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    Nothing,
    /// The first bytes of a write.
    Bytes(u64),
    /// The first half of a write.
    Half,
    Whole,
}

impl Done {
    /// Of an operation on so many bytes.
    pub(super) fn of(self, length: u64) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Bytes(bytes) => bytes.min(length),
            Self::Half => length / 2,
            Self::Whole => length,
        }
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It fails and nothing happened; but a failed sync has taken what it was to sync for clean: no later sync
    /// makes it durable.
    Fail(Errno),
    /// It fails and this much happened (of a sync: `Whole` is durable, anything less is as in [`Self::Fail`]).
    FailAfter(Done, Errno),
    /// A write takes, a read gives, at most so many bytes and says so. Other operations go on as ever.
    Short(u64),
    /// The process ends here: this much happens, and from now on every operation fails with [`Dead`] and
    /// changes nothing.
    Die(Done),
    /// It waits until the fault is taken back. Only where another thread takes it back.
    Hold,
}

/// Every operation's error once a fault was [`Effect::Die`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dead;

impl Dead {
    pub(super) fn error() -> io::Error {
        io::Error::other(Self)
    }

    /// Whether this is why.
    pub(crate) fn caused(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

impl fmt::Display for Dead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulated process has ended")
    }
}

impl error::Error for Dead {}

/// A planned fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FaultId(u64);

#[derive(Debug)]
struct Fault {
    id: FaultId,
    trigger: Trigger,
    effect: Effect,
    seen: u64,
    met: u64,
}

impl Fault {
    fn meets(&mut self, operation: &Operation) -> bool {
        if !self.trigger.ops.matches(operation) {
            return false;
        }
        let number = self.seen;
        self.seen += 1;
        let meets = match &mut self.trigger.when {
            When::Numbers(numbers) => numbers.contains(&number),
            When::Chance { probability, rng } => rng.random_bool(*probability),
        };
        self.met += u64::from(meets);
        meets
    }
}

/// What becomes of an operation.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) done: Done,
    /// Told to the caller, whatever was done.
    pub(super) error: Option<io::Error>,
    /// The process ends with it.
    pub(super) dies: bool,
    /// Its place in the log of operations.
    index: usize,
}

impl Turn {
    pub(super) fn whole(&self) -> bool {
        self.done == Done::Whole
    }
}

/// The plan, and the log of operations.
#[derive(Debug, Default)]
pub(super) struct Faults {
    planned: Vec<Fault>,
    next_id: u64,
    next_number: u64,
    pub(super) operations: Vec<Operation>,
    pub(super) dead: bool,
    /// Operations that a [`Effect::Hold`] holds.
    pub(super) waiting: usize,
}

impl Faults {
    pub(super) fn plan(&mut self, trigger: Trigger, effect: Effect) -> FaultId {
        let id = FaultId(self.next_id);
        self.next_id += 1;
        self.planned.push(Fault { id, trigger, effect, seen: 0, met: 0 });
        id
    }

    pub(super) fn take_back(&mut self, id: FaultId) {
        self.planned.retain(|fault| fault.id != id);
    }

    pub(super) fn take_back_all(&mut self) {
        self.planned.clear();
    }

    pub(super) fn is_planned(&self, id: FaultId) -> bool {
        self.planned.iter().any(|fault| fault.id == id)
    }

    pub(super) fn met(&self, id: FaultId) -> u64 {
        self.planned.iter().find(|fault| fault.id == id).map_or(0, |fault| fault.met)
    }

    /// Logs the operation and says what becomes of it: the first planned fault that meets it decides, all count
    /// it. With the fault that holds it, if one does.
    pub(super) fn begin(&mut self, mut operation: Operation) -> (Turn, Option<FaultId>) {
        operation.number = self.next_number;
        self.next_number += 1;
        let mut turn = Turn { done: Done::Whole, error: None, dies: false, index: self.operations.len() };
        let met: Vec<_> =
            self.planned.iter_mut().filter_map(|f| f.meets(&operation).then_some(&*f)).collect();
        let held = met.iter().find(|fault| fault.effect == Effect::Hold).map(|fault| fault.id);
        if let Some(fault) = met.iter().find(|fault| fault.effect != Effect::Hold) {
            let bytes_start = fault.trigger.ops.bytes.as_ref().map(|bytes| bytes.start);
            match fault.effect {
                Effect::Fail(errno) => match bytes_start.filter(|start| operation.offset < *start) {
                    Some(start) if operation.kind == Kind::Read => {
                        turn.done = Done::Bytes(start - operation.offset);
                    }
                    Some(_) | None => (turn.done, turn.error) = (Done::Nothing, Some(errno.error())),
                },
                Effect::FailAfter(done, errno) => (turn.done, turn.error) = (done, Some(errno.error())),
                Effect::Short(bytes) => {
                    if matches!(operation.kind, Kind::Read | Kind::Write) {
                        turn.done = Done::Bytes(bytes);
                    }
                }
                Effect::Die(done) => {
                    (self.dead, turn.dies) = (true, true);
                    (turn.done, turn.error) = (done, Some(Dead::error()));
                }
                Effect::Hold => {}
            }
        }
        self.operations.push(operation);
        (turn, held)
    }

    /// The end of an operation that came to one.
    pub(super) fn end(&mut self, turn: Turn) -> io::Result<()> {
        match turn.error {
            Some(error) => Err(error),
            None => {
                if let Some(operation) = self.operations.get_mut(turn.index) {
                    operation.ok = true;
                }
                Ok(())
            }
        }
    }
}

impl Operation {
    pub(super) fn new(kind: Kind, path: &Path) -> Self {
        let path = path.to_owned();
        Self { number: 0, kind, path, to: None, offset: 0, length: 0, ok: false }
    }
}
