//! A log that is full, and a disk that is.

use super::{super::WhenFull, *};
use crate::log::disk::sim::{Effect, Errno, Kind, Ops};

/// Commits until that is refused.
fn fill(log: &Inline) -> (Vec<Sent>, CommitError) {
    let mut sent = Vec::new();
    for _ in 0..1_000 {
        match try_commit(log, &[4]) {
            Ok(group) => sent.extend(group),
            Err(error) => return (sent, error),
        }
    }
    panic!("it never fills");
}

#[test]
fn a_full_log_refuses_says_so_and_takes_again_when_the_slowest_has_passed() {
    let config = SegmentLogConfig { max_bytes: 4_000, measured: false, ..config(Durability::Process) };
    let disk = SimDisk::with_dir("/log");
    let log = open(&disk, &config);
    let (sent, error) = fill(&log);
    let CommitError::Full { held, limit: 4_000, .. } = error else { panic!("{error}") };
    assert_eq!(held, log.log.stats().bytes);
    let said = format!("span log is full: {held} of 4000 bytes (log.max_bytes)");
    assert_eq!(log.log.troubles(), [said]);
    assert_eq!(deliver(&log, A).records, sent);
    try_commit(&log, &[4]).unwrap_err();
    let (middle, end) = (sent[sent.len() / 2].end, log.log.end());
    export(&log, B, middle);
    let more = commit(&log, &[4]);
    assert_eq!((more[0].first, log.log.troubles()), (end, Vec::new()));
    assert_eq!(deliver(&log, A).records, more);
    assert_eq!(ledger(&log, B).queued(), end + 4 - middle);
    assert!(log.log.stats().bytes <= 4_000);
}

#[test]
fn a_log_that_was_full_says_that_it_has_room_though_nobody_sends_any_more() {
    let config = SegmentLogConfig { max_bytes: 4_000, measured: false, ..config(Durability::Process) };
    let log = open(&SimDisk::with_dir("/log"), &config);
    fill(&log);
    let end = log.log.end();
    export(&log, A, end);
    assert_eq!(log.log.troubles().len(), 1, "B holds everything");
    export(&log, B, end);
    assert_eq!(log.log.troubles(), [""; 0]);

    let config = SegmentLogConfig { min_free_bytes: 300_000, ..config };
    let disk = SimDisk::with_dir("/log");
    disk.set_capacity(302_000);
    let log = open(&disk, &config);
    fill(&log);
    assert_eq!(log.log.troubles().len(), 1);
    disk.set_capacity(400_000);
    assert_eq!(log.log.troubles(), [""; 0]);
    assert!(log.log.stats().disk.unwrap().free_bytes > 390_000);
}

#[test]
fn a_log_that_drops_the_oldest_goes_on_and_counts_what_each_destination_missed() {
    for reopened in [false, true] {
        let config = SegmentLogConfig {
            max_bytes: 4_000,
            measured: false,
            when_full: WhenFull::DropOldest,
            ..config(Durability::Process)
        };
        let disk = SimDisk::with_dir("/log");
        let mut log = open(&disk, &config);
        let mut sent = Vec::new();
        for _ in 0..10 {
            sent.extend(commit(&log, &[3, 2]));
        }
        export(&log, A, 40);
        for _ in 0..40 {
            sent.extend(commit(&log, &[3, 2]));
        }
        let evicted = log.log.stats().disk.unwrap().evicted_spans;
        let start = log.log.stats().start;
        assert!(start > 40 && evicted == start - 40 + start, "{start}, {evicted}");
        if reopened {
            // Nothing is in memory any more.
            drop(log);
            log = open(&disk.crash_process(), &config);
            assert_eq!(log.log.troubles(), [""; 0]);
            assert_eq!(log.log.stats().start, start);
            for (id, position) in [(A, 40), (B, 0)] {
                let expected: Vec<_> = sent.iter().filter(|sent| sent.first >= start).cloned().collect();
                let delivered = deliver(&log, id);
                assert_eq!(delivered, Delivered { records: expected, damaged: 0, evicted: start - position });
                assert_eq!(ledger(&log, id).dropped(DropReason::Evicted), start - position);
            }
        } else {
            let [a, b] = [A, B].map(|id| deliver(&log, id));
            assert_eq!((a.damaged, b.damaged), (0, 0));
            assert_eq!(b.records.last(), sent.last());
        }
        assert!(log.log.stats().bytes <= 4_000);
    }
}

#[test]
fn a_file_system_with_less_room_than_is_to_be_left_refuses_until_there_is_more() {
    for durability in BOTH {
        let config = SegmentLogConfig { min_free_bytes: 300_000, ..config(durability) };
        let disk = SimDisk::with_dir("/log");
        disk.set_capacity(306_000);
        let log = open(&disk, &config);
        let (mut sent, error) = fill(&log);
        assert!(matches!(error, CommitError::NoSpace { keep: 300_000, .. }), "{error}");
        let free = 306_000 - disk.used_bytes();
        assert!(free >= 300_000);
        let said = format!(
            "span log is full: {free} bytes are free on its file system, at least 300000 are kept free (log.min_free_bytes)"
        );
        assert_eq!(log.log.troubles(), [said]);
        disk.set_capacity(307_000);
        sent.extend(commit(&log, &[4]));
        assert_eq!(log.log.troubles(), [""; 0]);
        assert_eq!(deliver(&log, A).records, sent);
        assert_eq!(deliver(&open(&disk.crash_process(), &config), B).records, sent);
    }
}

#[test]
fn a_disk_that_fills_up_in_the_middle_of_a_group_costs_nothing_that_was_acknowledged() {
    for durability in BOTH {
        for capacity in (2_500..4_000).step_by(7) {
            let config = config(durability);
            let disk = SimDisk::with_dir("/log");
            disk.set_capacity(capacity);
            // It does not say how much room it has: the write tells.
            disk.plan(Ops::of([Kind::Free]).always(), Effect::Fail(Errno::Io));
            let log = open(&disk, &config);
            let (sent, error) = fill(&log);
            let why = "No space left on device (os error 28)".to_owned();
            assert_eq!(error, CommitError::Disk { why });
            let crashed = disk.crash_process();
            crashed.set_capacity(None);
            for disk in [disk, crashed] {
                disk.set_capacity(None);
                let log = open(&disk, &config);
                let mut sent = sent.clone();
                sent.extend(commit(&log, &[3, 2]));
                let delivered = deliver(&log, A);
                assert_eq!(delivered, Delivered { records: sent, ..Delivered::default() }, "{capacity}");
            }
        }
    }
}

#[test]
fn a_batch_that_would_never_fit_is_told_apart() {
    let config = SegmentLogConfig { max_bytes: 4_000, ..config(Durability::Process) };
    let log = open(&SimDisk::with_dir("/log"), &config);
    let replies = commit_bytes(&log, vec![(vec![1; 4_000].into(), 9), (payload(0, 2), 2)]);
    assert_eq!(replies[0], Err(CommitError::TooLarge { bytes: 4_000, limit: 4_000 }));
    assert_eq!(replies[1], Ok(Committed { first: 0 }), "the other one of the group is kept");
}
