//! The bytes of a checkpoint (level 0: pure). Numbers are little-endian, times in nanoseconds since the Unix epoch.
//!
//! ```text
//! checkpoint  schema 8 · position 8 · created 8 · latest 8 · caught up 8 · damaged 8 · released 8
//!             overflow 1 (0 or 1), and its counts · number of series 4, and the series in the order of their keys
//! series      length 2 and service · length 2 and name · kind 1 · status 1 · counts
//! counts      spans 8 · errors 8 · sum of durations 16 · created 8 · 8 for each bucket
//! ```
//!
//! The schema is a hash of everything that gives these bytes their meaning. The log's frame around them has a
//! checksum; here only what could not have been written is refused.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use thiserror::Error;

use super::{Bounds, LABEL_BYTES_MAX, RedCounts, RedKey, RedSeries, Unmeasured};
use crate::{
    codec::Reader,
    metrics::SPAN_COUNT,
    span::{SpanKind, StatusCode},
};

/// Changes with the layout above, and with what a number of a kind or status means.
const VERSION: u32 = 1;
/// Bytes before the overflow series.
const HEAD_BYTES: usize = 7 * 8;

/// The counters as of a position.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Checkpoint {
    /// Every span before this ordinal is counted.
    pub(super) position: u64,
    /// When the counters that have no labels began at 0.
    pub(super) created: Duration,
    /// The latest commit that is counted; no series that is not here yet begins before it.
    pub(super) latest: Duration,
    pub(super) caught_up: u64,
    pub(super) unmeasured: Unmeasured,
    pub(super) overflow: Option<RedCounts>,
    pub(super) series: Vec<RedSeries>,
}

/// A checkpoint cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum CheckpointError {
    /// It was made with other dimensions, bounds or limits, or by another version.
    #[error("dimensions, histogram bounds or limits are not those of the checkpoint")]
    Schema,
    /// No version of this program wrote this.
    #[error("checkpoint is damaged")]
    Damaged,
}

/// A hash of what gives a checkpoint its meaning; the same in every process.
pub(super) fn schema(bounds: &Bounds, series_max: usize) -> u64 {
    let mut hash = Fnv::new();
    hash.number(u64::from(VERSION));
    hash.number(SPAN_COUNT.family().labels.len() as u64);
    for label in SPAN_COUNT.family().labels {
        hash.number(label.len() as u64);
        hash.bytes(label.as_bytes());
    }
    hash.number(LABEL_BYTES_MAX as u64);
    hash.number(series_max as u64);
    hash.number(bounds.buckets() as u64);
    bounds.nanos().iter().for_each(|&bound| hash.number(bound));
    hash.0
}

/// FNV-1a of 64 bits.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }
}

impl Checkpoint {
    /// The bytes; not to be called under a lock, because they grow.
    pub(super) fn encode(mut self, schema: u64) -> Bytes {
        self.series.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
        let size: usize = self.series.iter().map(series_bytes).sum();
        let overflow = self.overflow.as_ref().map_or(0, counts_bytes);
        let mut out = Vec::with_capacity(HEAD_BYTES + 1 + overflow + 4 + size);
        for number in [schema, self.position, nanos(self.created), nanos(self.latest), self.caught_up] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.unmeasured.damaged.to_le_bytes());
        out.extend_from_slice(&self.unmeasured.released.to_le_bytes());
        out.push(u8::from(self.overflow.is_some()));
        if let Some(counts) = &self.overflow {
            put_counts(&mut out, counts);
        }
        let count = u32::try_from(self.series.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        for series in &self.series {
            put_text(&mut out, &series.service);
            put_text(&mut out, &series.name);
            out.extend_from_slice(&[series.kind as u8, series.status as u8]);
            put_counts(&mut out, &series.counts);
        }
        out.into()
    }

    /// What was encoded with these bounds and this limit of series. Reserves no more than the bytes account for.
    pub(super) fn decode(bytes: &[u8], bounds: &Bounds, series_max: usize) -> Result<Self, CheckpointError> {
        let mut fields = Reader(bytes);
        let found = fields.u64().ok_or(CheckpointError::Damaged)?;
        if found != schema(bounds, series_max) {
            return Err(CheckpointError::Schema);
        }
        Self::take(&mut fields, bounds.buckets(), series_max)
            .filter(|_| fields.0.is_empty())
            .ok_or(CheckpointError::Damaged)
    }

    fn take(fields: &mut Reader<'_>, buckets: usize, series_max: usize) -> Option<Self> {
        let position = fields.u64()?;
        let (created, latest) = (take_time(fields)?, take_time(fields)?);
        let caught_up = fields.u64()?;
        let unmeasured = Unmeasured { damaged: fields.u64()?, released: fields.u64()? };
        let overflow = match fields.u8()? {
            0 => None,
            1 => Some(take_counts(fields, buckets)?),
            _ => return None,
        };
        let count = usize::try_from(fields.u32()?).ok().filter(|&count| count <= series_max)?;
        let mut series: Vec<RedSeries> = Vec::new();
        for _ in 0..count {
            let next = take_series(fields, buckets)?;
            if series.last().is_some_and(|last| last.key() >= next.key()) {
                return None;
            }
            series.push(next);
        }
        Some(Self { position, created, latest, caught_up, unmeasured, overflow, series })
    }
}

fn series_bytes(series: &RedSeries) -> usize {
    let RedKey { service, name, .. } = series.key();
    2 + service.len() + 2 + name.len() + 2 + counts_bytes(&series.counts)
}

fn counts_bytes(counts: &RedCounts) -> usize {
    8 + 8 + 16 + 8 + 8 * counts.buckets.len()
}

/// A time after the year 2554 becomes that.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Labels are cut where a span is counted; a longer one would be refused at its decoding.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_counts(out: &mut Vec<u8>, counts: &RedCounts) {
    out.extend_from_slice(&counts.count.to_le_bytes());
    out.extend_from_slice(&counts.errors.to_le_bytes());
    out.extend_from_slice(&counts.sum_nanos.to_le_bytes());
    out.extend_from_slice(&nanos(counts.created).to_le_bytes());
    for bucket in &counts.buckets {
        out.extend_from_slice(&bucket.to_le_bytes());
    }
}

fn take_series(fields: &mut Reader<'_>, buckets: usize) -> Option<RedSeries> {
    let (service, name) = (take_text(fields)?, take_text(fields)?);
    let (kind, status) = (take_kind(fields)?, take_status(fields)?);
    Some(RedSeries { service, name, kind, status, counts: take_counts(fields, buckets)? })
}

fn take_text(fields: &mut Reader<'_>) -> Option<Arc<str>> {
    let length = usize::from(fields.u16()?);
    let text = fields.bytes(length).filter(|text| text.len() <= LABEL_BYTES_MAX)?;
    std::str::from_utf8(text).ok().map(Arc::from)
}

fn take_kind(fields: &mut Reader<'_>) -> Option<SpanKind> {
    let number = fields.u8()?;
    Some(SpanKind::from_wire(number.into())).filter(|&kind| kind as u8 == number)
}

fn take_status(fields: &mut Reader<'_>) -> Option<StatusCode> {
    let number = fields.u8()?;
    Some(StatusCode::from_wire(number.into())).filter(|&status| status as u8 == number)
}

fn take_counts(fields: &mut Reader<'_>, buckets: usize) -> Option<RedCounts> {
    let (count, errors) = (fields.u64()?, fields.u64()?);
    let sum_nanos = fields.take().map(u128::from_le_bytes)?;
    let created = take_time(fields)?;
    let (buckets, _rest) = fields.bytes(buckets.checked_mul(8)?)?.as_chunks::<8>();
    let buckets = buckets.iter().map(|bucket| u64::from_le_bytes(*bucket)).collect();
    Some(RedCounts { count, errors, sum_nanos, buckets, created })
}

fn take_time(fields: &mut Reader<'_>) -> Option<Duration> {
    fields.u64().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests;
