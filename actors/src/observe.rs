//! What can be seen of a tree: `/stats`, `/health` and the metrics page (level 4).
//!
//! Everything here reads state that outlives its actor: the pages work while an actor is down.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use prometheus::{core::Collector as _, process_collector::ProcessCollector};
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    accept::{
        ConnectionCounts, Connections, DoorCounts, DoorLedger, DoorReason, Outbox,
        seed::{BridgeCounts, BridgeStats},
    },
    export::{DestinationState, DestinationStatus, StatusSnapshot, verdict},
    log::{
        DestinationId, DestinationLedger, DiskStats, DropReason, LogStats, Oddity, Ordinal, RejectReason,
        SpanCounts, SpanLedger, SpanLog,
    },
    measure::{self, RedShared, RedStats},
    metrics::{self, LeftOut, Page, PageFamily},
    retain::{Retention, RetentionStats},
    supervise::{ChildKind, ChildRecord, ChildState, Failure, TreeMonitor},
};

/// The version on `/stats` and in `nyx_build_info`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A door of the tree.
#[derive(Debug)]
pub(crate) struct ObservedDoor {
    pub(crate) name: &'static str,
    /// `None` for the in-process door, whose account lies in the outboxes.
    pub(crate) ledger: Option<Arc<DoorLedger>>,
    pub(crate) connections: Arc<Connections>,
}

/// A destination of the tree.
#[derive(Debug)]
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
    destinations: Vec<ObservedDestination>,
    red: Option<Arc<RedShared>>,
    retention: Option<Arc<Retention>>,
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

/// The body of `/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// One line: `ok`, `degraded: …`, `starting`, `stopping: accepting for another …s` or `stopping`.
    pub status: String,
    /// Whether spans are accepted, and will be.
    pub ready: bool,
    /// What is wrong, a sentence each.
    pub reasons: Vec<String>,
}

/// The body of `/stats`.
#[derive(Debug, Serialize)]
pub struct Stats {
    /// The version of the program.
    pub version: &'static str,
    /// Seconds since the tree was defined.
    pub uptime_seconds: u64,
    /// Where the tree is in its life.
    pub phase: Phase,
    /// Requests and bytes of each door; the in-process door counts finished spans.
    pub door: BTreeMap<&'static str, DoorCounts>,
    /// Spans of all doors.
    pub spans: SpanCounts,
    /// Each destination's ledger and state.
    pub destinations: BTreeMap<String, DestinationStats>,
    /// What the log holds.
    pub log: LogStats,
    /// The RED metrics, where they are kept.
    pub metrics: Option<RedStats>,
    /// Each actor's record.
    pub actors: Vec<ActorStats>,
    /// Stream connections of each door.
    pub connections: BTreeMap<&'static str, ConnectionCounts>,
    /// The last spans in memory, where they are retained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionStats>,
    /// The bridge from a context, in a program that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<BridgeStats>,
    /// What became of reading the configuration again.
    pub reloads: Reloads,
    /// Whether every account balances at this moment.
    pub balanced: bool,
}

/// A destination on `/stats`.
#[derive(Debug, Serialize)]
pub struct DestinationStats {
    /// What became of the spans.
    #[serde(flatten)]
    pub ledger: DestinationLedger,
    /// How it goes.
    #[serde(flatten)]
    pub status: StatusSnapshot,
}

/// An actor on `/stats`.
#[derive(Debug, Serialize)]
pub struct ActorStats {
    /// Its name in the tree.
    pub name: String,
    /// What it does.
    pub state: ChildState,
    /// How often it was started again.
    pub restarts: u64,
    /// How often it panicked; of the connections, their panics.
    pub panics: u64,
    /// How often it had messages and handled none, and was replaced.
    pub stuck: u64,
    /// Messages that wait.
    pub inbox_depth: u64,
    /// Messages accepted; equal to handled + lost + abandoned + waiting + in hand.
    pub accepted: u64,
    /// Messages handled.
    pub handled: u64,
    /// Messages whose handler died with them.
    pub lost: u64,
    /// Messages that no handler saw before the end.
    pub abandoned: u64,
    /// Messages with a handler at this moment.
    pub in_hand: u64,
    /// Its last failure.
    pub last_failure: Option<Failure>,
}

impl From<ChildRecord> for ActorStats {
    fn from(record: ChildRecord) -> Self {
        Self {
            name: record.name,
            state: record.state,
            restarts: record.restarts,
            panics: record.panics,
            stuck: record.stuck,
            inbox_depth: record.inbox.depth,
            accepted: record.inbox.accepted,
            handled: record.inbox.handled,
            lost: record.inbox.lost,
            abandoned: record.inbox.abandoned,
            in_hand: record.inbox.in_hand,
            last_failure: record.last_failure,
        }
    }
}

impl Observed {
    pub(crate) fn new(
        log: Arc<dyn SpanLog>,
        spans: Arc<SpanLedger>,
        doors: Vec<ObservedDoor>,
        outboxes: Vec<Arc<Outbox>>,
        destinations: Vec<ObservedDestination>,
        red: Option<Arc<RedShared>>,
        retention: Option<Arc<Retention>>,
    ) -> Self {
        Self {
            started_at: SystemTime::now(),
            log,
            spans,
            doors,
            outboxes,
            destinations,
            red,
            retention,
            bridge: OnceLock::new(),
            tree: OnceLock::new(),
            phase: AtomicU8::new(Phase::Starting as u8),
            drains_until: OnceLock::new(),
            reloads: Mutex::default(),
            left_out: LeftOut::default(),
            process: ProcessCollector::for_self(),
        }
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
        for destination in self.destinations.iter().map(|destination| self.stats_of(destination)) {
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

    /// A destination's ledger and status.
    pub fn destination(&self, name: &str) -> Option<DestinationStats> {
        self.destinations
            .iter()
            .find(|destination| destination.status.name() == name)
            .map(|d| self.stats_of(d))
    }

    fn stats_of(&self, destination: &ObservedDestination) -> DestinationStats {
        let ledger = self.log.ledger(destination.id).unwrap_or_default();
        DestinationStats { ledger, status: destination.status.snapshot() }
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

    /// The body of `/stats`.
    pub fn stats(&self) -> Stats {
        let door: BTreeMap<_, _> =
            self.doors.iter().map(|door| (door.name, self.door_counts(door))).collect();
        let spans = self.spans.counts();
        let destinations: BTreeMap<_, _> = self
            .destinations
            .iter()
            .map(|destination| (destination.status.name().to_owned(), self.stats_of(destination)))
            .collect();
        let actors: Vec<_> = self.records().into_iter().filter(|r| r.kind != ChildKind::Supervisor).collect();
        let bridge = self.bridge_stats();
        let balanced = spans.balances()
            && door.values().all(DoorCounts::balances)
            && destinations.values().all(|destination| destination.ledger.balances())
            && bridge.as_ref().is_none_or(|bridge| bridge.context.balances());
        Stats {
            version: VERSION,
            uptime_seconds: self.started_at.elapsed().unwrap_or_default().as_secs(),
            phase: self.phase(),
            door,
            spans,
            destinations,
            log: self.log.stats(),
            metrics: self.red.as_ref().map(|red| red.stats()),
            actors: actors.into_iter().map(ActorStats::from).collect(),
            connections: self.doors.iter().map(|door| (door.name, door.connections.counts())).collect(),
            retention: self.retention.as_ref().map(|retention| retention.stats()),
            bridge,
            reloads: self.reloads.lock().clone(),
            balanced,
        }
    }

    /// The body of `/health`.
    pub fn health(&self) -> Health {
        let log = self.log.troubles().into_iter();
        let metrics = self.red.iter().flat_map(|red| red.troubles());
        let reasons: Vec<_> = log
            .chain(self.sick_destinations())
            .chain(metrics)
            .chain(self.sick_actors())
            .chain(self.not_reloaded())
            .collect();
        let (status, ready) = match self.phase() {
            Phase::Starting => ("starting".to_owned(), false),
            Phase::Draining => {
                let left = self.drains_until.get().map(|until| until.duration_since(Instant::now()));
                let seconds = left.unwrap_or_default().as_millis().div_ceil(1_000);
                (format!("stopping: accepting for another {seconds}s"), false)
            }
            Phase::Stopping => ("stopping".to_owned(), false),
            Phase::Running if reasons.is_empty() => ("ok".to_owned(), true),
            Phase::Running => (format!("degraded: {}", reasons.join("; ")), true),
        };
        Health { status, ready, reasons }
    }

    fn not_reloaded(&self) -> Option<String> {
        let failure = self.reloads.lock().last_failure.clone()?;
        Some(format!("the configuration was not reloaded: {failure}"))
    }

    fn sick_destinations(&self) -> impl Iterator<Item = String> {
        self.destinations.iter().filter_map(|destination| {
            let StatusSnapshot { state, reason, .. } = destination.status.snapshot();
            let (name, state_is) = (destination.status.name(), state.label());
            match reason {
                _ if state.is_healthy() => None,
                Some(reason) => Some(format!("{name} {state_is} ({reason})")),
                None => Some(format!("{name} {state_is}")),
            }
        })
    }

    fn sick_actors(&self) -> impl Iterator<Item = String> {
        self.records().into_iter().filter_map(|record| match record.state {
            ChildState::Running | ChildState::Waiting => None,
            ChildState::Starting => Some(format!("actor {} is starting", record.name)),
            ChildState::BackingOff => Some(format!("actor {} failed and will be restarted", record.name)),
            ChildState::Stopping => Some(format!("actor {} is stopping", record.name)),
            ChildState::Stopped => Some(format!("actor {} has stopped", record.name)),
        })
    }

    /// The metrics page, ready to be encoded.
    pub fn families(&self) -> Vec<PageFamily> {
        let since_epoch = self.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut page = Page::new(since_epoch);
        if let Some(red) = &self.red {
            measure::collect(&red.snapshot(), &mut page);
        }
        self.door_metrics(&mut page);
        self.span_metrics(&mut page);
        self.log_metrics(&mut page);
        if let Some(retention) = &self.retention {
            retention_metrics(&mut page, &retention.stats());
        }
        for destination in &self.destinations {
            destination_metrics(&mut page, destination.status.name(), &self.stats_of(destination));
        }
        for record in self.records() {
            actor_metrics(&mut page, &record);
        }
        let reloads = self.reloads.lock().clone();
        page.counter(&metrics::CONFIG_RELOADS, ["applied"], reloads.applied);
        page.counter(&metrics::CONFIG_RELOADS, ["refused"], reloads.refused);
        let successful = f64::from(u8::from(reloads.last_failure.is_none()));
        page.gauge(&metrics::CONFIG_LAST_RELOAD_SUCCESSFUL, [], successful);
        page.gauge(&metrics::BUILD_INFO, [VERSION], 1.0);
        page.gauge(&metrics::START_TIME, [], since_epoch.as_secs_f64());
        page.foreign(self.process.collect());
        page.finish(&self.left_out)
    }

    fn door_metrics(&self, page: &mut Page) {
        for door in &self.doors {
            let (counts, name) = (self.door_counts(door), door.name);
            page.counter(&metrics::DOOR_REQUESTS_RECEIVED, [name], counts.received.requests);
            page.counter(&metrics::DOOR_BYTES_RECEIVED, [name], counts.received.bytes);
            page.counter(&metrics::DOOR_REQUESTS_ACCEPTED, [name], counts.accepted.requests);
            page.counter(&metrics::DOOR_BYTES_ACCEPTED, [name], counts.accepted.bytes);
            page.gauge(&metrics::DOOR_REQUESTS_PENDING, [name], counts.pending.requests as f64);
            page.gauge(&metrics::DOOR_BYTES_PENDING, [name], counts.pending.bytes as f64);
            for &reason in DoorReason::ALL {
                let refused = counts.refused(reason);
                page.counter(&metrics::DOOR_REQUESTS_REFUSED, [name, reason.label()], refused.requests);
                page.counter(&metrics::DOOR_BYTES_REFUSED, [name, reason.label()], refused.bytes);
            }
            let connections = door.connections.counts();
            page.gauge(&metrics::DOOR_CONNECTIONS, [name], connections.open as f64);
            page.counter(&metrics::DOOR_CONNECTIONS_OPENED, [name], connections.opened);
            page.counter(&metrics::DOOR_CONNECTIONS_REFUSED, [name], connections.refused);
            page.counter(&metrics::DOOR_ACCEPT_ERRORS, [name], connections.accept_errors);
        }
    }

    fn span_metrics(&self, page: &mut Page) {
        let spans = self.spans.counts();
        page.counter(&metrics::SPANS_SCANNED, [], spans.scanned);
        page.counter(&metrics::SPANS_ACCEPTED, [], spans.accepted);
        page.gauge(&metrics::SPANS_PENDING, [], spans.pending as f64);
        for &reason in RejectReason::ALL {
            page.counter(&metrics::SPANS_REJECTED, [reason.label()], spans.rejected(reason));
        }
        for &oddity in Oddity::ALL {
            page.counter(&metrics::SPANS_ODD, [oddity.label()], spans.odd(oddity));
        }
    }

    fn log_metrics(&self, page: &mut Page) {
        let log = self.log.stats();
        page.gauge(&metrics::LOG_BYTES, [], log.bytes as f64);
        page.gauge(&metrics::LOG_MAX_BYTES, [], log.max_bytes as f64);
        page.gauge(&metrics::LOG_RECORDS, [], log.records as f64);
        page.gauge(&metrics::LOG_START, [], log.start as f64);
        page.gauge(&metrics::LOG_END, [], log.end as f64);
        page.gauge(&metrics::LOG_DEAD_LETTERS, [], log.dead_letters as f64);
        log.disk.iter().for_each(|disk| disk_metrics(page, disk));
    }
}

fn disk_metrics(page: &mut Page, disk: &DiskStats) {
    page.gauge(&metrics::LOG_SEGMENTS, [], disk.segments as f64);
    page.gauge(&metrics::LOG_CACHED_BYTES, [], disk.cached_bytes as f64);
    page.gauge(&metrics::LOG_FREE_BYTES, [], disk.free_bytes as f64);
    page.counter(&metrics::LOG_GROUPS, [], disk.groups);
    page.counter(&metrics::LOG_PAYLOAD_BYTES, [], disk.payload_bytes);
    page.counter(&metrics::LOG_WRITTEN_BYTES, [], disk.written_bytes);
    page.counter(&metrics::LOG_SYNCS, [], disk.syncs);
    for (operation, errors) in
        [("write", disk.write_errors), ("sync", disk.sync_errors), ("read", disk.read_errors)]
    {
        page.counter(&metrics::LOG_ERRORS, [operation], errors);
    }
    page.counter(&metrics::LOG_DISK_READS, [], disk.disk_reads);
    page.counter(&metrics::LOG_DAMAGED_SPANS, [], disk.damaged_spans);
    page.gauge(&metrics::LOG_QUARANTINED_BYTES, [], disk.quarantined_bytes as f64);
    page.gauge(&metrics::LOG_TORN_BYTES, [], disk.torn_bytes as f64);
    page.counter(&metrics::LOG_EVICTED_SPANS, [], disk.evicted_spans);
    page.gauge(&metrics::LOG_CHECKPOINTED_AT, [], disk.checkpointed_at.unwrap_or_default() as f64);
}

fn retention_metrics(page: &mut Page, retention: &RetentionStats) {
    page.gauge(&metrics::RETENTION_BYTES, [], retention.bytes as f64);
    page.gauge(&metrics::RETENTION_MAX_BYTES, [], retention.max_bytes as f64);
    page.gauge(&metrics::RETENTION_SPANS, ["recent"], retention.recent_spans as f64);
    page.gauge(&metrics::RETENTION_SPANS, ["kept"], retention.kept_spans as f64);
    page.counter(&metrics::RETENTION_UNSIFTED, [], retention.unsifted_spans);
}

fn destination_metrics(page: &mut Page, name: &str, destination: &DestinationStats) {
    let (ledger, status) = (&destination.ledger, &destination.status);
    page.gauge(&metrics::DESTINATION_START, [name], ledger.start as f64);
    page.gauge(&metrics::DESTINATION_POSITION, [name], ledger.position as f64);
    page.counter(&metrics::DESTINATION_EXPORTED, [name], ledger.exported);
    page.counter(&metrics::DESTINATION_SAMPLED_OUT, [name], ledger.sampled_out);
    for &reason in DropReason::ALL {
        page.counter(&metrics::DESTINATION_DROPPED, [name, reason.label()], ledger.dropped(reason));
    }
    page.gauge(&metrics::DESTINATION_QUEUED, [name], ledger.queued() as f64);
    page.gauge(&metrics::DESTINATION_IN_FLIGHT, [name], status.in_flight as f64);
    for kind in verdict::Kind::ALL {
        page.counter(&metrics::DESTINATION_REQUESTS, [name, kind.label()], status.requests.get(kind));
    }
    page.counter(&metrics::DESTINATION_RETRIES, [name], status.retries);
    page.counter(&metrics::DESTINATION_BYTES_SENT, [name], status.bytes_sent);
    for state in DestinationState::ALL {
        let is = f64::from(u8::from(state == status.state));
        page.gauge(&metrics::DESTINATION_STATE, [name, state.label()], is);
    }
    let last_success = status.last_success.unwrap_or_default();
    page.gauge(&metrics::DESTINATION_LAST_SUCCESS, [name], Duration::from_secs(last_success).as_secs_f64());
}

fn actor_metrics(page: &mut Page, record: &ChildRecord) {
    let (name, inbox) = (record.name.as_str(), &record.inbox);
    page.counter(&metrics::ACTOR_RESTARTS, [name], record.restarts);
    page.counter(&metrics::ACTOR_PANICS, [name], record.panics);
    page.counter(&metrics::ACTOR_STUCK, [name], record.stuck);
    page.counter(&metrics::ACTOR_ACCEPTED, [name], inbox.accepted);
    page.counter(&metrics::ACTOR_HANDLED, [name], inbox.handled);
    page.counter(&metrics::ACTOR_LOST, [name], inbox.lost);
    page.counter(&metrics::ACTOR_ABANDONED, [name], inbox.abandoned);
    page.gauge(&metrics::ACTOR_IN_HAND, [name], inbox.in_hand as f64);
    page.gauge(&metrics::ACTOR_INBOX_DEPTH, [name], inbox.depth as f64);
}
