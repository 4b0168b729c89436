use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    future::Future,
};

use actix::Addr;
use bytes::Bytes;
use futures_util::FutureExt as _;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use parking_lot::Mutex;
use proptest::prelude::*;
use prost::Message as _;
use tokio::sync::oneshot;

use super::*;
use crate::{
    log::{
        Advance, AdvanceError, Append, DeadLetter, DestinationError, DestinationId, DestinationLedger,
        Durability, GroupOutcome, LogFuture, LogStats, MemoryLog, MemoryLogConfig, ReadError, ReadLimit,
        Record, Restored, SpanLedger, segments::LogDestination,
    },
    span::{Sampler, scan},
};

/// Runs a test on an actix System whose clock only moves when everyone waits for it.
fn run(test: impl Future<Output = ()>) {
    actix_rt::System::new().block_on(async {
        tokio::time::pause();
        test.await;
    });
}

/// A memory log that takes its time to read and remembers how the position moved. With another durability it outlives
/// its process, as far as this process is concerned: it holds what no checkpoint includes, and keeps checkpoints.
#[derive(Debug)]
struct SlowLog {
    log: MemoryLog,
    durability: Durability,
    /// How often an answer waits for the other tasks.
    yields: usize,
    /// The positions that it was told of.
    positions: Mutex<Vec<Ordinal>>,
    disk: Mutex<Disk>,
    /// In place of its own.
    stats: Mutex<Option<LogStats>>,
}

/// Where the checkpoints of a [`SlowLog`] are.
#[derive(Debug, Default)]
struct Disk {
    stored: Option<(Ordinal, Bytes)>,
    /// Checkpoints asked for.
    asked: usize,
    /// Checkpoints that wait to be [released](SlowLog::release).
    held: VecDeque<Held>,
    hold: bool,
    fail: Option<&'static str>,
    /// In place of what is stored.
    broken: Option<Restored>,
    /// Ordinals that cannot be read, as if damaged.
    damaged: Option<(Ordinal, Ordinal)>,
}

#[derive(Debug)]
struct Held(Ordinal, Bytes, oneshot::Sender<Result<(), String>>);

impl SlowLog {
    fn store(&self, position: Ordinal, bytes: Bytes) {
        self.disk.lock().stored = Some((position, bytes));
        self.log.measured(position);
    }

    /// Stores the checkpoint that has waited longest, or fails to.
    fn release(&self, result: Result<(), String>) {
        let held = self.disk.lock().held.pop_front();
        if let Some(Held(position, bytes, answer)) = held {
            if result.is_ok() {
                self.store(position, bytes);
            }
            // Its actor may be gone.
            let _gone = answer.send(result);
        }
    }

    fn stored_at(&self) -> Option<Ordinal> {
        self.disk.lock().stored.as_ref().map(|(position, _)| *position)
    }
}

async fn yield_times(yields: usize) {
    for _ in 0..yields {
        tokio::task::yield_now().await;
    }
}

impl SpanLog for SlowLog {
    fn commit(&self, group: Vec<Append>) -> LogFuture<GroupOutcome> {
        self.log.commit(group)
    }

    fn read(&self, from: Ordinal, limit: ReadLimit) -> LogFuture<Result<Vec<Record>, ReadError>> {
        let (mut read, yields) = (self.log.read(from, limit), self.yields);
        if let Some((first, to)) = self.disk.lock().damaged
            && (first..to).contains(&from)
        {
            read = Box::pin(std::future::ready(Err(ReadError::Damaged { from, to })));
        }
        Box::pin(async move {
            yield_times(yields).await;
            read.await
        })
    }

    fn advance(&self, id: DestinationId, advance: &Advance) -> Result<DestinationLedger, AdvanceError> {
        self.log.advance(id, advance)
    }

    fn take_in(&self, destination: LogDestination) -> LogFuture<Result<DestinationId, DestinationError>> {
        self.log.take_in(destination)
    }
    fn let_go(&self, id: DestinationId) -> LogFuture<Result<DestinationLedger, DestinationError>> {
        self.log.let_go(id)
    }
    fn settled(&self, id: DestinationId) -> Ordinal {
        self.log.settled(id)
    }
    fn settles(&self, id: DestinationId) -> LogFuture<()> {
        self.log.settles(id)
    }
    fn dead_letter(&self, id: DestinationId, letter: DeadLetter) {
        self.log.dead_letter(id, letter);
    }

    fn dead_letters(&self, id: DestinationId) -> Vec<DeadLetter> {
        self.log.dead_letters(id)
    }

    fn ledger(&self, id: DestinationId) -> Result<DestinationLedger, AdvanceError> {
        self.log.ledger(id)
    }

    fn measured(&self, to: Ordinal) {
        self.positions.lock().push(to);
        if self.durability == Durability::Memory {
            self.log.measured(to);
        }
    }

    fn checkpoint(&self, position: Ordinal, bytes: Bytes) -> LogFuture<Result<(), String>> {
        let yields = self.yields;
        let result = {
            let mut disk = self.disk.lock();
            disk.asked += 1;
            // One after the other, as a writer does.
            if disk.hold || !disk.held.is_empty() {
                let (answer, answered) = oneshot::channel();
                disk.held.push_back(Held(position, bytes, answer));
                return Box::pin(async move { answered.await.unwrap() });
            }
            disk.fail.map_or(Ok(()), |why| Err(why.to_owned()))
        };
        if result.is_ok() {
            self.store(position, bytes);
        }
        Box::pin(async move {
            yield_times(yields).await;
            result
        })
    }

    fn restored(&self) -> Restored {
        let disk = self.disk.lock();
        match (&disk.broken, &disk.stored) {
            (Some(broken), _) => broken.clone(),
            (None, Some((position, bytes))) => {
                Restored::Checkpoint { position: *position, bytes: bytes.clone() }
            }
            (None, None) => Restored::Fresh(0),
        }
    }

    fn troubles(&self) -> Vec<String> {
        self.log.troubles()
    }

    fn end(&self) -> Ordinal {
        self.log.end()
    }

    fn stats(&self) -> LogStats {
        let stats = self.stats.lock().unwrap_or_else(|| self.log.stats());
        LogStats { durability: self.durability, ..stats }
    }
}

/// Ends an actor as a crash does: where it stands.
struct Crash;

impl actix::Message for Crash {
    type Result = ();
}

impl Handler<Crash> for MetricsActor {
    type Result = ();

    fn handle(&mut self, _: Crash, ctx: &mut Self::Context) {
        ctx.terminate();
    }
}

/// Stops an actor as its supervisor does.
struct Leave;

impl actix::Message for Leave {
    type Result = ();
}

impl Handler<Leave> for MetricsActor {
    type Result = ();

    fn handle(&mut self, _: Leave, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

/// A log, counters and an actor between them.
struct Bench {
    log: Arc<SlowLog>,
    red: RefCell<Arc<RedShared>>,
    actor: RefCell<Addr<MetricsActor>>,
    spans: Arc<SpanLedger>,
    /// Each span's name, and when it was committed.
    names: RefCell<Vec<(String, Duration)>>,
    settings: RefCell<RedSettings>,
}

/// How often the actors of these tests store a checkpoint: not when they look.
const INTERVAL: Duration = Duration::from_millis(4_900);

/// Settings with room for everything that these tests count.
fn roomy() -> RedSettings {
    RedSettings { max_series: 10_000, ..RedSettings::default() }
}

impl Bench {
    fn new(yields: usize) -> Self {
        Self::with(yields, Durability::Memory, roomy())
    }

    fn with(yields: usize, durability: Durability, settings: RedSettings) -> Self {
        let config = MemoryLogConfig { max_bytes: 1 << 26, destinations: 0, measured: true };
        let log = Arc::new(SlowLog {
            log: MemoryLog::new(config),
            durability,
            yields,
            positions: Mutex::default(),
            disk: Mutex::default(),
            stats: Mutex::default(),
        });
        let red = Arc::new(RedShared::restore(settings.clone(), &*log));
        let actor = RefCell::new(MetricsActor::new(log.clone(), red.clone(), INTERVAL).start());
        let red = RefCell::new(red);
        Self {
            log,
            red,
            actor,
            spans: Arc::default(),
            names: RefCell::default(),
            settings: RefCell::new(settings),
        }
    }

    fn red(&self) -> Arc<RedShared> {
        self.red.borrow().clone()
    }

    /// Commits a batch of spans with these names; returns the message about it.
    fn commit(&self, names: &[String]) -> SpansMeasured {
        self.commit_group(&[names])
    }

    /// Commits batches as one group.
    fn commit_group(&self, batches: &[&[String]]) -> SpansMeasured {
        let spans: Vec<_> =
            batches.iter().map(|names| (request(names), names.len() as u32, names.to_vec())).collect();
        self.commit_bytes(spans)
    }

    /// Commits batches of this many spans each, of which those with names are to be counted.
    fn commit_bytes(&self, batches: Vec<(Bytes, u32, Vec<String>)>) -> SpansMeasured {
        let mut scratch = RedScratch::new(self.red().settings());
        let (mut group, mut deltas, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for (bytes, spans, names) in batches {
            let _checked = scan(&bytes, |span| scratch.observe(span));
            deltas.push(scratch.take());
            let (reply, _receiver) = oneshot::channel();
            group.push(Append { bytes, pending: self.spans.scanned(spans), reply });
            all.extend(names);
        }
        let outcome = self.log.commit(group).now_or_never().unwrap();
        let GroupOutcome { firsts, end, committed_unix } = outcome;
        self.names.borrow_mut().extend(all.into_iter().map(|name| (name, committed_unix)));
        SpansMeasured { first: firsts[0].unwrap(), end, committed_unix, deltas }
    }

    async fn tell(&self, message: SpansMeasured) {
        let actor = self.actor.borrow().clone();
        actor.send(message).await.unwrap();
    }

    async fn crash(&self) {
        let actor = self.actor.borrow().clone();
        let _gone = actor.send(Crash).await;
        *self.actor.borrow_mut() = MetricsActor::new(self.log.clone(), self.red(), INTERVAL).start();
    }

    /// Ends the process and begins the next, with these settings; the log is still there.
    async fn restart_with(&self, settings: RedSettings) {
        let actor = self.actor.borrow().clone();
        let _gone = actor.send(Crash).await;
        self.log.disk.lock().held.clear();
        *self.red.borrow_mut() = Arc::new(RedShared::restore(settings.clone(), &*self.log));
        *self.settings.borrow_mut() = settings;
        *self.actor.borrow_mut() = MetricsActor::new(self.log.clone(), self.red(), INTERVAL).start();
    }

    async fn restart(&self) {
        let settings = self.settings.borrow().clone();
        self.restart_with(settings).await;
    }

    /// Waits until everything is counted, for as long as a lost last message takes to be noticed.
    async fn settle(&self) {
        for _ in 0..10_000 {
            let released = self.log.durability != Durability::Memory || self.log.stats().records == 0;
            if self.red().position() == self.log.end() && released {
                return;
            }
            tokio::time::advance(LOOK_INTERVAL / 100).await;
        }
        panic!("only {} of {} spans are counted", self.red().position(), self.log.end());
    }

    /// Lets the others run, without the time to move.
    async fn let_run(&self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    fn counted(&self) -> BTreeMap<String, u64> {
        let snapshot = self.red().snapshot();
        let total: u64 = snapshot.series.iter().map(|series| series.counts.count).sum();
        assert_eq!(
            total + snapshot.totals.unmeasured.damaged + snapshot.totals.unmeasured.released,
            snapshot.position
        );
        snapshot.series.iter().map(|series| (series.name.to_string(), series.counts.count)).collect()
    }

    fn committed(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        self.names.borrow().iter().for_each(|(name, _)| *counts.entry(name.clone()).or_default() += 1);
        counts
    }
}

fn again(message: &SpansMeasured) -> SpansMeasured {
    let SpansMeasured { first, end, committed_unix, deltas } = message;
    SpansMeasured { first: *first, end: *end, committed_unix: *committed_unix, deltas: deltas.clone() }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn request(names: &[String]) -> Bytes {
    let span = |name: &String| Span {
        trace_id: vec![1; 16],
        span_id: vec![1; 8],
        name: name.clone(),
        attributes: vec![KeyValue {
            key: "key".to_owned(),
            value: Some(AnyValue {
                value: Some(any_value::Value::IntValue(i64::from(
                    name.bytes().last().unwrap_or_default() % 3,
                ))),
            }),
            ..KeyValue::default()
        }],
        end_time_unix_nano: 5_000_000,
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: names.iter().map(span).collect(), ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
}

mod changes;
mod restarts;

#[test]
fn messages_in_order_are_counted_without_reading_the_log_and_let_it_go() {
    run(async {
        let bench = Bench::new(0);
        for batch in [names(&["a", "b"]), names(&["a"])] {
            let message = bench.commit(&batch);
            bench.tell(message).await;
        }
        assert_eq!(bench.counted(), bench.committed());
        assert_eq!(bench.red().snapshot().totals.caught_up, 0);
        assert_eq!(bench.log.stats().records, 0, "the log waits for the metrics no longer");
    });
}

#[test]
fn a_message_that_comes_twice_counts_once() {
    run(async {
        let bench = Bench::new(0);
        let message = bench.commit(&names(&["a", "b"]));
        for _ in 0..2 {
            bench.tell(again(&message)).await;
        }
        assert_eq!(bench.counted(), bench.committed());
        assert_eq!(bench.red().snapshot().totals.caught_up, 0);
    });
}

#[test]
fn a_lost_message_is_made_up_for_when_the_next_one_shows_the_gap() {
    run(async {
        let bench = Bench::new(3);
        drop(bench.commit(&names(&["lost", "lost"])));
        let next = bench.commit(&names(&["a"]));
        bench.let_run().await;
        drop(bench.commit(&names(&["lost too"])));
        let last = bench.commit(&names(&["b"]));
        bench.tell(next).await;
        bench.tell(last).await;
        bench.let_run().await;
        assert_eq!(bench.counted(), bench.committed(), "at once, not at the next look");
    });
}

#[test]
fn a_lost_last_message_is_made_up_for_within_two_looks() {
    run(async {
        let bench = Bench::new(0);
        tokio::task::yield_now().await;
        drop(bench.commit(&names(&["lost"])));
        let before = tokio::time::Instant::now();
        bench.settle().await;
        assert_eq!(bench.counted(), bench.committed());
        assert!(before.elapsed() <= LOOK_INTERVAL * 2 + LOOK_INTERVAL / 10, "{:?}", before.elapsed());
    });
}

#[test]
fn a_new_actor_counts_what_its_predecessor_left() {
    run(async {
        let bench = Bench::new(0);
        let message = bench.commit(&names(&["a", "b"]));
        bench.tell(message).await;
        drop(bench.commit(&names(&["lost"])));
        bench.crash().await;
        bench.let_run().await;
        assert_eq!(bench.counted(), bench.committed(), "at once, not at the next look");
        assert_eq!(bench.red().snapshot().totals.caught_up, 1);
    });
}

#[test]
fn a_message_that_lies_on_both_sides_of_the_position_is_counted_once() {
    run(async {
        let bench = Bench::new(0);
        let one = bench.commit(&names(&["a", "b"]));
        let two = bench.commit(&names(&["b", "c"]));
        let both = SpansMeasured {
            first: one.first,
            end: two.end,
            committed_unix: two.committed_unix,
            deltas: one.deltas.iter().chain(&two.deltas).cloned().collect(),
        };
        bench.tell(one).await;
        bench.tell(both).await;
        assert_eq!(bench.counted(), bench.committed());
        assert_eq!(bench.red().snapshot().totals.caught_up, 0, "the second delta began at the position");

        // And with the position inside one delta.
        let bench = Bench::new(0);
        let whole = bench.commit(&names(&["a", "b", "c"]));
        let mut scratch = RedScratch::new(bench.red().settings());
        let part = request(&names(&["a", "b"]));
        scan(&part, |span| scratch.observe(span)).unwrap();
        let deltas = vec![scratch.take()];
        bench.tell(SpansMeasured { end: 2, deltas, ..again(&whole) }).await;
        bench.tell(whole).await;
        bench.settle().await;
        assert_eq!(bench.counted(), bench.committed());
        assert_eq!(bench.red().snapshot().totals.caught_up, 1);
    });
}

#[test]
fn deltas_that_do_not_add_up_are_not_believed() {
    run(async {
        let bench = Bench::new(0);
        let message = bench.commit(&names(&["a", "b"]));
        let deltas = [&message.deltas[..], &message.deltas].concat();
        bench.tell(SpansMeasured { deltas, ..message }).await;
        bench.settle().await;
        assert_eq!(bench.counted(), bench.committed());
    });
}

#[test]
fn a_batch_of_more_series_than_a_delta_takes_is_counted_from_the_log() {
    run(async {
        let bench = Bench::new(0);
        let many: Vec<String> = (0..5_000).map(|i| format!("name {i}")).collect();
        let message = bench.commit(&many);
        assert!(!message.deltas[0].is_complete());
        bench.tell(message).await;
        bench.settle().await;
        assert_eq!(bench.counted(), bench.committed());
        assert_eq!(bench.red().snapshot().totals.caught_up, 5_000);
    });
}

#[test]
fn a_long_way_is_caught_up_in_bounded_steps() {
    run(async {
        let bench = Bench::new(0);
        let thousand = vec!["a".to_owned(); 1_000];
        for _ in 0..20 {
            drop(bench.commit(&thousand));
        }
        bench.crash().await;
        bench.settle().await;
        assert_eq!(bench.counted(), bench.committed());
        let ends = bench.log.positions.lock().clone();
        assert_eq!(ends, [4_000, 8_000, 12_000, 16_000, 20_000]);
    });
}

#[test]
fn a_record_that_does_not_scan_is_passed_and_counted_as_damaged() {
    run(async {
        let bench = Bench::new(0);
        drop(bench.commit(&names(&["a"])));
        let broken = [&request(&names(&["whole", "whole"]))[..], b"\x0a\xffbroken"].concat();
        drop(bench.commit_bytes(vec![(broken.into(), 3, vec![])]));
        let next = bench.commit(&names(&["b"]));
        bench.tell(next).await;
        bench.settle().await;
        assert_eq!(bench.counted(), bench.committed());
        assert_eq!(bench.red().snapshot().totals.unmeasured, Unmeasured { damaged: 3, released: 0 });
    });
}

#[test]
fn a_record_with_fewer_spans_than_it_says_leaves_the_rest_as_damaged() {
    run(async {
        let bench = Bench::new(0);
        let one = names(&["a"]);
        drop(bench.commit_bytes(vec![(request(&one), 4, one)]));
        let next = bench.commit(&names(&["b"]));
        bench.tell(next).await;
        bench.settle().await;
        assert_eq!(bench.counted(), bench.committed());
        assert_eq!(bench.red().snapshot().totals.unmeasured, Unmeasured { damaged: 3, released: 0 });
    });
}

#[test]
fn spans_that_the_log_let_go_of_are_passed_and_counted_as_released() {
    run(async {
        let bench = Bench::new(0);
        drop(bench.commit(&names(&["gone", "gone"])));
        bench.log.log.measured(2);
        bench.names.borrow_mut().clear();
        let next = bench.commit(&names(&["b"]));
        bench.tell(next).await;
        bench.settle().await;
        assert_eq!(bench.counted(), bench.committed());
        assert_eq!(bench.red().snapshot().totals.unmeasured, Unmeasured { damaged: 0, released: 2 });
    });
}

/// What may happen between two commits.
#[derive(Debug, Clone)]
enum Act {
    /// Commits batches as one group.
    Commit(Vec<Vec<u8>>),
    /// Tells one of the messages that wait.
    Tell(usize),
    /// Tells one and keeps it, to be told again.
    TellAndKeep(usize),
    Lose(usize),
    Crash,
    /// Lets the actor run.
    Run(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => prop::collection::vec(prop::collection::vec(0u8..5, 1..20), 1..3).prop_map(Act::Commit),
        3 => any::<usize>().prop_map(Act::Tell),
        1 => any::<usize>().prop_map(Act::TellAndKeep),
        1 => any::<usize>().prop_map(Act::Lose),
        1 => Just(Act::Crash),
        2 => (0usize..6).prop_map(Act::Run),
    ]
}

async fn perform(bench: &Bench, waiting: &mut Vec<SpansMeasured>, act: Act) {
    let pick = |i: usize, len: usize| i.checked_rem(len);
    match act {
        Act::Commit(batches) => {
            let batches: Vec<Vec<String>> =
                batches.iter().map(|spans| spans.iter().map(|name| format!("n{name}")).collect()).collect();
            let batches: Vec<_> = batches.iter().map(Vec::as_slice).collect();
            waiting.push(bench.commit_group(&batches));
        }
        Act::Tell(i) => {
            if let Some(i) = pick(i, waiting.len()) {
                bench.tell(waiting.remove(i)).await;
            }
        }
        Act::TellAndKeep(i) => {
            if let Some(i) = pick(i, waiting.len()) {
                bench.tell(again(&waiting[i])).await;
            }
        }
        Act::Lose(i) => {
            if let Some(i) = pick(i, waiting.len()) {
                drop(waiting.remove(i));
            }
        }
        Act::Crash => bench.crash().await,
        Act::Run(yields) => {
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_span_counts_once_whatever_becomes_of_messages_and_actors(
        acts in prop::collection::vec(act(), 0..40),
        yields in 0usize..4,
    ) {
        run(async move {
            let bench = Bench::new(yields);
            let mut waiting = Vec::new();
            for act in acts {
                perform(&bench, &mut waiting, act).await;
            }
            bench.settle().await;
            assert_eq!(bench.counted(), bench.committed());
            assert_eq!(bench.red().snapshot().totals.unmeasured, Unmeasured::default());
        });
    }
}
