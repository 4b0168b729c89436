//! The daemon's own traces: from the library's [`Tracer`] to a destination, through `opentelemetry-otlp`.
//!
//! ```text
//! whoever does something ──► Queue (2,048 spans) ──► the thread self-tracing ──► OTLP/gRPC
//! ```
//!
//! Off, there is no thread, and nobody records anything. On, spans wait in a bounded queue for a thread that exports them in
//! batches; what finds no room, and what its destination does not take, is counted and gone: nothing waits for it.

mod channel;
mod convert;
mod queue;
mod worker;

use std::{sync::Arc, time::Duration};

use nyx_telemetry::{
    export::DestinationConfig,
    self_tracing::{Recorder as _, RecorderCounts, Recording, Tracer},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use self::queue::Queue;
use crate::{
    config::Config,
    exit::{CONFIG, Failure, UNAVAILABLE},
};

/// Spans that wait at most.
const QUEUE_SPANS: usize = 2_048;
/// What the last spans may take at the stop.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// The daemon's own traces.
pub struct SelfTracing {
    tracer: Tracer,
    worker: Option<Worker>,
}

struct Worker {
    queue: Arc<Queue>,
    stop: oneshot::Sender<()>,
    stopped: oneshot::Receiver<()>,
}

impl SelfTracing {
    /// Starts the thread, if `[self_tracing]` asks for it.
    ///
    /// # Errors
    /// [`CONFIG`] where the destination's settings are not valid, [`UNAVAILABLE`] where there is no thread to be had.
    pub fn start(config: &Config) -> Result<Self, Failure> {
        match &config.self_tracing {
            None => Ok(Self { tracer: Tracer::default(), worker: None }),
            Some(destination) => Self::to(destination, convert::resource(&config.telemetry)),
        }
    }

    fn to(destination: &DestinationConfig, resource: opentelemetry_sdk::Resource) -> Result<Self, Failure> {
        let dialer =
            destination.dialer().map_err(|error| Failure::new(CONFIG, format!("self_tracing: {error}")))?;
        let (sender, spans) = mpsc::channel(QUEUE_SPANS);
        let queue = Arc::new(Queue::new(sender));
        let (stop, stopping) = oneshot::channel();
        let (end, stopped) = oneshot::channel();
        let unavailable =
            |why: String| Failure::new(UNAVAILABLE, format!("the daemon's own traces cannot start: {why}"));
        let exporting =
            worker::Exporting { spans, stopping, counts: queue.counted(), delay: worker::DELAY, _end: end };
        worker::start(dialer, resource, exporting).map_err(unavailable)?;
        let tracer = Tracer::new(destination.sampling_rate, Arc::<Queue>::clone(&queue));
        Ok(Self { tracer, worker: Some(Worker { queue, stop, stopped }) })
    }

    /// For whoever does something that is worth a span.
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// What of the time for an ordered stop is kept for the last spans: a tenth, 1 s at most.
    pub fn share(&self, of: Duration) -> Duration {
        if self.worker.is_some() { FLUSH_MAX.min(of / 10) } else { Duration::ZERO }
    }

    /// Exports what waits, within this time.
    pub async fn finish(self, limit: Duration) {
        let Some(Worker { queue, stop, stopped }) = self.worker else { return };
        // A thread that is gone has nothing left to say.
        let _gone = stop.send(());
        let _late = timeout(limit, stopped).await;
        let RecorderCounts { recorded, exported, failed, dropped } = queue.counts();
        let pending = recorded.saturating_sub(exported + failed + dropped);
        if failed + dropped + pending > 0 {
            tracing::warn!(
                exported,
                failed,
                dropped,
                pending,
                "not all spans about this daemon were exported"
            );
        }
    }
}

/// Ends a span about something that can fail.
pub(crate) fn ended<T>(mut recording: Recording, outcome: &Result<T, Failure>) {
    if let Err(failure) = outcome {
        recording.set("nyx.exit.status", u16::from(failure.status));
        recording.fail("failed", || failure.message.clone());
    }
    recording.end();
}
