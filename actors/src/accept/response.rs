//! `ExportTraceServiceResponse`: what a sender is told of a request that was taken (level 0; OTLP specification 1.11, "Full
//! Success" and "Partial Success").

use std::fmt::Write as _;

use bytes::Bytes;
use prost::Message;
use serde_json::json;

use crate::span::{ATTRIBUTES_MAX, Inspection, NAME_BYTES_MAX, Rejected};

/// A request that was taken, and what of it was not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Spans that are kept.
    pub(crate) kept: u32,
    /// Spans that were rejected.
    pub(crate) rejected: u32,
    /// Why; empty where there are none.
    pub(super) why: String,
}

/// `ExportTraceServiceResponse`.
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

/// `ExportTracePartialSuccess`.
#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

impl Taken {
    pub(crate) fn of(found: &Inspection) -> Self {
        match found.rejected.total() {
            0 => Self { kept: found.kept, ..Self::default() },
            rejected => Self {
                kept: found.kept,
                rejected,
                why: why(&found.rejected, found.kept.saturating_add(rejected)),
            },
        }
    }

    /// Encoded as protobuf: no bytes for a full success.
    pub(crate) fn to_protobuf(&self) -> Bytes {
        let (rejected_spans, error_message) = (self.rejected.into(), self.why.clone());
        let partial_success = (self.rejected > 0).then_some(PartialSuccess { rejected_spans, error_message });
        Response { partial_success }.encode_to_vec().into()
    }

    /// Encoded as JSON.
    pub(crate) fn to_json(&self) -> Bytes {
        if self.rejected == 0 {
            return Bytes::from_static(b"{}");
        }
        // 64-bit integers are texts there.
        let partial_success = json!({ "rejectedSpans": self.rejected.to_string(), "errorMessage": self.why });
        json!({ "partialSuccess": partial_success }).to_string().into()
    }
}

fn why(rejected: &Rejected, of: u32) -> String {
    let mut text = format!("{} of {of} spans rejected", rejected.total());
    let mut before = ": ";
    for (spans, why) in [
        (
            rejected.invalid_id,
            "with a trace or span id of zeros, or an id that is not 16 or 8 bytes long".to_owned(),
        ),
        (rejected.name_too_long, format!("with a name over {NAME_BYTES_MAX} bytes")),
        (rejected.too_many_attributes, format!("with more than {ATTRIBUTES_MAX} attributes")),
    ] {
        if spans > 0 {
            let _infallible = write!(text, "{before}{spans} {why}");
            before = ", ";
        }
    }
    if let Some(first) = rejected.first {
        let _infallible = write!(text, "; the first is span {} of the request", u64::from(first) + 1);
    }
    text
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceResponse,
    };

    use super::*;

    #[test]
    fn a_full_success_says_nothing() {
        let taken = Taken::of(&Inspection { kept: 5, ..Inspection::default() });
        assert_eq!((taken.to_protobuf(), taken.to_json()), (Bytes::new(), Bytes::from_static(b"{}")));
    }

    #[test]
    fn a_partial_success_has_counts_and_reasons_in_both_encodings() {
        let rejected = Rejected { invalid_id: 2, name_too_long: 1, too_many_attributes: 3, first: Some(4) };
        let taken = Taken::of(&Inspection { kept: 10, rejected, ..Inspection::default() });
        let text = "6 of 16 spans rejected: 2 with a trace or span id of zeros, or an id that is not 16 or 8 bytes long, \
                    1 with a name over 65536 bytes, 3 with more than 1024 attributes; the first is span 5 of the request";
        let partial_success =
            Some(ExportTracePartialSuccess { rejected_spans: 6, error_message: text.to_owned() });
        let decoded = ExportTraceServiceResponse::decode(taken.to_protobuf()).unwrap();
        assert_eq!(decoded, ExportTraceServiceResponse { partial_success });
        let json: serde_json::Value = serde_json::from_slice(&taken.to_json()).unwrap();
        assert_eq!(json, json!({"partialSuccess": {"rejectedSpans": "6", "errorMessage": text}}));
    }
}
