//! Supervision of actix actors (level 1; knows no telemetry type).

mod actor_ref;
mod errors;
#[allow(dead_code, reason = "its taking end comes with the supervisor")]
mod inbox;

pub use actor_ref::{ActorRef, Recipient};
pub use errors::{AskError, Closed, TrySendError};
pub use inbox::InboxCounts;
