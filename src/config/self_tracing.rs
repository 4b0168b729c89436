//! The table `[self_tracing]`.

use nyx_telemetry::export::{DestinationConfig, Endpoint};

use super::{
    destinations::TlsKeys,
    kinds::{endpoint_or_off, number},
    pairs,
    read::{Read, Table},
    section::{Field, Keys, Section as _, declare, section},
};

/// The table.
pub(super) const TABLE: &str = "self_tracing";

declare! {
    /// `[self_tracing]`.
    struct SelfTracing {
        /// Where the traces about this daemon itself go, over OTLP/gRPC; off where it is empty. Not where this daemon listens.
        endpoint: Option<Endpoint> = endpoint_or_off(),
        /// The share of traces about requests, commits and checkpoints that is recorded; what is rare always is.
        sampling_rate: f64 = number(DestinationConfig::SAMPLING_RATE),
        /// Headers of every request; as those of a destination.
        headers: Vec<(String, String)> = pairs::headers(),
        /// The files of TLS, with an `https://` endpoint.
        tls: TlsKeys = section(),
    }
}

/// A destination of traces about the daemon itself; none is off.
pub(super) struct Own;

/// A destination of traces about the daemon itself; none is off.
pub(super) fn own() -> Own {
    Own
}

impl Field for Own {
    type Value = Option<DestinationConfig>;

    fn read(&self, table: &mut Table<'_>, name: &str) -> Read<Self::Value> {
        let SelfTracing { endpoint, sampling_rate, headers, tls } =
            table.table(name).and_then(SelfTracing::read)?;
        Ok(endpoint.map(|endpoint| DestinationConfig {
            sampling_rate,
            headers,
            tls: tls.files(),
            ..DestinationConfig::new("self-tracing", &endpoint.to_string())
        }))
    }

    fn describe(&self, keys: &mut Keys, name: &str, meaning: &str) {
        keys.within(name, meaning, SelfTracing::describe);
    }
}
