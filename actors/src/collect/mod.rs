//! The SpanCollector: commits what the stream connections completed to the span log.

mod messages;

pub use messages::SpansCompleted;
