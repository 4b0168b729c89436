//! SIGHUP, from outside: what changes, what stays, and what is said of a configuration that is not valid.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

mod support;

use std::{collections::BTreeSet, fs, net::SocketAddr, ops::Range, path::PathBuf, time::Duration};

use nyx_telemetry::{
    export::{
        DestinationConfig,
        testing::{Reply, ScriptedDestination},
    },
    tls::testing as tls,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::trace_service_client::TraceServiceClient,
    common::v1::{AnyValue, KeyValue, any_value},
};
use rustix::process::Signal;
use serde_json::Value;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use self::support::{
    Nyx, arrived,
    folder::Folder,
    http::{Samples, get_blocking, get_with},
    load::{client, deliver},
    process::Daemon,
    quick, request, spans, system,
    tls::client_over,
};

/// A configuration file that the test rewrites.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let file = Self(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }

    fn daemon(&self) -> Daemon {
        Daemon::configured(&["run", "--config", self.0.to_str().unwrap()], &[])
    }

    /// With its log in a folder.
    fn daemon_in(&self, folder: &Folder) -> Daemon {
        let variables = [("NYX__LOG__DURABILITY", "process"), ("NYX__LOG__DIR", folder.text())];
        Daemon::configured(&["run", "--config", self.0.to_str().unwrap()], &variables)
    }
}

fn to(endpoint: &str, more: &str) -> String {
    format!(
        "[telemetry]\notlp_endpoint = \"{endpoint}\"\n{more}\n[export.default.batch]\nmax_delay = \"1ms\"\n"
    )
}

/// A table of another destination.
fn another(name: &str, endpoint: &str) -> String {
    format!("[export.{name}]\nendpoint = \"{endpoint}\"\nbatch = {{ max_delay = \"1ms\" }}\n")
}

fn reloads(daemon: &Daemon) -> (u64, u64) {
    let reloads = &daemon.stats()["reloads"];
    (reloads["applied"].as_u64().unwrap(), reloads["refused"].as_u64().unwrap())
}

fn metric(daemon: &Daemon, name: &str, labels: &[&str]) -> f64 {
    Samples::parse(&get_blocking(daemon.pages, "/metrics", None).body).sum(name, labels)
}

fn exported(daemon: &Daemon) -> u64 {
    exported_to(daemon, "default")
}

fn exported_to(daemon: &Daemon, name: &str) -> u64 {
    daemon.stats()["destinations"][name]["exported"].as_u64().unwrap_or_default()
}

/// Reloads, and waits for its line.
fn reloaded(daemon: &mut Daemon) -> Value {
    let (applied, _) = reloads(daemon);
    daemon.signal(Signal::HUP);
    daemon.page("/stats", |_| reloads(daemon).0 == applied + 1);
    let line = daemon.line("of the reload", |line| line["message"] == "configuration reloaded");
    daemon.forget();
    line
}

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
    let both = config(doors.0.to_str().unwrap(), pages.0.to_str().unwrap());
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

#[test]
fn a_destination_comes_and_goes_while_everything_else_runs_on() {
    let [sink, archive] = [(); 2].map(|()| ScriptedDestination::start().unwrap());
    let folder = Folder::new("reload-comes");
    let with = |more: &str| to(&sink.endpoint(), "") + more;
    let file = File::new("comes.toml", &with(""));
    let mut daemon = file.daemon_in(&folder);
    daemon.send(0..500);
    daemon.page("/stats", |_| exported(&daemon) == 500);

    file.write(&with(&another("archive", &archive.endpoint())));
    let line = reloaded(&mut daemon);
    let changed = line["changed"].as_str().unwrap();
    assert!(changed.contains("export.archive.endpoint") && line["needs_restart"].is_null(), "{line}");
    let position = folder.path().join("positions/archive.position");
    assert!(position.exists());
    assert_eq!(daemon.stats()["destinations"]["archive"]["start"], 500);
    assert_eq!(metric(&daemon, "nyx_destination_position_ordinal", &["destination=\"archive\""]), 500.0);
    daemon.send(500..1_000);
    daemon.page("/stats", |_| (exported(&daemon), exported_to(&daemon, "archive")) == (1_000, 500));
    assert_eq!(arrived(&archive), (500..1_000).map(|number| (number, 1)).collect());

    file.write(&with(""));
    reloaded(&mut daemon);
    let stats = daemon.stats();
    assert!(stats["destinations"]["archive"].is_null() && !position.exists(), "{stats}");
    let page = get_blocking(daemon.pages, "/metrics", None).body;
    assert!(!page.contains("archive"), "{page}");
    daemon.send(1_000..1_100);
    daemon.page("/stats", |_| exported(&daemon) == 1_100);
    assert_eq!(arrived(&sink), (0..1_100).map(|number| (number, 1)).collect());
    let stats = daemon.stats();
    assert_eq!((&stats["balanced"], &stats["spans"]["accepted"]), (&true.into(), &1_100.into()));
    assert!(stats["actors"].as_array().unwrap().iter().all(|actor| actor["restarts"] == 0), "{stats}");
    assert_eq!(arrived(&archive).len(), 500);

    // No destination at all, and back.
    file.write(&with("").replace("[telemetry]", "[telemetry]\nspan_export_enabled = false"));
    reloaded(&mut daemon);
    assert_eq!(daemon.stats()["destinations"], serde_json::json!({}));
    daemon.send(1_100..1_200);
    file.write(&with(""));
    reloaded(&mut daemon);
    daemon.send(1_200..1_300);
    daemon.page("/stats", |_| exported(&daemon) == 100);
    daemon.page("/health", |health| health.contains("\"status\":\"ok\""));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().0.code(), Some(0));
    assert!(folder.path().join("clean").exists());
}

#[test]
fn a_destination_that_cannot_come_leaves_everything_as_it_was_and_health_says_so() {
    let sink = ScriptedDestination::start().unwrap();
    let folder = Folder::new("reload-cannot");
    let file = File::new("cannot.toml", &to(&sink.endpoint(), ""));
    let mut daemon = file.daemon_in(&folder);
    let position = |name: &str| folder.path().join(format!("positions/{name}.position"));
    // Where the position is to be written there is something else.
    fs::create_dir_all(position("late")).unwrap();
    let both = another("early", &sink.endpoint()) + &another("late", &sink.endpoint());
    file.write(&(to(&sink.endpoint(), "[tracing]\nlevel = \"debug\"") + &both));
    daemon.signal(Signal::HUP);
    daemon.page("/health", |health| {
        health.contains("degraded: the configuration was not reloaded: the destination late cannot be added: the span log cannot read or write its files: ")
    });
    assert_eq!(reloads(&daemon), (0, 1));
    let stats = daemon.stats();
    let names: Vec<_> = stats["destinations"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["default"], "the one that came first has gone again");
    assert!(!position("early").exists());
    daemon.send(0..100);
    daemon.page("/stats", |_| exported(&daemon) == 100);
    assert_eq!(arrived(&sink), (0..100).map(|number| (number, 1)).collect());

    fs::remove_dir(position("late")).unwrap();
    let line = reloaded(&mut daemon);
    assert!(line["changed"].as_str().unwrap().starts_with("tracing.level, export.early"), "{line}");
    daemon.page("/health", |health| health.contains("\"status\":\"ok\""));
    daemon.send(100..200);
    daemon.page("/stats", |_| ["early", "late"].iter().all(|name| exported_to(&daemon, name) == 100));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().0.code(), Some(0));
}

#[test]
fn a_stop_in_the_midst_of_a_reload_is_a_stop_and_nothing_is_lost() {
    let (sink, hanging) = (ScriptedDestination::start().unwrap(), ScriptedDestination::start().unwrap());
    hanging.judge(|_| Reply::Stall);
    let folder = Folder::new("reload-stop");
    let base = to(&sink.endpoint(), "[shutdown]\ntimeout = \"8s\"");
    let hung = another("hanging", &hanging.endpoint()).replace("batch", "timeout = \"10m\"\nbatch");
    let file = File::new("stop.toml", &(base.clone() + &hung));
    let daemon = file.daemon_in(&folder);
    daemon.send(0..100);
    daemon.page("/stats", |_| {
        exported(&daemon) == 100 && daemon.stats()["destinations"]["hanging"]["in_flight"] != 0
    });
    file.write(&base);
    // Twice: the second waits its turn.
    daemon.signal(Signal::HUP);
    daemon.signal(Signal::HUP);
    daemon.page("/health", |health| health.contains("actor export.hanging is stopping"));
    daemon.send(100..200);
    daemon.page("/stats", |_| exported(&daemon) == 200);
    daemon.signal(Signal::TERM);
    daemon.signal(Signal::HUP);
    let (status, lines) = daemon.end();
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    let stopped = lines.iter().find(|line| line["message"] == "stopped").unwrap();
    assert!(stopped["given_up"].is_null(), "{stopped}");

    file.write(&base);
    let daemon = file.daemon_in(&folder);
    assert_eq!(daemon.stats()["destinations"]["default"]["exported"], 200);
    assert!(daemon.stats()["destinations"]["hanging"].is_null());
    daemon.send(200..300);
    daemon.page("/stats", |_| exported(&daemon) == 300);
    assert_eq!(daemon.stats()["balanced"], true);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().0.code(), Some(0));
    assert_eq!(arrived(&sink), (0..300).map(|number| (number, 1)).collect());
}

/// Sends the spans of these numbers with an attribute.
fn send_with(daemon: &Daemon, numbers: Range<u64>, key: &str, text: &str) {
    let mut request = request(numbers);
    for scope in request.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans) {
        for span in &mut scope.spans {
            let value = Some(AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) });
            span.attributes.push(KeyValue { key: key.to_owned(), value, ..KeyValue::default() });
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { client(daemon.door.parse().unwrap()).export(request).await }).unwrap();
}

fn counted(daemon: &Daemon) -> u64 {
    daemon.stats()["metrics"]["position"].as_u64().unwrap()
}

#[test]
fn dimensions_come_and_go_and_span_metrics_go_on_over_a_kill_too() {
    let sink = ScriptedDestination::start().unwrap();
    let folder = Folder::new("reload-dimensions");
    let with = |metrics: &str| to(&sink.endpoint(), &format!("[metrics]\n{metrics}"));
    let (without, routed) = (with("max_series = 1000"), with("dimensions = [\"http.route\"]"));
    let file = File::new("dimensions.toml", &without);
    let mut daemon = file.daemon_in(&folder);
    daemon.send(0..100);
    daemon.page("/stats", |_| counted(&daemon) == 100);
    let count = |daemon: &Daemon, labels: &[&str]| metric(daemon, "nyx_span_count_total", labels);
    let families = |daemon: &Daemon| {
        (0..7).map(|name| metric(daemon, &format!("nyx_span_count_work_{name}"), &[])).sum::<f64>()
    };
    assert_eq!((count(&daemon, &[]), families(&daemon)), (100.0, 100.0));

    file.write(&(routed.clone() + "[metrics.unknown]"));
    daemon.signal(Signal::HUP);
    daemon.page("/stats", |_| reloads(&daemon) == (0, 1));
    file.write(&routed);
    let line = reloaded(&mut daemon);
    assert_eq!(line["changed"], "metrics.max_series, metrics.dimensions");
    let pay = ["http_route=\"/pay\""];
    assert_eq!((count(&daemon, &[]), count(&daemon, &pay)), (100.0, 0.0));
    send_with(&daemon, 100..150, "http.route", "/pay");
    daemon.page("/stats", |_| counted(&daemon) == 150);
    assert_eq!((count(&daemon, &[]), count(&daemon, &pay), families(&daemon)), (150.0, 50.0, 150.0));

    // The next process goes on with the same.
    daemon.signal(Signal::KILL);
    let _killed = daemon.end();
    let mut daemon = file.daemon_in(&folder);
    daemon.page("/stats", |_| counted(&daemon) == 150);
    assert_eq!((count(&daemon, &[]), count(&daemon, &pay), families(&daemon)), (150.0, 50.0, 150.0));

    // A checkpoint that cannot be stored changes nothing.
    let checkpoint = folder.path().join("red.checkpoint");
    fs::remove_file(&checkpoint).unwrap();
    fs::create_dir_all(checkpoint.join("in the way")).unwrap();
    file.write(&without);
    daemon.signal(Signal::HUP);
    daemon.page("/health", |health| {
        health.contains("the configuration was not reloaded: the span metrics keep their settings: their checkpoint cannot be stored: ")
    });
    assert_eq!(count(&daemon, &pay), 50.0);
    fs::remove_dir_all(&checkpoint).unwrap();
    let line = reloaded(&mut daemon);
    assert_eq!(line["changed"], "metrics.max_series, metrics.dimensions");
    // The series of the route have ended; what they summed up by name goes on.
    assert_eq!((count(&daemon, &[]), families(&daemon)), (100.0, 150.0));
    assert!(!get_blocking(daemon.pages, "/metrics", None).body.contains("http_route"));
    send_with(&daemon, 150..200, "http.route", "/pay");
    daemon.page("/stats", |_| counted(&daemon) == 200);
    assert_eq!((count(&daemon, &[]), families(&daemon)), (150.0, 200.0));
    assert_eq!(daemon.stats()["balanced"], true);

    // Bounds need a restart, and hold nothing else up.
    file.write(&with("histogram_bounds = [\"1s\"]\nseed_families = false\nmax_series = 1000"));
    daemon.signal(Signal::HUP);
    let line = daemon.line("of the reload", |line| {
        line["message"] == "configuration reloaded; some of it needs a restart"
    });
    assert_eq!(
        (&line["changed"], &line["needs_restart"]),
        (&"metrics.seed_families".into(), &"metrics.histogram_bounds".into())
    );
    daemon.page("/stats", |_| families(&daemon) == 0.0);
    assert_eq!(count(&daemon, &[]), 150.0);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().0.code(), Some(0));
}

#[test]
fn exemplars_lead_to_traces_that_the_rates_of_now_let_through() {
    system(async {
        let sink = ScriptedDestination::start().unwrap();
        let nyx = Nyx::start(vec![quick("default", &sink.endpoint())], |_| {}).await;
        let exemplars = |nyx: &Nyx| {
            let series = nyx.tree.observed().red().unwrap().snapshot().series;
            let all = series.iter().flat_map(|series| {
                (0..20).filter_map(|bucket| series.counts.exemplars.get(bucket).map(|it| it.trace_id))
            });
            all.collect::<Vec<_>>()
        };
        let mut sender = client(nyx.door);
        assert_eq!(deliver(&mut sender, 0..200).await, 0);
        nyx.settled().await;
        assert!(exemplars(&nyx).len() > 3);
        let at = |rate| DestinationConfig { sampling_rate: rate, ..quick("default", &sink.endpoint()) };
        nyx.tree.reconfigure(&at(0.0)).await.unwrap();
        assert_eq!(exemplars(&nyx).len(), 0);
        assert_eq!(deliver(&mut sender, 200..400).await, 0);
        nyx.settled().await;
        assert_eq!(exemplars(&nyx).len(), 0);

        // One that takes half of the traces comes: exemplars are of those.
        let half = DestinationConfig { sampling_rate: 0.5, ..quick("half", &sink.endpoint()) };
        nyx.tree.add_destination(half).await.unwrap();
        assert_eq!(deliver(&mut sender, 400..600).await, 0);
        nyx.settled().await;
        let arrived: BTreeSet<Vec<u8>> =
            spans(&sink.received()).into_iter().map(|(_, span)| span.trace_id).collect();
        let found = exemplars(&nyx);
        assert!(found.len() > 3);
        assert!(found.iter().all(|trace| arrived.contains(trace.as_bytes().as_slice())), "{found:?}");
        nyx.tree.remove_destination("half").await.unwrap();
        assert_eq!(exemplars(&nyx).len(), 0);
        nyx.stop().await;
    });
}

/// Sends until nobody answers any more; the first number that was not acknowledged.
fn send_until_killed(door: SocketAddr, first: u64) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut client, mut next) = (client(door), first);
        while client.export(request(next..next + 20)).await.is_ok() {
            next += 20;
        }
        next
    })
}

#[test]
fn killed_in_the_midst_of_reloads_under_load_it_loses_nothing_that_was_acknowledged() {
    let [sink, guest] = [(); 2].map(|()| ScriptedDestination::start().unwrap());
    let folder = Folder::new("reload-killed");
    let without = to(&sink.endpoint(), "[metrics]\ndimensions = [\"http.route\"]");
    let with = to(&sink.endpoint(), "") + &another("guest", &guest.endpoint());
    let file = File::new("killed.toml", &without);
    let (mut acknowledged, mut next) = (Vec::new(), 0);
    for round in 0..4_u64 {
        let daemon = file.daemon_in(&folder);
        let door = daemon.door.parse().unwrap();
        let sender = std::thread::spawn(move || send_until_killed(door, next));
        for swap in 0..=round {
            file.write(if (round + swap) % 2 == 0 { &with } else { &without });
            let exported = exported(&daemon);
            daemon.page("/stats", |_| exported_to(&daemon, "default") > exported + 40);
            daemon.signal(Signal::HUP);
            if swap < round {
                daemon.page("/stats", |_| reloads(&daemon) == (swap + 1, 0));
            }
        }
        // In the midst of the last one.
        daemon.signal(Signal::KILL);
        let _killed = daemon.end();
        let end = sender.join().unwrap();
        acknowledged.extend(next..end);
        // What was under way is nobody's.
        next = end + 20;
    }
    file.write(&with);
    let mut daemon = file.daemon_in(&folder);
    daemon.send(next..next + 100);
    let settled = |name: &str| daemon.stats()["destinations"][name]["queued"] == 0;
    daemon.page("/stats", |_| settled("default") && settled("guest"));
    daemon.page("/stats", |_| daemon.stats()["log"]["end"] == counted(&daemon));
    let all = arrived(&sink);
    let missing: Vec<_> = acknowledged.iter().filter(|number| !all.contains_key(number)).collect();
    assert_eq!(missing, [&0; 0]);
    let at_guest = arrived(&guest);
    assert!((next..next + 100).all(|number| at_guest.contains_key(&number)));
    assert!(at_guest.keys().all(|number| all.contains_key(number)), "nobody made anything up");
    let stats = daemon.stats();
    let of = |name: &str, what: &str| stats["destinations"][name][what].as_u64().unwrap();
    assert_eq!((of("default", "start"), of("default", "exported")), (0, of("default", "end")));
    assert_eq!(of("guest", "end") - of("guest", "start"), of("guest", "exported"));
    assert_eq!((&stats["balanced"], counted(&daemon)), (&true.into(), of("default", "end")));
    daemon.page("/health", |health| health.contains("\"status\":\"ok\""));
    let metrics = reloaded(&mut daemon);
    assert!(metrics["changed"].is_null(), "{metrics}");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().0.code(), Some(0));
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
