//! The outgoing buffer that the connections of one io thread share, and the actor that empties it.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Running, WrapFuture};
use bytes::Bytes;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::{Notify, oneshot, watch};

use super::super::{DoorCounts, DoorReason};
use crate::{
    collect::SpansCompleted,
    log::{Append, CommitError, SpanLedger},
    measure::RedScratch,
    self_tracing::Origin,
    span::{Reporter, RequestBuffer, Value, scan},
    supervise::Recipient,
};

/// A batch is sealed when it holds this many bytes.
const SEAL_BYTES: usize = 64 * 1024;
/// Room for the span that makes a batch full.
const SEAL_ROOM: usize = 2 * 1024;
/// The instrumentation scope of in-process spans.
const SCOPE_NAME: &str = "nyx-telemetry";
/// A batch is sealed when its first span has waited this long.
const SEAL_AFTER: Duration = Duration::from_millis(5);
/// How long a batch rests before it is offered again, after the log or the collector refused it.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// Settings of an [`Outbox`].
#[derive(Debug, Clone)]
pub struct OutboxConfig {
    /// Bytes of finished spans that wait at most; beyond it a span is dropped and counted.
    pub max_bytes: usize,
    /// `service.name` of the spans' resource.
    pub service_name: String,
    /// Other attributes of the resource.
    pub resource: Vec<(String, String)>,
}

/// Not everything that had ended before the flush is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FlushError {
    /// The telemetry was shut down before these spans were committed.
    #[error("telemetry was shut down with {spans} spans not yet committed")]
    ShutDown {
        /// Spans that were still waiting.
        spans: u64,
    },
}

/// The outgoing buffer of one io thread. It outlives its actor.
pub struct Outbox {
    state: Mutex<State>,
    /// Wakes the actor: a batch is sealed, or the first span came while it slept.
    wake: Notify,
    /// How many spans are settled, committed or refused, in the order of their ends.
    settled: watch::Sender<u64>,
    max_bytes: usize,
}

struct State {
    buffer: RequestBuffer,
    /// Encoded span bytes in `buffer`.
    buffered_bytes: u64,
    sealed: VecDeque<Sealed>,
    counts: DoorCounts,
    /// Spans that entered the buffer since the start.
    entered: u64,
    /// The actor sleeps until it is woken.
    dormant: bool,
    /// Seal what is there without waiting.
    hurry: bool,
    closed: bool,
    abandoned: bool,
}

#[derive(Clone)]
struct Sealed {
    bytes: Bytes,
    spans: u32,
    span_bytes: u64,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl Outbox {
    /// An empty outbox.
    pub fn new(config: &OutboxConfig) -> Self {
        let service = [("service.name", Value::from(config.service_name.as_str()))];
        let others = config.resource.iter().map(|(key, value)| (key.as_str(), Value::from(value.as_str())));
        let resource: Vec<_> = service.into_iter().chain(others).collect();
        let reporter = Reporter {
            resource: &resource,
            scope_name: SCOPE_NAME,
            scope_version: env!("CARGO_PKG_VERSION"),
        };
        let state = State {
            buffer: RequestBuffer::new(&reporter, SEAL_BYTES + SEAL_ROOM),
            buffered_bytes: 0,
            sealed: VecDeque::new(),
            counts: DoorCounts::default(),
            entered: 0,
            dormant: true,
            hurry: false,
            closed: false,
            abandoned: false,
        };
        Self {
            state: Mutex::new(state),
            wake: Notify::new(),
            settled: watch::Sender::new(0),
            max_bytes: config.max_bytes,
        }
    }

    /// Takes a finished span, or counts it as refused; never waits.
    pub(super) fn push(&self, span: &[u8]) {
        let bytes = span.len() as u64;
        let mut state = self.state.lock();
        state.counts.receive(1, bytes);
        if state.closed {
            return state.counts.settle(1, bytes, Err(DoorReason::ShuttingDown));
        }
        // This span is among the pending already.
        if state.counts.pending.bytes > self.max_bytes as u64 {
            return state.counts.settle(1, bytes, Err(DoorReason::InProcessFull));
        }
        state.entered += 1;
        state.buffered_bytes += bytes;
        state.buffer.push(span);
        let full = state.buffer.len() >= SEAL_BYTES;
        if full {
            state.seal();
        }
        let wake = full || state.dormant;
        state.dormant = false;
        drop(state);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Takes a finished span if there is room, and says whether it did. What it does not take is not received: its
    /// maker keeps it.
    pub(super) fn offer(&self, span: &[u8]) -> bool {
        {
            let state = self.state.lock();
            let bytes = state.counts.pending.bytes.saturating_add(span.len() as u64);
            if state.closed || bytes > self.max_bytes as u64 {
                return false;
            }
        }
        self.push(span);
        true
    }

    /// Counts a span that never came to be.
    pub(super) fn refuse(&self, reason: DoorReason) {
        let mut state = self.state.lock();
        state.counts.receive(1, 0);
        state.counts.settle(1, 0, Err(reason));
    }

    /// The in-process door's account at this moment, in finished spans and their encoded bytes.
    pub fn counts(&self) -> DoorCounts {
        self.state.lock().counts.clone()
    }

    /// Waits until every span that ended before this call is committed.
    ///
    /// # Errors
    /// [`FlushError::ShutDown`] where the outbox was closed first.
    pub async fn flush(&self) -> Result<(), FlushError> {
        let target = {
            let mut state = self.state.lock();
            state.hurry = true;
            state.dormant = false;
            state.entered
        };
        self.wake.notify_one();
        let mut settled = self.settled.subscribe();
        loop {
            let done = *settled.borrow_and_update();
            if done >= target {
                return Ok(());
            }
            if self.state.lock().abandoned {
                return Err(FlushError::ShutDown { spans: target - done });
            }
            if settled.changed().await.is_err() {
                return Err(FlushError::ShutDown { spans: target - done });
            }
        }
    }

    /// Refuses every later span. What is held stays to be delivered.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.settled.send_modify(|_| ());
        self.wake.notify_one();
    }

    /// Nobody will empty the outbox any more: what it holds counts as refused, and flushes fail.
    pub(crate) fn abandon(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.abandoned = true;
        state.seal();
        let held: Vec<_> = state.sealed.drain(..).collect();
        for batch in &held {
            state.counts.settle(u64::from(batch.spans), batch.span_bytes, Err(DoorReason::ShuttingDown));
        }
        drop(state);
        self.settled.send_modify(|_| ());
    }

    /// The oldest batch, sealed; it stays here until it is settled. `None` once closed and empty.
    async fn next_batch(&self) -> Option<Sealed> {
        loop {
            let waiting = {
                let mut state = self.state.lock();
                if let Some(batch) = state.sealed.front() {
                    return Some(batch.clone());
                }
                if !state.buffer.is_empty() && (state.hurry || state.closed) {
                    state.hurry = false;
                    state.seal();
                    continue;
                }
                if state.closed {
                    return None;
                }
                state.hurry = false;
                state.dormant = state.buffer.is_empty();
                !state.dormant
            };
            if waiting {
                // A seal by size, a flush or the close cuts the wait short.
                if tokio::time::timeout(SEAL_AFTER, self.wake.notified()).await.is_err() {
                    self.state.lock().hurry = true;
                }
            } else {
                self.wake.notified().await;
            }
        }
    }

    /// The oldest batch has its verdict.
    fn settle(&self, verdict: Result<(), DoorReason>) {
        let mut state = self.state.lock();
        let Some(batch) = state.sealed.pop_front() else { return };
        let spans = u64::from(batch.spans);
        state.counts.settle(spans, batch.span_bytes, verdict);
        drop(state);
        self.settled.send_modify(|settled| *settled += spans);
    }
}

impl State {
    fn seal(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let (bytes, spans) = self.buffer.take();
        let span_bytes = std::mem::take(&mut self.buffered_bytes);
        self.sealed.push_back(Sealed { bytes, spans, span_bytes });
    }
}

/// Offers an outbox's batches to the collector, one after the other, each until it is committed.
pub struct OutboxActor {
    outbox: Arc<Outbox>,
    collector: Recipient<SpansCompleted>,
    spans: Arc<SpanLedger>,
    scratch: Option<RedScratch>,
    drained: bool,
}

impl fmt::Debug for OutboxActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboxActor").field("outbox", &self.outbox).finish_non_exhaustive()
    }
}

impl OutboxActor {
    /// An actor that empties `outbox`; `scratch` measures its spans.
    pub fn new(
        outbox: Arc<Outbox>,
        collector: Recipient<SpansCompleted>,
        spans: Arc<SpanLedger>,
        scratch: RedScratch,
    ) -> Self {
        Self { outbox, collector, spans, scratch: Some(scratch), drained: false }
    }

    /// The work of this actor; `None` the second time.
    pub(super) fn delivery(&mut self) -> Option<Delivery> {
        Some(Delivery {
            outbox: Arc::clone(&self.outbox),
            collector: self.collector.clone(),
            spans: Arc::clone(&self.spans),
            scratch: self.scratch.take()?,
        })
    }
}

impl Actor for OutboxActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let Some(delivery) = self.delivery() else { return };
        ctx.spawn(delivery.run().into_actor(self).map(|(), actor, ctx| {
            actor.drained = true;
            ctx.stop();
        }));
    }

    /// Stops only when everything held is in the log; the supervisor's deadline bounds the wait.
    fn stopping(&mut self, _: &mut Context<Self>) -> Running {
        if self.drained {
            return Running::Stop;
        }
        self.outbox.close();
        Running::Continue
    }
}

/// Offers batch after batch.
pub(super) struct Delivery {
    outbox: Arc<Outbox>,
    collector: Recipient<SpansCompleted>,
    spans: Arc<SpanLedger>,
    scratch: RedScratch,
}

impl Delivery {
    pub(super) async fn run(mut self) {
        while let Some(batch) = self.outbox.next_batch().await {
            match self.deliver(batch).await {
                Settled::Committed => self.outbox.settle(Ok(())),
                Settled::Refused(reason) => self.outbox.settle(Err(reason)),
                Settled::Again => tokio::time::sleep(RETRY_AFTER).await,
            }
        }
    }

    async fn deliver(&mut self, batch: Sealed) -> Settled {
        self.scratch.begin();
        let measured = scan(&batch.bytes, |span| self.scratch.observe(span));
        let red = self.scratch.take();
        if let Err(error) = measured {
            tracing::error!(%error, spans = batch.spans, "in-process batch does not scan");
            return Settled::Refused(DoorReason::Invalid);
        }
        let (reply, answer) = oneshot::channel();
        let append = Append { bytes: batch.bytes, pending: self.spans.scanned(batch.spans), reply };
        if self.collector.send(SpansCompleted { append, red, origin: Origin::Own }).await.is_err() {
            return Settled::Again;
        }
        match answer.await {
            Ok(Ok(_)) => Settled::Committed,
            Ok(Err(CommitError::TooLarge { .. })) => Settled::Refused(DoorReason::Invalid),
            Ok(Err(CommitError::Full { .. } | CommitError::NoSpace { .. } | CommitError::Disk { .. }))
            | Err(_) => Settled::Again,
        }
    }
}

enum Settled {
    Committed,
    Refused(DoorReason),
    /// Not now: the batch stays and is offered again.
    Again,
}
