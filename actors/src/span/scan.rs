//! One pass over the bytes of an `ExportTraceServiceRequest`: is it valid, and what does it say of each span?
//!
//! It accepts what prost accepts with the types of `opentelemetry-proto`, which the property tests hold it
//! to, and is stricter in one thing: a span's and a link's ids have the length that OTLP says (16 and 8
//! bytes, a parent's 8 or none). Ids of zeros are let through, enum numbers that OTLP does not name too.
//!
//! As protobuf wants it: fields come in any order, the last of several scalars wins, several occurrences
//! of one message merge, unknown fields are skipped.

use super::{
    ScanError, ScanFault, SpanBytes, SpanId, SpanKind, SpanView, StatusCode, TraceId,
    attribute::{attribute, service_name},
    error::Fault,
    fields::{entity_ref, event, link, request, resource, resource_spans, scope, scope_spans, span, status},
    wire::{NESTING_MAX, Reader},
};

/// What a scan found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scan {
    /// Spans in the request.
    pub spans: u32,
}

/// Checks `bytes`, which may be several requests one after the other, and shows every span to `visit` in
/// the order of the wire.
///
/// # Errors
///
/// The first fault found. Spans that `visit` has seen by then count for nothing: the request as a whole is
/// invalid.
#[inline]
pub fn scan<'a>(bytes: &'a [u8], mut visit: impl FnMut(&SpanView<'a>)) -> Result<Scan, ScanError> {
    let mut spans = 0_u32;
    walk(bytes, |view, _| {
        // A span takes 32 bytes at least, so this cannot saturate below 128 GiB.
        spans = spans.saturating_add(1);
        visit(view?);
        Ok(())
    })?;
    Ok(Scan { spans })
}

/// Where a span stands.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// Content of the `ResourceSpans` and `ScopeSpans` around it.
    pub(super) resource_spans: &'a [u8],
    pub(super) scope_spans: &'a [u8],
    /// The whole field: key, length, content.
    pub(super) field: &'a [u8],
}

/// Levels left inside each of the fixed levels of a request.
const LEFT_RESOURCE_SPANS: u32 = NESTING_MAX - 1;
const LEFT_SCOPE_SPANS: u32 = NESTING_MAX - 2;
const LEFT_SPAN: u32 = NESTING_MAX - 3;
const LEFT_IN_SPAN: u32 = NESTING_MAX - 4;

/// Shows every span, or what is wrong with it, and where it stands. A visitor may go on after a span whose ids have the
/// wrong length ([`Fault::is_of_one_span`]): its frame is sound, though not all of what it holds was looked at.
#[inline]
pub(super) fn walk<'a>(
    bytes: &'a [u8],
    mut visit: impl FnMut(Result<&SpanView<'a>, Fault>, Place<'a>) -> Result<(), Fault>,
) -> Result<(), ScanError> {
    let mut request = || -> Result<(), Fault> {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            match reader.key()? {
                request::RESOURCE_SPANS => resource_spans(reader.bytes()?, &mut visit)?,
                key => reader.unknown(key, request::KNOWN, NESTING_MAX)?,
            }
        }
        Ok(())
    };
    request().map_err(|fault| fault.within(bytes))
}

fn resource_spans<'a>(
    bytes: &'a [u8],
    visit: &mut impl FnMut(Result<&SpanView<'a>, Fault>, Place<'a>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    // The resource may follow the spans, so it is looked for first; what lies between is stepped over.
    let mut service = None;
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.key()? {
            resource_spans::RESOURCE => resource(reader.bytes()?, &mut service)?,
            resource_spans::SCOPE_SPANS => reader.skip_bytes()?,
            resource_spans::SCHEMA_URL => reader.check_text("resource_spans.schema_url")?,
            key => reader.unknown(key, resource_spans::KNOWN, LEFT_RESOURCE_SPANS)?,
        }
    }
    let service = service.unwrap_or_default();
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.key()? {
            resource_spans::SCOPE_SPANS => scope_spans(reader.bytes()?, bytes, service, visit)?,
            key => reader.skip(key, LEFT_RESOURCE_SPANS)?,
        }
    }
    Ok(())
}

fn resource<'a>(bytes: &'a [u8], service: &mut Option<&'a str>) -> Result<(), Fault> {
    const LEFT: u32 = LEFT_RESOURCE_SPANS - 1;
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.key()? {
            resource::ATTRIBUTES => {
                let bytes = reader.bytes()?;
                attribute(bytes, LEFT - 1)?;
                if service.is_none() {
                    *service = service_name(bytes)?;
                }
            }
            resource::DROPPED => reader.skip_varint()?,
            resource::ENTITY_REFS => entity_ref(reader.bytes()?)?,
            key => reader.unknown(key, resource::KNOWN, LEFT)?,
        }
    }
    Ok(())
}

fn entity_ref(bytes: &[u8]) -> Result<(), Fault> {
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.key()? {
            entity_ref::SCHEMA_URL => reader.check_text("entity_ref.schema_url")?,
            entity_ref::TYPE => reader.check_text("entity_ref.type")?,
            entity_ref::ID_KEYS => reader.check_text("entity_ref.id_keys")?,
            entity_ref::DESCRIPTION_KEYS => reader.check_text("entity_ref.description_keys")?,
            key => reader.unknown(key, entity_ref::KNOWN, LEFT_RESOURCE_SPANS - 2)?,
        }
    }
    Ok(())
}

fn scope_spans<'a>(
    bytes: &'a [u8],
    resource_spans: &'a [u8],
    service: &'a str,
    visit: &mut impl FnMut(Result<&SpanView<'a>, Fault>, Place<'a>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        let before = reader;
        match reader.key()? {
            scope_spans::SPANS => {
                let span = span(reader.bytes()?, resource_spans, service);
                let view = match span {
                    Ok(ref view) => Ok(view),
                    Err(fault) => Err(fault),
                };
                visit(view, Place { resource_spans, scope_spans: bytes, field: before.until(&reader) })?;
            }
            scope_spans::SCOPE => scope(reader.bytes()?)?,
            scope_spans::SCHEMA_URL => reader.check_text("scope_spans.schema_url")?,
            key => reader.unknown(key, scope_spans::KNOWN, LEFT_SCOPE_SPANS)?,
        }
    }
    Ok(())
}

fn scope(bytes: &[u8]) -> Result<(), Fault> {
    const LEFT: u32 = LEFT_SCOPE_SPANS - 1;
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.key()? {
            scope::NAME => reader.check_text("scope.name")?,
            scope::VERSION => reader.check_text("scope.version")?,
            scope::ATTRIBUTES => attribute(reader.bytes()?, LEFT - 1)?,
            scope::DROPPED => reader.skip_varint()?,
            key => reader.unknown(key, scope::KNOWN, LEFT)?,
        }
    }
    Ok(())
}

/// Inlined, since what it returns is too large for registers.
#[inline(always)]
fn span<'a>(bytes: &'a [u8], resource_spans: &'a [u8], service: &'a str) -> Result<SpanView<'a>, Fault> {
    let mut trace_id: &[u8] = &[];
    let mut span_id: &[u8] = &[];
    let mut parent_span_id: &[u8] = &[];
    let mut name = "";
    let mut kind = 0;
    let mut code = 0;
    let mut start_unix_nano = 0;
    let mut end_unix_nano = 0;
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.key()? {
            span::TRACE_ID => trace_id = reader.bytes()?,
            span::SPAN_ID => span_id = reader.bytes()?,
            span::TRACE_STATE => reader.check_text("span.trace_state")?,
            span::PARENT_SPAN_ID => parent_span_id = reader.bytes()?,
            span::NAME => name = reader.text("span.name")?,
            span::KIND => kind = reader.varint()?,
            span::START => start_unix_nano = reader.fixed64()?,
            span::END => end_unix_nano = reader.fixed64()?,
            span::ATTRIBUTES => attribute(reader.bytes()?, LEFT_IN_SPAN)?,
            span::DROPPED_ATTRIBUTES | span::DROPPED_EVENTS | span::DROPPED_LINKS => reader.skip_varint()?,
            span::EVENTS => event(reader.bytes()?)?,
            span::LINKS => link(reader.bytes()?)?,
            span::STATUS => status(reader.bytes()?, &mut code)?,
            span::FLAGS => reader.skip_fixed(4)?,
            key => reader.unknown(key, span::KNOWN, LEFT_SPAN)?,
        }
    }
    let (Some(trace_id), Some(span_id), 0 | SpanId::LEN) =
        (TraceId::from_slice(trace_id), SpanId::from_slice(span_id), parent_span_id.len())
    else {
        let ids = [
            ("span.trace_id", trace_id, 16),
            ("span.span_id", span_id, 8),
            ("span.parent_span_id", parent_span_id, 8),
        ];
        return Err(wrong_id(bytes, ids));
    };
    Ok(SpanView {
        service,
        name,
        // An enum is an int32: the upper half of a varint is cut off.
        kind: SpanKind::from_wire(kind as i32),
        status: StatusCode::from_wire(code as i32),
        start_unix_nano,
        end_unix_nano,
        trace_id,
        span_id,
        bytes: SpanBytes { resource_spans, span: bytes },
    })
}

/// The fault for the first of `ids` (field, value, length) that does not have its length.
#[cold]
#[inline(never)]
fn wrong_id<const N: usize>(at: &[u8], ids: [(&'static str, &[u8], usize); N]) -> Fault {
    let wrong = ids.into_iter().find(|(_, id, expected)| id.len() != *expected);
    let (field, length, expected) =
        wrong.map_or(("id", 0, 0), |(field, id, expected)| (field, id.len(), expected));
    Fault::new(at, ScanFault::IdLength { field, length, expected })
}

fn event(bytes: &[u8]) -> Result<(), Fault> {
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.key()? {
            event::TIME => reader.skip_fixed(8)?,
            event::NAME => reader.check_text("event.name")?,
            event::ATTRIBUTES => attribute(reader.bytes()?, LEFT_IN_SPAN - 1)?,
            event::DROPPED => reader.skip_varint()?,
            key => reader.unknown(key, event::KNOWN, LEFT_IN_SPAN)?,
        }
    }
    Ok(())
}

fn link(bytes: &[u8]) -> Result<(), Fault> {
    let mut trace_id: &[u8] = &[];
    let mut span_id: &[u8] = &[];
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.key()? {
            link::TRACE_ID => trace_id = reader.bytes()?,
            link::SPAN_ID => span_id = reader.bytes()?,
            link::TRACE_STATE => reader.check_text("link.trace_state")?,
            link::ATTRIBUTES => attribute(reader.bytes()?, LEFT_IN_SPAN - 1)?,
            link::DROPPED => reader.skip_varint()?,
            link::FLAGS => reader.skip_fixed(4)?,
            key => reader.unknown(key, link::KNOWN, LEFT_IN_SPAN)?,
        }
    }
    if trace_id.len() == TraceId::LEN && span_id.len() == SpanId::LEN {
        Ok(())
    } else {
        Err(wrong_id(
            bytes,
            [("link.trace_id", trace_id, TraceId::LEN), ("link.span_id", span_id, SpanId::LEN)],
        ))
    }
}

fn status(bytes: &[u8], code: &mut u64) -> Result<(), Fault> {
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.key()? {
            status::MESSAGE => reader.check_text("status.message")?,
            status::CODE => *code = reader.varint()?,
            key => reader.unknown(key, status::KNOWN, LEFT_IN_SPAN)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
