//! What whole-system tests share: a running tree, numbered spans and who sends them, and reading what arrived.
//!
//! A span's number is its start time, so that it is set from the moment in which the span begins.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

pub mod folder;
pub mod http;
pub mod load;
pub mod process;
pub mod reload;
pub mod tls;

use std::{collections::BTreeMap, future::Future, net::SocketAddr, ops::Range, time::Duration};

use nyx_telemetry::{
    accept::{ListenAddr, Listener},
    export::{
        Backoff, DestinationConfig,
        testing::{Received, ScriptedDestination},
    },
    observe::{DestinationStats, Stats},
    supervise::{ChildRecord, ChildState},
    tree::{Running, Tree, TreeConfig},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status},
};
use prost::Message as _;

/// Nothing here waits longer: what has not happened by then will not.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Runs a test on the thread of an actix System, which is where the core actors live.
pub fn system<T>(test: impl Future<Output = T>) -> T {
    actix_rt::System::new().block_on(async {
        let test = tokio::time::timeout(LIMIT, test);
        test.await.unwrap_or_else(|_| panic!("the test took longer than {LIMIT:?}"))
    })
}

/// Waits for a condition that no event announces.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(2));
    let waiting = async {
        while !holds() {
            looks.tick().await;
        }
    };
    if tokio::time::timeout(LIMIT / 2, waiting).await.is_err() {
        panic!("waited {:?} in vain: {what}", LIMIT / 2);
    }
}

/// Keeps this thread, and with it the core actors, from doing anything until the others have come so far.
pub fn hold_until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..30_000 {
        if holds() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    panic!("held the core in vain: {what}");
}

/// A destination's settings for tests: it sends soon, in small batches, and is quick to try again.
pub fn quick(name: &str, endpoint: &str) -> DestinationConfig {
    DestinationConfig {
        max_delay: Duration::from_millis(10),
        min_batch_spans: 32,
        max_batch_spans: 256,
        backoff: Backoff {
            initial: Duration::from_millis(10),
            cap: Duration::from_millis(100),
            ..Backoff::default()
        },
        ..DestinationConfig::new(name, endpoint)
    }
}

/// The address of nobody: a destination that listened, and does not any more.
pub fn nobody() -> ScriptedDestination {
    let mut nobody = ScriptedDestination::start().unwrap();
    nobody.kill();
    nobody
}

/// Every child of a [`Nyx`] with one destination that can crash, whatever its log.
pub const CHILDREN: [&str; 8] = [
    "metrics",
    "export.default",
    "retention",
    "collector",
    "outbox.0",
    "outbox.1",
    "connections",
    "acceptor.grpc",
];
/// Those of a log on disk, which stand before them.
pub const CHILDREN_ON_DISK: [&str; 2] = ["log", "log.reader"];

/// A tree that runs, with a gRPC door.
pub struct Nyx {
    pub tree: Running,
    pub door: SocketAddr,
}

impl Nyx {
    /// Starts a tree with these destinations.
    pub async fn start(destinations: Vec<DestinationConfig>, change: impl FnOnce(&mut TreeConfig)) -> Self {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let ListenAddr::Tcp(door) = *listener.addr() else { panic!("asked for a TCP port") };
        let mut config = TreeConfig {
            service_name: "in-process".to_owned(),
            destinations,
            io_threads: 2,
            grpc: Some(listener),
            ..TreeConfig::default()
        };
        change(&mut config);
        Self { tree: Tree::define(config).start().await.unwrap(), door }
    }

    pub fn stats(&self) -> Stats {
        self.tree.observed().stats()
    }

    pub fn health(&self) -> String {
        self.tree.observed().health().status
    }

    pub fn destination(&self, name: &str) -> DestinationStats {
        self.tree.observed().destination(name).unwrap()
    }

    pub fn record(&self, name: &str) -> ChildRecord {
        record(&self.tree.observed().records(), name)
    }

    /// Sum over all series of `nyx_span_count`, and up to where they count.
    pub fn red(&self) -> (u64, u64) {
        let red = self.tree.observed().red().unwrap().snapshot();
        let counts = red.series.iter().map(|series| &series.counts).chain(&red.overflow);
        (counts.map(|counts| counts.count).sum(), red.position)
    }

    /// Crashes a child, and waits until its supervisor is done with it.
    pub async fn crash(&self, name: &str) {
        let before = self.record(name);
        until("room for a crash", || self.tree.crash(name, "crashed by a test").is_ok()).await;
        until("a panic and its restart", || {
            let now = self.record(name);
            now.panics > before.panics && now.state == ChildState::Running
        })
        .await;
    }

    /// Waits until everything accepted is settled everywhere, and counted.
    pub async fn settled(&self) {
        until("everything is settled", || {
            let stats = self.stats();
            let queued: u64 = stats.destinations.values().map(|d| d.ledger.queued()).sum();
            let pending = stats.door.values().map(|door| door.pending.requests).sum::<u64>();
            queued + pending + stats.spans.pending == 0 && self.red().1 == stats.log.end
        })
        .await;
    }

    /// Stops in order; nothing is to be left behind.
    pub async fn stop(self) -> Stats {
        let report = self.tree.shutdown(Duration::from_secs(20)).await;
        assert!(report.is_clean(), "{report:?}");
        self.stats()
    }
}

pub fn record(records: &[ChildRecord], name: &str) -> ChildRecord {
    records.iter().find(|record| record.name == name).cloned().unwrap_or_else(|| panic!("no child {name}"))
}

/// Accepted = handled + lost + abandoned + depth + in hand, of every child that is at rest.
pub fn assert_messages_are_conserved(records: &[ChildRecord]) {
    for ChildRecord { name, inbox, .. } in records {
        let sum = inbox.handled + inbox.lost + inbox.abandoned + inbox.depth + inbox.in_hand;
        assert_eq!(inbox.accepted, sum, "{name}: {inbox:?}");
        assert_eq!((inbox.depth, inbox.in_hand), (0, 0), "{name} is at rest: {inbox:?}");
    }
}

/// Names of the numbered spans.
pub const NAMES: u64 = 7;
/// Every so many numbered spans, one is an error.
pub const ERROR_EVERY: u64 = 10;
const FIRST_START: u64 = 1_700_000_000_000_000_000;

/// When the span of this number starts.
pub fn start_of(number: u64) -> u64 {
    FIRST_START + number
}

/// The name of the span of this number.
pub fn name_of(number: u64) -> String {
    format!("work {}", number % NAMES)
}

/// A request with the spans of these numbers. Trace ids are spread evenly, span ids are the numbers' own.
pub fn request(numbers: Range<u64>) -> ExportTraceServiceRequest {
    let value = Some(AnyValue { value: Some(Value::StringValue("remote".to_owned())) });
    let service = KeyValue { key: "service.name".to_owned(), value, ..KeyValue::default() };
    let spans = numbers.map(|number| Span {
        trace_id: u128::from(number + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
            .to_be_bytes()
            .to_vec(),
        span_id: (number + 1).to_be_bytes().to_vec(),
        name: name_of(number),
        start_time_unix_nano: start_of(number),
        end_time_unix_nano: start_of(number) + 1_000_000,
        status: Some(Status {
            code: if number.is_multiple_of(ERROR_EVERY) { 2 } else { 0 },
            message: String::new(),
        }),
        ..Span::default()
    });
    let scope_spans = vec![ScopeSpans { spans: spans.collect(), ..ScopeSpans::default() }];
    let resource = Some(Resource { attributes: vec![service], ..Resource::default() });
    let resource_spans = ResourceSpans { resource, scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

/// Every span of what a destination acknowledged, with the service that it is of.
pub fn spans(received: &[Received]) -> Vec<(String, Span)> {
    let acknowledged = received.iter().filter(|request| request.is_acknowledged());
    let requests = acknowledged.map(|request| ExportTraceServiceRequest::decode(&*request.message).unwrap());
    let mut spans = Vec::new();
    for resource in requests.flat_map(|request| request.resource_spans) {
        let attributes = resource.resource.unwrap_or_default().attributes;
        let service = attributes.iter().find(|attribute| attribute.key == "service.name");
        let service = match service.and_then(|service| service.value.clone()?.value) {
            Some(Value::StringValue(service)) => service,
            other => panic!("service.name is {other:?}"),
        };
        let of_it = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(of_it.map(|span| (service.clone(), span)));
    }
    spans
}

/// How often each number arrived at a destination, as [`request`] and the load number them.
pub fn arrived(destination: &ScriptedDestination) -> BTreeMap<u64, u64> {
    let mut arrived = BTreeMap::new();
    for (_, span) in spans(&destination.received()) {
        *arrived.entry(span.start_time_unix_nano - FIRST_START).or_default() += 1;
    }
    arrived
}
