//! What an exporter is told.

use actix::Message;
use tokio::{sync::oneshot, time::Instant};

use crate::log::Ordinal;

/// The log has grown. One of these in the inbox is enough: the exporter looks at the log itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogAdvanced {
    /// The log's end.
    pub end: Ordinal,
}

impl Message for LogAdvanced {
    type Result = ();
}

/// Send what is there without waiting for batches to fill. What is not delivered by the deadline stays in the
/// log.
#[derive(Debug)]
pub struct Drain {
    /// Not longer than this.
    pub deadline: Instant,
    /// Told when everything is settled, or at the deadline.
    pub done: oneshot::Sender<Drained>,
}

impl Message for Drain {
    type Result = ();
}

/// How far an exporter came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Spans that stay in the log.
    pub left: u64,
}
