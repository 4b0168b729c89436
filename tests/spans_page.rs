//! `/api/v1/spans`: what an operator sees of the last spans.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

mod support;

use std::time::Duration;

use nyx_daemon::{
    config::{Config, Environment},
    log_folder,
    run::{Daemon, Signals},
};
use nyx_telemetry::{ConnectionId, Status, accept::ListenAddr, self_tracing::Tracer, span::SpanKind};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use serde_json::{Value, json};

use self::support::{
    http::{Answer, get},
    load::{client, deliver},
    system, until,
};

/// A daemon without a destination: what it retains is not in the log any more.
async fn daemon(more: &[(&str, &str)]) -> Daemon {
    let environment = [
        ("NYX__TELEMETRY__SPAN_EXPORT_ENABLED", "false"),
        ("NYX__TELEMETRY__PROMETHEUS_ADDR", "127.0.0.1:0"),
        ("NYX__INGEST__GRPC__LISTEN", "127.0.0.1:0"),
        ("NYX__INGEST__HTTP__LISTEN", ""),
        ("NYX__LOG__DURABILITY", "memory"),
    ];
    let environment = environment.iter().chain(more).copied();
    let config = Config::load(&[], &Environment::new(environment, false)).unwrap();
    let log = log_folder::open(&config, &mut Signals::new().unwrap()).await.unwrap().unwrap();
    Daemon::start(&config, log, Tracer::default()).await.unwrap()
}

async fn ask(daemon: &Daemon, query: &str) -> Answer {
    get(daemon.pages, &format!("/api/v1/spans{query}"), None).await
}

/// The names of an answer's spans, in its order.
fn names(answer: &Value) -> Vec<&str> {
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    assert!(list(&answer["resourceSpans"]).len() <= 1_000);
    let resources = answer["resourceSpans"].as_array().unwrap().iter();
    let scopes = resources.flat_map(|resource| resource["scopeSpans"].as_array().unwrap());
    scopes
        .flat_map(|scope| scope["spans"].as_array().unwrap())
        .map(|span| span["name"].as_str().unwrap())
        .collect()
}

#[test]
fn a_span_of_this_process_is_found_by_trace_connection_and_name_as_otlp_json() {
    system(async {
        let daemon = daemon(&[]).await;
        let in_process = daemon.tree.in_process();
        let connection = in_process.connection(ConnectionId::new(12345));
        let mut span = connection.span("connection_start").kind(SpanKind::Server).start();
        span.set_attribute("connection.id", "12345").set_attribute("bytes", 7_i64);
        span.add_event("frame", &[("size", 9_i64.into())]);
        span.set_status(Status::Error("cut off"));
        let context = span.context();
        span.end();
        connection.span("other").start().end();
        in_process.flush().await.unwrap();
        until("the log has let go of it", || {
            let stats = daemon.tree.observed().stats();
            stats.retention.unwrap().recent_spans == 2 && stats.log.records == 0
        })
        .await;

        let by_trace = ask(&daemon, &format!("?trace_id={}", context.trace_id)).await;
        assert_eq!(by_trace.status, 200);
        let answer = by_trace.json();
        assert_eq!((&answer["spans"], &answer["truncated"]), (&json!(1), &json!(false)));
        let resource = &answer["resourceSpans"][0];
        assert_eq!(
            resource["resource"]["attributes"],
            json!([{ "key": "service.name", "value": { "stringValue": "nyx-daemon" } }])
        );
        let found = &resource["scopeSpans"][0]["spans"][0];
        assert_eq!(found["traceId"], context.trace_id.to_string());
        assert_eq!(found["spanId"], context.span_id.to_string());
        assert_eq!((&found["name"], &found["kind"]), (&json!("connection_start"), &json!(2)));
        assert_eq!(
            found["attributes"],
            json!([
                { "key": "connection.id", "value": { "stringValue": "12345" } },
                { "key": "bytes", "value": { "intValue": "7" } },
            ])
        );
        assert_eq!(found["events"][0]["attributes"][0]["value"], json!({ "intValue": "9" }));
        assert_eq!(found["status"], json!({ "message": "cut off", "code": 2 }));
        assert!(
            found["startTimeUnixNano"].as_str().unwrap().parse::<u64>().unwrap() > 1_700_000_000_000_000_000
        );

        let by_connection = ask(&daemon, "?connection=12345").await.json();
        assert_eq!(names(&by_connection), ["connection_start"]);
        assert_eq!(names(&ask(&daemon, "?name=other").await.json()), ["other"]);
        assert_eq!(names(&ask(&daemon, "?name=nothing").await.json()), [""; 0]);
        let limited = ask(&daemon, "?limit=1").await.json();
        // Which of the two: they may have come in two batches, of which the newer is first.
        assert_eq!((names(&limited).len(), &limited["truncated"]), (1, &json!(true)));
        assert!(daemon.tree.shutdown(Duration::from_secs(10)).await.is_clean());
    });
}

#[test]
fn an_error_is_found_long_after_the_spans_around_it_have_gone() {
    system(async {
        let daemon = daemon(&[("NYX__RETENTION__MAX_BYTES", "256KiB")]).await;
        let Some(ListenAddr::Tcp(door)) = daemon.grpc else { panic!("{:?}", daemon.grpc) };
        let mut client = client(door);
        let observed = daemon.tree.observed();
        let failed = Span {
            trace_id: vec![7; 16],
            span_id: vec![7; 8],
            name: "failed".to_owned(),
            status: Some(opentelemetry_proto::tonic::trace::v1::Status { code: 2, ..Default::default() }),
            ..Span::default()
        };
        let scope_spans = vec![ScopeSpans { spans: vec![failed], ..ScopeSpans::default() }];
        let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
        client.export(ExportTraceServiceRequest { resource_spans }).await.unwrap();
        // Numbered spans, of which each tenth is an error too.
        let mut number = 0;
        while observed.stats().retention.unwrap().kept_spans == 0 || number < 4_000 {
            assert_eq!(deliver(&mut client, number..number + 100).await, 0);
            number += 100;
        }
        let stats = observed.stats().retention.unwrap();
        assert!(stats.bytes <= stats.max_bytes && stats.recent_spans < 3_000, "{stats:?}");
        assert_eq!(names(&ask(&daemon, "?name=failed").await.json()), ["failed"]);
        assert!(daemon.tree.shutdown(Duration::from_secs(10)).await.is_clean());
    });
}

#[test]
fn a_query_that_is_none_is_refused_with_what_is_allowed() {
    system(async {
        let daemon = daemon(&[]).await;
        for (query, why) in [
            ("?trace_id=12", "trace_id: trace id \"12\" is not 32 hexadecimal digits"),
            ("?limit=1001", "limit is \"1001\": must be a whole number from 1 to 1000"),
            ("?span=1", "unknown parameter \"span\": /api/v1/spans has trace_id, connection, name and limit"),
        ] {
            let answer = ask(&daemon, query).await;
            assert_eq!((answer.status, answer.json()), (400, json!({ "error": why })), "{query}");
        }
        assert!(daemon.tree.shutdown(Duration::from_secs(10)).await.is_clean());
    });
}

#[test]
fn without_a_buffer_the_page_says_so() {
    system(async {
        let daemon = daemon(&[("NYX__RETENTION__MAX_BYTES", "0")]).await;
        let answer = ask(&daemon, "").await;
        let why = "retention.max_bytes is 0: no spans are retained";
        assert_eq!((answer.status, answer.json()), (404, json!({ "error": why })));
        assert!(daemon.tree.observed().stats().retention.is_none());
        assert!(daemon.tree.observed().records().iter().all(|record| record.name != "retention"));
        assert!(daemon.tree.shutdown(Duration::from_secs(10)).await.is_clean());
    });
}
