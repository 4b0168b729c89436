//! What both protocols read of an answer.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body;
use http_body_util::BodyExt;
use prost::Message;

use super::super::verdict::{Failure, Outcome};
use crate::tls;

/// Bytes of a response that are read at most (OTLP 1.11, "Response size limits").
const RESPONSE_MAX: usize = 4 * 1024 * 1024;

/// `ExportTraceServiceResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

/// `ExportTracePartialSuccess`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected_spans: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

/// A body as far as it was read.
pub(super) struct Content {
    pub(super) bytes: Bytes,
    pub(super) trailers: HeaderMap,
    /// Why it is not the whole.
    pub(super) cut: Option<String>,
}

/// Reads a body to its end, or as far as it may go.
pub(super) async fn content<B>(mut body: B) -> Content
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + 'static,
{
    let mut bytes = BytesMut::new();
    let mut trailers = HeaderMap::new();
    let cut = loop {
        let Some(frame) = body.frame().await else { break None };
        match frame.map(|frame| frame.into_data().map_err(|frame| frame.into_trailers())) {
            Ok(Ok(data)) if bytes.len() + data.len() > RESPONSE_MAX => {
                break Some(format!("response is larger than {RESPONSE_MAX} bytes"));
            }
            Ok(Ok(data)) => bytes.extend_from_slice(&data),
            Ok(Err(Ok(found))) => trailers = found,
            Ok(Err(Err(_unknown))) => {}
            Err(error) => break Some(format!("response broke off: {}", chain(&error))),
        }
    };
    Content { bytes: bytes.freeze(), trailers, cut }
}

/// A failure of this side's making.
pub(super) fn failed(message: String) -> Outcome {
    Outcome::Failed(Failure { message })
}

/// An error with its causes; where TLS is at fault, in an operator's words.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(words) = tls::explained(error) {
        return words;
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The text of a header; empty where there is none, or none that is text.
pub(super) fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date, which is held against the answer's own `Date`
/// where it has one, so that clocks that differ do no harm. A date that has passed is no wait at all.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let told = text(headers, header::RETRY_AFTER).trim();
    if let Ok(seconds) = told.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(told).ok()?;
    let now = httpdate::parse_http_date(text(headers, header::DATE)).unwrap_or(now);
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::HeaderValue;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_in_any_of_its_three_forms() {
        // 1994-11-06 08:49:37
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777 - 90);
        let read = |value: &'static str, date: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(value));
            headers.extend(date.map(|date| (header::DATE, HeaderValue::from_static(date))));
            retry_after(&headers, now)
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(read("120", None), seconds(120));
        assert_eq!(read(" 0 ", None), seconds(0));
        for date in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(read(date, None), seconds(90), "{date}");
        }
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(read(date, Some("Sun, 06 Nov 1994 08:49:30 GMT")), seconds(7), "by the server's clock");
        assert_eq!(read(date, Some("Sun, 06 Nov 1994 09:00:00 GMT")), seconds(0), "it has passed");
        for odd in ["", "-1", "1.5", "soon", "Sun, 06 Nov"] {
            assert_eq!(read(odd, None), None, "{odd:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
