//! Settings of a destination.

use std::{fmt, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;

use super::{backoff::Backoff, batch::Sampler, endpoint::Endpoint, grpc::TransportSettings, state::Settings};

/// A destination as it is configured. The defaults are those of `config/default.toml`.
#[derive(Clone, PartialEq)]
pub struct DestinationConfig {
    /// The destination's name on `/stats`, in metrics and in the log: 1 to 64 of `a-z A-Z 0-9 - _`.
    pub name: String,
    /// Where it is: `http://host:port` or `unix:/path`.
    pub endpoint: String,
    /// Time for an attempt from connecting to the last byte of the answer; 10 s, from 10 ms to 10 min.
    pub timeout: Duration,
    /// Headers of every request; none, at most 64 with 16 KiB in all. Values are secrets: they are never shown.
    pub headers: Vec<(String, String)>,
    /// Whether requests are compressed with gzip; false.
    pub gzip: bool,
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
    /// Time after its first attempt before a batch is given up, as for `max_retries`; none: never.
    pub max_elapsed: Option<Duration>,
    /// When the exporter is stopped, it goes on for this long to deliver what is there; 3 s, from 0 to 10 min. It is
    /// to be shorter than its supervisor's patience. What remains stays in the log.
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

/// Headers that the transport writes itself, or that HTTP/2 does not have.
const RESERVED: [&str; 8] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "te",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 16 * 1024;

impl DestinationConfig {
    /// A destination with the default settings.
    pub fn new(name: &str, endpoint: &str) -> Self {
        Self {
            name: name.to_owned(),
            endpoint: endpoint.to_owned(),
            timeout: Duration::from_secs(10),
            headers: vec![],
            gzip: false,
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

    /// Checks every setting.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub fn validate(&self) -> Result<(), DestinationConfigError> {
        self.check().map(drop)
    }

    pub(super) fn check(&self) -> Result<Checked, DestinationConfigError> {
        let mut problems = Problems::default();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        problems.unless(
            (1..=64).contains(&self.name.len()) && self.name.chars().all(allowed),
            "name",
            || format!("{:?} is not 1 to 64 of a-z A-Z 0-9 - _", self.name),
        );
        let endpoint = Endpoint::parse(&self.endpoint);
        if let Err(error) = &endpoint {
            problems.add("endpoint", error.to_string());
        }
        let headers = self.headers(&mut problems);
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        problems.within("timeout", Shown(self.timeout), Shown(ms(10)), Shown(s(600)));
        problems.within("sampling_rate", self.sampling_rate, 0.0, 1.0);
        problems.within("max_batch_spans", self.max_batch_spans, 1, 65_536);
        problems.within("min_batch_spans", self.min_batch_spans, 1, self.max_batch_spans);
        problems.within("max_batch_bytes", self.max_batch_bytes, 64 << 10, 64 << 20);
        problems.within("max_delay", Shown(self.max_delay), Shown(s(0)), Shown(s(60)));
        problems.within("concurrency", self.concurrency, 1, 64);
        problems.within("drain_timeout", Shown(self.drain_timeout), Shown(s(0)), Shown(s(600)));
        let Backoff { initial, factor, cap } = self.backoff;
        problems.within("backoff.cap", Shown(cap), Shown(ms(1)), Shown(s(3600)));
        problems.within("backoff.initial", Shown(initial), Shown(ms(1)), Shown(cap));
        problems.within("backoff.factor", factor, 1.0, 10.0);
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
                transport: TransportSettings { endpoint, timeout: self.timeout, headers, gzip: self.gzip },
                sampler: Sampler::new(self.sampling_rate),
                drain_timeout: self.drain_timeout,
            }),
            _ => Err(DestinationConfigError { name: self.name.clone(), problems: problems.0 }),
        }
    }

    fn headers(&self, problems: &mut Problems) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let bytes: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if self.headers.len() > HEADERS_MAX || bytes > HEADER_BYTES_MAX {
            let count = self.headers.len();
            problems.add("headers", format!("{count} headers with {bytes} bytes are over the limit of {HEADERS_MAX} headers with {HEADER_BYTES_MAX} bytes"));
            return headers;
        }
        for (name, value) in &self.headers {
            let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
                problems.add("headers", format!("{name:?} is no header's name"));
                continue;
            };
            if RESERVED.contains(&header.as_str()) || header.as_str().starts_with("grpc-") {
                problems.add("headers", format!("{name:?} is written by the transport itself"));
                continue;
            }
            match HeaderValue::from_str(value) {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    headers.append(header, value);
                }
                Err(_) => problems
                    .add("headers", format!("the value of {name:?} has characters that no header takes")),
            }
        }
        headers
    }
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, setting: &'static str, message: String) {
        self.0.push(Problem { setting, message });
    }

    fn unless(&mut self, holds: bool, setting: &'static str, message: impl FnOnce() -> String) {
        if !holds {
            self.add(setting, message());
        }
    }

    fn within<T: PartialOrd + fmt::Display>(&mut self, setting: &'static str, value: T, min: T, max: T) {
        let holds = min <= value && value <= max;
        self.unless(holds, setting, || format!("{value} is not within {min} and {max}"));
    }
}

/// A duration as an operator writes it.
#[derive(PartialEq, PartialOrd)]
struct Shown(Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
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
            headers: vec![
                ("x tenant".to_owned(), "a".to_owned()),
                ("TE".to_owned(), "b".to_owned()),
                ("authorization".to_owned(), "sec\nret".to_owned()),
            ],
            ..DestinationConfig::new("", "https://host:1")
        };
        let error = config.validate().unwrap_err();
        assert_eq!(
            error.to_string(),
            "destination \"\": name: \"\" is not 1 to 64 of a-z A-Z 0-9 - _; \
             endpoint: endpoint \"https://host:1\" asks for TLS, which this version does not speak yet; \
             allowed are http://host:port and unix:/path; \
             headers: \"x tenant\" is no header's name; \
             headers: \"TE\" is written by the transport itself; \
             headers: the value of \"authorization\" has characters that no header takes; \
             timeout: 0ns is not within 10ms and 600s; \
             sampling_rate: NaN is not within 0 and 1; \
             min_batch_spans: 9000 is not within 1 and 8192; \
             concurrency: 0 is not within 1 and 64; \
             backoff.initial: 60s is not within 1ms and 30s"
        );
    }

    #[test]
    fn a_header_s_value_is_never_shown() {
        let headers = vec![("authorization".to_owned(), "secret".to_owned())];
        let config = DestinationConfig { headers, ..DestinationConfig::new("a", "http://h:1") };
        assert!(!format!("{config:?} {:?}", config.check().unwrap()).contains("secret"));
    }
}
