//! The counting sink: an OTLP/gRPC destination on plain HTTP/2 that judges every span and answers, on one thread,
//! with as little CPU as it can, since it shares the machine with what is measured.

use std::convert::Infallible;
use std::io::Read as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::grpc::{self, INVALID_ARGUMENT, MESSAGE_MAX, OK, RESOURCE_EXHAUSTED, UNIMPLEMENTED};
use crate::tally::Tally;

/// Buffers kept for the next request.
const SPARE_BUFFERS_MAX: usize = 16;

/// How the sink misbehaves, for fault runs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Each answer waits so long.
    pub(crate) delay: Duration,
    /// The status that requests are refused with; 0 answers in earnest.
    pub(crate) status: u32,
    /// How many requests are refused with `status`, counted from the first; 0: all.
    pub(crate) status_first: u64,
    /// The sink dies at this request, uncounted and unanswered; 0: never.
    pub(crate) exit_at: u64,
}

/// What the sink's connections share.
#[derive(Debug)]
struct Shared {
    tally: Arc<Mutex<Tally>>,
    faults: Faults,
    expected: u64,
    spare: Mutex<Vec<Vec<u8>>>,
    died: mpsc::Sender<()>,
}

impl Shared {
    fn buffer(&self) -> Vec<u8> {
        let mut buffer = lock(&self.spare).pop().unwrap_or_default();
        buffer.clear();
        buffer
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut spare = lock(&self.spare);
        if spare.len() < SPARE_BUFFERS_MAX {
            spare.push(buffer);
        }
    }
}

/// Serves `listener` until a fault kills the sink, or for ever: the caller drops it. `expected` is what the report
/// at `GET /report` compares with.
pub(crate) async fn serve(listener: TcpListener, tally: Arc<Mutex<Tally>>, faults: Faults, expected: u64) {
    let (died, mut death) = mpsc::channel(1);
    let shared = Arc::new(Shared { tally, faults, expected, spare: Mutex::default(), died });
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = death.recv() => return,
        };
        let Ok((stream, _)) = accepted else { continue };
        let _ = stream.set_nodelay(true);
        let shared = shared.clone();
        crate::detach(async move {
            let service = service_fn(move |request| answer(shared.clone(), request));
            // A connection that ends badly shows as missing spans or as the measured program's retries.
            let _ = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Reply>, Infallible> {
    if request.method() == Method::GET && request.uri().path() == "/report" {
        let report = lock(&shared.tally).report(shared.expected);
        return Ok(Response::new(Reply::json(serde_json::to_vec(&report).unwrap_or_default())));
    }
    if request.uri().path() != grpc::EXPORT_PATH {
        return Ok(reply(UNIMPLEMENTED));
    }
    let mut buffer = shared.buffer();
    let status = match collect(request.into_body(), &mut buffer).await {
        Ok(()) => judge(&shared, &buffer).await,
        Err(status) => {
            lock(&shared.tally).refuse();
            status
        }
    };
    shared.give_back(buffer);
    if !shared.faults.delay.is_zero() {
        tokio::time::sleep(shared.faults.delay).await;
    }
    Ok(reply(status))
}

async fn judge(shared: &Shared, framed: &[u8]) -> u32 {
    let faults = shared.faults;
    let seen = lock(&shared.tally).requests_seen() + 1;
    if faults.exit_at != 0 && seen >= faults.exit_at {
        let _ = shared.died.try_send(());
        std::future::pending::<()>().await;
    }
    if faults.status != OK && (faults.status_first == 0 || seen <= faults.status_first) {
        lock(&shared.tally).refuse();
        return faults.status;
    }
    let mut tally = lock(&shared.tally);
    let taken = grpc::unframe(framed).and_then(|(message, compressed)| {
        if !compressed {
            return Ok(tally.take(message));
        }
        let mut plain = shared.buffer();
        let unpacked = unpack(message, &mut plain).map(|()| {
            tally.unpacked();
            tally.take(&plain)
        });
        shared.give_back(plain);
        unpacked
    });
    match taken {
        Ok(judged) => judged.map_or(INVALID_ARGUMENT, |()| OK),
        Err(status) => {
            tally.refuse();
            status
        }
    }
}

// A measured program may insist on gzip: Rotel cannot be kept from it.
fn unpack(packed: &[u8], plain: &mut Vec<u8>) -> Result<(), u32> {
    let limit = MESSAGE_MAX as u64;
    let read = GzDecoder::new(packed).take(limit).read_to_end(plain).map_err(|_| UNIMPLEMENTED)?;
    if read < MESSAGE_MAX { Ok(()) } else { Err(RESOURCE_EXHAUSTED) }
}

async fn collect(mut body: Incoming, buffer: &mut Vec<u8>) -> Result<(), u32> {
    while let Some(frame) = body.frame().await {
        // The sender went away: whatever is answered reaches nobody.
        let frame = frame.map_err(|_| INVALID_ARGUMENT)?;
        if let Some(data) = frame.data_ref() {
            if buffer.len() + data.len() > MESSAGE_MAX {
                return Err(RESOURCE_EXHAUSTED);
            }
            buffer.extend_from_slice(data);
        }
    }
    Ok(())
}

fn reply(status: u32) -> Response<Reply> {
    let mut response = Response::new(Reply::grpc(status));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// An answer: an empty `ExportTraceServiceResponse` and its status as trailers, or a JSON page.
#[derive(Debug)]
struct Reply {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Reply {
    fn grpc(status: u32) -> Self {
        let mut trailers = HeaderMap::with_capacity(2);
        trailers.insert(grpc::STATUS, HeaderValue::from(status));
        let data = (status == OK).then(|| Bytes::from_static(&[0; grpc::PREFIX_LEN]));
        Self { data, trailers: Some(trailers) }
    }

    fn json(page: Vec<u8>) -> Self {
        Self { data: Some(page.into()), trailers: None }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match self.data.take() {
            Some(data) => Some(Frame::data(data)),
            None => self.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }
}

/// The lock of something whose holder cannot leave it half changed in a way that matters to a count.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Binds the sink's address.
///
/// # Errors
/// In words, with the address.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|why| format!("cannot listen on {address}: {why}"))
}
