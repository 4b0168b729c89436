//! A disk that fails, file systems that are full or read-only, files of other versions, and a clock that goes back.

use std::{pin::pin, time::Duration};

use futures_util::poll;
use tokio::time::Instant;

use super::{super::format::UnsealedHeader, *};
use crate::log::disk::sim::{Done, Effect, Errno, Kind, Ops};

const EIO: &str = "Input/output error (os error 5)";

/// Runs with a clock that goes on when nothing else does.
pub(super) fn paused<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(test)
}

/// A new log, with its destinations known to files.
fn fresh(durability: Durability) -> (SimDisk, SegmentLogConfig, Inline) {
    let (disk, config) = (SimDisk::with_dir("/log"), config(durability));
    let log = open(&disk, &config);
    (disk, config, log)
}

/// Whatever may happen to it: everything acknowledged is delivered after it, and nothing else.
fn holds_exactly(disk: &SimDisk, config: &SegmentLogConfig, sent: &[Sent]) {
    let log = open(disk, config);
    for id in [A, B] {
        assert_eq!(deliver(&log, id), Delivered { records: sent.to_vec(), ..Delivered::default() });
    }
    assert_eq!(damaged_spans(&log), 0);
}

/// Records that are larger than a page, all in one segment.
fn large_records() -> (SimDisk, SegmentLogConfig, Vec<Sent>) {
    let config = SegmentLogConfig { segment_bytes: 1 << 20, ..config(Durability::Process) };
    let disk = SimDisk::with_dir("/log");
    let log = open(&disk, &config);
    let mut sent = Vec::new();
    for number in 0..6u8 {
        let bytes = Bytes::from(vec![number; 9_000]);
        let first = commit_bytes(&log, vec![(bytes.clone(), 2)])[0].as_ref().unwrap().first;
        sent.push(Sent { first, end: first + 2, bytes });
    }
    (disk, config, sent)
}

#[test]
fn an_unreadable_page_costs_the_records_that_it_is_in() {
    let (disk, config, mut sent) = large_records();
    // Another segment, so that opening the log does not read this one.
    sent.extend(commit(&open(&disk, &config), &[1]));
    for page in 0..11u64 {
        let disk = disk.crash_process();
        let pages = page * 4_096..(page + 1) * 4_096;
        disk.plan(
            Ops::of([Kind::Read]).ending("1.segment").touching(pages.clone()).always(),
            Effect::Fail(Errno::Io),
        );
        // Opening reads the segment's header.
        if page == 0 {
            let error = try_open(&disk, &config).unwrap_err().to_string();
            assert_eq!(error, format!("cannot read {}: {EIO}", segment(1).display()));
            continue;
        }
        let log = open(&disk, &config);
        let touched = |number: u64| {
            let start = 128 + number * (48 + 9_000);
            start < pages.end && pages.start < start + 48 + 9_000
        };
        let mut expected = sent.clone();
        expected.retain(|sent| sent.first >= 12 || !touched(sent.first / 2));
        let delivered = deliver(&log, A);
        let damaged = 2 * (sent.len() - expected.len()) as u64;
        assert_eq!(delivered, Delivered { records: expected, damaged, evicted: 0 }, "page {page}");
        assert_eq!(log.log.troubles().len(), 1, "{:?}", log.log.troubles());
    }
}

#[test]
fn an_unreadable_end_of_a_segment_is_waited_for_and_is_no_loss() {
    let (disk, config, mut sent) = large_records();
    let log = open(&disk, &config);
    sent.extend(commit(&log, &[1]));
    drop(log);
    let log = open(&disk, &config);
    let last = Ops::of([Kind::Read]).ending("1.segment").touching(50_000..51_000);
    disk.plan(last.always(), Effect::Fail(Errno::Io));
    export(&log, A, 10);
    paused(async {
        let mut read = pin!(log.log.read(10, WIDE));
        for second in 0..5 {
            assert!(poll!(&mut read).is_pending(), "second {second}");
            assert_eq!(log.log.troubles(), [format!("span log cannot read: {EIO}")]);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        disk.heal();
        assert_eq!(read.await.unwrap().len(), 2);
    });
    assert_eq!(log.log.troubles(), [""; 0]);
    let stats = log.log.stats().disk.unwrap();
    assert_eq!((stats.read_errors, stats.damaged_spans), (5, 0));
    assert_eq!(deliver(&log, B).records, sent);
}

#[test]
fn a_disk_that_cannot_be_read_at_the_start_is_an_error_and_no_loss() {
    let kept = kept(Durability::Process);
    let before = all_files(&kept.disk);
    for (kind, error) in [(Kind::Read, "read"), (Kind::Open, "open")] {
        kept.disk.plan(Ops::of([kind]).ending("3.segment").always(), Effect::Fail(Errno::Io));
        let found = try_open(&kept.disk, &kept.config).unwrap_err().to_string();
        assert_eq!(found, format!("cannot {error} {}: {EIO}", segment(3).display()));
        kept.disk.heal();
    }
    assert!(all_files(&kept.disk) == before);
    holds_exactly_behind(&kept);
}

fn holds_exactly_behind(kept: &Kept) {
    let log = open(&kept.disk, &kept.config);
    for (id, position) in [(A, A_AT), (B, B_AT)] {
        let expected = Delivered { records: kept.behind(position), ..Delivered::default() };
        assert_eq!(deliver(&log, id), expected);
    }
}

fn all_files(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    disk.paths().into_iter().map(|path| (path.clone(), disk.bytes(path))).collect()
}

#[test]
fn a_failed_write_is_refused_and_the_next_group_goes_elsewhere() {
    for durability in BOTH {
        for (done, truncates) in [
            (Done::Nothing, true),
            (Done::Half, true),
            (Done::Whole, true),
            (Done::Half, false),
            (Done::Whole, false),
        ] {
            let (disk, config, log) = fresh(durability);
            let mut sent = commit(&log, &[3, 2]);
            disk.plan(Ops::of([Kind::Write]).ending(".segment").nth(0), Effect::FailAfter(done, Errno::Io));
            if !truncates {
                disk.plan(Ops::of([Kind::Truncate]).always(), Effect::Fail(Errno::Io));
            }
            let error = try_commit(&log, &[4, 1]).unwrap_err();
            assert_eq!(error, CommitError::Disk { why: EIO.to_owned() });
            assert_eq!(log.log.troubles(), [format!("span log cannot write: {EIO}")]);
            assert_eq!(log.log.end(), 5, "a refused batch has no ordinals");
            sent.extend(commit(&log, &[2, 2]));
            assert_eq!(log.log.troubles(), [""; 0]);
            assert!(disk.exists(segment(2)));
            assert_eq!(log.log.stats().disk.unwrap().write_errors, 1 + u64::from(!truncates));
            assert_eq!(wait(log.log.read(0, WIDE)).unwrap().len(), 4);
            holds_exactly(&disk.crash_process(), &config, &sent);
            if durability == Durability::Power {
                holds_exactly(&disk.crash_power_losing_all(), &config, &sent);
            }
        }
    }
}

#[test]
fn a_failed_sync_is_made_good_elsewhere_and_the_file_is_not_trusted_again() {
    let (disk, config, log) = fresh(Durability::Power);
    let mut sent = commit(&log, &[3, 2]);
    disk.plan(Ops::of([Kind::Sync]).ending("1.segment").nth(0), Effect::Fail(Errno::Io));
    sent.extend(commit(&log, &[4, 1]));
    assert_eq!(log.log.stats().disk.unwrap().sync_errors, 1);
    sent.extend(commit(&log, &[2]));
    let writes = disk.operations_of(&Ops::of([Kind::Write, Kind::Sync]).ending("1.segment"));
    let after = writes.iter().skip_while(|operation| operation.ok).count();
    assert_eq!(after, 1, "nothing is written to it after the failed sync: {writes:?}");
    for seed in 0..50 {
        holds_exactly(&disk.crash_power(seed), &config, &sent);
    }
    holds_exactly(&disk.crash_power_losing_all(), &config, &sent);
}

#[test]
fn a_sync_that_fails_twice_refuses_the_group() {
    let (disk, config, log) = fresh(Durability::Power);
    let mut sent = commit(&log, &[3, 2]);
    disk.plan(Ops::of([Kind::Sync]).ending(".segment").numbers(0..2), Effect::Fail(Errno::Io));
    let error = try_commit(&log, &[4, 1]).unwrap_err();
    assert_eq!(error, CommitError::Disk { why: EIO.to_owned() });
    assert_eq!(log.log.troubles(), [format!("span log cannot write: {EIO}")]);
    assert_eq!(log.log.stats().disk.unwrap().sync_errors, 2);
    sent.extend(commit(&log, &[2]));
    assert_eq!(log.log.troubles(), [""; 0]);
    for seed in 0..50 {
        holds_exactly(&disk.crash_power(seed), &config, &sent);
    }
}

#[test]
fn a_checkpoint_that_cannot_be_renamed_leaves_the_one_before() {
    use crate::log::Restored;
    let (disk, config, log) = fresh(Durability::Process);
    commit(&log, &[3, 2]);
    checkpoint(&log, 3);
    disk.plan(Ops::of([Kind::Rename]).ending("red.checkpoint").nth(0), Effect::Fail(Errno::Io));
    assert_eq!(wait(log.log.checkpoint(5, Bytes::from_static(b"later"))), Err(EIO.to_owned()));
    assert_eq!(log.log.stats().disk.unwrap().write_errors, 1);
    let restored = open(&disk.crash_process(), &config).log.restored();
    assert!(matches!(restored, Restored::Checkpoint { position: 3, .. }), "{restored:?}");
    assert_eq!(wait(log.log.checkpoint(5, Bytes::from_static(b"later"))), Ok(()));
    let restored = open(&disk.crash_process(), &config).log.restored();
    assert!(matches!(restored, Restored::Checkpoint { position: 5, .. }), "{restored:?}");
}

#[test]
fn a_position_that_cannot_be_written_is_said_and_written_when_it_can() {
    for durability in BOTH {
        let (disk, config, log) = fresh(durability);
        let sent: Vec<_> = (0..6).flat_map(|_| commit(&log, &[3, 2])).collect();
        disk.plan(Ops::of([Kind::Write]).ending("a.position").always(), Effect::Fail(Errno::Io));
        export(&log, A, 20);
        assert_eq!(log.log.troubles(), [format!("span log cannot write the position of a: {EIO}")]);
        export(&log, B, 30);
        checkpoint(&log, 30);
        assert_eq!(log.log.stats().start, 0, "what a restart would deliver again is kept");
        assert_eq!(deliver(&open(&disk.crash_process(), &config), A).records, sent);
        disk.heal();
        export(&log, A, 30);
        assert_eq!(log.log.troubles(), [""; 0]);
        assert_eq!(ledger(&open(&disk.crash_process(), &config), A).position, 30);
        assert_eq!(segments(&disk).len(), 1);
    }
}

#[test]
fn no_position_passes_a_dead_letter_that_cannot_be_written() {
    for durability in BOTH {
        let (disk, config, log) = fresh(durability);
        commit(&log, &[3, 2]);
        disk.plan(Ops::changes().containing("dead_letters").always(), Effect::Fail(Errno::Io));
        log.log.dead_letter(A, letter(0));
        let dropped = vec![(DropReason::Invalid, 1)];
        log.log.advance(A, &Advance { to: 1, dropped, ..Advance::default() }).unwrap();
        assert_eq!(log.log.troubles(), [format!("span log cannot write the position of a: {EIO}")]);
        let found = open(&disk.crash_process(), &config);
        assert_eq!((ledger(&found, A).position, found.log.dead_letters(A)), (0, vec![]));
        disk.heal();
        export(&log, A, 2);
        let found = open(&disk.crash_process(), &config);
        assert_eq!((ledger(&found, A).position, found.log.dead_letters(A)), (2, vec![letter(0)]));
        assert_eq!(log.log.troubles(), [""; 0]);
    }
}

#[test]
fn a_segment_that_cannot_be_removed_is_removed_later() {
    let (disk, config, log) = fresh(Durability::Process);
    for _ in 0..6 {
        commit(&log, &[3, 2]);
    }
    checkpoint(&log, 30);
    deliver(&log, B);
    let held = segments(&disk).len();
    disk.plan(Ops::of([Kind::Remove]).ending(".segment").numbers(0..3), Effect::Fail(Errno::Io));
    export(&log, A, 25);
    assert_eq!((segments(&disk).len(), ledger(&log, A).position), (held, 25));
    disk.heal();
    deliver(&log, A);
    assert_eq!(segments(&disk).len(), 1, "the active one stays");
    let again = open(&disk.crash_process(), &config);
    assert_eq!((again.log.end(), ledger(&again, A).position), (30, 30));
}

/// A small day of a log; whatever is refused is tried again.
fn day(log: &Inline, heal: &dyn Fn()) -> Vec<Sent> {
    let mut sent = Vec::new();
    for round in 0..3u64 {
        for group in [&[3, 2][..], &[4]] {
            let group = try_commit(log, group).or_else(|_refused| {
                heal();
                try_commit(log, group)
            });
            sent.extend(group.unwrap());
        }
        let end = log.log.end();
        export(log, A, end - 2);
        log.log.dead_letter(B, letter(end - 3));
        let exported = end - 2 - ledger(log, B).position - 1;
        let dropped = vec![(DropReason::Invalid, 1)];
        log.log.advance(B, &Advance { to: end - 2, exported, dropped, ..Advance::default() }).unwrap();
        log.log.measured(end - 1);
        let _or_the_next_one = wait(log.log.checkpoint(end - 1, Bytes::from(vec![round as u8; 40])));
    }
    sent
}

#[test]
fn whatever_operation_fails_nothing_acknowledged_is_lost_and_the_log_heals() {
    for durability in BOTH {
        for errno in [Errno::NoSpace, Errno::Io] {
            for (done, times) in [(Done::Nothing, 1), (Done::Half, 1), (Done::Whole, 1), (Done::Half, 5)] {
                for number in 0.. {
                    let what = format!("{durability:?}: {errno:?} at {number}, {done:?}, {times} times");
                    let (disk, config, log) = fresh(durability);
                    let trigger = Ops::changes().numbers(number..number + times);
                    let fault = disk.plan(trigger, Effect::FailAfter(done, errno));
                    let sent = day(&log, &|| disk.heal());
                    let ended = disk.met(fault) == 0
                        && log.log.stats().disk.unwrap().write_errors == 0
                        && log.log.stats().disk.unwrap().sync_errors == 0;
                    disk.heal();
                    // One more round, so that what failed was tried again.
                    let more = commit(&log, &[1]);
                    assert_eq!(log.log.troubles(), [""; 0], "{what}");
                    let sent = [sent, more].concat();
                    let after = match durability {
                        Durability::Power => disk.crash_power_losing_all(),
                        Durability::Process | Durability::Memory => disk.crash_process(),
                    };
                    for log in [log, open(&after, &config)] {
                        for id in [A, B] {
                            let at = ledger(&log, id);
                            assert!(at.balances(), "{what}: {at:?}");
                            let mut expected = sent.clone();
                            expected.retain(|sent| sent.end > at.position);
                            let delivered = deliver(&log, id);
                            assert_eq!(
                                delivered,
                                Delivered { records: expected, ..Delivered::default() },
                                "{what}"
                            );
                        }
                        // One letter a span, none lost.
                        let letters: Vec<_> = log.log.dead_letters(B).iter().map(|l| l.ordinal).collect();
                        assert_eq!(letters, [6, 15, 24], "{what}");
                        assert_eq!(damaged_spans(&log), 0, "{what}");
                    }
                    if ended {
                        assert!(number > 20, "{what}");
                        break;
                    }
                }
            }
        }
    }
}

#[test]
fn a_file_system_that_turns_read_only_refuses_and_still_delivers() {
    let kept = kept(Durability::Power);
    let log = open(&kept.disk, &kept.config);
    kept.disk.plan(Ops::changes().always(), Effect::Fail(Errno::ReadOnly));
    let why = "Read-only file system (os error 30)";
    for _ in 0..3 {
        assert_eq!(try_commit(&log, &[1]), Err(CommitError::Disk { why: why.to_owned() }));
    }
    assert_eq!(deliver(&log, A).records, kept.behind(A_AT));
    let said =
        [format!("span log cannot write: {why}"), format!("span log cannot write the position of a: {why}")];
    assert_eq!(log.log.troubles(), said);
    kept.disk.heal();
    let sent = commit(&log, &[1]);
    assert_eq!(log.log.troubles(), [""; 0]);
    assert_eq!(deliver(&open(&kept.disk.crash_power_losing_all(), &kept.config), A).records, sent);
}

#[test]
fn a_read_only_file_system_at_the_start_is_an_error_that_names_the_file() {
    let kept = kept(Durability::Process);
    let before = all_files(&kept.disk);
    kept.disk.plan(Ops::changes().always(), Effect::Fail(Errno::ReadOnly));
    let error = try_open(&kept.disk, &kept.config).unwrap_err().to_string();
    assert_eq!(error, "cannot take /log/clean: Read-only file system (os error 30)");
    assert!(all_files(&kept.disk) == before);
    let disk = SimDisk::with_dir("/log");
    disk.plan(Ops::changes().always(), Effect::Fail(Errno::ReadOnly));
    let error = try_open(&disk, &kept.config).unwrap_err().to_string();
    assert_eq!(error, "cannot make the folder /log/segments: Read-only file system (os error 30)");
}

/// Gives the frames at these places another version, and the checksum that goes with it.
fn set_version(disk: &SimDisk, path: &std::path::Path, frames: &[(usize, usize)]) {
    disk.edit(path, |bytes| {
        for &(from, length) in frames {
            let frame = &mut bytes[from..from + length];
            frame[8] = 2;
            let sum = crc32fast::hash(&frame[..length - 4]).to_le_bytes();
            frame[length - 4..].copy_from_slice(&sum);
        }
    });
}

#[test]
fn a_file_of_another_version_is_named_and_the_folder_is_left_as_it_was() {
    let kept = kept(Durability::Process);
    let files: [(&str, &[(usize, usize)]); 8] = [
        ("segments/000000000001.segment", &[(0, 64), (64, 64)]),
        ("segments/000000000003.segment", &[(0, 64), (64, 64)]),
        ("positions/a.position", &[(0, 512), (512, 512)]),
        ("positions/a.position", &[(512, 512)]),
        ("positions/b.position", &[(0, 512)]),
        ("dead_letters/b.letters", &[(0, 32), (32, 32)]),
        ("red.checkpoint", &[(0, 64)]),
        ("clean", &[(0, 32)]),
    ];
    for (name, frames) in files {
        let disk = kept.disk.crash_process();
        let path = PathBuf::from("/log").join(name);
        set_version(&disk, &path, frames);
        // What else is wrong is not touched either.
        disk.put(segment(8), [b'x'; 500]);
        disk.put("/log/positions/old.position", [b'x'; 500]);
        let before = all_files(&disk);
        let error = try_open(&disk, &kept.config).unwrap_err().to_string();
        let expected = format!(
            "/log/{name} has format version 2: this program reads version 1; use the version that wrote it, or move the folder away"
        );
        assert_eq!(error, expected);
        assert!(all_files(&disk) == before, "{name}");
    }
}

#[test]
fn a_clock_that_goes_back_or_far_ahead_gives_times_that_are_past() {
    let (disk, config, log) = fresh(Durability::Process);
    commit(&log, &[3, 2]);
    drop(log);
    let bytes = disk.bytes(segment(1));
    let key = SegmentHeader::decode(&bytes).unwrap().key;
    let hour = 3_600_000_000_000;
    let now = super::super::nanos(crate::log::unix_now());
    for (committed, age) in
        [(0, None), (1, None), (u64::MAX, Some(0)), (now + hour, Some(0)), (now - hour, Some(3_600))]
    {
        let disk = disk.crash_process();
        for (at, header) in records_of(&bytes) {
            let RecordHeader { length, sequence, first, spans, group_left, .. } = header;
            let fields = UnsealedHeader { length, sequence, first, spans, group_left, committed };
            let payload = &bytes[at + 48..at + 48 + length as usize];
            disk.overwrite(segment(1), at, &RecordHeader::seal(&key, at as u64, payload, fields));
        }
        let log = open(&disk, &config);
        let records = wait(log.log.read(0, WIDE)).unwrap();
        assert_eq!(records.len(), 2);
        for record in records {
            assert!(record.committed_at <= Instant::now());
            if let Some(age) = age {
                let found = record.committed_at.elapsed().as_secs();
                assert!((age..age + 60).contains(&found), "{committed}: {found} s");
            }
        }
    }
}
