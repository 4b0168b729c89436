use proptest::prelude::*;

use super::*;

const SERIES_MAX: usize = 4;

fn bounds() -> Bounds {
    Bounds::new(&[Duration::from_millis(2), Duration::from_secs(1)]).unwrap()
}

fn counts(seed: u64) -> RedCounts {
    RedCounts {
        count: seed,
        errors: seed / 2,
        sum_nanos: u128::from(seed) << 70,
        buckets: [seed, 0, u64::MAX].into(),
        created: Duration::from_nanos(1_700_000_000_000_000_001),
    }
}

fn series(service: &str, name: &str) -> RedSeries {
    let (kind, status) = (SpanKind::Consumer, StatusCode::Error);
    RedSeries { service: service.into(), name: name.into(), kind, status, counts: counts(7) }
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        position: 600,
        created: Duration::from_secs(1),
        latest: Duration::from_secs(2),
        caught_up: 3,
        unmeasured: Unmeasured { damaged: 4, released: 5 },
        overflow: Some(counts(9)),
        series: vec![series("", ""), series("shop", "GET /"), series("shop", "é")],
    }
}

fn encoded(checkpoint: Checkpoint) -> Bytes {
    checkpoint.encode(schema(&bounds(), SERIES_MAX))
}

fn decoded(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::decode(bytes, &bounds(), SERIES_MAX)
}

#[test]
fn a_checkpoint_comes_back_as_it_was() {
    assert_eq!(decoded(&encoded(checkpoint())), Ok(checkpoint()));
    let empty = Checkpoint { overflow: None, series: Vec::new(), ..checkpoint() };
    assert_eq!(encoded(empty.clone()).len(), HEAD_BYTES + 1 + 4);
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
    damaged(|it| it.series = ["a", "b", "c", "d", "e"].map(|name| series("more than the cap", name)).into());
    damaged(|it| it.series = vec![series("twice", "the same"), series("twice", "the same")]);
    damaged(|it| it.series = vec![series("", &"x".repeat(LABEL_BYTES_MAX + 1))]);
    damaged(|it| it.series = vec![series(&"x".repeat(70_000), "")]);
    let whole = Checkpoint { series: vec![series("", &"x".repeat(LABEL_BYTES_MAX))], ..checkpoint() };
    assert_eq!(decoded(&encoded(whole.clone())), Ok(whole));

    let one = Checkpoint { overflow: None, series: vec![series("s", "n")], ..checkpoint() };
    let bytes = encoded(one.clone());
    let first = HEAD_BYTES + 1 + 4;
    for (at, value, what) in [
        (HEAD_BYTES, 2, "overflow that is neither there nor not"),
        (HEAD_BYTES + 4, 0xff, "four billion series"),
        (first + 2, 0xff, "a service that is no text"),
        (first + 6, 6, "a kind that is none"),
        (first + 7, 3, "a status that is none"),
    ] {
        let mut bytes = bytes.to_vec();
        bytes[at] = value;
        assert_eq!(decoded(&bytes), Err(CheckpointError::Damaged), "{what}");
    }
}

#[test]
fn other_bounds_or_limits_make_another_schema() {
    let bytes = encoded(checkpoint());
    let other = Bounds::new(&[Duration::from_millis(2), Duration::from_secs(2)]).unwrap();
    let more = Bounds::new(&[2, 1_000, 2_000].map(Duration::from_millis)).unwrap();
    let read = |bounds: &Bounds, series_max| Checkpoint::decode(&bytes, bounds, series_max).unwrap_err();
    assert_eq!(read(&other, SERIES_MAX), CheckpointError::Schema);
    assert_eq!(read(&more, SERIES_MAX), CheckpointError::Schema);
    assert_eq!(read(&bounds(), SERIES_MAX + 1), CheckpointError::Schema);
    assert_eq!(
        CheckpointError::Schema.to_string(),
        "dimensions, histogram bounds or limits are not those of the checkpoint"
    );
    assert_eq!(CheckpointError::Damaged.to_string(), "checkpoint is damaged");
}

#[test]
fn the_schema_of_the_defaults_stays_unless_the_version_is_meant_to_change() {
    assert_eq!(schema(&Bounds::default(), crate::measure::SERIES_MAX_DEFAULT), 1_663_632_324_517_202_089);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _refused = decoded(&bytes);
        let _refused = decoded(&[&encoded(checkpoint())[..8], &bytes].concat());
    }
}
