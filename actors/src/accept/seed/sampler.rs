//! Which traces are kept.

use crate::span::{Sampler, TraceId};

/// Which traces a context keeps. It is asked for each root; a child goes with its parent, so that a trace is whole.
#[derive(Debug, Clone, Copy)]
pub enum TelemetrySampler {
    /// All.
    AlwaysOn,
    /// None.
    AlwaysOff,
    /// This share of them, from 0 to 1, by the last 56 bits of the trace id (OpenTelemetry's consistent probability
    /// sampling): whoever samples by the same rule agrees, destinations with an `otlp_sampling_rate` too.
    TraceIdRatioBased(f64),
    /// Those for which this is true. It sees the low 64 bits of the trace id.
    Custom(fn(u64) -> bool),
}

impl TelemetrySampler {
    /// The sampler of a rate: what lies outside of 0 to 1 counts as the nearer end, what is no number as 1.
    pub(super) fn of_rate(rate: f64) -> Self {
        match rate {
            rate if rate <= 0.0 => Self::AlwaysOff,
            rate if rate < 1.0 => Self::TraceIdRatioBased(rate),
            _ => Self::AlwaysOn,
        }
    }

    /// Whether this trace is kept.
    pub fn should_sample(&self, trace_id: u128) -> bool {
        match self {
            Self::AlwaysOn => true,
            Self::AlwaysOff => false,
            Self::TraceIdRatioBased(ratio) => Sampler::new(*ratio).keeps(TraceId::from_int(trace_id)),
            Self::Custom(keeps) => keeps(trace_id as u64),
        }
    }
}
