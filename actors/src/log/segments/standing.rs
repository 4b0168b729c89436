//! Where everyone stands: destinations, their dead letters, the metrics; and with them, where the log ends.

use std::{collections::VecDeque, io, ops::Range};

use super::{
    super::{
        DestinationId, DestinationLedger, DiskStats, Durability, Ordinal, Restored, letters::KeptLetters,
        records::Records,
    },
    checkpoint::{self, BootId},
    clean,
    config::{LogDestination, SegmentLogConfig, StartAt, WhenFull},
    dead_letters::{self, LetterFile},
    open::{OpenError, io_error},
    positions::{self, PositionFile},
    recover::{Change, Opening},
    segment::Segment,
    shared::{Destination, Letters, Measured, State, Troubles},
};

impl Opening<'_> {
    /// The destinations that have a position file.
    pub(super) fn known_destinations(&self) -> Result<Vec<String>, OpenError> {
        let dir = self.paths.positions();
        let names = match self.disk.list(&dir) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(io_error("list", &dir)(error)),
        };
        let mut known: Vec<_> =
            names.iter().filter_map(|name| name.strip_suffix(".position")).map(str::to_owned).collect();
        known.sort_unstable();
        Ok(known)
    }

    /// What a destination's file says of it.
    pub(super) fn position(&mut self, name: &str) -> Result<Known, OpenError> {
        let path = self.paths.position(name);
        match PositionFile::open(self.disk, &path, false).map_err(io_error("read", &path))? {
            positions::Found::Read { ledger, fell_back, .. } => {
                if fell_back {
                    tracing::warn!(
                        destination = name,
                        "the last step of a position is unreadable: a part is delivered again"
                    );
                }
                Ok(Known::At(ledger))
            }
            positions::Found::Absent => Ok(Known::No),
            positions::Found::OtherVersion(found) => Err(OpenError::Version { file: path, found }),
            positions::Found::Damaged(bytes) => {
                // It stays until the writer replaces it: a destination that no file knows would begin at the end.
                self.aside(&format!("{name}.position"), &bytes);
                self.say(format!(
                    "the position of {name} is damaged: it begins with the first span that the log holds"
                ));
                Ok(Known::Forgotten)
            }
        }
    }

    /// The dead letters that a destination's file has.
    fn letters(&mut self, name: &str) -> Result<KeptLetters, OpenError> {
        let path = self.paths.letters(name);
        match LetterFile::open(self.disk, &path).map_err(io_error("read", &path))? {
            dead_letters::Found::Absent => Ok(KeptLetters::default()),
            dead_letters::Found::OtherVersion(found) => Err(OpenError::Version { file: path, found }),
            dead_letters::Found::Read { letters, bad, .. } if bad.is_empty() => Ok(letters),
            dead_letters::Found::Read { letters, bad, .. } => {
                // The end of a write that a crash cut off is no news.
                self.aside(&format!("{name}.letters"), &bad);
                Ok(letters)
            }
            dead_letters::Found::Damaged(bytes) => {
                self.aside(&format!("{name}.letters"), &bytes);
                self.say(format!("the dead letters of {name} are damaged: they are in quarantine/"));
                self.changes.push(Change::Remove(path));
                Ok(KeptLetters::default())
            }
        }
    }

    /// The last checkpoint of the metrics.
    fn checkpoint(&mut self) -> Result<checkpoint::Found, OpenError> {
        let path = self.paths.checkpoint();
        let found = checkpoint::read(self.disk, &path).map_err(io_error("read", &path))?;
        match &found {
            checkpoint::Found::Damaged(bytes) => {
                self.aside("red.checkpoint", bytes);
            }
            &checkpoint::Found::OtherVersion(found) => return Err(OpenError::Version { file: path, found }),
            checkpoint::Found::Absent | checkpoint::Found::Read(_) => {}
        }
        Ok(found)
    }

    /// The ledgers of destinations that have a file and are no longer configured.
    fn removed(&mut self, config: &SegmentLogConfig) -> Result<Vec<(String, DestinationLedger)>, OpenError> {
        let mut removed = Vec::new();
        for name in self.known_destinations()? {
            if config.destinations.iter().any(|destination| destination.name == name) {
                continue;
            }
            match self.position(&name)? {
                Known::At(ledger) => removed.push((name, ledger)),
                Known::Forgotten => self.changes.push(Change::Remove(self.paths.position(&name))),
                Known::No => {}
            }
        }
        Ok(removed)
    }

    /// Everyone's place, and where the log ends: behind everything that anybody ever counted, so that no ordinal
    /// is used twice.
    pub(super) fn state(
        &mut self,
        config: &SegmentLogConfig,
        mut segments: VecDeque<Segment>,
        next_number: u64,
        boot: Option<BootId>,
    ) -> Result<(State, Restored), OpenError> {
        let recovered = segments.back().map_or(0, |last| last.end);
        let next_sequence = segments.back().map_or(0, |last| last.next_sequence);
        let removed = self.removed(config)?;
        let mut known = Vec::new();
        for LogDestination { name, .. } in &config.destinations {
            known.push((self.position(name)?, self.letters(name)?));
        }
        let checkpoint = self.checkpoint()?;
        let counted = match &checkpoint {
            checkpoint::Found::Read(checkpoint) => Some(checkpoint.position),
            checkpoint::Found::Absent
            | checkpoint::Found::Damaged(_)
            | checkpoint::Found::OtherVersion(_) => None,
        };
        // How far the log has come as far as files tell that stay, and as far as any does.
        let stays = known.iter().filter_map(|(position, _)| position.ordinal()).chain(counted);
        let anchor = stays.fold(recovered, Ordinal::max);
        let letters = known.iter().flat_map(|(_, letters)| letters.iter());
        let told = letters.map(|letter| letter.ordinal.saturating_add(1));
        let told = told.chain(removed.iter().map(|(_, ledger)| ledger.position));
        let end = told.fold(anchor, Ordinal::max);

        // What was behind the last readable record and is known to somebody.
        if let Some(last) = segments.back_mut().filter(|last| last.end < end) {
            last.end = end;
            // Counted below.
            last.damage.insert(end);
        }
        let start = segments.front().map_or(end, |first| first.begin.first);
        let places = config.destinations.iter().zip(known);
        let destinations: Vec<_> = places
            .enumerate()
            .map(|(id, (setting, (position, letters)))| {
                destination(DestinationId(id), setting, position, letters, start, end)
            })
            .collect();
        let waiting = destinations.iter().map(|destination| destination.ledger.position).min();
        let gone = end > recovered && !segments.is_empty();
        let missing = self.count_lost(config.when_full, waiting, gone.then_some(recovered..end), start);

        let clean = self.closed_at() == Some(end);
        if matches!(self.marker, clean::Marker::Clean(_) | clean::Marker::Damaged) {
            let path = self.paths.clean();
            clean::remove(self.disk, &path).map_err(io_error("take", &path))?;
        }
        let last_damage = segments.back().and_then(|last| last.damage.last().copied());
        let damaged = last_damage.max(gone.then_some(end)).max(self.anew);
        let damaged = if self.newest_lost { Some(Ordinal::MAX) } else { damaged };
        let restored = restored(&checkpoint, start, end, damaged, clean, boot);
        let leaving = self.leave(removed, anchor, end);
        self.change(config.durability == Durability::Power)?;
        let state = State {
            segments,
            next_number,
            next_sequence,
            end,
            missing,
            cache: Records::default(),
            next_destination: destinations.len(),
            destinations,
            leaving,
            measured: config.measured.then(|| {
                let (Restored::Fresh(counted)
                | Restored::Checkpoint { position: counted, .. }
                | Restored::Broken { position: counted, .. }) = restored;
                let anew = matches!(restored, Restored::Broken { .. });
                Measured { counted, stored: counted, anew }
            }),
            stats: DiskStats::default(),
            troubles: Troubles::default(),
        };
        Ok((state, restored))
    }

    /// Counts spans as lost that somebody waits for and no segment has: those at the log's end that were known to
    /// somebody, and those before its start, which it returns.
    fn count_lost(
        &mut self,
        when_full: WhenFull,
        waiting: Option<Ordinal>,
        gone: Option<Range<Ordinal>>,
        start: Ordinal,
    ) -> Range<Ordinal> {
        let Range { start: from, end } = gone.unwrap_or_default();
        let lost = end - from.max(waiting.unwrap_or(end)).min(end);
        if lost > 0 {
            self.stats.damaged_spans += lost;
            self.say(format!("{lost} spans at the end of the log are lost: they never reached the disk"));
        }
        let missing = waiting.filter(|_| when_full == WhenFull::Refuse).map(|waiting| waiting..start);
        let missing = missing.unwrap_or_default();
        if !missing.is_empty() {
            let spans = missing.end - missing.start;
            self.stats.damaged_spans += spans;
            self.say(format!("{spans} spans at the beginning of the log are missing"));
        }
        missing
    }

    /// Lets destinations go that are no longer configured; returns those whose files have to stay for now.
    fn leave(
        &mut self,
        removed: Vec<(String, DestinationLedger)>,
        anchor: Ordinal,
        end: Ordinal,
    ) -> Vec<String> {
        let mut leaving = Vec::new();
        for (name, ledger) in removed {
            let queued = ledger.at_end(end).queued();
            let position = ledger.position;
            match queued {
                0 => tracing::info!(destination = name, position, "a destination is no longer configured"),
                // A name that was mistyped does this, too.
                _ => tracing::warn!(
                    destination = name,
                    position,
                    queued,
                    "a destination is no longer configured: the log does not keep its spans"
                ),
            }
            match ledger.position <= anchor {
                true => self.changes.push(Change::Remove(self.paths.position(&name))),
                // Another file has to tell first how far the log has come.
                false => leaving.push(name),
            }
        }
        leaving
    }
}

/// A destination at its place: where its file says, or where it is to begin.
pub(super) fn destination(
    id: DestinationId,
    setting: &LogDestination,
    position: Known,
    letters: KeptLetters,
    start: Ordinal,
    end: Ordinal,
) -> Destination {
    let (ledger, persisted) = match (position, setting.start) {
        (Known::At(ledger), _) => {
            let persisted = ledger.position;
            (ledger, Some(persisted))
        }
        (Known::Forgotten, _) | (Known::No, StartAt::Beginning) => {
            (DestinationLedger::starting_at(start), None)
        }
        (Known::No, StartAt::End) => (DestinationLedger::starting_at(end), None),
    };
    Destination {
        id,
        name: setting.name.clone(),
        settled: ledger.position,
        settles: Vec::new(),
        ledger,
        persisted,
        letters: Letters { kept: letters, unsaved: 0 },
    }
}

/// What a file says of a destination.
pub(super) enum Known {
    At(DestinationLedger),
    No,
    /// It was there, and its file is damaged.
    Forgotten,
}

impl Known {
    fn ordinal(&self) -> Option<Ordinal> {
        match self {
            Self::At(ledger) => Some(ledger.position),
            Self::No | Self::Forgotten => None,
        }
    }
}

/// Whether the checkpoint and the log together tell what was counted.
fn restored(
    checkpoint: &checkpoint::Found,
    start: Ordinal,
    end: Ordinal,
    damaged: Option<Ordinal>,
    clean: bool,
    boot: Option<BootId>,
) -> Restored {
    let broken = |why: String| Restored::Broken { position: end, why };
    match checkpoint {
        // The log has everything that there ever was.
        checkpoint::Found::Absent if start == 0 && damaged.is_none() => Restored::Fresh(0),
        checkpoint::Found::Absent => broken("there is no checkpoint".to_owned()),
        checkpoint::Found::Damaged(_) | checkpoint::Found::OtherVersion(_) => {
            broken("the checkpoint is damaged".to_owned())
        }
        checkpoint::Found::Read(frame) => {
            let same_boot = frame.boot.is_some() && frame.boot == boot;
            let synced = frame.durability == Durability::Power;
            if frame.position < start {
                broken(format!("the log begins at {start}, behind the checkpoint at {}", frame.position))
            } else if damaged.is_some_and(|damaged| damaged > frame.position) {
                broken(format!("spans behind the checkpoint at {} are damaged or lost", frame.position))
            } else if !(synced || same_boot || clean) {
                broken("the machine was restarted, and log.durability was not \"power\"".to_owned())
            } else {
                Restored::Checkpoint { position: frame.position, bytes: frame.bytes.clone() }
            }
        }
    }
}
