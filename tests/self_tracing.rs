//! The daemon's own traces, at a real receiver.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use nyx_daemon::{
    config::{Config, Environment},
    self_tracing::SelfTracing,
};
use nyx_telemetry::{
    export::testing::{Received, ScriptedDestination},
    tls::testing as tls,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message as _;
use rustix::process::Signal;
use tonic::transport::Endpoint;

use self::support::{
    Nyx, arrived,
    folder::Folder,
    http::get_blocking,
    load::{client, deliver},
    nobody,
    process::Daemon,
    quick, request, system,
};

const EXPORT: &str = "opentelemetry.proto.collector.trace.v1.TraceService/Export";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The spans of these requests, with the attributes of their resource.
fn spans(received: &[Received]) -> Vec<(BTreeMap<String, String>, Span)> {
    let mut spans = Vec::new();
    for request in received.iter().filter(|request| request.is_acknowledged()) {
        for of in ExportTraceServiceRequest::decode(&*request.message).unwrap().resource_spans {
            let resource = texts(&of.resource.unwrap().attributes);
            let of_it = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(of_it.map(|span| (resource.clone(), span)));
        }
    }
    spans
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.clone().unwrap().value.unwrap() {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), text(attribute))).collect()
}

fn named<'s>(spans: &'s [(BTreeMap<String, String>, Span)], name: &str) -> Vec<&'s Span> {
    spans.iter().map(|(_, span)| span).filter(|span| span.name == name).collect()
}

/// The threads of a process, by name.
fn threads(daemon: &Daemon) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.process.id())).unwrap();
    let name = |task: std::io::Result<fs::DirEntry>| fs::read_to_string(task.unwrap().path().join("comm"));
    tasks.filter_map(|task| Some(name(task).ok()?.trim().to_owned())).collect()
}

/// Sends one request with the trace context of its sender.
fn send_from(daemon: &Daemon, traceparent: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://{}", daemon.door)).unwrap();
        let mut told = tonic::Request::new(request(0..20));
        told.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
        TraceServiceClient::new(endpoint.connect_lazy()).export(told).await.unwrap();
    });
}

#[test]
fn the_life_of_a_daemon_arrives_at_its_receiver_and_nothing_about_exporting_does() {
    let (destination, own) = (ScriptedDestination::start().unwrap(), ScriptedDestination::start().unwrap());
    let folder = Folder::new("self-tracing");
    let mut daemon = Daemon::start(&[
        ("NYX__TELEMETRY__OTLP_ENDPOINT", &destination.endpoint()),
        ("NYX__SELF_TRACING__ENDPOINT", &own.endpoint()),
        ("NYX__SELF_TRACING__SAMPLING_RATE", "1"),
        ("NYX__SELF_TRACING__HEADERS", "x-own=yes"),
        ("NYX__LOG__DURABILITY", "process"),
        ("NYX__LOG__DIR", folder.text()),
        ("NYX__EXPORT__DEFAULT__BATCH__MAX_DELAY", "10ms"),
        // Those of `default`, which the exporter's crate knows too, and which are none of its affair here.
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=of-default"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_TRACES_SAMPLER", "always_on"),
        ("OTEL_SERVICE_NAME", "edge"),
        // Whatever a library has to say about its connections.
        ("RUST_LOG", "trace"),
    ]);
    assert_eq!(threads(&daemon).iter().filter(|name| *name == "self-tracing").count(), 1);
    send_from(&daemon, PARENT);
    // What its sender does not record, as who sends such spans asks of every receiver, leaves no trace here either.
    send_from(&daemon, &PARENT.replace("-01", "-00"));
    daemon.send(50..100);
    let ready = daemon.line("ready", |line| line["pages"].is_string());
    let http = get_blocking(ready["http"].as_str().unwrap().parse().unwrap(), "/nowhere", None);
    assert_eq!(http.status, 404);
    daemon.page("/stats", |_| daemon.stats()["destinations"]["default"]["exported"] == 90);
    daemon.signal(Signal::HUP);
    daemon.line("of the reload", |line| line["message"] == "configuration reloaded");
    daemon.signal(Signal::TERM);
    let (status, _) = daemon.end();
    assert_eq!(status.code(), Some(0));

    let received = own.received();
    let spans = spans(&received);
    let names: BTreeSet<&str> = spans.iter().map(|(_, span)| &*span.name).collect();
    let all = ["start", "log.open", EXPORT, "GET", "commit", "checkpoint", "reload", "stop"];
    assert_eq!(names, all.into(), "all of it, and nothing else");
    for (name, number) in [("start", 1), (EXPORT, 2), ("GET", 1), ("reload", 1), ("stop", 1)] {
        assert_eq!(named(&spans, name).len(), number, "{name}: {spans:#?}");
    }

    let requests = named(&spans, EXPORT);
    assert_eq!(named(&spans, "commit").len(), 2, "one for each recorded request: {spans:#?}");
    let told = requests.iter().find(|span| !span.parent_span_id.is_empty()).unwrap();
    assert_eq!(told.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
    assert_eq!(told.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert_eq!(told.kind(), SpanKind::Server);
    let attributes = texts(&told.attributes);
    assert_eq!(attributes["rpc.system.name"], "grpc");
    assert_eq!(attributes["rpc.response.status_code"], "OK");
    assert_eq!(attributes["nyx.request.spans"], "20");
    for request in &requests {
        let commits = named(&spans, "commit");
        let commit = commits.iter().find(|commit| commit.trace_id == request.trace_id).unwrap();
        assert_eq!(commit.parent_span_id, request.span_id);
        assert!(request.start_time_unix_nano <= commit.start_time_unix_nano, "{request:?} {commit:?}");
    }
    let start = named(&spans, "start")[0];
    assert_eq!(named(&spans, "log.open")[0].parent_span_id, start.span_id);
    assert_eq!(texts(&named(&spans, "stop")[0].attributes)["nyx.stop.signal"], "SIGTERM");
    assert!(
        spans
            .iter()
            .all(|(_, span)| span.status.as_ref().is_none_or(|status| status.code() == StatusCode::Unset))
    );
    let resource = &spans[0].0;
    assert_eq!(
        (&*resource["service.name"], &*resource["service.version"]),
        ("edge", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(resource["service.instance.id"].len(), 36);

    for Received { headers, .. } in &received {
        assert_eq!(headers["x-own"], "yes");
        assert!(
            !headers.contains_key("authorization") && !headers.contains_key("grpc-encoding"),
            "{headers:?}"
        );
        assert!(headers["user-agent"].to_str().unwrap().starts_with("nyx-daemon/"), "{headers:?}");
        let context = headers["traceparent"].to_str().unwrap();
        assert!(context.ends_with("-00"), "its receiver is asked to record nothing about it: {context}");
    }
    assert_eq!(arrived(&destination).len(), 70, "spans about the daemon do not go to its destinations");
}

#[test]
fn by_default_there_is_no_thread_and_nothing_is_counted() {
    let mut daemon = Daemon::start(&[]);
    assert!(!threads(&daemon).contains(&"self-tracing".to_owned()));
    assert_eq!(daemon.stats()["self_tracing"], serde_json::Value::Null);
    let page = get_blocking(daemon.pages, "/metrics", None).body;
    assert!(!page.contains("nyx_self_tracing"), "{page}");
    daemon.signal(Signal::TERM);
    let ended = daemon.line("of the end", |line| line["message"] == "stopped");
    assert_eq!(ended["level"], "INFO");
}

#[test]
fn a_receiver_that_is_not_there_holds_nothing_up_and_is_told_of_once() {
    let (destination, own) = (ScriptedDestination::start().unwrap(), nobody());
    let mut daemon = Daemon::start(&[
        ("NYX__TELEMETRY__OTLP_ENDPOINT", &destination.endpoint()),
        ("NYX__SELF_TRACING__ENDPOINT", &own.endpoint()),
        ("NYX__SELF_TRACING__SAMPLING_RATE", "1"),
        ("NYX__EXPORT__DEFAULT__BATCH__MAX_DELAY", "10ms"),
        ("NYX__SHUTDOWN__TIMEOUT", "5s"),
    ]);
    // More spans than a batch has, so that it goes out at once.
    daemon.send(0..20_000);
    daemon.page("/metrics", |page| {
        let failed = page
            .lines()
            .find_map(|line| line.strip_prefix("nyx_self_tracing_spans_total{result=\"failed\"} "));
        failed.is_some_and(|failed| failed != "0")
    });
    daemon.page("/stats", |_| daemon.stats()["destinations"]["default"]["exported"] == 20_000);
    let warning = daemon.line("of the failure", |line| {
        line["message"] == "spans about this daemon cannot be exported, and are lost"
    });
    assert!(warning["error"].as_str().unwrap().contains("connect to http://127.0.0.1:"), "{warning}");
    daemon.signal(Signal::TERM);
    let (status, lines) = daemon.end();
    assert_eq!(status.code(), Some(0));
    let cannot = |line: &&serde_json::Value| line["message"].as_str().unwrap().contains("cannot be exported");
    assert_eq!(lines.iter().filter(cannot).count(), 1, "{lines:#?}");
    let last = lines.last().unwrap();
    assert_eq!(last["message"], "not all spans about this daemon were exported", "{lines:#?}");
}

#[test]
fn a_restart_is_recorded_whatever_the_rate() {
    let own = ScriptedDestination::start().unwrap();
    let environment = [
        ("NYX__SELF_TRACING__ENDPOINT", own.endpoint()),
        ("NYX__SELF_TRACING__SAMPLING_RATE", "0".to_owned()),
    ];
    let environment = environment.iter().map(|(name, value)| (*name, value.as_str()));
    let config = Config::load(&[], &Environment::new(environment, false)).unwrap();
    let tracing = SelfTracing::start(&config).unwrap();
    system(async {
        let sink = ScriptedDestination::start().unwrap();
        let nyx = Nyx::start(vec![quick("default", &sink.endpoint())], |config| {
            config.tracer = tracing.tracer().clone();
        })
        .await;
        nyx.crash("collector").await;
        assert_eq!(deliver(&mut client(nyx.door), 0..50).await, 0);
        nyx.settled().await;
        nyx.stop().await;
        tracing.finish(Duration::from_secs(20)).await;
    });
    let spans = spans(&own.received());
    let [(_, span)] = &spans[..] else { panic!("one span: {spans:#?}") };
    assert_eq!(span.name, "restart");
    let attributes = texts(&span.attributes);
    assert_eq!((&*attributes["nyx.actor.name"], &*attributes["nyx.actor.incarnation"]), ("collector", "2"));
    let status = span.status.as_ref().unwrap();
    assert!(
        status.code() == StatusCode::Error && status.message.starts_with("crashed by a test at "),
        "{status:?}"
    );
}

#[test]
fn a_receiver_behind_tls_is_sent_to_where_its_certificate_is_right_and_only_there() {
    let folder = tls::Folder::new("self-tracing-tls");
    for (ca, arrives) in [("ca.pem", 1), ("other-ca.pem", 0)] {
        let own = ScriptedDestination::start_tls(folder.server("server.pem", None)).unwrap();
        let environment = [
            ("NYX__SELF_TRACING__ENDPOINT", own.endpoint()),
            ("NYX__SELF_TRACING__TLS__CA_FILE", folder.path(ca).display().to_string()),
        ];
        let environment = environment.iter().map(|(name, value)| (*name, value.as_str()));
        let config = Config::load(&[], &Environment::new(environment, false)).unwrap();
        let tracing = SelfTracing::start(&config).unwrap();
        tracing.tracer().rare("reload").end();
        let tracer = tracing.tracer().clone();
        system(tracing.finish(Duration::from_secs(20)));
        let counts = tracer.counts().unwrap();
        assert_eq!((counts.exported, counts.failed), (arrives, 1 - arrives), "{ca}");
        assert_eq!(spans(&own.received()).len() as u64, arrives, "{ca}");
    }
}
