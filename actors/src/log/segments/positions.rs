//! Where a destination stands: `positions/<destination>.position`, position and ledger as one.
//!
//! ```text
//! file = two slots of 512 bytes; each is a frame (files.rs)
//!
//!   0  magic "nyx-pos\0"       8        40  exported                          8
//!   8  version                 4        48  sampled out                       8
//!  12  zero                    4        56  dropped, for each reason's code
//!  16  sequence of the slot    8            from 0 to 55                8 * 56
//!  24  start                   8       504  zero                              4
//!  32  position                8       508  CRC-32 of bytes 0..508            4
//! ```
//!
//! Slot 0 has even sequences, slot 1 odd ones, and the higher one counts: a write that is cut off costs one step. With
//! syncs, a slot is written over until it is synced, so that the other one is always whole on the device.

use std::{io, path::Path, sync::Arc};

use super::{
    super::{
        DestinationLedger, DropReason,
        disk::{Disk, DiskFile, write_full},
    },
    files::{self, Unreadable, ordinal, seal, unseal},
};

const SLOT: usize = 512;
const MAGIC: [u8; 8] = *b"nyx-pos\0";
const VERSION: u32 = 1;
/// Codes of reasons that a slot has room for.
const CODES: u8 = 56;
/// Sequences from here on are damage, so that the next one is never too large.
const SEQUENCE_MAX: u64 = 1 << 62;

/// A position file, open.
#[derive(Debug)]
pub(in crate::log) struct PositionFile {
    file: Arc<dyn DiskFile>,
    /// Of the slot that was written last.
    sequence: u64,
    /// Whether writes are followed by syncs.
    durable: bool,
    /// Whether the slot that was written last is synced.
    synced: bool,
}

/// What is in a position file's place.
#[derive(Debug)]
pub(in crate::log) enum Found {
    /// Nothing.
    Absent,
    /// A position and its ledger, whose end is the position.
    Read {
        file: PositionFile,
        ledger: DestinationLedger,
        /// Whether the other slot does not check, so that this may be the position before the last.
        fell_back: bool,
    },
    /// These bytes; neither slot checks.
    Damaged(Vec<u8>),
    /// A file of this version.
    OtherVersion(u32),
}

/// What the bytes of a position file say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::log) struct Decoded {
    pub(in crate::log) sequence: u64,
    pub(in crate::log) ledger: DestinationLedger,
    /// Whether only one slot checks.
    pub(in crate::log) fell_back: bool,
}

impl PositionFile {
    /// Opens the file; `durable` if [`sync`](Self::sync) is to follow each write.
    pub(in crate::log) fn open(disk: &dyn Disk, path: &Path, durable: bool) -> io::Result<Found> {
        let Some(file) = files::open(disk, path)? else { return Ok(Found::Absent) };
        let bytes = files::read_front(&*file, 2 * SLOT)?;
        Ok(match decode(&bytes) {
            Ok(Decoded { sequence, ledger, fell_back }) => {
                // Whoever wrote it last may not have synced it; yet the only slot that checks is not written over.
                let file = Self { file, sequence, durable, synced: !durable || fell_back };
                Found::Read { file, ledger, fell_back }
            }
            Err(Unreadable::OtherVersion(version)) => Found::OtherVersion(version),
            Err(Unreadable::Damaged) => Found::Damaged(bytes),
        })
    }

    /// Makes the file, in place of one that is there; both slots say the same. If `durable`, it is synced.
    pub(in crate::log) fn create(
        disk: &dyn Disk,
        path: &Path,
        ledger: &DestinationLedger,
        durable: bool,
    ) -> io::Result<Self> {
        let parts: [&[u8]; 2] = [&encode(0, ledger), &encode(1, ledger)];
        let file = files::replace(disk, path, &parts, durable)?;
        Ok(Self { file, sequence: 1, durable, synced: true })
    }

    /// Writes a slot and returns its bytes. After an error the slot before it is what counts.
    pub(in crate::log) fn write(&mut self, ledger: &DestinationLedger) -> io::Result<u64> {
        let step = if self.durable && !self.synced { 2 } else { 1 };
        let sequence = self.sequence + step;
        write_full(&*self.file, &encode(sequence, ledger), sequence % 2 * SLOT as u64)?;
        self.sequence = sequence;
        self.synced = false;
        Ok(SLOT as u64)
    }

    /// Makes what was written durable. After an error it has to be written again.
    pub(in crate::log) fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        self.synced = true;
        Ok(())
    }
}

fn encode(sequence: u64, ledger: &DestinationLedger) -> [u8; SLOT] {
    let mut out = [0; SLOT];
    seal(&mut out, &MAGIC, VERSION, |fields| {
        fields.put(&[0; 4]);
        let DestinationLedger { start, position, exported, sampled_out, .. } = *ledger;
        for field in [sequence, start, position, exported, sampled_out] {
            fields.put(&field.to_le_bytes());
        }
        for code in 0..CODES {
            let count = DropReason::from_code(code).map_or(0, |reason| ledger.dropped(reason));
            fields.put(&count.to_le_bytes());
        }
    });
    out
}

/// The position that the bytes of a file say.
///
/// # Errors
/// [`Unreadable`]: of another version if one slot is, as its writer was the last one or will be the next.
pub(in crate::log) fn decode(bytes: &[u8]) -> Result<Decoded, Unreadable> {
    let slots = [slot(bytes, 0), slot(bytes, 1)];
    let (sequence, ledger, fell_back) = match slots {
        [Err(other @ Unreadable::OtherVersion(_)), _] | [_, Err(other @ Unreadable::OtherVersion(_))] => {
            return Err(other);
        }
        [Ok(even), Ok(odd)] => {
            let (sequence, ledger) = if even.0 > odd.0 { even } else { odd };
            (sequence, ledger, false)
        }
        [Ok((sequence, ledger)), Err(_)] | [Err(_), Ok((sequence, ledger))] => (sequence, ledger, true),
        [Err(damaged), Err(_)] => return Err(damaged),
    };
    Ok(Decoded { sequence, ledger, fell_back })
}

fn slot(bytes: &[u8], number: usize) -> Result<(u64, DestinationLedger), Unreadable> {
    let bytes = bytes.get(number * SLOT..(number + 1) * SLOT).ok_or(Unreadable::Damaged)?;
    let mut fields = unseal(bytes, &MAGIC, VERSION)?;
    let read = (|| {
        let _zero = fields.u32()?;
        let sequence = fields.u64().filter(|&sequence| sequence < SEQUENCE_MAX)?;
        // The other slot's bytes in this one's place are none of this one's.
        (sequence % 2 == number as u64).then_some(())?;
        let (start, position) = (ordinal(&mut fields)?, ordinal(&mut fields)?);
        let (exported, sampled_out) = (fields.u64()?, fields.u64()?);
        let mut dropped = Vec::with_capacity(DropReason::ALL.len());
        for code in 0..CODES {
            match (DropReason::from_code(code), fields.u64()?) {
                (Some(reason), count) => dropped.push((reason, count)),
                (None, 0) => {}
                (None, _) => return None,
            }
        }
        Some((sequence, DestinationLedger::restore(start, position, exported, sampled_out, dropped)?))
    })();
    read.ok_or(Unreadable::Damaged)
}

#[cfg(test)]
mod tests;
