//! Every file cut at every place, and with a flipped bit in every byte.

use super::*;

/// Opens a folder that was damaged, and delivers all of it to both destinations; then again, after a crash. It finds
/// the same and delivers nothing a second time.
fn walk_twice(disk: &SimDisk, config: &SegmentLogConfig, what: &str) -> (Inline, [Delivered; 2]) {
    let log = open(disk, config);
    let delivered = [A, B].map(|id| deliver(&log, id));
    let ledgers = [A, B].map(|id| ledger(&log, id));
    let aside = quarantined(&log);
    let again = open(&disk.crash_process(), config);
    assert_eq!(ledgers, [A, B].map(|id| ledger(&again, id)), "{what}");
    assert_eq!([A, B].map(|id| deliver(&again, id)), [Delivered::default(), Delivered::default()], "{what}");
    assert_eq!(quarantined(&again), aside, "{what}");
    (log, delivered)
}

#[test]
fn a_flipped_bit_in_any_byte_of_a_segment_costs_its_record_at_most() {
    for durability in BOTH {
        let kept = kept(durability);
        for (index, path) in segments(&kept.disk).iter().enumerate() {
            let bytes = kept.disk.bytes(path);
            let records = records_of(&bytes);
            for at in 0..bytes.len() {
                let what = format!("{durability:?}, byte {at} of {}", path.display());
                let disk = kept.disk.crash_process();
                disk.flip_bit(path, at * 8 + at % 8);
                // Padding says nothing.
                let hit = records
                    .iter()
                    .position(|&(from, header)| (from..from + 48 + header.length as usize).contains(&at));
                let hit =
                    hit.map(|hit| (&records[hit].1, at < records[hit].0 + 48, hit + 1 == records.len()));
                let torn = index == 2
                    && hit
                        .is_some_and(|(_, header, last)| last && (header || durability == Durability::Power));
                let (first, end) = hit.map_or((0, 0), |(header, ..)| (header.first, header.end()));
                let (log, delivered) = walk_twice(&disk, &kept.config, &what);
                for (position, delivered) in [A_AT, B_AT].into_iter().zip(delivered) {
                    let mut expected = kept.behind(position);
                    expected.retain(|sent| sent.first != first || hit.is_none());
                    let damaged = if torn { 0 } else { end.saturating_sub(first.max(position)) };
                    assert_eq!(delivered, Delivered { records: expected, damaged, evicted: 0 }, "{what}");
                }
                let stats = log.log.stats().disk.unwrap();
                assert_eq!(stats.damaged_spans, if torn { 0 } else { end - first }, "{what}");
                assert_eq!(stats.torn_bytes > 0, torn, "{what}");
                assert_eq!(stats.quarantined_bytes > 0, hit.is_some(), "{what}");
                assert_eq!(
                    log.log.troubles().is_empty(),
                    torn || hit.is_none(),
                    "{what}: {:?}",
                    log.log.troubles()
                );
            }
        }
    }
}

#[test]
fn a_segment_cut_anywhere_costs_what_was_behind_the_cut() {
    for durability in BOTH {
        let kept = kept(durability);
        let paths = segments(&kept.disk);
        for (index, path) in paths.iter().enumerate() {
            let bytes = kept.disk.bytes(path);
            let records = records_of(&bytes);
            let next = paths.get(index + 1).map(|next| records_of(&kept.disk.bytes(next))[0].1.first);
            for length in 0..bytes.len() {
                let what = format!("{durability:?}, {} cut at {length}", path.display());
                let disk = kept.disk.crash_process();
                disk.edit(path, |bytes| bytes.truncate(length));
                // In the last segment a group counts as a whole: nobody can have been told of a part.
                let behind = |&&(at, header): &&(usize, RecordHeader)| {
                    let end =
                        if next.is_none() { header.group_end(at as u64) } else { at as u64 + header.size() };
                    end > length as u64
                };
                let lost = records.iter().find(behind).map(|(_, header)| header.first).unwrap();
                let (log, delivered) = walk_twice(&disk, &kept.config, &what);
                for (position, delivered) in [A_AT, B_AT].into_iter().zip(delivered) {
                    let mut expected = kept.behind(position);
                    expected.retain(|sent| sent.first < lost || next.is_some_and(|next| sent.first >= next));
                    let damaged = next.map_or(0, |next| next.saturating_sub(lost.max(position)));
                    assert_eq!(delivered, Delivered { records: expected, damaged, evicted: 0 }, "{what}");
                }
                let troubles = log.log.troubles();
                assert_eq!(troubles.is_empty(), next.is_none(), "{what}: {troubles:?}");
            }
        }
    }
}

#[test]
fn a_damaged_position_repeats_a_part_and_loses_nothing() {
    let kept = kept(Durability::Process);
    let path = PathBuf::from("/log/positions/a.position");
    let length = kept.disk.bytes(&path).len();
    let cuts = (0..length).map(|at| (format!("cut at {at}"), None, at));
    let flips = (0..length).map(|at| (format!("byte {at}"), Some(at * 8 + at % 8), length));
    for (what, bit, length) in cuts.chain(flips) {
        let disk = kept.disk.crash_process();
        disk.edit(&path, |bytes| bytes.truncate(length));
        if let Some(bit) = bit {
            disk.flip_bit(&path, bit);
        }
        let at = ledger(&open(&disk.crash_process(), &kept.config), A);
        assert!(at.position <= A_AT && at.balances(), "{what}: {at:?}");
        let (log, delivered) = walk_twice(&disk, &kept.config, &what);
        for (position, delivered) in [at.position, B_AT].into_iter().zip(delivered) {
            let expected = Delivered { records: kept.behind(position), ..Delivered::default() };
            assert_eq!(delivered, expected, "{what}");
        }
        assert_eq!(damaged_spans(&log), 0, "{what}");
    }
}

#[test]
fn a_position_file_without_a_whole_slot_is_set_aside_and_said() {
    let kept = kept(Durability::Process);
    kept.disk.put("/log/positions/a.position", [b'x'; 700]);
    let log = open(&kept.disk, &kept.config);
    let said = "the position of a is damaged: it begins with the first span that the log holds";
    assert_eq!(log.log.troubles(), [said]);
    assert_eq!((quarantined(&log), ledger(&log, A).position), (700, 0));
    assert_eq!(kept.disk.bytes("/log/quarantine/a.position.0"), [b'x'; 700]);
}

#[test]
fn damaged_dead_letters_cost_no_span_and_no_other_letter() {
    let kept = kept(Durability::Process);
    let path = "/log/dead_letters/b.letters";
    let length = kept.disk.bytes(path).len();
    let cuts = (0..length).map(|at| (format!("letters cut at {at}"), None, at));
    let flips = (0..length).map(|at| (format!("byte {at} of the letters"), Some(at * 8 + at % 8), length));
    for (what, bit, cut) in cuts.chain(flips) {
        let disk = kept.disk.crash_process();
        disk.edit(path, |bytes| bytes.truncate(cut));
        if let Some(bit) = bit {
            disk.flip_bit(path, bit);
        }
        let (log, delivered) = walk_twice(&disk, &kept.config, &what);
        for (position, delivered) in [A_AT, B_AT].into_iter().zip(delivered) {
            let expected = Delivered { records: kept.behind(position), ..Delivered::default() };
            assert_eq!(delivered, expected, "{what}");
        }
        let letters = log.log.dead_letters(B);
        assert!(letters.iter().all(|found| *found == letter(found.ordinal)), "{what}: {letters:?}");
        match bit {
            Some(_) => assert!(!letters.is_empty(), "{what}: one bit cost both"),
            None => assert!(letters.len() < 2, "{what}"),
        }
        // The count is the ledger's, whatever became of the letters.
        assert_eq!(ledger(&log, B).dropped(DropReason::Invalid), 2, "{what}");
    }
}

#[test]
fn a_damaged_checkpoint_costs_the_metrics_continuity_and_no_span() {
    use crate::log::Restored;
    let kept = kept(Durability::Process);
    let path = "/log/red.checkpoint";
    let length = kept.disk.bytes(path).len();
    let end = kept.end();
    for at in 0..length {
        for flip in [false, true] {
            let what = format!("checkpoint at {at}, flipped: {flip}");
            let disk = kept.disk.crash_process();
            match flip {
                true => disk.flip_bit(path, at * 8 + at % 8),
                false => disk.edit(path, |bytes| bytes.truncate(at)),
            }
            let (log, delivered) = walk_twice(&disk, &kept.config, &what);
            let why = "the checkpoint is damaged".to_owned();
            assert_eq!(log.log.restored(), Restored::Broken { position: end, why }, "{what}");
            assert_eq!(delivered[0].records, kept.behind(A_AT), "{what}");
            assert_eq!(quarantined(&log), if flip { length } else { at } as u64, "{what}");
        }
    }
}

#[test]
fn a_damaged_marker_of_an_orderly_end_counts_as_a_crash() {
    use crate::log::Restored;
    let kept = kept(Durability::Process);
    for at in 0..32 {
        for flip in [false, true] {
            let disk = kept.disk.crash_process();
            match flip {
                true => disk.flip_bit("/log/clean", at * 8 + at % 8),
                false => disk.edit("/log/clean", |bytes| bytes.truncate(at)),
            }
            let log = open(&disk, &kept.config);
            assert!(!disk.exists("/log/clean"));
            assert!(matches!(log.log.restored(), Restored::Checkpoint { position: 5, .. }), "the same boot");
            assert_eq!(deliver(&log, A).records, kept.behind(A_AT));
        }
    }
}

#[test]
fn damage_before_a_torn_tail_is_counted_and_not_taken_for_a_part_of_it() {
    let kept = kept(Durability::Process);
    let path = segment(3);
    let records = records_of(&kept.disk.bytes(&path));
    let (last, damaged) = (records[records.len() - 1], records[records.len() - 3]);
    let (at, header) = damaged;
    for bit in [(at + 9) * 8, (at + 50) * 8] {
        let disk = kept.disk.crash_process();
        disk.flip_bit(&path, bit);
        disk.edit(&path, |bytes| bytes.truncate(last.0 + 10));
        let (log, [a, _]) = walk_twice(&disk, &kept.config, "damage before a torn tail");
        assert_eq!(damaged_spans(&log), u64::from(header.spans));
        assert_eq!(a.damaged, u64::from(header.spans));
        assert_eq!(log.log.end(), header.end(), "the torn group alone is cut");
    }
}
