//! The settings, as plain data. Every field says its meaning, unit, default and range; the defaults
//! themselves stand in `config/default.toml` and nowhere else.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use nyx_telemetry::{
    accept::ListenAddr,
    export::{DestinationConfig, Endpoint},
    log::{Durability, segments::WhenFull},
};
use tracing::level_filters::LevelFilter;

/// The whole configuration of the daemon, valid by construction.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What the daemon calls itself, where spans go by default, and the admin pages.
    pub telemetry: Telemetry,
    /// The doors that spans come in by.
    pub ingest: Ingest,
    /// The span log.
    pub log: Log,
    /// The destinations: `default` first, the others by name. None when
    /// [`Telemetry::span_export_enabled`] is false. Their drain timeout is the daemon's matter: it follows from
    /// [`Shutdown::timeout`].
    pub export: Vec<DestinationConfig>,
    /// Threads.
    pub runtime: Runtime,
    /// The ordered stop.
    pub shutdown: Shutdown,
    /// The daemon's own log lines.
    pub tracing: Tracing,
}

/// `[telemetry]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    /// The `service.name` of the spans that this process makes itself. Default `nyx-daemon`; 1 to 255
    /// bytes. `OTEL_SERVICE_NAME` sets it too.
    pub service_name: String,
    /// Where the destination `default` is. Default `http://localhost:4317`. `OTEL_EXPORTER_OTLP_ENDPOINT`
    /// sets it too.
    pub otlp_endpoint: Endpoint,
    /// The share of traces that the destination `default` gets. Default 1; 0 to 1.
    pub otlp_sampling_rate: f64,
    /// Whether RED metrics are kept and `/metrics` is served. Default true.
    pub prometheus_enabled: bool,
    /// The address of the admin pages. Default `127.0.0.1:9100`; port 0 takes any free one.
    pub prometheus_addr: SocketAddr,
    /// Whether spans are exported at all; without, there are no destinations. Default true.
    pub span_export_enabled: bool,
}

/// `[ingest]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Ingest {
    /// Bytes of requests between the wire and the log, over all connections. Default 256 MiB; 64 KiB to
    /// 64 GiB.
    pub max_in_flight_bytes: usize,
    /// Bytes of one request after unpacking. Default 64 MiB; 1 KiB to 1 GiB, and neither above
    /// [`Ingest::max_in_flight_bytes`] nor above [`Log::max_bytes`], or in memory [`Log::memory_max_bytes`].
    pub max_request_bytes: usize,
    /// Connections open at a time, over all doors. Default 10,000; 1 to 1,000,000.
    pub max_connections: usize,
    /// How long the body of a request may take to arrive. Default 30 s; 10 ms to 1 h.
    pub body_timeout: Duration,
    /// How long a sender waits for the log to take what it sent. Default 5 s; 10 ms to 1 h.
    pub commit_timeout: Duration,
    /// The OTLP/gRPC door. Default `127.0.0.1:14317`.
    pub grpc: GrpcDoor,
    /// Spans made in this process.
    pub in_process: InProcess,
}

/// `[ingest.grpc]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcDoor {
    /// Where the door listens; `None` is off. Default `127.0.0.1:14317`.
    pub listen: Option<ListenAddr>,
}

/// `[ingest.in_process]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InProcess {
    /// Bytes of finished spans that wait for the log. Default 8 MiB; 64 KiB to 1 GiB.
    pub max_bytes: usize,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// What an acknowledged span survives. Default `process`.
    pub durability: Durability,
    /// The folder of the log's files, resolved: `$STATE_DIRECTORY`, else `/var/lib/nyx` for root, else
    /// `$XDG_STATE_HOME/nyx`, else `$HOME/.local/state/nyx`.
    pub dir: PathBuf,
    /// How long a start waits for another process to let go of the folder. Default 30 s; 0 to 1 h.
    pub lock_timeout: Duration,
    /// Bytes of all segment files. Default 10 GiB; 16 MiB to 16 TiB.
    pub max_bytes: u64,
    /// What happens beyond them. Default `refuse`.
    pub when_full: WhenFull,
    /// Bytes of the file system that the log leaves free. Default 256 MiB; 0 to 16 TiB.
    pub min_free_bytes: u64,
    /// A segment that has so many bytes gets no further group. Default 64 MiB; 64 KiB to 1 GiB, and not above a
    /// quarter of [`Log::max_bytes`].
    pub segment_bytes: u64,
    /// How often the span metrics are checkpointed. Default 5 s; 10 ms to 1 h.
    pub checkpoint_interval: Duration,
    /// Bytes of spans held with the durability `memory`. Default 256 MiB; 1 MiB to 64 GiB.
    pub memory_max_bytes: usize,
}

/// `[runtime]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// Threads for connections and their sockets. Default 0: one less than there are cores, at least one and at
    /// most four; 0 to 256.
    pub io_threads: usize,
}

/// `[shutdown]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shutdown {
    /// How long an ordered stop may take, behind the grace. Default 30 s; 10 ms to 1 h.
    pub timeout: Duration,
    /// How long requests are still taken after the signal, while `/readyz` says that no more should come. Default
    /// 1 s; 0, which is off, to 1 h.
    pub grace: Duration,
}

/// `[tracing]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracing {
    /// The least severe line that is written. Default `info`. `RUST_LOG` wins.
    pub level: LevelFilter,
    /// The form of a line. Default `auto`.
    pub format: LogFormat,
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
