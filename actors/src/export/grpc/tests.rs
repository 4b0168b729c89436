use std::{future::poll_fn, task::Poll};

use futures_util::{StreamExt, stream::FuturesUnordered};

use super::{
    super::{
        testing::{Greeting, Reply, ScriptedDestination},
        verdict::{Answer, GrpcCode, ServerStatus},
    },
    *,
};

/// A transport and the futures that its actor would poll.
struct Client {
    transport: Transport,
    tasks: Tasks,
    running: FuturesUnordered<Task>,
}

impl Client {
    fn of(settings: TransportSettings) -> Self {
        let tasks = Tasks::default();
        let transport = Transport::new(settings, tasks.clone()).unwrap();
        Self { transport, tasks, running: FuturesUnordered::new() }
    }

    fn to(destination: &ScriptedDestination) -> Self {
        Self::of(settings(&destination.endpoint()))
    }

    /// The future's output, with the connection's futures polled beside it.
    async fn drive<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        poll_fn(|cx| {
            loop {
                self.running.extend(self.tasks.take(cx.waker()));
                match self.running.poll_next_unpin(cx) {
                    Poll::Ready(Some(())) => {}
                    Poll::Ready(None) | Poll::Pending => break,
                }
            }
            let polled = future.as_mut().poll(cx);
            let new = self.tasks.take(cx.waker());
            if !new.is_empty() {
                self.running.extend(new);
                cx.waker().wake_by_ref();
            }
            polled
        })
        .await
    }

    async fn send(&mut self, frames: &[&'static [u8]]) -> Outcome {
        let frames = frames.iter().map(|frame| Bytes::from_static(frame)).collect();
        let sent = self.transport.send(frames);
        self.drive(sent).await.outcome
    }
}

fn settings(endpoint: &str) -> TransportSettings {
    TransportSettings {
        endpoint: Endpoint::parse(endpoint).unwrap(),
        timeout: Duration::from_secs(10),
        headers: HeaderMap::new(),
        gzip: false,
    }
}

fn answered(code: GrpcCode, message: &str) -> Outcome {
    Outcome::Answered(Answer { message: message.to_owned(), ..Answer::new(ServerStatus::Grpc(code)) })
}

const OK: Outcome = Outcome::Answered(Answer {
    status: ServerStatus::Grpc(GrpcCode::Ok),
    message: String::new(),
    retry_after: None,
    rejected_spans: 0,
});

#[tokio::test]
async fn a_request_arrives_as_the_frames_one_after_the_other_with_its_headers() {
    let destination = ScriptedDestination::start().unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("x-tenant", HeaderValue::from_static("nyx"));
    let mut client = Client::of(TransportSettings { headers, ..settings(&destination.endpoint()) });
    assert_eq!(client.send(&[b"one ", b"two ", &[b'3'; 10_000]]).await, OK);
    let received = destination.received().remove(0);
    assert_eq!(received.message, [&b"one two "[..], &[b'3'; 10_000]].concat());
    let header = |name| received.headers.get(name).unwrap().to_str().unwrap();
    assert_eq!(header("content-type"), "application/grpc");
    assert_eq!(header("te"), "trailers");
    assert_eq!(header("grpc-timeout"), "10000m");
    assert_eq!(header("x-tenant"), "nyx");
    assert_eq!(header("user-agent"), "nyx-daemon/0.1.0 OTel-OTLP-Exporter-Rust/0.1.0");
}

#[tokio::test]
async fn every_request_uses_the_one_connection() {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = Client::to(&destination);
    let requests: Vec<_> =
        (0..8).map(|_| client.transport.send(vec![Bytes::from_static(&[7; 100_000])])).collect();
    let sent = client.drive(futures_util::future::join_all(requests)).await;
    assert!(sent.iter().all(|sent| sent.outcome == OK && sent.bytes == 100_005));
    assert_eq!(destination.counts(), (1, 8));
}

#[tokio::test]
async fn a_unix_socket_is_reached_like_any_other() {
    let path = std::env::temp_dir().join(format!("nyx-export-{}.sock", std::process::id()));
    let destination = ScriptedDestination::start_unix(path).unwrap();
    assert_eq!(Client::to(&destination).send(&[b"x"]).await, OK);
}

#[tokio::test]
async fn a_compressed_request_unpacks_to_its_frames() {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = Client::of(TransportSettings { gzip: true, ..settings(&destination.endpoint()) });
    assert_eq!(client.send(&[&[b'a'; 100_000], &[b'b'; 3]]).await, OK);
    let received = destination.received().remove(0);
    assert_eq!(received.message, [&[b'a'; 100_000][..], &[b'b'; 3]].concat());
}

#[tokio::test]
async fn every_status_that_a_server_sends_is_the_server_s() {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = Client::to(&destination);
    for code in 1..=17 {
        destination.script([Reply::status(code, "für später: 100 %")]);
        assert_eq!(client.send(&[b"x"]).await, answered(GrpcCode::from_wire(code), "für später: 100 %"));
    }
    assert_eq!(destination.counts(), (1, 17));
}

#[tokio::test]
async fn a_retry_info_and_a_partial_success_are_read() {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = Client::to(&destination);
    let retry_after = Some(Duration::from_millis(1250));
    let partial = Reply::Partial { rejected: 3, message: "too old".to_owned() };
    destination.script([Reply::Status { code: 8, message: String::new(), retry_after }, partial]);
    let exhausted = Answer::new(ServerStatus::Grpc(GrpcCode::ResourceExhausted));
    assert_eq!(client.send(&[b"x"]).await, Outcome::Answered(Answer { retry_after, ..exhausted }));
    let Outcome::Answered(ok) = answered(GrpcCode::Ok, "too old") else { panic!("that is an answer") };
    assert_eq!(client.send(&[b"x"]).await, Outcome::Answered(Answer { rejected_spans: 3, ..ok }));
}

#[tokio::test]
async fn an_answer_that_is_not_grpc_is_told_by_its_http_status() {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = Client::to(&destination);
    for status in [200, 302, 404, 503] {
        destination.script([Reply::Http { status, content_type: "text/html", bytes: 10_000 }]);
        let expected = Answer { message: "text/html".to_owned(), ..Answer::new(ServerStatus::Http(status)) };
        assert_eq!(client.send(&[b"x"]).await, Outcome::Answered(expected));
    }
}

#[tokio::test]
async fn a_success_with_a_message_that_is_none_is_a_success() {
    let destination = ScriptedDestination::start().unwrap();
    destination.script([Reply::Garbage]);
    assert_eq!(Client::to(&destination).send(&[b"x"]).await, OK);
}

/// The words of a failure that was made up on this side.
async fn failure(client: &mut Client) -> String {
    match client.send(&[&[1; 300_000]]).await {
        Outcome::Failed(Failure { message }) => message,
        answered @ Outcome::Answered(_) => panic!("{answered:?} is no status of the server's"),
    }
}

#[tokio::test]
async fn what_breaks_a_request_off_is_no_status_and_the_next_request_is_served() {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = Client::to(&destination);
    for (reply, words) in [
        (Reply::Reset, "http2 error: stream error received: stream no longer needed"),
        (Reply::Half, "response ended without a status"),
        (
            Reply::Http { status: 200, content_type: "application/grpc", bytes: 5 << 20 },
            "response is larger than 4194304 bytes",
        ),
    ] {
        destination.script([reply]);
        let failure = failure(&mut client).await;
        assert!(failure.contains(words), "{failure:?} lacks {words:?}");
        assert_eq!(client.send(&[b"x"]).await, OK);
    }
    for reply in [Reply::GoAway, Reply::Close] {
        destination.script([reply]);
        failure(&mut client).await;
        assert_eq!(client.send(&[b"x"]).await, OK);
    }
}

#[tokio::test]
async fn what_is_no_http_2_server_is_no_status() {
    let destination = ScriptedDestination::start().unwrap();
    for greeting in [Greeting::Http1, Greeting::Garbage, Greeting::Close] {
        destination.greet(greeting);
        failure(&mut Client::to(&destination)).await;
    }
}

#[tokio::test]
async fn a_destination_that_is_gone_is_named_and_found_again() {
    let mut destination = ScriptedDestination::start().unwrap();
    let mut client = Client::to(&destination);
    assert_eq!(client.send(&[b"x"]).await, OK);
    destination.kill();
    failure(&mut client).await;
    let endpoint = destination.endpoint();
    let message = format!("connect to {endpoint}: Connection refused (os error 111)");
    assert_eq!(failure(&mut client).await, message);
    let connect = client.transport.connect();
    assert_eq!(client.drive(connect).await, Err(Failure { message }));
    destination.revive().unwrap();
    assert_eq!(client.send(&[b"x"]).await, OK);
}

#[tokio::test]
async fn requests_that_wait_for_one_connection_share_its_failure() {
    let mut destination = ScriptedDestination::start().unwrap();
    destination.kill();
    let mut client = Client::to(&destination);
    let requests: Vec<_> = (0..4).map(|_| client.transport.send(vec![Bytes::from_static(b"x")])).collect();
    let sent = client.drive(futures_util::future::join_all(requests)).await;
    assert!(sent.iter().all(|sent| matches!(sent.outcome, Outcome::Failed(_))));
    assert_eq!(client.transport.0.attempts.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_goaway_between_requests_costs_none() {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = Client::to(&destination);
    for _ in 0..20 {
        destination.script([Reply::OkThenGoAway]);
        assert_eq!(client.send(&[b"x"]).await, OK);
        assert_eq!(client.send(&[b"y"]).await, OK);
    }
}

#[tokio::test]
async fn after_a_timeout_the_next_request_has_a_connection_of_its_own() {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = Client::to(&destination);
    assert_eq!(client.send(&[b"x"]).await, OK);
    destination.script([Reply::Stall]);
    tokio::time::pause();
    assert_eq!(failure(&mut client).await, "no answer within 10000 ms");
    tokio::time::resume();
    destination.until(|destination| destination.counts().1 == 2).await;
    assert_eq!(client.send(&[b"x"]).await, OK);
    assert_eq!(destination.counts().0, 2);
}

#[tokio::test]
async fn a_panic_in_a_future_of_the_connection_is_that_of_whoever_polls_the_requests() {
    use futures_util::FutureExt;
    let destination = ScriptedDestination::start().unwrap();
    let mut client = Client::to(&destination);
    let executor = Executor { tasks: client.tasks.clone(), end: CancellationToken::new() };
    executor.run(async { panic!("in hyper") });
    let polled = std::panic::AssertUnwindSafe(client.send(&[b"x"])).catch_unwind().await;
    assert_eq!(polled.unwrap_err().downcast_ref(), Some(&"in hyper"));
}

#[test]
fn a_grpc_timeout_has_eight_digits_at_most() {
    assert_eq!(grpc_timeout(Duration::from_millis(99_999_999)), "99999999m");
    assert_eq!(grpc_timeout(Duration::from_millis(100_000_000)), "100000S");
    assert_eq!(grpc_timeout(Duration::MAX), "99999999S");
}
