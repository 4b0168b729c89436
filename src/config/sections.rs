//! Each table of the configuration, read into its struct.
//!
//! A function reads all its keys before it gives up on any, so that one run names every problem.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use config::{Map, Value};
use tracing::level_filters::LevelFilter;

use super::{
    address::{Endpoint, Listen},
    environment::Environment,
    headers,
    read::{Noted, Read, Table, address, bytes, duration, flag, number, origin, parsed, text, whole},
    settings::{
        Batch, Compression, Config, Destination, Durability, GrpcDoor, InProcess, Ingest, Log, LogFormat,
        Retry, Runtime, Shutdown, Telemetry, Tracing,
    },
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// What a destination's keys mean under `[telemetry]`, which describes this one.
const DEFAULT_DESTINATION: &str = "default";

/// Characters of a destination's name; it is a label of metrics and a part of variables' names.
const NAME_CHARS_MAX: usize = 32;

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
    for (key, limit) in [
        ("ingest.max_in_flight_bytes", config.ingest.max_in_flight_bytes),
        ("log.memory_max_bytes", config.log.memory_max_bytes),
    ] {
        if request > limit {
            problems.note(format!(
                "ingest.max_request_bytes is {request}: must not be above {key}, which is {limit}"
            ));
        }
    }
    Ok(config)
}

fn telemetry(mut table: Table<'_>) -> Read<Telemetry> {
    let service_name = table.get("service_name", text(1..=255));
    let otlp_endpoint = table.get("otlp_endpoint", parsed(Endpoint::parse));
    let otlp_sampling_rate = table.get("otlp_sampling_rate", number(0.0..=1.0));
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
        let listen = table.get("listen", parsed(Listen::parse));
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

fn http_listen(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    Err("the OTLP/HTTP door is not part of this version: must be empty".into())
}

fn log(mut table: Table<'_>, environment: &Environment) -> Read<Log> {
    let durability = table.get("durability", parsed(durability));
    let memory_max_bytes = table.get("memory_max_bytes", bytes(MIB..=64 * GIB));
    let dir = table.get("dir", text(0..=4095));
    table.finish();
    let dir = dir?;
    Ok(Log {
        durability: durability?,
        memory_max_bytes: memory_max_bytes?,
        dir: if dir.is_empty() { environment.state_dir() } else { PathBuf::from(dir) },
    })
}

fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "memory" => Ok(Durability::Memory),
        "process" | "power" => Err("known, but not part of this version: must be \"memory\"".into()),
        _ => Err("must be \"memory\"".into()),
    }
}

/// The destinations. `[telemetry]` describes the first; when it could not be read, neither can that one.
fn export(
    mut table: Table<'_>,
    defaults: &Map<String, Value>,
    telemetry: Option<&Telemetry>,
) -> Read<Vec<Destination>> {
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
) -> Read<Destination> {
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
) -> Read<Destination> {
    let well_formed = (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-');
    let mut table = export.table(&name)?;
    if !well_formed {
        return Err(table.problems.note(format!(
            "[{}]: a destination's name must be 1 to {NAME_CHARS_MAX} characters of a-z, 0-9, _ and -",
            table.key("").trim_end_matches('.')
        )));
    }
    let endpoint = table.get("endpoint", parsed(Endpoint::parse));
    let sampling_rate = table.optional("sampling_rate", number(0.0..=1.0));
    let place = endpoint.and_then(|endpoint| Ok((endpoint, sampling_rate?.unwrap_or(1.0))));
    destination(table, defaults, name, place)
}

fn destination(
    mut table: Table<'_>,
    defaults: &Map<String, Value>,
    name: String,
    place: Read<(Endpoint, f64)>,
) -> Read<Destination> {
    table.fill(defaults);
    let timeout = table.get("timeout", duration(ms(10, HOUR_MS)));
    let headers = headers::read(&mut table);
    let compression = table.get("compression", parsed(compression));
    let concurrency = table.get("concurrency", whole(1..=64));
    let batch = table.table("batch").and_then(batch);
    let retry = table.table("retry").and_then(retry);
    table.finish();
    let (endpoint, sampling_rate) = place?;
    Ok(Destination {
        name,
        endpoint,
        sampling_rate,
        timeout: timeout?,
        headers: headers?,
        compression: compression?,
        concurrency: concurrency?,
        batch: batch?,
        retry: retry?,
    })
}

fn compression(text: &str) -> Result<Compression, String> {
    match text {
        "none" => Ok(Compression::None),
        "gzip" => Ok(Compression::Gzip),
        _ => Err("must be \"none\" or \"gzip\"".into()),
    }
}

fn batch(mut table: Table<'_>) -> Read<Batch> {
    let min_spans = table.get("min_spans", whole(1..=1_000_000));
    let max_spans = table.get("max_spans", whole(1..=1_000_000));
    let max_bytes = table.get("max_bytes", bytes(KIB..=GIB));
    let max_delay = table.get("max_delay", duration(ms(0, HOUR_MS)));
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

fn retry(mut table: Table<'_>) -> Read<Retry> {
    let initial = table.get("initial", duration(ms(1, HOUR_MS)));
    let max = table.get("max", duration(ms(1, HOUR_MS)));
    let max_retries = table.optional("max_retries", whole(0..=u32::MAX));
    let max_elapsed = table.optional("max_elapsed", duration(ms(10, 30 * 24 * HOUR_MS)));
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
    table.finish();
    Ok(Shutdown { timeout: timeout? })
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
