//! Bytes that do not check are set aside in `quarantine/`, for whoever wants to look at them; never read again.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    super::disk::{Disk, DiskFile, write_full},
    files,
};

/// Bytes in the folder at most.
pub(in crate::log) const QUARANTINE_MAX: u64 = 64 << 20;
/// Files in the folder at most.
const FILES_MAX: usize = 1_000;

/// The folder `quarantine/`.
#[derive(Debug)]
pub(in crate::log) struct Quarantine {
    dir: PathBuf,
    held: u64,
    files: usize,
    durable: bool,
}

impl Quarantine {
    /// Counts what is there; the folder is made when it is needed. If `durable`, what is set aside is synced.
    pub(in crate::log) fn open(disk: &dyn Disk, dir: &Path, durable: bool) -> io::Result<Self> {
        let names = match disk.list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let mut held = 0u64;
        for name in &names {
            if let Some(file) = files::open(disk, &dir.join(name))? {
                held = held.saturating_add(file.len()?);
            }
        }
        Ok(Self { dir: dir.to_owned(), held, files: names.len(), durable })
    }

    /// Bytes in the folder.
    pub(in crate::log) fn held(&self) -> u64 {
        self.held
    }

    /// Moves a file of so many bytes here, whatever the bounds, under a name that begins with `name`.
    pub(in crate::log) fn take(
        &mut self,
        disk: &dyn Disk,
        from: &Path,
        name: &str,
        bytes: u64,
    ) -> io::Result<()> {
        disk.create_dir(&self.dir)?;
        let there = disk.list(&self.dir)?;
        let mut names = (0..=there.len()).map(|number| format!("{name}.{number}"));
        let free = names.find(|name| !there.contains(name)).ok_or(io::ErrorKind::AlreadyExists)?;
        disk.rename(from, &self.dir.join(free))?;
        self.held = self.held.saturating_add(bytes);
        self.files += 1;
        Ok(())
    }

    /// Sets bytes aside in a new file whose name begins with `name`, as far as there is room for them; returns how
    /// many that are. None where they are here by that name: what is found at each start is kept once.
    pub(in crate::log) fn set_aside(&mut self, disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<u64> {
        let room = usize::try_from(QUARANTINE_MAX.saturating_sub(self.held)).unwrap_or(usize::MAX);
        let bytes = bytes.get(..room).unwrap_or(bytes);
        if bytes.is_empty() || self.files >= FILES_MAX {
            return Ok(0);
        }
        disk.create_dir(&self.dir)?;
        let Some(path) = self.write(disk, name, bytes)? else { return Ok(0) };
        self.files += 1;
        self.held += bytes.len() as u64;
        if self.durable {
            files::sync_folder(disk, &path)?;
            files::sync_folder(disk, &self.dir)?;
        }
        Ok(bytes.len() as u64)
    }

    fn write(&self, disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<Option<PathBuf>> {
        // One of these names is free, as there are fewer files.
        for number in 0..=FILES_MAX {
            let path = self.dir.join(format!("{name}.{number}"));
            let file = match disk.create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    match files::open(disk, &path)? {
                        Some(file) if holds(&*file, bytes)? => return Ok(None),
                        Some(_) | None => continue,
                    }
                }
                other => other?,
            };
            let done =
                write_full(&*file, bytes, 0).and_then(|()| if self.durable { file.sync() } else { Ok(()) });
            return match done {
                Ok(()) => Ok(Some(path)),
                Err(error) => {
                    // What is there of it would only take room.
                    let _also_failed = disk.remove(&path);
                    Err(error)
                }
            };
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

/// The name of bytes of a segment that do not check.
pub(in crate::log) fn damaged_bytes(segment: u64, offset: u64) -> String {
    format!("{segment:012}-{offset}.bytes")
}

/// Whether the file has these bytes and no others.
fn holds(file: &dyn DiskFile, bytes: &[u8]) -> io::Result<bool> {
    Ok(file.len()? == bytes.len() as u64 && files::read_front(file, bytes.len())? == bytes)
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::{disk::OsDisk, testing::Folder},
        *,
    };

    #[test]
    fn what_is_set_aside_is_kept_once_under_a_name_of_its_own() {
        let folder = Folder::new("quarantine");
        let dir = folder.join("quarantine");
        let mut quarantine = Quarantine::open(&OsDisk, &dir, true).unwrap();
        assert_eq!((quarantine.held(), folder.names().len()), (0, 0));
        for (bytes, kept) in [(b"one", 3), (b"two", 3), (b"one", 0)] {
            assert_eq!(quarantine.set_aside(&OsDisk, "a.position", bytes).unwrap(), kept);
        }
        assert_eq!(quarantine.set_aside(&OsDisk, "a.position", b"").unwrap(), 0);
        assert_eq!((folder.mode("quarantine"), folder.mode("quarantine/a.position.0")), (0o700, 0o600));
        assert_eq!(std::fs::read(dir.join("a.position.1")).unwrap(), b"two");
        let mut again = Quarantine::open(&OsDisk, &dir, false).unwrap();
        assert_eq!(again.held(), 6);
        again.set_aside(&OsDisk, "a.position", b"three").unwrap();
        assert_eq!(std::fs::read(dir.join("a.position.2")).unwrap(), b"three");
    }

    #[test]
    fn it_takes_no_more_than_its_bound_in_all() {
        let folder = Folder::new("quarantine-bound");
        let file = std::fs::File::create(folder.join("earlier")).unwrap();
        file.set_len(QUARANTINE_MAX - 5).unwrap();
        let mut quarantine = Quarantine::open(&OsDisk, folder.path(), false).unwrap();
        assert_eq!(quarantine.set_aside(&OsDisk, "a", b"abc").unwrap(), 3);
        assert_eq!(quarantine.set_aside(&OsDisk, "a", b"def").unwrap(), 2);
        assert_eq!(quarantine.set_aside(&OsDisk, "a", b"ghi").unwrap(), 0);
        assert_eq!(
            (quarantine.held(), folder.names()),
            (QUARANTINE_MAX, ["a.0", "a.1", "earlier"].map(String::from).to_vec())
        );
        file.set_len(QUARANTINE_MAX + 5).unwrap();
        let mut over = Quarantine::open(&OsDisk, folder.path(), false).unwrap();
        assert_eq!(over.set_aside(&OsDisk, "a", b"ghi").unwrap(), 0);
    }

    #[test]
    fn it_takes_no_more_files_than_its_bound() {
        let folder = Folder::new("quarantine-files");
        let mut quarantine = Quarantine::open(&OsDisk, folder.path(), false).unwrap();
        quarantine.files = FILES_MAX;
        assert_eq!(quarantine.set_aside(&OsDisk, "a", b"abc").unwrap(), 0);
        assert_eq!(folder.names().len(), 0);
    }
}
