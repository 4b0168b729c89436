//! Supervision of actix actors (level 1; knows no telemetry type).

#[cfg(panic = "abort")]
compile_error!("supervision catches panics: build with panic = \"unwind\"");

mod actor_ref;
mod child;
mod dynamic;
mod errors;
mod failure;
mod feeder;
mod inbox;
mod link;
mod monitor;
mod node;
mod record;
mod settings;
mod supervisor;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use actor_ref::{ActorRef, Recipient};
pub use child::{Declared, StartError};
pub use dynamic::{AdmissionError, ChildHandle, DynamicRef, StopSignal};
pub use errors::{AskError, Closed, TrySendError};
pub use failure::{Failure, FailureCause, fail};
pub use inbox::InboxCounts;
pub use link::Linked;
pub use record::{ChildKind, ChildRecord, ChildState, DynamicCounts};
pub use settings::{Backoff, ChildSpec, DynamicSpec, Intensity, PanicRate, Restart, SettingsError, Strategy};
pub use supervisor::{RunningTree, ShutdownReport, Supervisor, TreeError, TreeMonitor};
