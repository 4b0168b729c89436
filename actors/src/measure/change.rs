//! Other settings while the counters run.
//!
//! ```text
//! asked ─► nothing is read or stored ─► counters regrouped, stored as a checkpoint ─► they take the old ones' place
//!          and none is counted from here on ─────────────────────────────────────────► counting goes on from the log
//! ```
//!
//! The checkpoint comes first: what is shown from then on is what the next process begins with, were this one to end at once.
//! Where it cannot be stored everything stays as it is.

use actix::{ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, WrapFuture as _};
use thiserror::Error;
use tokio::sync::oneshot;

use super::{MetricsActor, RedSettings};

/// Keep the counters with other settings. The histogram's bounds and the choice of exemplars stay as they are.
#[derive(Debug)]
pub struct Remeasure {
    /// The settings.
    pub settings: Box<RedSettings>,
    /// Told how it went. Dropped before, nothing changes.
    pub done: oneshot::Sender<Result<(), RemeasureError>>,
}

impl Message for Remeasure {
    type Result = ();
}

/// The counters are kept with the settings that they had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RemeasureError {
    /// What an earlier process counted is being counted again, with the settings that it had.
    #[error("span metrics are being restored: try again when /health does not say so any more")]
    Restoring,
    /// The counters under the new settings could not be stored.
    #[error("their checkpoint cannot be stored: {0}")]
    Store(String),
    /// Another change is under way.
    #[error("another change of the span metrics is under way")]
    Busy,
    /// The actor failed, or took too long.
    #[error("the span metrics' actor did not come to it")]
    Lost,
}

/// How far a change is.
#[derive(Debug)]
pub(super) enum Change {
    /// It waits until nothing is read or stored.
    Waiting(Remeasure),
    /// Its checkpoint is on its way.
    Storing,
}

impl MetricsActor {
    /// Whether nothing is to be counted at present.
    pub(super) fn is_changing(&self) -> bool {
        matches!(self.change, Some(Change::Storing))
    }

    /// Begins the change that waits, if nothing is under way.
    pub(super) fn change(&mut self, ctx: &mut Context<Self>) {
        if self.reading || self.storing {
            return;
        }
        let Remeasure { settings, done } = match self.change.take() {
            Some(Change::Waiting(change)) => change,
            other => {
                self.change = other;
                return;
            }
        };
        let prepared = match self.red.prepare(*settings) {
            Ok(Some(prepared)) => prepared,
            // Whoever asked may be gone.
            Ok(None) => return drop(done.send(Ok(()))),
            Err(error) => return drop(done.send(Err(error))),
        };
        let Some((position, bytes)) = prepared.stored() else {
            self.red.adopt(prepared);
            return drop(done.send(Ok(())));
        };
        (self.change, self.storing) = (Some(Change::Storing), true);
        let stored = self.log.checkpoint(position, bytes);
        ctx.spawn(stored.into_actor(self).map(move |stored, actor, ctx| {
            (actor.change, actor.storing) = (None, false);
            let outcome = match stored {
                Ok(()) if done.is_closed() => Err(RemeasureError::Lost),
                Ok(()) => {
                    actor.red.adopt(prepared);
                    actor.red.checkpointed(position, &Ok(()));
                    Ok(())
                }
                Err(why) => Err(RemeasureError::Store(why)),
            };
            let _gone = done.send(outcome);
            // What came meanwhile.
            actor.catch_up(actor.log.end(), ctx);
            actor.wind_up(ctx);
        }));
    }
}

impl Handler<Remeasure> for MetricsActor {
    type Result = ();

    fn handle(&mut self, change: Remeasure, ctx: &mut Self::Context) {
        if self.change.is_some() {
            return drop(change.done.send(Err(RemeasureError::Busy)));
        }
        self.change = Some(Change::Waiting(change));
        self.change(ctx);
    }
}
