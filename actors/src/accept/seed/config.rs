//! Settings of a context.

use thiserror::Error;

/// How a program's spans are made.
#[derive(Debug, Clone, PartialEq)]
pub struct TelemetryConfig {
    /// Whether spans are made at all; true.
    pub enabled: bool,
    /// The share of the traces that is kept, from 0 to 1; 1. [`StreamTelemetryContext::with_sampler`] replaces it.
    ///
    /// [`StreamTelemetryContext::with_sampler`]: super::StreamTelemetryContext::with_sampler
    pub sampling_rate: f64,
    /// How deep spans may nest: a root has depth 1, its children 2; 10. With 0 there are no spans.
    pub max_span_depth: u32,
    /// The program's name; `nyx-stream`. Where a bridge takes the spans, its own `service_name` is the resource's.
    pub service_name: String,
    /// Where the program runs; `development`. The bridge makes it the resource's `deployment.environment.name`, unless it
    /// is empty.
    pub environment: String,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            sampling_rate: 1.0,
            max_span_depth: 10,
            service_name: "nyx-stream".to_owned(),
            environment: "development".to_owned(),
        }
    }
}

/// A context's settings make no sense.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum TelemetryConfigError {
    /// The sampling rate is no share.
    #[error("sampling_rate is {rate}: must be a number from 0 to 1")]
    SamplingRate {
        /// The rate.
        rate: f64,
    },
}

impl TelemetryConfig {
    /// Checks the settings. A context that is made with wrong ones logs what this says, and takes the nearest right value,
    /// for what is no number 1.
    ///
    /// # Errors
    /// [`TelemetryConfigError`] with the value and what is allowed.
    pub fn validate(&self) -> Result<(), TelemetryConfigError> {
        match self.sampling_rate {
            0.0..=1.0 => Ok(()),
            rate => Err(TelemetryConfigError::SamplingRate { rate }),
        }
    }
}

/// Bounds of a context. What goes beyond is refused or dropped, and counted (see [`ContextCounts`](super::ContextCounts)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContextLimits {
    /// Open spans at most; 16,384.
    pub max_open_spans: usize,
    /// Bytes of open spans at most: names, attributes, and 256 for each span; 16 MiB.
    pub max_open_bytes: usize,
    /// Bytes of finished spans that wait to be taken at most, charged alike; 8 MiB. Beyond it the oldest goes.
    pub max_finished_bytes: usize,
    /// Ended spans of which the trace and the connections are remembered; 16,384. What is forgotten of a parent makes its
    /// next child a new root.
    pub max_remembered: usize,
    /// Attributes of a span at most; 128.
    pub max_attributes: usize,
    /// Bytes of a span's name and attributes at most; 1 MiB. A name is cut at 16 KiB.
    pub max_span_bytes: usize,
}

impl Default for ContextLimits {
    fn default() -> Self {
        Self {
            max_open_spans: 16_384,
            max_open_bytes: 16 << 20,
            max_finished_bytes: 8 << 20,
            max_remembered: 16_384,
            max_attributes: 128,
            max_span_bytes: 1 << 20,
        }
    }
}
