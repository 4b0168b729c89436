//! Where finished spans wait, and the account of them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use nyx_telemetry::self_tracing::{OwnSpan, Recorder, RecorderCounts};
use tokio::sync::mpsc;

/// Spans on their way to the thread that exports them.
pub(super) struct Queue {
    spans: mpsc::Sender<OwnSpan>,
    counted: Arc<Counted>,
}

/// What became of them.
#[derive(Debug, Default)]
pub(super) struct Counted {
    recorded: AtomicU64,
    dropped: AtomicU64,
    exported: AtomicU64,
    failed: AtomicU64,
}

impl Queue {
    pub(super) fn new(spans: mpsc::Sender<OwnSpan>) -> Self {
        Self { spans, counted: Arc::default() }
    }

    pub(super) fn counted(&self) -> Arc<Counted> {
        Arc::clone(&self.counted)
    }
}

impl Counted {
    pub(super) fn exported(&self, spans: usize) {
        self.exported.fetch_add(spans as u64, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, spans: usize) {
        self.failed.fetch_add(spans as u64, Ordering::Relaxed);
    }
}

impl Recorder for Queue {
    fn record(&self, span: OwnSpan) {
        self.counted.recorded.fetch_add(1, Ordering::Relaxed);
        if self.spans.try_send(span).is_err() {
            self.counted.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counts(&self) -> RecorderCounts {
        let Counted { recorded, dropped, exported, failed } = &*self.counted;
        let [exported, failed, dropped] =
            [exported, failed, dropped].map(|count| count.load(Ordering::Relaxed));
        // Last, so that it is not behind the others.
        RecorderCounts { recorded: recorded.load(Ordering::Relaxed), exported, failed, dropped }
    }
}

#[cfg(test)]
mod tests {
    use nyx_telemetry::self_tracing::Tracer;

    use super::*;

    #[test]
    fn what_finds_no_room_is_dropped_and_counted_and_nobody_waits() {
        let (sender, mut spans) = mpsc::channel(2);
        let queue = Arc::new(Queue::new(sender));
        let tracer = Tracer::new(1.0, Arc::<Queue>::clone(&queue));
        for _ in 0..5 {
            tracer.rare("a").end();
        }
        let counts = RecorderCounts { recorded: 5, dropped: 3, ..RecorderCounts::default() };
        assert_eq!(tracer.counts(), Some(counts));
        assert!(spans.try_recv().is_ok() && spans.try_recv().is_ok());
        tracer.rare("a").end();
        assert_eq!(queue.counts(), RecorderCounts { recorded: 6, ..counts });
    }
}
