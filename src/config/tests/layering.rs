use std::{path::Path, time::Duration};

use nyx_telemetry::{
    export::{DestinationConfig, Endpoint, Protocol},
    log::{
        Durability,
        segments::{SegmentLogConfig, StartAt, WhenFull},
    },
    measure::{Bounds, Dimensions, Profile, RedSettings},
    retain::RetentionConfig,
    tree::{LogForm, TreeConfig},
};
use tracing::level_filters::LevelFilter;

use super::{load, loaded};
use crate::config::{
    Config, DoorTls, GrpcDoor, HttpDoor, InProcess, Ingest, Log, LogFormat, Metrics, Retention, Runtime,
    Shutdown, Telemetry, Tracing,
};

fn local_collector() -> Endpoint {
    Endpoint::parse("http://localhost:4317").unwrap()
}

/// That of the library: the built-in file says the same as the library does.
fn default_destination() -> DestinationConfig {
    DestinationConfig::new("default", "http://localhost:4317")
}

fn no_tls() -> DoorTls {
    DoorTls { cert_file: "".into(), key_file: "".into(), client_ca_file: "".into() }
}

#[test]
fn without_files_and_variables_everything_has_its_default() {
    let expected = Config {
        telemetry: Telemetry {
            service_name: "nyx-daemon".into(),
            otlp_endpoint: local_collector(),
            otlp_sampling_rate: 1.0,
            prometheus_enabled: true,
            prometheus_addr: "127.0.0.1:9100".parse().unwrap(),
            prometheus_token_file: None,
            span_export_enabled: true,
            resource: vec![],
        },
        ingest: Ingest {
            max_in_flight_bytes: 256 << 20,
            max_request_bytes: 64 << 20,
            max_connections: 10_000,
            body_timeout: Duration::from_secs(30),
            commit_timeout: Duration::from_secs(5),
            token_file: None,
            grpc: GrpcDoor { listen: Some("127.0.0.1:14317".parse().unwrap()), tls: no_tls() },
            http: HttpDoor { listen: Some("127.0.0.1:14318".parse().unwrap()), tls: no_tls() },
            in_process: InProcess { max_bytes: 8 << 20 },
        },
        log: Log {
            durability: Durability::Process,
            dir: "/home/me/.local/state/nyx".into(),
            lock_timeout: Duration::from_secs(30),
            max_bytes: 10 << 30,
            when_full: WhenFull::Refuse,
            min_free_bytes: 256 << 20,
            segment_bytes: 64 << 20,
            checkpoint_interval: Duration::from_secs(5),
            memory_max_bytes: 268_435_456,
        },
        metrics: Metrics {
            max_series: 2_000,
            histogram_bounds: Bounds::default(),
            dimensions: Dimensions::default(),
            expire_after: None,
            profile: Profile::Nyx,
            seed_families: true,
        },
        retention: Retention { max_bytes: 16 << 20, slow: Duration::from_secs(1) },
        export: vec![default_destination()],
        runtime: Runtime { io_threads: 0 },
        shutdown: Shutdown { timeout: Duration::from_secs(30), grace: Duration::from_secs(1) },
        tracing: Tracing { level: LevelFilter::INFO, format: LogFormat::Auto, burst: 50 },
        self_tracing: None,
    };
    assert_eq!(loaded(&[], &[]), expected);
}

#[test]
fn the_defaults_that_the_library_has_too_are_the_same() {
    let config = loaded(&[], &[]);
    let tree = TreeConfig::default();
    assert_eq!(config.telemetry.prometheus_enabled, tree.measure);
    let LogForm::Memory { max_bytes } = tree.log else { panic!("the library's default is memory") };
    assert_eq!(config.log.memory_max_bytes, max_bytes);
    assert_eq!(config.log.checkpoint_interval, tree.checkpoint_interval);
    assert_eq!(config.metrics.red(), tree.red);
    let log = SegmentLogConfig::new("/nowhere");
    assert_eq!(
        (config.log.durability, config.log.max_bytes, config.log.when_full),
        (log.durability, log.max_bytes, log.when_full)
    );
    assert_eq!(
        (config.log.min_free_bytes, config.log.segment_bytes),
        (log.min_free_bytes, log.segment_bytes)
    );
    assert_eq!(config.runtime.io_threads, tree.io_threads);
    assert_eq!(config.ingest.in_process.max_bytes, tree.in_process_max_bytes);
    assert_eq!(config.ingest.max_connections, tree.max_connections);
    assert_eq!(config.ingest.max_in_flight_bytes, tree.max_in_flight_bytes);
    assert_eq!(config.ingest.max_request_bytes, tree.request_limits.max_request_bytes);
    assert_eq!(config.ingest.body_timeout, tree.request_limits.body_timeout);
    assert_eq!(config.ingest.commit_timeout, tree.commit_timeout);
    let Retention { max_bytes, slow } = config.retention;
    assert_eq!(RetentionConfig { max_bytes, slow }, tree.retention);
    assert_eq!(config.export, [default_destination()]);
}

#[test]
fn each_layer_beats_the_one_before() {
    let service =
        |files: &[&str], variables: &[(&str, &str)]| loaded(files, variables).telemetry.service_name;
    let [a, b] = ["a", "b"].map(|name| format!("[telemetry]\nservice_name = \"{name}\""));
    let otel = ("OTEL_SERVICE_NAME", "otel");
    let nyx = ("NYX__TELEMETRY__SERVICE_NAME", "nyx");

    assert_eq!(service(&[], &[]), "nyx-daemon");
    assert_eq!(service(&[&a], &[]), "a");
    assert_eq!(service(&[&a, &b], &[]), "b");
    assert_eq!(service(&[&b, &a], &[]), "a");
    assert_eq!(service(&[&a, &b], &[otel]), "otel");
    assert_eq!(service(&[&a, &b], &[otel, nyx]), "nyx");
}

#[test]
fn the_endpoint_of_opentelemetry_describes_the_default_destination() {
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")];
    let config = loaded(&["[telemetry]\notlp_endpoint = \"http://file:1\""], &variables);
    assert_eq!(config.export[0].endpoint, "http://collector:4317");
    assert_eq!(config.telemetry.otlp_endpoint.to_string(), config.export[0].endpoint);
}

#[test]
fn an_empty_variable_of_opentelemetry_counts_as_unset() {
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", ""), ("OTEL_SERVICE_NAME", "")];
    assert_eq!(loaded(&[], &variables), loaded(&[], &[]));
}

#[test]
fn an_empty_variable_of_ours_is_a_value() {
    let config = loaded(&[], &[("NYX__INGEST__GRPC__LISTEN", "")]);
    assert_eq!(config.ingest.grpc.listen, None);
    let config = loaded(&[], &[("NYX__INGEST__HTTP__LISTEN", "")]);
    assert_eq!(config.ingest.http.listen, None);
}

#[test]
fn variables_are_read_as_what_their_key_is() {
    let config = loaded(
        &[],
        &[
            ("NYX__TELEMETRY__SERVICE_NAME", "007"),
            ("NYX__TELEMETRY__OTLP_SAMPLING_RATE", "0.25"),
            ("NYX__TELEMETRY__PROMETHEUS_ENABLED", "false"),
            ("NYX__INGEST__MAX_REQUEST_BYTES", "1MiB"),
            ("NYX__LOG__MEMORY_MAX_BYTES", "2097152"),
            ("NYX__LOG__DIR", "true"),
            ("NYX__LOG__DURABILITY", "power"),
            ("NYX__LOG__LOCK_TIMEOUT", "0s"),
            ("NYX__LOG__MAX_BYTES", "1TiB"),
            ("NYX__LOG__WHEN_FULL", "drop_oldest"),
            ("NYX__LOG__MIN_FREE_BYTES", "0"),
            ("NYX__LOG__SEGMENT_BYTES", "64KiB"),
            ("NYX__LOG__CHECKPOINT_INTERVAL", "10ms"),
            ("NYX__RETENTION__MAX_BYTES", "0"),
            ("NYX__RETENTION__SLOW", "250ms"),
            ("NYX__SHUTDOWN__GRACE", "0s"),
            ("NYX__EXPORT__DEFAULT__START", "beginning"),
            ("NYX__SHUTDOWN__TIMEOUT", "1m 30s"),
            ("NYX__EXPORT__DEFAULT__BATCH__MIN_SPANS", "1"),
            ("NYX__EXPORT__DEFAULT__HEADERS", "authorization=Bearer%20a%2Cb, x-scope=1e5"),
        ],
    );
    assert_eq!(config.telemetry.service_name, "007");
    assert_eq!(config.telemetry.otlp_sampling_rate, 0.25);
    assert!(!config.telemetry.prometheus_enabled);
    assert_eq!(config.ingest.max_request_bytes, 1 << 20);
    assert_eq!(
        config.log,
        Log {
            durability: Durability::Power,
            dir: "true".into(),
            lock_timeout: Duration::ZERO,
            max_bytes: 1 << 40,
            when_full: WhenFull::DropOldest,
            min_free_bytes: 0,
            segment_bytes: 64 << 10,
            checkpoint_interval: Duration::from_millis(10),
            memory_max_bytes: 2 << 20,
        }
    );
    assert_eq!(config.retention, Retention { max_bytes: 0, slow: Duration::from_millis(250) });
    assert_eq!(config.shutdown, Shutdown { timeout: Duration::from_secs(90), grace: Duration::ZERO });
    assert_eq!(config.export[0].start, StartAt::Beginning);
    assert_eq!(config.export[0].min_batch_spans, 1);
    assert_eq!(
        config.export[0].headers,
        [("authorization".into(), "Bearer a,b".into()), ("x-scope".into(), "1e5".into())]
    );
}

#[test]
fn sizes_are_whole_numbers_or_have_a_unit() {
    for (size, bytes) in
        [("70000", 70_000), ("\"65536B\"", 65_536), ("\"64 KiB\"", 65_536), ("\"1GiB\"", 1 << 30)]
    {
        let config = loaded(&[&format!("ingest.in_process.max_bytes = {size}")], &[]);
        assert_eq!(config.ingest.in_process.max_bytes, bytes, "{size}");
    }
}

#[test]
fn further_destinations_have_the_built_in_defaults_and_come_by_name() {
    let config = loaded(
        &["
        [telemetry]
        otlp_sampling_rate = 0.5
        [export.default]
        timeout = \"1s\"
        [export.zoo]
        endpoint = \"unix:/run/zoo.sock\"
        [export.archive]
        endpoint = \"http://archive:4317\"
        sampling_rate = 0
        start = \"beginning\"
        protocol = \"http/protobuf\"
        path = \"/otlp\"
        retry.max_retries = 3
        retry.max_elapsed = \"1h\"
        "],
        &[("NYX__EXPORT__ARCHIVE__COMPRESSION", "gzip")],
    );
    let default = default_destination();
    assert_eq!(
        config.export,
        [
            DestinationConfig { timeout: Duration::from_secs(1), sampling_rate: 0.5, ..default },
            DestinationConfig {
                sampling_rate: 0.0,
                start: StartAt::Beginning,
                gzip: true,
                protocol: Protocol::HttpProtobuf,
                path: Some("/otlp".to_owned()),
                max_retries: Some(3),
                max_elapsed: Some(Duration::from_secs(3_600)),
                ..DestinationConfig::new("archive", "http://archive:4317")
            },
            DestinationConfig::new("zoo", "unix:/run/zoo.sock"),
        ]
    );
}

#[test]
fn a_destination_may_come_from_variables_alone() {
    let config = loaded(&[], &[("NYX__EXPORT__EU_WEST__ENDPOINT", "http://eu:4317")]);
    assert_eq!(config.export[1].name, "eu_west");
}

#[test]
fn without_span_export_there_are_no_destinations() {
    let config =
        loaded(&["telemetry.span_export_enabled = false\n[export.a]\nendpoint = \"http://a:1\""], &[]);
    assert_eq!(config.export, []);
}

#[test]
fn without_span_export_destinations_are_still_checked() {
    let problems = load(&["telemetry.span_export_enabled = false\n[export.a]"], &[]).unwrap_err();
    assert_eq!(problems, ["export.a.endpoint must be set (file a.toml, line 2)"]);
}

#[test]
fn an_empty_log_dir_is_the_default_and_any_other_is_kept() {
    assert_eq!(loaded(&["log.dir = \"\""], &[]).log.dir, Path::new("/home/me/.local/state/nyx"));
    assert_eq!(loaded(&["log.dir = \"/data\""], &[]).log.dir, Path::new("/data"));
    assert_eq!(loaded(&[], &[("STATE_DIRECTORY", "/var/lib/nyx")]).log.dir, Path::new("/var/lib/nyx"));
}

#[test]
fn variables_of_others_are_left_alone() {
    let others = [("NYX_PORT", "tcp://10.0.0.1:80"), ("NYX", "1"), ("NYXX__A", "b"), ("nyx__log__dir", "x")];
    assert_eq!(loaded(&[], &others), loaded(&[], &[]));
}

#[test]
fn headers_are_set_whole_by_a_variable() {
    let file = "export.default.headers = { a = \"1\", b = \"2\" }";
    let config = loaded(&[file], &[("NYX__EXPORT__DEFAULT__HEADERS", "c=3")]);
    assert_eq!(config.export[0].headers, [("c".into(), "3".into())]);
    let config = loaded(&[file, "export.default.headers.b = \"3\""], &[]);
    assert_eq!(config.export[0].headers, [("a".into(), "1".into()), ("b".into(), "3".into())]);
}

#[test]
fn debug_does_not_print_the_values_of_headers() {
    let config = loaded(&["export.default.headers.authorization = \"Bearer hush\""], &[]);
    let debug = format!("{config:?}");
    assert!(debug.contains("\"authorization\"") && !debug.contains("hush"), "{debug}");
}

#[test]
fn the_metrics_are_as_a_file_or_variables_say() {
    let file = "[metrics]\nmax_series = 500\nhistogram_bounds = [\"1ms\", \"1s 500ms\"]\n\
                dimensions = [\"http.route\"]\nexpire_after = \"1h\"\nprofile = \"tempo\"\nseed_families = false";
    let expected = RedSettings {
        max_series: 500,
        bounds: Bounds::new(&[Duration::from_millis(1), Duration::from_millis(1_500)]).unwrap(),
        dimensions: Dimensions::new(&["http.route".to_owned()]).unwrap(),
        expire_after: Some(Duration::from_secs(3_600)),
        profile: Profile::Tempo,
        seed_families: false,
        exemplars: None,
    };
    assert_eq!(loaded(&[file], &[]).metrics.red(), expected);
    let variables = [
        ("NYX__METRICS__MAX_SERIES", "500"),
        ("NYX__METRICS__HISTOGRAM_BOUNDS", "1ms, 1s 500ms"),
        ("NYX__METRICS__DIMENSIONS", "http.route"),
        ("NYX__METRICS__EXPIRE_AFTER", "1h"),
        ("NYX__METRICS__PROFILE", "tempo"),
        ("NYX__METRICS__SEED_FAMILIES", "false"),
    ];
    assert_eq!(loaded(&[], &variables).metrics.red(), expected);
    let none = [("NYX__METRICS__HISTOGRAM_BOUNDS", ""), ("NYX__METRICS__DIMENSIONS", "")];
    let none = loaded(&[file], &none).metrics.red();
    assert_eq!((none.bounds.buckets(), none.dimensions.len()), (1, 0));
}
