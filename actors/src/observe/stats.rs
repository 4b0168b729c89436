//! `/stats`: every account at one moment.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Observed, Phase, Reloads, VERSION};
use crate::{
    accept::{ConnectionCounts, DoorCounts, TlsStats, seed::BridgeStats},
    export::StatusSnapshot,
    log::{DestinationLedger, LogStats, SpanCounts},
    measure::RedStats,
    retain::RetentionStats,
    self_tracing::RecorderCounts,
    supervise::{ChildKind, ChildRecord, ChildState, Failure},
};

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
    /// TLS at each door that has a wire.
    pub tls: BTreeMap<&'static str, TlsStats>,
    /// The last spans in memory, where they are retained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionStats>,
    /// The bridge from a context, in a program that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<BridgeStats>,
    /// Spans about nyx itself, where it makes any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_tracing: Option<RecorderCounts>,
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
    /// The body of `/stats`.
    pub fn stats(&self) -> Stats {
        let door: BTreeMap<_, _> =
            self.doors.iter().map(|door| (door.name, self.door_counts(door))).collect();
        let spans = self.spans.counts();
        let destinations: BTreeMap<_, _> = self.destinations().collect();
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
            tls: self.doors.iter().filter_map(|door| Some((door.name, door.tls.as_ref()?.stats()))).collect(),
            retention: self.retention.as_ref().map(|retention| retention.stats()),
            bridge,
            self_tracing: self.tracer.counts(),
            reloads: self.reloads.lock().clone(),
            balanced,
        }
    }
}
