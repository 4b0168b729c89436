//! Spans as bytes (level 0: pure, no actix, no tokio, no I/O).
//!
//! A batch of spans is the bytes of an OTLP `ExportTraceServiceRequest`, kept as
//! they came. Everything here works on those bytes.

mod error;
mod fields;
mod ids;
mod scan;
#[cfg(test)]
mod testing;
mod view;
mod wire;

pub use error::{ScanError, ScanFault};
pub use ids::{ParseIdError, SpanId, TraceId};
pub use scan::{Scan, scan};
pub use view::{SpanKind, SpanView, StatusCode};
pub use wire::NESTING_MAX;
