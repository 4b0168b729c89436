//! Destinations that come and go while the log is open, by the rules by which a start takes them in and lets them go.
//!
//! Only the writer does either, so that neither the log's end nor its first segment moves meanwhile. One that comes has its
//! position in a file before anyone is told; one that goes has its dead letters there before its position file is removed.

use std::io;

use super::{
    super::{DestinationError, DestinationId, DestinationLedger, letters::KeptLetters},
    config::LogDestination,
    dead_letters::{self, LetterFile},
    positions::{self, PositionFile},
    settle::DestinationFiles,
    standing::{self, Known},
    writer::Writer,
};

impl Writer {
    /// Takes a destination in: where its position file says, which may be there still, or where it is to begin.
    pub(super) fn take_in(&mut self, setting: &LogDestination) -> Result<DestinationId, DestinationError> {
        let name = &setting.name;
        if self.shared.state.lock().destinations.iter().any(|destination| destination.name == *name) {
            return Err(DestinationError::Taken(name.clone()));
        }
        let disk = |error: io::Error| DestinationError::Disk(error.to_string());
        let known = self.known(name).map_err(disk)?;
        let letters = self.letters_found(name).map_err(disk)?;
        let was_there = matches!(known, Known::At(_));
        let mut destination = {
            let state = self.shared.state.lock();
            let id = DestinationId(state.next_destination);
            standing::destination(id, setting, known, letters, state.start(), state.end)
        };
        if destination.ledger.position > self.shared.state.lock().end {
            let position = destination.ledger.position;
            let why = format!("the position of {name}, {position}, lies behind the log's end");
            return Err(DestinationError::Disk(why));
        }
        let path = self.shared.paths.position(name);
        let created = PositionFile::create(&*self.shared.disk, &path, &destination.ledger, self.is_power());
        let mut state = self.shared.state.lock();
        match created {
            Ok(file) => {
                let id = destination.id;
                destination.persisted = Some(destination.ledger.position);
                state.next_destination += 1;
                state.leaving.retain(|leaving| leaving != name);
                state.destinations.push(destination);
                drop(state);
                let files = DestinationFiles { position: Some(file), letters: None };
                self.files.destinations.insert(id, files);
                Ok(id)
            }
            Err(error) => {
                state.stats.write_errors += 1;
                // What there may be of the file would be its place at the next attempt.
                if !was_there && !state.leaving.contains(name) {
                    state.leaving.push(name.clone());
                }
                drop(state);
                self.let_leave();
                Err(disk(error))
            }
        }
    }

    /// Lets a destination go: the log does not keep its spans, and its position is forgotten. Its dead letters stay in their file.
    pub(super) fn let_go(&mut self, id: DestinationId) -> Result<DestinationLedger, DestinationError> {
        // Letters that are in no file yet.
        self.settle();
        let ledger = {
            let mut state = self.shared.state.lock();
            let end = state.end;
            let at = state.destinations.iter().position(|destination| destination.id == id);
            let at = at.ok_or(DestinationError::Unknown)?;
            if state.destinations.get(at).is_some_and(|destination| destination.letters.unsaved > 0) {
                let why = state.troubles.settle.clone();
                return Err(DestinationError::Disk(
                    why.unwrap_or_else(|| "its dead letters are not saved".to_owned()),
                ));
            }
            let gone = state.destinations.remove(at);
            state.leaving.push(gone.name);
            // It may have been this one's; if not, the next turn says so again.
            state.troubles.settle = None;
            state.trim_cache();
            for told in gone.settles {
                // Who waited may be gone.
                let _gone = told.send(());
            }
            gone.ledger.at_end(end)
        };
        self.files.destinations.remove(&id);
        self.let_leave();
        self.release();
        Ok(ledger)
    }

    fn known(&mut self, name: &str) -> io::Result<Known> {
        let path = self.shared.paths.position(name);
        Ok(match PositionFile::open(&*self.shared.disk, &path, self.is_power())? {
            positions::Found::Read { ledger, .. } => Known::At(ledger),
            positions::Found::Absent => Known::No,
            positions::Found::OtherVersion(found) => return Err(other_version("position", found)),
            positions::Found::Damaged(bytes) => {
                self.keep_aside(&format!("{name}.position"), &bytes);
                self.say(format!(
                    "the position of {name} is damaged: it begins with the first span that the log holds"
                ));
                Known::Forgotten
            }
        })
    }

    fn letters_found(&mut self, name: &str) -> io::Result<KeptLetters> {
        let path = self.shared.paths.letters(name);
        Ok(match LetterFile::open(&*self.shared.disk, &path)? {
            dead_letters::Found::Absent => KeptLetters::default(),
            dead_letters::Found::OtherVersion(found) => return Err(other_version("dead letters", found)),
            dead_letters::Found::Read { letters, bad, .. } => {
                if !bad.is_empty() {
                    self.keep_aside(&format!("{name}.letters"), &bad);
                }
                letters
            }
            dead_letters::Found::Damaged(bytes) => {
                self.keep_aside(&format!("{name}.letters"), &bytes);
                self.say(format!("the dead letters of {name} are damaged: they are in quarantine/"));
                self.shared.disk.remove(&path)?;
                KeptLetters::default()
            }
        })
    }

    fn say(&self, text: String) {
        tracing::error!(dir = %self.shared.paths.dir.display(), "{text}");
        self.shared.state.lock().troubles.found.push(text);
    }
}

fn other_version(what: &str, found: u32) -> io::Error {
    let why = format!("the file of its {what} has format version {found}: this program reads version 1");
    io::Error::new(io::ErrorKind::InvalidData, why)
}
