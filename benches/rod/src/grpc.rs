//! gRPC by hand: the frame around a message, the statuses, and a client for one connection.
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>)

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, TE, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::wire::{Fields, Value};

pub(crate) const EXPORT_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
pub(crate) const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// A flag byte, then the message's length in four bytes, big end first.
pub(crate) const PREFIX_LEN: usize = 5;
/// The largest request that the sink takes, with its prefix.
pub(crate) const MESSAGE_MAX: usize = 64 * 1024 * 1024;

pub(crate) const OK: u32 = 0;
pub(crate) const UNKNOWN: u32 = 2;
pub(crate) const INVALID_ARGUMENT: u32 = 3;
pub(crate) const RESOURCE_EXHAUSTED: u32 = 8;
pub(crate) const UNIMPLEMENTED: u32 = 12;
pub(crate) const UNAVAILABLE: u32 = 14;

/// Fills in the prefix of a message that starts `PREFIX_LEN` bytes into `framed`.
pub(crate) fn put_prefix(framed: &mut [u8]) {
    let len = framed.len().saturating_sub(PREFIX_LEN) as u32;
    if let Some((prefix, _)) = framed.split_first_chunk_mut::<PREFIX_LEN>() {
        let [flag, length @ ..] = prefix;
        *flag = 0;
        *length = len.to_be_bytes();
    }
}

/// The one message of a unary body and whether it is compressed, or the status that refuses it.
pub(crate) fn unframe(framed: &[u8]) -> Result<(&[u8], bool), u32> {
    let Some(([flag, length @ ..], message)) = framed.split_first_chunk::<PREFIX_LEN>() else {
        return Err(INVALID_ARGUMENT);
    };
    match flag {
        0 | 1 if u32::from_be_bytes(*length) as usize == message.len() => Ok((message, *flag == 1)),
        _ => Err(INVALID_ARGUMENT),
    }
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Success, with the number of spans that the server says it rejected.
    Accepted { rejected: u64 },
    /// A status that the server sent.
    Status { code: u32, message: String },
    /// No status: connect, reset, timeout. What became of the request is not known.
    Unanswered(String),
}

impl Outcome {
    /// That of an exchange which may take so long at most.
    pub(crate) async fn within(
        limit: Duration,
        exchange: impl Future<Output = Result<Self, String>>,
    ) -> Self {
        match tokio::time::timeout(limit, exchange).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(why)) => Self::Unanswered(why),
            Err(_) => Self::Unanswered(format!("no answer within {} ms", limit.as_millis())),
        }
    }
}

/// One HTTP/2 connection to `address`.
///
/// # Errors
/// In words.
pub(crate) async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(address).await.map_err(|why| format!("connect to {address}: {why}"))?;
    let _ = stream.set_nodelay(true);
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|why| format!("handshake with {address}: {why}"))?;
    // Its end shows at the calls that it carries.
    crate::detach(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// Sends one framed request and waits at most `limit` for its answer.
pub(crate) async fn call(
    sender: &mut SendRequest<Full<Bytes>>,
    address: SocketAddr,
    framed: Bytes,
    limit: Duration,
) -> Outcome {
    Outcome::within(limit, exchange(sender, address, framed)).await
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    address: SocketAddr,
    framed: Bytes,
) -> Result<Outcome, String> {
    sender.ready().await.map_err(|why| why.to_string())?;
    let request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(format!("http://{address}{EXPORT_PATH}"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, concat!("nyx-rod/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(framed))
        .map_err(|why| why.to_string())?;
    let (head, mut body) = sender.send_request(request).await.map_err(|why| why.to_string())?.into_parts();
    let mut message = Vec::new();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        match frame.map_err(|why| why.to_string())?.into_data() {
            Ok(data) if message.len() + data.len() <= MESSAGE_MAX => message.extend_from_slice(&data),
            Ok(_) => return Err("answer without an end".to_owned()),
            Err(other) => trailers = other.into_trailers().ok(),
        }
    }
    if head.status != StatusCode::OK {
        let code = match head.status.as_u16() {
            429 | 502 | 503 | 504 => UNAVAILABLE,
            _ => UNKNOWN,
        };
        return Ok(Outcome::Status { code, message: format!("http status {}", head.status) });
    }
    let status = trailers.as_ref().and_then(status).or_else(|| status(&head.headers));
    match status.ok_or("an answer without grpc-status")? {
        (OK, _) => Ok(Outcome::Accepted { rejected: rejected(unframe(&message).unwrap_or_default().0) }),
        (code, message) => Ok(Outcome::Status { code, message }),
    }
}

fn status(headers: &HeaderMap) -> Option<(u32, String)> {
    let code = headers.get(STATUS)?.to_str().ok()?.parse().ok()?;
    let message = headers.get("grpc-message").and_then(|text| text.to_str().ok()).unwrap_or_default();
    Some((code, message.chars().take(200).collect()))
}

/// `partial_success.rejected_spans` of an `ExportTraceServiceResponse`.
pub(crate) fn rejected(response: &[u8]) -> u64 {
    let partial = Fields::new(response).find_map(|field| match field {
        Ok((1, Value::Bytes(partial))) => Some(partial),
        _ => None,
    });
    let count = Fields::new(partial.unwrap_or_default()).find_map(|field| match field {
        Ok((1, Value::Varint(count))) => Some(count),
        _ => None,
    });
    count.unwrap_or_default()
}
