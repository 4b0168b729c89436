//! Each table of the configuration, read into its struct.
//!
//! A function reads all its keys before it gives up on any, so that one run names every problem.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use config::{Map, Value};
use nyx_telemetry::{
    accept::{AddressError, ListenAddr},
    export::{Backoff, DestinationConfig, Endpoint},
    log::{
        Durability,
        segments::{StartAt, WhenFull},
    },
};
use tracing::level_filters::LevelFilter;

use super::{
    environment::Environment,
    headers,
    read::{Noted, Read, Table, address, bytes, duration, flag, number, origin, parsed, text, whole},
    settings::{Config, GrpcDoor, InProcess, Ingest, Log, LogFormat, Runtime, Shutdown, Telemetry, Tracing},
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
const TIB: u64 = 1 << 40;

/// What a destination's keys mean under `[telemetry]`, which describes this one.
const DEFAULT_DESTINATION: &str = "default";

fn ms(from: u64, to: u64) -> RangeInclusive<Duration> {
    Duration::from_millis(from)..=Duration::from_millis(to)
}

const HOUR_MS: u64 = 3_600_000;

/// Reads the whole. `destination` holds the defaults of a destination.
pub(super) fn whole_config(
    mut root: Table<'_>,
    destination: &Map<String, Value>,
    environment: &Environment,
) -> Read<Config> {
    let telemetry = root.table("telemetry").and_then(telemetry);
    let ingest = root.table("ingest").and_then(ingest);
    let log = root.table("log").and_then(|table| log(table, environment));
    let export = root.table("export").and_then(|table| export(table, destination, telemetry.as_ref().ok()));
    let runtime = root.table("runtime").and_then(runtime);
    let shutdown = root.table("shutdown").and_then(shutdown);
    let tracing = root.table("tracing").and_then(tracing);
    let problems = root.problems;
    root.finish();

    let config = Config {
        telemetry: telemetry?,
        ingest: ingest?,
        log: log?,
        export: export?,
        runtime: runtime?,
        shutdown: shutdown?,
        tracing: tracing?,
    };
    // A request that does not fit would be refused for good, each time its sender comes back.
    let request = config.ingest.max_request_bytes;
    let Log { durability, max_bytes, segment_bytes, .. } = config.log;
    let of_the_log = match durability {
        Durability::Memory => ("log.memory_max_bytes", config.log.memory_max_bytes as u64),
        Durability::Process | Durability::Power => ("log.max_bytes", max_bytes),
    };
    for (key, limit) in [("ingest.max_in_flight_bytes", config.ingest.max_in_flight_bytes as u64), of_the_log]
    {
        if request as u64 > limit {
            problems.note(format!(
                "ingest.max_request_bytes is {request}: must not be above {key}, which is {limit}"
            ));
        }
    }
    // Room is made by the segment.
    if durability != Durability::Memory && segment_bytes > max_bytes / 4 {
        problems.note(format!(
            "log.segment_bytes is {segment_bytes}: must not be above a quarter of log.max_bytes, which is {max_bytes}"
        ));
    }
    Ok(config)
}

fn telemetry(mut table: Table<'_>) -> Read<Telemetry> {
    let service_name = table.get("service_name", text(1..=255));
    let otlp_endpoint = table.get("otlp_endpoint", parsed(endpoint));
    let otlp_sampling_rate = table.get("otlp_sampling_rate", number(DestinationConfig::SAMPLING_RATE));
    let prometheus_enabled = table.get("prometheus_enabled", flag);
    let prometheus_addr = table.get("prometheus_addr", address);
    let span_export_enabled = table.get("span_export_enabled", flag);
    table.finish();
    Ok(Telemetry {
        service_name: service_name?,
        otlp_endpoint: otlp_endpoint?,
        otlp_sampling_rate: otlp_sampling_rate?,
        prometheus_enabled: prometheus_enabled?,
        prometheus_addr: prometheus_addr?,
        span_export_enabled: span_export_enabled?,
    })
}

fn ingest(mut table: Table<'_>) -> Read<Ingest> {
    let max_in_flight_bytes = table.get("max_in_flight_bytes", bytes(64 * KIB..=64 * GIB));
    let max_request_bytes = table.get("max_request_bytes", bytes(KIB..=GIB));
    let max_connections = table.get("max_connections", whole(1..=1_000_000));
    let body_timeout = table.get("body_timeout", duration(ms(10, HOUR_MS)));
    let commit_timeout = table.get("commit_timeout", duration(ms(10, HOUR_MS)));
    let grpc = table.table("grpc").and_then(|mut table| {
        let listen = table.get("listen", parsed(listen));
        table.finish();
        Ok(GrpcDoor { listen: listen? })
    });
    let http = table.table("http").and_then(|mut table| {
        let listen = table.get("listen", parsed(http_listen));
        table.finish();
        listen
    });
    let in_process = table.table("in_process").and_then(|mut table| {
        let max_bytes = table.get("max_bytes", bytes(64 * KIB..=GIB));
        table.finish();
        Ok(InProcess { max_bytes: max_bytes? })
    });
    table.finish();
    http?;
    Ok(Ingest {
        max_in_flight_bytes: max_in_flight_bytes?,
        max_request_bytes: max_request_bytes?,
        max_connections: max_connections?,
        body_timeout: body_timeout?,
        commit_timeout: commit_timeout?,
        grpc: grpc?,
        in_process: in_process?,
    })
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    Endpoint::parse(text).map_err(|error| error.rule().to_owned())
}

fn listen(text: &str) -> Result<Option<ListenAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error: AddressError| format!("{}; empty is off", error.rule()))
}

fn http_listen(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    Err("the OTLP/HTTP door is not part of this version: must be empty".into())
}

fn log(mut table: Table<'_>, environment: &Environment) -> Read<Log> {
    let durability = table.get("durability", parsed(durability));
    let dir = table.get("dir", text(0..=4095));
    let lock_timeout = table.get("lock_timeout", duration(ms(0, HOUR_MS)));
    let max_bytes = table.get("max_bytes", bytes(16 * MIB as u64..=16 * TIB));
    let when_full = table.get("when_full", parsed(when_full));
    let min_free_bytes = table.get("min_free_bytes", bytes(0..=16 * TIB));
    let segment_bytes = table.get("segment_bytes", bytes(64 * KIB as u64..=GIB as u64));
    let checkpoint_interval = table.get("checkpoint_interval", duration(ms(10, HOUR_MS)));
    let memory_max_bytes = table.get("memory_max_bytes", bytes(MIB..=64 * GIB));
    table.finish();
    let dir = dir?;
    Ok(Log {
        durability: durability?,
        dir: if dir.is_empty() { environment.state_dir() } else { PathBuf::from(dir) },
        lock_timeout: lock_timeout?,
        max_bytes: max_bytes?,
        when_full: when_full?,
        min_free_bytes: min_free_bytes?,
        segment_bytes: segment_bytes?,
        checkpoint_interval: checkpoint_interval?,
        memory_max_bytes: memory_max_bytes?,
    })
}

fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "memory" => Ok(Durability::Memory),
        "process" => Ok(Durability::Process),
        "power" => Ok(Durability::Power),
        _ => Err("must be \"memory\", \"process\" or \"power\"".into()),
    }
}

fn when_full(text: &str) -> Result<WhenFull, String> {
    match text {
        "refuse" => Ok(WhenFull::Refuse),
        "drop_oldest" => Ok(WhenFull::DropOldest),
        _ => Err("must be \"refuse\" or \"drop_oldest\"".into()),
    }
}

/// The destinations. `[telemetry]` describes the first; when it could not be read, neither can that one.
fn export(
    mut table: Table<'_>,
    defaults: &Map<String, Value>,
    telemetry: Option<&Telemetry>,
) -> Read<Vec<DestinationConfig>> {
    let mut destinations = vec![default_destination(&mut table, defaults, telemetry)];
    for name in table.names() {
        destinations.push(further_destination(&mut table, defaults, name));
    }
    let destinations = destinations.into_iter().collect::<Read<Vec<_>>>()?;
    Ok(if telemetry.is_some_and(|telemetry| telemetry.span_export_enabled) {
        destinations
    } else {
        Vec::new()
    })
}

fn default_destination(
    export: &mut Table<'_>,
    defaults: &Map<String, Value>,
    telemetry: Option<&Telemetry>,
) -> Read<DestinationConfig> {
    let mut table = export.table(DEFAULT_DESTINATION)?;
    for (name, elsewhere) in
        [("endpoint", "telemetry.otlp_endpoint"), ("sampling_rate", "telemetry.otlp_sampling_rate")]
    {
        if let Some(value) = table.take(name) {
            let key = table.key(name);
            let origin = origin(&value).map(|origin| format!(" ({origin})")).unwrap_or_default();
            table.problems.note(format!(
                "{key}{origin}: the destination \"default\" has it from {elsewhere}: set that"
            ));
        }
    }
    let place = telemetry.map(|t| (t.otlp_endpoint.clone(), t.otlp_sampling_rate)).ok_or(Noted);
    destination(table, defaults, DEFAULT_DESTINATION.to_owned(), place)
}

fn further_destination(
    export: &mut Table<'_>,
    defaults: &Map<String, Value>,
    name: String,
) -> Read<DestinationConfig> {
    let mut table = export.table(&name)?;
    if let Err(rule) = DestinationConfig::check_name(&name) {
        let section = table.key("");
        let section = section.trim_end_matches('.');
        return Err(table.problems.note(format!("[{section}]: a destination's name {rule}")));
    }
    let endpoint = table.get("endpoint", parsed(endpoint));
    let sampling_rate = table.optional("sampling_rate", number(DestinationConfig::SAMPLING_RATE));
    let place = endpoint.and_then(|endpoint| Ok((endpoint, sampling_rate?.unwrap_or(1.0))));
    destination(table, defaults, name, place)
}

fn destination(
    mut table: Table<'_>,
    defaults: &Map<String, Value>,
    name: String,
    place: Read<(Endpoint, f64)>,
) -> Read<DestinationConfig> {
    table.fill(defaults);
    let start = table.get("start", parsed(start));
    let timeout = table.get("timeout", duration(DestinationConfig::TIMEOUT));
    let headers = headers::read(&mut table);
    let gzip = table.get("compression", parsed(gzip));
    let concurrency = table.get("concurrency", whole(DestinationConfig::CONCURRENCY));
    let batch = table.table("batch").and_then(batch);
    let retry = table.table("retry").and_then(retry);
    table.finish();
    let (endpoint, sampling_rate) = place?;
    let (batch, retry) = (batch?, retry?);
    Ok(DestinationConfig {
        start: start?,
        timeout: timeout?,
        headers: headers?,
        gzip: gzip?,
        sampling_rate,
        min_batch_spans: batch.min_spans,
        max_batch_spans: batch.max_spans,
        max_batch_bytes: batch.max_bytes,
        max_delay: batch.max_delay,
        concurrency: concurrency?,
        backoff: Backoff { initial: retry.initial, cap: retry.max, ..Backoff::default() },
        max_retries: retry.max_retries,
        max_elapsed: retry.max_elapsed,
        ..DestinationConfig::new(&name, &endpoint.to_string())
    })
}

fn start(text: &str) -> Result<StartAt, String> {
    match text {
        "end" => Ok(StartAt::End),
        "beginning" => Ok(StartAt::Beginning),
        _ => Err("must be \"end\" or \"beginning\"".into()),
    }
}

fn gzip(text: &str) -> Result<bool, String> {
    match text {
        "none" => Ok(false),
        "gzip" => Ok(true),
        _ => Err("must be \"none\" or \"gzip\"".into()),
    }
}

struct Batch {
    min_spans: u64,
    max_spans: u64,
    max_bytes: usize,
    max_delay: Duration,
}

fn batch(mut table: Table<'_>) -> Read<Batch> {
    let min_spans = table.get("min_spans", whole(DestinationConfig::BATCH_SPANS));
    let max_spans = table.get("max_spans", whole(DestinationConfig::BATCH_SPANS));
    let max_bytes = table.get("max_bytes", bytes(DestinationConfig::BATCH_BYTES));
    let max_delay = table.get("max_delay", duration(DestinationConfig::MAX_DELAY));
    let (min_key, max_key) = (table.key("min_spans"), table.key("max_spans"));
    let problems = table.problems;
    table.finish();
    let batch =
        Batch { min_spans: min_spans?, max_spans: max_spans?, max_bytes: max_bytes?, max_delay: max_delay? };
    let Batch { min_spans, max_spans, .. } = batch;
    if min_spans > max_spans {
        problems.note(format!("{min_key} is {min_spans}: must not be above {max_key}, which is {max_spans}"));
    }
    Ok(batch)
}

struct Retry {
    initial: Duration,
    max: Duration,
    max_retries: Option<u32>,
    max_elapsed: Option<Duration>,
}

fn retry(mut table: Table<'_>) -> Read<Retry> {
    let initial = table.get("initial", duration(DestinationConfig::BACKOFF));
    let max = table.get("max", duration(DestinationConfig::BACKOFF));
    let max_retries = table.optional("max_retries", whole(0..=u32::MAX));
    let max_elapsed = table.optional("max_elapsed", duration(DestinationConfig::MAX_ELAPSED));
    let (initial_key, max_key) = (table.key("initial"), table.key("max"));
    let problems = table.problems;
    table.finish();
    let retry = Retry { initial: initial?, max: max?, max_retries: max_retries?, max_elapsed: max_elapsed? };
    let Retry { initial, max, .. } = retry;
    if initial > max {
        problems.note(format!("{initial_key} is {initial:?}: must not be above {max_key}, which is {max:?}"));
    }
    Ok(retry)
}

fn runtime(mut table: Table<'_>) -> Read<Runtime> {
    let io_threads = table.get("io_threads", whole(0..=256));
    table.finish();
    Ok(Runtime { io_threads: io_threads? })
}

fn shutdown(mut table: Table<'_>) -> Read<Shutdown> {
    let timeout = table.get("timeout", duration(ms(10, HOUR_MS)));
    let grace = table.get("grace", duration(ms(0, HOUR_MS)));
    table.finish();
    Ok(Shutdown { timeout: timeout?, grace: grace? })
}

fn tracing(mut table: Table<'_>) -> Read<Tracing> {
    let level = table.get("level", parsed(level));
    let format = table.get("format", parsed(format));
    table.finish();
    Ok(Tracing { level: level?, format: format? })
}

fn level(text: &str) -> Result<LevelFilter, String> {
    match text {
        "off" => Ok(LevelFilter::OFF),
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err("must be \"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\"".into()),
    }
}

fn format(text: &str) -> Result<LogFormat, String> {
    match text {
        "auto" => Ok(LogFormat::Auto),
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("must be \"auto\", \"text\" or \"json\"".into()),
    }
}
