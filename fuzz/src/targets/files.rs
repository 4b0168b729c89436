//! The log's small files.

use bytes::Bytes;
use nyx_telemetry::log::{
    DeadLetter, DestinationId, DropReason, Durability, Restored,
    segments::{
        SegmentLogConfig,
        fuzzing::{self, Checkpoint, MemoryDisk, Said},
    },
};

use super::{
    Seeds,
    folder::{config, open},
};
use crate::{Rng, Trace, ensure, mutate, run, seal};

/// Ordinals are below this.
const ORDINAL_MAX: u64 = 1 << 62;
/// No log gets here.
const FAR: u64 = 1 << 61;
/// Letters that are kept.
const LETTERS_MAX: usize = 1_000;

fn text(error: std::io::Error) -> String {
    error.to_string()
}

/// Notes what was said, and returns the value.
fn said<T>(said: Said<T>, trace: &mut Trace) -> Option<T> {
    trace.see(match said {
        Said::Value(_) => "value",
        Said::Damaged => "damaged",
        Said::OtherVersion(_) => "version",
    });
    match said {
        Said::Value(value) => Some(value),
        Said::Damaged | Said::OtherVersion(_) => None,
    }
}

/// Opens a log that has this file alone, takes a batch, is killed, and opens again: no ordinal below `end`.
fn opens_behind(
    path: &str,
    bytes: &[u8],
    end: u64,
    config: &SegmentLogConfig,
    trace: &mut Trace,
) -> Result<Option<fuzzing::Log>, String> {
    let disk = MemoryDisk::default();
    disk.put(path, bytes.to_vec());
    let Some(log) = open(&disk, config, trace)? else { return Ok(None) };
    ensure!(log.log().end() == end, "the log ends at {}, expected {end}", log.log().end());
    if end > FAR {
        // The next ordinals are damage.
        trace.see(run::FAR);
        return Ok(Some(log));
    }
    let first = log.commit([(Bytes::from_static(b"one"), 1)]);
    ensure!(first == [Some(end)], "a batch behind {end} is at {first:?}");
    drop(log);
    let Some(log) = open(&disk, config, trace)? else {
        return Err("another version, all at once".to_owned());
    };
    ensure!(log.log().end() == end + 1, "it ended at {}, and ends at {}", end + 1, log.log().end());
    Ok(Some(log))
}

pub(super) fn position(bytes: &[u8], trace: &mut Trace) -> Result<(), String> {
    let said = said(fuzzing::position(bytes), trace);
    let end = said.as_ref().map_or(0, |(_, ledger, _)| ledger.position);
    let log = opens_behind("/log/positions/d.position", bytes, end, &config(), trace)?;
    let Some((sequence, ledger, fell_back)) = said else { return Ok(()) };
    ensure!(ledger.balances() && end < ORDINAL_MAX, "a ledger that does not add up: {ledger:?}");
    trace.see_if(fell_back, "fell back");
    trace.see_if(sequence % 2 == 0, "even");
    let found = log.ok_or("a position that is read does not open")?;
    let found = found.log().ledger(DestinationId(0)).map_err(|error| error.to_string())?;
    ensure!(
        found == ledger.at_end(found.end) && found.end >= end,
        "the position says {ledger:?}, the log {found:?}"
    );
    for durable in [false, true] {
        let written = fuzzing::write_position(Some(bytes), &ledger, durable).map_err(text)?;
        let Said::Value((next, again, _)) = fuzzing::position(&written) else {
            return Err("a position that was written is not read".to_owned());
        };
        ensure!(next > sequence && again == ledger, "slot {sequence} became slot {next}: {again:?}");
    }
    Ok(())
}

pub(super) fn dead_letters(bytes: &[u8], trace: &mut Trace) -> Result<(), String> {
    let said = said(fuzzing::letters(bytes), trace);
    let last = said.as_ref().and_then(|(letters, _)| letters.iter().map(|letter| letter.ordinal).max());
    let end = last.map_or(0, |last| last + 1);
    let log = opens_behind("/log/dead_letters/d.letters", bytes, end, &config(), trace)?;
    let Some((letters, bad)) = said else { return Ok(()) };
    let sealed = seal::sealed_letters(bytes);
    for letter in &letters {
        trace.see("letter");
        let written = sealed.iter().any(|(ordinal, message, span)| {
            *ordinal == letter.ordinal
                && bytes.get(message.clone()) == Some(letter.message.as_bytes())
                && bytes.get(span.clone()) == Some(&letter.bytes)
        });
        ensure!(written, "a letter of {} that nobody wrote", letter.ordinal);
    }
    trace.see_if(!bad.is_empty(), "bad");
    trace.see_if(bad.len() > 64, "very bad");
    ensure!(bad.len() <= bytes.len(), "{} bad bytes of {}", bad.len(), bytes.len());
    let mut ordinals: Vec<_> = letters.iter().map(|letter| letter.ordinal).collect();
    ordinals.sort_unstable();
    ordinals.dedup();
    ensure!(ordinals.len() == letters.len(), "two letters of one span");
    let kept = log.map(|log| log.log().dead_letters(DestinationId(0)));
    ensure!(kept.as_ref() == Some(&letters), "the file has {letters:?}, the log {kept:?}");

    let free = (0..).find(|ordinal| sealed.iter().all(|(taken, ..)| taken != ordinal)).unwrap_or_default();
    let new = letter(free, "a message", b"a span");
    // The same once more is not appended.
    let written = fuzzing::write_letters(Some(bytes), &[new.clone(), new.clone()]).map_err(text)?;
    let written = fuzzing::write_letters(Some(&written), std::slice::from_ref(&new)).map_err(text)?;
    let Said::Value((again, bad)) = fuzzing::letters(&written) else {
        return Err("letters that were written are not read".to_owned());
    };
    let wanted: Vec<_> = letters.into_iter().chain([new]).collect();
    let wanted = wanted.get(wanted.len().saturating_sub(LETTERS_MAX)..).unwrap_or_default();
    ensure!(again == wanted && bad.is_empty(), "{again:?} and {} bad bytes, not {wanted:?}", bad.len());
    Ok(())
}

pub(super) fn checkpoint(bytes: &[u8], trace: &mut Trace) -> Result<(), String> {
    let said = said(fuzzing::checkpoint(bytes), trace);
    let end = said.as_ref().map_or(0, |checkpoint| checkpoint.position);
    let config = SegmentLogConfig { measured: true, ..config() };
    let disk = MemoryDisk::default();
    disk.put("/log/red.checkpoint", bytes.to_vec());
    let restored = open(&disk, &config, trace)?.map(|log| log.log().restored());
    opens_behind("/log/red.checkpoint", bytes, end, &config, trace)?;
    let Some(checkpoint) = said else {
        let kept = matches!(restored, None | Some(Restored::Broken { position: 0, .. }));
        ensure!(kept, "what does not check is restored as {restored:?}");
        return Ok(());
    };
    ensure!(end < ORDINAL_MAX, "a checkpoint at {end}");
    match restored {
        Some(Restored::Checkpoint { position, bytes }) => {
            trace.see("restored");
            ensure!(position == end && bytes == checkpoint.bytes, "{} bytes at {position}", bytes.len());
        }
        Some(Restored::Broken { position, .. }) if position == end => trace.see("broken"),
        other => return Err(format!("a checkpoint at {end} is restored as {other:?}")),
    }
    let written = fuzzing::write_checkpoint(&checkpoint).map_err(text)?;
    ensure!(fuzzing::checkpoint(&written) == Said::Value(checkpoint), "it is another one when it is written");
    Ok(())
}

pub(super) fn clean(bytes: &[u8], trace: &mut Trace) -> Result<(), String> {
    let said = said(fuzzing::clean(bytes), trace);
    opens_behind("/log/clean", bytes, 0, &config(), trace)?;
    let Some(end) = said else { return Ok(()) };
    ensure!(end < ORDINAL_MAX, "an end at {end}");
    let written = fuzzing::write_clean(end).map_err(text)?;
    ensure!(
        fuzzing::clean(&written) == Said::Value(end),
        "an end at {end} is another one when it is written"
    );
    Ok(())
}

pub(super) fn shape_position(rng: &mut Rng, input: &mut Vec<u8>) {
    if rng.one_in(3) {
        // Position and one of its counts move together, as they have to.
        let slot = [0, 512].get(rng.below(2)).copied().unwrap_or(0);
        let by = rng.bits() >> (rng.bits() % 64);
        let field = [40, 48, 56, 64, 56 + 8 * 7].get(rng.below(5)).copied().unwrap_or(40);
        for at in [slot + 32, slot + field] {
            let moved = seal::u64_at(input, at).unwrap_or_default().wrapping_add(by);
            seal::put(input, at, &moved.to_le_bytes());
        }
    }
    if !rng.one_in(4) {
        seal::position(input);
    }
}

pub(super) fn shape_letters(rng: &mut Rng, input: &mut Vec<u8>) {
    if rng.one_in(3) {
        let (_, message, span) = rng.pick(&seal::sealed_letters(input)).cloned().unwrap_or_default();
        let begin = message.start.saturating_sub(seal::LETTER_HEADER);
        if rng.one_in(3) {
            let copy = input.get(begin..span.end).unwrap_or_default().to_vec();
            input.extend_from_slice(&copy);
        } else {
            let field = [4, 6, 8, 16].get(rng.below(4)).copied().unwrap_or(4);
            mutate::number(rng, input, begin + field);
        }
    }
    if !rng.one_in(4) {
        seal::letters(input);
    }
    if rng.one_in(4) {
        let at = rng.below(input.len());
        mutate::number(rng, input, at);
    }
}

pub(super) fn shape_checkpoint(rng: &mut Rng, input: &mut Vec<u8>) {
    if !rng.one_in(4) {
        seal::checkpoint(input, rng.one_in(2));
    }
}

pub(super) fn shape_clean(rng: &mut Rng, input: &mut Vec<u8>) {
    if !rng.one_in(4) {
        let length = input.len();
        seal::frame(input, 0..length);
    }
}

fn letter(ordinal: u64, message: &str, span: &'static [u8]) -> DeadLetter {
    let (reason, message) = (DropReason::Rejected, message.to_owned());
    DeadLetter { ordinal, reason, message, bytes: Bytes::from_static(span) }
}

pub(super) fn position_seeds() -> Seeds {
    let at = |exported, damaged| {
        let log = fuzzing::Log::open(&MemoryDisk::default(), &config()).map_err(std::io::Error::other)?;
        log.commit([(Bytes::from_static(b"spans"), exported as u32 + damaged as u32)]);
        let to = exported + damaged;
        let advance = nyx_telemetry::log::Advance {
            to,
            exported,
            dropped: vec![(DropReason::Damaged, damaged)],
            ..Default::default()
        };
        log.log().advance(DestinationId(0), &advance).map_err(std::io::Error::other)
    };
    let new = fuzzing::write_position(None, &at(100, 0)?, false)?;
    let later = fuzzing::write_position(Some(&new), &at(700, 20)?, false)?;
    let mut cut_off = later.clone();
    seal::put(&mut cut_off, 40, &[9]);
    Ok(vec![("new", new), ("later", later), ("cut_off", cut_off)])
}

pub(super) fn letter_seeds() -> Seeds {
    let letters =
        [letter(5, "bad request", b"one span"), letter(9, "", b""), letter(7, "nyxl", b"nyxl nyxl")];
    let mut bytes = fuzzing::write_letters(None, &letters)?;
    for copy in [0, 32] {
        seal::put(&mut bytes, copy + 12, &[7; 16]);
    }
    seal::letters(&mut bytes);
    let empty = bytes.get(..seal::LETTERS_START).unwrap_or_default().to_vec();
    let torn = bytes.get(..bytes.len() - 5).unwrap_or_default().to_vec();
    let mut bad = bytes.clone();
    seal::put(&mut bad, seal::LETTERS_START + 30, b"!");
    Ok(vec![("three", bytes), ("empty", empty), ("torn", torn), ("bad", bad)])
}

pub(super) fn checkpoint_seeds() -> Seeds {
    let checkpoint = |position, durability, boot, bytes| {
        fuzzing::write_checkpoint(&Checkpoint {
            position,
            durability,
            boot,
            bytes: Bytes::from_static(bytes),
        })
    };
    Ok(vec![
        ("power", checkpoint(1_000, Durability::Power, Some([5; 16]), b"what was counted")?),
        ("process", checkpoint(0, Durability::Process, None, b"")?),
    ])
}

pub(super) fn clean_seeds() -> Seeds {
    Ok(vec![("empty_log", fuzzing::write_clean(0)?), ("log", fuzzing::write_clean(1_000)?)])
}
