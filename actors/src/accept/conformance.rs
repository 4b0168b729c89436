//! What holds at every door, however a request comes: the rules of `docs/conformance.md`, and what becomes of bad input.

mod tokens;

use std::sync::Arc;

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::KeyValue,
    trace::v1::Span,
};
use prost::Message as _;

use super::{
    DoorReason, Tally,
    grpc::tests::grpc,
    http::tests::http,
    testing::{KEPT, Rig, Setup, request, settle},
};
use crate::{
    log::{Oddity, RejectReason},
    span::{ATTRIBUTES_MAX, NAME_BYTES_MAX},
};

#[derive(Debug, Clone, Copy)]
enum Over {
    Grpc,
    Http,
}

const DOORS: [Over; 2] = [Over::Grpc, Over::Http];

impl Over {
    async fn rig(self) -> Rig {
        Rig::with(Setup::new(match self {
            Self::Grpc => grpc,
            Self::Http => http,
        }))
        .await
    }

    /// What the sender is told: the response of a success, full or partial, or the text of a refusal.
    async fn send(self, rig: &Rig, message: Vec<u8>) -> Result<ExportTraceServiceResponse, String> {
        let response = match self {
            Self::Grpc => {
                let framed = rig.send_raw(message).await.map_err(|status| status.message().to_owned())?;
                framed.slice(5..)
            }
            Self::Http => match rig.send_http("application/x-protobuf", message).await {
                (200, _, body) => body,
                (_, _, body) => return Err(String::from_utf8_lossy(&body).into_owned()),
            },
        };
        Ok(ExportTraceServiceResponse::decode(response).unwrap())
    }

    /// Sends a request of which something is kept: what the sender is told, and what came to be kept.
    async fn export(
        self,
        rig: &Rig,
        request: &ExportTraceServiceRequest,
    ) -> (ExportTraceServiceResponse, Bytes, u64) {
        let (told, (bytes, red)) = tokio::join!(self.send(rig, request.encode_to_vec()), async {
            let batch = rig.next_batch().await;
            let red = batch.red.spans();
            (settle(batch, KEPT), red)
        });
        (told.unwrap(), bytes, red)
    }
}

fn changed(spans: usize, at: usize, change: Change) -> ExportTraceServiceRequest {
    let mut request = request(spans);
    change(&mut request.resource_spans[0].scope_spans[0].spans[at]);
    request
}

type Change = fn(&mut Span);

const BAD: [(RejectReason, &str, Change); 8] = [
    (RejectReason::InvalidId, "trace or span id", |span| span.trace_id = vec![0; 16]),
    (RejectReason::InvalidId, "trace or span id", |span| span.span_id = vec![0; 8]),
    (RejectReason::InvalidId, "trace or span id", |span| span.trace_id.truncate(15)),
    (RejectReason::InvalidId, "trace or span id", |span| span.span_id.push(1)),
    (RejectReason::InvalidId, "trace or span id", |span| span.span_id.clear()),
    (RejectReason::InvalidId, "trace or span id", |span| span.parent_span_id = vec![1; 4]),
    (RejectReason::NameTooLong, "name over 65536 bytes", |span| span.name = "n".repeat(NAME_BYTES_MAX + 1)),
    (RejectReason::TooManyAttributes, "more than 1024 attributes", |span| {
        span.attributes = vec![KeyValue::default(); ATTRIBUTES_MAX + 1];
    }),
];

#[actix_rt::test]
async fn a_bad_span_is_rejected_with_its_reason_and_the_rest_of_its_request_is_kept_byte_by_byte() {
    for over in DOORS {
        for (reason, text, change) in BAD {
            let rig = over.rig().await;
            let whole = changed(5, 2, change);
            let (told, bytes, red) = over.export(&rig, &whole).await;
            let partial = told.partial_success.unwrap();
            assert_eq!(partial.rejected_spans, 1, "{over:?} {partial:?}");
            assert!(partial.error_message.starts_with("1 of 5 spans rejected: 1 with "), "{partial:?}");
            assert!(partial.error_message.contains(text), "{partial:?}");
            assert!(partial.error_message.ends_with("the first is span 3 of the request"), "{partial:?}");

            let mut good = whole.clone();
            good.resource_spans[0].scope_spans[0].spans.remove(2);
            assert_eq!(ExportTraceServiceRequest::decode(bytes.clone()).unwrap(), good);
            for span in &good.resource_spans[0].scope_spans[0].spans {
                let field = span.encode_to_vec();
                assert!(bytes.windows(field.len()).any(|window| window == field), "{over:?} {reason:?}");
            }
            let counts = rig.intake.spans.counts();
            assert_eq!((counts.scanned, counts.accepted, counts.rejected(reason), red), (5, 4, 1, 4));
            let encoded = whole.encoded_len() as u64;
            assert_eq!(rig.counts().accepted, Tally { requests: 1, bytes: encoded }, "{over:?} {reason:?}");
            rig.settled(&[]);
        }
    }
}

#[actix_rt::test]
async fn spans_of_several_faults_are_counted_by_reason() {
    for over in DOORS {
        let rig = over.rig().await;
        let mut whole = request(9);
        for ((_, _, change), span) in BAD.iter().zip(&mut whole.resource_spans[0].scope_spans[0].spans) {
            change(span);
        }
        let (told, _, red) = over.export(&rig, &whole).await;
        let text = "8 of 9 spans rejected: 6 with a trace or span id of zeros, or an id that is not 16 or 8 bytes long, \
                    1 with a name over 65536 bytes, 1 with more than 1024 attributes; the first is span 1 of the request";
        let partial = told.partial_success.unwrap();
        assert_eq!((partial.rejected_spans, partial.error_message.as_str(), red), (8, text, 1), "{over:?}");
        let counts = rig.intake.spans.counts();
        let by_reason = [RejectReason::InvalidId, RejectReason::NameTooLong, RejectReason::TooManyAttributes]
            .map(|reason| counts.rejected(reason));
        assert_eq!((by_reason, counts.scanned, counts.accepted), ([6, 1, 1], 9, 1));
        rig.settled(&[]);
    }
}

#[actix_rt::test]
async fn a_request_of_bad_spans_alone_is_a_partial_success_and_nothing_goes_to_the_collector() {
    for over in DOORS {
        let rig = over.rig().await;
        let told =
            over.send(&rig, changed(1, 0, |span| span.trace_id.clear()).encode_to_vec()).await.unwrap();
        assert_eq!(told.partial_success.unwrap().rejected_spans, 1, "{over:?}");
        assert!(rig.batches.borrow_mut().try_recv().is_err());
        let counts = rig.intake.spans.counts();
        assert_eq!((counts.scanned, counts.accepted, counts.rejected(RejectReason::InvalidId)), (1, 0, 1));
        assert_eq!(rig.counts().accepted.requests, 1);
        rig.settled(&[]);
    }
}

#[actix_rt::test]
async fn a_bad_span_in_json_is_rejected_and_the_answer_says_so_in_json() {
    let rig = Over::Http.rig().await;
    let text = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[
        {"traceId":"01010101010101010101010101010101","spanId":"0000000000000001","name":"span 0","startTimeUnixNano":1,"endTimeUnixNano":2},
        {"traceId":"0101","spanId":"0000000000000002","name":"short"},
        {"traceId":"01010101010101010101010101010101","spanId":"0000000000000000","name":"zeros"}
    ]}]}]}"#;
    let ((status, kind, body), bytes) =
        tokio::join!(rig.send_http("application/json", text), async { settle(rig.next_batch().await, KEPT) });
    assert_eq!((status, kind.as_str()), (200, "application/json"));
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["partialSuccess"]["rejectedSpans"], "2", "{body}");
    assert!(
        body["partialSuccess"]["errorMessage"].as_str().unwrap().starts_with("2 of 3 spans rejected: "),
        "{body}"
    );
    assert_eq!(ExportTraceServiceRequest::decode(bytes).unwrap(), request(1));
    rig.settled(&[]);
}

#[actix_rt::test]
async fn an_odd_span_is_kept_and_counted_and_its_sender_is_told_nothing() {
    let odd: [(Oddity, Change); 4] = [
        (Oddity::EndBeforeStart, |span| span.end_time_unix_nano = 0),
        (Oddity::EmptyName, |span| span.name.clear()),
        (Oddity::FarFuture, |span| span.end_time_unix_nano = u64::MAX),
        (Oddity::FarFuture, |span| {
            (span.start_time_unix_nano, span.end_time_unix_nano) = (u64::MAX, u64::MAX)
        }),
    ];
    for over in DOORS {
        for (oddity, change) in odd {
            let rig = over.rig().await;
            let whole = changed(3, 1, change);
            let (told, bytes, red) = over.export(&rig, &whole).await;
            assert_eq!((told.partial_success, bytes, red), (None, whole.encode_to_vec().into(), 3));
            let counts = rig.intake.spans.counts();
            let seen: Vec<_> = Oddity::ALL.iter().filter(|&&oddity| counts.odd(oddity) > 0).collect();
            assert_eq!((seen, counts.odd(oddity), counts.accepted), (vec![&oddity], 1, 3), "{over:?}");
            rig.settled(&[]);
        }
    }
}

#[actix_rt::test]
async fn unknown_fields_are_ignored_and_kept() {
    // Field 1000 of the request, and field 30 of its span.
    for over in DOORS {
        let rig = over.rig().await;
        let mut message = request(1).encode_to_vec();
        message.extend_from_slice(&[0xc2, 0x3e, 0x03, b'n', b'e', b'w']);
        let (told, bytes) =
            tokio::join!(over.send(&rig, message.clone()), async { settle(rig.next_batch().await, KEPT) });
        assert_eq!((told, bytes), (Ok(ExportTraceServiceResponse::default()), message.into()), "{over:?}");
        rig.settled(&[]);
    }
}

#[actix_rt::test]
async fn truncated_and_random_bytes_are_refused_as_a_whole_and_harm_nobody_else() {
    for over in DOORS {
        let rig = over.rig().await;
        let whole = request(3).encode_to_vec();
        let mut refused = 0;
        for message in
            [whole[..whole.len() - 1].to_vec(), vec![0xff; 300], b"{\"resourceSpans\":[]}".to_vec()]
        {
            let text = over.send(&rig, message).await.unwrap_err();
            assert!(text.contains("invalid trace request at byte "), "{over:?} {text}");
            refused += 1;
        }
        assert_eq!(rig.intake.spans.counts().scanned, 0);
        let (told, bytes, _) = over.export(&rig, &request(3)).await;
        assert_eq!((told.partial_success, bytes), (None, whole.into()));
        rig.settled(&[(DoorReason::Invalid, refused)]);
    }
}

#[actix_rt::test]
async fn a_request_with_bad_spans_needs_room_for_the_rest_of_it_too() {
    for over in DOORS {
        let rig = over.rig().await;
        let whole = changed(40, 0, |span| span.trace_id.clear()).encode_to_vec();
        let others =
            rig.intake.admission.try_reserve(super::testing::IN_FLIGHT - whole.len() * 2 + 1).unwrap();
        let text = over.send(&rig, whole).await.unwrap_err();
        assert!(text.contains("bytes are in flight"), "{over:?} {text}");
        drop(others);
        assert_eq!(rig.intake.spans.counts().scanned, 0);
        rig.settled(&[(DoorReason::Admission, 1)]);
    }
}

/// Used by both doors alike: the same intake, with a ledger of each door's own.
#[actix_rt::test]
async fn doors_share_their_room_and_their_span_account_and_not_their_ledgers() {
    let rig = Over::Http.rig().await;
    let other = super::Intake { ledger: Arc::default(), ..rig.intake.clone() };
    let held = other.admission.try_reserve(7).unwrap();
    assert_eq!(rig.intake.admission.in_flight(), 7);
    drop(held);
    Over::Http.export(&rig, &request(1)).await;
    assert_eq!((rig.counts().accepted.requests, other.ledger.counts().accepted.requests), (1, 0));
    assert_eq!(other.spans.counts().accepted, 1);
}
