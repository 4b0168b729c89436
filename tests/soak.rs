//! Crashes for a while, under load: sixty each of exporter, collector, acceptor and connections, over
//! `NYX_SOAK_SECONDS` (6 unless told), so that
//!
//! ```sh
//! NYX_SOAK_SECONDS=60 cargo test --release --test soak -- --nocapture
//! ```
//!
//! crashes each once a second for a minute.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

mod support;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use futures_util::future::join_all;
use nyx_telemetry::{
    export::{DestinationConfig, testing::ScriptedDestination},
    supervise::{Backoff, ChildRecord, ChildState, Intensity},
    tree::TreeConfig,
};

use self::support::{
    Nyx, arrived, assert_messages_are_conserved,
    load::{FIRST_LOCAL, Load, client},
    quick, record, system, until,
};

/// How often each is crashed.
const CRASHES: u32 = 60;
const CRASHED: [&str; 4] = ["export.default", "collector", "acceptor.grpc", "connections"];
const REMOTE: u64 = 6;
const LOCAL: u64 = 2;

/// Crashes are frequent here, on purpose: nobody gives up, and nobody waits long.
fn endure(config: &mut TreeConfig) {
    config.intensity = Intensity { max_restarts: 10_000, window: Duration::from_secs(100_000) };
    let (initial, cap) = (Duration::from_millis(5), Duration::from_millis(20));
    config.backoff = Backoff::new(initial, 2.0, cap, 0.2, Duration::from_secs(1)).unwrap();
}

#[test]
fn crashes_once_a_second_leave_the_sink_complete_and_every_account_exact() {
    let seconds = std::env::var("NYX_SOAK_SECONDS").map_or(6, |text| text.parse().unwrap());
    let soak = Duration::from_secs(seconds);
    actix_rt::System::new().block_on(async move {
        let sink = ScriptedDestination::start().unwrap();
        let destination = DestinationConfig { max_batch_spans: 128, ..quick("default", &sink.endpoint()) };
        let repeated_by_a_crash = destination.concurrency as u64 * destination.max_batch_spans;
        let nyx = Nyx::start(vec![destination], endure).await;
        let load = Load::start(nyx.door, nyx.tree.in_process().clone(), REMOTE, LOCAL);
        let told = crash_for(&nyx, soak).await;
        let (remote, local) = load.stop().await;
        nyx.tree.in_process().flush().await.unwrap();
        nyx.settled().await;

        let (stats, records) = (nyx.stats(), nyx.tree.observed().records());
        let (spans, ledger) = (&stats.spans, &stats.destinations["default"].ledger);
        assert!(stats.balanced, "{stats:?}");
        assert_eq!((spans.accepted, spans.pending), (stats.log.end, 0), "{spans:?}");
        assert_eq!((ledger.start, ledger.end, ledger.exported), (0, spans.accepted, spans.accepted));
        assert_eq!((ledger.queued(), ledger.dropped_total(), ledger.sampled_out), (0, 0, 0), "{ledger:?}");
        assert_eq!(nyx.red(), (spans.accepted, spans.accepted), "every span is counted once");

        // Complete: whatever was acknowledged has arrived, and nothing that nobody sent.
        let arrived = arrived(&sink);
        let mut expected = [remote.acknowledged, local.acknowledged].concat();
        expected.sort_unstable();
        assert!(arrived.keys().eq(&expected), "{} arrived of {}", arrived.len(), expected.len());

        // Twice is only what the exporter had in flight when it crashed, and what senders sent again.
        let arrivals: u64 = arrived.values().sum();
        let exporter_crashes = record(&records, "export.default").panics;
        let by_crashes = exporter_crashes * repeated_by_a_crash;
        assert!(arrivals >= spans.accepted, "{arrivals} arrivals of {}", spans.accepted);
        assert!(arrivals - spans.accepted <= by_crashes, "{arrivals} arrivals of {}", spans.accepted);
        let from_remote = arrived.iter().filter(|(number, _)| **number < FIRST_LOCAL);
        let twice: u64 = from_remote.map(|(_, times)| times - 1).sum();
        assert!(twice <= remote.repeated + by_crashes, "{twice}, {} by senders", remote.repeated);

        for (name, told) in &told {
            let ChildRecord { panics, restarts, inbox, state, .. } = record(&records, name);
            assert_eq!(state, ChildState::Running, "{name}");
            if *name == "connections" {
                // One that was told may have ended by itself.
                assert!((1..=*told).contains(&panics), "{panics} panics of {told} connections");
            } else {
                assert_eq!((panics, restarts, inbox.lost), (*told, *told, *told), "{name}");
            }
        }
        assert_messages_are_conserved(&records);
        assert_eq!(nyx.health(), "ok");
        println!(
            "{seconds} s: told to crash {told:?}, connections panicked {}; {} spans accepted, {arrivals} arrived, \
             {} by remote senders twice, who sent {} again; {} connections",
            record(&records, "connections").panics,
            spans.accepted,
            twice,
            remote.repeated,
            stats.connections["grpc"].opened,
        );
        assert!(nyx.stop().await.balanced);
    });
}

/// Crashes them all, one round after the other: at once in one round, in turn in the next. Returns how often
/// each was told to.
async fn crash_for(nyx: &Nyx, soak: Duration) -> BTreeMap<&'static str, u64> {
    let mut told: BTreeMap<_, u64> = CRASHED.into_iter().map(|name| (name, 0)).collect();
    let mut quarters = tokio::time::interval(soak / CRASHES / 4);
    for round in 0..CRASHES {
        for quarter in 0..CRASHED.len() {
            quarters.tick().await;
            let now = match (round % 2, quarter) {
                (0, 0) => &CRASHED[..],
                (0, _) => &[],
                (_, quarter) => &CRASHED[quarter..=quarter],
            };
            for name in now {
                // An inbox may be full, and for a moment there may be no connection.
                let accepted = nyx.tree.crash(name, "crashed by the soak").is_ok();
                *told.get_mut(name).unwrap() += u64::from(accepted);
            }
        }
    }
    told
}

#[test]
fn the_listening_socket_survives_its_acceptors_crashes_and_refuses_nobody() {
    const CLIENTS: u64 = 4;
    const ACCEPTOR_CRASHES: u64 = 40;
    system(async {
        let sink = ScriptedDestination::start().unwrap();
        let nyx = Nyx::start(vec![quick("default", &sink.endpoint())], endure).await;
        let connecting = Connecting::start(nyx.door, CLIENTS);
        let opened = || nyx.stats().connections["grpc"].opened;
        for _ in 0..ACCEPTOR_CRASHES {
            // Each crash comes while clients connect.
            let before = opened();
            until("clients connect", || opened() >= before + 2 * CLIENTS).await;
            nyx.crash("acceptor.grpc").await;
        }
        let (connects, failures) = connecting.stop().await;
        assert_eq!(failures, Vec::<String>::new(), "of {connects} connects");
        nyx.settled().await;
        let (grpc, stats) = (nyx.stats().connections["grpc"], nyx.stats());
        assert_eq!((grpc.opened, grpc.refused, grpc.accept_errors), (connects, 0, 0));
        assert_eq!((stats.spans.accepted, stats.balanced), (connects, true));
        let acceptor = nyx.record("acceptor.grpc");
        assert_eq!((acceptor.panics, acceptor.restarts), (ACCEPTOR_CRASHES, ACCEPTOR_CRASHES));
        assert_eq!(arrived(&sink).len() as u64, connects);
        assert!(nyx.stop().await.balanced);
    });
}

/// Clients on a thread of their own, each of which connects, has one span acknowledged, and connects again.
struct Connecting {
    stop: Arc<AtomicBool>,
    done: tokio::sync::oneshot::Receiver<(u64, Vec<String>)>,
}

impl Connecting {
    fn start(door: SocketAddr, clients: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, done) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            let clients = (0..clients).map(|at| connect(door, at << 32, &stopped));
            let told = runtime.block_on(join_all(clients));
            let connects = told.iter().map(|(connects, _)| connects).sum();
            let failures = told.into_iter().flat_map(|(_, failures)| failures).collect();
            // A test that has failed already does not wait.
            let _gone = tell.send((connects, failures));
        });
        Self { stop, done }
    }

    /// How many connected, and what went wrong.
    async fn stop(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.done.await.unwrap()
    }
}

async fn connect(door: SocketAddr, first: u64, stopped: &AtomicBool) -> (u64, Vec<String>) {
    let (mut connects, mut failures) = (0, Vec::new());
    while !stopped.load(Ordering::Relaxed) {
        let number = first + connects;
        match client(door).export(support::request(number..number + 1)).await {
            Ok(_) => connects += 1,
            Err(status) => {
                failures.push(format!("{status:?}"));
                break;
            }
        }
    }
    (connects, failures)
}
