//! The thread that exports spans about the daemon: a runtime of its own, so that it holds up nobody and is held up by nobody.

use std::{panic::AssertUnwindSafe, sync::Arc, thread, time::Duration};

use futures_util::FutureExt as _;
use nyx_telemetry::{export::Dialer, self_tracing::OwnSpan};
use opentelemetry_sdk::{Resource, trace::SpanExporter};
use tokio::{
    runtime::Builder,
    sync::{mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};

use super::{channel, convert::span_data, queue::Counted};

const THREAD: &str = "self-tracing";
/// Spans of one request at most; the SDK's batch processor has the same.
const BATCH_SPANS: usize = 512;
/// A request goes out, however small, when its oldest span has waited so long; as with the SDK's batch processor.
pub(super) const DELAY: Duration = Duration::from_secs(5);
/// What a request may take, with its retries.
pub(super) const EXPORT_MAX: Duration = Duration::from_secs(10);

/// What the thread works with.
pub(super) struct Exporting {
    pub(super) spans: mpsc::Receiver<OwnSpan>,
    /// Told when it is to export what waits, and end.
    pub(super) stopping: oneshot::Receiver<()>,
    pub(super) counts: Arc<Counted>,
    /// How long the oldest span of a batch waits at most.
    pub(super) delay: Duration,
    /// Dropped when it has.
    pub(super) _end: oneshot::Sender<()>,
}

/// Starts the thread.
///
/// # Errors
/// What is missing: a runtime, a client, a thread.
pub(super) fn start(dialer: Dialer, resource: Resource, exporting: Exporting) -> Result<(), String> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let exporter = {
        // The client's own futures run there.
        let _inside = runtime.enter();
        let mut exporter = channel::exporter(dialer)?;
        exporter.set_resource(&resource);
        exporter
    };
    let work = move || runtime.block_on(exporting.run(exporter));
    thread::Builder::new().name(THREAD.to_owned()).spawn(work).map(drop).map_err(|error| error.to_string())
}

impl Exporting {
    async fn run(mut self, exporter: impl SpanExporter) {
        let (mut batch, mut stops, mut delivery) = (Vec::new(), false, Delivery::default());
        loop {
            if !stops {
                tokio::select! {
                    biased;
                    _asked = &mut self.stopping => stops = true,
                    open = fill(&mut self.spans, &mut batch, self.delay) => stops = !open,
                }
            }
            if stops {
                self.spans.close();
                while more(&mut self.spans, &mut batch).await > 0 {}
                if batch.is_empty() {
                    return;
                }
            }
            let spans = batch.len();
            let outcome = export(&exporter, std::mem::take(&mut batch)).await;
            match &outcome {
                Ok(()) => self.counts.exported(spans),
                Err(_) => self.counts.failed(spans),
            }
            delivery.tell(spans, outcome);
        }
    }
}

/// What waits, or comes next, as far as the batch has room: so many spans. 0 where it has none, or no more will come.
async fn more(spans: &mut mpsc::Receiver<OwnSpan>, batch: &mut Vec<OwnSpan>) -> usize {
    let room = BATCH_SPANS.saturating_sub(batch.len());
    spans.recv_many(batch, room).await
}

/// Waits until a batch is worth a request; false where no more spans will come.
async fn fill(spans: &mut mpsc::Receiver<OwnSpan>, batch: &mut Vec<OwnSpan>, delay: Duration) -> bool {
    if batch.is_empty() && more(spans, batch).await == 0 {
        return false;
    }
    let until = Instant::now() + delay;
    while batch.len() < BATCH_SPANS {
        match timeout_at(until, more(spans, batch)).await {
            Ok(0) => return false,
            Ok(_) => {}
            Err(_elapsed) => break,
        }
    }
    true
}

/// One request, whatever happens in it.
async fn export(exporter: &impl SpanExporter, batch: Vec<OwnSpan>) -> Result<(), String> {
    let request = exporter.export(batch.into_iter().map(span_data).collect());
    match AssertUnwindSafe(timeout(EXPORT_MAX, request)).catch_unwind().await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => Err(error.to_string()),
        Ok(Err(_elapsed)) => Err(format!("no answer within {} s", EXPORT_MAX.as_secs())),
        Err(_panic) => Err("its client panicked".to_owned()),
    }
}

/// What was said of how it goes: once when it begins to fail, and once when it no longer does.
#[derive(Debug, Default)]
struct Delivery {
    lost: usize,
}

impl Delivery {
    fn tell(&mut self, spans: usize, outcome: Result<(), String>) {
        match outcome {
            Ok(()) if self.lost > 0 => {
                let lost = std::mem::take(&mut self.lost);
                tracing::info!(lost, "spans about this daemon are exported again");
            }
            Ok(()) => {}
            Err(error) => {
                if self.lost == 0 {
                    tracing::warn!(error, spans, "spans about this daemon cannot be exported, and are lost");
                }
                self.lost += spans;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nyx_telemetry::self_tracing::{Recorder as _, RecorderCounts, Tracer};
    use opentelemetry_sdk::{
        error::{OTelSdkError, OTelSdkResult},
        trace::SpanData,
    };
    use parking_lot::Mutex;

    use super::*;
    use crate::self_tracing::queue::Queue;

    /// What comes is noted, and answered as told.
    #[derive(Debug, Clone)]
    struct Scripted {
        batches: Arc<Mutex<Vec<usize>>>,
        answer: fn(usize) -> OTelSdkResult,
    }

    impl SpanExporter for Scripted {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            let number = {
                let mut batches = self.batches.lock();
                batches.push(batch.len());
                batches.len()
            };
            (self.answer)(number)
        }
    }

    struct Rig {
        queue: Arc<Queue>,
        tracer: Tracer,
        scripted: Scripted,
        stop: Option<oneshot::Sender<()>>,
        thread: std::pin::Pin<Box<dyn Future<Output = ()>>>,
    }

    impl Rig {
        fn new(delay: Duration, answer: fn(usize) -> OTelSdkResult) -> Self {
            let (sender, spans) = mpsc::channel(2_048);
            let queue = Arc::new(Queue::new(sender));
            let (stop, stopping) = oneshot::channel();
            let (counts, _end) = (queue.counted(), oneshot::channel().0);
            let scripted = Scripted { batches: Arc::default(), answer };
            let thread = Box::pin(Exporting { spans, stopping, counts, delay, _end }.run(scripted.clone()));
            let tracer = Tracer::new(1.0, Arc::<Queue>::clone(&queue));
            Self { queue, tracer, scripted, stop: Some(stop), thread }
        }

        fn record(&self, spans: usize) {
            (0..spans).for_each(|_| self.tracer.rare("a").end());
        }

        /// Lets the thread work until so many spans have their fate.
        async fn until_settled(&mut self, spans: u64) {
            let settled = async {
                while self.queue.counts().exported + self.queue.counts().failed < spans {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                () = settled => {}
                () = &mut self.thread => panic!("it ended"),
            }
        }

        fn batches(&self) -> Vec<usize> {
            std::mem::take(&mut *self.scripted.batches.lock())
        }

        fn counts(&self) -> (u64, u64, u64) {
            let RecorderCounts { exported, failed, dropped, .. } = self.queue.counts();
            (exported, failed, dropped)
        }
    }

    const NEVER: Duration = Duration::from_secs(3_600);

    fn taken(_: usize) -> OTelSdkResult {
        Ok(())
    }

    #[tokio::test]
    async fn a_batch_goes_out_when_it_is_full_and_the_rest_waits() {
        let mut rig = Rig::new(NEVER, taken);
        rig.record(2 * BATCH_SPANS + 3);
        rig.until_settled(2 * BATCH_SPANS as u64).await;
        assert_eq!(rig.batches(), [BATCH_SPANS; 2]);
    }

    #[tokio::test]
    async fn a_batch_goes_out_when_its_first_span_has_waited() {
        let mut rig = Rig::new(Duration::from_millis(1), taken);
        rig.record(3);
        rig.until_settled(3).await;
        assert_eq!((rig.batches(), rig.counts()), (vec![3], (3, 0, 0)));
    }

    #[tokio::test]
    async fn at_a_stop_everything_that_waits_goes_out_at_once() {
        let mut rig = Rig::new(NEVER, taken);
        rig.record(2 * BATCH_SPANS + 1);
        rig.stop.take().unwrap().send(()).unwrap();
        (&mut rig.thread).await;
        assert_eq!(rig.batches(), [BATCH_SPANS, BATCH_SPANS, 1]);
        rig.record(1);
        assert_eq!(rig.counts(), (2 * BATCH_SPANS as u64 + 1, 0, 1));
    }

    #[tokio::test]
    async fn a_request_that_fails_or_panics_costs_its_own_spans_and_nothing_else() {
        fn odd(number: usize) -> OTelSdkResult {
            match number {
                1 => Err(OTelSdkError::InternalFailure("no".to_owned())),
                2 => panic!("a client that is wrong"),
                _ => Ok(()),
            }
        }
        let mut rig = Rig::new(Duration::ZERO, odd);
        for settled in [10, 20, 30] {
            rig.record(10);
            rig.until_settled(settled).await;
        }
        assert_eq!((rig.batches(), rig.counts()), (vec![10; 3], (10, 20, 0)));
    }

    #[test]
    fn failures_in_a_row_are_told_once_and_their_end_too() {
        let mut delivery = Delivery::default();
        for (outcome, lost) in [(Err("no"), 5), (Err("no"), 10), (Ok(()), 0), (Ok(()), 0), (Err("no"), 5)] {
            delivery.tell(5, outcome.map_err(str::to_owned));
            assert_eq!(delivery.lost, lost);
        }
    }
}
