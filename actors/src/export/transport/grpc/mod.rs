//! OTLP over gRPC, on hyper's HTTP/2 connection directly.

mod answer;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

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

const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Responses are tiny; the window is for a partial success with a long message.
const WINDOW: u32 = 1024 * 1024;
const FRAME_MAX: u32 = 1024 * 1024;
/// A status with its message and details; a server that sends more has its stream refused.
const HEADERS_MAX: u32 = 64 * 1024;
/// What h2 may hold of one request; the chunks are shared with the log.
const SEND_BUFFER: usize = 4 * 1024 * 1024;

/// A connection and its futures, which end when the last request on it has ended.
struct Connection {
    sender: SendRequest<RequestBody>,
    fault: Fault,
    end: CancellationToken,
    retired: std::sync::atomic::AtomicBool,
}

impl Connection {
    fn is_usable(&self) -> bool {
        !self.sender.is_closed() && !self.retired.load(Ordering::Relaxed)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// One destination's connection, made when it is needed and made again after it failed.
#[derive(Clone)]
pub(crate) struct Transport(Arc<Shared>);

struct Shared {
    settings: TransportSettings,
    uri: Uri,
    headers: HeaderMap,
    tasks: Tasks,
    connection: tokio::sync::Mutex<Link>,
    /// Attempts to connect that have ended.
    attempts: AtomicU64,
}

#[derive(Default)]
struct Link {
    connection: Option<Arc<Connection>>,
    failure: Option<Failure>,
}

impl Transport {
    /// A transport without a connection yet.
    ///
    /// # Errors
    /// Where the endpoint makes no URL, which a parsed endpoint always does.
    pub(super) fn new(settings: TransportSettings, tasks: Tasks) -> Result<Self, http::Error> {
        let authority = settings.endpoint.authority();
        let uri = Uri::builder()
            .scheme(if settings.tls.is_some() { "https" } else { "http" })
            .authority(authority)
            .path_and_query(PATH)
            .build()?;
        let mut headers = settings.headers.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::USER_AGENT, USER_AGENT);
        headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
        headers.insert("grpc-timeout", HeaderValue::from_str(&grpc_timeout(settings.timeout))?);
        if settings.gzip {
            headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
        }
        let connection = tokio::sync::Mutex::default();
        Ok(Self(Arc::new(Shared { settings, uri, headers, tasks, connection, attempts: AtomicU64::new(0) })))
    }

    /// Sees to it that there is a connection.
    pub(super) fn connect(&self) -> impl Future<Output = Result<(), Failure>> + Send + 'static + use<> {
        let shared = Arc::clone(&self.0);
        async move { shared.connection().await.map(drop) }
    }

    /// Sends one request with these frames.
    pub(super) fn send(&self, frames: Vec<Bytes>) -> impl Future<Output = Sent> + Send + 'static + use<> {
        let shared = Arc::clone(&self.0);
        async move {
            let gzip = shared.settings.gzip;
            let body = match packed(gzip, frames, RequestBody::grpc, RequestBody::grpc_gzip).await {
                Ok(body) => body,
                Err(failed) => return failed,
            };
            let bytes = body.bytes();
            let mut used = None;
            let attempt = shared.attempt(body, &mut used);
            let limit = shared.settings.timeout;
            let outcome = timeout(limit, attempt).await.unwrap_or_else(|_elapsed| {
                // A peer that is gone without a word answers nothing on this connection ever again. Other
                // requests on it run to their own end.
                if let Some(connection) = used {
                    connection.retired.store(true, Ordering::Relaxed);
                }
                failed(format!("no answer within {} ms", limit.as_millis()))
            });
            Sent { outcome, bytes }
        }
    }
}

impl Shared {
    async fn attempt(&self, body: RequestBody, used: &mut Option<Arc<Connection>>) -> Outcome {
        let mut again = true;
        loop {
            let connection = match self.connection().await {
                Ok(connection) => connection,
                Err(failure) => return Outcome::Failed(failure),
            };
            *used = Some(Arc::clone(&connection));
            let mut sender = connection.sender.clone();
            match sender.try_send_request(self.request(body.clone())).await {
                Ok(response) => return answer::read(response).await,
                // The connection was on its way down (a GOAWAY for its age, say) and nothing was sent.
                Err(error) if again && error.message().is_some() => {
                    again = false;
                    connection.retired.store(true, Ordering::Relaxed);
                }
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
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// The connection, made anew if there is none. Those who wait for an attempt share its failure.
    async fn connection(&self) -> Result<Arc<Connection>, Failure> {
        let seen = self.attempts.load(Ordering::Relaxed);
        let mut link = self.connection.lock().await;
        if let Some(connection) = link.connection.as_ref().filter(|connection| connection.is_usable()) {
            return Ok(Arc::clone(connection));
        }
        link.connection = None;
        if let Some(failure) = link.failure.as_ref().filter(|_| self.attempts.load(Ordering::Relaxed) > seen)
        {
            return Err(failure.clone());
        }
        let made = connect(&self.settings, |stream, fault| self.handshake(stream, fault)).await;
        self.attempts.fetch_add(1, Ordering::Relaxed);
        match made {
            Ok(connection) => {
                link.failure = None;
                Ok(Arc::clone(link.connection.insert(Arc::new(connection))))
            }
            Err(failure) => Err(link.failure.insert(failure).clone()),
        }
    }

    async fn handshake(&self, stream: Box<dyn Stream>, fault: Fault) -> Result<Connection, String> {
        let executor = Executor::new(&self.tasks);
        let (sender, driver) = Builder::new(executor.clone())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(FRAME_MAX)
            .max_header_list_size(HEADERS_MAX)
            .max_send_buf_size(SEND_BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| chain(&error))?;
        executor.run(async move {
            // Each request learns by itself what happened to its connection.
            let _ended = driver.await;
        });
        Ok(Connection { sender, fault, end: executor.end, retired: false.into() })
    }
}

/// `grpc-timeout`: at most eight digits and a unit.
fn grpc_timeout(timeout: Duration) -> String {
    match timeout.as_millis() {
        millis @ 0..100_000_000 => format!("{millis}m"),
        _ => format!("{}S", timeout.as_secs().min(99_999_999)),
    }
}

#[cfg(test)]
mod tests;
