//! Settings of an OTLP destination, by the names of the design that nyx began with.

use std::{collections::HashMap, fmt, time::Duration};

use thiserror::Error;

use crate::export::{Backoff, DestinationConfig, DestinationConfigError, Protocol};

/// How spans are exported. [`DestinationConfig`] has the same and more, and the ranges.
#[derive(Clone, PartialEq, Eq)]
pub struct OtlpConfig {
    /// Where the destination is; `http://localhost:4317`.
    pub endpoint: String,
    /// How it is talked to; gRPC.
    pub protocol: OtlpProtocol,
    /// Time for an attempt from connecting to the last byte of the answer; 10 s.
    pub timeout: Duration,
    /// Headers of every request; none. Values are secrets: they are never shown.
    pub headers: HashMap<String, String>,
    /// Spans of a batch at most; 8,192. A batch goes out at once when 512 spans wait, or that many if it is less.
    pub max_batch_size: usize,
    /// A batch of any size goes out when its oldest span has waited this long; 1 s.
    pub batch_timeout: Duration,
    /// Attempts after the first before a batch is given up; [`u32::MAX`], which means that it never is.
    pub max_retries: u32,
    /// The pause before the first retry, which doubles up to 30 s; 100 ms.
    pub retry_backoff: Duration,
    /// Whether requests are compressed with gzip; false.
    pub compression: bool,
    /// Whether an `http://` endpoint is an `https://` one; false.
    pub use_tls: bool,
}

/// How a destination is talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OtlpProtocol {
    /// OTLP/gRPC.
    #[default]
    Grpc,
    /// OTLP/HTTP with protobuf.
    HttpProtobuf,
}

/// An OTLP destination's settings are wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OtlpConfigError {
    /// Some are out of their range.
    #[error(transparent)]
    Destination(#[from] DestinationConfigError),
}

impl Default for OtlpConfig {
    fn default() -> Self {
        let DestinationConfig { timeout, gzip, max_batch_spans, max_delay, backoff, .. } =
            DestinationConfig::new("default", "");
        Self {
            endpoint: "http://localhost:4317".to_owned(),
            protocol: OtlpProtocol::Grpc,
            timeout,
            headers: HashMap::new(),
            max_batch_size: usize::try_from(max_batch_spans).unwrap_or(usize::MAX),
            batch_timeout: max_delay,
            max_retries: u32::MAX,
            retry_backoff: backoff.initial,
            compression: gzip,
            use_tls: false,
        }
    }
}

impl fmt::Debug for OtlpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.keys().collect();
        f.debug_struct("OtlpConfig")
            .field("protocol", &self.protocol)
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

impl OtlpConfig {
    /// The same settings as those of a destination of this name.
    ///
    /// # Errors
    /// [`OtlpConfigError`] with every setting that is wrong.
    pub fn destination(&self, name: &str) -> Result<DestinationConfig, OtlpConfigError> {
        let endpoint = match (self.use_tls, self.endpoint.strip_prefix("http://")) {
            (true, Some(rest)) => format!("https://{rest}"),
            (true | false, _) => self.endpoint.clone(),
        };
        let usual = DestinationConfig::new(name, &endpoint);
        let max_batch_spans = u64::try_from(self.max_batch_size).unwrap_or(u64::MAX);
        let mut headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        headers.sort_unstable();
        let destination = DestinationConfig {
            protocol: match self.protocol {
                OtlpProtocol::Grpc => Protocol::Grpc,
                OtlpProtocol::HttpProtobuf => Protocol::HttpProtobuf,
            },
            timeout: self.timeout,
            headers,
            gzip: self.compression,
            min_batch_spans: usual.min_batch_spans.min(max_batch_spans),
            max_batch_spans,
            max_delay: self.batch_timeout,
            // A pause that begins above the usual cap is its own.
            backoff: Backoff {
                initial: self.retry_backoff,
                cap: usual.backoff.cap.max(self.retry_backoff),
                ..usual.backoff
            },
            max_retries: (self.max_retries < u32::MAX).then_some(self.max_retries),
            ..usual
        };
        destination.validate()?;
        Ok(destination)
    }
}
