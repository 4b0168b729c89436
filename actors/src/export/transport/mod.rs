//! How a batch gets to its destination: OTLP over gRPC, or protobuf over HTTP (level 2).
//!
//! Both keep one conformance suite: what a destination does means the same whichever way it is reached.

mod answer;
mod body;
#[cfg(test)]
mod conformance;
mod connect;
mod grpc;
mod http1;
#[cfg(test)]
mod secure;
mod tasks;
mod told;

use std::{fmt, future::Future, pin::Pin, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use rustls::{ClientConfig, pki_types::ServerName};

pub use self::connect::Stream;
use self::{answer::failed, body::RequestBody};
pub(super) use self::{connect::dial, tasks::Tasks};
use super::verdict::{Failure, Outcome};
use crate::address::Endpoint;

/// Our product, and before it the name that OTLP asks of an exporter (OTLP 1.11, "OTLP exporter user agent").
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!(
    "nyx-daemon/",
    env!("CARGO_PKG_VERSION"),
    " OTel-OTLP-Exporter-Rust/",
    env!("CARGO_PKG_VERSION")
));

/// How OTLP is spoken to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Over gRPC.
    Grpc,
    /// Protobuf over HTTP/1.1.
    HttpProtobuf,
}

impl Protocol {
    /// Every protocol, in the order of declaration.
    pub const ALL: [Self; 2] = [Self::Grpc, Self::HttpProtobuf];

    /// What a client of it says to a server of TLS (RFC 7301).
    pub(super) const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Grpc => b"h2",
            Self::HttpProtobuf => b"http/1.1",
        }
    }

    /// The name, as `OTEL_EXPORTER_OTLP_PROTOCOL` has it too.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|protocol| protocol.name() == text);
        found.ok_or_else(|| "must be \"grpc\" or \"http/protobuf\"".to_owned())
    }
}

/// How TLS is spoken to a destination.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    /// Whose certificate the server's has to be.
    pub(super) name: ServerName<'static>,
}

// By hand: there is a key within.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Settings of a [`Transport`], validated.
#[derive(Debug, Clone)]
pub(super) struct TransportSettings {
    pub(super) endpoint: Endpoint,
    pub(super) tls: Option<Tls>,
    pub(super) protocol: Protocol,
    /// The path of requests, with HTTP.
    pub(super) path: String,
    pub(super) timeout: Duration,
    pub(super) headers: HeaderMap,
    pub(super) gzip: bool,
    /// Requests in flight at a time, and so connections with HTTP.
    pub(super) concurrency: usize,
}

/// How a request went.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) outcome: Outcome,
    /// Bytes of the request's body.
    pub(super) bytes: u64,
}

type TransportFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The way to one destination: connections are made when they are needed, and made again after they failed.
#[derive(Clone)]
pub(super) enum Transport {
    Grpc(grpc::Transport),
    Http(http1::Transport),
}

impl Transport {
    /// A transport without a connection yet, whose connections' futures go to `tasks`.
    ///
    /// # Errors
    /// Where the settings make no URL or header, which valid ones always do.
    pub(super) fn new(settings: TransportSettings, tasks: Tasks) -> Result<Self, http::Error> {
        Ok(match settings.protocol {
            Protocol::Grpc => Self::Grpc(grpc::Transport::new(settings, tasks)?),
            Protocol::HttpProtobuf => Self::Http(http1::Transport::new(settings, tasks)?),
        })
    }

    /// Sees to it that there is a connection.
    pub(super) fn connect(&self) -> TransportFuture<Result<(), Failure>> {
        match self {
            Self::Grpc(transport) => Box::pin(transport.connect()),
            Self::Http(transport) => Box::pin(transport.connect()),
        }
    }

    /// Sends one request with these frames.
    pub(super) fn send(&self, frames: Vec<Bytes>) -> TransportFuture<Sent> {
        match self {
            Self::Grpc(transport) => Box::pin(transport.send(frames)),
            Self::Http(transport) => Box::pin(transport.send(frames)),
        }
    }
}

/// A request's body. Compression is work for another thread: 3.5 MiB would hold up this one for 10 ms. At most as many
/// requests as are in flight are compressed at a time, and a panic there is this future's.
async fn packed(
    gzip: bool,
    frames: Vec<Bytes>,
    plain: fn(&[Bytes]) -> RequestBody,
    compressed: fn(&[Bytes]) -> std::io::Result<RequestBody>,
) -> Result<RequestBody, Sent> {
    if !gzip {
        return Ok(plain(&frames));
    }
    let packed = match tokio::task::spawn_blocking(move || compressed(&frames)).await {
        Ok(packed) => packed,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(std::io::Error::other(error)),
        },
    };
    packed.map_err(|error| Sent { outcome: failed(format!("gzip: {error}")), bytes: 0 })
}
