//! Opening a folder: what is there, and where everyone stands.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
};

use parking_lot::Mutex;
use thiserror::Error;

use super::{
    super::{
        DiskStats, Durability,
        disk::{Disk, OsDisk},
    },
    checkpoint::{self, BootId},
    config::SegmentLogConfig,
    lock::DirLock,
    recover::Opening,
    segment::{Paths, number_of},
    shared::Shared,
    standing::Known,
};

/// A folder cannot be used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A file is of another version of the program.
    #[error("{} has format version {found}: this program reads version 1; use the version that wrote it, or move the folder away", file.display())]
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The file system refuses.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

/// What of a folder nobody has had yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsent {
    /// Spans that the slowest destination has not had.
    pub spans: u64,
    /// Each destination with the spans that it has not had.
    pub destinations: Vec<(String, u64)>,
}

/// A log of segment files that was opened and read, and is not written to yet. Clones are of the same log.
#[derive(Debug, Clone)]
pub struct OpenLog {
    pub(super) shared: Arc<Shared>,
}

impl OpenLog {
    /// Opens the folder. It blocks: recovery reads the last segment, 64 MiB as a rule, and nothing else of the
    /// backlog. The lock is held until the log is closed, or the last clone is gone.
    ///
    /// # Errors
    /// [`OpenError`], and the folder is as it was.
    pub fn open(config: &SegmentLogConfig, lock: DirLock) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(OsDisk), config, Some(lock))
    }

    pub(in crate::log) fn open_on(
        disk: Arc<dyn Disk>,
        config: &SegmentLogConfig,
        lock: Option<DirLock>,
    ) -> Result<Self, OpenError> {
        Self::open_in(disk, config, lock, checkpoint::boot_id())
    }

    /// Opens the folder in this start of the machine.
    pub(in crate::log) fn open_in(
        disk: Arc<dyn Disk>,
        config: &SegmentLogConfig,
        lock: Option<DirLock>,
        boot: Option<BootId>,
    ) -> Result<Self, OpenError> {
        let paths = Paths { dir: config.dir.clone() };
        for dir in
            [paths.dir.clone(), paths.segments(), paths.positions(), paths.dead_letters(), paths.quarantine()]
        {
            disk.create_dir(&dir).map_err(io_error("make the folder", &dir))?;
        }
        if config.durability == Durability::Power {
            for dir in paths.above().into_iter().chain([&*paths.dir]) {
                disk.sync_dir(dir).map_err(io_error("sync the folder", dir))?;
            }
            sync_found(&*disk, &paths)?;
        }
        let mut opening = Opening::new(&*disk, &paths)?;
        let (segments, next_number) = opening.segments()?;
        let (mut state, restored) = opening.state(config, segments, next_number, boot)?;
        state.troubles.found = std::mem::take(&mut opening.found);
        state.troubles.found_spans = opening.stats.damaged_spans;
        let free_bytes = disk.free_bytes(&paths.segments()).unwrap_or_default();
        state.stats = DiskStats { quarantined_bytes: opening.quarantine.held(), free_bytes, ..opening.stats };
        let end = AtomicU64::new(state.end);
        let shared = Shared {
            config: config.clone(),
            disk: Arc::clone(&disk),
            paths,
            boot,
            restored,
            state: Mutex::new(state),
            end,
            dirty: AtomicBool::new(false),
            lock: Mutex::new(lock),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

/// What the folder's destinations have not had; `None` where it has no log, or nobody misses anything.
///
/// # Errors
/// [`OpenError`] where it cannot be read.
pub fn unsent(dir: &Path) -> Result<Option<Unsent>, OpenError> {
    unsent_on(&OsDisk, dir)
}

pub(in crate::log) fn unsent_on(disk: &dyn Disk, dir: &Path) -> Result<Option<Unsent>, OpenError> {
    let paths = Paths { dir: dir.to_owned() };
    match disk.list(&paths.segments()) {
        Ok(names) if names.iter().any(|name| number_of(name).is_some()) => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("list", &paths.segments())(error)),
    }
    let mut opening = Opening::new(disk, &paths)?;
    let (segments, _) = opening.segments()?;
    let end = segments.back().map_or(0, |last| last.end);
    let mut destinations = Vec::new();
    for name in opening.known_destinations()? {
        let position = match opening.position(&name)? {
            Known::At(ledger) => ledger.position,
            // It would begin with the first span that is there.
            Known::Forgotten => segments.front().map_or(end, |first| first.begin.first),
            Known::No => continue,
        };
        destinations.push((name, end.saturating_sub(position)));
    }
    let spans = destinations.iter().map(|(_, spans)| *spans).max().unwrap_or_default();
    Ok((spans > 0).then_some(Unsent { spans, destinations }))
}

/// Makes durable what a process that was killed may have left in the page cache: what is built upon from here on
/// must not go while that stays.
fn sync_found(disk: &dyn Disk, paths: &Paths) -> Result<(), OpenError> {
    for dir in [paths.segments(), paths.positions(), paths.dead_letters()] {
        let mut names = disk.list(&dir).map_err(io_error("list", &dir))?;
        if dir == paths.segments() {
            // Those before the last were synced, or were never acknowledged and do not count.
            let last = names.iter().filter_map(|name| number_of(name)).max();
            names.retain(|name| number_of(name).is_some_and(|number| Some(number) == last));
        }
        for path in names.iter().map(|name| dir.join(name)) {
            disk.open(&path).and_then(|file| file.sync()).map_err(io_error("sync", &path))?;
        }
        disk.sync_dir(&dir).map_err(io_error("sync the folder", &dir))?;
    }
    Ok(())
}

pub(super) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { what, path, source }
}
