//! RED metrics: rate, errors and duration of the spans that the log holds.
//!
//! Whoever scans a batch also aggregates it ([`RedScratch`]); when the log has the batch, the collector tells
//! the [`MetricsActor`] what it adds. The counters ([`RedShared`]) know the position in the log up to which
//! they count, so that every span counts once: what was told twice is skipped, what was never told is counted
//! from the log. They outlive the actor, and hold no byte of the log.
//!
//! Where the log outlives the process, so do the counters: a checkpoint of them is stored with their position now and
//! then, and what lies behind it is counted from the log when the next process begins.

mod bounds;
mod cap;
mod catch_up;
mod change;
mod checkpoint;
mod collector;
mod continuity;
mod current;
mod dimensions;
mod exemplar;
pub mod exposition;
mod key;
mod messages;
mod red;
mod regroup;
mod seed;
mod series;
mod settings;
mod shared;
mod sketch;
mod state;
mod stats;
mod table;

use std::{sync::Arc, time::Duration};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Running,
    WrapFuture as _,
};
use tokio::{runtime::Handle, time::Instant};

pub use bounds::{Bounds, BoundsError};
pub use change::{Remeasure, RemeasureError};
pub use collector::{collect, kind_label, status_label};
pub use continuity::Restoring;
pub use current::CurrentSettings;
pub use dimensions::{DIMENSIONS_MAX, Dimensions, DimensionsError};
pub use exemplar::{Exemplar, Exemplars};
pub use key::{OTHER, OwnedValues, RedKey, Values};
pub use messages::SpansMeasured;
pub use red::{LABEL_BYTES_MAX, RedDelta, RedEntry, RedScratch};
pub use series::{RedCounts, RedSeries, RedSnapshot, RedTotals, Unmeasured};
pub use settings::{Profile, RedSettings};
pub use shared::RedShared;
pub use state::{Merge, RedState};
pub use stats::{Offender, RedStats};

use crate::{
    log::{LogStats, Ordinal, SpanLog},
    self_tracing::Tracer,
};

/// How often the actor looks whether the log has run ahead of it. A lost message is noticed with the next
/// one; this is for the last one, which a full log that waits for the metrics would make the last for good.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often checkpoints are stored by default.
pub const CHECKPOINT_INTERVAL_DEFAULT: Duration = Duration::from_secs(5);

/// Checkpoints are stored no more often than this, whatever the interval.
const CHECKPOINT_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// An actor that is to stop counts what the log still has for this long at most.
const STOP_COUNT_MAX: Duration = Duration::from_secs(3);

/// An actor that is to stop has stopped after this long, whatever is missing.
pub const STOP_MAX: Duration = Duration::from_secs(4);

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
    /// How often a checkpoint is stored; `None` where the log does not outlive the process.
    checkpoint_interval: Option<Duration>,
    /// A checkpoint is on its way: one at a time.
    storing: bool,
    /// Other settings are on their way.
    change: Option<change::Change>,
    tracer: Tracer,
    stop: Option<Stop>,
}

/// How far an actor is that is to stop.
enum Stop {
    /// It counts what the log still has, until then at most.
    Counting { until: Instant },
    /// It has begun its last checkpoint.
    Storing,
}

impl MetricsActor {
    /// An actor that goes on where the counters stand, and stores a checkpoint of them once an interval (10 ms at
    /// least) if they have moved and the log outlives the process.
    pub fn new(log: Arc<dyn SpanLog>, red: Arc<RedShared>, checkpoint_interval: Duration) -> Self {
        let scratch = RedScratch::following(red.current().clone());
        let interval = checkpoint_interval.max(CHECKPOINT_INTERVAL_MIN);
        let checkpoint_interval = red.is_durable().then_some(interval);
        Self {
            log,
            red,
            scratch,
            target: 0,
            reading: false,
            seen: 0,
            checkpoint_interval,
            storing: false,
            change: None,
            tracer: Tracer::default(),
            stop: None,
        }
    }

    /// The same, which records its checkpoints.
    #[must_use]
    pub fn traced(mut self, tracer: Tracer) -> Self {
        self.tracer = tracer;
        self
    }

    /// Sees to it that every span before `end` is counted: from the log, unless a message comes first.
    fn catch_up(&mut self, end: Ordinal, ctx: &mut Context<Self>) {
        self.target = self.target.max(end);
        if !self.reading {
            self.step(ctx);
        }
    }

    fn step(&mut self, ctx: &mut Context<Self>) {
        self.reading = false;
        self.change(ctx);
        if self.is_changing() {
            return;
        }
        let from = self.red.position();
        self.reading = from < self.target;
        if !self.reading {
            self.wind_up(ctx);
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

    fn look(&mut self, ctx: &mut Context<Self>) {
        let seen = std::mem::replace(&mut self.seen, self.log.end());
        self.catch_up(seen, ctx);
        if self.checkpoint_interval.is_some() {
            // The log lets go of nothing that no checkpoint includes.
            let LogStats { bytes, max_bytes, .. } = self.log.stats();
            if bytes > max_bytes / 2 {
                self.checkpoint(ctx);
            }
        }
    }

    /// Stores a checkpoint, unless one is on its way or nothing was counted since the last.
    fn checkpoint(&mut self, ctx: &mut Context<Self>) {
        if self.storing {
            return;
        }
        let Some((position, bytes)) = self.red.checkpoint() else { return };
        self.storing = true;
        let mut recording = self.tracer.frequent("checkpoint");
        recording.set("nyx.checkpoint.bytes", bytes.len());
        recording.set("nyx.checkpoint.position_ordinal", position);
        let stored = self.log.checkpoint(position, bytes);
        ctx.spawn(stored.into_actor(self).map(move |stored, actor, ctx| {
            actor.storing = false;
            if let Err(reason) = &stored {
                recording.fail("not_stored", || reason.clone());
            }
            recording.end();
            if actor.red.checkpointed(position, &stored) {
                match stored {
                    Ok(()) => tracing::info!("span metrics are checkpointed again"),
                    Err(reason) => tracing::warn!(reason, "span metrics cannot be checkpointed"),
                }
            }
            actor.change(ctx);
            actor.wind_up(ctx);
        }));
    }

    /// The next step of an actor that is to stop: counts, stores the last checkpoint, stops.
    fn wind_up(&mut self, ctx: &mut Context<Self>) {
        match self.stop {
            Some(Stop::Counting { until }) if !self.reading || Instant::now() >= until => {
                if self.storing {
                    return;
                }
                self.stop = Some(Stop::Storing);
                self.checkpoint(ctx);
            }
            Some(Stop::Counting { .. } | Stop::Storing) | None => {}
        }
        if self.is_wound_up() {
            ctx.stop();
        }
    }

    fn is_wound_up(&self) -> bool {
        matches!(self.stop, Some(Stop::Storing)) && !self.storing
    }
}

impl Actor for MetricsActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.catch_up(self.log.end(), ctx);
        ctx.run_interval(LOOK_INTERVAL, Self::look);
        if let Some(interval) = self.checkpoint_interval {
            ctx.run_interval(interval, Self::checkpoint);
            // The next process goes on from here; the log says on which boot of the machine it was stored.
            self.checkpoint(ctx);
        }
    }

    /// Everything that the log has by now is counted and in a checkpoint first, if there is time.
    fn stopping(&mut self, ctx: &mut Self::Context) -> Running {
        // A context that is dropped with its runtime asks, too, and has no time.
        if self.stop.is_some() || Handle::try_current().is_err() {
            return Running::Stop;
        }
        self.stop = Some(Stop::Counting { until: Instant::now() + STOP_COUNT_MAX });
        ctx.run_later(STOP_COUNT_MAX, Self::wind_up);
        ctx.run_later(STOP_MAX, |_, ctx| ctx.stop());
        self.catch_up(self.log.end(), ctx);
        if self.is_wound_up() { Running::Stop } else { Running::Continue }
    }
}

impl Handler<SpansMeasured> for MetricsActor {
    type Result = ();

    fn handle(&mut self, message: SpansMeasured, ctx: &mut Self::Context) {
        let SpansMeasured { first, end, committed_unix, deltas } = message;
        let spans = deltas.iter().fold(0, |spans: u64, delta| spans.saturating_add(delta.spans()));
        // Deltas that do not add up would count what is not there; the log knows better.
        if first.saturating_add(spans) == end && !self.is_changing() {
            let mut at = first;
            for delta in &deltas {
                if self.red.merge(at, delta, committed_unix) == Merge::Gap {
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
