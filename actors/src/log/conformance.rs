//! What every form of the span log keeps, as one suite.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    segments::{LogDestination, StartAt},
    *,
};

/// A log with `(max_bytes, destinations, measured)`.
pub(crate) type Make = dyn Fn(usize, usize, bool) -> Arc<dyn SpanLog>;

/// Runs every test of the suite against logs from `make`.
pub(crate) fn suite<L: SpanLog + 'static>(make: impl Fn(usize, usize, bool) -> Arc<L> + 'static) {
    let make: Box<Make> = Box::new(move |max, destinations, measured| make(max, destinations, measured));
    ordinals_count_spans_in_the_order_of_commits(&make);
    a_read_begins_with_the_record_that_holds_the_position(&make);
    a_read_stays_within_its_limit_but_returns_one_record(&make);
    a_full_log_refuses_and_takes_again_when_a_destination_has_passed(&make);
    the_slowest_consumer_holds_the_records(&make);
    a_ledger_balances_after_every_step(&make);
    a_step_that_does_not_add_up_moves_nothing(&make);
    a_batch_is_kept_though_its_sender_gave_up(&make);
    a_dead_letter_is_kept_once(&make);
    a_log_without_consumers_never_fills(&make);
    a_destination_that_comes_later_is_like_the_others(&make);
    a_destination_that_goes_holds_nothing_any_more(&make);
}

/// The outcome of a future of the log; the test waits on this thread for forms that use another.
pub(crate) fn wait<T>(future: LogFuture<T>) -> T {
    let mut future = future;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(std::future::poll_fn(move |cx| future.as_mut().poll(cx)))
}

type Reply = oneshot::Receiver<Result<Committed, CommitError>>;

/// A batch with these bytes, and where its reply arrives.
pub(crate) fn append_bytes(bytes: Bytes, spans: u32) -> (Append, Reply) {
    let (reply, receiver) = oneshot::channel();
    (Append { bytes, pending: Arc::new(SpanLedger::default()).scanned(spans), reply }, receiver)
}

fn append(size: usize, spans: u32) -> (Append, Reply) {
    append_bytes(Bytes::from(vec![spans as u8; size]), spans)
}

fn commit(log: &Arc<dyn SpanLog>, size: usize, spans: u32) -> Result<Committed, CommitError> {
    let (batch, mut reply) = append(size, spans);
    wait(log.commit(vec![batch]));
    reply.try_recv().expect("every append is answered by the end of its group")
}

/// The metrics have counted everything before `to`, and stored that.
fn measured(log: &Arc<dyn SpanLog>, to: Ordinal) {
    log.measured(to);
    wait(log.checkpoint(to, Bytes::new())).unwrap();
}

fn exported(to: Ordinal, exported: u64) -> Advance {
    Advance { to, exported, ..Advance::default() }
}

const WIDE: ReadLimit = ReadLimit { spans: u64::MAX, bytes: usize::MAX };
const D0: DestinationId = DestinationId(0);
const D1: DestinationId = DestinationId(1);

fn ordinals_count_spans_in_the_order_of_commits(make: &Make) {
    let log = make(1 << 20, 1, false);
    let (group, mut replies): (Vec<_>, Vec<_>) =
        [3, 1, 7].into_iter().map(|spans| append(100, spans)).unzip();
    let outcome = wait(log.commit(group));
    assert_eq!((outcome.firsts, outcome.end), (vec![Some(0), Some(3), Some(4)], 11));
    let records = wait(log.read(0, WIDE)).unwrap();
    let committed: Vec<_> = records.iter().map(|record| record.committed_unix).collect();
    assert_eq!(committed, [outcome.committed_unix; 3], "a record knows when its group was committed");
    let firsts: Vec<_> = replies.iter_mut().map(|reply| reply.try_recv().unwrap().unwrap().first).collect();
    assert_eq!(firsts, [0, 3, 4]);
    assert_eq!(commit(&log, 100, 2), Ok(Committed { first: 11 }));
    assert_eq!(log.end(), 13);
}

fn a_read_begins_with_the_record_that_holds_the_position(make: &Make) {
    let log = make(1 << 20, 1, false);
    for spans in [3, 1, 7] {
        commit(&log, 100, spans).unwrap();
    }
    for (from, first) in [(0, 0), (2, 0), (3, 3), (4, 4), (10, 4)] {
        let records = wait(log.read(from, WIDE)).unwrap();
        assert_eq!(records.first().map(|record| record.first), Some(first), "read from {from}");
    }
    assert_eq!(wait(log.read(11, WIDE)), Ok(vec![]));
    let records = wait(log.read(0, WIDE)).unwrap();
    assert_eq!(
        records.iter().map(|r| (r.first, r.spans, r.bytes[0])).collect::<Vec<_>>(),
        [(0, 3, 3), (3, 1, 1), (4, 7, 7)]
    );
}

fn a_read_stays_within_its_limit_but_returns_one_record(make: &Make) {
    let log = make(1 << 20, 1, false);
    for _ in 0..10 {
        commit(&log, 100, 5).unwrap();
    }
    let count = |from, spans, bytes| wait(log.read(from, ReadLimit { spans, bytes })).unwrap().len();
    assert_eq!(count(0, 15, usize::MAX), 3);
    assert_eq!(count(2, 15, usize::MAX), 3, "the limit counts from the position, not from the record");
    assert_eq!(count(0, 16, usize::MAX), 3);
    assert_eq!(count(0, u64::MAX, 399), 3);
    assert_eq!(count(0, u64::MAX, 400), 4);
    assert_eq!(count(0, 1, usize::MAX), 1);
    assert_eq!(count(0, u64::MAX, 1), 1);
}

fn a_full_log_refuses_and_takes_again_when_a_destination_has_passed(make: &Make) {
    let log = make(100_000, 1, false);
    let mut taken = 0u64;
    let refusal = loop {
        match commit(&log, 10_000, 10) {
            Ok(committed) => assert_eq!(committed.first, taken * 10),
            Err(error) => break error,
        }
        taken += 1;
        assert!(taken <= 10, "100,000 bytes hold no eleven records of 10,000");
    };
    assert!(taken >= 9, "only {taken} records of 10,000 bytes fit into 100,000");
    assert!(matches!(refusal, CommitError::Full { limit: 100_000, .. }), "{refusal}");
    assert_eq!(log.end(), taken * 10, "a refused batch has no ordinals");
    assert!(matches!(commit(&log, 100_001, 1), Err(CommitError::TooLarge { limit: 100_000, .. })));
    log.advance(D0, &exported(10, 10)).unwrap();
    assert_eq!(commit(&log, 10_000, 10), Ok(Committed { first: taken * 10 }));
    assert!(log.stats().bytes <= 100_000);
}

fn the_slowest_consumer_holds_the_records(make: &Make) {
    let log = make(1 << 20, 2, true);
    for _ in 0..3 {
        commit(&log, 100, 10).unwrap();
    }
    log.advance(D0, &exported(30, 30)).unwrap();
    measured(&log, 30);
    assert_eq!((log.stats().start, log.stats().records), (0, 3), "destination 1 has taken nothing");
    log.advance(D1, &exported(15, 15)).unwrap();
    assert_eq!(
        (log.stats().start, log.stats().records),
        (10, 2),
        "a record goes when its last span is passed"
    );
    assert_eq!(wait(log.read(5, WIDE)), Err(ReadError::Released { from: 5, start: 10 }));
    assert_eq!(wait(log.read(15, WIDE)).unwrap()[0].first, 10);
    commit(&log, 100, 10).unwrap();
    log.advance(D0, &exported(40, 10)).unwrap();
    log.advance(D1, &exported(40, 25)).unwrap();
    assert_eq!(log.stats().start, 30, "the metrics have not counted the last record");
    measured(&log, 20);
    assert_eq!(log.stats().start, 30);
    measured(&log, 40);
    commit(&log, 100, 10).unwrap();
    assert_eq!((log.stats().start, log.stats().records), (40, 1));
}

fn a_ledger_balances_after_every_step(make: &Make) {
    let log = make(1 << 20, 1, false);
    for _ in 0..4 {
        commit(&log, 100, 10).unwrap();
    }
    let steps = [
        exported(7, 7),
        Advance { to: 20, exported: 3, sampled_out: 6, dropped: vec![(DropReason::Invalid, 4)] },
        Advance { to: 21, dropped: vec![(DropReason::TooLarge, 1)], ..Advance::default() },
        Advance { to: 21, ..Advance::default() },
        exported(40, 19),
    ];
    for step in steps {
        let ledger = log.advance(D0, &step).unwrap();
        assert!(ledger.balances(), "{ledger:?}");
        assert_eq!(ledger, log.ledger(D0).unwrap());
        assert_eq!(ledger.queued(), 40 - step.to);
    }
    commit(&log, 100, 2).unwrap();
    assert_eq!(log.ledger(D0).unwrap().queued(), 2);
}

fn a_step_that_does_not_add_up_moves_nothing(make: &Make) {
    let log = make(1 << 20, 1, false);
    commit(&log, 100, 10).unwrap();
    let before = log.ledger(D0).unwrap();
    assert_eq!(log.advance(D0, &exported(5, 4)), Err(AdvanceError::Unbalanced { distance: 5, counted: 4 }));
    assert_eq!(
        log.advance(D0, &exported(11, 11)),
        Err(AdvanceError::OutOfRange { from: 0, to: 11, end: 10 })
    );
    assert_eq!(log.advance(D1, &exported(0, 0)), Err(AdvanceError::Unknown(1)));
    assert_eq!(log.ledger(D0).unwrap(), before);
    assert_eq!(log.stats().records, 1);
}

fn a_batch_is_kept_though_its_sender_gave_up(make: &Make) {
    let log = make(1 << 20, 1, false);
    let (batch, reply) = append(100, 4);
    drop(reply);
    let future = log.commit(vec![batch]);
    drop(future);
    for _ in 0..1_000 {
        if log.end() == 4 {
            break;
        }
        std::thread::yield_now();
    }
    assert_eq!(log.end(), 4);
}

fn a_dead_letter_is_kept_once(make: &Make) {
    let log = make(1 << 20, 2, false);
    let letter = |ordinal| DeadLetter {
        ordinal,
        reason: DropReason::Invalid,
        message: "no".to_owned(),
        bytes: Bytes::from_static(b"span"),
    };
    for ordinal in [3, 5, 3] {
        log.dead_letter(D0, letter(ordinal));
    }
    let ordinals: Vec<_> = log.dead_letters(D0).iter().map(|letter| letter.ordinal).collect();
    assert_eq!(ordinals, [3, 5]);
    assert_eq!(log.dead_letters(D1), []);
    assert_eq!(log.stats().dead_letters, 2);
}

fn a_log_without_consumers_never_fills(make: &Make) {
    let log = make(100_000, 0, false);
    for taken in 0..30 {
        assert_eq!(commit(&log, 10_000, 10), Ok(Committed { first: taken * 10 }));
    }
    assert!(log.stats().bytes <= 100_000);
    assert_eq!(log.end(), 300);
}

fn comes(log: &Arc<dyn SpanLog>, name: &str, start: StartAt) -> Result<DestinationId, DestinationError> {
    wait(log.take_in(LogDestination { name: name.to_owned(), start }))
}

fn a_destination_that_comes_later_is_like_the_others(make: &Make) {
    let log = make(1 << 20, 1, false);
    commit(&log, 100, 5).unwrap();
    commit(&log, 100, 5).unwrap();
    log.advance(D0, &exported(5, 5)).unwrap();
    let end = comes(&log, "end", StartAt::End).unwrap();
    let beginning = comes(&log, "beginning", StartAt::Beginning).unwrap();
    assert_eq!(log.ledger(end).unwrap(), DestinationLedger::starting_at(10));
    let start = log.stats().start;
    assert_eq!(log.ledger(beginning).unwrap(), DestinationLedger::starting_at(start).at_end(10));
    assert_eq!(comes(&log, "end", StartAt::End), Err(DestinationError::Taken("end".to_owned())));
    commit(&log, 100, 5).unwrap();
    log.advance(D0, &exported(15, 10)).unwrap();
    let ledger = log.advance(beginning, &exported(15, 15 - start)).unwrap();
    assert!(ledger.balances() && ledger.queued() == 0, "{ledger:?}");
    assert_eq!(wait(log.read(10, WIDE)).unwrap().len(), 1, "what the slowest has not had is there");
    let (reason, bytes) = (DropReason::Invalid, Bytes::from_static(b"span"));
    log.dead_letter(end, DeadLetter { ordinal: 12, reason, message: "no".to_owned(), bytes });
    assert_eq!(log.dead_letters(end).len(), 1);
    assert_eq!(log.advance(end, &exported(15, 5)).map(|ledger| ledger.queued()), Ok(0));
    assert_eq!(wait(log.read(15, WIDE)), Ok(vec![]));
}

fn a_destination_that_goes_holds_nothing_any_more(make: &Make) {
    let log = make(1 << 20, 2, false);
    commit(&log, 100, 5).unwrap();
    log.advance(D0, &exported(5, 5)).unwrap();
    log.advance(D1, &exported(2, 2)).unwrap();
    let gone = wait(log.let_go(D1)).unwrap();
    assert_eq!((gone.exported, gone.queued(), gone.balances()), (2, 3, true));
    assert_eq!(log.ledger(D1), Err(AdvanceError::Unknown(1)));
    assert_eq!(log.advance(D1, &exported(5, 3)), Err(AdvanceError::Unknown(1)));
    assert_eq!(wait(log.let_go(D1)), Err(DestinationError::Unknown));
    assert_eq!(log.settled(D1), 0);
    wait(log.settles(D1));
    commit(&log, 100, 5).unwrap();
    log.advance(D0, &exported(10, 5)).unwrap();
    commit(&log, 100, 5).unwrap();
    assert_eq!(log.stats().start, 10, "nobody else was slower");
    let later = comes(&log, "later", StartAt::Beginning).unwrap();
    assert_ne!(later, D1);
    assert_eq!(log.ledger(later).unwrap().start, 10);
    assert_eq!(log.ledger(D0).unwrap().position, 10);
}
