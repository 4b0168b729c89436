//! Aggregation of a batch: from spans to what they add to the RED metrics (level 0).

use std::{fmt, hash::BuildHasher as _, sync::Arc, time::Duration};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::{
    CurrentSettings, Exemplar, RedKey, RedSettings,
    dimensions::LookUp,
    key::{Ends, Values},
};
use crate::span::{SpanKind, SpanView, StatusCode};

/// Bytes of a label's value at most; the rest of a longer text is cut at a character's boundary.
pub const LABEL_BYTES_MAX: usize = 256;

/// Distinct series of one delta at most. What comes after is counted from the log (see
/// [`RedDelta::is_complete`]), so that no batch of strange names makes a large delta.
const SERIES_MAX: usize = 2_048;

/// A scratch keeps room for this many series between batches.
const SERIES_KEPT: usize = 256;

/// What a batch adds to the RED metrics. It owns its texts: no byte of the batch is kept alive.
#[derive(Clone, Default, PartialEq)]
pub struct RedDelta {
    /// `None` in a delta of no spans that no scratch made.
    settings: Option<Arc<RedSettings>>,
    texts: Box<str>,
    entries: Box<[Entry]>,
    /// As many counts as there are buckets for each entry, one entry after the other.
    buckets: Box<[u64]>,
    /// With the number of their entry, in the order of the entries.
    exemplars: Box<[(u32, Exemplar)]>,
    spans: u64,
    uncounted: u64,
    cut: u64,
}

/// One series of a delta.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RedEntry<'a> {
    /// Which series.
    pub key: RedKey<'a>,
    /// Spans.
    pub count: u64,
    /// The sum of their durations in nanoseconds; 128 bits hold any sum of any 64-bit durations.
    pub sum_nanos: u128,
    /// Spans in each bucket, not cumulated; one more than there are bounds.
    pub buckets: &'a [u64],
    /// A span for some of the buckets, each with the entry's number.
    pub exemplars: &'a [(u32, Exemplar)],
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    service: Text,
    name: Text,
    kind: SpanKind,
    status: StatusCode,
    dimensions: Text,
    dimensions_ends: Ends,
    hash: u64,
    count: u64,
    sum_nanos: u128,
    /// A bit for each bucket that has an exemplar; there are 65 at most.
    exemplars: u128,
}

/// A slice of a delta's texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Text {
    start: u32,
    len: u32,
}

impl Text {
    #[inline]
    fn of(self, texts: &str) -> &str {
        let start = self.start as usize;
        texts.get(start..start + self.len as usize).unwrap_or_default()
    }

    /// Whether this is that text; bytes are compared, which need no look at the characters' boundaries.
    #[inline]
    fn is(self, text: &str, texts: &str) -> bool {
        let start = self.start as usize;
        texts.as_bytes().get(start..start + self.len as usize) == Some(text.as_bytes())
    }
}

impl RedDelta {
    /// The spans that this delta stands for.
    pub fn spans(&self) -> u64 {
        self.spans
    }

    /// False where the batch had more distinct series than a delta takes: its spans are then to be counted
    /// from the log, in steps.
    pub fn is_complete(&self) -> bool {
        self.uncounted == 0
    }

    /// How its spans were counted.
    pub fn settings(&self) -> Option<&Arc<RedSettings>> {
        self.settings.as_ref()
    }

    /// Values of labels that were cut.
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// The series, in the order in which the batch brought them.
    pub fn entries(&self) -> impl Iterator<Item = RedEntry<'_>> {
        let stride = self.settings.as_ref().map_or(1, |settings| settings.bounds.buckets());
        let mut rest = &*self.exemplars;
        (0..).zip(&self.entries).zip(self.buckets.chunks_exact(stride)).map(
            move |((number, entry), buckets)| {
                let (exemplars, others) = rest.split_at(rest.partition_point(|(of, _)| *of <= number));
                rest = others;
                let (count, sum_nanos) = (entry.count, entry.sum_nanos);
                RedEntry { key: entry.key(&self.texts), count, sum_nanos, buckets, exemplars }
            },
        )
    }
}

impl fmt::Debug for RedDelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedDelta")
            .field("spans", &self.spans)
            .field("series", &self.entries.len())
            .field("uncounted", &self.uncounted)
            .finish_non_exhaustive()
    }
}

impl Entry {
    #[inline]
    fn key<'a>(&self, texts: &'a str) -> RedKey<'a> {
        RedKey {
            service: self.service.of(texts),
            name: self.name.of(texts),
            kind: self.kind,
            dimensions: Values { text: self.dimensions.of(texts), ends: self.dimensions_ends },
            overflow: false,
            status: self.status,
        }
    }
}

/// Aggregates batch after batch; one for each thread that scans.
///
/// A span costs two hashes at most (the service's is remembered from the span before), one probe and a
/// binary search among the bounds. Texts come from strangers, so the hash is randomly seeded.
pub struct RedScratch {
    settings: Arc<RedSettings>,
    /// Where it looks for others before each batch.
    current: Option<CurrentSettings>,
    hasher: RandomState,
    index: HashTable<u32>,
    entries: Vec<Entry>,
    buckets: Vec<u64>,
    exemplars: Vec<(u32, Exemplar)>,
    texts: String,
    spans: u64,
    uncounted: u64,
    cut: u64,
    /// Where there are dimensions.
    look_up: LookUp,
    /// The service of the span before, with its hash, and where the batch's texts have it.
    service: String,
    service_hash: u64,
    service_text: Option<Text>,
}

impl RedScratch {
    /// A scratch that counts with these settings.
    pub fn new(settings: Arc<RedSettings>) -> Self {
        let hasher = RandomState::default();
        let service_hash = hasher.hash_one(b"".as_slice());
        Self {
            settings,
            current: None,
            hasher,
            index: HashTable::new(),
            entries: Vec::new(),
            buckets: Vec::new(),
            exemplars: Vec::new(),
            texts: String::new(),
            spans: 0,
            uncounted: 0,
            cut: 0,
            look_up: LookUp::default(),
            service: String::new(),
            service_hash,
            service_text: None,
        }
    }

    /// A scratch that counts each batch with the settings that hold when it is begun, see [`Self::begin`].
    pub fn following(current: CurrentSettings) -> Self {
        Self { current: Some(current.clone()), ..Self::new(current.get()) }
    }

    /// Begins a batch.
    pub fn begin(&mut self) {
        let Some(current) = &self.current else { return };
        let settings = current.get();
        if !Arc::ptr_eq(&settings, &self.settings) {
            *self = Self { current: Some(current.clone()), ..Self::new(settings) };
        }
    }

    /// Counts a span of the batch. Past the limit of distinct series the delta only knows how many there
    /// were, and is incomplete.
    #[inline]
    pub fn observe(&mut self, span: &SpanView<'_>) {
        if !self.try_observe(span) {
            self.spans += 1;
            self.uncounted += 1;
        }
    }

    /// Counts a span, or returns false and changes nothing if it would need a series beyond the limit.
    #[inline]
    pub fn try_observe(&mut self, span: &SpanView<'_>) -> bool {
        let mut cut =
            u64::from(span.service.len() > LABEL_BYTES_MAX) + u64::from(span.name.len() > LABEL_BYTES_MAX);
        if !self.settings.dimensions.is_empty() {
            cut += self.look_up.look_up(&self.settings.dimensions, &span.bytes);
        }
        let Some(at) = self.entry(span) else { return false };
        let nanos = span.duration_nanos();
        let bounds = &self.settings.bounds;
        let bucket = bounds.bucket(nanos);
        if let Some(count) = self.buckets.get_mut(at * bounds.buckets() + bucket) {
            *count += 1;
        }
        if let Some(entry) = self.entries.get_mut(at) {
            self.service_text = Some(entry.service);
            entry.count += 1;
            entry.sum_nanos += u128::from(nanos);
            if let Some(sampler) = self.settings.exemplars
                && entry.exemplars >> bucket & 1 == 0
                && sampler.keeps(span.trace_id)
            {
                entry.exemplars |= 1 << bucket;
                self.exemplify(at, bucket, nanos, span);
            }
        }
        self.spans += 1;
        self.cut += cut;
        true
    }

    #[cold]
    fn exemplify(&mut self, at: usize, bucket: usize, nanos: u64, span: &SpanView<'_>) {
        let exemplar = Exemplar {
            bucket: bucket as u8,
            trace_id: span.trace_id,
            span_id: span.span_id,
            nanos,
            ended: Duration::from_nanos(span.end_unix_nano),
        };
        self.exemplars.push((at as u32, exemplar));
    }

    /// What the spans since the last `take` add; the scratch is empty afterwards.
    pub fn take(&mut self) -> RedDelta {
        self.exemplars.sort_unstable_by_key(|(at, exemplar)| (*at, exemplar.bucket));
        let delta = RedDelta {
            settings: Some(Arc::clone(&self.settings)),
            texts: self.texts.as_str().into(),
            entries: self.entries.as_slice().into(),
            buckets: self.buckets.as_slice().into(),
            exemplars: self.exemplars.as_slice().into(),
            spans: self.spans,
            uncounted: self.uncounted,
            cut: self.cut,
        };
        self.discard();
        delta
    }

    /// Forgets the spans since the last `take`: their batch was refused.
    pub fn discard(&mut self) {
        if self.entries.len() > SERIES_KEPT {
            *self = Self { current: self.current.take(), ..Self::new(Arc::clone(&self.settings)) };
            return;
        }
        self.index.clear();
        self.entries.clear();
        self.buckets.clear();
        self.exemplars.clear();
        self.texts.clear();
        self.service_text = None;
        self.look_up.forget();
        self.spans = 0;
        self.uncounted = 0;
        self.cut = 0;
    }

    /// Where the span's series is, made if need be; `None` where it would be one too many. Its dimensions were looked up.
    #[inline]
    fn entry(&mut self, span: &SpanView<'_>) -> Option<usize> {
        let (service, name, dimensions) = (cut(span.service), cut(span.name), self.look_up.values());
        if service != self.service {
            self.service.clear();
            self.service.push_str(service);
            self.service_hash = self.hasher.hash_one(service.as_bytes());
            self.service_text = None;
        }
        let kind_and_status = u64::from(span.kind as u8) << 8 | u64::from(span.status as u8);
        let mut hash = self.hasher.hash_one((self.service_hash ^ kind_and_status, name.as_bytes()));
        if !dimensions.text.is_empty() {
            hash = self.hasher.hash_one((hash, dimensions.text.as_bytes(), dimensions.ends));
        }
        let (entries, texts, service_text) = (&self.entries, self.texts.as_str(), self.service_text);
        let found = self.index.find(hash, |&at| {
            entries.get(at as usize).is_some_and(|entry| {
                entry.hash == hash
                    && entry.kind == span.kind
                    && entry.status == span.status
                    && entry.name.is(name, texts)
                    && (dimensions.text.is_empty() && entry.dimensions.len == 0
                        || entry.dimensions.is(dimensions.text, texts)
                            && entry.dimensions_ends == dimensions.ends)
                    && (Some(entry.service) == service_text || entry.service.is(service, texts))
            })
        });
        match found {
            Some(&at) => Some(at as usize),
            None => self.insert(span, hash),
        }
    }

    #[cold]
    fn insert(&mut self, span: &SpanView<'_>, hash: u64) -> Option<usize> {
        let at = self.entries.len();
        if at >= SERIES_MAX {
            return None;
        }
        let service = match self.service_text {
            Some(text) => text,
            None => keep(&mut self.texts, cut(span.service))?,
        };
        let dimensions = self.look_up.values();
        let entry = Entry {
            service,
            name: keep(&mut self.texts, cut(span.name))?,
            kind: span.kind,
            status: span.status,
            dimensions: keep(&mut self.texts, dimensions.text)?,
            dimensions_ends: dimensions.ends,
            hash,
            count: 0,
            sum_nanos: 0,
            exemplars: 0,
        };
        self.entries.push(entry);
        self.buckets.resize(self.entries.len() * self.settings.bounds.buckets(), 0);
        let entries = &self.entries;
        let rehash = |&at: &u32| entries.get(at as usize).map_or(0, |entry| entry.hash);
        self.index.insert_unique(hash, u32::try_from(at).ok()?, rehash);
        Some(at)
    }
}

fn keep(texts: &mut String, text: &str) -> Option<Text> {
    let start = u32::try_from(texts.len()).ok()?;
    texts.push_str(text);
    Some(Text { start, len: u32::try_from(text.len()).ok()? })
}

impl fmt::Debug for RedScratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedScratch")
            .field("spans", &self.spans)
            .field("series", &self.entries.len())
            .finish_non_exhaustive()
    }
}

/// A label's value: the text, or as much of it as the limit takes.
#[inline]
pub(super) fn cut(text: &str) -> &str {
    if text.len() <= LABEL_BYTES_MAX {
        text
    } else {
        text.get(..text.floor_char_boundary(LABEL_BYTES_MAX)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
