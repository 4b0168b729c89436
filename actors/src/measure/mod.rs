//! RED metrics: rate, errors and duration of the spans that the log holds.
//!
//! Whoever scans a batch also aggregates it ([`RedScratch`]); when the log has the batch, the collector tells
//! the [`MetricsActor`] what it adds. The counters ([`RedShared`]) know the position in the log up to which
//! they count, so that every span counts once: what was told twice is skipped, what was never told is counted
//! from the log. They outlive the actor, and hold no byte of the log.

mod bounds;
mod catch_up;
mod collector;
pub mod exposition;
mod messages;
mod red;
mod state;

use std::{sync::Arc, time::Duration};

use actix::{Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, WrapFuture as _};

pub use bounds::{Bounds, BoundsError};
pub use collector::{collect, kind_label, status_label};
pub use messages::SpansMeasured;
pub use red::{LABEL_BYTES_MAX, RedDelta, RedEntry, RedKey, RedScratch};
pub use state::{
    Merge, RedCounts, RedSeries, RedShared, RedSnapshot, RedState, SERIES_MAX_DEFAULT, Unmeasured,
};

use crate::log::{Ordinal, SpanLog};

/// How often the actor looks whether the log has run ahead of it. A lost message is noticed with the next
/// one; this is for the last one, which a full log that waits for the metrics would make the last for good.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Counts the spans of the log, each once.
pub struct MetricsActor {
    log: Arc<dyn SpanLog>,
    red: Arc<RedShared>,
    scratch: RedScratch,
    /// Up to here it reads, if no message comes first.
    target: Ordinal,
    /// A step is on its way.
    reading: bool,
    /// The log's end when it last looked.
    seen: Ordinal,
}

impl MetricsActor {
    /// An actor that goes on where the counters stand.
    pub fn new(log: Arc<dyn SpanLog>, red: Arc<RedShared>) -> Self {
        let scratch = RedScratch::new(Arc::clone(red.bounds()));
        Self { log, red, scratch, target: 0, reading: false, seen: 0 }
    }

    /// Sees to it that every span before `end` is counted: from the log, unless a message comes first.
    fn catch_up(&mut self, end: Ordinal, ctx: &mut Context<Self>) {
        self.target = self.target.max(end);
        if !self.reading {
            self.step(ctx);
        }
    }

    fn step(&mut self, ctx: &mut Context<Self>) {
        let from = self.red.position();
        self.reading = from < self.target;
        if !self.reading {
            return;
        }
        let read = self.log.read(from, catch_up::STEP);
        let read = async move {
            tokio::task::yield_now().await;
            read.await
        };
        ctx.spawn(read.into_actor(self).map(move |read, actor, ctx| {
            catch_up::count(&actor.red, &mut actor.scratch, from, read, state::unix_now());
            let position = actor.red.position();
            actor.log.measured(position);
            if position == from {
                // The log has nothing there: no reason to ask again before something happens.
                actor.target = position;
            }
            actor.step(ctx);
        }));
    }
}

impl Actor for MetricsActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.catch_up(self.log.end(), ctx);
        ctx.run_interval(LOOK_INTERVAL, |actor, ctx| {
            let seen = std::mem::replace(&mut actor.seen, actor.log.end());
            actor.catch_up(seen, ctx);
        });
    }
}

impl Handler<SpansMeasured> for MetricsActor {
    type Result = ();

    fn handle(&mut self, message: SpansMeasured, ctx: &mut Self::Context) {
        let SpansMeasured { first, end, deltas } = message;
        let spans = deltas.iter().fold(0, |spans: u64, delta| spans.saturating_add(delta.spans()));
        // Deltas that do not add up would count what is not there; the log knows better.
        if first.saturating_add(spans) == end {
            let now = state::unix_now();
            let mut at = first;
            for delta in &deltas {
                if self.red.merge(at, delta, now) == Merge::Gap {
                    break;
                }
                at = at.saturating_add(delta.spans());
            }
            self.log.measured(self.red.position());
        }
        self.catch_up(end, ctx);
    }
}

#[cfg(test)]
mod tests;
