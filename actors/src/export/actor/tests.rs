use std::{
    collections::BTreeSet,
    io::Write,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use actix::Addr;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    super::{
        Backoff, DestinationState, Drained, Protocol,
        testing::{self, Greeting, Reply, ScriptedDestination},
        verdict::Kind,
    },
    *,
};
use crate::log::{Append, DestinationLedger, DropReason, MemoryLog, MemoryLogConfig, SpanLedger};

const D0: DestinationId = DestinationId(0);
const D1: DestinationId = DestinationId(1);

/// A log that the test fills: ordinal n is the span of number n.
struct Source {
    log: Arc<MemoryLog>,
    end: AtomicU64,
}

impl Source {
    fn new(destinations: usize) -> Self {
        let config = MemoryLogConfig { max_bytes: 256 << 20, destinations, measured: false };
        Self { log: Arc::new(MemoryLog::new(config)), end: AtomicU64::new(0) }
    }

    /// Commits so many more spans, in records of 100.
    async fn commit(&self, spans: u64) {
        let mut first = self.end.fetch_add(spans, Ordering::Relaxed);
        let end = first + spans;
        while first < end {
            let next = end.min(first + 100);
            self.commit_record(first..next, testing::request(first..next)).await;
            first = next;
        }
    }

    async fn commit_record(&self, numbers: Range<u64>, bytes: Bytes) {
        let pending = Arc::new(SpanLedger::default()).scanned((numbers.end - numbers.start) as u32);
        let (reply, committed) = oneshot::channel();
        self.log.commit(vec![Append { bytes, pending, reply }]).await;
        assert_eq!(committed.await.unwrap().unwrap().first, numbers.start);
    }

    fn ledger(&self, id: DestinationId) -> DestinationLedger {
        let ledger = self.log.ledger(id).unwrap();
        assert!(ledger.balances(), "{ledger:?}");
        ledger
    }

    /// Starts an exporter with quick retries and batches of 100 spans, changed by `change`.
    fn export(
        &self,
        id: DestinationId,
        endpoint: &str,
        change: impl FnOnce(&mut DestinationConfig),
    ) -> Exporter {
        let status = Arc::new(DestinationStatus::new("test"));
        let mut config = DestinationConfig {
            min_batch_spans: 1,
            max_batch_spans: 100,
            backoff: Backoff {
                initial: Duration::from_millis(2),
                factor: 2.0,
                cap: Duration::from_millis(10),
            },
            ..DestinationConfig::new("test", endpoint)
        };
        change(&mut config);
        let log: Arc<dyn SpanLog> = self.log.clone();
        let actor = OtlpExportActor::new(&config, log, id, Arc::clone(&status)).unwrap();
        Exporter { addr: actor.start(), status }
    }
}

struct Exporter {
    addr: Addr<OtlpExportActor>,
    status: Arc<DestinationStatus>,
}

impl Exporter {
    fn wake(&self) {
        // A full mailbox holds a wake already.
        let _full = self.addr.try_send(LogAdvanced { end: 0 });
    }

    async fn drain(&self) -> Drained {
        let (done, drained) = oneshot::channel();
        let deadline = Instant::now() + Duration::from_secs(60);
        self.addr.send(Drain { deadline, done }).await.unwrap();
        drained.await.unwrap()
    }

    fn state(&self) -> DestinationState {
        self.status.snapshot().state
    }
}

fn set(numbers: impl IntoIterator<Item = u64>) -> BTreeSet<u64> {
    numbers.into_iter().collect()
}

/// Nothing lost, nothing dropped.
fn assert_delivered(source: &Source, destination: &ScriptedDestination, spans: u64) {
    let ledger = source.ledger(D0);
    assert_eq!((ledger.exported, ledger.position, ledger.dropped_total()), (spans, spans, 0));
    assert!(source.log.dead_letters(D0).is_empty());
    assert_eq!(set(destination.acknowledged()), set(0..spans));
}

#[actix::test]
async fn what_the_log_holds_is_delivered_once_each() {
    let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
    source.commit(1_000).await;
    let exporter = source.export(D0, &destination.endpoint(), |_| {});
    destination.until(|destination| destination.acknowledged().len() == 1_000).await;
    source.commit(555).await;
    exporter.wake();
    assert_eq!(exporter.drain().await, Drained { left: 0 });
    assert_delivered(&source, &destination, 1_555);
    assert_eq!(destination.acknowledged().len(), 1_555);
    let status = exporter.status.snapshot();
    assert_eq!((status.state, status.in_flight, status.retries), (DestinationState::Idle, 0, 0));
    assert_eq!(status.requests.get(Kind::Success), destination.received().len() as u64);
    assert!(status.last_success.is_some() && status.last_error.is_none() && status.bytes_sent > 10_000);
    assert_eq!(source.log.stats().records, 0, "the log let go of what was delivered");
}

#[actix::test]
async fn a_wake_is_all_that_an_idle_exporter_needs() {
    let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
    let exporter = source.export(D0, &destination.endpoint(), |_| {});
    destination.until(|destination| destination.counts().0 == 1).await;
    for round in 1..=20 {
        source.commit(10).await;
        exporter.wake();
        destination.until(|destination| destination.acknowledged().len() == round * 10).await;
    }
}

#[actix::test]
async fn a_small_batch_goes_out_when_its_time_is_over() {
    let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
    source.commit(3).await;
    let _exporter = source.export(D0, &destination.endpoint(), |config| {
        config.min_batch_spans = 100;
        config.max_delay = Duration::from_millis(20);
    });
    destination.until(|destination| destination.acknowledged().len() == 3).await;
}

#[actix::test]
async fn whatever_breaks_requests_off_loses_and_drops_nothing() {
    for protocol in Protocol::ALL {
        let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
        let breaks = [Reply::Reset, Reply::GoAway, Reply::Close, Reply::Half, Reply::OkThenGoAway, Reply::Ok];
        destination.script(breaks.iter().cycle().take(60).cloned());
        source.commit(10_000).await;
        let exporter = source.export(D0, &destination.endpoint(), |config| config.protocol = protocol);
        assert_eq!(exporter.drain().await, Drained { left: 0 });
        assert_delivered(&source, &destination, 10_000);
        let status = exporter.status.snapshot();
        assert!(status.requests.get(Kind::Unreachable) >= 20 && status.retries >= 20, "{status:?}");
    }
}

#[actix::test]
async fn a_destination_that_is_killed_and_comes_back_gets_everything() {
    for protocol in Protocol::ALL {
        let (source, mut destination) = (Source::new(1), ScriptedDestination::start().unwrap());
        source.commit(5_000).await;
        let exporter = source.export(D0, &destination.endpoint(), |config| config.protocol = protocol);
        for kill in 1..=3 {
            destination.until(|destination| destination.acknowledged().len() >= kill * 500).await;
            destination.kill();
            exporter.status.until(|status| status.state == DestinationState::Unreachable).await;
            let reason = exporter.status.snapshot().reason;
            assert!(reason.is_some(), "an unhealthy state has its reason");
            destination.revive().unwrap();
        }
        assert_eq!(exporter.drain().await, Drained { left: 0 });
        assert_delivered(&source, &destination, 5_000);
    }
}

#[actix::test]
async fn a_request_that_stalls_is_sent_again_after_the_timeout() {
    for protocol in Protocol::ALL {
        let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
        destination.script([Reply::Stall]);
        source.commit(300).await;
        let exporter = source.export(D0, &destination.endpoint(), |config| {
            config.protocol = protocol;
            config.timeout = Duration::from_millis(200)
        });
        assert_eq!(exporter.drain().await, Drained { left: 0 });
        assert_delivered(&source, &destination, 300);
    }
}

#[actix::test]
async fn a_late_answer_holds_the_position_but_not_the_other_requests() {
    for protocol in Protocol::ALL {
        let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
        destination.script([Reply::Ok, Reply::Late]);
        source.commit(2_000).await;
        let exporter = source.export(D0, &destination.endpoint(), |config| config.protocol = protocol);
        // The window is four batches of 100 spans: the late one and three behind it.
        destination.until(|destination| destination.received().len() == 5).await;
        exporter.status.until(|status| status.in_flight == 1).await;
        assert_eq!(source.ledger(D0).exported, 100);
        destination.release();
        assert_eq!(exporter.drain().await, Drained { left: 0 });
        assert_delivered(&source, &destination, 2_000);
        assert_eq!(destination.acknowledged().len(), 2_000);
    }
}

#[actix::test]
async fn what_speaks_no_http_2_is_unreachable_until_it_does() {
    let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
    source.commit(100).await;
    destination.greet(Greeting::Http1);
    let exporter = source.export(D0, &destination.endpoint(), |_| {});
    for greeting in [Greeting::Garbage, Greeting::Close, Greeting::Otlp] {
        let before = exporter.status.snapshot().requests.get(Kind::Unreachable);
        exporter.status.until(|status| status.requests.get(Kind::Unreachable) > before + 2).await;
        assert_eq!(exporter.state(), DestinationState::Unreachable);
        destination.greet(greeting);
    }
    assert_eq!(exporter.drain().await, Drained { left: 0 });
    assert_delivered(&source, &destination, 100);
}

#[actix::test]
async fn one_dead_destination_does_not_delay_another() {
    let (source, destination) = (Source::new(2), ScriptedDestination::start().unwrap());
    let mut dead = ScriptedDestination::start().unwrap();
    dead.kill();
    let other = source.export(D1, &dead.endpoint(), |_| {});
    other.status.until(|status| status.state == DestinationState::Unreachable).await;
    source.commit(3_000).await;
    let exporter = source.export(D0, &destination.endpoint(), |_| {});
    assert_eq!(exporter.drain().await, Drained { left: 0 });
    assert_delivered(&source, &destination, 3_000);
    assert_eq!((source.ledger(D1).queued(), other.state()), (3_000, DestinationState::Unreachable));
}

#[actix::test]
async fn a_dead_destination_is_logged_once() {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .finish();
    // With one subscriber in the process, tracing asks that of whichever thread comes by a line first, and
    // the other tests' threads have none; with two, it asks both.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let (source, mut destination) = (Source::new(1), ScriptedDestination::start().unwrap());
    destination.kill();
    source.commit(1_000).await;
    let exporter = source.export(D0, &destination.endpoint(), |_| {});
    exporter.status.until(|status| status.requests.get(Kind::Unreachable) >= 10).await;
    destination.revive().unwrap();
    exporter.drain().await;
    let text = String::from_utf8(lines.0.lock().clone()).unwrap();
    let endpoint = destination.endpoint();
    assert_eq!(
        text,
        format!(
            " WARN the destination takes no spans destination=\"test\" state=\"unreachable\" \
             reason=\"connect to {endpoint}: Connection refused (os error 111)\" queued=1000\n \
             INFO the destination takes spans again destination=\"test\" state=\"exporting\" queued=900\n"
        )
    );
}

#[actix::test]
async fn an_invalid_span_is_found_among_the_others_and_becomes_a_dead_letter() {
    for protocol in Protocol::ALL {
        let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
        let bad = [0, 57, 58, 399];
        destination.judge(move |received| {
            match received.numbers().iter().any(|number| bad.contains(number)) {
                true => Reply::status(3, "bad span"),
                false => Reply::Ok,
            }
        });
        source.commit(400).await;
        let exporter = source.export(D0, &destination.endpoint(), |config| config.protocol = protocol);
        assert_eq!(exporter.drain().await, Drained { left: 0 });
        let ledger = source.ledger(D0);
        assert_eq!((ledger.exported, ledger.dropped(DropReason::Invalid)), (396, 4));
        let letters = source.log.dead_letters(D0);
        let mut found: Vec<_> =
            letters.iter().map(|letter| (letter.ordinal, testing::numbers(&letter.bytes))).collect();
        found.sort();
        assert_eq!(found, bad.map(|number| (number, vec![number])));
        let status = match protocol {
            Protocol::Grpc => "INVALID_ARGUMENT",
            Protocol::HttpProtobuf => "HTTP 400",
        };
        assert_eq!(letters[0].message, format!("{status}: bad span"));
        assert_eq!(set(destination.acknowledged()), set((0..400).filter(|number| !bad.contains(number))));
    }
}

#[actix::test]
async fn a_request_over_the_destination_s_limit_is_divided_until_it_fits() {
    for protocol in Protocol::ALL {
        let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
        destination.judge(|received| match received.message.len() {
            0..2_000 => Reply::Ok,
            length => Reply::status(11, &format!("decoded message length too large: found {length} bytes")),
        });
        source.commit(100).await;
        // One span of 3 KB, which no division mends.
        let mut large = testing::request(100..101).to_vec();
        large.extend_from_slice(&[0xfa, 0x3f, 0xb8, 0x17]);
        large.extend_from_slice(&[b'x'; 3_000]);
        source.commit_record(100..101, large.into()).await;
        source.end.fetch_add(1, Ordering::Relaxed);
        source.commit(99).await;
        let exporter = source.export(D0, &destination.endpoint(), |config| config.protocol = protocol);
        assert_eq!(exporter.drain().await, Drained { left: 0 });
        let ledger = source.ledger(D0);
        assert_eq!((ledger.exported, ledger.dropped(DropReason::TooLarge)), (199, 1));
        assert_eq!(source.log.dead_letters(D0)[0].ordinal, 100);
        assert_eq!(set(destination.acknowledged()), set((0..200).filter(|number| *number != 100)));
    }
}

#[actix::test]
async fn a_partial_success_is_counted_and_never_sent_again() {
    for protocol in Protocol::ALL {
        let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
        destination.script([Reply::Partial { rejected: 30, message: "too old".to_owned() }]);
        source.commit(200).await;
        let exporter = source.export(D0, &destination.endpoint(), |config| config.protocol = protocol);
        assert_eq!(exporter.drain().await, Drained { left: 0 });
        let ledger = source.ledger(D0);
        assert_eq!((ledger.exported, ledger.dropped(DropReason::Rejected)), (170, 30));
        assert_eq!(destination.acknowledged().len(), 200);
        let status = exporter.status.snapshot();
        assert_eq!((status.requests.get(Kind::Partial), status.retries), (1, 0));
        assert_eq!(status.last_error.unwrap().message, "too old");
    }
}

#[actix::test]
async fn every_status_ends_as_the_table_says() {
    for code in 1..=16 {
        let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
        destination.script([Reply::status(code, "no")]);
        source.commit(100).await;
        let exporter = source.export(D0, &destination.endpoint(), |_| {});
        assert_eq!(exporter.drain().await, Drained { left: 0 });
        let refused = if matches!(code, 2 | 6 | 8 | 9 | 13) { 100 } else { 0 };
        let ledger = source.ledger(D0);
        assert_eq!(
            (ledger.exported, ledger.dropped(DropReason::Refused)),
            (100 - refused, refused),
            "{code}"
        );
        assert_eq!(source.log.dead_letters(D0).len() as u64, refused);
    }
}

#[actix::test]
async fn a_throttled_destination_says_so_and_gets_everything_later() {
    let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
    let retry_after = Some(Duration::from_millis(100));
    destination.script([Reply::Status { code: 8, message: "slow down".to_owned(), retry_after }]);
    source.commit(200).await;
    let exporter = source.export(D0, &destination.endpoint(), |_| {});
    exporter.status.until(|status| status.state == DestinationState::Throttled).await;
    let throttled = Instant::now();
    assert_eq!(exporter.status.snapshot().reason.as_deref(), Some("RESOURCE_EXHAUSTED: slow down"));
    assert_eq!(destination.counts().1, 1);
    destination.until(|destination| destination.counts().1 == 2).await;
    assert!(throttled.elapsed() >= Duration::from_millis(95), "{:?}", throttled.elapsed());
    assert_eq!(exporter.drain().await, Drained { left: 0 });
    assert_delivered(&source, &destination, 200);
}

#[actix::test]
async fn a_blocked_destination_keeps_its_spans_until_an_operator_mends_it() {
    for protocol in Protocol::ALL {
        let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
        destination.judge(|_| Reply::Http { status: 404, content_type: "text/html", bytes: 100 });
        source.commit(200).await;
        let exporter = source.export(D0, &destination.endpoint(), |config| {
            config.protocol = protocol;
            config.max_retries = Some(1);
        });
        exporter.status.until(|status| status.requests.get(Kind::Blocked) >= 5).await;
        let status = exporter.status.snapshot();
        assert_eq!(status.state, DestinationState::Blocked);
        assert_eq!(status.reason.as_deref(), Some("HTTP 404, no OTLP answer: text/html"));
        assert_eq!((source.ledger(D0).position, destination.acknowledged().len()), (0, 0));
        destination.judge(|_| Reply::Ok);
        assert_eq!(exporter.drain().await, Drained { left: 0 });
        assert_delivered(&source, &destination, 200);
    }
}

#[actix::test]
async fn what_is_given_up_becomes_dead_letters() {
    let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
    destination.judge(|received| match received.numbers().contains(&150) {
        true => Reply::status(14, "busy"),
        false => Reply::Ok,
    });
    source.commit(300).await;
    let exporter = source.export(D0, &destination.endpoint(), |config| config.max_retries = Some(3));
    assert_eq!(exporter.drain().await, Drained { left: 0 });
    let ledger = source.ledger(D0);
    assert_eq!((ledger.exported, ledger.dropped(DropReason::RetriesExhausted)), (200, 100));
    let letters = set(source.log.dead_letters(D0).iter().map(|letter| letter.ordinal));
    assert_eq!(letters, set(100..200));
    let tries = destination.received().iter().filter(|received| received.numbers().contains(&150)).count();
    assert_eq!((tries, exporter.status.snapshot().retries), (4, 3));
}

#[actix::test]
async fn sampling_leaves_out_traces_but_no_span_s_account() {
    let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
    source.commit(2_000).await;
    let exporter = source.export(D0, &destination.endpoint(), |config| {
        config.sampling_rate = 0.3;
        config.gzip = true;
    });
    assert_eq!(exporter.drain().await, Drained { left: 0 });
    let ledger = source.ledger(D0);
    assert_eq!((ledger.exported + ledger.sampled_out, ledger.dropped_total()), (2_000, 0));
    assert!((500..700).contains(&ledger.exported), "{ledger:?}");
    assert_eq!(destination.acknowledged().len() as u64, ledger.exported);
}

#[actix::test]
async fn a_fresh_incarnation_resumes_at_the_position_and_repeats_little() {
    let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
    source.commit(10_000).await;
    let mut repeated = 0;
    for incarnation in 1..=5 {
        destination.script([Reply::Ok, Reply::Ok, Reply::Stall]);
        let exporter = source.export(D0, &destination.endpoint(), |_| {});
        destination.until(|destination| destination.received().len() >= incarnation * 6).await;
        exporter.addr.send(Die).await.unwrap();
        repeated += 400;
    }
    let exporter = source.export(D0, &destination.endpoint(), |_| {});
    assert_eq!(exporter.drain().await, Drained { left: 0 });
    assert_delivered(&source, &destination, 10_000);
    let acknowledged = destination.acknowledged().len();
    assert!(acknowledged <= 10_000 + repeated, "{acknowledged}");
}

/// Stops the actor as its supervisor does; the sender goes with the actor.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Stop(oneshot::Sender<()>);

impl Handler<Stop> for OtlpExportActor {
    type Result = ();

    fn handle(&mut self, Stop(ended): Stop, ctx: &mut Self::Context) {
        let hold = async move {
            std::future::pending::<()>().await;
            drop(ended);
        };
        ctx.spawn(actix::fut::wrap_future(hold));
        ctx.stop();
    }
}

async fn stop(exporter: &Exporter) {
    let (ended, end) = oneshot::channel();
    exporter.addr.send(Stop(ended)).await.unwrap();
    end.await.unwrap_err();
}

#[actix::test]
async fn a_stop_delivers_what_is_there_first() {
    let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
    let exporter = source.export(D0, &destination.endpoint(), |config| {
        config.min_batch_spans = 100;
        config.max_delay = Duration::from_secs(60);
    });
    destination.until(|destination| destination.counts().0 == 1).await;
    source.commit(1_050).await;
    stop(&exporter).await;
    assert_delivered(&source, &destination, 1_050);
}

#[actix::test]
async fn a_stop_waits_for_no_destination_that_will_not_be_tried_in_time() {
    let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
    let retry_after = Some(Duration::from_secs(3600));
    destination.script([Reply::Status { code: 14, message: String::new(), retry_after }]);
    source.commit(100).await;
    let exporter = source.export(D0, &destination.endpoint(), |config| {
        config.drain_timeout = Duration::from_secs(600);
    });
    exporter.status.until(|status| status.state == DestinationState::Throttled).await;
    stop(&exporter).await;
    assert_eq!((source.ledger(D0).queued(), exporter.status.snapshot().in_flight), (100, 0));
}

/// A paused clock that does not run ahead while a peer on another thread is waited for; it goes on when this is dropped.
struct Held(#[allow(dead_code, reason = "its end is what counts")] std::sync::mpsc::Sender<()>);

impl Drop for Held {
    fn drop(&mut self) {
        tokio::time::resume();
    }
}

impl Held {
    fn clock() -> Self {
        let (hold, held) = std::sync::mpsc::channel::<()>();
        tokio::time::pause();
        // While something blocks, the runtime does not advance its clock by itself.
        tokio::task::spawn_blocking(move || held.recv());
        Self(hold)
    }
}

#[actix::test]
async fn a_stop_begins_nothing_in_its_last_quarter_and_repeats_nothing_that_is_answered_by_its_end() {
    for answered in [true, false] {
        let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
        // Until one is answered there is one in flight.
        destination.script([Reply::Ok]);
        destination.judge(|_| Reply::Late);
        source.commit(1_000).await;
        let exporter = source.export(D0, &destination.endpoint(), |config| {
            config.timeout = Duration::from_secs(600);
            config.concurrency = 2;
            config.drain_timeout = Duration::from_millis(400);
        });
        destination.until(|destination| destination.received().len() == 3).await;
        let _held = Held::clock();
        let (ended, mut end) = oneshot::channel();
        exporter.addr.send(Stop(ended)).await.unwrap();
        tokio::time::advance(Duration::from_millis(301)).await;
        tokio::task::yield_now().await;
        assert_eq!(
            end.try_recv(),
            Err(oneshot::error::TryRecvError::Empty),
            "it waits for what is in flight"
        );
        if answered {
            destination.release();
        } else {
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        end.await.unwrap_err();
        assert_eq!(destination.received().len(), 3, "nothing more began");
        assert_eq!(source.ledger(D0).exported, if answered { 300 } else { 100 });
    }
}

/// Ends the actor where it stands.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Die;

impl Handler<Die> for OtlpExportActor {
    type Result = ();

    fn handle(&mut self, _message: Die, ctx: &mut Self::Context) {
        ctx.terminate();
    }
}

#[actix::test]
async fn a_drain_ends_at_its_deadline_and_what_remains_stays() {
    let (source, mut destination) = (Source::new(1), ScriptedDestination::start().unwrap());
    destination.kill();
    source.commit(300).await;
    let exporter = source.export(D0, &destination.endpoint(), |_| {});
    let (done, drained) = oneshot::channel();
    let deadline = Instant::now() + Duration::from_millis(20);
    exporter.addr.send(Drain { deadline, done }).await.unwrap();
    assert_eq!(drained.await, Ok(Drained { left: 300 }));
    assert_eq!(source.ledger(D0).queued(), 300);
}

#[actix::test]
async fn an_exporter_without_its_destination_in_the_log_stops_and_says_why() {
    let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
    let exporter = source.export(DestinationId(7), &destination.endpoint(), |_| {});
    exporter.status.until(|status| status.last_error.is_some()).await;
    let error = exporter.status.snapshot().last_error.unwrap();
    assert_eq!(error.message, "the log refused the position: destination 7 is not one of the log's");
}

mod settings;
