//! Destinations that come and go, and what a crash does to one that has just come.

use super::{
    super::{OpenLog, open::unsent_on},
    *,
};
use crate::log::disk::sim::{Done, Effect, Ops};

fn with(config: &SegmentLogConfig, destinations: &[(&str, StartAt)]) -> SegmentLogConfig {
    let destination = |&(name, start): &(&str, StartAt)| LogDestination { name: name.to_owned(), start };
    SegmentLogConfig { destinations: destinations.iter().map(destination).collect(), ..config.clone() }
}

#[test]
fn a_destination_that_is_added_begins_where_it_is_to() {
    let kept = kept(Durability::Process);
    let names =
        [("a", StartAt::End), ("b", StartAt::End), ("new", StartAt::End), ("old", StartAt::Beginning)];
    let log = open(&kept.disk, &with(&kept.config, &names));
    let (new, old) = (DestinationId(2), DestinationId(3));
    let starts = [new, old].map(|id| (ledger(&log, id).start, ledger(&log, id).position));
    assert_eq!(starts, [(kept.end(), kept.end()), (0, 0)]);
    assert_eq!(deliver(&log, old).records, kept.sent);
    let sent = commit(&log, &[3]);
    assert_eq!(deliver(&log, new).records, sent);
    // It is known from then on, whatever its setting says.
    let names = [("a", StartAt::End), ("b", StartAt::End), ("new", StartAt::Beginning)];
    let log = open(&kept.disk.crash_process(), &with(&kept.config, &names));
    assert_eq!(ledger(&log, new).position, kept.end() + 3);
    assert_eq!(ledger(&log, new).start, kept.end());
}

#[test]
fn one_that_begins_at_the_beginning_begins_with_what_the_log_still_has() {
    let kept = kept(Durability::Process);
    let log = open(&kept.disk, &kept.config);
    export(&log, A, 30);
    export(&log, B, 30);
    checkpoint(&log, 30);
    let start = log.log.stats().start;
    assert!(start > 0);
    drop(log);
    let log = open(&kept.disk, &with(&kept.config, &[("c", StartAt::Beginning)]));
    assert_eq!((ledger(&log, A).start, ledger(&log, A).position), (start, start));
    let expected: Vec<_> = kept.sent.iter().filter(|sent| sent.first >= start).cloned().collect();
    assert_eq!(deliver(&log, A), Delivered { records: expected, ..Delivered::default() });
}

#[test]
fn a_destination_that_is_removed_holds_nothing_any_more() {
    let kept = kept(Durability::Process);
    let log = open(&kept.disk, &with(&kept.config, &[("a", StartAt::End)]));
    assert!(!kept.disk.exists("/log/positions/b.position"));
    deliver(&log, A);
    checkpoint(&log, kept.end());
    let stats = log.log.stats();
    assert_eq!((stats.start, stats.records, segments(&kept.disk).len()), (kept.end(), 0, 0));
    assert_eq!(log.log.troubles(), [""; 0]);
    drop(log);
    let log = open(&kept.disk, &kept.config);
    assert_eq!(ledger(&log, B), DestinationLedger::starting_at(kept.end()), "back, it is a new one");
}

#[test]
fn a_removed_destinations_position_still_keeps_its_ordinals_from_being_used_again() {
    let kept = kept(Durability::Process);
    let log = open(&kept.disk, &kept.config);
    export(&log, B, kept.end());
    drop(log);
    kept.disk.delete(segment(3));
    let log = open(&kept.disk, &with(&kept.config, &[("a", StartAt::End)]));
    assert_eq!(log.log.end(), kept.end());
    assert_eq!(commit(&log, &[1])[0].first, kept.end());
}

#[test]
fn destinations_are_known_by_name_whatever_their_order() {
    let kept = kept(Durability::Process);
    let log = open(&kept.disk, &with(&kept.config, &[("b", StartAt::End), ("a", StartAt::End)]));
    assert_eq!([A, B].map(|id| ledger(&log, id).position), [B_AT, A_AT]);
    assert_eq!(log.log.dead_letters(A).len(), 2);
    // A file that was given another name is that destination's.
    drop(log);
    kept.disk.copy("/log/positions/a.position", "/log/positions/c.position");
    let log = open(&kept.disk, &with(&kept.config, &[("c", StartAt::End)]));
    assert_eq!(ledger(&log, A).position, A_AT);
}

#[test]
fn a_name_of_32_characters_is_a_file_like_any_other() {
    let name = "a-name_of_32_characters-00000000";
    assert_eq!(name.len(), 32);
    let (disk, base) = (SimDisk::with_dir("/log"), config(Durability::Power));
    let config = with(&base, &[(name, StartAt::End)]);
    let log = open(&disk, &config);
    let sent = commit(&log, &[2, 2]);
    log.log.dead_letter(A, letter(0));
    let dropped = vec![(DropReason::Invalid, 1)];
    log.log.advance(A, &Advance { to: 1, dropped, ..Advance::default() }).unwrap();
    let log = open(&disk.crash_power_losing_all(), &config);
    assert_eq!((ledger(&log, A).position, log.log.dead_letters(A)), (1, vec![letter(0)]));
    assert_eq!(deliver(&log, A).records, sent);
}

/// Commits to a new folder, or to an old one with a new destination, and ends at each change.
fn dies_at_each_change(disk: &SimDisk, config: &SegmentLogConfig, id: DestinationId) {
    for number in 0.. {
        let disk = disk.crash_process();
        let before = disk.count(&Ops::changes());
        let fault = disk.plan(Ops::changes().nth(number), Effect::Die(Done::Half));
        let sent = try_open(&disk, config).ok().map(|log| try_commit(&log, &[2, 1]));
        let after = match config.durability {
            Durability::Power => disk.crash_power_losing_all(),
            Durability::Process | Durability::Memory => disk.crash_process(),
        };
        if let Some(Ok(sent)) = sent {
            let delivered = deliver(&open(&after, config), id);
            assert_eq!(delivered, Delivered { records: sent, ..Delivered::default() }, "change {number}");
        }
        if disk.met(fault) == 0 {
            assert!(disk.count(&Ops::changes()) > before + 5);
            return;
        }
    }
}

#[test]
fn the_first_spans_are_for_a_destination_that_no_crash_makes_new_again() {
    for durability in BOTH {
        dies_at_each_change(
            &SimDisk::with_dir("/log"),
            &with(&config(durability), &[("a", StartAt::End)]),
            A,
        );
        let kept = kept(durability);
        let names = [("a", StartAt::End), ("b", StartAt::End), ("new", StartAt::End)];
        dies_at_each_change(&kept.disk, &with(&kept.config, &names), DestinationId(2));
    }
}

#[test]
fn a_log_that_was_not_synced_and_is_from_now_on_makes_what_it_finds_durable() {
    let disk = SimDisk::with_dir("/log");
    let log = open(&disk, &config(Durability::Process));
    commit(&log, &[3, 2]);
    deliver(&log, A);
    log.log.dead_letter(B, letter(1));
    let dropped = vec![(DropReason::Invalid, 1)];
    log.log.advance(B, &Advance { to: 5, exported: 4, dropped, ..Advance::default() }).unwrap();
    drop(log);
    let disk = disk.crash_process();
    let config = config(Durability::Power);
    let log = open(&disk, &config);
    let sent = commit(&log, &[4, 1]);
    export(&log, A, 6);
    log.log.dead_letter(B, letter(5));
    log.log
        .advance(B, &Advance { to: 6, dropped: vec![(DropReason::Invalid, 1)], ..Advance::default() })
        .unwrap();
    drop(log);
    let log = open(&disk.crash_power_losing_all(), &config);
    assert_eq!([A, B].map(|id| ledger(&log, id).position), [6, 6]);
    assert_eq!(log.log.dead_letters(B), [letter(1), letter(5)]);
    assert_eq!([A, B].map(|id| deliver(&log, id).records), [sent.clone(), sent]);
}

#[test]
fn a_damaged_position_is_not_forgotten_by_a_start_that_comes_to_nothing() {
    let kept = kept(Durability::Process);
    let path = "/log/positions/a.position";
    let damaged = vec![7; kept.disk.bytes(path).len()];
    kept.disk.put(path, damaged);
    let disk: &SimDisk = &kept.disk;
    // As where a port is taken: the folder is opened, and nothing is written.
    drop(OpenLog::open_on(Arc::new(disk.clone()), &kept.config, None).unwrap());
    let left = unsent_on(disk, &kept.config.dir).unwrap().unwrap();
    assert!(left.destinations.iter().any(|(name, spans)| name == "a" && *spans == kept.end()));
    let log = open(&kept.disk, &kept.config);
    assert_eq!(ledger(&log, A).start, 0, "it begins with the first span that the log holds");
    assert_eq!(deliver(&log, A).records, kept.sent);
}
