//! What the tests of doors share: a door on a loopback port, with an acceptor and connections as real as they come,
//! and in the collector's place a channel.

use std::{cell::RefCell, sync::Arc, time::Duration};

use actix_rt::{Arbiter, ArbiterHandle};
use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use tokio::{sync::mpsc, time::timeout};

use super::{
    Acceptor, Admission, Connections, Door, DoorCounts, DoorReason, HandOver, Intake, ListenAddr, Listener,
    RequestLimits, Scratches, Tally, spread,
};
use crate::{
    collect::SpansCompleted,
    log::{Append, CommitError, Committed, RejectReason},
    self_tracing::Tracer,
    supervise::{
        ChildRecord, ChildSpec, DynamicSpec, Intensity, Recipient, RunningTree, StartError, Strategy,
        Supervisor,
    },
};

pub(super) const MAX_REQUEST: usize = 1 << 20;
pub(super) const IN_FLIGHT: usize = 4 << 20;
/// No test waits for longer; none is meant to wait at all.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Rig {
    pub(super) intake: Intake,
    pub(super) connections: Arc<Connections>,
    pub(super) listener: Listener,
    pub(super) tree: RunningTree,
    pub(super) batches: RefCell<mpsc::Receiver<SpansCompleted>>,
}

pub(super) struct Setup {
    pub(super) listen: ListenAddr,
    pub(super) connections_max: usize,
    pub(super) max_request: usize,
    pub(super) in_flight: usize,
    pub(super) arbiters: Vec<ArbiterHandle>,
    pub(super) door: Box<dyn FnOnce(Intake) -> Arc<dyn Door>>,
    /// Comes first of all with each socket.
    pub(super) trap: Arc<dyn Fn() + Send + Sync>,
    /// For spans about the requests.
    pub(super) tracer: Tracer,
}

impl Setup {
    pub(super) fn new(door: impl FnOnce(Intake) -> Arc<dyn Door> + 'static) -> Self {
        Self {
            listen: "127.0.0.1:0".parse().unwrap(),
            connections_max: 100,
            max_request: MAX_REQUEST,
            in_flight: IN_FLIGHT,
            arbiters: vec![Arbiter::current()],
            door: Box::new(door),
            trap: Arc::new(|| ()),
            tracer: Tracer::default(),
        }
    }
}

impl Rig {
    pub(super) async fn with(setup: Setup) -> Self {
        let (collector, batches) = Recipient::channel(1);
        let intake = Intake {
            gate: Arc::default(),
            limits: RequestLimits { max_request_bytes: setup.max_request, ..RequestLimits::default() },
            commit_timeout: Duration::from_millis(1),
            admission: Admission::new(setup.in_flight),
            ledger: Arc::default(),
            spans: Arc::default(),
            collector,
            scratches: Arc::new(Scratches::new(crate::measure::CurrentSettings::default())),
            buffers: Arc::default(),
            tracer: setup.tracer,
        };
        let connections = Arc::new(Connections::default());
        let listener = Listener::bind(&setup.listen).unwrap();
        let mut root = Supervisor::new("root", Strategy::OneForOne, Intensity::default());
        let set = root.dynamic(DynamicSpec::new("connections", setup.connections_max));
        let serving = (setup.door)(intake.clone());
        let spread = spread(serving, set, setup.arbiters, Arc::clone(&connections));
        let trap = setup.trap;
        let hand_over: HandOver = Arc::new(move |socket| {
            trap();
            spread(socket);
        });
        let (bound, counts) = (listener.clone(), Arc::clone(&connections));
        root.child(ChildSpec::new("acceptor"), move || {
            Acceptor::new(&bound, Arc::clone(&hand_over), Arc::clone(&counts)).map_err(StartError::new)
        });
        let tree = root.start().await.unwrap();
        Self { intake, connections, listener, tree, batches: RefCell::new(batches) }
    }

    pub(super) fn record(&self, name: &str) -> ChildRecord {
        self.tree.records().into_iter().find(|record| record.name == name).unwrap()
    }

    pub(super) fn address(&self) -> String {
        self.listener.addr().to_string()
    }

    pub(super) async fn next_batch(&self) -> SpansCompleted {
        let batch = std::future::poll_fn(|cx| self.batches.borrow_mut().poll_recv(cx));
        timeout(PATIENCE, batch).await.expect("a batch in time").unwrap()
    }

    pub(super) fn counts(&self) -> DoorCounts {
        let counts = self.intake.ledger.counts();
        assert!(counts.balances(), "{counts:?}");
        assert!(self.intake.spans.counts().balances());
        counts
    }

    /// All is over: nothing pending, nothing charged, and just these refusals.
    pub(super) fn settled(&self, refusals: &[(DoorReason, u64)]) {
        let counts = self.counts();
        let seen: Vec<_> = DoorReason::ALL
            .iter()
            .map(|&reason| (reason, counts.refused(reason).requests))
            .filter(|&(_, requests)| requests > 0)
            .collect();
        assert_eq!(seen, refusals);
        assert_eq!((counts.pending, self.intake.admission.in_flight()), (Tally::default(), 0));
    }
}

pub(super) fn settle(batch: SpansCompleted, answer: Result<Committed, CommitError>) -> Bytes {
    let Append { bytes, pending, reply } = batch.append;
    match &answer {
        Ok(_) => pending.accept(),
        Err(_) => pending.reject(RejectReason::LogFull),
    }
    let _sender_gone = reply.send(answer);
    bytes
}

pub(super) const KEPT: Result<Committed, CommitError> = Ok(Committed { first: 0 });

pub(super) fn request(spans: usize) -> ExportTraceServiceRequest {
    let span = |n: usize| Span {
        trace_id: vec![1; 16],
        span_id: (n as u64 + 1).to_be_bytes().to_vec(),
        name: format!("span {n}"),
        start_time_unix_nano: 1,
        end_time_unix_nano: 2,
        ..Span::default()
    };
    let spans = (0..spans).map(span).collect();
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }],
    }
}

/// A valid request of at least so many bytes.
pub(super) fn large_request(bytes: usize) -> ExportTraceServiceRequest {
    let mut request = request(1);
    request.resource_spans[0].scope_spans[0].spans[0].trace_state = "x".repeat(bytes);
    request
}

/// Waits until something has become true on this thread.
pub(super) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}
