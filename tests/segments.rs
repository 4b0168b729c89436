//! Crashes of whatever runs while the log in its folder is in whatever state: what was acknowledged is kept.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

mod support;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use nyx_telemetry::{
    export::{DestinationConfig, testing::ScriptedDestination},
    log::{
        Durability,
        segments::{DirLock, LogDestination, OpenLog, SegmentLogConfig, StartAt},
    },
    supervise::Intensity,
    tree::LogForm,
};

use self::support::{
    CHILDREN, CHILDREN_ON_DISK, Nyx, arrived, assert_messages_are_conserved,
    load::{Load, client, deliver},
    nobody, quick, system, until,
};

/// A folder of a test's own, removed with this value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("segments-{name}-{}", std::process::id()));
        let _of_an_earlier_process = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn config(&self) -> SegmentLogConfig {
        SegmentLogConfig {
            durability: Durability::Process,
            min_free_bytes: 0,
            destinations: vec![LogDestination { name: "default".to_owned(), start: StartAt::End }],
            ..SegmentLogConfig::new(&self.0)
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _left_behind = std::fs::remove_dir_all(&self.0);
    }
}

async fn start(log: &SegmentLogConfig, destination: DestinationConfig) -> Nyx {
    let lock = DirLock::try_acquire(&log.dir).unwrap().unwrap();
    let open = OpenLog::open(log, lock).unwrap();
    Nyx::start(vec![destination], |config| {
        config.log = LogForm::Segments(open);
        config.intensity = Intensity { max_restarts: 100, window: Duration::from_secs(600) };
    })
    .await
}

/// Crashes a child until it has come back; some need a little to do first.
async fn crash_each(nyx: &Nyx) {
    for name in CHILDREN_ON_DISK.into_iter().chain(CHILDREN) {
        // With nobody connected there is no connection to crash.
        if name != "connections" || nyx.stats().connections["grpc"].open > 0 {
            nyx.crash(name).await;
        }
    }
}

fn queued(nyx: &Nyx) -> u64 {
    nyx.destination("default").ledger.queued()
}

/// Everything that was acknowledged arrived, and every account is exact.
async fn complete(nyx: Nyx, sink: &ScriptedDestination, acknowledged: Vec<u64>) {
    nyx.settled().await;
    let stats = nyx.stats();
    assert!(stats.balanced, "{stats:?}");
    let ledger = &stats.destinations["default"].ledger;
    assert_eq!((ledger.queued(), ledger.dropped_total(), ledger.sampled_out), (0, 0, 0), "{ledger:?}");
    assert_eq!((ledger.start, ledger.end), (0, stats.log.end), "{ledger:?}");
    let arrived: BTreeMap<u64, u64> = arrived(sink);
    let missing: Vec<u64> = acknowledged.into_iter().filter(|number| !arrived.contains_key(number)).collect();
    assert_eq!(missing, [0; 0]);
    assert_eq!(nyx.red(), (stats.log.end, stats.log.end), "each span is counted once");
    assert_eq!(nyx.tree.observed().log().troubles(), [""; 0]);
    let observed = nyx.tree.observed().clone();
    nyx.stop().await;
    assert_messages_are_conserved(&observed.records());
}

#[test]
fn a_crash_of_any_actor_or_thread_while_the_log_is_empty_leaves_it_working() {
    system(async {
        let (folder, sink) = (Folder::new("empty"), ScriptedDestination::start().unwrap());
        let nyx = start(&folder.config(), quick("default", &sink.endpoint())).await;
        crash_each(&nyx).await;
        deliver(&mut client(nyx.door), 0..50).await;
        complete(nyx, &sink, (0..50).collect()).await;
    });
}

#[test]
fn a_crash_of_any_actor_or_thread_under_load_loses_nothing_that_was_acknowledged() {
    system(async {
        let (folder, sink) = (Folder::new("load"), ScriptedDestination::start().unwrap());
        let config = SegmentLogConfig { segment_bytes: 64 << 10, ..folder.config() };
        let nyx = start(&config, quick("default", &sink.endpoint())).await;
        let load = Load::start(nyx.door, nyx.tree.in_process().clone(), 4, 2);
        for name in CHILDREN_ON_DISK.into_iter().chain(CHILDREN) {
            let before = nyx.destination("default").ledger;
            until("spans go in and out", || {
                let now = nyx.destination("default").ledger;
                now.end >= before.end + 100 && now.exported >= before.exported + 100
            })
            .await;
            nyx.crash(name).await;
        }
        let (remote, local) = load.stop().await;
        nyx.tree.in_process().flush().await.unwrap();
        complete(nyx, &sink, [remote.acknowledged, local.acknowledged].concat()).await;
    });
}

#[test]
fn a_crash_of_any_actor_or_thread_with_a_backlog_on_disk_loses_nothing() {
    system(async {
        let folder = Folder::new("backlog");
        let mut sink = nobody();
        let destination = quick("default", &sink.endpoint());
        let config = SegmentLogConfig { segment_bytes: 64 << 10, ..folder.config() };
        // What an earlier process left is in no memory: it is read from the files.
        let nyx = start(&config, destination.clone()).await;
        let mut sender = client(nyx.door);
        for first in (0..4_000).step_by(100) {
            deliver(&mut sender, first..first + 100).await;
        }
        assert!(queued(&nyx) >= 4_000);
        crash_each(&nyx).await;
        nyx.tree.shutdown(Duration::from_secs(5)).await;
        drop(nyx);

        let nyx = start(&config, destination).await;
        assert!(queued(&nyx) >= 4_000);
        until("it reads the files", || nyx.stats().log.disk.unwrap().disk_reads > 0).await;
        crash_each(&nyx).await;
        // A reader with somebody's read in hand: an exporter that begins anew reads at once.
        let lost = nyx.record("log.reader").inbox.lost;
        for _ in 0..5 {
            let restarts = nyx.record("log.reader").restarts;
            nyx.tree.crash("log.reader", "crashed by a test").unwrap();
            nyx.crash("export.default").await;
            until("the reader is back", || nyx.record("log.reader").restarts > restarts).await;
            // Where the exporter took too long to begin, the reader had nothing in hand.
            if nyx.record("log.reader").inbox.lost > lost {
                break;
            }
        }
        assert!(nyx.record("log.reader").inbox.lost > lost);
        sink.revive().unwrap();
        until("what was read in vain is read again", || queued(&nyx) < 4_000).await;
        crash_each(&nyx).await;
        complete(nyx, &sink, (0..4_000).collect()).await;
    });
}

#[test]
fn a_crash_of_any_actor_or_thread_while_the_log_is_full_leaves_it_refusing_and_then_taking() {
    system(async {
        let folder = Folder::new("full");
        let mut sink = nobody();
        let config = SegmentLogConfig { segment_bytes: 16 << 10, max_bytes: 128 << 10, ..folder.config() };
        let nyx = start(&config, quick("default", &sink.endpoint())).await;
        let mut sender = client(nyx.door);
        let mut next = 0;
        while sender.export(support::request(next..next + 100)).await.is_ok() {
            next += 100;
            assert!(next < 10_000, "it never fills");
        }
        crash_each(&nyx).await;
        let refused = sender.export(support::request(next..next + 100)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
        sink.revive().unwrap();
        deliver(&mut sender, next..next + 100).await;
        complete(nyx, &sink, (0..next + 100).collect()).await;
    });
}
