//! From an endpoint to a stream of bytes.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    super::verdict::Failure,
    Tls, TransportSettings,
    answer::chain,
    told::{Fault, Told},
};
use crate::address::Endpoint;

/// A connection that takes longer has failed; less where the whole attempt has less.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a connection is made of.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Connects, and greets the server with `handshake`, all of it within the time for a connection.
///
/// # Errors
/// The endpoint, and what happened.
pub(super) async fn connect<C, F>(
    settings: &TransportSettings,
    handshake: impl FnOnce(Box<dyn Stream>, Fault) -> F,
) -> Result<C, Failure>
where
    F: Future<Output = Result<C, String>>,
{
    let limit = CONNECT_TIMEOUT.min(settings.timeout);
    let endpoint = &settings.endpoint;
    let connected = timeout(limit, async {
        let (stream, fault) = open(settings).await?;
        handshake(stream, fault).await
    })
    .await;
    let why = match connected {
        Ok(Ok(connection)) => return Ok(connection),
        Ok(Err(why)) => why,
        Err(_elapsed) => format!("no connection within {} ms", limit.as_millis()),
    };
    Err(Failure { message: format!("connect to {endpoint}: {why}") })
}

/// Connects, and no more.
///
/// # Errors
/// The endpoint, and what happened.
pub(in crate::export) async fn dial(settings: &TransportSettings) -> Result<Box<dyn Stream>, Failure> {
    connect(settings, async |stream, _| Ok(stream)).await
}

async fn open(settings: &TransportSettings) -> Result<(Box<dyn Stream>, Fault), String> {
    let fault = Fault::default();
    match &settings.endpoint {
        Endpoint::Tcp { host, port, .. } => {
            let stream =
                TcpStream::connect((host.as_str(), *port)).await.map_err(|error| error.to_string())?;
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            let Some(Tls { config, name }) = &settings.tls else { return Ok((Box::new(stream), fault)) };
            let connector = TlsConnector::from(Arc::clone(config));
            let stream = connector.connect(name.clone(), stream).await.map_err(|error| chain(&error))?;
            Ok((Box::new(Told { stream, fault: fault.clone() }), fault))
        }
        Endpoint::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|error| error.to_string())?;
            Ok((Box::new(stream), fault))
        }
    }
}
