//! Stream connections: where spans come in.

mod acceptor;
mod admission;
mod body;
mod buffers;
#[cfg(test)]
mod conformance;
mod door;
mod greet;
mod grpc;
mod http;
mod http1;
mod http2;
mod in_process;
mod intake;
mod listener;
mod pieces;
mod refusal;
mod reply;
mod response;
pub mod seed;
mod socket;
mod status;
mod stream;
#[cfg(test)]
mod testing;
mod tls;
mod traced;
mod unpack;

pub use crate::address::{AddressError, ListenAddr};
pub use acceptor::{Acceptor, HandOver, spread};
pub use admission::{Admission, OverLimit, Reservation};
pub use body::RequestLimits;
pub use buffers::Buffers;
pub use door::{Admitted, Arrival, DoorCounts, DoorLedger, DoorReason, Tally, Unanswered};
pub use grpc::GrpcDoor;
pub use http::HttpDoor;
pub use http1::Http1Settings;
pub use http2::Http2Settings;
pub(crate) use in_process::SpanSink;
pub use in_process::{
    Connection, ConnectionId, ConnectionLimits, FlushError, InProcessConnection, Outbox, OutboxActor,
    OutboxConfig, Span, SpanBuilder, Status,
};
pub use intake::{Intake, Scratches};
pub use listener::{ListenError, Listener};
pub use refusal::{Refusal, Retry};
pub use socket::Accepted;
pub use stream::{ConnectionCounts, Connections, Door, Open, Stop, StreamConnection};
pub use tls::{DoorTls, TlsFailure, TlsStats};

/// What is echoed of a sender's text, in characters.
const ECHOED: usize = 64;

/// A header's text; empty where there is none.
fn header<'a>(headers: &'a ::http::HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap_or("(not ascii)"))
}

/// The first characters of what a stranger sent.
fn echo(text: &str) -> &str {
    text.char_indices().nth(ECHOED).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}
