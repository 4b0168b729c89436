//! A bridge's account, where the bridge and the pages both reach it.

use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Serialize, Serializer};

use super::context::{ContextCounts, StreamTelemetryContext};

/// What a bridge did, as `bridge` on `/stats`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BridgeStats {
    /// Spans taken from the context.
    pub spans_collected: u64,
    /// Spans that destinations acknowledged; each counts for each destination.
    pub spans_exported_otlp: u64,
    /// Spans counted in the RED metrics.
    pub spans_recorded_prometheus: u64,
    /// Export requests that failed or succeeded in part, and connections to a destination that did not come about.
    pub export_errors: u64,
    /// When the bridge last looked for what waits; on `/stats` in seconds since the Unix epoch.
    #[serde(serialize_with = "seconds")]
    pub last_poll: Option<SystemTime>,
    /// The context's account.
    pub context: ContextCounts,
}

fn seconds<S: Serializer>(at: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(|at| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()).serialize(serializer)
}

/// What a bridge itself counts.
#[derive(Debug)]
pub struct BridgeCounts {
    context: StreamTelemetryContext,
    /// What earlier bridges took from the context.
    collected_before: u64,
    last_poll: Mutex<Option<SystemTime>>,
}

impl BridgeCounts {
    /// The counts of a bridge that is about to take this context's spans.
    pub fn new(context: StreamTelemetryContext) -> Self {
        let collected_before = context.counts().collected;
        Self { context, collected_before, last_poll: Mutex::new(None) }
    }

    /// Takes what waits in the context, as far as the log takes it.
    pub(crate) fn poll(&self) {
        self.context.collect();
        *self.last_poll.lock() = Some(SystemTime::now());
    }

    /// The stats as far as the bridge knows them by itself.
    pub(crate) fn stats(&self) -> BridgeStats {
        let context = self.context.counts();
        BridgeStats {
            spans_collected: context.collected - self.collected_before,
            last_poll: *self.last_poll.lock(),
            context,
            ..BridgeStats::default()
        }
    }
}
