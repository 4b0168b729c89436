//! A destination that is down for a long time: what waits for it is on disk, not in memory.

use std::{collections::BTreeMap, fs, time::Duration};

use tokio::time::Instant;

use super::{
    account::Account,
    alone,
    daemon::{Daemon, Place, Settings, until_no_progress},
    rounds::settled,
    senders::{Load, Senders},
    sink::{Mode, Sink},
    variable,
};

const RESIDENT_BYTES_MAX: u64 = 100_000_000;
const SENDERS: u64 = 2;
const SPAN_BYTES: u64 = 2_000;

/// The most memory that a process ever had.
fn most_resident_bytes(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kibibytes = most.trim().strip_suffix(" kB").unwrap();
    kibibytes.parse::<u64>().unwrap() * 1024
}

fn backlog(name: &str, bytes: u64) {
    let place = Place::roomy(name);
    // Sockets have short names.
    let sockets = Place::new(name);
    let sink = Sink::start(sockets.at("sink.sock"));
    sink.set(Mode::Down);
    let settings = Settings {
        log_dir: place.at("log"),
        concurrency: 4,
        max_spans: 1_024,
        ..Settings::new(&sockets, "process", &[("default", &sink)])
    };
    let spans = bytes.div_ceil(SPAN_BYTES * SENDERS);
    let mut daemon = Daemon::spawn(&place, &settings, &[]);
    daemon.ready();
    let came = Instant::now();
    let senders = Senders::start(&Load {
        door: settings.door.clone(),
        senders: SENDERS,
        batch: 128..129,
        payload_bytes: SPAN_BYTES as usize..SPAN_BYTES as usize + 1,
        pause: Duration::ZERO,
        spans,
        seed: 4,
    });
    until_no_progress("everything is in the log", || {
        let acknowledged = senders.acknowledged();
        (acknowledged, acknowledged == SENDERS * spans)
    });
    let came = came.elapsed();
    let told = senders.finish();
    let queued = daemon.see();
    assert_eq!(queued.destination("default", "queued"), SENDERS * spans);
    let while_it_came = most_resident_bytes(&daemon);

    // The next one finds it all, and reads it as the destination takes it.
    daemon.kill();
    let started = Instant::now();
    let mut daemon = Daemon::spawn(&place, &settings, &[]);
    daemon.ready();
    let started = started.elapsed();
    assert_eq!(daemon.see().destination("default", "queued"), SENDERS * spans);
    let at_the_start = most_resident_bytes(&daemon);
    let went = Instant::now();
    sink.set(Mode::Up);
    let seen = settled(&daemon, &["default"]);
    let went = went.elapsed();
    let while_it_went = most_resident_bytes(&daemon);

    let arrived = sink.arrived();
    let late_by = arrived.late_by;
    let sinks = BTreeMap::from([("default".to_owned(), arrived)]);
    let account = Account { told, sinks, seen, kills: 1, repeated_by_a_crash: 0 };
    assert_eq!(account.wrong(), Vec::<String>::new());
    // In order, but for the requests that are in flight at the same time.
    assert!(late_by <= settings.repeated_by_a_crash(), "late by {late_by} spans");
    println!(
        "{} MiB of backlog, {} spans: came in {came:.1?}, {while_it_came} bytes resident at most; the next start took \
         {started:.1?}, {at_the_start} resident; went in {went:.1?}, {:.0} MB/s, {while_it_went} resident; a span came \
         at most {late_by} behind a later one",
        bytes >> 20,
        SENDERS * spans,
        bytes as f64 / 1e6 / went.as_secs_f64(),
    );
    for resident in [while_it_came, at_the_start, while_it_went] {
        assert!(resident <= RESIDENT_BYTES_MAX, "{resident} bytes resident");
    }
    daemon.terminate();
    assert_eq!(daemon.end().0.code(), Some(0));
}

#[test]
fn a_backlog_is_delivered_in_order_and_takes_no_memory() {
    let _alone = alone();
    backlog("backlog", 96 << 20);
}

#[test]
#[ignore = "by hand, with a release build: it takes 2 GiB of room"]
fn a_large_backlog_is_delivered_in_order_and_takes_no_memory() {
    let _alone = alone();
    backlog("large-backlog", variable("NYX_BACKLOG_BYTES").unwrap_or(2 << 30));
}
