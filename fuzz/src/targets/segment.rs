//! Bytes as a segment of a log.

use bytes::Bytes;
use nyx_telemetry::log::{
    Ordinal,
    segments::{
        SegmentLogConfig,
        fuzzing::{Log, MemoryDisk},
    },
};

use super::{
    Seeds,
    folder::{NARROW, Reading, WIDE, config, open, read_all, segment_path},
};
use crate::{Rng, Trace, ensure, mutate, run, seal};

/// Ordinals of the two good segments around the one in the middle.
const BEFORE: std::ops::Range<u64> = 0..20;
const BEHIND: std::ops::Range<u64> = 60..80;
/// No log gets here: ordinals that are twice as large are damage.
const FAR: u64 = 1 << 61;

/// The bytes are all that there is of the log.
pub(super) fn last(bytes: &[u8], trace: &mut Trace) -> Result<(), String> {
    let disk = MemoryDisk::default();
    disk.put(segment_path(1), bytes.to_vec());
    let possible = possible(&[bytes]);
    whole_life(&disk, &config(), &possible, trace).map(drop)
}

/// The bytes are between two segments that are as they should be.
pub(super) fn middle(bytes: &[u8], trace: &mut Trace) -> Result<(), String> {
    let disk = MemoryDisk::default();
    let (before, behind) = (good(0, BEFORE, &[64, 64]), good(6, BEHIND, &[64, 64]));
    disk.put(segment_path(1), before.clone());
    disk.put(segment_path(2), bytes.to_vec());
    disk.put(segment_path(3), behind.clone());
    let possible = possible(&[&before, bytes, &behind]);
    let Some(reading) = whole_life(&disk, &config(), &possible, trace)? else { return Ok(()) };
    // One that says that it begins elsewhere has a say in where its neighbours end.
    let fits = seal::segment_header(bytes)
        .is_none_or(|(_, sequence, first)| sequence == 2 && (BEFORE.end..=BEHIND.start).contains(&first));
    trace.see_if(!fits, "elsewhere");
    if fits {
        for range in [BEFORE, BEHIND] {
            for first in range.step_by(10) {
                ensure!(
                    reading.records.iter().any(|record| record.first == first && record.spans == 10),
                    "the record at {first} of a segment beside it is not read"
                );
            }
        }
    }
    Ok(())
}

type Possible<'a> = Vec<(Ordinal, u32, &'a [u8])>;

/// What can be read of these segments at all.
fn possible<'a>(segments: &[&'a [u8]]) -> Possible<'a> {
    let of = |segment: &&'a [u8]| {
        let segment = *segment;
        let records = seal::records(segment).into_iter();
        records.filter_map(|r| Some((r.first, r.spans, segment.get(r.payload)?))).collect::<Vec<_>>()
    };
    segments.iter().flat_map(of).collect()
}

/// Opens, reads, commits, is killed, opens and reads again.
fn whole_life(
    disk: &MemoryDisk,
    config: &SegmentLogConfig,
    possible: &Possible<'_>,
    trace: &mut Trace,
) -> Result<Option<Reading>, String> {
    let Some(log) = open(disk, config, trace)? else { return Ok(None) };
    let reading = read_all(&log, WIDE, trace)?;
    for record in &reading.records {
        ensure!(
            possible.iter().any(|(first, spans, bytes)| {
                *first == record.first && *spans == record.spans && *bytes == record.bytes
            }),
            "the record of {}..{} was never written",
            record.first,
            record.end()
        );
    }
    let narrow = read_all(&log, NARROW, &mut Trace::default())?;
    ensure!(narrow == reading, "read one at a time: {narrow:?}, together: {reading:?}");
    for record in reading.records.iter().take(8).filter(|record| record.spans > 1) {
        let read = log.read(record.end() - 1, NARROW);
        let holds = |first: u64, end: u64| first < record.end() && record.end() <= end;
        let held =
            matches!(&read, Some(Ok(read)) if read.first().is_some_and(|read| holds(read.first, read.end())));
        ensure!(held, "the last span of {}..{}: {read:?}", record.first, record.end());
    }

    let end = log.log().end();
    let far = |path| disk.bytes(path).is_some_and(|bytes| numbers_far(&bytes));
    if end > FAR || disk.paths().into_iter().any(far) {
        trace.see(run::FAR);
        return Ok(Some(reading));
    }
    let payload = Bytes::from_static(b"committed after it all");
    let firsts = log.commit([(payload.clone(), 3), (payload.clone(), 1)]);
    ensure!(firsts == [Some(end), Some(end + 3)], "a group behind {end} was committed as {firsts:?}");
    drop(log);
    let log = Log::open(disk, config).map_err(|error| format!("it does not open again: {error}"))?;
    let again = read_all(&log, WIDE, &mut Trace::default())?;
    let (before, new): (Vec<_>, Vec<_>) = again.records.iter().partition(|record| record.first < end);
    // What was cut off as torn is read again where the next segment begins behind it: never less, and nothing else.
    let kept = reading.records.iter().all(|record| before.contains(&record));
    let written = before.iter().all(|record| {
        possible.iter().any(|(first, spans, bytes)| {
            *first == record.first && *spans == record.spans && *bytes == record.bytes
        })
    });
    ensure!(kept && written, "after a crash: {again:?}, before: {reading:?}");
    let new: Vec<_> = new.iter().map(|r| (r.first, r.spans, r.bytes.as_slice())).collect();
    ensure!(
        new == [(end, 3, &*payload), (end + 3, 1, &*payload)],
        "what was committed at {end} is {new:?} after a crash"
    );
    let within = |gap: &(u64, u64)| reading.gaps.iter().any(|known| known.0 <= gap.0 && gap.1 <= known.1);
    ensure!(
        again.gaps.iter().all(within),
        "gaps after a crash: {:?}, before: {:?}",
        again.gaps,
        reading.gaps
    );
    Ok(Some(reading))
}

/// Whether a segment has records, or is to have them, whose numbers no log gets to.
fn numbers_far(segment: &[u8]) -> bool {
    let places = seal::record_places(segment).into_iter().map(|at| at + 8);
    places.chain([32, 96]).any(|at| seal::u64_at(segment, at).is_some_and(|number| number > FAR))
}

/// Sets fields of records, moves records, and makes the checksums anew.
pub(super) fn shape(rng: &mut Rng, input: &mut Vec<u8>) {
    if rng.one_in(3) {
        return;
    }
    for _ in 0..rng.below(3) {
        let places = seal::record_places(input);
        let record = rng.pick(&places).copied().unwrap_or(0);
        // Length, sequence, first, spans, group, committed; or one of the header's.
        let field = [4, 8, 16, 24, 28, 32].get(rng.below(6)).copied().unwrap_or(0);
        let field = if rng.one_in(8) {
            [8, 12, 32, 40, 48].get(rng.below(5)).copied().unwrap_or(8)
        } else {
            record + field
        };
        mutate::number(rng, input, field);
        if rng.one_in(8) {
            // A record that was copied to another place, as valid as any there.
            let other = rng.pick(&places).copied().unwrap_or(0);
            let copy = input.get(record..(record + 128).min(input.len())).unwrap_or_default().to_vec();
            seal::put(input, other, &copy);
        }
    }
    if !rng.one_in(4) {
        seal::segment(input);
    }
    if rng.one_in(4) {
        // Damage that no checksum covers up.
        let at = rng.below(input.len());
        mutate::number(rng, input, at);
    }
}

/// A segment that begins with this record number and ordinal, of records of ten spans.
fn good(sequence: u64, ordinals: std::ops::Range<u64>, payloads: &[usize]) -> Vec<u8> {
    let mut out = vec![0; seal::DATA_START];
    for copy in [0, 64] {
        seal::put(&mut out, copy, b"nyx-seg\0");
        seal::put(&mut out, copy + 8, &1u32.to_le_bytes());
        seal::put(&mut out, copy + 16, &[7; 16]);
        seal::put(&mut out, copy + 32, &sequence.to_le_bytes());
        seal::put(&mut out, copy + 40, &ordinals.start.to_le_bytes());
    }
    for (index, length) in (0u64..).zip(payloads) {
        let at = out.len();
        out.resize(at + seal::RECORD_HEADER + length.next_multiple_of(8), 0);
        seal::put(&mut out, at, b"nyxr");
        seal::put(&mut out, at + 4, &(*length as u32).to_le_bytes());
        seal::put(&mut out, at + 8, &(sequence + index).to_le_bytes());
        seal::put(&mut out, at + 16, &(ordinals.start + 10 * index).to_le_bytes());
        seal::put(&mut out, at + 24, &10u32.to_le_bytes());
        for byte in out.iter_mut().skip(at + seal::RECORD_HEADER).take(*length) {
            *byte = b'a' + index as u8;
        }
    }
    seal::segment(&mut out);
    out
}

/// A segment as a log wrote it, with key and times that are always the same.
pub(super) fn written(groups: &[&[(Vec<u8>, u32)]], config: &SegmentLogConfig) -> Seeds {
    let disk = MemoryDisk::default();
    let log = Log::open(&disk, config).map_err(std::io::Error::other)?;
    for group in groups {
        log.commit(group.iter().map(|(bytes, spans)| (Bytes::copy_from_slice(bytes), *spans)));
    }
    drop(log);
    let mut bytes = disk.bytes(segment_path(1)).unwrap_or_default();
    plain(&mut bytes);
    Ok(vec![("written", bytes)])
}

/// Gives a whole segment the key and the times that a corpus has.
pub(super) fn plain(bytes: &mut [u8]) {
    for copy in [0, 64] {
        seal::put(bytes, copy + 16, &[7; 16]);
        seal::put(bytes, copy + 48, &[0; 8]);
    }
    let mut at = seal::DATA_START;
    while let Some(length) = seal::u32_at(bytes, at + 4) {
        seal::put(bytes, at + 32, &[0; 8]);
        at = (at + seal::RECORD_HEADER + length as usize).next_multiple_of(8);
    }
    seal::segment(bytes);
}

fn text(length: usize, letter: u8) -> Vec<u8> {
    vec![letter; length]
}

pub(super) fn seeds() -> Seeds {
    let group = [(text(40, b'a'), 10), (text(300, b'b'), 7), (text(1, b'c'), 1)];
    let mut seeds = written(&[&group, &[(text(64, b'd'), 10)], &group], &config())?;
    let whole = seeds.first().map(|(_, bytes)| bytes.clone()).unwrap_or_default();
    let of = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        bytes
    };
    seeds.push(("torn", of(&|bytes| bytes.truncate(bytes.len() - 200))));
    seeds.push(("header_alone", of(&|bytes| bytes.truncate(seal::DATA_START))));
    seeds
        .push(("no_header", of(&|bytes| bytes.iter_mut().take(seal::DATA_START).for_each(|byte| *byte = 0))));
    seeds.push(("bad_payload", of(&|bytes| seal::put(bytes, 240, b"!!!!"))));
    seeds.push(("bad_header", of(&|bytes| seal::put(bytes, 232, b"!!!!"))));
    seeds.push(("zeros_behind", of(&|bytes| bytes.resize(bytes.len() + 512, 0))));
    let synced = of(&|bytes| {
        seal::put(bytes, 12, &[1]);
        seal::put(bytes, 76, &[1]);
        seal::segment(bytes);
        let last = bytes.len() - 12;
        seal::put(bytes, last, b"!!!!");
    });
    seeds.push(("synced_bad_end", synced));
    // A payload that is a record of the very file that it is in.
    let record = whole.get(seal::DATA_START..300).unwrap_or_default().to_vec();
    seeds.extend(
        written(&[&[(record, 10)], &[(text(9, b'e'), 2)]], &config())?
            .into_iter()
            .map(|(_, bytes)| ("record_in_a_payload", bytes)),
    );
    Ok(seeds)
}

pub(super) fn middle_seeds() -> Seeds {
    let whole = good(2, 20..60, &[64, 8, 200, 100]);
    let mut damaged = whole.clone();
    seal::put(&mut damaged, 260, &[0; 80]);
    let torn = whole.get(..whole.len() - 60).unwrap_or_default().to_vec();
    let jump = good(3, 30..60, &[64, 8, 200]);
    Ok(vec![
        ("whole", whole),
        ("damaged", damaged),
        ("torn", torn),
        ("first_lost", jump),
        ("empty", Vec::new()),
    ])
}
