//! Counting from the log what no message told (no actor here).

use std::time::Duration;

use super::{RedScratch, RedShared};
use crate::{
    log::{Ordinal, ReadError, ReadLimit, Record},
    span::scan,
};

/// How much one step reads: a few milliseconds of scanning, so that the arbiter's other actors go on. A
/// record is scanned whole, though it be larger.
pub(super) const STEP: ReadLimit = ReadLimit { spans: 4_096, bytes: 2 * 1024 * 1024 };

/// Counts what a read from `from` brought and moves the position behind it.
pub(super) fn count(
    red: &RedShared,
    scratch: &mut RedScratch,
    from: Ordinal,
    read: Result<Vec<Record>, ReadError>,
    now: Duration,
) {
    match read {
        Ok(records) => {
            let mut expected = from;
            for record in &records {
                red.skip(expected, record.first, now, |unmeasured| &mut unmeasured.damaged);
                count_record(red, scratch, record, now);
                expected = record.end();
            }
        }
        Err(ReadError::Released { start, .. }) => {
            red.skip(from, start, now, |unmeasured| &mut unmeasured.released);
        }
        Err(ReadError::Damaged { to, .. }) => {
            red.skip(from, to, now, |unmeasured| &mut unmeasured.damaged);
        }
    }
}

/// Counts the part of a record that lies behind the position.
fn count_record(red: &RedShared, scratch: &mut RedScratch, record: &Record, now: Duration) {
    let mut counted = red.position().max(record.first);
    let mut at = record.first;
    scratch.begin();
    let scanned = scan(&record.bytes, |span| {
        if at >= counted && at < record.end() && !scratch.try_observe(span) {
            // The scratch is full of series: count what it has, and the span finds room.
            counted = flush(red, scratch, counted, record);
            scratch.observe(span);
        }
        at = at.saturating_add(1);
    });
    match scanned {
        Ok(_) => {
            flush(red, scratch, counted, record);
            red.skip(at, record.end(), now, |unmeasured| &mut unmeasured.damaged);
        }
        Err(fault) => {
            scratch.discard();
            tracing::error!(first = record.first, spans = record.spans, %fault, "a record of the log does not scan");
            red.skip(record.first, record.end(), now, |unmeasured| &mut unmeasured.damaged);
        }
    }
}

/// Counts what the scratch has gathered of a record from ordinal `first` on; returns the ordinal behind it.
fn flush(red: &RedShared, scratch: &mut RedScratch, first: Ordinal, record: &Record) -> Ordinal {
    let delta = scratch.take();
    red.merge_caught_up(first, &delta, record.committed_unix);
    first.saturating_add(delta.spans())
}
