//! What a request over HTTP is answered (OTLP specification 1.11, "OTLP/HTTP Response"): in the encoding of the
//! request, `ExportTraceServiceResponse` where it was taken, `google.rpc.Status` where it was not.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use http_body_util::Full;
use prost::Message as _;

use crate::{
    accept::{
        DoorReason, Refusal, Retry, header,
        response::Taken,
        status::{RETRY_AFTER_S, RpcStatus, code},
    },
    bearer::CHALLENGE,
};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// OTLP's encodings over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// `application/x-protobuf`
    Protobuf,
    /// `application/json`
    Json,
}

impl Encoding {
    /// That of a message with these headers, whatever the parameters of its media type.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let media_type = header(headers, CONTENT_TYPE.as_str()).split(';').next().unwrap_or_default().trim();
        [Self::Protobuf, Self::Json].into_iter().find(|one| media_type.eq_ignore_ascii_case(one.media_type()))
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Protobuf => PROTOBUF,
            Self::Json => JSON,
        }
    }
}

/// A success, full or partial.
pub(super) fn success(taken: &Taken, encoding: Option<Encoding>) -> Response<Full<Bytes>> {
    match encoding {
        Some(Encoding::Protobuf) => answer(Encoding::Protobuf, taken.to_protobuf()),
        Some(Encoding::Json) | None => answer(Encoding::Json, taken.to_json()),
    }
}

/// A refusal. To whom speaks neither encoding, in the one that people can read.
pub(super) fn refused(refusal: &Refusal, encoding: Option<Encoding>) -> Response<Full<Bytes>> {
    let encoding = encoding.unwrap_or(Encoding::Json);
    let (code, message) = (i32::from(code(refusal)), refusal.to_string());
    let body = match encoding {
        Encoding::Protobuf => RpcStatus { code, message, details: Vec::new() }.encode_to_vec(),
        Encoding::Json => serde_json::json!({ "code": code, "message": message }).to_string().into_bytes(),
    };
    let mut response = answer(encoding, body.into());
    *response.status_mut() = status(refusal);
    let mut put = |name, value| response.headers_mut().insert(name, value);
    match refusal {
        Refusal::Unauthenticated => drop(put(WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE))),
        Refusal::Method(_) => drop(put(ALLOW, HeaderValue::from_static("POST"))),
        Refusal::ContentEncoding(_) => {
            drop(put(ACCEPT_ENCODING, HeaderValue::from_static("gzip, identity")));
        }
        _ => {}
    }
    if refusal.retry() != Retry::No {
        put(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
    }
    response
}

fn answer(encoding: Encoding, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(encoding.media_type()));
    response
}

/// 429, 502, 503 and 504 are what OTLP's senders retry; here these are just the refusals that may fare better later.
fn status(refusal: &Refusal) -> StatusCode {
    match refusal.reason() {
        DoorReason::Admission => StatusCode::TOO_MANY_REQUESTS,
        DoorReason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        DoorReason::Invalid => StatusCode::BAD_REQUEST,
        DoorReason::Unauthenticated => StatusCode::UNAUTHORIZED,
        DoorReason::Unsupported => match refusal {
            Refusal::NotFound(_) => StatusCode::NOT_FOUND,
            Refusal::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            _ => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        },
        DoorReason::LogFull if refusal.retry() == Retry::No => StatusCode::PAYLOAD_TOO_LARGE,
        DoorReason::LogFull
        | DoorReason::LogFailed
        | DoorReason::Overloaded
        | DoorReason::ShuttingDown
        | DoorReason::Disconnected
        | DoorReason::SlowBody
        | DoorReason::Lost => StatusCode::SERVICE_UNAVAILABLE,
        // In-process only: no refusal of a request has these.
        DoorReason::InProcessFull | DoorReason::TooManyOpen | DoorReason::Closed => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{accept::OverLimit, log::CommitError};

    #[test]
    fn each_refusal_has_its_status_and_those_that_may_fare_better_later_a_time() {
        let full = CommitError::Full { bytes: 1, held: 2, limit: 2 };
        let no_space = CommitError::NoSpace { bytes: 1, free: 2, keep: 3 };
        let disk = CommitError::Disk { why: "Input/output error".to_owned() };
        let expected = [
            (Refusal::Admission(OverLimit { asked: 1, in_flight: 2, limit: 2 }), 429, true),
            (Refusal::Commit(full), 503, true),
            (Refusal::Commit(no_space), 503, true),
            (Refusal::Commit(disk), 503, true),
            (Refusal::Commit(CommitError::TooLarge { bytes: 3, limit: 2 }), 413, false),
            (Refusal::Overloaded(Duration::from_secs(5)), 503, true),
            (Refusal::ShuttingDown, 503, true),
            (Refusal::Lost, 503, true),
            (Refusal::SlowBody { bytes: 1, waited: Duration::from_secs(30) }, 503, true),
            (Refusal::TooLarge { bytes: 3, limit: 2 }, 413, false),
            (Refusal::GrowsTooLarge { limit: 2 }, 413, false),
            (Refusal::UnpacksTooLarge { limit: 2 }, 413, false),
            (Refusal::Gzip("it is corrupt"), 400, false),
            (Refusal::Unauthenticated, 401, false),
            (Refusal::NotFound("/".to_owned()), 404, false),
            (Refusal::Method("GET".to_owned()), 405, false),
            (Refusal::MediaType("text/plain".to_owned()), 415, false),
            (Refusal::ContentEncoding("br".to_owned()), 415, false),
        ];
        for (refusal, status, later) in expected {
            let response = refused(&refusal, None);
            assert_eq!(response.status().as_u16(), status, "{refusal}");
            let retry_after = response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!(retry_after, later.then_some("1"), "{refusal}");
        }
    }

    #[test]
    fn a_media_type_is_told_by_its_name_alone() {
        let of = |text: &str| {
            Encoding::of(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_str(text).unwrap())]))
        };
        assert_eq!(of("application/x-protobuf"), Some(Encoding::Protobuf));
        assert_eq!(of("Application/JSON ; charset=utf-8"), Some(Encoding::Json));
        for other in ["", "application/protobuf", "application/json-seq", "text/plain; application/json"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
