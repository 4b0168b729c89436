//! The bridge from a context to OTLP and Prometheus (level 5).
//!
//! ```text
//!  StreamTelemetryContext ── end_span ──► Outbox ──► the log ──┬──► OTLP destination
//!                                                              └──► RED metrics
//! ```

mod actor;
mod config;
mod otlp;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use thiserror::Error;

pub use config::{TelemetryBridgeConfig, TelemetryBridgeConfigError};
pub use otlp::{OtlpConfig, OtlpConfigError, OtlpProtocol};

use self::actor::BridgeActor;
use crate::{
    accept::seed::{Attached, BridgeCounts, BridgeStats, StreamTelemetryContext},
    observe::Observed,
    supervise::ChildSpec,
    telemetry::{Builder, StartError, Telemetry},
};

/// The variable that says where the spans go.
const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Takes the spans of a [`StreamTelemetryContext`] at their end, exports them over OTLP, and counts them. It has a thread
/// of its own, so that it works in any program. Dropped without a shutdown it stops by itself, and nobody hears of what was
/// not delivered.
///
/// ```no_run
/// use std::sync::Arc;
/// use nyx_telemetry::{
///     SpanStatus, StreamTelemetryContext, TelemetryBridge, TelemetryBridgeConfig, TelemetryConfig,
/// };
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let context = Arc::new(StreamTelemetryContext::new(TelemetryConfig::default()));
/// let mut bridge = TelemetryBridge::new(TelemetryBridgeConfig::default()).await?;
/// bridge.start(context.clone()).await?;
/// if let Some(span) = context.create_span("connection_start", None).await {
///     context.end_span(span, SpanStatus::Ok).await;
/// }
/// bridge.shutdown().await?;
/// # Ok(())
/// # }
/// ```
pub struct TelemetryBridge {
    config: TelemetryBridgeConfig,
    /// What the system is made of, until it is started.
    builder: Option<Builder>,
    running: Option<Running>,
    /// Of the running system, or the one that ran.
    observed: Option<Arc<Observed>>,
}

struct Running {
    telemetry: Telemetry,
    attachment: Attachment,
}

/// As long as it lives the context's spans go to the bridge; then they wait again.
struct Attachment(Arc<StreamTelemetryContext>);

impl Drop for Attachment {
    fn drop(&mut self) {
        self.0.detach();
    }
}

impl fmt::Debug for TelemetryBridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelemetryBridge")
            .field("config", &self.config)
            .field("running", &self.running.is_some())
            .finish_non_exhaustive()
    }
}

/// A bridge cannot be made, started or stopped as it should be.
#[derive(Debug, Error)]
pub enum BridgeError {
    /// The bridge's settings are wrong.
    #[error(transparent)]
    Config(#[from] TelemetryBridgeConfigError),
    /// The settings of its destination are wrong.
    #[error(transparent)]
    Otlp(#[from] OtlpConfigError),
    /// The variable that says where spans go is wrong.
    #[error("{ENDPOINT_VARIABLE}: {0}")]
    Variable(OtlpConfigError),
    /// It was started before. A bridge runs once.
    #[error("the bridge was started before: make a new one")]
    Started,
    /// The context has another bridge.
    #[error("the context has a bridge already: shut that down first")]
    Attached,
    /// The actor system did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It was shut down, and not every span was delivered in time.
    #[error("the bridge was shut down with {spans} spans not delivered{}", reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default())]
    Undelivered {
        /// Spans that a destination did not get, over all destinations.
        spans: u64,
        /// What a destination that is not healthy said.
        reason: Option<String>,
    },
}

impl TelemetryBridge {
    /// A bridge to the destination that `OTEL_EXPORTER_OTLP_ENDPOINT` names, else `http://localhost:4317`, with the
    /// default settings of [`OtlpConfig`]. Nothing runs before [`TelemetryBridge::start`].
    ///
    /// # Errors
    /// [`BridgeError::Config`] and [`BridgeError::Variable`]. A destination that is not there is no error: its spans wait.
    pub async fn new(config: TelemetryBridgeConfig) -> Result<Self, BridgeError> {
        // As the specification wants it, an empty variable is as good as none.
        let endpoint = std::env::var(ENDPOINT_VARIABLE).ok().filter(|endpoint| !endpoint.is_empty());
        let named = endpoint.is_some();
        let usual = OtlpConfig::default();
        let otlp = OtlpConfig { endpoint: endpoint.unwrap_or(usual.endpoint.clone()), ..usual };
        Self::with_otlp(config, &otlp).await.map_err(|error| match error {
            BridgeError::Otlp(error) if named => BridgeError::Variable(error),
            error => error,
        })
    }

    /// A bridge to a destination with these settings; the environment is not asked.
    ///
    /// # Errors
    /// [`BridgeError::Config`] and [`BridgeError::Otlp`], with every setting that is wrong.
    pub async fn with_otlp(config: TelemetryBridgeConfig, otlp: &OtlpConfig) -> Result<Self, BridgeError> {
        let builder = Telemetry::builder();
        let builder = if config.otlp_enabled { builder.otlp(otlp)? } else { builder };
        Self::with_telemetry(config, builder).await
    }

    /// A bridge into the system that this builder makes, with its destinations, its log and its doors. With
    /// `otlp_enabled` false its destinations are left out.
    ///
    /// # Errors
    /// [`BridgeError::Config`].
    pub async fn with_telemetry(
        config: TelemetryBridgeConfig,
        builder: Builder,
    ) -> Result<Self, BridgeError> {
        config.validate()?;
        let (export, measure) = (config.otlp_enabled, config.prometheus_enabled);
        let builder = builder.service_name(&*config.service_name).configure(|tree| {
            tree.measure = measure;
            if !export {
                tree.destinations.clear();
            }
        });
        Ok(Self { config, builder: Some(builder), running: None, observed: None })
    }

    /// Starts the system, and takes the context's finished spans from now on, those first that wait.
    ///
    /// # Errors
    /// [`BridgeError::Started`], [`BridgeError::Attached`] and [`BridgeError::Start`]. The context's spans then wait as before.
    pub async fn start(&mut self, telemetry_ctx: Arc<StreamTelemetryContext>) -> Result<(), BridgeError> {
        let builder = self.builder.take().ok_or(BridgeError::Started)?;
        let environment = telemetry_ctx.config().environment.clone();
        let builder = match environment.is_empty() {
            true => builder,
            false => builder.resource_attribute("deployment.environment.name", environment),
        };
        let counts = Arc::new(BridgeCounts::new(StreamTelemetryContext::clone(&telemetry_ctx)));
        let interval = self.config.poll_interval;
        let builder = builder.more(move |tree| {
            tree.observed().bridged(Arc::clone(&counts));
            tree.child(ChildSpec::new("bridge"), move || Ok(BridgeActor::new(Arc::clone(&counts), interval)));
        });
        let telemetry = builder.start()?;
        if let Err(Attached) = telemetry_ctx.attach(telemetry.sink()) {
            telemetry.shutdown().await;
            return Err(BridgeError::Attached);
        }
        tracing::info!(service = %self.config.service_name, "telemetry bridge started");
        self.observed = Some(Arc::clone(telemetry.observed()));
        self.running = Some(Running { telemetry, attachment: Attachment(telemetry_ctx) });
        Ok(())
    }

    /// What the bridge did so far; still there after the shutdown.
    pub async fn stats(&self) -> BridgeStats {
        self.observed.as_ref().and_then(|observed| observed.bridge_stats()).unwrap_or_default()
    }

    /// The ledgers, states and metrics of its system; none before the start.
    pub fn observed(&self) -> Option<&Arc<Observed>> {
        self.observed.as_ref()
    }

    /// Gives the context back to itself, and stops in order: what was collected is committed, delivered as far as that is
    /// possible within 10 s, and counted. It does nothing to a bridge that does not run.
    ///
    /// # Errors
    /// [`BridgeError::Undelivered`] where a destination did not get everything; the bridge has stopped all the same. With a
    /// log on disk (see [`TelemetryBridge::with_telemetry`]) these spans are not lost.
    pub async fn shutdown(&mut self) -> Result<(), BridgeError> {
        let Some(Running { telemetry, attachment }) = self.running.take() else { return Ok(()) };
        attachment.0.collect();
        drop(attachment);
        let observed = Arc::clone(telemetry.observed());
        let report = telemetry.shutdown().await;
        if !report.is_clean() {
            tracing::warn!(given_up = report.given_up.join(", "), "telemetry bridge stopped, not in order");
        }
        let destinations = observed.stats().destinations;
        match destinations.values().map(|destination| destination.ledger.queued()).sum() {
            0 => {
                tracing::info!("telemetry bridge stopped");
                Ok(())
            }
            spans => {
                let mut errors =
                    destinations.into_values().filter_map(|destination| destination.status.last_error);
                let reason = errors.next().map(|error| error.message);
                Err(BridgeError::Undelivered { spans, reason })
            }
        }
    }
}
