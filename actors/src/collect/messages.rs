//! What the collector is told.

use actix::Message;

use crate::{log::Append, measure::RedDelta, self_tracing::Origin};

/// A stream connection has a batch of completed spans. The answer goes to `append.reply`, after
/// the commit; if the collector fails with the batch in hand, the reply is dropped unanswered and
/// the batch is not in the log.
#[derive(Debug)]
pub struct SpansCompleted {
    /// The batch.
    pub append: Append,
    /// What it adds to the RED metrics once it is committed.
    pub red: RedDelta,
    /// The span about the request that it came with.
    pub origin: Origin,
}

impl Message for SpansCompleted {
    type Result = ();
}
