//! The SpanCollector: commits what the stream connections completed to the span log.
//!
//! Batches that arrive while a commit is under way form the next group. The log answers their
//! senders itself, after the commit; the collector then wakes the exporters and hands what the
//! group adds to the RED metrics on. A message to a neighbour that cannot be delivered is no
//! loss: an exporter and the metrics know from the log's end what they have missed.

mod messages;
mod traced;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
};

use actix::{Actor, ActorContext, ActorFuture, AsyncContext, Context, Handler, Running};
use bytes::Bytes;

use crate::{
    export::Followers,
    log::{GroupOutcome, LogFuture, SpanLog},
    measure::{RedDelta, SpansMeasured},
    retain::Retainer,
    self_tracing::{Recording, Tracer},
    supervise::Recipient,
};

pub use messages::SpansCompleted;

/// Batches in one group at most: a bound on what one commit holds up.
const GROUP_MAX: usize = 256;

/// Gathers completed spans and commits them in groups.
///
/// What it holds when it fails was never acknowledged: the senders learn that it is lost.
#[derive(Debug)]
pub struct SpanCollector {
    log: Arc<dyn SpanLog>,
    followers: Followers,
    metrics: Option<Recipient<SpansMeasured>>,
    retainer: Option<Retainer>,
    tracer: Tracer,
    waiting: Vec<SpansCompleted>,
    committing: bool,
    stopping: bool,
}

impl SpanCollector {
    /// A collector that commits to `log` and tells `followers` and `metrics`.
    pub fn new(
        log: Arc<dyn SpanLog>,
        followers: Followers,
        metrics: Option<Recipient<SpansMeasured>>,
    ) -> Self {
        Self {
            log,
            followers,
            metrics,
            retainer: None,
            tracer: Tracer::default(),
            waiting: Vec::new(),
            committing: false,
            stopping: false,
        }
    }

    /// The same, which hands what it committed to a retention buffer too.
    #[must_use]
    pub fn retaining(mut self, retainer: Option<Retainer>) -> Self {
        self.retainer = retainer;
        self
    }

    /// The same, which records its commits.
    #[must_use]
    pub fn traced(mut self, tracer: Tracer) -> Self {
        self.tracer = tracer;
        self
    }

    fn begin_commit(&mut self) -> Option<GroupCommit> {
        let take = self.waiting.len().min(GROUP_MAX);
        if take == 0 {
            return None;
        }
        let retained = match self.retainer {
            Some(_) => self.waiting.iter().take(take).map(|batch| batch.append.bytes.clone()).collect(),
            None => Vec::new(),
        };
        let recording = traced::begin(&self.tracer, self.waiting.iter().take(take));
        let (group, deltas) = self.waiting.drain(..take).map(|batch| (batch.append, batch.red)).unzip();
        Some(GroupCommit { outcome: self.log.commit(group), deltas, retained, recording })
    }

    fn committed(&self, outcome: &GroupOutcome, deltas: Vec<RedDelta>, retained: Vec<Bytes>) {
        if let Some(retainer) = &self.retainer {
            let batches = outcome.firsts.iter().zip(retained).zip(&deltas);
            retainer.retain(batches.filter_map(|((first, bytes), delta)| first.map(|_| (bytes, delta))));
        }
        let mut accepted =
            outcome.firsts.iter().zip(deltas).filter_map(|(first, delta)| Some(((*first)?, delta)));
        let Some((first, delta)) = accepted.next() else { return };
        self.followers.wake(outcome.end);
        if let Some(metrics) = &self.metrics {
            let deltas = std::iter::once(delta).chain(accepted.map(|(_, delta)| delta)).collect();
            // What is not delivered shows as a gap, and is read from the log.
            let GroupOutcome { end, committed_unix, .. } = *outcome;
            let _gap = metrics.try_send(SpansMeasured { first, end, committed_unix, deltas });
        }
    }
}

impl Actor for SpanCollector {
    type Context = Context<Self>;

    /// The one before may have died between a commit and its wakes.
    fn started(&mut self, _: &mut Context<Self>) {
        self.followers.wake(self.log.end());
    }

    /// A batch that reached the collector is committed: what is in hand goes to the log first.
    fn stopping(&mut self, _: &mut Context<Self>) -> Running {
        self.stopping = true;
        if self.committing { Running::Continue } else { Running::Stop }
    }
}

impl Handler<SpansCompleted> for SpanCollector {
    type Result = ();

    fn handle(&mut self, batch: SpansCompleted, ctx: &mut Context<Self>) {
        self.waiting.push(batch);
        if !std::mem::replace(&mut self.committing, true) {
            ctx.spawn(CommitLoop { group: None });
        }
    }
}

/// Commits group after group until nothing waits.
struct CommitLoop {
    group: Option<GroupCommit>,
}

struct GroupCommit {
    outcome: LogFuture<GroupOutcome>,
    deltas: Vec<RedDelta>,
    /// The batches again, for the retention buffer.
    retained: Vec<Bytes>,
    recording: Recording,
}

impl ActorFuture<SpanCollector> for CommitLoop {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        collector: &mut SpanCollector,
        ctx: &mut Context<SpanCollector>,
        task: &mut TaskContext<'_>,
    ) -> Poll<()> {
        loop {
            if self.group.is_none() {
                self.group = collector.begin_commit();
            }
            let Some(group) = &mut self.group else {
                collector.committing = false;
                if collector.stopping {
                    ctx.stop();
                }
                return Poll::Ready(());
            };
            let outcome = ready!(group.outcome.as_mut().poll(task));
            let deltas = std::mem::take(&mut group.deltas);
            let retained = std::mem::take(&mut group.retained);
            traced::end(std::mem::take(&mut group.recording), &outcome);
            self.group = None;
            collector.committed(&outcome, deltas, retained);
        }
    }
}

#[cfg(test)]
mod tests;
