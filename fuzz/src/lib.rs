//! Fuzz targets for whatever nyx reads, and a runner that needs nothing but stable Rust; `README.md` says how to use it.

pub mod failure;
pub mod mutate;
pub mod rng;
pub mod run;
pub mod seal;
pub mod targets;
pub mod trace;

pub use rng::Rng;
pub use targets::Target;
pub use trace::Trace;

/// Ends a target with a text where something does not hold.
macro_rules! ensure {
    ($holds:expr, $($text:tt)+) => {
        if !$holds {
            return Err(format!($($text)+));
        }
    };
}
pub(crate) use ensure;
