//! Trace and span ids (W3C Trace Context, section 3.2.2; OTLP `trace.proto`).

use std::{
    cell::RefCell,
    fmt,
    hash::{BuildHasher, RandomState},
    str::FromStr,
};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use thiserror::Error;

thread_local! {
    /// Ids need to be unlike each other, not unguessable: a small generator, seeded by the system, a thread.
    static RNG: RefCell<SmallRng> = RefCell::new(seeded());
}

/// A text that is no id: wrong length, or a character that is no hexadecimal digit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{kind} id {text:?} is not {digits} hexadecimal digits")]
pub struct ParseIdError {
    kind: &'static str,
    text: String,
    digits: usize,
}

fn seeded() -> SmallRng {
    SmallRng::try_from_os_rng()
        // Where the system gives none, what the standard library seeds its hash maps with will do.
        .unwrap_or_else(|_| SmallRng::seed_from_u64(RandomState::new().hash_one("ids")))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $int:ty, $len:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The id with these bytes, big-endian as on the wire.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// A random id, never the invalid one of zeros.
            #[inline]
            pub fn random() -> Self {
                RNG.with_borrow_mut(|rng| {
                    loop {
                        let id = Self::from_int(rng.random());
                        if id.is_valid() {
                            return id;
                        }
                    }
                })
            }

            /// The id of a wire field, or `None` if its length is wrong.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The id as an integer's big-endian bytes.
            pub const fn from_int(value: $int) -> Self {
                Self(value.to_be_bytes())
            }

            /// The bytes as an integer, big-endian.
            pub const fn to_int(self) -> $int {
                <$int>::from_be_bytes(self.0)
            }

            /// The bytes as on the wire.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// False for the all-zero id, which the specification calls invalid.
            pub const fn is_valid(self) -> bool {
                self.to_int() != 0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:0width$x}", self.to_int(), width = $len * 2)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let digits = $len * 2;
                if text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    if let Ok(value) = <$int>::from_str_radix(text, 16) {
                        return Ok(Self::from_int(value));
                    }
                }
                let text = text.chars().take(64).collect();
                Err(ParseIdError { kind: $kind, text, digits })
            }
        }
    };
}

id!(
    /// A trace's id: 16 bytes, not all zero.
    TraceId, u128, 16, "trace"
);
id!(
    /// A span's id: 8 bytes, not all zero.
    SpanId, u64, 8, "span"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_prints_as_lowercase_hex_and_parses_in_any_case() {
        let id = TraceId::from_int(0x00ab_cdef);
        assert_eq!(id.to_string(), "00000000000000000000000000abcdef");
        assert_eq!("00000000000000000000000000ABCDEF".parse::<TraceId>(), Ok(id));
        assert_eq!("00f067aa0ba902b7".parse::<SpanId>().unwrap().to_int(), 0x00f0_67aa_0ba9_02b7);
    }

    #[test]
    fn a_text_that_is_no_id_is_refused_by_name() {
        let error = "+0f067aa0ba902b7".parse::<SpanId>().unwrap_err();
        assert_eq!(error.to_string(), "span id \"+0f067aa0ba902b7\" is not 16 hexadecimal digits");
        assert!("é".repeat(8).parse::<SpanId>().is_err());
        assert!("".parse::<TraceId>().is_err());
    }

    #[test]
    fn the_zero_id_is_invalid() {
        assert!(!TraceId::default().is_valid());
        assert!(SpanId::from_int(1).is_valid());
        assert_eq!(SpanId::from_slice(&[1; 7]), None);
    }

    #[test]
    fn random_ids_are_valid_and_differ_within_and_between_threads() {
        let mut ids: Vec<u64> = (0..1000).map(|_| SpanId::random().to_int()).collect();
        ids.extend((0..1000).map(|_| (TraceId::random().to_int() >> 64) as u64));
        let other = std::thread::spawn(|| (0..1000).map(|_| SpanId::random().to_int()).collect::<Vec<_>>());
        ids.extend(other.join().unwrap());
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 3000);
        assert!(!ids.contains(&0));
    }
}
