//! The marker of an orderly end: `clean`. It is there while nothing runs, if all that the log holds was synced.
//!
//! ```text
//! a frame (files.rs) of 32 bytes
//!   0  magic "nyx-cln\0"   8        16  end ordinal of the log      8
//!   8  version             4        24  zero                        4
//!  12  zero                4        28  CRC-32 of bytes 0..28       4
//! ```

use std::{io, path::Path};

use super::{
    super::{Ordinal, disk::Disk},
    files::{self, Unreadable, ordinal, seal, unseal},
};

const LENGTH: usize = 32;
const MAGIC: [u8; 8] = *b"nyx-cln\0";
const VERSION: u32 = 1;

/// What is in the marker's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) enum Marker {
    /// Nothing: the process before was killed, or there was none.
    Absent,
    /// The process before synced everything up to this end.
    Clean(Ordinal),
    /// Bytes that do not check.
    Damaged,
    /// A marker of this version. It is still there.
    OtherVersion(u32),
}

/// Says, durably, that everything up to `end` is durable.
pub(in crate::log) fn write(disk: &dyn Disk, path: &Path, end: Ordinal) -> io::Result<()> {
    files::replace(disk, path, &[&encode(end)], true).map(drop)
}

/// Removes the marker, durably: from here on the log may change.
///
/// # Errors
/// The system's. The marker may still be there: the log must not change.
pub(in crate::log) fn remove(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    disk.remove(path)?;
    files::sync_folder(disk, path)
}

/// Reads the marker.
pub(in crate::log) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Marker> {
    let Some(file) = files::open(disk, path)? else { return Ok(Marker::Absent) };
    Ok(match decode(&files::read_front(&*file, LENGTH + 1)?) {
        Ok(end) => Marker::Clean(end),
        Err(Unreadable::OtherVersion(version)) => Marker::OtherVersion(version),
        Err(Unreadable::Damaged) => Marker::Damaged,
    })
}

fn encode(end: Ordinal) -> [u8; LENGTH] {
    let mut out = [0; LENGTH];
    seal(&mut out, &MAGIC, VERSION, |fields| {
        fields.put(&[0; 4]);
        fields.put(&end.to_le_bytes());
    });
    out
}

/// The end that the bytes of a marker say.
pub(in crate::log) fn decode(bytes: &[u8]) -> Result<Ordinal, Unreadable> {
    let damaged = Unreadable::Damaged;
    let mut fields = unseal(bytes.first_chunk::<LENGTH>().ok_or(damaged)?, &MAGIC, VERSION)?;
    let _zero = fields.u32();
    ordinal(&mut fields).filter(|_| bytes.len() == LENGTH).ok_or(damaged)
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::{disk::OsDisk, testing::Folder},
        *,
    };

    #[test]
    fn a_marker_tells_of_the_newest_end_until_it_is_removed() {
        let folder = Folder::new("clean");
        let path = folder.join("clean");
        assert_eq!(read(&OsDisk, &path).unwrap(), Marker::Absent);
        write(&OsDisk, &path, 7).unwrap();
        write(&OsDisk, &path, 8).unwrap();
        assert_eq!((folder.names(), folder.mode("clean")), (vec!["clean".into()], 0o600));
        assert_eq!(read(&OsDisk, &path).unwrap(), Marker::Clean(8));
        remove(&OsDisk, &path).unwrap();
        assert_eq!(read(&OsDisk, &path).unwrap(), Marker::Absent);
        assert!(folder.names().is_empty());
    }

    #[test]
    fn no_cut_and_no_flipped_bit_goes_unnoticed() {
        let folder = Folder::new("clean-damaged");
        let path = folder.join("clean");
        let bytes = encode(0x0102_0304);
        for length in 0..LENGTH {
            assert_eq!(decode(&bytes[..length]), Err(Unreadable::Damaged), "{length} bytes");
        }
        for bit in 0..LENGTH * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), Err(Unreadable::Damaged), "bit {bit}");
        }
        std::fs::write(&path, [&bytes[..], b"!"].concat()).unwrap();
        assert_eq!(read(&OsDisk, &path).unwrap(), Marker::Damaged);
    }

    #[test]
    fn another_versions_marker_is_named() {
        let folder = Folder::new("clean-version");
        let path = folder.join("clean");
        let mut bytes = [0; LENGTH];
        seal(&mut bytes, &MAGIC, 2, |_| {});
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read(&OsDisk, &path).unwrap(), Marker::OtherVersion(2));
    }
}
