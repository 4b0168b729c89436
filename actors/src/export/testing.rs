//! A destination that does as it is told, for tests here and in the whole system.
//!
//! A real server on loopback with a thread of its own, of OTLP over gRPC to who speaks HTTP/2 and of OTLP over HTTP to
//! who speaks HTTP/1.1: it counts what it acknowledged, and fails in whichever way the test asks for, down to a reset in
//! the middle of a request.

mod http1;
mod server;

use std::{
    collections::VecDeque,
    fmt, io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use parking_lot::Mutex;
use prost::Message;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

#[cfg(test)]
pub(crate) use self::server::base64;
use self::server::{Listener, accept};

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
    /// A gRPC status; over HTTP the status that OTLP has for it.
    Status {
        /// Its number.
        code: u32,
        /// Its message.
        message: String,
        /// A RetryInfo that goes with it.
        retry_after: Option<Duration>,
    },
    /// An HTTP answer, which is none of gRPC.
    Http {
        /// Its status.
        status: u16,
        /// Its content type; empty is none.
        content_type: &'static str,
        /// Its body's length.
        bytes: usize,
    },
    /// An HTTP answer in every detail.
    Answer {
        /// Its status.
        status: u16,
        /// Its headers besides the length.
        headers: Vec<(&'static str, String)>,
        /// Its body.
        body: Bytes,
    },
    /// These bytes, over HTTP/1.1, and the end.
    Raw(Bytes),
    /// An HTTP status after the first bytes of the request; then the connection, or over HTTP/2 the stream, is closed.
    Early {
        /// The status.
        status: u16,
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
    /// OTLP, over HTTP/2 or HTTP/1.1, as the peer begins.
    Otlp,
    /// An answer of HTTP/1, whatever the peer says, and the end.
    Http1,
    /// The beginning of HTTP/2, whatever the peer says.
    Http2,
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
    tls: Option<Arc<ServerConfig>>,
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
        Self::at(Address::Tcp(([127, 0, 0, 1], 0).into()), None)
    }

    /// The same behind TLS.
    ///
    /// # Errors
    /// Where no socket can be bound.
    pub fn start_tls(config: Arc<ServerConfig>) -> io::Result<Self> {
        Self::at(Address::Tcp(([127, 0, 0, 1], 0).into()), Some(config))
    }

    /// The same on a Unix socket.
    ///
    /// # Errors
    /// Where no socket can be bound.
    pub fn start_unix(path: PathBuf) -> io::Result<Self> {
        Self::at(Address::Unix(path), None)
    }

    fn at(address: Address, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let script = Script {
            replies: VecDeque::new(),
            judge: None,
            greeting: Greeting::Otlp,
            connections: 0,
            started: 0,
            received: vec![],
        };
        let shared = Shared {
            script: Mutex::new(script),
            changed: watch::Sender::new(0),
            released: watch::Sender::new(0),
        };
        let mut destination = Self { shared: Arc::new(shared), address, tls, running: None };
        destination.revive()?;
        Ok(destination)
    }

    /// The endpoint, as a destination's configuration takes it.
    pub fn endpoint(&self) -> String {
        match &self.address {
            Address::Tcp(address) if self.tls.is_some() => format!("https://{address}"),
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
        let serve = end.clone().run_until_cancelled_owned(accept(
            listener,
            self.tls.clone(),
            Arc::clone(&self.shared),
        ));
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
