use proptest::prelude::*;

use super::*;
use crate::measure::{Bounds, Dimensions};

const SERIES_MAX: usize = 4;

fn settings() -> RedSettings {
    RedSettings {
        max_series: SERIES_MAX,
        bounds: Bounds::new(&[Duration::from_millis(2), Duration::from_secs(1)]).unwrap(),
        dimensions: Dimensions::new(&["route".to_owned()]).unwrap(),
        ..RedSettings::default()
    }
}

fn counts(seed: u64) -> RedCounts {
    RedCounts {
        count: seed,
        errors: seed / 2,
        sum_nanos: u128::from(seed) << 70,
        buckets: [seed, 0, u64::MAX].into(),
        created: Duration::from_nanos(1_700_000_000_000_000_001),
        last: Duration::from_nanos(1_700_000_000_000_000_002),
        exemplars: Exemplars::default(),
    }
}

fn series(service: &str, name: &str) -> RedSeries {
    let (kind, status) = (SpanKind::Consumer, StatusCode::Error);
    let mut joined = Joined::default();
    joined.push("/pay");
    let dimensions = joined.values().into();
    let (service, name) = (service.into(), name.into());
    RedSeries { service, name, kind, dimensions, overflow: false, status, counts: counts(7) }
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        position: 600,
        created: Duration::from_secs(1),
        latest: Duration::from_secs(2),
        totals: RedTotals {
            unmeasured: Unmeasured { damaged: 4, released: 5 },
            caught_up: 3,
            folded: 6,
            cut: 7,
            expired: 8,
        },
        overflow: Some(counts(9)),
        departed: [("GET__".to_owned(), Sums { count: 1, errors: 2, sum_nanos: 3 })].into(),
        series: vec![series("", ""), series("shop", "GET /"), series("shop", "é")],
        foldings: vec![folding("a", 1), folding("a", 0), folding("b", 0)],
        turned_away: Sketch::EMPTY,
    }
}

fn folding(service: &str, label: u8) -> StoredFolding {
    let mut distinct = Sketch::EMPTY;
    distinct.see(service);
    let label = Label::from_number(label, 1).unwrap();
    StoredFolding { service: service.into(), label, distinct }
}

fn encoded(checkpoint: Checkpoint) -> Bytes {
    checkpoint.encode(schema(&settings()), 1)
}

fn decoded(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::decode(bytes, &settings())
}

#[test]
fn a_checkpoint_comes_back_as_it_was() {
    assert_eq!(decoded(&encoded(checkpoint())), Ok(checkpoint()));
    let (departed, series, foldings) = (Departed::new(), vec![], vec![]);
    let empty = Checkpoint { overflow: None, departed, series, foldings, ..checkpoint() };
    assert_eq!(encoded(empty.clone()).len(), HEAD_BYTES + 1 + 4 + 4 + 4);
    assert_eq!(decoded(&encoded(empty.clone())), Ok(empty));
}

#[test]
fn the_order_in_which_series_come_out_of_their_table_does_not_matter() {
    let mut other = checkpoint();
    other.series.reverse();
    assert_eq!(encoded(other), encoded(checkpoint()));
}

#[test]
fn a_checkpoint_that_is_too_short_or_too_long_is_damaged() {
    let bytes = encoded(checkpoint());
    for end in 0..bytes.len() {
        assert_eq!(decoded(&bytes[..end]), Err(CheckpointError::Damaged), "{end} bytes");
    }
    assert_eq!(decoded(&[&bytes[..], &[0]].concat()), Err(CheckpointError::Damaged));
}

#[test]
fn no_flipped_bit_does_harm() {
    let bytes = encoded(checkpoint());
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // The frame's checksum is what notices; here it may be another value, and is bounded.
        match decoded(&flipped) {
            Ok(read) => {
                assert_ne!(read, checkpoint(), "bit {bit}");
                assert!(read.series.len() <= SERIES_MAX);
            }
            Err(error) => assert_eq!(error == CheckpointError::Schema, bit < 64, "bit {bit}"),
        }
    }
}

#[test]
fn what_could_not_have_been_written_is_damaged() {
    let damaged = |change: fn(&mut Checkpoint)| {
        let mut checkpoint = checkpoint();
        change(&mut checkpoint);
        assert_eq!(decoded(&encoded(checkpoint)), Err(CheckpointError::Damaged));
    };
    damaged(|it| {
        let names = (0..=*RedSettings::MAX_SERIES.end()).map(|number| format!("{number:06}"));
        it.series = names.map(|name| series("more than any cap", &name)).collect();
    });
    // The cap may have been lowered since they came.
    let many = ["a", "b", "c", "d", "e"].map(|name| series("more than the cap", name)).into();
    let many = Checkpoint { series: many, ..checkpoint() };
    assert_eq!(decoded(&encoded(many.clone())), Ok(many));
    damaged(|it| it.series = vec![series("twice", "the same"), series("twice", "the same")]);
    damaged(|it| it.series = vec![series("", &"x".repeat(LABEL_BYTES_MAX + 1))]);
    damaged(|it| it.series = vec![series(&"x".repeat(70_000), "")]);
    let whole = Checkpoint { series: vec![series("", &"x".repeat(LABEL_BYTES_MAX))], ..checkpoint() };
    assert_eq!(decoded(&encoded(whole.clone())), Ok(whole));

    let departed =
        |names: usize| -> Departed { (0..names).map(|name| (format!("{name}"), Sums::default())).collect() };
    let names_max = RedSettings::MAX_SERIES.end() + 1;
    let most = Checkpoint { departed: departed(names_max), ..checkpoint() };
    assert_eq!(decoded(&encoded(most.clone())), Ok(most));
    let more = Checkpoint { departed: departed(names_max + 1), ..checkpoint() };
    assert_eq!(decoded(&encoded(more)), Err(CheckpointError::Damaged));

    damaged(|it| it.foldings.swap(0, 2));
    damaged(|it| it.foldings = vec![folding("a", 1), folding("a", 1)]);

    let (departed, series) = (Departed::new(), vec![series("s", "n")]);
    let one = Checkpoint { overflow: None, departed, series, foldings: vec![], ..checkpoint() };
    let bytes = encoded(one.clone());
    let first = HEAD_BYTES + 1 + 4 + 4 + 4;
    for (at, value, what) in [
        (HEAD_BYTES, 2, "overflow that is neither there nor not"),
        (HEAD_BYTES + 4, 0xff, "four billion names"),
        (HEAD_BYTES + 8, 0xff, "four billion foldings"),
        (HEAD_BYTES + 12, 0xff, "four billion series"),
        (first + 2, 0xff, "a service that is no text"),
        (first + 12, 6, "a kind that is none"),
        (first + 13, 2, "a series that neither stands for many nor does not"),
        (first + 14, 3, "a status that is none"),
    ] {
        let mut bytes = bytes.to_vec();
        bytes[at] = value;
        assert_eq!(decoded(&bytes), Err(CheckpointError::Damaged), "{what}");
    }
}

#[test]
fn other_bounds_limits_or_dimensions_make_another_schema() {
    let bytes = encoded(checkpoint());
    let bounds = |millis: &[u64]| {
        let millis: Vec<_> = millis.iter().copied().map(Duration::from_millis).collect();
        Bounds::new(&millis).unwrap()
    };
    let dimensions = |name: &str| Dimensions::new(&[name.to_owned()]).unwrap();
    for other in [
        RedSettings { bounds: bounds(&[2, 2_000]), ..settings() },
        RedSettings { bounds: bounds(&[2, 1_000, 2_000]), ..settings() },
        RedSettings { max_series: SERIES_MAX + 1, ..settings() },
        RedSettings { dimensions: dimensions("other"), ..settings() },
        RedSettings { dimensions: Dimensions::default(), ..settings() },
    ] {
        assert_eq!(Checkpoint::decode(&bytes, &other), Err(CheckpointError::Schema), "{other:?}");
    }
    let expiring = RedSettings { expire_after: Some(Duration::from_secs(600)), ..settings() };
    assert_eq!(Checkpoint::decode(&bytes, &expiring), Ok(checkpoint()), "this one changes no meaning");
    assert_eq!(
        CheckpointError::Schema.to_string(),
        "dimensions, histogram bounds or limits are not those of the checkpoint"
    );
    assert_eq!(CheckpointError::Damaged.to_string(), "checkpoint is damaged");
}

#[test]
fn the_schema_of_the_defaults_stays_unless_the_version_is_meant_to_change() {
    assert_eq!(schema(&RedSettings::default()), 18_053_102_093_908_021_043);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _refused = decoded(&bytes);
        let _refused = decoded(&[&encoded(checkpoint())[..8], &bytes].concat());
    }
}
