//! The actor itself: hooks, handlers, and the future that runs the machine's wishes.

mod live;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, Waker},
};

use actix::{Actor, ActorContext, ActorFuture, AsyncContext, Context, Handler, Running};
use tokio::time::Instant;

use self::live::{Broken, Live, Stop};
use super::{
    DestinationConfig, DestinationConfigError, DestinationStatus, Drain, DrainWithin, LogAdvanced,
    Reconfigure, config::Checked,
};
use crate::log::{DestinationId, SpanLog};

/// Delivers what the log holds to one destination.
///
/// It resumes from the destination's position in the log, so that a crash repeats what was in flight and what was
/// acknowledged behind it: at most `concurrency` × `max_batch_spans` spans, in the log's files as well as in
/// memory: it does not run further ahead of the position that was persisted last.
pub struct OtlpExportActor {
    settings: Checked,
    /// The settings that come next, when what is in flight is answered.
    next: Option<Checked>,
    log: Arc<dyn SpanLog>,
    id: DestinationId,
    status: Arc<DestinationStatus>,
    live: Option<Live>,
    /// Wakes the future that polls `live`.
    waker: Option<Waker>,
}

impl OtlpExportActor {
    /// An exporter to the log's destination `id`. Nothing happens before it is started.
    ///
    /// # Errors
    /// Where the settings are not valid.
    pub fn new(
        config: &DestinationConfig,
        log: Arc<dyn SpanLog>,
        id: DestinationId,
        status: Arc<DestinationStatus>,
    ) -> Result<Self, DestinationConfigError> {
        Ok(Self { settings: config.check()?, next: None, log, id, status, live: None, waker: None })
    }

    /// Ends this incarnation; the next begins with the log's position.
    fn give_up(&self, why: &Broken, ctx: &mut Context<Self>) {
        let destination = self.status.name();
        tracing::error!(destination, error = %why, "the exporter begins anew from the log's position");
        self.status.failed(&why.to_string());
        crate::supervise::fail(ctx, why);
    }

    /// The actor's own thread looks at everything again.
    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

/// Polls what the actor has running, inside the actor's context: a panic there is the actor's, and the actor's end
/// ends it.
struct Pump;

impl ActorFuture<OtlpExportActor> for Pump {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        actor: &mut OtlpExportActor,
        ctx: &mut Context<OtlpExportActor>,
        task: &mut TaskContext<'_>,
    ) -> Poll<()> {
        match actor.poll_live(task) {
            Ok(false) => Poll::Pending,
            Ok(true) => {
                ctx.stop();
                Poll::Ready(())
            }
            Err(broken) => {
                actor.give_up(&broken, ctx);
                Poll::Ready(())
            }
        }
    }
}

impl Actor for OtlpExportActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        match self.go_live() {
            Ok(live) => {
                self.live = Some(live);
                ctx.spawn(Pump);
            }
            Err(error) => self.give_up(&error, ctx),
        }
    }

    fn stopping(&mut self, _ctx: &mut Self::Context) -> Running {
        let timeout = self.settings.drain_timeout;
        let Some(live) = self.live.as_mut().filter(|live| live.stop.is_none()) else {
            return Running::Stop;
        };
        live.machine.drain();
        live.stop = Some(Stop::within(timeout, Instant::now()));
        self.wake();
        Running::Continue
    }
}

impl Drop for OtlpExportActor {
    fn drop(&mut self) {
        // What was in flight is not any more; the state stays as it was until the next incarnation knows better.
        let state = self.status.snapshot().state;
        self.status.stands(state, 0);
    }
}

impl Handler<LogAdvanced> for OtlpExportActor {
    type Result = ();

    fn handle(&mut self, _message: LogAdvanced, _ctx: &mut Self::Context) {
        self.wake();
    }
}

impl Handler<Reconfigure> for OtlpExportActor {
    type Result = Result<(), DestinationConfigError>;

    fn handle(&mut self, Reconfigure(config): Reconfigure, _ctx: &mut Self::Context) -> Self::Result {
        let next = config.check()?;
        // A stop may come before what is in flight is answered.
        self.settings.drain_timeout = next.drain_timeout;
        self.next = Some(next);
        self.wake();
        Ok(())
    }
}

impl Handler<DrainWithin> for OtlpExportActor {
    type Result = ();

    fn handle(&mut self, DrainWithin(timeout): DrainWithin, _ctx: &mut Self::Context) {
        self.settings.drain_timeout = timeout;
        if let Some(next) = &mut self.next {
            next.drain_timeout = timeout;
        }
    }
}

impl Handler<Drain> for OtlpExportActor {
    type Result = ();

    fn handle(&mut self, message: Drain, _ctx: &mut Self::Context) {
        if let Some(live) = &mut self.live {
            live.machine.drain();
            live.drain = Some(message);
        }
        self.wake();
    }
}

#[cfg(test)]
mod tests;
