mod slow;

use std::{
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use actix_rt::Arbiter;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::{Either, select};
use http::HeaderMap;
use http_body::Body as _;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::client::conn::http2 as client_http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse, trace_service_client::TraceServiceClient,
};
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tonic::{Code, codec::CompressionEncoding, transport::Channel};

use super::*;
use crate::{
    accept::{
        ConnectionCounts, DoorReason, ListenAddr, Tally,
        status::retry_after_s,
        testing::{
            IN_FLIGHT, KEPT, MAX_REQUEST, PATIENCE, Rig, Setup, large_request, request, settle, until,
        },
    },
    log::{CommitError, Committed, RejectReason},
    self_tracing::{Attribute, Origin, testing::recording_all},
    span::{SpanContext, SpanKind, scan},
    supervise::ChildState,
};

pub(in crate::accept) fn grpc(intake: Intake) -> Arc<dyn Door> {
    Arc::new(GrpcDoor { http2: Http2Settings::default(), tls: DoorTls::grpc(None).into(), intake })
}

impl Setup {
    fn grpc() -> Self {
        Self::new(grpc)
    }
}

impl Rig {
    async fn new() -> Self {
        Self::with(Setup::grpc()).await
    }

    async fn channel(&self) -> Channel {
        let uri = format!("http://{}", self.address());
        Channel::from_shared(uri).unwrap().connect().await.unwrap()
    }

    async fn client(&self) -> TraceServiceClient<Channel> {
        TraceServiceClient::new(self.channel().await)
    }

    /// Sends a request and answers it as the log would.
    async fn export(
        &self,
        request: ExportTraceServiceRequest,
        answer: Result<Committed, CommitError>,
    ) -> (Result<ExportTraceServiceResponse, Status>, Bytes) {
        let mut client = self.client().await;
        let (response, bytes) =
            tokio::join!(client.export(request), async { settle(self.next_batch().await, answer) });
        (response.map(tonic::Response::into_inner), bytes)
    }

    /// Sends bytes as they are, for a request that never reaches the collector.
    pub(in crate::accept) async fn send_raw(&self, message: impl Into<Bytes>) -> Result<Bytes, Status> {
        self.send_to(EXPORT, message).await
    }

    pub(in crate::accept) async fn send_to(
        &self,
        path: &'static str,
        message: impl Into<Bytes>,
    ) -> Result<Bytes, Status> {
        let (head, body) = self.post(path, framed(&message.into())).await.into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().unwrap_or(&head.headers);
        match Status::from_header_map(trailers).unwrap() {
            status if status.code() == Code::Ok => Ok(body.to_bytes()),
            status => Err(status),
        }
    }

    /// A response as it comes over a connection of its own.
    async fn post(&self, path: &'static str, body: Bytes) -> http::Response<Incoming> {
        let mut by_hand = ByHand::new(TcpStream::connect(self.address()).await.unwrap()).await;
        let mut request = by_hand.request.take().unwrap();
        *request.uri_mut() = format!("http://door{path}").parse().unwrap();
        by_hand.body.send(body).unwrap();
        drop(by_hand.body);
        by_hand.sender.send_request(request).await.unwrap()
    }
}

type Sent = UnsyncBoxBody<Bytes, Infallible>;

/// A request whose body is sent by hand over a connection of its own.
struct ByHand {
    body: mpsc::UnboundedSender<Bytes>,
    sender: client_http2::SendRequest<Sent>,
    request: Option<http::Request<Sent>>,
}

impl ByHand {
    async fn new<I>(io: I) -> Self
    where
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) =
            client_http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
        #[allow(clippy::disallowed_methods, reason = "the client's side of the connection")]
        actix_rt::spawn(connection);
        let (body, pieces) = mpsc::unbounded_channel();
        let pieces = futures_util::stream::unfold(pieces, async |mut pieces| {
            let piece: Bytes = pieces.recv().await?;
            Some((Ok(hyper::body::Frame::data(piece)), pieces))
        });
        let request = http::Request::post(format!("http://door{EXPORT}"))
            .header("content-type", "application/grpc")
            .body(StreamBody::new(pieces).boxed_unsync())
            .unwrap();
        Self { body, sender, request: Some(request) }
    }
}

fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(message);
    framed.freeze()
}

#[actix_rt::test]
async fn spans_reach_the_collector_as_they_came_and_the_answer_is_an_empty_success() {
    let rig = Rig::new().await;
    let (response, bytes) = rig.export(request(3), KEPT).await;
    assert_eq!(response.unwrap(), ExportTraceServiceResponse { partial_success: None });
    assert_eq!(bytes, request(3).encode_to_vec());
    let encoded = bytes.len() as u64;
    assert_eq!(rig.counts().accepted, Tally { requests: 1, bytes: encoded });
    assert_eq!((rig.intake.spans.counts().scanned, rig.intake.spans.counts().accepted), (3, 3));
    rig.settled(&[]);
}

#[actix_rt::test]
async fn a_packed_request_is_kept_unpacked_and_counted_as_it_came() {
    let rig = Rig::new().await;
    let plain = request(500);
    let mut client = rig.client().await.send_compressed(CompressionEncoding::Gzip);
    let (response, batch) = tokio::join!(client.export(plain.clone()), async {
        let batch = rig.next_batch().await;
        assert_eq!(batch.red.spans(), 500);
        assert_eq!(rig.intake.admission.in_flight(), plain.encoded_len());
        settle(batch, KEPT)
    });
    response.unwrap();
    assert_eq!(batch, plain.encode_to_vec());
    let packed = rig.counts().accepted.bytes;
    assert!(packed > 0 && packed < plain.encoded_len() as u64 / 2, "{packed} bytes");
    rig.settled(&[]);
}

#[actix_rt::test]
async fn what_is_kept_of_a_large_request_is_no_larger_than_what_was_charged() {
    let rig = Rig::new().await;
    let (response, bytes) = rig.export(large_request(900_000), KEPT).await;
    response.unwrap();
    rig.intake.buffers.forget();
    let capacity = bytes.try_into_mut().unwrap().capacity();
    assert!(capacity <= large_request(900_000).encoded_len() + 5, "{capacity}");
}

#[actix_rt::test]
async fn a_request_without_spans_is_a_success_and_does_not_go_to_the_collector() {
    let rig = Rig::new().await;
    let mut client = rig.client().await;
    client.export(ExportTraceServiceRequest::default()).await.unwrap();
    client.export(request(0)).await.unwrap();
    assert!(rig.batches.borrow_mut().try_recv().is_err());
    assert_eq!(rig.counts().accepted.requests, 2);
    rig.settled(&[]);
}

#[actix_rt::test]
async fn a_request_over_the_limit_is_refused_for_good_before_and_after_unpacking() {
    let rig = Rig::new().await;
    let large = large_request(MAX_REQUEST);
    let status = rig.client().await.export(large.clone()).await.unwrap_err();
    let text = format!("message of {} bytes is larger than the limit of 1048576 bytes", large.encoded_len());
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, text.as_str()));
    assert_eq!(retry_after_s(&status), None);

    let mut client = rig.client().await.send_compressed(CompressionEncoding::Gzip);
    let status = client.export(large).await.unwrap_err();
    let text = "message unpacks to more than the limit of 1048576 bytes";
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, text));
    assert_eq!(retry_after_s(&status), None);
    rig.settled(&[(DoorReason::TooLarge, 2)]);
}

#[actix_rt::test]
async fn a_request_that_does_not_fit_now_is_told_when_to_come_again() {
    let rig = Rig::new().await;
    let others = rig.intake.admission.try_reserve(IN_FLIGHT - 10).unwrap();
    let status = rig.client().await.export(request(1)).await.unwrap_err();
    let bytes = request(1).encoded_len();
    let text = format!("4194294 of 4194304 bytes are in flight, {bytes} more do not fit");
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, text.as_str()));
    assert_eq!(retry_after_s(&status), Some(1));
    drop(others);
    rig.settled(&[(DoorReason::Admission, 1)]);
    rig.export(request(1), KEPT).await.0.unwrap();
}

#[actix_rt::test]
async fn bytes_that_are_no_trace_request_are_an_invalid_argument() {
    let rig = Rig::new().await;
    let status = rig.send_raw(&b"\x0a\x05no"[..]).await.unwrap_err();
    let text = scan(b"\x0a\x05no", |_| {}).unwrap_err().to_string();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, text.as_str()));
    rig.settled(&[(DoorReason::Invalid, 1)]);
    // What a scan saw before it failed does not count with the next batch.
    let half = [request(2).encode_to_vec(), b"\x0a\x05no".to_vec()].concat();
    rig.send_raw(half).await.unwrap_err();
    let mut client = rig.client().await;
    let (response, spans) = tokio::join!(client.export(request(3)), async {
        let batch = rig.next_batch().await;
        let spans = batch.red.spans();
        settle(batch, KEPT);
        spans
    });
    response.unwrap();
    assert_eq!(spans, 3);
}

#[actix_rt::test]
async fn other_methods_and_encodings_are_not_implemented() {
    let rig = Rig::new().await;
    let status = rig.send_to("/grpc.health.v1.Health/Check", Bytes::new()).await.unwrap_err();
    let text = "POST /grpc.health.v1.Health/Check is not served here: \
                POST /opentelemetry.proto.collector.trace.v1.TraceService/Export is";
    assert_eq!((status.code(), status.message()), (Code::Unimplemented, text));

    let mut by_hand = ByHand::new(TcpStream::connect(rig.address()).await.unwrap()).await;
    let mut request = by_hand.request.take().unwrap();
    request.headers_mut().insert("grpc-encoding", "zstd".parse().unwrap());
    let response = by_hand.sender.send_request(request).await.unwrap();
    let status = Status::from_header_map(response.headers()).unwrap();
    let text = "grpc-encoding \"zstd\" is neither identity nor gzip";
    assert_eq!((status.code(), status.message()), (Code::Unimplemented, text));
    assert_eq!(response.headers()["grpc-accept-encoding"], "identity,gzip");

    let mut by_hand = ByHand::new(TcpStream::connect(rig.address()).await.unwrap()).await;
    let mut request = by_hand.request.take().unwrap();
    *request.method_mut() = Method::GET;
    let response = by_hand.sender.send_request(request).await.unwrap();
    let status = Status::from_header_map(response.headers()).unwrap();
    let text = format!("GET {EXPORT} is not served here: POST {EXPORT} is");
    assert_eq!((status.code(), status.message()), (Code::Unimplemented, text.as_str()));

    let others = ["application/json", "application/grpc-web", "application/grpc-web+proto"];
    for content_type in others {
        let mut by_hand = ByHand::new(TcpStream::connect(rig.address()).await.unwrap()).await;
        let mut request = by_hand.request.take().unwrap();
        request.headers_mut().insert("content-type", content_type.parse().unwrap());
        let response = by_hand.sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type}");
    }
    rig.settled(&[(DoorReason::Unsupported, 6)]);
}

#[actix_rt::test]
async fn a_success_is_headers_an_empty_message_and_trailers() {
    let rig = Rig::new().await;
    let mut response = rig.post(EXPORT, framed(&request(0).encode_to_vec())).await;
    assert_eq!((response.status(), response.version()), (StatusCode::OK, http::Version::HTTP_2));
    let content_type = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))]);
    assert_eq!(response.headers(), &content_type);
    let body = response.body_mut();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), &[0; 5][..]);
    let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers, HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))]));
    assert!(body.frame().await.is_none());
}

#[actix_rt::test]
async fn a_refusal_is_headers_alone() {
    let rig = Rig::new().await;
    let bodies = [
        (framed(b"")[..4].to_vec(), "request%20ends%20within%20its%20length%20prefix"),
        ([&framed(b"")[..], b"!"].concat(), "request%20goes%20on%20after%20its%20message"),
    ];
    for (body, text) in bodies {
        let response = rig.post(EXPORT, body.into()).await;
        assert!(response.body().is_end_stream());
        let expected = [
            ("content-type", "application/grpc"),
            ("grpc-status", "3"),
            ("grpc-message", text),
            ("grpc-accept-encoding", "identity,gzip"),
        ];
        let seen = response.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
        assert_eq!((response.status(), seen.collect::<Vec<_>>()), (StatusCode::OK, expected.to_vec()));
    }
    rig.settled(&[(DoorReason::Invalid, 2)]);
}

#[actix_rt::test]
async fn a_buffer_that_the_log_has_let_go_of_holds_the_next_request() {
    let rig = Rig::new().await;
    let (_, first) = rig.export(large_request(100_000), KEPT).await;
    let at = first.as_ptr();
    let (_, second) = rig.export(large_request(100_000), KEPT).await;
    drop(first);
    let (_, third) = rig.export(large_request(100_000), KEPT).await;
    assert_eq!((second.as_ptr() == at, third.as_ptr() == at), (false, true));
    assert_eq!(third, large_request(100_000).encode_to_vec());
}

#[actix_rt::test]
async fn each_answer_of_the_log_has_its_status() {
    let rig = Rig::new().await;
    let full = CommitError::Full { bytes: 1, held: 9, limit: 9 };
    let status = rig.export(request(2), Err(full.clone())).await.0.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, full.to_string().as_str()));
    assert_eq!(retry_after_s(&status), Some(1));
    let large = CommitError::TooLarge { bytes: 10, limit: 9 };
    let status = rig.export(request(2), Err(large.clone())).await.0.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, large.to_string().as_str()));
    assert_eq!(retry_after_s(&status), None);
    rig.settled(&[(DoorReason::LogFull, 2)]);
    assert_eq!(rig.intake.spans.counts().rejected(RejectReason::LogFull), 4);
}

#[actix_rt::test]
async fn a_batch_that_its_collector_dropped_is_lost_and_its_sender_may_try_again() {
    let rig = Rig::new().await;
    let mut client = rig.client().await;
    let (response, ()) = tokio::join!(client.export(request(2)), async { drop(rig.next_batch().await) });
    let status = response.unwrap_err();
    let text = "span collector failed with the batch in hand: it was not kept";
    assert_eq!((status.code(), status.message()), (Code::Unavailable, text));
    rig.settled(&[(DoorReason::Lost, 1)]);
    assert_eq!(rig.intake.spans.counts().rejected(RejectReason::Lost), 2);
}

#[actix_rt::test]
async fn a_collector_that_takes_nothing_for_too_long_is_overloaded_and_one_that_is_closed_shuts_down() {
    let rig = Rig::new().await;
    let (mut first, mut second) = (rig.client().await, rig.client().await);
    // The inbox holds one batch.
    let blocked = Box::pin(first.export(request(1)));
    let refused = Box::pin(async {
        until("the inbox is full", || rig.intake.collector.depth() == 1).await;
        second.export(request(1)).await.unwrap_err()
    });
    let Either::Right((status, blocked)) = select(blocked, refused).await else { panic!("not blocked") };
    let text = "span collector took no batch for 1ms";
    assert_eq!((status.code(), status.message()), (Code::Unavailable, text));
    let (kept, ()) = tokio::join!(blocked, async { drop(settle(rig.next_batch().await, KEPT)) });
    kept.unwrap();
    rig.settled(&[(DoorReason::Overloaded, 1)]);

    rig.batches.borrow_mut().close();
    let status = first.export(request(1)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "shutting down"));
    rig.settled(&[(DoorReason::Overloaded, 1), (DoorReason::ShuttingDown, 1)]);
}

#[actix_rt::test]
async fn a_sender_that_resets_in_the_middle_leaves_nothing_charged() {
    let rig = Rig::new().await;
    let mut by_hand = ByHand::new(TcpStream::connect(rig.address()).await.unwrap()).await;
    let message = request(100).encode_to_vec();
    by_hand.body.send(framed(&message).slice(..1000)).unwrap();
    let sent = by_hand.sender.send_request(by_hand.request.take().unwrap());
    let some_came = until("some of it came", || rig.counts().pending.bytes == 995);
    let Either::Right(((), sent)) = select(Box::pin(sent), Box::pin(some_came)).await else {
        panic!("answered")
    };
    assert_eq!(rig.intake.admission.in_flight(), message.len());
    drop(sent);
    until("the reset is seen", || rig.counts().pending.requests == 0).await;
    rig.settled(&[(DoorReason::Disconnected, 1)]);
    assert_eq!(rig.connections.counts().open, 1);
}

#[actix_rt::test]
async fn a_connection_that_breaks_takes_its_requests_along() {
    let rig = Rig::new().await;
    let mut by_hand = ByHand::new(TcpStream::connect(rig.address()).await.unwrap()).await;
    by_hand.body.send(framed(&[1; 1000]).slice(..105)).unwrap();
    let sent = Box::pin(by_hand.sender.send_request(by_hand.request.take().unwrap()));
    let some_came = Box::pin(until("some of it came", || rig.counts().pending.bytes == 100));
    let Either::Right(((), sent)) = select(sent, some_came).await else { panic!("answered") };
    drop((sent, by_hand));
    until("the connection is gone", || rig.connections.counts().open == 0).await;
    rig.settled(&[(DoorReason::Disconnected, 1)]);
}

#[actix_rt::test]
async fn a_batch_in_the_collectors_hands_is_kept_and_charged_though_its_sender_gave_up() {
    let rig = Rig::new().await;
    let message = request(2).encode_to_vec();
    let batch = {
        let mut client = rig.client().await;
        let (sent, taken) = (Box::pin(client.export(request(2))), Box::pin(rig.next_batch()));
        let Either::Right((batch, _gave_up)) = select(sent, taken).await else { panic!("answered") };
        batch
    };
    until("the connection is gone", || rig.connections.counts().open == 0).await;
    assert_eq!((rig.intake.admission.in_flight(), rig.counts().pending.requests), (message.len(), 1));
    settle(batch, KEPT);
    assert_eq!(rig.counts().accepted, Tally { requests: 1, bytes: message.len() as u64 });
    rig.settled(&[]);
}

#[actix_rt::test]
async fn told_to_stop_a_connection_finishes_what_has_begun_and_closes() {
    let rig = Rig::new().await;
    let mut client = rig.client().await;
    let (response, report) = tokio::join!(client.export(request(1)), async {
        let batch = rig.next_batch().await;
        let stopping = rig.tree.shutdown(PATIENCE);
        let (report, ()) = tokio::join!(stopping, async {
            until("it is told", || rig.record("connections").state == ChildState::Stopping).await;
            settle(batch, KEPT);
        });
        report
    });
    response.unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(rig.connections.counts(), ConnectionCounts { opened: 1, ..ConnectionCounts::default() });
    rig.settled(&[]);
}

#[actix_rt::test]
async fn a_request_that_outlasts_the_stop_is_cut_off_and_counted_so() {
    let rig = Rig::new().await;
    let mut by_hand = ByHand::new(TcpStream::connect(rig.address()).await.unwrap()).await;
    by_hand.body.send(framed(&[1; 1000]).slice(..105)).unwrap();
    let sent = Box::pin(by_hand.sender.send_request(by_hand.request.take().unwrap()));
    let some_came = Box::pin(until("some of it came", || rig.counts().pending.bytes == 100));
    let Either::Right(((), _sent)) = select(sent, some_came).await else { panic!("answered") };
    let report = rig.tree.shutdown(Duration::from_millis(20)).await;
    assert_eq!(report.given_up, ["connections"]);
    until("it is gone", || rig.connections.counts().open == 0).await;
    rig.settled(&[(DoorReason::ShuttingDown, 1)]);
}

#[actix_rt::test]
async fn one_connection_too_many_is_closed_and_counted() {
    let rig = Rig::with(Setup { connections_max: 1, ..Setup::grpc() }).await;
    let mut first = rig.client().await;
    let mut second = TcpStream::connect(rig.address()).await.unwrap();
    assert_eq!(timeout(PATIENCE, second.read(&mut [0; 10])).await.unwrap().unwrap(), 0);
    let counts = rig.connections.counts();
    assert_eq!((counts.open, counts.opened, counts.refused), (1, 1, 1));
    first.export(request(0)).await.unwrap();
}

#[actix_rt::test]
async fn a_restarted_acceptor_serves_those_who_came_meanwhile() {
    let fuse = Arc::new(AtomicBool::new(true));
    let burn = Arc::clone(&fuse);
    let trap = Arc::new(move || assert!(!burn.swap(false, Ordering::Relaxed), "as the test wants"));
    let rig = Rig::with(Setup { trap, ..Setup::grpc() }).await;
    let _victim = TcpStream::connect(rig.address()).await.unwrap();
    until("it panics", || rig.record("acceptor").panics == 1).await;
    assert_ne!(rig.record("acceptor").state, ChildState::Running);
    rig.client().await.export(request(0)).await.unwrap();
    assert_eq!((rig.record("acceptor").restarts, rig.connections.counts().opened), (1, 1));
}

#[actix_rt::test]
async fn connections_live_on_the_arbiters_in_turn() {
    let arbiters = [Arbiter::new(), Arbiter::new()];
    let handles = arbiters.iter().map(Arbiter::handle).collect();
    let rig = Rig::with(Setup { arbiters: handles, ..Setup::grpc() }).await;
    let (mut first, mut second) = (rig.client().await, rig.client().await);
    for client in [&mut first, &mut second] {
        let (kept, ()) =
            tokio::join!(client.export(request(1)), async { drop(settle(rig.next_batch().await, KEPT)) });
        kept.unwrap();
    }
    // An arbiter that ends takes its connections along, and no others.
    let [one, other] = arbiters;
    one.stop();
    one.join().unwrap();
    assert_eq!(rig.connections.counts().open, 1);
    assert!(first.export(request(0)).await.is_err());
    second.export(request(0)).await.unwrap();
    other.stop();
    rig.settled(&[]);
}

#[actix_rt::test]
async fn a_client_of_http1_is_told_and_another_stranger_is_not() {
    let rig = Rig::new().await;
    let mut stranger = TcpStream::connect(rig.address()).await.unwrap();
    stranger.write_all(b"GET /metrics HTTP/1.1\r\nhost: nyx\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stranger.read_to_string(&mut answer)).await.unwrap().unwrap();
    let expected = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 49\r\n\
                    connection: close\r\n\r\nthis port speaks OTLP over gRPC, which is HTTP/2\n";
    assert_eq!(answer, expected);
    drop(stranger);
    let mut stranger = TcpStream::connect(rig.address()).await.unwrap();
    stranger.write_all(&[0x16, 3, 1, 2, 0]).await.unwrap();
    let read = timeout(PATIENCE, stranger.read(&mut [0; 10])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)));
    until("both are gone", || rig.connections.counts().open == 0).await;
    assert_eq!(rig.connections.counts().opened, 2);
    rig.settled(&[]);
}

#[actix_rt::test]
async fn a_client_that_says_nothing_is_let_go() {
    let (rig, begun) = (Rig::new().await, tokio::time::Instant::now());
    let mut silent = TcpStream::connect(rig.address()).await.unwrap();
    until("it is connected", || rig.connections.counts().open == 1).await;
    tokio::time::pause();
    let paused = tokio::time::Instant::now();
    assert_eq!(silent.read(&mut [0; 10]).await.unwrap(), 0);
    let (all, since) = (begun.elapsed(), paused.elapsed());
    assert!(all.as_secs() >= 10 && since.as_secs() <= 10, "{all:?}, {since:?} of them paused");
    assert_eq!(rig.connections.counts().open, 0);
}

#[actix_rt::test]
async fn a_unix_socket_serves_the_same() {
    let path = std::env::temp_dir().join(format!("nyx-door-{}.sock", std::process::id()));
    let rig = Rig::with(Setup { listen: ListenAddr::Unix(path.clone()), ..Setup::grpc() }).await;
    let by_hand = ByHand::new(tokio::net::UnixStream::connect(&path).await.unwrap()).await;
    let ByHand { body, mut sender, request: sent } = by_hand;
    body.send(framed(&request(2).encode_to_vec())).unwrap();
    drop(body);
    let (response, bytes) =
        tokio::join!(sender.send_request(sent.unwrap()), async { settle(rig.next_batch().await, KEPT) });
    let body = response.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), framed(b""));
    assert_eq!(bytes, request(2).encode_to_vec());
    rig.settled(&[]);
    assert!(rig.tree.shutdown(PATIENCE).await.is_clean());
    assert!(path.exists(), "the listener is not the acceptor's");
    drop(rig);
    assert!(!path.exists());
}

/// A door whose requests can be made to panic.
struct Brittle(Arc<GrpcDoor>);

#[derive(Clone)]
struct BrittleService(Rc<GrpcService>);

impl hyper::service::Service<http::Request<Incoming>> for BrittleService {
    type Response = http::Response<Reply>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let service = Rc::clone(&self.0);
        Box::pin(async move {
            assert!(!request.headers().contains_key("panic"), "as the test wants");
            service.call(request).await
        })
    }
}

impl Door for Brittle {
    fn serve(self: Arc<Self>, socket: Accepted, stop: Stop) -> LocalBoxFuture<'static, ()> {
        let unanswered = Unanswered::default();
        let service = BrittleService(Rc::new(GrpcService::new(Arc::clone(&self.0), unanswered.clone())));
        Box::pin(async move {
            http2::greet_and_serve(socket, &self.0.tls, self.0.http2, service, unanswered, stop).await;
        })
    }
}

#[actix_rt::test]
async fn a_panic_in_a_request_closes_its_connection_and_no_other() {
    let rig = Rig::with(Setup {
        door: Box::new(|intake| {
            let (http2, tls) = (Http2Settings::default(), DoorTls::grpc(None).into());
            Arc::new(Brittle(Arc::new(GrpcDoor { http2, tls, intake })))
        }),
        ..Setup::grpc()
    })
    .await;
    let (mut healthy, mut doomed) = (rig.client().await, rig.client().await);
    let mut panicking = doomed.clone();
    let mut poison = tonic::Request::new(request(1));
    poison.metadata_mut().insert("panic", "now".parse().unwrap());
    // A request that waits for the collector on the same connection goes with it, and is still kept.
    let (waiting, (poisoned, ())) = tokio::join!(doomed.export(request(2)), async {
        let batch = rig.next_batch().await;
        let poisoned = panicking.export(poison).await;
        (poisoned, drop(settle(batch, KEPT)))
    });
    assert!(waiting.is_err() && poisoned.is_err());
    until("one connection is gone", || rig.connections.counts().open == 1).await;
    let record = rig.record("connections");
    assert_eq!((record.panics, record.last_failure.unwrap().message.as_str()), (1, "as the test wants"));
    let (kept, ()) =
        tokio::join!(healthy.export(request(1)), async { drop(settle(rig.next_batch().await, KEPT)) });
    kept.unwrap();
    assert_eq!((rig.counts().accepted.requests, rig.intake.spans.counts().accepted), (2, 3));
    rig.settled(&[]);
}

#[actix_rt::test]
async fn a_request_is_recorded_in_its_sender_s_trace_and_its_batch_knows() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let (tracer, recorded) = recording_all(1.0);
    let rig = Rig::with(Setup { tracer, ..Setup::grpc() }).await;
    let mut client = rig.client().await;
    let mut told = tonic::Request::new(request(3));
    told.metadata_mut().insert("traceparent", PARENT.parse().unwrap());
    let (response, origin) = tokio::join!(client.export(told), async {
        let batch = rig.next_batch().await;
        let origin = batch.origin;
        settle(batch, KEPT);
        origin
    });
    response.unwrap();
    rig.send_raw(&b"nonsense"[..]).await.unwrap_err();
    let spans = recorded.take();
    assert_eq!(spans.iter().map(|span| span.kind).collect::<Vec<_>>(), [SpanKind::Server; 2]);
    assert_eq!(origin, Origin::Recorded(spans[0].context));
    let parent: SpanContext = PARENT.parse().unwrap();
    assert_eq!((spans[0].context.trace_id, spans[0].parent), (parent.trace_id, Some((parent.span_id, true))));
    assert!(spans[0].attributes.contains(&("nyx.request.spans", Attribute::Number(3))), "{spans:?}");
    assert!(spans[1].attributes.contains(&("nyx.request.refusal", Attribute::Word("invalid"))), "{spans:?}");
    assert_eq!(spans[1].parent, None);
}

#[actix_rt::test]
async fn a_recorded_request_whose_sender_gives_up_ends_as_that() {
    let (tracer, recorded) = recording_all(1.0);
    let rig = Rig::with(Setup { tracer, ..Setup::grpc() }).await;
    let mut by_hand = ByHand::new(TcpStream::connect(rig.address()).await.unwrap()).await;
    let request = by_hand.request.take().unwrap();
    let response = by_hand.sender.send_request(request);
    by_hand.body.send(Bytes::from_static(&[0, 0])).unwrap();
    until("it has come", || rig.counts().pending.requests == 1).await;
    drop((response, by_hand));
    until("it is over", || rig.counts().pending.requests == 0).await;
    let mut spans = recorded.take();
    until("it is recorded", || {
        spans.extend(recorded.take());
        !spans.is_empty()
    })
    .await;
    let refusal = ("nyx.request.refusal", Attribute::Word("disconnected"));
    assert!(spans[0].attributes.contains(&refusal), "{spans:?}");
}
