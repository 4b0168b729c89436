use std::time::Duration;

use proptest::prelude::*;

use super::{super::testing, *};
use crate::span::TraceId;

const WIDE: ReadLimit = ReadLimit { spans: u64::MAX, bytes: usize::MAX };

/// Records of these many spans, the first span being number 0.
fn records(spans: &[u32]) -> Vec<Record> {
    let committed_at = Instant::now();
    let mut first = 0;
    let mut record = |&spans: &u32| {
        let end = first + u64::from(spans);
        let bytes = testing::request(first..end);
        let record = Record { first, spans, bytes, committed_at, committed_unix: Duration::ZERO };
        first = end;
        record
    };
    spans.iter().map(&mut record).collect()
}

fn all() -> Sampler {
    Sampler::new(1.0)
}

fn form(records: &[Record], from: Ordinal, limit: ReadLimit, sampler: Sampler) -> (Batch, Option<Instant>) {
    match Batch::form(records, from, limit, sampler) {
        Formed::Batch { batch, rest } => (batch, rest),
        other => panic!("{other:?} is no batch"),
    }
}

fn sent(batch: &Batch) -> Vec<u64> {
    testing::numbers(&batch.frames().concat())
}

#[test]
fn whole_records_go_out_as_the_log_holds_them() {
    let records = records(&[3, 1, 7]);
    let (batch, rest) = form(&records, 0, WIDE, all());
    let frames = batch.frames();
    for (frame, record) in frames.iter().zip(&records) {
        assert_eq!(frame.as_ptr(), record.bytes.as_ptr(), "the record was copied");
    }
    assert_eq!((batch.kept(), batch.end(), rest), (11, 11, None));
    assert_eq!(sent(&batch), (0..11).collect::<Vec<_>>());
}

#[test]
fn a_batch_begins_inside_a_record_where_the_position_is() {
    let records = records(&[3, 1, 7]);
    for from in 0..11 {
        let (batch, _) = form(&records, from, WIDE, all());
        assert_eq!(sent(&batch), (from..11).collect::<Vec<_>>());
    }
    assert!(matches!(Batch::form(&records, 11, WIDE, all()), Formed::Nothing));
}

#[test]
fn a_batch_ends_at_the_record_that_does_not_fit_and_cuts_one_that_never_would() {
    let records = records(&[30, 40, 500]);
    let limit = ReadLimit { spans: 100, ..WIDE };
    let (batch, rest) = form(&records, 0, limit, all());
    assert_eq!((batch.end(), rest), (70, Some(records[2].committed_at)));
    let (batch, rest) = form(&records, 70, limit, all());
    assert_eq!((sent(&batch), rest.is_some()), ((70..170).collect(), true));
    let (batch, _) = form(&records, 170, ReadLimit { bytes: 2_000, ..WIDE }, all());
    assert!(batch.bytes() <= 2_000 && batch.kept() > 10, "{} bytes", batch.bytes());
}

#[test]
fn sampling_is_decided_by_the_last_56_bits_of_the_trace_id() {
    let id = |randomness: u128| TraceId::from_int(0xffff << 64 | randomness);
    let half = Sampler::new(0.5);
    assert!(!half.keeps(id(0x7f_ffff_ffff_ffff)) && half.keeps(id(0x80_0000_0000_0000)));
    assert!(!half.keeps(id(0xff << 56)), "the eighth byte from the end is no randomness");
    assert!(Sampler::new(1.0).keeps(id(0)) && !Sampler::new(0.0).keeps(id(u128::MAX)));
    assert_eq!(Sampler::new(2.0), Sampler::new(1.0));
    let tenth = Sampler::new(0.1);
    let kept = (0..10_000u64).filter(|number| tenth.keeps(trace_id(*number))).count();
    assert!((900..1100).contains(&kept), "{kept} of 10,000");
    assert!((0..10_000).all(|number| !tenth.keeps(trace_id(number)) || half.keeps(trace_id(number))));
}

fn trace_id(number: u64) -> TraceId {
    let mut id = None;
    span::scan(&testing::request(number..number + 1), |view| id = Some(view.trace_id)).unwrap();
    id.unwrap()
}

#[test]
fn sampled_out_spans_belong_to_the_batch_but_are_not_sent() {
    let records = records(&[100, 100]);
    let sampler = Sampler::new(0.25);
    let (batch, _) = form(&records, 0, WIDE, sampler);
    let expected: Vec<_> = (0..200).filter(|number| sampler.keeps(trace_id(*number))).collect();
    assert_eq!((sent(&batch), batch.kept(), batch.end()), (expected.clone(), expected.len() as u64, 200));
    let (nothing, _) = form(&records, 0, WIDE, Sampler::new(0.0));
    assert_eq!((nothing.kept(), nothing.end(), nothing.frames().len()), (0, 200, 0));
}

#[test]
fn a_batch_is_divided_at_a_record_boundary_first() {
    let records = records(&[10, 20, 35, 5]);
    let (low, high) = form(&records, 0, WIDE, all()).0.halve().unwrap();
    assert_eq!((low.end(), low.frames().len(), high.frames().len()), (30, 2, 2));
    assert_eq!(high.frames()[0].as_ptr(), records[2].bytes.as_ptr());
}

#[test]
fn what_does_not_scan_is_damaged_and_what_stands_before_it_goes_first() {
    let mut records = records(&[10, 10, 10]);
    records[1].bytes = Bytes::from_static(b"\xff\xff no spans here");
    let sampler = Sampler::new(0.99);
    assert_eq!(form(&records, 0, WIDE, sampler).0.end(), 10);
    assert!(matches!(Batch::form(&records, 10, WIDE, sampler), Formed::Damaged { to: 20 }));
    assert!(matches!(Batch::form(&records, 15, WIDE, all()), Formed::Damaged { to: 20 }));
    assert!(matches!(Batch::form(&records[2..], 15, WIDE, all()), Formed::Damaged { to: 20 }));
    let (batch, _) = form(&records, 0, WIDE, all());
    let (_, high) = batch.halve().unwrap();
    assert_eq!(high.clone().halve().map(drop).map_err(|batch| batch.end()), Ok(()));
    let damaged = Batch { frames: high.frames[..1].to_vec(), ..high };
    assert!(damaged.halve().is_err());
}

proptest! {
    #[test]
    fn batches_and_their_halves_hold_every_span_once(
        spans in prop::collection::vec(1..60u32, 1..12),
        from in 0..50u64,
        limit in (1..200u64, 200..20_000usize),
        rate in prop_oneof![Just(1.0), 0.0..1.0f64],
        cuts in prop::collection::vec(any::<bool>(), 0..12),
    ) {
        let records = records(&spans);
        let end = records.last().map_or(0, Record::end);
        let from = from.min(end - 1);
        let limit = ReadLimit { spans: limit.0, bytes: limit.1 };
        let sampler = Sampler::new(rate);
        let (mut batch, _) = form(&records, from, limit, sampler);
        prop_assert!(batch.end() > from && batch.end() - from <= limit.spans);
        let mut first = from;
        for high in cuts {
            let kept: Vec<_> = (first..batch.end()).filter(|number| sampler.keeps(trace_id(*number))).collect();
            prop_assert_eq!(sent(&batch), kept.clone());
            prop_assert_eq!(batch.kept(), kept.len() as u64);
            let mut letters = vec![];
            batch.clone().each(&mut |ordinal, bytes| letters.push((ordinal, testing::numbers(&bytes))));
            prop_assert_eq!(letters, kept.iter().map(|number| (*number, vec![*number])).collect::<Vec<_>>());
            if batch.kept() < 2 {
                break;
            }
            let (low, rest) = batch.halve().unwrap();
            prop_assert!(low.end() > first && low.end() < rest.end());
            batch = if high { first = low.end(); rest } else { low };
        }
    }
}
