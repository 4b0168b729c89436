//! The span metrics as of a position: `red.checkpoint`. The payload is theirs.
//!
//! ```text
//! header, a frame (files.rs) of 64 bytes       40  length of the payload     4
//!   0  magic "nyx-red\0"              8        44  CRC-32 of the payload     4
//!   8  version                        4        48  zero                     12
//!  12  durability (0 memory,                   60  CRC-32 of bytes 0..60     4
//!      1 process, 2 power)            1        64  payload, up to the end of the file
//!  13  1 if the boot id is known      1
//!  14  zero                           2
//!  16  boot id                       16
//!  32  position                       8
//! ```
//!
//! It is replaced as a whole: there is the old one or the new one.

use std::{io, path::Path};

use bytes::Bytes;

use super::{
    super::{Durability, Ordinal, disk::Disk},
    files::{self, Unreadable, ordinal, seal, unseal},
};

const HEADER: usize = 64;
const MAGIC: [u8; 8] = *b"nyx-red\0";
const VERSION: u32 = 1;
/// Bytes of the payload at most.
const PAYLOAD_MAX: usize = 64 << 20;

/// Which start of the machine, as the kernel names it.
pub(in crate::log) type BootId = [u8; 16];

/// A checkpoint of the span metrics.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::log) struct Checkpoint {
    /// Every span before it is counted.
    pub(in crate::log) position: Ordinal,
    /// What the log survived when this was written.
    pub(in crate::log) durability: Durability,
    /// When it was written; `None` where the kernel does not say.
    pub(in crate::log) boot: Option<BootId>,
    /// What was counted, in the metrics' own form.
    pub(in crate::log) bytes: Bytes,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Checkpoint");
        out.field("position", &self.position).field("durability", &self.durability);
        out.field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// What is in the checkpoint's place.
#[derive(Debug)]
pub(in crate::log) enum Found {
    /// Nothing.
    Absent,
    /// A checkpoint.
    Read(Checkpoint),
    /// These bytes, which do not check.
    Damaged(Vec<u8>),
    /// A checkpoint of this version.
    OtherVersion(u32),
}

/// Reads the checkpoint.
pub(in crate::log) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Found> {
    let Some(file) = files::open(disk, path)? else { return Ok(Found::Absent) };
    // One byte more than there can be, so that a longer file does not look like a whole one.
    let bytes = files::read_front(&*file, HEADER + PAYLOAD_MAX + 1)?;
    Ok(match decode(&bytes) {
        Ok(checkpoint) => Found::Read(checkpoint),
        Err(Unreadable::OtherVersion(version)) => Found::OtherVersion(version),
        Err(Unreadable::Damaged) => Found::Damaged(bytes),
    })
}

/// Stores a checkpoint in place of the one before, and returns its bytes in the file. If `durable`, it is synced.
///
/// # Errors
/// The system's, and the checkpoint before stays; `InvalidInput` where the payload is larger than 64 MiB.
pub(in crate::log) fn write(
    disk: &dyn Disk,
    path: &Path,
    checkpoint: &Checkpoint,
    durable: bool,
) -> io::Result<u64> {
    let payload = &*checkpoint.bytes;
    if payload.len() > PAYLOAD_MAX {
        let why = format!("a checkpoint of {} bytes is larger than {PAYLOAD_MAX}", payload.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let header = header(checkpoint);
    files::replace(disk, path, &[&header, payload], durable)?;
    Ok((header.len() + payload.len()) as u64)
}

fn header(checkpoint: &Checkpoint) -> [u8; HEADER] {
    let Checkpoint { position, durability, boot, bytes } = checkpoint;
    let mut out = [0; HEADER];
    seal(&mut out, &MAGIC, VERSION, |fields| {
        fields.put(&[code(*durability), u8::from(boot.is_some()), 0, 0]);
        fields.put(&boot.unwrap_or_default());
        fields.put(&position.to_le_bytes());
        fields.put(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        fields.put(&crc32fast::hash(bytes).to_le_bytes());
    });
    out
}

const fn code(durability: Durability) -> u8 {
    match durability {
        Durability::Memory => 0,
        Durability::Process => 1,
        Durability::Power => 2,
    }
}

/// The checkpoint that the bytes of a file say.
pub(in crate::log) fn decode(bytes: &[u8]) -> Result<Checkpoint, Unreadable> {
    let damaged = Unreadable::Damaged;
    let (header, payload) = bytes.split_at_checked(HEADER).ok_or(damaged)?;
    let mut fields = unseal(header, &MAGIC, VERSION)?;
    let read = (|| {
        let [durability, boot_known, _, _] = fields.take()?;
        let durability = [Durability::Memory, Durability::Process, Durability::Power]
            .into_iter()
            .find(|&known| code(known) == durability)?;
        let boot: BootId = fields.take()?;
        let position = ordinal(&mut fields)?;
        let whole = fields.u32()? as usize == payload.len() && payload.len() <= PAYLOAD_MAX;
        let checks = whole && fields.u32()? == crc32fast::hash(payload);
        let bytes = checks.then(|| Bytes::copy_from_slice(payload))?;
        Some(Checkpoint { position, durability, boot: (boot_known == 1).then_some(boot), bytes })
    })();
    read.ok_or(damaged)
}

/// This start of the machine; `None` where the kernel does not say.
pub(in crate::log) fn boot_id() -> Option<BootId> {
    parse_boot_id(&std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?)
}

fn parse_boot_id(text: &str) -> Option<BootId> {
    let digits: String = text.trim().chars().filter(|&c| c != '-').collect();
    (digits.len() == 32).then_some(())?;
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::{disk::OsDisk, testing::Folder},
        *,
    };

    fn checkpoint(position: Ordinal) -> Checkpoint {
        let bytes = Bytes::from(format!("what was counted before {position}"));
        Checkpoint { position, durability: Durability::Power, boot: Some([5; 16]), bytes }
    }

    fn encoded(checkpoint: &Checkpoint) -> Vec<u8> {
        [&header(checkpoint)[..], &checkpoint.bytes].concat()
    }

    fn stored(path: &Path) -> Checkpoint {
        match read(&OsDisk, path).unwrap() {
            Found::Read(checkpoint) => checkpoint,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_checkpoint_is_read_back_as_it_was_written() {
        let folder = Folder::new("checkpoint");
        let path = folder.join("red.checkpoint");
        assert!(matches!(read(&OsDisk, &path).unwrap(), Found::Absent));
        let mut expected = checkpoint(7);
        for durability in [Durability::Memory, Durability::Process, Durability::Power] {
            for (boot, bytes) in [(None, Bytes::new()), (Some([9; 16]), Bytes::from(vec![1; 100_000]))] {
                expected = Checkpoint { position: expected.position + 1, durability, boot, bytes };
                let size = write(&OsDisk, &path, &expected, durability == Durability::Power).unwrap();
                assert_eq!(size, std::fs::metadata(&path).unwrap().len());
                assert_eq!(stored(&path), expected);
            }
        }
        assert_eq!((folder.names(), folder.mode("red.checkpoint")), (vec!["red.checkpoint".into()], 0o600));
    }

    #[test]
    fn a_checkpoint_that_cannot_be_written_leaves_the_one_before() {
        let folder = Folder::new("checkpoint-stays");
        let path = folder.join("red.checkpoint");
        write(&OsDisk, &path, &checkpoint(1), false).unwrap();
        std::fs::create_dir(folder.join("red.checkpoint.new")).unwrap();
        assert!(write(&OsDisk, &path, &checkpoint(2), true).is_err());
        assert_eq!(stored(&path), checkpoint(1));
        let bytes = Bytes::from(vec![0; PAYLOAD_MAX + 1]);
        let error = write(&OsDisk, &path, &Checkpoint { bytes, ..checkpoint(2) }, false).unwrap_err();
        assert_eq!(error.to_string(), "a checkpoint of 67108865 bytes is larger than 67108864");
        std::fs::remove_dir(folder.join("red.checkpoint.new")).unwrap();
        write(&OsDisk, &path, &checkpoint(3), true).unwrap();
        assert_eq!(stored(&path), checkpoint(3));
    }

    #[test]
    fn no_cut_and_no_flipped_bit_goes_unnoticed() {
        let bytes = encoded(&checkpoint(7));
        assert_eq!(decode(&bytes), Ok(checkpoint(7)));
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length]), Err(Unreadable::Damaged), "{length} bytes");
        }
        assert_eq!(decode(&[&bytes[..], &[0]].concat()), Err(Unreadable::Damaged), "a byte too many");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), Err(Unreadable::Damaged), "bit {bit}");
        }
    }

    fn spoilt(at: usize, value: u8) -> Vec<u8> {
        let mut bytes = encoded(&checkpoint(7));
        bytes[at] = value;
        let sum = crc32fast::hash(&bytes[..HEADER - 4]).to_le_bytes();
        bytes[HEADER - 4..HEADER].copy_from_slice(&sum);
        bytes
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let folder = Folder::new("checkpoint-version");
        let path = folder.join("red.checkpoint");
        std::fs::write(&path, spoilt(8, 3)).unwrap();
        assert!(matches!(read(&OsDisk, &path).unwrap(), Found::OtherVersion(3)));
        for (at, value) in [(12, 3), (39, 0x40), (43, 0xff)] {
            std::fs::write(&path, spoilt(at, value)).unwrap();
            let found = read(&OsDisk, &path).unwrap();
            assert!(matches!(&found, Found::Damaged(all) if *all == spoilt(at, value)), "{found:?}");
        }
    }

    #[test]
    fn the_kernels_name_of_a_boot_is_read_or_is_none() {
        let parsed = parse_boot_id("0123456789ab-cdef-0123-4567-89abcdef\n");
        assert_eq!(parsed.map(u128::from_be_bytes), Some(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef));
        assert_eq!(parse_boot_id(""), None);
        assert_eq!(parse_boot_id("+123456789abcdef0123456789abcdef!"), None);
        assert_eq!(boot_id(), boot_id());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            proptest::prop_assert!(decode(&bytes).is_err());
        }
    }
}
