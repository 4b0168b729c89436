//! The dead letters of a destination: `dead_letters/<destination>.letters`, appended to, one letter an ordinal.
//!
//! ```text
//! file = header, header again, letters one behind the other
//!
//! header, a frame (files.rs) of 32 bytes     letter
//!  0  magic "nyx-let\0"   8                   0  magic "nyxl"                       4
//!  8  version             4                   4  reason's code                      1
//! 12  key, random        16                   5  zero                               1
//! 28  CRC-32              4                   6  length of the message              2
//!                                             8  ordinal of the span                8
//!                                            16  length of the span                 4
//!                                            20  CRC-32 of key, offset, message,
//!                                                span                               4
//!                                            24  CRC-32 of key, offset, bytes 0..24 4
//!                                            28  message, UTF-8; span
//! ```
//!
//! A span is its sender's and may contain anything, even a letter: the checksums are salted with the file's key and the
//! letter's own offset. An append that was cut off leaves a torn tail, which is cut back before the next one. Letters
//! behind a damaged place are found by their magic.

use std::{collections::HashSet, io, path::Path, sync::Arc};

use super::{
    super::{
        DeadLetter, Ordinal,
        disk::{Disk, DiskFile, write_full},
        letters::KeptLetters,
    },
    files::{self, Unreadable, seal},
};

mod encoding;

use encoding::{DATA_START, HEADER, Key, MAGIC, VERSION, encode};
pub(in crate::log) use encoding::{Decoded, decode};

/// A file of this many bytes, or letters, is to be rewritten.
const REWRITE_BYTES: u64 = 16 << 20;
const REWRITE_LETTERS: usize = 8_000;
/// A file has no more bytes than this; what a file has behind it is damage.
const FILE_MAX: u64 = 64 << 20;

/// A file of dead letters, open.
#[derive(Debug)]
pub(in crate::log) struct LetterFile {
    file: Arc<dyn DiskFile>,
    key: Key,
    /// Where the last whole letter ends.
    whole: u64,
    /// Whether the file may go on behind that.
    longer: bool,
    /// The letters in the file, kept or not.
    ordinals: HashSet<Ordinal>,
    /// Whether there was damage when it was opened.
    damaged: bool,
    /// Whether a sync failed: nobody knows what the device has.
    unsure: bool,
}

/// What is in the place of a file of dead letters.
#[derive(Debug)]
pub(in crate::log) enum Found {
    /// Nothing.
    Absent,
    /// Letters.
    Read {
        file: LetterFile,
        /// The newest of them.
        letters: KeptLetters,
        /// What does not check, to be set aside; then the file is to be [rewritten](LetterFile::rewrite).
        bad: Vec<u8>,
    },
    /// These bytes, in which no letter can be checked.
    Damaged(Vec<u8>),
    /// A file of this version.
    OtherVersion(u32),
}

impl LetterFile {
    /// Opens the file and reads its letters.
    pub(in crate::log) fn open(disk: &dyn Disk, path: &Path) -> io::Result<Found> {
        let Some(file) = files::open(disk, path)? else { return Ok(Found::Absent) };
        let bytes = files::read_front(&*file, FILE_MAX as usize)?;
        let Decoded { key, letters, ordinals, whole, one_header, bad } = match decode(&bytes) {
            Ok(decoded) => decoded,
            Err(Unreadable::OtherVersion(version)) => return Ok(Found::OtherVersion(version)),
            Err(Unreadable::Damaged) => return Ok(Found::Damaged(bytes)),
        };
        let longer = file.len()? > whole;
        let damaged = one_header || !bad.is_empty();
        let file = Self { file, key, whole, longer, ordinals, damaged, unsure: false };
        Ok(Found::Read { file, letters, bad })
    }

    /// Makes a file with these letters, the newest ones last, in place of one that is there; returns its bytes too.
    /// If `durable`, it is synced.
    ///
    /// # Errors
    /// The system's; the file before stays.
    pub(in crate::log) fn create<'a>(
        disk: &dyn Disk,
        path: &Path,
        letters: impl IntoIterator<Item = &'a DeadLetter>,
        durable: bool,
    ) -> io::Result<(Self, u64)> {
        let mut key = Key::default();
        getrandom::fill(&mut key).map_err(|error| io::Error::other(error.to_string()))?;
        let mut header = [0; HEADER];
        seal(&mut header, &MAGIC, VERSION, |fields| fields.put(&key));
        let mut bytes = [header, header].concat();
        let ordinals = encode_all(&key, DATA_START, newest(letters, &HashSet::new()).iter(), &mut bytes);
        let file = files::replace(disk, path, &[&bytes], durable)?;
        let whole = bytes.len() as u64;
        Ok((Self { file, key, whole, longer: false, ordinals, damaged: false, unsure: false }, whole))
    }

    /// Appends the letters of spans that have none in the file yet, if they are among the newest; returns the bytes
    /// written.
    ///
    /// # Errors
    /// The system's, and none of these letters is in the file; or the file is to be rewritten first.
    pub(in crate::log) fn append(&mut self, letters: &[DeadLetter]) -> io::Result<u64> {
        let fresh = newest(letters, &self.ordinals);
        if fresh.is_empty() {
            return Ok(0);
        }
        let mut bytes = Vec::new();
        let ordinals = encode_all(&self.key, self.whole, fresh.iter(), &mut bytes);
        let size = bytes.len() as u64;
        if self.unsure || self.whole + size > FILE_MAX {
            return Err(io::Error::other("the file of dead letters is to be rewritten first"));
        }
        if self.longer {
            self.file.truncate(self.whole)?;
        }
        self.longer = true;
        write_full(&*self.file, &bytes, self.whole)?;
        self.longer = false;
        self.whole += size;
        self.ordinals.extend(ordinals);
        Ok(size)
    }

    /// Makes what was appended durable.
    ///
    /// # Errors
    /// The system's: from then on nothing in this file is trusted until it is rewritten.
    pub(in crate::log) fn sync(&mut self) -> io::Result<()> {
        if self.unsure {
            return Err(io::Error::other(
                "the file of dead letters failed to sync, and is to be rewritten first",
            ));
        }
        let synced = self.file.sync();
        self.unsure = synced.is_err();
        synced
    }

    /// Whether the file is much larger than what is kept of it, is damaged, or failed to sync.
    pub(in crate::log) fn needs_rewrite(&self) -> bool {
        self.damaged || self.unsure || self.whole > REWRITE_BYTES || self.ordinals.len() > REWRITE_LETTERS
    }

    /// Puts a file with these letters alone in its place, and returns its bytes. If `durable`, it is synced.
    ///
    /// # Errors
    /// The system's; the file is as it was.
    pub(in crate::log) fn rewrite<'a>(
        &mut self,
        disk: &dyn Disk,
        path: &Path,
        letters: impl IntoIterator<Item = &'a DeadLetter>,
        durable: bool,
    ) -> io::Result<u64> {
        let (file, bytes) = Self::create(disk, path, letters, durable)?;
        *self = file;
        Ok(bytes)
    }
}

/// The newest of these letters whose spans are not `known`.
fn newest<'a>(letters: impl IntoIterator<Item = &'a DeadLetter>, known: &HashSet<Ordinal>) -> KeptLetters {
    let mut newest = KeptLetters::default();
    for letter in letters {
        if !known.contains(&letter.ordinal) {
            newest.push(letter.clone());
        }
    }
    newest
}

/// Appends letters to the bytes that begin at `offset` of the file, or at its beginning if they are all of it.
fn encode_all<'a>(
    key: &Key,
    offset: u64,
    letters: impl Iterator<Item = &'a DeadLetter>,
    out: &mut Vec<u8>,
) -> HashSet<Ordinal> {
    let before = out.len();
    let mut ordinals = HashSet::new();
    for letter in letters {
        encode(key, offset + (out.len() - before) as u64, letter, out);
        ordinals.insert(letter.ordinal);
    }
    ordinals
}

#[cfg(test)]
mod tests;
