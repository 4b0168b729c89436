//! The demonstration. Placeholder: its command line stands, the rest does not yet.

use crate::{
    cli::DemoArgs,
    exit::{Failure, UNAVAILABLE},
};

/// Runs the demonstration until its time is over or it is told to stop.
///
/// # Errors
/// Always, for now.
pub fn demo(_args: &DemoArgs) -> Result<(), Failure> {
    Err(Failure::new(UNAVAILABLE, "demo: not part of this version yet"))
}
