use std::{collections::VecDeque, future::Future, time::Duration};

use actix::Actor as _;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::{
    export::LogAdvanced,
    log::{
        Advance, AdvanceError, Append, CommitError, Committed, DeadLetter, DestinationError, DestinationId,
        DestinationLedger, LogStats, MemoryLog, MemoryLogConfig, Ordinal, ReadError, ReadLimit, Record,
        RejectReason, Restored, SpanLedger, segments::LogDestination,
    },
    measure::RedScratch,
    self_tracing::{Attribute, Origin, testing::recording_all},
    span::{SpanBytes, SpanContext, SpanId, SpanKind, SpanView, StatusCode, TraceId},
    supervise::{ChildSpec, Intensity, Strategy, Supervisor},
};

type Answer = oneshot::Receiver<Result<Committed, CommitError>>;

/// A memory log whose commits wait for a permit each.
#[derive(Debug)]
struct SlowLog {
    memory: MemoryLog,
    groups: Mutex<Vec<usize>>,
    permits: tokio::sync::Semaphore,
}

/// A log behind an `Arc`, so that its commits may refer to it.
#[derive(Debug, Clone)]
struct Shared(Arc<SlowLog>);

impl SpanLog for Shared {
    fn commit(&self, group: Vec<Append>) -> LogFuture<GroupOutcome> {
        let log = Arc::clone(&self.0);
        log.groups.lock().push(group.len());
        Box::pin(async move {
            log.permits.acquire().await.unwrap().forget();
            log.memory.commit(group).await
        })
    }
    fn read(&self, from: Ordinal, limit: ReadLimit) -> LogFuture<Result<Vec<Record>, ReadError>> {
        self.0.memory.read(from, limit)
    }
    fn advance(&self, id: DestinationId, advance: &Advance) -> Result<DestinationLedger, AdvanceError> {
        self.0.memory.advance(id, advance)
    }
    fn take_in(&self, destination: LogDestination) -> LogFuture<Result<DestinationId, DestinationError>> {
        self.0.memory.take_in(destination)
    }
    fn let_go(&self, id: DestinationId) -> LogFuture<Result<DestinationLedger, DestinationError>> {
        self.0.memory.let_go(id)
    }
    fn settled(&self, id: DestinationId) -> Ordinal {
        self.0.memory.settled(id)
    }
    fn settles(&self, id: DestinationId) -> LogFuture<()> {
        self.0.memory.settles(id)
    }
    fn dead_letter(&self, id: DestinationId, letter: DeadLetter) {
        self.0.memory.dead_letter(id, letter);
    }
    fn dead_letters(&self, id: DestinationId) -> Vec<DeadLetter> {
        self.0.memory.dead_letters(id)
    }
    fn ledger(&self, id: DestinationId) -> Result<DestinationLedger, AdvanceError> {
        self.0.memory.ledger(id)
    }
    fn measured(&self, to: Ordinal) {
        self.0.memory.measured(to);
    }
    fn checkpoint(&self, position: Ordinal, bytes: Bytes) -> LogFuture<Result<(), String>> {
        self.0.memory.checkpoint(position, bytes)
    }
    fn restored(&self) -> Restored {
        self.0.memory.restored()
    }
    fn troubles(&self) -> Vec<String> {
        self.0.memory.troubles()
    }
    fn end(&self) -> Ordinal {
        self.0.memory.end()
    }
    fn stats(&self) -> LogStats {
        self.0.memory.stats()
    }
}

struct Setup {
    log: Arc<SlowLog>,
    spans: Arc<SpanLedger>,
    collector: actix::Addr<SpanCollector>,
    wakes: mpsc::Receiver<LogAdvanced>,
    measured: mpsc::Receiver<SpansMeasured>,
}

impl Setup {
    fn new(max_bytes: usize, permits: usize, inboxes: usize) -> Self {
        let memory = MemoryLog::new(MemoryLogConfig { max_bytes, destinations: 1, measured: true });
        let permits = tokio::sync::Semaphore::new(permits);
        let log = Arc::new(SlowLog { memory, groups: Mutex::default(), permits });
        let (exporter, wakes) = Recipient::channel(inboxes);
        let (metrics, measured) = Recipient::channel(inboxes);
        let followers = Followers::default();
        followers.follow(DestinationId(0), exporter);
        let collector = SpanCollector::new(Arc::new(Shared(Arc::clone(&log))), followers, Some(metrics));
        Self { log, spans: Arc::default(), collector: collector.start(), wakes, measured }
    }

    async fn send(&self, bytes: usize, spans: u32) -> Answer {
        let (reply, answer) = oneshot::channel();
        let bytes = Bytes::from(vec![0; bytes]);
        let append = Append { bytes, pending: self.spans.scanned(spans), reply };
        self.collector.send(SpansCompleted { append, red: delta(spans), origin: Origin::Own }).await.unwrap();
        answer
    }
}

fn delta(spans: u32) -> RedDelta {
    let mut scratch = RedScratch::new(Arc::default());
    for _ in 0..spans {
        scratch.observe(&SpanView {
            service: "s",
            name: "n",
            kind: SpanKind::Server,
            status: StatusCode::Ok,
            start_unix_nano: 0,
            end_unix_nano: 1,
            trace_id: TraceId::from_int(1),
            span_id: SpanId::from_int(1),
            bytes: SpanBytes::default(),
        });
    }
    scratch.take()
}

fn system(test: impl Future<Output = ()>) {
    actix_rt::System::new().block_on(test);
}

#[test]
fn an_answer_comes_after_the_commit_and_names_the_first_ordinal() {
    system(async {
        let setup = Setup::new(1 << 20, 0, 8);
        let mut first = setup.send(100, 3).await;
        let second = setup.send(100, 2).await;
        tokio::task::yield_now().await;
        assert!(first.try_recv().is_err(), "nothing is committed yet");
        assert_eq!(setup.spans.counts().pending, 5);
        setup.log.permits.add_permits(2);
        assert_eq!(first.await.unwrap(), Ok(Committed { first: 0 }));
        assert_eq!(second.await.unwrap(), Ok(Committed { first: 3 }));
        let counts = setup.spans.counts();
        assert_eq!((counts.accepted, counts.pending, counts.balances()), (5, 0, true));
    });
}

#[test]
fn what_arrives_during_a_commit_is_one_group() {
    system(async {
        let mut setup = Setup::new(1 << 20, 0, 8);
        let mut answers = VecDeque::new();
        for _ in 0..5 {
            answers.push_back(setup.send(100, 1).await);
        }
        assert_eq!(*setup.log.groups.lock(), [1]);
        setup.log.permits.add_permits(2);
        for answer in answers {
            answer.await.unwrap().unwrap();
        }
        assert_eq!(*setup.log.groups.lock(), [1, 4]);
        assert_eq!(setup.wakes.recv().await.unwrap().end, 0, "a new collector wakes the exporters");
        for (first, end, deltas) in [(0, 1, 1), (1, 5, 4)] {
            assert_eq!(setup.wakes.recv().await.unwrap().end, end);
            let measured = setup.measured.recv().await.unwrap();
            assert_eq!((measured.first, measured.end, measured.deltas.len()), (first, end, deltas));
            let limit = ReadLimit { spans: u64::MAX, bytes: usize::MAX };
            let records = setup.log.memory.read(first, limit).await.unwrap();
            assert_eq!(measured.committed_unix, records[0].committed_unix, "in the log's words");
        }
        assert!(setup.wakes.try_recv().is_err(), "one wake a group");
    });
}

#[test]
fn a_group_has_a_bound() {
    system(async {
        let setup = Setup::new(1 << 20, 0, 8);
        let mut answers = Vec::new();
        for _ in 0..GROUP_MAX + 10 {
            answers.push(setup.send(10, 1).await);
        }
        setup.log.permits.add_permits(3);
        for answer in answers {
            answer.await.unwrap().unwrap();
        }
        assert_eq!(*setup.log.groups.lock(), [1, GROUP_MAX, 9]);
    });
}

#[test]
fn a_refused_batch_is_answered_and_is_no_part_of_the_metrics() {
    system(async {
        let mut setup = Setup::new(10_000, 0, 8);
        let held = setup.send(10, 1).await;
        let mut answers = Vec::new();
        for (bytes, spans) in [(6_000, 2), (6_000, 3), (1_000, 4)] {
            answers.push(setup.send(bytes, spans).await);
        }
        setup.log.permits.add_permits(2);
        held.await.unwrap().unwrap();
        let mut fates = Vec::new();
        for answer in answers {
            fates.push(answer.await.unwrap().map(|committed| committed.first).ok());
        }
        assert_eq!(fates, [Some(1), None, Some(3)]);
        setup.measured.recv().await.unwrap();
        let measured = setup.measured.recv().await.unwrap();
        let spans: Vec<_> = measured.deltas.iter().map(RedDelta::spans).collect();
        assert_eq!((measured.first, measured.end, spans), (1, 7, vec![2, 4]));
        let counts = setup.spans.counts();
        assert_eq!((counts.accepted, counts.rejected(RejectReason::LogFull)), (7, 3));
        assert!(counts.balances());
    });
}

#[test]
fn neighbours_that_take_nothing_do_not_hold_up_a_commit() {
    system(async {
        let setup = Setup::new(1 << 20, 100, 1);
        for first in 0..50 {
            let answer = setup.send(100, 1).await;
            assert_eq!(answer.await.unwrap(), Ok(Committed { first }));
        }
    });
}

#[test]
fn what_waits_when_the_collector_dies_counts_as_lost_and_its_sender_is_told() {
    let spans = Arc::new(SpanLedger::default());
    let memory = MemoryLog::new(MemoryLogConfig { max_bytes: 1 << 20, destinations: 1, measured: true });
    let mut collector = SpanCollector::new(Arc::new(memory), Followers::default(), None);
    let (reply, mut answer) = oneshot::channel();
    let append = Append { bytes: Bytes::from_static(b"batch"), pending: spans.scanned(2), reply };
    collector.waiting.push(SpansCompleted { append, red: delta(2), origin: Origin::Own });
    drop(collector);
    assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    let counts = spans.counts();
    assert_eq!((counts.rejected(RejectReason::Lost), counts.pending, counts.balances()), (2, 0, true));
}

#[test]
fn what_is_in_hand_at_a_stop_is_committed_first() {
    system(async {
        let memory = MemoryLog::new(MemoryLogConfig { max_bytes: 1 << 20, destinations: 1, measured: false });
        let permits = tokio::sync::Semaphore::new(0);
        let slow = Arc::new(SlowLog { memory, groups: Mutex::default(), permits });
        let log: Arc<dyn SpanLog> = Arc::new(Shared(Arc::clone(&slow)));
        let mut tree = Supervisor::new("root", Strategy::OneForOne, Intensity::default());
        let collector = tree.child(ChildSpec::new("collector"), move || {
            Ok(SpanCollector::new(Arc::clone(&log), Followers::default(), None))
        });
        let running = tree.start().await.unwrap();
        let spans = Arc::new(SpanLedger::default());
        let mut answers = Vec::new();
        for _ in 0..3 {
            let (reply, answer) = oneshot::channel();
            let append = Append { bytes: Bytes::from_static(b"batch"), pending: spans.scanned(1), reply };
            collector.try_send(SpansCompleted { append, red: delta(1), origin: Origin::Own }).unwrap();
            answers.push(answer);
        }
        let mut stop = std::pin::pin!(running.shutdown(Duration::from_secs(60)));
        while slow.groups.lock().is_empty() {
            assert!(futures_util::poll!(&mut stop).is_pending());
            tokio::task::yield_now().await;
        }
        slow.permits.add_permits(3);
        assert!(stop.await.is_clean());
        for answer in answers {
            answer.await.unwrap().unwrap();
        }
        assert_eq!((spans.counts().accepted, spans.counts().balances()), (3, true));
    });
}

#[test]
fn a_commit_is_a_part_of_the_first_request_that_is_recorded_and_linked_to_the_others() {
    system(async {
        let (tracer, recorded) = recording_all(0.0);
        let memory = MemoryLog::new(MemoryLogConfig { max_bytes: 1_000, destinations: 1, measured: false });
        let mut collector = SpanCollector::new(Arc::new(memory), Followers::default(), None).traced(tracer);
        let spans = Arc::new(SpanLedger::default());
        let (first, second) = (SpanContext::random(), SpanContext::random());
        let requests = [Origin::Own, Origin::Recorded(first), Origin::Recorded(second)];
        let mut answers = Vec::new();
        for (origin, bytes) in requests.into_iter().zip([100, 200, 2_000]) {
            let (reply, answer) = oneshot::channel();
            let append = Append { bytes: vec![0; bytes].into(), pending: spans.scanned(2), reply };
            collector.waiting.push(SpansCompleted { append, red: delta(2), origin });
            answers.push(answer);
        }
        let GroupCommit { outcome, recording, .. } = collector.begin_commit().unwrap();
        traced::end(recording, &outcome.await);
        let [span] = &recorded.take()[..] else { panic!("one commit") };
        assert_eq!((span.name, span.parent), ("commit", Some((first.span_id, false))));
        assert_eq!((span.context.trace_id, &span.links[..]), (first.trace_id, &[second][..]));
        for (name, number) in [
            ("nyx.commit.batches", 3),
            ("nyx.commit.spans", 6),
            ("nyx.commit.bytes", 2_300),
            ("nyx.commit.refused_batches", 1),
            ("nyx.log.end_ordinal", 4),
        ] {
            assert!(span.attributes.contains(&(name, Attribute::Number(number))), "{name} in {span:?}");
        }
        assert_eq!(span.error.as_deref(), Some("the log refused 1 of its batches"));
        assert_eq!(answers.len(), 3);
    });
}

#[test]
fn a_commit_without_a_recorded_request_is_recorded_by_the_rate_if_nobody_asked_for_none() {
    use Origin::{Own, Unrecorded};

    for (rate, origins, commits) in [
        (0.0, vec![Own], 0),
        (1.0, vec![Own], 1),
        (1.0, vec![Unrecorded, Own], 1),
        (1.0, vec![Unrecorded, Unrecorded], 0),
    ] {
        let (tracer, recorded) = recording_all(rate);
        let spans = Arc::new(SpanLedger::default());
        let batch = |&origin: &Origin| {
            let append =
                Append { bytes: Bytes::new(), pending: spans.scanned(1), reply: oneshot::channel().0 };
            SpansCompleted { append, red: delta(1), origin }
        };
        let group: Vec<_> = origins.iter().map(batch).collect();
        traced::end(traced::begin(&tracer, group.iter()), &GroupOutcome::default());
        let spans = recorded.take();
        assert_eq!(
            spans.iter().map(|span| span.parent).collect::<Vec<_>>(),
            vec![None; commits],
            "{origins:?}"
        );
    }
}
