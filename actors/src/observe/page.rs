//! The metrics page: what the accounts say, as families of samples.

use std::time::{Duration, UNIX_EPOCH};

use prometheus::core::Collector as _;

use super::{DestinationStats, Observed, VERSION};
use crate::{
    accept::{DoorReason, TlsFailure},
    export::{DestinationState, verdict},
    log::{DiskStats, DropReason, Oddity, RejectReason},
    measure,
    metrics::{self, Page, PageFamily},
    retain::RetentionStats,
    self_tracing::RecorderCounts,
    supervise::ChildRecord,
};

impl Observed {
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
        for (name, destination) in self.destinations() {
            destination_metrics(&mut page, &name, &destination);
        }
        for record in self.records() {
            actor_metrics(&mut page, &record);
        }
        if let Some(RecorderCounts { exported, failed, dropped, .. }) = self.tracer.counts() {
            for (result, spans) in [("exported", exported), ("failed", failed), ("dropped", dropped)] {
                page.counter(&metrics::SELF_TRACING_SPANS, [result], spans);
            }
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
            let Some(tls) = door.tls.as_ref().map(|tls| tls.stats()) else { continue };
            for &reason in TlsFailure::ALL {
                page.counter(&metrics::DOOR_TLS_FAILURES, [name, reason.label()], tls.failures(reason));
            }
            if let Some(expires) = tls.certificate_expires {
                page.gauge(&metrics::DOOR_CERTIFICATE_EXPIRY, [name], expires as f64);
            }
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

/// When a destination's counters began: what a ledger on disk counts is older than the process, and does not know how old,
/// and a destination that comes while the tree runs has been there before, perhaps.
const UNKNOWN: Option<Duration> = None;

fn destination_metrics(page: &mut Page, name: &str, destination: &DestinationStats) {
    let (ledger, status) = (&destination.ledger, &destination.status);
    page.gauge(&metrics::DESTINATION_START, [name], ledger.start as f64);
    page.gauge(&metrics::DESTINATION_POSITION, [name], ledger.position as f64);
    page.counter_since(&metrics::DESTINATION_EXPORTED, [name], ledger.exported, UNKNOWN);
    page.counter_since(&metrics::DESTINATION_SAMPLED_OUT, [name], ledger.sampled_out, UNKNOWN);
    for &reason in DropReason::ALL {
        let dropped = ledger.dropped(reason);
        page.counter_since(&metrics::DESTINATION_DROPPED, [name, reason.label()], dropped, UNKNOWN);
    }
    page.gauge(&metrics::DESTINATION_QUEUED, [name], ledger.queued() as f64);
    page.gauge(&metrics::DESTINATION_IN_FLIGHT, [name], status.in_flight as f64);
    for kind in verdict::Kind::ALL {
        let requests = status.requests.get(kind);
        page.counter_since(&metrics::DESTINATION_REQUESTS, [name, kind.label()], requests, UNKNOWN);
    }
    page.counter_since(&metrics::DESTINATION_RETRIES, [name], status.retries, UNKNOWN);
    page.counter_since(&metrics::DESTINATION_BYTES_SENT, [name], status.bytes_sent, UNKNOWN);
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
