//! From a context's span to OTLP.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use thiserror::Error;

use super::span::TelemetrySpan;
use crate::span::{
    Reporter, RequestBuffer, SpanContext, SpanEncoder, SpanId, SpanKind, SpanStart, TraceFlags, TraceId,
    Value,
};

/// The instrumentation scope of a context's spans.
const SCOPE_NAME: &str = "nyx-stream";

/// A span that OTLP has no form for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ConvertError {
    /// An id of zeros, which OTLP calls invalid.
    #[error("{what} is 0: OTLP has no span with that")]
    ZeroId {
        /// `span_id` or `trace_id`.
        what: &'static str,
    },
    /// The span is still open.
    #[error("span {span_id:016x} has not ended: end_span comes first")]
    Open {
        /// The span.
        span_id: u64,
    },
}

/// A finished span as OTLP: the bytes of an `ExportTraceServiceRequest` with this span alone, of a resource whose
/// `service.name` is given (`opentelemetry/proto/collector/trace/v1/trace_service.proto`).
///
/// # Errors
/// [`ConvertError`]; spans from [`take_finished_spans`](super::StreamTelemetryContext::take_finished_spans) have none.
pub fn convert_to_otlp_span(span: &TelemetrySpan, service_name: &str) -> Result<Bytes, ConvertError> {
    for (what, zero) in [("span_id", span.span_id == 0), ("trace_id", span.trace_id == 0)] {
        if zero {
            return Err(ConvertError::ZeroId { what });
        }
    }
    if span.end_time.is_none() {
        return Err(ConvertError::Open { span_id: span.span_id });
    }
    let reporter = Reporter {
        resource: &[("service.name", Value::from(service_name))],
        scope_name: SCOPE_NAME,
        scope_version: env!("CARGO_PKG_VERSION"),
    };
    let mut encoder = SpanEncoder::default();
    let mut request = RequestBuffer::new(&reporter, 0);
    request.push(encode(&mut encoder, span));
    Ok(request.take().0)
}

/// The bytes of an OTLP `Span` message. Attributes go in the order of their keys.
pub(super) fn encode<'e>(encoder: &'e mut SpanEncoder, span: &TelemetrySpan) -> &'e [u8] {
    let context = SpanContext {
        trace_id: TraceId::from_int(span.trace_id),
        span_id: SpanId::from_int(span.span_id),
        flags: TraceFlags::SAMPLED,
    };
    encoder.start(&SpanStart {
        context,
        parent: span.parent_span_id.map(SpanId::from_int),
        parent_is_remote: false,
        name: &span.name,
        kind: SpanKind::Internal,
        start_unix_nano: unix_nanos(span.start_time),
    });
    let mut attributes: Vec<_> = span.attributes.iter().collect();
    attributes.sort_unstable();
    for (key, value) in attributes {
        encoder.attribute(key, value);
    }
    if let Some(linked) = span.linked_span_id {
        // Of a link's ids one may be of zeros, if there is an attribute (OpenTelemetry trace API, "Add Link").
        let to = SpanContext {
            trace_id: TraceId::default(),
            span_id: SpanId::from_int(linked),
            flags: TraceFlags::default(),
        };
        encoder.link(&to, "", &[("link.reason", Value::from("the parent's trace is no longer known"))]);
    }
    encoder.status(span.status.into(), "");
    encoder.end(span.end_time.map_or(0, unix_nanos))
}

fn unix_nanos(at: SystemTime) -> u64 {
    let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}
