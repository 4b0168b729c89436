//! OTLP/HTTP: `POST /v1/traces`, in protobuf and JSON, over HTTP/1.1 and HTTP/2.
//!
//! What a request passes, in this order: the gate, [its head](Head::of), [its body](super::body), the scan, the collector. Each
//! can refuse it; its entry in the door's ledger goes along.

mod answer;

use std::{cell::Cell, convert::Infallible, future::Future, pin::Pin, rc::Rc, sync::Arc};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::{
    HeaderMap, Method, Request, Response, Version,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;

use self::answer::Encoding;
use super::{
    Accepted, Admitted, Arrival, Door, DoorTls, Http1Settings, Http2Settings, Intake, Refusal, Stop,
    Unanswered,
    body::Packing,
    echo,
    greet::{Speaks, greet},
    header, http1, http2,
    response::Taken,
    traced::RequestSpan,
};

use crate::span::from_json;

const TRACES: &str = "/v1/traces";
/// The name of a span about a request there.
const POST_TRACES: &str = "POST /v1/traces";

/// What the connections of an HTTP door share.
#[derive(Debug)]
pub struct HttpDoor {
    /// Settings of its HTTP/1 connections.
    pub http1: Http1Settings,
    /// Settings of its HTTP/2 connections.
    pub http2: Http2Settings,
    /// Its TLS.
    pub tls: Arc<DoorTls>,
    /// What it shares with other doors.
    pub intake: Intake,
}

impl Door for HttpDoor {
    fn serve(self: Arc<Self>, socket: Accepted, stop: Stop) -> LocalBoxFuture<'static, ()> {
        Box::pin(self.connection(socket, stop))
    }
}

impl HttpDoor {
    async fn connection(self: Arc<Self>, accepted: Accepted, mut stop: Stop) {
        let greeted = greet(accepted, &self.tls, self.http1.head_timeout, &mut stop).await;
        let Some((socket, speaks)) = greeted else { return };
        let (http1, http2, unanswered) = (self.http1, self.http2, Unanswered::default());
        let (unread, bytes_max) = (Rc::new(Cell::new(false)), self.intake.limits.max_request_bytes);
        let service = HttpService { door: self, unanswered: unanswered.clone(), unread: Rc::clone(&unread) };
        match speaks {
            Speaks::Http2 => http2::serve(socket, http2, service, unanswered, stop).await,
            Speaks::Http1 => {
                http1::serve(socket, http1, service, unanswered, (unread, bytes_max), stop).await;
            }
        }
    }
}

/// An HTTP door as one connection sees it.
#[derive(Debug, Clone)]
struct HttpService {
    door: Arc<HttpDoor>,
    unanswered: Unanswered,
    /// Set where a request is answered before it was read.
    unread: Rc<Cell<bool>>,
}

/// What a request's head says of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    encoding: Encoding,
    packing: Packing,
}

impl Head {
    fn of<B>(request: &Request<B>) -> Result<Self, Refusal> {
        let path = request.uri().path();
        if path != TRACES {
            return Err(Refusal::NotFound(echo(path).to_owned()));
        }
        if request.method() != Method::POST {
            return Err(Refusal::Method(echo(request.method().as_str()).to_owned()));
        }
        let headers = request.headers();
        let Some(encoding) = Encoding::of(headers) else {
            return Err(Refusal::MediaType(echo(header(headers, CONTENT_TYPE.as_str())).to_owned()));
        };
        Ok(Self { encoding, packing: packing(headers)? })
    }
}

fn packing(headers: &HeaderMap) -> Result<Packing, Refusal> {
    let several = headers.get_all(CONTENT_ENCODING).iter().nth(1).is_some();
    match header(headers, CONTENT_ENCODING.as_str()).trim() {
        "" => Ok(Packing::Identity),
        other if several => Err(Refusal::ContentEncoding(format!("{}, …", echo(other)))),
        one if one.eq_ignore_ascii_case("identity") => Ok(Packing::Identity),
        one if one.eq_ignore_ascii_case("gzip") || one.eq_ignore_ascii_case("x-gzip") => Ok(Packing::Gzip),
        other => Err(Refusal::ContentEncoding(echo(other).to_owned())),
    }
}

/// The message that a text in JSON is, charged for its own length.
fn converted(text: Bytes, mut admitted: Admitted) -> Result<(Bytes, Admitted), Refusal> {
    let room = text.len() + text.len() / 8;
    let mut message = Vec::new();
    let converted = admitted.charged.grow(room).map_err(Refusal::from).and_then(|()| {
        message.reserve_exact(room);
        from_json(&text, &mut message).map_err(Refusal::from)
    });
    if let Err(refusal) = converted {
        admitted.arrival.refuse(refusal.reason());
        return Err(refusal);
    }
    drop(text);
    message.shrink_to_fit();
    admitted.charged.shrink_to(message.len());
    Ok((message.into(), admitted))
}

impl HttpService {
    async fn answer(self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let arrival = self.door.intake.ledger.received(&self.unanswered);
        let tracer = &self.door.intake.tracer;
        let is_tls = || self.door.tls.config().is_some();
        let mut span = RequestSpan::http(tracer, &request, (POST_TRACES, TRACES), is_tls, &self.unanswered);
        let encoding = Encoding::of(request.headers());
        let head = self.door.intake.let_in(request.headers()).and_then(|()| Head::of(&request));
        let taken = match head {
            Ok(head) => self.take(request, head, arrival, &mut span).await,
            Err(refusal) => {
                arrival.refuse(refusal.reason());
                Err(refusal)
            }
        };
        let response = match &taken {
            Ok(taken) => answer::success(taken, encoding),
            Err(refusal) => {
                self.unread.set(true);
                answer::refused(refusal, encoding)
            }
        };
        span.answered_http(response.status(), taken.as_ref());
        response
    }

    async fn take(
        &self,
        request: Request<Incoming>,
        head: Head,
        arrival: Arrival,
        span: &mut RequestSpan,
    ) -> Result<Taken, Refusal> {
        let intake = &self.door.intake;
        let is_http1 = request.version() < Version::HTTP_2;
        let body = request.into_body();
        let declared = body.size_hint().exact();
        let body = intake.body(body, arrival, head.packing);
        let body = if is_http1 { body.over_http1() } else { body };
        let (message, admitted) = match head.encoding {
            Encoding::Protobuf => body.whole(declared).await?,
            Encoding::Json => {
                let (text, admitted) = body.with_room_to_convert().whole(declared).await?;
                converted(text, admitted)?
            }
        };
        span.message(message.len());
        intake.take(message, admitted, span.origin()).await
    }
}

impl hyper::service::Service<Request<Incoming>> for HttpService {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(service.answer(request).await) })
    }
}

#[cfg(test)]
pub(super) mod tests;
