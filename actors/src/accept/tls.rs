//! What a door does about TLS, and what went wrong with it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use rustls::{CertificateError, Error, ServerConfig};
use serde::Serialize;

use crate::{
    log::{Labelled, reasons},
    tls::ServerTls,
};

reasons! {
    /// Why a connection came to nothing because of TLS. Who comes and goes without a word is none of these.
    TlsFailure {
        /// The client speaks plain text, and the door TLS.
        Plaintext => "plaintext",
        /// The client speaks TLS, and the door plain text.
        NotConfigured => "not_configured",
        /// The client shows no certificate, and the door asks for one.
        NoCertificate => "no_certificate",
        /// The client's certificate is signed by an authority that is not trusted here, or not valid for another reason.
        Untrusted => "untrusted",
        /// The client's certificate has expired, or is not valid yet.
        Expired => "expired",
        /// The client ended the handshake: as a rule it does not accept the door's certificate.
        Declined => "declined",
        /// The handshake was not over in time.
        Timeout => "timeout",
        /// The client closed the connection in the midst of the handshake.
        Disconnected => "disconnected",
        /// Whatever else: bytes that are no TLS, no version, cipher or protocol in common.
        Protocol => "protocol",
    }
}

impl TlsFailure {
    /// What it was that ended a handshake.
    pub(super) fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
            None => Self::Disconnected,
            Some(Error::NoCertificatesPresented) => Self::NoCertificate,
            Some(Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            )) => Self::Expired,
            Some(Error::InvalidCertificate(_)) => Self::Untrusted,
            Some(Error::AlertReceived(_)) => Self::Declined,
            Some(_) => Self::Protocol,
        }
    }

    /// What an operator of this door can do about it.
    fn advice(self, door: &str) -> String {
        match self {
            Self::Plaintext => "it speaks plain text: let its endpoint begin with https://".to_owned(),
            Self::NotConfigured => format!(
                "this looks like TLS: set ingest.{door}.tls.cert_file and key_file, or let its endpoint begin with http://"
            ),
            Self::NoCertificate => {
                format!("it shows no certificate, which ingest.{door}.tls.client_ca_file asks for")
            }
            Self::Untrusted => {
                format!(
                    "its certificate is not accepted by the authorities of ingest.{door}.tls.client_ca_file"
                )
            }
            Self::Expired => {
                "its certificate has expired or is not valid yet: look at the clocks too".to_owned()
            }
            Self::Declined => {
                format!(
                    "it ended the handshake: it may not trust the authority of ingest.{door}.tls.cert_file, or go by another name"
                )
            }
            Self::Timeout => "it took too long".to_owned(),
            Self::Disconnected => "it closed the connection in the midst of the handshake".to_owned(),
            Self::Protocol => "it does not speak TLS as this door does".to_owned(),
        }
    }
}

/// The TLS of a door. Connections that are open go on with what they began with.
#[derive(Debug)]
pub struct DoorTls {
    door: &'static str,
    protocols: &'static [&'static [u8]],
    /// `None` where the door speaks plain text.
    current: Option<Mutex<Current>>,
    failures: [AtomicU64; TlsFailure::ALL.len()],
}

#[derive(Debug)]
struct Current {
    tls: ServerTls,
    config: Arc<ServerConfig>,
}

/// A door's TLS at one moment, on `/stats`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TlsStats {
    /// Whether the door speaks TLS.
    pub enabled: bool,
    /// Whether clients have to show a certificate.
    pub client_certificates: bool,
    /// The end of the door's certificate, in seconds since the Unix epoch, as far as it can be told.
    pub certificate_expires: Option<u64>,
    /// Connections that came to nothing because of TLS.
    #[serde(serialize_with = "labelled")]
    failures: [u64; TlsFailure::ALL.len()],
}

impl TlsStats {
    /// Connections that came to nothing for this reason.
    pub fn failures(&self, reason: TlsFailure) -> u64 {
        self.failures.get(reason as usize).copied().unwrap_or_default()
    }
}

fn labelled<S: serde::Serializer>(
    failures: &[u64; TlsFailure::ALL.len()],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    Labelled(TlsFailure::ALL, TlsFailure::label, failures).serialize(serializer)
}

impl DoorTls {
    /// Of the door of OTLP/gRPC; without `tls` it speaks plain text.
    pub fn grpc(tls: Option<ServerTls>) -> Self {
        Self::new("grpc", &[b"h2"], tls)
    }

    /// Of the door of OTLP/HTTP; without `tls` it speaks plain text.
    pub fn http(tls: Option<ServerTls>) -> Self {
        Self::new("http", &[b"h2", b"http/1.1"], tls)
    }

    fn new(door: &'static str, protocols: &'static [&'static [u8]], tls: Option<ServerTls>) -> Self {
        let current = tls.map(|tls| Mutex::new(Current { config: tls.speaking(protocols), tls }));
        Self { door, protocols, current, failures: Default::default() }
    }

    /// The door's name.
    pub fn door(&self) -> &'static str {
        self.door
    }

    /// New connections get this from now on; false where the door speaks plain text, which does not change.
    pub fn renew(&self, tls: ServerTls) -> bool {
        let Some(current) = &self.current else { return false };
        let config = tls.speaking(self.protocols);
        *current.lock() = Current { tls, config };
        true
    }

    /// For a new connection; `None` where the door speaks plain text.
    pub(super) fn config(&self) -> Option<Arc<ServerConfig>> {
        self.current.as_ref().map(|current| Arc::clone(&current.lock().config))
    }

    /// Counts a connection that came to nothing, and says so. The library's words name no payload.
    pub(super) fn failed(&self, reason: TlsFailure, peer: &str, error: Option<&io::Error>) {
        if let Some(failures) = self.failures.get(reason as usize) {
            failures.fetch_add(1, Ordering::Relaxed);
        }
        let advice = reason.advice(self.door);
        let error = error.map(tracing::field::display);
        tracing::warn!(
            door = self.door,
            peer,
            reason = reason.label(),
            error,
            "no TLS with a client: {advice}"
        );
    }

    /// The counts and the certificate at this moment.
    pub fn stats(&self) -> TlsStats {
        let tls = self.current.as_ref().map(|current| current.lock().tls.clone());
        let since_epoch = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        TlsStats {
            enabled: tls.is_some(),
            client_certificates: tls.as_ref().is_some_and(ServerTls::asks_clients),
            certificate_expires: tls.and_then(|tls| tls.expires()).map(since_epoch),
            failures: std::array::from_fn(|at| {
                self.failures.get(at).map_or(0, |failures| failures.load(Ordering::Relaxed))
            }),
        }
    }
}

#[cfg(test)]
mod tests;
