//! SIGHUP, from outside: destinations that come and go, dimensions, exemplars, and a process that ends in the midst of it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

mod support;
use std::{collections::BTreeSet, fs, net::SocketAddr, ops::Range};

use nyx_telemetry::export::{
    DestinationConfig,
    testing::{Reply, ScriptedDestination},
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use rustix::process::Signal;

use self::support::{
    Nyx, arrived,
    folder::Folder,
    http::get_blocking,
    load::{client, deliver},
    process::Daemon,
    quick,
    reload::{File, another, exported, exported_to, metric, reloaded, reloads, to},
    request, spans, system,
};

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
