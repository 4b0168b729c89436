use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{
    measure::{RedCounts, RedKey, RedTotals, seed::Departed, sketch::Sketch},
    span::{SpanKind, StatusCode},
};

fn dimensions(labels: &[&str]) -> Dimensions {
    Dimensions::new(&labels.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
}

fn series(name: &str, values: &[&str], count: u64) -> RedSeries {
    let mut joined = Joined::default();
    values.iter().for_each(|value| joined.push(value));
    let key = RedKey {
        service: "s",
        name,
        kind: SpanKind::Server,
        dimensions: joined.values(),
        overflow: false,
        status: StatusCode::Ok,
    };
    let mut series = RedSeries::new(&key, 3, std::time::Duration::from_secs(1));
    series.counts = RedCounts { count, ..series.counts };
    series
}

fn folding(label: Label) -> StoredFolding {
    StoredFolding { service: "s".into(), label, distinct: Sketch::EMPTY }
}

fn checkpoint(series: Vec<RedSeries>, foldings: Vec<StoredFolding>) -> Checkpoint {
    Checkpoint {
        position: 7,
        created: std::time::Duration::ZERO,
        latest: std::time::Duration::ZERO,
        totals: RedTotals::default(),
        overflow: None,
        departed: Departed::new(),
        series,
        foldings,
        turned_away: Sketch::EMPTY,
    }
}

/// The labels as a page has them: an empty one is none.
fn labels(series: &RedSeries, dimensions: &Dimensions) -> (String, BTreeMap<String, String>) {
    let values = series.dimensions.values();
    let all =
        dimensions.labels().enumerate().map(|(at, label)| (label.to_owned(), values.get(at).to_owned()));
    (series.name.to_string(), all.filter(|(_, value)| !value.is_empty()).collect())
}

#[test]
fn series_go_on_under_the_same_labels_and_end_with_a_value_that_is_none_any_more() {
    let (before, now) = (dimensions(&["route", "host"]), dimensions(&["zone", "host"]));
    let all = vec![series("a", &["", "h"], 1), series("a", &["", ""], 2), series("a", &["/x", "h"], 3)];
    let folded = [Label::NAME, Label::of_dimension(0).unwrap(), Label::of_dimension(1).unwrap()];
    let checkpoint = checkpoint(all, folded.map(folding).to_vec());
    let (after, ended) = regroup(checkpoint.clone(), &before, &now);
    assert_eq!(after.series, [series("a", &["", "h"], 1), series("a", &["", ""], 2)]);
    assert_eq!((ended, after.departed["a"].count), (1, 3));
    let labels: Vec<_> = after.foldings.iter().map(|it| it.label).collect();
    assert_eq!(labels, [Label::NAME, Label::of_dimension(1).unwrap()]);
    assert_eq!(regroup(checkpoint.clone(), &before, &before), (checkpoint, 0));
}

#[test]
fn sums_of_names_that_nobody_has_any_more_are_forgotten_with_the_next_change() {
    let (none, key) = (dimensions(&[]), dimensions(&["key"]));
    let (after, _) = regroup(checkpoint(vec![series("a", &["1"], 5)], vec![]), &key, &none);
    assert_eq!((after.series.len(), after.departed["a"].count), (0, 5));
    let (after, _) = regroup(after, &none, &key);
    assert_eq!(after.departed.len(), 0);
}

#[test]
fn the_sum_of_what_stands_for_many_goes_on_with_the_overflow_series() {
    let (none, key) = (dimensions(&[]), dimensions(&["key"]));
    let overflow = Some(series("", &[], 1).counts);
    let departed = Departed::from([(OTHER.to_owned(), seed::Sums { count: 2, ..seed::Sums::default() })]);
    let before = Checkpoint { overflow, departed: departed.clone(), ..checkpoint(vec![], vec![]) };
    assert_eq!(regroup(before.clone(), &none, &key).0.departed, departed);
    assert_eq!(regroup(Checkpoint { overflow: None, ..before }, &none, &key).0.departed, Departed::new());
}

proptest! {
    /// Whatever the dimensions before and after: no labels stand for two series, those of a page go on with what they
    /// counted, and each sum over a name stays.
    #[test]
    fn nothing_is_merged_and_nothing_goes_back(
        before in proptest::sample::subsequence(vec!["a", "b", "c", "d"], 0..=4).prop_shuffle(),
        now in proptest::sample::subsequence(vec!["a", "b", "c", "d"], 0..=4).prop_shuffle(),
        rows in proptest::collection::btree_map((0..3_u8, proptest::collection::vec(0..3_u8, 4)), 1..9_u64, 0..20),
    ) {
        let (before, now) = (dimensions(&before), dimensions(&now));
        let texts = ["", "x", "y"];
        let mut rows: BTreeMap<_, _> = rows;
        let mut seen = BTreeSet::new();
        rows.retain(|(name, values), _| seen.insert((*name, values[..before.len()].to_vec())));
        let all: Vec<_> = rows
            .iter()
            .map(|((name, values), count)| {
                let values: Vec<_> = values.iter().take(before.len()).map(|at| texts[*at as usize]).collect();
                series(&format!("n{name}"), &values, *count)
            })
            .collect();
        let shown: BTreeMap<_, _> = all.iter().map(|it| (labels(it, &before), it.counts.count)).collect();
        prop_assert_eq!(shown.len(), all.len());
        let (after, ended) = regroup(checkpoint(all.clone(), vec![]), &before, &now);
        let on: BTreeMap<_, _> = after.series.iter().map(|it| (labels(it, &now), it.counts.count)).collect();
        prop_assert_eq!((on.len(), after.series.len() + ended), (after.series.len(), all.len()));
        for (labels, count) in &shown {
            let possible = labels.1.keys().all(|label| now.labels().any(|other| other == label));
            prop_assert_eq!(on.get(labels), possible.then_some(count));
        }
        for name in ["n0", "n1", "n2"] {
            let of = |it: &&RedSeries| &*it.name == name;
            let sum = |all: &[RedSeries]| all.iter().filter(of).map(|it| it.counts.count).sum::<u64>();
            let departed = after.departed.get(name).map_or(0, |sums| sums.count);
            prop_assert_eq!(sum(&all), sum(&after.series) + departed);
        }
    }
}
