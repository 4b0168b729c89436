//! What the writer writes besides groups: positions, dead letters, checkpoints, what is set aside, the clean end.

use std::{collections::BTreeMap, io, sync::atomic::Ordering};

use bytes::Bytes;

use super::{
    super::{
        DeadLetter, DestinationId, DestinationLedger, Ordinal,
        disk::{Disk, read_full},
        unix_now,
    },
    checkpoint::{self, Checkpoint},
    clean,
    dead_letters::{self, LetterFile},
    positions::{self, PositionFile},
    quarantine::{Quarantine, damaged_bytes},
    read::Damage,
    shared::Destination,
    writer::Writer,
};

/// Bytes of one damaged place that are set aside at most.
const ASIDE_MAX: u64 = 16 << 20;

/// The small files that the writer has open.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) destinations: BTreeMap<DestinationId, DestinationFiles>,
    quarantine: Option<Quarantine>,
}

/// A destination's, once they were needed.
#[derive(Debug, Default)]
pub(super) struct DestinationFiles {
    pub(super) position: Option<PositionFile>,
    pub(super) letters: Option<LetterFile>,
}

/// What is to be written of a destination, as of one moment.
struct Due {
    id: DestinationId,
    name: String,
    ledger: DestinationLedger,
    moved: bool,
    letters: Vec<DeadLetter>,
    /// Whether there are any, in a file or not.
    has_letters: bool,
}

impl Due {
    fn of(destination: &Destination) -> Option<Self> {
        let moved = destination.persisted != Some(destination.ledger.position);
        (moved || destination.letters.unsaved > 0).then(|| Self {
            id: destination.id,
            name: destination.name.clone(),
            ledger: destination.ledger.clone(),
            moved,
            letters: destination.letters.unsaved(),
            has_letters: !destination.letters.kept.is_empty(),
        })
    }
}

impl Writer {
    /// Persists what has moved since the last time, and removes what everyone has passed.
    pub(super) fn settle(&mut self) {
        // Whoever moves from here on tells us again.
        self.shared.dirty.store(false, Ordering::Release);
        self.settle_due();
        self.let_leave();
        self.release();
    }

    fn settle_due(&mut self) {
        let due: Vec<Due> = {
            let state = self.shared.state.lock();
            state.destinations.iter().filter_map(Due::of).collect()
        };
        if due.is_empty() {
            return;
        }
        let mut trouble = None;
        let mut files = std::mem::take(&mut self.files.destinations);
        for due in due {
            let settled = self.settle_one(&due, files.entry(due.id).or_default());
            if let Ok(destination) = self.shared.state.lock().destination(due.id) {
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
    }

    /// Removes the positions of destinations that are no longer configured, once other files tell how far the log has
    /// come.
    pub(super) fn let_leave(&self) {
        let names = {
            let mut state = self.shared.state.lock();
            if state.leaving.is_empty() || !state.end_is_kept() {
                return;
            }
            std::mem::take(&mut state.leaving)
        };
        let (disk, dir) = (&*self.shared.disk, self.shared.paths.positions());
        for name in names {
            let removed = match disk.remove(&self.shared.paths.position(&name)) {
                Ok(()) if self.is_power() => disk.sync_dir(&dir),
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            };
            if let Err(error) = removed {
                let mut state = self.shared.state.lock();
                state.stats.write_errors += 1;
                tracing::warn!(destination = name, %error, "a position that nobody needs cannot be removed");
                state.leaving.push(name);
            }
        }
    }

    /// Dead letters first: a position does not pass a letter that is not durable.
    fn settle_one(&self, due: &Due, files: &mut DestinationFiles) -> io::Result<()> {
        let power = self.is_power();
        let mut written = 0;
        // With syncs, those of an earlier process are written anew before a position passes them: a sync of its that
        // failed may have left pages, or a name, that no later one makes durable.
        let found = power && due.moved && files.letters.is_none() && due.has_letters;
        if found || !due.letters.is_empty() {
            written += self.append_letters(due, &mut files.letters)?;
        }
        if let Some(last) = due.letters.last()
            && let Ok(destination) = self.shared.state.lock().destination(due.id)
        {
            destination.letters.saved(last.ordinal);
        }
        if due.moved {
            let position = self.position_file(due, files)?;
            written += position.write(&due.ledger)?;
            if power {
                position.sync()?;
            }
            if let Ok(destination) = self.shared.state.lock().destination(due.id) {
                destination.persisted = Some(due.ledger.position);
            }
        }
        let mut state = self.shared.state.lock();
        state.stats.written_bytes += written;
        state.stats.syncs += u64::from(power);
        Ok(())
    }

    fn append_letters(&self, due: &Due, slot: &mut Option<LetterFile>) -> io::Result<u64> {
        let power = self.is_power();
        let shared = &*self.shared;
        let (disk, path) = (&*shared.disk, shared.paths.letters(&due.name));
        let all = || -> Vec<DeadLetter> {
            let mut state = shared.state.lock();
            let kept = state.destination(due.id).map(|d| d.letters.kept.iter().cloned().collect());
            kept.unwrap_or_default()
        };
        let file = match slot {
            Some(file) => file,
            None => match LetterFile::open(disk, &path)? {
                dead_letters::Found::Read { file, .. } if !power => slot.insert(file),
                dead_letters::Found::Read { .. }
                | dead_letters::Found::Absent
                | dead_letters::Found::Damaged(_)
                | dead_letters::Found::OtherVersion(_) => {
                    let (file, written) = LetterFile::create(disk, &path, &all(), power)?;
                    *slot = Some(file);
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

    fn position_file<'a>(
        &self,
        due: &Due,
        files: &'a mut DestinationFiles,
    ) -> io::Result<&'a mut PositionFile> {
        let power = self.is_power();
        let (disk, path) = (&*self.shared.disk, self.shared.paths.position(&due.name));
        match &mut files.position {
            Some(file) => Ok(file),
            slot @ None => {
                let file = match PositionFile::open(disk, &path, power)? {
                    // With syncs, a file of an earlier process is replaced: a sync of its that failed may have left
                    // pages, or a name, that no later one makes durable.
                    positions::Found::Read { file, .. } if !power => file,
                    positions::Found::Read { .. }
                    | positions::Found::Absent
                    | positions::Found::Damaged(_)
                    | positions::Found::OtherVersion(_) => {
                        PositionFile::create(disk, &path, &due.ledger, power)?
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
            boot: self.shared.boot,
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
                    measured.anew = false;
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
            aside += self.keep_aside(&damaged_bytes(number, from), &content);
        }
        tracing::error!(
            segment = number,
            spans,
            first,
            bytes_set_aside = aside,
            "spans in the span log are damaged: they cannot be delivered"
        );
        self.shared.state.lock().stats.damaged_spans += spans;
    }

    /// Sets bytes aside under this name; returns how many there was room for.
    pub(super) fn keep_aside(&mut self, name: &str, bytes: &[u8]) -> u64 {
        let kept = self.quarantine().and_then(|(quarantine, disk)| quarantine.set_aside(disk, name, bytes));
        let kept = kept.unwrap_or_else(|error| {
            tracing::warn!(%error, name, "damaged bytes cannot be set aside");
            0
        });
        self.shared.state.lock().stats.quarantined_bytes += kept;
        kept
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
        let (unsynced, end, settled, anew) = {
            let state = self.shared.state.lock();
            let unsynced: Vec<_> =
                state.segments.iter().filter(|s| !s.synced).map(|s| s.file.clone()).collect();
            // The checkpoint is no longer one of what the log holds.
            let anew = state.measured.as_ref().is_some_and(|measured| measured.anew);
            (unsynced, state.end, state.troubles.settle.is_none(), anew)
        };
        for file in unsynced {
            file.sync()?;
        }
        // Files that only a process before this one wrote, too: it may have been killed.
        for dir in [paths.positions(), paths.dead_letters()] {
            for name in disk.list(&dir)? {
                disk.open(&dir.join(name))?.sync()?;
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
        // The folder itself may be new.
        if let Some(above) = paths.above() {
            disk.sync_dir(above)?;
        }
        if settled && !anew {
            clean::write(disk, &paths.clean(), end)?;
        }
        Ok(())
    }
}
