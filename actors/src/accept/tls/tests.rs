use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1 as client_http1, http2 as client_http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    time::timeout,
};

use super::*;
use crate::{
    accept::{
        Door, GrpcDoor, Http1Settings, Http2Settings, HttpDoor, Intake,
        testing::{KEPT, PATIENCE, Rig, Setup, large_request, request, settle, until},
    },
    tls::testing::{Client, Folder, shown},
};

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Grpc,
    Http1,
    Http2,
}

const WAYS: [Over; 3] = [Over::Grpc, Over::Http1, Over::Http2];
/// One way through each door.
const DOORS: [Over; 2] = [Over::Grpc, Over::Http1];

/// A door with these files of the folder, and without them one that speaks plain text.
struct Secured {
    rig: Rig,
    tls: Arc<DoorTls>,
}

impl Secured {
    async fn with(over: Over, tls: Option<ServerTls>, change: impl FnOnce(&mut Setup)) -> Self {
        let tls = Arc::new(match over {
            Over::Grpc => DoorTls::grpc(tls),
            Over::Http1 | Over::Http2 => DoorTls::http(tls),
        });
        let of_door = Arc::clone(&tls);
        let mut setup = Setup::new(move |intake: Intake| -> Arc<dyn Door> {
            let (http1, http2, tls) = (Http1Settings::default(), Http2Settings::default(), of_door);
            match over {
                Over::Grpc => Arc::new(GrpcDoor { http2, tls, intake }),
                Over::Http1 | Over::Http2 => Arc::new(HttpDoor { http1, http2, tls, intake }),
            }
        });
        change(&mut setup);
        Self { rig: Rig::with(setup).await, tls }
    }

    async fn new(over: Over, folder: &Folder, clients: Option<&str>) -> Self {
        Self::with(over, folder.door("server.pem", clients).read().unwrap(), |_| ()).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.rig.address()).await.unwrap()
    }

    /// What became of connections, and what of that is to be: nothing else.
    async fn failed(&self, expected: &[(TlsFailure, u64)]) {
        let seen = || -> Vec<_> {
            let stats = self.tls.stats();
            let all = TlsFailure::ALL.iter().map(|&reason| (reason, stats.failures(reason)));
            all.filter(|&(_, failures)| failures > 0).collect()
        };
        until("no connection is open", || self.rig.connections.counts().open == 0).await;
        assert_eq!(seen(), expected);
        self.rig.settled(&[]);
    }

    /// A request over this stream, kept as the log would: what came to be kept.
    async fn export<S>(&self, over: Over, stream: S, message: Vec<u8>) -> Bytes
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (told, bytes) =
            tokio::join!(send(over, stream, message), async { settle(self.rig.next_batch().await, KEPT) });
        told.unwrap();
        bytes
    }
}

/// A request over this stream, which is to be a success.
async fn send<S>(over: Over, stream: S, message: Vec<u8>) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    let (path, kind, message) = match over {
        Over::Grpc => {
            let length = u32::try_from(message.len()).unwrap().to_be_bytes();
            let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
            (path, "application/grpc", [&[0], &length[..], &message].concat())
        }
        Over::Http1 | Over::Http2 => ("/v1/traces", "application/x-protobuf", message),
    };
    let request = Request::post(format!("https://127.0.0.1{path}")).header("content-type", kind);
    let request = request.header("host", "door").body(Full::<Bytes>::from(message)).unwrap();
    #[allow(clippy::disallowed_methods, reason = "the client's side of the connection")]
    let response: http::Response<Incoming> = match over {
        Over::Http1 => {
            let (mut sender, connection) = client_http1::handshake(io).await?;
            actix_rt::spawn(connection);
            sender.send_request(request).await?
        }
        Over::Grpc | Over::Http2 => {
            let (mut sender, connection) = client_http2::handshake(TokioExecutor::new(), io).await?;
            actix_rt::spawn(connection);
            sender.send_request(request).await?
        }
    };
    let expected = if over == Over::Http1 { Version::HTTP_11 } else { Version::HTTP_2 };
    assert_eq!((response.status().as_u16(), response.version()), (200, expected));
    let body = response.into_body().collect().await?;
    if over == Over::Grpc {
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    }
    Ok(())
}

/// What a client is told that is not let in.
async fn refusal(client: Client<'_>, rig: &Rig) -> String {
    timeout(PATIENCE, client.refused(&rig.address())).await.unwrap()
}

fn versions(client: Client<'_>) -> [Client<'_>; 2] {
    [client, client.over_tls12()]
}

#[actix_rt::test]
async fn requests_come_through_tls_1_3_and_1_2_whether_or_not_the_client_names_its_protocol() {
    let folder = Folder::new("door-served");
    for over in WAYS {
        let door = Secured::new(over, &folder, None).await;
        let name = if over == Over::Http1 { "http/1.1" } else { "h2" };
        for protocols in [&[][..], &[name], &["other", name]] {
            for client in versions(Client::new(&folder).offering(protocols)) {
                let stream = client.connect(&door.rig.address()).await.unwrap();
                let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
                assert_eq!(agreed, (!protocols.is_empty()).then(|| name.into()), "{over:?}");
                let bytes = door.export(over, stream, request(3).encode_to_vec()).await;
                assert_eq!(bytes, request(3).encode_to_vec());
            }
        }
        assert_eq!(door.rig.counts().accepted.requests, 6);
        door.failed(&[]).await;
    }
}

#[actix_rt::test]
async fn a_client_that_names_other_protocols_alone_is_told_so() {
    let folder = Folder::new("door-alpn");
    for (over, protocols) in [(Over::Grpc, ["http/1.1", "h3"]), (Over::Http1, ["h3", "spdy/1"])] {
        let door = Secured::new(over, &folder, None).await;
        for client in versions(Client::new(&folder).offering(&protocols)) {
            let told = refusal(client, &door.rig).await;
            assert!(told.contains("NoApplicationProtocol"), "{over:?}: {told}");
        }
        door.failed(&[(TlsFailure::Protocol, 2)]).await;
    }
    let door = Secured::new(Over::Http1, &folder, None).await;
    let client = Client::new(&folder).offering(&["http/1.1", "h2"]);
    let stream = client.connect(&door.rig.address()).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "of several the door's first");
}

#[actix_rt::test]
async fn a_client_that_does_not_trust_the_door_leaves_and_is_counted() {
    let folder = Folder::new("door-distrusted");
    for over in DOORS {
        let door = Secured::new(over, &folder, None).await;
        for client in versions(Client::new(&folder).trusting("other-ca.pem")) {
            let told = refusal(client, &door.rig).await;
            assert!(told.contains("UnknownIssuer"), "{told}");
        }
        door.failed(&[(TlsFailure::Declined, 2)]).await;
        let elsewhere = folder.door("elsewhere.pem", None).read().unwrap();
        let door = Secured::with(over, elsewhere, |_| ()).await;
        let told = refusal(Client::new(&folder), &door.rig).await;
        assert!(told.contains("not valid for name"), "{told}");
        door.failed(&[(TlsFailure::Declined, 1)]).await;
    }
}

#[actix_rt::test]
async fn a_client_has_to_show_a_certificate_that_holds_where_the_door_asks_for_one() {
    let folder = Folder::new("door-clients");
    for over in DOORS {
        let door = Secured::new(over, &folder, Some("ca.pem")).await;
        let client = Client::new(&folder);
        for client in versions(client.with("client.pem", "client.key")) {
            let stream = client.connect(&door.rig.address()).await.unwrap();
            let message = request(1).encode_to_vec();
            assert_eq!(door.export(over, stream, message.clone()).await, message);
        }
        for (client, told, reason) in [
            (client, "CertificateRequired", TlsFailure::NoCertificate),
            (client.over_tls12(), "CertificateRequired", TlsFailure::NoCertificate),
            (client.with("expired.pem", "server.key"), "CertificateExpired", TlsFailure::Expired),
            (
                client.with("expired.pem", "server.key").over_tls12(),
                "CertificateExpired",
                TlsFailure::Expired,
            ),
        ] {
            let before = door.tls.stats().failures(reason);
            let words = refusal(client, &door.rig).await;
            assert!(words.contains(told), "{over:?} {reason:?}: {words}");
            until("it is counted", || door.tls.stats().failures(reason) == before + 1).await;
        }
        door.failed(&[(TlsFailure::NoCertificate, 2), (TlsFailure::Expired, 2)]).await;

        let door = Secured::new(over, &folder, Some("other-ca.pem")).await;
        for client in versions(client.with("client.pem", "client.key")) {
            let words = refusal(client, &door.rig).await;
            assert!(words.contains("UnknownCA"), "{over:?}: {words}");
        }
        door.failed(&[(TlsFailure::Untrusted, 2)]).await;
    }
}

#[actix_rt::test]
async fn a_request_of_many_mebibytes_comes_through_tls_whole() {
    let folder = Folder::new("door-large");
    let message = large_request(20 << 20).encode_to_vec();
    for over in WAYS {
        let tls = folder.door("server.pem", None).read().unwrap();
        let door = Secured::with(over, tls, |setup| {
            (setup.max_request, setup.in_flight) = (64 << 20, 256 << 20);
        })
        .await;
        let stream = Client::new(&folder).connect(&door.rig.address()).await.unwrap();
        let bytes = door.export(over, stream, message.clone()).await;
        assert!(bytes == message, "{over:?}: {} bytes", bytes.len());
        door.failed(&[]).await;
    }
}

/// A stream that takes a byte at a time.
struct ByteByByte(TcpStream);

impl AsyncRead for ByteByByte {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for ByteByByte {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, &bytes[..1])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[actix_rt::test]
async fn a_handshake_and_a_request_may_come_byte_by_byte() {
    let folder = Folder::new("door-bytes");
    for over in WAYS {
        let door = Secured::new(over, &folder, Some("ca.pem")).await;
        let client = Client::new(&folder).with("client.pem", "client.key");
        let tcp = door.connect().await;
        tcp.set_nodelay(true).unwrap();
        let stream = client.greet(ByteByByte(tcp)).await.unwrap();
        let bytes = door.export(over, stream, request(1).encode_to_vec()).await;
        assert_eq!(bytes, request(1).encode_to_vec(), "{over:?}");
        door.failed(&[]).await;
    }
}

/// The beginning of a client's first message.
const HALF_A_HELLO: &[u8] = &[22, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3];

/// How long a door waits for a client that has connected.
fn patience(over: Over) -> u64 {
    match over {
        Over::Grpc => Http2Settings::default().ping_timeout.as_secs(),
        Over::Http1 | Over::Http2 => Http1Settings::default().head_timeout.as_secs(),
    }
}

#[actix_rt::test]
async fn a_handshake_that_stalls_is_given_up_in_time_wherever_it_stands() {
    let folder = Folder::new("door-stalled");
    for over in DOORS {
        for said in [&b""[..], &HALF_A_HELLO[..1], HALF_A_HELLO] {
            let door = Secured::new(over, &folder, None).await;
            let mut client = door.connect().await;
            client.write_all(said).await.unwrap();
            until("it is connected", || door.rig.connections.counts().open == 1).await;
            tokio::time::pause();
            let begun = tokio::time::Instant::now();
            let ended = client.read(&mut [0; 10]).await;
            assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
            let waited = begun.elapsed().as_secs_f64().round() as u64;
            assert_eq!(waited, patience(over), "{over:?} {said:?}");
            door.failed(&[(TlsFailure::Timeout, 1)]).await;
            tokio::time::resume();
        }
    }
}

#[actix_rt::test]
async fn a_client_that_shakes_hands_a_byte_a_second_has_no_longer_than_one_that_stalls() {
    let folder = Folder::new("door-slow");
    for over in DOORS {
        let door = Secured::new(over, &folder, None).await;
        let mut client = door.connect().await;
        until("it is connected", || door.rig.connections.counts().open == 1).await;
        tokio::time::pause();
        let begun = tokio::time::Instant::now();
        let hello = HALF_A_HELLO.iter().chain(std::iter::repeat(&7));
        for byte in hello {
            if door.rig.connections.counts().open == 0 {
                break;
            }
            let _closed = client.write_all(&[*byte]).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(begun.elapsed() <= Duration::from_secs(patience(over) + 2), "{:?}", begun.elapsed());
        door.failed(&[(TlsFailure::Timeout, 1)]).await;
        tokio::time::resume();
    }
}

#[actix_rt::test]
async fn a_client_that_is_silent_after_the_handshake_is_let_go_within_the_same_time() {
    let folder = Folder::new("door-silent");
    for over in DOORS {
        let door = Secured::new(over, &folder, None).await;
        let mut client = Client::new(&folder).connect(&door.rig.address()).await.unwrap();
        tokio::time::pause();
        let begun = tokio::time::Instant::now();
        assert_eq!(client.read(&mut [0; 10]).await.unwrap(), 0, "with a word of its end");
        assert!(begun.elapsed().as_secs() <= patience(over), "{:?}", begun.elapsed());
        door.failed(&[]).await;
        tokio::time::resume();
    }
}

#[actix_rt::test]
async fn a_handshake_that_stalls_counts_as_a_connection_and_ends_with_the_door() {
    let folder = Folder::new("door-limit");
    for over in DOORS {
        let tls = folder.door("server.pem", None).read().unwrap();
        let door = Secured::with(over, tls, |setup| setup.connections_max = 1).await;
        let mut stalled = door.connect().await;
        stalled.write_all(HALF_A_HELLO).await.unwrap();
        until("it is connected", || door.rig.connections.counts().open == 1).await;
        let mut other = door.connect().await;
        let ended = timeout(PATIENCE, other.read(&mut [0; 10])).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        assert_eq!(door.rig.connections.counts().refused, 1);
        assert!(door.rig.tree.shutdown(PATIENCE).await.is_clean());
        door.failed(&[]).await;
    }
}

#[actix_rt::test]
async fn bytes_that_are_no_handshake_end_the_connection_with_an_alert_at_most() {
    let folder = Folder::new("door-garbage");
    for over in DOORS {
        let door = Secured::new(over, &folder, None).await;
        for garbage in [&[22, 3, 1, 0, 5, 1, 2, 3, 4, 5][..], &[22, 3, 3, 0xff, 0xff, 0, 0], &[22; 300]] {
            let mut client = door.connect().await;
            client.write_all(garbage).await.unwrap();
            let mut answer = Vec::new();
            timeout(PATIENCE, client.read_to_end(&mut answer)).await.unwrap().unwrap();
            assert!(answer.is_empty() || (answer[0], answer[5]) == (21, 2), "a fatal alert: {answer:?}");
        }
        door.failed(&[(TlsFailure::Protocol, 3)]).await;
    }
}

#[actix_rt::test]
async fn who_leaves_in_the_midst_of_the_handshake_is_counted_and_who_says_nothing_is_not() {
    let folder = Folder::new("door-left");
    for over in DOORS {
        let door = Secured::new(over, &folder, None).await;
        for (said, reset) in [(&b""[..], false), (b"", true), (HALF_A_HELLO, false), (HALF_A_HELLO, true)] {
            let mut client = door.connect().await;
            client.write_all(said).await.unwrap();
            until("it is connected", || door.rig.connections.counts().open == 1).await;
            if reset {
                let reset = Some(Duration::ZERO);
                socket2::SockRef::from(&client).set_linger(reset).unwrap();
            }
            drop(client);
            until("it is gone", || door.rig.connections.counts().open == 0).await;
        }
        assert_eq!(door.rig.connections.counts().opened, 4);
        door.failed(&[(TlsFailure::Disconnected, 2)]).await;
    }
}

#[actix_rt::test]
async fn a_client_that_speaks_plain_text_is_told_to_speak_tls() {
    let folder = Folder::new("door-plain");
    for over in DOORS {
        let door = Secured::new(over, &folder, None).await;
        let mut client = door.connect().await;
        client.write_all(b"POST /v1/traces HTTP/1.1\r\nhost: nyx\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, client.read_to_string(&mut answer)).await.unwrap().unwrap();
        let expected = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 32\r\n\
                        connection: close\r\n\r\nthis port speaks TLS: use https\n";
        assert_eq!(answer, expected);

        let (mut sender, connection) = h2::client::handshake(door.connect().await).await.unwrap();
        let sent = sender.send_request(Request::post("http://nyx/").body(()).unwrap(), true);
        let (told, _) = tokio::join!(connection, async { drop(sent) });
        let told = told.unwrap_err();
        assert_eq!(told.reason(), Some(h2::Reason::INADEQUATE_SECURITY), "{told}");
        assert!(format!("{told:?}").contains("this port speaks TLS: use https"), "{told:?}");

        let mut stranger = door.connect().await;
        stranger.write_all(b"\0\x01 hello").await.unwrap();
        let ended = timeout(PATIENCE, stranger.read(&mut [0; 10])).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        door.failed(&[(TlsFailure::Plaintext, 3)]).await;
    }
}

#[actix_rt::test]
async fn a_client_of_tls_at_a_door_of_plain_text_is_counted() {
    let folder = Folder::new("door-not-configured");
    for over in DOORS {
        let door = Secured::with(over, None, |_| ()).await;
        for client in versions(Client::new(&folder)) {
            client.connect(&door.rig.address()).await.unwrap_err();
        }
        let mut slow = door.connect().await;
        slow.set_nodelay(true).unwrap();
        for byte in HALF_A_HELLO {
            let _closed = slow.write_all(&[*byte]).await;
            tokio::task::yield_now().await;
        }
        door.failed(&[(TlsFailure::NotConfigured, 3)]).await;
        assert!(!door.tls.renew(folder.door("server.pem", None).read().unwrap().unwrap()));
        assert!(!door.tls.stats().enabled);
    }
}

/// A frame of HTTP/2: its head, and what it carries.
async fn frame<S: AsyncRead + Unpin>(client: &mut S) -> ([u8; 9], Vec<u8>) {
    let mut head = [0; 9];
    client.read_exact(&mut head).await.unwrap();
    let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    client.read_exact(&mut payload).await.unwrap();
    (head, payload)
}

#[actix_rt::test]
async fn the_end_of_a_connection_is_said_within_tls() {
    let folder = Folder::new("door-end");
    let request_with = |head: &str| format!("POST /v1/traces HTTP/1.1\r\nhost: nyx\r\n{head}\r\n\r\n");
    let protobuf = "content-type: application/x-protobuf\r\nconnection: close\r\ncontent-length: ";
    for (head, status) in [
        (request_with(&format!("{protobuf}0")), "200 OK"),
        (request_with("connection: close\r\ncontent-length: 100000"), "415 Unsupported"),
        ("GARBAGE\r\n\r\n".to_owned(), "400 Bad Request"),
    ] {
        let door = Secured::new(Over::Http1, &folder, None).await;
        let mut client = Client::new(&folder).connect(&door.rig.address()).await.unwrap();
        client.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, client.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    let door = Secured::new(Over::Grpc, &folder, None).await;
    let mut client = Client::new(&folder).connect(&door.rig.address()).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, client.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.contains("this port speaks OTLP over gRPC"), "{answer}");
    for over in [Over::Grpc, Over::Http2] {
        let door = Secured::new(over, &folder, None).await;
        let mut client = Client::new(&folder).connect(&door.rig.address()).await.unwrap();
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        frame(&mut client).await;
        let (stopped, read) = tokio::join!(door.rig.tree.shutdown(PATIENCE), async {
            // It asks for a sign of life before it says which requests it has seen (RFC 9113, section 6.8).
            let (mut ping, payload) = loop {
                let (head, payload) = frame(&mut client).await;
                if head[3] == 6 {
                    break (head, payload);
                }
            };
            ping[4] = 1;
            client.write_all(&[&ping[..], &payload].concat()).await.unwrap();
            timeout(PATIENCE, client.read_to_end(&mut Vec::new())).await.unwrap()
        });
        assert!(stopped.is_clean() && read.is_ok(), "{over:?}: {read:?}");
    }
}

#[actix_rt::test]
async fn a_request_that_came_whole_is_kept_though_its_connection_ends_without_a_word() {
    let folder = Folder::new("door-cut");
    for over in WAYS {
        let door = Secured::new(over, &folder, None).await;
        let stream = Client::new(&folder).connect(&door.rig.address()).await.unwrap();
        // A copy of the descriptor, so that the socket can be ended under the client.
        let cut = socket2::SockRef::from(stream.get_ref().0).try_clone().unwrap();
        let (told, batch) = tokio::join!(send(over, stream, request(2).encode_to_vec()), async {
            let batch = door.rig.next_batch().await;
            cut.shutdown(std::net::Shutdown::Both).unwrap();
            batch
        });
        assert!(told.is_err(), "{over:?}");
        until("the connection is gone", || door.rig.connections.counts().open == 0).await;
        settle(batch, KEPT);
        assert_eq!(door.rig.counts().accepted.requests, 1, "{over:?}");
        door.failed(&[]).await;
    }
}

#[actix_rt::test]
async fn new_connections_have_the_renewed_certificate_and_open_ones_go_on() {
    let folder = Folder::new("door-renewed");
    let read = |certificate, clients| folder.door(certificate, clients).read().unwrap().unwrap();
    for over in DOORS {
        let door = Secured::new(over, &folder, None).await;
        let client = Client::new(&folder);
        let before = client.connect(&door.rig.address()).await.unwrap();
        let first = shown(&before);
        assert!(door.tls.renew(read("renewed.pem", Some("ca.pem"))));
        assert!(door.tls.stats().client_certificates);
        refusal(client, &door.rig).await;
        let own = client.with("client.pem", "client.key");
        let after = own.connect(&door.rig.address()).await.unwrap();
        assert_ne!(shown(&after), first, "{over:?}");
        for stream in [before, after] {
            let message = request(1).encode_to_vec();
            assert_eq!(door.export(over, stream, message.clone()).await, message);
        }
        door.failed(&[(TlsFailure::NoCertificate, 1)]).await;
    }
}

#[actix_rt::test]
async fn nobody_resumes_a_session_instead_of_showing_a_certificate() {
    let folder = Folder::new("door-resumed");
    for version in versions(Client::new(&folder).with("client.pem", "client.key")) {
        let door = Secured::new(Over::Http1, &folder, Some("ca.pem")).await;
        let connector = tokio_rustls::TlsConnector::from(version.config());
        for _ in 0..2 {
            let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
            let stream = connector.connect(name, door.connect().await).await.unwrap();
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
            door.export(Over::Http1, stream, request(1).encode_to_vec()).await;
        }
    }
}

#[actix_rt::test]
async fn a_unix_socket_is_never_served_as_if_it_had_tls() {
    let folder = Folder::new("door-no-unix");
    let path = folder.path("door.sock");
    let tls = folder.door("server.pem", None).read().unwrap();
    let listen = crate::accept::ListenAddr::Unix(path.clone());
    let door = Secured::with(Over::Http1, tls, |setup| setup.listen = listen).await;
    let mut client = tokio::net::UnixStream::connect(path).await.unwrap();
    client.write_all(b"POST /v1/traces HTTP/1.1\r\nhost: nyx\r\n\r\n").await.unwrap();
    let ended = timeout(PATIENCE, client.read(&mut [0; 10])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    door.failed(&[]).await;
}

#[test]
fn what_an_operator_can_do_is_said_with_the_names_of_the_settings() {
    assert_eq!(
        TlsFailure::NotConfigured.advice("grpc"),
        "this looks like TLS: set ingest.grpc.tls.cert_file and key_file, or let its endpoint begin with http://"
    );
    assert_eq!(
        TlsFailure::NoCertificate.advice("http"),
        "it shows no certificate, which ingest.http.tls.client_ca_file asks for"
    );
}
