//! Supervision of actix actors with the semantics of OTP (level 1; knows no telemetry type).
//!
//! An actor is a plain [`actix::Actor`] with plain [`actix::Handler`]s. What is added:
//!
//! - A **durable inbox** outside the actor, bounded, with a depth. Others hold an [`ActorRef`] or a
//!   [`Recipient`], which stay valid while the actor crashes and is restarted; a refused message comes
//!   back to its sender.
//! - Each **incarnation** is made by a factory on its arbiter's thread and watched: a panic in a hook, a
//!   handler, a future or a drop ends that incarnation, costs at most the message in hand, and is kept
//!   in the child's [`ChildRecord`] with its text, its place and the message's type.
//! - A [`Supervisor`] starts its children in order, each when the one before it is ready; restarts them
//!   after a jittered, growing [`Backoff`]; escalates where the [`Intensity`] is exceeded; and stops them
//!   in reverse order, each inbox drained, everything bounded.
//! - A child that has messages and handles none is [noticed](ChildSpec::progress_deadline) and replaced.
//! - Work that blocks is a [plain thread](Supervisor::thread) with an inbox of the same kind.
//! - [Dynamic children](DynamicRef) come by the thousand; a panic ends one of them.
//!
//! `docs/supervision.md` is the guide to all of it.
//!
//! ```
//! use std::time::Duration;
//! use actix::{Actor, Context, Handler, Message};
//! use nyx_telemetry::supervise::{ChildSpec, Intensity, Strategy, Supervisor};
//!
//! /// Counts what it is told; whoever asks for more than it has makes it crash.
//! #[derive(Default)]
//! struct Till(u32);
//! struct Pay(u32);
//! struct Take(u32);
//!
//! impl Message for Pay { type Result = u32; }
//! impl Message for Take { type Result = u32; }
//! impl Actor for Till { type Context = Context<Self>; }
//! impl Handler<Pay> for Till {
//!     type Result = u32;
//!     fn handle(&mut self, Pay(coins): Pay, _: &mut Context<Self>) -> u32 { self.0 += coins; self.0 }
//! }
//! impl Handler<Take> for Till {
//!     type Result = u32;
//!     fn handle(&mut self, Take(coins): Take, _: &mut Context<Self>) -> u32 {
//!         self.0 = self.0.checked_sub(coins).expect("not that much in the till");
//!         self.0
//!     }
//! }
//!
//! actix_rt::System::new().block_on(async {
//!     let mut tree = Supervisor::new("shop", Strategy::OneForOne, Intensity::default());
//!     let till = tree.child(ChildSpec::new("till"), || Ok(Till::default()));
//!     let running = tree.start().await.unwrap();
//!     let limit = Duration::from_secs(5);
//!     assert_eq!(till.ask(Pay(3), limit).await.unwrap(), 3);
//!     assert!(till.ask(Take(5), limit).await.is_err());       // lost with its handler …
//!     assert_eq!(till.ask(Pay(1), limit).await.unwrap(), 1);  // … and the next incarnation goes on
//!     let record = running.records().remove(0);
//!     assert_eq!((record.panics, record.inbox.handled, record.inbox.lost), (1, 2, 1));
//!     assert_eq!(record.last_failure.unwrap().message, "not that much in the till");
//!     assert!(running.shutdown(limit).await.is_clean());
//! });
//! ```
//!
//! # What is promised
//!
//! - accepted = handled + lost + abandoned + depth + in hand, at every moment, for every inbox. A message is
//!   lost when its handler dies with it, abandoned when a child is stopped for good before it was handled.
//! - Messages of one sender are handled in the order in which they were accepted, each at most once.
//! - Only the present incarnation takes from the inbox. One that was given up on (its thread blocked) is
//!   fenced: when it comes back, it finds nothing to take, and is dropped without a hook.
//! - A child that is over (a [`Restart::Temporary`] one that ended, a [`Restart::Transient`] one that stopped by
//!   itself) stays over, even where its supervisor is restarted: its senders were told.
//! - At a shutdown, a child that crashed with messages waiting gets one more incarnation to drain them.
//! - A child may come or go while the tree runs. One that came is like the others, in its strategy and in what its failures
//!   count for; one that goes is stopped as at a shutdown, and nobody waits for it.
//!
//! # What an actor has to keep to
//!
//! - State that outlives its actor sits behind a lock that does not poison, and nothing that can panic runs
//!   under that lock: a panic there would leave it half changed.
//! - Futures go into the actor's own context, or are [`Linked`] to it. A future spawned elsewhere is out of
//!   supervision's sight.
//! - The whole of `started` and of what it waits for is the start: the child is ready afterwards.
//!
//! # How it works
//!
//! The feeder, a future in the incarnation's own context, takes from the inbox and calls the
//! handlers. The context itself is polled by a monitor, under `catch_unwind`; after a panic it is
//! terminated before it is dropped, so that no hook runs on a torn actor. Monitors report to the
//! loop of their supervisor, whose state lies in `node.rs`. The queue in `queue.rs` is what an actor's
//! inbox and a thread's have in common.

#[cfg(panic = "abort")]
compile_error!("supervision catches panics: build with panic = \"unwind\"");

mod actor_child;
mod actor_ref;
mod changes;
mod child;
mod driver;
mod dynamic;
mod errors;
mod failure;
mod feeder;
mod inbox;
mod link;
mod monitor;
mod nested;
mod node;
mod progress;
mod queue;
mod record;
mod running;
mod settings;
mod slot;
mod supervisor;
mod thread_child;
mod watchdog;

/// The examples of the guide are compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/supervision.md")]
mod guide {}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use actor_child::Declared;
pub use actor_ref::{ActorRef, Recipient};
pub use changes::ChildError;
pub use child::StartError;
pub use dynamic::{AdmissionError, ChildHandle, DynamicRef, StopSignal};
pub use errors::{AskError, Closed, TrySendError};
pub use failure::{Failure, FailureCause, fail};
pub use link::Linked;
pub use queue::InboxCounts;
pub use record::{ChildKind, ChildRecord, ChildState, DynamicCounts};
pub use running::{RunningTree, ShutdownReport, TreeMonitor};
pub use settings::{
    Backoff, ChildSpec, DynamicSpec, Intensity, PanicRate, Restart, Restarted, SettingsError, Strategy,
};
pub use supervisor::{Supervisor, TreeError};
pub use thread_child::ThreadContext;
pub use watchdog::Watchdog;
