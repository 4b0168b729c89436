//! The usage example of the design that nyx began with: a context, and a bridge that takes its spans to an OTLP receiver:
//! `OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 cargo run --example bridge`.
//!
//! Where nobody listens there, the shutdown says that the span was not delivered.

#![allow(clippy::print_stdout, reason = "an example prints")]
#![allow(unreachable_pub, missing_docs, reason = "a program that a test includes")]

use std::{error::Error, sync::Arc, time::Duration};

use nyx_telemetry::{
    BridgeStats, SpanStatus, StreamTelemetryContext, TelemetryBridge, TelemetryBridgeConfig, TelemetryConfig,
};

#[tokio::main]
pub async fn main() -> Result<(), Box<dyn Error>> {
    // 1. Create telemetry context
    let telemetry_config = TelemetryConfig {
        enabled: true,
        sampling_rate: 1.0,
        service_name: "nyx-daemon".to_string(),
        ..Default::default()
    };
    let telemetry_ctx = Arc::new(StreamTelemetryContext::new(telemetry_config));

    // 2. Create and start bridge
    let bridge_config = TelemetryBridgeConfig {
        poll_interval: Duration::from_secs(5),
        otlp_enabled: true,
        prometheus_enabled: true,
        service_name: "nyx-daemon".to_string(),
    };
    let mut bridge = TelemetryBridge::new(bridge_config).await?;
    bridge.start(telemetry_ctx.clone()).await?;

    // 3. Use telemetry context in your code
    let span_id =
        telemetry_ctx.create_span("connection_start", None).await.ok_or("the span is not sampled")?;
    telemetry_ctx.add_span_attribute(span_id, "connection.id", "12345").await;
    telemetry_ctx.end_span(span_id, SpanStatus::Ok).await;

    // 4. Spans are collected when they end, and exported in batches

    // 5. Shutdown (in graceful shutdown handler)
    let shut_down = bridge.shutdown().await;
    let BridgeStats {
        spans_collected, spans_exported_otlp, spans_recorded_prometheus, export_errors, ..
    } = bridge.stats().await;
    println!(
        "collected {spans_collected}, exported {spans_exported_otlp}, recorded {spans_recorded_prometheus}, \
         errors {export_errors}"
    );
    Ok(shut_down?)
}
