//! OTLP over HTTP/1.1 by hand: a client for one connection, which carries one request at a time
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>).

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::grpc::{self, MESSAGE_MAX, Outcome, UNAVAILABLE, UNKNOWN};
use crate::protocol::Encoding;

const PATH: &str = "/v1/traces";

/// One connection to `address`.
///
/// # Errors
/// In words.
pub(crate) async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(address).await.map_err(|why| format!("connect to {address}: {why}"))?;
    let _ = stream.set_nodelay(true);
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|why| format!("handshake with {address}: {why}"))?;
    // Its end shows at the calls that it carries.
    crate::detach(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// Sends one request and waits at most `limit` for its answer.
pub(crate) async fn call(
    sender: &mut SendRequest<Full<Bytes>>,
    address: SocketAddr,
    encoding: Encoding,
    body: Bytes,
    limit: Duration,
) -> Outcome {
    Outcome::within(limit, exchange(sender, address, encoding, body)).await
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    address: SocketAddr,
    encoding: Encoding,
    body: Bytes,
) -> Result<Outcome, String> {
    sender.ready().await.map_err(|why| why.to_string())?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(PATH)
        .header(HOST, address.to_string())
        .header(CONTENT_TYPE, encoding.media_type())
        .header(USER_AGENT, concat!("nyx-rod/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body))
        .map_err(|why| why.to_string())?;
    let (head, body) = sender.send_request(request).await.map_err(|why| why.to_string())?.into_parts();
    let answer = Limited::new(body, MESSAGE_MAX).collect().await.map_err(|why| why.to_string())?.to_bytes();
    Ok(match head.status {
        StatusCode::OK => Outcome::Accepted { rejected: rejected(encoding, &answer)? },
        status => {
            // As gRPC would say it, so that one report serves both.
            let code = match status.as_u16() {
                429 | 502 | 503 | 504 => UNAVAILABLE,
                _ => UNKNOWN,
            };
            let words: String = String::from_utf8_lossy(&answer).chars().take(200).collect();
            Outcome::Status { code, message: format!("http status {status}: {words}") }
        }
    })
}

/// The rejected spans that an `ExportTraceServiceResponse` tells of.
fn rejected(encoding: Encoding, answer: &[u8]) -> Result<u64, String> {
    match encoding {
        Encoding::Protobuf => Ok(grpc::rejected(answer)),
        Encoding::Json => {
            let answer: serde_json::Value =
                serde_json::from_slice(answer).map_err(|why| format!("an answer that is no JSON: {why}"))?;
            // A 64-bit number is a string in protobuf's JSON; a number is accepted, too.
            let count = answer.pointer("/partialSuccess/rejectedSpans");
            let count = count.and_then(|count| count.as_u64().or_else(|| count.as_str()?.parse().ok()));
            Ok(count.unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{put_bytes, put_uint};

    #[test]
    fn rejected_spans_are_read_in_both_encodings() {
        let (mut partial, mut answer) = (Vec::new(), Vec::new());
        put_uint(&mut partial, 1, 7);
        put_bytes(&mut answer, 1, &partial);
        assert_eq!(rejected(Encoding::Protobuf, &answer), Ok(7));
        assert_eq!(rejected(Encoding::Protobuf, b""), Ok(0));
        for text in
            [r#"{"partialSuccess":{"rejectedSpans":"7"}}"#, r#"{"partialSuccess":{"rejectedSpans":7}}"#]
        {
            assert_eq!(rejected(Encoding::Json, text.as_bytes()), Ok(7));
        }
        assert_eq!(rejected(Encoding::Json, b"{}"), Ok(0));
        assert!(rejected(Encoding::Json, b"").is_err());
    }
}
