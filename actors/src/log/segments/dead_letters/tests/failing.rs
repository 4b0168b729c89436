use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::*;

/// A device on which the first write stops in the middle, and the first sync fails.
#[derive(Debug, Default)]
struct Failing {
    inner: Option<Arc<dyn DiskFile>>,
    writes: AtomicU32,
    syncs: AtomicU32,
}

impl Failing {
    fn inner(&self) -> &dyn DiskFile {
        &**self.inner.as_ref().unwrap()
    }
}

impl DiskFile for Failing {
    fn len(&self) -> io::Result<u64> {
        self.inner().len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner().read_at(buffer, offset)
    }

    fn write_at(&self, buffers: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        match self.writes.fetch_add(1, Relaxed) {
            0 => self.inner().write_at(&[io::IoSlice::new(&buffers[0][..buffers[0].len() - 3])], offset),
            1 => Err(io::ErrorKind::StorageFull.into()),
            _ => self.inner().write_at(buffers, offset),
        }
    }

    fn sync(&self) -> io::Result<()> {
        match self.syncs.fetch_add(1, Relaxed) {
            0 => Err(io::Error::from_raw_os_error(5)),
            _ => self.inner().sync(),
        }
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.inner().truncate(length)
    }
}

#[test]
fn after_a_failed_append_the_file_is_cut_back_before_the_next() {
    let folder = Folder::new("letters-failed");
    let path = folder.join("a.letters");
    let (mut file, _) = LetterFile::create(&OsDisk, &path, &letters([1]), false).unwrap();
    file.file = Arc::new(Failing { inner: Some(Arc::clone(&file.file)), ..Failing::default() });
    let error = file.append(&letters(2..40)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    file.append(&letters([2])).unwrap();
    let (_, found, bad) = read(&path);
    assert_eq!((found, bad.len()), (letters([1, 2]), 0));
    assert_eq!(std::fs::read(&path).unwrap().len(), written([1, 2]).0.len());
}

#[test]
fn a_file_that_failed_to_sync_is_not_trusted_until_it_is_rewritten() {
    let folder = Folder::new("letters-unsure");
    let path = folder.join("a.letters");
    let (mut file, _) = LetterFile::create(&OsDisk, &path, &letters([1]), true).unwrap();
    file.file = Arc::new(Failing { inner: Some(Arc::clone(&file.file)), ..Failing::default() });
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
    assert!(file.needs_rewrite());
    let error = file.sync().unwrap_err().to_string();
    assert_eq!(error, "the file of dead letters failed to sync, and is to be rewritten first");
    let error = file.append(&letters([2])).unwrap_err().to_string();
    assert_eq!(error, "the file of dead letters is to be rewritten first");
    file.rewrite(&OsDisk, &path, &letters([1]), true).unwrap();
    file.append(&letters([2])).unwrap();
    file.sync().unwrap();
    assert_eq!(read(&path).1, letters([1, 2]));
}
