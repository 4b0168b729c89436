//! A context: where a program makes its spans.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    super::{ConnectionId, in_process::SpanSink},
    config::{ContextLimits, TelemetryConfig},
    convert::encode,
    sampler::TelemetrySampler,
    span::{SpanStatus, TelemetrySpan},
    store::{Origin, Store},
};
use crate::span::{SpanEncoder, SpanId, TraceId};

pub use super::store::ContextCounts;

/// Dropped spans are logged at most this often.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// Makes spans and keeps the finished ones until somebody takes them: [`take_finished_spans`], or a
/// [`TelemetryBridge`], which takes each at its end. Clones are the same context.
///
/// No method waits for anything; they are `async` because their callers are. A clone may have its own sampler.
///
/// [`take_finished_spans`]: Self::take_finished_spans
/// [`TelemetryBridge`]: crate::TelemetryBridge
#[derive(Debug, Clone)]
pub struct StreamTelemetryContext {
    config: Arc<TelemetryConfig>,
    sampler: TelemetrySampler,
    shared: Arc<Mutex<Shared>>,
}

/// Nothing that happens under this lock can panic, which the lock would hide: samplers are asked outside of it.
#[derive(Debug)]
struct Shared {
    store: Store,
    sink: Option<SpanSink>,
    encoder: SpanEncoder,
    warned: Option<Instant>,
}

/// A context has a bridge already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached;

impl StreamTelemetryContext {
    /// A context without spans. Its sampler is that of the configuration's `sampling_rate`.
    pub fn new(config: TelemetryConfig) -> Self {
        Self::with_limits(config, ContextLimits::default())
    }

    /// A context with other bounds.
    pub fn with_limits(config: TelemetryConfig, limits: ContextLimits) -> Self {
        if let Err(error) = config.validate() {
            tracing::warn!(%error, "the nearest right value is taken");
        }
        let sampler = TelemetrySampler::of_rate(config.sampling_rate);
        let shared =
            Shared { store: Store::new(limits), sink: None, encoder: SpanEncoder::default(), warned: None };
        Self { config: Arc::new(config), sampler, shared: Arc::new(Mutex::new(shared)) }
    }

    /// The same context with another sampler.
    #[must_use]
    pub fn with_sampler(mut self, sampler: TelemetrySampler) -> Self {
        self.sampler = sampler;
        self
    }

    /// The settings.
    pub fn config(&self) -> &TelemetryConfig {
        &self.config
    }

    /// Begins a span, and returns its number. `None` where telemetry is off, where the span's trace is not sampled, and,
    /// counted, where it would lie deeper than `max_span_depth` or too many are open.
    ///
    /// A child belongs to its parent's trace, ended or open. Where nothing is known of the parent, the span is a new root
    /// with a link to it.
    pub async fn create_span(&self, name: &str, parent_span_id: Option<u64>) -> Option<u64> {
        self.begin(name, parent_span_id, SystemTime::now())
    }

    pub(super) fn begin(&self, name: &str, parent: Option<u64>, start_time: SystemTime) -> Option<u64> {
        if !self.config.enabled {
            return None;
        }
        let origin = self.shared.lock().store.origin(parent, self.config.max_span_depth)?;
        let trace_id = match origin {
            // Its parent is here, so its trace is sampled.
            Origin::Child { place, .. } => place.trace_id,
            Origin::Root { .. } => {
                let trace_id = TraceId::random().to_int();
                if !self.sampler.should_sample(trace_id) {
                    self.shared.lock().store.sampled_out();
                    return None;
                }
                trace_id
            }
        };
        let span_id = SpanId::random().to_int();
        self.shared.lock().store.begin(span_id, trace_id, origin, name, start_time)
    }

    /// Sets an attribute of an open span. Later than that, and beyond the bounds, it is counted and changes nothing.
    pub async fn add_span_attribute(&self, span_id: u64, key: &str, value: &str) {
        self.shared.lock().store.set_attribute(span_id, key, value);
    }

    /// Ends a span. The first end counts.
    pub async fn end_span(&self, span_id: u64, status: SpanStatus) {
        self.end(span_id, status);
    }

    pub(super) fn end(&self, span_id: u64, status: SpanStatus) {
        let now = SystemTime::now();
        let mut shared = self.shared.lock();
        shared.store.end(span_id, status, now);
        shared.collect();
        let dropped = shared.store.make_room();
        let warn = dropped > 0 && shared.may_warn();
        let (all, bridged) = (shared.store.counts().dropped, shared.sink.is_some());
        drop(shared);
        if warn {
            let why = if bridged { "the log does not take them" } else { "nobody takes them" };
            tracing::warn!(dropped = all, why, "finished spans are dropped, the oldest first");
        }
    }

    /// Says that a span is of this connection; a span may be of 16.
    pub async fn associate_connection(&self, connection_id: ConnectionId, span_id: u64) {
        self.shared.lock().store.associate(connection_id, span_id);
    }

    /// The spans of a connection: first those that ended, as far as they are remembered, then the open ones.
    pub async fn get_connection_spans(&self, connection_id: ConnectionId) -> Vec<u64> {
        self.shared.lock().store.of_connection(connection_id)
    }

    pub(super) fn open_spans_of(&self, connection_id: ConnectionId) -> Vec<u64> {
        self.shared.lock().store.open_of(connection_id).to_vec()
    }

    /// The finished spans, the oldest first. With a bridge there are none, but for a moment where the log is full.
    pub async fn take_finished_spans(&self) -> Vec<TelemetrySpan> {
        self.shared.lock().store.take()
    }

    /// The context's account.
    pub fn counts(&self) -> ContextCounts {
        self.shared.lock().store.counts()
    }

    /// From now on finished spans go there, those first that wait.
    ///
    /// # Errors
    /// [`Attached`], and nothing changed, where they go somewhere already.
    pub(crate) fn attach(&self, sink: SpanSink) -> Result<(), Attached> {
        let mut shared = self.shared.lock();
        if shared.sink.is_some() {
            return Err(Attached);
        }
        shared.sink = Some(sink);
        shared.collect();
        Ok(())
    }

    /// From now on finished spans wait again.
    pub(crate) fn detach(&self) {
        self.shared.lock().sink = None;
    }

    /// Offers what waits to the bridge.
    pub(crate) fn collect(&self) {
        self.shared.lock().collect();
    }
}

impl Shared {
    /// Hands the bridge what waits, until it takes no more.
    fn collect(&mut self) {
        let Self { store, sink: Some(sink), encoder, .. } = self else { return };
        while let Some(span) = store.first_finished() {
            if !sink.offer(span.trace_id, encode(encoder, span)) {
                return;
            }
            store.collected();
        }
    }

    fn may_warn(&mut self) -> bool {
        let now = Instant::now();
        let may = self.warned.is_none_or(|at| now.duration_since(at) >= WARN_INTERVAL);
        if may {
            self.warned = Some(now);
        }
        may
    }
}
