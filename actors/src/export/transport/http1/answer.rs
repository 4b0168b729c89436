//! From a response to an [`Outcome`] (OTLP 1.11, "OTLP/HTTP Response").

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, Response, header};
use http_body::Body;
use prost::Message;
use serde::Deserialize;

use super::super::{
    super::verdict::{Answer, MESSAGE_MAX, Outcome, ServerStatus, cut},
    answer::{Content, ExportResponse, PartialSuccess, content, failed, retry_after, text},
};

/// `google.rpc.Status`, in which an error is told.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
}

/// What an answer is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Protobuf,
    /// Not what OTLP asks for where the request was protobuf, but what some services answer.
    Json,
    /// Somebody's words, whoever that is.
    Text,
    /// A page, or nothing said.
    Other,
}

impl Form {
    fn of(headers: &HeaderMap) -> Self {
        let content_type = text(headers, header::CONTENT_TYPE);
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/x-protobuf" | "application/protobuf" => Self::Protobuf,
            "application/json" | "application/problem+json" => Self::Json,
            "text/plain" => Self::Text,
            _ => Self::Other,
        }
    }
}

/// Reads the response to its end, or as far as it matters. True if that was its end: the connection may serve again.
pub(super) async fn read<B>(response: Response<B>, now: SystemTime) -> (Outcome, bool)
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + 'static,
{
    let (head, body) = response.into_parts();
    let Content { bytes, cut, .. } = content(body).await;
    let whole = cut.is_none();
    let (status, form) = (head.status.as_u16(), Form::of(&head.headers));
    let answer = match (status, form) {
        // Whether all of the spans were taken stands at the end.
        (200..=299, _) if let Some(why) = cut => return (failed(why), false),
        (200..=299, Form::Protobuf | Form::Json) => success(status, form, bytes),
        (200..=299, _) if bytes.is_empty() => Answer::new(ServerStatus::OtlpHttp(status)),
        (400.., Form::Protobuf | Form::Json) => {
            Answer { message: words(form, bytes), ..Answer::new(ServerStatus::OtlpHttp(status)) }
        }
        (400.., Form::Text) if !bytes.is_empty() => {
            Answer { message: words(form, bytes), ..Answer::new(ServerStatus::Http(status)) }
        }
        _ => Answer { message: foreign(&head.headers), ..Answer::new(ServerStatus::Http(status)) },
    };
    (Outcome::Answered(Answer { retry_after: retry_after(&head.headers, now), ..answer }), whole)
}

/// A success whose body cannot be read is a success: the status says that the server has the spans.
fn success(status: u16, form: Form, bytes: Bytes) -> Answer {
    let partial = match form {
        Form::Json => json_partial(&bytes),
        Form::Protobuf | Form::Text | Form::Other => {
            ExportResponse::decode(bytes).ok().and_then(|response| response.partial_success)
        }
    };
    let PartialSuccess { rejected_spans, error_message } = partial.unwrap_or_default();
    Answer {
        message: readable(&error_message),
        rejected_spans: u64::try_from(rejected_spans).unwrap_or(0),
        ..Answer::new(ServerStatus::OtlpHttp(status))
    }
}

/// The partial success of an `ExportTraceServiceResponse` in JSON, where 64-bit integers are strings.
fn json_partial(bytes: &[u8]) -> Option<PartialSuccess> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct JsonResponse {
        partial_success: Option<JsonPartial>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    #[derive(Default)]
    struct JsonPartial {
        rejected_spans: serde_json::Value,
        error_message: String,
    }
    let response: JsonResponse = serde_json::from_slice(bytes).ok()?;
    let JsonPartial { rejected_spans, error_message } = response.partial_success?;
    let count = rejected_spans.as_i64().or_else(|| rejected_spans.as_str()?.parse().ok());
    Some(PartialSuccess { rejected_spans: count.unwrap_or(0), error_message })
}

/// What is told of an answer that is none of OTLP: where it points to, or what it is.
fn foreign(headers: &HeaderMap) -> String {
    let location = text(headers, header::LOCATION);
    // Behind the question mark or before the at sign it may hold a secret.
    let place = location.split(['?', '#']).next().unwrap_or_default();
    match text(headers, header::CONTENT_TYPE) {
        _ if !place.is_empty() && !place.contains('@') => cut(&format!("redirects to {place}")),
        "" => "no content type".to_owned(),
        content_type => cut(content_type),
    }
}

/// The words of an error.
fn words(form: Form, bytes: Bytes) -> String {
    #[derive(Deserialize)]
    struct JsonStatus {
        message: String,
    }
    match form {
        Form::Protobuf => {
            Status::decode(bytes).map_or_else(|_| String::new(), |status| readable(&status.message))
        }
        Form::Json => match serde_json::from_slice(&bytes) {
            Ok(JsonStatus { message }) => readable(&message),
            Err(_) => plain(&bytes),
        },
        Form::Text | Form::Other => plain(&bytes),
    }
}

fn plain(bytes: &[u8]) -> String {
    let beginning = bytes.get(..MESSAGE_MAX * 4).unwrap_or(bytes);
    readable(&String::from_utf8_lossy(beginning))
}

/// A text in one line, cut.
fn readable(text: &str) -> String {
    let text = text.get(..text.floor_char_boundary(MESSAGE_MAX * 4)).unwrap_or_default();
    cut(&text
        .split(|c: char| c.is_control() || c == ' ')
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" "))
}
