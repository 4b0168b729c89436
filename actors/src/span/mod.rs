//! Spans as bytes (level 0: pure, no actix, no tokio, no I/O).
//!
//! A batch of spans is the bytes of an OTLP `ExportTraceServiceRequest`, kept as
//! they came. Everything here works on those bytes: [`scan`] checks them and shows
//! the spans, [`cut`] and [`select`] copy some of the spans into a smaller request,
//! [`from_json`] makes them of JSON,
//! [`SpanEncoder`] and [`RequestBuffer`] write them for in-process spans. Several
//! requests one after the other are one request.

mod attribute;
mod encode;
mod error;
mod fields;
mod ids;
mod inspect;
mod json;
mod lookup;
mod request;
mod sampler;
mod scan;
mod split;
#[cfg(test)]
mod testing;
mod traceparent;
mod value;
mod view;
mod wire;

pub use encode::{SpanEncoder, SpanLimits, SpanStart};
pub use error::{ScanError, ScanFault};
pub use ids::{ParseIdError, SpanId, TraceId};
pub use inspect::{ATTRIBUTES_MAX, Inspection, NAME_BYTES_MAX, Odd, Rejected, inspect, keep_valid};
pub use json::{JsonError, from_json};
pub use lookup::{Scalar, SpanBytes};
pub use request::{Reporter, RequestBuffer};
pub use sampler::Sampler;
pub use scan::{Scan, scan};
pub use split::{cut, select};
pub use traceparent::{SpanContext, TraceFlags, TraceparentError};
pub use value::{VALUE_DEPTH_MAX, Value};
pub use view::{SpanKind, SpanView, StatusCode};
pub use wire::NESTING_MAX;
