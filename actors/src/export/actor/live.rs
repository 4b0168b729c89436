//! What an exporter has while it runs, and the steps that it takes: it asks the machine, does what that wants, and tells it what came of it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, Sleep};

use super::{
    super::{
        Drain, Drained,
        batch::{Batch, Formed},
        machine::Machine,
        state::{Action, Doomed, PieceId},
        transport::{Sent, Tasks, Transport},
        verdict::{Failure, Verdict},
    },
    OtlpExportActor,
};
use crate::log::{AdvanceError, DeadLetter, DropReason, Ordinal, ReadError, ReadLimit, Record};

/// A stop waits so long at most for answers to what is in flight when it begins nothing more.
const LANDING_MAX: Duration = Duration::from_secs(1);

/// What the actor has while it runs.
pub(super) struct Live {
    pub(super) machine: Machine<Batch>,
    transport: Transport,
    tasks: Tasks,
    running: FuturesUnordered<EventFuture>,
    timer: Pin<Box<Sleep>>,
    /// It waits for its position to be persisted.
    settling: bool,
    pub(super) drain: Option<Drain>,
    /// Set once the actor is to stop.
    pub(super) stop: Option<Stop>,
    /// The newest words in the log, so that the same are not written again.
    said: Option<String>,
}

/// How an exporter ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stop {
    /// From here on nothing begins: what was cut off at the end would arrive twice.
    last_begin: Instant,
    /// From here on it waits for nothing.
    end: Instant,
}

impl Stop {
    pub(super) fn within(timeout: Duration, now: Instant) -> Self {
        let landing = (timeout / 4).min(LANDING_MAX);
        Self { last_begin: now + (timeout - landing), end: now + timeout }
    }
}

type EventFuture = Pin<Box<dyn Future<Output = Event> + Send>>;

/// A future came to its end.
enum Event {
    /// One of the connection's own.
    Background,
    /// The position was persisted.
    Settled,
    Connected(Result<(), Failure>),
    Read(Ordinal, ReadLimit, Result<Vec<Record>, ReadError>),
    Sent(PieceId, Sent),
}

/// The actor cannot go on: its view of the log is wrong. A fresh incarnation begins with the log's.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the log refused the position: {0}")]
    Position(#[from] AdvanceError),
    #[error("no request can be made: {0}")]
    Transport(#[from] http::Error),
    #[error("the log ends at {end} but has nothing at {from}")]
    Nothing { from: Ordinal, end: Ordinal },
}

impl OtlpExportActor {
    pub(super) fn go_live(&self) -> Result<Live, Broken> {
        let ledger = self.log.ledger(self.id)?;
        let tasks = Tasks::default();
        let transport = Transport::new(self.settings.transport.clone(), tasks.clone());
        let now = Instant::now();
        Ok(Live {
            machine: Machine::new(self.settings.machine.clone(), ledger.position, now, rand::random()),
            transport: transport?,
            tasks,
            running: FuturesUnordered::new(),
            timer: Box::pin(tokio::time::sleep_until(now)),
            settling: false,
            drain: None,
            stop: None,
            said: None,
        })
    }

    /// Polls everything; true if the actor has come to its end.
    pub(super) fn poll_live(&mut self, cx: &mut TaskContext<'_>) -> Result<bool, Broken> {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        let Some(mut live) = self.live.take() else { return Ok(true) };
        let outcome = self.run(&mut live, cx);
        if outcome.is_ok()
            && live.stop.is_none()
            && live.machine.in_flight() == 0
            && let Some(next) = self.next.take()
        {
            self.settings = next;
            let mut renewed = self.go_live()?;
            renewed.drain = live.drain.take();
            if renewed.drain.is_some() {
                renewed.machine.drain();
            }
            self.live = Some(renewed);
            return self.poll_live(cx);
        }
        let over = live.stop.is_some_and(|stop| self.is_over(&live, stop));
        self.live = Some(live);
        outcome.map(|()| over)
    }

    /// Works off what has happened and does what the machine wants, until neither has more.
    fn run(&self, live: &mut Live, cx: &mut TaskContext<'_>) -> Result<(), Broken> {
        loop {
            self.step(live, Instant::now())?;
            live.running.extend(live.tasks.take(cx.waker()).into_iter().map(|task| -> EventFuture {
                Box::pin(async move {
                    task.await;
                    Event::Background
                })
            }));
            match live.running.poll_next_unpin(cx) {
                Poll::Ready(Some(event)) => self.happened(live, event)?,
                Poll::Ready(None) | Poll::Pending => match live.timer.as_mut().poll(cx) {
                    Poll::Ready(()) => self.rearm(live, Instant::now()),
                    Poll::Pending => return Ok(()),
                },
            }
        }
    }

    fn happened(&self, live: &mut Live, event: Event) -> Result<(), Broken> {
        let now = Instant::now();
        match event {
            Event::Background => {}
            Event::Settled => live.settling = false,
            Event::Connected(result) => {
                if let Err(Failure { message }) = &result {
                    self.status.failed(message);
                }
                live.machine.connected(result.is_ok(), now);
            }
            Event::Read(from, limit, records) => self.read(live, from, limit, records, now)?,
            Event::Sent(id, Sent { outcome, bytes }) => {
                let verdict = Verdict::on(outcome);
                self.status.requested(&verdict, bytes);
                if let Verdict::Partial { rejected, message } = &verdict {
                    live.say(
                        self.status.name(),
                        &format!("partial success, {rejected} spans rejected"),
                        message,
                    );
                }
                let answered = live.machine.answered(id, verdict, now);
                if answered.retried {
                    self.status.retried();
                }
                if let Some(doomed) = answered.doomed {
                    self.bury(live, doomed);
                }
            }
        }
        Ok(())
    }

    fn read(
        &self,
        live: &mut Live,
        from: Ordinal,
        limit: ReadLimit,
        records: Result<Vec<Record>, ReadError>,
        now: Instant,
    ) -> Result<(), Broken> {
        let records = match records {
            Ok(records) => records,
            Err(error) => {
                live.say(self.status.name(), "the log cannot give spans back", &error.to_string());
                match error {
                    ReadError::Released { start, .. } => live.machine.gone(start, DropReason::Evicted),
                    ReadError::Damaged { to, .. } => live.machine.gone(to, DropReason::Damaged),
                }
                return Ok(());
            }
        };
        match Batch::form(&records, from, limit, self.settings.sampler) {
            Formed::Batch { batch, rest } => live.machine.formed(batch, rest, now),
            Formed::Damaged { to } => {
                live.say(self.status.name(), "spans do not scan", &format!("ordinals {from} to {to}"));
                live.machine.gone(to, DropReason::Damaged);
            }
            Formed::Nothing => return Err(Broken::Nothing { from, end: self.log.end() }),
        }
        Ok(())
    }

    /// Writes the dead letters of spans that are given up, before the position passes them.
    fn bury(&self, live: &mut Live, doomed: Doomed<Batch>) {
        let Doomed { load, reason, message } = doomed;
        live.say(self.status.name(), &format!("spans become dead letters ({})", reason.label()), &message);
        load.each(&mut |ordinal, bytes| {
            self.log.dead_letter(self.id, DeadLetter { ordinal, reason, message: message.clone(), bytes });
        });
    }

    fn step(&self, live: &mut Live, now: Instant) -> Result<(), Broken> {
        let end = self.log.end();
        live.machine.settled(self.log.settled(self.id));
        loop {
            if let Some(advance) = live.machine.settle() {
                self.log.advance(self.id, &advance)?;
            }
            // With other settings about to come, nothing begins any more under these.
            let renews = self.next.is_some() && live.stop.is_none();
            if renews || live.stop.is_some_and(|stop| stop.last_begin <= now) {
                break;
            }
            let Some(action) = live.machine.next_action(end, now) else { break };
            let running: EventFuture = match action {
                Action::Connect => {
                    let connect = live.transport.connect();
                    Box::pin(async move { Event::Connected(connect.await) })
                }
                Action::Form { from, spans, bytes } => {
                    let limit = ReadLimit { spans, bytes };
                    let read = self.log.read(from, limit);
                    Box::pin(async move { Event::Read(from, limit, read.await) })
                }
                Action::Send(id) => {
                    let frames = live.machine.load(id).map(Batch::frames).unwrap_or_default();
                    let send = live.transport.send(frames);
                    Box::pin(async move { Event::Sent(id, send.await) })
                }
            };
            live.running.push(running);
        }
        if live.machine.waits_to_settle() && !std::mem::replace(&mut live.settling, true) {
            let settles = self.log.settles(self.id);
            live.running.push(Box::pin(async move {
                settles.await;
                Event::Settled
            }));
        }
        self.show(live, end);
        if live.drain.as_ref().is_some_and(|drain| self.is_drained(live, drain.deadline))
            && let Some(drain) = live.drain.take()
        {
            // Who asked may have given up.
            let _gone = drain.done.send(Drained { left: self.log.end() - live.machine.position() });
        }
        self.rearm(live, now);
        Ok(())
    }

    /// True if everything is settled, or nothing more will be before the deadline.
    fn is_drained(&self, live: &Live, deadline: Instant) -> bool {
        let settled = live.machine.position() == self.log.end();
        settled || Instant::now() >= deadline || live.machine.rests_until(deadline)
    }

    /// True if a stop waits for nothing more.
    fn is_over(&self, live: &Live, Stop { last_begin, end }: Stop) -> bool {
        Instant::now() >= end || live.machine.in_flight() == 0 && self.is_drained(live, last_begin)
    }

    fn rearm(&self, live: &mut Live, now: Instant) {
        let drain = live.drain.as_ref().map(|drain| drain.deadline);
        let stop = live.stop.into_iter().flat_map(|Stop { last_begin, end }| [last_begin, end]);
        let ahead = stop.filter(|instant| *instant > now);
        let wake = live.machine.wake_at(now).into_iter().chain(drain).chain(ahead).min();
        match wake {
            Some(wake) if live.timer.deadline() != wake => live.timer.as_mut().reset(wake),
            // A timer that has fired is not to be polled again; one that has not does no harm.
            None if live.timer.is_elapsed() => live.timer.as_mut().reset(now + Duration::from_secs(3600)),
            Some(_) | None => {}
        }
    }

    /// Shows the state, and logs it once for each change between healthy and not, or from one trouble to another.
    fn show(&self, live: &mut Live, end: Ordinal) {
        let state = live.machine.state(end);
        let before = self.status.stands(state, live.machine.in_flight());
        if before == state || (before.is_healthy() && state.is_healthy()) {
            return;
        }
        let destination = self.status.name();
        let (state_label, queued) = (state.label(), end - live.machine.position());
        if state.is_healthy() {
            tracing::info!(destination, state = state_label, queued, "the destination takes spans again");
        } else {
            let reason = self.status.snapshot().reason;
            let reason = reason.as_deref().unwrap_or_default();
            tracing::warn!(
                destination,
                state = state_label,
                reason,
                queued,
                "the destination takes no spans"
            );
        }
    }
}

impl Live {
    /// Logs this, unless it was what was logged last.
    fn say(&mut self, destination: &str, what: &str, why: &str) {
        let text = format!("{what}: {why}");
        if self.said.as_ref() != Some(&text) {
            tracing::warn!(destination, reason = why, "{what}");
            self.said = Some(text);
        }
    }
}
