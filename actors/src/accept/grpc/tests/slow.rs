//! Senders that stall, drip, break off or only begin, each over a real socket. The clock stands still while anybody has
//! something to do, so that no test waits.

use socket2::SockRef;
use tokio::time::Instant;

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The connection settings of a client that asks for nothing.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a call, as literals without indexing (RFC 7541, section 6.2.2).
fn head(stream: u32) -> Vec<u8> {
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "door"),
        (":path", EXPORT),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let block = headers.map(|(name, value)| [vec![0], text(name), text(value)].concat()).concat();
    frame(HEADERS, END_HEADERS, stream, &block)
}

/// A client that says just these bytes, and answers nothing.
async fn saying(rig: &Rig, said: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(rig.address()).await.unwrap();
    socket.write_all(&[PREFACE, SETTINGS, said].concat()).await.unwrap();
    socket
}

/// So much time has passed since `begun`, and no more than that and a second since the clock stood still.
fn took(seconds: u64, begun: Instant, paused: Instant) {
    let limit = Duration::from_secs(seconds);
    let (all, since) = (begun.elapsed(), paused.elapsed());
    assert!(all >= limit && since <= limit + Duration::from_secs(1), "{all:?}, {since:?} of them paused");
}

/// The door closes a connection that began at `begun`, on which each second one more of these bytes comes, when its client
/// has given no sign of life for 40 s.
async fn is_let_go(rig: &Rig, begun: Instant, mut socket: TcpStream, mut drip: impl Iterator<Item = u8>) {
    tokio::time::pause();
    let paused = Instant::now();
    let (mut reading, mut writing) = socket.split();
    let dripping = async {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        loop {
            seconds.tick().await;
            if let Some(byte) = drip.next() {
                // Once the connection is closed, whether anybody reads on is no matter.
                let _over = writing.write_all(&[byte]).await;
            }
        }
    };
    let mut answers = Vec::new();
    let reading = reading.read_to_end(&mut answers);
    let Either::Left((_closed_or_reset, _)) = select(Box::pin(reading), Box::pin(dripping)).await;
    until("it is gone", || rig.connections.counts().open == 0).await;
    took(40, begun, paused);
}

/// A call of which a byte came, and then so many more each second, is refused in time.
async fn is_too_slow(bytes_a_second: usize) {
    let (rig, begun) = (Rig::new().await, Instant::now());
    let mut by_hand = ByHand::new(TcpStream::connect(rig.address()).await.unwrap()).await;
    by_hand.body.send(framed(&[1; 1000]).slice(..6)).unwrap();
    let mut answer = Box::pin(by_hand.sender.send_request(by_hand.request.take().unwrap()));
    let came = Box::pin(until("some of it came", || rig.counts().pending.bytes == 1));
    let Either::Right(((), _)) = select(&mut answer, came).await else { panic!("answered") };
    assert_eq!(rig.intake.admission.in_flight(), 1000);
    tokio::time::pause();
    let paused = Instant::now();
    let drip = async {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        loop {
            seconds.tick().await;
            let _over = by_hand.body.send(Bytes::from(vec![1; bytes_a_second]));
        }
    };
    let Either::Left((answer, _)) = select(answer, Box::pin(drip)).await;
    took(30, begun, paused);
    rig.settled(&[(DoorReason::SlowBody, 1)]);
    tokio::time::resume();
    // Its connection serves the next call, and others never noticed.
    rig.export(request(1), KEPT).await.0.unwrap();
    assert_eq!(rig.connections.counts().opened, 2);
    let headers = answer.unwrap().headers().clone();
    assert_eq!(headers["grpc-status"], "4");
    let message = headers["grpc-message"].to_str().unwrap();
    assert!(message.starts_with("request's%20body%20came%20too%20slowly:%20"), "{message}");
}

#[actix_rt::test]
async fn a_body_that_stops_coming_is_refused_over_a_real_socket() {
    is_too_slow(0).await;
}

#[actix_rt::test]
async fn a_body_that_comes_a_byte_a_second_is_refused_over_a_real_socket() {
    is_too_slow(1).await;
}

#[actix_rt::test]
async fn a_sender_that_stops_within_a_frame_is_refused_and_let_go_when_it_gives_no_sign_of_life() {
    let (rig, begun) = (Rig::new().await, Instant::now());
    let data = frame(DATA, 0, 1, &framed(&[1; 1000]));
    let socket = saying(&rig, &[head(1), data[..500].to_vec()].concat()).await;
    until("its call has begun", || rig.counts().pending.requests == 1).await;
    is_let_go(&rig, begun, socket, std::iter::empty()).await;
    rig.settled(&[(DoorReason::SlowBody, 1)]);
}

#[actix_rt::test]
async fn a_sender_whose_frame_comes_a_byte_a_second_is_refused_and_let_go() {
    let (rig, begun) = (Rig::new().await, Instant::now());
    let data = frame(DATA, 0, 1, &framed(&[1; 1000]));
    let socket = saying(&rig, &head(1)).await;
    until("its call has begun", || rig.counts().pending.requests == 1).await;
    is_let_go(&rig, begun, socket, data.into_iter()).await;
    rig.settled(&[(DoorReason::SlowBody, 1)]);
}

#[actix_rt::test]
async fn a_sender_whose_head_comes_a_byte_a_second_has_no_call_and_is_let_go() {
    let (rig, begun) = (Rig::new().await, Instant::now());
    let socket = saying(&rig, &head(1)[..9]).await;
    until("it is connected", || rig.connections.counts().open == 1).await;
    is_let_go(&rig, begun, socket, head(1).into_iter().skip(9)).await;
    assert_eq!(rig.counts().received, Tally::default());
    rig.settled(&[]);
}

#[actix_rt::test]
async fn calls_that_are_begun_and_never_sent_hold_no_memory_and_end_with_their_time() {
    let (rig, begun) = (Rig::new().await, Instant::now());
    let streams = Http2Settings::default().max_streams;
    let heads: Vec<u8> = (0..streams).flat_map(|call| head(1 + 2 * call)).collect();
    let socket = saying(&rig, &heads).await;
    until("all have begun", || rig.counts().pending.requests == u64::from(streams)).await;
    assert_eq!(rig.intake.admission.in_flight(), 0);
    // Others are served meanwhile.
    rig.export(request(1), KEPT).await.0.unwrap();
    until("they are gone", || rig.connections.counts().open == 1).await;
    is_let_go(&rig, begun, socket, std::iter::empty()).await;
    rig.settled(&[(DoorReason::SlowBody, u64::from(streams))]);
}

#[actix_rt::test]
async fn one_call_too_many_at_a_time_is_refused_before_it_counts() {
    let rig = Rig::new().await;
    let streams = Http2Settings::default().max_streams;
    let heads: Vec<u8> = (0..=streams).flat_map(|call| head(1 + 2 * call)).collect();
    let mut socket = saying(&rig, &heads).await;
    // RST_STREAM of the last with REFUSED_STREAM (RFC 9113, section 7).
    let refusal = frame(3, 0, 1 + 2 * streams, &7u32.to_be_bytes());
    let mut answers = Vec::new();
    let refused = async {
        while !answers.windows(refusal.len()).any(|window| window == refusal) {
            assert_ne!(socket.read_buf(&mut answers).await.unwrap(), 0, "closed");
        }
    };
    timeout(PATIENCE, refused).await.unwrap();
    assert_eq!(rig.counts().received.requests, u64::from(streams));
    drop(socket);
    until("it is gone", || rig.connections.counts().open == 0).await;
    rig.settled(&[(DoorReason::Disconnected, u64::from(streams))]);
}

#[actix_rt::test]
async fn a_connection_that_is_reset_in_mid_request_leaves_nothing_charged() {
    let rig = Rig::new().await;
    let socket = saying(&rig, &[head(1), frame(DATA, 0, 1, &framed(&[1; 1000])[..105])].concat()).await;
    until("some of it came", || rig.counts().pending.bytes == 100).await;
    assert_eq!(rig.intake.admission.in_flight(), 1000);
    // Closed so, a socket sends a reset, and nothing else.
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
    until("it is gone", || rig.connections.counts().open == 0).await;
    rig.settled(&[(DoorReason::Disconnected, 1)]);
}
