//! Destinations that come and go while everything runs: nobody else notices, and every account is exact to the end.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

mod support;

use std::{collections::BTreeMap, time::Duration};

use nyx_telemetry::{
    export::{
        DestinationConfig,
        testing::{Reply, ScriptedDestination},
        verdict::Kind,
    },
    log::{
        DestinationId, DestinationLedger, Durability, SpanLog as _,
        segments::{DirLock, LogDestination, OpenLog, SegmentLogConfig, StartAt},
    },
    supervise::{ChildState, Intensity},
    tree::{LogForm, TreeConfig},
};
use tokio::time::Instant;

use self::support::{
    Nyx, arrived, assert_messages_are_conserved,
    folder::Folder,
    load::{Load, client, deliver},
    nobody, quick, system, until,
};

const SECOND: Duration = Duration::from_secs(1);

fn patient(config: &mut TreeConfig) {
    config.intensity = Intensity { max_restarts: 100, window: Duration::from_secs(600) };
}

async fn on_disk(folder: &Folder, destinations: Vec<DestinationConfig>) -> Nyx {
    let names = destinations.iter().map(DestinationConfig::in_log).collect();
    let config = SegmentLogConfig {
        durability: Durability::Process,
        min_free_bytes: 0,
        segment_bytes: 1 << 20,
        destinations: names,
        ..SegmentLogConfig::new(folder.path())
    };
    let open = OpenLog::open(&config, DirLock::try_acquire(&config.dir).unwrap().unwrap()).unwrap();
    Nyx::start(destinations, |config| {
        patient(config);
        config.log = LogForm::Segments(open);
    })
    .await
}

async fn goes(nyx: &Nyx, name: &str) -> DestinationLedger {
    nyx.tree.remove_destination(name).await.unwrap().unwrap()
}

fn actors(nyx: &Nyx) -> Vec<String> {
    nyx.stats().actors.into_iter().map(|actor| actor.name).collect()
}

#[test]
fn one_that_comes_gets_what_comes_from_then_on_and_one_that_goes_leaves_nothing_behind() {
    system(async {
        let [sink, later] = [(); 2].map(|()| ScriptedDestination::start().unwrap());
        let nyx = Nyx::start(vec![quick("default", &sink.endpoint())], |_| {}).await;
        let mut sender = client(nyx.door);
        assert_eq!(deliver(&mut sender, 0..50).await, 0);
        nyx.settled().await;
        let before = actors(&nyx);

        nyx.tree.add_destination(quick("later", &later.endpoint())).await.unwrap();
        let place = before.iter().position(|name| name == "export.default").unwrap() + 1;
        let mut with_it = before.clone();
        with_it.insert(place, "export.later".to_owned());
        assert_eq!(actors(&nyx), with_it);
        assert_eq!(nyx.destination("later").ledger, DestinationLedger::starting_at(50));
        let names: Vec<_> = nyx.tree.destinations().await.into_iter().map(|config| config.name).collect();
        assert_eq!(names, ["default", "later"]);
        assert_eq!(deliver(&mut sender, 50..100).await, 0);
        nyx.settled().await;
        assert_eq!(arrived(&later), (50..100).map(|number| (number, 1)).collect());
        nyx.crash("export.later").await;

        let gone = goes(&nyx, "later").await;
        assert_eq!((gone.start, gone.exported, gone.queued(), gone.balances()), (50, 50, 0, true));
        assert_eq!(actors(&nyx), before);
        assert!(nyx.tree.observed().destination("later").is_none());
        assert_eq!(nyx.tree.remove_destination("later").await, Ok(None));
        assert_eq!(deliver(&mut sender, 100..150).await, 0);
        nyx.settled().await;
        assert_eq!((arrived(&sink).len(), arrived(&later).len()), (150, 50));
        let stats = nyx.stats();
        assert_eq!((stats.log.records, stats.balanced, nyx.health()), (0, true, "ok".to_owned()));

        // Back, it is another one; what it missed is nobody's any more.
        nyx.tree.add_destination(quick("later", &later.endpoint())).await.unwrap();
        assert_eq!(nyx.destination("later").ledger, DestinationLedger::starting_at(150));
        assert!(nyx.stop().await.balanced);
    });
}

#[test]
fn one_whose_destination_hangs_goes_within_its_share_and_nobody_else_waits() {
    system(async {
        let [sink, stalled] = [(); 2].map(|()| ScriptedDestination::start().unwrap());
        stalled.judge(|_| Reply::Stall);
        let hanging = DestinationConfig {
            timeout: Duration::from_secs(600),
            drain_timeout: SECOND,
            ..quick("hanging", &stalled.endpoint())
        };
        let nyx = Nyx::start(vec![quick("default", &sink.endpoint()), hanging], patient).await;
        let mut sender = client(nyx.door);
        assert_eq!(deliver(&mut sender, 0..50).await, 0);
        stalled.until(|stalled| !stalled.received().is_empty()).await;
        let begin = Instant::now();
        let meanwhile = async {
            until("it is on its way out", || nyx.record("export.hanging").state == ChildState::Stopping)
                .await;
            assert_eq!(deliver(&mut sender, 50..100).await, 0);
            nyx.crash("export.default").await;
            nyx.crash("collector").await;
            assert_eq!(deliver(&mut sender, 100..150).await, 0);
            until("the other has everything", || nyx.destination("default").ledger.exported == 150).await;
        };
        let (gone, ()) = tokio::join!(goes(&nyx, "hanging"), meanwhile);
        assert!((SECOND..SECOND * 20).contains(&begin.elapsed()), "{:?}", begin.elapsed());
        assert_eq!((gone.exported, gone.balances(), gone.queued()), (0, true, gone.end));
        nyx.settled().await;
        let stats = nyx.stats();
        assert_eq!((stats.log.records, stats.balanced, nyx.health()), (0, true, "ok".to_owned()));
        nyx.stop().await;
    });
}

#[test]
fn one_that_is_not_valid_or_is_there_already_changes_nothing() {
    system(async {
        let sink = ScriptedDestination::start().unwrap();
        let nyx = Nyx::start(vec![quick("default", &sink.endpoint())], |_| {}).await;
        let before = actors(&nyx);
        let taken = nyx.tree.add_destination(quick("default", &sink.endpoint())).await.unwrap_err();
        assert_eq!(taken.to_string(), "the span log has a destination default already");
        let invalid = nyx.tree.add_destination(quick("other", "nowhere")).await.unwrap_err();
        assert!(invalid.to_string().contains("endpoint"), "{invalid}");
        assert_eq!((actors(&nyx), nyx.stats().destinations.len()), (before, 1));
        nyx.stop().await;
    });
}

#[test]
fn a_destination_that_cannot_be_reached_comes_and_goes_like_any_other() {
    system(async {
        let (sink, mut dead) = (ScriptedDestination::start().unwrap(), nobody());
        let nyx = Nyx::start(vec![quick("default", &sink.endpoint())], |_| {}).await;
        let config = DestinationConfig { drain_timeout: SECOND, ..quick("dead", &dead.endpoint()) };
        nyx.tree.add_destination(config.clone()).await.unwrap();
        let mut sender = client(nyx.door);
        assert_eq!(deliver(&mut sender, 0..50).await, 0);
        until("it holds them", || nyx.destination("default").ledger.exported == 50).await;
        assert_eq!((nyx.destination("dead").ledger.queued(), nyx.stats().log.start), (50, 0));
        let gone = goes(&nyx, "dead").await;
        assert_eq!((gone.exported, gone.queued(), nyx.stats().log.records), (0, 50, 0));
        nyx.tree.add_destination(config).await.unwrap();
        dead.revive().unwrap();
        assert_eq!(deliver(&mut sender, 50..100).await, 0);
        nyx.settled().await;
        assert_eq!(arrived(&dead), (50..100).map(|number| (number, 1)).collect());
        nyx.stop().await;
    });
}

#[test]
fn one_that_cannot_go_stays_and_is_delivered_to_until_it_can() {
    system(async {
        let (folder, [sink, guest]) =
            (Folder::new("cannot-go"), [(); 2].map(|()| ScriptedDestination::start().unwrap()));
        let both = vec![quick("default", &sink.endpoint()), quick("guest", &guest.endpoint())];
        let nyx = on_disk(&folder, both).await;
        // Its dead letters cannot be written.
        let in_the_way = folder.path().join("dead_letters/guest.letters");
        std::fs::create_dir_all(&in_the_way).unwrap();
        guest.judge(|_| Reply::Status { code: 13, message: "no".to_owned(), retry_after: None });
        let mut sender = client(nyx.door);
        assert_eq!(deliver(&mut sender, 0..50).await, 0);
        until("they are dead letters", || nyx.destination("guest").ledger.dropped_total() == 50).await;
        guest.judge(|_| Reply::Ok);
        let refused = nyx.tree.remove_destination("guest").await.unwrap_err().to_string();
        assert!(refused.starts_with("the span log cannot read or write its files: "), "{refused}");

        assert_eq!(nyx.record("export.guest").state, ChildState::Running);
        assert_eq!(deliver(&mut sender, 50..100).await, 0);
        until("it is delivered to", || nyx.destination("guest").ledger.exported == 50).await;
        let status = nyx.destination("guest").status;
        assert!(
            status.requests.get(Kind::Refused) > 0 && status.requests.get(Kind::Success) > 0,
            "{status:?}"
        );
        assert!(nyx.health().starts_with("degraded: span log cannot write the position of guest"));

        std::fs::remove_dir(&in_the_way).unwrap();
        let gone = goes(&nyx, "guest").await;
        assert_eq!((gone.exported, gone.dropped_total(), gone.queued(), gone.balances()), (50, 50, 0, true));
        assert!(in_the_way.is_file(), "its dead letters are kept");
        assert_eq!(nyx.health(), "ok");
        nyx.settled().await;
        nyx.stop().await;
    });
}

/// Destinations come and go under load while actors crash, the exporter of the one in question among them.
async fn storm(nyx: Nyx, sink: &ScriptedDestination, crashes: &[&str]) {
    let load = Load::start(nyx.door, nyx.tree.in_process().clone(), 2, 1);
    let mut gone: Vec<(ScriptedDestination, DestinationLedger)> = Vec::new();
    for (round, name) in crashes.iter().enumerate() {
        let guest = ScriptedDestination::start().unwrap();
        nyx.tree.add_destination(quick("guest", &guest.endpoint())).await.unwrap();
        let took = |more| nyx.destination("guest").ledger.exported >= more;
        until("it gets spans", || took(100)).await;
        nyx.crash(name).await;
        until("it goes on", || took(200)).await;
        let (ledger, ()) = tokio::join!(goes(&nyx, "guest"), async {
            if round % 2 == 0 {
                // In the midst of it, or just behind.
                let _gone_already = nyx.tree.crash("export.guest", "crashed by a test");
            }
        });
        assert!(ledger.balances() && ledger.dropped_total() == 0, "{ledger:?}");
        gone.push((guest, ledger));
    }
    let (remote, local) = load.stop().await;
    nyx.tree.in_process().flush().await.unwrap();
    nyx.settled().await;
    let stats = nyx.stats();
    assert!(stats.balanced, "{stats:?}");
    let ledger = &stats.destinations["default"].ledger;
    assert_eq!((ledger.start, ledger.exported, ledger.end), (0, stats.log.end, stats.log.end), "{ledger:?}");
    let all = arrived(sink);
    let acknowledged: Vec<u64> = [remote.acknowledged, local.acknowledged].concat();
    let missing: Vec<_> = acknowledged.iter().filter(|number| !all.contains_key(number)).collect();
    assert_eq!(missing, [&0; 0]);
    for (guest, ledger) in &gone {
        let arrived: BTreeMap<u64, u64> = arrived(guest);
        let strangers: Vec<_> = arrived.keys().filter(|number| !all.contains_key(number)).collect();
        assert_eq!(strangers, [&0; 0]);
        let copies: u64 = arrived.values().sum();
        assert!(copies >= ledger.exported, "{copies} of {ledger:?}");
        // Four batches of 256 may be in flight or acknowledged behind the position when its exporter crashes.
        assert!(copies <= ledger.exported + 3 * 4 * 256, "{copies} of {ledger:?}");
    }
    assert_eq!(nyx.red(), (stats.log.end, stats.log.end), "each span is counted once");
    assert_eq!(nyx.health(), "ok");
    let observed = nyx.tree.observed().clone();
    nyx.stop().await;
    assert_messages_are_conserved(&observed.records());
}

#[test]
fn destinations_come_and_go_under_load_and_crashes_with_a_log_in_memory() {
    system(async {
        let sink = ScriptedDestination::start().unwrap();
        let nyx = Nyx::start(vec![quick("default", &sink.endpoint())], patient).await;
        storm(nyx, &sink, &["export.guest", "collector", "export.default", "metrics"]).await;
    });
}

#[test]
fn destinations_come_and_go_under_load_and_crashes_with_a_log_on_disk() {
    system(async {
        let (folder, sink) = (Folder::new("comings"), ScriptedDestination::start().unwrap());
        let nyx = on_disk(&folder, vec![quick("default", &sink.endpoint())]).await;
        storm(nyx, &sink, &["export.guest", "log", "collector", "log.reader"]).await;
        let names: Vec<_> = std::fs::read_dir(folder.path().join("positions")).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    });
}

#[test]
fn one_with_a_past_gets_what_the_log_holds_if_it_is_to_begin_at_the_beginning() {
    system(async {
        let (folder, dead, late) = (Folder::new("past"), nobody(), ScriptedDestination::start().unwrap());
        let slow = DestinationConfig { drain_timeout: SECOND, ..quick("default", &dead.endpoint()) };
        let nyx = on_disk(&folder, vec![slow]).await;
        assert_eq!(deliver(&mut client(nyx.door), 0..50).await, 0);
        let start = StartAt::Beginning;
        nyx.tree
            .add_destination(DestinationConfig { start, ..quick("late", &late.endpoint()) })
            .await
            .unwrap();
        until("it has them", || nyx.destination("late").ledger.exported == 50).await;
        assert_eq!(arrived(&late), (0..50).map(|number| (number, 1)).collect());
        nyx.tree.shutdown(Duration::from_secs(20)).await;
        // The next process knows it.
        let names = ["default", "late"].map(|name| LogDestination { name: name.to_owned(), start });
        let config =
            SegmentLogConfig { destinations: names.to_vec(), ..SegmentLogConfig::new(folder.path()) };
        let lock = DirLock::try_acquire(&config.dir).unwrap().unwrap();
        let log = OpenLog::open(&config, lock).unwrap().log(Err, Err);
        let positions = [0, 1].map(|id| log.ledger(DestinationId(id)).unwrap().position);
        assert_eq!(positions, [0, 50]);
    });
}
