//! What the log's small files have in common: frames that check, and files that are replaced as a whole.
//!
//! ```text
//! frame, of a fixed length N
//!   0  magic     8
//!   8  version   4
//!  12  fields, and zeros behind them
//! N-4  CRC-32 of bytes 0..N-4
//! ```
//!
//! The first twelve bytes and the place of the checksum are every version's, so that another version can be told from
//! damage.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    super::disk::{Disk, DiskFile, read_full, write_full},
    codec::{Reader, Writer},
};

/// Ordinals from here on are damage: no log gets there, and sums of smaller ones do not overflow.
pub(in crate::log) const ORDINAL_MAX: u64 = 1 << 62;
/// Behind the name of a file that is not whole yet. One that is found is a leftover, and is overwritten some day.
pub(in crate::log) const UNFINISHED: &str = ".new";

const SUM: usize = 4;

/// Why bytes do not say anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) enum Unreadable {
    /// They do not check, or say what cannot be.
    Damaged,
    /// They check, and are of this other version.
    OtherVersion(u32),
}

/// Makes a frame of all of `out`, which is zero.
pub(super) fn seal(out: &mut [u8], magic: &[u8; 8], version: u32, fields: impl FnOnce(&mut Writer<'_>)) {
    let Some((front, sum)) = out.split_last_chunk_mut::<SUM>() else { return };
    let mut writer = Writer::new(front);
    writer.put(magic);
    writer.put(&version.to_le_bytes());
    fields(&mut writer);
    *sum = crc32fast::hash(front).to_le_bytes();
}

/// The fields of the frame that is all of `bytes`.
pub(super) fn unseal<'a>(bytes: &'a [u8], magic: &[u8; 8], version: u32) -> Result<Reader<'a>, Unreadable> {
    let damaged = Unreadable::Damaged;
    let (front, sum) = bytes.split_last_chunk::<SUM>().ok_or(damaged)?;
    if crc32fast::hash(front).to_le_bytes() != *sum {
        return Err(damaged);
    }
    let mut fields = Reader(front);
    if fields.take().ok_or(damaged)? != *magic {
        return Err(damaged);
    }
    match fields.u32().ok_or(damaged)? {
        found if found == version => Ok(fields),
        found => Err(Unreadable::OtherVersion(found)),
    }
}

/// An ordinal that can be one.
pub(super) fn ordinal(fields: &mut Reader<'_>) -> Option<u64> {
    fields.u64().filter(|&ordinal| ordinal < ORDINAL_MAX)
}

/// Opens a file; `None` where there is none.
pub(super) fn open(disk: &dyn Disk, path: &Path) -> io::Result<Option<Arc<dyn DiskFile>>> {
    match disk.open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The file's bytes from its beginning on, `limit` of them at most.
pub(super) fn read_front(file: &dyn DiskFile, limit: usize) -> io::Result<Vec<u8>> {
    let length = usize::try_from(file.len()?).unwrap_or(usize::MAX).min(limit);
    let mut bytes = vec![0; length];
    let read = read_full(file, &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Puts a new file with these parts in the place of the one that has the name, or changes nothing that has a
/// name. If `durable`, contents and name are synced.
///
/// # Errors
/// The system's; where it is the last sync that fails, the new file may be there already.
pub(super) fn replace(
    disk: &dyn Disk,
    path: &Path,
    parts: &[&[u8]],
    durable: bool,
) -> io::Result<Arc<dyn DiskFile>> {
    let unfinished = unfinished(path);
    let file = match disk.create(&unfinished) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(&unfinished)?;
            disk.create(&unfinished)?
        }
        other => other?,
    };
    let done = fill(&*file, parts, durable).and_then(|()| disk.rename(&unfinished, path));
    if let Err(error) = done {
        // The leftover would only take room: what matters is the first error.
        let _also_failed = disk.remove(&unfinished);
        return Err(error);
    }
    if durable {
        sync_folder(disk, path)?;
    }
    Ok(file)
}

fn fill(file: &dyn DiskFile, parts: &[&[u8]], durable: bool) -> io::Result<()> {
    let mut at = 0u64;
    for part in parts {
        write_full(file, part, at)?;
        at += part.len() as u64;
    }
    if durable { file.sync() } else { Ok(()) }
}

/// Makes the file's name durable, or its removal.
pub(super) fn sync_folder(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) => disk.sync_dir(dir),
        None => Ok(()),
    }
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(UNFINISHED);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::{disk::OsDisk, testing::Folder},
        *,
    };

    #[test]
    fn a_file_is_replaced_as_a_whole_and_a_leftover_does_not_matter() {
        let folder = Folder::new("replace");
        let path = folder.join("file");
        std::fs::write(folder.join("file.new"), "a leftover that is longer").unwrap();
        replace(&OsDisk, &path, &[b"one", b" ", b"two"], true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one two");
        let file = replace(&OsDisk, &path, &[b"three"], false).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"three");
        assert_eq!(read_front(&*file, 100).unwrap(), b"three", "the handle is that of the new file");
        assert_eq!(read_front(&*file, 2).unwrap(), b"th");
        assert_eq!(folder.names(), ["file"]);
    }

    #[test]
    fn a_file_that_cannot_be_replaced_stays() {
        let folder = Folder::new("not-replaced");
        let path = folder.join("file");
        std::fs::create_dir(&path).unwrap();
        assert!(replace(&OsDisk, &path, &[b"new"], false).is_err(), "a folder is in the way");
        assert_eq!(folder.names(), ["file"], "nothing unfinished is left");
    }

    #[test]
    fn files_are_their_owners_alone() {
        let folder = Folder::new("modes");
        let path = folder.join("file");
        replace(&OsDisk, &path, &[b"x"], false).unwrap();
        assert_eq!(folder.mode("file"), 0o600);
    }
}
