use proptest::prelude::*;

use super::*;
use crate::{
    measure::{Bounds, Exemplar, OTHER, RedScratch},
    span::{Sampler, SpanBytes, SpanId, SpanKind, SpanView, StatusCode, TraceId},
};

const T0: Duration = Duration::from_secs(100);
const T1: Duration = Duration::from_secs(200);

fn delta(settings: &Arc<RedSettings>, names: &[&str]) -> RedDelta {
    let mut scratch = RedScratch::new(Arc::clone(settings));
    for name in names {
        scratch.observe(&span(name, if *name == "bad" { StatusCode::Error } else { StatusCode::Ok }));
    }
    scratch.take()
}

fn span(name: &str, status: StatusCode) -> SpanView<'_> {
    SpanView {
        service: "s",
        name,
        kind: SpanKind::Server,
        status,
        start_unix_nano: 0,
        end_unix_nano: 5_000_000,
        trace_id: TraceId::from_int(1),
        span_id: SpanId::from_int(1),
        bytes: SpanBytes::default(),
    }
}

fn state(max_series: usize) -> (Arc<RedSettings>, RedState) {
    let settings = Arc::new(RedSettings { max_series, ..RedSettings::default() });
    (Arc::clone(&settings), RedState::new(settings))
}

fn counts(state: &RedState) -> Vec<(String, u64, Duration)> {
    let mut all: Vec<_> = state
        .snapshot()
        .series
        .iter()
        .map(|s| (s.name.to_string(), s.counts.count, s.counts.created))
        .collect();
    all.sort();
    all
}

#[test]
fn a_delta_counts_once_and_only_at_the_position() {
    let (settings, mut state) = state(10);
    let two = delta(&settings, &["a", "b"]);
    assert_eq!(state.merge(1, &two, T0), Merge::Gap);
    assert_eq!(state.merge(0, &two, T0), Merge::Counted);
    assert_eq!(state.merge(0, &two, T1), Merge::Already);
    assert_eq!(state.merge(1, &two, T1), Merge::Gap, "half of it is counted");
    assert_eq!(state.merge(2, &delta(&settings, &[]), T1), Merge::Already, "no spans, nothing to count");
    assert_eq!(state.position(), 2);
    assert_eq!(counts(&state), [("a".into(), 1, T0), ("b".into(), 1, T0)]);
}

#[test]
fn a_series_is_created_when_its_first_span_was_committed() {
    let (settings, mut state) = state(10);
    state.merge(0, &delta(&settings, &["a"]), T0);
    state.merge(1, &delta(&settings, &["a", "b"]), T1);
    assert_eq!(counts(&state), [("a".into(), 2, T0), ("b".into(), 1, T1)]);
}

#[test]
fn a_bucket_keeps_its_exemplar_until_a_batch_has_another() {
    let settings = Arc::new(RedSettings { exemplars: Some(Sampler::new(1.0)), ..RedSettings::default() });
    let mut state = RedState::new(Arc::clone(&settings));
    for (number, (millis, id)) in (0..).zip([(1, 1), (20_000, 2), (1, 3)]) {
        let mut scratch = RedScratch::new(Arc::clone(&settings));
        let (span_id, end_unix_nano) = (SpanId::from_int(id), millis * 1_000_000);
        scratch.observe(&SpanView { span_id, end_unix_nano, ..span("a", StatusCode::Ok) });
        state.merge(number, &scratch.take(), T0);
    }
    let exemplars = &state.snapshot().series[0].counts.exemplars;
    let ids = [0, 1, 16].map(|bucket| exemplars.get(bucket).map(|Exemplar { span_id, .. }| *span_id));
    assert_eq!(ids, [Some(SpanId::from_int(3)), None, Some(SpanId::from_int(2))]);
}

#[test]
fn past_the_cap_old_series_go_on_and_new_names_share_a_series_that_begins_at_0() {
    // Two places, and one for what is folded.
    let (settings, mut state) = state(3);
    state.merge(0, &delta(&settings, &["a", "b", "c"]), T0);
    state.merge(3, &delta(&settings, &["a", "d", "d"]), T1);
    assert_eq!(counts(&state), [("__other__".into(), 3, T0), ("a".into(), 2, T0), ("b".into(), 1, T0)]);
    // Of another status there is no room for a folded one.
    state.merge(6, &delta(&settings, &["bad", "c"]), T1);
    let snapshot = state.snapshot();
    let overflow = snapshot.overflow.unwrap();
    assert_eq!((overflow.count, overflow.errors, overflow.created), (1, 1, T1));
    assert_eq!((overflow.sum_nanos, overflow.buckets.iter().sum::<u64>()), (5_000_000, 1));
    assert_eq!((state.position(), snapshot.totals.folded), (8, 5));
}

#[test]
fn an_idle_operation_goes_as_a_whole_and_begins_anew_when_it_returns() {
    let after = Duration::from_secs(50);
    let settings = Arc::new(RedSettings { expire_after: Some(after), ..RedSettings::default() });
    let mut state = RedState::new(Arc::clone(&settings));
    state.merge(0, &delta(&settings, &["a", "b"]), T0);
    state.merge(2, &delta(&settings, &["b"]), T0 + after);
    assert_eq!(counts(&state), [("a".into(), 1, T0), ("b".into(), 2, T0)], "it is not idle for longer");
    state.merge(3, &delta(&settings, &["b"]), T0 + after + after / EXPIRY_PARTS);
    assert_eq!((counts(&state), state.snapshot().totals.expired), (vec![("b".into(), 3, T0)], 1));
    let later = T1 + after;
    state.merge(4, &delta(&settings, &["a"]), later);
    assert_eq!(counts(&state), [("a".into(), 1, later)], "b was idle for too long by then");
    assert_eq!(state.snapshot().totals.expired, 2);
    state.merge(5, &delta(&settings, &["b"]), later);
    assert_eq!(counts(&state), [("a".into(), 1, later), ("b".into(), 1, later)]);
}

#[test]
fn what_comes_back_before_it_is_removed_goes_on_where_it_was() {
    let after = Duration::from_secs(64);
    let settings = Arc::new(RedSettings { expire_after: Some(after), ..RedSettings::default() });
    let mut state = RedState::new(Arc::clone(&settings));
    let second = Duration::from_secs(1);
    state.merge(0, &delta(&settings, &["a", "b"]), T0 + second / 4);
    state.merge(2, &delta(&settings, &["c"]), T0 + after);
    // A part begins with each second.
    let late = T0 + after + second / 2;
    let mut page = state.snapshot();
    page.leave_out_idle(late - after);
    assert_eq!(page.series.len(), 1, "a and b are idle");
    state.merge(3, &delta(&settings, &["a"]), late);
    let (a, c) = (("a".to_owned(), 2, T0 + second / 4), ("c".to_owned(), 1, T0 + after));
    assert_eq!(counts(&state), [a.clone(), ("b".into(), 1, T0 + second / 4), c.clone()]);
    state.merge(4, &delta(&settings, &[]), T0 + after + second);
    assert_eq!(state.snapshot().totals.expired, 0, "no span, no commit");
    state.merge(4, &delta(&settings, &["c"]), T0 + after + second);
    assert_eq!(counts(&state), [a, ("c".into(), 2, c.2)]);
}

#[test]
fn an_operation_with_one_busy_status_keeps_the_others_so_that_its_errors_do_not_go_back() {
    let after = Duration::from_secs(50);
    let settings = Arc::new(RedSettings { expire_after: Some(after), ..RedSettings::default() });
    let mut state = RedState::new(Arc::clone(&settings));
    let of = |status| {
        let mut scratch = RedScratch::new(Arc::clone(&settings));
        scratch.observe(&span("pay", status));
        scratch.take()
    };
    state.merge(0, &of(StatusCode::Error), T0);
    for (number, seconds) in (1..10).zip((0..).step_by(20)) {
        state.merge(number, &of(StatusCode::Ok), T0 + Duration::from_secs(seconds));
    }
    assert_eq!(state.snapshot().series.iter().map(|series| series.counts.errors).sum::<u64>(), 1);
}

#[test]
fn what_expires_makes_room_and_its_service_is_no_longer_folded() {
    let after = Duration::from_secs(50);
    let settings = RedSettings { max_series: 10, expire_after: Some(after), ..RedSettings::default() };
    let settings = Arc::new(settings);
    let mut state = RedState::new(Arc::clone(&settings));
    let many: Vec<String> = (0..20).map(|number| format!("name {number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    state.merge(0, &delta(&settings, &many), T0);
    assert!(counts(&state).iter().any(|(name, ..)| name == "__other__"));
    state.merge(20, &delta(&settings, &["new"]), T1);
    assert_eq!(counts(&state), [("new".into(), 1, T1)]);
    assert_eq!(state.cap.offenders().0, []);
}

#[test]
fn the_sum_of_a_span_name_does_not_go_back_when_one_of_its_series_expires() {
    let after = Duration::from_secs(50);
    let settings = Arc::new(RedSettings { expire_after: Some(after), ..RedSettings::default() });
    let mut state = RedState::new(Arc::clone(&settings));
    let sum = |state: &RedState| seed_count(&state.snapshot(), "nyx_span_count_GET__");
    // Two operations of one name in metrics.
    state.merge(0, &delta(&settings, &["GET /", "GET /", "GET -"]), T0);
    assert_eq!(sum(&state), Some(3.0));
    state.merge(3, &delta(&settings, &["GET -"]), T0 + after);
    state.merge(4, &delta(&settings, &["other"]), T0 + after + after / EXPIRY_PARTS);
    assert_eq!((state.snapshot().totals.expired, sum(&state)), (1, Some(4.0)));
    state.merge(5, &delta(&settings, &["other"]), T1 + after);
    assert_eq!(sum(&state), None, "when no series has the name any more, it goes");
}

/// The value of a family that is named after spans.
fn seed_count(snapshot: &RedSnapshot, name: &str) -> Option<f64> {
    let mut page = crate::metrics::Page::new(Duration::ZERO);
    seed::collect(snapshot, &mut page);
    let families = page.finish(&crate::metrics::LeftOut::default());
    let family = families.iter().find(|family| family.open_name == name)?;
    Some(family.family.get_metric()[0].get_gauge().get_value())
}

#[test]
fn the_sum_of_what_stands_for_many_does_not_go_back_while_the_overflow_series_is_there() {
    let after = Duration::from_secs(50);
    let settings =
        Arc::new(RedSettings { max_series: 3, expire_after: Some(after), ..RedSettings::default() });
    let mut state = RedState::new(Arc::clone(&settings));
    // "c" is folded, and of another status there is no place for that.
    state.merge(0, &delta(&settings, &["a", "b", "c", "bad"]), T0);
    assert!(state.snapshot().overflow.is_some());
    let sum = |snapshot: &RedSnapshot| seed_count(snapshot, "nyx_span_count___other__");
    assert_eq!(sum(&state.snapshot()), Some(2.0));
    let mut left_out = state.snapshot();
    left_out.leave_out_idle(T1);
    assert_eq!((left_out.series.len(), sum(&left_out)), (0, Some(2.0)));
    state.merge(4, &delta(&settings, &["new"]), T1);
    assert_eq!((state.snapshot().totals.expired, sum(&state.snapshot())), (3, Some(2.0)));
}

#[test]
fn a_page_leaves_out_what_is_idle_though_no_commit_has_removed_it_yet() {
    let (settings, mut state) = state(10);
    state.merge(0, &delta(&settings, &["a"]), T0);
    state.merge(1, &delta(&settings, &["b"]), T1);
    let mut snapshot = state.snapshot();
    snapshot.series.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
    snapshot.leave_out_idle(T1);
    assert_eq!(snapshot.series.iter().map(|series| &*series.name).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_delta_with_other_bounds_is_left_to_the_log() {
    let (_, mut state) = state(2);
    let bounds = Bounds::new(&[Duration::from_secs(1)]).unwrap();
    let other = Arc::new(RedSettings { bounds, ..RedSettings::default() });
    assert_eq!(state.merge(0, &delta(&other, &["a"]), T0), Merge::Gap);
    assert_eq!(state.position(), 0);
}

#[test]
fn what_the_log_cannot_give_back_is_passed_and_counted() {
    let (settings, mut state) = state(2);
    state.merge(0, &delta(&settings, &["a"]), T0);
    state.skip(2, 5, T1, |unmeasured| &mut unmeasured.damaged);
    assert_eq!(state.position(), 1, "the span between is not passed over");
    state.skip(0, 5, T1, |unmeasured| &mut unmeasured.damaged);
    state.skip(0, 3, T1, |unmeasured| &mut unmeasured.damaged);
    state.skip(5, 6, T1, |unmeasured| &mut unmeasured.released);
    assert_eq!(state.snapshot().totals.unmeasured, Unmeasured { damaged: 4, released: 1 });
    assert_eq!(state.position(), 6);
}

#[test]
fn no_series_begins_before_one_that_was_committed_before_it_whatever_the_clock_did() {
    let (settings, mut state) = state(10);
    state.merge(0, &delta(&settings, &["a"]), T1);
    state.merge(1, &delta(&settings, &["b"]), T0);
    assert_eq!(counts(&state), [("a".into(), 1, T1), ("b".into(), 1, T1)]);
}

#[test]
fn no_series_begins_before_the_counters_began_anew_in_the_next_process_either() {
    let settings = Arc::new(RedSettings { max_series: 2, ..RedSettings::default() });
    let anew = RedState::at(Arc::clone(&settings), 0, Some(T0), Continuity::new(true, 0, 10));
    let mut anew = anew.not_before(T0);
    anew.merge(0, &delta(&settings, &["a"]), T0);
    anew.departed.insert("a".to_owned(), seed::Sums::default());
    anew.skip(1, 3, T1, |unmeasured| &mut unmeasured.damaged);
    assert_eq!((anew.departed.len(), anew.snapshot().totals), (0, RedTotals::default()));
    let checkpoint = anew.checkpoint().unwrap();
    assert_eq!((checkpoint.position, checkpoint.created, checkpoint.series.len()), (3, T1, 0));
    for mut state in [anew, RedState::restored(Arc::clone(&settings), checkpoint, 10)] {
        state.merge(3, &delta(&settings, &["a", "b"]), T0);
        assert_eq!(counts(&state), [("__other__".into(), 1, T1), ("a".into(), 1, T1)]);
    }
}

/// What a state is, whatever the order in which its table gives series out.
fn whole(state: &RedState) -> (RedSnapshot, Vec<crate::measure::cap::StoredFolding>) {
    let mut snapshot = state.snapshot();
    snapshot.series.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
    (snapshot, state.cap.stored().0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Batches of names, each some seconds after the one before; then a process goes on from a checkpoint that was made
    /// after some of them.
    #[test]
    fn a_process_that_goes_on_from_any_checkpoint_comes_to_the_same(
        batches in prop::collection::vec((prop::collection::vec(0u8..40, 1..8), 0u64..30), 1..40),
        at in any::<prop::sample::Index>(),
        max_series in 1usize..24,
        expire_after in prop::option::of((1u64..60).prop_map(Duration::from_secs)),
    ) {
        let settings = Arc::new(RedSettings { max_series, expire_after, ..RedSettings::default() });
        let begin = || {
            let continuity = Continuity::new(true, 0, 0);
            RedState::at(Arc::clone(&settings), 0, Some(T0), continuity)
        };
        let (mut straight, mut stopped) = (begin(), None);
        let (mut position, mut time) = (0, T0);
        let mut merges = Vec::new();
        for (number, (names, gap)) in batches.iter().enumerate() {
            // One of them is called like what stands for many.
            let name = |name: &u8| if *name == 0 { OTHER.to_owned() } else { format!("name {name}") };
            let names: Vec<String> = names.iter().map(name).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            time += Duration::from_secs(*gap);
            straight.merge(position, &delta(&settings, &names), time);
            // As a batch, and then span by span.
            merges.extend((position..).zip(&names).map(|(at, name)| (at, delta(&settings, &[name]), time)));
            position += names.len() as u64;
            if number == at.index(batches.len()) {
                let bytes = straight.checkpoint().unwrap().encode(crate::measure::checkpoint::schema(&settings), 0);
                stopped = Some(Checkpoint::decode(&bytes, &settings).unwrap());
            }
        }
        let mut next = RedState::restored(Arc::clone(&settings), stopped.unwrap(), position);
        for (at, delta, time) in &merges {
            prop_assert!(next.merge(*at, delta, *time) != Merge::Gap);
        }
        let (mut next, straight) = (whole(&next), whole(&straight));
        next.0.restoring = None;
        prop_assert_eq!(next, straight);
    }
}
