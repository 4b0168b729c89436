//! What the counters are after the end of a process.

use super::*;

fn durable(yields: usize) -> Bench {
    Bench::with(yields, Durability::Process, roomy())
}

/// Timers are as exact as this.
const TICK: Duration = Duration::from_millis(1);

impl Bench {
    /// Lets a checkpoint's time come, and it be stored.
    async fn interval(&self) {
        tokio::time::advance(INTERVAL + TICK).await;
        self.let_run().await;
    }

    /// Lets the actor look once.
    async fn look(&self) {
        tokio::time::advance(LOOK_INTERVAL + TICK).await;
        self.let_run().await;
    }

    /// The counts and beginnings of the series on the page; `None` while it has none of them.
    fn page(&self) -> Option<Shown> {
        let snapshot = self.red().snapshot();
        snapshot.restoring.is_none().then(|| shown(&snapshot))
    }

    /// What a plain reference counts: every span by itself, in the order of the log, and never a checkpoint.
    fn reference(&self) -> Shown {
        let settings = Arc::new(self.settings.borrow().clone());
        let mut state = RedState::new(Arc::clone(&settings));
        let mut scratch = RedScratch::new(settings);
        for (position, (name, committed)) in (0..).zip(self.names.borrow().iter()) {
            scan(&request(std::slice::from_ref(name)), |span| scratch.observe(span)).unwrap();
            assert_eq!(state.merge(position, &scratch.take(), *committed), Merge::Counted);
        }
        shown(&state.snapshot())
    }

    fn asked(&self) -> usize {
        self.log.disk.lock().asked
    }
}

/// By the name, with the value of the dimension, if there is one.
type Shown = BTreeMap<String, (u64, Duration)>;

fn shown(snapshot: &RedSnapshot) -> Shown {
    let name = |it: &RedSeries| {
        let (key, many) = (it.key(), if it.overflow { " and more" } else { "" });
        format!("{}{}{many}", key.name, key.dimensions.get(0))
    };
    let series = snapshot.series.iter().map(|it| (name(it), &it.counts));
    let overflow = snapshot.overflow.iter().map(|counts| ("(overflow)".to_owned(), counts));
    series.chain(overflow).map(|(name, counts)| (name, (counts.count, counts.created))).collect()
}

fn counts(page: &Shown) -> BTreeMap<String, u64> {
    page.iter().map(|(name, (count, _))| (name.clone(), *count)).collect()
}

#[test]
fn a_process_begins_with_a_checkpoint_and_the_next_is_stored_if_something_was_counted() {
    run(async {
        let bench = durable(0);
        bench.let_run().await;
        assert_eq!((bench.log.stored_at(), bench.asked()), (Some(0), 1));
        bench.interval().await;
        assert_eq!(bench.asked(), 1, "nothing was counted");
        let message = bench.commit(&names(&["a", "b"]));
        bench.tell(message).await;
        assert_eq!(bench.log.stored_at(), Some(0));
        bench.interval().await;
        assert_eq!((bench.log.stored_at(), bench.asked()), (Some(2), 2));
        bench.interval().await;
        assert_eq!(bench.asked(), 2);
        assert_eq!(bench.red().snapshot().checkpoints, 2);
        bench.restart().await;
        bench.let_run().await;
        assert_eq!((bench.log.stored_at(), bench.asked()), (Some(2), 3), "on this boot of the machine");
    });
}

#[test]
fn a_log_in_memory_gets_no_checkpoint() {
    run(async {
        let bench = Bench::new(0);
        let message = bench.commit(&names(&["a"]));
        bench.tell(message).await;
        bench.interval().await;
        assert_eq!(bench.asked(), 0);
        assert!(bench.red().checkpoint().is_none());
        assert_eq!(bench.page().unwrap().len(), 1);
        assert_eq!(bench.red().snapshot().created, None, "with the process");
    });
}

#[test]
fn counters_go_on_from_the_checkpoint_and_what_the_log_has_behind_it() {
    run(async {
        let bench = durable(2);
        bench.let_run().await;
        let message = bench.commit(&names(&["a", "b", "a"]));
        bench.tell(message).await;
        bench.interval().await;
        let message = bench.commit(&names(&["a", "c"]));
        bench.tell(message).await;
        let before = bench.page().unwrap();
        assert_eq!(before, bench.reference());

        bench.restart().await;
        assert_eq!(bench.red().position(), 3);
        assert_eq!(bench.page(), None, "the counters are behind what was shown");
        let health = bench.red().troubles();
        assert_eq!(health, ["span metrics are being restored: 0 of 2 spans"]);
        bench.settle().await;
        assert_eq!(bench.page().unwrap(), before, "beginnings included");
        assert_eq!(bench.red().troubles(), [""; 0]);
        assert_eq!(bench.red().snapshot().totals.caught_up, 2);

        drop(bench.commit(&names(&["lost"])));
        bench.crash().await;
        bench.settle().await;
        assert_eq!(bench.red().snapshot().restoring, None, "only what the process began with is waited for");
        assert_eq!(bench.page().unwrap(), bench.reference());
    });
}

#[test]
fn the_page_leaves_counters_out_while_they_are_behind() {
    run(async {
        let bench = durable(0);
        bench.let_run().await;
        let families = |bench: &Bench| {
            let mut page = crate::metrics::Page::new(Duration::ZERO);
            collect(&bench.red().snapshot(), &mut page);
            let page = page.finish(&crate::metrics::LeftOut::default());
            let names = page.iter().map(|family| family.open_name.clone());
            let mut names: Vec<_> = names.filter(|name| !name.starts_with("nyx_page")).collect();
            names.sort_unstable();
            names
        };
        let message = bench.commit(&names(&["a"]));
        bench.tell(message).await;
        let gauges = [
            "nyx_measure_checkpoint_errors",
            "nyx_measure_checkpoints",
            "nyx_measure_max_series",
            "nyx_measure_position_ordinal",
            "nyx_measure_series",
        ];
        let counters = [
            "nyx_measure_caught_up_spans",
            "nyx_measure_cut_values",
            "nyx_measure_expired_series",
            "nyx_measure_folded_spans",
            "nyx_measure_unmeasured_spans",
            "nyx_span_count",
            "nyx_span_count_a",
            "nyx_span_duration_ms_a",
            "nyx_span_duration_seconds",
            "nyx_span_errors",
            "nyx_span_errors_a",
        ];
        let mut all = [&gauges[..], &counters].concat();
        all.sort_unstable();
        assert_eq!(families(&bench), all);
        bench.restart().await;
        assert_eq!(families(&bench), gauges);
        bench.settle().await;
        assert_eq!(families(&bench), all);
    });
}

#[test]
fn a_checkpoint_with_other_bounds_is_not_used_and_counting_begins_at_the_logs_end() {
    run(async {
        let bench = durable(0);
        let message = bench.commit(&names(&["a", "b"]));
        bench.tell(message).await;
        let before = bench.red().snapshot().created.unwrap();
        let bounds = Bounds::new(&[Duration::from_secs(1)]).unwrap();
        bench.restart_with(RedSettings { bounds, ..roomy() }).await;
        assert_eq!((bench.red().position(), bench.page()), (2, Some(BTreeMap::new())));
        assert!(bench.red().snapshot().created.unwrap() > before);
        bench.let_run().await;
        assert_eq!(bench.log.stored_at(), Some(2), "the next process goes on from here");
        assert_eq!(bench.red().troubles(), [""; 0]);
    });
}

#[test]
fn counting_begins_where_the_log_says_if_it_cannot_prove_continuity() {
    run(async {
        let bench = durable(0);
        bench.let_run().await;
        drop(bench.commit(&names(&["a", "b"])));
        let why = "the machine went down".to_owned();
        bench.log.disk.lock().broken = Some(Restored::Broken { position: 2, why });
        bench.restart().await;
        assert_eq!((bench.red().position(), bench.page()), (2, Some(BTreeMap::new())));

        // As is a checkpoint that does not decode, is of another position, or of one that the log does not have.
        let (position, bytes) = bench.log.disk.lock().stored.clone().unwrap();
        let mut ahead = bytes.to_vec();
        ahead[8..16].copy_from_slice(&7_u64.to_le_bytes());
        let cut = bytes.slice(..bytes.len() - 1);
        for (position, bytes) in [(position, cut), (position + 1, bytes), (7, ahead.into())] {
            bench.log.disk.lock().broken = Some(Restored::Checkpoint { position, bytes });
            bench.restart().await;
            assert_eq!((bench.red().position(), bench.page()), (2, Some(BTreeMap::new())));
        }
    });
}

#[test]
fn counters_begin_anew_where_the_log_cannot_give_back_what_was_counted_before() {
    run(async {
        let bench = durable(0);
        bench.let_run().await;
        let message = bench.commit(&names(&["a", "a", "b"]));
        bench.tell(message).await;
        let message = bench.commit(&names(&["a"]));
        bench.tell(message).await;
        let before = bench.page().unwrap();
        bench.log.disk.lock().damaged = Some((0, 3));
        bench.restart().await;
        bench.let_run().await;
        bench.interval().await;
        let after = bench.page().unwrap();
        assert_eq!(counts(&after), BTreeMap::from([("a".to_owned(), 1)]));
        assert!(after["a"].1 > before["a"].1, "it is another series by its beginning");
        assert_eq!(bench.red().snapshot().created, Some(after["a"].1), "that of all these counters");
        assert_eq!(bench.red().snapshot().totals.unmeasured, Unmeasured::default());
        assert_eq!(bench.log.stored_at(), Some(4));

        let message = bench.commit(&names(&["a", "c"]));
        bench.tell(message).await;
        let (before, reference) = (bench.page().unwrap(), bench.reference());
        assert_eq!((before["a"], before["c"]), ((2, after["a"].1), reference["c"]));
        bench.restart().await;
        bench.settle().await;
        assert_eq!(bench.page().unwrap(), before, "the new beginning stays");
    });
}

#[test]
fn a_series_begins_with_the_commit_of_its_first_span_whether_a_message_tells_it_or_the_log() {
    run(async {
        let bench = durable(0);
        let message = bench.commit(&names(&["told"]));
        let (told, committed) = (message.committed_unix, bench.commit(&names(&["read"])).committed_unix);
        bench.tell(message).await;
        bench.settle().await;
        let page = bench.page().unwrap();
        assert_eq!((page["told"], page["read"]), ((1, told), (1, committed)));
        bench.restart().await;
        bench.settle().await;
        assert_eq!(bench.page().unwrap(), page);
    });
}

#[test]
fn counters_without_a_checkpoint_are_made_up_for_from_the_log_alone() {
    run(async {
        let bench = durable(0);
        bench.log.disk.lock().hold = true;
        bench.let_run().await;
        let message = bench.commit(&names(&["a", "b"]));
        bench.tell(message).await;
        let message = bench.commit(&names(&["b", "c"]));
        bench.tell(message).await;
        let before = bench.page().unwrap();
        assert_eq!(before, bench.reference(), "shown, though no checkpoint is stored");
        bench.restart().await;
        assert_eq!((bench.log.stored_at(), bench.page()), (None, None));
        bench.settle().await;
        assert_eq!(bench.page().unwrap(), before);

        bench.log.disk.lock().damaged = Some((0, 2));
        bench.restart().await;
        bench.settle().await;
        let after = bench.page().unwrap();
        assert!(after["b"].0 < before["b"].0 && after["b"].1 > before["c"].1, "begun anew");
    });
}

#[test]
fn one_checkpoint_is_on_its_way_at_a_time() {
    run(async {
        let bench = durable(0);
        bench.let_run().await;
        bench.log.disk.lock().hold = true;
        for _ in 0..3 {
            let message = bench.commit(&names(&["a"]));
            bench.tell(message).await;
            bench.interval().await;
        }
        assert_eq!((bench.asked(), bench.log.disk.lock().held.len()), (2, 1));
        bench.log.release(Ok(()));
        bench.let_run().await;
        bench.interval().await;
        bench.log.release(Ok(()));
        assert_eq!(bench.log.stored_at(), Some(3));
    });
}

#[test]
fn a_checkpoint_that_cannot_be_stored_is_told_until_one_is() {
    run(async {
        let bench = durable(0);
        bench.let_run().await;
        bench.log.disk.lock().fail = Some("no space left on device");
        let message = bench.commit(&names(&["a"]));
        bench.tell(message).await;
        for errors in 1..=2 {
            bench.interval().await;
            let snapshot = bench.red().snapshot();
            assert_eq!((snapshot.checkpoints, snapshot.checkpoint_errors), (1, errors));
        }
        let health = ["span metrics cannot be checkpointed: no space left on device"];
        assert_eq!(bench.red().troubles(), health);
        assert_eq!(bench.log.stored_at(), Some(0));
        bench.log.disk.lock().fail = None;
        bench.interval().await;
        assert_eq!(bench.red().troubles(), [""; 0]);
        assert_eq!(bench.log.stored_at(), Some(1));
    });
}

#[test]
fn an_error_is_news_once_for_each_text_and_so_is_its_end() {
    let red = {
        let config = MemoryLogConfig { max_bytes: 1, destinations: 0, measured: true };
        let log = SlowLog {
            log: MemoryLog::new(config),
            durability: Durability::Power,
            yields: 0,
            positions: Mutex::default(),
            disk: Mutex::default(),
            stats: Mutex::default(),
        };
        RedShared::restore(RedSettings::default(), &log)
    };
    let news = |result: Result<(), &str>| red.checkpointed(0, &result.map_err(str::to_owned));
    let results = [Ok(()), Err("a"), Err("a"), Err("b"), Ok(()), Ok(())];
    assert_eq!(results.map(news), [false, true, false, true, true, false]);
}

#[test]
fn a_log_that_is_more_than_half_full_gets_a_checkpoint_at_the_next_look() {
    run(async {
        let bench = durable(0);
        bench.let_run().await;
        let message = bench.commit(&names(&["a"]));
        bench.tell(message).await;
        let stats = bench.log.log.stats();
        *bench.log.stats.lock() = Some(LogStats { bytes: 50, max_bytes: 100, ..stats });
        bench.look().await;
        assert_eq!(bench.log.stored_at(), Some(0));
        *bench.log.stats.lock() = Some(LogStats { bytes: 51, max_bytes: 100, ..stats });
        bench.look().await;
        assert_eq!(bench.log.stored_at(), Some(1));
        bench.look().await;
        assert_eq!(bench.asked(), 2, "nothing was counted since");
    });
}

impl Bench {
    /// Stops the actor as its supervisor does; returns how long it took.
    async fn leave(&self) -> Duration {
        let actor = self.actor.borrow().clone();
        let before = Instant::now();
        actor.send(Leave).await.unwrap();
        for _ in 0..10_000 {
            if !actor.connected() {
                return before.elapsed();
            }
            tokio::task::yield_now().await;
            if self.log.disk.lock().hold || self.log.disk.lock().damaged.is_some() {
                tokio::time::advance(Duration::from_millis(1)).await;
            }
        }
        panic!("it does not stop");
    }
}

#[test]
fn an_actor_that_stops_counts_what_the_log_has_and_stores_it() {
    run(async {
        let bench = durable(2);
        bench.let_run().await;
        let thousand = vec!["a".to_owned(); 1_000];
        for _ in 0..20 {
            drop(bench.commit(&thousand));
        }
        bench.leave().await;
        assert_eq!((bench.red().position(), bench.log.stored_at()), (20_000, Some(20_000)));

        let bench = Bench::new(0);
        drop(bench.commit(&thousand));
        bench.leave().await;
        assert_eq!(bench.red().position(), 1_000, "in memory too");
    });
}

#[test]
fn an_actor_that_stops_waits_for_the_checkpoint_on_its_way_and_stores_the_last_one() {
    run(async {
        let bench = durable(0);
        bench.let_run().await;
        bench.log.disk.lock().hold = true;
        let message = bench.commit(&names(&["a"]));
        bench.tell(message).await;
        bench.interval().await;
        let message = bench.commit(&names(&["b"]));
        bench.tell(message).await;
        let actor = bench.actor.borrow().clone();
        actor.send(Leave).await.unwrap();
        bench.let_run().await;
        bench.log.release(Ok(()));
        bench.let_run().await;
        assert!(actor.connected() && bench.log.stored_at() == Some(1));
        bench.log.release(Ok(()));
        bench.let_run().await;
        assert!(!actor.connected());
        assert_eq!(bench.log.stored_at(), Some(2));
    });
}

#[test]
fn an_actor_that_stops_does_not_try_again_what_fails() {
    run(async {
        let bench = durable(0);
        bench.let_run().await;
        bench.log.disk.lock().fail = Some("no space left on device");
        drop(bench.commit(&names(&["a"])));
        assert_eq!(bench.leave().await, Duration::ZERO);
        assert_eq!((bench.asked(), bench.log.stored_at()), (2, Some(0)));
    });
}

#[test]
fn an_actor_that_stops_gives_up_when_its_time_is_over() {
    run(async {
        let bench = durable(0);
        bench.let_run().await;
        bench.log.disk.lock().hold = true;
        drop(bench.commit(&names(&["a"])));
        let took = bench.leave().await;
        assert!(took >= STOP_MAX && took <= STOP_MAX + Duration::from_millis(10), "{took:?}");
    });
}

/// What may happen between two looks at the page.
#[derive(Debug, Clone)]
enum Fate {
    /// As in one process.
    Act(Act),
    /// A checkpoint's time comes.
    Interval,
    /// Checkpoints are to wait, or not any longer.
    Hold(bool),
    /// The checkpoint that waits is stored, or is not.
    Release(bool),
    /// Checkpoints are to fail, or not any longer.
    Fail(bool),
    /// The process ends, after so many of the checkpoints on their way were stored.
    Restart(usize),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        8 => act().prop_map(Fate::Act),
        3 => Just(Fate::Interval),
        1 => any::<bool>().prop_map(Fate::Hold),
        2 => any::<bool>().prop_map(Fate::Release),
        1 => any::<bool>().prop_map(Fate::Fail),
        2 => (0usize..3).prop_map(Fate::Restart),
    ]
}

async fn meet(bench: &Bench, waiting: &mut Vec<SpansMeasured>, fate: Fate) {
    match fate {
        Fate::Act(act) => perform(bench, waiting, act).await,
        Fate::Interval => bench.interval().await,
        Fate::Hold(hold) => bench.log.disk.lock().hold = hold,
        Fate::Release(stored) => {
            bench.log.release(if stored { Ok(()) } else { Err("released to fail".to_owned()) });
        }
        Fate::Fail(fail) => bench.log.disk.lock().fail = fail.then_some("told to fail"),
        Fate::Restart(stored) => {
            waiting.clear();
            for _ in 0..stored {
                bench.log.release(Ok(()));
            }
            bench.restart().await;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_counter_goes_back_begins_anew_or_counts_twice_whatever_ends_the_process(
        fates in prop::collection::vec(fate(), 0..60),
        yields in 0usize..4,
        max_series in 1usize..6,
        with_dimension in any::<bool>(),
        hold in any::<bool>(),
    ) {
        run(async move {
            let names = if with_dimension { vec!["key".to_owned()] } else { vec![] };
            let dimensions = Dimensions::new(&names).unwrap();
            let settings = RedSettings { max_series, dimensions, ..RedSettings::default() };
            let bench = Bench::with(yields, Durability::Process, settings);
            bench.log.disk.lock().hold = hold;
            let mut waiting = Vec::new();
            let mut shown = Shown::new();
            let look = |shown: &mut Shown| {
                let Some(page) = bench.page() else { return };
                for (name, (count, created)) in shown.iter() {
                    let (now, began) = page[name];
                    assert!(now >= *count && began == *created, "{name}: {count} {created:?}, {now} {began:?}");
                }
                let reference = bench.reference();
                for (name, (count, created)) in &page {
                    let (most, committed) = reference[name];
                    assert!(*count <= most && *created == committed, "{name}: {count} {created:?} {committed:?}");
                }
                *shown = page;
            };
            for fate in fates {
                meet(&bench, &mut waiting, fate).await;
                look(&mut shown);
            }
            let stored = bench.log.disk.lock().stored.take();
            *bench.log.disk.lock() = Disk { stored, ..Disk::default() };
            bench.restart().await;
            bench.settle().await;
            bench.interval().await;
            look(&mut shown);
            assert_eq!(shown, bench.reference());
            assert_eq!(bench.red().snapshot().totals.unmeasured, Unmeasured::default());
            assert_eq!(bench.log.stored_at(), Some(bench.log.end()));
        });
    }
}
