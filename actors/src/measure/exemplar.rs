//! A span of each bucket, by its ids (level 0).
//!
//! Only of a trace that a destination gets: an exemplar that leads to nothing helps nobody. A batch remembers the first such span
//! of each bucket, and a series the one of the last batch that had any. Which traces are such may change while the process runs:
//! then those go that no destination need have had.

use std::time::Duration;

use crate::span::{Sampler, SpanId, TraceId};

/// A span that a bucket counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exemplar {
    /// The number of the bucket.
    pub bucket: u8,
    /// Its trace.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// Its duration in nanoseconds.
    pub nanos: u64,
    /// When it ended, since the Unix epoch.
    pub ended: Duration,
}

/// The exemplars of a series, at most one a bucket, in the order of the buckets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exemplars(Vec<Exemplar>);

impl Exemplars {
    /// Takes the place of the one of the same bucket.
    pub(super) fn put(&mut self, exemplar: Exemplar) {
        match self.0.binary_search_by_key(&exemplar.bucket, |it| it.bucket) {
            Ok(at) => {
                if let Some(slot) = self.0.get_mut(at) {
                    *slot = exemplar;
                }
            }
            Err(at) => self.0.insert(at, exemplar),
        }
    }

    /// Keeps those of traces that the sampler keeps; none without one.
    pub(super) fn keep(&mut self, sampler: Option<Sampler>) {
        self.0.retain(|exemplar| sampler.is_some_and(|sampler| sampler.keeps(exemplar.trace_id)));
    }

    /// The one of a bucket.
    pub fn get(&self, bucket: usize) -> Option<&Exemplar> {
        let at = self.0.binary_search_by_key(&bucket, |it| it.bucket.into()).ok()?;
        self.0.get(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_keeps_the_last() {
        let exemplar = |bucket, nanos| Exemplar {
            bucket,
            trace_id: TraceId::from_int(1),
            span_id: SpanId::from_int(1),
            nanos,
            ended: Duration::ZERO,
        };
        let mut exemplars = Exemplars::default();
        for (bucket, nanos) in [(3, 1), (1, 2), (3, 3), (2, 4)] {
            exemplars.put(exemplar(bucket, nanos));
        }
        let nanos = [0, 1, 2, 3].map(|bucket| exemplars.get(bucket).map(|it| it.nanos));
        assert_eq!(nanos, [None, Some(2), Some(4), Some(3)]);
    }
}
