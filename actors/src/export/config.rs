//! Settings of a destination.

use std::{fmt, ops::RangeInclusive, time::Duration};

use http::HeaderMap;
use rustls::pki_types::ServerName;
use thiserror::Error;

use super::{
    backoff::Backoff,
    headers::{HeaderProblem, headers},
    state::Settings,
    transport::{Protocol, Tls, TransportSettings},
};
use crate::{
    address::Endpoint,
    log::segments::{LogDestination, StartAt},
    span::Sampler,
    tls::{self, TlsFiles},
};

/// A destination as it is configured. The defaults are those of `config/default.toml`, the ranges the associated
/// constants.
#[derive(Clone, PartialEq)]
pub struct DestinationConfig {
    /// The destination's name on `/stats`, in metrics and in the log: 1 to 32 characters of `a-z`, `0-9`, `_` and `-`.
    pub name: String,
    /// Where it is: `http://host:port`, `https://host:port` or `unix:/path`. Over HTTP a path may follow.
    pub endpoint: String,
    /// How OTLP is spoken to it; [`Protocol::Grpc`].
    pub protocol: Protocol,
    /// The path of requests, of up to 1,024 bytes, with [`Protocol::HttpProtobuf`] alone; none: the endpoint's path and
    /// `/v1/traces` behind it.
    pub path: Option<String>,
    /// The files of TLS, with an `https://` endpoint alone; none. They are read when the settings are checked.
    pub tls: TlsFiles,
    /// Time for an attempt from connecting to the last byte of the answer; 10 s, from 10 ms to 10 min.
    pub timeout: Duration,
    /// Headers of every request, as [`headers`] takes them; none. Values are secrets: they are never shown.
    pub headers: Vec<(String, String)>,
    /// Whether requests are compressed with gzip; false.
    pub gzip: bool,
    /// Where it begins in a log that outlives the process and does not know it yet; [`StartAt::End`].
    pub start: StartAt,
    /// The share of the traces that this destination gets, from 0 to 1; 1.
    pub sampling_rate: f64,
    /// A batch goes out at once when this many spans wait; 512, from 1 to `max_batch_spans`.
    pub min_batch_spans: u64,
    /// Spans of a batch at most; 8,192, from 1 to 65,536.
    pub max_batch_spans: u64,
    /// Encoded bytes of a batch at most, before compression; 3.5 MiB, from 64 KiB to 64 MiB. A span that is larger
    /// alone is sent alone.
    pub max_batch_bytes: usize,
    /// A batch of any size goes out when its oldest span has waited this long; 1 s, from 0 to 60 s.
    pub max_delay: Duration,
    /// Requests in flight at most; 4, from 1 to 64.
    pub concurrency: usize,
    /// Pauses between attempts; 100 ms × 2 up to 30 s. The first from 1 ms, the cap up to 1 h, the factor from 1 to 10.
    pub backoff: Backoff,
    /// Attempts after the first before a batch is given up, whatever was in the way except a destination that
    /// is blocked; none: it is never given up.
    pub max_retries: Option<u32>,
    /// Time after its first attempt before a batch is given up, as for `max_retries`, from 10 ms to 30 days; none:
    /// never.
    pub max_elapsed: Option<Duration>,
    /// When the exporter is stopped, it goes on for this long to deliver what is there; 3 s, from 0 to 1 h. It is
    /// to be shorter than its supervisor's patience. In the last quarter, 1 s at most, it begins no request, and
    /// waits for the answers to those in flight, so that they need not be repeated. What remains stays in the log.
    pub drain_timeout: Duration,
}

impl fmt::Debug for DestinationConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("DestinationConfig")
            .field("name", &self.name)
            .field("endpoint", &self.endpoint)
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

/// A setting that is out of its range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field of [`DestinationConfig`].
    pub setting: &'static str,
    /// The value, and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.message)
    }
}

/// Everything that is wrong with a destination's settings, at least one [`Problem`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("destination {name:?}: {}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct DestinationConfigError {
    /// The destination.
    pub name: String,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// What the settings come to.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    pub(super) machine: Settings,
    pub(super) transport: TransportSettings,
    pub(super) sampler: Sampler,
    pub(super) drain_timeout: Duration,
}

/// Bytes of a path.
const PATH_BYTES_MAX: usize = 1024;
/// Bytes of it that an error repeats.
const PATH_SHOWN_MAX: usize = 100;
/// The path of traces (OTLP 1.11, "OTLP/HTTP Request").
const TRACES_PATH: &str = "/v1/traces";

const fn ms(from: u64, to: u64) -> RangeInclusive<Duration> {
    Duration::from_millis(from)..=Duration::from_millis(to)
}

impl DestinationConfig {
    /// `timeout`: 10 ms to 10 min.
    pub const TIMEOUT: RangeInclusive<Duration> = ms(10, 600_000);
    /// `sampling_rate`: 0 to 1.
    pub const SAMPLING_RATE: RangeInclusive<f64> = 0.0..=1.0;
    /// `max_batch_spans`, and `min_batch_spans` up to that: 1 to 65,536 spans.
    pub const BATCH_SPANS: RangeInclusive<u64> = 1..=65_536;
    /// `max_batch_bytes`: 64 KiB to 64 MiB.
    pub const BATCH_BYTES: RangeInclusive<usize> = 64 << 10..=64 << 20;
    /// `max_delay`: 0 to 1 min.
    pub const MAX_DELAY: RangeInclusive<Duration> = ms(0, 60_000);
    /// `concurrency`: 1 to 64 requests.
    pub const CONCURRENCY: RangeInclusive<usize> = 1..=64;
    /// `backoff.cap`, and `backoff.initial` up to that: 1 ms to 1 h.
    pub const BACKOFF: RangeInclusive<Duration> = ms(1, 3_600_000);
    /// `backoff.factor`: 1 to 10.
    pub const BACKOFF_FACTOR: RangeInclusive<f64> = 1.0..=10.0;
    /// `max_elapsed`: 10 ms to 30 days.
    pub const MAX_ELAPSED: RangeInclusive<Duration> = ms(10, 30 * 24 * 3_600_000);
    /// `drain_timeout`: 0 to 1 h.
    pub const DRAIN_TIMEOUT: RangeInclusive<Duration> = ms(0, 3_600_000);

    /// A destination with the default settings.
    pub fn new(name: &str, endpoint: &str) -> Self {
        Self {
            name: name.to_owned(),
            endpoint: endpoint.to_owned(),
            protocol: Protocol::Grpc,
            path: None,
            tls: TlsFiles::default(),
            timeout: Duration::from_secs(10),
            headers: vec![],
            gzip: false,
            start: StartAt::End,
            sampling_rate: 1.0,
            min_batch_spans: 512,
            max_batch_spans: 8192,
            max_batch_bytes: 3_670_016,
            max_delay: Duration::from_secs(1),
            concurrency: 4,
            backoff: Backoff::default(),
            max_retries: None,
            max_elapsed: None,
            drain_timeout: Duration::from_secs(3),
        }
    }

    /// The destination as a log on disk is to know it.
    pub fn in_log(&self) -> LogDestination {
        LogDestination { name: self.name.clone(), start: self.start }
    }

    /// Whether a destination may have this name: 1 to 32 characters of `a-z`, `0-9`, `_` and `-`. It is a label of
    /// metrics and a part of variables' names.
    ///
    /// # Errors
    /// What is allowed.
    pub fn check_name(name: &str) -> Result<(), &'static str> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
        let holds = (1..=32).contains(&name.len()) && name.chars().all(allowed);
        if holds { Ok(()) } else { Err("must be 1 to 32 characters of a-z, 0-9, _ and -") }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub fn validate(&self) -> Result<(), DestinationConfigError> {
        self.check().map(drop)
    }

    pub(super) fn check(&self) -> Result<Checked, DestinationConfigError> {
        let mut problems = Problems::default();
        if let Err(rule) = Self::check_name(&self.name) {
            problems.add("name", format!("{:?} {rule}", self.name));
        }
        let endpoint = Endpoint::parse(&self.endpoint);
        if let Err(error) = &endpoint {
            problems.add("endpoint", error.to_string());
        }
        let path = self.path(endpoint.as_ref().map_or("", Endpoint::path), &mut problems);
        let tls = endpoint.as_ref().ok().and_then(|endpoint| self.tls(endpoint, &mut problems));
        let headers = headers(&self.headers).unwrap_or_else(|wrong| {
            let message =
                |problem: HeaderProblem| Problem { setting: "headers", message: problem.to_string() };
            problems.0.extend(wrong.into_iter().map(message));
            HeaderMap::new()
        });
        problems.within("timeout", self.timeout, Self::TIMEOUT);
        problems.within("sampling_rate", self.sampling_rate, Self::SAMPLING_RATE);
        problems.within("max_batch_spans", self.max_batch_spans, Self::BATCH_SPANS);
        let min_batch_spans = *Self::BATCH_SPANS.start()..=self.max_batch_spans;
        problems.within("min_batch_spans", self.min_batch_spans, min_batch_spans);
        problems.within("max_batch_bytes", self.max_batch_bytes, Self::BATCH_BYTES);
        problems.within("max_delay", self.max_delay, Self::MAX_DELAY);
        problems.within("concurrency", self.concurrency, Self::CONCURRENCY);
        let Backoff { initial, factor, cap } = self.backoff;
        problems.within("backoff.cap", cap, Self::BACKOFF);
        problems.within("backoff.initial", initial, *Self::BACKOFF.start()..=cap);
        problems.within("backoff.factor", factor, Self::BACKOFF_FACTOR);
        if let Some(max_elapsed) = self.max_elapsed {
            problems.within("max_elapsed", max_elapsed, Self::MAX_ELAPSED);
        }
        problems.within("drain_timeout", self.drain_timeout, Self::DRAIN_TIMEOUT);
        let machine = Settings {
            concurrency: self.concurrency,
            min_batch: self.min_batch_spans,
            max_batch: self.max_batch_spans,
            max_batch_bytes: self.max_batch_bytes,
            max_delay: self.max_delay,
            backoff: self.backoff,
            max_retries: self.max_retries,
            max_elapsed: self.max_elapsed,
        };
        match endpoint {
            Ok(endpoint) if problems.0.is_empty() => Ok(Checked {
                machine,
                transport: TransportSettings {
                    endpoint,
                    tls,
                    protocol: self.protocol,
                    path,
                    timeout: self.timeout,
                    headers,
                    gzip: self.gzip,
                    concurrency: self.concurrency,
                },
                sampler: Sampler::new(self.sampling_rate),
                drain_timeout: self.drain_timeout,
            }),
            _ => Err(DestinationConfigError { name: self.name.clone(), problems: problems.0 }),
        }
    }

    /// How TLS is spoken to the endpoint, if it is.
    fn tls(&self, endpoint: &Endpoint, problems: &mut Problems) -> Option<Tls> {
        let Endpoint::Tcp { tls: true, host, .. } = endpoint else {
            for (setting, file) in [
                ("tls.ca_file", &self.tls.ca_file),
                ("tls.cert_file", &self.tls.cert_file),
                ("tls.key_file", &self.tls.key_file),
            ] {
                if let Some(file) = file {
                    let rule = "must not be set: the endpoint is none of https://";
                    problems.add(setting, format!("{file:?} {rule}"));
                }
            }
            return None;
        };
        let Ok(name) = ServerName::try_from(host.clone()) else {
            let rule = "must have a host that a certificate can name: a DNS name or an IP address";
            problems.add("endpoint", format!("{:?} {rule}", self.endpoint));
            return None;
        };
        match tls::client(&self.tls, self.protocol.alpn()) {
            Ok(config) => Some(Tls { config, name }),
            Err(wrong) => {
                for (setting, message) in wrong {
                    let shown =
                        if setting == "endpoint" { format!("{:?} ", self.endpoint) } else { String::new() };
                    problems.add(setting, format!("{shown}{message}"));
                }
                None
            }
        }
    }

    /// The path of requests over HTTP, given that of the endpoint.
    fn path(&self, of_endpoint: &str, problems: &mut Problems) -> String {
        match (self.protocol, &self.path) {
            (Protocol::Grpc, path) => {
                if !of_endpoint.is_empty() {
                    let rule = "must be http://host:port without a path: OTLP over gRPC has its own";
                    problems.add("endpoint", format!("{:?} {rule}", self.endpoint));
                }
                if let Some(path) = path {
                    problems.add("path", format!("{path:?} must not be set: OTLP over gRPC has its own"));
                }
                String::new()
            }
            (Protocol::HttpProtobuf, None) => format!("{of_endpoint}{TRACES_PATH}"),
            (Protocol::HttpProtobuf, Some(path)) => {
                let holds = path.len() <= PATH_BYTES_MAX && path.starts_with('/') && !path.contains('#');
                if !holds || path.parse::<http::uri::PathAndQuery>().is_err() {
                    let rule =
                        format!("must be a path of a URL, from / on, of at most {PATH_BYTES_MAX} bytes");
                    let path = path.get(..path.floor_char_boundary(PATH_SHOWN_MAX)).unwrap_or_default();
                    problems.add("path", format!("{path:?} {rule}"));
                }
                path.clone()
            }
        }
    }
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, setting: &'static str, message: String) {
        self.0.push(Problem { setting, message });
    }

    /// Values print as in code, so that a duration has its unit.
    fn within<T: PartialOrd + fmt::Debug>(
        &mut self,
        setting: &'static str,
        value: T,
        range: RangeInclusive<T>,
    ) {
        if !range.contains(&value) {
            let (min, max) = range.into_inner();
            self.add(setting, format!("{value:?} is not within {min:?} and {max:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(DestinationConfig::new("default", "http://127.0.0.1:4317").validate(), Ok(()));
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let config = DestinationConfig {
            timeout: Duration::ZERO,
            sampling_rate: f64::NAN,
            min_batch_spans: 9000,
            concurrency: 0,
            backoff: Backoff { initial: Duration::from_secs(60), ..Backoff::default() },
            headers: vec![("x tenant".to_owned(), "a".to_owned())],
            ..DestinationConfig::new("", "https:/host:1")
        };
        let error = config.validate().unwrap_err();
        assert_eq!(
            error.to_string(),
            "destination \"\": name: \"\" must be 1 to 32 characters of a-z, 0-9, _ and -; \
             endpoint: \"https:/host:1\" must be http://host:port, https://host:port or unix:/path; \
             headers: \"x tenant\" must be named as an HTTP header is; \
             timeout: 0ns is not within 10ms and 600s; \
             sampling_rate: NaN is not within 0.0 and 1.0; \
             min_batch_spans: 9000 is not within 1 and 8192; \
             concurrency: 0 is not within 1 and 64; \
             backoff.initial: 60s is not within 1ms and 30s"
        );
    }

    #[test]
    fn the_path_of_requests_is_the_endpoint_s_and_that_of_traces_unless_it_is_named() {
        let path = |endpoint: &str, path: Option<&str>| {
            let path = path.map(str::to_owned);
            let protocol = Protocol::HttpProtobuf;
            DestinationConfig { protocol, path, ..DestinationConfig::new("a", endpoint) }
                .check()
                .unwrap()
                .transport
                .path
        };
        assert_eq!(path("http://h:1", None), "/v1/traces");
        assert_eq!(path("http://h:1/otlp/", None), "/otlp/v1/traces");
        assert_eq!(path("unix:/run/h.sock", None), "/v1/traces");
        assert_eq!(path("http://h:1/otlp", Some("/")), "/");
        assert_eq!(path("http://h:1", Some("/traces?tenant=1")), "/traces?tenant=1");
    }

    #[test]
    fn files_of_tls_are_for_https_alone_and_are_read_when_checked() {
        let tls = TlsFiles { ca_file: Some("/nowhere/ca.pem".into()), ..TlsFiles::default() };
        let config = DestinationConfig { tls, ..DestinationConfig::new("a", "http://h:1") };
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "destination \"a\": tls.ca_file: \"/nowhere/ca.pem\" must not be set: the endpoint is none of https://"
        );
        let config = DestinationConfig { endpoint: "https://h".to_owned(), ..config };
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "destination \"a\": tls.ca_file: \"/nowhere/ca.pem\" cannot be read: No such file or directory (os error 2)"
        );
        let config = DestinationConfig::new("a", "https://h_.-:1");
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "destination \"a\": endpoint: \"https://h_.-:1\" must have a host that a certificate can name: a DNS name or \
             an IP address"
        );
    }

    #[test]
    fn a_path_that_requests_cannot_have_is_refused() {
        let config = DestinationConfig {
            path: Some("/x".to_owned()),
            ..DestinationConfig::new("a", "http://h:1/otlp")
        };
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "destination \"a\": endpoint: \"http://h:1/otlp\" must be http://host:port without a path: \
             OTLP over gRPC has its own; path: \"/x\" must not be set: OTLP over gRPC has its own"
        );
        let long = format!("/{}", "x".repeat(1024));
        for path in ["", "v1/traces", "/a b", "/a#b", "/\n", long.as_str()] {
            let shown = &path[..path.len().min(100)];
            let path = Some(path.to_owned());
            let protocol = Protocol::HttpProtobuf;
            let config = DestinationConfig { protocol, path, ..DestinationConfig::new("a", "http://h:1") };
            assert_eq!(
                config.validate().unwrap_err().problems[0].to_string(),
                format!("path: {shown:?} must be a path of a URL, from / on, of at most 1024 bytes")
            );
        }
    }

    #[test]
    fn a_header_s_value_is_never_shown() {
        let headers = vec![("authorization".to_owned(), "secret".to_owned())];
        let config = DestinationConfig { headers, ..DestinationConfig::new("a", "http://h:1") };
        assert!(!format!("{config:?} {:?}", config.check().unwrap()).contains("secret"));
    }
}
