//! The API of the design that nyx began with: spans by number, in a context that a program shares.
//!
//! ```text
//!  create_span ──► open ── end_span ──► finished ──┬──► take_finished_spans   without a bridge
//!                                                  └──► Outbox ──► the log    with one, at once
//! ```
//!
//! A program that was written for it changes the path of its imports. What was corrected on the way, and why, stands in
//! `docs/seed.md`. New programs have more from [`Connection`](super::Connection): typed values, events, links, kinds.

mod config;
mod context;
mod convert;
mod instrumentation;
mod names;
mod sampler;
mod span;
mod stats;
mod store;
#[cfg(test)]
mod tests;
mod traces;

pub use config::{ContextLimits, TelemetryConfig, TelemetryConfigError};
pub use context::{Attached, ContextCounts, StreamTelemetryContext};
pub use convert::{ConvertError, convert_to_otlp_span};
pub use instrumentation::NyxTelemetryInstrumentation;
pub use names::{attribute_names, span_names};
pub use sampler::TelemetrySampler;
pub use span::{SpanStatus, TelemetrySpan};
pub use stats::{BridgeCounts, BridgeStats};
