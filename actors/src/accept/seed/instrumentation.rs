//! What is worth a span in the life of a connection.

use std::time::{Duration, SystemTime};

use super::{
    super::ConnectionId,
    config::TelemetryConfig,
    context::StreamTelemetryContext,
    names::{attribute_names, span_names},
    sampler::TelemetrySampler,
    span::SpanStatus,
};

/// Makes the spans of connections in a context of its own.
#[derive(Debug, Clone)]
pub struct NyxTelemetryInstrumentation {
    context: StreamTelemetryContext,
}

impl NyxTelemetryInstrumentation {
    /// Instrumentation with a new context.
    pub fn new(config: TelemetryConfig) -> Self {
        Self { context: StreamTelemetryContext::new(config) }
    }

    /// The same with another sampler.
    #[must_use]
    pub fn with_sampler(self, sampler: TelemetrySampler) -> Self {
        Self { context: self.context.with_sampler(sampler) }
    }

    /// The context. A clone of it, which is the same context, is what a bridge takes.
    pub fn get_context(&self) -> &StreamTelemetryContext {
        &self.context
    }

    /// A connection begins: a root span `connection_start`, open until the connection ends. `None` as
    /// [`StreamTelemetryContext::create_span`].
    pub async fn start_connection_instrumentation(&self, connection_id: ConnectionId) -> Option<u64> {
        let span_id = self.context.create_span(span_names::CONNECTION_START, None).await?;
        self.describe(connection_id, span_id, &[]).await;
        Some(span_id)
    }

    /// A connection ends, and with it all its open spans: [`SpanStatus::Ok`] after a success, else
    /// [`SpanStatus::Error`].
    pub async fn end_connection_instrumentation(&self, connection_id: ConnectionId, success: bool) {
        let status = if success { SpanStatus::Ok } else { SpanStatus::Error };
        // Children first: they were begun later.
        for span_id in self.context.open_spans_of(connection_id).into_iter().rev() {
            self.context.end_span(span_id, status).await;
        }
    }

    /// A packet of so many bytes was processed: a span `packet_processing` that ends at once, Ok.
    pub async fn record_packet_processing(&self, connection_id: ConnectionId, packet_size: usize) {
        let size = packet_size.to_string();
        let about = [(attribute_names::PACKET_SIZE, size.as_str())];
        self.record(connection_id, span_names::PACKET_PROCESSING, Duration::ZERO, &about).await;
    }

    /// So many bytes went over the connection within the time before now: a span `bandwidth_usage` of that duration, Ok.
    pub async fn record_bandwidth_usage(&self, connection_id: ConnectionId, bytes: u64, duration: Duration) {
        let (bytes, ms) = (bytes.to_string(), duration.as_millis().to_string());
        let about =
            [(attribute_names::BANDWIDTH_BYTES, bytes.as_str()), (attribute_names::DURATION_MS, ms.as_str())];
        self.record(connection_id, span_names::BANDWIDTH_USAGE, duration, &about).await;
    }

    /// Something that is over when it is told of: a child of the connection's oldest open span, a root where it has none.
    async fn record(
        &self,
        connection_id: ConnectionId,
        name: &str,
        duration: Duration,
        about: &[(&str, &str)],
    ) {
        let parent = self.context.open_spans_of(connection_id).first().copied();
        let now = SystemTime::now();
        let start = now.checked_sub(duration).unwrap_or(SystemTime::UNIX_EPOCH);
        let Some(span_id) = self.context.begin(name, parent, start) else { return };
        self.describe(connection_id, span_id, about).await;
        self.context.end_span(span_id, SpanStatus::Ok).await;
    }

    async fn describe(&self, connection_id: ConnectionId, span_id: u64, about: &[(&str, &str)]) {
        self.context.associate_connection(connection_id, span_id).await;
        let number = connection_id.inner().to_string();
        self.context.add_span_attribute(span_id, attribute_names::CONNECTION_ID, &number).await;
        for (key, value) in about {
            self.context.add_span_attribute(span_id, key, value).await;
        }
    }
}
