//! What every transport keeps, as one suite: whichever way a destination is reached, what it does means the same.

use std::{future::poll_fn, task::Poll};

use futures_util::{StreamExt, stream::FuturesUnordered};
use http::HeaderValue;

use super::{
    super::{
        testing::{Greeting, Reply, ScriptedDestination},
        verdict::{Kind, Verdict},
    },
    tasks::{Executor, Task},
    *,
};

/// A transport and the futures that its actor would poll.
pub(super) struct Client {
    pub(super) transport: Transport,
    pub(super) tasks: Tasks,
    running: FuturesUnordered<Task>,
}

impl Client {
    pub(super) fn of(settings: TransportSettings) -> Self {
        let tasks = Tasks::default();
        let transport = Transport::new(settings, tasks.clone()).unwrap();
        Self { transport, tasks, running: FuturesUnordered::new() }
    }

    fn to(protocol: Protocol, destination: &ScriptedDestination) -> Self {
        Self::of(settings(protocol, &destination.endpoint()))
    }

    /// The future's output, with the connections' futures polled beside it.
    pub(super) async fn drive<T>(&mut self, future: impl Future<Output = T>) -> T {
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

    pub(super) async fn send(&mut self, frames: &[&'static [u8]]) -> Outcome {
        let frames = frames.iter().map(|frame| Bytes::from_static(frame)).collect();
        let sent = self.transport.send(frames);
        self.drive(sent).await.outcome
    }

    /// The verdict on a request of so many bytes.
    pub(super) async fn verdict(&mut self, bytes: usize) -> Verdict {
        let sent = self.transport.send(vec![Bytes::from(vec![1; bytes])]);
        Verdict::on(self.drive(sent).await.outcome)
    }

    /// The words of a failure that was made up on this side.
    pub(super) async fn failure(&mut self) -> String {
        match self.verdict(300_000).await {
            Verdict::Unreachable { message } => message,
            answered => panic!("{answered:?} is no failure of this side's"),
        }
    }
}

pub(super) fn settings(protocol: Protocol, endpoint: &str) -> TransportSettings {
    TransportSettings {
        endpoint: Endpoint::parse(endpoint).unwrap(),
        tls: None,
        protocol,
        path: "/v1/traces".to_owned(),
        timeout: Duration::from_secs(10),
        headers: HeaderMap::new(),
        gzip: false,
        concurrency: 4,
    }
}

/// Each test once a protocol.
macro_rules! conforms {
    ($($test:ident,)*) => {
        mod grpc {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Protocol::Grpc).await;
            })*
        }
        mod http_protobuf {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Protocol::HttpProtobuf).await;
            })*
        }
    };
}

conforms! {
    a_request_arrives_as_the_frames_one_after_the_other_with_its_headers,
    a_connection_serves_one_request_after_the_other,
    a_unix_socket_is_reached_like_any_other,
    a_compressed_request_unpacks_to_its_frames,
    every_kind_of_answer_has_the_same_verdict,
    every_status_of_grpc_ends_in_a_verdict_with_its_words,
    an_error_text_of_10_mb_is_one_short_line_and_the_next_request_is_served,
    a_partial_success_is_read,
    a_time_to_come_back_is_read,
    what_is_no_otlp_answer_is_told_by_its_status_and_costs_no_span,
    a_success_with_a_message_that_is_none_is_a_success,
    what_breaks_a_request_off_is_no_status_and_the_next_request_is_served,
    an_answer_before_the_end_of_the_request_counts,
    what_speaks_another_protocol_is_no_status,
    a_destination_that_is_gone_is_named_and_found_again,
    requests_at_a_time_are_all_served,
    a_connection_that_the_server_closes_between_requests_costs_none,
    after_a_timeout_the_next_request_has_a_connection_of_its_own,
    a_panic_in_a_future_of_the_connection_is_that_of_whoever_polls_the_requests,
}

async fn a_request_arrives_as_the_frames_one_after_the_other_with_its_headers(protocol: Protocol) {
    let destination = ScriptedDestination::start().unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("x-tenant", HeaderValue::from_static("nyx"));
    let mut client = Client::of(TransportSettings { headers, ..settings(protocol, &destination.endpoint()) });
    assert_eq!(Verdict::on(client.send(&[b"one ", b"two ", &[b'3'; 10_000]]).await), Verdict::Success);
    let received = destination.received().remove(0);
    assert_eq!(received.message, [&b"one two "[..], &[b'3'; 10_000]].concat());
    let header = |name| received.headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(header("x-tenant"), Some("nyx"));
    assert_eq!(header("user-agent"), Some("nyx-daemon/0.1.0 OTel-OTLP-Exporter-Rust/0.1.0"));
    match protocol {
        Protocol::Grpc => {
            assert_eq!(header("content-type"), Some("application/grpc"));
            assert_eq!(header("te"), Some("trailers"));
            assert_eq!(header("grpc-timeout"), Some("10000m"));
        }
        Protocol::HttpProtobuf => {
            assert_eq!((header("method"), header("target")), (Some("POST"), Some("/v1/traces")));
            assert_eq!(header("content-type"), Some("application/x-protobuf"));
            assert_eq!(header("content-length"), Some("10008"));
            assert_eq!(header("host"), destination.endpoint().strip_prefix("http://"));
            assert_eq!(header("content-encoding"), None);
        }
    }
}

async fn a_connection_serves_one_request_after_the_other(protocol: Protocol) {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = Client::to(protocol, &destination);
    for _ in 0..8 {
        assert_eq!(client.verdict(100_000).await, Verdict::Success);
    }
    assert_eq!(destination.counts(), (1, 8));
}

async fn a_unix_socket_is_reached_like_any_other(protocol: Protocol) {
    let name = format!("nyx-export-{}-{protocol:?}.sock", std::process::id());
    let destination = ScriptedDestination::start_unix(std::env::temp_dir().join(name)).unwrap();
    assert_eq!(Client::to(protocol, &destination).verdict(1).await, Verdict::Success);
}

async fn a_compressed_request_unpacks_to_its_frames(protocol: Protocol) {
    let destination = ScriptedDestination::start().unwrap();
    let settings = settings(protocol, &destination.endpoint());
    let mut client = Client::of(TransportSettings { gzip: true, ..settings });
    let frames = vec![Bytes::from_static(&[b'a'; 100_000]), Bytes::from_static(b"bbb")];
    let sent = client.transport.send(frames.clone());
    let sent = client.drive(sent).await;
    assert_eq!(Verdict::on(sent.outcome), Verdict::Success);
    assert!((50..10_000).contains(&sent.bytes), "{} bytes went out", sent.bytes);
    assert_eq!(destination.received().remove(0).message, frames.concat());
}

async fn every_kind_of_answer_has_the_same_verdict(protocol: Protocol) {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = Client::to(protocol, &destination);
    for (code, kind) in [
        (3, Kind::Invalid),
        (5, Kind::Blocked),
        (7, Kind::Blocked),
        (11, Kind::TooLarge),
        (12, Kind::Blocked),
        (13, Kind::Refused),
        (14, Kind::Retryable),
        (16, Kind::Blocked),
    ] {
        destination.script([Reply::status(code, "für später: 100 %")]);
        let verdict = client.verdict(1).await;
        assert_eq!(verdict.kind(), kind, "{code}: {verdict:?}");
        let message = verdict.message().unwrap();
        assert!(message.ends_with(": für später: 100 %"), "{message}");
    }
    assert_eq!(destination.counts(), (1, 8), "an error is no reason for another connection");
}

async fn every_status_of_grpc_ends_in_a_verdict_with_its_words(protocol: Protocol) {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = Client::to(protocol, &destination);
    // Of those that OTLP over HTTP has no status for, 500 is all that is told there.
    let expected = [
        (1, Kind::Retryable, Kind::Retryable),
        (2, Kind::Refused, Kind::Refused),
        (3, Kind::Invalid, Kind::Invalid),
        (4, Kind::Retryable, Kind::Retryable),
        (5, Kind::Blocked, Kind::Blocked),
        (6, Kind::Refused, Kind::Refused),
        (7, Kind::Blocked, Kind::Blocked),
        (8, Kind::Refused, Kind::Refused),
        (9, Kind::Refused, Kind::Refused),
        (10, Kind::Retryable, Kind::Refused),
        (11, Kind::TooLarge, Kind::TooLarge),
        (12, Kind::Blocked, Kind::Blocked),
        (13, Kind::Refused, Kind::Refused),
        (14, Kind::Retryable, Kind::Retryable),
        (15, Kind::Retryable, Kind::Refused),
        (16, Kind::Blocked, Kind::Blocked),
        (99, Kind::Refused, Kind::Refused),
    ];
    for (code, over_grpc, over_http) in expected {
        destination.script([Reply::status(code, "a word")]);
        let verdict = client.verdict(1).await;
        let kind = if protocol == Protocol::Grpc { over_grpc } else { over_http };
        assert_eq!(verdict.kind(), kind, "{code}: {verdict:?}");
        assert!(verdict.message().unwrap().ends_with(": a word"), "{verdict:?}");
    }
    assert_eq!(destination.counts(), (1, expected.len() as u64));
}

async fn an_error_text_of_10_mb_is_one_short_line_and_the_next_request_is_served(protocol: Protocol) {
    let destination = ScriptedDestination::start().unwrap();
    // To write so much takes a busy machine a while.
    let timeout = Duration::from_secs(60);
    let mut client = Client::of(TransportSettings { timeout, ..settings(protocol, &destination.endpoint()) });
    let text = "x".repeat(10 << 20);
    let of_a_proxy = Reply::Answer {
        status: 503,
        headers: vec![("content-type", "text/plain".to_owned())],
        body: text.clone().into(),
    };
    for reply in [Reply::status(14, &text), of_a_proxy] {
        destination.script([reply]);
        let verdict = client.verdict(1).await;
        // Over gRPC a status beyond the limit of headers is none.
        assert!(matches!(verdict.kind(), Kind::Retryable | Kind::Unreachable), "{verdict:?}");
        assert!((1..=256).contains(&verdict.message().unwrap().len()), "{verdict:?}");
        assert_eq!(client.verdict(1).await, Verdict::Success);
    }
}

async fn a_partial_success_is_read(protocol: Protocol) {
    let destination = ScriptedDestination::start().unwrap();
    destination.script([Reply::Partial { rejected: 3, message: "too old".to_owned() }]);
    let partial = Verdict::Partial { rejected: 3, message: "too old".to_owned() };
    assert_eq!(Client::to(protocol, &destination).verdict(1).await, partial);
}

async fn a_time_to_come_back_is_read(protocol: Protocol) {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = Client::to(protocol, &destination);
    let told = Duration::from_secs(7);
    let date = "Sun, 06 Nov 1994 08:49:37 GMT".to_owned();
    let dates = vec![("date", "Sun, 06 Nov 1994 08:49:30 GMT".to_owned()), ("retry-after", date)];
    let of_a_proxy = |headers| Reply::Answer { status: 503, headers, body: Bytes::new() };
    destination.script([
        Reply::Status { code: 8, message: "slow down".to_owned(), retry_after: Some(told) },
        of_a_proxy(vec![("retry-after", "7".to_owned())]),
        of_a_proxy(dates),
    ]);
    for _ in 0..3 {
        let verdict = client.verdict(1).await;
        assert!(matches!(verdict, Verdict::Throttled { delay, .. } if delay == told), "{verdict:?}");
    }
}

async fn what_is_no_otlp_answer_is_told_by_its_status_and_costs_no_span(protocol: Protocol) {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = Client::to(protocol, &destination);
    for (status, kind) in [
        (200, Kind::Blocked),
        (302, Kind::Blocked),
        (400, Kind::Blocked),
        (404, Kind::Blocked),
        (413, Kind::TooLarge),
        (500, Kind::Blocked),
        (503, Kind::Retryable),
    ] {
        destination.script([Reply::Http { status, content_type: "text/html", bytes: 10_000 }]);
        let verdict = client.verdict(1).await;
        let words = format!("HTTP {status}, no OTLP answer: text/html");
        assert_eq!((verdict.kind(), verdict.message()), (kind, Some(words.as_str())));
    }
}

async fn a_success_with_a_message_that_is_none_is_a_success(protocol: Protocol) {
    let destination = ScriptedDestination::start().unwrap();
    destination.script([Reply::Garbage]);
    assert_eq!(Client::to(protocol, &destination).verdict(1).await, Verdict::Success);
}

async fn what_breaks_a_request_off_is_no_status_and_the_next_request_is_served(protocol: Protocol) {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = Client::to(protocol, &destination);
    let content_type = match protocol {
        Protocol::Grpc => "application/grpc",
        Protocol::HttpProtobuf => "application/x-protobuf",
    };
    let large = Reply::Http { status: 200, content_type, bytes: 5 << 20 };
    for reply in [Reply::Reset, Reply::GoAway, Reply::Close, Reply::Half, large.clone()] {
        destination.script([reply.clone()]);
        let failure = client.failure().await;
        if reply == large {
            assert_eq!(failure, "response is larger than 4194304 bytes");
        }
        assert_eq!(client.verdict(1).await, Verdict::Success, "after {reply:?}");
    }
}

async fn an_answer_before_the_end_of_the_request_counts(protocol: Protocol) {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = Client::to(protocol, &destination);
    for _ in 0..20 {
        destination.script([Reply::Early { status: 413 }]);
        let verdict = client.verdict(3_500_000).await;
        assert_eq!(verdict.kind(), Kind::TooLarge, "{verdict:?}");
        assert_eq!(client.verdict(1).await, Verdict::Success);
    }
}

async fn what_speaks_another_protocol_is_no_status(protocol: Protocol) {
    let destination = ScriptedDestination::start().unwrap();
    let greetings = match protocol {
        Protocol::Grpc => [Greeting::Http1, Greeting::Garbage, Greeting::Close],
        Protocol::HttpProtobuf => [Greeting::Http2, Greeting::Garbage, Greeting::Close],
    };
    for greeting in greetings {
        destination.greet(greeting);
        Client::to(protocol, &destination).failure().await;
    }
}

async fn a_destination_that_is_gone_is_named_and_found_again(protocol: Protocol) {
    let mut destination = ScriptedDestination::start().unwrap();
    let mut client = Client::to(protocol, &destination);
    assert_eq!(client.verdict(1).await, Verdict::Success);
    destination.kill();
    client.failure().await;
    let endpoint = destination.endpoint();
    let message = format!("connect to {endpoint}: Connection refused (os error 111)");
    assert_eq!(client.failure().await, message);
    let connect = client.transport.connect();
    assert_eq!(client.drive(connect).await, Err(Failure { message }));
    destination.revive().unwrap();
    let (connections, _) = destination.counts();
    for _ in 0..2 {
        let connect = client.transport.connect();
        assert_eq!(client.drive(connect).await, Ok(()));
    }
    assert_eq!(client.verdict(1).await, Verdict::Success);
    assert_eq!(destination.counts().0, connections + 1, "what was connected is used");
}

async fn requests_at_a_time_are_all_served(protocol: Protocol) {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = Client::to(protocol, &destination);
    for _ in 0..3 {
        let requests: Vec<_> =
            (0..4).map(|_| client.transport.send(vec![Bytes::from_static(&[7; 100_000])])).collect();
        let sent = client.drive(futures_util::future::join_all(requests)).await;
        assert!(sent.into_iter().all(|sent| Verdict::on(sent.outcome) == Verdict::Success));
    }
    let (connections, requests) = destination.counts();
    assert_eq!(requests, 12);
    assert!(connections <= 4, "{connections} connections for 4 requests at a time");
}

async fn a_connection_that_the_server_closes_between_requests_costs_none(protocol: Protocol) {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = Client::to(protocol, &destination);
    for _ in 0..20 {
        destination.script([Reply::OkThenGoAway]);
        assert_eq!(client.verdict(1).await, Verdict::Success);
        assert_eq!(client.verdict(1).await, Verdict::Success);
    }
}

async fn after_a_timeout_the_next_request_has_a_connection_of_its_own(protocol: Protocol) {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = Client::to(protocol, &destination);
    assert_eq!(client.verdict(1).await, Verdict::Success);
    destination.script([Reply::Stall]);
    tokio::time::pause();
    assert_eq!(client.failure().await, "no answer within 10000 ms");
    tokio::time::resume();
    destination.until(|destination| destination.counts().1 == 2).await;
    assert_eq!(client.verdict(1).await, Verdict::Success);
    assert_eq!(destination.counts().0, 2);
}

async fn a_panic_in_a_future_of_the_connection_is_that_of_whoever_polls_the_requests(protocol: Protocol) {
    use futures_util::FutureExt;
    let destination = ScriptedDestination::start().unwrap();
    let mut client = Client::to(protocol, &destination);
    Executor::new(&client.tasks).run(async { panic!("in hyper") });
    let polled = std::panic::AssertUnwindSafe(client.verdict(1)).catch_unwind().await;
    assert_eq!(polled.unwrap_err().downcast_ref(), Some(&"in hyper"));
}
