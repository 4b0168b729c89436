//! The log before anything else runs: the lock of its folder, then what lies in it.

use std::{fmt::Display, path::Path, time::Duration};

use humantime_serde::re::humantime::format_duration;
use nyx_telemetry::{
    export::DestinationConfig,
    log::{
        Durability,
        segments::{DirLock, OpenError, OpenLog, SegmentLogConfig, Unsent, unsent},
    },
    tree::LogForm,
};
use tokio::time::{Instant, sleep_until};

use crate::{
    config::{Config, Log},
    exit::{self, Failure},
    run::Signals,
};

/// How often a lock that another process has is tried.
const LOCK_PERIOD: Duration = Duration::from_millis(50);

/// Opens the log that the configuration asks for; `None` where a signal ended the wait for its folder's lock.
///
/// # Errors
/// [`exit::TEMPFAIL`] where another process has the folder, [`exit::UNAVAILABLE`] where it cannot be used,
/// [`exit::CONFIG`] where the log is to be in memory and the folder holds what nobody has had.
pub async fn open(config: &Config, signals: &mut Signals) -> Result<Option<LogForm>, Failure> {
    let log = &config.log;
    if log.durability == Durability::Memory {
        nothing_is_left_in(&log.dir)?;
        return Ok(Some(LogForm::Memory { max_bytes: log.memory_max_bytes }));
    }
    let Some(lock) = lock(log, signals).await? else { return Ok(None) };
    // It blocks this thread, on which nothing else runs yet. A signal that comes meanwhile is heard behind it.
    let opened = OpenLog::open(&segments(config), lock).map_err(|error| unusable(&log.dir, &error))?;
    Ok(Some(LogForm::Segments(opened)))
}

fn segments(config: &Config) -> SegmentLogConfig {
    let Log { dir, durability, max_bytes, when_full, min_free_bytes, segment_bytes, .. } = config.log.clone();
    SegmentLogConfig {
        dir,
        durability,
        max_bytes,
        when_full,
        min_free_bytes,
        segment_bytes,
        destinations: config.export.iter().map(DestinationConfig::in_log).collect(),
        measured: config.telemetry.prometheus_enabled,
    }
}

async fn lock(log: &Log, signals: &mut Signals) -> Result<Option<DirLock>, Failure> {
    let dir = log.dir.display();
    let deadline = Instant::now() + log.lock_timeout;
    let mut told = false;
    loop {
        if let Some(lock) = DirLock::try_acquire(&log.dir).map_err(|error| elsewhere(&log.dir, error))? {
            return Ok(Some(lock));
        }
        let holder = DirLock::holder(&log.dir);
        let holder = holder.map_or_else(|| "another process".to_owned(), |id| format!("process {id}"));
        let now = Instant::now();
        if now >= deadline {
            let waited = format_duration(log.lock_timeout);
            let why = format!("it is locked by {holder}; waited {waited} (log.lock_timeout)");
            return Err(cannot_use(exit::TEMPFAIL, &log.dir, why));
        }
        if !std::mem::replace(&mut told, true) {
            tracing::info!("waiting for the lock of {dir}, held by {holder}");
        }
        tokio::select! {
            () = sleep_until(deadline.min(now + LOCK_PERIOD)) => {}
            name = signals.next() => {
                tracing::info!(signal = name, "stopped: the lock of {dir} was not free");
                return Ok(None);
            }
        }
    }
}

/// Spans in a folder would be forgotten there. If another process has it, it is that one's to deliver them.
fn nothing_is_left_in(dir: &Path) -> Result<(), Failure> {
    if !dir.join("segments").is_dir() {
        return Ok(());
    }
    // First the lock: what another process is writing at this moment looks torn.
    let Some(_lock) = DirLock::try_acquire(dir).map_err(|error| elsewhere(dir, error))? else {
        return Ok(());
    };
    let Some(Unsent { spans: spans @ 1.., destinations }) =
        unsent(dir).map_err(|error| unusable(dir, &error))?
    else {
        return Ok(());
    };
    let each: Vec<_> = destinations.iter().map(|(name, spans)| format!("{name} {spans}")).collect();
    let why = format!(
        "log.durability is \"memory\", and it holds {spans} spans that were not delivered ({}): run once with \
         \"process\" until they are, or move the folder away",
        each.join(", ")
    );
    Err(cannot_use(exit::CONFIG, dir, why))
}

fn cannot_use(status: u8, dir: &Path, why: impl Display) -> Failure {
    Failure::new(status, format!("cannot use {} (log.dir): {why}", dir.display()))
}

fn unusable(dir: &Path, error: &OpenError) -> Failure {
    match error {
        OpenError::Io { .. } => elsewhere(dir, error),
        OpenError::Version { .. } => cannot_use(exit::UNAVAILABLE, dir, error),
    }
}

fn elsewhere(dir: &Path, error: impl Display) -> Failure {
    let why = format!("{error}; log.dir, or $STATE_DIRECTORY where it is empty, sets the folder");
    cannot_use(exit::UNAVAILABLE, dir, why)
}
