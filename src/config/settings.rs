//! The settings: every table of the configuration, its keys and their meaning. The defaults stand in
//! `config/default.toml` and nowhere else. `section.rs` says how a key is added.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use nyx_telemetry::{
    accept::ListenAddr,
    bearer::TokenFile,
    export::{DestinationConfig, Endpoint},
    log::{Durability, segments::WhenFull},
};
use tracing::level_filters::LevelFilter;

use super::{
    destinations::destinations,
    kinds::{address, bytes, duration, endpoint, flag, listen, number, path, text, token_file, whole, word},
    metrics::Metrics,
    pairs,
    section::{declare, section},
    self_tracing::own,
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
const TIB: u64 = 1 << 40;
const HOUR_MS: u64 = 3_600_000;

fn ms(from: u64, to: u64) -> RangeInclusive<Duration> {
    Duration::from_millis(from)..=Duration::from_millis(to)
}

declare! {
    /// The whole configuration of the daemon, valid by construction.
    pub struct Config {
        /// What the daemon calls itself, where the spans go by default, and the admin pages.
        telemetry: Telemetry = section(),
        /// The doors that spans come in by.
        ingest: Ingest = section(),
        /// The span log.
        log: Log = section(),
        /// How the span metrics are kept.
        ///
        /// When one of the first three changes between a stop and a start, they begin at 0, with a log line that says so. A
        /// [reload](#reload) with other dimensions or another cap lets them go on.
        metrics: Metrics = section(),
        /// The retention buffer: the last spans in memory, for `/api/v1/spans`.
        retention: Retention = section(),
        /// The destinations: `default` first, the others by name.
        ///
        /// `default` always exists, unless `telemetry.span_export_enabled` is false, which means no destinations at all; its
        /// endpoint and sampling rate are those of `[telemetry]`, and setting them under `[export.default]` is an error.
        /// Any other NAME (1 to 32 characters of a-z, 0-9, `_` and `-`) adds a destination, which needs an `endpoint` and has
        /// the defaults below for the rest, whatever `default` was given. Each destination gets its own share of all spans.
        export: Vec<DestinationConfig> = destinations(),
        /// Threads.
        runtime: Runtime = section(),
        /// The ordered stop.
        shutdown: Shutdown = section(),
        /// The daemon's own log lines, on standard error.
        tracing: Tracing = section(),
        /// Traces about the daemon itself, sent by themselves: they take no part in the log and the destinations.
        ///
        /// They are of the service `telemetry.service_name`, with the attributes of `telemetry.resource`. OpenTelemetry's variables
        /// say nothing of where they go: those describe the destination `default`. A change takes effect with the next start.
        self_tracing: Option<DestinationConfig> = own(),
    }
}

declare! {
    /// `[telemetry]`.
    pub struct Telemetry {
        /// The `service.name` of the spans that this process makes itself, which are those about itself (`[self_tracing]`).
        service_name: String = text(1..=255),
        /// Where the destination `default` is.
        otlp_endpoint: Endpoint = endpoint(),
        /// The share of traces that the destination `default` gets, whole traces at a time; the metrics count every span.
        otlp_sampling_rate: f64 = number(DestinationConfig::SAMPLING_RATE),
        /// Whether RED metrics are kept and `/metrics` is served; false: `/metrics` answers 404, the other admin pages stay.
        prometheus_enabled: bool = flag(),
        /// The address of the admin pages (`/metrics`, `/stats`, `/health`, `/livez`, `/readyz`, `/api/v1/spans`); 9100 is also
        /// node_exporter's. Port 0 takes any free one.
        prometheus_addr: SocketAddr = address(),
        /// The tokens of which one has to come with each request for an admin page but `/livez` and `/readyz`, as
        /// `authorization: Bearer TOKEN`; see [Tokens](#tokens). Empty asks for none.
        prometheus_token_file: Option<TokenFile> = token_file(),
        /// Whether spans are exported; false means no destinations at all.
        span_export_enabled: bool = flag(),
        /// Further attributes of the resource of the spans that this process makes itself, by name. In a variable:
        /// `name=value,name=value` with URL-encoded values.
        resource: Vec<(String, String)> = pairs::attributes(),
    }
}

declare! {
    /// `[ingest]`.
    pub struct Ingest {
        /// Bytes of requests between the wire and the log, over all connections; beyond it senders are told to come back
        /// later.
        max_in_flight_bytes: usize = bytes(64 * KIB..=64 * GIB),
        /// Bytes of one request after unpacking; a larger one is refused for good. Neither above `ingest.max_in_flight_bytes`
        /// nor above `log.max_bytes` (in memory `log.memory_max_bytes`).
        max_request_bytes: usize = bytes(KIB..=GIB),
        /// Connections open at a time, over all doors.
        max_connections: usize = whole(1..=1_000_000),
        /// How long the body of a request may take to arrive.
        body_timeout: Duration = duration(ms(10, HOUR_MS)),
        /// How long a sender waits for the log before it is told to come back later.
        commit_timeout: Duration = duration(ms(10, HOUR_MS)),
        /// The tokens of which one has to come with each request at a door, as `authorization: Bearer TOKEN`; see
        /// [Tokens](#tokens). Empty asks for none.
        token_file: Option<TokenFile> = token_file(),
        /// The OTLP/gRPC door.
        grpc: GrpcDoor = section(),
        /// The OTLP/HTTP door.
        http: HttpDoor = section(),
        /// Spans made in this process.
        in_process: InProcess = section(),
    }
}

declare! {
    /// `[ingest.grpc]`.
    pub struct GrpcDoor {
        /// Where the OTLP/gRPC door listens; off where it is empty.
        listen: Option<ListenAddr> = listen(),
        /// The files of its TLS.
        tls: DoorTls = section(),
    }
}

declare! {
    /// `[ingest.http]`.
    pub struct HttpDoor {
        /// Where the OTLP/HTTP door (`POST /v1/traces`) listens; off where it is empty.
        listen: Option<ListenAddr> = listen(),
        /// The files of its TLS.
        tls: DoorTls = section(),
    }
}

declare! {
    /// `[ingest.grpc.tls]` and `[ingest.http.tls]`.
    pub struct DoorTls {
        /// The certificate in PEM that clients are shown, behind it those between it and its authority. Where it is set the door
        /// speaks TLS 1.3 and 1.2, and no plain text. Not with a Unix socket.
        cert_file: PathBuf = path(),
        /// Its key in PEM, not encrypted: RSA, ECDSA on P-256 or P-384, or Ed25519.
        key_file: PathBuf = path(),
        /// Certificates in PEM of the authorities of which one has to have signed a client's certificate. Empty: clients are
        /// asked for none.
        client_ca_file: PathBuf = path(),
    }
}

declare! {
    /// `[ingest.in_process]`.
    pub struct InProcess {
        /// Bytes of finished spans of this process that may wait for the log; beyond it they are dropped and counted.
        max_bytes: usize = bytes(64 * KIB..=GIB),
    }
}

declare! {
    /// `[log]`.
    pub struct Log {
        /// What an acknowledged span survives. `process`: the end of the process, however sudden, not the machine's. `power`: a
        /// power cut too; each group of batches is synced before it is acknowledged. `memory`: the crash of an actor and
        /// nothing else; a start is refused (status 78) while the folder holds spans that a destination has not had.
        durability: Durability = word([
            ("memory", Durability::Memory),
            ("process", Durability::Process),
            ("power", Durability::Power),
        ]),
        /// The folder of the log's files, made where there is none, for its owner alone (0700, files 0600). Empty:
        /// `$STATE_DIRECTORY`, else `/var/lib/nyx` for root, else `$XDG_STATE_HOME/nyx`, else `$HOME/.local/state/nyx`, else
        /// `/var/lib/nyx`.
        dir: PathBuf = path(),
        /// A folder is one process's. How long a start waits for another to let go of it, before anything is opened; then the
        /// exit status is 75.
        lock_timeout: Duration = duration(ms(0, HOUR_MS)),
        /// Bytes of the log's segment files. What every destination and the stored span metrics have is removed, by the
        /// segment.
        max_bytes: u64 = bytes(16 * MIB as u64..=16 * TIB),
        /// What happens beyond `log.max_bytes`, or below `log.min_free_bytes`. `refuse`: senders are told to come back later.
        /// `drop_oldest`: the oldest segment is removed; spans that a destination had not had are counted as dropped.
        when_full: WhenFull = word([("refuse", WhenFull::Refuse), ("drop_oldest", WhenFull::DropOldest)]),
        /// Bytes of the file system that the log leaves free.
        min_free_bytes: u64 = bytes(0..=16 * TIB),
        /// A segment file that has so many bytes is finished. A start reads the last one. Not above a quarter of
        /// `log.max_bytes`.
        segment_bytes: u64 = bytes(64 * KIB as u64..=GIB as u64),
        /// How often the counters of the span metrics are stored, so that a restart goes on with them.
        checkpoint_interval: Duration = duration(ms(10, HOUR_MS)),
        /// Only with `memory`: bytes of spans held until every destination and the metrics have them; when full, senders are
        /// told to come back later.
        memory_max_bytes: usize = bytes(MIB..=64 * GIB),
    }
}

declare! {
    /// `[retention]`.
    pub struct Retention {
        /// Bytes of the last spans that stay readable at `/api/v1/spans`, errors and slow ones longest; 0 is off. Half of them
        /// are for whole batches, the newest.
        max_bytes: usize = bytes(0..=64 * GIB),
        /// A span that took this long or longer is slow.
        slow: Duration = duration(ms(0, HOUR_MS)),
    }
}

declare! {
    /// `[runtime]`.
    pub struct Runtime {
        /// Threads for connections and their sockets; 0 means one less than there are cores, at least one and at most four.
        io_threads: usize = whole(0..=256),
    }
}

declare! {
    /// `[shutdown]`.
    pub struct Shutdown {
        /// How long an ordered stop may take. Exporters deliver what is there until 2 s before its end (half of it where it is
        /// shorter than 4 s), each destination its share; what they cannot deliver stays in the log, and is counted in the last
        /// log line. With the durability `memory` it is lost.
        timeout: Duration = duration(ms(10, HOUR_MS)),
        /// How long requests are still taken after SIGTERM or SIGINT, while `/readyz` and `/health` answer 503, so that whoever
        /// balances the load sends elsewhere. Then the ordered stop begins: the grace comes on top of `shutdown.timeout`. 0 is
        /// off.
        grace: Duration = duration(ms(0, HOUR_MS)),
    }
}

declare! {
    /// `[tracing]`.
    pub struct Tracing {
        /// The least severe line that is written; `RUST_LOG` wins. `debug` and `trace` are for the daemon's own lines: those of
        /// the libraries in it, which can hold what senders send, stay at `info`.
        level: LevelFilter = word([
            ("off", LevelFilter::OFF),
            ("error", LevelFilter::ERROR),
            ("warn", LevelFilter::WARN),
            ("info", LevelFilter::INFO),
            ("debug", LevelFilter::DEBUG),
            ("trace", LevelFilter::TRACE),
        ]),
        /// The form of a line. `auto`: text on a terminal, JSON otherwise.
        format: LogFormat =
            word([("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)]),
        /// Lines that one place in the program may write within 10 s. Further ones are left out, which is said at once, and
        /// how many they were when the time is over. 0 is no limit.
        burst: u32 = whole(0..=1_000_000),
    }
}

/// `tracing.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}
