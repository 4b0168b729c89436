use super::{
    super::{
        super::{
            testing::{Reply, ScriptedDestination},
            verdict::{Kind, Verdict},
        },
        Protocol,
        conformance::{Client, settings},
    },
    *,
};

/// The verdict on a request that is answered so.
async fn verdict_on(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Verdict {
    let destination = ScriptedDestination::start().unwrap();
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    destination.script([Reply::Answer { status, headers, body: Bytes::copy_from_slice(body) }]);
    Client::of(settings(Protocol::HttpProtobuf, &destination.endpoint())).verdict(1).await
}

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
const TEXT: (&str, &str) = ("content-type", "text/plain");

#[tokio::test]
async fn a_success_may_be_empty_whatever_it_is_called() {
    for status in [200, 202, 204] {
        for headers in [&[][..], &[PROTOBUF], &[TEXT], &[("content-type", "text/html")]] {
            assert_eq!(verdict_on(status, headers, b"").await, Verdict::Success, "{status} {headers:?}");
        }
    }
}

#[tokio::test]
async fn a_success_of_something_else_is_none() {
    for (headers, message) in [
        (
            &[("content-type", "text/html; charset=utf-8")][..],
            "HTTP 200, no OTLP answer: text/html; charset=utf-8",
        ),
        (&[TEXT], "HTTP 200, no OTLP answer: text/plain"),
        (&[], "HTTP 200, no OTLP answer: no content type"),
    ] {
        let verdict = verdict_on(200, headers, b"<html>welcome</html>").await;
        assert_eq!(verdict, Verdict::Blocked { message: message.to_owned() });
    }
}

#[tokio::test]
async fn a_service_that_answers_in_json_is_understood() {
    for body in
        ["{}", "", "{\"status\":\"ok\"}", "{\"partialSuccess\":null}", "{\"partialSuccess\":{}}", "[1"]
    {
        assert_eq!(verdict_on(200, &[JSON], body.as_bytes()).await, Verdict::Success, "{body}");
    }
    for count in ["3", "\"3\""] {
        let body = format!("{{\"partialSuccess\":{{\"rejectedSpans\":{count},\"errorMessage\":\"old\"}}}}");
        let partial = Verdict::Partial { rejected: 3, message: "old".to_owned() };
        assert_eq!(verdict_on(200, &[JSON], body.as_bytes()).await, partial);
    }
    let refused = verdict_on(400, &[JSON], b"{\"code\":3,\"message\":\"no trace id\"}").await;
    assert_eq!((refused.kind(), refused.message()), (Kind::Invalid, Some("HTTP 400: no trace id")));
    let refused = verdict_on(401, &[JSON], b"{\"error\":1}").await;
    assert_eq!((refused.kind(), refused.message()), (Kind::Blocked, Some("HTTP 401: {\"error\":1}")));
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_where_it_points_is_told_without_what_may_be_secret() {
    for (location, told) in [
        ("https://login.example/start?token=hush#x", "redirects to https://login.example/start"),
        ("/v1/traces/", "redirects to /v1/traces/"),
        ("https://me:hush@example/", "text/html"),
    ] {
        for status in [301, 302, 307, 308] {
            let headers = [("location", location), ("content-type", "text/html")];
            let message = format!("HTTP {status}, no OTLP answer: {told}");
            assert_eq!(verdict_on(status, &headers, b"moved").await, Verdict::Blocked { message });
        }
    }
}

#[tokio::test]
async fn a_bad_request_by_something_that_is_no_service_costs_no_span() {
    // What speaks TLS answers so, and so do servers that cannot read a request at all.
    let words = "The plain HTTP request was sent to HTTPS port";
    for (headers, told) in
        [(&[][..], "no content type"), (&[("content-type", "text/html")], "text/html"), (&[TEXT], words)]
    {
        for status in [400, 500, 501] {
            let verdict = verdict_on(status, headers, words.as_bytes()).await;
            let message = format!("HTTP {status}, no OTLP answer: {told}");
            assert_eq!(verdict, Verdict::Blocked { message });
        }
    }
}

#[tokio::test]
async fn words_of_any_length_and_form_become_one_short_line() {
    let long = [b"no\r\n\tway \x1b[31m".as_slice(), &vec![b'x'; 10_000_000]].concat();
    for (content_type, beginning) in
        [(TEXT, "HTTP 401, no OTLP answer: no way [31mxxx"), (JSON, "HTTP 401: no way [31mxxx")]
    {
        let verdict = verdict_on(401, &[content_type], &long).await;
        let message = verdict.message().unwrap();
        assert_eq!((verdict.kind(), message.len()), (Kind::Blocked, 256));
        assert!(message.starts_with(beginning), "{message}");
    }
    for (body, message) in [(&b""[..], "HTTP 403"), (b"\xff\xfe", "HTTP 403: \u{fffd}\u{fffd}")] {
        assert_eq!(verdict_on(403, &[JSON], body).await.message(), Some(message));
    }
    assert_eq!(verdict_on(403, &[PROTOBUF], &[0xff; 64]).await.message(), Some("HTTP 403"));
}

#[tokio::test]
async fn an_error_that_breaks_off_is_the_status_that_it_began_with() {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = Client::of(settings(Protocol::HttpProtobuf, &destination.endpoint()));
    destination.script([Reply::Raw(Bytes::from_static(
        b"HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\nbad sp",
    ))]);
    let message = "HTTP 400: bad sp".to_owned();
    let reason = crate::log::DropReason::Invalid;
    assert_eq!(client.verdict(1).await, Verdict::Bisect { reason, message });
    assert_eq!(client.verdict(1).await, Verdict::Success);
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_no_status() {
    let destination = ScriptedDestination::start().unwrap();
    let mut client = Client::of(settings(Protocol::HttpProtobuf, &destination.endpoint()));
    let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(300_000));
    for bytes in
        [&b""[..], b"HTTP/1.1 ", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 99 No\r\n\r\n", head.as_bytes()]
    {
        destination.script([Reply::Raw(Bytes::copy_from_slice(bytes))]);
        let verdict = client.verdict(1).await;
        assert_eq!(verdict.kind(), Kind::Unreachable, "{verdict:?} on {} bytes", bytes.len());
        assert_eq!(client.verdict(1).await, Verdict::Success);
    }
}

#[tokio::test]
async fn there_are_no_more_connections_kept_than_requests_at_a_time() {
    let destination = ScriptedDestination::start().unwrap();
    let endpoint = destination.endpoint();
    let mut client =
        Client::of(TransportSettings { concurrency: 2, ..settings(Protocol::HttpProtobuf, &endpoint) });
    let requests: Vec<_> = (0..5).map(|_| client.transport.send(vec![Bytes::from_static(b"x")])).collect();
    client.drive(futures_util::future::join_all(requests)).await;
    let super::super::Transport::Http(transport) = &client.transport else { panic!("that is HTTP") };
    assert_eq!(transport.0.idle.lock().len(), 2);
}
