//! The `traceparent` header (W3C Trace Context, level 1, section 3.2: <https://www.w3.org/TR/trace-context-1/>).

use std::{fmt, str::FromStr};

use thiserror::Error;

use super::{SpanId, TraceId};

/// The flags of a trace context, of which level 1 knows one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TraceFlags(u8);

impl TraceFlags {
    /// The caller may have recorded the trace.
    pub const SAMPLED: Self = Self(0x01);

    /// The flags with these bits.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// All bits, those unknown to level 1 included.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether the caller may have recorded the trace.
    pub const fn is_sampled(self) -> bool {
        self.0 & Self::SAMPLED.0 != 0
    }
}

/// What a span tells its children in other processes: its ids and the trace's flags.
///
/// Its text form is the `traceparent` header of version 00, in which only the flag that level 1 knows is
/// set, as the specification demands of flags that one does not understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span, which is the parent of whoever reads the header.
    pub span_id: SpanId,
    /// The trace's flags.
    pub flags: TraceFlags,
}

impl SpanContext {
    /// The root of a new trace: random ids, sampled.
    pub fn random() -> Self {
        Self { trace_id: TraceId::random(), span_id: SpanId::random(), flags: TraceFlags::SAMPLED }
    }

    /// A child's context: the same trace and flags, a random span id.
    pub fn child(&self) -> Self {
        Self { span_id: SpanId::random(), ..*self }
    }
}

/// A text that is no `traceparent` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TraceparentError {
    /// Shorter than any version allows, or longer than version 00.
    #[error("traceparent has {length} bytes, not 55")]
    Length {
        /// Bytes in the text.
        length: usize,
    },
    /// Something else than a dash between two fields.
    #[error("traceparent has no dash at byte {offset}")]
    Dash {
        /// Where one belongs.
        offset: usize,
    },
    /// A character that is no lowercase hexadecimal digit.
    #[error("traceparent has no lowercase hexadecimal digit at byte {offset}")]
    Digit {
        /// Where one belongs.
        offset: usize,
    },
    /// Version ff, which is never valid.
    #[error("traceparent has version ff")]
    Version,
    /// A trace id of zeros.
    #[error("traceparent has a trace id of zeros")]
    ZeroTraceId,
    /// A parent id of zeros.
    #[error("traceparent has a parent id of zeros")]
    ZeroParentId,
}

/// Length of a header of version 00, and of what is read of later versions.
const LEN: usize = 55;

impl FromStr for SpanContext {
    type Err = TraceparentError;

    /// Reads version 00; of a later version what this one has: fields after it are ignored, and so are all
    /// flags but sampled.
    fn from_str(text: &str) -> Result<Self, TraceparentError> {
        let length = text.len();
        let Some((known, more)) = text.as_bytes().split_first_chunk::<LEN>() else {
            return Err(TraceparentError::Length { length });
        };
        let version = number(known, 0, 2)?;
        if version == 0xff {
            return Err(TraceparentError::Version);
        }
        if version == 0 && !more.is_empty() {
            return Err(TraceparentError::Length { length });
        }
        for offset in [2, 35, 52] {
            if known.get(offset) != Some(&b'-') {
                return Err(TraceparentError::Dash { offset });
            }
        }
        let trace_id = TraceId::from_int(number(known, 3, 32)?);
        let span_id = SpanId::from_int(number(known, 36, 16)? as u64);
        let flags = number(known, 53, 2)? as u8;
        if !matches!(more, [] | [b'-', ..]) {
            return Err(TraceparentError::Dash { offset: LEN });
        }
        if !trace_id.is_valid() {
            return Err(TraceparentError::ZeroTraceId);
        }
        if !span_id.is_valid() {
            return Err(TraceparentError::ZeroParentId);
        }
        let known_flags = if version == 0 { 0xff } else { TraceFlags::SAMPLED.0 };
        Ok(Self { trace_id, span_id, flags: TraceFlags(flags & known_flags) })
    }
}

/// The number of `digits` lowercase hexadecimal digits from `offset` on.
fn number(text: &[u8; LEN], offset: usize, digits: usize) -> Result<u128, TraceparentError> {
    let mut number = 0;
    for (at, digit) in text.iter().enumerate().skip(offset).take(digits) {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return Err(TraceparentError::Digit { offset: at }),
        };
        number = number << 4 | u128::from(value);
    }
    Ok(number)
}

impl fmt::Display for SpanContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id, self.span_id, self.flags.0 & TraceFlags::SAMPLED.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: &str = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";

    fn parse(text: &str) -> Result<SpanContext, TraceparentError> {
        text.parse()
    }

    #[test]
    fn a_header_is_read_and_written() {
        let context = parse(&format!("00-{IDS}-01")).unwrap();
        assert_eq!(context.trace_id.to_int(), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(context.span_id.to_int(), 0x00f0_67aa_0ba9_02b7);
        assert!(context.flags.is_sampled());
        assert_eq!(context.to_string(), format!("00-{IDS}-01"));
        assert!(!parse(&format!("00-{IDS}-00")).unwrap().flags.is_sampled());
    }

    #[test]
    fn flags_unknown_to_level_1_are_kept_but_not_passed_on() {
        let context = parse(&format!("00-{IDS}-ff")).unwrap();
        assert_eq!(context.flags.bits(), 0xff);
        assert_eq!(context.to_string(), format!("00-{IDS}-01"));
        assert_eq!(parse(&format!("00-{IDS}-fe")).unwrap().to_string(), format!("00-{IDS}-00"));
    }

    #[test]
    fn of_a_later_version_what_version_00_has_is_read() {
        let expected = parse(&format!("00-{IDS}-01")).unwrap();
        for later in [format!("01-{IDS}-01"), format!("cc-{IDS}-03-what-may-come"), format!("fe-{IDS}-ff-")] {
            assert_eq!(parse(&later), Ok(expected), "{later}");
        }
        assert_eq!(parse(&format!("cc-{IDS}-01.more")), Err(TraceparentError::Dash { offset: 55 }));
        assert_eq!(parse(&format!("ff-{IDS}-01")), Err(TraceparentError::Version));
    }

    #[test]
    fn what_is_no_header_is_refused_with_the_reason() {
        let error = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(error(""), "traceparent has 0 bytes, not 55");
        assert_eq!(error(&format!("00-{IDS}-0")), "traceparent has 54 bytes, not 55");
        assert_eq!(error(&format!("00-{IDS}-01-")), "traceparent has 56 bytes, not 55");
        assert_eq!(error(&format!("00_{IDS}-01")), "traceparent has no dash at byte 2");
        assert_eq!(error(&format!("00-{}-01", IDS.replace('-', "0"))), "traceparent has no dash at byte 35");
        assert_eq!(error(&format!("00-{IDS}001")), "traceparent has no dash at byte 52");
        let uppercase = IDS.replacen('b', "B", 1);
        assert_eq!(
            error(&format!("00-{uppercase}-01")),
            "traceparent has no lowercase hexadecimal digit at byte 4"
        );
        assert_eq!(
            error(&format!("0.-{IDS}-01")),
            "traceparent has no lowercase hexadecimal digit at byte 1"
        );
        assert_eq!(
            error(&format!("00-{IDS}-0x")),
            "traceparent has no lowercase hexadecimal digit at byte 54"
        );
        assert_eq!(error(&format!("ff-{IDS}-01")), "traceparent has version ff");
        let zeros = "0".repeat(32);
        assert_eq!(error(&format!("00-{zeros}-00f067aa0ba902b7-01")), "traceparent has a trace id of zeros");
        assert_eq!(
            error(&format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16))),
            "traceparent has a parent id of zeros"
        );
        assert!(parse(&"é".repeat(28)).is_err());
    }

    #[test]
    fn a_child_has_its_own_span_id_in_the_same_trace() {
        let root = SpanContext::random();
        let child = root.child();
        assert_eq!((child.trace_id, child.flags), (root.trace_id, root.flags));
        assert_ne!(child.span_id, root.span_id);
        assert_eq!(root.to_string().parse(), Ok(root));
    }
}
