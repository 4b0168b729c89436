//! How the process ends: exit statuses after `sysexits.h`, and the error that carries one.

use std::process::ExitCode;

use thiserror::Error;

/// The command line is wrong (`EX_USAGE`).
pub const USAGE: u8 = 64;
/// Something that the daemon needs is not available, such as a port (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;
/// The supervisor tree gave up (`EX_SOFTWARE`).
pub const SOFTWARE: u8 = 70;
/// Something that the daemon needs is in use, and may be free later (`EX_TEMPFAIL`).
pub const TEMPFAIL: u8 = 75;
/// The configuration is wrong (`EX_CONFIG`).
pub const CONFIG: u8 = 78;

/// Why the process ends with something other than success.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct Failure {
    /// The exit status.
    pub status: u8,
    /// What a person reads on standard error.
    pub message: String,
}

impl Failure {
    /// A failure with one of the statuses of this module.
    pub fn new(status: u8, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl From<&Failure> for ExitCode {
    fn from(failure: &Failure) -> Self {
        Self::from(failure.status)
    }
}
