//! A span as a context hands it out.

use std::{collections::HashMap, time::SystemTime};

use crate::span::StatusCode;

/// A span of a [`StreamTelemetryContext`](super::StreamTelemetryContext).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetrySpan {
    /// The span's number, random and never 0.
    pub span_id: u64,
    /// The parent's number; nothing for a root.
    pub parent_span_id: Option<u64>,
    /// The trace's number, random and never 0.
    pub trace_id: u128,
    /// The name.
    pub name: String,
    /// When it began.
    pub start_time: SystemTime,
    /// When it ended; nothing while it is open.
    pub end_time: Option<SystemTime>,
    /// Attributes; of two with one key the later.
    pub attributes: HashMap<String, String>,
    /// How it ended.
    pub status: SpanStatus,
    /// The parent that was asked for, where nothing is known of it any more: the span is a new root with a link to it.
    pub linked_span_id: Option<u64>,
}

/// How a span ended (OTLP `Status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SpanStatus {
    /// A success.
    Ok,
    /// A failure.
    Error,
    /// Nothing said; every open span.
    #[default]
    Unset,
}

impl From<SpanStatus> for StatusCode {
    fn from(status: SpanStatus) -> Self {
        match status {
            SpanStatus::Ok => Self::Ok,
            SpanStatus::Error => Self::Error,
            SpanStatus::Unset => Self::Unset,
        }
    }
}
