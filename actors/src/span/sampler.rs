//! Which traces are kept: a share of them.

use super::TraceId;

/// Which traces a destination gets: a pure function of the trace id.
///
/// Consistent probability sampling as OpenTelemetry specifies it ("TraceState: Probability Sampling"): the
/// last 56 bits of the trace id are its randomness R, and a trace is kept where R ≥ T, T = (1 − rate) × 2⁵⁶.
/// So two destinations with different rates agree on the traces that both get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    threshold: u64,
}

impl Sampler {
    const RANGE: u64 = 1 << 56;

    /// Keeps this share of the traces, from 0 (none) to 1 (all); what lies outside counts as the nearer end.
    pub fn new(rate: f64) -> Self {
        let threshold = ((1.0 - rate.clamp(0.0, 1.0)) * Self::RANGE as f64).round();
        Self { threshold: threshold as u64 }
    }

    /// True if this trace is kept.
    pub fn keeps(self, trace_id: TraceId) -> bool {
        let randomness = trace_id.to_int() as u64 & (Self::RANGE - 1);
        randomness >= self.threshold
    }

    /// True if every trace is kept.
    pub fn keeps_all(self) -> bool {
        self.threshold == 0
    }
}
