//! OTLP as protobuf over HTTP/1.1, on hyper's connection directly.
//!
//! A connection serves one request at a time and is then kept for the next, so that there are at most as many
//! as requests in flight.

mod answer;
mod forward;

use std::{future::Future, sync::Arc, time::SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::forward::Forward;
use super::{
    super::verdict::{Failure, Outcome},
    Sent, Tasks, TransportSettings, USER_AGENT,
    answer::{chain, failed},
    body::RequestBody,
    connect::{Stream, connect},
    packed,
    tasks::Executor,
    told::Fault,
};

/// What of an answer may be buffered, and so how large its head may be.
const BUFFER_MAX: usize = 64 * 1024;

/// A connection and its future, which ends with it.
struct Connection {
    sender: SendRequest<RequestBody>,
    fault: Fault,
    end: CancellationToken,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// One destination's connections.
#[derive(Clone)]
pub(crate) struct Transport(Arc<Shared>);

struct Shared {
    settings: TransportSettings,
    /// The path: where to connect is the connection's matter.
    target: Uri,
    headers: HeaderMap,
    tasks: Tasks,
    /// Connections without a request, the one used last at the end.
    idle: Mutex<Vec<Connection>>,
}

impl Transport {
    /// A transport without a connection yet.
    ///
    /// # Errors
    /// Where the settings make no URL or header, which valid ones always do.
    pub(super) fn new(settings: TransportSettings, tasks: Tasks) -> Result<Self, http::Error> {
        let target = Uri::builder().path_and_query(settings.path.as_str()).build()?;
        let mut headers = settings.headers.clone();
        headers.insert(header::HOST, HeaderValue::from_str(&settings.endpoint.authority())?);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(header::USER_AGENT, USER_AGENT);
        if settings.gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let idle = Mutex::default();
        Ok(Self(Arc::new(Shared { settings, target, headers, tasks, idle })))
    }

    /// Sees to it that there is a connection.
    pub(super) fn connect(&self) -> impl Future<Output = Result<(), Failure>> + Send + 'static + use<> {
        let shared = Arc::clone(&self.0);
        async move {
            let connection = match shared.idle() {
                Some(connection) => connection,
                None => shared.open().await?,
            };
            shared.keep(connection);
            Ok(())
        }
    }

    /// Sends one request with these frames.
    pub(super) fn send(&self, frames: Vec<Bytes>) -> impl Future<Output = Sent> + Send + 'static + use<> {
        let shared = Arc::clone(&self.0);
        async move {
            let gzip = shared.settings.gzip;
            let body = match packed(gzip, frames, RequestBody::http, RequestBody::http_gzip).await {
                Ok(body) => body,
                Err(failed) => return failed,
            };
            let bytes = body.bytes();
            let limit = shared.settings.timeout;
            // A connection whose time is over is dropped with the attempt.
            let outcome = timeout(limit, shared.attempt(body))
                .await
                .unwrap_or_else(|_elapsed| failed(format!("no answer within {} ms", limit.as_millis())));
            Sent { outcome, bytes }
        }
    }
}

impl Shared {
    async fn attempt(&self, body: RequestBody) -> Outcome {
        let mut kept = self.idle();
        loop {
            let again = kept.is_some();
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => match self.open().await {
                    Ok(connection) => connection,
                    Err(failure) => return Outcome::Failed(failure),
                },
            };
            match connection.sender.try_send_request(self.request(body.clone())).await {
                Ok(response) => {
                    let (outcome, whole) = answer::read(response, SystemTime::now()).await;
                    if whole {
                        self.keep(connection);
                    }
                    return outcome;
                }
                // The server had closed it meanwhile, and nothing was sent.
                Err(error) if again && error.message().is_some() => {}
                Err(error) => {
                    let words = connection.fault.words();
                    return failed(words.unwrap_or_else(|| chain(&error.into_error())));
                }
            }
        }
    }

    fn request(&self, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// A connection that may serve, if one is kept. Those that the server has closed, or that still send a request which
    /// was answered before its end, are dropped on the way.
    fn idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock();
        while let Some(connection) = idle.pop() {
            if connection.sender.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock();
        if idle.len() < self.settings.concurrency {
            idle.push(connection);
        }
    }

    async fn open(&self) -> Result<Connection, Failure> {
        connect(&self.settings, |stream, fault| self.handshake(stream, fault)).await
    }

    async fn handshake(&self, stream: Box<dyn Stream>, fault: Fault) -> Result<Connection, String> {
        let executor = Executor::new(&self.tasks);
        let (sender, driver) = Builder::new()
            .max_buf_size(BUFFER_MAX)
            .handshake(TokioIo::new(Forward::new(stream)))
            .await
            .map_err(|error| chain(&error))?;
        executor.run(async move {
            // Each request learns by itself what happened to its connection.
            let _ended = driver.await;
        });
        Ok(Connection { sender, fault, end: executor.end })
    }
}

#[cfg(test)]
mod tests;
