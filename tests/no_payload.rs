//! What senders and destinations send is nobody's to read: no log line of the daemon holds any of it, whatever goes wrong.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use nyx_telemetry::export::testing::{Received, Reply, ScriptedDestination};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{Status, span},
};
use prost::Message as _;
use rustix::process::Signal;
use tonic::{Code, Request, codec::CompressionEncoding, transport::Channel};

use self::support::{load::client, process::Daemon, request};

/// In every text that is a sender's or a secret.
const PLANTED: &str = "pl4nted";

fn attribute(key: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(format!("{PLANTED}-value"))) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// Two spans with payload in every text that a span has; their service is one of ours.
fn payload() -> ExportTraceServiceRequest {
    let mut payload = request(0..2);
    let resource = &mut payload.resource_spans[0];
    resource.resource.as_mut().unwrap().attributes.push(attribute("pl4nted-resource"));
    resource.schema_url = format!("http://{PLANTED}");
    resource.scope_spans[0].schema_url = format!("http://{PLANTED}");
    for span in &mut resource.scope_spans[0].spans {
        span.name = format!("{PLANTED}-name");
        span.trace_state = format!("vendor={PLANTED}");
        span.attributes.push(attribute("pl4nted-key"));
        span.status = Some(Status { code: 2, message: format!("{PLANTED}-status") });
        span.events.push(span::Event {
            name: format!("{PLANTED}-event"),
            attributes: vec![attribute("in-event")],
            ..span::Event::default()
        });
    }
    payload
}

/// The same, with one span that may not be kept.
fn with_a_bad_span() -> ExportTraceServiceRequest {
    let mut payload = payload();
    payload.resource_spans[0].scope_spans[0].spans[1].trace_id = vec![1; 3];
    payload
}

fn with_secrets<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    for name in ["authorization", "cookie", "x-pl4nted"] {
        request.metadata_mut().insert(name, format!("Bearer {PLANTED}-header").parse().unwrap());
    }
    request
}

/// Says this over a connection of its own, and ends its side where it is to break off; what comes back.
fn say(address: &str, said: &[u8], breaks_off: bool) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // A door that has heard enough may close before it has heard all.
    let _closed = socket.write_all(said);
    if breaks_off {
        let _closed = socket.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let _reset = socket.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let secrets = format!("authorization: Bearer {PLANTED}-header\r\ncookie: {PLANTED}\r\n");
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: door\r\n{headers}{secrets}connection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

const PROTOBUF: &str = "content-type: application/x-protobuf\r\n";
const JSON: &str = "content-type: application/json\r\n";

/// Good and bad requests at the HTTP door; the status of each.
fn over_http(door: &str) -> Vec<(&'static str, String)> {
    let good = payload().encode_to_vec();
    let json = format!(r#"{{"resourceSpans": [{{"{PLANTED}": "{PLANTED}", "scopeSpans": "{PLANTED}"}}]}}"#);
    let path = format!("/{PLANTED}?token={PLANTED}");
    let garbage = [PLANTED.as_bytes(), &[0xff; 20]].concat();
    let requests = [
        ("200", post("/v1/traces", PROTOBUF, &good)),
        ("200", post(&format!("/v1/traces?token={PLANTED}"), PROTOBUF, &with_a_bad_span().encode_to_vec())),
        ("400", post("/v1/traces", PROTOBUF, &garbage)),
        ("400", post("/v1/traces", JSON, json.as_bytes())),
        ("400", post("/v1/traces", JSON, format!("{{\"{PLANTED}").as_bytes())),
        ("400", post("/v1/traces", &format!("{PROTOBUF}content-encoding: gzip\r\n"), &garbage)),
        ("413", post("/v1/traces", PROTOBUF, &good.repeat(200))),
        ("404", post(&path, PROTOBUF, &good)),
        ("415", post("/v1/traces", &format!("content-type: text/{PLANTED}\r\n"), &good)),
        ("415", post("/v1/traces", &format!("{PROTOBUF}content-encoding: {PLANTED}\r\n"), &good)),
        ("400", format!("POST /{PLANTED} HTTP/{PLANTED}\r\n\r\n").into_bytes()),
        ("400", format!("GET /v1/traces HTTP/1.1\r\nhost: {PLANTED}\r\n{PLANTED} : x\r\n\r\n").into_bytes()),
        ("", PLANTED.as_bytes().to_vec()),
    ];
    let status = |answer: String| answer.split(' ').nth(1).unwrap_or_default().to_owned();
    let cut = &post("/v1/traces", PROTOBUF, &good)[..300];
    let cut = ("503", status(say(door, cut, true)));
    requests
        .into_iter()
        .map(|(expected, said)| (expected, status(say(door, &said, false))))
        .chain([cut])
        .collect()
}

/// Good and bad requests at the gRPC door.
async fn over_grpc(door: &str) {
    let mut sender: TraceServiceClient<Channel> = client(door.parse().unwrap());
    sender.export(with_secrets(payload())).await.unwrap();
    let partial = sender.export(with_secrets(with_a_bad_span())).await.unwrap().into_inner();
    assert_eq!(partial.partial_success.unwrap().rejected_spans, 1);
    let mut large = payload();
    large.resource_spans[0].scope_spans[0].spans[0].name = PLANTED.repeat(20_000);
    sender.export(with_secrets(large.clone())).await.unwrap_err();
    let mut packed = sender.clone().send_compressed(CompressionEncoding::Gzip);
    packed.export(with_secrets(large)).await.unwrap_err();
    let channel = Channel::from_shared(format!("http://{door}")).unwrap().connect_lazy();
    let elsewhere = format!("http://{door}/{PLANTED}").parse().unwrap();
    let mut elsewhere = TraceServiceClient::with_origin(channel, elsewhere);
    assert_eq!(elsewhere.export(with_secrets(payload())).await.unwrap_err().code(), Code::Unimplemented);
}

/// Bytes at the gRPC door that are no request, or not to its end.
fn strangers_at_grpc(door: &str) {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let goodbye = [&[0, 0, 0, 0, 0, 0, 0, 2], PLANTED.as_bytes()].concat();
    let goaway = [&[0, 0, goodbye.len() as u8, 7, 0, 0, 0, 0, 0], goodbye.as_slice()].concat();
    let unknown = [&[0, 0, 7, 1, 4, 0, 0, 0, 1], PLANTED.as_bytes()].concat();
    for said in [
        post(&format!("/{PLANTED}"), PROTOBUF, PLANTED.as_bytes()),
        PLANTED.as_bytes().to_vec(),
        [&preface[..], PLANTED.as_bytes(), &[0xff; 20]].concat(),
        [&preface[..], &goaway].concat(),
        [&preface[..], &unknown].concat(),
    ] {
        say(door, &said, true);
    }
}

/// A destination that fails in every way, and each time when it has the spans.
fn failing(fails: &'static [u32]) -> ScriptedDestination {
    let destination = ScriptedDestination::start().unwrap();
    let next = std::sync::atomic::AtomicUsize::new(0);
    destination.judge(move |_: &Received| {
        let turn = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        match fails.get(turn) {
            Some(100) => Reply::Http { status: 500, content_type: "text/html", bytes: 5_000 },
            Some(101) => Reply::Half,
            Some(102) => Reply::Garbage,
            Some(103) => {
                let location = format!("https://login.example/?token={PLANTED}");
                Reply::Answer { status: 302, headers: vec![("location", location)], body: Vec::new().into() }
            }
            Some(&code) => Reply::status(code, "the destination's own words"),
            None => Reply::Ok,
        }
    });
    destination.script([Reply::Reset, Reply::GoAway, Reply::Close]);
    destination
}

#[test]
fn no_log_line_holds_anything_of_what_is_sent_or_of_a_secret() {
    let fails = &[14, 16, 12, 100, 101, 103, 3, 3, 3, 11, 11, 2, 8, 102];
    let (grpc, http) = (failing(fails), failing(fails));
    let headers = format!("authorization=Bearer%20{PLANTED},x-pl4nted-name=1");
    let (grpc_endpoint, http_endpoint) = (grpc.endpoint(), http.endpoint());
    let mut daemon = Daemon::start(&[
        ("NYX__TRACING__LEVEL", "trace"),
        ("NYX__TRACING__BURST", "0"),
        ("NYX__INGEST__MAX_REQUEST_BYTES", "64KiB"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &grpc_endpoint),
        ("OTEL_EXPORTER_OTLP_HEADERS", &headers),
        ("NYX__EXPORT__HTTP__ENDPOINT", &http_endpoint),
        ("NYX__EXPORT__HTTP__PROTOCOL", "http/protobuf"),
        ("NYX__EXPORT__HTTP__HEADERS", &headers),
        ("NYX__EXPORT__DEFAULT__RETRY__INITIAL", "10ms"),
        ("NYX__EXPORT__DEFAULT__RETRY__MAX", "20ms"),
        ("NYX__EXPORT__DEFAULT__BATCH__MAX_DELAY", "10ms"),
        ("NYX__EXPORT__HTTP__RETRY__INITIAL", "10ms"),
        ("NYX__EXPORT__HTTP__RETRY__MAX", "20ms"),
        ("NYX__EXPORT__HTTP__BATCH__MAX_DELAY", "10ms"),
    ]);
    let ready = daemon.line("ready", |line| line["message"] == "ready" && line["pages"].is_string());
    let http_door = ready["http"].as_str().unwrap().to_owned();

    let statuses = over_http(&http_door);
    assert!(statuses.iter().all(|(expected, found)| expected == found), "{statuses:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(over_grpc(&daemon.door));
    strangers_at_grpc(&daemon.door);
    // Some failures end a batch: more of them come until each destination has had all of its own.
    for destination in [&grpc, &http] {
        let mut sender = runtime.block_on(async { client(daemon.door.parse().unwrap()) });
        for _ in 0..1_000 {
            if destination.received().len() > fails.len() {
                break;
            }
            runtime.block_on(sender.export(with_secrets(payload()))).unwrap();
        }
    }
    // Each failure has come, and both have gone on behind it.
    daemon.page("/stats", |stats| {
        let stats: serde_json::Value = serde_json::from_str(stats).unwrap();
        let over = |name: &str| {
            let destination = &stats["destinations"][name];
            destination["queued"] == 0 && stats["spans"]["accepted"].as_u64() >= Some(6)
        };
        over("default") && over("http")
    });
    for destination in [&grpc, &http] {
        let (_, begun) = destination.counts();
        assert!(begun > fails.len() as u64, "{begun} requests");
        let secret = destination.received()[0].headers["authorization"].to_str().unwrap().to_owned();
        assert!(secret.contains(PLANTED), "{secret}");
    }
    // With it go its connections, which the daemon would wait for.
    drop(runtime);
    daemon.signal(Signal::TERM);
    let (status, lines) = daemon.end();
    assert!(status.success());
    // What there is to be said is said: the lines of the doors and of the exporters are among them.
    let said = |words: &str| lines.iter().any(|line| line.to_string().contains(words));
    assert!(said("connection failed") && said("does not speak http") && said("the destination's own words"));
    let leaks: Vec<_> = lines.iter().map(ToString::to_string).filter(|line| line.contains(PLANTED)).collect();
    assert!(leaks.is_empty(), "{} of {} lines: {leaks:#?}", leaks.len(), lines.len());
}
