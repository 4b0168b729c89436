use std::{io::Write as _, time::Duration};

use flate2::{Compression, write::GzEncoder};
use futures_util::future::{Either, select};
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use hyper::client::conn::{http1 as client_http1, http2 as client_http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::*;
use crate::{
    accept::{
        DoorReason, ListenAddr, Tally,
        status::RpcStatus,
        testing::{
            IN_FLIGHT, KEPT, MAX_REQUEST, PATIENCE, Rig, Setup, large_request, request, settle, until,
        },
    },
    log::CommitError,
    span::scan,
    supervise::ChildState,
};

pub(in crate::accept) fn http(intake: Intake) -> Arc<dyn Door> {
    let (http1, http2) = (Http1Settings::default(), Http2Settings::default());
    Arc::new(HttpDoor { http1, http2, tls: DoorTls::http(None).into(), intake })
}

type Post = Request<Full<Bytes>>;

fn post(body: impl Into<Bytes>) -> Post {
    let request = Request::post("/v1/traces").header("host", "door");
    request.header("content-type", "application/x-protobuf").body(Full::new(body.into())).unwrap()
}

fn with(mut post: Post, name: &'static str, value: &'static str) -> Post {
    post.headers_mut().insert(name, HeaderValue::from_static(value));
    post
}

fn packed(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// A response, read to its end.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    async fn of(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Self { status: head.status, headers: head.headers, body }
    }

    fn header(&self, name: &str) -> &str {
        header(&self.headers, name)
    }

    /// A refusal: its status, and what the body says.
    fn refusal(&self) -> (u16, i32, String) {
        assert_eq!(self.header("content-type"), PROTOBUF);
        let status = RpcStatus::decode(&*self.body).unwrap();
        (self.status.as_u16(), status.code, status.message)
    }

    fn is_success(&self) {
        assert_eq!((self.status, &*self.body), (StatusCode::OK, &b""[..]), "{self:?}");
        assert_eq!(self.header("content-type"), PROTOBUF);
    }
}

const PROTOBUF: &str = "application/x-protobuf";

/// A connection with a client at its other end.
struct Client(client_http1::SendRequest<Full<Bytes>>);

impl Client {
    async fn new(rig: &Rig) -> Self {
        let io = TokioIo::new(TcpStream::connect(rig.address()).await.unwrap());
        let (sender, connection) = client_http1::handshake(io).await.unwrap();
        #[allow(clippy::disallowed_methods, reason = "the client's side of the connection")]
        actix_rt::spawn(connection);
        Self(sender)
    }

    async fn send(&mut self, post: Post) -> Answer {
        timeout(PATIENCE, self.0.ready()).await.unwrap().unwrap();
        Answer::of(self.0.send_request(post).await.unwrap()).await
    }

    /// Sends a request and answers it as the log would.
    async fn export(&mut self, rig: &Rig, post: Post) -> (Answer, Bytes) {
        tokio::join!(self.send(post), async { settle(rig.next_batch().await, KEPT) })
    }
}

impl Rig {
    async fn http() -> Self {
        Self::with(Setup::new(http)).await
    }

    /// A request over a connection of its own.
    async fn posted(&self, post: Post) -> Answer {
        Client::new(self).await.send(post).await
    }

    /// A message over a connection of its own: the status, the content type and the body of the answer.
    pub(in crate::accept) async fn send_http(
        &self,
        content_type: &'static str,
        message: impl Into<Bytes>,
    ) -> (u16, String, Bytes) {
        let answer = self.posted(with(post(message), "content-type", content_type)).await;
        (answer.status.as_u16(), answer.header("content-type").to_owned(), answer.body)
    }

    /// Bytes over a connection of their own, and all that comes back until its end.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut socket = TcpStream::connect(self.address()).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, socket.read_to_end(&mut answer)).await.unwrap().unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

#[actix_rt::test]
async fn spans_reach_the_collector_as_they_came_and_a_success_has_no_bytes() {
    let rig = Rig::http().await;
    let (answer, bytes) = Client::new(&rig).await.export(&rig, post(request(3).encode_to_vec())).await;
    answer.is_success();
    assert_eq!(answer.header("content-length"), "0");
    assert_eq!(bytes, request(3).encode_to_vec());
    assert_eq!(rig.counts().accepted, Tally { requests: 1, bytes: bytes.len() as u64 });
    assert_eq!((rig.intake.spans.counts().scanned, rig.intake.spans.counts().accepted), (3, 3));
    rig.settled(&[]);
}

#[actix_rt::test]
async fn a_connection_serves_one_request_after_the_other() {
    let rig = Rig::http().await;
    let mut client = Client::new(&rig).await;
    for spans in 1..=3 {
        let (answer, bytes) = client.export(&rig, post(request(spans).encode_to_vec())).await;
        answer.is_success();
        assert_eq!(bytes, request(spans).encode_to_vec());
    }
    // One that is refused, and was read, is no reason to part.
    assert_eq!(client.send(post("nonsense")).await.status, StatusCode::BAD_REQUEST);
    client.send(post("")).await.is_success();
    assert_eq!((rig.connections.counts().opened, rig.counts().received.requests), (1, 5));
    rig.settled(&[(DoorReason::Invalid, 1)]);
}

#[actix_rt::test]
async fn a_packed_request_is_kept_unpacked_and_counted_as_it_came() {
    let rig = Rig::http().await;
    let plain = request(500).encode_to_vec();
    let mut client = Client::new(&rig).await;
    for name in ["gzip", "GZIP", "x-gzip"] {
        let before = rig.counts().accepted.bytes;
        let request = with(post(packed(&plain)), "content-encoding", name);
        let (answer, bytes) = client.export(&rig, request).await;
        answer.is_success();
        assert_eq!(bytes, plain);
        assert_eq!(rig.counts().accepted.bytes - before, packed(&plain).len() as u64);
    }
    let plain = with(post(plain), "content-encoding", "identity");
    client.export(&rig, plain).await.0.is_success();
    rig.settled(&[]);
}

#[actix_rt::test]
async fn a_body_without_a_length_is_charged_as_it_comes_and_kept_whole() {
    let rig = Rig::http().await;
    let message = large_request(300_000).encode_to_vec();
    for (encoding, body) in [("identity", message.clone()), ("gzip", packed(&message))] {
        let mut socket = TcpStream::connect(rig.address()).await.unwrap();
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nhost: door\r\ncontent-type: {PROTOBUF}\r\n\
             content-encoding: {encoding}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let (first, rest) = body.split_at(body.len() / 2);
        for piece in [first, rest] {
            socket.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.unwrap();
            socket.write_all(piece).await.unwrap();
            socket.write_all(b"\r\n").await.unwrap();
        }
        until("all but the end has come", || rig.counts().pending.bytes == body.len() as u64).await;
        assert!(rig.intake.admission.in_flight() >= 300_000, "{encoding}");
        socket.write_all(b"0\r\n\r\n").await.unwrap();
        let batch = rig.next_batch().await;
        assert_eq!(rig.intake.admission.in_flight(), message.len());
        assert_eq!(settle(batch, KEPT), message);
        let mut answer = String::new();
        timeout(PATIENCE, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    rig.settled(&[]);
}

#[actix_rt::test]
async fn a_sender_that_asks_first_is_told_to_go_on_or_that_there_is_no_need() {
    let rig = Rig::http().await;
    let mut socket = TcpStream::connect(rig.address()).await.unwrap();
    let head = |kind: &str| {
        format!(
            "POST /v1/traces HTTP/1.1\r\nhost: door\r\ncontent-type: {kind}\r\nexpect: 100-continue\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            request(1).encoded_len()
        )
    };
    socket.write_all(head(PROTOBUF).as_bytes()).await.unwrap();
    let mut said = [0; 25];
    timeout(PATIENCE, socket.read_exact(&mut said)).await.unwrap().unwrap();
    assert_eq!(&said, b"HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(&request(1).encode_to_vec()).await.unwrap();
    settle(rig.next_batch().await, KEPT);
    let mut answer = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");

    let answer = rig.raw(head("text/plain").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 415 Unsupported Media Type\r\n"), "{answer}");
    rig.settled(&[(DoorReason::Unsupported, 1)]);
}

#[actix_rt::test]
async fn http2_is_served_as_well() {
    let rig = Rig::http().await;
    let io = TokioIo::new(TcpStream::connect(rig.address()).await.unwrap());
    let (mut sender, connection) = client_http2::handshake(TokioExecutor::new(), io).await.unwrap();
    #[allow(clippy::disallowed_methods, reason = "the client's side of the connection")]
    actix_rt::spawn(connection);
    let mut request_of = |body: Vec<u8>| {
        let request = Request::post("http://door/v1/traces").header("content-type", PROTOBUF);
        sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap())
    };
    let sent = request_of(request(2).encode_to_vec());
    let (response, bytes) = tokio::join!(sent, async { settle(rig.next_batch().await, KEPT) });
    let response = response.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    Answer::of(response).await.is_success();
    assert_eq!(bytes, request(2).encode_to_vec());
    let refused = Answer::of(request_of(b"nonsense".to_vec()).await.unwrap()).await;
    assert_eq!(refused.refusal().0, 400);
    rig.settled(&[(DoorReason::Invalid, 1)]);
}

#[actix_rt::test]
async fn a_request_without_spans_is_a_success_and_does_not_go_to_the_collector() {
    let rig = Rig::http().await;
    rig.posted(post("")).await.is_success();
    rig.posted(post(request(0).encode_to_vec())).await.is_success();
    assert!(rig.batches.borrow_mut().try_recv().is_err());
    assert_eq!(rig.counts().accepted.requests, 2);
    rig.settled(&[]);
}

#[actix_rt::test]
async fn a_request_over_the_limit_is_refused_for_good_before_and_after_unpacking() {
    let rig = Rig::http().await;
    let large = large_request(MAX_REQUEST).encode_to_vec();
    let declared = rig.posted(post(large.clone())).await;
    let text = format!("message of {} bytes is larger than the limit of 1048576 bytes", large.len());
    assert_eq!(declared.refusal(), (413, 8, text));
    assert_eq!(declared.header("retry-after"), "");

    let unpacked = rig.posted(with(post(packed(&large)), "content-encoding", "gzip")).await;
    let text = "message unpacks to more than the limit of 1048576 bytes".to_owned();
    assert_eq!(unpacked.refusal(), (413, 8, text));

    let mut chunked = b"POST /v1/traces HTTP/1.1\r\nhost: door\r\ntransfer-encoding: chunked\r\n\
                        content-type: application/x-protobuf\r\n\r\n"
        .to_vec();
    chunked.extend_from_slice(format!("{:x}\r\n", large.len()).as_bytes());
    chunked.extend_from_slice(&large);
    let answer = rig.raw(&chunked).await;
    assert!(answer.starts_with("HTTP/1.1 413 Payload Too Large\r\n"), "{answer}");
    assert!(answer.contains("message is larger than the limit of 1048576 bytes"), "{answer}");

    // Packed bytes count though they unpack to nothing: here stored blocks without a byte (RFC 1951, section 3.2.4).
    let mut empty = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255].to_vec();
    empty.extend([0, 0, 0, 0xff, 0xff].repeat(MAX_REQUEST / 5 + 1));
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: door\r\ntransfer-encoding: chunked\r\ncontent-encoding: gzip\r\n\
         connection: close\r\ncontent-type: application/x-protobuf\r\n\r\n{:x}\r\n",
        empty.len()
    );
    let answer = rig.raw(&[head.as_bytes(), &empty, b"\r\n0\r\n\r\n"].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 413 Payload Too Large\r\n"), "{answer}");
    rig.settled(&[(DoorReason::TooLarge, 4)]);
}

#[actix_rt::test]
async fn a_request_of_just_the_limit_is_taken_however_it_comes_and_one_byte_more_is_not() {
    let rig = Rig::http().await;
    let around = large_request(1_000_000).encoded_len() - 1_000_000;
    let largest = large_request(MAX_REQUEST - around).encode_to_vec();
    assert_eq!(largest.len(), MAX_REQUEST);
    let mut client = Client::new(&rig).await;
    let gzip = with(post(packed(&largest)), "content-encoding", "gzip");
    for post in [post(largest.clone()), gzip] {
        let (answer, bytes) = client.export(&rig, post).await;
        answer.is_success();
        assert_eq!(bytes, largest);
    }
    let answer = rig.posted(post(large_request(MAX_REQUEST - around + 1).encode_to_vec())).await;
    assert_eq!(answer.refusal().0, 413);
    rig.settled(&[(DoorReason::TooLarge, 1)]);
}

#[actix_rt::test]
async fn a_request_that_does_not_fit_now_is_told_when_to_come_again() {
    let rig = Rig::http().await;
    let others = rig.intake.admission.try_reserve(IN_FLIGHT - 10).unwrap();
    let refused = rig.posted(post(request(1).encode_to_vec())).await;
    let bytes = request(1).encoded_len();
    let text = format!("4194294 of 4194304 bytes are in flight, {bytes} more do not fit");
    assert_eq!(refused.refusal(), (429, 8, text));
    assert_eq!(refused.header("retry-after"), "1");
    drop(others);
    rig.settled(&[(DoorReason::Admission, 1)]);
    let mut client = Client::new(&rig).await;
    client.export(&rig, post(request(1).encode_to_vec())).await.0.is_success();
}

#[actix_rt::test]
async fn a_full_log_a_failed_one_and_a_busy_collector_ask_to_come_again() {
    let rig = Rig::http().await;
    let full = CommitError::Full { bytes: 1, held: 9, limit: 9 };
    let mut client = Client::new(&rig).await;
    let (refused, _) = tokio::join!(client.send(post(request(2).encode_to_vec())), async {
        settle(rig.next_batch().await, Err(full.clone()))
    });
    assert_eq!((refused.refusal(), refused.header("retry-after")), ((503, 8, full.to_string()), "1"));

    let mut other = Client::new(&rig).await;
    let blocked = Box::pin(client.send(post(request(1).encode_to_vec())));
    let refused = Box::pin(async {
        until("the inbox is full", || rig.intake.collector.depth() == 1).await;
        other.send(post(request(1).encode_to_vec())).await
    });
    let Either::Right((refused, blocked)) = select(blocked, refused).await else { panic!("not blocked") };
    let text = "span collector took no batch for 1ms".to_owned();
    assert_eq!((refused.refusal(), refused.header("retry-after")), ((503, 14, text), "1"));
    let (kept, _) = tokio::join!(blocked, async { settle(rig.next_batch().await, KEPT) });
    kept.is_success();
    rig.settled(&[(DoorReason::LogFull, 1), (DoorReason::Overloaded, 1)]);
}

#[actix_rt::test]
async fn bytes_that_are_no_trace_request_are_a_bad_request() {
    let rig = Rig::http().await;
    let text = scan(b"\x0a\x05no", |_| {}).unwrap_err().to_string();
    assert_eq!(rig.posted(post("\x0a\x05no")).await.refusal(), (400, 3, text));
    let cut = packed(&request(9).encode_to_vec());
    let cut = with(post(cut[..cut.len() - 9].to_vec()), "content-encoding", "gzip");
    let text = "message is no valid gzip: it ends early".to_owned();
    assert_eq!(rig.posted(cut).await.refusal(), (400, 3, text));
    rig.settled(&[(DoorReason::Invalid, 2)]);
}

#[actix_rt::test]
async fn other_pages_methods_types_and_encodings_are_refused_by_name() {
    let rig = Rig::http().await;
    let mut page = post("");
    *page.uri_mut() = "/v1/metrics".parse().unwrap();
    let answer = rig.posted(page).await;
    let text = "/v1/metrics is not served here: POST /v1/traces is".to_owned();
    assert_eq!(answer.refusal(), (404, 12, text));

    let mut method = post("");
    *method.method_mut() = Method::GET;
    let answer = rig.posted(method).await;
    assert_eq!(answer.refusal(), (405, 12, "method GET is not allowed: POST is".to_owned()));
    assert_eq!(answer.header("allow"), "POST");

    let answer = rig.posted(with(post(""), "content-encoding", "zstd")).await;
    let text = "content-encoding \"zstd\" is neither identity nor gzip".to_owned();
    assert_eq!(answer.refusal(), (415, 12, text));
    assert_eq!(answer.header("accept-encoding"), "gzip, identity");

    let mut twice = with(post(packed(&packed(b""))), "content-encoding", "gzip");
    twice.headers_mut().append("content-encoding", HeaderValue::from_static("gzip"));
    let text = "content-encoding \"gzip, …\" is neither identity nor gzip".to_owned();
    assert_eq!(rig.posted(twice).await.refusal(), (415, 12, text));

    // To whom names no encoding of OTLP's, in the one that people read.
    let answer = rig.posted(with(post("spans"), "content-type", "text/plain")).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (415, "application/json"));
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let text = "content-type \"text/plain\" is neither application/x-protobuf nor application/json";
    assert_eq!(body, serde_json::json!({"code": 12, "message": text}));
    rig.settled(&[(DoorReason::Unsupported, 5)]);
}

fn json_post(text: impl Into<Bytes>) -> Post {
    with(post(text), "content-type", "application/json")
}

const JSON: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"01010101010101010101010101010101",
    "spanId":"0000000000000001","name":"span 0","startTimeUnixNano":"1","endTimeUnixNano":2}]}]}]}"#;

#[actix_rt::test]
async fn spans_in_json_are_kept_as_protobuf_and_answered_in_json() {
    let rig = Rig::http().await;
    let mut client = Client::new(&rig).await;
    let charset = with(json_post(JSON), "content-type", "application/json; charset=utf-8");
    let gzip = with(json_post(packed(JSON.as_bytes())), "content-encoding", "gzip");
    for post in [json_post(JSON), charset, gzip] {
        let (answer, bytes) = tokio::join!(client.send(post), async {
            let batch = rig.next_batch().await;
            assert_eq!(rig.intake.admission.in_flight(), request(1).encoded_len());
            settle(batch, KEPT)
        });
        assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/json"));
        assert_eq!((&*answer.body, bytes), (&b"{}"[..], request(1).encode_to_vec().into()));
    }
    let answer = client.send(json_post("{}")).await;
    assert_eq!((answer.status, &*answer.body), (StatusCode::OK, &b"{}"[..]));
    let received = 2 * JSON.len() + packed(JSON.as_bytes()).len() + 2;
    assert_eq!(rig.counts().accepted, Tally { requests: 4, bytes: received as u64 });
    rig.settled(&[]);
}

#[actix_rt::test]
async fn json_that_is_none_or_no_trace_request_is_a_bad_request_that_names_the_place() {
    let rig = Rig::http().await;
    let wrong_id = JSON.replace("0000000000000001", "000000000000000x");
    for (text, why) in [
        ("", "invalid JSON at line 1, column 0: EOF while parsing a value"),
        ("{", "invalid JSON at line 1, column 1: EOF while parsing an object"),
        (
            &wrong_id,
            "invalid JSON at line 2, column 31 (resourceSpans[0].scopeSpans[0].spans[0].spanId): \
             must be a text of hexadecimal digits, two a byte",
        ),
        // Valid JSON, and ids of a length that no scan lets through.
    ] {
        let answer = rig.posted(json_post(text.to_owned())).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (400, "application/json"));
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body, serde_json::json!({"code": 3, "message": why}));
    }
    rig.settled(&[(DoorReason::Invalid, 3)]);
}

#[actix_rt::test]
async fn json_is_charged_for_what_its_conversion_takes_and_refused_where_that_does_not_fit() {
    let rig = Rig::http().await;
    let others = rig.intake.admission.try_reserve(IN_FLIGHT - JSON.len() * 2).unwrap();
    let answer = rig.posted(json_post(JSON)).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, "1"));
    drop(others);
    let large = format!("{}{}", JSON, " ".repeat(MAX_REQUEST));
    let answer = rig.posted(json_post(large)).await;
    assert_eq!(answer.status.as_u16(), 413);
    rig.settled(&[(DoorReason::Admission, 1), (DoorReason::TooLarge, 1)]);
}

#[actix_rt::test]
async fn an_answer_arrives_though_most_of_its_request_was_not_read() {
    let rig = Rig::http().await;
    let mut socket = TcpStream::connect(rig.address()).await.unwrap();
    let head = "POST /v2/traces HTTP/1.1\r\nhost: door\r\ncontent-length: 900000\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    // As some clients do, it sends everything before it looks for an answer.
    socket.write_all(&vec![7; 900_000]).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    until("the connection is gone", || rig.connections.counts().open == 0).await;
    rig.settled(&[(DoorReason::Unsupported, 1)]);
}

#[actix_rt::test]
async fn a_sender_that_breaks_off_leaves_nothing_charged() {
    let rig = Rig::http().await;
    for end in ["content-length: 1000\r\n\r\n", "transfer-encoding: chunked\r\n\r\n3e8\r\n"] {
        let mut socket = TcpStream::connect(rig.address()).await.unwrap();
        let head = format!("POST /v1/traces HTTP/1.1\r\nhost: door\r\ncontent-type: {PROTOBUF}\r\n{end}");
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(&[1; 100]).await.unwrap();
        until("some of it came", || rig.counts().pending.bytes == 100).await;
        assert!(rig.intake.admission.in_flight() >= 100);
        drop(socket);
        until("the connection is gone", || rig.connections.counts().open == 0).await;
    }
    rig.settled(&[(DoorReason::Disconnected, 2)]);
}

#[actix_rt::test]
async fn a_batch_in_the_collectors_hands_is_kept_though_its_sender_gave_up() {
    let rig = Rig::http().await;
    let batch = {
        let mut client = Client::new(&rig).await;
        let sent = Box::pin(client.send(post(request(2).encode_to_vec())));
        let Either::Right((batch, _gave_up)) = select(sent, Box::pin(rig.next_batch())).await else {
            panic!("answered")
        };
        batch
    };
    until("the connection is gone", || rig.connections.counts().open == 0).await;
    assert_eq!(rig.counts().pending.requests, 1);
    settle(batch, KEPT);
    assert_eq!(rig.counts().accepted.requests, 1);
    rig.settled(&[]);
}

#[actix_rt::test]
async fn told_to_stop_a_connection_finishes_what_has_begun_and_idle_ones_close_at_once() {
    let rig = Rig::http().await;
    let mut idle = Client::new(&rig).await;
    idle.send(post("")).await.is_success();
    let mut client = Client::new(&rig).await;
    let (answer, report) = tokio::join!(client.send(post(request(1).encode_to_vec())), async {
        let batch = rig.next_batch().await;
        let (report, ()) = tokio::join!(rig.tree.shutdown(PATIENCE), async {
            until("it is told", || rig.record("connections").state == ChildState::Stopping).await;
            until("the idle one is gone", || rig.connections.counts().open == 1).await;
            settle(batch, KEPT);
        });
        report
    });
    answer.is_success();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(rig.connections.counts().open, 0);
    rig.settled(&[]);
}

#[actix_rt::test]
async fn a_request_that_outlasts_the_stop_is_cut_off_and_counted_so() {
    let rig = Rig::http().await;
    let mut socket = TcpStream::connect(rig.address()).await.unwrap();
    let head = "POST /v1/traces HTTP/1.1\r\nhost: door\r\ncontent-length: 1000\r\n\
                content-type: application/x-protobuf\r\n\r\nsome";
    socket.write_all(head.as_bytes()).await.unwrap();
    until("some of it came", || rig.counts().pending.bytes == 4).await;
    let report = rig.tree.shutdown(Duration::from_millis(20)).await;
    assert_eq!(report.given_up, ["connections"]);
    until("it is gone", || rig.connections.counts().open == 0).await;
    rig.settled(&[(DoorReason::ShuttingDown, 1)]);
}

/// A request of which a byte came, and then so many more each second, is refused in time.
async fn is_too_slow(bytes_a_second: usize) {
    let (rig, begun) = (Rig::http().await, tokio::time::Instant::now());
    let mut socket = TcpStream::connect(rig.address()).await.unwrap();
    let head = "POST /v1/traces HTTP/1.1\r\nhost: door\r\ncontent-length: 1000\r\n\
                content-type: application/x-protobuf\r\n\r\nx";
    socket.write_all(head.as_bytes()).await.unwrap();
    until("some of it came", || rig.counts().pending.bytes == 1).await;
    tokio::time::pause();
    let paused = tokio::time::Instant::now();
    let (mut reading, mut writing) = socket.split();
    let drip = async {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        loop {
            seconds.tick().await;
            // Once the answer is out, whether anybody reads on is no matter.
            let _over = writing.write_all(&vec![b'x'; bytes_a_second]).await;
        }
    };
    let mut answer = [0; 36];
    let Either::Left((Ok(_), _drip)) =
        select(Box::pin(reading.read_exact(&mut answer)), Box::pin(drip)).await
    else {
        panic!("no answer")
    };
    rig.settled(&[(DoorReason::SlowBody, 1)]);
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 503 Service Unavailable\r\nco");
    // What passed before the clock stood still counts, however long the machine took for it.
    let (all, since) = (begun.elapsed(), paused.elapsed());
    assert!(all.as_secs() >= 30 && since.as_secs() <= 31, "{all:?}, {since:?} of them paused");
}

#[actix_rt::test]
async fn a_body_that_stops_coming_is_refused_over_a_real_socket() {
    is_too_slow(0).await;
}

#[actix_rt::test]
async fn a_body_that_comes_a_byte_a_second_is_refused_over_a_real_socket() {
    is_too_slow(1).await;
}

/// A connection on which this was said, and then nothing more, is closed in time.
async fn is_let_go_after(said: &str) {
    let (rig, begun) = (Rig::http().await, tokio::time::Instant::now());
    let mut socket = TcpStream::connect(rig.address()).await.unwrap();
    socket.write_all(said.as_bytes()).await.unwrap();
    until("it is connected", || rig.connections.counts().open == 1).await;
    tokio::time::pause();
    let paused = tokio::time::Instant::now();
    let mut rest = Vec::new();
    let _reset = socket.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "{rest:?}");
    until("it is gone", || rig.connections.counts().open == 0).await;
    let (all, since) = (begun.elapsed(), paused.elapsed());
    assert!(all.as_secs() >= 60 && since.as_secs() <= 60, "{all:?}, {since:?} of them paused");
    rig.settled(&[]);
}

#[actix_rt::test]
async fn a_client_that_says_nothing_is_let_go() {
    is_let_go_after("").await;
}

#[actix_rt::test]
async fn a_client_that_stops_in_the_head_of_its_request_is_let_go() {
    is_let_go_after("POST /v1/traces HTTP/1.1\r\nhost: door\r\n").await;
}

#[actix_rt::test]
async fn a_client_that_has_nothing_more_to_say_is_let_go() {
    let rig = Rig::http().await;
    let mut client = Client::new(&rig).await;
    client.send(post("")).await.is_success();
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    while !client.0.is_closed() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!((60..=61).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    rig.settled(&[]);
}

#[actix_rt::test]
async fn a_stranger_and_a_head_that_is_too_large_are_sent_away() {
    let rig = Rig::http().await;
    assert_eq!(rig.raw(&[0x16, 3, 1, 2, 0]).await, "");
    let head = format!("POST /v1/traces HTTP/1.1\r\nhost: door\r\nx: {}\r\n\r\n", "x".repeat(70_000));
    let mut socket = TcpStream::connect(rig.address()).await.unwrap();
    let _cut_off = socket.write_all(head.as_bytes()).await;
    until("both are gone", || rig.connections.counts().open == 0).await;
    let answer = rig.raw(b"GARBAGE\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    rig.settled(&[]);
}

#[actix_rt::test]
async fn a_unix_socket_serves_the_same() {
    let path = std::env::temp_dir().join(format!("nyx-http-door-{}.sock", std::process::id()));
    let rig = Rig::with(Setup { listen: ListenAddr::Unix(path.clone()), ..Setup::new(http) }).await;
    let io = TokioIo::new(tokio::net::UnixStream::connect(&path).await.unwrap());
    let (mut sender, connection) = client_http1::handshake(io).await.unwrap();
    #[allow(clippy::disallowed_methods, reason = "the client's side of the connection")]
    actix_rt::spawn(connection);
    let sent = sender.send_request(post(request(2).encode_to_vec()));
    let (response, bytes) = tokio::join!(sent, async { settle(rig.next_batch().await, KEPT) });
    Answer::of(response.unwrap()).await.is_success();
    assert_eq!(bytes, request(2).encode_to_vec());
    rig.settled(&[]);
}

/// A door whose requests can be made to panic.
#[derive(Debug, Clone)]
struct Brittle(HttpService);

impl hyper::service::Service<Request<Incoming>> for Brittle {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move {
            assert!(!request.headers().contains_key("panic"), "as the test wants");
            service.call(request).await
        })
    }
}

struct BrittleDoor(Arc<HttpDoor>);

impl Door for BrittleDoor {
    fn serve(self: Arc<Self>, socket: Accepted, stop: Stop) -> LocalBoxFuture<'static, ()> {
        let (unanswered, unread) = (Unanswered::default(), Rc::new(Cell::new(false)));
        let door = Arc::clone(&self.0);
        let service =
            Brittle(HttpService { door, unanswered: unanswered.clone(), unread: Rc::clone(&unread) });
        let socket = socket.into_socket().unwrap();
        Box::pin(http1::serve(socket, self.0.http1, service, unanswered, (unread, 0), stop))
    }
}

#[actix_rt::test]
async fn a_panic_in_a_request_closes_its_connection_and_no_other() {
    let door = |intake| -> Arc<dyn Door> {
        let (http1, http2) = (Http1Settings::default(), Http2Settings::default());
        Arc::new(BrittleDoor(Arc::new(HttpDoor { http1, http2, tls: DoorTls::http(None).into(), intake })))
    };
    let rig = Rig::with(Setup::new(door)).await;
    let (mut healthy, mut doomed) = (Client::new(&rig).await, Client::new(&rig).await);
    healthy.send(post("")).await.is_success();
    assert!(doomed.0.send_request(with(post(""), "panic", "now")).await.is_err());
    until("one connection is gone", || rig.connections.counts().open == 1).await;
    let record = rig.record("connections");
    assert_eq!((record.panics, record.last_failure.unwrap().message.as_str()), (1, "as the test wants"));
    healthy.export(&rig, post(request(1).encode_to_vec())).await.0.is_success();
    rig.settled(&[]);
}
