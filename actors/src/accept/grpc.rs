//! OTLP/gRPC: `TraceService/Export`, on the bytes as they came.
//!
//! What a request passes, in this order: [its head](GrpcService::admit), [its body](super::body), the
//! scan, the collector. Each can refuse it; its entry in the door's ledger goes along.

use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tonic::Status;

use super::{
    Accepted, Admission, Admitted, Buffers, Door, DoorLedger, Http2Settings, Refusal, RequestLimits, Stop,
    Unanswered,
    body::{AdmittedBody, Packing},
    http2,
    reply::Reply,
};
use crate::{
    collect::SpansCompleted,
    log::{Append, RejectReason, SpanLedger},
    measure::{Bounds, RedDelta, RedScratch},
    span::{ScanError, scan},
    supervise::{Recipient, TrySendError},
};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const GRPC_ENCODING: &str = "grpc-encoding";
const GRPC_ACCEPT_ENCODING: &str = "grpc-accept-encoding";
const ENCODINGS: HeaderValue = HeaderValue::from_static("identity,gzip");
/// Scratches kept between requests; one a thread is in use at a time.
const SCRATCHES_KEPT: usize = 16;
/// What is echoed of a sender's text, in characters.
const ECHOED: usize = 64;

/// What the connections of a gRPC door share.
#[derive(Debug)]
pub struct GrpcDoor {
    /// Settings of its connections.
    pub http2: Http2Settings,
    /// Limits on each request.
    pub limits: RequestLimits,
    /// How long a batch may wait for a place in the collector's inbox (`ingest.commit_timeout`, 5 s).
    pub commit_timeout: Duration,
    /// Bytes in flight, of all doors.
    pub admission: Admission,
    /// Requests of this door.
    pub ledger: Arc<DoorLedger>,
    /// Spans of all doors.
    pub spans: Arc<SpanLedger>,
    /// Who commits.
    pub collector: Recipient<SpansCompleted>,
    /// For the RED deltas.
    pub scratches: Scratches,
    /// For the messages.
    pub buffers: Buffers,
}

/// Scratches for the RED deltas of batches.
pub struct Scratches {
    bounds: Arc<Bounds>,
    free: Mutex<Vec<RedScratch>>,
}

impl Scratches {
    /// Scratches for histograms with these bounds.
    pub fn new(bounds: Arc<Bounds>) -> Self {
        Self { bounds, free: Mutex::new(Vec::with_capacity(SCRATCHES_KEPT)) }
    }

    /// Scans a request: its number of spans and what they add. A scratch that a panic leaves half-way is
    /// not used again.
    pub(crate) fn scan(&self, bytes: &[u8]) -> Result<(u32, RedDelta), ScanError> {
        let free = self.free.lock().pop();
        let mut scratch = free.unwrap_or_else(|| RedScratch::new(Arc::clone(&self.bounds)));
        let scanned = scan(bytes, |span| scratch.observe(span));
        let result = match scanned {
            Ok(scanned) => Ok((scanned.spans, scratch.take())),
            Err(error) => {
                scratch.discard();
                Err(error)
            }
        };
        let mut free = self.free.lock();
        if free.len() < SCRATCHES_KEPT {
            free.push(scratch);
        }
        result
    }
}

impl std::fmt::Debug for Scratches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratches").finish_non_exhaustive()
    }
}

impl Door for GrpcDoor {
    fn serve(self: Arc<Self>, socket: Accepted, stop: Stop) -> LocalBoxFuture<'static, ()> {
        Box::pin(async move {
            let (http2, unanswered) = (self.http2, Unanswered::default());
            let service = GrpcService::new(self, unanswered.clone());
            match socket.into_socket() {
                Ok(socket) => http2::serve(socket, http2, service, unanswered, stop).await,
                Err(error) => tracing::debug!(%error, "connection closed before it was set up"),
            }
        })
    }
}

impl GrpcDoor {
    /// A message that is whole and admitted, until it is kept or refused.
    async fn export(&self, bytes: Bytes, admitted: Admitted) -> Result<(), Refusal> {
        let (spans, red) = match self.scratches.scan(&bytes) {
            Ok(scanned) => scanned,
            Err(error) => {
                let refusal = Refusal::from(error);
                admitted.arrival.refuse(refusal.reason());
                return Err(refusal);
            }
        };
        if spans == 0 {
            admitted.arrival.accept();
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        let pending = self.spans.scanned(spans).and_tell(Box::new(admitted));
        let batch = SpansCompleted { append: Append { bytes, pending, reply }, red };
        // From here on the batch's own entries say what became of the request, whoever still listens.
        match self.collector.send_within(batch, self.commit_timeout).await {
            Ok(()) => answer.await.map_err(|_dropped| Refusal::Lost)?.map(drop).map_err(Refusal::from),
            Err(TrySendError::Full(batch)) => {
                batch.append.pending.reject(RejectReason::Overloaded);
                Err(Refusal::Overloaded(self.commit_timeout))
            }
            Err(TrySendError::Closed(batch)) => {
                batch.append.pending.reject(RejectReason::ShuttingDown);
                Err(Refusal::ShuttingDown)
            }
        }
    }
}

/// A gRPC door as one connection sees it.
#[derive(Debug, Clone)]
pub(crate) struct GrpcService {
    door: Arc<GrpcDoor>,
    unanswered: Unanswered,
}

impl GrpcService {
    pub(crate) fn new(door: Arc<GrpcDoor>, unanswered: Unanswered) -> Self {
        Self { door, unanswered }
    }

    /// What can be told from a request's head.
    fn admit<B>(request: &http::Request<B>) -> Result<Packing, Refusal> {
        let path = request.uri().path();
        if request.method() != Method::POST || path != EXPORT {
            let (method, path) = (request.method(), echo(path));
            return Err(Refusal::Unsupported(format!(
                "{method} {path} is not served here: POST {EXPORT} is"
            )));
        }
        let text = |name: &str| header(request.headers(), name);
        let kind = text(CONTENT_TYPE.as_str());
        if !kind.starts_with("application/grpc") || kind.starts_with("application/grpc-web") {
            return Err(Refusal::ContentType(echo(kind).to_owned()));
        }
        match text(GRPC_ENCODING) {
            "" | "identity" => Ok(Packing::Identity),
            "gzip" => Ok(Packing::Gzip),
            other => {
                let other = echo(other);
                Err(Refusal::Unsupported(format!("grpc-encoding {other:?} is neither identity nor gzip")))
            }
        }
    }

    async fn answer(self, request: http::Request<Incoming>) -> http::Response<Reply> {
        let door = &*self.door;
        let arrival = door.ledger.received(&self.unanswered);
        let packing = match Self::admit(&request) {
            Ok(packing) => packing,
            Err(refusal) => {
                arrival.refuse(refusal.reason());
                return refused(refusal);
            }
        };
        let body = AdmittedBody::new(
            request.into_body(),
            arrival,
            packing,
            &door.admission,
            door.limits,
            &door.buffers,
        );
        let exported = match body.message().await {
            Ok((message, admitted)) => door.export(message, admitted).await,
            Err(refusal) => Err(refusal),
        };
        exported.map_or_else(refused, |()| Reply::success())
    }
}

impl hyper::service::Service<http::Request<Incoming>> for GrpcService {
    type Response = http::Response<Reply>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(service.answer(request).await) })
    }
}

fn refused(refusal: Refusal) -> http::Response<Reply> {
    let not_grpc = matches!(refusal, Refusal::ContentType(_));
    let mut response = Status::from(refusal).into_http();
    if not_grpc {
        // The gRPC specification's answer to whoever may not know gRPC's.
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    }
    response.headers_mut().insert(GRPC_ACCEPT_ENCODING, ENCODINGS);
    response
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap_or("(not ascii)"))
}

/// The first characters of what a stranger sent.
fn echo(text: &str) -> &str {
    text.char_indices().nth(ECHOED).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

#[cfg(test)]
mod tests;
