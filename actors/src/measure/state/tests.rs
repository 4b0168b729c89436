use super::*;
use crate::{
    measure::RedScratch,
    span::{SpanId, SpanView, TraceId},
};

const T0: Duration = Duration::from_secs(100);
const T1: Duration = Duration::from_secs(200);

fn delta(bounds: &Arc<Bounds>, names: &[&str]) -> RedDelta {
    let mut scratch = RedScratch::new(Arc::clone(bounds));
    for name in names {
        scratch.observe(&SpanView {
            service: "s",
            name,
            kind: SpanKind::Server,
            status: if *name == "bad" { StatusCode::Error } else { StatusCode::Ok },
            start_unix_nano: 0,
            end_unix_nano: 5_000_000,
            trace_id: TraceId::from_int(1),
            span_id: SpanId::from_int(1),
        });
    }
    scratch.take()
}

fn state(series_max: usize) -> (Arc<Bounds>, RedState) {
    let bounds = Arc::new(Bounds::default());
    (Arc::clone(&bounds), RedState::new(bounds, series_max))
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
    let (bounds, mut state) = state(10);
    let two = delta(&bounds, &["a", "b"]);
    assert_eq!(state.merge(1, &two, T0), Merge::Gap);
    assert_eq!(state.merge(0, &two, T0), Merge::Counted);
    assert_eq!(state.merge(0, &two, T1), Merge::Already);
    assert_eq!(state.merge(1, &two, T1), Merge::Gap, "half of it is counted");
    assert_eq!(state.merge(2, &delta(&bounds, &[]), T1), Merge::Already, "no spans, nothing to count");
    assert_eq!(state.position(), 2);
    assert_eq!(counts(&state), [("a".into(), 1, T0), ("b".into(), 1, T0)]);
}

#[test]
fn a_series_is_created_when_its_first_span_was_committed() {
    let (bounds, mut state) = state(10);
    state.merge(0, &delta(&bounds, &["a"]), T0);
    state.merge(1, &delta(&bounds, &["a", "b"]), T1);
    assert_eq!(counts(&state), [("a".into(), 2, T0), ("b".into(), 1, T1)]);
}

#[test]
fn past_the_cap_old_series_go_on_and_new_ones_share_the_overflow_series() {
    let (bounds, mut state) = state(2);
    state.merge(0, &delta(&bounds, &["a", "b", "c"]), T0);
    state.merge(3, &delta(&bounds, &["a", "bad", "d"]), T1);
    assert_eq!(counts(&state), [("a".into(), 2, T0), ("b".into(), 1, T0)]);
    let overflow = state.snapshot().overflow.unwrap();
    assert_eq!((overflow.count, overflow.errors, overflow.created), (3, 1, T0));
    assert_eq!(overflow.sum_nanos, 15_000_000);
    assert_eq!(overflow.buckets.iter().sum::<u64>(), 3);
    assert_eq!(state.position(), 6);
}

#[test]
fn a_delta_with_other_bounds_is_left_to_the_log() {
    let (_, mut state) = state(2);
    let other = Arc::new(Bounds::new(&[Duration::from_secs(1)]).unwrap());
    assert_eq!(state.merge(0, &delta(&other, &["a"]), T0), Merge::Gap);
    assert_eq!(state.position(), 0);
}

#[test]
fn what_the_log_cannot_give_back_is_passed_and_counted() {
    let (bounds, mut state) = state(2);
    state.merge(0, &delta(&bounds, &["a"]), T0);
    state.skip(2, 5, T1, |unmeasured| &mut unmeasured.damaged);
    assert_eq!(state.position(), 1, "the span between is not passed over");
    state.skip(0, 5, T1, |unmeasured| &mut unmeasured.damaged);
    state.skip(0, 3, T1, |unmeasured| &mut unmeasured.damaged);
    state.skip(5, 6, T1, |unmeasured| &mut unmeasured.released);
    assert_eq!(state.snapshot().unmeasured, Unmeasured { damaged: 4, released: 1 });
    assert_eq!(state.position(), 6);
}

#[test]
fn no_series_begins_before_one_that_was_committed_before_it_whatever_the_clock_did() {
    let (bounds, mut state) = state(10);
    state.merge(0, &delta(&bounds, &["a"]), T1);
    state.merge(1, &delta(&bounds, &["b"]), T0);
    assert_eq!(counts(&state), [("a".into(), 1, T1), ("b".into(), 1, T1)]);
}

#[test]
fn no_series_begins_before_the_counters_began_anew_in_the_next_process_either() {
    let bounds = Arc::new(Bounds::default());
    let anew = RedState::at(Arc::clone(&bounds), 1, 0, Some(T0), Continuity::new(true, 0, 10));
    let mut anew = anew.not_before(T0);
    anew.merge(0, &delta(&bounds, &["a"]), T0);
    anew.skip(1, 3, T1, |unmeasured| &mut unmeasured.damaged);
    let checkpoint = anew.checkpoint().unwrap();
    assert_eq!((checkpoint.position, checkpoint.created, checkpoint.series.len()), (3, T1, 0));
    for mut state in [anew, RedState::restored(Arc::clone(&bounds), 1, checkpoint, 10)] {
        state.merge(3, &delta(&bounds, &["a", "b"]), T0);
        assert_eq!(counts(&state), [("a".into(), 1, T1)]);
        assert_eq!(state.snapshot().overflow.unwrap().created, T1);
    }
}
