//! The words of a destination's state machine (level 0: pure).

use std::time::Duration;

use super::backoff::Backoff;
use crate::log::{DropReason, Ordinal};

/// Settings of a [`Machine`](super::machine::Machine), validated where they are configured.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Requests in flight at most.
    pub concurrency: usize,
    /// A batch goes out at once when this many spans wait.
    pub min_batch: u64,
    /// Spans of a batch at most.
    pub max_batch: u64,
    /// Encoded bytes of a batch at most, before compression.
    pub max_batch_bytes: usize,
    /// A batch of any size goes out when its oldest span has waited this long.
    pub max_delay: Duration,
    /// Pauses between attempts.
    pub backoff: Backoff,
    /// Attempts after the first before a batch is given up; `None`: never.
    pub max_retries: Option<u32>,
    /// Time after the first attempt before a batch is given up; `None`: never.
    pub max_elapsed: Option<Duration>,
}

/// What a piece carries.
pub trait Load: Sized {
    /// The ordinal behind its last span.
    fn end(&self) -> Ordinal;
    /// Spans to deliver: those of the range that sampling did not leave out.
    fn kept(&self) -> u64;
    /// Encoded bytes.
    fn bytes(&self) -> usize;
    /// Two neighbouring loads with the same spans.
    ///
    /// # Errors
    /// The load as it was, where it cannot be read.
    fn halve(self) -> Result<(Self, Self), Self>;
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send this piece: its answer goes to [`answered`](super::machine::Machine::answered).
    Send(PieceId),
    /// Read the log and form a batch: the result goes to [`formed`](super::machine::Machine::formed) or [`gone`](super::machine::Machine::gone).
    Form {
        /// The first span of the batch.
        from: Ordinal,
        /// Spans at most.
        spans: u64,
        /// Bytes at most.
        bytes: usize,
    },
    /// Connect without sending: the result goes to [`connected`](super::machine::Machine::connected).
    Connect,
}

/// A piece in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PieceId(pub(super) u64);

/// What `/stats` calls a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DestinationState {
    /// Nothing to do.
    #[default]
    Idle,
    /// Spans are on their way.
    Exporting,
    /// The server asked for another attempt.
    Retrying,
    /// No status comes from the server.
    Unreachable,
    /// The server said when to come back.
    Throttled,
    /// Nothing moves until an operator has mended what the server complains about.
    Blocked,
}

impl DestinationState {
    /// Every state, in the order of declaration.
    pub const ALL: [Self; 6] =
        [Self::Idle, Self::Exporting, Self::Retrying, Self::Unreachable, Self::Throttled, Self::Blocked];

    /// The state as `/stats` and the metrics spell it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Exporting => "exporting",
            Self::Retrying => "retrying",
            Self::Unreachable => "unreachable",
            Self::Throttled => "throttled",
            Self::Blocked => "blocked",
        }
    }

    /// True where spans can move.
    pub const fn is_healthy(self) -> bool {
        match self {
            Self::Idle | Self::Exporting => true,
            Self::Retrying | Self::Unreachable | Self::Throttled | Self::Blocked => false,
        }
    }
}

/// Spans that the destination will never have. Their dead letters are to be written before
/// [`settle`](super::machine::Machine::settle) is called again.
#[derive(Debug, PartialEq, Eq)]
pub struct Doomed<L> {
    /// The spans.
    pub load: L,
    /// Why.
    pub reason: DropReason,
    /// The destination's words.
    pub message: String,
}

/// What an answer led to.
#[derive(Debug, PartialEq, Eq)]
pub struct Answered<L> {
    /// The piece will be sent again as it is.
    pub retried: bool,
    /// Its spans are given up.
    pub doomed: Option<Doomed<L>>,
}
