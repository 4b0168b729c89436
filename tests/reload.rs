//! SIGHUP, from outside: what changes, what stays, and what is said of a configuration that is not valid.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

mod support;

use std::{fs, time::Duration};

use nyx_telemetry::{export::testing::ScriptedDestination, tls::testing as tls};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use rustix::process::Signal;
use serde_json::Value;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use self::support::{
    Nyx, arrived,
    http::{get_blocking, get_with},
    load::{client, deliver},
    process::Daemon,
    quick,
    reload::{File, exported, metric, reloads, to},
    request, system,
    tls::client_over,
};

#[test]
fn a_destination_moves_and_counters_doors_and_what_was_delivered_stay() {
    let [before, after] = [(); 2].map(|()| ScriptedDestination::start().unwrap());
    let file = File::new("moves.toml", &to(&before.endpoint(), ""));
    let mut daemon = file.daemon();
    daemon.send(0..500);
    daemon.page("/stats", |_| exported(&daemon) == 500);
    let (door, pages) = (daemon.door.clone(), daemon.pages);

    file.write(&to(&after.endpoint(), "[tracing]\nlevel = \"debug\"\n[runtime]\nio_threads = 1"));
    daemon.signal(Signal::HUP);
    let line = daemon.line("of the reload", |line| {
        line["message"] == "configuration reloaded; some of it needs a restart"
    });
    assert_eq!(line["changed"], "telemetry.otlp_endpoint, tracing.level");
    assert_eq!(line["needs_restart"], "runtime.io_threads");
    daemon.page("/stats", |_| reloads(&daemon) == (1, 0));
    daemon.send(500..1_000);
    daemon.page("/stats", |_| exported(&daemon) == 1_000);
    assert_eq!((&daemon.door, daemon.pages), (&door, pages));
    assert_eq!(arrived(&before), (0..500).map(|number| (number, 1)).collect());
    assert_eq!(arrived(&after), (500..1_000).map(|number| (number, 1)).collect());
    let stats = daemon.stats();
    assert_eq!((&stats["spans"]["accepted"], &stats["balanced"]), (&1_000.into(), &true.into()));
    assert!(stats["actors"].as_array().unwrap().iter().all(|actor| actor["restarts"] == 0), "{stats}");
    assert_eq!(metric(&daemon, "nyx_config_reloads_total", &["result=\"applied\""]), 1.0);
    assert_eq!(metric(&daemon, "nyx_config_last_reload_successful", &[]), 1.0);
    daemon.signal(Signal::TERM);
    let (status, lines) = daemon.end();
    assert_eq!(status.code(), Some(0));
    assert!(lines.iter().any(|line| line["level"] == "DEBUG"), "{lines:#?}");
}

#[test]
fn a_configuration_that_is_not_valid_changes_nothing_and_health_says_so_until_one_is() {
    let sink = ScriptedDestination::start().unwrap();
    let file = File::new("invalid.toml", &to(&sink.endpoint(), ""));
    let mut daemon = file.daemon();
    file.write(&to("nowhere", "sampling = 1"));
    daemon.signal(Signal::HUP);
    let endpoint = "telemetry.otlp_endpoint is \"nowhere\"";
    let line = daemon.line("of the refusal", |line| line["level"] == "ERROR");
    let message = line["message"].as_str().unwrap();
    assert!(
        message.starts_with("the configuration was not reloaded, and the one before stays: "),
        "{message}"
    );
    assert!(message.contains(endpoint) && message.contains("telemetry.sampling is 1"), "{message}");
    daemon.page("/health", |health| {
        health.contains("degraded: the configuration was not reloaded: telemetry.otlp_endpoint is")
            && health.contains("(and 1 more)")
    });
    assert_eq!(get_blocking(daemon.pages, "/readyz", None).status, 200);
    assert_eq!(reloads(&daemon), (0, 1));
    assert_eq!(metric(&daemon, "nyx_config_reloads_total", &["result=\"refused\""]), 1.0);
    assert_eq!(metric(&daemon, "nyx_config_last_reload_successful", &[]), 0.0);
    daemon.send(0..100);
    daemon.page("/stats", |_| exported(&daemon) == 100);

    file.write("is not TOML");
    daemon.signal(Signal::HUP);
    daemon.page("/health", |health| health.contains("line 1, column 4: is not TOML"));
    file.write(&to(&sink.endpoint(), ""));
    daemon.signal(Signal::HUP);
    daemon.page("/health", |health| health.contains("\"status\":\"ok\""));
    assert_eq!(reloads(&daemon), (1, 2));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().0.code(), Some(0));
}

/// What a request with this token is told over a connection that stays.
async fn sent(channel: &Channel, token: &str) -> Code {
    let mut request = tonic::Request::new(request(0..1));
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let told = TraceServiceClient::new(channel.clone()).export(request).await;
    told.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[test]
fn tokens_follow_one_another_while_connections_stay() {
    const OLD: &str = "0123456789abcdef-old";
    const NEW: &str = "0123456789abcdef-new";
    let sink = ScriptedDestination::start().unwrap();
    let [doors, pages] = ["doors.tokens", "pages.tokens"].map(|name| File::new(name, OLD));
    let config = |doors: &str, pages: &str| {
        to(
            &sink.endpoint(),
            &format!("prometheus_token_file = \"{pages}\"\n[ingest]\ntoken_file = \"{doors}\""),
        )
    };
    let both = config(doors.path(), pages.path());
    let file = File::new("tokens.toml", &both);
    let mut daemon = file.daemon();
    let page = |daemon: &Daemon, token: &str| {
        let bearer = format!("Bearer {token}");
        get_with(daemon.pages, "/health", &[("authorization", &bearer)])
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let channel = runtime.block_on(async {
        Endpoint::from_shared(format!("http://{}", daemon.door)).unwrap().connect().await.unwrap()
    });
    let judged = |daemon: &Daemon| {
        let doors = [OLD, NEW].map(|token| runtime.block_on(sent(&channel, token)));
        (doors, [OLD, NEW].map(|token| page(daemon, token).status))
    };
    let mut applied = 0;
    let mut reload = |daemon: &mut Daemon, changed: Value| {
        applied += 1;
        daemon.signal(Signal::HUP);
        let lines = daemon.lines(applied, |line| line["message"] == "configuration reloaded");
        assert_eq!(lines.last().unwrap()["changed"], changed);
    };
    let (yes, no) = (Code::Ok, Code::Unauthenticated);
    assert_eq!(judged(&daemon), ([yes, no], [200, 401]));

    doors.write(&format!("{OLD}\n{NEW}"));
    reload(&mut daemon, "ingest.token_file".into());
    assert_eq!(judged(&daemon), ([yes, yes], [200, 401]));

    doors.write(NEW);
    pages.write(NEW);
    reload(&mut daemon, "ingest.token_file, telemetry.prometheus_token_file".into());
    assert_eq!(judged(&daemon), ([no, yes], [401, 200]));

    doors.write("hush");
    daemon.signal(Signal::HUP);
    daemon.line("of the refusal", |line| line["level"] == "ERROR");
    assert_eq!(judged(&daemon), ([no, yes], [401, 200]), "the old ones hold");
    let health = page(&daemon, NEW).body;
    assert!(health.contains("the configuration was not reloaded: ingest.token_file is"), "{health}");
    assert!(health.contains("line 1 has 4 bytes") && !health.contains("hush"), "{health}");

    file.write(&config("", ""));
    reload(&mut daemon, "telemetry.prometheus_token_file, ingest.token_file".into());
    assert_eq!(judged(&daemon), ([yes, yes], [200, 200]), "switched off");
    doors.write(OLD);
    file.write(&both);
    reload(&mut daemon, "telemetry.prometheus_token_file, ingest.token_file".into());
    assert_eq!(judged(&daemon), ([yes, no], [401, 200]), "and on again");

    let opened = page(&daemon, NEW);
    assert_eq!(opened.status, 200);
    let bearer = format!("Bearer {NEW}");
    let stats = get_with(daemon.pages, "/stats", &[("authorization", &bearer)]).json();
    assert_eq!(stats["connections"]["grpc"]["opened"], 1, "all of it over one connection");
    assert_eq!(stats["door"]["grpc"]["refused"]["unauthenticated"]["requests"], 4, "{stats}");
    daemon.signal(Signal::TERM);
    let (status, lines) = daemon.end();
    assert_eq!(status.code(), Some(0));
    for token in ["0123456789abcdef", "hush"] {
        assert!(!lines.iter().any(|line| line.to_string().contains(token)), "{lines:#?}");
    }
}

#[test]
fn an_exporter_that_crashes_afterwards_has_the_new_settings() {
    system(async {
        let [before, after] = [(); 2].map(|()| ScriptedDestination::start().unwrap());
        let nyx = Nyx::start(vec![quick("default", &before.endpoint())], |_| {}).await;
        let mut sender = client(nyx.door);
        assert_eq!(nyx.tree.reconfigure(&quick("default", &after.endpoint())).await, Ok(true));
        nyx.crash("export.default").await;
        assert_eq!(deliver(&mut sender, 0..100).await, 0);
        nyx.settled().await;
        assert_eq!(arrived(&after), (0..100).map(|number| (number, 1)).collect());
        assert_eq!(arrived(&before).len(), 0);

        assert_eq!(nyx.tree.reconfigure(&quick("other", &after.endpoint())).await, Ok(false));
        let refused = nyx.tree.reconfigure(&quick("default", "nowhere")).await.unwrap_err();
        assert_eq!(refused.problems[0].setting, "endpoint");
        nyx.crash("export.default").await;
        assert_eq!(deliver(&mut sender, 100..200).await, 0);
        nyx.settled().await;
        assert_eq!(arrived(&after).len(), 200);
        nyx.tree.shutdown(Duration::from_secs(10)).await;
    });
}

/// The files of the gRPC door's TLS, which are in this folder.
fn door_tls(folder: &tls::Folder, clients: Option<&str>) -> String {
    let file = |name: &str| folder.path(name).display().to_string();
    let clients = clients.map(|name| format!("client_ca_file = {:?}\n", file(name))).unwrap_or_default();
    format!(
        "[ingest.grpc.tls]\ncert_file = {:?}\nkey_file = {:?}\n{clients}",
        file("door.pem"),
        file("server.key")
    )
}

#[test]
fn a_doors_certificate_is_renewed_and_open_connections_go_on() {
    let folder = tls::Folder::new("reload-door-tls");
    let install = |name: &str| fs::copy(folder.path(name), folder.path("door.pem")).unwrap();
    let [server, renewed] = ["server.pem", "renewed.pem"].map(|name| fs::read(folder.path(name)).unwrap());
    assert_ne!(server, renewed);
    install("server.pem");
    let sink = ScriptedDestination::start().unwrap();
    let file = File::new("door-tls.toml", &to(&sink.endpoint(), &door_tls(&folder, None)));
    let mut daemon = file.daemon();
    assert_eq!(daemon.line("ready", |line| line["message"] == "ready")["tls"], "grpc");
    system(async {
        let sender = tls::Client::new(&folder).offering(&["h2"]);
        let connection = sender.connect(&daemon.door).await.unwrap();
        let first = tls::shown(&connection);
        let mut open = client_over(connection).await;
        open.export(request(0..50)).await.unwrap();

        install("renewed.pem");
        daemon.signal(Signal::HUP);
        let renewals = "new connections have the certificate that is in the door's files now";
        assert_eq!(daemon.line("of the renewal", |line| line["message"] == renewals)["door"], "grpc");
        let connection = sender.connect(&daemon.door).await.unwrap();
        let second = tls::shown(&connection);
        assert_ne!(first, second);
        client_over(connection).await.export(request(50..100)).await.unwrap();
        open.export(request(100..150)).await.unwrap();
        let expires = metric(&daemon, "nyx_door_certificate_expiry_timestamp_seconds", &["door=\"grpc\""]);
        assert_eq!(expires, 67_090_118_400.0);

        fs::write(folder.path("door.pem"), "half a certificate").unwrap();
        daemon.signal(Signal::HUP);
        let degraded = "degraded: the configuration was not reloaded: ingest.grpc.tls.cert_file (file ";
        daemon.page("/health", |health| {
            health.contains(degraded) && health.contains("must hold a certificate in PEM")
        });
        assert_eq!(tls::shown(&sender.connect(&daemon.door).await.unwrap()), second);

        install("server.pem");
        file.write(&to(&sink.endpoint(), &door_tls(&folder, Some("ca.pem"))));
        daemon.signal(Signal::HUP);
        let reloaded = |line: &serde_json::Value| line["changed"] == "ingest.grpc.tls.client_ca_file";
        daemon.line("of the reload", reloaded);
        assert!(sender.refused(&daemon.door).await.contains("CertificateRequired"));
        let connection = sender.with("client.pem", "client.key").connect(&daemon.door).await.unwrap();
        assert_eq!(tls::shown(&connection), first);
        client_over(connection).await.export(request(150..200)).await.unwrap();
        open.export(request(200..250)).await.unwrap();
        let reason = &["door=\"grpc\"", "reason=\"no_certificate\""];
        assert_eq!(metric(&daemon, "nyx_door_tls_failures_total", reason), 1.0);
        assert_eq!(daemon.stats()["tls"]["grpc"]["client_certificates"], true);

        file.write(&to(&sink.endpoint(), ""));
        daemon.signal(Signal::HUP);
        let keys = ["cert_file", "key_file"].map(|key| format!("ingest.grpc.tls.{key}")).join(", ");
        daemon.line("that it needs a restart", |line| line["needs_restart"] == keys);
        assert!(sender.refused(&daemon.door).await.contains("CertificateRequired"), "it has it still");
    });
    daemon.page("/stats", |_| exported(&daemon) == 250);
    assert_eq!(reloads(&daemon), (3, 1));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().0.code(), Some(0));
}
