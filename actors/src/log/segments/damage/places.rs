//! Files that are damaged as a whole, missing, or none of the log's; and damage under a reader.

use std::{pin::pin, time::Duration};

use futures_util::poll;

use super::{errors::paused, *};
use crate::log::disk::sim::{Effect, Errno, Kind, Ops};

/// Both destinations get everything but what begins in `lost`, which is counted as damaged, and nothing twice.
fn all_but(kept: &Kept, disk: &SimDisk, lost: std::ops::Range<Ordinal>) -> Inline {
    let log = open(disk, &kept.config);
    for (id, position) in [(A, A_AT), (B, B_AT)] {
        let mut expected = kept.behind(position);
        expected.retain(|sent| !lost.contains(&sent.first));
        let damaged = lost.end.saturating_sub(lost.start.max(position));
        assert_eq!(deliver(&log, id), Delivered { records: expected, damaged, evicted: 0 });
    }
    let again = open(&disk.crash_process(), &kept.config);
    for id in [A, B] {
        assert_eq!(deliver(&again, id), Delivered::default());
        assert_eq!(ledger(&again, id), ledger(&log, id));
    }
    log
}

/// The ordinals of a segment.
fn range(kept: &Kept, number: u64) -> std::ops::Range<Ordinal> {
    let records = records_of(&kept.disk.bytes(segment(number)));
    records[0].1.first..records.last().unwrap().1.end()
}

#[test]
fn a_segment_without_a_header_is_set_aside_and_its_spans_are_counted() {
    let kept = kept(Durability::Process);
    for number in [1, 2] {
        let disk = kept.disk.crash_process();
        let length = disk.bytes(segment(number)).len();
        for copy in [0, 64] {
            disk.flip_bit(segment(number), copy * 8);
        }
        let lost = range(&kept, number);
        let log = all_but(&kept, &disk, lost.clone());
        let said = &log.log.troubles()[0];
        assert_eq!(
            *said,
            format!("segment {number} has no header that checks: {length} bytes are in quarantine/")
        );
        assert_eq!((quarantined(&log), damaged_spans(&log) > 0), (length as u64, true));
        assert_eq!(disk.bytes(format!("/log/quarantine/{number:012}.segment.0")).len(), length);
    }
}

#[test]
fn a_last_segment_without_a_header_is_said_and_the_log_goes_on_before_it() {
    let kept = kept(Durability::Process);
    let lost = range(&kept, 3);
    for copy in [0, 64] {
        kept.disk.flip_bit(segment(3), copy * 8);
    }
    let log = open(&kept.disk, &kept.config);
    assert_eq!(log.log.end(), lost.start);
    assert!(log.log.troubles()[0].starts_with("segment 3 has no header that checks"));
    let restored = log.log.restored();
    assert!(
        matches!(restored, crate::log::Restored::Broken { .. }),
        "what it had was on a page perhaps: {restored:?}"
    );
    let mut expected = kept.behind(A_AT);
    expected.retain(|sent| sent.first < lost.start);
    expected.extend(commit(&log, &[4]));
    assert_eq!(deliver(&log, A), Delivered { records: expected, ..Delivered::default() });
}

#[test]
fn nobody_gets_an_ordinal_twice_when_the_last_segment_is_gone() {
    let kept = kept(Durability::Process);
    let log = open(&kept.disk, &kept.config);
    export(&log, A, kept.end() - 1);
    drop(log);
    let lost = range(&kept, 3).start;
    kept.disk.delete(segment(3));
    let log = open(&kept.disk, &kept.config);
    assert_eq!(log.log.end(), kept.end() - 1);
    assert_eq!(
        log.log.troubles(),
        [format!(
            "{} spans at the end of the log are lost: they never reached the disk",
            log.log.end() - lost
        )]
    );
    let mut expected = kept.behind(B_AT);
    expected.retain(|sent| sent.first < lost);
    let sent = commit(&log, &[3]);
    assert_eq!(sent[0].first, kept.end() - 1);
    expected.extend(sent.clone());
    assert_eq!(deliver(&log, A).records, sent);
    let b = deliver(&log, B);
    assert_eq!(b, Delivered { records: expected, damaged: kept.end() - 1 - lost, evicted: 0 });
    assert_eq!(damaged_spans(&log), b.damaged, "counted once");
}

#[test]
fn a_missing_segment_is_a_gap_that_is_counted() {
    let kept = kept(Durability::Process);
    for number in [1, 2] {
        let disk = kept.disk.crash_process();
        disk.delete(segment(number));
        let lost = range(&kept, number);
        let log = all_but(&kept, &disk, lost.clone());
        // Of the first one, what nobody was yet to get was not missed.
        let missed = if number == 1 { lost.end - B_AT } else { lost.end - lost.start };
        assert_eq!(damaged_spans(&log), missed);
        assert_eq!(log.log.troubles().len(), 1, "{:?}", log.log.troubles());
    }
}

#[test]
fn files_that_are_none_of_the_logs_are_left_alone() {
    let kept = kept(Durability::Process);
    let foreign = [
        "/log/notes.txt",
        "/log/segments/README",
        "/log/segments/1.segment",
        "/log/segments/00000000000x.segment",
        "/log/segments/000000000009.segment.new",
        "/log/positions/a.position.new",
        "/log/dead_letters/c.letters",
        "/log/quarantine/from before",
        "/log/red.checkpoint.new",
    ];
    for path in foreign {
        kept.disk.put(path, *b"mine");
    }
    let log = all_but(&kept, &kept.disk, 0..0);
    assert_eq!(log.log.troubles(), [""; 0]);
    for path in foreign {
        // The log's own leftovers are overwritten some day.
        assert!(path.ends_with(".new") || kept.disk.bytes(path) == b"mine", "{path}");
    }
}

#[test]
fn an_empty_segment_and_one_with_a_header_alone_are_no_loss() {
    let kept = kept(Durability::Process);
    let last = kept.disk.bytes(segment(3));
    for length in [0, 1, 63, 64, 127, 128] {
        for number in [4, 7] {
            let disk = kept.disk.crash_process();
            let mut header = SegmentHeader::decode(&last).unwrap();
            (header.first, header.sequence) = (kept.end(), 15);
            disk.put(segment(number), header.encode()[..length].to_vec());
            let log = all_but(&kept, &disk, 0..0);
            assert_eq!(log.log.troubles(), [""; 0], "{length} bytes");
            let sent = commit(&log, &[2]);
            assert_eq!((sent[0].first, disk.exists(segment(number + 1))), (kept.end(), true));
            let again = open(&disk.crash_process(), &kept.config);
            assert_eq!(deliver(&again, A).records, sent, "{length} bytes");
        }
    }
}

#[test]
fn a_segment_whose_ordinals_do_not_follow_is_set_aside() {
    let kept = kept(Durability::Process);
    kept.disk.copy(segment(1), segment(9));
    let length = kept.disk.bytes(segment(1)).len();
    let log = all_but(&kept, &kept.disk, 0..0);
    let said = format!("segment 9 does not follow the one before it: {length} bytes are in quarantine/");
    assert_eq!(log.log.troubles(), [said]);
    assert!(!kept.disk.exists(segment(9)));
}

#[test]
fn garbage_behind_a_segment_is_no_part_of_it() {
    for durability in BOTH {
        let kept = kept(durability);
        for number in [1, 2, 3] {
            for garbage in [vec![0; 5_000], vec![b'x'; 5_000], kept.disk.bytes(segment(1))] {
                let disk = kept.disk.crash_process();
                disk.edit(segment(number), |bytes| bytes.extend(&garbage));
                let log = all_but(&kept, &disk, 0..0);
                assert_eq!((damaged_spans(&log), log.log.troubles()), (0, Vec::new()), "segment {number}");
            }
        }
    }
}

#[test]
fn two_damaged_payloads_at_the_end_are_both_counted() {
    let kept = kept(Durability::Process);
    let records = records_of(&kept.disk.bytes(segment(3)));
    let last_two = &records[records.len() - 2..];
    for (at, _) in last_two {
        kept.disk.flip_bit(segment(3), (at + 50) * 8);
    }
    let lost = last_two[0].1.first..last_two[1].1.end();
    let log = all_but(&kept, &kept.disk, lost.clone());
    assert_eq!(damaged_spans(&log), lost.end - lost.start);
    assert_eq!(log.log.end(), lost.end, "their ordinals are not given away again");
}

#[test]
fn a_reader_that_waits_for_a_failing_disk_learns_of_damage_when_it_comes_back() {
    let kept = kept(Durability::Process);
    let log = open(&kept.disk, &kept.config);
    let fault = kept.disk.plan(Ops::of([Kind::Read]).always(), Effect::Fail(Errno::Io));
    paused(async {
        let mut read = pin!(log.log.read(A_AT, WIDE));
        assert!(poll!(&mut read).is_pending());
        assert_eq!(log.log.troubles(), ["span log cannot read: Input/output error (os error 5)"]);
        let (at, header) = records_of(&kept.disk.bytes(segment(1)))[1];
        assert_eq!((header.first, header.end()), (3, 5));
        kept.disk.flip_bit(segment(1), (at + 50) * 8);
        kept.disk.take_back(fault);
        let read = tokio::time::timeout(Duration::from_secs(2), read).await.unwrap();
        assert_eq!(read, Err(ReadError::Damaged { from: A_AT, to: 5 }));
    });
    assert_eq!(log.log.troubles(), ["2 spans of the span log are damaged, see quarantine/ in its folder"]);
    assert_eq!(deliver(&log, A).damaged, 1);
}

#[test]
fn damage_in_the_middle_of_a_read_ends_it_before_the_damage() {
    let kept = kept(Durability::Process);
    let (at, header) = records_of(&kept.disk.bytes(segment(2)))[1];
    kept.disk.flip_bit(segment(2), (at + 3) * 8);
    let log = open(&kept.disk, &kept.config);
    let before = wait(log.log.read(A_AT, WIDE)).unwrap();
    assert_eq!(before.last().unwrap().end(), header.first);
    let within = header.first + u64::from(header.spans) - 1;
    for from in [header.first, within] {
        let read = wait(log.log.read(from, WIDE));
        assert_eq!(read, Err(ReadError::Damaged { from, to: header.end() }));
    }
    assert_eq!(damaged_spans(&log), u64::from(header.spans), "found three times, counted once");
}
