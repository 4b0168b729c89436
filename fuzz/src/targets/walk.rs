//! The walk over a segment, by itself.

use std::io;

use nyx_telemetry::log::segments::fuzzing::{WalkStep, walk};

use super::{Seeds, segment};
use crate::{Rng, Trace, ensure, seal};

/// The first byte: how much is read at a time. The second: where the walk ends. Then a segment.
pub(super) fn run(bytes: &[u8], trace: &mut Trace) -> Result<(), String> {
    let Some((&[block, until], bytes)) = bytes.split_first_chunk() else { return Ok(()) };
    let Some((key, sequence, first)) = seal::segment_header(bytes) else {
        trace.see("no header");
        return Ok(());
    };
    if first.max(sequence) >= 1 << 62 {
        trace.see("no header");
        return Ok(());
    }
    let end = if until == 0 { u64::MAX } else { first.saturating_add(u64::from(until)) };
    let start = (seal::DATA_START as u64, sequence, first);
    let steps = steps(walk(bytes, key, start, end, 1 << 20))?;
    let small = self::steps(walk(bytes, key, start, end, 1 + usize::from(block)))?;
    ensure!(steps == small, "with large reads {steps:?}, with small ones {small:?}");

    let (mut at, mut sequence, mut first) = start;
    for step in &steps {
        match step {
            WalkStep::Record { offset, sequence: number, first: ordinal, spans, payload } => {
                let record = seal::record(bytes, &key, *offset as usize);
                let Some(record) = record else { return Err(format!("no record checks at {offset}")) };
                ensure!(*offset == at, "a record at {offset}, expected at {at}");
                ensure!(
                    *number >= sequence && *ordinal >= first && *ordinal < end,
                    "record {number} of ordinal {ordinal} behind {sequence} and {first}"
                );
                ensure!(
                    (*number, *ordinal, *spans) == (record.sequence, record.first, record.spans)
                        && bytes.get(record.payload.clone()) == Some(payload),
                    "the record at {offset} is {step:?}, and was {record:?}"
                );
                trace.see(if *ordinal > first { "record behind a gap" } else { "record" });
                (at, sequence, first) = (record.behind as u64, number + 1, ordinal + u64::from(*spans));
            }
            WalkStep::Bad { from, to, size } => {
                ensure!(*from == at && to > from && *to <= bytes.len() as u64, "{step:?} at {at}");
                trace.see(match (size, *to == bytes.len() as u64) {
                    (None, false) => "bad",
                    (Some(_), false) => "bad payload",
                    (None, true) => "bad end",
                    (Some(_), true) => "bad payload at the end",
                });
                // What a good header covers is passed over as one.
                let passed = size.filter(|size| from + size == *to).unwrap_or(0);
                let missed = (from + 8..*to).step_by(8).filter(|at| *at >= from + passed).find(|at| {
                    let lost = at - from;
                    seal::record(bytes, &key, *at as usize).is_some_and(|record| {
                        let numbers = record.sequence.checked_sub(sequence);
                        let spans = record.first.checked_sub(first);
                        numbers.is_some_and(|numbers| numbers <= lost / seal::RECORD_HEADER as u64)
                            && spans.is_some_and(|spans| spans <= lost)
                            && possible(&record)
                            && record.first + u64::from(record.spans) <= end
                    })
                });
                ensure!(missed.is_none(), "a record at {missed:?} is given up in {step:?}");
                at = *to;
            }
        }
    }
    trace.see_if(at < bytes.len() as u64, "ended before");
    Ok(())
}

/// Whether its numbers can be any log's.
fn possible(record: &seal::SealedRecord) -> bool {
    record.spans > 0 && record.first.max(record.sequence) < 1 << 62
}

fn steps(steps: io::Result<Vec<WalkStep>>) -> Result<Vec<WalkStep>, String> {
    steps.map_err(|error| format!("the walk fails: {error}"))
}

pub(super) fn shape(rng: &mut Rng, input: &mut Vec<u8>) {
    let mut segment = input.split_off(input.len().min(2));
    segment::shape(rng, &mut segment);
    input.append(&mut segment);
}

pub(super) fn seeds() -> Seeds {
    let seeds =
        segment::seeds()?.into_iter().filter(|(name, _)| !matches!(*name, "no_header" | "header_alone"));
    Ok(seeds.map(|(name, bytes)| (name, [&[7, 0], bytes.as_slice()].concat())).collect())
}
