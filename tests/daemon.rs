//! The daemon as a process: signals, exit statuses, log lines, and its doors from outside.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

mod support;

use std::{
    io::Read as _,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Output,
};

use nyx_telemetry::{export::testing::ScriptedDestination, tls::testing::Folder};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use serde_json::Value;

use self::support::{
    arrived,
    http::{Samples, get_blocking},
    nobody,
    process::{Daemon, command},
};

#[test]
fn with_nothing_on_its_destination_it_starts_says_so_once_and_stops_in_order() {
    let nobody = nobody();
    let daemon = Daemon::start(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &nobody.endpoint()),
        ("NYX__EXPORT__DEFAULT__RETRY__INITIAL", "5ms"),
        ("NYX__EXPORT__DEFAULT__RETRY__MAX", "10ms"),
        ("NYX__EXPORT__DEFAULT__BATCH__MAX_DELAY", "1ms"),
        ("NYX__SHUTDOWN__TIMEOUT", "3s"),
    ]);
    daemon.page("/health", |health| health.contains("degraded: default unreachable ("));
    daemon.send(0..100);
    let tries = |stats: &Value| stats["destinations"]["default"]["requests"]["unreachable"].as_u64().unwrap();
    daemon.page("/stats", |stats| tries(&serde_json::from_str(stats).unwrap()) >= 20);
    assert_eq!(get_blocking(daemon.pages, "/health", None).status, 200);
    daemon.signal(Signal::TERM);
    let (status, lines) = daemon.end();
    assert_eq!(status.code(), Some(0));
    let about = |message: &str| lines.iter().filter(|line| line["message"] == message).count();
    assert_eq!(about("the destination takes no spans"), 1, "{lines:#?}");
    assert_eq!(lines.iter().filter(|line| line["signal"] == "SIGTERM").count(), 1);
    let last = lines.last().unwrap();
    assert_eq!((&last["message"], &last["spans_not_delivered"]), (&"stopped".into(), &100.into()));
    assert_eq!((&last["fate"], &last["level"]), (&"lost".into(), &"WARN".into()));
    assert!(lines.len() < 10, "{} lines: {lines:#?}", lines.len());
}

#[test]
fn a_terminated_daemon_delivers_what_it_accepted_and_exits_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let sink = ScriptedDestination::start().unwrap();
        let daemon = Daemon::start(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &sink.endpoint()),
            // Only the stop makes it send.
            ("NYX__EXPORT__DEFAULT__BATCH__MAX_DELAY", "60s"),
            ("NYX__EXPORT__DEFAULT__BATCH__MIN_SPANS", "8192"),
        ]);
        daemon.send(0..1_000);
        assert_eq!(daemon.stats()["destinations"]["default"]["queued"], 1_000);
        assert_eq!(daemon.stats()["destinations"]["default"]["exported"], 0);
        daemon.signal(signal);
        let (status, lines) = daemon.end();
        assert_eq!(status.code(), Some(0), "{lines:#?}");
        assert_eq!(arrived(&sink), (0..1_000).map(|number| (number, 1)).collect());
        let last = lines.last().unwrap();
        assert_eq!((&last["message"], &last["level"]), (&"stopped".into(), &"INFO".into()));
    }
}

#[test]
fn a_port_in_use_exits_69_and_names_the_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (variable, setting) in [
        ("NYX__TELEMETRY__PROMETHEUS_ADDR", "telemetry.prometheus_addr"),
        ("NYX__INGEST__GRPC__LISTEN", "ingest.grpc.listen"),
        ("NYX__INGEST__HTTP__LISTEN", "ingest.http.listen"),
    ] {
        let Output { status, stdout, stderr } = command(&["run"], &[(variable, &address)]).output().unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        assert_eq!((status.code(), stdout.as_slice()), (Some(69), &b""[..]), "{stderr}");
        assert!(stderr.contains(&address) && stderr.contains(setting), "{stderr}");
        assert!(stderr.contains("Address already in use"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn a_unix_socket_is_a_door() {
    let sink = ScriptedDestination::start().unwrap();
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.sock", std::process::id()));
    let door = format!("unix:{}", path.display());
    let daemon = Daemon::start(&[
        ("NYX__INGEST__GRPC__LISTEN", &door),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &sink.endpoint()),
    ]);
    assert_eq!(daemon.door, door);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    daemon.send(0..100);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().0.code(), Some(0));
    assert_eq!(arrived(&sink).len(), 100);
    let _removed_already = std::fs::remove_file(path);
}

#[test]
fn without_descriptors_connections_wait_and_the_failures_to_accept_are_counted() {
    let sink = ScriptedDestination::start().unwrap();
    let mut daemon = Daemon::start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &sink.endpoint())]);
    let errors = |daemon: &Daemon| {
        let page = get_blocking(daemon.pages, "/metrics", None).body;
        Samples::parse(&page).sum("nyx_door_accept_errors_total", &["door=\"grpc\""])
    };
    assert_eq!(errors(&daemon), 0.0);
    let pid = Some(Pid::from_child(&daemon.process));
    // It has those of this process.
    let before = getrlimit(Resource::Nofile);
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(0), ..before }).unwrap();
    let waits = TcpStream::connect(&daemon.door).unwrap();
    daemon.line("that it cannot accept", |line| line["message"] == "connections cannot be accepted");
    prlimit(pid, Resource::Nofile, before).unwrap();
    daemon.line("that it accepts", |line| line["message"] == "connections are accepted again");
    assert!(errors(&daemon) >= 1.0);
    drop(waits);
    daemon.send(0..50);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().0.code(), Some(0));
    assert_eq!(arrived(&sink).len(), 50);
}

#[test]
fn the_demonstration_exits_0_because_its_ledger_balances() {
    let mut process = command(&["demo", "--seconds", "3", "--rate", "500"], &[]).spawn().unwrap();
    let (mut stdout, mut stderr) = (String::new(), String::new());
    process.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    process.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(0), "{stdout}\n{stderr}");
    for said in [
        "metrics      http://127.0.0.1:",
        "*** crashing the SpanCollector on purpose ***",
        "*** it panicked: crashed by the demo, on purpose at ",
        "*** restarted by its supervisor after ",
        "\nthe ledger balances, and the destination counted ",
    ] {
        assert!(stdout.contains(said), "{said:?} is missing\n{stdout}\n{stderr}");
    }
}

/// Variables with the files of TLS of this table, in this folder.
fn tls(table: &str, folder: &Folder, files: &[(&str, &str)]) -> Vec<(String, String)> {
    let file = |(key, name): &(&str, &str)| {
        (format!("NYX__{table}__TLS__{key}"), folder.path(name).display().to_string())
    };
    files.iter().map(file).collect()
}

fn start(variables: &[(String, String)]) -> Daemon {
    let variables: Vec<_> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
    Daemon::start(&variables)
}

#[test]
fn one_nyx_delivers_to_the_doors_of_another_with_certificates_on_both_sides() {
    let folder = Folder::new("daemon-tls");
    let sink = ScriptedDestination::start().unwrap();
    let door = [("CERT_FILE", "server.pem"), ("KEY_FILE", "server.key"), ("CLIENT_CA_FILE", "ca.pem")];
    let mut variables = tls("INGEST__GRPC", &folder, &door);
    variables.extend(tls("INGEST__HTTP", &folder, &door));
    variables.push(("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), sink.endpoint()));
    let mut receiver = start(&variables);
    assert_eq!(receiver.line("ready", |line| line["message"] == "ready")["tls"], "grpc, http");

    let own = [("CA_FILE", "ca.pem"), ("CERT_FILE", "client.pem"), ("KEY_FILE", "client.key")];
    let mut variables = tls("EXPORT__DEFAULT", &folder, &own);
    variables.extend(tls("EXPORT__HTTP", &folder, &own));
    variables.extend(tls("EXPORT__NAMELESS", &folder, &own[..1]));
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("https://{}", receiver.door)),
        ("NYX__EXPORT__HTTP__ENDPOINT", format!("https://{}", receiver.http)),
        ("NYX__EXPORT__HTTP__PROTOCOL", "http/protobuf".to_owned()),
        ("NYX__EXPORT__NAMELESS__ENDPOINT", format!("https://{}", receiver.http)),
        ("NYX__EXPORT__NAMELESS__PROTOCOL", "http/protobuf".to_owned()),
        ("NYX__EXPORT__NAMELESS__RETRY__MAX", "20ms".to_owned()),
        ("NYX__EXPORT__NAMELESS__RETRY__INITIAL", "20ms".to_owned()),
        ("NYX__SHUTDOWN__TIMEOUT", "5s".to_owned()),
    ] {
        variables.push((name.to_owned(), value));
    }
    let sender = start(&variables);
    sender.send(0..500);
    let exported = |daemon: &Daemon, name: &str| daemon.stats()["destinations"][name]["exported"].clone();
    sender.page("/stats", |_| exported(&sender, "default") == 500 && exported(&sender, "http") == 500);
    receiver.page("/stats", |_| exported(&receiver, "default") == 1_000);
    assert_eq!(arrived(&sink), (0..500).map(|number| (number, 2)).collect());

    sender.page("/health", |health| {
        health.contains("nameless ") && health.contains("TLS: it does not accept our certificate")
    });
    assert_eq!(exported(&sender, "nameless"), 0);
    let failures = |daemon: &Daemon, reason: &str| {
        let page = get_blocking(daemon.pages, "/metrics", None).body;
        Samples::parse(&page).sum("nyx_door_tls_failures_total", &[&format!("reason=\"{reason}\"")])
    };
    assert!(failures(&receiver, "no_certificate") > 0.0);
    let line = receiver.line("of the refusal", |line| line["reason"] == "no_certificate");
    assert_eq!(
        (&line["message"], &line["door"], &line["level"]),
        (
            &"no TLS with a client: it shows no certificate, which ingest.http.tls.client_ca_file asks for"
                .into(),
            &"http".into(),
            &"WARN".into()
        )
    );
    assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    let stats = receiver.stats();
    assert_eq!((&stats["balanced"], &stats["spans"]["accepted"]), (&true.into(), &1_000.into()));
    for daemon in [sender, receiver] {
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.end().0.code(), Some(0));
    }
}
