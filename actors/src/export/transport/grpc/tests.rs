use super::{
    super::{
        super::{
            testing::{Reply, ScriptedDestination},
            verdict::{Answer, GrpcCode, ServerStatus},
        },
        Protocol,
        conformance::{Client, settings},
    },
    *,
};

fn client(destination: &ScriptedDestination) -> Client {
    Client::of(settings(Protocol::Grpc, &destination.endpoint()))
}

fn answered(code: GrpcCode, message: &str) -> Outcome {
    Outcome::Answered(Answer { message: message.to_owned(), ..Answer::new(ServerStatus::Grpc(code)) })
}

#[tokio::test]
async fn every_request_uses_the_one_connection() {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = client(&destination);
    let requests: Vec<_> =
        (0..8).map(|_| client.transport.send(vec![Bytes::from_static(&[7; 100_000])])).collect();
    let sent = client.drive(futures_util::future::join_all(requests)).await;
    let ok = Outcome::Answered(Answer::new(ServerStatus::Grpc(GrpcCode::Ok)));
    assert!(sent.iter().all(|sent| sent.outcome == ok && sent.bytes == 100_005));
    assert_eq!(destination.counts(), (1, 8));
}

#[tokio::test]
async fn every_status_that_a_server_sends_is_the_server_s() {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = client(&destination);
    for code in 1..=17 {
        destination.script([Reply::status(code, "für später: 100 %")]);
        assert_eq!(client.send(&[b"x"]).await, answered(GrpcCode::from_wire(code), "für später: 100 %"));
    }
    assert_eq!(destination.counts(), (1, 17));
}

#[tokio::test]
async fn a_retry_info_and_a_partial_success_are_read() {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = client(&destination);
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
    let mut client = client(&destination);
    for status in [200, 302, 404, 503] {
        destination.script([Reply::Http { status, content_type: "text/html", bytes: 10_000 }]);
        let expected = Answer { message: "text/html".to_owned(), ..Answer::new(ServerStatus::Http(status)) };
        assert_eq!(client.send(&[b"x"]).await, Outcome::Answered(expected));
    }
}

#[tokio::test]
async fn requests_that_wait_for_one_connection_share_its_failure() {
    let mut destination = ScriptedDestination::start().unwrap();
    destination.kill();
    let mut client = client(&destination);
    let requests: Vec<_> = (0..4).map(|_| client.transport.send(vec![Bytes::from_static(b"x")])).collect();
    let sent = client.drive(futures_util::future::join_all(requests)).await;
    assert!(sent.iter().all(|sent| matches!(sent.outcome, Outcome::Failed(_))));
    let super::super::Transport::Grpc(transport) = &client.transport else { panic!("that is gRPC") };
    assert_eq!(transport.0.attempts.load(Ordering::Relaxed), 1);
}

#[test]
fn a_grpc_timeout_has_eight_digits_at_most() {
    assert_eq!(grpc_timeout(Duration::from_millis(99_999_999)), "99999999m");
    assert_eq!(grpc_timeout(Duration::from_millis(100_000_000)), "100000S");
    assert_eq!(grpc_timeout(Duration::MAX), "99999999S");
}
