//! Where layers come from, and what of a file is somebody else's.

use std::path::PathBuf;

use super::{load, load_all, loaded, only, refused, variable_refused};
use crate::config::{ConfigFile, Environment, NODE_KEYS, NODE_TABLES, Sources};

#[test]
fn the_daemon_looks_in_the_standard_places_before_the_files_that_are_named() {
    let sources = Sources::of_daemon(&[PathBuf::from("a")], Environment::default(), vec![]);
    let files = [
        ConfigFile::optional("/etc/nyx/nyx.toml"),
        ConfigFile::optional("nyx.toml"),
        ConfigFile::required("a"),
    ];
    assert_eq!(sources.files, files);
}

#[test]
fn a_standard_place_may_be_empty_and_a_named_file_may_not() {
    let load = |file| Sources { files: vec![file], ..Sources::default() }.load().map(|loaded| loaded.config);
    assert!(load(ConfigFile::optional("/nowhere/nyx.toml")).is_ok());
    assert_eq!(
        load(ConfigFile::required("/nowhere/nyx.toml")).unwrap_err().to_string(),
        "file /nowhere/nyx.toml: cannot be read: No such file or directory (os error 2)"
    );
    // That it cannot be read is another thing than that it is not there.
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let problem = load(ConfigFile::optional(folder)).unwrap_err().to_string();
    assert!(problem.ends_with(": cannot be read: Is a directory (os error 21)"), "{problem}");
}

#[test]
fn flags_win_over_everything_and_of_two_the_later() {
    let service = |flags: &[(&str, &str)]| {
        let variables = [("NYX__TELEMETRY__SERVICE_NAME", "nyx")];
        load_all(&[], &variables, flags).unwrap().config.telemetry.service_name
    };
    assert_eq!(service(&[]), "nyx");
    assert_eq!(service(&[("telemetry.service_name", "a"), ("telemetry.service_name", "b")]), "b");
}

#[test]
fn a_flag_that_cannot_be_is_refused_by_its_name() {
    let refused = |key: &str, value: &str| only(load_all(&[], &[], &[(key, value)]).unwrap_err());
    assert_eq!(
        refused("runtime.io_threads", "many"),
        "runtime.io_threads is \"many\" (flag --set runtime.io_threads): must be a whole number from 0 to 256"
    );
    assert_eq!(
        refused("runtime.threads", "1"),
        "runtime.threads is set (flag --set runtime.threads): unknown key: did you mean runtime.io_threads? \
         [runtime] has io_threads"
    );
    assert_eq!(refused("runtime.", "1"), "flag --set runtime.: must be named section.key");
    // As it would stand in a file.
    assert_eq!(
        refused("tracing.format", "\"json\""),
        "tracing.format is \"\\\"json\\\"\" (flag --set tracing.format): must be \"auto\", \"text\" or \"json\"; in a \
         variable or a flag it stands without quotes and brackets"
    );
    assert_eq!(
        refused("metrics.histogram_bounds", "[\"1s\"]"),
        "metrics.histogram_bounds is \"[\\\"1s\\\"]\" (flag --set metrics.histogram_bounds): must be a list of durations, such \
         as 10ms,1s: \"[\\\"1s\\\"]\" is none; in a variable or a flag it stands without quotes and brackets"
    );
    let contradicting = load_all(&[], &[], &[("log.dir", "a"), ("log", "b")]).unwrap_err();
    assert_eq!(contradicting, ["flag --set log: another flag sets a table or key of that name"]);
}

#[test]
fn headers_are_set_whole_by_a_flag_so_that_one_does_not_take_the_place_of_all_in_a_variable() {
    let variable = [("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hush")];
    let headers = |key: &str, value: &str| load_all(&[], &variable, &[(key, value)]);
    let all = headers("export.default.headers", "authorization=hush,x=1").unwrap().config.export;
    assert_eq!(all[0].headers.len(), 2);
    assert_eq!(
        only(headers("export.default.headers.x", "1").unwrap_err()),
        "export.default.headers.x (flag --set export.default.headers.x): a flag sets all headers at once: must be \
         --set export.default.headers=name=value,name=value"
    );
    assert_eq!(
        only(headers("telemetry.resource.host.name", "a").unwrap_err()),
        "telemetry.resource.host (flag --set telemetry.resource.host.name): a flag sets all attributes at once: must be \
         --set telemetry.resource=name=value,name=value"
    );
}

#[test]
fn the_file_of_a_nyx_node_is_read_for_its_telemetry() {
    let mut file = "[telemetry]\nservice_name = \"node\"\n".to_owned();
    for table in NODE_TABLES {
        file.push_str(&format!("[{table}]\nanything = 1\n"));
    }
    let file = NODE_KEYS.iter().map(|key| format!("{key} = \"x\"\n")).collect::<String>() + &file;
    let all = load_all(&[&file], &[], &[]).unwrap();
    assert_eq!(all.config.telemetry.service_name, "node");
    assert_eq!(
        all.notices,
        [
            "file a.toml: not read, since a Nyx node's: bootstrap_peers, listen_port, log_format, log_level, node_id, \
          [cli], [crypto], [development], [dht], [endpoints], [limits], [low_power], [mix], [monitoring], \
          [multipath], [network], [performance], [plugins], [security]"
        ]
    );
}

#[test]
fn that_spans_would_be_taken_for_nothing_is_said() {
    let warnings = |file: &str| load_all(&[file], &[], &[]).unwrap().warnings;
    let off = "[telemetry]\nprometheus_enabled = false\nspan_export_enabled = false";
    let why = "telemetry.prometheus_enabled is false (file a.toml, line 2): so is telemetry.span_export_enabled: spans are \
               taken, and neither measured nor exported: set one of them to true";
    assert_eq!(warnings(off), [why]);
    for one in ["telemetry.prometheus_enabled = false", "telemetry.span_export_enabled = false"] {
        assert_eq!(warnings(one), [""; 0]);
    }
}

#[test]
fn what_neither_nyx_nor_a_node_has_is_refused() {
    assert_eq!(
        refused("[securty]\nmode = 1"),
        "securty is a table (file a.toml, line 1): unknown table: the top has telemetry, ingest, log, metrics, retention, export, \
         runtime, shutdown, tracing, self_tracing"
    );
    // A node's table is a table, and its keys are none.
    assert!(refused("security = 1").starts_with("security is 1 (file a.toml, line 1): unknown key: "));
    assert!(
        refused("[log_level]").starts_with("log_level is a table (file a.toml, line 1): unknown table: ")
    );
    // Nor is there a variable of a node's.
    let problem = only(load(&[], &[("NYX__SECURITY__MODE", "1")]).unwrap_err());
    assert!(problem.starts_with("security is a table (variable NYX__SECURITY__MODE): unknown table: "));
}

#[test]
fn listeners_that_clash_are_refused() {
    assert_eq!(
        refused("telemetry.prometheus_addr = \"127.0.0.1:14317\""),
        "telemetry.prometheus_addr is \"127.0.0.1:14317\" (file a.toml, line 1): must not be the address of \
         ingest.grpc.listen, which is \"127.0.0.1:14317\" (built-in)"
    );
    let free = "telemetry.prometheus_addr = \"127.0.0.1:0\"\ningest.grpc.listen = \"127.0.0.1:0\"";
    assert_eq!(load(&[free], &[]).err(), None);
}

#[test]
fn a_destination_that_is_this_daemon_is_refused() {
    let variable = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:14317")];
    assert_eq!(
        only(load(&[], &variable).unwrap_err()),
        "telemetry.otlp_endpoint is \"http://localhost:14317\" (variable OTEL_EXPORTER_OTLP_ENDPOINT): must not be \
         where this daemon itself listens (ingest.grpc.listen): what it sends would come back for ever; an \
         OTEL_EXPORTER_OTLP_ENDPOINT that is set for the whole host, so that programs send to nyx, may be the cause: \
         unset it for nyx itself"
    );
    assert_eq!(
        refused("[export.a]\nendpoint = \"http://127.0.0.1:9100\""),
        "export.a.endpoint is \"http://127.0.0.1:9100\" (file a.toml, line 2): must not be where this daemon itself \
         listens (telemetry.prometheus_addr): what it sends would come back for ever"
    );
    // Where nothing is exported nothing comes back.
    let config = loaded(&["telemetry.span_export_enabled = false"], &variable);
    assert_eq!(config.export, []);
}

#[test]
fn attributes_of_the_resource_are_checked() {
    let refused = |table: &str| refused(&format!("telemetry.resource = {table}"));
    let key = "telemetry.resource";
    assert_eq!(refused("1"), format!("{key} (file a.toml, line 1): must be a table of texts"));
    assert_eq!(refused("{ a = 1 }"), format!("{key}.a (file a.toml, line 1): must be a text"));
    assert_eq!(
        refused("{ \"service.name\" = \"x\" }"),
        format!("{key}.service.name (file a.toml, line 1): is telemetry.service_name: set that")
    );
    let long = "x".repeat(1_024);
    assert_eq!(
        refused(&format!("{{ a = \"{long}\" }}")),
        format!("{key}.a (file a.toml, line 1): must not be longer than 1024 bytes with its name")
    );
    let many: Vec<_> = (0..65).map(|n| format!("a{n} = \"\"")).collect();
    assert_eq!(
        refused(&format!("{{ {} }}", many.join(", "))),
        format!("{key} (file a.toml, line 1): has 65 attributes: must have at most 64")
    );
    let twice = only(load(&[], &[("OTEL_RESOURCE_ATTRIBUTES", "a=1,a=2")]).unwrap_err());
    assert_eq!(twice, "telemetry.resource.a (variable OTEL_RESOURCE_ATTRIBUTES): must be set once");
}

#[test]
fn traces_about_the_daemon_are_off_and_go_to_no_door_of_its_own() {
    assert_eq!(loaded(&[], &[]).self_tracing, None);
    for (door, endpoint) in [
        ("ingest.grpc.listen", "http://localhost:14317"),
        ("ingest.http.listen", "http://127.0.0.1:14318"),
        ("telemetry.prometheus_addr", "http://0.0.0.0:9100"),
    ] {
        // Though there is no destination.
        let file =
            format!("telemetry.span_export_enabled = false\n[self_tracing]\nendpoint = \"{endpoint}\"");
        assert_eq!(
            refused(&file),
            format!(
                "self_tracing.endpoint is \"{endpoint}\" (file a.toml, line 3): must not be where this daemon itself \
                 listens ({door}): what it sends would come back for ever"
            )
        );
    }
    let own = loaded(&["[self_tracing]\nendpoint = \"http://localhost:4317\"\nsampling_rate = 0.5"], &[])
        .self_tracing;
    let own = own.unwrap();
    assert_eq!((&*own.endpoint, own.sampling_rate), ("http://localhost:4317", 0.5));
}

#[test]
fn where_traces_about_the_daemon_go_is_judged_like_a_destination() {
    let file = "[self_tracing]\nendpoint = \"http://c:4317/v1/traces\"\ntls.ca_file = \"/no.pem\"";
    assert_eq!(
        load(&[file], &[]).unwrap_err(),
        [
            "self_tracing.endpoint (file a.toml, line 2): \"http://c:4317/v1/traces\" must be http://host:port without a path: \
             OTLP over gRPC has its own",
            "self_tracing.tls.ca_file (file a.toml, line 3): \"/no.pem\" must not be set: the endpoint is none of https://",
        ]
    );
    let file = "[self_tracing]\nendpoint = \"https://c:4317\"\ntls.ca_file = \"/no.pem\"";
    assert_eq!(
        refused(file),
        "self_tracing.tls.ca_file (file a.toml, line 3): \"/no.pem\" cannot be read: No such file or directory (os error 2)"
    );
    let problem = variable_refused("NYX__SELF_TRACING__ENDPOINT", "collector");
    assert!(
        problem.starts_with(
            "self_tracing.endpoint is \"collector\" (variable NYX__SELF_TRACING__ENDPOINT): must be"
        ),
        "{problem}"
    );
    assert!(problem.ends_with("; empty is off"), "{problem}");
}
