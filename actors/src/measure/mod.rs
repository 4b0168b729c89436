//! RED metrics: rate, errors and duration of the spans that the log holds.

mod red;

pub use red::RedDelta;
