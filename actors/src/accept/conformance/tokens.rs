//! Who brings no token, or a wrong one, at every door and in every version of HTTP that it speaks.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::{Code, Status};

use super::{
    super::{
        Door, DoorReason, DoorTls, GrpcDoor, Http1Settings, Http2Settings, HttpDoor, ListenAddr, header,
        status::RpcStatus,
        testing::{IN_FLIGHT, PATIENCE, Rig, Setup},
    },
    Over,
};
use crate::{
    bearer::Tokens,
    tls::testing::{Client as ClientOfTls, Folder},
};

/// What both doors say.
const TEXT: &str = "a bearer token is needed here: set OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20TOKEN, \
                    with a token that nyx knows";
const TOKEN: &str = "0123456789abcdef-old";
const NEXT: &str = "0123456789abcdef-new";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Via {
    Grpc,
    Http1,
    Http2,
}

const WAYS: [Via; 3] = [Via::Grpc, Via::Http1, Via::Http2];

type Sent = UnsyncBoxBody<Bytes, Infallible>;

/// A connection, from the client's side.
enum Client {
    Http1(http1::SendRequest<Sent>),
    Http2(http2::SendRequest<Sent>),
}

/// A success, or the text of a refusal.
type Told = Result<(), String>;

impl Via {
    async fn rig(self) -> Rig {
        match self {
            Self::Grpc => Over::Grpc.rig().await,
            Self::Http1 | Self::Http2 => Over::Http.rig().await,
        }
    }

    async fn client(self, rig: &Rig) -> Client {
        self.client_over(TcpStream::connect(rig.address()).await.unwrap()).await
    }

    #[allow(clippy::disallowed_methods, reason = "the client's side of the connection")]
    async fn client_over<S>(self, stream: S) -> Client
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        match self {
            Self::Http1 => {
                let (sender, connection) = http1::handshake(io).await.unwrap();
                actix_rt::spawn(connection);
                Client::Http1(sender)
            }
            Self::Grpc | Self::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
                actix_rt::spawn(connection);
                Client::Http2(sender)
            }
        }
    }

    fn request(self, authorization: &[&[u8]], body: Sent) -> Request<Sent> {
        let (path, kind) = match self {
            Self::Grpc => ("/opentelemetry.proto.collector.trace.v1.TraceService/Export", "application/grpc"),
            Self::Http1 | Self::Http2 => ("/v1/traces", "application/x-protobuf"),
        };
        let uri = if self == Self::Http1 { path.to_owned() } else { format!("http://door{path}") };
        let mut request = Request::post(uri).header("content-type", kind).body(body).unwrap();
        if self == Self::Http1 {
            request.headers_mut().insert("host", HeaderValue::from_static("door"));
        }
        for value in authorization {
            request.headers_mut().append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        request
    }

    /// A request without spans: a success that asks nothing of the log.
    async fn send(self, client: &mut Client, authorization: &[&[u8]]) -> Told {
        let message = if self == Self::Grpc { &[0; 5][..] } else { &[] };
        let request = self.request(authorization, Full::new(Bytes::from_static(message)).boxed_unsync());
        self.told(client.send(request).await).await
    }

    /// What the client is told, by the rules of its protocol.
    async fn told(self, response: Response<Incoming>) -> Told {
        let refused_at_once = response.body().is_end_stream();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        match self {
            Self::Grpc => {
                assert_eq!(head.status, 200);
                let trailers = body.trailers().unwrap_or(&head.headers);
                let status = Status::from_header_map(trailers).unwrap();
                if status.code() == Code::Ok {
                    return Ok(());
                }
                assert_eq!((status.code(), refused_at_once), (Code::Unauthenticated, true));
                assert_eq!(header(&head.headers, "content-type"), "application/grpc");
                Err(status.message().to_owned())
            }
            Self::Http1 | Self::Http2 if head.status == 200 => Ok(()),
            Self::Http1 | Self::Http2 => {
                assert_eq!(head.status, 401);
                assert_eq!(header(&head.headers, "content-type"), "application/x-protobuf");
                assert_eq!(header(&head.headers, "www-authenticate"), "Bearer realm=\"nyx\"");
                assert_eq!(header(&head.headers, "retry-after"), "");
                let status = RpcStatus::decode(body.to_bytes()).unwrap();
                assert_eq!((status.code, &*status.details), (16, &[][..]));
                Err(status.message)
            }
        }
    }
}

impl Client {
    async fn send(&mut self, request: Request<Sent>) -> Response<Incoming> {
        let sent = async {
            match self {
                Self::Http1(sender) => {
                    sender.ready().await.unwrap();
                    sender.send_request(request).await
                }
                Self::Http2(sender) => {
                    sender.ready().await.unwrap();
                    sender.send_request(request).await
                }
            }
        };
        timeout(PATIENCE, sent).await.expect("an answer in time").unwrap()
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn ask_for(rig: &Rig, list: &str) {
    rig.intake.gate.set(Some(Tokens::parse(list.as_bytes()).unwrap()));
}

#[actix_rt::test]
async fn whoever_brings_one_of_the_tokens_is_let_in_and_nobody_else() {
    let right = bearer(TOKEN);
    let longer = format!("{right}0");
    let cut = &right[..right.len() - 1];
    let refused: [&[&[u8]]; 11] = [
        &[],
        &[b""],
        &[b"Bearer"],
        &[cut.as_bytes()],
        &[longer.as_bytes()],
        &[TOKEN.as_bytes()],
        &[b"Basic 0123456789abcdef-old"],
        &[b"Bearer 0123456789abcdef-ol\xff"],
        &[b"\xe4\xf6\xfc"],
        &[right.as_bytes(), right.as_bytes()],
        &[right.as_bytes(), b"Basic eDp5"],
    ];
    for via in WAYS {
        let rig = via.rig().await;
        ask_for(&rig, &format!("{TOKEN}\n{NEXT}"));
        let mut client = via.client(&rig).await;
        for authorization in refused {
            let told = via.send(&mut client, authorization).await;
            assert_eq!(told, Err(TEXT.to_owned()), "{via:?} {authorization:?}");
        }
        for authorization in [&right, "bearer 0123456789abcdef-old", "BEARER  0123456789abcdef-new"] {
            let told = via.send(&mut client, &[authorization.as_bytes()]).await;
            assert_eq!(told, Ok(()), "{via:?} {authorization}");
        }
        assert_eq!(rig.connections.counts().opened, 1, "{via:?}: all over one connection");
        assert_eq!((rig.counts().accepted.requests, rig.counts().received.bytes), (3, 0));
        rig.settled(&[(DoorReason::Unauthenticated, refused.len() as u64)]);
    }
}

#[actix_rt::test]
async fn without_a_token_to_ask_for_everybody_is_let_in() {
    for via in WAYS {
        let rig = via.rig().await;
        let mut client = via.client(&rig).await;
        for authorization in [&[][..], &[&b"Basic eDp5"[..]], &[&b"Bearer a"[..], b"Bearer b"]] {
            assert_eq!(via.send(&mut client, authorization).await, Ok(()), "{via:?}");
        }
        rig.settled(&[]);
    }
}

#[actix_rt::test]
async fn a_request_without_a_token_is_refused_before_any_of_its_body_is_read_or_has_room() {
    for via in WAYS {
        let rig = via.rig().await;
        ask_for(&rig, TOKEN);
        // Whoever asked for room now would learn that there is none.
        let others = rig.intake.admission.try_reserve(IN_FLIGHT).unwrap();
        let mut client = via.client(&rig).await;
        let never = StreamBody::new(stream::pending()).boxed_unsync();
        let response = client.send(via.request(&[], never)).await;
        assert_eq!(via.told(response).await, Err(TEXT.to_owned()), "{via:?}");
        assert_eq!((rig.intake.admission.in_flight(), rig.counts().received.bytes), (IN_FLIGHT, 0));
        drop(others);
        rig.settled(&[(DoorReason::Unauthenticated, 1)]);
    }
}

#[actix_rt::test]
async fn whoever_asks_first_and_has_no_token_is_not_told_to_go_on() {
    let rig = Via::Http1.rig().await;
    ask_for(&rig, TOKEN);
    let mut socket = TcpStream::connect(rig.address()).await.unwrap();
    let head = "POST /v1/traces HTTP/1.1\r\nhost: door\r\ncontent-type: application/json\r\n\
                expect: 100-continue\r\ncontent-length: 1000\r\nconnection: close\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body, serde_json::json!({"code": 16, "message": TEXT}), "in the request's encoding");
    rig.settled(&[(DoorReason::Unauthenticated, 1)]);
}

#[actix_rt::test]
async fn other_pages_and_content_types_are_not_told_apart_without_a_token() {
    for via in WAYS {
        let rig = via.rig().await;
        ask_for(&rig, TOKEN);
        for (path, kind) in [("/nowhere", "application/x-protobuf"), ("/v1/traces", "text/plain")] {
            let mut request = via.request(&[], Full::new(Bytes::new()).boxed_unsync());
            let uri = if via == Via::Http1 { path.to_owned() } else { format!("http://door{path}") };
            *request.uri_mut() = uri.parse().unwrap();
            request.headers_mut().insert("content-type", HeaderValue::from_static(kind));
            let response = via.client(&rig).await.send(request).await;
            let unauthenticated = match via {
                Via::Grpc => header(response.headers(), "grpc-status") == "16",
                Via::Http1 | Via::Http2 => response.status() == 401,
            };
            assert!(unauthenticated, "{via:?} {path} {kind}: {response:?}");
        }
        rig.settled(&[(DoorReason::Unauthenticated, 2)]);
    }
}

#[actix_rt::test]
async fn tokens_that_are_set_later_hold_on_connections_that_are_there() {
    for via in WAYS {
        let rig = via.rig().await;
        let mut client = via.client(&rig).await;
        let (old, new) = (bearer(TOKEN), bearer(NEXT));
        let mut let_in =
            async |authorization: &str| via.send(&mut client, &[authorization.as_bytes()]).await.is_ok();
        ask_for(&rig, TOKEN);
        assert_eq!((let_in(&old).await, let_in(&new).await), (true, false), "{via:?}");
        ask_for(&rig, &format!("{TOKEN}\n{NEXT}"));
        assert_eq!((let_in(&old).await, let_in(&new).await), (true, true), "{via:?}");
        ask_for(&rig, NEXT);
        assert_eq!((let_in(&old).await, let_in(&new).await), (false, true), "{via:?}");
        rig.intake.gate.set(None);
        assert!(let_in("Basic eDp5").await, "{via:?}");
        assert_eq!(rig.connections.counts().opened, 1, "{via:?}");
        rig.settled(&[(DoorReason::Unauthenticated, 2)]);
    }
}

#[actix_rt::test]
async fn a_connection_of_refused_requests_holds_nothing_and_can_still_be_let_in() {
    // Twice as many streams as a connection may have open, each with a body that never ends.
    for via in [Via::Grpc, Via::Http2] {
        let rig = via.rig().await;
        ask_for(&rig, TOKEN);
        let mut client = via.client(&rig).await;
        for _ in 0..256 {
            let never = StreamBody::new(stream::pending()).boxed_unsync();
            let response = client.send(via.request(&[], never)).await;
            assert_eq!(via.told(response).await, Err(TEXT.to_owned()));
        }
        assert_eq!(via.send(&mut client, &[bearer(TOKEN).as_bytes()]).await, Ok(()), "{via:?}");
        assert_eq!((rig.connections.counts().opened, rig.intake.admission.in_flight()), (1, 0), "{via:?}");
        rig.settled(&[(DoorReason::Unauthenticated, 256)]);
    }
    // HTTP/1 has one at a time, and ends the connection of a body that it did not read.
    let rig = Via::Http1.rig().await;
    ask_for(&rig, TOKEN);
    let mut client = Via::Http1.client(&rig).await;
    for _ in 0..256 {
        assert_eq!(Via::Http1.send(&mut client, &[]).await, Err(TEXT.to_owned()));
    }
    assert_eq!(Via::Http1.send(&mut client, &[bearer(TOKEN).as_bytes()]).await, Ok(()));
    rig.settled(&[(DoorReason::Unauthenticated, 256)]);
}

#[actix_rt::test]
async fn the_certificate_of_a_client_does_not_stand_for_its_token() {
    let folder = Folder::new("door-tokens");
    for via in WAYS {
        let tls = folder.door("server.pem", Some("ca.pem")).read().unwrap();
        let rig = Rig::with(Setup::new(move |intake| -> Arc<dyn Door> {
            let (http1, http2) = (Http1Settings::default(), Http2Settings::default());
            match via {
                Via::Grpc => Arc::new(GrpcDoor { http2, tls: DoorTls::grpc(tls).into(), intake }),
                Via::Http1 | Via::Http2 => {
                    Arc::new(HttpDoor { http1, http2, tls: DoorTls::http(tls).into(), intake })
                }
            }
        }))
        .await;
        ask_for(&rig, TOKEN);
        let known = ClientOfTls::new(&folder).with("client.pem", "client.key");
        let mut client = via.client_over(known.connect(&rig.address()).await.unwrap()).await;
        assert_eq!(via.send(&mut client, &[]).await, Err(TEXT.to_owned()), "{via:?}");
        assert_eq!(via.send(&mut client, &[bearer(TOKEN).as_bytes()]).await, Ok(()), "{via:?}");
        rig.settled(&[(DoorReason::Unauthenticated, 1)]);
    }
}

#[actix_rt::test]
async fn a_token_is_asked_for_at_a_unix_socket_too() {
    let path = std::env::temp_dir().join(format!("nyx-token-door-{}.sock", std::process::id()));
    let listen: ListenAddr = format!("unix:{}", path.display()).parse().unwrap();
    let rig = Rig::with(Setup { listen, ..Setup::new(super::http) }).await;
    ask_for(&rig, TOKEN);
    let mut socket = tokio::net::UnixStream::connect(&path).await.unwrap();
    let head = "POST /v1/traces HTTP/1.1\r\nhost: door\r\ncontent-type: application/x-protobuf\r\n\
                content-length: 0\r\nconnection: close\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 401 Unauthorized\r\n"), "{answer:?}");
    rig.settled(&[(DoorReason::Unauthenticated, 1)]);
}
