//! Crashes under load: whatever actor dies, what was acknowledged is kept, and every account stays exact.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

mod support;

use std::{collections::BTreeMap, time::Duration};

use nyx_telemetry::{
    ConnectionId,
    accept::DoorReason,
    export::{DestinationConfig, testing::ScriptedDestination},
    supervise::{ChildKind, ChildState, Intensity},
};

use self::support::{
    CHILDREN, Nyx, arrived, assert_messages_are_conserved,
    load::{FIRST_LOCAL, Load, client, deliver},
    quick, system, until,
};

#[test]
fn a_crash_of_any_actor_under_load_leaves_every_account_exact_and_the_sink_complete() {
    const ROUNDS: u64 = 3;
    const REMOTE: u64 = 4;
    const LOCAL: u64 = 2;
    system(async {
        let sink = ScriptedDestination::start().unwrap();
        let destination = DestinationConfig { max_batch_spans: 64, ..quick("default", &sink.endpoint()) };
        let repeated_by_a_crash = destination.concurrency as u64 * destination.max_batch_spans;
        let intensity = Intensity { max_restarts: 100, window: Duration::from_secs(600) };
        let nyx = Nyx::start(vec![destination], |config| {
            config.intensity = intensity;
            // Little more than is under way at a time: what a crash would not give back is missed soon.
            config.max_in_flight_bytes = 64 << 10;
        })
        .await;
        let load = Load::start(nyx.door, nyx.tree.in_process().clone(), REMOTE, LOCAL);
        for _ in 0..ROUNDS {
            for name in CHILDREN {
                // Each crash comes while spans go in and out.
                let before = nyx.destination("default").ledger;
                until("spans go in and out", || {
                    let now = nyx.destination("default").ledger;
                    now.end >= before.end + 100 && now.exported >= before.exported + 100
                })
                .await;
                nyx.crash(name).await;
            }
        }
        let (remote, local) = load.stop().await;
        nyx.tree.in_process().flush().await.unwrap();
        nyx.settled().await;

        let (stats, records) = (nyx.stats(), nyx.tree.observed().records());
        assert!(stats.balanced, "{stats:?}");
        let (spans, ledger) = (&stats.spans, &stats.destinations["default"].ledger);
        assert_eq!((spans.accepted, spans.pending), (stats.log.end, 0), "{spans:?}");
        assert_eq!((ledger.start, ledger.end, ledger.exported), (0, spans.accepted, spans.accepted));
        assert_eq!((ledger.queued(), ledger.dropped_total(), ledger.sampled_out), (0, 0, 0), "{ledger:?}");
        assert_eq!((stats.log.records, stats.log.bytes), (0, 0), "what everyone has passed is released");
        assert_eq!(nyx.red(), (spans.accepted, spans.accepted));

        // The doors: every success that a sender was told of is one of theirs.
        let (grpc, in_process) = (&stats.door["grpc"], &stats.door["in_process"]);
        assert!(grpc.accepted.requests >= remote.accepted, "{grpc:?}, told {}", remote.accepted);
        assert_eq!(grpc.refused(DoorReason::Admission).requests, 0, "{grpc:?}");
        assert_eq!(in_process.accepted.requests, local.accepted, "{in_process:?}");
        assert_eq!(in_process.refused(DoorReason::Closed).requests, local.refused);
        assert_eq!(in_process.refused_total(), in_process.refused(DoorReason::Closed), "{in_process:?}");
        assert_eq!((grpc.pending.requests, in_process.pending.requests), (0, 0));

        // The sink is complete, and what it has twice is what senders and crashes repeated.
        let arrived = arrived(&sink);
        let expected: Vec<u64> = {
            let mut all = [remote.acknowledged, local.acknowledged].concat();
            all.sort_unstable();
            all
        };
        let numbers: Vec<u64> = arrived.keys().copied().collect();
        assert_eq!(numbers, expected);
        let arrivals: u64 = arrived.values().sum();
        assert!(arrivals >= spans.accepted, "{arrivals} arrivals of {} spans", spans.accepted);
        assert!(
            arrivals - spans.accepted <= ROUNDS * repeated_by_a_crash,
            "{arrivals} arrivals of {} spans",
            spans.accepted
        );
        let (from_remote, from_local): (Vec<_>, Vec<_>) =
            arrived.into_iter().partition(|(number, _)| *number < FIRST_LOCAL);
        let twice: u64 = from_remote.iter().map(|(_, times)| times - 1).sum();
        assert!(twice <= remote.repeated + ROUNDS * repeated_by_a_crash, "{twice} of {}", remote.repeated);
        // What an outbox had in hand it offers again after its own crash and after the collector's.
        let most = from_local.iter().map(|(_, times)| *times).max();
        assert!(most.is_some_and(|most| most <= 1 + 3 * ROUNDS), "{most:?} times");

        let crashes: BTreeMap<&str, u64> = CHILDREN.into_iter().map(|name| (name, ROUNDS)).collect();
        for record in &records {
            let crashes = crashes.get(record.name.as_str()).copied().unwrap_or_default();
            assert_eq!(record.panics, crashes, "panics of {}", record.name);
            let (restarts, lost) = match record.kind {
                ChildKind::Dynamic => (0, 0),
                // It crashes between two messages, an actor in the one that tells it to.
                ChildKind::Thread => (crashes, 0),
                ChildKind::Actor | ChildKind::Supervisor => (crashes, crashes),
            };
            assert_eq!((record.restarts, record.inbox.lost), (restarts, lost), "restarts of {}", record.name);
            assert_eq!(record.state, ChildState::Running, "{}", record.name);
            if crashes > 0 {
                assert_eq!(record.last_failure.as_ref().unwrap().message, "crashed by a test");
            }
        }
        assert_eq!(records.len(), CHILDREN.len());
        assert_messages_are_conserved(&records);
        assert_eq!(nyx.health(), "ok");

        let observed = nyx.tree.observed().clone();
        let stats = nyx.stop().await;
        assert!(stats.balanced, "{stats:?}");
        assert_messages_are_conserved(&observed.records());
    });
}

#[test]
fn an_actor_that_crashes_too_often_escalates_and_the_ordered_stop_still_delivers() {
    system(async {
        let sink = ScriptedDestination::start().unwrap();
        let intensity = Intensity { max_restarts: 2, window: Duration::from_secs(60) };
        let mut destination = quick("default", &sink.endpoint());
        // Only the stop makes the exporter send.
        (destination.min_batch_spans, destination.max_delay) = (256, Duration::from_secs(60));
        let nyx = Nyx::start(vec![destination], |config| config.intensity = intensity).await;
        assert_eq!(deliver(&mut client(nyx.door), 0..50).await, 0);
        for _ in 0..intensity.max_restarts {
            nyx.crash("collector").await;
        }
        assert_eq!(nyx.health(), "ok");
        nyx.tree.crash("collector", "once too often").unwrap();
        let failure = nyx.tree.escalated().await;
        assert!(failure.message.contains("collector"), "{failure}");
        assert_eq!(nyx.record("collector").state, ChildState::Stopped);
        assert_eq!(nyx.health(), "degraded: actor collector has stopped");
        let stats = nyx.stop().await;
        assert!(stats.balanced, "{stats:?}");
        let ledger = &stats.destinations["default"].ledger;
        assert_eq!((ledger.exported, ledger.queued()), (50, 0));
        assert_eq!(arrived(&sink), (0..50).map(|number| (number, 1)).collect());
    });
}

#[test]
fn more_panics_of_connections_than_are_bearable_restart_the_set_and_lose_nothing() {
    system(async {
        let sink = ScriptedDestination::start().unwrap();
        let nyx = Nyx::start(vec![quick("default", &sink.endpoint())], |_| {}).await;
        let mut sender = client(nyx.door);
        let mut next = 0;
        while nyx.record("connections").restarts == 0 {
            assert!(next < 1_000, "{:?}", nyx.record("connections"));
            deliver(&mut sender, next..next + 1).await;
            next += 1;
            // It may have ended by itself.
            let _nobody = nyx.tree.crash("connections", "crashed by a test");
        }
        deliver(&mut sender, next..next + 1).await;
        nyx.settled().await;
        let arrived: Vec<u64> = arrived(&sink).into_keys().collect();
        assert_eq!(arrived, (0..=next).collect::<Vec<_>>());
        assert!(nyx.record("connections").panics > 100);
        assert!(nyx.stop().await.balanced);
    });
}

#[test]
fn a_connection_that_crashes_is_closed_and_its_open_spans_end_as_errors_that_say_so() {
    system(async {
        let sink = ScriptedDestination::start().unwrap();
        let nyx = Nyx::start(vec![quick("default", &sink.endpoint())], |_| {}).await;
        let connection = nyx.tree.in_process().connection(ConnectionId::new(1));
        let open = connection.span("unfinished").start();
        assert!(open.is_recording());
        until("its actor runs", || nyx.stats().connections["in_process"].opened == 1).await;
        nyx.crash("connections").await;
        assert!(connection.is_closed());
        open.end();
        nyx.tree.in_process().flush().await.unwrap();
        nyx.settled().await;
        let arrived = support::spans(&sink.received());
        let said: Vec<_> =
            arrived.iter().map(|(_, span)| span.status.as_ref().map(|status| &*status.message)).collect();
        assert_eq!(said, [Some("connection closed before the span ended")]);
        assert_eq!(nyx.stats().connections["in_process"].open, 0);
        assert!(nyx.stop().await.balanced);
    });
}
