//! A trace request under construction.

use bytes::Bytes;

use super::{
    Value,
    fields::{request, resource, resource_spans, scope, scope_spans},
    value::{put_framed, put_head, put_key_value},
    wire::{close_message, open_message},
};

/// Who reports the spans of a request.
#[derive(Debug, Clone, Copy)]
pub struct Reporter<'a> {
    /// Attributes of the resource, `service.name` among them.
    pub resource: &'a [(&'a str, Value<'a>)],
    /// Name of the instrumentation scope.
    pub scope_name: &'a str,
    /// Version of the instrumentation scope.
    pub scope_version: &'a str,
}

/// The contiguous bytes of an `ExportTraceServiceRequest` of one resource and one scope, to which spans are
/// appended. The two containers' lengths are padded to five bytes and filled in when the bytes are taken, so
/// that no span is moved once it is written.
///
/// ```text
///   0a len5 ┬ 0a len resource
///           └ 12 len5 ┬ 0a len scope
///                     ├ 12 len span
///                     └ 12 len span …
/// ```
pub struct RequestBuffer {
    /// Everything up to the first span.
    header: Vec<u8>,
    /// Where the content of the two containers begins.
    resource_spans: usize,
    scope_spans: usize,
    bytes: Vec<u8>,
    spans: u32,
    capacity: usize,
}

impl std::fmt::Debug for RequestBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (bytes, spans) = (self.len(), self.spans);
        f.debug_struct("RequestBuffer").field("bytes", &bytes).field("spans", &spans).finish_non_exhaustive()
    }
}

impl RequestBuffer {
    /// An empty request of this reporter. `capacity` bytes are allocated for the first span of each request:
    /// a caller who takes the bytes before they exceed it sees no other allocation.
    pub fn new(reporter: &Reporter<'_>, capacity: usize) -> Self {
        let mut header = Vec::new();
        let mut part = Vec::new();
        let resource_spans = open_message(&mut header, request::RESOURCE_SPANS);
        for (key, value) in reporter.resource {
            if value.nests_within(super::VALUE_DEPTH_MAX) {
                put_key_value(&mut part, resource::ATTRIBUTES, key, value);
            }
        }
        put_framed(&mut header, resource_spans::RESOURCE, &part);
        part.clear();
        let scope_spans = open_message(&mut header, resource_spans::SCOPE_SPANS);
        put_framed(&mut part, scope::NAME, reporter.scope_name.as_bytes());
        put_framed(&mut part, scope::VERSION, reporter.scope_version.as_bytes());
        put_framed(&mut header, scope_spans::SCOPE, &part);
        Self { header, resource_spans, scope_spans, bytes: Vec::new(), spans: 0, capacity }
    }

    /// Appends a span: the content of a `Span` message.
    #[inline]
    pub fn push(&mut self, span: &[u8]) {
        if self.spans == 0 {
            self.bytes.reserve_exact(self.capacity.max(self.header.len()));
            self.bytes.extend_from_slice(&self.header);
        }
        put_head(&mut self.bytes, scope_spans::SPANS, span.len());
        self.bytes.extend_from_slice(span);
        self.spans = self.spans.saturating_add(1);
    }

    /// Bytes of the request so far; 0 without a span.
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no span.
    pub const fn is_empty(&self) -> bool {
        self.spans == 0
    }

    /// Spans in the request.
    pub const fn spans(&self) -> u32 {
        self.spans
    }

    /// The request and its number of spans; the next one begins. Without spans there are no bytes either.
    pub fn take(&mut self) -> (Bytes, u32) {
        let mut bytes = std::mem::take(&mut self.bytes);
        let spans = std::mem::take(&mut self.spans);
        if spans > 0 {
            close_message(&mut bytes, self.scope_spans);
            close_message(&mut bytes, self.resource_spans);
        }
        // Whoever keeps the bytes keeps their capacity: the unused rest goes back, in place.
        bytes.shrink_to_fit();
        (bytes.into(), spans)
    }
}
