//! OTLP/gRPC: `TraceService/Export`, on the bytes as they came.
//!
//! What a request passes, in this order: the gate and [its head](GrpcService::admit), [its body](super::body), the
//! scan, the collector. Each can refuse it; its entry in the door's ledger goes along.

use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc};

use futures_util::future::LocalBoxFuture;
use http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use hyper::body::Incoming;
use tonic::Status;

use super::{
    Accepted, Door, DoorTls, Http2Settings, Intake, Refusal, Stop, Unanswered, body::Packing, echo, header,
    http2, reply::Reply, status::code, traced::RequestSpan,
};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const GRPC_ENCODING: &str = "grpc-encoding";
const GRPC_ACCEPT_ENCODING: &str = "grpc-accept-encoding";
const ENCODINGS: HeaderValue = HeaderValue::from_static("identity,gzip");
/// What the connections of a gRPC door share.
#[derive(Debug)]
pub struct GrpcDoor {
    /// Settings of its connections.
    pub http2: Http2Settings,
    /// Its TLS.
    pub tls: Arc<DoorTls>,
    /// What it shares with other doors.
    pub intake: Intake,
}

impl Door for GrpcDoor {
    fn serve(self: Arc<Self>, socket: Accepted, stop: Stop) -> LocalBoxFuture<'static, ()> {
        Box::pin(async move {
            let (http2, tls, unanswered) = (self.http2, Arc::clone(&self.tls), Unanswered::default());
            let service = GrpcService::new(self, unanswered.clone());
            http2::greet_and_serve(socket, &tls, http2, service, unanswered, stop).await;
        })
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
    fn admit<B>(&self, request: &http::Request<B>) -> Result<Packing, Refusal> {
        self.door.intake.let_in(request.headers())?;
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
        let door = &self.door.intake;
        let arrival = door.ledger.received(&self.unanswered);
        let mut span = RequestSpan::grpc(&door.tracer, &request, EXPORT, &self.unanswered);
        let packing = match self.admit(&request) {
            Ok(packing) => packing,
            Err(refusal) => {
                arrival.refuse(refusal.reason());
                span.answered_grpc(Err((&refusal, code(&refusal))));
                return refused(refusal);
            }
        };
        let exported = match door.body(request.into_body(), arrival, packing).message().await {
            Ok((message, admitted)) => {
                span.message(message.len());
                door.take(message, admitted, span.origin()).await
            }
            Err(refusal) => Err(refusal),
        };
        span.answered_grpc(exported.as_ref().map_err(|refusal| (refusal, code(refusal))));
        exported.map_or_else(refused, |taken| Reply::success(&taken))
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

#[cfg(test)]
pub(super) mod tests;
