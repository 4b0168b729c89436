//! The admin pages over HTTP, and proof that every metric on them can move.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nyx_daemon::{
    config::{Config, Environment},
    log_folder,
    run::{Daemon, Signals},
};
use nyx_telemetry::{
    ConnectionId,
    accept::{ListenAddr, Listener},
    export::{
        DestinationConfig,
        testing::{Reply, ScriptedDestination},
    },
    log::{
        Durability,
        segments::{DirLock, OpenLog, SegmentLogConfig, WhenFull},
    },
    measure::exposition::Format,
    metrics::{ALL, Family, Kind},
    observe::Phase,
    self_tracing::{OwnSpan, Recorder, RecorderCounts, Tracer},
    supervise::Intensity,
    tls::testing as tls,
    tree::LogForm,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value};
use serde_json::{Value, json};
use tonic::Code;

use self::support::{
    Nyx,
    folder::Folder,
    hold_until,
    http::{Answer, Samples, ask, get, get_with},
    load::{client, deliver, span},
    nobody, quick, request, system, until,
};

/// A daemon in this process that delivers to `endpoint`, with its log in memory unless told.
async fn daemon(endpoint: &str, more: &[(&str, &str)]) -> Daemon {
    let tls = tls::Folder::new(&format!("pages-{:?}", std::thread::current().id()));
    let [certificate, key] = ["server.pem", "server.key"].map(|name| tls.path(name).display().to_string());
    let environment = [
        ("NYX__TELEMETRY__OTLP_ENDPOINT", endpoint),
        ("NYX__TELEMETRY__PROMETHEUS_ADDR", "127.0.0.1:0"),
        ("NYX__INGEST__GRPC__LISTEN", "127.0.0.1:0"),
        ("NYX__INGEST__HTTP__LISTEN", "127.0.0.1:0"),
        ("NYX__INGEST__HTTP__TLS__CERT_FILE", &certificate),
        ("NYX__INGEST__HTTP__TLS__KEY_FILE", &key),
        ("NYX__EXPORT__DEFAULT__BATCH__MAX_DELAY", "10ms"),
        ("NYX__LOG__DURABILITY", "memory"),
    ];
    let environment = environment.iter().chain(more).copied();
    let config = Config::load(&[], &Environment::new(environment, false)).unwrap();
    let log = log_folder::open(&config, &mut Signals::new().unwrap()).await.unwrap().unwrap();
    let tracer = Tracer::new(1.0, Arc::new(Exported::default()));
    Daemon::start(&config, log, tracer).await.unwrap()
}

/// Traffic through both doors, all of it delivered.
async fn traffic(daemon: &Daemon) {
    let Some(ListenAddr::Tcp(door)) = daemon.grpc else { panic!("{:?}", daemon.grpc) };
    deliver(&mut client(door), 0..50).await;
    let connection = daemon.tree.in_process().connection(ConnectionId::new(1));
    (50..60).for_each(|number| assert!(span(&connection, number)));
    daemon.tree.in_process().flush().await.unwrap();
    until("everything is delivered and counted", || {
        let observed = daemon.tree.observed();
        let red = observed.red().unwrap().snapshot();
        observed.destination("default").unwrap().ledger.exported == 60 && red.position == 60
    })
    .await;
}

const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";

#[test]
fn after_some_traffic_every_family_is_on_the_live_page_in_both_formats() {
    system(async {
        let sink = ScriptedDestination::start().unwrap();
        let folder = Folder::new("live-page");
        let on_disk = [("NYX__LOG__DURABILITY", "process"), ("NYX__LOG__DIR", folder.text())];
        let daemon = daemon(&sink.endpoint(), &on_disk).await;
        traffic(&daemon).await;

        let text = get(daemon.pages, "/metrics", None).await;
        assert_eq!(
            (text.status, text.content_type.as_str()),
            (200, "text/plain; version=0.0.4; charset=utf-8")
        );
        let open = get(daemon.pages, "/metrics", Some(OPEN_METRICS)).await;
        let open_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert_eq!((open.status, open.content_type.as_str()), (200, open_type));
        assert!(open.body.ends_with("\n# EOF\n"));

        let (samples, open_samples) = (Samples::parse(&text.body), Samples::parse(&open.body));
        for Family { name, help, kind, .. } in ALL {
            let open_name = name.strip_suffix("_total").unwrap_or(name);
            let (kind, of_it) = match kind {
                Kind::Counter => ("counter", (*name).to_owned()),
                Kind::Gauge => ("gauge", (*name).to_owned()),
                Kind::Histogram => ("histogram", format!("{name}_count")),
                Kind::Unknown => panic!("{name} is declared with a type"),
            };
            for (page, name) in [(&text.body, *name), (&open.body, open_name)] {
                assert!(
                    page.contains(&format!("\n# TYPE {name} {kind}\n"))
                        || page.starts_with(&format!("# TYPE {name} {kind}\n")),
                    "{name}"
                );
                assert!(page.contains(&format!("# HELP {name} {help}\n")), "{name}");
            }
            assert!(samples.select(&of_it, &[]).next().is_some(), "{of_it} has no sample");
            assert!(
                open_samples.select(&of_it, &[]).next().is_some(),
                "{of_it} has no sample in OpenMetrics"
            );
        }
        for process in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"] {
            assert!(samples.sum(process, &[]) >= 0.0 && text.body.contains(&format!("# TYPE {process} ")));
        }
        let red = |labels: &[&str]| samples.sum("nyx_span_count_total", labels);
        assert_eq!((red(&[]), red(&["service_name=\"remote\""])), (60.0, 50.0));
        assert_eq!(red(&["status_code=\"STATUS_CODE_ERROR\""]), 6.0);
        assert_eq!(samples.sum("nyx_span_errors_total", &[]), 6.0);
        assert_eq!(samples.sum("nyx_span_duration_seconds_bucket", &["le=\"+Inf\""]), 60.0);
        assert_eq!(samples.sum("nyx_span_duration_seconds_bucket", &["le=\"0.002\""]), 60.0);
        assert_eq!(samples.sum("nyx_build_info", &["version=\"0.1.0\""]), 1.0);
        assert!(daemon.tree.shutdown(Duration::from_secs(10)).await.is_clean());
    });
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap_or_else(|| panic!("{value}")).keys().map(String::as_str).collect()
}

#[test]
fn the_statistics_have_every_field_that_others_rely_on() {
    system(async {
        let sink = ScriptedDestination::start().unwrap();
        sink.script([Reply::Reset]);
        let daemon = daemon(&sink.endpoint(), &[]).await;
        traffic(&daemon).await;
        let answer = get(daemon.pages, "/stats", None).await;
        assert_eq!(answer.status, 200);
        let stats = answer.json();
        assert_eq!((&stats["version"], &stats["phase"]), (&json!("0.1.0"), &json!("running")));
        assert!(stats["uptime_seconds"].is_u64() && stats["balanced"] == json!(true), "{stats}");

        let grpc = &stats["door"]["grpc"];
        assert_eq!((&grpc["received"]["requests"], &grpc["accepted"]["requests"]), (&json!(1), &json!(1)));
        assert_eq!(grpc["pending"], json!({"requests": 0, "bytes": 0}));
        assert_eq!(grpc["refused"]["admission"], json!({"requests": 0, "bytes": 0}));
        assert_eq!(stats["door"]["in_process"]["accepted"]["requests"], 10);
        let spans = &stats["spans"];
        assert_eq!(
            (&spans["scanned"], &spans["accepted"], &spans["pending"]),
            (&json!(60), &json!(60), &json!(0))
        );
        assert_eq!(
            keys(&spans["rejected"]),
            [
                "invalid_id",
                "log_failed",
                "log_full",
                "lost",
                "name_too_long",
                "overloaded",
                "shutting_down",
                "too_many_attributes"
            ]
        );
        assert_eq!(keys(&spans["odd"]), ["empty_name", "end_before_start", "far_future"]);

        assert_eq!(keys(&stats["destinations"]), ["default"]);
        let destination = &stats["destinations"]["default"];
        for (field, value) in [("exported", 60), ("sampled_out", 0), ("queued", 0), ("retries", 1)] {
            assert_eq!(destination[field], value, "{field}");
        }
        assert_eq!(destination["state"], "idle");
        assert_eq!(
            keys(&destination["dropped"]),
            ["damaged", "evicted", "invalid", "refused", "rejected", "retries_exhausted", "too_large"]
        );
        assert!(destination["last_error"]["message"].is_string(), "{destination}");
        assert!(destination["last_error"]["at"].is_u64() && destination["last_success"].is_u64());

        let metrics = ["folded_spans", "max_series", "offenders", "position", "series", "services"];
        assert_eq!(keys(&stats["metrics"]), metrics);
        assert_eq!((&stats["metrics"]["services"], &stats["metrics"]["offenders"]), (&json!(2), &json!([])));
        let log = ["bytes", "dead_letters", "durability", "end", "max_bytes", "records", "start"];
        assert_eq!(keys(&stats["log"]), log);
        assert_eq!(stats["log"]["durability"], "memory");
        assert_eq!((&stats["log"]["end"], &stats["log"]["max_bytes"]), (&json!(60), &json!(256 << 20)));
        let actors: BTreeMap<&str, &Value> =
            stats["actors"].as_array().unwrap().iter().map(|a| (a["name"].as_str().unwrap(), a)).collect();
        for name in [
            "metrics",
            "export.default",
            "retention",
            "collector",
            "outbox.0",
            "connections",
            "acceptor.grpc",
            "acceptor.http",
            "admin",
        ] {
            let actor = actors.get(name).unwrap_or_else(|| panic!("no {name}"));
            for (field, value) in [("restarts", 0), ("panics", 0), ("inbox_depth", 0)] {
                assert_eq!(actor[field], value, "{name} {field}");
            }
            assert_eq!(
                (&actor["state"], &actor["last_failure"]),
                (&json!("running"), &Value::Null),
                "{name}"
            );
        }
        let connections = &stats["connections"];
        assert_eq!(connections["grpc"]["opened"], 1);
        assert_eq!(
            (&connections["in_process"]["opened"], &connections["in_process"]["refused"]),
            (&json!(1), &json!(0))
        );
        assert!(daemon.tree.shutdown(Duration::from_secs(10)).await.is_clean());
    });
}

#[test]
fn health_says_with_words_and_statuses_how_it_goes() {
    system(async {
        let mut sink = nobody();
        let daemon = daemon(&sink.endpoint(), &[("NYX__EXPORT__DEFAULT__RETRY__MAX", "100ms")]).await;
        let page = async |path: &'static str| {
            let Answer { status, body, .. } = get(daemon.pages, path, None).await;
            (status, body)
        };
        until("the destination is missed", || daemon.tree.observed().health().status != "ok").await;
        let (status, health) = page("/health").await;
        let health: Value = serde_json::from_str(&health).unwrap();
        let why = format!(
            "default unreachable (connect to {}: Connection refused (os error 111))",
            sink.endpoint()
        );
        assert_eq!(status, 200);
        assert_eq!(health, json!({"status": format!("degraded: {why}"), "ready": true, "reasons": [why]}));
        // Spans are taken: that is what readiness is about.
        assert_eq!(page("/readyz").await, (200, format!("degraded: {why}\n")));
        assert_eq!(page("/livez").await, (200, "ok\n".to_owned()));
        sink.revive().unwrap();
        until("it is well", || daemon.tree.observed().health().status == "ok").await;
        assert_eq!(page("/readyz").await, (200, "ok\n".to_owned()));
        assert_eq!(page("/").await.0, 404);
        let pages = "nyx-daemon: /metrics /stats /health /livez /readyz /api/v1/spans\n".to_owned();
        assert_eq!(page("/nowhere").await, (404, pages));

        // A crash of the pages' own actor ends the requests that it has, and refuses no connection meanwhile.
        daemon.tree.crash("admin", "crashed by a test").unwrap();
        std::net::TcpStream::connect(daemon.pages).unwrap();
        until("the pages run again", || {
            let records = daemon.tree.observed().records();
            support::record(&records, "admin").restarts == 1
        })
        .await;
        assert_eq!(page("/livez").await, (200, "ok\n".to_owned()));
        assert!(daemon.tree.shutdown(Duration::from_secs(10)).await.is_clean());
        let health = daemon.tree.observed().health();
        assert_eq!((health.status.as_str(), health.ready), ("stopping", false));
        assert_eq!(daemon.tree.observed().phase(), Phase::Stopping);
    });
}

#[test]
fn a_page_answers_head_as_get_without_its_body_and_other_methods_not_at_all() {
    system(async {
        let sink = ScriptedDestination::start().unwrap();
        let daemon = daemon(&sink.endpoint(), &[]).await;
        let asked = async |method: &'static str, path: &'static str| {
            let (at, (tell, told)) = (daemon.pages, tokio::sync::oneshot::channel());
            std::thread::spawn(move || tell.send(ask(at, method, path, &[])));
            told.await.unwrap()
        };
        let pages = ["/metrics", "/stats", "/health", "/livez", "/readyz", "/api/v1/spans"];
        for path in pages.into_iter().chain(["/api/v1/spans?limit=0", "/nowhere"]) {
            let (get, head) = (asked("GET", path).await, asked("HEAD", path).await);
            assert_eq!((head.status, &head.content_type), (get.status, &get.content_type), "{path}");
            assert_eq!(head.body, "", "{path}");
            let [get, head] = [get, head].map(|answer| {
                answer.header("content-length").map(|length| length.parse::<usize>().unwrap()).unwrap()
            });
            // What moves between the two has not always as many digits.
            let moves = ["/metrics", "/stats"].contains(&path);
            assert!(get > 0 && (get == head || moves && head > get / 2), "{path}: {get} and {head}");
        }
        for path in pages {
            for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
                let answer = asked(method, path).await;
                assert_eq!(
                    (answer.status, answer.header("allow")),
                    (405, Some("GET, HEAD")),
                    "{method} {path}"
                );
            }
        }
        assert!(daemon.tree.shutdown(Duration::from_secs(10)).await.is_clean());
    });
}

/// What a page answers to whom.
async fn asked(daemon: &Daemon, path: &'static str, authorization: &[&'static str]) -> Answer {
    let headers: Vec<_> = authorization.iter().map(|value| ("authorization", *value)).collect();
    let (at, (tell, told)) = (daemon.pages, tokio::sync::oneshot::channel());
    std::thread::spawn(move || tell.send(get_with(at, path, &headers)));
    told.await.unwrap()
}

#[test]
fn pages_are_for_whoever_brings_a_token_but_those_that_say_whether_it_works() {
    system(async {
        let mut sink = nobody();
        let folder = Folder::new("pages-tokens");
        std::fs::create_dir_all(folder.path()).unwrap();
        let file = folder.path().join("tokens");
        std::fs::write(&file, "# Prometheus\n0123456789abcdef-one\n# people\n0123456789abcdef-two\n")
            .unwrap();
        let tokens = [("NYX__TELEMETRY__PROMETHEUS_TOKEN_FILE", file.to_str().unwrap())];
        let daemon =
            daemon(&sink.endpoint(), &[tokens[0], ("NYX__EXPORT__DEFAULT__RETRY__MAX", "100ms")]).await;
        // Doors are another matter.
        let Some(ListenAddr::Tcp(door)) = daemon.grpc else { panic!("{:?}", daemon.grpc) };
        assert_eq!(deliver(&mut client(door), 0..5).await, 0);
        until("the destination is missed", || daemon.tree.observed().health().status != "ok").await;

        let all = ["/metrics", "/stats", "/health", "/api/v1/spans"];
        let wrong: [&[&str]; 6] = [
            &[],
            &[""],
            &["Bearer 0123456789abcdef"],
            &["Basic 0123456789abcdef-one"],
            &["0123456789abcdef-one"],
            &["Bearer 0123456789abcdef-one", "Bearer 0123456789abcdef-one"],
        ];
        for path in all.into_iter().chain(["/", "/nowhere", "/livez/", "//livez", "/readyz/x"]) {
            for authorization in wrong {
                let answer = asked(&daemon, path, authorization).await;
                assert_eq!(answer.status, 401, "{path} {authorization:?}");
                assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"nyx\""));
                assert_eq!(
                    answer.body,
                    "a bearer token is needed here: send authorization: Bearer TOKEN, with a token of \
                     telemetry.prometheus_token_file (in Prometheus: authorization.credentials_file)\n"
                );
            }
        }
        let why = format!(
            "degraded: default unreachable (connect to {}: Connection refused (os error 111))",
            sink.endpoint()
        );
        for right in ["Bearer 0123456789abcdef-one", "bearer 0123456789abcdef-two"] {
            for path in all {
                assert_eq!(asked(&daemon, path, &[right]).await.status, 200, "{path} {right}");
            }
            assert_eq!(asked(&daemon, "/nowhere", &[right]).await.status, 404);
            assert_eq!(asked(&daemon, "/readyz", &[right]).await.body, format!("{why}\n"));
        }
        for authorization in wrong {
            let livez = asked(&daemon, "/livez", authorization).await;
            let readyz = asked(&daemon, "/readyz", authorization).await;
            assert_eq!((livez.status, livez.body.as_str()), (200, "ok\n"), "{authorization:?}");
            assert_eq!((readyz.status, readyz.body.as_str()), (200, "degraded\n"), "{authorization:?}");
        }
        sink.revive().unwrap();
        until("it is well", || daemon.tree.observed().health().status == "ok").await;
        assert!(daemon.tree.shutdown(Duration::from_secs(10)).await.is_clean());
    });
}

/// Every name that a page exports under a profile, with its type and its labels' names.
async fn exported(profile: &str) -> String {
    let sink = ScriptedDestination::start().unwrap();
    let folder = Folder::new(&format!("exported-{profile}"));
    let settings = [
        ("NYX__LOG__DURABILITY", "process"),
        ("NYX__LOG__DIR", folder.text()),
        ("NYX__METRICS__PROFILE", profile),
        ("NYX__METRICS__DIMENSIONS", "number"),
    ];
    let daemon = daemon(&sink.endpoint(), &settings).await;
    traffic(&daemon).await;
    let mut names = BTreeMap::new();
    for family in daemon.tree.observed().families() {
        let labels = family.family.get_metric().iter().flat_map(|metric| metric.get_label());
        let labels: BTreeSet<&str> = labels.map(|label| label.name()).collect();
        let labels = labels.into_iter().collect::<Vec<_>>().join(" ");
        let (name, kind) = (family.family.name().to_owned(), format!("{:?}", family.kind).to_lowercase());
        names.insert(name, format!("{kind} {labels}").trim_end().to_owned());
    }
    assert!(daemon.tree.shutdown(Duration::from_secs(10)).await.is_clean());
    names.iter().map(|(name, what)| format!("{name} {what}\n")).collect()
}

/// Names are a contract: whoever changes one changes these files, with `NYX_GOLDEN=write`, and says so in the changelog.
#[test]
fn the_exported_names_of_each_profile_are_the_golden_ones() {
    for profile in ["nyx", "spanmetrics", "tempo"] {
        let mut names = String::new();
        system(async { names = exported(profile).await });
        let path = format!("{}/tests/golden/names.{profile}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("NYX_GOLDEN").is_some_and(|value| value == "write") {
            std::fs::create_dir_all(format!("{}/tests/golden", env!("CARGO_MANIFEST_DIR"))).unwrap();
            std::fs::write(&path, &names).unwrap();
        }
        assert_eq!(names, std::fs::read_to_string(&path).unwrap(), "{path}");
    }
}

#[test]
fn exemplars_and_families_named_after_spans_are_on_the_live_page() {
    system(async {
        let sink = ScriptedDestination::start().unwrap();
        let daemon = daemon(&sink.endpoint(), &[]).await;
        traffic(&daemon).await;
        let text = get(daemon.pages, "/metrics", None).await.body;
        let open = get(daemon.pages, "/metrics", Some(OPEN_METRICS)).await.body;
        let names: BTreeSet<String> = daemon
            .tree
            .observed()
            .red()
            .unwrap()
            .snapshot()
            .series
            .iter()
            .map(|series| series.name.to_string())
            .collect();
        let count: f64 = Samples::parse(&text).sum("nyx_span_count_total", &[]);
        let by_name: f64 = text
            .lines()
            .filter(|line| line.starts_with("nyx_span_count_") && !line.starts_with("nyx_span_count_total"))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum();
        assert_eq!(by_name, count, "{names:?}");
        assert!(text.contains("# TYPE nyx_span_count_") && text.contains(" untyped\n"));
        assert!(open.contains(" unknown\n"));
        let exemplar = |line: &&str| {
            line.starts_with("nyx_span_duration_seconds_bucket") && line.contains(" # {trace_id=\"")
        };
        assert!(open.lines().any(|line| exemplar(&line)), "{open}");
        assert!(!text.contains("trace_id"), "only OpenMetrics has them");
        assert!(daemon.tree.shutdown(Duration::from_secs(10)).await.is_clean());
    });
}

#[test]
fn spans_that_no_destination_gets_are_no_exemplars() {
    system(async {
        let sink = ScriptedDestination::start().unwrap();
        let daemon = daemon(&sink.endpoint(), &[("NYX__TELEMETRY__OTLP_SAMPLING_RATE", "0")]).await;
        let Some(ListenAddr::Tcp(door)) = daemon.grpc else { panic!("{:?}", daemon.grpc) };
        deliver(&mut client(door), 0..50).await;
        until("counted", || daemon.tree.observed().red().unwrap().position() == 50).await;
        let open = get(daemon.pages, "/metrics", Some(OPEN_METRICS)).await.body;
        assert!(open.contains("nyx_span_duration_seconds_bucket") && !open.contains("trace_id"));
        assert!(daemon.tree.shutdown(Duration::from_secs(10)).await.is_clean());

        // One of two destinations is enough.
        let more =
            [("NYX__TELEMETRY__OTLP_SAMPLING_RATE", "0"), ("NYX__EXPORT__ALL__ENDPOINT", &sink.endpoint())];
        let daemon = self::daemon(&sink.endpoint(), &more).await;
        let Some(ListenAddr::Tcp(door)) = daemon.grpc else { panic!("{:?}", daemon.grpc) };
        deliver(&mut client(door), 0..50).await;
        until("counted", || daemon.tree.observed().red().unwrap().position() == 50).await;
        let open = get(daemon.pages, "/metrics", Some(OPEN_METRICS)).await.body;
        assert!(open.contains(" # {trace_id="), "{open}");
        assert!(daemon.tree.shutdown(Duration::from_secs(10)).await.is_clean());
    });
}

#[test]
fn beyond_the_cap_new_names_are_counted_together_on_both_pages_and_stats_names_who_has_them() {
    system(async {
        let sink = ScriptedDestination::start().unwrap();
        let daemon = daemon(&sink.endpoint(), &[("NYX__METRICS__MAX_SERIES", "20")]).await;
        let connection = daemon.tree.in_process().connection(ConnectionId::new(1));
        for number in 0..100 {
            connection.span(&format!("GET /user/{number}")).start().end();
        }
        daemon.tree.in_process().flush().await.unwrap();
        until("counted", || daemon.tree.observed().red().unwrap().position() == 100).await;
        let stats = get(daemon.pages, "/stats", None).await.json();
        let offender = &stats["metrics"]["offenders"][0];
        assert_eq!((&offender["service"], &offender["label"]), (&json!("nyx-daemon"), &json!("span_name")));
        let folded = offender["folded_spans"].as_u64().unwrap() as f64;
        for accept in [None, Some(OPEN_METRICS)] {
            let samples = Samples::parse(&get(daemon.pages, "/metrics", accept).await.body);
            let other = ["span_name=\"__other__\"", "otel_metric_overflow=\"true\""];
            assert_eq!(samples.sum("nyx_span_count_total", &[]), 100.0);
            assert_eq!(samples.sum("nyx_span_count_total", &other), folded);
            assert_eq!(samples.sum("nyx_measure_folded_spans_total", &[]), folded);
            assert_eq!(samples.sum("nyx_span_count_total", &["span_name=\"GET /user/0\""]), 1.0);
        }
        assert!(daemon.tree.shutdown(Duration::from_secs(10)).await.is_clean());
    });
}

#[test]
fn without_metrics_their_page_says_so_and_the_others_stay() {
    system(async {
        let sink = ScriptedDestination::start().unwrap();
        let daemon = daemon(&sink.endpoint(), &[("NYX__TELEMETRY__PROMETHEUS_ENABLED", "false")]).await;
        let answer = get(daemon.pages, "/metrics", None).await;
        let why = "telemetry.prometheus_enabled is false: no metrics are kept\n";
        assert_eq!((answer.status, answer.body.as_str()), (404, why));
        assert_eq!(get(daemon.pages, "/stats", None).await.json()["metrics"], Value::Null);
        assert_eq!(get(daemon.pages, "/readyz", None).await.status, 200);
        assert!(daemon.tree.shutdown(Duration::from_secs(10)).await.is_clean());
    });
}

/// What moves a family: the stimulus after which its sum differs from the sum before.
enum Moved {
    By(&'static str),
    /// A setting or a fact, with the value that it has in this test.
    Is(f64),
    /// Nothing that can be done from outside moves it in this version; where it is tested instead.
    Elsewhere(&'static str),
}
use Moved::{By, Elsewhere, Is};

/// Every family, with the labels of the samples that are to move.
const MOVES: &[(&str, &[&str], Moved)] = &[
    ("nyx_span_count_total", &["service_name=\"in-process\""], By("a span ends and waits")),
    ("nyx_span_errors_total", &["service_name=\"remote\""], By("spans wait for a dead destination")),
    ("nyx_span_duration_seconds_sum", &[], By("spans wait for a dead destination")),
    ("nyx_measure_position_ordinal", &[], By("a span ends and waits")),
    ("nyx_measure_series", &[], By("a span ends and waits")),
    ("nyx_measure_max_series", &[], Is(2_000.0)),
    ("nyx_measure_folded_spans_total", &[], By("a batch has more names than a message may")),
    ("nyx_measure_cut_values_total", &[], By("a batch has more names than a message may")),
    ("nyx_measure_expired_series_total", &[], Elsewhere("actors/src/measure/state/tests.rs")),
    ("nyx_measure_caught_up_spans_total", &[], By("a batch has more names than a message may")),
    ("nyx_measure_unmeasured_spans_total", &[], Elsewhere("actors/src/measure/tests.rs")),
    ("nyx_measure_checkpoints_total", &[], Elsewhere("actors/src/measure/tests/restarts.rs")),
    ("nyx_measure_checkpoint_errors_total", &[], Elsewhere("actors/src/measure/tests/restarts.rs")),
    ("nyx_door_requests_received_total", &["door=\"grpc\""], By("spans wait for a dead destination")),
    ("nyx_door_requests_accepted_total", &["door=\"grpc\""], By("spans wait for a dead destination")),
    ("nyx_door_requests_refused_total", &["door=\"grpc\"", "reason=\"invalid\""], By("nonsense is refused")),
    ("nyx_door_pending_requests", &["door=\"in_process\""], By("a span ends, and is pending")),
    ("nyx_door_received_bytes_total", &["door=\"grpc\""], By("spans wait for a dead destination")),
    ("nyx_door_accepted_bytes_total", &["door=\"grpc\""], By("spans wait for a dead destination")),
    (
        "nyx_door_refused_bytes_total",
        &["door=\"grpc\"", "reason=\"log_full\""],
        By("a batch is too large for the log"),
    ),
    ("nyx_door_pending_bytes", &["door=\"in_process\""], By("a span ends, and is pending")),
    ("nyx_door_connections", &["door=\"in_process\""], By("a connection opens")),
    ("nyx_door_connections_opened_total", &["door=\"in_process\""], By("a connection opens")),
    ("nyx_door_connections_refused_total", &["door=\"in_process\""], By("there are too many connections")),
    ("nyx_door_accept_errors_total", &[], Elsewhere("tests/daemon.rs, without descriptors")),
    (
        "nyx_door_tls_failures_total",
        &["door=\"http\"", "reason=\"plaintext\""],
        By("somebody speaks plain text to a door with TLS"),
    ),
    ("nyx_door_certificate_expiry_timestamp_seconds", &["door=\"http\""], Is(67_090_118_400.0)),
    ("nyx_spans_scanned_total", &[], By("a span ends, and is pending")),
    ("nyx_spans_accepted_total", &[], By("a span ends and waits")),
    ("nyx_spans_rejected_total", &["reason=\"log_full\""], By("a batch is too large for the log")),
    ("nyx_spans_odd_total", &[], Elsewhere("actors/src/accept/conformance.rs")),
    ("nyx_spans_pending", &[], By("a span ends, and is pending")),
    ("nyx_log_bytes", &[], By("spans wait for a dead destination")),
    ("nyx_log_max_bytes", &[], Is(524_288.0)),
    ("nyx_log_records", &[], By("spans wait for a dead destination")),
    ("nyx_log_start_ordinal", &[], By("the destination comes back")),
    ("nyx_log_end_ordinal", &[], By("a span ends and waits")),
    ("nyx_log_dead_letters", &[], By("the destination finds a span invalid")),
    ("nyx_retention_bytes", &[], By("spans wait for a dead destination")),
    ("nyx_retention_max_bytes", &[], Is(16_777_216.0)),
    ("nyx_retention_spans", &["part=\"recent\""], By("a span ends and waits")),
    ("nyx_retention_unsifted_spans_total", &[], Elsewhere("actors/src/retain/tests.rs")),
    ("nyx_destination_start_ordinal", &["destination=\"default\""], Is(0.0)),
    ("nyx_destination_position_ordinal", &["destination=\"default\""], By("the destination comes back")),
    ("nyx_destination_exported_spans_total", &["destination=\"default\""], By("the destination comes back")),
    (
        "nyx_destination_sampled_out_spans_total",
        &["destination=\"none\""],
        By("spans wait for a dead destination"),
    ),
    (
        "nyx_destination_dropped_spans_total",
        &["reason=\"invalid\""],
        By("the destination finds a span invalid"),
    ),
    ("nyx_destination_queued_spans", &["destination=\"default\""], By("spans wait for a dead destination")),
    (
        "nyx_destination_in_flight_requests",
        &["destination=\"default\""],
        By("the destination does not answer yet"),
    ),
    ("nyx_destination_requests_total", &["result=\"success\""], By("the destination comes back")),
    ("nyx_destination_retries_total", &["destination=\"default\""], By("the destination resets a request")),
    ("nyx_destination_sent_bytes_total", &["destination=\"default\""], By("the destination comes back")),
    (
        "nyx_destination_state",
        &["destination=\"default\"", "state=\"unreachable\""],
        By("the destination comes back"),
    ),
    (
        "nyx_destination_last_success_timestamp_seconds",
        &["destination=\"default\""],
        By("the destination comes back"),
    ),
    ("nyx_actor_restarts_total", &["actor=\"metrics\""], By("the metrics crash")),
    ("nyx_actor_panics_total", &["actor=\"connections\""], By("a connection crashes")),
    ("nyx_actor_stuck_total", &[], Elsewhere("actors/src/supervise/tests/progress.rs")),
    ("nyx_actor_accepted_messages_total", &["actor=\"collector\""], By("a span ends, and is pending")),
    ("nyx_actor_handled_messages_total", &["actor=\"collector\""], By("a span ends and waits")),
    ("nyx_actor_lost_messages_total", &["actor=\"metrics\""], By("the metrics crash")),
    ("nyx_actor_abandoned_messages_total", &["actor=\"metrics\""], By("the metrics crash for good")),
    ("nyx_actor_in_hand_messages", &[], Elsewhere("actors/src/supervise/tests/inbox.rs")),
    ("nyx_actor_inbox_depth", &["actor=\"collector\""], By("a span ends, and is pending")),
    ("nyx_page_left_out_series_total", &[], Elsewhere("actors/src/metrics/page/tests.rs")),
    ("nyx_self_tracing_spans_total", &["result=\"exported\""], By("spans wait for a dead destination")),
    ("nyx_config_reloads_total", &["result=\"refused\""], By("a reload is refused")),
    ("nyx_config_last_reload_successful", &[], By("a reload is refused")),
    ("nyx_build_info", &[], Is(1.0)),
    ("nyx_start_time_seconds", &[], Elsewhere("below: it is a little while ago")),
];

/// The families that only a log on disk has.
const MOVES_ON_DISK: &[(&str, &[&str], Moved)] = &[
    ("nyx_log_segments", &[], By("spans are written")),
    ("nyx_log_cached_bytes", &[], By("spans are written")),
    ("nyx_log_free_bytes", &[], Elsewhere("the file system's other users")),
    ("nyx_log_groups_total", &[], By("spans are written")),
    ("nyx_log_payload_bytes_total", &[], By("spans are written")),
    ("nyx_log_written_bytes_total", &[], By("spans are written")),
    ("nyx_log_syncs_total", &[], By("spans are written")),
    ("nyx_log_errors_total", &["operation=\"write\""], Elsewhere("actors/src/log/segments")),
    ("nyx_log_disk_reads_total", &[], Elsewhere("tests/folder.rs, after a restart")),
    ("nyx_log_damaged_spans_total", &[], Elsewhere("actors/src/log/segments")),
    ("nyx_log_quarantined_bytes", &[], Elsewhere("actors/src/log/segments")),
    ("nyx_log_torn_bytes", &[], Elsewhere("actors/src/log/segments")),
    ("nyx_log_evicted_spans_total", &[], By("the oldest spans make room")),
    ("nyx_log_checkpoint_timestamp_seconds", &[], By("the tree stops")),
];

/// Takes spans about nyx itself for exported.
#[derive(Default)]
struct Exported(AtomicU64);

impl Recorder for Exported {
    fn record(&self, _: OwnSpan) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn counts(&self) -> RecorderCounts {
        let spans = self.0.load(Ordering::Relaxed);
        RecorderCounts { recorded: spans, exported: spans, ..RecorderCounts::default() }
    }
}

/// The page at each step of a story, by the step that led to it.
struct Story<'a> {
    nyx: &'a Nyx,
    steps: Vec<(&'static str, Samples)>,
}

impl Story<'_> {
    fn page(&self) -> Samples {
        Samples::parse(&Format::Text.encode(&self.nyx.tree.observed().families()))
    }

    fn step(&mut self, what: &'static str) {
        let page = self.page();
        self.steps.push((what, page));
    }

    /// Everything moved when it should have.
    fn holds(&self, moves: &[(&str, &[&str], Moved)]) {
        for (name, labels, moved) in moves {
            match moved {
                By(what) => {
                    let at = self.steps.iter().position(|(step, _)| step == what);
                    let at = at.unwrap_or_else(|| panic!("no step {what:?}"));
                    let sum = |at: usize| self.steps[at].1.sum(name, labels);
                    assert_ne!(sum(at - 1), sum(at), "{name} {labels:?} when {what}");
                }
                Is(value) => {
                    for (step, page) in &self.steps {
                        let sample = page.select(name, labels).next();
                        assert_eq!(sample, Some(*value), "{name} {labels:?} when {step}");
                    }
                }
                Elsewhere(place) => {
                    assert!(self.page().select(name, labels).next().is_some(), "{name}, see {place}");
                }
            }
        }
    }
}

#[test]
fn a_move_is_known_of_every_family() {
    let names = MOVES.iter().chain(MOVES_ON_DISK).map(|(name, ..)| name.trim_end_matches("_sum"));
    let mut names: Vec<&str> = names.collect();
    let mut all: Vec<&str> = ALL.iter().map(|family| family.name).collect();
    names.sort_unstable();
    all.sort_unstable();
    assert_eq!(names, all);
}

#[test]
fn every_family_of_a_log_on_disk_moves_when_it_should() {
    system(async {
        let (sink, folder) = (nobody(), Folder::new("pages"));
        let destination = quick("default", &sink.endpoint());
        let settings = SegmentLogConfig {
            durability: Durability::Power,
            max_bytes: 256 << 10,
            when_full: WhenFull::DropOldest,
            min_free_bytes: 0,
            segment_bytes: 64 << 10,
            destinations: vec![destination.in_log()],
            ..SegmentLogConfig::new(folder.path())
        };
        let lock = DirLock::try_acquire(folder.path()).unwrap().unwrap();
        let log = OpenLog::open(&settings, lock).unwrap();
        let nyx = Nyx::start(vec![destination], |config| {
            config.log = LogForm::Segments(log);
            config.checkpoint_interval = Duration::from_secs(3_600);
        })
        .await;
        let mut sender = client(nyx.door);
        let mut story = Story { nyx: &nyx, steps: vec![] };
        story.step("the start");

        assert_eq!(deliver(&mut sender, 0..50).await, 0);
        story.step("spans are written");

        let mut number = 50;
        while nyx.stats().log.disk.unwrap().evicted_spans == 0 {
            assert_eq!(deliver(&mut sender, number..number + 200).await, 0);
            number += 200;
        }
        story.step("the oldest spans make room");

        nyx.tree.shutdown(Duration::from_secs(10)).await;
        story.step("the tree stops");
        story.holds(MOVES_ON_DISK);
    });
}

#[test]
fn every_family_moves_when_it_should() {
    system(async {
        let mut sink = nobody();
        let none = ScriptedDestination::start().unwrap();
        let destinations = vec![
            quick("default", &sink.endpoint()),
            DestinationConfig { sampling_rate: 0.0, ..quick("none", &none.endpoint()) },
        ];
        let (tls, http) =
            (tls::Folder::new("pages"), Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap());
        let nyx = Nyx::start(destinations, |config| {
            config.http = Some(http.clone());
            config.http_tls = tls.door("server.pem", None).read().unwrap();
            config.log = LogForm::Memory { max_bytes: 512 << 10 };
            config.io_threads = 1;
            config.max_connections = 2;
            config.tracer = Tracer::new(1.0, Arc::new(Exported::default()));
            config.intensity = Intensity { max_restarts: 3, window: Duration::from_secs(60) };
        })
        .await;
        let mut sender = client(nyx.door);
        let mut story = Story { nyx: &nyx, steps: vec![] };
        story.step("the start");

        assert_eq!(deliver(&mut sender, 0..50).await, 0);
        until("none of it is for one of them", || nyx.destination("none").ledger.sampled_out == 50).await;
        until("counted", || nyx.red().1 == 50).await;
        story.step("spans wait for a dead destination");

        let stranger = TcpStream::connect(http.addr().to_string()).unwrap();
        (&stranger).write_all(b"hello").unwrap();
        until("it was let go", || {
            let http = nyx.stats().connections["http"];
            (http.opened, http.open) == (1, 0)
        })
        .await;
        story.step("somebody speaks plain text to a door with TLS");

        let connection = nyx.tree.in_process().connection(ConnectionId::new(1));
        until("its actor runs", || nyx.stats().connections["in_process"].opened == 1).await;
        story.step("a connection opens");

        assert!(nyx.tree.in_process().connection(ConnectionId::new(2)).is_closed());
        story.step("there are too many connections");

        // The collector lives on this thread: it cannot take what is on its way.
        assert!(span(&connection, 50));
        hold_until("the outbox has scanned it and told the collector", || {
            nyx.stats().spans.pending == 1 && nyx.record("collector").inbox.depth == 1
        });
        story.step("a span ends, and is pending");
        nyx.tree.in_process().flush().await.unwrap();
        until("counted", || nyx.red().1 == 51).await;
        story.step("a span ends and waits");

        let mut nonsense = request(0..1);
        let nest = |inner| AnyValue {
            value: Some(any_value::Value::ArrayValue(ArrayValue { values: vec![inner] })),
        };
        let value = Some((0..60).fold(AnyValue::default(), |inner, _| nest(inner)));
        let deep = KeyValue { key: "deep".to_owned(), value, ..KeyValue::default() };
        nonsense.resource_spans[0].scope_spans[0].spans[0].attributes.push(deep);
        assert_eq!(sender.export(nonsense).await.unwrap_err().code(), Code::InvalidArgument);
        story.step("nonsense is refused");

        assert_eq!(sender.export(request(100..12_000)).await.unwrap_err().code(), Code::ResourceExhausted);
        story.step("a batch is too large for the log");

        let unreachable = || nyx.health().starts_with("degraded: default unreachable");
        until("it is missed", unreachable).await;
        story.step("the destination is missed");
        sink.revive().unwrap();
        nyx.settled().await;
        until("it is well", || nyx.health() == "ok").await;
        story.step("the destination comes back");

        sink.script([Reply::Reset]);
        deliver(&mut sender, 51..52).await;
        nyx.settled().await;
        story.step("the destination resets a request");

        sink.script([Reply::Late]);
        deliver(&mut sender, 52..53).await;
        sink.until(|sink| sink.received().iter().any(|request| request.reply == Reply::Late)).await;
        story.step("the destination does not answer yet");
        sink.release();
        nyx.settled().await;

        sink.script([Reply::status(3, "no such span")]);
        deliver(&mut sender, 53..54).await;
        nyx.settled().await;
        story.step("the destination finds a span invalid");

        nyx.crash("connections").await;
        story.step("a connection crashes");

        nyx.crash("metrics").await;
        story.step("the metrics crash");

        // More than a message to the metrics may have, so that they read it from the log.
        let mut strange = request(100..2_200);
        for (number, span) in strange.resource_spans[0].scope_spans[0].spans.iter_mut().enumerate() {
            span.name = format!("strange {number}");
        }
        strange.resource_spans[0].scope_spans[0].spans[0].name = "long ".repeat(100);
        sender.export(strange).await.unwrap();
        nyx.settled().await;
        story.step("a batch has more names than a message may");

        nyx.tree.observed().reloaded(Err("no such key".to_owned()));
        assert_eq!(nyx.health(), "degraded: the configuration was not reloaded: no such key");
        story.step("a reload is refused");
        nyx.tree.observed().reloaded(Ok(()));

        for _ in 0..8 {
            nyx.tree.crash("metrics", "crashed for good").unwrap();
        }
        nyx.tree.escalated().await;
        let report = nyx.tree.shutdown(Duration::from_secs(10)).await;
        assert!(report.given_up.is_empty() && report.abandoned > 0, "{report:?}");
        story.step("the metrics crash for good");
        assert!(nyx.stats().balanced);

        story.holds(MOVES);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - story.page().sum("nyx_start_time_seconds", &[]);
        assert!((0.0..600.0).contains(&age), "started {age} s ago");
    });
}
