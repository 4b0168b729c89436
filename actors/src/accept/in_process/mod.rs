//! Stream connections of this process: spans are encoded where they happen.
//!
//! ```text
//!  Connection ── span ──┐ encoded on the caller's thread, at most once copied
//!  Connection ── span ──┼──► Outbox (one an io thread) ──► OutboxActor ──► SpanCollector
//!  Connection ── span ──┘    64 KiB or 5 ms make a batch     until committed
//! ```

mod connection;
mod outbox;
mod sink;
mod span;

pub use connection::{Connection, ConnectionId, ConnectionLimits, InProcessConnection};
pub use outbox::{FlushError, Outbox, OutboxActor, OutboxConfig};
pub(crate) use sink::SpanSink;
pub use span::{Span, SpanBuilder, Status};

#[cfg(test)]
mod tests;
