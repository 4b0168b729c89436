//! Why a request gets no success, whatever the protocol of its door (level 0).

use std::time::Duration;

use thiserror::Error;

use super::{DoorReason, OverLimit};
use crate::{
    log::CommitError,
    span::{JsonError, ScanError},
};

/// A request is refused. The text is the sender's to read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Larger than the limit as it came.
    #[error("message of {bytes} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Declared length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Larger than the limit as it came, without having said so.
    #[error("message is larger than the limit of {limit} bytes")]
    GrowsTooLarge {
        /// The limit.
        limit: usize,
    },
    /// Larger than the limit once unpacked.
    #[error("message unpacks to more than the limit of {limit} bytes")]
    UnpacksTooLarge {
        /// The limit.
        limit: usize,
    },
    /// No room now.
    #[error(transparent)]
    Admission(#[from] OverLimit),
    /// The body ended without a message.
    #[error("request has no message")]
    NoMessage,
    /// The body ended early.
    #[error("message ends after {bytes} of {declared} bytes")]
    Truncated {
        /// Bytes that came.
        bytes: usize,
        /// Bytes that its prefix declares.
        declared: usize,
    },
    /// The body ended within the five bytes before the message.
    #[error("request ends within its length prefix")]
    TruncatedPrefix,
    /// A unary request holds one message.
    #[error("request goes on after its message")]
    Trailing,
    /// Neither 0 nor 1.
    #[error("compressed flag {0} is neither 0 nor 1")]
    CompressedFlag(u8),
    /// A compressed message in a request that does not say how.
    #[error("message is compressed, but grpc-encoding names no compression")]
    EncodingMissing,
    /// The message cannot be unpacked.
    #[error("message is no valid gzip: {0}")]
    Gzip(&'static str),
    /// The message is no OTLP.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The message is no OTLP in JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// No token, or none of those that are asked for. What was wrong with it is nobody's to learn here.
    #[error(
        "a bearer token is needed here: set OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20TOKEN, with a token that nyx knows"
    )]
    Unauthenticated,
    /// Not this door's.
    #[error("{0}")]
    Unsupported(String),
    /// No gRPC.
    #[error("content-type {0:?} is not application/grpc")]
    ContentType(String),
    /// Over HTTP: no such page.
    #[error("{0} is not served here: POST /v1/traces is")]
    NotFound(String),
    /// Over HTTP: spans are posted.
    #[error("method {0} is not allowed: POST is")]
    Method(String),
    /// Over HTTP: neither of OTLP's encodings.
    #[error("content-type {0:?} is neither application/x-protobuf nor application/json")]
    MediaType(String),
    /// Over HTTP: a compression that is not served.
    #[error("content-encoding {0:?} is neither identity nor gzip")]
    ContentEncoding(String),
    /// The body's bytes come too slowly.
    #[error("request's body came too slowly: {bytes} bytes in {waited:?}")]
    SlowBody {
        /// Bytes of the message that came.
        bytes: u64,
        /// Since the request's begin.
        waited: Duration,
    },
    /// The sender gave up, or the connection broke.
    #[error("sender gave up: {0}")]
    Disconnected(String),
    /// The log's answer.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The collector's inbox was full for too long.
    #[error("span collector took no batch for {0:?}")]
    Overloaded(Duration),
    /// The daemon is on its way down.
    #[error("shutting down")]
    ShuttingDown,
    /// The collector failed with the batch in hand.
    #[error("span collector failed with the batch in hand: it was not kept")]
    Lost,
}

/// Whether the same request may fare better later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Never.
    No,
    /// Yes, when there is room again.
    WhenThereIsRoom,
    /// Yes.
    Yes,
}

impl Refusal {
    /// The label under which the door's ledger counts it.
    pub fn reason(&self) -> DoorReason {
        match self {
            Self::TooLarge { .. } | Self::GrowsTooLarge { .. } | Self::UnpacksTooLarge { .. } => {
                DoorReason::TooLarge
            }
            Self::Admission(_) => DoorReason::Admission,
            Self::NoMessage
            | Self::Truncated { .. }
            | Self::TruncatedPrefix
            | Self::Trailing
            | Self::CompressedFlag(_)
            | Self::EncodingMissing
            | Self::Gzip(_)
            | Self::Scan(_)
            | Self::Json(_) => DoorReason::Invalid,
            Self::Unauthenticated => DoorReason::Unauthenticated,
            Self::Unsupported(_)
            | Self::ContentType(_)
            | Self::NotFound(_)
            | Self::Method(_)
            | Self::MediaType(_)
            | Self::ContentEncoding(_) => DoorReason::Unsupported,
            Self::SlowBody { .. } => DoorReason::SlowBody,
            Self::Disconnected(_) => DoorReason::Disconnected,
            Self::Commit(CommitError::Disk { .. }) => DoorReason::LogFailed,
            Self::Commit(
                CommitError::Full { .. } | CommitError::NoSpace { .. } | CommitError::TooLarge { .. },
            ) => DoorReason::LogFull,
            Self::Overloaded(_) => DoorReason::Overloaded,
            Self::ShuttingDown => DoorReason::ShuttingDown,
            Self::Lost => DoorReason::Lost,
        }
    }

    /// Whether its sender may try again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Admission(_) | Self::Commit(CommitError::Full { .. } | CommitError::NoSpace { .. }) => {
                Retry::WhenThereIsRoom
            }
            Self::SlowBody { .. }
            | Self::Disconnected(_)
            | Self::Commit(CommitError::Disk { .. })
            | Self::Overloaded(_)
            | Self::ShuttingDown
            | Self::Lost => Retry::Yes,
            Self::TooLarge { .. }
            | Self::GrowsTooLarge { .. }
            | Self::UnpacksTooLarge { .. }
            | Self::NoMessage
            | Self::Truncated { .. }
            | Self::TruncatedPrefix
            | Self::Trailing
            | Self::CompressedFlag(_)
            | Self::EncodingMissing
            | Self::Gzip(_)
            | Self::Scan(_)
            | Self::Json(_)
            | Self::Unauthenticated
            | Self::Unsupported(_)
            | Self::ContentType(_)
            | Self::NotFound(_)
            | Self::Method(_)
            | Self::MediaType(_)
            | Self::ContentEncoding(_)
            | Self::Commit(CommitError::TooLarge { .. }) => Retry::No,
        }
    }
}
