//! What the metrics are told (level 2).

use std::{fmt, time::Duration};

use actix::Message;

use super::RedDelta;
use crate::log::Ordinal;

/// The log took the spans from `first` up to `end`, which lie together; the deltas add up to them, in their
/// order. May be lost, repeated or late: the metrics count each span once, by its ordinal.
pub struct SpansMeasured {
    /// The ordinal of the first span.
    pub first: Ordinal,
    /// The ordinal behind the last span.
    pub end: Ordinal,
    /// When they were committed, since the Unix epoch, as the log's records say.
    pub committed_unix: Duration,
    /// What each batch adds.
    pub deltas: Vec<RedDelta>,
}

impl Message for SpansMeasured {
    type Result = ();
}

impl fmt::Debug for SpansMeasured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpansMeasured")
            .field("first", &self.first)
            .field("end", &self.end)
            .field("deltas", &self.deltas.len())
            .finish()
    }
}
