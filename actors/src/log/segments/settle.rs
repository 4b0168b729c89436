//! What the writer writes besides groups: positions, dead letters, checkpoints, what is set aside, the clean end.

use std::{io, path::Path, sync::atomic::Ordering};

use bytes::Bytes;

use super::{
    super::{
        DeadLetter, DestinationLedger, Durability, Ordinal,
        disk::{Disk, read_full},
        unix_now,
    },
    checkpoint::{self, Checkpoint},
    clean,
    dead_letters::{self, LetterFile},
    files,
    positions::{self, PositionFile},
    quarantine::{Quarantine, damaged_bytes},
    read::Damage,
    writer::Writer,
};

/// Bytes of one damaged place that are set aside at most.
const ASIDE_MAX: u64 = 16 << 20;

/// The small files that the writer has open.
#[derive(Debug, Default)]
pub(super) struct Files {
    destinations: Vec<DestinationFiles>,
    quarantine: Option<Quarantine>,
}

/// A destination's, once they were needed.
#[derive(Debug, Default)]
struct DestinationFiles {
    position: Option<PositionFile>,
    letters: Option<LetterFile>,
    /// A position file was to be made and perhaps is not durable by its name; syncing that again proves nothing.
    unsure_position: bool,
    /// The same of a file of letters.
    unsure_letters: bool,
}

/// What is to be written of a destination, as of one moment.
struct Due {
    at: usize,
    name: String,
    ledger: DestinationLedger,
    moved: bool,
    letters: Vec<DeadLetter>,
}

impl Writer {
    fn is_power(&self) -> bool {
        self.shared.config.durability == Durability::Power
    }

    /// Persists what has moved since the last time, and removes what everyone has passed.
    pub(super) fn settle(&mut self) {
        // Whoever moves from here on tells us again.
        self.shared.dirty.store(false, Ordering::Release);
        let due: Vec<Due> = {
            let state = self.shared.state.lock();
            let destinations = state.destinations.iter().enumerate();
            let due = destinations.map(|(at, destination)| Due {
                at,
                name: destination.name.clone(),
                ledger: destination.ledger.clone(),
                moved: destination.persisted != Some(destination.ledger.position),
                letters: destination.letters.unsaved(),
            });
            due.filter(|due| due.moved || !due.letters.is_empty()).collect()
        };
        if due.is_empty() {
            self.release();
            return;
        }
        let mut trouble = None;
        let mut files = std::mem::take(&mut self.files.destinations);
        for due in due {
            if files.len() <= due.at {
                files.resize_with(due.at + 1, DestinationFiles::default);
            }
            let Some(files) = files.get_mut(due.at) else { continue };
            let settled = self.settle_one(&due, files);
            if let Some(destination) = self.shared.state.lock().destinations.get_mut(due.at) {
                // Written or not: a destination does not wait for a disk that fails.
                destination.settled = due.ledger.position;
                for told in destination.settles.drain(..) {
                    // Who waited may be gone.
                    let _gone = told.send(());
                }
            }
            if let Err(error) = settled {
                trouble = Some(format!("span log cannot write the position of {}: {error}", due.name));
            }
        }
        self.files.destinations = files;
        let mut state = self.shared.state.lock();
        state.stats.write_errors += u64::from(trouble.is_some());
        if let Some(text) = trouble.as_ref().filter(|text| state.troubles.settle.as_ref() != Some(text)) {
            tracing::error!("{text}: after a crash, what was delivered since would be delivered again");
        }
        state.troubles.settle = trouble;
        drop(state);
        self.release();
    }

    /// Dead letters first: a position does not pass a letter that is not durable.
    fn settle_one(&self, due: &Due, files: &mut DestinationFiles) -> io::Result<()> {
        let power = self.is_power();
        let mut written = 0;
        if let Some(last) = due.letters.last() {
            written += self.append_letters(due, files)?;
            if let Some(destination) = self.shared.state.lock().destinations.get_mut(due.at) {
                destination.letters.saved(last.ordinal);
            }
        }
        if due.moved {
            let position = self.position_file(due, files)?;
            written += position.write(&due.ledger)?;
            if power {
                position.sync()?;
            }
            if let Some(destination) = self.shared.state.lock().destinations.get_mut(due.at) {
                destination.persisted = Some(due.ledger.position);
            }
        }
        let mut state = self.shared.state.lock();
        state.stats.written_bytes += written;
        state.stats.syncs += u64::from(power);
        Ok(())
    }

    fn append_letters(&self, due: &Due, files: &mut DestinationFiles) -> io::Result<u64> {
        let DestinationFiles { letters: slot, unsure_letters: unsure, .. } = files;
        let power = self.is_power();
        let shared = &*self.shared;
        let (disk, path) = (&*shared.disk, shared.paths.letters(&due.name));
        let all = || -> Vec<DeadLetter> {
            let state = shared.state.lock();
            let kept = state.destinations.get(due.at).map(|d| d.letters.kept.iter().cloned().collect());
            kept.unwrap_or_default()
        };
        let file = match slot {
            Some(file) => file,
            None => match LetterFile::open(disk, &path)? {
                dead_letters::Found::Read { file, .. } if !*unsure => {
                    self.sync_name(&path, unsure)?;
                    slot.insert(file)
                }
                dead_letters::Found::Read { .. }
                | dead_letters::Found::Absent
                | dead_letters::Found::Damaged(_)
                | dead_letters::Found::OtherVersion(_) => {
                    *unsure = true;
                    let (file, written) = LetterFile::create(disk, &path, &all(), power)?;
                    (*slot, *unsure) = (Some(file), false);
                    return Ok(written);
                }
            },
        };
        if file.needs_rewrite() {
            return file.rewrite(disk, &path, &all(), power);
        }
        let written = file.append(&due.letters)?;
        if power {
            file.sync()?;
        }
        Ok(written)
    }

    /// Makes the name of a file durable that is there already: whoever made it may not have synced it.
    fn sync_name(&self, path: &Path, unsure: &mut bool) -> io::Result<()> {
        if self.is_power() {
            *unsure = true;
            files::sync_folder(&*self.shared.disk, path)?;
            *unsure = false;
        }
        Ok(())
    }

    fn position_file<'a>(
        &self,
        due: &Due,
        files: &'a mut DestinationFiles,
    ) -> io::Result<&'a mut PositionFile> {
        let power = self.is_power();
        let DestinationFiles { position: slot, unsure_position: unsure, .. } = files;
        let (disk, path) = (&*self.shared.disk, self.shared.paths.position(&due.name));
        match slot {
            Some(file) => Ok(file),
            slot @ None => {
                let file = match PositionFile::open(disk, &path, power)? {
                    positions::Found::Read { file, .. } if !*unsure => {
                        self.sync_name(&path, unsure)?;
                        file
                    }
                    positions::Found::Read { .. }
                    | positions::Found::Absent
                    | positions::Found::Damaged(_)
                    | positions::Found::OtherVersion(_) => {
                        *unsure = true;
                        let file = PositionFile::create(disk, &path, &due.ledger, power)?;
                        *unsure = false;
                        file
                    }
                };
                Ok(slot.insert(file))
            }
        }
    }

    pub(super) fn store_checkpoint(&mut self, position: Ordinal, bytes: &Bytes) -> Result<(), String> {
        let checkpoint = Checkpoint {
            position,
            durability: self.shared.config.durability,
            boot: checkpoint::boot_id(),
            bytes: bytes.clone(),
        };
        let path = self.shared.paths.checkpoint();
        let stored = checkpoint::write(&*self.shared.disk, &path, &checkpoint, self.is_power());
        let mut state = self.shared.state.lock();
        match stored {
            Ok(written) => {
                state.stats.written_bytes += written;
                self.checkpoint_bytes = written;
                state.stats.checkpointed_at = Some(unix_now().as_secs());
                if let Some(measured) = &mut state.measured {
                    measured.stored = measured.stored.max(position);
                }
                drop(state);
                self.release();
                Ok(())
            }
            Err(error) => {
                state.stats.write_errors += 1;
                Err(error.to_string())
            }
        }
    }

    /// Keeps the bytes of a damaged place for an operator, and counts its spans.
    pub(super) fn set_aside(&mut self, damage: &Damage) {
        let Damage { number, ref bytes, first, end } = *damage;
        let spans = end - first;
        let file = self.shared.state.lock().segment(number).map(|segment| segment.file.clone());
        let mut aside = 0;
        for &(from, to) in bytes {
            let Some(file) = &file else { break };
            let mut content = vec![0; usize::try_from((to - from).min(ASIDE_MAX)).unwrap_or_default()];
            // What cannot be read cannot be set aside.
            let Ok(read) = read_full(&**file, &mut content, from) else { continue };
            content.truncate(read);
            let name = damaged_bytes(number, from);
            match self.quarantine().and_then(|(quarantine, disk)| quarantine.set_aside(disk, &name, &content))
            {
                Ok(kept) => aside += kept,
                Err(error) => {
                    tracing::warn!(%error, name, "damaged bytes cannot be set aside");
                }
            }
        }
        tracing::error!(
            segment = number,
            spans,
            first,
            bytes_set_aside = aside,
            "spans in the span log are damaged: they cannot be delivered"
        );
        let mut state = self.shared.state.lock();
        state.stats.damaged_spans += spans;
        state.stats.quarantined_bytes += aside;
    }

    fn quarantine(&mut self) -> io::Result<(&mut Quarantine, &dyn Disk)> {
        let (power, disk) = (self.is_power(), &*self.shared.disk);
        let quarantine = match &mut self.files.quarantine {
            Some(quarantine) => quarantine,
            none @ None => none.insert(Quarantine::open(disk, &self.shared.paths.quarantine(), power)?),
        };
        Ok((quarantine, disk))
    }

    /// Syncs everything, and leaves the marker that says so.
    pub(super) fn finish(&mut self) {
        if let Err(error) = self.try_finish() {
            self.shared.state.lock().stats.sync_errors += 1;
            tracing::warn!(%error, "the span log's end is not synced; it is whole as long as the machine runs");
        }
    }

    fn try_finish(&mut self) -> io::Result<()> {
        let (disk, paths) = (&*self.shared.disk, &self.shared.paths);
        let (unsynced, end, settled) = {
            let state = self.shared.state.lock();
            let unsynced: Vec<_> =
                state.segments.iter().filter(|s| !s.synced).map(|s| s.file.clone()).collect();
            (unsynced, state.end, state.troubles.settle.is_none())
        };
        for file in unsynced {
            file.sync()?;
        }
        for DestinationFiles { position, letters, .. } in &mut self.files.destinations {
            if let Some(position) = position {
                position.sync()?;
            }
            if let Some(letters) = letters {
                letters.sync()?;
            }
        }
        match disk.open(&paths.checkpoint()) {
            Ok(file) => file.sync()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        for dir in [paths.segments(), paths.positions(), paths.dead_letters(), paths.dir.clone()] {
            disk.sync_dir(&dir)?;
        }
        if settled {
            clean::write(disk, &paths.clean(), end)?;
        }
        Ok(())
    }
}
