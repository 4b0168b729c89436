//! The way to a destination's endpoint, for a client that is not ours.

use std::future::Future;

use http::{HeaderMap, Uri};

use super::{
    config::{DestinationConfig, DestinationConfigError},
    transport::{Stream, TransportSettings, dial},
};

/// Opens connections to a destination: TCP, TLS with the destination's files, or a Unix socket. What is spoken on them is the
/// caller's affair.
#[derive(Debug, Clone)]
pub struct Dialer(TransportSettings);

impl DestinationConfig {
    /// The way to this destination.
    ///
    /// # Errors
    /// Where the settings are not valid.
    pub fn dialer(&self) -> Result<Dialer, DestinationConfigError> {
        self.check().map(|checked| Dialer(checked.transport))
    }
}

impl Dialer {
    /// A new connection, within 5 s or the destination's `timeout`, if that is shorter.
    ///
    /// # Errors
    /// The endpoint, and what happened.
    pub fn dial(&self) -> impl Future<Output = Result<Box<dyn Stream>, String>> + Send + use<> {
        let settings = self.0.clone();
        async move { dial(&settings).await.map_err(|failure| failure.message) }
    }

    /// Scheme and authority of requests.
    ///
    /// # Errors
    /// Where they make no URL, which valid settings always do.
    pub fn origin(&self) -> Result<Uri, http::Error> {
        let scheme = if self.0.tls.is_some() { "https" } else { "http" };
        Uri::builder().scheme(scheme).authority(self.0.endpoint.authority()).path_and_query("/").build()
    }

    /// Headers of every request; their values are secrets.
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }
}
