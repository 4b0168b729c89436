//! A file system in memory, for the tests of whatever is to survive the real one's failures.
//!
//! Writes go to a page cache, names to folders in memory; [`DiskFile::sync`] and [`Disk::sync_dir`] make them
//! durable. [`SimDisk::crash_process`] gives what the next process finds, [`SimDisk::crash_power`] what a power
//! cut leaves: each sector, length and name that was not synced is there, or not, or half, in any order. Three
//! things are taken for granted, as on real devices and file systems:
//! - bytes that were not written to stay as they are, whatever becomes of others in the same sector;
//! - a rename leaves the old name, the new one, or both, never none;
//! - nothing is written to a device but what was written to the file.
//!
//! And one is not: after a sync that failed, what it was to write counts as clean, so a later sync that succeeds
//! does not make it durable.
//!
//! Everything random follows from seeds. What has been seen to fail comes back with the seed and the same
//! operations.

mod faults;
mod files;
mod inode;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    io::IoSlice,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rand::{SeedableRng as _, rngs::SmallRng, seq::SliceRandom as _};

pub(crate) use faults::{Dead, Done, Effect, Errno, FaultId, Kind, Operation, Ops, Trigger};

use super::{Disk, DiskFile};
use faults::{Faults, Turn};
use files::{Files, Handle};

/// A simulated disk; clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct SimDisk {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// An operation begins to wait, or a fault was taken back.
    held: Condvar,
}

#[derive(Default)]
struct State {
    files: Files,
    faults: Faults,
}

impl State {
    /// Ends the turn, for an operation without a value.
    fn end(&mut self, turn: Turn) -> io::Result<()> {
        self.faults.end(turn)
    }
}

impl SimDisk {
    /// An empty one without an end and without faults.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// One with this folder, durably.
    pub(crate) fn with_dir(dir: impl AsRef<Path>) -> Self {
        let disk = Self::new();
        disk.state().files.create_dir(dir.as_ref()).unwrap();
        disk.settle();
        disk
    }

    fn of(files: Files) -> Self {
        let state = Mutex::new(State { files, faults: Faults::default() });
        Self { shared: Arc::new(Shared { state, held: Condvar::new() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock()
    }

    // Crashes. Each gives a disk of its own, in the same room, without faults and with an empty log of
    // operations; this one goes on as it was.

    /// What the next process finds: everything that was written, by its name. What was not synced still is not.
    pub(crate) fn crash_process(&self) -> Self {
        Self::of(self.state().files.after_process())
    }

    /// What is found after a power cut.
    pub(crate) fn crash_power(&self, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        Self::of(self.state().files.after_power(&mut rng))
    }

    /// What is found after a power cut that took everything that it could.
    pub(crate) fn crash_power_losing_all(&self) -> Self {
        Self::of(self.state().files.after_losing_all())
    }

    // Faults.

    /// Plans a fault. Where several meet an operation, the one planned first decides.
    pub(crate) fn plan(&self, trigger: Trigger, effect: Effect) -> FaultId {
        self.state().faults.plan(trigger, effect)
    }

    /// Takes a fault back.
    pub(crate) fn take_back(&self, fault: FaultId) {
        self.state().faults.take_back(fault);
        self.shared.held.notify_all();
    }

    /// Takes all faults back. The dead stay dead.
    pub(crate) fn heal(&self) {
        self.state().faults.take_back_all();
        self.shared.held.notify_all();
    }

    /// How many operations a planned fault has met.
    pub(crate) fn met(&self, fault: FaultId) -> u64 {
        self.state().faults.met(fault)
    }

    /// Whether an [`Effect::Die`] has happened.
    pub(crate) fn is_dead(&self) -> bool {
        self.state().faults.dead
    }

    /// Blocks until an operation waits by [`Effect::Hold`].
    pub(crate) fn wait_until_held(&self) {
        let mut state = self.state();
        while state.faults.waiting == 0 {
            self.shared.held.wait(&mut state);
        }
    }

    /// Bytes that all files may have together; `None` is without a limit.
    pub(crate) fn set_capacity(&self, bytes: impl Into<Option<u64>>) {
        self.state().files.capacity = bytes.into();
    }

    /// Bytes that all files have together, those that were removed while they are open included.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.state().files.used()
    }

    // The log of operations.

    /// Every operation so far, in order.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.state().faults.operations.clone()
    }

    /// Those of them.
    pub(crate) fn operations_of(&self, ops: &Ops) -> Vec<Operation> {
        self.state().faults.operations.iter().filter(|operation| ops.matches(operation)).cloned().collect()
    }

    /// How many of them there were: after a rehearsal, the numbers for [`Ops::nth`].
    pub(crate) fn count(&self, ops: &Ops) -> u64 {
        self.state().faults.operations.iter().filter(|operation| ops.matches(operation)).count() as u64
    }

    // For tests to look and to damage: neither counted nor failed. What is changed is durable at once.

    /// All files, in the order of their names.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.state().files.paths()
    }

    pub(crate) fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.state().files.contents(path.as_ref()).is_some()
    }

    /// A file's contents.
    pub(crate) fn bytes(&self, path: impl AsRef<Path>) -> Vec<u8> {
        let path = path.as_ref();
        let bytes = self.state().files.contents(path).map(<[u8]>::to_vec);
        bytes.unwrap_or_else(|| panic!("there is no {}", path.display()))
    }

    /// Makes a file with these contents, in place of one that is there; folders as needed.
    pub(crate) fn put(&self, path: impl AsRef<Path>, bytes: impl Into<Vec<u8>>) {
        self.state().files.put(path.as_ref(), bytes.into());
    }

    /// Changes a file's contents.
    pub(crate) fn edit(&self, path: impl AsRef<Path>, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.bytes(&path);
        edit(&mut bytes);
        self.put(path, bytes);
    }

    /// Puts these bytes in place of those at the offset.
    pub(crate) fn overwrite(&self, path: impl AsRef<Path>, offset: usize, new: &[u8]) {
        self.edit(path, |bytes| bytes[offset..offset + new.len()].copy_from_slice(new));
    }

    /// Flips one bit, counted from the file's first.
    pub(crate) fn flip_bit(&self, path: impl AsRef<Path>, bit: usize) {
        self.edit(path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
    }

    pub(crate) fn delete(&self, path: impl AsRef<Path>) {
        self.state().files.delete(path.as_ref());
    }

    pub(crate) fn copy(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) {
        let bytes = self.bytes(from);
        self.put(to, bytes);
    }

    /// Makes everything durable.
    pub(crate) fn settle(&self) {
        self.state().files.settle();
    }

    /// Files and folders whose contents or names a power cut might take.
    pub(crate) fn unsynced(&self) -> Vec<PathBuf> {
        self.state().files.unsynced().into_iter().collect()
    }

    /// Forgets cached pages that no sync will write, as the kernel may after a sync that failed: a reader sees
    /// what the device has.
    pub(crate) fn evict(&self) {
        self.state().files.evict();
    }

    /// Begins an operation: counts it, and learns what becomes of it.
    fn begin(&self, operation: Operation) -> io::Result<(MutexGuard<'_, State>, Turn)> {
        let mut state = self.state();
        if state.faults.dead {
            return Err(Dead::error());
        }
        let (turn, held) = state.faults.begin(operation);
        if let Some(fault) = held {
            state.faults.waiting += 1;
            self.shared.held.notify_all();
            while state.faults.is_planned(fault) {
                self.shared.held.wait(&mut state);
            }
            state.faults.waiting -= 1;
            if state.faults.dead && !turn.dies {
                return Err(Dead::error());
            }
        }
        Ok((state, turn))
    }

    fn file(&self, handle: Handle) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), handle })
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (files, dead) = (self.paths().len(), self.is_dead());
        f.debug_struct("SimDisk").field("files", &files).field("dead", &dead).finish_non_exhaustive()
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        {
            let state = self.state();
            if !state.faults.dead && state.files.missing(path)?.is_empty() {
                return Ok(());
            }
        }
        let (mut state, turn) = self.begin(Operation::new(Kind::CreateDir, path))?;
        if turn.whole() {
            state.files.create_dir(path)?;
        }
        state.end(turn)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let operation = Operation::new(Kind::List, dir);
        let (mut state, turn) = self.begin(operation)?;
        let mut names = if turn.whole() { state.files.list(dir)? } else { Vec::new() };
        // In any order; in the same one at the same point of a run.
        names.shuffle(&mut SmallRng::seed_from_u64(state.faults.operations.len() as u64));
        state.end(turn).map(|()| names)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let (mut state, turn) = self.begin(Operation::new(Kind::Create, path))?;
        let handle = if turn.whole() { Some(state.files.create(path)?) } else { None };
        state.end(turn)?;
        handle.map(|handle| self.file(handle)).ok_or_else(Dead::error)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let (mut state, turn) = self.begin(Operation::new(Kind::Open, path))?;
        let handle = if turn.whole() { Some(state.files.open(path)?) } else { None };
        state.end(turn)?;
        handle.map(|handle| self.file(handle)).ok_or_else(Dead::error)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let operation = Operation { to: Some(to.to_owned()), ..Operation::new(Kind::Rename, from) };
        let (mut state, turn) = self.begin(operation)?;
        if turn.whole() {
            state.files.rename(from, to)?;
        }
        state.end(turn)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (mut state, turn) = self.begin(Operation::new(Kind::Remove, path))?;
        if turn.whole() {
            state.files.remove(path)?;
        }
        state.end(turn)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let (mut state, turn) = self.begin(Operation::new(Kind::SyncDir, dir))?;
        if turn.whole() {
            state.files.sync_dir(dir)?;
        } else if !state.faults.dead {
            state.files.lose_dir(dir);
        }
        state.end(turn)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let (mut state, turn) = self.begin(Operation::new(Kind::Free, dir))?;
        let free = state.files.free();
        state.end(turn).map(|()| free)
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    handle: Handle,
}

impl SimFile {
    fn begin(&self, kind: Kind, offset: u64, length: u64) -> io::Result<(MutexGuard<'_, State>, Turn)> {
        let path = self.disk.state().files.path(&self.handle).to_owned();
        self.disk.begin(Operation { offset, length, ..Operation::new(kind, &path) })
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state();
        if state.faults.dead { Err(Dead::error()) } else { Ok(state.files.len(&self.handle)) }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let (mut state, turn) = self.begin(Kind::Read, offset, buffer.len() as u64)?;
        let wanted = turn.done.of(buffer.len() as u64) as usize;
        let read = state.files.read(&self.handle, &mut buffer[..wanted], offset);
        state.end(turn).map(|()| read)
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let bytes: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.iter().copied()).collect();
        let (mut state, turn) = self.begin(Kind::Write, offset, bytes.len() as u64)?;
        let wanted = turn.done.of(bytes.len() as u64) as usize;
        let written = state.files.write(&self.handle, &bytes[..wanted], offset);
        match written {
            Err(error) if turn.error.is_none() => Err(error),
            written => state.end(turn).and(written),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let (mut state, turn) = self.begin(Kind::Sync, 0, 0)?;
        if turn.whole() {
            state.files.sync(&self.handle);
        } else if !state.faults.dead {
            state.files.lose(&self.handle);
        }
        state.end(turn)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let (mut state, turn) = self.begin(Kind::Truncate, length, 0)?;
        if turn.whole() {
            state.files.truncate(&self.handle, length)?;
        }
        state.end(turn)
    }
}
