//! The span metrics over the end of a process: a whole tree on a log of segment files, and the next one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nyx_telemetry::{
    export::testing::ScriptedDestination,
    log::segments::{DirLock, LogDestination, OpenLog, SegmentLogConfig, StartAt},
    measure::exposition::Format,
    tree::LogForm,
};

use self::support::{
    Nyx,
    load::{client, deliver},
    quick, system, until,
};

/// A folder of a test's own, empty at first.
fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("red-{name}"));
    let _absent = fs::remove_dir_all(&path);
    path
}

/// What would be there after `kill -9` at this moment.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

async fn start(dir: &Path, sink: &ScriptedDestination, checkpoint_interval: Duration) -> Nyx {
    let mut lock = None;
    until("the process before is gone", || {
        lock = DirLock::try_acquire(dir).unwrap();
        lock.is_some()
    })
    .await;
    let destinations = vec![LogDestination { name: "default".to_owned(), start: StartAt::Beginning }];
    let config = SegmentLogConfig { destinations, min_free_bytes: 0, ..SegmentLogConfig::new(dir) };
    let log = OpenLog::open(&config, lock.unwrap()).unwrap();
    Nyx::start(vec![quick("default", &sink.endpoint())], |config| {
        config.log = LogForm::Segments(log);
        config.checkpoint_interval = checkpoint_interval;
    })
    .await
}

/// The samples of the span metrics, with their beginnings.
fn page(nyx: &Nyx) -> Vec<String> {
    let page = Format::OpenMetrics.encode(&nyx.tree.observed().families());
    // Exemplars do not outlive their process.
    let plain = |line: &str| line.split(" # {trace_id=").next().unwrap_or(line).to_owned();
    page.lines().filter(|line| line.starts_with("nyx_span_")).map(plain).collect()
}

async fn restored(nyx: &Nyx) {
    until("everything is counted again", || nyx.tree.observed().red().unwrap().troubles().is_empty()).await;
    nyx.settled().await;
}

const NEVER: Duration = Duration::from_secs(3_600);

#[test]
fn span_metrics_go_on_after_an_orderly_end() {
    system(async {
        let (dir, sink) = (folder("orderly"), ScriptedDestination::start().unwrap());
        let nyx = start(&dir, &sink, NEVER).await;
        assert_eq!(deliver(&mut client(nyx.door), 0..50).await, 0);
        nyx.settled().await;
        let before = page(&nyx);
        assert!(!before.is_empty());
        nyx.stop().await;

        let nyx = start(&dir, &sink, NEVER).await;
        restored(&nyx).await;
        assert_eq!(page(&nyx), before, "beginnings included");
        assert_eq!(
            nyx.tree.observed().red().unwrap().snapshot().totals.caught_up,
            0,
            "the last checkpoint had it all"
        );
        assert_eq!(deliver(&mut client(nyx.door), 50..80).await, 0);
        nyx.settled().await;
        assert_eq!(nyx.red(), (80, 80));
        nyx.stop().await;
    });
}

#[test]
fn span_metrics_are_caught_up_after_a_sudden_end() {
    system(async {
        let (dir, sink) = (folder("sudden"), ScriptedDestination::start().unwrap());
        let nyx = start(&dir, &sink, NEVER).await;
        assert_eq!(deliver(&mut client(nyx.door), 0..50).await, 0);
        nyx.settled().await;
        let (before, killed) = (page(&nyx), folder("killed"));
        copy(&dir, &killed);
        nyx.stop().await;

        let nyx = start(&killed, &sink, Duration::from_millis(10)).await;
        restored(&nyx).await;
        assert_eq!(page(&nyx), before, "beginnings included");
        let snapshot = nyx.tree.observed().red().unwrap().snapshot();
        assert_eq!((snapshot.totals.caught_up, snapshot.position), (50, 50));
        until("the next checkpoint", || nyx.tree.observed().red().unwrap().snapshot().checkpoints > 1).await;
        assert_eq!(nyx.health(), "ok");
        nyx.stop().await;
    });
}

#[test]
fn span_metrics_begin_at_0_at_the_logs_end_where_the_checkpoint_is_damaged() {
    system(async {
        let (dir, sink) = (folder("damaged"), ScriptedDestination::start().unwrap());
        let nyx = start(&dir, &sink, NEVER).await;
        assert_eq!(deliver(&mut client(nyx.door), 0..50).await, 0);
        nyx.settled().await;
        nyx.stop().await;
        let checkpoint = dir.join("red.checkpoint");
        let mut bytes = fs::read(&checkpoint).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&checkpoint, bytes).unwrap();

        let nyx = start(&dir, &sink, NEVER).await;
        restored(&nyx).await;
        assert_eq!((nyx.red(), page(&nyx)), ((0, 50), Vec::new()));
        assert_eq!(deliver(&mut client(nyx.door), 50..60).await, 0);
        nyx.settled().await;
        assert_eq!(nyx.red(), (10, 60));
        nyx.stop().await;
    });
}
