//! What an attempt to export means (level 0: pure).
//!
//! A status that the server sent and a failure that was made up on this side are different types:
//! only the server's own words may ever cost a span. The tables below are the whole of it.
//!
//! Sources: OTLP 1.11, "Failures" of OTLP/gRPC and of OTLP/HTTP (retryable codes, RetryInfo, Retry-After, partial
//! success); the gRPC status codes;
//! gRPC over HTTP/2, "HTTP to gRPC status code mapping".

use std::{fmt, time::Duration};

use crate::log::DropReason;

/// A destination's words are kept up to this number of bytes.
pub const MESSAGE_MAX: usize = 256;
/// A destination may ask for this much patience and no more.
pub const THROTTLE_MAX: Duration = Duration::from_secs(3600);

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The server judged the request.
    Answered(Answer),
    /// No status came from the server.
    Failed(Failure),
}

/// A status that the server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: ServerStatus,
    /// The server's words: the status's message, the message of a partial success, or the content type of
    /// an answer that is none of OTLP.
    pub message: String,
    /// RetryInfo or Retry-After.
    pub retry_after: Option<Duration>,
    /// Spans that a partial success rejects.
    pub rejected_spans: u64,
}

impl Answer {
    /// An answer with nothing but a status.
    pub fn new(status: ServerStatus) -> Self {
        Self { status, message: String::new(), retry_after: None, rejected_spans: 0 }
    }
}

/// Who speaks: an OTLP service, or something else that speaks HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerStatus {
    /// The `grpc-status` of the answer's headers or trailers.
    Grpc(GrpcCode),
    /// The status with which a service of OTLP over HTTP judged the request.
    OtlpHttp(u16),
    /// The HTTP status of an answer that is none of OTLP: a proxy's, or that of no OTLP destination at all.
    Http(u16),
}

impl fmt::Display for ServerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grpc(code) => f.write_str(code.name()),
            Self::OtlpHttp(status) => write!(f, "HTTP {status}"),
            Self::Http(status) => write!(f, "HTTP {status}, no OTLP answer"),
        }
    }
}

/// No status came: the connection could not be made, was reset or closed, spoke no HTTP/2, or took too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What happened.
    pub message: String,
}

macro_rules! grpc_codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal $name:literal => $row:expr,)*) => {
        /// A gRPC status code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum GrpcCode { $($(#[$doc])* $variant = $number,)* }

        impl GrpcCode {
            /// Every code.
            pub const ALL: [Self; 17] = [$(Self::$variant,)*];

            /// The code with this number; a number without a name reads as `UNKNOWN` (gRPC's rule).
            pub const fn from_wire(number: u32) -> Self {
                match number { $($number => Self::$variant,)* _ => Self::Unknown }
            }

            /// The name as the specification spells it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            const fn row(self) -> Row {
                match self { $(Self::$variant => $row,)* }
            }
        }
    };
}

/// What a status means before the rest of the answer is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    /// The spans are the server's now.
    Success,
    /// Another attempt may succeed.
    Retry,
    /// `RESOURCE_EXHAUSTED`: with RetryInfo throttled, about size too large, else refused.
    Exhausted,
    /// Some of the spans are at fault: find them.
    Bisect(DropReason),
    /// Every request would meet the same: an operator decides.
    Block,
    /// No retry mends this request.
    Refuse,
}

grpc_codes! {
    /// Success.
    Ok = 0 "OK" => Row::Success,
    /// The operation was cancelled.
    Cancelled = 1 "CANCELLED" => Row::Retry,
    /// No further word.
    Unknown = 2 "UNKNOWN" => Row::Refuse,
    /// The request is wrong in itself.
    InvalidArgument = 3 "INVALID_ARGUMENT" => Row::Bisect(DropReason::Invalid),
    /// The server took too long.
    DeadlineExceeded = 4 "DEADLINE_EXCEEDED" => Row::Retry,
    /// No such thing.
    NotFound = 5 "NOT_FOUND" => Row::Block,
    /// It is there already.
    AlreadyExists = 6 "ALREADY_EXISTS" => Row::Refuse,
    /// The credentials do not allow it.
    PermissionDenied = 7 "PERMISSION_DENIED" => Row::Block,
    /// A quota or a limit was reached.
    ResourceExhausted = 8 "RESOURCE_EXHAUSTED" => Row::Exhausted,
    /// The system is not in the state for it.
    FailedPrecondition = 9 "FAILED_PRECONDITION" => Row::Refuse,
    /// The operation was aborted.
    Aborted = 10 "ABORTED" => Row::Retry,
    /// OTLP calls it retryable, but a tonic receiver answers it to a message over its size limit,
    /// and a smaller request is a retry too.
    OutOfRange = 11 "OUT_OF_RANGE" => Row::Bisect(DropReason::TooLarge),
    /// No such method.
    Unimplemented = 12 "UNIMPLEMENTED" => Row::Block,
    /// The server broke.
    Internal = 13 "INTERNAL" => Row::Refuse,
    /// The server cannot take it now.
    Unavailable = 14 "UNAVAILABLE" => Row::Retry,
    /// Data was lost on the way.
    DataLoss = 15 "DATA_LOSS" => Row::Retry,
    /// The credentials are missing or wrong.
    Unauthenticated = 16 "UNAUTHENTICATED" => Row::Block,
}

/// Statuses of OTLP over HTTP other than 2xx: OTLP 1.11, "Failures" and "Bad data". What is not listed is not retryable
/// there.
const OTLP_HTTP_ROWS: [(u16, Row); 12] = [
    (400, Row::Bisect(DropReason::Invalid)),
    (401, Row::Block),
    (403, Row::Block),
    (404, Row::Block),
    (405, Row::Block),
    (407, Row::Block),
    (413, Row::Bisect(DropReason::TooLarge)),
    (415, Row::Block),
    (429, Row::Retry),
    (502, Row::Retry),
    (503, Row::Retry),
    (504, Row::Retry),
];
const OTLP_HTTP_OTHERS: Row = Row::Refuse;

/// Answers that are none of OTLP. gRPC's mapping names 400 → INTERNAL, 401, 403, 404 → codes that block, and
/// 429, 502, 503, 504 → UNAVAILABLE; the rest is UNKNOWN there. What is no OTLP service has not judged
/// the spans, so that everything else blocks too rather than costs spans.
const HTTP_ROWS: [(u16, Row); 5] = [
    (413, Row::Bisect(DropReason::TooLarge)),
    (429, Row::Retry),
    (502, Row::Retry),
    (503, Row::Retry),
    (504, Row::Retry),
];
const HTTP_OTHERS: Row = Row::Block;

/// How the well-known receivers word a `RESOURCE_EXHAUSTED` about a message's size.
const SIZE_WORDS: [&str; 7] = [
    "larger than max",       // grpc-go, grpc-core, grpc-node
    "exceeds maximum size",  // grpc-java
    "exceeds the maximum",   // grpc-dotnet
    "message length",        // tonic
    "too large",             // nyx, Rotel, Envoy
    "larger than the limit", // nyx
    "message size",          // others
];

/// What becomes of the spans of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The destination has them.
    Success,
    /// The destination has all but `rejected` of them; never retried. `rejected` may be 0: a warning.
    Partial {
        /// Spans that it will not take.
        rejected: u64,
        /// Why.
        message: String,
    },
    /// No status from the server: retry with backoff.
    Unreachable {
        /// What happened.
        message: String,
    },
    /// The server said that a retry may succeed.
    Retryable {
        /// Its words.
        message: String,
    },
    /// The server said when a retry may succeed.
    Throttled {
        /// Not before this much time has passed, at most [`THROTTLE_MAX`].
        delay: Duration,
        /// Its words.
        message: String,
    },
    /// Some span is at fault: halve the batch until it stands alone, which then is dropped for `reason`.
    Bisect {
        /// [`DropReason::Invalid`] or [`DropReason::TooLarge`].
        reason: DropReason,
        /// The server's words.
        message: String,
    },
    /// Every request would meet the same: nothing moves until an operator has mended it.
    Blocked {
        /// The server's words.
        message: String,
    },
    /// No retry mends it: the spans become dead letters.
    Refused {
        /// The server's words.
        message: String,
    },
}

/// A [`Verdict`] without its details, for counting requests by result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`Verdict::Success`].
    Success,
    /// [`Verdict::Partial`].
    Partial,
    /// [`Verdict::Unreachable`].
    Unreachable,
    /// [`Verdict::Retryable`].
    Retryable,
    /// [`Verdict::Throttled`].
    Throttled,
    /// [`Verdict::Bisect`] because of an invalid span.
    Invalid,
    /// [`Verdict::Bisect`] because of the size.
    TooLarge,
    /// [`Verdict::Blocked`].
    Blocked,
    /// [`Verdict::Refused`].
    Refused,
}

impl Kind {
    /// Every kind, in the order of declaration.
    pub const ALL: [Self; 9] = [
        Self::Success,
        Self::Partial,
        Self::Unreachable,
        Self::Retryable,
        Self::Throttled,
        Self::Invalid,
        Self::TooLarge,
        Self::Blocked,
        Self::Refused,
    ];

    /// The kind as a metric's label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Partial => "partial_success",
            Self::Unreachable => "unreachable",
            Self::Retryable => "retryable",
            Self::Throttled => "throttled",
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::Blocked => "blocked",
            Self::Refused => "refused",
        }
    }
}

impl Verdict {
    /// The verdict on an attempt.
    pub fn on(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Failed(Failure { message }) => Self::Unreachable { message: cut(&message) },
            Outcome::Answered(answer) => Self::on_answer(answer),
        }
    }

    fn on_answer(answer: Answer) -> Self {
        let row = match answer.status {
            ServerStatus::Grpc(code) => code.row(),
            ServerStatus::OtlpHttp(200..=299) => Row::Success,
            ServerStatus::OtlpHttp(status) => listed(&OTLP_HTTP_ROWS, status).unwrap_or(OTLP_HTTP_OTHERS),
            ServerStatus::Http(status) => listed(&HTTP_ROWS, status).unwrap_or(HTTP_OTHERS),
        };
        let Answer { status, message, retry_after, rejected_spans } = answer;
        let words = match message.is_empty() {
            true => cut(&status.to_string()),
            false => cut(&format!("{status}: {message}")),
        };
        match (row, retry_after) {
            (Row::Success, _) if rejected_spans == 0 && message.is_empty() => Self::Success,
            (Row::Success, _) => Self::Partial { rejected: rejected_spans, message: cut(&message) },
            (Row::Retry | Row::Exhausted, Some(delay)) => {
                Self::Throttled { delay: delay.min(THROTTLE_MAX), message: words }
            }
            (Row::Retry, None) => Self::Retryable { message: words },
            (Row::Exhausted, None) if about_size(&message) => {
                Self::Bisect { reason: DropReason::TooLarge, message: words }
            }
            (Row::Bisect(reason), _) => Self::Bisect { reason, message: words },
            (Row::Block, _) => Self::Blocked { message: words },
            (Row::Exhausted, None) | (Row::Refuse, _) => Self::Refused { message: words },
        }
    }

    /// The verdict without its details.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Success => Kind::Success,
            Self::Partial { .. } => Kind::Partial,
            Self::Unreachable { .. } => Kind::Unreachable,
            Self::Retryable { .. } => Kind::Retryable,
            Self::Throttled { .. } => Kind::Throttled,
            Self::Bisect { reason: DropReason::TooLarge, .. } => Kind::TooLarge,
            Self::Bisect { .. } => Kind::Invalid,
            Self::Blocked { .. } => Kind::Blocked,
            Self::Refused { .. } => Kind::Refused,
        }
    }

    /// What the destination, or this side, said about it; nothing on a plain success.
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Success => None,
            Self::Partial { message, .. }
            | Self::Unreachable { message }
            | Self::Retryable { message }
            | Self::Throttled { message, .. }
            | Self::Bisect { message, .. }
            | Self::Blocked { message }
            | Self::Refused { message } => Some(message),
        }
    }
}

fn listed(rows: &[(u16, Row)], status: u16) -> Option<Row> {
    rows.iter().find(|(listed, _)| *listed == status).map(|(_, row)| *row)
}

fn about_size(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    SIZE_WORDS.iter().any(|words| message.contains(words))
}

/// The text, cut at [`MESSAGE_MAX`] bytes.
pub(crate) fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(MESSAGE_MAX)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grpc(code: GrpcCode) -> Answer {
        Answer { message: "no".to_owned(), ..Answer::new(ServerStatus::Grpc(code)) }
    }

    fn kind(answer: Answer) -> Kind {
        Verdict::on(Outcome::Answered(answer)).kind()
    }

    #[test]
    fn every_grpc_code_that_a_server_sends_has_its_verdict() {
        let expected = [
            ("OK", Kind::Partial),
            ("CANCELLED", Kind::Retryable),
            ("UNKNOWN", Kind::Refused),
            ("INVALID_ARGUMENT", Kind::Invalid),
            ("DEADLINE_EXCEEDED", Kind::Retryable),
            ("NOT_FOUND", Kind::Blocked),
            ("ALREADY_EXISTS", Kind::Refused),
            ("PERMISSION_DENIED", Kind::Blocked),
            ("RESOURCE_EXHAUSTED", Kind::Refused),
            ("FAILED_PRECONDITION", Kind::Refused),
            ("ABORTED", Kind::Retryable),
            ("OUT_OF_RANGE", Kind::TooLarge),
            ("UNIMPLEMENTED", Kind::Blocked),
            ("INTERNAL", Kind::Refused),
            ("UNAVAILABLE", Kind::Retryable),
            ("DATA_LOSS", Kind::Retryable),
            ("UNAUTHENTICATED", Kind::Blocked),
        ];
        for (number, (name, verdict)) in expected.into_iter().enumerate() {
            let code = GrpcCode::from_wire(number as u32);
            assert_eq!((code.name(), kind(grpc(code))), (name, verdict));
            assert_eq!(code, GrpcCode::ALL[number]);
        }
        assert_eq!(GrpcCode::from_wire(17), GrpcCode::Unknown);
    }

    #[test]
    fn a_retry_info_turns_the_retryable_codes_into_throttled_and_no_other() {
        for code in GrpcCode::ALL {
            let plain = kind(grpc(code));
            let told = Answer { retry_after: Some(Duration::from_secs(3)), ..grpc(code) };
            let throttled = plain == Kind::Retryable || code == GrpcCode::ResourceExhausted;
            assert_eq!(kind(told), if throttled { Kind::Throttled } else { plain }, "{}", code.name());
        }
        let eternal = Answer { retry_after: Some(Duration::MAX), ..grpc(GrpcCode::Unavailable) };
        assert_eq!(
            Verdict::on(Outcome::Answered(eternal)),
            Verdict::Throttled { delay: THROTTLE_MAX, message: "UNAVAILABLE: no".to_owned() }
        );
    }

    #[test]
    fn resource_exhausted_about_size_is_too_large() {
        for message in [
            "grpc: received message larger than max (5000000 vs. 4194304)",
            "gRPC message exceeds maximum size 4194304: 5000000",
            "Error, decoded message length too large: found 5000000 bytes, the limit is: 4194304 bytes",
            "request of 70000000 bytes is larger than the limit of 67108864 bytes",
        ] {
            let answer = Answer { message: message.to_owned(), ..grpc(GrpcCode::ResourceExhausted) };
            assert_eq!(kind(answer), Kind::TooLarge, "{message}");
        }
    }

    #[test]
    fn every_status_of_otlp_over_http_has_its_verdict() {
        for status in 200..600 {
            let expected = match status {
                200..=299 => Kind::Success,
                400 => Kind::Invalid,
                413 => Kind::TooLarge,
                401 | 403 | 404 | 405 | 407 | 415 => Kind::Blocked,
                429 | 502 | 503 | 504 => Kind::Retryable,
                _ => Kind::Refused,
            };
            let answer = Answer::new(ServerStatus::OtlpHttp(status));
            assert_eq!(kind(answer.clone()), expected, "{status}");
            let told = kind(Answer { retry_after: Some(Duration::from_secs(3)), ..answer });
            assert_eq!(
                told,
                if expected == Kind::Retryable { Kind::Throttled } else { expected },
                "{status}"
            );
        }
        let words =
            Answer { message: "no such tenant".to_owned(), ..Answer::new(ServerStatus::OtlpHttp(401)) };
        assert_eq!(
            Verdict::on(Outcome::Answered(words)),
            Verdict::Blocked { message: "HTTP 401: no such tenant".to_owned() }
        );
    }

    #[test]
    fn an_answer_that_is_none_of_otlp_never_costs_a_span_of_a_sane_size() {
        for status in 100..600 {
            let expected = match status {
                413 => Kind::TooLarge,
                429 | 502 | 503 | 504 => Kind::Retryable,
                _ => Kind::Blocked,
            };
            assert_eq!(kind(Answer::new(ServerStatus::Http(status))), expected, "{status}");
        }
        let html = Answer { message: "text/html".to_owned(), ..Answer::new(ServerStatus::Http(404)) };
        assert_eq!(
            Verdict::on(Outcome::Answered(html)),
            Verdict::Blocked { message: "HTTP 404, no OTLP answer: text/html".to_owned() }
        );
        let busy = Answer { retry_after: Some(Duration::ZERO), ..Answer::new(ServerStatus::Http(503)) };
        assert_eq!(kind(busy), Kind::Throttled);
    }

    #[test]
    fn a_failure_on_this_side_is_unreachable_whatever_it_says() {
        let failure = Failure { message: "status: INVALID_ARGUMENT, too large".to_owned() };
        assert_eq!(Verdict::on(Outcome::Failed(failure)).kind(), Kind::Unreachable);
    }

    #[test]
    fn a_success_with_rejected_spans_or_a_word_is_partial() {
        let ok = Answer::new(ServerStatus::Grpc(GrpcCode::Ok));
        assert_eq!(Verdict::on(Outcome::Answered(ok.clone())), Verdict::Success);
        let partial = Answer { rejected_spans: 3, message: "old".to_owned(), ..ok };
        assert_eq!(
            Verdict::on(Outcome::Answered(partial)),
            Verdict::Partial { rejected: 3, message: "old".to_owned() }
        );
    }

    #[test]
    fn words_are_cut_at_a_character() {
        let cut = cut(&"ä".repeat(200));
        assert_eq!(cut.len(), 256);
        assert_eq!(super::cut(&format!("x{}", "ä".repeat(200))).len(), 255);
    }
}
