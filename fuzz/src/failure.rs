//! What is wrong with an input.

use std::fmt;

/// Why an input is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It panicked: the message and its place.
    Panic(String),
    /// Something that the target checks does not hold.
    Broken(String),
    /// It took so many milliseconds of CPU.
    Slow(u64),
    /// It took so many bytes of address space.
    Large(u64),
}

impl Failure {
    /// In a file's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Panic(_) => "panic",
            Self::Broken(_) => "broken",
            Self::Slow(_) => "slow",
            Self::Large(_) => "large",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panic(text) => write!(f, "panicked: {text}"),
            Self::Broken(text) => write!(f, "does not hold: {text}"),
            Self::Slow(millis) => write!(f, "took {millis} ms of CPU"),
            Self::Large(bytes) => write!(f, "took {bytes} bytes of address space"),
        }
    }
}
