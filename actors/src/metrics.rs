//! Every metric of nyx in one place: name, help, unit, labels (level 1).
//!
//! A metric is a constant that knows the number of its labels, so that a [`Page`] cannot be given a series
//! with a label too few or too many. Names follow Prometheus' practice (base units, `_total` on counters)
//! and, without `_total`, are the families of OpenMetrics.
//!
//! The process's own metrics (`process_cpu_seconds_total`, `process_resident_memory_bytes`, …) come from the
//! `prometheus` crate's `ProcessCollector` through [`Page::foreign`]; they are the only ones not in [`ALL`].

mod page;

pub use page::{ExemplarValue, HistogramValue, LeftOut, Page, PageFamily};

/// What kind of metric a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, from 0 at its creation.
    Counter,
    /// Any value.
    Gauge,
    /// Counts in buckets.
    Histogram,
    /// A number of which scrapers are told no type: `untyped` in the text format, `unknown` in OpenMetrics.
    Unknown,
}

/// A base unit; a family's name ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Milliseconds: not a base unit, and only for names that others chose.
    Milliseconds,
    /// Seconds.
    Seconds,
}

impl Unit {
    /// The unit as in a name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Milliseconds => "milliseconds",
            Self::Seconds => "seconds",
        }
    }
}

/// What is declared of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// The name on the text page.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// The unit, if it has one.
    pub unit: Option<Unit>,
    /// The labels' names.
    pub labels: &'static [&'static str],
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $kind<const LABELS: usize>(Family);

        impl<const LABELS: usize> $kind<LABELS> {
            const fn new(
                name: &'static str,
                unit: Option<Unit>,
                labels: &'static [&'static str; LABELS],
                help: &'static str,
            ) -> Self {
                Self(Family { name, help, kind: Kind::$kind, unit, labels })
            }

            /// What is declared.
            pub const fn family(&self) -> &Family {
                &self.0
            }
        }
    )*};
}

kinds! {
    /// A counter with this number of labels.
    Counter
    /// A gauge with this number of labels.
    Gauge
    /// A histogram with this number of labels.
    Histogram
}

macro_rules! families {
    (@unit) => { None };
    (@unit $unit:ident) => { Some(Unit::$unit) };
    ($(#[$doc:meta])* $all:ident: $($id:ident: $kind:ident $(in $unit:ident)? = $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "`: ", $help)]
            pub static $id: $kind<{ const LABELS: &[&str] = &[$($label),*]; LABELS.len() }> =
                $kind::new($name, families!(@unit $($unit)?), &[$($label),*], $help);
        )*

        $(#[$doc])*
        pub static $all: &[&Family] = &[$(&$id.0),*];
    };
}

families! {
    /// Every metric under the profile `nyx`, in the order of declaration.
    ALL:

    // RED, with a label more for each configured dimension. A series that stands for many has the label
    // otel_metric_overflow, and the last resort of them has no other.
    SPAN_COUNT: Counter = "nyx_span_count_total"
        ["service_name", "span_name", "span_kind", "status_code", "otel_metric_overflow"]
        "Spans that the log took, before sampling.";
    SPAN_ERRORS: Counter = "nyx_span_errors_total"
        ["service_name", "span_name", "span_kind", "status_code", "otel_metric_overflow"]
        "Spans that the log took whose status is error.";
    SPAN_DURATION: Histogram in Seconds = "nyx_span_duration_seconds"
        ["service_name", "span_name", "span_kind", "status_code", "otel_metric_overflow"]
        "Durations of the spans that the log took; 0 where the end lies before the start.";

    MEASURE_POSITION: Gauge = "nyx_measure_position_ordinal" []
        "Every span before this ordinal of the log is counted in the span metrics.";
    MEASURE_SERIES: Gauge = "nyx_measure_series" []
        "Series of span metrics, without the overflow series.";
    MEASURE_MAX_SERIES: Gauge = "nyx_measure_max_series" []
        "Series of span metrics at most, without the overflow series.";
    MEASURE_FOLDED: Counter = "nyx_measure_folded_spans_total" []
        "Spans counted in a series that stands for many, because there was no room for one of their own.";
    MEASURE_CUT: Counter = "nyx_measure_cut_values_total" []
        "Values of labels of span metrics that were cut at 256 bytes.";
    MEASURE_EXPIRED: Counter = "nyx_measure_expired_series_total" []
        "Series of span metrics that were removed because nothing was counted in them for metrics.expire_after.";
    MEASURE_CAUGHT_UP: Counter = "nyx_measure_caught_up_spans_total" []
        "Spans that were counted by reading the log, because the message about them was lost or went to an earlier process.";
    MEASURE_UNMEASURED: Counter = "nyx_measure_unmeasured_spans_total" ["reason"]
        "Spans in the log that no span metric counts, by reason.";
    MEASURE_CHECKPOINTS: Counter = "nyx_measure_checkpoints_total" []
        "Checkpoints of the span metrics that were stored.";
    MEASURE_CHECKPOINT_ERRORS: Counter = "nyx_measure_checkpoint_errors_total" []
        "Checkpoints of the span metrics that could not be stored.";

    // Doors: received = accepted + refused + pending, in requests and in bytes.
    DOOR_REQUESTS_RECEIVED: Counter = "nyx_door_requests_received_total" ["door"]
        "Requests received; in-process, spans finished.";
    DOOR_REQUESTS_ACCEPTED: Counter = "nyx_door_requests_accepted_total" ["door"]
        "Requests answered with a success, full or partial.";
    DOOR_REQUESTS_REFUSED: Counter = "nyx_door_requests_refused_total" ["door", "reason"]
        "Requests refused, by reason.";
    DOOR_REQUESTS_PENDING: Gauge = "nyx_door_pending_requests" ["door"]
        "Requests received and not answered yet.";
    DOOR_BYTES_RECEIVED: Counter in Bytes = "nyx_door_received_bytes_total" ["door"]
        "Bytes of the requests received.";
    DOOR_BYTES_ACCEPTED: Counter in Bytes = "nyx_door_accepted_bytes_total" ["door"]
        "Bytes of the requests accepted.";
    DOOR_BYTES_REFUSED: Counter in Bytes = "nyx_door_refused_bytes_total" ["door", "reason"]
        "Bytes of the requests refused, by reason.";
    DOOR_BYTES_PENDING: Gauge in Bytes = "nyx_door_pending_bytes" ["door"]
        "Bytes of the requests received and not answered yet.";
    DOOR_CONNECTIONS: Gauge = "nyx_door_connections" ["door"]
        "Open stream connections.";
    DOOR_CONNECTIONS_OPENED: Counter = "nyx_door_connections_opened_total" ["door"]
        "Stream connections opened.";
    DOOR_CONNECTIONS_REFUSED: Counter = "nyx_door_connections_refused_total" ["door"]
        "Stream connections closed at once, because there were too many or the daemon was on its way down.";
    DOOR_ACCEPT_ERRORS: Counter = "nyx_door_accept_errors_total" ["door"]
        "Times that the system could not accept a connection, as for want of file descriptors.";
    DOOR_TLS_FAILURES: Counter = "nyx_door_tls_failures_total" ["door", "reason"]
        "Connections that came to nothing because of TLS, by reason.";
    DOOR_CERTIFICATE_EXPIRY: Gauge in Seconds = "nyx_door_certificate_expiry_timestamp_seconds" ["door"]
        "When the door's certificate ends, since the Unix epoch; only where the door speaks TLS.";

    // Spans: scanned = accepted + rejected + pending.
    SPANS_SCANNED: Counter = "nyx_spans_scanned_total" []
        "Spans found in what came through the doors.";
    SPANS_ACCEPTED: Counter = "nyx_spans_accepted_total" []
        "Spans that the log took.";
    SPANS_REJECTED: Counter = "nyx_spans_rejected_total" ["reason"]
        "Spans that did not reach the log, by reason; their senders were told.";
    SPANS_ODD: Counter = "nyx_spans_odd_total" ["oddity"]
        "Spans that the log took from other processes though they are odd: they end before they start (duration 0), have no name, or lie more than a day in the future.";
    SPANS_PENDING: Gauge = "nyx_spans_pending" []
        "Spans between the scan and the log.";

    LOG_BYTES: Gauge in Bytes = "nyx_log_bytes" []
        "Bytes that the span log holds.";
    LOG_MAX_BYTES: Gauge in Bytes = "nyx_log_max_bytes" []
        "Bytes that the span log holds at most.";
    LOG_RECORDS: Gauge = "nyx_log_records" []
        "Records that the span log holds.";
    LOG_START: Gauge = "nyx_log_start_ordinal" []
        "Ordinal of the first span that the log holds.";
    LOG_END: Gauge = "nyx_log_end_ordinal" []
        "Ordinal behind the last span that the log took.";
    LOG_DEAD_LETTERS: Gauge = "nyx_log_dead_letters" []
        "Dead letters kept, of all destinations.";

    // Only with a log on disk.
    LOG_SEGMENTS: Gauge = "nyx_log_segments" []
        "Segment files of the span log.";
    LOG_CACHED_BYTES: Gauge in Bytes = "nyx_log_cached_bytes" []
        "Bytes of records that are held in memory too, for consumers that keep up.";
    LOG_FREE_BYTES: Gauge in Bytes = "nyx_log_free_bytes" []
        "Bytes that were free on the span log's file system when it last looked.";
    LOG_GROUPS: Counter = "nyx_log_groups_total" []
        "Groups of batches written to the span log.";
    LOG_PAYLOAD_BYTES: Counter in Bytes = "nyx_log_payload_bytes_total" []
        "Bytes of the batches in these groups.";
    LOG_WRITTEN_BYTES: Counter in Bytes = "nyx_log_written_bytes_total" []
        "Bytes written to the span log's files: segments, positions, dead letters, checkpoints.";
    LOG_SYNCS: Counter = "nyx_log_syncs_total" []
        "Syncs of the span log's files that succeeded.";
    LOG_ERRORS: Counter = "nyx_log_errors_total" ["operation"]
        "Operations on the span log's files that failed; write is whatever changes a file or its name.";
    LOG_DISK_READS: Counter = "nyx_log_disk_reads_total" []
        "Reads that no record in memory could answer.";
    LOG_DAMAGED_SPANS: Counter = "nyx_log_damaged_spans_total" []
        "Spans in damaged places of the span log.";
    LOG_QUARANTINED_BYTES: Gauge in Bytes = "nyx_log_quarantined_bytes" []
        "Bytes that did not check and lie in the folder quarantine, whenever they came there.";
    LOG_TORN_BYTES: Gauge in Bytes = "nyx_log_torn_bytes" []
        "Bytes of groups that were never whole, cut off the span log's end when it was opened.";
    LOG_EVICTED_SPANS: Counter = "nyx_log_evicted_spans_total" []
        "Spans that made room in a full span log before every destination had them.";
    LOG_CHECKPOINTED_AT: Gauge in Seconds = "nyx_log_checkpoint_timestamp_seconds" []
        "When the last checkpoint of the span metrics was stored, since the Unix epoch; 0 if there is none.";

    // Only where spans are retained.
    RETENTION_BYTES: Gauge in Bytes = "nyx_retention_bytes" []
        "Bytes that the retention buffer holds.";
    RETENTION_MAX_BYTES: Gauge in Bytes = "nyx_retention_max_bytes" []
        "Bytes that the retention buffer holds at most.";
    RETENTION_SPANS: Gauge = "nyx_retention_spans" ["part"]
        "Spans that the retention buffer holds, by part.";
    RETENTION_UNSIFTED: Counter = "nyx_retention_unsifted_spans_total" []
        "Spans of batches that the retention buffer was never looked through for: they left too early, or were too large for it.";

    // Destinations: log end - start = exported + sampled out + dropped + queued.
    DESTINATION_START: Gauge = "nyx_destination_start_ordinal" ["destination"]
        "First ordinal that the destination was to get.";
    DESTINATION_POSITION: Gauge = "nyx_destination_position_ordinal" ["destination"]
        "Every span before this ordinal is settled.";
    DESTINATION_EXPORTED: Counter = "nyx_destination_exported_spans_total" ["destination"]
        "Spans that the destination acknowledged.";
    DESTINATION_SAMPLED_OUT: Counter = "nyx_destination_sampled_out_spans_total" ["destination"]
        "Spans that the sampling rate left out.";
    DESTINATION_DROPPED: Counter = "nyx_destination_dropped_spans_total" ["destination", "reason"]
        "Spans that the destination will never get, by reason.";
    DESTINATION_QUEUED: Gauge = "nyx_destination_queued_spans" ["destination"]
        "Spans that wait for the destination, those in flight included.";
    DESTINATION_IN_FLIGHT: Gauge = "nyx_destination_in_flight_requests" ["destination"]
        "Export requests without an answer yet.";
    DESTINATION_REQUESTS: Counter = "nyx_destination_requests_total" ["destination", "result"]
        "Export requests ended, by result.";
    DESTINATION_RETRIES: Counter = "nyx_destination_retries_total" ["destination"]
        "Export requests that repeated an earlier one.";
    DESTINATION_BYTES_SENT: Counter in Bytes = "nyx_destination_sent_bytes_total" ["destination"]
        "Bytes of export requests after compression, failed ones included.";
    DESTINATION_STATE: Gauge = "nyx_destination_state" ["destination", "state"]
        "1 for the state in which the destination is, 0 for the others.";
    DESTINATION_LAST_SUCCESS: Gauge in Seconds = "nyx_destination_last_success_timestamp_seconds" ["destination"]
        "When the destination last acknowledged a request, since the Unix epoch; 0 if it never did.";

    // Actors: accepted = handled + lost + abandoned + inbox depth + in hand.
    ACTOR_RESTARTS: Counter = "nyx_actor_restarts_total" ["actor"]
        "Restarts after a failure.";
    ACTOR_PANICS: Counter = "nyx_actor_panics_total" ["actor"]
        "Failures that were panics.";
    ACTOR_STUCK: Counter = "nyx_actor_stuck_total" ["actor"]
        "Replacements of an actor that had messages and handled none.";
    ACTOR_ACCEPTED: Counter = "nyx_actor_accepted_messages_total" ["actor"]
        "Messages that the inbox took.";
    ACTOR_HANDLED: Counter = "nyx_actor_handled_messages_total" ["actor"]
        "Messages handled to their end.";
    ACTOR_LOST: Counter = "nyx_actor_lost_messages_total" ["actor"]
        "Messages in hand when the actor failed.";
    ACTOR_ABANDONED: Counter = "nyx_actor_abandoned_messages_total" ["actor"]
        "Messages left in the inbox when the actor ended for good.";
    ACTOR_IN_HAND: Gauge = "nyx_actor_in_hand_messages" ["actor"]
        "Messages being handled.";
    ACTOR_INBOX_DEPTH: Gauge = "nyx_actor_inbox_depth" ["actor"]
        "Messages waiting in the inbox.";

    // Only where nyx traces itself.
    SELF_TRACING_SPANS: Counter = "nyx_self_tracing_spans_total" ["result"]
        "Spans about nyx itself, by result: exported, failed with their request, or dropped because too many waited.";

    CONFIG_RELOADS: Counter = "nyx_config_reloads_total" ["result"]
        "Times that the configuration was read again, by result.";
    CONFIG_LAST_RELOAD_SUCCESSFUL: Gauge = "nyx_config_last_reload_successful" []
        "1 if the configuration was valid when it was last read, else 0.";
    PAGE_LEFT_OUT: Counter = "nyx_page_left_out_series_total" []
        "Series that were left out of a metrics page because they would have broken it.";
    BUILD_INFO: Gauge = "nyx_build_info" ["version"]
        "1, with the version of the daemon as a label.";
    START_TIME: Gauge in Seconds = "nyx_start_time_seconds" []
        "When the daemon started, since the Unix epoch.";
}

families! {
    /// What takes the place of the first three under the other profiles.
    PROFILES:

    // As the spanmetrics connector of the OpenTelemetry collector has them.
    SPANMETRICS_CALLS: Counter = "traces_span_metrics_calls_total"
        ["service_name", "span_name", "span_kind", "status_code", "otel_metric_overflow"]
        "Spans that the log took, before sampling.";
    SPANMETRICS_DURATION: Histogram in Milliseconds = "traces_span_metrics_duration_milliseconds"
        ["service_name", "span_name", "span_kind", "status_code", "otel_metric_overflow"]
        "Durations of the spans that the log took; 0 where the end lies before the start.";

    // As the metrics generator of Grafana Tempo has them; its latency is in seconds.
    TEMPO_CALLS: Counter = "traces_spanmetrics_calls_total"
        ["service", "span_name", "span_kind", "status_code", "otel_metric_overflow"]
        "Spans that the log took, before sampling.";
    TEMPO_LATENCY: Histogram = "traces_spanmetrics_latency"
        ["service", "span_name", "span_kind", "status_code", "otel_metric_overflow"]
        "Durations in seconds of the spans that the log took; 0 where the end lies before the start.";
}

/// What is declared of families that have a span's name in their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedAfterSpans {
    /// What their names begin with.
    pub prefix: &'static str,
    /// One sentence.
    pub help: &'static str,
}

/// `nyx_span_count_NAME`.
pub static SEED_COUNT: NamedAfterSpans =
    NamedAfterSpans { prefix: "nyx_span_count_", help: "Spans of this name that the log took." };
/// `nyx_span_duration_ms_NAME`.
pub static SEED_DURATION: NamedAfterSpans = NamedAfterSpans {
    prefix: "nyx_span_duration_ms_",
    help: "The sum of the durations of the spans of this name, in milliseconds.",
};
/// `nyx_span_errors_NAME`.
pub static SEED_ERRORS: NamedAfterSpans =
    NamedAfterSpans { prefix: "nyx_span_errors_", help: "Spans of this name whose status is error." };

impl Family {
    /// The family's name in OpenMetrics: a counter's is without `_total`.
    pub fn open_name(&self) -> &'static str {
        match self.kind {
            Kind::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            Kind::Gauge | Kind::Histogram | Kind::Unknown => self.name,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{page::reserved_names, *};

    #[test]
    fn no_two_families_share_a_sample_name_in_any_format() {
        let mut seen = HashSet::new();
        for family in ALL.iter().chain(PROFILES) {
            for name in reserved_names(family.open_name(), family.kind) {
                assert!(
                    seen.insert(name.clone()),
                    "{name} is taken twice, the second time by {}",
                    family.name
                );
            }
        }
    }

    #[test]
    fn names_follow_the_practice_of_prometheus() {
        for family in ALL {
            let Family { name, help, kind, unit, labels } = family;
            assert!(name.starts_with("nyx_"), "{name} has no prefix");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name} is not in snake case");
            assert_eq!(
                name.ends_with("_total"),
                *kind == Kind::Counter,
                "{name}: counters, only, end in _total"
            );
            let named = [Unit::Bytes, Unit::Seconds]
                .into_iter()
                .find(|unit| family.open_name().ends_with(&format!("_{}", unit.name())));
            assert_eq!(named, *unit, "{name} ends with its unit");
            assert!(help.ends_with('.') && !help.contains(['\n', '\\', '"']), "{name} has an odd help text");
            for label in *labels {
                assert!(!label.starts_with("__") && !["le", "quantile"].contains(label), "{name} {label}");
            }
            assert_eq!(labels.iter().collect::<HashSet<_>>().len(), labels.len(), "{name} repeats a label");
        }
    }
}
