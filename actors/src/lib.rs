//! The actor system of nyx: stream connections report the spans they complete, a
//! [`collect`]or commits them to the span [`log`], [`export`] actors deliver them
//! over OTLP, and [`measure`] turns them into Prometheus RED metrics, all of it
//! under one tree of [`supervise`]d actors.
//!
//! The modules stand in the order in which a span meets them; a module imports
//! only from lower levels (see `docs/architecture.md`).

pub mod accept;
mod address;
pub mod bearer;
pub mod bridge;
mod codec;
pub mod collect;
pub mod export;
pub mod log;
pub mod measure;
pub mod metrics;
pub mod observe;
pub mod retain;
mod retry_info;
pub mod self_tracing;
pub mod span;
pub mod supervise;
pub mod telemetry;
pub mod tls;
pub mod tree;

pub use accept::{
    Connection, ConnectionId, Span, SpanBuilder, Status,
    seed::{
        BridgeStats, NyxTelemetryInstrumentation, SpanStatus, StreamTelemetryContext, TelemetryConfig,
        TelemetrySampler, TelemetrySpan, attribute_names, convert_to_otlp_span, span_names,
    },
};
pub use bridge::{BridgeError, OtlpConfig, OtlpProtocol, TelemetryBridge, TelemetryBridgeConfig};
pub use telemetry::Telemetry;
