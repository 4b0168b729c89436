//! From a context over a bridge to a real OTLP receiver, in a program with a runtime of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

mod support;

/// The usage example of the design, as it stands.
#[path = "../examples/bridge.rs"]
mod example;

use std::{process::Command, sync::Arc, time::Duration};

use nyx_telemetry::{
    BridgeError, BridgeStats, ConnectionId, NyxTelemetryInstrumentation, OtlpConfig, SpanStatus,
    StreamTelemetryContext, Telemetry, TelemetryBridge, TelemetryBridgeConfig, TelemetryConfig,
    accept::seed::ContextLimits, export::testing::ScriptedDestination,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value, trace::v1::Span,
};
use prost::Message as _;

use self::support::{LIMIT, folder::Folder, nobody, quick, spans};

const EXAMPLE: &str = "the_example_in_a_process_of_its_own";
const VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Runs the example with this endpoint: its standard output, its standard error, and whether it succeeded.
fn run_example(endpoint: &str) -> (String, String, bool) {
    let arguments = ["--exact", EXAMPLE, "--ignored", "--nocapture"];
    let output =
        Command::new(std::env::current_exe().unwrap()).args(arguments).env(VARIABLE, endpoint).output();
    let output = output.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.success())
}

#[test]
#[ignore = "other tests run it, with a destination in its environment"]
fn the_example_in_a_process_of_its_own() {
    example::main().unwrap();
}

/// Runs a test on a runtime such as `#[tokio::main]` makes: nothing here has an actix System.
fn program(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LIMIT, test).await.unwrap() });
}

fn attribute<'s>(span: &'s Span, key: &str) -> &'s str {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key).unwrap();
    match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{key} is {other:?}"),
    }
}

fn otlp(endpoint: String) -> OtlpConfig {
    OtlpConfig {
        endpoint,
        batch_timeout: Duration::from_millis(10),
        retry_backoff: Duration::from_millis(10),
        ..OtlpConfig::default()
    }
}

fn config() -> TelemetryBridgeConfig {
    TelemetryBridgeConfig { poll_interval: Duration::from_millis(10), ..TelemetryBridgeConfig::default() }
}

async fn bridge(sink: &ScriptedDestination) -> TelemetryBridge {
    TelemetryBridge::with_otlp(config(), &otlp(sink.endpoint())).await.unwrap()
}

fn context() -> Arc<StreamTelemetryContext> {
    Arc::new(StreamTelemetryContext::new(TelemetryConfig::default()))
}

async fn finish(context: &StreamTelemetryContext, name: &str) -> u64 {
    let span = context.create_span(name, None).await.unwrap();
    context.end_span(span, SpanStatus::Ok).await;
    span
}

#[test]
fn the_example_of_the_design_brings_its_span_to_the_destination() {
    let sink = ScriptedDestination::start().unwrap();
    let (printed, errors, succeeded) = run_example(&sink.endpoint());
    assert!(succeeded, "{printed}{errors}");
    assert!(printed.contains("collected 1, exported 1, recorded 1, errors 0"), "{printed}");
    let arrived = spans(&sink.received());
    let [(service, span)] = arrived.as_slice() else { panic!("{} spans", arrived.len()) };
    assert_eq!((service.as_str(), span.name.as_str()), ("nyx-daemon", "connection_start"));
    assert_eq!(attribute(span, "connection.id"), "12345");
    assert_eq!(span.status.as_ref().unwrap().code, 1, "ok");
    assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
}

#[test]
fn the_example_says_what_is_wrong_with_the_variable() {
    let (_, errors, succeeded) = run_example("localhost");
    assert!(!succeeded);
    assert!(errors.contains("Variable(") && errors.contains("must be http://host:port"), "{errors}");
}

#[test]
fn spans_leave_the_context_at_their_end_and_those_that_waited_before() {
    program(async {
        let sink = ScriptedDestination::start().unwrap();
        let (context, mut bridge) = (context(), bridge(&sink).await);
        let early = finish(&context, "early").await;
        bridge.start(Arc::clone(&context)).await.unwrap();
        let late = finish(&context, "late").await;
        assert_eq!(context.counts().collected, 2, "at once, not at the next poll");
        assert_eq!(context.take_finished_spans().await, []);
        sink.until(|sink| spans(&sink.received()).len() == 2).await;
        bridge.shutdown().await.unwrap();
        let ids: Vec<_> = spans(&sink.received()).into_iter().map(|(_, span)| span.span_id).collect();
        let mut expected = [early, late].map(|id| id.to_be_bytes().to_vec());
        expected.sort();
        let mut sorted = ids.clone();
        sorted.sort();
        assert_eq!(sorted, expected);

        // The context lives on without its bridge.
        finish(&context, "after").await;
        assert_eq!(context.take_finished_spans().await.len(), 1);
        let stats = bridge.stats().await;
        assert_eq!((stats.spans_collected, stats.spans_exported_otlp), (2, 2));
        assert_eq!((stats.spans_recorded_prometheus, stats.export_errors), (2, 0));
        assert!(stats.last_poll.is_some());
    });
}

#[test]
fn the_service_and_the_environment_are_of_the_resource() {
    program(async {
        let sink = ScriptedDestination::start().unwrap();
        let mut bridge = bridge(&sink).await;
        let config = TelemetryConfig { environment: "staging".to_owned(), ..TelemetryConfig::default() };
        let instrumentation = NyxTelemetryInstrumentation::new(config);
        bridge.start(Arc::new(instrumentation.get_context().clone())).await.unwrap();
        let connection = ConnectionId::new(7);
        instrumentation.start_connection_instrumentation(connection).await.unwrap();
        instrumentation.record_packet_processing(connection, 1200).await;
        instrumentation.end_connection_instrumentation(connection, true).await;
        bridge.shutdown().await.unwrap();
        let request = ExportTraceServiceRequest::decode(&*sink.received()[0].message).unwrap();
        let resource = request.resource_spans[0].resource.as_ref().unwrap();
        let keys: Vec<_> = resource.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
        assert_eq!(keys, ["service.name", "deployment.environment.name"]);
        let arrived = spans(&sink.received());
        assert_eq!(arrived.len(), 2);
        assert!(arrived.iter().all(|(service, _)| service == "nyx-daemon"));
        assert!(arrived.iter().all(|(_, span)| attribute(span, "connection.id") == "7"));
        assert_eq!(arrived[0].1.trace_id, arrived[1].1.trace_id);
        for (_, span) in &arrived {
            let redundant = ["trace.id", "span.id", "parent.span.id", "service.name"];
            assert!(!span.attributes.iter().any(|attribute| redundant.contains(&attribute.key.as_str())));
        }
    });
}

#[test]
fn stats_show_the_bridge_and_balance() {
    program(async {
        let sink = ScriptedDestination::start().unwrap();
        let (context, mut bridge) = (context(), bridge(&sink).await);
        bridge.start(Arc::clone(&context)).await.unwrap();
        finish(&context, "span").await;
        bridge.shutdown().await.unwrap();
        let stats = bridge.observed().unwrap().stats();
        assert!(stats.balanced, "{stats:?}");
        let page = serde_json::to_value(&stats).unwrap();
        assert_eq!(page["bridge"]["spans_collected"], 1);
        assert_eq!(page["bridge"]["spans_exported_otlp"], 1);
        assert_eq!(page["bridge"]["spans_recorded_prometheus"], 1);
        assert_eq!(page["bridge"]["export_errors"], 0);
        assert!(page["bridge"]["last_poll"].as_u64().unwrap() > 1_700_000_000);
        assert_eq!(page["bridge"]["context"]["collected"], 1);
        let without = Telemetry::builder().start().unwrap();
        let page = serde_json::to_value(without.observed().stats()).unwrap();
        assert!(page.get("bridge").is_none());
        without.shutdown().await;
    });
}

#[test]
fn each_half_of_a_bridge_can_be_off() {
    program(async {
        let sink = ScriptedDestination::start().unwrap();
        for (otlp_enabled, prometheus_enabled) in [(true, false), (false, true), (false, false)] {
            let context = context();
            let config = TelemetryBridgeConfig { otlp_enabled, prometheus_enabled, ..config() };
            let mut bridge = TelemetryBridge::with_otlp(config, &otlp(sink.endpoint())).await.unwrap();
            bridge.start(Arc::clone(&context)).await.unwrap();
            finish(&context, "span").await;
            bridge.shutdown().await.unwrap();
            let stats = bridge.stats().await;
            assert_eq!(stats.spans_collected, 1);
            assert_eq!(stats.spans_exported_otlp, u64::from(otlp_enabled));
            assert_eq!(stats.spans_recorded_prometheus, u64::from(prometheus_enabled));
        }
        assert_eq!(spans(&sink.received()).len(), 1);
    });
}

#[test]
fn what_finds_the_outbox_full_waits_in_the_context_and_is_taken_later() {
    program(async {
        let sink = ScriptedDestination::start().unwrap();
        let limits = ContextLimits { max_finished_bytes: 64 << 20, ..ContextLimits::default() };
        let context = Arc::new(StreamTelemetryContext::with_limits(TelemetryConfig::default(), limits));
        let builder = Telemetry::builder()
            .destination_config(quick("default", &sink.endpoint()))
            .configure(|tree| tree.in_process_max_bytes = 2_000);
        let mut bridge = TelemetryBridge::with_telemetry(config(), builder).await.unwrap();
        for _ in 0..1_000 {
            finish(&context, "one of many").await;
        }
        bridge.start(Arc::clone(&context)).await.unwrap();
        assert!(context.counts().waiting > 0, "{:?}", context.counts());
        // Polls alone bring them all.
        sink.until(|sink| spans(&sink.received()).len() == 1_000).await;
        bridge.shutdown().await.unwrap();
        let counts = context.counts();
        assert_eq!((counts.collected, counts.dropped, counts.balances()), (1_000, 0, true), "{counts:?}");
    });
}

#[test]
fn a_shutdown_says_what_was_not_delivered_and_a_log_on_disk_keeps_it() {
    program(async {
        let mut sink = nobody();
        let folder = Folder::new("bridge");
        // So slow that there is no second attempt.
        let slow = || {
            let mut slow = quick("default", &sink.endpoint());
            slow.backoff.initial = Duration::from_secs(60);
            slow.backoff.cap = slow.backoff.initial;
            Telemetry::builder().destination_config(slow).log_dir(folder.path())
        };
        let (context, builder) = (context(), slow());
        let again = slow();
        let mut bridge = TelemetryBridge::with_telemetry(config(), builder).await.unwrap();
        bridge.start(Arc::clone(&context)).await.unwrap();
        finish(&context, "kept").await;
        let error = bridge.shutdown().await.unwrap_err();
        assert!(matches!(error, BridgeError::Undelivered { spans: 1, .. }), "{error}");
        assert!(
            error.to_string().starts_with("the bridge was shut down with 1 spans not delivered: "),
            "{error}"
        );
        assert!(bridge.stats().await.export_errors > 0, "{:?}", bridge.stats().await);

        sink.revive().unwrap();
        let mut second = TelemetryBridge::with_telemetry(config(), again).await.unwrap();
        second.start(Arc::clone(&context)).await.unwrap();
        sink.until(|sink| spans(&sink.received()).len() == 1).await;
        second.shutdown().await.unwrap();
        assert_eq!(second.stats().await.spans_collected, 0, "the second bridge took none");
    });
}

#[test]
fn a_context_has_one_bridge_at_a_time_and_a_bridge_runs_once() {
    program(async {
        let sink = ScriptedDestination::start().unwrap();
        let context = context();
        let (mut first, mut second) = (bridge(&sink).await, bridge(&sink).await);
        first.start(Arc::clone(&context)).await.unwrap();
        let error = first.start(Arc::clone(&context)).await.unwrap_err();
        assert_eq!(error.to_string(), "the bridge was started before: make a new one");
        let error = second.start(Arc::clone(&context)).await.unwrap_err();
        assert_eq!(error.to_string(), "the context has a bridge already: shut that down first");
        finish(&context, "span").await;
        assert_eq!(context.counts().collected, 1, "the first still has it");
        first.shutdown().await.unwrap();
        first.shutdown().await.unwrap();

        let mut third = bridge(&sink).await;
        third.start(Arc::clone(&context)).await.unwrap();
        finish(&context, "span").await;
        // Dropped without a word, it leaves the context to itself.
        drop(third);
        finish(&context, "span").await;
        assert_eq!(context.counts().waiting, 1);
    });
}

#[test]
fn a_bridge_works_on_a_runtime_of_one_thread_too() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let sink = ScriptedDestination::start().unwrap();
        let (context, mut bridge) = (context(), bridge(&sink).await);
        bridge.start(Arc::clone(&context)).await.unwrap();
        finish(&context, "span").await;
        bridge.shutdown().await.unwrap();
        let stats: BridgeStats = bridge.stats().await;
        assert_eq!(stats.spans_exported_otlp, 1);
    });
}
