//! Settings of a log of segment files.

use std::path::PathBuf;

use super::super::Durability;

/// Settings of a log of segment files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentLogConfig {
    /// The folder (`log.dir`); made where there is none.
    pub dir: PathBuf,
    /// [`Durability::Process`] or [`Durability::Power`] (`log.durability`).
    pub durability: Durability,
    /// Bytes of all segment files at most (`log.max_bytes`).
    pub max_bytes: u64,
    /// What happens beyond it (`log.when_full`).
    pub when_full: WhenFull,
    /// Bytes of the file system that the log leaves free (`log.min_free_bytes`).
    pub min_free_bytes: u64,
    /// A segment that has this many bytes gets no further group (`log.segment_bytes`).
    pub segment_bytes: u64,
    /// The destinations, in the order of their ids.
    pub destinations: Vec<LogDestination>,
    /// Whether the span metrics follow the log, so that segments wait for their checkpoint too.
    pub measured: bool,
}

/// A destination as the log sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDestination {
    /// 1 to 32 characters of `a-z`, `0-9`, `_` and `-`: its files are named after it.
    pub name: String,
    /// Where it begins if the log does not know it yet.
    pub start: StartAt,
}

/// Where a destination begins that the log does not know yet (`export.NAME.start`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StartAt {
    /// With the next span.
    #[default]
    End,
    /// With the first span that the log still holds.
    Beginning,
}

/// What happens when the log is full (`log.when_full`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Batches are refused; their senders are told to come back.
    #[default]
    Refuse,
    /// The oldest segment is let go of; spans that a destination had not had are counted as `evicted`.
    DropOldest,
}

impl SegmentLogConfig {
    /// The defaults of `config/default.toml`, without destinations.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            durability: Durability::Process,
            max_bytes: 10 << 30,
            when_full: WhenFull::Refuse,
            min_free_bytes: 256 << 20,
            segment_bytes: 64 << 20,
            destinations: Vec::new(),
            measured: true,
        }
    }
}
