//! A log that is written by itself, and damaged: what it then gives is compared with what it was given.

use bytes::Bytes;
use nyx_telemetry::log::{
    Advance, DestinationId,
    segments::{
        SegmentLogConfig,
        fuzzing::{Log, MemoryDisk},
    },
};

use super::{
    Seeds,
    folder::{Held, WIDE, config, open, read_all, segment_path},
    segment::plain,
};
use crate::{Trace, ensure, seal};

/// Groups, records of a group, and damages, at most.
const GROUPS_MAX: u8 = 6;
const RECORDS_MAX: u8 = 4;
const DAMAGES_MAX: usize = 12;

/// Takes numbers from the front; zeros where there are no more.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    fn number(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }
}

/// A segment as it was written.
struct Written {
    number: u64,
    bytes: Vec<u8>,
    records: Vec<seal::SealedRecord>,
}

pub(super) fn run(bytes: &[u8], trace: &mut Trace) -> Result<(), String> {
    let mut script = Script(bytes);
    let flags = script.byte();
    let segment_bytes = if flags & 1 == 0 { 400 } else { 64 << 20 };
    let config = SegmentLogConfig { segment_bytes, ..config() };
    let disk = MemoryDisk::default();
    let (segments, position) = write(&disk, &config, &mut script, flags)?;
    damage(&disk, &segments, &mut script, trace);

    let Some(log) = open(&disk, &config, trace)? else {
        return Err("damage became another version".to_owned());
    };
    // Has the writer settle: what everyone has had is gone from here on.
    log.commit([]);
    let begun = log.log().stats().start;
    let reading = read_all(&log, WIDE, trace)?;
    let written = |held: &Held| {
        segments.iter().any(|segment| {
            segment.records.iter().any(|record| {
                (record.first, record.spans) == (held.first, held.spans)
                    && segment.bytes.get(record.payload.clone()) == Some(&held.bytes)
            })
        })
    };
    for held in &reading.records {
        ensure!(written(held), "the record of {}..{} was not written", held.first, held.end());
    }
    // Recovery cuts the last one that says what it is; torn groups of those before it were acknowledged.
    let named = |segment: &&Written| {
        let now = disk.bytes(segment_path(segment.number)).unwrap_or_default();
        seal::segment_header(&now).is_some()
    };
    let last_number = segments.iter().rfind(named).map(|segment| segment.number);
    // Only a position lets go of anything.
    let lowest =
        segments.iter().filter(named).filter_map(|segment| Some(segment.records.first()?.first)).min();
    ensure!(lowest.is_none_or(|lowest| begun <= lowest.max(position)), "it begins at {begun}, at {position}");
    let mut ends = vec![position];
    for segment in &segments {
        let last = last_number == Some(segment.number);
        let now = disk.bytes(segment_path(segment.number)).unwrap_or_default();
        if seal::segment_header(&now).is_none() {
            trace.see("no header");
            continue;
        }
        for record in &segment.records {
            let range = record.offset..record.behind;
            let whole = now.get(range.clone()).is_some_and(|now| Some(now) == segment.bytes.get(range));
            let torn = last && record.group_end > now.len() as u64;
            if whole && !torn && record.first >= begun {
                let read = reading.records.iter().any(|held| held.first == record.first);
                ensure!(read, "the record at {} is whole, and given up", record.first);
                ends.push(record.first + u64::from(record.spans));
            }
        }
    }
    let end = log.log().end();
    let known = ends.into_iter().max().unwrap_or_default();
    ensure!(end >= known, "the log ends at {end}, and {known} is known to somebody");
    let ledger = log.log().ledger(DestinationId(0)).map_err(|error| error.to_string())?;
    ensure!(ledger.position == position || position == 0, "the position was {position}: {ledger:?}");

    let new = Bytes::from_static(b"committed behind the damage");
    let firsts = log.commit([(new.clone(), 2)]);
    ensure!(firsts == [Some(end)], "a batch behind {end} is at {firsts:?}");
    if flags & 2 == 0 {
        drop(log);
    } else {
        log.close();
    }
    let Some(log) = open(&disk, &config, &mut Trace::default())? else {
        return Err("it does not open again".to_owned());
    };
    let again = read_all(&log, WIDE, &mut Trace::default())?;
    let mut wanted = reading;
    wanted.records.push(Held { first: end, spans: 2, bytes: new.to_vec() });
    ensure!(again == wanted, "later {again:?}, before {wanted:?}");
    Ok(())
}

/// Writes a log, and returns its segments and the destination's persisted position.
fn write(
    disk: &MemoryDisk,
    config: &SegmentLogConfig,
    script: &mut Script<'_>,
    flags: u8,
) -> Result<(Vec<Written>, u64), String> {
    let log = Log::open(disk, config).map_err(|error| error.to_string())?;
    for group in 0..=script.byte() % GROUPS_MAX {
        let batches: Vec<_> = (0..=script.byte() % RECORDS_MAX)
            .map(|record| {
                // A span has bytes.
                let spans = 1 + u32::from(script.byte()) % 40;
                let length = spans as usize + script.number() % 700;
                (payload(disk, length, group * 16 + record), spans)
            })
            .collect();
        log.commit(batches);
    }
    let end = log.log().end();
    let mut position = 0;
    if flags & 4 != 0 {
        position = end * (flags >> 4) as u64 / 16;
        let advance = Advance { to: position, exported: position, ..Advance::default() };
        log.log().advance(DestinationId(0), &advance).map_err(|error| error.to_string())?;
    }
    drop(log);
    let mut segments = Vec::new();
    for number in 1..=64 {
        let Some(mut bytes) = disk.bytes(segment_path(number)) else { continue };
        // Whatever the script does is the same another time.
        plain(&mut bytes);
        disk.put(segment_path(number), bytes.clone());
        let mut records = Vec::new();
        let mut at = seal::DATA_START;
        while let Some(record) = seal::record(&bytes, &[7; 16], at) {
            at = record.behind;
            records.push(record);
        }
        ensure!(at == bytes.len(), "segment {number} has records up to {at} of {}", bytes.len());
        segments.push(Written { number, bytes, records });
    }
    Ok((segments, position))
}

/// Bytes that differ from record to record; some have a piece of the log in them.
fn payload(disk: &MemoryDisk, length: usize, number: u8) -> Bytes {
    let mut bytes: Vec<u8> = (0..length).map(|at| number.wrapping_mul(31) ^ at as u8).collect();
    if number % 3 == 2
        && let Some(log) = disk.bytes(segment_path(1))
    {
        let piece = log.get(seal::DATA_START..).unwrap_or_default();
        for (to, from) in bytes.iter_mut().zip(piece) {
            *to = *from;
        }
    }
    bytes.into()
}

fn damage(disk: &MemoryDisk, segments: &[Written], script: &mut Script<'_>, trace: &mut Trace) {
    for _ in 0..DAMAGES_MAX {
        if script.0.is_empty() {
            return;
        }
        let kind = script.byte();
        let Some(segment) = segments.get(script.byte() as usize % segments.len().max(1)) else { return };
        let path = segment_path(segment.number);
        let mut bytes = disk.bytes(&path).unwrap_or_default();
        let at = script.number() % bytes.len().max(1);
        match kind % 6 {
            0 => {
                trace.see("flip");
                seal::put(
                    &mut bytes,
                    at,
                    &[segment.bytes.get(at).copied().unwrap_or(0) ^ 1 << (script.byte() % 8)],
                );
            }
            1 => {
                trace.see("zeros");
                bytes.iter_mut().skip(at).take(usize::from(script.byte())).for_each(|byte| *byte = 0);
            }
            2 => {
                trace.see("cut");
                bytes.truncate(at);
            }
            3 => {
                trace.see("copy");
                let from = (script.number() % bytes.len().max(1)) & !7;
                let piece = bytes.get(from..).unwrap_or_default();
                let piece =
                    piece.get(..piece.len().min(usize::from(script.byte()) * 2)).unwrap_or_default().to_vec();
                seal::put(&mut bytes, at & !7, &piece);
            }
            4 => {
                trace.see("longer");
                let fill = script.byte();
                bytes.resize(bytes.len() + usize::from(script.byte()), fill);
            }
            _ => {
                trace.see("last bytes of a record");
                let record = segment.records.get(at % segment.records.len().max(1));
                let at = record.map_or(0, |record| record.payload.end);
                seal::put(&mut bytes, at.saturating_sub(3), &[script.byte(), 0xa5]);
            }
        }
        disk.put(path, bytes);
    }
}

pub(super) fn seeds() -> Seeds {
    // Flags; groups; of each group: records; of each record: spans, length; then damages.
    let two_groups: &[u8] = &[1, 1, 9, 40, 0, 3, 200, 0, 0, 5, 60, 1];
    let of = |flags: u8, damages: &[u8]| [&[flags], two_groups, damages].concat();
    Ok(vec![
        ("undamaged", of(1, &[])),
        ("flipped", of(1, &[0, 0, 200, 0, 3])),
        ("cut", of(1, &[2, 0, 200, 1])),
        ("zeros_in_small_segments", of(0, &[1, 0, 130, 0, 60, 1, 1, 150, 0, 90])),
        ("longer_behind_a_position", of(0b1000_0101, &[4, 0, 1, 0, 7, 100])),
        ("copied", of(3, &[3, 0, 0, 1, 128, 0, 90])),
        ("last_bytes", of(1, &[5, 0, 2, 0, 1])),
    ])
}
