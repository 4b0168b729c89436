//! The scripted destination's side of the wire.

use std::{sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

use super::{Greeting, Received, Reply, Shared, http1};

pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

#[allow(clippy::disallowed_methods, reason = "a test's server: its thread ends with the ScriptedDestination")]
fn spawn(future: impl Future<Output = ()> + 'static) {
    tokio::task::spawn_local(future);
}

pub(super) async fn accept(listener: Listener, tls: Option<Arc<ServerConfig>>, shared: Arc<Shared>) {
    loop {
        let shared = Arc::clone(&shared);
        match &listener {
            Listener::Tcp(listener) => {
                let Ok((stream, _)) = listener.accept().await else { continue };
                match tls.clone() {
                    None => spawn(greet(stream, shared)),
                    Some(config) => spawn(async move {
                        // The peer's view of a handshake that fails is what counts.
                        if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                            greet(stream, shared).await;
                        }
                    }),
                }
            }
            Listener::Unix(listener) => {
                let Ok((stream, _)) = listener.accept().await else { continue };
                spawn(greet(stream, shared));
            }
        }
    }
}

async fn greet<S: AsyncRead + AsyncWrite + Unpin + 'static>(mut stream: S, shared: Arc<Shared>) {
    let greeting = {
        let mut script = shared.script.lock();
        script.connections += 1;
        script.greeting
    };
    shared.changed.send_modify(|count| *count += 1);
    // The peer's view of a broken connection is what counts.
    match greeting {
        Greeting::Otlp => otlp(stream, shared).await,
        Greeting::Http1 => {
            let _gone = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        }
        Greeting::Http2 => drop(serve(stream, shared).await),
        Greeting::Garbage => drop(stream.write_all(&[0x5a; 4096]).await),
        Greeting::Close => {}
        Greeting::Silence => std::future::pending().await,
    }
}

/// HTTP/2 begins with a word of its own.
async fn otlp<S: AsyncRead + AsyncWrite + Unpin + 'static>(mut stream: S, shared: Arc<Shared>) {
    let mut beginning = [0; 3];
    if stream.read_exact(&mut beginning).await.is_err() {
        return;
    }
    let is_http2 = &beginning == b"PRI";
    let (read, write) = tokio::io::split(stream);
    let stream = tokio::io::join(std::io::Cursor::new(beginning).chain(read), write);
    if is_http2 {
        drop(serve(stream, shared).await);
    } else {
        drop(http1::serve(stream, shared).await);
    }
}

/// What the next request gets, if the script says.
pub(super) fn begun(shared: &Shared) -> Option<Reply> {
    let mut script = shared.script.lock();
    script.started += 1;
    script.replies.pop_front()
}

/// Keeps what arrived, and says what becomes of it once that is due.
pub(super) async fn judged(
    scripted: Option<Reply>,
    headers: HeaderMap,
    message: Bytes,
    shared: &Shared,
) -> Reply {
    let mut received = Received { headers, message, reply: Reply::Ok };
    let reply = match scripted {
        Some(reply) => reply,
        None => shared.script.lock().judge.as_ref().map_or(Reply::Ok, |judge| judge(&received)),
    };
    received.reply = reply.clone();
    // Kept before the answer is due, so that a test can wait for it.
    shared.script.lock().received.push(received);
    shared.changed.send_modify(|count| *count += 1);
    if reply == Reply::Late {
        let mut released = shared.released.subscribe();
        let _released = released.wait_for(|count| *count > 0).await;
    }
    reply
}

/// Whether a request with this reply is not read to its end.
pub(super) fn is_cut(scripted: Option<&Reply>) -> bool {
    matches!(scripted, Some(Reply::Reset | Reply::GoAway | Reply::Close | Reply::Early { .. }))
}

/// What a request does to its connection.
enum Blow {
    GoAway,
    GracefulGoAway,
    Close,
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, shared: Arc<Shared>) -> Result<(), h2::Error> {
    let mut connection = h2::server::Builder::new()
        .initial_window_size(8 << 20)
        .initial_connection_window_size(32 << 20)
        .max_frame_size(1 << 20)
        .handshake::<_, Bytes>(stream)
        .await?;
    let (blows, mut blow) = mpsc::channel(16);
    loop {
        tokio::select! {
            request = connection.accept() => {
                let Some(request) = request else { return Ok(()) };
                let (request, respond) = request?;
                let (shared, blows) = (Arc::clone(&shared), blows.clone());
                spawn(async move {
                    // The peer may be gone: its view is what counts.
                    let _gone = handle(request, respond, shared, blows).await;
                });
            }
            Some(blow) = blow.recv() => match blow {
                Blow::GoAway => connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM),
                Blow::GracefulGoAway => connection.graceful_shutdown(),
                Blow::Close => return Ok(()),
            },
        }
    }
}

async fn handle(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: Arc<Shared>,
    blows: mpsc::Sender<Blow>,
) -> Result<(), h2::Error> {
    let scripted = begun(&shared);
    let (head, mut body) = request.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
        if is_cut(scripted.as_ref()) {
            break;
        }
    }
    let message = unpack(&head.headers, &bytes);
    let reply = judged(scripted, head.headers, message, &shared).await;
    let blow = match &reply {
        Reply::GoAway => Some(Blow::GoAway),
        Reply::OkThenGoAway => Some(Blow::GracefulGoAway),
        Reply::Close => Some(Blow::Close),
        _ => None,
    };
    if matches!(reply, Reply::GoAway | Reply::Close) {
        let _closed = blows.send(blow.unwrap_or(Blow::Close)).await;
        return std::future::pending().await;
    }
    answer(&reply, &mut respond).await?;
    if let Some(blow) = blow {
        let _closed = blows.send(blow).await;
    }
    Ok(())
}

async fn answer(reply: &Reply, respond: &mut SendResponse<Bytes>) -> Result<(), h2::Error> {
    let (status, content_type, message, trailers) = match reply {
        Reply::Ok | Reply::OkThenGoAway | Reply::Late => {
            (200, "application/grpc", framed(&ExportTraceServiceResponse::default()), status(0, "", None))
        }
        Reply::Partial { rejected, message } => {
            let partial =
                ExportTracePartialSuccess { rejected_spans: *rejected, error_message: message.clone() };
            let response = ExportTraceServiceResponse { partial_success: Some(partial) };
            (200, "application/grpc", framed(&response), status(0, "", None))
        }
        Reply::Status { code, message, retry_after } => {
            (200, "application/grpc", Bytes::new(), status(*code, message, *retry_after))
        }
        Reply::Http { status, content_type, bytes } => {
            (*status, *content_type, Bytes::from(vec![b'x'; *bytes]), None)
        }
        Reply::Answer { status, body, .. } => (*status, "", body.clone(), None),
        Reply::Early { status } => (*status, "text/plain", Bytes::new(), None),
        Reply::Half => (200, "application/grpc", framed(&ExportTraceServiceResponse::default()), None),
        Reply::Garbage => (200, "application/grpc", Bytes::from_static(&[0xff; 64]), status(0, "", None)),
        Reply::Reset => {
            respond.send_reset(Reason::CANCEL);
            return Ok(());
        }
        Reply::Stall | Reply::GoAway | Reply::Close | Reply::Raw(_) => return std::future::pending().await,
    };
    let mut head = Response::new(());
    *head.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    if !content_type.is_empty() {
        head.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
    }
    if let Reply::Answer { headers, .. } = reply {
        for (name, value) in headers {
            head.headers_mut()
                .extend(HeaderValue::from_str(value).map(|value| (HeaderName::from_static(name), value)));
        }
    }
    match trailers {
        // Trailers only: the status comes with the headers.
        Some(trailers) if message.is_empty() => {
            head.headers_mut().extend(trailers);
            respond.send_response(head, true)?;
        }
        Some(trailers) => {
            let mut body = respond.send_response(head, false)?;
            body.send_data(message, false)?;
            body.send_trailers(trailers)?;
        }
        None => {
            let mut body = respond.send_response(head, false)?;
            body.send_data(message, true)?;
        }
    }
    Ok(())
}

fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.freeze()
}

fn unpack(headers: &HeaderMap, framed: &[u8]) -> Bytes {
    let message = framed.get(5..).unwrap_or_default();
    if headers.get("grpc-encoding").is_none() { Bytes::copy_from_slice(message) } else { unzip(message) }
}

pub(super) fn unzip(packed: &[u8]) -> Bytes {
    use std::io::Read;
    let mut unpacked = vec![];
    // A message that is no gzip arrives empty, and the test sees that.
    let _length = flate2::read::GzDecoder::new(packed).read_to_end(&mut unpacked);
    unpacked.into()
}

fn status(code: u32, message: &str, retry_after: Option<Duration>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", code.into());
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    headers.insert("grpc-message", HeaderValue::from_str(&encoded).ok()?);
    if let Some(delay) = retry_after {
        let details = base64(&retry_info(code, delay));
        headers.insert("grpc-status-details-bin", HeaderValue::from_str(&details).ok()?);
    }
    Some(headers)
}

/// A `google.rpc.Status` with a RetryInfo, written by hand so that it shares nothing with its reader.
fn retry_info(code: u32, delay: Duration) -> Vec<u8> {
    let (mut duration, mut info, mut any) = (vec![0x08], vec![], vec![]);
    varint(delay.as_secs(), &mut duration);
    duration.push(0x10);
    varint(delay.subsec_nanos().into(), &mut duration);
    field(1, &duration, &mut info);
    field(1, b"type.googleapis.com/google.rpc.RetryInfo", &mut any);
    field(2, &info, &mut any);
    let mut status = vec![0x08];
    varint(code.into(), &mut status);
    field(3, &any, &mut status);
    status
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn field(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Base64 without padding, as binary headers are sent.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |value: u32| DIGITS.get(value as usize & 63).copied().map_or('=', char::from);
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let held = chunk.iter().fold(0, |held, byte| held << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        out.extend((0..=chunk.len() as u32).map(|place| digit(held >> (18 - 6 * place))));
    }
    out
}
