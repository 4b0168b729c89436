//! What arrived: which numbered spans, how often, and whether each is, byte for byte, what was sent, under the
//! resource and the scope that it was sent with. How a program batches, merges or splits requests makes no
//! difference: each span is judged where it stands.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::spans::Generator;
use crate::wire::{Fields, Malformed, Value};

/// Examples of faults are kept up to this many.
const EXAMPLES_MAX: usize = 8;

/// The count of one run's arrivals. Memory is one byte a span number.
#[derive(Debug)]
pub(crate) struct Tally {
    generator: Generator,
    started: Instant,
    arrivals: Vec<u8>,
    scratch: Vec<u8>,
    first: Option<Instant>,
    last: Option<Instant>,
    counts: Counts,
}

/// What a tally reports.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Counts {
    /// Spans that arrived, each time that they did.
    pub(crate) spans: u64,
    /// Numbers that arrived at least once.
    pub(crate) distinct: u64,
    /// Arrivals beyond a number's first.
    pub(crate) duplicates: u64,
    /// Arrivals whose span, resource, scope or schema differ from what was sent.
    pub(crate) corrupted: u64,
    /// Those of them whose resource is gone altogether.
    pub(crate) without_resource: u64,
    /// Spans without an id of this run, or with a number that was never sent.
    pub(crate) foreign: u64,
    /// Requests taken in.
    pub(crate) requests: u64,
    /// Requests that are no `ExportTraceServiceRequest`.
    pub(crate) malformed: u64,
    /// Requests that came compressed.
    pub(crate) compressed: u64,
    /// Requests refused by order (`--status`), or because they were cut short, too large, or packed otherwise than
    /// with gzip.
    pub(crate) refused: u64,
    /// Bytes of the requests taken in, unpacked, without gRPC's framing.
    pub(crate) bytes: u64,
    /// The first few faults, in words.
    pub(crate) examples: Vec<String>,
}

/// The report of a sink.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) expected: u64,
    pub(crate) missing: u64,
    #[serde(flatten)]
    pub(crate) counts: Counts,
    pub(crate) first_arrival_s: Option<f64>,
    pub(crate) last_arrival_s: Option<f64>,
}

impl Report {
    /// Whether every expected span arrived once and intact, and nothing else did.
    pub(crate) fn is_exact(&self) -> bool {
        let counts = &self.counts;
        self.missing + counts.duplicates + counts.corrupted + counts.foreign + counts.malformed == 0
    }
}

/// The verdict on the resource or scope that a span stands under.
#[derive(Debug, Clone, Copy)]
struct Surroundings<'a> {
    resource: &'a [u8],
    resource_schema: &'a [u8],
    scope: &'a [u8],
    scope_schema: &'a [u8],
}

impl Tally {
    /// A tally that knows the numbers `0..capacity` of the run `run`.
    pub(crate) fn new(run: u32, capacity: usize) -> Self {
        Self {
            generator: Generator::new(run),
            started: Instant::now(),
            arrivals: vec![0; capacity],
            scratch: Vec::with_capacity(1_024),
            first: None,
            last: None,
            counts: Counts::default(),
        }
    }

    /// Judges one request. A malformed one is reported as such; what stood before the fault is counted.
    pub(crate) fn take(&mut self, request: &[u8]) -> Result<(), Malformed> {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.counts.requests += 1;
        self.counts.bytes += request.len() as u64;
        let outcome = self.request(request);
        if let Err(Malformed(why)) = outcome {
            self.counts.malformed += 1;
            self.example(|| format!("malformed request: {why}"));
        }
        outcome
    }

    /// Notes that a request came compressed.
    pub(crate) fn unpacked(&mut self) {
        self.counts.compressed += 1;
    }

    /// Notes a request that was answered with a refusal.
    pub(crate) fn refuse(&mut self) {
        self.counts.refused += 1;
    }

    /// Numbers that arrived at least once.
    pub(crate) fn distinct(&self) -> u64 {
        self.counts.distinct
    }

    /// Requests taken in or refused.
    pub(crate) fn requests_seen(&self) -> u64 {
        self.counts.requests + self.counts.refused
    }

    /// When the last request came.
    pub(crate) fn last_arrival(&self) -> Option<Instant> {
        self.last
    }

    /// The count so far, against `expected` spans numbered from 0.
    pub(crate) fn report(&self, expected: u64) -> Report {
        let wanted = self.arrivals.iter().take(usize::try_from(expected).unwrap_or(usize::MAX));
        let came = wanted.filter(|count| **count > 0).count() as u64;
        let since_start = |at: Instant| seconds(at.duration_since(self.started));
        Report {
            expected,
            missing: expected.saturating_sub(came),
            counts: self.counts.clone(),
            first_arrival_s: self.first.map(since_start),
            last_arrival_s: self.last.map(since_start),
        }
    }

    fn request(&mut self, request: &[u8]) -> Result<(), Malformed> {
        for field in Fields::new(request) {
            match field? {
                (1, Value::Bytes(group)) => self.resource_spans(group)?,
                _ => return Err(Malformed("a field that no request has")),
            }
        }
        Ok(())
    }

    // The resource and the schema may stand on either side of what they apply to: look for them first.
    fn resource_spans(&mut self, group: &[u8]) -> Result<(), Malformed> {
        let (mut resource, mut resource_schema): (&[u8], &[u8]) = (&[], &[]);
        for field in Fields::new(group) {
            match field? {
                (1, Value::Bytes(bytes)) => resource = bytes,
                (2, Value::Bytes(_)) => {}
                (3, Value::Bytes(bytes)) => resource_schema = bytes,
                _ => return Err(Malformed("a field that no resource spans have")),
            }
        }
        for field in Fields::new(group) {
            if let (2, Value::Bytes(scope_spans)) = field? {
                self.scope_spans(scope_spans, resource, resource_schema)?;
            }
        }
        Ok(())
    }

    fn scope_spans(
        &mut self,
        group: &[u8],
        resource: &[u8],
        resource_schema: &[u8],
    ) -> Result<(), Malformed> {
        let (mut scope, mut scope_schema): (&[u8], &[u8]) = (&[], &[]);
        for field in Fields::new(group) {
            match field? {
                (1, Value::Bytes(bytes)) => scope = bytes,
                (2, Value::Bytes(_)) => {}
                (3, Value::Bytes(bytes)) => scope_schema = bytes,
                _ => return Err(Malformed("a field that no scope spans have")),
            }
        }
        let around = Surroundings { resource, resource_schema, scope, scope_schema };
        for field in Fields::new(group) {
            if let (2, Value::Bytes(span)) = field? {
                self.span(span, around);
            }
        }
        Ok(())
    }

    fn span(&mut self, span: &[u8], around: Surroundings<'_>) {
        self.counts.spans += 1;
        let Some(sequence) = span_id(span).and_then(|id| self.generator.sequence(id)) else {
            self.counts.foreign += 1;
            self.example(|| "a span with no id of this run".to_owned());
            return;
        };
        let Some(count) = usize::try_from(sequence).ok().and_then(|index| self.arrivals.get_mut(index))
        else {
            self.counts.foreign += 1;
            self.example(|| format!("span {sequence} was never sent"));
            return;
        };
        *count = count.saturating_add(1);
        if *count == 1 {
            self.counts.distinct += 1;
        } else {
            self.counts.duplicates += 1;
            self.example(|| format!("span {sequence} came again"));
        }
        if let Some(what) = self.difference(sequence, span, around) {
            self.counts.corrupted += 1;
            if around.resource.is_empty() {
                self.counts.without_resource += 1;
            }
            self.example(|| format!("{what} of span {sequence} differs from what was sent"));
        }
    }

    fn difference(&mut self, sequence: u64, span: &[u8], around: Surroundings<'_>) -> Option<&'static str> {
        self.scratch.clear();
        self.generator.put_span(&mut self.scratch, sequence);
        let schema = self.generator.schema_url();
        if self.scratch != span {
            Some("the bytes")
        } else if around.resource != self.generator.resource(sequence) {
            Some("the resource")
        } else if around.scope != self.generator.scope(sequence) {
            Some("the scope")
        } else if around.resource_schema != schema || around.scope_schema != schema {
            Some("the schema")
        } else {
            None
        }
    }

    fn example(&mut self, words: impl FnOnce() -> String) {
        if self.counts.examples.len() < EXAMPLES_MAX {
            self.counts.examples.push(words());
        }
    }
}

fn span_id(span: &[u8]) -> Option<[u8; 8]> {
    Fields::new(span).find_map(|field| match field {
        Ok((2, Value::Bytes(id))) => id.try_into().ok(),
        _ => None,
    })
}

/// Seconds, to a microsecond.
pub(crate) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e6
}

#[cfg(test)]
#[path = "tally/tests.rs"]
mod tests;
