//! The tables `[export.NAME]`.

use std::{path::PathBuf, time::Duration};

use nyx_telemetry::{
    export::{Backoff, DestinationConfig, Endpoint, Problem, Protocol, TlsFiles},
    log::segments::StartAt,
};

use super::{
    Values,
    kinds::{bytes, duration, endpoint, number, path, text, whole, word},
    pairs,
    read::{Problems, Read, Table, at, origin_of, shortened},
    section::{Field, Keys, Section, declare, section},
};

/// The destination that `[telemetry]` describes.
pub(super) const DEFAULT: &str = "default";

/// The keys that it has from there, and where.
pub(super) const FROM_TELEMETRY: [(&str, &str); 2] =
    [("endpoint", "telemetry.otlp_endpoint"), ("sampling_rate", "telemetry.otlp_sampling_rate")];

declare! {
    /// `[export.NAME]`.
    struct Destination {
        /// Where the destination is; must be set, but not for `default`.
        endpoint: Option<Endpoint> = endpoint().or_unset(),
        /// The share of traces that it gets; not set means all; not for `default`.
        sampling_rate: Option<f64> = number(DestinationConfig::SAMPLING_RATE).or_unset(),
        /// Where it begins if the log does not know it yet: with the next span, or with the first that the log still holds.
        start: StartAt = word([("end", StartAt::End), ("beginning", StartAt::Beginning)]),
        /// How OTLP is spoken to it. Receivers take the two at different ports: 4317 and 4318 by custom.
        protocol: Protocol = word(Protocol::ALL.map(|protocol| (protocol.name(), protocol))),
        /// The path of requests, as it is; only with `http/protobuf`. Empty: the endpoint's path with `/v1/traces` behind it.
        path: Option<String> = text(0..=1024).map(|path| Some(path).filter(|path| !path.is_empty())),
        /// The files of TLS, with an `https://` endpoint.
        tls: TlsKeys = section(),
        /// How long one request may take until its answer.
        timeout: Duration = duration(DestinationConfig::TIMEOUT),
        /// Headers of every request; see below.
        headers: Vec<(String, String)> = pairs::headers(),
        /// How requests are packed.
        compression: bool = word([("none", false), ("gzip", true)]),
        /// Requests in flight at a time.
        concurrency: usize = whole(DestinationConfig::CONCURRENCY),
        /// When a batch goes out, and how large it is.
        batch: Batch = section(),
        /// When a batch is tried again, and when it is given up.
        retry: Retry = section(),
    }
}

declare! {
    /// `[export.NAME.tls]`.
    pub(super) struct TlsKeys {
        /// Certificates in PEM of the authorities of which one has to have signed the destination's certificate. Empty:
        /// those of the system, or of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
        ca_file: PathBuf = path(),
        /// The certificate in PEM that the destination is shown, behind it those between it and its authority. Empty: none.
        cert_file: PathBuf = path(),
        /// Its key in PEM, not encrypted: RSA, ECDSA on P-256 or P-384, or Ed25519.
        key_file: PathBuf = path(),
    }
}

impl TlsKeys {
    pub(super) fn files(self) -> TlsFiles {
        let file = |path: PathBuf| Some(path).filter(|path| !path.as_os_str().is_empty());
        TlsFiles {
            ca_file: file(self.ca_file),
            cert_file: file(self.cert_file),
            key_file: file(self.key_file),
        }
    }
}

declare! {
    /// `[export.NAME.batch]`.
    struct Batch {
        /// A batch goes out when so many spans wait. Not above `max_spans`.
        min_spans: u64 = whole(DestinationConfig::BATCH_SPANS),
        /// Spans in a batch at most.
        max_spans: u64 = whole(DestinationConfig::BATCH_SPANS),
        /// Bytes in a batch at most, unless one span is larger.
        max_bytes: usize = bytes(DestinationConfig::BATCH_BYTES),
        /// A batch goes out, however small, when its oldest span has waited so long.
        max_delay: Duration = duration(DestinationConfig::MAX_DELAY),
    }
}

declare! {
    /// `[export.NAME.retry]`.
    struct Retry {
        /// The wait before the first retry; it doubles with each failure, with jitter. Not above `max`.
        initial: Duration = duration(DestinationConfig::BACKOFF),
        /// The longest wait.
        max: Duration = duration(DestinationConfig::BACKOFF),
        /// Retries of a batch before it is given up and becomes a dead letter; not set means never.
        max_retries: Option<u32> = whole(0..=u32::MAX).or_unset(),
        /// The time from the first try of a batch until it is given up and becomes a dead letter; not set means never.
        max_elapsed: Option<Duration> = duration(DestinationConfig::MAX_ELAPSED).or_unset(),
    }
}

impl Destination {
    fn named(self, name: &str) -> DestinationConfig {
        let Self {
            start, protocol, path, tls, timeout, headers, compression, concurrency, batch, retry, ..
        } = self;
        let endpoint = self.endpoint.map(|endpoint| endpoint.to_string()).unwrap_or_default();
        DestinationConfig {
            start,
            protocol,
            path,
            tls: tls.files(),
            timeout,
            headers,
            gzip: compression,
            sampling_rate: self.sampling_rate.unwrap_or(1.0),
            min_batch_spans: batch.min_spans,
            max_batch_spans: batch.max_spans,
            max_batch_bytes: batch.max_bytes,
            max_delay: batch.max_delay,
            concurrency,
            backoff: Backoff { initial: retry.initial, cap: retry.max, ..Backoff::default() },
            max_retries: retry.max_retries,
            max_elapsed: retry.max_elapsed,
            ..DestinationConfig::new(name, &endpoint)
        }
    }
}

/// All destinations. Where `default` is, and its share, [`super::Config::finish`] has from `[telemetry]`.
pub(super) struct Destinations;

/// All destinations.
pub(super) fn destinations() -> Destinations {
    Destinations
}

impl Field for Destinations {
    type Value = Vec<DestinationConfig>;

    fn read(&self, table: &mut Table<'_>, name: &str) -> Read<Self::Value> {
        let mut export = table.table(name)?;
        let mut names = export.names();
        names.retain(|name| name != DEFAULT);
        names.insert(0, DEFAULT.to_owned());
        let read: Vec<_> = names.iter().map(|name| destination(&mut export, name)).collect();
        read.into_iter().collect()
    }

    fn describe(&self, keys: &mut Keys, name: &str, meaning: &str) {
        keys.within(name, meaning, |keys| keys.within("NAME", "", Destination::describe));
    }
}

fn destination(export: &mut Table<'_>, name: &str) -> Read<DestinationConfig> {
    let at = export.origin(name);
    let mut table = export.table(name)?;
    if let Err(rule) = DestinationConfig::check_name(name) {
        return Err(table
            .problems
            .note(format!("[export.{}]{at}: a destination's name {rule}", shortened(name))));
    }
    let mut place = Ok(());
    if name == DEFAULT {
        for (key, elsewhere) in FROM_TELEMETRY {
            if let Some(value) = table.take(key) {
                let key = table.key(key);
                place = Err(table.problems.note(format!(
                    "{key}{}: the destination \"default\" has it from {elsewhere}: set that",
                    origin_of(&value)
                )));
            }
        }
    } else if !table.has("endpoint") {
        place = Err(table.problems.note(format!("export.{name}.endpoint must be set{at}")));
    }
    let destination = Destination::read(table);
    place?;
    Ok(destination?.named(name))
}

/// Notes what is wrong with the settings of a destination, of this table, beside each other; what each is by itself has been
/// looked at.
pub(super) fn as_a_whole(
    destination: &DestinationConfig,
    table: &str,
    values: &Values,
    problems: &Problems<'_>,
) {
    let Err(error) = destination.validate() else { return };
    for Problem { setting, message } in error.problems {
        let key = match setting {
            "endpoint" if destination.name == DEFAULT => "telemetry.otlp_endpoint".to_owned(),
            "endpoint" | "path" | "tls.ca_file" | "tls.cert_file" | "tls.key_file" => {
                format!("{table}.{setting}")
            }
            _ => continue,
        };
        let origin = at(values, &key).map(origin_of).unwrap_or_default();
        problems.note(format!("{key}{origin}: {message}"));
    }
}
