//! RED metrics: rate, errors and duration of the spans that the log holds.

mod bounds;
mod red;
mod state;

pub use bounds::{Bounds, BoundsError};
pub use red::{LABEL_BYTES_MAX, RedDelta, RedEntry, RedKey, RedScratch};
pub use state::{
    Merge, RedCounts, RedSeries, RedShared, RedSnapshot, RedState, SERIES_MAX_DEFAULT, Unmeasured,
};
