//! Requests out of a request: some of its spans, each in a copy of what stands around it.
//!
//! A span's bytes are copied as they came. Around them stand the resource, the scope, the schema URLs and
//! any unknown field, as they came too, each `ResourceSpans` and `ScopeSpans` once a result; only the
//! lengths of those two are written anew, as varints padded to five bytes. Their other fields stand before
//! their spans. Containers left without spans are left out.

use super::{
    ScanError, SpanView,
    error::Fault,
    fields::{request, resource_spans, scope_spans},
    scan::walk,
    wire::{NESTING_MAX, PADDED_LEN, Reader, close_message, open_message},
};

/// What a container's key and length take.
const HEAD_LEN: usize = 1 + PADDED_LEN;

/// Appends to `out` a request with the spans that `keep` wants, in their order; it is told each span's
/// index in `bytes`. Returns how many; where that is 0, nothing was appended.
///
/// Unknown fields of the request itself are kept too, after the spans.
///
/// # Errors
///
/// As [`scan`](super::scan); nothing was appended then.
pub fn select(
    bytes: &[u8],
    mut keep: impl FnMut(u32, &SpanView<'_>) -> bool,
    out: &mut Vec<u8>,
) -> Result<u32, ScanError> {
    select_by(bytes, |index, view, _| Ok(keep(index, view?)), out)
}

/// As [`select`], by a choice that sees all of a span's field and may leave out one whose ids have the wrong length.
pub(super) fn select_by<'a>(
    bytes: &'a [u8],
    mut keep: impl FnMut(u32, Result<&SpanView<'a>, Fault>, &'a [u8]) -> Result<bool, Fault>,
    out: &mut Vec<u8>,
) -> Result<u32, ScanError> {
    let begin = out.len();
    let mut writer = Writer::new(out);
    let mut index = 0_u32;
    let mut kept = 0_u32;
    let result = walk(bytes, |view, place| {
        if keep(index, view, place.field)? {
            writer.push(place.resource_spans, place.scope_spans, place.field)?;
            kept = kept.saturating_add(1);
        }
        index = index.saturating_add(1);
        Ok(())
    });
    writer.close_resource();
    let result = result.and_then(|()| {
        if kept > 0 {
            others(bytes, request::RESOURCE_SPANS, |field| out.extend_from_slice(field))
                .map_err(|fault| fault.within(bytes))?;
        }
        Ok(kept)
    });
    if result.is_err() {
        out.truncate(begin);
    }
    result
}

/// Appends to `out` a request with the longest run of spans from index `first` on that has at most
/// `max_spans` spans (0 counts as 1) and at most `max_bytes` bytes, all that stands around them included.
/// A span that is over the limit by itself is written alone. Returns how many; 0, with nothing appended,
/// only if there is no span `first`.
///
/// `bytes` have been scanned: only what frames the spans is read. Unknown fields of the request itself go
/// with the span before them (those before all spans with the first one), whatever their size.
///
/// # Errors
///
/// The framing is broken; nothing was appended then.
pub fn cut(
    bytes: &[u8],
    first: u32,
    max_spans: u32,
    max_bytes: usize,
    out: &mut Vec<u8>,
) -> Result<u32, ScanError> {
    let begin = out.len();
    let mut cut = Cut {
        end: begin.saturating_add(max_bytes),
        writer: Writer::new(out),
        first,
        max_spans,
        index: 0,
        written: 0,
        full: false,
    };
    let result = cut.request(bytes);
    cut.writer.close_resource();
    let written = cut.written;
    if result.is_err() || written == 0 {
        out.truncate(begin);
    }
    result.map(|()| written).map_err(|fault| fault.within(bytes))
}

struct Cut<'o, 'a> {
    writer: Writer<'o, 'a>,
    /// Where `out` may end.
    end: usize,
    first: u32,
    max_spans: u32,
    /// Index of the next span.
    index: u32,
    written: u32,
    /// The next span does not belong to the run.
    full: bool,
}

impl<'a> Cut<'_, 'a> {
    fn request(&mut self, bytes: &'a [u8]) -> Result<(), Fault> {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() && !self.full {
            let before = reader;
            match reader.key()? {
                request::RESOURCE_SPANS => self.resource_spans(reader.bytes()?)?,
                key => {
                    reader.skip(key, NESTING_MAX)?;
                    if self.index > self.first || self.index == 0 && self.first == 0 {
                        self.writer.close_resource();
                        self.writer.out.extend_from_slice(before.until(&reader));
                    }
                }
            }
        }
        Ok(())
    }

    fn resource_spans(&mut self, bytes: &'a [u8]) -> Result<(), Fault> {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() && !self.full {
            match reader.key()? {
                resource_spans::SCOPE_SPANS => self.scope_spans(bytes, reader.bytes()?)?,
                key => reader.skip(key, NESTING_MAX)?,
            }
        }
        Ok(())
    }

    fn scope_spans(&mut self, resource_spans: &'a [u8], bytes: &'a [u8]) -> Result<(), Fault> {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() && !self.full {
            let before = reader;
            match reader.key()? {
                scope_spans::SPANS => {
                    reader.skip_bytes()?;
                    self.span(resource_spans, bytes, before.until(&reader))?;
                }
                key => reader.skip(key, NESTING_MAX)?,
            }
        }
        Ok(())
    }

    fn span(
        &mut self,
        resource_spans: &'a [u8],
        scope_spans: &'a [u8],
        field: &'a [u8],
    ) -> Result<(), Fault> {
        if self.index >= self.first {
            let length = self.writer.cost(resource_spans, scope_spans, field)?;
            let fits =
                self.written < self.max_spans && length <= self.end.saturating_sub(self.writer.out.len());
            if !fits && self.written > 0 {
                self.full = true;
                return Ok(());
            }
            self.writer.push(resource_spans, scope_spans, field)?;
            self.written = self.written.saturating_add(1);
        }
        self.index = self.index.saturating_add(1);
        Ok(())
    }
}

/// A container under construction.
#[derive(Clone, Copy)]
struct Open<'a> {
    /// The content of the one that it copies.
    source: &'a [u8],
    /// Where its own content begins.
    content: usize,
}

/// Writes spans with their containers around them.
struct Writer<'o, 'a> {
    out: &'o mut Vec<u8>,
    resource_spans: Option<Open<'a>>,
    scope_spans: Option<Open<'a>>,
}

impl<'o, 'a> Writer<'o, 'a> {
    const fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out, resource_spans: None, scope_spans: None }
    }

    /// Bytes that a push would append.
    fn cost(&self, resource_spans: &[u8], scope_spans: &[u8], field: &[u8]) -> Result<usize, Fault> {
        let mut length = field.len();
        if !is_open(self.scope_spans, scope_spans) {
            length += HEAD_LEN;
            others(scope_spans, scope_spans::SPANS, |field| length += field.len())?;
        }
        if !is_open(self.resource_spans, resource_spans) {
            length += HEAD_LEN;
            others(resource_spans, resource_spans::SCOPE_SPANS, |field| length += field.len())?;
        }
        Ok(length)
    }

    fn push(&mut self, resource_spans: &'a [u8], scope_spans: &'a [u8], field: &[u8]) -> Result<(), Fault> {
        if !is_open(self.resource_spans, resource_spans) {
            self.close_resource();
            let content = open_message(self.out, request::RESOURCE_SPANS);
            self.resource_spans = Some(Open { source: resource_spans, content });
            others(resource_spans, resource_spans::SCOPE_SPANS, |field| self.out.extend_from_slice(field))?;
        }
        if !is_open(self.scope_spans, scope_spans) {
            self.close_scope();
            let content = open_message(self.out, resource_spans::SCOPE_SPANS);
            self.scope_spans = Some(Open { source: scope_spans, content });
            others(scope_spans, scope_spans::SPANS, |field| self.out.extend_from_slice(field))?;
        }
        self.out.extend_from_slice(field);
        Ok(())
    }

    fn close_scope(&mut self) {
        if let Some(open) = self.scope_spans.take() {
            close_message(self.out, open.content);
        }
    }

    fn close_resource(&mut self) {
        self.close_scope();
        if let Some(open) = self.resource_spans.take() {
            close_message(self.out, open.content);
        }
    }
}

/// Whether it is this very container, not one that looks alike.
fn is_open(open: Option<Open<'_>>, source: &[u8]) -> bool {
    open.is_some_and(|open| std::ptr::eq(open.source, source))
}

/// Shows every field of a message but those with this key.
fn others<'a>(message: &'a [u8], but: u32, mut visit: impl FnMut(&'a [u8])) -> Result<(), Fault> {
    let mut reader = Reader::new(message);
    while !reader.is_empty() {
        let before = reader;
        let key = reader.key()?;
        reader.skip(key, NESTING_MAX)?;
        if key != but {
            visit(before.until(&reader));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
