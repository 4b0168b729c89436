//! From a response to an [`Outcome`].

use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Body;
use prost::Message;

use super::super::{
    super::verdict::{Answer, GrpcCode, MESSAGE_MAX, Outcome, ServerStatus, cut},
    answer::{Content, ExportResponse, PartialSuccess, content, failed, retry_after, text},
};
use crate::retry_info::{Any, RetryInfo};

const RETRY_INFO: &str = "/google.rpc.RetryInfo";

/// `google.rpc.Status`, of which only the details count: code and message come as headers.
#[derive(Clone, PartialEq, Message)]
struct StatusDetails {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// Reads the response to its end, or as far as it matters.
pub(super) async fn read<B>(response: Response<B>) -> Outcome
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + 'static,
{
    let (head, body) = response.into_parts();
    if let Some(code) = grpc_status(&head.headers) {
        return Outcome::Answered(answer(code, &head.headers, None));
    }
    let content_type = text(&head.headers, header::CONTENT_TYPE);
    if head.status != http::StatusCode::OK || !content_type.starts_with("application/grpc") {
        return Outcome::Answered(Answer {
            message: cut(content_type),
            retry_after: retry_after(&head.headers, SystemTime::now()),
            ..Answer::new(ServerStatus::Http(head.status.as_u16()))
        });
    }
    let Content { bytes, trailers, cut } = content(body).await;
    match (cut, grpc_status(&trailers)) {
        (Some(why), _) => failed(why),
        (None, Some(code)) => Outcome::Answered(answer(code, &trailers, Some(bytes))),
        (None, None) => failed("response ended without a status".to_owned()),
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<GrpcCode> {
    let value = headers.get("grpc-status")?;
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    Some(number.map_or(GrpcCode::Unknown, GrpcCode::from_wire))
}

fn answer(code: GrpcCode, status: &HeaderMap, message: Option<Bytes>) -> Answer {
    let partial = match (code, message) {
        (GrpcCode::Ok, Some(message)) => partial_success(message),
        _ => None,
    };
    let (words, rejected_spans) = match partial {
        Some(PartialSuccess { rejected_spans, error_message }) => {
            (cut(&error_message), u64::try_from(rejected_spans).unwrap_or(0))
        }
        None if code == GrpcCode::Ok => (String::new(), 0),
        None => (percent_decoded(status.get("grpc-message")), 0),
    };
    let retry_after = status.get("grpc-status-details-bin").and_then(retry_info);
    Answer { message: words, retry_after, rejected_spans, ..Answer::new(ServerStatus::Grpc(code)) }
}

/// The partial success of a gRPC message. A success whose message cannot be read is a success: the
/// status says that the server has the spans.
fn partial_success(mut message: Bytes) -> Option<PartialSuccess> {
    let compressed = message.try_get_u8().ok()?;
    let length = message.try_get_u32().ok()?;
    if compressed != 0 || message.len() != length as usize {
        return None;
    }
    ExportResponse::decode(message).ok()?.partial_success
}

fn retry_info(details: &HeaderValue) -> Option<Duration> {
    let status = StatusDetails::decode(Bytes::from(base64_decoded(details.as_bytes())?)).ok()?;
    let found = status.details.into_iter().find(|detail| detail.type_url.ends_with(RETRY_INFO))?;
    let delay = RetryInfo::decode(found.value).ok()?.retry_delay.unwrap_or_default();
    let seconds = u64::try_from(delay.seconds).unwrap_or(0);
    let nanos = u32::try_from(delay.nanos).unwrap_or(0).min(999_999_999);
    Some(Duration::new(seconds, nanos))
}

/// `grpc-message`, in which everything but printable ASCII is percent-encoded.
fn percent_decoded(value: Option<&HeaderValue>) -> String {
    let bytes = value.map(HeaderValue::as_bytes).unwrap_or_default();
    let mut decoded = Vec::with_capacity(bytes.len().min(MESSAGE_MAX));
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        if decoded.len() > MESSAGE_MAX {
            break;
        }
        let hex = match rest {
            [b'%', high, low, ..] => char::from(*high).to_digit(16).zip(char::from(*low).to_digit(16)),
            _ => None,
        };
        rest = match hex {
            Some((high, low)) => {
                decoded.push((high * 16 + low) as u8);
                tail.get(2..).unwrap_or_default()
            }
            None => {
                decoded.push(*first);
                tail
            }
        };
    }
    cut(&String::from_utf8_lossy(&decoded))
}

/// Base64 with or without its padding (RFC 4648, section 4), as binary headers come.
fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut held, mut bits) = (0u32, 0u32);
    for &byte in text.iter().take_while(|byte| **byte != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = (held << 6) | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry_info::Delay;

    #[test]
    fn a_message_is_percent_decoded_and_cut() {
        let decoded = |text: &'static str| percent_decoded(Some(&HeaderValue::from_static(text)));
        assert_eq!(decoded("too%20large%3A %E2%82%AC 100% %zz"), "too large: € 100% %zz");
        let long = HeaderValue::from_str(&"%41".repeat(10_000)).unwrap();
        assert_eq!(percent_decoded(Some(&long)), "A".repeat(256));
        assert_eq!(percent_decoded(None), "");
    }

    #[test]
    fn base64_reads_with_and_without_padding() {
        for (text, bytes) in [("", ""), ("Zg==", "f"), ("Zm8", "fo"), ("Zm9v", "foo"), ("Zm9vYg", "foob")] {
            assert_eq!(base64_decoded(text.as_bytes()), Some(bytes.as_bytes().to_vec()));
        }
        assert_eq!(base64_decoded(b"Zm9%"), None);
    }

    #[test]
    fn a_success_whose_message_is_garbage_is_a_success() {
        for garbage in [&b""[..], b"\0\0\0\0\x05abc", b"\x01\0\0\0\0", b"\0\0\0\0\x03\xff\xff\xff"] {
            assert_eq!(partial_success(Bytes::from_static(garbage)), None);
        }
        let partial = PartialSuccess { rejected_spans: -3, error_message: "odd".to_owned() };
        let response = ExportResponse { partial_success: Some(partial) }.encode_to_vec();
        let mut message = vec![0];
        message.extend((response.len() as u32).to_be_bytes());
        message.extend(response);
        let answer = answer(GrpcCode::Ok, &HeaderMap::new(), Some(message.into()));
        assert_eq!((answer.rejected_spans, answer.message.as_str()), (0, "odd"));
    }

    #[test]
    fn a_retry_info_among_other_details_is_found() {
        let delay = RetryInfo { retry_delay: Some(Delay { seconds: 2, nanos: 500_000_000 }) };
        let other =
            Any { type_url: "type.googleapis.com/google.rpc.DebugInfo".to_owned(), value: Bytes::new() };
        let info =
            Any { type_url: format!("type.googleapis.com{RETRY_INFO}"), value: delay.encode_to_vec().into() };
        let status = StatusDetails { details: vec![other, info] }.encode_to_vec();
        let header = HeaderValue::from_str(&super::super::super::super::testing::base64(&status)).unwrap();
        assert_eq!(retry_info(&header), Some(Duration::from_millis(2500)));
    }
}
