use super::{load, refused, variable_refused};

const DURATION: &str = "must be a duration from 10ms to 1h, such as \"10s\"";

#[test]
fn a_value_that_cannot_be_is_refused_with_what_may_be() {
    let size = |from: &str, to: &str| {
        format!("must be a size from {from} to {to} bytes, such as 65536 or \"64KiB\"")
    };
    let whole = |from: u32, to: u32| format!("must be a whole number from {from} to {to}");
    let endpoint = "must be http://host:port, https://host:port or unix:/path".to_owned();
    let listen =
        "must be an IP address and port such as 127.0.0.1:14317, or unix:/path; empty is off".to_owned();
    let address = "must be an IP address and port such as 127.0.0.1:9100".to_owned();
    let cases: &[(&str, &str, String)] = &[
        ("telemetry.service_name", "\"\"", "must be a text of 1 to 255 bytes".into()),
        ("telemetry.service_name", "7", "must be a text of 1 to 255 bytes".into()),
        ("telemetry.otlp_endpoint", "\"collector:4317\"", endpoint),
        (
            "telemetry.otlp_endpoint",
            "\"https://collector:0\"",
            "must be https://host:port with a port from 1 to 65535".into(),
        ),
        ("telemetry.otlp_sampling_rate", "1.5", "must be a number from 0 to 1".into()),
        ("telemetry.otlp_sampling_rate", "-1", "must be a number from 0 to 1".into()),
        ("telemetry.otlp_sampling_rate", "nan", "must be a number from 0 to 1".into()),
        ("telemetry.otlp_sampling_rate", "\"0.5\"", "must be a number from 0 to 1".into()),
        ("telemetry.prometheus_enabled", "\"true\"", "must be true or false".into()),
        ("telemetry.prometheus_enabled", "1", "must be true or false".into()),
        ("telemetry.prometheus_addr", "\"localhost:9100\"", address.clone()),
        ("telemetry.prometheus_addr", "9100", address),
        ("telemetry.span_export_enabled", "[]", "must be true or false".into()),
        ("ingest.max_in_flight_bytes", "65535", size("65536", "68719476736")),
        ("ingest.max_in_flight_bytes", "\"64 MB\"", size("65536", "68719476736")),
        ("ingest.max_request_bytes", "\"2GiB\"", size("1024", "1073741824")),
        ("ingest.max_request_bytes", "-1", size("1024", "1073741824")),
        ("ingest.max_connections", "0", whole(1, 1_000_000)),
        ("ingest.body_timeout", "30", DURATION.into()),
        ("ingest.commit_timeout", "\"9ms\"", DURATION.into()),
        ("ingest.grpc.listen", "\"localhost:14317\"", listen.clone()),
        ("ingest.grpc.listen", "\"14317\"", listen),
        ("ingest.grpc.listen", "14317", "must be a text".into()),
        (
            "ingest.grpc.listen",
            "\"unix:nyx.sock\"",
            "must be unix: and the absolute path of a socket; empty is off".into(),
        ),
        (
            "ingest.http.listen",
            "\"localhost:14318\"",
            "must be an IP address and port such as 127.0.0.1:14317, or unix:/path; empty is off".into(),
        ),
        ("ingest.in_process.max_bytes", "1", size("65536", "1073741824")),
        ("log.durability", "\"disk\"", "must be \"memory\", \"process\" or \"power\"".into()),
        ("log.dir", "false", "must be a text of 0 to 4095 bytes".into()),
        ("log.lock_timeout", "\"2h\"", "must be a duration from 0s to 1h, such as \"10s\"".into()),
        ("log.max_bytes", "\"15MiB\"", size("16777216", "17592186044416")),
        ("log.max_bytes", "\"17TiB\"", size("16777216", "17592186044416")),
        ("log.when_full", "\"drop\"", "must be \"refuse\" or \"drop_oldest\"".into()),
        ("log.min_free_bytes", "-1", size("0", "17592186044416")),
        ("log.segment_bytes", "65535", size("65536", "1073741824")),
        ("log.segment_bytes", "\"2GiB\"", size("65536", "1073741824")),
        ("log.checkpoint_interval", "\"9ms\"", DURATION.into()),
        ("log.memory_max_bytes", "1.5", size("1048576", "68719476736")),
        ("metrics.max_series", "9", whole(10, 100_000)),
        ("metrics.max_series", "100001", whole(10, 100_000)),
        ("metrics.dimensions", "7", "must be a list of attributes' keys, such as [\"http.route\"]".into()),
        (
            "metrics.dimensions",
            "\"http.route\"",
            "must be a list of attributes' keys, such as [\"http.route\"]".into(),
        ),
        (
            "metrics.histogram_bounds",
            "\"10ms,1s\"",
            "must be a list of durations, such as [\"10ms\", \"1s\"]".into(),
        ),
        ("metrics.histogram_bounds", "1", "must be a list of durations, such as [\"10ms\", \"1s\"]".into()),
        ("metrics.profile", "\"prometheus\"", "must be \"nyx\", \"spanmetrics\" or \"tempo\"".into()),
        ("metrics.expire_after", "\"5m\"", "must be a duration from 10m to 30days, such as \"10s\"".into()),
        ("retention.max_bytes", "\"65GiB\"", size("0", "68719476736")),
        ("retention.slow", "1", "must be a duration from 0s to 1h, such as \"10s\"".into()),
        ("export.default.start", "\"middle\"", "must be \"end\" or \"beginning\"".into()),
        ("export.default.protocol", "\"http/json\"", "must be \"grpc\" or \"http/protobuf\"".into()),
        ("export.default.path", "7", "must be a text of 0 to 1024 bytes".into()),
        ("export.default.timeout", "\"11m\"", "must be a duration from 10ms to 10m, such as \"10s\"".into()),
        ("export.default.compression", "\"zstd\"", "must be \"none\" or \"gzip\"".into()),
        ("export.default.concurrency", "65", whole(1, 64)),
        ("export.default.batch.min_spans", "0", whole(1, 65_536)),
        ("export.default.batch.max_spans", "65537", whole(1, 65_536)),
        ("export.default.batch.max_bytes", "65535", size("65536", "67108864")),
        (
            "export.default.batch.max_delay",
            "\"soon\"",
            "must be a duration from 0s to 1m, such as \"10s\"".into(),
        ),
        (
            "export.default.retry.initial",
            "\"0s\"",
            "must be a duration from 1ms to 1h, such as \"10s\"".into(),
        ),
        ("export.default.retry.max", "\"2h\"", "must be a duration from 1ms to 1h, such as \"10s\"".into()),
        ("export.default.retry.max_retries", "-1", whole(0, u32::MAX)),
        (
            "export.default.retry.max_elapsed",
            "\"1ms\"",
            "must be a duration from 10ms to 30days, such as \"10s\"".into(),
        ),
        ("runtime.io_threads", "257", whole(0, 256)),
        ("shutdown.timeout", "\"0s\"", DURATION.into()),
        ("shutdown.grace", "\"61m\"", "must be a duration from 0s to 1h, such as \"10s\"".into()),
        (
            "tracing.level",
            "\"loud\"",
            "must be \"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\"".into(),
        ),
        ("tracing.format", "\"xml\"", "must be \"auto\", \"text\" or \"json\"".into()),
        ("tracing.burst", "-1", whole(0, 1_000_000)),
        ("telemetry", "1", "must be a table".into()),
        ("export.default.batch", "\"large\"", "must be a table".into()),
    ];
    for (key, value, rule) in cases {
        let shown = if *value == "[]" { "a list" } else { &value.replace("nan", "NaN") };
        assert_eq!(
            refused(&format!("{key} = {value}")),
            format!("{key} is {shown} (file a.toml, line 1): {rule}")
        );
    }
}

#[test]
fn a_variable_that_cannot_be_is_refused_by_its_name() {
    assert_eq!(
        variable_refused("NYX__TELEMETRY__OTLP_SAMPLING_RATE", "high"),
        "telemetry.otlp_sampling_rate is \"high\" (variable NYX__TELEMETRY__OTLP_SAMPLING_RATE): \
         must be a number from 0 to 1"
    );
    assert_eq!(
        variable_refused("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317"),
        "telemetry.otlp_endpoint is \"c:4317\" (variable OTEL_EXPORTER_OTLP_ENDPOINT): \
         must be http://host:port, https://host:port or unix:/path"
    );
    assert_eq!(
        variable_refused("NYX__EXPORT__DEFAULT__CONCURRENCY", ""),
        "export.default.concurrency is \"\" (variable NYX__EXPORT__DEFAULT__CONCURRENCY): \
         must be a whole number from 1 to 64"
    );
}

#[test]
fn an_unknown_key_is_refused_with_the_known_ones_and_the_nearest() {
    assert_eq!(
        refused("[log]\nsize = 1"),
        "log.size is 1 (file a.toml, line 2): unknown key: [log] has durability, dir, lock_timeout, max_bytes, \
         when_full, min_free_bytes, segment_bytes, checkpoint_interval, memory_max_bytes"
    );
    assert_eq!(
        refused("[export.default.batch]\nmax_span = 1"),
        "export.default.batch.max_span is 1 (file a.toml, line 2): unknown key: did you mean \
         export.default.batch.max_spans? [export.default.batch] has min_spans, max_spans, max_bytes, max_delay"
    );
    assert_eq!(
        refused("[export.a]\nendpoint = \"http://a:1\"\nend-point = \"http://a:1\""),
        "export.a.end-point is a text (file a.toml, line 3): unknown key: did you mean export.a.endpoint? \
         [export.a] has endpoint, sampling_rate, start, protocol, path, tls, timeout, headers, compression, \
         concurrency, batch, retry"
    );
    assert_eq!(
        refused("prometheus_addr = \"127.0.0.1:9464\""),
        "prometheus_addr is a text (file a.toml, line 1): unknown key: did you mean telemetry.prometheus_addr? the \
         top has telemetry, ingest, log, metrics, retention, export, runtime, shutdown, tracing, self_tracing"
    );
}

#[test]
fn an_unknown_variable_is_refused_by_its_name() {
    assert_eq!(
        variable_refused("NYX__SHUTDOWN__TIMEOUTS", "1s"),
        "shutdown.timeouts is set (variable NYX__SHUTDOWN__TIMEOUTS): unknown key: did you mean \
         NYX__SHUTDOWN__TIMEOUT? [shutdown] has timeout, grace"
    );
    assert_eq!(
        variable_refused("NYX__SHUTDOWN", "1s"),
        "shutdown is \"1s\" (variable NYX__SHUTDOWN): must be a table"
    );
    assert_eq!(
        variable_refused("NYX__SHUTDOWN__TIMEOUT__MS", "1"),
        "shutdown.timeout is a table (variable NYX__SHUTDOWN__TIMEOUT__MS): must be a duration from 10ms to 1h, such as \"10s\""
    );
}

#[test]
fn a_variable_whose_name_is_no_key_is_refused() {
    for (name, problem) in [
        ("NYX__", "variable NYX__: must be named NYX__SECTION__KEY"),
        ("NYX__LOG____DIR", "variable NYX__LOG____DIR: must be named NYX__SECTION__KEY"),
        ("NYX__LOG.DIR", "variable NYX__LOG.DIR: must be named NYX__SECTION__KEY"),
        ("NYX__Log__dir", "variable NYX__Log__dir: must be in capitals: NYX__LOG__DIR"),
        ("NYX_LOG__DIR", "variable NYX_LOG__DIR: is not read: did you mean NYX__LOG__DIR?"),
        ("NYX_LOG_DIR", "variable NYX_LOG_DIR: is not read: did you mean NYX__LOG__DIR?"),
        (
            "NYX_LOG_MEMORY_MAX_BYTES",
            "variable NYX_LOG_MEMORY_MAX_BYTES: is not read: did you mean NYX__LOG__MEMORY_MAX_BYTES?",
        ),
        (
            "NYX_EXPORT_EU_WEST_RETRY_MAX",
            "variable NYX_EXPORT_EU_WEST_RETRY_MAX: is not read: did you mean NYX__EXPORT__EU_WEST__RETRY__MAX?",
        ),
    ] {
        assert_eq!(variable_refused(name, "x"), problem);
    }
}

#[test]
fn variables_that_contradict_each_other_are_refused() {
    let problems = load(&[], &[("NYX__LOG", "x"), ("NYX__LOG__DIR", "y")]).unwrap_err();
    assert_eq!(
        problems,
        [
            "variable NYX__LOG__DIR: another variable sets a table or key of that name",
            "log is \"x\" (variable NYX__LOG): must be a table",
        ]
    );
}

#[test]
fn a_variable_that_is_not_utf_8_is_refused() {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

    let variables = [("OTEL_SERVICE_NAME", OsString::from_vec(vec![0xff]))];
    let environment = crate::config::Environment::new(variables, false);
    let invalid = crate::config::Config::load(&[], &environment).unwrap_err();
    assert_eq!(invalid.to_string(), "variable OTEL_SERVICE_NAME: must be UTF-8");
}

#[test]
fn the_default_destination_has_its_place_under_telemetry() {
    let problems =
        load(&["[export.default]\nendpoint = \"http://a:1\"\nsampling_rate = 0.1"], &[]).unwrap_err();
    assert_eq!(
        problems,
        [
            "export.default.endpoint (file a.toml, line 2): the destination \"default\" has it from \
             telemetry.otlp_endpoint: set that",
            "export.default.sampling_rate (file a.toml, line 3): the destination \"default\" has it from \
             telemetry.otlp_sampling_rate: set that",
        ]
    );
}

#[test]
fn a_further_destination_needs_an_endpoint_and_a_fair_name() {
    assert_eq!(refused("[export.a]"), "export.a.endpoint must be set (file a.toml, line 1)");
    assert_eq!(
        refused("[export.a]\nendpoint = \"http://a:1\"\nsampling_rate = 2"),
        "export.a.sampling_rate is 2 (file a.toml, line 3): must be a number from 0 to 1"
    );
    for name in ["A", "a b", "ä", "x23456789012345678901234567890123"] {
        assert_eq!(
            refused(&format!("[export.\"{name}\"]\nendpoint = \"http://a:1\"")),
            format!(
                "[export.{name}] (file a.toml, line 1): a destination's name must be 1 to 32 characters of a-z, 0-9, _ and -"
            )
        );
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    assert_eq!(
        refused("ingest.max_in_flight_bytes = \"1MiB\""),
        "ingest.max_request_bytes is 67108864 (built-in): must not be above ingest.max_in_flight_bytes, which is \
         \"1MiB\" (file a.toml, line 1)"
    );
    assert_eq!(
        refused("[log]\ndurability = \"memory\"\nmemory_max_bytes = \"1MiB\""),
        "ingest.max_request_bytes is 67108864 (built-in): must not be above log.memory_max_bytes, which is \"1MiB\" \
         (file a.toml, line 3)"
    );
    assert_eq!(
        refused("[log]\nmax_bytes = \"16MiB\"\nsegment_bytes = \"4MiB\""),
        "ingest.max_request_bytes is 67108864 (built-in): must not be above log.max_bytes, which is \"16MiB\" (file \
         a.toml, line 2)"
    );
    assert_eq!(
        refused("[log]\nmax_bytes = \"255MiB\""),
        "log.segment_bytes is \"64MiB\" (built-in): must not be above a quarter of log.max_bytes, which is \
         \"255MiB\" (file a.toml, line 2)"
    );
    // What the form in use does not look at contradicts nothing.
    for fine in [
        "log.memory_max_bytes = \"1MiB\"",
        "[log]\ndurability = \"memory\"\nmax_bytes = \"16MiB\"",
        "[log]\nmax_bytes = \"256MiB\"",
    ] {
        assert_eq!(load(&[fine], &[]).err(), None, "{fine}");
    }
    assert_eq!(
        refused("export.default.batch.min_spans = 8193"),
        "export.default.batch.min_spans is 8193 (file a.toml, line 1): must not be above \
         export.default.batch.max_spans, which is 8192 (built-in)"
    );
    assert_eq!(
        refused("export.default.retry.max = \"50ms\""),
        "export.default.retry.initial is \"100ms\" (built-in): must not be above export.default.retry.max, which is \
         \"50ms\" (file a.toml, line 1)"
    );
}

#[test]
fn lists_that_make_no_histogram_and_no_labels_are_refused_with_what_is_wrong() {
    let bounds = |list: &str| refused(&format!("metrics.histogram_bounds = {list}"));
    let rule = "metrics.histogram_bounds is a list (file a.toml, line 1): must be";
    assert_eq!(bounds("[1]"), format!("{rule} a list of durations, such as [\"10ms\", \"1s\"]"));
    assert_eq!(
        bounds("[\"fast\"]"),
        format!("{rule} a list of durations, such as [\"10ms\", \"1s\"]: \"fast\" is none")
    );
    assert_eq!(
        bounds("[\"1s\", \"1s\"]"),
        format!("{rule} ascending durations: histogram bound 1s is not above 1s")
    );
    let many: Vec<String> = (1..=65).map(|n| format!("\"{n}ms\"")).collect();
    assert_eq!(
        bounds(&format!("[{}]", many.join(","))),
        format!("{rule} ascending durations: 65 histogram bounds are more than 64")
    );
    assert_eq!(
        variable_refused("NYX__METRICS__DIMENSIONS", "http.route,http_route"),
        "metrics.dimensions is \"http.route,http_route\" (variable NYX__METRICS__DIMENSIONS): must be attributes that can \
         be labels: dimensions \"http.route\" and \"http_route\" would both be the label http_route"
    );
    assert_eq!(
        refused("metrics.dimensions = [\"span.name\"]"),
        "metrics.dimensions is a list (file a.toml, line 1): must be attributes that can be labels: dimension \"span.name\" \
         would be the label span_name, which is taken"
    );
}

#[test]
fn files_of_tls_are_for_https_alone_and_are_read() {
    assert_eq!(
        refused("export.default.tls.ca_file = \"/nowhere/ca.pem\""),
        "export.default.tls.ca_file (file a.toml, line 1): \"/nowhere/ca.pem\" must not be set: the endpoint is none of \
         https://"
    );
    let both = "[export.a]\nendpoint = \"https://a\"\n[export.a.tls]\nca_file = \"/nowhere/ca.pem\"\nkey_file = \"/k\"";
    assert_eq!(
        load(&[both], &[]).unwrap_err(),
        [
            "export.a.tls.ca_file (file a.toml, line 4): \"/nowhere/ca.pem\" cannot be read: No such file or directory (os \
             error 2)",
            "export.a.tls.key_file (file a.toml, line 5): \"/k\" must not be set alone: set tls.cert_file too",
        ]
    );
}

#[test]
fn a_path_is_for_http_alone() {
    let grpc = "OTLP over gRPC has its own";
    assert_eq!(
        refused("telemetry.otlp_endpoint = \"http://c:4318/otlp\""),
        format!(
            "telemetry.otlp_endpoint (file a.toml, line 1): \"http://c:4318/otlp\" must be http://host:port without a path: {grpc}"
        )
    );
    assert_eq!(
        refused("[export.a]\nendpoint = \"http://a:1/otlp\""),
        format!(
            "export.a.endpoint (file a.toml, line 2): \"http://a:1/otlp\" must be http://host:port without a path: {grpc}"
        )
    );
    assert_eq!(
        refused("export.default.path = \"/v1/traces\""),
        format!("export.default.path (file a.toml, line 1): \"/v1/traces\" must not be set: {grpc}")
    );
    assert_eq!(
        refused("[export.default]\nprotocol = \"http/protobuf\"\npath = \"v1/traces\""),
        "export.default.path (file a.toml, line 3): \"v1/traces\" must be a path of a URL, from / on, of at most 1024 bytes"
    );
}

#[test]
fn a_header_that_cannot_be_sent_is_refused_without_its_value() {
    let key = "export.default.headers";
    for (headers, problem) in [
        ("{ \"a b\" = \"hush\" }", "a b: must be named as an HTTP header is"),
        ("{ te = \"hush\" }", "te: is set by the exporter itself: must not be set"),
        ("{ grpc-timeout = \"hush\" }", "grpc-timeout: is set by the exporter itself: must not be set"),
        ("{ x-bin = \"hush\" }", "x-bin: is binary (-bin): cannot be set"),
        (
            "{ x = \"hush\\n\" }",
            "x: must have a value of printable ASCII characters (the value is not shown)",
        ),
        ("{ x = \"hüsh\" }", "x: must have a value of printable ASCII characters (the value is not shown)"),
        ("{ x = \"1\", X = \"2\" }", "x: must be set once"),
        ("{ x = 1 }", "x (file a.toml, line 1): must be a text"),
    ] {
        assert_eq!(refused(&format!("{key} = {headers}")), format!("{key}.{problem}"));
    }
    assert_eq!(
        refused(&format!("{key} = \"x=hush\"")),
        format!("{key} (file a.toml, line 1): must be a table of texts")
    );
    let many: Vec<String> = (0..65).map(|n| format!("h{n} = \"\"")).collect();
    assert_eq!(
        refused(&format!("{key} = {{ {} }}", many.join(", "))),
        format!("{key}: has 65 headers of 185 bytes: must have at most 64 of 16384")
    );
}

#[test]
fn headers_in_a_variable_are_pairs_and_its_value_is_not_repeated() {
    let variable = "NYX__EXPORT__DEFAULT__HEADERS";
    for value in ["hush", "a=%", "a=%4", "a=%zz", "a=%+1", "a=%ff"] {
        assert_eq!(
            variable_refused(variable, value),
            format!(
                "export.default.headers (variable {variable}): must be name=value,name=value, with %2C for a comma \
                 and %25 for a percent sign in a value"
            )
        );
    }
    assert_eq!(
        variable_refused("NYX__EXPORT__DEFAULT__HEADERS__X_KEY", "hush"),
        "export.default.headers.x_key (variable NYX__EXPORT__DEFAULT__HEADERS__X_KEY): a variable sets all headers \
         at once: must be NYX__EXPORT__DEFAULT__HEADERS as name=value,name=value"
    );
}

#[test]
fn a_password_in_a_url_is_not_repeated() {
    assert_eq!(
        refused("telemetry.otlp_endpoint = \"http://me:hush@c:4317\""),
        "telemetry.otlp_endpoint is (not shown) (file a.toml, line 1): must not hold a user name or password: use headers"
    );
}

#[test]
fn a_long_value_is_shortened() {
    let problem = refused(&format!("tracing.level = \"{}\"", "é".repeat(200)));
    assert!(
        problem
            .starts_with(&format!("tracing.level is \"{}…\" (file a.toml, line 1): must", "é".repeat(100)))
    );
}

#[test]
fn all_problems_are_reported_at_once() {
    let files = [
        "[log]\ndurability = \"disk\"\nsize = 1",
        "[telemetry]\notlp_endpoint = \"c\"\nprometheus_addr = \"127.0.0.1:14317\"\n[net]\na = 1",
    ];
    let variables = [
        ("NYX__RUNTIME__IO_THREADS", "many"),
        ("NYX_LOG_DIR", "/x"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ("NYX__INGEST__MAX_IN_FLIGHT_BYTES", "1MiB"),
    ];
    let problems = load(&files, &variables).unwrap_err();
    assert_eq!(
        problems,
        [
            "variable OTEL_BSP_SCHEDULE_DELAY is \"soon\": must be a whole number of milliseconds",
            "variable NYX_LOG_DIR: is not read: did you mean NYX__LOG__DIR?",
            "telemetry.otlp_endpoint is \"c\" (file b.toml, line 2): must be http://host:port, https://host:port or unix:/path",
            "log.durability is \"disk\" (file a.toml, line 2): must be \"memory\", \"process\" or \"power\"",
            "log.size is 1 (file a.toml, line 3): unknown key: [log] has durability, dir, lock_timeout, max_bytes, \
             when_full, min_free_bytes, segment_bytes, checkpoint_interval, memory_max_bytes",
            "runtime.io_threads is \"many\" (variable NYX__RUNTIME__IO_THREADS): \
             must be a whole number from 0 to 256",
            "net is a table (file b.toml, line 4): unknown table: the top has telemetry, ingest, log, metrics, retention, export, \
             runtime, shutdown, tracing, self_tracing",
            "ingest.max_request_bytes is 67108864 (built-in): must not be above ingest.max_in_flight_bytes, which is \
             \"1MiB\" (variable NYX__INGEST__MAX_IN_FLIGHT_BYTES)",
            "telemetry.prometheus_addr is \"127.0.0.1:14317\" (file b.toml, line 3): must not be the address of \
             ingest.grpc.listen, which is \"127.0.0.1:14317\" (built-in)",
        ]
    );
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_the_place_but_not_the_line() {
    let problems = load(&["[export.default.headers]\nauthorization = Bearer hush", "a ="], &[]).unwrap_err();
    assert_eq!(
        problems,
        [
            "file a.toml, line 2, column 17: is not TOML: string values must be quoted, expected literal string",
            "file b.toml, line 1, column 4: is not TOML: string values must be quoted, expected literal string",
        ]
    );
}
