//! A refusal as a gRPC status, by the rules of OTLP (specification 1.11, "OTLP/gRPC": failures,
//! throttling) and with `google.rpc.RetryInfo` where there will be room again.

use bytes::Bytes;
use prost::Message;
use tonic::{Code, Status};

use super::{DoorReason, Refusal, Retry};
use crate::retry_info::{Any, Delay, RetryInfo};

/// When a sender that was refused for want of room may come again: the log frees room as fast as the
/// destinations take, so there is no better guess.
pub(super) const RETRY_AFTER_S: i64 = 1;

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) details: Vec<Any>,
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let (code, text) = (code(&refusal), refusal.to_string());
        match refusal.retry() {
            Retry::No | Retry::Yes => Self::new(code, text),
            Retry::WhenThereIsRoom => {
                let details = retry_info(code, &text);
                Self::with_details(code, text, details)
            }
        }
    }
}

pub(super) fn code(refusal: &Refusal) -> Code {
    match refusal.reason() {
        DoorReason::Admission | DoorReason::TooLarge | DoorReason::LogFull => Code::ResourceExhausted,
        // The gRPC compression rules ask for this one.
        DoorReason::Invalid if matches!(refusal, Refusal::EncodingMissing) => Code::Internal,
        DoorReason::Invalid => Code::InvalidArgument,
        DoorReason::Unsupported => Code::Unimplemented,
        DoorReason::Unauthenticated => Code::Unauthenticated,
        DoorReason::SlowBody => Code::DeadlineExceeded,
        DoorReason::LogFailed
        | DoorReason::Overloaded
        | DoorReason::ShuttingDown
        | DoorReason::Disconnected
        | DoorReason::Lost => Code::Unavailable,
        // In-process only: no refusal of a request has these.
        DoorReason::InProcessFull | DoorReason::TooManyOpen | DoorReason::Closed => Code::Unavailable,
    }
}

fn retry_info(code: Code, text: &str) -> Bytes {
    let delay = RetryInfo { retry_delay: Some(Delay { seconds: RETRY_AFTER_S, nanos: 0 }) };
    let detail = Any {
        type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
        value: delay.encode_to_vec().into(),
    };
    let status = RpcStatus { code: code.into(), message: text.to_owned(), details: vec![detail] };
    status.encode_to_vec().into()
}

/// Seconds that a status asks its receiver to wait.
#[cfg(test)]
pub(crate) fn retry_after_s(status: &Status) -> Option<i64> {
    let status = RpcStatus::decode(status.details()).ok()?;
    let detail = status.details.first()?;
    assert_eq!(detail.type_url, "type.googleapis.com/google.rpc.RetryInfo");
    RetryInfo::decode(detail.value.clone()).ok()?.retry_delay.map(|delay| delay.seconds)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{accept::OverLimit, log::CommitError};

    #[test]
    fn only_want_of_room_carries_a_time_to_retry() {
        let over = OverLimit { asked: 1, in_flight: 2, limit: 2 };
        let (full, large) =
            (CommitError::Full { bytes: 1, held: 2, limit: 2 }, CommitError::TooLarge { bytes: 3, limit: 2 });
        let expected = [
            (Refusal::Admission(over), Code::ResourceExhausted, Some(1)),
            (Refusal::Commit(full), Code::ResourceExhausted, Some(1)),
            (
                Refusal::Commit(CommitError::NoSpace { bytes: 1, free: 2, keep: 3 }),
                Code::ResourceExhausted,
                Some(1),
            ),
            (Refusal::Commit(large), Code::ResourceExhausted, None),
            (
                Refusal::Commit(CommitError::Disk { why: "Input/output error".to_owned() }),
                Code::Unavailable,
                None,
            ),
            (Refusal::TooLarge { bytes: 3, limit: 2 }, Code::ResourceExhausted, None),
            (Refusal::UnpacksTooLarge { limit: 2 }, Code::ResourceExhausted, None),
            (Refusal::Overloaded(Duration::from_secs(5)), Code::Unavailable, None),
            (Refusal::ShuttingDown, Code::Unavailable, None),
            (Refusal::Lost, Code::Unavailable, None),
            (Refusal::Trailing, Code::InvalidArgument, None),
            (Refusal::Unauthenticated, Code::Unauthenticated, None),
        ];
        for (refusal, code, delay) in expected {
            let status = Status::from(refusal.clone());
            assert_eq!((status.code(), retry_after_s(&status)), (code, delay), "{refusal}");
            assert_eq!(status.message(), refusal.to_string());
        }
    }
}
