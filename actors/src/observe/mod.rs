//! What can be seen of a tree: `/stats`, `/health` and the metrics page (level 4).
//!
//! Everything here reads state that outlives its actor: the pages work while an actor is down.

mod health;
mod page;
mod stats;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use prometheus::process_collector::ProcessCollector;
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    accept::{
        Connections, DoorCounts, DoorLedger, DoorTls, Outbox,
        seed::{BridgeCounts, BridgeStats},
    },
    export::{DestinationStatus, verdict},
    log::{DestinationId, Ordinal, SpanLedger, SpanLog},
    measure::RedShared,
    metrics::LeftOut,
    retain::Retention,
    self_tracing::Tracer,
    supervise::{ChildRecord, TreeMonitor},
};

pub use health::Health;
pub use stats::{ActorStats, DestinationStats, Stats};

/// The version on `/stats` and in `nyx_build_info`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A door of the tree.
#[derive(Debug)]
pub(crate) struct ObservedDoor {
    pub(crate) name: &'static str,
    /// `None` for the in-process door, whose account lies in the outboxes.
    pub(crate) ledger: Option<Arc<DoorLedger>>,
    pub(crate) connections: Arc<Connections>,
    /// `None` for the in-process door, which has no wire.
    pub(crate) tls: Option<Arc<DoorTls>>,
}

/// A destination of the tree.
#[derive(Debug, Clone)]
pub(crate) struct ObservedDestination {
    pub(crate) id: DestinationId,
    pub(crate) status: Arc<DestinationStatus>,
}

/// Everything of a tree that can be seen from outside.
pub struct Observed {
    started_at: SystemTime,
    log: Arc<dyn SpanLog>,
    spans: Arc<SpanLedger>,
    doors: Vec<ObservedDoor>,
    outboxes: Vec<Arc<Outbox>>,
    /// They come and go.
    destinations: Mutex<Vec<ObservedDestination>>,
    red: Option<Arc<RedShared>>,
    retention: Option<Arc<Retention>>,
    tracer: Tracer,
    bridge: OnceLock<Bridge>,
    tree: OnceLock<TreeMonitor>,
    phase: AtomicU8,
    drains_until: OnceLock<Instant>,
    reloads: Mutex<Reloads>,
    left_out: LeftOut,
    process: ProcessCollector,
}

/// What became of reading the configuration again, on `/stats`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reloads {
    /// Times that it was valid, and swapped as far as it can be while the tree runs.
    pub applied: u64,
    /// Times that it was not, and the one before stayed.
    pub refused: u64,
    /// Why, if it was so the last time.
    pub last_failure: Option<String>,
}

/// A bridge whose spans the tree takes, and the log's end before the first of them.
struct Bridge {
    counts: Arc<BridgeCounts>,
    from: Ordinal,
}

/// Where a tree is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Phase {
    /// Children are being started.
    Starting,
    /// All children have been started.
    Running,
    /// About to stop: spans are still taken, and no more should come.
    Draining,
    /// On the way down.
    Stopping,
}

impl Observed {
    pub(crate) fn new(
        log: Arc<dyn SpanLog>,
        spans: Arc<SpanLedger>,
        doors: Vec<ObservedDoor>,
        outboxes: Vec<Arc<Outbox>>,
        red: Option<Arc<RedShared>>,
        retention: Option<Arc<Retention>>,
    ) -> Self {
        Self {
            started_at: SystemTime::now(),
            log,
            spans,
            doors,
            outboxes,
            destinations: Mutex::default(),
            red,
            retention,
            tracer: Tracer::default(),
            bridge: OnceLock::new(),
            tree: OnceLock::new(),
            phase: AtomicU8::new(Phase::Starting as u8),
            drains_until: OnceLock::new(),
            reloads: Mutex::default(),
            left_out: LeftOut::default(),
            process: ProcessCollector::for_self(),
        }
    }

    /// The same, which shows what became of the spans about the tree itself.
    pub(crate) fn tracing(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    /// The tree takes the spans of a bridge; before it starts.
    pub(crate) fn bridged(&self, counts: Arc<BridgeCounts>) {
        let _bridged_before = self.bridge.set(Bridge { counts, from: self.log.end() });
    }

    /// What the bridge did whose spans the tree takes. Of a log on disk the exported spans include those that an
    /// earlier process left.
    pub fn bridge_stats(&self) -> Option<BridgeStats> {
        let Bridge { counts, from } = self.bridge.get()?;
        let mut stats = counts.stats();
        for (_, destination) in self.destinations() {
            let requests = destination.status.requests;
            let failed = verdict::Kind::ALL.into_iter().filter(|kind| *kind != verdict::Kind::Success);
            stats.export_errors += failed.map(|kind| requests.get(kind)).sum::<u64>();
            stats.export_errors += destination.status.connect_failures;
            stats.spans_exported_otlp += destination.ledger.exported;
        }
        if let Some(red) = &self.red {
            stats.spans_recorded_prometheus = red.position().saturating_sub(*from);
        }
        Some(stats)
    }

    /// Says that the configuration was read again, or why it was not taken on.
    pub fn reloaded(&self, outcome: Result<(), String>) {
        let mut reloads = self.reloads.lock();
        match &outcome {
            Ok(()) => reloads.applied += 1,
            Err(_) => reloads.refused += 1,
        }
        reloads.last_failure = outcome.err();
    }

    pub(crate) fn started(&self, tree: TreeMonitor) {
        let _started_before = self.tree.set(tree);
        self.phase.store(Phase::Running as u8, Ordering::Release);
    }

    pub(crate) fn draining(&self, grace: Duration) {
        let _drains_already = self.drains_until.set(Instant::now() + grace);
        self.phase.fetch_max(Phase::Draining as u8, Ordering::AcqRel);
    }

    pub(crate) fn stopping(&self) {
        self.phase.store(Phase::Stopping as u8, Ordering::Release);
    }

    /// Where the tree is in its life.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Running,
            2 => Phase::Draining,
            _ => Phase::Stopping,
        }
    }

    /// Whether RED metrics are kept, and a metrics page is to be served.
    pub fn is_measured(&self) -> bool {
        self.red.is_some()
    }

    /// The span log.
    pub fn log(&self) -> &Arc<dyn SpanLog> {
        &self.log
    }

    /// The RED counters, where they are kept.
    pub fn red(&self) -> Option<&Arc<RedShared>> {
        self.red.as_ref()
    }

    /// The retention buffer, if there is one.
    pub fn retention(&self) -> Option<&Arc<Retention>> {
        self.retention.as_ref()
    }

    /// The records of all children; none before the start.
    pub fn records(&self) -> Vec<ChildRecord> {
        self.tree.get().map(TreeMonitor::records).unwrap_or_default()
    }

    /// A destination is there from now on.
    pub(crate) fn destination_came(&self, destination: ObservedDestination) {
        self.destinations.lock().push(destination);
    }

    /// It is not any more.
    pub(crate) fn destination_went(&self, id: DestinationId) {
        self.destinations.lock().retain(|destination| destination.id != id);
    }

    /// A destination's ledger and status.
    pub fn destination(&self, name: &str) -> Option<DestinationStats> {
        self.destinations().find_map(|(other, stats)| (other == name).then_some(stats))
    }

    /// Each destination's name, ledger and status. One that the log has let go of at this moment is none.
    fn destinations(&self) -> impl Iterator<Item = (String, DestinationStats)> {
        let destinations = self.destinations.lock().clone();
        destinations.into_iter().filter_map(|ObservedDestination { id, status }| {
            let stats = DestinationStats { ledger: self.log.ledger(id).ok()?, status: status.snapshot() };
            Some((status.name().to_owned(), stats))
        })
    }

    fn door_counts(&self, door: &ObservedDoor) -> DoorCounts {
        match &door.ledger {
            Some(ledger) => ledger.counts(),
            None => self.outboxes.iter().fold(DoorCounts::default(), |mut sum, outbox| {
                sum.merge(&outbox.counts());
                sum
            }),
        }
    }
}
