//! Other settings while the counters run.

use super::*;
use crate::measure::change::{Remeasure, RemeasureError};

/// Timers are as exact as this.
const TICK: Duration = Duration::from_millis(1);

fn durable() -> Bench {
    Bench::with(0, Durability::Process, roomy())
}

fn by_key() -> RedSettings {
    RedSettings { dimensions: Dimensions::new(&["key".to_owned()]).unwrap(), ..roomy() }
}

type Answer = oneshot::Receiver<Result<(), RemeasureError>>;

impl Bench {
    async fn ask(&self, settings: RedSettings) -> Answer {
        let (done, answer) = oneshot::channel();
        let actor = self.actor.borrow().clone();
        actor.send(Remeasure { settings: Box::new(settings), done }).await.unwrap();
        self.let_run().await;
        answer
    }

    async fn change(&self, settings: RedSettings) -> Result<(), RemeasureError> {
        self.ask(settings).await.await.unwrap()
    }

    async fn count(&self, all: &[&str]) {
        let message = self.commit(&names(all));
        self.tell(message).await;
    }

    async fn next_checkpoint(&self) {
        tokio::time::advance(INTERVAL + TICK).await;
        self.let_run().await;
    }
}

/// Each series' count and beginning, by its name and the value of its dimension.
fn page(bench: &Bench) -> BTreeMap<String, (u64, Duration)> {
    let snapshot = bench.red().snapshot();
    assert_eq!(snapshot.restoring, None);
    let name = |it: &RedSeries| format!("{}{}", it.name, it.dimensions.values().get(0));
    snapshot.series.iter().map(|it| (name(it), (it.counts.count, it.counts.created))).collect()
}

fn counts(bench: &Bench) -> Vec<(String, u64)> {
    page(bench).into_iter().map(|(name, (count, _))| (name, count)).collect()
}

fn are(counts: &[(&str, u64)]) -> Vec<(String, u64)> {
    counts.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
}

/// What the family of a name sums up, over series and those that ended.
fn sum_of(bench: &Bench, name: &str) -> u64 {
    let snapshot = bench.red().snapshot();
    let series =
        snapshot.series.iter().filter(|series| &*series.name == name).map(|series| series.counts.count);
    series.sum::<u64>() + snapshot.departed.get(name).map_or(0, |sums| sums.count)
}

#[test]
fn dimensions_come_and_go_and_no_counter_goes_back() {
    for durability in [Durability::Memory, Durability::Process] {
        run(async move {
            let bench = Bench::with(0, durability, roomy());
            bench.count(&["a", "b", "a"]).await;
            let before = page(&bench);
            let created = bench.red().snapshot().created;
            assert_eq!(bench.change(by_key()).await, Ok(()));
            assert_eq!(page(&bench), before, "an empty dimension is none");
            bench.count(&["a", "a"]).await;
            assert_eq!(counts(&bench), are(&[("a", 2), ("a1", 2), ("b", 1)]));
            assert!(page(&bench)["a1"].1 >= before["a"].1, "it begins with its first span");
            assert_eq!(sum_of(&bench, "a"), 4);

            // The series with a value ends, and what it would have counted goes where such spans went before.
            assert_eq!(bench.change(roomy()).await, Ok(()));
            assert_eq!(page(&bench), before);
            assert_eq!(sum_of(&bench, "a"), 4, "the family of the name does not go back");
            bench.count(&["a"]).await;
            assert_eq!(counts(&bench), are(&[("a", 3), ("b", 1)]));
            assert_eq!(sum_of(&bench, "a"), 5);
            let snapshot = bench.red().snapshot();
            assert_eq!((snapshot.position, snapshot.created, snapshot.totals.caught_up), (6, created, 0));
        });
    }
}

#[test]
fn what_was_scanned_before_a_change_is_counted_from_the_log_once_and_under_the_new_settings() {
    run(async {
        let bench = durable();
        bench.count(&["a"]).await;
        let (late, twice) = (bench.commit(&names(&["a", "b"])), bench.commit(&names(&["b"])));
        assert_eq!(bench.change(by_key()).await, Ok(()));
        bench.tell(again(&late)).await;
        bench.tell(twice).await;
        bench.tell(late).await;
        bench.settle().await;
        assert_eq!(counts(&bench), are(&[("a", 1), ("a1", 1), ("b2", 2)]));
        assert_eq!(bench.red().snapshot().totals.caught_up, 3);
        bench.count(&["a"]).await;
        assert_eq!(bench.red().snapshot().totals.caught_up, 3, "who scans from now on does so with them");
    });
}

#[test]
fn nothing_is_counted_or_shown_otherwise_before_the_checkpoint_is_stored() {
    run(async {
        let bench = durable();
        bench.count(&["a"]).await;
        bench.next_checkpoint().await;
        bench.log.disk.lock().hold = true;
        let answer = bench.ask(by_key()).await;
        bench.count(&["a"]).await;
        drop(bench.commit(&names(&["b"])));
        bench.next_checkpoint().await;
        assert_eq!((bench.red().position(), counts(&bench)), (1, are(&[("a", 1)])));
        assert_eq!(bench.red().settings().dimensions.len(), 0);
        assert_eq!(bench.change(roomy()).await, Err(RemeasureError::Busy));
        bench.log.disk.lock().hold = false;
        bench.log.release(Ok(()));
        assert_eq!(answer.await, Ok(Ok(())));
        bench.settle().await;
        assert_eq!(counts(&bench), are(&[("a", 1), ("a1", 1), ("b2", 1)]));
    });
}

#[test]
fn a_process_that_ends_at_once_is_followed_by_one_that_shows_the_same() {
    run(async {
        let bench = durable();
        bench.count(&["a", "b"]).await;
        bench.change(by_key()).await.unwrap();
        assert_eq!(bench.log.stored_at(), Some(2));
        let before = page(&bench);
        bench.restart_with(by_key()).await;
        assert_eq!(page(&bench), before);
        bench.count(&["a", "c"]).await;
        bench.next_checkpoint().await;
        bench.change(roomy()).await.unwrap();
        // The series of the key ended; those without it go on.
        let (before, sum) = (page(&bench), sum_of(&bench, "a"));
        bench.restart_with(roomy()).await;
        assert_eq!((page(&bench), sum_of(&bench, "a")), (before, sum));
        assert_eq!((counts(&bench), sum), (are(&[("a", 1), ("b", 1)]), 2));
    });
}

#[test]
fn where_the_checkpoint_cannot_be_stored_everything_stays_and_is_stored_again() {
    run(async {
        let bench = durable();
        bench.count(&["a"]).await;
        bench.next_checkpoint().await;
        bench.log.disk.lock().fail = Some("disk is full");
        let refused = bench.change(by_key()).await.unwrap_err();
        assert_eq!(refused.to_string(), "their checkpoint cannot be stored: disk is full");
        bench.count(&["a"]).await;
        assert_eq!(counts(&bench), are(&[("a", 2)]));
        bench.log.disk.lock().fail = None;
        bench.next_checkpoint().await;
        bench.restart().await;
        assert_eq!(counts(&bench), are(&[("a", 2)]));
        assert_eq!(bench.change(by_key()).await, Ok(()));
    });
}

#[test]
fn a_change_that_nobody_waits_for_any_more_does_not_come() {
    run(async {
        let bench = durable();
        bench.count(&["a"]).await;
        bench.next_checkpoint().await;
        let asked = |bench: &Bench| bench.log.disk.lock().asked;
        for crash in [false, true] {
            bench.log.disk.lock().hold = true;
            let answer = bench.ask(by_key()).await;
            if crash {
                bench.crash().await;
                assert!(answer.await.is_err());
            } else {
                drop(answer);
            }
            bench.log.disk.lock().hold = false;
            while !bench.log.disk.lock().held.is_empty() {
                bench.log.release(Ok(()));
            }
            bench.let_run().await;
            assert_eq!((bench.red().settings().dimensions.len(), counts(&bench)), (0, are(&[("a", 1)])));
            let before = asked(&bench);
            bench.next_checkpoint().await;
            assert!(crash || asked(&bench) > before, "what is stored is of other counters");
            bench.restart().await;
            bench.let_run().await;
            assert_eq!(counts(&bench), are(&[("a", 1)]));
        }
    });
}

#[test]
fn nothing_changes_while_what_an_earlier_process_counted_is_counted_again() {
    run(async {
        let bench = Bench::with(2, Durability::Process, roomy());
        bench.let_run().await;
        bench.count(&["a", "b"]).await;
        bench.restart().await;
        let (done, answer) = oneshot::channel();
        let change = Remeasure { settings: Box::new(by_key()), done };
        let red = bench.red();
        assert!(red.snapshot().restoring.is_some());
        assert_eq!(red.prepare(by_key()).map(drop), Err(RemeasureError::Restoring));
        let actor = bench.actor.borrow().clone();
        actor.send(change).await.unwrap();
        bench.settle().await;
        let refused = answer.await.unwrap();
        assert!(matches!(refused, Err(RemeasureError::Restoring) | Ok(())), "{refused:?}");
        assert_eq!(counts(&bench), are(&[("a", 1), ("b", 1)]));
    });
}

#[test]
fn a_lower_cap_takes_no_series_away_and_lets_no_further_ones_in_over_a_restart_too() {
    run(async {
        let bench = durable();
        let all: Vec<String> = (0..40).map(|number| format!("name {number}")).collect();
        let message = bench.commit(&all);
        bench.tell(message).await;
        let low = RedSettings { max_series: 10, ..roomy() };
        assert_eq!(bench.change(low.clone()).await, Ok(()));
        assert_eq!(counts(&bench).len(), 40);
        bench.count(&["new", "name 7"]).await;
        let before = page(&bench);
        assert_eq!((before["name 7"].0, before["__other__"].0, before.len()), (2, 1, 41));
        bench.next_checkpoint().await;
        bench.restart_with(low).await;
        assert_eq!(page(&bench), before);
        assert_eq!(bench.change(roomy()).await, Ok(()));
        bench.count(&["newer"]).await;
        assert_eq!(counts(&bench).len(), 42, "and with room again they get their own");
    });
}

#[test]
fn what_is_only_shown_otherwise_takes_no_checkpoint() {
    run(async {
        let bench = durable();
        bench.count(&["a"]).await;
        let asked = bench.log.disk.lock().asked;
        let tempo = RedSettings { profile: Profile::Tempo, seed_families: false, ..roomy() };
        assert_eq!(bench.change(tempo).await, Ok(()));
        assert_eq!(
            (bench.red().snapshot().settings.profile, bench.log.disk.lock().asked),
            (Profile::Tempo, asked)
        );
        assert_eq!(counts(&bench), are(&[("a", 1)]));
    });
}

#[test]
fn exemplars_follow_the_rate_that_holds_now_also_those_that_are_there_or_under_way() {
    run(async {
        let all = Some(Sampler::new(1.0));
        let bench = Bench::with(0, Durability::Memory, RedSettings { exemplars: all, ..roomy() });
        let have = |bench: &Bench| {
            let series = bench.red().snapshot().series;
            let bucket = |exemplars: &Exemplars| (0..20).any(|bucket| exemplars.get(bucket).is_some());
            series.iter().filter(|series| bucket(&series.counts.exemplars)).count()
        };
        bench.count(&["a", "b"]).await;
        assert_eq!(have(&bench), 2);
        let under_way = bench.commit(&names(&["c"]));
        bench.red().exemplify(Some(Sampler::new(0.0)));
        assert_eq!(have(&bench), 0);
        bench.tell(under_way).await;
        assert_eq!((have(&bench), counts(&bench).len()), (0, 3));
        bench.count(&["a"]).await;
        assert_eq!(have(&bench), 0);
        bench.red().exemplify(all);
        bench.count(&["a"]).await;
        assert_eq!(have(&bench), 1);
        // Other settings do not touch them.
        assert_eq!(bench.change(by_key()).await, Ok(()));
        assert_eq!(have(&bench), 1);
        bench.count(&["b"]).await;
        assert_eq!(have(&bench), 2);
        bench.red().exemplify(None);
        bench.count(&["b"]).await;
        assert_eq!(have(&bench), 0);
    });
}
