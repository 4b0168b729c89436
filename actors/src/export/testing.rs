//! A destination that does as it is told, for tests here and in the whole system.
//!
//! A real HTTP/2 server on loopback with a thread of its own: it counts what it acknowledged, and fails in
//! whichever way the test asks for, down to a reset in the middle of a request.

use std::{
    collections::VecDeque,
    fmt, io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    },
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use parking_lot::Mutex;
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

/// A request with the spans of these numbers, of one resource and scope: number n has the span id n + 1 and a
/// trace id that is spread evenly.
pub fn request(numbers: std::ops::Range<u64>) -> Bytes {
    let value = Some(AnyValue { value: Some(Value::StringValue("scripted".to_owned())) });
    let service = KeyValue { key: "service.name".to_owned(), value, ..KeyValue::default() };
    let spans = numbers.map(|number| Span {
        trace_id: u128::from(number + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
            .to_be_bytes()
            .to_vec(),
        span_id: (number + 1).to_be_bytes().to_vec(),
        name: format!("span {number}"),
        start_time_unix_nano: 1_000_000_000,
        end_time_unix_nano: 1_000_000_000 + number,
        ..Span::default()
    });
    let scope_spans = ScopeSpans { spans: spans.collect(), ..ScopeSpans::default() };
    let resource = Some(Resource { attributes: vec![service], ..Resource::default() });
    let resource_spans =
        ResourceSpans { resource, scope_spans: vec![scope_spans], ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec().into()
}

/// The numbers of a request's spans, as [`request`] numbered them.
pub fn numbers(request: &[u8]) -> Vec<u64> {
    let request = ExportTraceServiceRequest::decode(request).unwrap_or_default();
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    let ids = scopes.flat_map(|scope| scope.spans).map(|span| span.span_id);
    ids.map(|id| id.try_into().map_or(0, u64::from_be_bytes).wrapping_sub(1)).collect()
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Full success.
    Ok,
    /// Success, of which so many spans are not part.
    Partial {
        /// Spans rejected.
        rejected: i64,
        /// Why.
        message: String,
    },
    /// A gRPC status.
    Status {
        /// Its number.
        code: u32,
        /// Its message.
        message: String,
        /// A RetryInfo that goes with it.
        retry_after: Option<Duration>,
    },
    /// An answer that is not gRPC.
    Http {
        /// Its status.
        status: u16,
        /// Its content type.
        content_type: &'static str,
        /// Its body's length.
        bytes: usize,
    },
    /// The stream is reset after the first bytes of the message.
    Reset,
    /// A GOAWAY cuts the request off after the first bytes of the message.
    GoAway,
    /// Full success, and a GOAWAY that lets what is under way finish, as servers do with old connections.
    OkThenGoAway,
    /// The connection is closed after the first bytes of the message.
    Close,
    /// No answer, ever.
    Stall,
    /// Full success once [`ScriptedDestination::release`] was called.
    Late,
    /// Success by its headers, but the stream ends without a status.
    Half,
    /// Success by its status, with a message that is none.
    Garbage,
}

impl Reply {
    /// A gRPC status without RetryInfo.
    pub fn status(code: u32, message: &str) -> Self {
        Self::Status { code, message: message.to_owned(), retry_after: None }
    }
}

/// What a connection meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeting {
    /// HTTP/2.
    Http2,
    /// An answer of HTTP/1.
    Http1,
    /// Bytes that are no protocol at all.
    Garbage,
    /// It is closed at once.
    Close,
    /// Silence.
    Silence,
}

/// A request that arrived whole.
#[derive(Clone)]
pub struct Received {
    /// Its headers.
    pub headers: HeaderMap,
    /// The message, unpacked.
    pub message: Bytes,
    /// What became of it.
    pub reply: Reply,
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received").field("bytes", &self.message.len()).field("reply", &self.reply).finish()
    }
}

impl Received {
    /// The numbers of the message's spans, as [`request`] numbers them.
    pub fn numbers(&self) -> Vec<u64> {
        numbers(&self.message)
    }

    /// True if the sender was told that the destination has it.
    pub fn is_acknowledged(&self) -> bool {
        matches!(
            self.reply,
            Reply::Ok | Reply::Partial { .. } | Reply::OkThenGoAway | Reply::Late | Reply::Garbage
        )
    }
}

type Judge = Box<dyn Fn(&Received) -> Reply + Send>;

struct Script {
    replies: VecDeque<Reply>,
    judge: Option<Judge>,
    greeting: Greeting,
    connections: u64,
    started: u64,
    received: Vec<Received>,
}

struct Shared {
    script: Mutex<Script>,
    changed: watch::Sender<u64>,
    released: watch::Sender<u64>,
}

#[derive(Clone)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// The destination; it ends when this is dropped.
pub struct ScriptedDestination {
    shared: Arc<Shared>,
    address: Address,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl fmt::Debug for ScriptedDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedDestination").field("endpoint", &self.endpoint()).finish_non_exhaustive()
    }
}

impl ScriptedDestination {
    /// A destination on a free port of loopback that acknowledges everything.
    ///
    /// # Errors
    /// Where no socket can be bound.
    pub fn start() -> io::Result<Self> {
        Self::at(Address::Tcp(([127, 0, 0, 1], 0).into()))
    }

    /// The same on a Unix socket.
    ///
    /// # Errors
    /// Where no socket can be bound.
    pub fn start_unix(path: PathBuf) -> io::Result<Self> {
        Self::at(Address::Unix(path))
    }

    fn at(address: Address) -> io::Result<Self> {
        let script = Script {
            replies: VecDeque::new(),
            judge: None,
            greeting: Greeting::Http2,
            connections: 0,
            started: 0,
            received: vec![],
        };
        let shared = Shared {
            script: Mutex::new(script),
            changed: watch::Sender::new(0),
            released: watch::Sender::new(0),
        };
        let mut destination = Self { shared: Arc::new(shared), address, running: None };
        destination.revive()?;
        Ok(destination)
    }

    /// The endpoint, as a destination's configuration takes it.
    pub fn endpoint(&self) -> String {
        match &self.address {
            Address::Tcp(address) => format!("http://{address}"),
            Address::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// Ends every connection and the listening socket.
    pub fn kill(&mut self) {
        if let Some((end, thread)) = self.running.take() {
            end.cancel();
            // A panic of the thread shows as answers that never come.
            let _ended = thread.join();
        }
    }

    /// Listens again, at the same address, after [`kill`](Self::kill).
    ///
    /// # Errors
    /// Where the socket cannot be bound.
    pub fn revive(&mut self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = match &mut self.address {
            Address::Tcp(address) => {
                let listener = StdTcpListener::bind(*address)?;
                *address = listener.local_addr()?;
                listener.set_nonblocking(true)?;
                let _context = runtime.enter();
                Listener::Tcp(TcpListener::from_std(listener)?)
            }
            Address::Unix(path) => {
                // What a killed destination left behind.
                let _absent = std::fs::remove_file(&*path);
                let _context = runtime.enter();
                Listener::Unix(UnixListener::bind(path)?)
            }
        };
        let end = CancellationToken::new();
        let serve = end.clone().run_until_cancelled_owned(accept(listener, Arc::clone(&self.shared)));
        let thread = std::thread::spawn(move || {
            let local = tokio::task::LocalSet::new();
            // Cancelled; dropping the set drops the connections.
            let _ended = runtime.block_on(local.run_until(serve));
        });
        self.running = Some((end, thread));
        Ok(())
    }

    /// The next requests, in the order of their beginning, get these replies.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.shared.script.lock().replies.extend(replies);
    }

    /// Requests beyond the script are judged by this; without it they succeed.
    pub fn judge(&self, judge: impl Fn(&Received) -> Reply + Send + 'static) {
        self.shared.script.lock().judge = Some(Box::new(judge));
    }

    /// What the next connections meet.
    pub fn greet(&self, greeting: Greeting) {
        self.shared.script.lock().greeting = greeting;
    }

    /// Lets every [`Reply::Late`] go out.
    pub fn release(&self) {
        self.shared.released.send_modify(|count| *count += 1);
    }

    /// Everything that arrived whole, in the order of arrival.
    pub fn received(&self) -> Vec<Received> {
        self.shared.script.lock().received.clone()
    }

    /// Numbers of the spans that this destination has acknowledged, in the order of arrival.
    pub fn acknowledged(&self) -> Vec<u64> {
        let received = self.received();
        let acknowledged = received.iter().filter(|request| request.is_acknowledged());
        acknowledged.flat_map(Received::numbers).collect()
    }

    /// Connections made, and requests begun, so far.
    pub fn counts(&self) -> (u64, u64) {
        let script = self.shared.script.lock();
        (script.connections, script.started)
    }

    /// Waits until `reached` holds; it is looked at after each event.
    pub async fn until(&self, mut reached: impl FnMut(&Self) -> bool) {
        let mut changed = self.shared.changed.subscribe();
        while !reached(self) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Drop for ScriptedDestination {
    fn drop(&mut self) {
        self.kill();
        if let Address::Unix(path) = &self.address {
            let _absent = std::fs::remove_file(path);
        }
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

#[allow(clippy::disallowed_methods, reason = "a test's server: its thread ends with the ScriptedDestination")]
fn spawn(future: impl Future<Output = ()> + 'static) {
    tokio::task::spawn_local(future);
}

async fn accept(listener: Listener, shared: Arc<Shared>) {
    loop {
        let shared = Arc::clone(&shared);
        match &listener {
            Listener::Tcp(listener) => {
                let Ok((stream, _)) = listener.accept().await else { continue };
                spawn(greet(stream, shared));
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
        Greeting::Http2 => drop(serve(stream, shared).await),
        Greeting::Http1 => {
            let _gone = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        }
        Greeting::Garbage => drop(stream.write_all(&[0x5a; 4096]).await),
        Greeting::Close => {}
        Greeting::Silence => std::future::pending().await,
    }
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
    let scripted = {
        let mut script = shared.script.lock();
        script.started += 1;
        script.replies.pop_front()
    };
    let (head, mut body) = request.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
        if matches!(scripted, Some(Reply::Reset | Reply::GoAway | Reply::Close)) {
            break;
        }
    }
    let message = unpack(&head.headers, &bytes);
    let mut received = Received { headers: head.headers, message, reply: Reply::Ok };
    let reply = match scripted {
        Some(reply) => reply,
        None => shared.script.lock().judge.as_ref().map_or(Reply::Ok, |judge| judge(&received)),
    };
    received.reply = reply.clone();
    if reply == Reply::Late {
        // Recorded before the answer is due, so that a test can wait for it.
        shared.script.lock().received.push(received);
        shared.changed.send_modify(|count| *count += 1);
        let mut released = shared.released.subscribe();
        let _released = released.wait_for(|count| *count > 0).await;
    } else {
        shared.script.lock().received.push(received);
        shared.changed.send_modify(|count| *count += 1);
    }
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
        Reply::Half => (200, "application/grpc", framed(&ExportTraceServiceResponse::default()), None),
        Reply::Garbage => (200, "application/grpc", Bytes::from_static(&[0xff; 64]), status(0, "", None)),
        Reply::Reset => {
            respond.send_reset(Reason::CANCEL);
            return Ok(());
        }
        Reply::Stall | Reply::GoAway | Reply::Close => return std::future::pending().await,
    };
    let mut head = Response::new(());
    *head.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    head.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
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
    use std::io::Read;
    let message = framed.get(5..).unwrap_or_default();
    if headers.get("grpc-encoding").is_none() {
        return Bytes::copy_from_slice(message);
    }
    let mut unpacked = vec![];
    // A message that is no gzip arrives empty, and the test sees that.
    let _length = flate2::read::GzDecoder::new(message).read_to_end(&mut unpacked);
    unpacked.into()
}

fn status(code: u32, message: &str, retry_after: Option<Duration>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", code.into());
    let encoded: String = message
        .bytes()
        .map(|byte| match byte {
            b' '..=b'~' if byte != b'%' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    headers.insert("grpc-message", HeaderValue::from_str(&encoded).ok()?);
    if let Some(delay) = retry_after {
        let details = base64(&retry_info(code, delay));
        headers.insert("grpc-status-details-bin", HeaderValue::from_str(&details).ok()?);
    }
    Some(headers)
}

/// A `google.rpc.Status` with a RetryInfo, written by hand so that it shares nothing with its reader.
fn retry_info(code: u32, delay: Duration) -> Vec<u8> {
    fn varint(mut value: u64, out: &mut Vec<u8>) {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }
    fn field(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
        out.push(number << 3 | 2);
        varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }
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
