//! What `config show` says.

use super::{load_all, loaded};

#[test]
fn every_key_is_shown_with_its_value_and_where_it_comes_from() {
    let all = load_all(
        &["[telemetry]\nservice_name = \"a\\\"b\"\n[export.archive]\nendpoint = \"http://archive:1\""],
        &[("NYX__LOG__MAX_BYTES", "1TiB"), ("OTEL_TRACES_SAMPLER", "always_off")],
        &[("runtime.io_threads", "2")],
    )
    .unwrap();
    let shown = all.show();
    for line in [
        "telemetry.service_name = 'a\"b'  # file a.toml, line 2",
        "telemetry.otlp_sampling_rate = 0  # variable OTEL_TRACES_SAMPLER",
        "telemetry.prometheus_enabled = true  # built-in",
        "# log.dir is /home/me/.local/state/nyx",
        "log.max_bytes = \"1TiB\"  # variable NYX__LOG__MAX_BYTES",
        "runtime.io_threads = 2  # flag --set runtime.io_threads",
        "export.default.batch.max_spans = 8192  # built-in",
        "# export.default.retry.max_retries is not set",
        "export.archive.endpoint = \"http://archive:1\"  # file a.toml, line 4",
        "export.archive.timeout = \"10s\"  # built-in",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} in {shown}");
    }
    assert!(!shown.contains("export.default.endpoint"), "{shown}");
}

#[test]
fn what_an_operator_should_know_comes_first() {
    let file = "[dht]\n[telemetry]\nprometheus_enabled = false\nspan_export_enabled = false";
    let shown = load_all(&[file], &[("RUST_LOG", "debug")], &[]).unwrap().show();
    let first: Vec<_> = shown.lines().take(4).collect();
    let expected = [
        "# file a.toml: not read, since a Nyx node's: [dht]",
        "# variable RUST_LOG is set, and wins over tracing.level",
        "# warning: telemetry.prometheus_enabled is false (file a.toml, line 3): so is telemetry.span_export_enabled: spans are \
         taken, and neither measured nor exported: set one of them to true",
        "telemetry.service_name = \"nyx-daemon\"  # built-in",
    ];
    assert_eq!(first, expected);
    assert_eq!(load_all(&[], &[("RUST_LOG", "")], &[]).unwrap().notices, [""; 0]);
}

#[test]
fn what_is_shown_means_the_same_configuration() {
    let variables = [
        ("NYX__TELEMETRY__SERVICE_NAME", "007"),
        ("NYX__INGEST__MAX_REQUEST_BYTES", "1MiB"),
        ("NYX__TELEMETRY__PROMETHEUS_ENABLED", "false"),
        ("NYX__EXPORT__B__ENDPOINT", "unix:/b"),
        ("NYX__EXPORT__B__SAMPLING_RATE", "0.5"),
        ("NYX__METRICS__DIMENSIONS", "http.route, host.name"),
        ("NYX__METRICS__HISTOGRAM_BOUNDS", "10ms,1s"),
        ("OTEL_RESOURCE_ATTRIBUTES", "host.name=a \"b\"%2C,x=1"),
    ];
    let all = load_all(&[], &variables, &[("log.dir", "true")]).unwrap();
    assert_eq!(loaded(&[&all.show()], &[]), all.config);
}

#[test]
fn no_header_is_shown_wherever_it_comes_from() {
    let file = "export.default.headers = { authorization = \"Bearer hush\" }";
    let from_file = load_all(&[file], &[], &[]).unwrap();
    let line = "export.default.headers = { \"authorization\" = \"(redacted)\" }  # file a.toml, line 1";
    assert!(from_file.show().contains(line), "{}", from_file.show());
    for variable in ["NYX__EXPORT__DEFAULT__HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"] {
        for text in ["authorization=Bearer%20hush", "authorization=17"] {
            let all = load_all(&[], &[(variable, text)], &[]).unwrap();
            let line = format!(
                "export.default.headers = {{ \"authorization\" = \"(redacted)\" }}  # variable {variable}"
            );
            assert!(all.show().contains(&line), "{}", all.show());
        }
    }
    let debug = format!("{from_file:?}");
    assert!(!debug.contains("hush"), "{debug}");
}

#[test]
fn a_comment_stays_one_whatever_is_in_a_path() {
    let all = load_all(&[], &[("STATE_DIRECTORY", "/var/lib/n\nlog.dir = 5\u{1b}[0m")], &[]).unwrap();
    let shown = all.show();
    assert!(shown.contains("# log.dir is /var/lib/n\u{fffd}log.dir = 5\u{fffd}[0m\n"), "{shown}");
    assert_eq!(loaded(&[&shown], &[]).telemetry, all.config.telemetry);
}
