//! Folders and names, and what a power cut leaves of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use rand::Rng;

use super::inode::{Inode, Mode};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Folder,
    File(u64),
}

/// A change of names that is not durable yet.
#[derive(Debug, Clone)]
struct NameChange {
    /// What each name stands for now. Of a rename: the new name, then the old one.
    parts: Vec<(PathBuf, Option<Entry>)>,
    /// A failed sync of the folder took it for durable: no later one makes it so.
    lost: bool,
}

impl NameChange {
    fn is_in(&self, dir: &Path) -> bool {
        self.parts.iter().any(|(path, _)| path.parent() == Some(dir))
    }
}

type Names = BTreeMap<PathBuf, Entry>;

fn set(names: &mut Names, path: &Path, entry: Option<Entry>) {
    match entry {
        Some(entry) => names.insert(path.to_owned(), entry),
        None => names.remove(path),
    };
}

/// A file system.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    inodes: BTreeMap<u64, Arc<Inode>>,
    next_inode: u64,
    names: Names,
    durable_names: Names,
    changes: Vec<NameChange>,
    /// Who has a file open: until then its bytes are not free.
    open: BTreeMap<u64, Weak<()>>,
    pub(super) capacity: Option<u64>,
}

/// An open file.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    inode: u64,
    _open: Arc<()>,
}

impl Files {
    fn is_folder(&self, path: &Path) -> bool {
        path.parent().is_none() || self.names.get(path) == Some(&Entry::Folder)
    }

    fn check_parent(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if self.is_folder(parent) => Ok(()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn inode_of(&self, path: &Path) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Entry::File(inode)) => Ok(*inode),
            Some(Entry::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn change(&mut self, parts: Vec<(PathBuf, Option<Entry>)>) {
        for (path, entry) in &parts {
            set(&mut self.names, path, *entry);
        }
        self.changes.push(NameChange { parts, lost: false });
    }

    /// The folders that [`Self::create_dir`] would make.
    pub(super) fn missing(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut missing = Vec::new();
        for path in path.ancestors().filter(|path| !self.is_folder(path)) {
            if self.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            missing.push(path.to_owned());
        }
        missing.reverse();
        Ok(missing)
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        for path in self.missing(path)? {
            self.change(vec![(path, Some(Entry::Folder))]);
        }
        Ok(())
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        if !self.is_folder(dir) {
            let file = self.names.contains_key(dir);
            return Err(if file { io::ErrorKind::NotADirectory } else { io::ErrorKind::NotFound }.into());
        }
        let files = self.paths().into_iter().filter(|path| path.parent() == Some(dir));
        Ok(files.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    /// All files, by name.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let file = |(path, entry): (&PathBuf, &Entry)| matches!(entry, Entry::File(_)).then(|| path.clone());
        self.names.iter().filter_map(file).collect()
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<Handle> {
        self.check_parent(path)?;
        if self.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = self.add(Inode::settled(path, Vec::new()));
        self.change(vec![(path.to_owned(), Some(Entry::File(inode)))]);
        Ok(self.handle(inode))
    }

    fn add(&mut self, inode: Inode) -> u64 {
        let number = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(number, Arc::new(inode));
        number
    }

    pub(super) fn open(&mut self, path: &Path) -> io::Result<Handle> {
        let inode = self.inode_of(path)?;
        Ok(self.handle(inode))
    }

    fn handle(&mut self, inode: u64) -> Handle {
        let open = self.open.get(&inode).and_then(Weak::upgrade).unwrap_or_default();
        self.open.insert(inode, Arc::downgrade(&open));
        Handle { inode, _open: open }
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.inode_of(from)?;
        self.check_parent(to)?;
        if self.names.get(to) == Some(&Entry::Folder) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if from != to {
            self.inode(inode).path = to.to_owned();
            self.change(vec![(to.to_owned(), Some(Entry::File(inode))), (from.to_owned(), None)]);
            self.collect();
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.inode_of(path)?;
        self.change(vec![(path.to_owned(), None)]);
        self.collect();
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.list(dir)?;
        let mut at = 0;
        while let Some(change) = self.changes.get(at) {
            if change.lost || !change.is_in(dir) {
                at += 1;
                continue;
            }
            let change = self.changes.remove(at);
            for (path, entry) in change.parts {
                set(&mut self.durable_names, &path, entry);
                // What the name stood for before is history.
                for earlier in self.changes.iter_mut().take(at) {
                    earlier.parts.retain(|(other, _)| *other != path);
                }
            }
        }
        self.changes.retain(|change| !change.parts.is_empty());
        self.collect();
        Ok(())
    }

    pub(super) fn lose_dir(&mut self, dir: &Path) {
        for change in self.changes.iter_mut().filter(|change| change.is_in(dir)) {
            change.lost = true;
        }
    }

    /// Forgets files that nothing leads to.
    fn collect(&mut self) {
        self.open.retain(|_, open| open.strong_count() > 0);
        let changed = self.changes.iter().flat_map(|change| &change.parts).filter_map(|(_, entry)| *entry);
        let named = self.names.values().chain(self.durable_names.values()).copied();
        let needed: BTreeSet<u64> = changed.chain(named).filter_map(inode_number).collect();
        self.inodes.retain(|number, _| needed.contains(number) || self.open.contains_key(number));
    }

    fn inode(&mut self, number: u64) -> &mut Inode {
        Arc::make_mut(self.inodes.entry(number).or_default())
    }

    fn look(&self, handle: &Handle) -> &Inode {
        &self.inodes[&handle.inode]
    }

    pub(super) fn path(&self, handle: &Handle) -> &Path {
        &self.look(handle).path
    }

    pub(super) fn len(&self, handle: &Handle) -> u64 {
        self.look(handle).cached.len() as u64
    }

    pub(super) fn read(&self, handle: &Handle, buffer: &mut [u8], offset: u64) -> usize {
        let rest = self.look(handle).cached.get(offset as usize..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        length
    }

    /// Writes what there is room for.
    pub(super) fn write(&mut self, handle: &Handle, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let room = self.free().saturating_add(self.len(handle)).saturating_sub(offset);
        let length = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        if length == 0 && !bytes.is_empty() {
            return Err(super::Errno::NoSpace.error());
        }
        self.inode(handle.inode).write(&bytes[..length], offset as usize);
        Ok(length)
    }

    pub(super) fn truncate(&mut self, handle: &Handle, length: u64) -> io::Result<()> {
        if length > self.len(handle).saturating_add(self.free()) {
            return Err(super::Errno::NoSpace.error());
        }
        self.inode(handle.inode).truncate(length as usize);
        Ok(())
    }

    pub(super) fn sync(&mut self, handle: &Handle) {
        self.inode(handle.inode).sync();
    }

    pub(super) fn lose(&mut self, handle: &Handle) {
        self.inode(handle.inode).lose();
    }

    /// Bytes of all files that have a name or are open.
    pub(super) fn used(&self) -> u64 {
        let open = self.open.iter().filter(|(_, open)| open.strong_count() > 0).map(|(number, _)| *number);
        let held: BTreeSet<u64> = self.names.values().copied().filter_map(inode_number).chain(open).collect();
        held.iter().filter_map(|number| self.inodes.get(number)).map(|inode| inode.cached.len() as u64).sum()
    }

    pub(super) fn free(&self) -> u64 {
        self.capacity.unwrap_or(1 << 40).saturating_sub(self.used())
    }

    /// Puts settled contents in place, with the folders above.
    pub(super) fn put(&mut self, path: &Path, bytes: Vec<u8>) {
        let parent = path.parent().unwrap_or(Path::new(""));
        for folder in self.missing(parent).expect("a folder's name is not a file's") {
            self.settle_name(&folder, Some(Entry::Folder));
        }
        let inode = Inode::settled(path, bytes);
        match self.inode_of(path) {
            Ok(number) => {
                *self.inode(number) = inode;
                self.settle_name(path, Some(Entry::File(number)));
            }
            Err(_) => {
                let number = self.add(inode);
                self.settle_name(path, Some(Entry::File(number)));
            }
        }
    }

    pub(super) fn delete(&mut self, path: &Path) {
        self.settle_name(path, None);
        self.collect();
    }

    fn settle_name(&mut self, path: &Path, entry: Option<Entry>) {
        set(&mut self.names, path, entry);
        set(&mut self.durable_names, path, entry);
        for change in &mut self.changes {
            change.parts.retain(|(other, _)| other != path);
        }
        self.changes.retain(|change| !change.parts.is_empty());
    }

    /// The cached contents of a file.
    pub(super) fn contents(&self, path: &Path) -> Option<&[u8]> {
        Some(&self.inodes[&self.inode_of(path).ok()?].cached)
    }

    /// Files whose contents or names a power cut might take, and folders with such names.
    pub(super) fn unsynced(&self) -> BTreeSet<PathBuf> {
        let names = self.changes.iter().flat_map(|change| &change.parts).map(|(path, _)| path.clone());
        let contents = self.names.iter().filter_map(|(path, entry)| {
            let inode = self.inodes.get(&inode_number(*entry)?)?;
            (!inode.is_durable()).then(|| path.clone())
        });
        names.chain(contents).collect()
    }

    pub(super) fn settle(&mut self) {
        for inode in self.inodes.values_mut().filter(|inode| !inode.is_durable()) {
            let inode = Arc::make_mut(inode);
            *inode = Inode::settled(&inode.path, std::mem::take(&mut inode.cached));
        }
        self.durable_names = self.names.clone();
        self.changes.clear();
        self.collect();
    }

    /// Takes what no sync will write out of the page cache: readers then see what the device has.
    pub(super) fn evict(&mut self) {
        for inode in self.inodes.values_mut().filter(|inode| !inode.is_durable()) {
            Arc::make_mut(inode).evict();
        }
    }

    /// What the next process finds.
    pub(super) fn after_process(&self) -> Self {
        let mut files = Self { open: BTreeMap::new(), ..self.clone() };
        files.collect();
        files
    }

    /// What is left when nothing that was not synced was written.
    pub(super) fn after_losing_all(&self) -> Self {
        self.settled(self.durable_names.clone(), |inode| Inode::settled(&inode.path, inode.durable.clone()))
    }

    /// What is left after a power cut.
    pub(super) fn after_power(&self, rng: &mut impl Rng) -> Self {
        let mut names = self.durable_names.clone();
        let mode = Mode::pick(rng);
        let kept = rng.random_range(0..=self.changes.len());
        for (number, change) in self.changes.iter().enumerate() {
            let parts = match mode {
                Mode::Nothing => 0,
                Mode::Everything => change.parts.len(),
                Mode::Prefix => {
                    if number < kept {
                        change.parts.len()
                    } else {
                        0
                    }
                }
                // A rename may leave both names, never none.
                Mode::Each => [0, 0, 1, 2, 2][rng.random_range(0..5)],
            };
            for (path, entry) in change.parts.iter().take(parts) {
                set(&mut names, path, *entry);
            }
        }
        self.settled(names, |inode| inode.cut(rng))
    }

    fn settled(&self, mut names: Names, mut make: impl FnMut(&Inode) -> Inode) -> Self {
        // A name goes with the folder it is in.
        let all = names.clone();
        names.retain(|path, _| {
            let mut above = path.ancestors().skip(1).filter(|path| path.file_name().is_some());
            above.all(|path| all.get(path) == Some(&Entry::Folder))
        });
        let mut inodes = BTreeMap::new();
        for number in names.values().copied().filter_map(inode_number) {
            if let Some(inode) = self.inodes.get(&number).filter(|_| !inodes.contains_key(&number)) {
                inodes.insert(number, Arc::new(make(inode)));
            }
        }
        for (path, entry) in &names {
            if let Some(inode) = inode_number(*entry).and_then(|number| inodes.get_mut(&number)) {
                Arc::make_mut(inode).path.clone_from(path);
            }
        }
        let (next_inode, capacity) = (self.next_inode, self.capacity);
        let durable_names = names.clone();
        Self { inodes, next_inode, names, durable_names, capacity, ..Self::default() }
    }
}

fn inode_number(entry: Entry) -> Option<u64> {
    match entry {
        Entry::Folder => None,
        Entry::File(number) => Some(number),
    }
}
