//! What is recorded of a request at a door, where nyx traces itself: a server span after OpenTelemetry's semantic
//! conventions for gRPC and HTTP.

use http::{HeaderMap, Method, Request, StatusCode, Version, header::USER_AGENT};
use tonic::Code;

use super::{Refusal, Unanswered, echo, header, response::Taken};
use crate::{
    export::verdict::GrpcCode,
    self_tracing::{Origin, Recording, Tracer},
    span::SpanContext,
};

const TRACEPARENT: &str = "traceparent";
/// What the conventions call a method that is none of the known.
const OTHER: &str = "_OTHER";

/// Bytes of a message, unpacked.
const REQUEST_BYTES: &str = "nyx.request.bytes";
/// Spans that were taken.
const REQUEST_SPANS: &str = "nyx.request.spans";
/// Spans that were rejected, the others being taken.
const REJECTED_SPANS: &str = "nyx.request.rejected_spans";
/// Why the request was refused, as the door's account has it.
const REFUSAL: &str = "nyx.request.refusal";

/// The span of a request, from its head to its answer.
pub(super) struct RequestSpan {
    recording: Recording,
    /// Where it is recorded.
    unanswered: Option<Unanswered>,
}

impl RequestSpan {
    /// A request over gRPC; `method` is the only one that is served, as in the path.
    pub(super) fn grpc<B>(
        tracer: &Tracer,
        request: &Request<B>,
        method: &'static str,
        unanswered: &Unanswered,
    ) -> Self {
        if !tracer.is_on() {
            return Self::off();
        }
        let (name, method) = match method.strip_prefix('/') {
            Some(name) if request.uri().path() == method => (name, name),
            _ => ("grpc", OTHER),
        };
        let mut recording = tracer.request(name, || sender(request.headers()));
        if recording.is_on() {
            recording.set("rpc.system.name", "grpc");
            recording.set("rpc.method", method);
            user_agent(&mut recording, request.headers());
        }
        Self::of(recording, unanswered)
    }

    /// A request over HTTP; `served` is the name of what is served, and `route` its path.
    pub(super) fn http<B>(
        tracer: &Tracer,
        request: &Request<B>,
        (served, route): (&'static str, &'static str),
        is_tls: impl FnOnce() -> bool,
        unanswered: &Unanswered,
    ) -> Self {
        if !tracer.is_on() {
            return Self::off();
        }
        let method = known(request.method());
        let is_served = request.uri().path() == route && request.method() == Method::POST;
        let name = match method {
            _ if is_served => served,
            OTHER => "HTTP",
            known => known,
        };
        let mut recording = tracer.request(name, || sender(request.headers()));
        if recording.is_on() {
            recording.set("http.request.method", method);
            if is_served {
                recording.set("http.route", route);
            }
            recording.set("url.path", echo(request.uri().path()).to_owned());
            recording.set("url.scheme", if is_tls() { "https" } else { "http" });
            recording.set("network.protocol.version", version(request.version()));
            user_agent(&mut recording, request.headers());
        }
        Self::of(recording, unanswered)
    }

    fn off() -> Self {
        Self { recording: Recording::default(), unanswered: None }
    }

    fn of(recording: Recording, unanswered: &Unanswered) -> Self {
        let unanswered = recording.is_on().then(|| unanswered.clone());
        Self { recording, unanswered }
    }

    /// The message is whole.
    pub(super) fn message(&mut self, bytes: usize) {
        self.recording.set(REQUEST_BYTES, bytes);
    }

    /// What its batch belongs to.
    pub(super) fn origin(&self) -> Origin {
        self.recording.context().map_or(Origin::Unrecorded, Origin::Recorded)
    }

    /// The answer over gRPC.
    pub(super) fn answered_grpc(mut self, outcome: Result<&Taken, (&Refusal, Code)>) {
        if self.recording.is_on() {
            let code = outcome.as_ref().err().map_or(Code::Ok, |&(_, code)| code);
            self.recording.set("rpc.response.status_code", GrpcCode::from_wire(code as u32).name());
            // Of a server's span the others are no errors: its client's, at most.
            let is_error = matches!(
                code,
                Code::Unknown
                    | Code::DeadlineExceeded
                    | Code::Unimplemented
                    | Code::Internal
                    | Code::Unavailable
                    | Code::DataLoss
            );
            self.outcome(outcome.map_err(|(refusal, _)| refusal), is_error);
        }
        self.end();
    }

    /// The answer over HTTP.
    pub(super) fn answered_http(mut self, status: StatusCode, outcome: Result<&Taken, &Refusal>) {
        if self.recording.is_on() {
            self.recording.set("http.response.status_code", status.as_u16());
            self.outcome(outcome, status.is_server_error());
        }
        self.end();
    }

    fn outcome(&mut self, outcome: Result<&Taken, &Refusal>, is_error: bool) {
        match outcome {
            Ok(taken) => {
                self.recording.set(REQUEST_SPANS, taken.kept);
                self.recording.set(REJECTED_SPANS, taken.rejected);
            }
            Err(refusal) => {
                let reason = refusal.reason().label();
                self.recording.set(REFUSAL, reason);
                if is_error {
                    self.recording.fail(reason, || refusal.to_string());
                }
            }
        }
    }

    fn end(&mut self) {
        std::mem::take(&mut self.recording).end();
    }
}

impl Drop for RequestSpan {
    /// It ends without an answer: its sender has gone, or its connection's actor has.
    fn drop(&mut self) {
        if let Some(unanswered) = self.unanswered.take().filter(|_| self.recording.is_on()) {
            let reason = unanswered.reason().label();
            self.recording.set(REFUSAL, reason);
            self.recording.fail(reason, || "ended without an answer".to_owned());
            self.end();
        }
    }
}

/// The sender's span, if it told of one that can be read (W3C Trace Context).
fn sender(headers: &HeaderMap) -> Option<SpanContext> {
    header(headers, TRACEPARENT).parse().ok()
}

fn user_agent(recording: &mut Recording, headers: &HeaderMap) {
    let text = header(headers, USER_AGENT.as_str());
    if !text.is_empty() {
        recording.set("user_agent.original", echo(text).to_owned());
    }
}

fn known(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["POST", "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| method.as_str() == *known).unwrap_or(OTHER)
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        accept::DoorReason,
        self_tracing::{Attribute, OwnSpan, testing::recording_all},
    };

    const METHOD: &str = "/package.Service/Method";

    /// What is recorded of one request.
    fn recorded(request: impl FnOnce(&Tracer)) -> OwnSpan {
        let (tracer, recorded) = recording_all(1.0);
        request(&tracer);
        let mut spans = recorded.take();
        assert_eq!(spans.len(), 1, "{spans:?}");
        spans.remove(0)
    }

    fn shown(span: &OwnSpan) -> Vec<String> {
        let value = |value: &Attribute| match value {
            Attribute::Word(word) => (*word).to_owned(),
            Attribute::Text(text) => text.clone(),
            Attribute::Number(number) => number.to_string(),
        };
        span.attributes.iter().map(|(name, of)| format!("{name}={}", value(of))).collect()
    }

    fn post(path: &str) -> Request<()> {
        Request::post(path).header(USER_AGENT, "tester/1").body(()).unwrap()
    }

    #[test]
    fn a_request_that_is_taken_is_no_error_and_has_its_counts() {
        let span = recorded(|tracer| {
            let mut span = RequestSpan::grpc(tracer, &post(METHOD), METHOD, &Unanswered::default());
            span.message(100);
            let taken = Taken { kept: 7, rejected: 2, ..Taken::default() };
            span.answered_grpc(Ok(&taken));
        });
        assert_eq!((span.name, &span.error), ("package.Service/Method", &None));
        assert_eq!(
            shown(&span),
            [
                "rpc.system.name=grpc",
                "rpc.method=package.Service/Method",
                "user_agent.original=tester/1",
                "nyx.request.bytes=100",
                "rpc.response.status_code=OK",
                "nyx.request.spans=7",
                "nyx.request.rejected_spans=2"
            ]
        );
    }

    #[test]
    fn a_refusal_has_its_reason_and_is_an_error_where_it_is_the_server_s() {
        let refused = |refusal: Refusal, code| {
            recorded(|tracer| {
                let span = RequestSpan::grpc(tracer, &post("/other"), METHOD, &Unanswered::default());
                span.answered_grpc(Err((&refusal, code)));
            })
        };
        let span = refused(Refusal::NoMessage, Code::InvalidArgument);
        assert_eq!(span.error, None);
        assert_eq!(
            shown(&span)[3..],
            ["rpc.response.status_code=INVALID_ARGUMENT", "nyx.request.refusal=invalid"]
        );
        assert!(shown(&span).contains(&"rpc.method=_OTHER".to_owned()));
        let span = refused(Refusal::ShuttingDown, Code::Unavailable);
        assert_eq!(span.error.as_deref(), Some("shutting down"));
        assert!(shown(&span).contains(&"error.type=shutting_down".to_owned()));
    }

    #[test]
    fn a_request_over_http_is_named_by_its_route_or_its_method_and_never_by_its_path() {
        let get = Request::get("/a/path?token=secret").version(Version::HTTP_10).body(()).unwrap();
        let odd = Request::builder().method("BREW").uri("/v1/traces").body(()).unwrap();
        for (request, status, name) in
            [(post("/v1/traces"), 503, "POST /v1/traces"), (get, 404, "GET"), (odd, 405, "HTTP")]
        {
            let span = recorded(|tracer| {
                let served = ("POST /v1/traces", "/v1/traces");
                let span = RequestSpan::http(tracer, &request, served, || true, &Unanswered::default());
                span.answered_http(StatusCode::from_u16(status).unwrap(), Err(&Refusal::Lost));
            });
            assert_eq!((span.name, span.error.is_some()), (name, status == 503));
            let shown = shown(&span);
            assert!(shown.contains(&"url.scheme=https".to_owned()), "{shown:?}");
            assert!(shown.contains(&format!("http.response.status_code={status}")), "{shown:?}");
            assert!(!shown.iter().any(|attribute| attribute.contains("secret")), "{shown:?}");
        }
    }

    #[test]
    fn a_request_without_an_answer_ends_for_the_reason_of_its_connection() {
        let span = recorded(|tracer| {
            let unanswered = Unanswered::default();
            let span = RequestSpan::grpc(tracer, &post(METHOD), METHOD, &unanswered);
            unanswered.because(DoorReason::ShuttingDown);
            drop(span);
        });
        assert_eq!(span.error.as_deref(), Some("ended without an answer"));
        assert!(shown(&span).contains(&"nyx.request.refusal=shutting_down".to_owned()), "{span:?}");
    }

    #[test]
    fn a_parent_that_cannot_be_read_is_none() {
        let request = Request::post(METHOD).header(TRACEPARENT, "00-0-0-01").body(()).unwrap();
        let span = recorded(|tracer| {
            RequestSpan::grpc(tracer, &request, METHOD, &Unanswered::default())
                .answered_grpc(Ok(&Taken::default()));
        });
        assert_eq!(span.parent, None);
    }
}
