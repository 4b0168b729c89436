//! A recorder that keeps what it gets.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{OwnSpan, Recorder, RecorderCounts, Tracer};

/// What was recorded.
#[derive(Clone, Default)]
pub(crate) struct Recorded(Arc<Mutex<Vec<OwnSpan>>>);

impl Recorded {
    /// What was recorded since the last time.
    pub(crate) fn take(&self) -> Vec<OwnSpan> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl Recorder for Recorded {
    fn record(&self, span: OwnSpan) {
        self.0.lock().push(span);
    }

    fn counts(&self) -> RecorderCounts {
        RecorderCounts { recorded: self.0.lock().len() as u64, ..RecorderCounts::default() }
    }
}

/// A tracer of this rate, and what it records.
pub(crate) fn recording_all(rate: f64) -> (Tracer, Recorded) {
    let recorded = Recorded::default();
    (Tracer::new(rate, Arc::new(recorded.clone())), recorded)
}
