//! Stream connections: where spans come in.

mod acceptor;
mod admission;
mod body;
mod buffers;
mod door;
mod grpc;
mod http2;
mod in_process;
mod listener;
mod refusal;
mod reply;
pub mod seed;
mod socket;
mod status;
mod stream;
mod unpack;

pub use crate::address::{AddressError, ListenAddr};
pub use acceptor::{Acceptor, HandOver, spread};
pub use admission::{Admission, OverLimit, Reservation};
pub use body::RequestLimits;
pub use buffers::Buffers;
pub use door::{Admitted, Arrival, DoorCounts, DoorLedger, DoorReason, Tally, Unanswered};
pub use grpc::{GrpcDoor, Scratches};
pub use http2::Http2Settings;
pub(crate) use in_process::SpanSink;
pub use in_process::{
    Connection, ConnectionId, ConnectionLimits, FlushError, InProcessConnection, Outbox, OutboxActor,
    OutboxConfig, Span, SpanBuilder, Status,
};
pub use listener::{ListenError, Listener};
pub use refusal::{Refusal, Retry};
pub use socket::Accepted;
pub use stream::{ConnectionCounts, Connections, Door, Open, Stop, StreamConnection};
