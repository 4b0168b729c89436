//! Why bytes are no valid trace request.

use thiserror::Error;

/// The bytes are no valid `ExportTraceServiceRequest`. Nothing of them is echoed but lengths and numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("invalid trace request at byte {offset}: {fault}")]
pub struct ScanError {
    /// Where in the scanned bytes.
    pub offset: usize,
    /// What is wrong there.
    pub fault: ScanFault,
}

/// What is wrong at a place of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ScanFault {
    /// A value runs past the end of its message.
    #[error("message is cut off: {needed} bytes needed, {left} left")]
    Truncated {
        /// Bytes that the value takes, at least.
        needed: u64,
        /// Bytes that its message still has.
        left: usize,
    },
    /// A varint of more than 64 bits.
    #[error("varint is longer than 64 bits")]
    Varint,
    /// A key with field number 0, a wire type above 5, or more than 32 bits.
    #[error("{key} is no field key: field 1 to 536870911, wire type 0 to 5")]
    Key {
        /// The key as read.
        key: u64,
    },
    /// A group ends that did not begin.
    #[error("group {field} ends without its beginning")]
    Group {
        /// The group's field number.
        field: u32,
    },
    /// A known field of another type than it has.
    #[error("field {field} of {message} does not have wire type {wire_type}")]
    WireType {
        /// The message.
        message: &'static str,
        /// The field's number.
        field: u32,
        /// The wire type that it came with.
        wire_type: u32,
    },
    /// A string that is not UTF-8.
    #[error("{field} is not utf-8")]
    Utf8 {
        /// Message and field.
        field: &'static str,
    },
    /// Messages or groups nest too deep.
    #[error("messages nest deeper than {limit} levels")]
    Nesting {
        /// [`NESTING_MAX`](super::NESTING_MAX).
        limit: u32,
    },
    /// An id of the wrong length; the offset is that of its span or link.
    #[error("{field} has {length} bytes, not {expected}")]
    IdLength {
        /// Message and field.
        field: &'static str,
        /// Bytes that it has.
        length: usize,
        /// Bytes that an id has.
        expected: usize,
    },
}

/// A [`ScanError`] on its way out of the scan: one word, so that the results of the hot path fit in
/// registers, and with an address for an offset, so that the hot path counts no offsets.
pub(super) struct Fault(Box<(usize, ScanFault)>);

impl Fault {
    /// A fault where `at` begins, which is a part of the scanned bytes.
    #[cold]
    #[inline(never)]
    pub(super) fn new(at: &[u8], fault: ScanFault) -> Self {
        Self(Box::new((at.as_ptr().addr(), fault)))
    }

    /// Whether it is the fault of a span that can be left out of its request.
    pub(super) fn is_of_one_span(&self) -> bool {
        matches!(self.0.1, ScanFault::IdLength { .. })
    }

    /// The error for the caller who handed in `scanned`.
    #[cold]
    pub(super) fn within(self, scanned: &[u8]) -> ScanError {
        let (address, fault) = *self.0;
        // An empty rest may be a slice that points nowhere in particular.
        let offset = address.wrapping_sub(scanned.as_ptr().addr()).min(scanned.len());
        ScanError { offset, fault }
    }
}
