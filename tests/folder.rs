//! The log's folder and the daemon as a process: who may have it, what is wrong with it, what it is good for
//! after the end; and the grace before the end.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

mod support;

use std::{fs, net::TcpListener, path::Path, process::Output};

use nyx_telemetry::{export::testing::ScriptedDestination, log::segments::DirLock};
use rustix::process::{Signal, geteuid};
use serde_json::Value;

use self::support::{
    arrived,
    folder::Folder,
    http::{Samples, get_blocking},
    nobody,
    process::{Daemon, command},
};

/// Variables of a daemon with its log in this folder, with which its ends are quick.
fn kept_in<'a>(folder: &'a Folder, endpoint: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("NYX__LOG__DURABILITY", "process"),
        ("NYX__LOG__DIR", folder.text()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("NYX__EXPORT__DEFAULT__RETRY__INITIAL", "5ms"),
        ("NYX__EXPORT__DEFAULT__RETRY__MAX", "50ms"),
        ("NYX__EXPORT__DEFAULT__BATCH__MAX_DELAY", "1ms"),
        ("NYX__SHUTDOWN__TIMEOUT", "2s"),
    ]
}

/// Variables of a daemon whose log is in `dir` and cannot be used, and whose port is taken: it is not to come so far.
#[track_caller]
fn refused(variables: &[(&str, &str)], status: i32, why: &str) {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut all = vec![("NYX__LOG__DURABILITY", "process"), ("NYX__INGEST__GRPC__LISTEN", &address)];
    all.extend(variables);
    let Output { status: ended, stdout, stderr } = command(&["run"], &all).output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!((ended.code(), stdout.as_slice()), (Some(status), &b""[..]), "{stderr}");
    assert_eq!(stderr.lines().last().unwrap(), format!("nyx-daemon: {why}"));
}

#[test]
fn a_folder_that_another_process_keeps_ends_the_start_with_75_and_names_it() {
    let folder = Folder::new("kept");
    let _lock = DirLock::try_acquire(folder.path()).unwrap().unwrap();
    let dir = folder.text();
    for (timeout, waited) in [("0s", "0s"), ("120ms", "120ms")] {
        let why = format!(
            "cannot use {dir} (log.dir): it is locked by process {}; waited {waited} (log.lock_timeout)",
            std::process::id()
        );
        refused(&[("NYX__LOG__DIR", dir), ("NYX__LOG__LOCK_TIMEOUT", timeout)], 75, &why);
    }
}

#[test]
fn a_signal_ends_the_wait_for_the_folder_with_0() {
    let folder = Folder::new("waits");
    let _lock = DirLock::try_acquire(folder.path()).unwrap().unwrap();
    let mut daemon = Daemon::begin(&kept_in(&folder, "http://127.0.0.1:1"));
    let waits = format!("waiting for the lock of {}, held by process {}", folder.text(), std::process::id());
    daemon.line("that it waits", |line| line["message"] == waits.as_str());
    daemon.signal(Signal::TERM);
    let (status, lines) = daemon.end();
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    assert_eq!(lines.len(), 2, "it waits, and says so once: {lines:#?}");
    assert_eq!(lines[1]["message"], format!("stopped: the lock of {} was not free", folder.text()));
}

#[test]
fn a_new_process_begins_when_the_one_before_it_ends() {
    let sink = ScriptedDestination::start().unwrap();
    let folder = Folder::new("rolling");
    let endpoint = sink.endpoint();
    let old = Daemon::start(&kept_in(&folder, &endpoint));
    let mut new = Daemon::begin(&kept_in(&folder, &endpoint));
    new.line("that it waits", |line| {
        line["message"].as_str().is_some_and(|message| message.starts_with("waiting for the lock of "))
    });
    old.send(0..100);
    old.signal(Signal::TERM);
    new.ready();
    assert_eq!(old.end().0.code(), Some(0));
    new.send(100..200);
    new.signal(Signal::TERM);
    assert_eq!(new.end().0.code(), Some(0));
    assert_eq!(arrived(&sink), (0..200).map(|number| (number, 1)).collect());
}

#[test]
fn a_folder_that_cannot_be_made_or_written_ends_the_start_with_69_and_says_what_sets_it() {
    let folder = Folder::new("unusable");
    let hint = "log.dir, or $STATE_DIRECTORY where it is empty, sets the folder";
    fs::create_dir(folder.path()).unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    for (variable, dir, what) in [
        ("NYX__LOG__DIR", file.to_owned(), "File exists (os error 17)"),
        ("NYX__LOG__DIR", format!("{file}/log"), "Not a directory (os error 20)"),
        ("STATE_DIRECTORY", format!("{file}/state"), "Not a directory (os error 20)"),
        ("NYX__LOG__DIR", "/proc/nyx".to_owned(), "No such file or directory (os error 2)"),
    ] {
        let why = format!("cannot use {dir} (log.dir): cannot make the folder {dir}: {what}; {hint}");
        refused(&[(variable, &dir)], 69, &why);
    }
    // For root no folder is read-only by its mode.
    if !geteuid().is_root() {
        let shut = folder.path().join("shut");
        fs::create_dir(&shut).unwrap();
        read_only(&shut, true);
        let dir = shut.to_str().unwrap();
        let why = format!(
            "cannot use {dir} (log.dir): cannot open {dir}/lock: Permission denied (os error 13); {hint}"
        );
        refused(&[("NYX__LOG__DIR", dir)], 69, &why);
        read_only(&shut, false);
    }
}

fn read_only(dir: &Path, read_only: bool) {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = if read_only { 0o500 } else { 0o700 };
    fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
}

/// The beginning of a segment file of another version, whose checksums are right.
fn segment_of_version(version: u32) -> Vec<u8> {
    let mut header = [0; 64];
    header[..8].copy_from_slice(b"nyx-seg\0");
    header[8..12].copy_from_slice(&version.to_le_bytes());
    let sum = crc32fast::hash(&header[..60]);
    header[60..].copy_from_slice(&sum.to_le_bytes());
    header.repeat(2)
}

#[test]
fn a_folder_of_another_version_ends_the_start_with_69_and_names_both() {
    let folder = Folder::new("version");
    let dir = folder.text();
    let file = folder.path().join("segments/000000000001.segment");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, segment_of_version(2)).unwrap();
    let why = format!(
        "cannot use {dir} (log.dir): {} has format version 2: this program reads version 1; use the version that \
         wrote it, or move the folder away",
        file.display()
    );
    for durability in ["process", "memory"] {
        refused(&[("NYX__LOG__DIR", dir), ("NYX__LOG__DURABILITY", durability)], 69, &why);
    }
    assert_eq!(fs::read(&file).unwrap(), segment_of_version(2), "it is left as it is");
}

#[test]
fn the_folder_is_its_owners_alone() {
    let folder = Folder::new("modes");
    let daemon = Daemon::start(&kept_in(&folder, &nobody().endpoint()));
    daemon.send(0..50);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().0.code(), Some(0));
    let modes = folder.modes();
    assert!(modes.iter().any(|(path, ..)| path.extension().is_some_and(|x| x == "segment")), "{modes:?}");
    for (path, is_folder, mode) in modes {
        assert_eq!(mode, if is_folder { 0o700 } else { 0o600 }, "{}", path.display());
    }
}

fn ledger(stats: &Value, field: &str) -> u64 {
    stats["destinations"]["default"][field].as_u64().unwrap_or_else(|| panic!("no {field}: {stats}"))
}

/// Spans that the metrics page counts, and since when.
fn counted(daemon: &Daemon) -> (f64, f64) {
    let open_metrics = "application/openmetrics-text;version=1.0.0";
    let page = get_blocking(daemon.pages, "/metrics", Some(open_metrics)).body;
    let samples = Samples::parse(&page);
    let created = samples.select("nyx_span_count_created", &[]).fold(f64::INFINITY, f64::min);
    (samples.sum("nyx_span_count_total", &[]), created)
}

#[test]
fn what_was_queued_at_the_end_is_delivered_after_a_restart_and_all_accounts_go_on() {
    let mut sink = nobody();
    let folder = Folder::new("restart");
    let endpoint = sink.endpoint();
    let first = Daemon::start(&kept_in(&folder, &endpoint));
    first.send(0..500);
    first.signal(Signal::TERM);
    let (status, lines) = first.end();
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    let last = lines.last().unwrap();
    let kept = format!("kept in {}", folder.text());
    assert_eq!((&last["message"], &last["level"]), (&"stopped".into(), &"INFO".into()));
    assert_eq!((&last["spans_not_delivered"], &last["fate"]), (&500.into(), &kept.into()));

    // A log in memory would forget them.
    let dir = folder.text();
    let why = format!(
        "cannot use {dir} (log.dir): log.durability is \"memory\", and it holds 500 spans that were not delivered \
         (default 500): run once with \"process\" until they are, or move the folder away"
    );
    refused(&[("NYX__LOG__DIR", dir), ("NYX__LOG__DURABILITY", "memory")], 78, &why);

    let second = Daemon::start(&kept_in(&folder, &endpoint));
    // Somebody else's folder is nobody's worry.
    let beside = [("NYX__LOG__DIR", dir), ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
    drop(Daemon::start(&beside));
    assert_eq!((ledger(&second.stats(), "end"), ledger(&second.stats(), "queued")), (500, 500));
    second.send(500..600);
    sink.revive().unwrap();
    second.page("/stats", |stats| ledger(&serde_json::from_str(stats).unwrap(), "exported") == 600);
    let page = get_blocking(second.pages, "/metrics", None).body;
    assert!(Samples::parse(&page).sum("nyx_log_disk_reads_total", &[]) > 0.0);
    second.signal(Signal::TERM);
    let (status, lines) = second.end();
    assert_eq!(status.code(), Some(0));
    let last = lines.last().unwrap();
    assert_eq!((&last["message"], &last["spans_not_delivered"]), (&"stopped".into(), &Value::Null));
    assert_eq!(arrived(&sink), (0..600).map(|number| (number, 1)).collect());

    let third = Daemon::start(&kept_in(&folder, &endpoint));
    let stats = third.stats();
    assert_eq!((ledger(&stats, "exported"), ledger(&stats, "queued")), (600, 0));
    // They go on: whoever believed that they began with this process would see 600 spans delivered at once.
    let page = get_blocking(third.pages, "/metrics", Some("application/openmetrics-text;version=1.0.0")).body;
    assert!(page.contains("nyx_destination_exported_spans_total{destination=\"default\"} 600\n"), "{page}");
    assert!(
        page.contains("nyx_spans_accepted_created ")
            && !page.contains("nyx_destination_exported_spans_created")
    );
    third.signal(Signal::TERM);
    assert_eq!(third.end().0.code(), Some(0));
    let in_memory = [("NYX__LOG__DIR", dir), ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
    drop(Daemon::start(&in_memory));
}

#[test]
fn the_span_metrics_go_on_after_a_restart_with_their_age() {
    let sink = ScriptedDestination::start().unwrap();
    let folder = Folder::new("metrics");
    let endpoint = sink.endpoint();
    let first = Daemon::start(&kept_in(&folder, &endpoint));
    first.send(0..500);
    first.page("/metrics", |page| Samples::parse(page).sum("nyx_span_count_total", &[]) == 500.0);
    let since = counted(&first).1;
    first.signal(Signal::TERM);
    assert_eq!(first.end().0.code(), Some(0));

    let second = Daemon::start(&kept_in(&folder, &endpoint));
    assert_eq!(counted(&second), (500.0, since));
    second.send(500..600);
    second.page("/metrics", |page| Samples::parse(page).sum("nyx_span_count_total", &[]) == 600.0);
    assert_eq!(counted(&second).1, since);
}

#[test]
fn in_the_grace_it_is_not_ready_and_takes_spans_and_a_second_signal_ends_it() {
    let sink = ScriptedDestination::start().unwrap();
    let daemon =
        Daemon::start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &sink.endpoint()), ("NYX__SHUTDOWN__GRACE", "1h")]);
    assert_eq!(get_blocking(daemon.pages, "/readyz", None).status, 200);
    daemon.signal(Signal::TERM);
    let takes = "stopping: accepting for another 3";
    daemon.page("/readyz", |page| page.starts_with(takes) && page.ends_with("s\n"));
    assert_eq!(get_blocking(daemon.pages, "/readyz", None).status, 503);
    let health = get_blocking(daemon.pages, "/health", None);
    assert_eq!((health.status, &health.json()["ready"]), (503, &false.into()));
    assert!(health.json()["status"].as_str().unwrap().starts_with(takes), "{}", health.body);
    assert_eq!(get_blocking(daemon.pages, "/livez", None).status, 200);
    assert_eq!(daemon.stats()["phase"], "draining");
    daemon.send(0..100);
    daemon.signal(Signal::TERM);
    let (status, lines) = daemon.end();
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    assert!(lines.iter().any(|line| line["message"] == "no grace any more"), "{lines:#?}");
    assert_eq!(lines.last().unwrap()["message"], "stopped");
    assert_eq!(arrived(&sink).len(), 100);
}

#[test]
fn the_grace_ends_by_itself() {
    let sink = ScriptedDestination::start().unwrap();
    let daemon =
        Daemon::start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &sink.endpoint()), ("NYX__SHUTDOWN__GRACE", "50ms")]);
    daemon.signal(Signal::INT);
    let (status, lines) = daemon.end();
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    assert_eq!(lines.last().unwrap()["message"], "stopped");
}
