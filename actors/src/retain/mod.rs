//! The retention buffer: the last spans that the log took stay readable in memory, errors and slow ones longest (level 2).
//!
//! ```text
//!  collector ──► recent ──► in transit ── the retention's thread ──► kept
//!                whole       those with errors or slow spans,        these spans
//!                batches     until they are looked through           alone
//! ```
//!
//! It holds no span of the log back, and loses nothing that counts: it is what an operator looks at, not where spans are.
//! Committing a batch costs a reference to its bytes and a look at its RED delta, which says whether it has errors or slow
//! spans. Only batches that have some are read again, by a thread of its own.

mod buffer;
mod query;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::{sync::Semaphore, time::Instant};

pub use query::{FOUND_BYTES_MAX, Found, SpanQuery};

use self::buffer::{Batch, Buffer};
use crate::{
    measure::RedDelta,
    span::{self, StatusCode},
};

/// Bytes that a batch has beyond its length at most, where its buffer was used before.
const SLACK: usize = 4 << 10;
/// A batch below this has a buffer of its own length.
const EXACT_BELOW: usize = 8 << 10;
/// What a batch is charged beside its bytes.
const BATCH_COST: usize = 128;

/// Settings of the retention buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionConfig {
    /// Bytes that it holds at most; 16 MiB. With 0 there is none.
    pub max_bytes: usize,
    /// A span that took this long or longer is slow, and kept as long as an error; 1 s.
    pub slow: Duration,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { max_bytes: 16 << 20, slow: Duration::from_secs(1) }
    }
}

/// What the retention buffer holds, as `retention` on `/stats`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RetentionStats {
    /// Bytes held, buffers and bookkeeping included.
    pub bytes: usize,
    /// `retention.max_bytes`.
    pub max_bytes: usize,
    /// Spans of the last batches.
    pub recent_spans: u64,
    /// Errors and slow spans of batches before those.
    pub kept_spans: u64,
    /// Spans of batches that were never looked through: those that had errors or slow spans and had to go before these were
    /// looked for, and those too large for half of `max_bytes`, which are not taken.
    pub unsifted_spans: u64,
}

/// The retention buffer, shared by the collector, its own thread and the pages.
#[derive(Debug)]
pub struct Retention {
    slow_nanos: u64,
    /// Nothing that happens under the lock can panic, which the lock would hide.
    buffer: Mutex<Buffer>,
    /// One query at a time: what a query looks at stays in memory meanwhile.
    queries: Semaphore,
}

/// Wakes the retention's thread.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// What the collector has of the retention buffer.
#[derive(Clone)]
pub struct Retainer {
    retention: Arc<Retention>,
    wake: Wake,
}

impl std::fmt::Debug for Retainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Retainer").field(&self.retention).finish()
    }
}

impl Retainer {
    /// Batches go to `retention`; `wake` wakes its thread.
    pub fn new(retention: Arc<Retention>, wake: Wake) -> Self {
        Self { retention, wake }
    }

    /// The log has these batches.
    pub(crate) fn retain<'a>(&self, batches: impl Iterator<Item = (Bytes, &'a RedDelta)>) {
        if self.retention.retain(batches) {
            (self.wake)();
        }
    }
}

impl Retention {
    /// An empty buffer.
    pub fn new(config: RetentionConfig) -> Self {
        Self {
            slow_nanos: u64::try_from(config.slow.as_nanos()).unwrap_or(u64::MAX),
            buffer: Mutex::new(Buffer::new(config.max_bytes)),
            queries: Semaphore::new(1),
        }
    }

    /// Takes batches, each with what it added to the RED metrics. True where there is work for the thread.
    pub fn retain<'a>(&self, batches: impl Iterator<Item = (Bytes, &'a RedDelta)>) -> bool {
        let mut buffer = self.buffer.lock();
        for (bytes, delta) in batches {
            let spans = u32::try_from(delta.spans()).unwrap_or(u32::MAX);
            let cost = cost(bytes.len());
            buffer.push(Batch { bytes, spans, cost, has_worthy: self.may_have_worthy(delta) });
        }
        buffer.wakes(Instant::now())
    }

    /// Whether a batch may have errors or slow spans: the buckets know durations only roughly.
    fn may_have_worthy(&self, delta: &RedDelta) -> bool {
        let slow = delta.settings().map_or(0, |settings| settings.bounds.bucket(self.slow_nanos));
        !delta.is_complete()
            || delta.entries().any(|entry| {
                entry.key.status == StatusCode::Error
                    || entry.buckets.iter().skip(slow).any(|count| *count > 0)
            })
    }

    /// Looks through what is in transit now, and keeps what is worth it. The work of the thread.
    pub fn sift(&self) {
        let batches = self.buffer.lock().in_transit();
        for _ in 0..batches {
            let Some(batch) = self.buffer.lock().next() else { return };
            let mut kept = Vec::new();
            let slow = self.slow_nanos;
            let selected = span::select(
                &batch.bytes,
                |_, span| span.status == StatusCode::Error || span.duration_nanos() >= slow,
                &mut kept,
            );
            // Bytes that the log took scan.
            let spans = selected.unwrap_or_default();
            kept.shrink_to_fit();
            let cost = kept.len() + BATCH_COST;
            let kept = (spans > 0).then(|| Batch { bytes: kept.into(), spans, cost, has_worthy: true });
            self.buffer.lock().sifted(kept);
        }
    }

    /// What it holds at this moment.
    pub fn stats(&self) -> RetentionStats {
        self.buffer.lock().stats()
    }

    /// The newest spans that the query wants. One query runs at a time, in steps that let others run between them.
    pub async fn find(&self, query: &SpanQuery) -> Found {
        let Ok(_turn) = self.queries.acquire().await else { return Found::default() };
        let batches = self.buffer.lock().newest_first();
        query.run(batches).await
    }
}

/// What a batch is charged: its buffer may be a quarter and 4 KiB larger than it is.
fn cost(len: usize) -> usize {
    match len {
        0..EXACT_BELOW => len + BATCH_COST,
        _ => len + len / 4 + SLACK + BATCH_COST,
    }
}
