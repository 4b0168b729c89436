//! What an exporter is told.

use std::time::Duration;

use actix::Message;
use tokio::{sync::oneshot, time::Instant};

use super::{DestinationConfig, DestinationConfigError};
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

/// Send what is there, and from now on what comes, without waiting for batches to fill. What is not delivered
/// stays in the log. An exporter that is stopped does the same by itself.
#[derive(Debug)]
pub struct Drain {
    /// Not longer than this.
    pub deadline: Instant,
    /// Told when everything is settled, or when nothing can move before the deadline.
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

/// Go on with other settings. What is in flight is answered first; then delivery goes on at the position, so that what was
/// acknowledged behind a batch that was being retried may arrive twice, as after a crash of the exporter. The name and where the
/// destination begins are the log's matter: they stay as they are.
#[derive(Debug)]
pub struct Reconfigure(pub Box<DestinationConfig>);

impl Message for Reconfigure {
    type Result = Result<(), DestinationConfigError>;
}

/// From now on a stop delivers for so long at most. Nothing else changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainWithin(pub Duration);

impl Message for DrainWithin {
    type Result = ();
}
