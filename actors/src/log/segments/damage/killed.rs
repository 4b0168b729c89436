//! A process that ends at each change to a real disk, and what the next one finds.

use std::{env, io::Write as _, path::Path, process::Command};

use super::{super::DirLock, *};
use crate::log::{
    disk::{
        OsDisk,
        abort::{AbortDisk, AbortPoint, Moment},
    },
    testing::Folder,
};

const POINT: &str = "NYX_TEST_KILLED_POINT";
const FOLDER: &str = "NYX_TEST_KILLED_FOLDER";
const DURABILITY: &str = "NYX_TEST_KILLED_DURABILITY";

fn config_in(dir: &Path, durability: Durability) -> SegmentLogConfig {
    SegmentLogConfig { dir: dir.to_owned(), ..config(durability) }
}

/// What the process does that is to end: it says what it was told, each line before it goes on.
fn work(dir: &Path, durability: Durability, point: AbortPoint) {
    let disk = AbortDisk::new(OsDisk, Some(point));
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nsaid {line}").unwrap();
        out.flush().unwrap();
    };
    let log = Inline::open(Arc::new(disk), &config_in(dir, durability)).unwrap();
    for round in 0..2u64 {
        for sent in [commit(&log, &[3, 2]), commit(&log, &[4])].concat() {
            say(format!("acknowledged {} {}", sent.first, sent.end));
        }
        let end = log.log.end();
        export(&log, A, end - 2);
        log.log.dead_letter(B, letter(end - 3));
        let exported = end - 2 - ledger(&log, B).position - 1;
        let dropped = vec![(DropReason::Invalid, 1)];
        log.log.advance(B, &Advance { to: end - 2, exported, dropped, ..Advance::default() }).unwrap();
        say(format!("passed {}", end - 2));
        if round > 0 {
            checkpoint(&log, end - 1);
        }
    }
    log.close();
    say("closed".to_owned());
}

#[test]
fn what_a_process_acknowledged_before_any_change_killed_it_is_found_by_the_next() {
    if let (Ok(point), Ok(dir), Ok(durability)) = (env::var(POINT), env::var(FOLDER), env::var(DURABILITY)) {
        let durability = if durability == "power" { Durability::Power } else { Durability::Process };
        work(Path::new(&dir), durability, point.parse().unwrap());
        return;
    }
    let test = "log::segments::damage::killed::what_a_process_acknowledged_before_any_change_killed_it_is_found_by_the_next";
    for durability in BOTH {
        let mut closed = false;
        for change in 0.. {
            assert!(change < 300, "the work comes to an end");
            for moment in Moment::ALL {
                let folder = Folder::new("killed");
                let dir = folder.join("log");
                let point = AbortPoint { change, moment };
                let output = Command::new(env::current_exe().unwrap())
                    .args(["--exact", test, "--nocapture"])
                    .env(POINT, point.to_string())
                    .env(FOLDER, &dir)
                    .env(DURABILITY, durability.label())
                    .output()
                    .unwrap();
                let said = String::from_utf8(output.stdout).unwrap();
                let said: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("said ")).collect();
                closed = said.contains(&"closed");
                assert_eq!(
                    output.status.success(),
                    closed,
                    "{point}: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
                check(&dir, durability, &said, &format!("{durability:?}, {point}"));
            }
            if closed {
                break;
            }
        }
    }
}

/// Opens the folder as the next process does.
fn check(dir: &Path, durability: Durability, said: &[&str], what: &str) {
    let numbers = |line: &str| line.split(' ').map(|number| number.parse().unwrap()).collect::<Vec<u64>>();
    let told =
        |what: &str| said.iter().filter_map(|line| line.strip_prefix(what)).map(numbers).collect::<Vec<_>>();
    let acknowledged = told("acknowledged ");
    let passed = told("passed ").last().map_or(0, |numbers| numbers[0]);
    let _lock = DirLock::try_acquire(dir).unwrap().unwrap();
    let log = Inline::open(Arc::new(OsDisk), &config_in(dir, durability)).unwrap();
    assert_eq!(log.log.troubles(), [""; 0], "{what}");
    for id in [A, B] {
        let at = ledger(&log, id);
        assert!(at.balances() && at.position >= passed, "{what}: {at:?}, passed {passed}");
        let delivered = deliver(&log, id);
        assert_eq!((delivered.damaged, delivered.evicted), (0, 0), "{what}");
        for record in &delivered.records {
            let spans = u32::try_from(record.end - record.first).unwrap();
            assert_eq!(record.bytes, payload(record.first, spans), "{what}");
        }
        for told in &acknowledged {
            let found = delivered.records.iter().any(|record| [record.first, record.end] == told[..]);
            assert!(found || told[1] <= at.position, "{what}: {told:?} was acknowledged and is gone");
        }
    }
    let (letters, dropped) = (log.log.dead_letters(B), ledger(&log, B).dropped(DropReason::Invalid));
    assert!(letters.len() as u64 >= dropped, "{what}: {letters:?}, {dropped} passed");
    commit(&log, &[1]);
}
