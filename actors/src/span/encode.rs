//! In-process spans, written field by field into the bytes of an OTLP `Span` message.

use std::fmt;

use super::{
    SpanContext, SpanId, SpanKind, StatusCode, VALUE_DEPTH_MAX, Value,
    fields::{event, link, span, status},
    value::{framed_len, key_value_len, put_framed, put_head, put_key_value},
    wire::{close_message, open_message, put_varint},
};

/// Bounds on what one in-process span may hold. What goes beyond is dropped and counted in the span's
/// `dropped_…_count` fields; a text beyond its bound is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanLimits {
    /// Attributes of a span, of an event and of a link; default 128, as the specification of the SDK says.
    pub attributes: u32,
    /// Events of a span; default 128.
    pub events: u32,
    /// Links of a span; default 128.
    pub links: u32,
    /// Bytes of a name, a status message or a trace state; default 16 KiB.
    pub text_bytes: usize,
    /// Encoded bytes after which a span takes no more attributes, events and links; default 1 MiB.
    pub span_bytes: usize,
}

impl Default for SpanLimits {
    fn default() -> Self {
        Self { attributes: 128, events: 128, links: 128, text_bytes: 16 << 10, span_bytes: 1 << 20 }
    }
}

/// What a span begins with.
#[derive(Debug, Clone, Copy)]
pub struct SpanStart<'a> {
    /// The span's own ids and trace flags.
    pub context: SpanContext,
    /// The parent, if the span is no root.
    pub parent: Option<SpanId>,
    /// Whether the parent came from another process.
    pub parent_is_remote: bool,
    /// The name.
    pub name: &'a str,
    /// The kind.
    pub kind: SpanKind,
    /// Nanoseconds since the Unix epoch.
    pub start_unix_nano: u64,
}

/// `SpanFlags` of `trace.proto`: whether the parent is remote is known, and it is.
const FLAG_HAS_IS_REMOTE: u32 = 0x100;
const FLAG_IS_REMOTE: u32 = 0x200;

/// A buffer that grew beyond this for one span is given back before the next.
const KEPT_CAPACITY_MAX: usize = 64 << 10;

/// Encodes one span after the other into one buffer: [`start`](Self::start), then what the span is told, in
/// any order, then [`end`](Self::end). It allocates only until the buffer has grown to the size of a span.
///
/// Two attributes with one key both go out, as from the SDK of OpenTelemetry for Rust; of two names, trace
/// states and statuses the last one counts.
#[derive(Default)]
pub struct SpanEncoder {
    bytes: Vec<u8>,
    limits: SpanLimits,
    attributes: Count,
    events: Count,
    links: Count,
}

/// How many there are, and how many more there were.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    kept: u32,
    dropped: u32,
}

impl Count {
    /// Counts one as kept if `room` and `limit` allow, or else as dropped.
    #[inline(always)]
    fn admit(&mut self, limit: u32, room: bool) -> bool {
        let kept = room && self.kept < limit;
        if kept {
            self.kept += 1;
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
        kept
    }
}

impl fmt::Debug for SpanEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpanEncoder").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl SpanEncoder {
    /// An encoder with these bounds.
    pub fn new(limits: SpanLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Begins a span; whatever was written before is forgotten.
    #[inline]
    pub fn start(&mut self, start: &SpanStart<'_>) {
        self.bytes.clear();
        if self.bytes.capacity() > KEPT_CAPACITY_MAX {
            self.bytes.shrink_to(KEPT_CAPACITY_MAX);
        }
        (self.attributes, self.events, self.links) = <_>::default();

        let mut flags = FLAG_HAS_IS_REMOTE | u32::from(start.context.flags.bits());
        if start.parent_is_remote {
            flags |= FLAG_IS_REMOTE;
        }
        // All that has a fixed length in one piece.
        let mut head = [0; 45];
        head[0] = span::TRACE_ID as u8;
        head[1] = 16;
        head[2..18].copy_from_slice(start.context.trace_id.as_bytes());
        head[18] = span::SPAN_ID as u8;
        head[19] = 8;
        head[20..28].copy_from_slice(start.context.span_id.as_bytes());
        head[28] = span::START as u8;
        head[29..37].copy_from_slice(&start.start_unix_nano.to_le_bytes());
        // The only field whose key takes two bytes.
        head[37] = span::FLAGS as u8 | 0x80;
        head[38] = (span::FLAGS >> 7) as u8;
        head[39..43].copy_from_slice(&flags.to_le_bytes());
        head[43] = span::KIND as u8;
        head[44] = start.kind as u8;
        self.bytes.extend_from_slice(&head);
        if let Some(parent) = start.parent {
            put_framed(&mut self.bytes, span::PARENT_SPAN_ID, parent.as_bytes());
        }
        self.name(start.name);
    }

    /// Names the span anew.
    #[inline]
    pub fn name(&mut self, name: &str) {
        let name = cut_text(name, self.limits.text_bytes);
        put_framed(&mut self.bytes, span::NAME, name.as_bytes());
    }

    /// The W3C `tracestate` that came with the trace.
    pub fn trace_state(&mut self, trace_state: &str) {
        let trace_state = cut_text(trace_state, self.limits.text_bytes);
        put_framed(&mut self.bytes, span::TRACE_STATE, trace_state.as_bytes());
    }

    /// Adds an attribute. A value nested deeper than [`VALUE_DEPTH_MAX`] is dropped.
    #[inline]
    pub fn attribute<'v>(&mut self, key: &str, value: impl Into<Value<'v>>) {
        let value = value.into();
        let length = framed_len(key_value_len(key, value.content_len()));
        let room = self.has_room(length) && value.nests_within(VALUE_DEPTH_MAX);
        if self.attributes.admit(self.limits.attributes, room) {
            put_key_value(&mut self.bytes, span::ATTRIBUTES, key, &value);
        }
    }

    /// Adds an event; its time is in nanoseconds since the Unix epoch.
    pub fn event(&mut self, time_unix_nano: u64, name: &str, attributes: &[(&str, Value<'_>)]) {
        let begin = self.bytes.len();
        let name = cut_text(name, self.limits.text_bytes);
        let content = open_message(&mut self.bytes, span::EVENTS);
        self.bytes.push(event::TIME as u8);
        self.bytes.extend_from_slice(&time_unix_nano.to_le_bytes());
        put_framed(&mut self.bytes, event::NAME, name.as_bytes());
        self.inner_attributes(attributes, event::ATTRIBUTES, event::DROPPED);
        close_message(&mut self.bytes, content);
        if !self.events.admit(self.limits.events, self.has_room(0)) {
            self.bytes.truncate(begin);
        }
    }

    /// Adds a link to another span, with that one's `tracestate` (empty if it has none).
    pub fn link(&mut self, to: &SpanContext, trace_state: &str, attributes: &[(&str, Value<'_>)]) {
        let begin = self.bytes.len();
        let trace_state = cut_text(trace_state, self.limits.text_bytes);
        let content = open_message(&mut self.bytes, span::LINKS);
        put_framed(&mut self.bytes, link::TRACE_ID, to.trace_id.as_bytes());
        put_framed(&mut self.bytes, link::SPAN_ID, to.span_id.as_bytes());
        if !trace_state.is_empty() {
            put_framed(&mut self.bytes, link::TRACE_STATE, trace_state.as_bytes());
        }
        self.bytes.push(link::FLAGS as u8);
        self.bytes.extend_from_slice(&u32::from(to.flags.bits()).to_le_bytes());
        self.inner_attributes(attributes, link::ATTRIBUTES, link::DROPPED);
        close_message(&mut self.bytes, content);
        if !self.links.admit(self.limits.links, self.has_room(0)) {
            self.bytes.truncate(begin);
        }
    }

    /// Sets the status; the message is for errors.
    pub fn status(&mut self, code: StatusCode, message: &str) {
        let message = cut_text(message, self.limits.text_bytes);
        // Several statuses merge: both fields are written, even where they are 0 or empty.
        put_head(&mut self.bytes, span::STATUS, framed_len(message.len()) + 2);
        put_framed(&mut self.bytes, status::MESSAGE, message.as_bytes());
        self.bytes.extend_from_slice(&[status::CODE as u8, code as u8]);
    }

    /// Ends the span and hands out its bytes, which the next [`start`](Self::start) forgets.
    #[inline]
    pub fn end(&mut self, end_unix_nano: u64) -> &[u8] {
        for (key, count) in [
            (span::DROPPED_ATTRIBUTES, self.attributes),
            (span::DROPPED_EVENTS, self.events),
            (span::DROPPED_LINKS, self.links),
        ] {
            if count.dropped > 0 {
                self.bytes.push(key as u8);
                put_varint(&mut self.bytes, count.dropped.into());
            }
        }
        let mut tail = [0; 9];
        tail[0] = span::END as u8;
        tail[1..9].copy_from_slice(&end_unix_nano.to_le_bytes());
        self.bytes.extend_from_slice(&tail);
        &self.bytes
    }

    #[inline(always)]
    fn has_room(&self, more: usize) -> bool {
        self.bytes.len().saturating_add(more) <= self.limits.span_bytes
    }

    /// The attributes of an event or a link.
    fn inner_attributes(&mut self, attributes: &[(&str, Value<'_>)], field: u32, dropped_field: u32) {
        let mut count = Count::default();
        for (key, value) in attributes {
            let length = framed_len(key_value_len(key, value.content_len()));
            let room = self.has_room(length) && value.nests_within(VALUE_DEPTH_MAX);
            if count.admit(self.limits.attributes, room) {
                put_key_value(&mut self.bytes, field, key, value);
            }
        }
        if count.dropped > 0 {
            self.bytes.push(dropped_field as u8);
            put_varint(&mut self.bytes, count.dropped.into());
        }
    }
}

/// The text, or as many whole characters of it as fit.
#[inline(always)]
fn cut_text(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        text
    } else {
        text.get(..text.floor_char_boundary(bytes_max)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
