//! The load generator: numbered spans over some connections, each with some requests in flight, until all are
//! acknowledged or the time is up. One thread.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::grpc::{self, Outcome, PREFIX_LEN, RESOURCE_EXHAUSTED, UNAVAILABLE};
use crate::protocol::{Encoding, Protocol};
use crate::sink::lock;
use crate::spans::Generator;
use crate::tally::seconds;
use crate::{http1, json};

/// A request waits so long for its answer before it is sent again.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const BACKOFF_FIRST: Duration = Duration::from_millis(5);
const BACKOFF_CAP: Duration = Duration::from_secs(1);
/// Kinds of faults kept in words.
const EXAMPLES_MAX: usize = 8;

/// What to send. Everything is bounded: by `spans` and by `limit`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) target: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) run: u32,
    /// The number of the first span.
    pub(crate) first: u64,
    pub(crate) spans: u64,
    pub(crate) per_request: u64,
    pub(crate) connections: usize,
    /// Requests in flight on each connection; over HTTP/1.1, which carries one at a time, so many times the connections.
    pub(crate) in_flight: usize,
    /// Spans a second; as fast as answers come, if none.
    pub(crate) rate: Option<f64>,
    pub(crate) limit: Duration,
}

/// What became of it.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Report {
    /// Spans in requests that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Spans given up on, by a status that is not to be retried or because the time was up.
    pub(crate) given_up: u64,
    /// Spans that an acknowledgement said were rejected.
    pub(crate) rejected: u64,
    pub(crate) requests: u64,
    /// Bytes of acknowledged requests in protobuf, without framing.
    pub(crate) bytes: u64,
    /// Refusals that were retried, by gRPC status.
    pub(crate) refused: BTreeMap<u32, u64>,
    /// Requests that got no answer and were sent again: the only ones that may honestly arrive twice.
    pub(crate) unanswered: u64,
    pub(crate) elapsed_s: f64,
    pub(crate) acknowledged_per_s: f64,
    /// From the first sending (with a rate: from when it was due) to the acknowledgement.
    pub(crate) ack_ms: Quantiles,
    /// The first few faults, in words.
    pub(crate) examples: Vec<String>,
}

/// Exact quantiles, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Quantiles {
    /// The nearest-rank quantiles of durations in microseconds.
    pub(crate) fn of(mut micros: Vec<u32>) -> Self {
        micros.sort_unstable();
        let at = |quantile: f64| {
            let rank = (quantile * micros.len() as f64).ceil() as usize;
            micros.get(rank.saturating_sub(1)).map_or(0.0, |us| f64::from(*us) / 1e3)
        };
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

#[derive(Debug)]
struct Shared {
    plan: Plan,
    generator: Generator,
    started: Instant,
    next: AtomicU64,
    buffers: Arc<Mutex<Vec<Vec<u8>>>>,
    results: Mutex<(Report, Vec<u32>)>,
}

/// A connection that is opened again when it broke. Workers share one over HTTP/2; over HTTP/1.1 each has its own.
enum Line {
    Http2(tokio::sync::Mutex<Option<conn::http2::SendRequest<Full<Bytes>>>>),
    Http1(Encoding, tokio::sync::Mutex<Option<conn::http1::SendRequest<Full<Bytes>>>>),
}

/// A buffer that goes back to its pool when hyper has sent it: a fresh one each time would be page faults.
struct Pooled {
    buffer: Vec<u8>,
    pool: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        lock(&self.pool).push(std::mem::take(&mut self.buffer));
    }
}

/// Sends the plan's spans.
pub(crate) async fn run(plan: Plan) -> Report {
    let shared = Arc::new(Shared {
        plan,
        generator: Generator::new(plan.run),
        started: Instant::now(),
        next: AtomicU64::new(0),
        buffers: Arc::default(),
        results: Mutex::default(),
    });
    let mut workers = JoinSet::new();
    let (lines, workers_each) = match plan.protocol {
        Protocol::Grpc => (plan.connections, plan.in_flight),
        Protocol::HttpProtobuf | Protocol::HttpJson => (plan.connections * plan.in_flight, 1),
    };
    for _ in 0..lines {
        let line = Arc::new(match plan.protocol.over_http() {
            None => Line::Http2(None.into()),
            Some(encoding) => Line::Http1(encoding, None.into()),
        });
        for _ in 0..workers_each {
            let (shared, line) = (shared.clone(), line.clone());
            workers.spawn(async move { shared.work(&line).await });
        }
    }
    while workers.join_next().await.is_some() {}
    let (mut report, micros) = std::mem::take(&mut *lock(&shared.results));
    report.elapsed_s = seconds(shared.started.elapsed());
    report.acknowledged_per_s = (report.acknowledged as f64 / report.elapsed_s.max(1e-6)).round();
    report.ack_ms = Quantiles::of(micros);
    report.given_up = plan.spans - report.acknowledged;
    report
}

impl Shared {
    async fn work(&self, line: &Line) {
        let plan = &self.plan;
        loop {
            let offset = self.next.fetch_add(1, Ordering::Relaxed) * plan.per_request;
            if offset >= plan.spans || self.started.elapsed() >= plan.limit {
                return;
            }
            let mut due = Instant::now();
            if let Some(rate) = plan.rate {
                due = self.started + Duration::from_secs_f64(offset as f64 / rate);
                sleep_until(due).await;
            }
            let count = plan.per_request.min(plan.spans - offset);
            let (body, bytes) = self.body(plan.first + offset, count);
            if let Some(rejected) = self.deliver(line, body).await {
                let micros = u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX);
                let (report, all) = &mut *lock(&self.results);
                report.acknowledged += count;
                report.rejected += rejected;
                report.requests += 1;
                report.bytes += bytes;
                all.push(micros);
            }
        }
    }

    /// A request's body, and how many bytes its message has in protobuf.
    fn body(&self, first: u64, count: u64) -> (Bytes, u64) {
        let mut buffer = self.buffer();
        let prefix = match self.plan.protocol {
            Protocol::Grpc => PREFIX_LEN,
            Protocol::HttpProtobuf | Protocol::HttpJson => 0,
        };
        buffer.resize(prefix, 0);
        self.generator.put_request(&mut buffer, first, count);
        let bytes = (buffer.len() - prefix) as u64;
        match self.plan.protocol {
            Protocol::Grpc => grpc::put_prefix(&mut buffer),
            Protocol::HttpProtobuf => {}
            Protocol::HttpJson => {
                let mut text = self.buffer();
                // What goes wrong is told: a request that is no JSON is refused.
                if let Err(fault) = json::put_request(&mut text, &buffer) {
                    self.note(|_| {}, 0, fault.0);
                }
                lock(&self.buffers).push(std::mem::replace(&mut buffer, text));
            }
        }
        (Bytes::from_owner(Pooled { buffer, pool: self.buffers.clone() }), bytes)
    }

    fn buffer(&self) -> Vec<u8> {
        let mut buffer = lock(&self.buffers).pop().unwrap_or_default();
        buffer.clear();
        buffer
    }

    /// Sends until acknowledged: the rejected spans; none if given up.
    async fn deliver(&self, line: &Line, body: Bytes) -> Option<u64> {
        let mut backoff = BACKOFF_FIRST;
        loop {
            match self.attempt(line, body.clone()).await {
                Outcome::Accepted { rejected } => return Some(rejected),
                Outcome::Status { code: code @ (RESOURCE_EXHAUSTED | UNAVAILABLE), message } => {
                    self.note(|report| *report.refused.entry(code).or_default() += 1, code, &message);
                }
                Outcome::Status { code, message } => {
                    self.note(|_| {}, code, &message);
                    return None;
                }
                Outcome::Unanswered(why) => self.note(|report| report.unanswered += 1, 0, &why),
            }
            if self.started.elapsed() + backoff >= self.plan.limit {
                return None;
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_CAP);
        }
    }

    async fn attempt(&self, line: &Line, body: Bytes) -> Outcome {
        match line {
            Line::Http2(held) => self.over_http2(held, body).await,
            Line::Http1(encoding, held) => self.over_http1(*encoding, held, body).await,
        }
        .unwrap_or_else(Outcome::Unanswered)
    }

    async fn over_http2(
        &self,
        held: &tokio::sync::Mutex<Option<conn::http2::SendRequest<Full<Bytes>>>>,
        framed: Bytes,
    ) -> Result<Outcome, String> {
        let target = self.plan.target;
        let mut held = held.lock().await;
        let mut sender = match held.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => grpc::connect(target).await?,
        };
        *held = Some(sender.clone());
        drop(held);
        Ok(grpc::call(&mut sender, target, framed, ANSWER_LIMIT).await)
    }

    async fn over_http1(
        &self,
        encoding: Encoding,
        held: &tokio::sync::Mutex<Option<conn::http1::SendRequest<Full<Bytes>>>>,
        body: Bytes,
    ) -> Result<Outcome, String> {
        let target = self.plan.target;
        let mut held = held.lock().await;
        let mut sender = match held.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => http1::connect(target).await?,
        };
        let outcome = http1::call(&mut sender, target, encoding, body, ANSWER_LIMIT).await;
        // One whose answer did not come is not used again.
        *held = Some(sender).filter(|_| !matches!(outcome, Outcome::Unanswered(_)));
        Ok(outcome)
    }

    fn note(&self, count: impl FnOnce(&mut Report), code: u32, words: &str) {
        let (report, _) = &mut *lock(&self.results);
        count(report);
        let words = format!("status {code}: {words}");
        if report.examples.len() < EXAMPLES_MAX && !report.examples.contains(&words) {
            report.examples.push(words);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{self, Faults};
    use crate::tally::{self, Tally};

    async fn through(faults: Faults, spans: u64) -> (Report, tally::Report) {
        let listener = sink::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let plan = Plan {
            target: listener.local_addr().unwrap(),
            protocol: Protocol::Grpc,
            run: 3,
            first: 0,
            spans,
            per_request: 100,
            connections: 2,
            in_flight: 2,
            rate: None,
            limit: Duration::from_secs(60),
        };
        let tally = Arc::new(Mutex::new(Tally::new(3, spans as usize)));
        let sent = tokio::select! {
            () = sink::serve(listener, tally.clone(), faults, spans) => panic!("the sink died"),
            sent = run(plan) => sent,
        };
        let arrived = lock(&tally).report(spans);
        (sent, arrived)
    }

    #[tokio::test]
    async fn what_is_sent_over_loopback_arrives_once_and_intact() {
        let (sent, arrived) = through(Faults::default(), 2_050).await;
        assert!(arrived.is_exact(), "{arrived:?}");
        assert_eq!((sent.acknowledged, sent.given_up, sent.requests), (2_050, 0, 21));
        assert_eq!((sent.bytes, arrived.counts.requests), (arrived.counts.bytes, 21));
    }

    #[tokio::test]
    async fn refusals_are_retried_and_counted() {
        let faults = Faults { status: UNAVAILABLE, status_first: 5, ..Faults::default() };
        let (sent, arrived) = through(faults, 1_000).await;
        assert!(arrived.is_exact(), "{arrived:?}");
        assert_eq!(sent.refused, BTreeMap::from([(UNAVAILABLE, 5)]));
        assert_eq!(arrived.counts.refused, 5);
    }

    #[tokio::test]
    async fn a_status_that_is_not_to_be_retried_ends_its_request() {
        let faults = Faults { status: grpc::INVALID_ARGUMENT, status_first: 1, ..Faults::default() };
        let (sent, arrived) = through(faults, 1_000).await;
        assert_eq!((sent.acknowledged, sent.given_up, arrived.missing), (900, 100, 100));
    }

    #[tokio::test]
    async fn a_compressed_request_is_unpacked_judged_and_counted_as_such() {
        use std::io::Write as _;
        let listener = sink::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let target = listener.local_addr().unwrap();
        let tally = Arc::new(Mutex::new(Tally::new(3, 100)));
        let mut plain = Vec::new();
        Generator::new(3).put_request(&mut plain, 0, 100);
        let mut packer = flate2::write::GzEncoder::new(vec![0; PREFIX_LEN], flate2::Compression::fast());
        packer.write_all(&plain).unwrap();
        let mut framed = packer.finish().unwrap();
        grpc::put_prefix(&mut framed);
        framed[0] = 1;
        let outcome = tokio::select! {
            () = sink::serve(listener, tally.clone(), Faults::default(), 100) => panic!("the sink died"),
            outcome = async {
                let mut sender = grpc::connect(target).await.unwrap();
                grpc::call(&mut sender, target, framed.into(), ANSWER_LIMIT).await
            } => outcome,
        };
        assert_eq!(outcome, Outcome::Accepted { rejected: 0 });
        let report = lock(&tally).report(100);
        assert!(report.is_exact(), "{report:?}");
        assert_eq!(report.counts.compressed, 1);
    }

    #[test]
    fn quantiles_are_those_of_the_nearest_rank() {
        let quantiles = Quantiles::of((1..=200).rev().map(|ms| ms * 1_000).collect());
        assert_eq!(quantiles, Quantiles { p50: 100.0, p99: 198.0, max: 200.0 });
        assert_eq!(Quantiles::of(Vec::new()), Quantiles::default());
    }
}
