//! Settings of a bridge.

use std::{ops::RangeInclusive, time::Duration};

use thiserror::Error;

/// How a bridge works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryBridgeConfig {
    /// How often the bridge looks for finished spans that found no room when they ended, which is the only time that they
    /// wait; 5 s, from 10 ms to 1 h.
    pub poll_interval: Duration,
    /// Whether spans are exported over OTLP; true.
    pub otlp_enabled: bool,
    /// Whether spans are counted in RED metrics; true.
    pub prometheus_enabled: bool,
    /// `service.name` of the spans' resource; `nyx-daemon`, from 1 to 255 bytes.
    pub service_name: String,
}

impl Default for TelemetryBridgeConfig {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(5),
            otlp_enabled: true,
            prometheus_enabled: true,
            service_name: "nyx-daemon".to_owned(),
        }
    }
}

/// A bridge's settings are wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TelemetryBridgeConfigError {
    /// The interval is out of its range.
    #[error("poll_interval is {interval:?}: must be from {:?} to {:?}", TelemetryBridgeConfig::POLL_INTERVAL.start(), TelemetryBridgeConfig::POLL_INTERVAL.end())]
    PollInterval {
        /// The interval.
        interval: Duration,
    },
    /// The service has no name, or too long a one.
    #[error("service_name has {bytes} bytes: must have 1 to {max}", max = TelemetryBridgeConfig::SERVICE_NAME_BYTES_MAX)]
    ServiceName {
        /// Its length.
        bytes: usize,
    },
}

impl TelemetryBridgeConfig {
    /// `poll_interval`: 10 ms to 1 h.
    pub const POLL_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);
    /// Bytes of `service_name` at most.
    pub const SERVICE_NAME_BYTES_MAX: usize = 255;

    /// Checks every setting.
    ///
    /// # Errors
    /// [`TelemetryBridgeConfigError`] with the value and what is allowed.
    pub fn validate(&self) -> Result<(), TelemetryBridgeConfigError> {
        if !Self::POLL_INTERVAL.contains(&self.poll_interval) {
            return Err(TelemetryBridgeConfigError::PollInterval { interval: self.poll_interval });
        }
        match self.service_name.len() {
            1..=Self::SERVICE_NAME_BYTES_MAX => Ok(()),
            bytes => Err(TelemetryBridgeConfigError::ServiceName { bytes }),
        }
    }
}
