//! Spans as bytes (level 0: pure, no actix, no tokio, no I/O).
//!
//! A batch of spans is the bytes of an OTLP `ExportTraceServiceRequest`, kept as
//! they came. Everything here works on those bytes.

mod ids;
mod view;

pub use ids::{ParseIdError, SpanId, TraceId};
pub use view::{SpanKind, SpanView, StatusCode};
