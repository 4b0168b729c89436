//! What a scan tells of one span.

use super::{SpanBytes, SpanId, TraceId};

/// `Span.SpanKind` of OTLP's `trace.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum SpanKind {
    /// Not given, or a number that this version of OTLP does not name.
    #[default]
    Unspecified = 0,
    /// An operation within an application.
    Internal = 1,
    /// The server's side of a call.
    Server = 2,
    /// The client's side of a call.
    Client = 3,
    /// Hands a message to a broker.
    Producer = 4,
    /// Takes a message from a broker.
    Consumer = 5,
}

impl SpanKind {
    /// The kind with this number on the wire; numbers unknown to OTLP read as unspecified.
    pub const fn from_wire(number: i32) -> Self {
        match number {
            1 => Self::Internal,
            2 => Self::Server,
            3 => Self::Client,
            4 => Self::Producer,
            5 => Self::Consumer,
            _ => Self::Unspecified,
        }
    }
}

/// `Status.StatusCode` of OTLP's `trace.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum StatusCode {
    /// Not given, or a number that this version of OTLP does not name.
    #[default]
    Unset = 0,
    /// Declared a success.
    Ok = 1,
    /// Failed.
    Error = 2,
}

impl StatusCode {
    /// The code with this number on the wire; numbers unknown to OTLP read as unset.
    pub const fn from_wire(number: i32) -> Self {
        match number {
            1 => Self::Ok,
            2 => Self::Error,
            _ => Self::Unset,
        }
    }
}

/// One span as a scan sees it; the texts are slices of the scanned bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpanView<'a> {
    /// `service.name` of the span's resource; empty if it has none.
    pub service: &'a str,
    /// The span's name.
    pub name: &'a str,
    /// The span's kind.
    pub kind: SpanKind,
    /// The status code.
    pub status: StatusCode,
    /// Start, nanoseconds since the Unix epoch.
    pub start_unix_nano: u64,
    /// End, nanoseconds since the Unix epoch.
    pub end_unix_nano: u64,
    /// The trace's id.
    pub trace_id: TraceId,
    /// The span's id.
    pub span_id: SpanId,
    /// Where it lies, for its attributes.
    pub bytes: SpanBytes<'a>,
}

impl SpanView<'_> {
    /// End minus start in nanoseconds; 0 where the end lies before the start.
    pub const fn duration_nanos(&self) -> u64 {
        self.end_unix_nano.saturating_sub(self.start_unix_nano)
    }
}
