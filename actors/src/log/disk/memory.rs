//! A disk in memory that does what it is told: for fuzzing, where speed counts and nothing fails.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{Disk, DiskFile};

type Contents = Arc<Mutex<Vec<u8>>>;

/// A disk in memory; clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    files: Arc<Mutex<BTreeMap<PathBuf, Contents>>>,
}

impl MemoryDisk {
    /// Makes a file, in place of one that is there.
    pub fn put(&self, path: impl Into<PathBuf>, bytes: Vec<u8>) {
        self.files.lock().insert(path.into(), Arc::new(Mutex::new(bytes)));
    }

    /// A file's contents.
    pub fn bytes(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        self.files.lock().get(path.as_ref()).map(|contents| contents.lock().clone())
    }

    /// All files, in the order of their names.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.lock().keys().cloned().collect()
    }

    fn find(&self, path: &Path) -> io::Result<Contents> {
        self.files.lock().get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for MemoryDisk {
    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let files = self.files.lock();
        let within = files.keys().filter(|path| path.parent() == Some(dir));
        Ok(within.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        if self.files.lock().contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.put(path, Vec::new());
        self.open(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(MemoryFile(self.find(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let contents = self.find(from)?;
        let mut files = self.files.lock();
        files.remove(from);
        files.insert(to.to_owned(), contents);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.lock().remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

#[derive(Debug)]
struct MemoryFile(Contents);

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let contents = self.0.lock();
        let held = usize::try_from(offset).ok().and_then(|offset| contents.get(offset..)).unwrap_or_default();
        let count = held.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), held.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut contents = self.0.lock();
        let mut at = usize::try_from(offset).map_err(io::Error::other)?;
        let begin = at;
        for buffer in buffers {
            let end = at + buffer.len();
            let length = contents.len().max(end);
            contents.resize(length, 0);
            if let Some(place) = contents.get_mut(at..end) {
                place.copy_from_slice(buffer);
            }
            at = end;
        }
        Ok(at - begin)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.lock().resize(usize::try_from(length).map_err(io::Error::other)?, 0);
        Ok(())
    }
}
