//! The bytes of a checkpoint (level 0: pure). Numbers are little-endian, times in nanoseconds since the Unix epoch.
//!
//! ```text
//! checkpoint  schema 8 · position 8 · created 8 · latest 8
//!             caught up 8 · damaged 8 · released 8 · folded 8 · cut 8 · expired 8
//!             services turned away 64 · overflow 1 (0 or 1), and its counts
//!             number of departed names 4, and the names in their order
//!             number of foldings 4, and the foldings in the order of their services
//!             number of series 4, and the series in the order of their keys
//! folding     text of the service · label 1 · distinct values 64
//! name        text of the name · spans 8 · errors 8 · sum of durations 16
//! series      texts of service, name and each dimension · kind 1 · overflow 1 (0 or 1) · status 1 · counts
//! counts      spans 8 · errors 8 · sum of durations 16 · created 8 · last 8 · 8 for each bucket
//! text        length 2 and its bytes
//! ```
//!
//! The schema is a hash of everything that gives these bytes their meaning. The log's frame around them has a
//! checksum; here only what could not have been written is refused.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use thiserror::Error;

use super::{
    Exemplars, LABEL_BYTES_MAX, RedCounts, RedSeries, RedSettings, RedTotals, Unmeasured,
    cap::StoredFolding,
    dimensions::DIMENSIONS_MAX,
    key::{Joined, Label},
    seed::{Departed, Sums},
    sketch::{SKETCH_BYTES, Sketch},
};
use crate::{
    codec::Reader,
    metrics::SPAN_COUNT,
    span::{SpanKind, StatusCode},
};

/// Changes with the layout above, and with what a number of a kind, status or label means.
const VERSION: u32 = 3;
/// Bytes before the overflow series.
const HEAD_BYTES: usize = 10 * 8 + SKETCH_BYTES;

/// The counters as of a position.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Checkpoint {
    /// Every span before this ordinal is counted.
    pub(super) position: u64,
    /// When the counters that have no labels began at 0.
    pub(super) created: Duration,
    /// The latest commit that is counted; no series that is not here yet begins before it.
    pub(super) latest: Duration,
    pub(super) totals: RedTotals,
    pub(super) overflow: Option<RedCounts>,
    /// Sums of series that are gone.
    pub(super) departed: Departed,
    pub(super) series: Vec<RedSeries>,
    /// What is folded, the foldings of a service in the order in which they came.
    pub(super) foldings: Vec<StoredFolding>,
    /// The services that found no room.
    pub(super) turned_away: Sketch,
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
pub(super) fn schema(settings: &RedSettings) -> u64 {
    // When series expire is not of them, nor by which names they are exported: that changes no meaning.
    let RedSettings { max_series, bounds, dimensions, .. } = settings;
    let mut hash = Fnv::new();
    hash.number(u64::from(VERSION));
    hash.number(SPAN_COUNT.family().labels.len() as u64);
    for label in SPAN_COUNT.family().labels {
        hash.text(label);
    }
    hash.number(LABEL_BYTES_MAX as u64);
    hash.number(*max_series as u64);
    hash.number(bounds.buckets() as u64);
    bounds.nanos().iter().for_each(|&bound| hash.number(bound));
    hash.number(dimensions.len() as u64);
    dimensions.attributes().chain(dimensions.labels()).for_each(|text| hash.text(text));
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

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes(text.as_bytes());
    }

    fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }
}

impl Checkpoint {
    /// The bytes, with so many dimensions; not to be called under a lock, because they grow.
    pub(super) fn encode(mut self, schema: u64, dimensions: usize) -> Bytes {
        self.series.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
        let mut out = Vec::with_capacity(self.size(dimensions));
        let RedTotals { unmeasured, caught_up, folded, cut, expired } = self.totals;
        let Unmeasured { damaged, released } = unmeasured;
        for number in [schema, self.position, nanos(self.created), nanos(self.latest)] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [caught_up, damaged, released, folded, cut, expired] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(self.turned_away.registers());
        out.push(u8::from(self.overflow.is_some()));
        if let Some(counts) = &self.overflow {
            put_counts(&mut out, counts);
        }
        put_number(&mut out, self.departed.len());
        for (name, Sums { count, errors, sum_nanos }) in &self.departed {
            put_text(&mut out, name);
            out.extend_from_slice(&count.to_le_bytes());
            out.extend_from_slice(&errors.to_le_bytes());
            out.extend_from_slice(&sum_nanos.to_le_bytes());
        }
        put_number(&mut out, self.foldings.len());
        for folding in &self.foldings {
            put_text(&mut out, &folding.service);
            out.push(folding.label.number());
            out.extend_from_slice(folding.distinct.registers());
        }
        put_number(&mut out, self.series.len());
        for series in &self.series {
            put_text(&mut out, &series.service);
            put_text(&mut out, &series.name);
            let values = series.dimensions.values();
            (0..dimensions).for_each(|dimension| put_text(&mut out, values.get(dimension)));
            out.extend_from_slice(&[series.kind as u8, u8::from(series.overflow), series.status as u8]);
            put_counts(&mut out, &series.counts);
        }
        out.into()
    }

    fn size(&self, dimensions: usize) -> usize {
        let overflow = self.overflow.as_ref().map_or(0, counts_bytes);
        let foldings = self.foldings.iter().map(|it| 2 + it.service.len() + 1 + SKETCH_BYTES);
        let series = self.series.iter().map(|it| {
            let texts = it.service.len() + it.name.len() + it.dimensions.values().text.len();
            2 * (2 + dimensions) + texts + 3 + counts_bytes(&it.counts)
        });
        let departed: usize = self.departed.keys().map(|name| 2 + name.len() + 8 + 8 + 16).sum();
        HEAD_BYTES + 1 + overflow + 4 + departed + 4 + foldings.sum::<usize>() + 4 + series.sum::<usize>()
    }

    /// What was encoded with these settings. Reserves no more than the bytes account for.
    pub(super) fn decode(bytes: &[u8], settings: &RedSettings) -> Result<Self, CheckpointError> {
        let mut fields = Reader(bytes);
        let found = fields.u64().ok_or(CheckpointError::Damaged)?;
        if found != schema(settings) {
            return Err(CheckpointError::Schema);
        }
        Self::take(&mut fields, settings).filter(|_| fields.0.is_empty()).ok_or(CheckpointError::Damaged)
    }

    fn take(fields: &mut Reader<'_>, settings: &RedSettings) -> Option<Self> {
        let (buckets, dimensions) = (settings.bounds.buckets(), settings.dimensions.len());
        // There may be more than the cap says, if it was lowered: those that were there go on.
        let series_max = settings.max_series.max(*RedSettings::MAX_SERIES.end());
        let position = fields.u64()?;
        let (created, latest) = (take_time(fields)?, take_time(fields)?);
        let totals = RedTotals {
            caught_up: fields.u64()?,
            unmeasured: Unmeasured { damaged: fields.u64()?, released: fields.u64()? },
            folded: fields.u64()?,
            cut: fields.u64()?,
            expired: fields.u64()?,
        };
        let turned_away = fields.take().and_then(Sketch::stored)?;
        let overflow = match take_flag(fields)? {
            false => None,
            true => Some(take_counts(fields, buckets)?),
        };
        let mut departed = Departed::new();
        // Those of the series, and what the overflow series goes by.
        for _ in 0..take_number(fields, series_max + 1)? {
            let name = take_text_of(fields, LABEL_BYTES_MAX + 1)?.to_string();
            if departed.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return None;
            }
            let (count, errors) = (fields.u64()?, fields.u64()?);
            let sum_nanos = fields.take().map(u128::from_le_bytes)?;
            departed.insert(name, Sums { count, errors, sum_nanos });
        }
        let count = take_number(fields, series_max * (1 + DIMENSIONS_MAX))?;
        let mut foldings: Vec<StoredFolding> = Vec::new();
        for _ in 0..count {
            let service = take_text(fields)?;
            let label = Label::from_number(fields.u8()?, dimensions)?;
            let distinct = fields.take().and_then(Sketch::stored)?;
            let next = StoredFolding { service, label, distinct };
            let of_service = foldings.iter().rev().take_while(|it| it.service == next.service);
            let twice = of_service.clone().any(|it| it.label == next.label);
            if twice || foldings.last().is_some_and(|last| last.service > next.service) {
                return None;
            }
            foldings.push(next);
        }
        let count = take_number(fields, series_max)?;
        let mut series: Vec<RedSeries> = Vec::new();
        for _ in 0..count {
            let next = take_series(fields, dimensions, buckets)?;
            if series.last().is_some_and(|last| last.key() >= next.key()) {
                return None;
            }
            series.push(next);
        }
        Some(Self { position, created, latest, totals, overflow, departed, series, foldings, turned_away })
    }
}

fn counts_bytes(counts: &RedCounts) -> usize {
    8 + 8 + 16 + 8 + 8 + 8 * counts.buckets.len()
}

/// A time after the year 2554 becomes that.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn put_number(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
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
    out.extend_from_slice(&nanos(counts.last).to_le_bytes());
    for bucket in &counts.buckets {
        out.extend_from_slice(&bucket.to_le_bytes());
    }
}

fn take_number(fields: &mut Reader<'_>, most: usize) -> Option<usize> {
    usize::try_from(fields.u32()?).ok().filter(|&number| number <= most)
}

fn take_flag(fields: &mut Reader<'_>) -> Option<bool> {
    match fields.u8()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn take_series(fields: &mut Reader<'_>, dimensions: usize, buckets: usize) -> Option<RedSeries> {
    let (service, name) = (take_text(fields)?, take_text(fields)?);
    let mut joined = Joined::default();
    for _ in 0..dimensions {
        joined.push(&take_text(fields)?);
    }
    let dimensions = joined.values().into();
    let (kind, overflow, status) = (take_kind(fields)?, take_flag(fields)?, take_status(fields)?);
    let counts = take_counts(fields, buckets)?;
    Some(RedSeries { service, name, kind, dimensions, overflow, status, counts })
}

fn take_text(fields: &mut Reader<'_>) -> Option<Arc<str>> {
    take_text_of(fields, LABEL_BYTES_MAX)
}

fn take_text_of(fields: &mut Reader<'_>, most: usize) -> Option<Arc<str>> {
    let length = usize::from(fields.u16()?);
    let text = fields.bytes(length).filter(|text| text.len() <= most)?;
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
    let (created, last) = (take_time(fields)?, take_time(fields)?);
    let (buckets, _rest) = fields.bytes(buckets.checked_mul(8)?)?.as_chunks::<8>();
    let buckets = buckets.iter().map(|bucket| u64::from_le_bytes(*bucket)).collect();
    let exemplars = Exemplars::default();
    Some(RedCounts { count, errors, sum_nanos, buckets, created, last, exemplars })
}

fn take_time(fields: &mut Reader<'_>) -> Option<Duration> {
    fields.u64().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests;
