//! Stream connections: where spans come in.

mod admission;
mod door;

pub use admission::{Admission, OverLimit, Reservation};
pub use door::{Arrival, DoorCounts, DoorLedger, DoorReason, InCollector, Tally, Unanswered};
