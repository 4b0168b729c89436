//! The daemon itself. Placeholder: the command line and the configuration stand, the actor system is
//! not wired to them yet.

use crate::{
    config::Config,
    exit::{Failure, UNAVAILABLE},
};

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// Always, for now.
pub fn run(_config: Config) -> Result<(), Failure> {
    Err(Failure::new(UNAVAILABLE, "run: not part of this version yet"))
}
