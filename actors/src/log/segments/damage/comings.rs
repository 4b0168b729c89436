//! Destinations that come and go while the log is open: as a start would have it, whatever the disk does meanwhile.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{super::OpenLog, *};
use crate::log::{
    AdvanceError, DestinationError,
    disk::sim::{Done, Effect, Errno, Ops},
};

const C: DestinationId = DestinationId(2);

fn named(name: &str, start: StartAt) -> LogDestination {
    LogDestination { name: name.to_owned(), start }
}

fn come(log: &Inline, name: &str, start: StartAt) -> Result<DestinationId, DestinationError> {
    wait(log.log.take_in(named(name, start)))
}

fn go(log: &Inline, id: DestinationId) -> Result<DestinationLedger, DestinationError> {
    wait(log.log.let_go(id))
}

fn with_more(config: &SegmentLogConfig, destination: LogDestination) -> SegmentLogConfig {
    let mut config = config.clone();
    config.destinations.push(destination);
    config
}

fn without_b(config: &SegmentLogConfig) -> SegmentLogConfig {
    let mut config = config.clone();
    config.destinations.retain(|destination| destination.name != "b");
    config
}

#[test]
fn one_that_comes_begins_where_a_start_would_have_it_begin_and_is_known_from_then_on() {
    for start in [StartAt::End, StartAt::Beginning] {
        let kept = kept(Durability::Process);
        let at_a_start =
            ledger(&open(&kept.disk.crash_process(), &with_more(&kept.config, named("c", start))), C);
        let log = open(&kept.disk, &kept.config);
        assert_eq!(come(&log, "c", start), Ok(C));
        assert_eq!(ledger(&log, C), at_a_start);
        assert_eq!(come(&log, "c", start), Err(DestinationError::Taken("c".to_owned())));
        let sent = commit(&log, &[3]);
        // What a setting says later does not matter to one that is known.
        for start in [StartAt::End, StartAt::Beginning] {
            let next = open(&kept.disk.crash_process(), &with_more(&kept.config, named("c", start)));
            assert_eq!(ledger(&next, C), at_a_start.at_end(log.log.end()));
        }
        let delivered = deliver(&log, C).records;
        assert!(delivered.ends_with(&sent), "{delivered:?}");
        let all: Vec<_> = kept.sent.iter().chain(&sent).cloned().collect();
        assert_eq!(delivered, if start == StartAt::End { sent } else { all });
    }
}

#[test]
fn one_that_came_holds_what_it_has_not_had_and_one_that_went_holds_nothing() {
    let kept = kept(Durability::Process);
    let log = open(&kept.disk, &kept.config);
    assert_eq!(come(&log, "c", StartAt::End), Ok(C));
    commit(&log, &[3]);
    deliver(&log, A);
    checkpoint(&log, log.log.end());
    let gone = go(&log, B).unwrap();
    assert_eq!((gone.position, gone.end, gone.queued()), (B_AT, log.log.end(), log.log.end() - B_AT));
    assert!(gone.balances());
    assert_eq!(log.log.stats().start, kept.end(), "the segment with what came after c is kept for it");
    assert_eq!(log.log.ledger(B), Err(AdvanceError::Unknown(1)));
    assert_eq!(go(&log, B), Err(DestinationError::Unknown));
    let on = |log: &Inline| {
        (0..12).for_each(|_| drop(commit(log, &[9])));
        deliver(log, A);
        checkpoint(log, log.log.end());
        log.log.stats().start
    };
    export(&log, C, kept.end());
    assert_eq!(on(&log), kept.end());
    go(&log, C).unwrap();
    assert!(on(&log) > kept.end() + 100, "it is held no longer");
    assert_eq!(come(&log, "d", StartAt::End), Ok(DestinationId(3)), "no id is another's again");
    assert_eq!(log.log.troubles(), [""; 0]);
}

#[test]
fn one_that_went_and_comes_back_is_a_new_one_with_its_old_dead_letters_as_after_starts_without_and_with_it() {
    for durability in BOTH {
        let kept = kept(durability);
        let log = open(&kept.disk, &kept.config);
        // Not in a file yet.
        log.log.dead_letter(B, letter(B_AT));
        go(&log, B).unwrap();
        assert!(!kept.disk.exists("/log/positions/b.position"));
        let id = come(&log, "b", StartAt::End).unwrap();
        assert_eq!(ledger(&log, id), DestinationLedger::starting_at(kept.end()));
        let letters = [letter(1), letter(2), letter(B_AT)];
        assert_eq!(log.log.dead_letters(id), letters);
        let again = open(&kept.disk.crash_process(), &kept.config);
        assert_eq!((ledger(&again, B).start, again.log.dead_letters(B)), (kept.end(), letters.to_vec()));
    }
}

#[test]
fn where_only_its_position_tells_how_far_the_log_has_come_it_stays_and_one_that_comes_back_goes_on_there() {
    let disk = SimDisk::with_dir("/log");
    let config = SegmentLogConfig { measured: false, ..without_b(&config(Durability::Process)) };
    let log = open(&disk, &config);
    commit(&log, &[3]);
    deliver(&log, A);
    drop(log);
    // The writer of the next process has no segment of its own, and lets the old one go.
    let log = open(&disk, &config);
    log.writer.lock().handle([]);
    assert_eq!(segments(&disk).len(), 0);
    go(&log, A).unwrap();
    assert!(disk.exists("/log/positions/a.position"), "no ordinal is used twice");
    let back = come(&log, "a", StartAt::Beginning).unwrap();
    assert_eq!((ledger(&log, back).start, ledger(&log, back).position), (0, 3));
    go(&log, back).unwrap();
    let sent = commit(&log, &[2]);
    assert_eq!(sent[0].first, 3);
    assert!(!disk.exists("/log/positions/a.position"), "a segment tells it now");
}

#[test]
fn one_that_cannot_come_leaves_no_trace_whichever_operation_fails() {
    for durability in BOTH {
        for effect in [Effect::Fail(Errno::Io), Effect::FailAfter(Done::Whole, Errno::NoSpace)] {
            let mut failed = 0;
            for number in 0.. {
                let kept = kept(durability);
                let log = open(&kept.disk, &kept.config);
                commit(&log, &[1]);
                let fault = kept.disk.plan(Ops::any().nth(number), effect);
                let came = come(&log, "c", StartAt::End);
                if kept.disk.met(fault) == 0 {
                    assert!(came.is_ok() && failed >= 3, "{failed} operations failed");
                    break;
                }
                kept.disk.heal();
                commit(&log, &[1]);
                if came.is_ok() {
                    // What failed was no part of it.
                    continue;
                }
                failed += 1;
                assert!(matches!(came, Err(DestinationError::Disk(_))), "{came:?}");
                assert_eq!(log.log.ledger(C), Err(AdvanceError::Unknown(2)));
                assert!(!kept.disk.exists("/log/positions/c.position"), "{effect:?}, operation {number}");
                let end = log.log.end();
                assert_eq!(come(&log, "c", StartAt::End), Ok(C));
                assert_eq!(ledger(&log, C), DestinationLedger::starting_at(end));
                assert_eq!([A, B].map(|id| ledger(&log, id).position), [A_AT, B_AT]);
            }
        }
    }
}

#[test]
fn one_whose_dead_letters_cannot_be_saved_stays() {
    let kept = kept(Durability::Process);
    let log = open(&kept.disk, &kept.config);
    log.log.dead_letter(B, letter(B_AT));
    kept.disk.plan(Ops::changes().ending(".letters").always(), Effect::Fail(Errno::NoSpace));
    let refused = go(&log, B).unwrap_err().to_string();
    assert!(
        refused.starts_with("the span log cannot read or write its files: span log cannot write"),
        "{refused}"
    );
    assert_eq!(ledger(&log, B).position, B_AT);
    kept.disk.heal();
    go(&log, B).unwrap();
    assert_eq!(log.log.troubles(), [""; 0], "what it could not write is nobody's trouble any more");
}

#[test]
fn a_process_that_dies_at_any_change_of_a_coming_has_it_there_or_not() {
    for durability in BOTH {
        let kept = kept(durability);
        for number in 0.. {
            let disk = kept.disk.crash_process();
            let log = open(&disk, &kept.config);
            commit(&log, &[1]);
            let fault = disk.plan(Ops::changes().nth(number), Effect::Die(Done::Half));
            let came = come(&log, "c", StartAt::End);
            let sent = try_commit(&log, &[2, 1]);
            let after = match durability {
                Durability::Power => disk.crash_power_losing_all(),
                Durability::Process | Durability::Memory => disk.crash_process(),
            };
            let next = open(&after, &with_more(&kept.config, named("c", StartAt::End)));
            assert_eq!([A, B].map(|id| ledger(&next, id).position), [A_AT, B_AT]);
            if let (Ok(_), Ok(sent)) = (came, sent) {
                assert_eq!(deliver(&next, C).records, sent, "change {number}");
            }
            drop(next);
            let next = open(&after, &kept.config);
            assert_eq!((next.log.troubles(), deliver(&next, A).damaged), (vec![], 0));
            if disk.met(fault) == 0 {
                assert!(number > 3, "{number} changes");
                break;
            }
        }
    }
}

#[test]
fn a_process_that_dies_at_any_change_of_a_going_has_it_as_it_was_or_as_a_new_one() {
    for durability in BOTH {
        let kept = kept(durability);
        for number in 0.. {
            let disk = kept.disk.crash_process();
            let log = open(&disk, &kept.config);
            log.log.dead_letter(B, letter(B_AT));
            let fault = disk.plan(Ops::changes().nth(number), Effect::Die(Done::Half));
            let went = go(&log, B);
            let after = match durability {
                Durability::Power => disk.crash_power_losing_all(),
                Durability::Process | Durability::Memory => disk.crash_process(),
            };
            let next = open(&after, &kept.config);
            let at = ledger(&next, B);
            assert!(at.position == B_AT || at == DestinationLedger::starting_at(kept.end()), "{at:?}");
            assert_eq!(deliver(&next, A).records, kept.behind(A_AT));
            if went.is_ok() {
                assert_eq!(next.log.dead_letters(B).len(), 3, "change {number}");
            }
            drop(next);
            assert_eq!(open(&after, &without_b(&kept.config)).log.troubles(), [""; 0]);
            if disk.met(fault) == 0 {
                assert_eq!((at.position, number > 1), (kept.end(), true), "{number} changes");
                break;
            }
        }
    }
}

#[test]
fn a_damaged_position_that_is_found_is_set_aside_and_its_destination_gets_what_the_log_holds() {
    let kept = kept(Durability::Process);
    let log = open(&kept.disk, &kept.config);
    kept.disk.put("/log/positions/c.position", vec![7; 1024]);
    assert_eq!(come(&log, "c", StartAt::End), Ok(C));
    assert_eq!((ledger(&log, C).start, quarantined(&log)), (0, 1024));
    assert_eq!(
        log.log.troubles(),
        ["the position of c is damaged: it begins with the first span that the log holds"]
    );
}

#[test]
fn a_writer_that_is_not_there_changes_nothing() {
    let kept = kept(Durability::Process);
    let opened = OpenLog::open_on(Arc::new(kept.disk.clone()), &kept.config, None).unwrap();
    let log = opened.log(Err, Err);
    assert_eq!(wait(log.take_in(named("c", StartAt::End))), Err(DestinationError::Busy));
    assert_eq!(wait(log.let_go(B)), Err(DestinationError::Busy));
    assert_eq!(log.ledger(B).unwrap().position, B_AT);
}

/// What is done to a log.
#[derive(Debug, Clone, Copy)]
enum Op {
    Come(usize, StartAt),
    Go(usize),
    Commit(u32),
    /// So many spans.
    Deliver(usize, u64),
    /// The metrics have counted everything.
    Count,
    /// The process ends at once, and another begins with the destinations that there are.
    Kill,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        3 => (0..3_usize, any::<bool>())
            .prop_map(|(name, old)| Op::Come(name, if old { StartAt::Beginning } else { StartAt::End })),
        2 => (0..3_usize).prop_map(Op::Go),
        4 => (1..6_u32).prop_map(Op::Commit),
        4 => (0..3_usize, 1..30_u64).prop_map(|(name, spans)| Op::Deliver(name, spans)),
        1 => Just(Op::Count),
        1 => Just(Op::Kill),
    ];
    proptest::collection::vec(op, 1..60)
}

/// A log beside a plain account of its destinations.
struct Account {
    disk: SimDisk,
    config: SegmentLogConfig,
    log: Inline,
    there: BTreeMap<usize, (DestinationId, DestinationLedger)>,
    /// Those that have gone while only their position told how far the log has come.
    left: BTreeMap<usize, DestinationLedger>,
    sent: Vec<Sent>,
}

const NAMES: [&str; 3] = ["x", "y", "z"];

impl Account {
    fn new(durability: Durability) -> Self {
        let disk = SimDisk::with_dir("/log");
        let config = SegmentLogConfig { destinations: Vec::new(), segment_bytes: 200, ..config(durability) };
        let log = open(&disk, &config);
        Self { disk, config, log, there: BTreeMap::new(), left: BTreeMap::new(), sent: Vec::new() }
    }

    fn has_file(&self, name: usize) -> bool {
        self.disk.exists(format!("/log/positions/{}.position", NAMES[name]))
    }

    fn apply(&mut self, op: Op) {
        let (end, held_from) = (self.log.log.end(), self.log.log.stats().start);
        match op {
            Op::Come(name, start) => {
                let came = come(&self.log, NAMES[name], start);
                if self.there.contains_key(&name) {
                    assert_eq!(came, Err(DestinationError::Taken(NAMES[name].to_owned())));
                    return;
                }
                let begins = if start == StartAt::End { end } else { held_from };
                let new = DestinationLedger::starting_at(begins);
                self.there.insert(name, (came.unwrap(), self.left.remove(&name).unwrap_or(new)));
            }
            Op::Go(name) => {
                let Some((id, ledger)) = self.there.remove(&name) else { return };
                assert_eq!(go(&self.log, id), Ok(ledger.at_end(end)));
                assert!(self.log.log.ledger(id).is_err());
                if self.has_file(name) {
                    self.left.insert(name, ledger);
                }
            }
            Op::Commit(spans) => self.sent.extend(commit(&self.log, &[spans])),
            Op::Deliver(name, spans) => {
                let Some((id, ledger)) = self.there.get_mut(&name) else { return };
                let to = end.min(ledger.position + spans);
                let advance = Advance { to, exported: to - ledger.position, ..Advance::default() };
                *ledger = self.log.log.advance(*id, &advance).unwrap();
            }
            Op::Count => checkpoint(&self.log, end),
            Op::Kill => {
                let named = |name: &usize| named(NAMES[*name], StartAt::End);
                self.config.destinations = self.there.keys().map(named).collect();
                self.disk = self.disk.crash_process();
                self.log = open(&self.disk, &self.config);
                self.there.values_mut().zip(0..).for_each(|((id, _), number)| *id = DestinationId(number));
            }
        }
        self.left =
            std::mem::take(&mut self.left).into_iter().filter(|(name, _)| self.has_file(*name)).collect();
    }

    /// Everyone stands where the account says, and what it has not had is there.
    fn check(&self) {
        let end = self.log.log.end();
        for (id, kept) in self.there.values() {
            assert_eq!(ledger(&self.log, *id), kept.at_end(end));
            assert!(self.log.log.stats().start <= kept.position, "what it has not had is held");
            let mut at = kept.position;
            while at < end {
                let records = wait(self.log.log.read(at, WIDE)).unwrap();
                for record in &records {
                    let sent = self.sent.iter().find(|sent| sent.first == record.first);
                    assert_eq!(sent.map(|sent| &sent.bytes), Some(&record.bytes));
                }
                at = records.last().unwrap().end();
            }
        }
        assert_eq!(self.log.log.troubles(), [""; 0]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whoever_comes_and_goes_everyone_has_the_place_and_the_spans_that_a_plain_account_says(
        ops in ops(),
        power in any::<bool>(),
    ) {
        let mut account = Account::new(if power { Durability::Power } else { Durability::Process });
        for op in ops {
            account.apply(op);
            account.check();
        }
    }
}
