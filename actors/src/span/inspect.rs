//! What a door makes of each span of a request: whether it is kept, and what is odd about it.
//!
//! A span that cannot be kept does not take its request along: it is left out, and the others go on with the very bytes
//! that they came in.

use super::{
    ScanError, SpanView,
    error::Fault,
    fields::span,
    scan::walk,
    split::select_by,
    wire::{NESTING_MAX, Reader},
};

/// The longest name of a span in bytes.
pub const NAME_BYTES_MAX: usize = 64 * 1024;
/// The most attributes of a span.
pub const ATTRIBUTES_MAX: usize = 1024;
/// A span of no more bytes has neither too long a name nor too many attributes, of which each takes two bytes.
const SURELY_SMALL: usize = 2 * ATTRIBUTES_MAX;

/// Spans of a request, by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Inspection {
    /// Those that may be kept.
    pub kept: u32,
    /// Those that may not.
    pub rejected: Rejected,
    /// What is odd about those that may; one span may be odd in several ways.
    pub odd: Odd,
}

/// Spans that may not be kept, by the first reason found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rejected {
    /// A trace or span id of zeros or of the wrong length; a parent's or a link's of the wrong length.
    pub invalid_id: u32,
    /// A name of more than [`NAME_BYTES_MAX`] bytes.
    pub name_too_long: u32,
    /// More than [`ATTRIBUTES_MAX`] attributes.
    pub too_many_attributes: u32,
    /// Where the first of them stands among the request's spans.
    pub first: Option<u32>,
}

/// Spans that are kept though something about them is odd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Odd {
    /// The end lies before the start: the duration counts as 0.
    pub end_before_start: u32,
    /// The name is empty.
    pub empty_name: u32,
    /// Start or end lies beyond the horizon.
    pub far_future: u32,
}

impl Rejected {
    /// How many they are.
    pub fn total(&self) -> u32 {
        self.invalid_id.saturating_add(self.name_too_long).saturating_add(self.too_many_attributes)
    }

    #[cold]
    fn note(&mut self, why: Why, index: u32) {
        let count = match why {
            Why::Id => &mut self.invalid_id,
            Why::Name => &mut self.name_too_long,
            Why::Attributes => &mut self.too_many_attributes,
        };
        *count = count.saturating_add(1);
        self.first.get_or_insert(index);
    }
}

impl Odd {
    #[cold]
    fn note(&mut self, view: &SpanView<'_>, horizon_unix_nano: u64) {
        let far = view.start_unix_nano > horizon_unix_nano || view.end_unix_nano > horizon_unix_nano;
        self.end_before_start += u32::from(view.end_unix_nano < view.start_unix_nano);
        self.empty_name += u32::from(view.name.is_empty());
        self.far_future += u32::from(far);
    }
}

/// Checks `bytes` as [`scan`](super::scan) does, and shows those spans to `visit` that may be kept. Times beyond
/// `horizon_unix_nano` are odd.
///
/// # Errors
///
/// As those of `scan`, but not for the ids of a span: that span is not shown, and counted.
#[inline]
pub fn inspect<'a>(
    bytes: &'a [u8],
    horizon_unix_nano: u64,
    mut visit: impl FnMut(&SpanView<'a>),
) -> Result<Inspection, ScanError> {
    let mut found = Inspection::default();
    walk(bytes, |view, place| {
        match judged(view, place.field)? {
            Ok(view) => {
                found.kept = found.kept.saturating_add(1);
                let latest = view.start_unix_nano.max(view.end_unix_nano);
                let is_odd = view.end_unix_nano < view.start_unix_nano
                    || view.name.is_empty()
                    || latest > horizon_unix_nano;
                if is_odd {
                    found.odd.note(view, horizon_unix_nano);
                }
                visit(view);
            }
            Err(why) => {
                let index = found.kept.saturating_add(found.rejected.total());
                found.rejected.note(why, index);
            }
        }
        Ok(())
    })?;
    Ok(found)
}

/// Appends to `out` a request with the spans that [`inspect`] counts as kept, and returns how many; what stands around
/// them is written as by [`select`](super::select).
///
/// # Errors
///
/// As [`inspect`]; nothing was appended then.
pub fn keep_valid(bytes: &[u8], out: &mut Vec<u8>) -> Result<u32, ScanError> {
    select_by(bytes, |_, view, field| Ok(judged(view, field)?.is_ok()), out)
}

/// Why a span may not be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Id,
    Name,
    Attributes,
}

/// A span, or why it may not be kept; an error where its request is at fault.
#[inline(always)]
fn judged<'v, 'a>(
    view: Result<&'v SpanView<'a>, Fault>,
    field: &[u8],
) -> Result<Result<&'v SpanView<'a>, Why>, Fault> {
    match view {
        Ok(view) if view.trace_id.is_valid() && view.span_id.is_valid() => match field.len() > SURELY_SMALL {
            true => Ok(size(view, field)?.map_or(Ok(view), Err)),
            false => Ok(Ok(view)),
        },
        Ok(_zeros) => Ok(Err(Why::Id)),
        Err(fault) if fault.is_of_one_span() => Ok(Err(Why::Id)),
        Err(fault) => Err(fault),
    }
}

/// What is too large about a span, if anything is.
#[inline(never)]
fn size(view: &SpanView<'_>, field: &[u8]) -> Result<Option<Why>, Fault> {
    if view.name.len() > NAME_BYTES_MAX {
        return Ok(Some(Why::Name));
    }
    let mut whole = Reader::new(field);
    whole.key()?;
    let mut reader = Reader::new(whole.bytes()?);
    let mut attributes = 0;
    while !reader.is_empty() {
        let key = reader.key()?;
        attributes += usize::from(key == span::ATTRIBUTES);
        reader.skip(key, NESTING_MAX)?;
    }
    Ok((attributes > ATTRIBUTES_MAX).then_some(Why::Attributes))
}

#[cfg(test)]
mod tests;
