//! A span of an in-process connection: begun, described, ended.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use super::connection::{Key, OpenSpan, Shared, unix_nanos};
use crate::span::{SpanContext, SpanKind, SpanStart, StatusCode, TraceparentError, Value};

/// How a span ended (OTLP `Status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Status<'a> {
    /// Nothing said.
    #[default]
    Unset,
    /// Declared a success; final.
    Ok,
    /// Failed, with a description that may be empty.
    Error(&'a str),
}

/// A span to be started.
#[derive(Debug)]
#[must_use = "a span begins with `start`"]
pub struct SpanBuilder<'a> {
    shared: &'a Arc<Shared>,
    name: &'a str,
    kind: SpanKind,
    parent: Option<SpanContext>,
    parent_is_remote: bool,
    start_unix_nano: Option<u64>,
}

impl<'a> SpanBuilder<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, name: &'a str) -> Self {
        Self {
            shared,
            name,
            kind: SpanKind::Internal,
            parent: None,
            parent_is_remote: false,
            start_unix_nano: None,
        }
    }

    /// The span's kind; internal unless told.
    pub fn kind(mut self, kind: SpanKind) -> Self {
        self.kind = kind;
        self
    }

    /// The span's parent in this process: the span belongs to its trace.
    pub fn parent(mut self, parent: SpanContext) -> Self {
        self.parent = Some(parent);
        self.parent_is_remote = false;
        self
    }

    /// The parent from a peer's `traceparent` header (W3C Trace Context).
    ///
    /// # Errors
    /// [`TraceparentError`] where the text is no such header; the span may still be started as a root.
    pub fn traceparent(mut self, header: &str) -> Result<Self, TraceparentError> {
        self.parent = Some(header.parse()?);
        self.parent_is_remote = true;
        Ok(self)
    }

    /// When the span began; now unless told.
    pub fn start_time(mut self, at: SystemTime) -> Self {
        self.start_unix_nano = Some(to_unix_nanos(at));
        self
    }

    /// Begins the span. On a closed or full connection it records nothing, which is counted.
    pub fn start(self) -> Span {
        let context = self.parent.map_or_else(SpanContext::random, |parent| parent.child());
        let start = SpanStart {
            context,
            parent: self.parent.map(|parent| parent.span_id),
            parent_is_remote: self.parent_is_remote,
            name: self.name,
            kind: self.kind,
            start_unix_nano: self.start_unix_nano.unwrap_or_else(unix_nanos),
        };
        let key = self.shared.begin(|span| span.encoder.start(&start));
        Span { open: key.map(|key| (Arc::clone(self.shared), key)), context }
    }
}

/// A span under way. Dropped unfinished, it ends as an error that says so.
#[derive(Debug)]
pub struct Span {
    open: Option<(Arc<Shared>, Key)>,
    context: SpanContext,
}

impl Span {
    /// The span's identity, to be another span's parent or link.
    pub fn context(&self) -> SpanContext {
        self.context
    }

    /// The `traceparent` header for a peer (W3C Trace Context).
    pub fn traceparent(&self) -> String {
        self.context.to_string()
    }

    /// Whether what is written here is recorded: false after the connection refused the span.
    pub fn is_recording(&self) -> bool {
        self.open.is_some()
    }

    /// Sets an attribute.
    pub fn set_attribute<'v>(&mut self, key: &str, value: impl Into<Value<'v>>) -> &mut Self {
        let value = value.into();
        self.change(|span| span.encoder.attribute(key, value))
    }

    /// Adds an event that happens now.
    pub fn add_event(&mut self, name: &str, attributes: &[(&str, Value<'_>)]) -> &mut Self {
        let now = unix_nanos();
        self.change(|span| span.encoder.event(now, name, attributes))
    }

    /// Adds a link to another span.
    pub fn add_link(&mut self, to: SpanContext, attributes: &[(&str, Value<'_>)]) -> &mut Self {
        self.change(|span| span.encoder.link(&to, "", attributes))
    }

    /// Sets the status. `Ok` is final; `Unset` changes nothing (OpenTelemetry trace API, "Set Status").
    pub fn set_status(&mut self, status: Status<'_>) -> &mut Self {
        self.change(|span| match status {
            Status::Unset => {}
            Status::Ok => span.set_status(StatusCode::Ok, ""),
            Status::Error(description) => span.set_status(StatusCode::Error, description),
        })
    }

    /// Ends the span now.
    pub fn end(mut self) {
        self.finish(None, None);
    }

    /// Ends the span with an end time.
    pub fn end_at(mut self, at: SystemTime) {
        self.finish(Some(to_unix_nanos(at)), None);
    }

    fn change(&mut self, write: impl FnOnce(&mut OpenSpan)) -> &mut Self {
        if let Some((shared, key)) = &self.open {
            shared.change(*key, write);
        }
        self
    }

    fn finish(&mut self, end_unix_nano: Option<u64>, error: Option<&str>) {
        let Some((shared, key)) = self.open.take() else { return };
        shared.end(key, end_unix_nano.unwrap_or_else(unix_nanos), |span| {
            if let Some(error) = error {
                span.set_status(StatusCode::Error, error);
            }
        });
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.finish(None, Some("span dropped before its end"));
    }
}

fn to_unix_nanos(at: SystemTime) -> u64 {
    let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}
