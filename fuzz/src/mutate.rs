//! Changes to an input that know nothing of what it is.

use crate::Rng;

/// Inputs have no more bytes than this.
pub const LENGTH_MAX: usize = 16 << 10;
/// A chunk that is inserted, copied or removed has no more bytes than this, most of the time.
const CHUNK_MAX: usize = 256;

/// Changes an input a few times; `others` are inputs to take parts of.
pub fn mutate(rng: &mut Rng, input: &mut Vec<u8>, others: &[Vec<u8>]) {
    for _ in 0..=rng.below(6) {
        once(rng, input, others);
        input.truncate(LENGTH_MAX);
    }
}

fn once(rng: &mut Rng, input: &mut Vec<u8>, others: &[Vec<u8>]) {
    let at = rng.below(input.len());
    match rng.below(14) {
        0 | 1 => with(input, at, |byte| *byte ^= 1 << (rng.bits() % 8)),
        2 => with(input, at, |byte| *byte = rng.bits() as u8),
        3 | 4 => number(rng, input, at),
        // Numbers are aligned, more often than not.
        5 | 6 => number(rng, input, at & !3),
        7 => {
            let end = at + chunk(rng, input.len() - at.min(input.len()));
            input.drain(at.min(input.len())..end.min(input.len()));
        }
        8 => {
            let bytes: Vec<u8> = (0..rng.below(32)).map(|_| rng.bits() as u8).collect();
            insert(input, at, &bytes);
        }
        9 => {
            let bytes = part(rng, input);
            insert(input, at, &bytes);
        }
        10 => {
            let bytes = part(rng, input);
            overwrite(input, at, &bytes);
        }
        11 => {
            let zeros = vec![if rng.one_in(3) { 0xff } else { 0 }; chunk(rng, input.len())];
            overwrite(input, at, &zeros);
        }
        12 => {
            let bytes = rng.pick(others).cloned().unwrap_or_default();
            let bytes = if rng.one_in(2) { bytes } else { part(rng, &bytes) };
            if rng.one_in(2) { insert(input, at, &bytes) } else { overwrite(input, at, &bytes) }
        }
        _ if rng.one_in(4) => input.truncate(at),
        _ => {}
    }
}

/// Puts a number that is often the first wrong one in the place of one, little-endian.
pub fn number(rng: &mut Rng, input: &mut [u8], at: usize) {
    let width = [1, 2, 4, 4, 8, 8].get(rng.below(6)).copied().unwrap_or(1usize);
    let Some(place) = input.get_mut(at..at + width) else { return };
    let mut old = [0; 8];
    for (to, from) in old.iter_mut().zip(place.iter()) {
        *to = *from;
    }
    let old = u64::from_le_bytes(old);
    let near = rng.bits() % 17;
    let new = match rng.below(6) {
        0 => old.wrapping_add(near),
        1 => old.wrapping_sub(near),
        2 => [
            0,
            1,
            0x7f,
            0x80,
            0xff,
            0x7fff,
            0xffff,
            0x7fff_ffff,
            0xffff_ffff,
            u64::MAX,
            1 << 62,
            (1 << 62) - 1,
        ]
        .get(rng.below(12))
        .copied()
        .unwrap_or_default(),
        3 => 1u64 << (rng.bits() % 64),
        4 => near,
        _ => old ^ 1 << (rng.bits() % 64),
    };
    for (to, from) in place.iter_mut().zip(new.to_le_bytes()) {
        *to = from;
    }
}

fn with(input: &mut [u8], at: usize, change: impl FnOnce(&mut u8)) {
    if let Some(byte) = input.get_mut(at) {
        change(byte);
    }
}

fn chunk(rng: &mut Rng, of: usize) -> usize {
    let max = if rng.one_in(8) { of } else { of.min(CHUNK_MAX) };
    rng.below(max + 1)
}

fn part(rng: &mut Rng, of: &[u8]) -> Vec<u8> {
    let from = rng.below(of.len());
    let length = chunk(rng, of.len() - from.min(of.len()));
    of.get(from..from + length).unwrap_or_default().to_vec()
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let at = at.min(input.len());
    input.splice(at..at, bytes.iter().copied());
}

fn overwrite(input: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in input.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}
