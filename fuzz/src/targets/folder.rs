//! A log's folder, and reading all of a log.

use std::path::Path;

use nyx_telemetry::log::{
    ReadError, ReadLimit, Record,
    segments::{
        LogDestination, OpenError, SegmentLogConfig, StartAt,
        fuzzing::{Log, MemoryDisk},
    },
};

use crate::{Trace, ensure};

pub(super) const WIDE: ReadLimit = ReadLimit { spans: u64::MAX, bytes: usize::MAX };
pub(super) const NARROW: ReadLimit = ReadLimit { spans: 1, bytes: 1 };

/// Settings of a log with one destination, `d`, which begins with the first span there is.
pub(super) fn config() -> SegmentLogConfig {
    SegmentLogConfig {
        min_free_bytes: 0,
        destinations: vec![LogDestination { name: "d".to_owned(), start: StartAt::Beginning }],
        measured: false,
        ..SegmentLogConfig::new("/log")
    }
}

/// The path of the segment with this number.
pub(super) fn segment_path(number: u64) -> String {
    format!("/log/segments/{number:012}.segment")
}

/// Opens the folder; `None` where it is of another version.
pub(super) fn open(
    disk: &MemoryDisk,
    config: &SegmentLogConfig,
    trace: &mut Trace,
) -> Result<Option<Log>, String> {
    match Log::open(disk, config) {
        Ok(log) => {
            let stats = log.log().stats().disk.unwrap_or_default();
            trace.see("opened");
            trace.see_if(stats.segments == 0, "no segment");
            trace.see_if(stats.damaged_spans > 0, "damaged spans");
            trace.see_if(stats.torn_bytes > 0, "torn");
            trace.see_if(stats.quarantined_bytes > 0, "quarantined");
            let aside = disk.paths().iter().any(|path| {
                path.parent() == Some(Path::new("/log/quarantine"))
                    && path.extension().is_some_and(|extension| extension == "segment")
            });
            trace.see_if(aside, "segment set aside");
            Ok(Some(log))
        }
        Err(OpenError::Version { .. }) => {
            trace.see("other version");
            Ok(None)
        }
        Err(error) => Err(format!("the folder does not open: {error}")),
    }
}

/// All that a log gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) records: Vec<Held>,
    /// From and to.
    pub(super) gaps: Vec<(u64, u64)>,
}

/// A record without its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) first: u64,
    pub(super) spans: u32,
    pub(super) bytes: Vec<u8>,
}

impl From<Record> for Held {
    fn from(Record { first, spans, bytes, .. }: Record) -> Self {
        Self { first, spans, bytes: bytes.to_vec() }
    }
}

impl Held {
    pub(super) fn end(&self) -> u64 {
        self.first + u64::from(self.spans)
    }
}

/// Reads all of a log: each ordinal from its start to its end is in a record or in a gap.
pub(super) fn read_all(log: &Log, limit: ReadLimit, trace: &mut Trace) -> Result<Reading, String> {
    let stats = log.log().stats();
    let (start, end) = (stats.start, stats.end);
    ensure!(start <= end, "a log from {start} to {end}");
    let mut reading = Reading { records: Vec::new(), gaps: Vec::new() };
    let mut at = start;
    while at < end {
        match log.read(at, limit) {
            None => return Err(format!("the read from {at} waits")),
            Some(Ok(records)) => {
                ensure!(!records.is_empty(), "nothing at {at}, and the log ends at {end}");
                for record in records {
                    ensure!(
                        record.first <= at && at < record.end(),
                        "a record of {}..{} where {at} was wanted",
                        record.first,
                        record.end()
                    );
                    at = record.end();
                    trace.see("record");
                    reading.records.push(record.into());
                }
            }
            Some(Err(ReadError::Damaged { from, to })) => {
                ensure!(from == at && to > at && to <= end, "damage of {from}..{to} at {at}, end {end}");
                trace.see("gap");
                reading.gaps.push((from, to));
                at = to;
            }
            Some(Err(error)) => return Err(format!("the read from {at} of {start}..{end}: {error}")),
        }
    }
    ensure!(at == end, "records up to {at}, and the log ends at {end}");
    Ok(reading)
}
