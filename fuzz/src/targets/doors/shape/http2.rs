//! Changes to HTTP/2's frames.

use super::{
    super::{
        Protocol,
        frames::{
            self, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PADDED, PING,
            RST_STREAM, SETTINGS, WINDOW_UPDATE,
        },
    },
    requests,
};
use crate::{Rng, mutate};

/// Requests one after the other, as a client would send them.
pub(super) fn fresh(door: Protocol, rng: &mut Rng) -> Vec<u8> {
    let mut frames = vec![Frame::new(SETTINGS, 0, 0, Vec::new())];
    for _ in 0..=rng.below(4) {
        append(door, rng, &mut frames);
    }
    frames::write(&frames)
}

pub(super) fn changed(door: Protocol, rng: &mut Rng, said: &[u8]) -> Vec<u8> {
    let (mut frames, rest) = frames::read(said);
    let rest = if rng.one_in(3) { rest.to_vec() } else { Vec::new() };
    for _ in 0..=rng.below(4) {
        change(door, rng, &mut frames);
    }
    [frames::write(&frames), rest].concat()
}

fn change(door: Protocol, rng: &mut Rng, frames: &mut Vec<Frame>) {
    let at = rng.below(frames.len());
    match rng.below(16) {
        0..4 => append(door, rng, frames),
        4 => again(rng, frames),
        5 => frames.extend(frames.get(at).cloned()),
        6 => drop(frames.drain(at..(at + 1).min(frames.len()))),
        7 => {
            let other = rng.below(frames.len());
            if !frames.is_empty() {
                frames.swap(at, other);
            }
        }
        8 => frames.insert(at, control(rng, frames)),
        9 => frames.truncate(at + 1),
        10 | 11 => split(rng, frames, at),
        12 => {
            if let Some(frame) = frames.iter_mut().filter(|frame| frame.kind == DATA).nth(rng.below(3)) {
                prefix_or_message(rng, frame);
            }
        }
        13 => {
            if let Some(frame) = frames.get_mut(at) {
                pad_or_end(rng, frame);
            }
        }
        _ => {
            if let Some(frame) = frames.get_mut(at) {
                field(rng, frame);
            }
        }
    }
}

/// A stream that was not used yet.
fn unused(frames: &[Frame]) -> u32 {
    frames.iter().map(|frame| frame.stream).max().map_or(1, |last| (last.min(1 << 20) + 1) | 1)
}

/// A new request behind everything.
fn append(door: Protocol, rng: &mut Rng, frames: &mut Vec<Frame>) {
    let stream = unused(frames);
    let new = requests::new(door, rng);
    let scheme = if rng.one_in(20) { "https" } else { "http" };
    let mut head = vec![(":method", new.method), (":scheme", scheme), (":path", new.path)];
    if !rng.one_in(10) {
        head.push((":authority", "door"));
    }
    head.extend(new.headers.iter().map(|(name, value)| (*name, value.as_str())));
    let ends = if new.body.is_empty() { END_STREAM } else { 0 };
    frames.push(Frame::new(HEADERS, END_HEADERS | ends, stream, frames::literals(&head)));
    if new.body.is_empty() {
        return;
    }
    frames.push(Frame::new(DATA, END_STREAM, stream, new.body));
    if rng.one_in(6) {
        // Trailers end it.
        if let Some(data) = frames.last_mut() {
            data.flags = 0;
        }
        let trailers = frames::literals(&[("x-trailer", "1")]);
        frames.push(Frame::new(HEADERS, END_HEADERS | END_STREAM, stream, trailers));
    }
}

/// The frames of one stream once more, as another.
fn again(rng: &mut Rng, frames: &mut Vec<Frame>) {
    let stream = frames.get(rng.below(frames.len())).map(|frame| frame.stream).unwrap_or_default();
    let unused = unused(frames);
    let copies = frames.iter().filter(|frame| frame.stream == stream && stream > 0).cloned();
    let copies: Vec<_> = copies.map(|frame| Frame { stream: unused, ..frame }).collect();
    frames.extend(copies);
}

fn control(rng: &mut Rng, frames: &[Frame]) -> Frame {
    let stream = frames.get(rng.below(frames.len())).map(|frame| frame.stream).unwrap_or_default();
    let number =
        [0, 1, 0x7fff_ffff, 65_535, rng.bits() as u32].get(rng.below(5)).copied().unwrap_or_default();
    let four = number.to_be_bytes().to_vec();
    let on = if rng.one_in(2) { 0 } else { stream };
    match rng.below(8) {
        0 => Frame::new(PING, (rng.bits() % 2) as u8, 0, vec![7; 8]),
        1 => Frame::new(WINDOW_UPDATE, 0, on, four),
        2 | 3 => Frame::new(RST_STREAM, 0, stream, four),
        4 => Frame::new(GOAWAY, 0, 0, [four, vec![0; 4]].concat()),
        5 => {
            let name = (rng.bits() % 8) as u16;
            Frame::new(SETTINGS, u8::from(rng.one_in(4)), 0, [name.to_be_bytes().to_vec(), four].concat())
        }
        6 => Frame::new(CONTINUATION, END_HEADERS, stream, Vec::new()),
        _ => Frame::new(0xee, rng.bits() as u8, on, four),
    }
}

/// One frame as two: DATA as more DATA, HEADERS as a CONTINUATION.
fn split(rng: &mut Rng, frames: &mut Vec<Frame>, at: usize) {
    let Some(frame) = frames.get_mut(at).filter(|frame| matches!(frame.kind, DATA | HEADERS)) else { return };
    let rest = frame.payload.split_off(rng.below(frame.payload.len() + 1));
    let (kind, first, second) = match frame.kind {
        DATA => (DATA, frame.flags & !END_STREAM, frame.flags & END_STREAM),
        _ => (CONTINUATION, frame.flags & !END_HEADERS, END_HEADERS),
    };
    frame.flags = first;
    let behind = Frame::new(kind, second, frame.stream, rest);
    frames.insert(at + 1, behind);
}

/// Changes a message's prefix, or the message and its prefix with it.
fn prefix_or_message(rng: &mut Rng, frame: &mut Frame) {
    if rng.one_in(3) {
        let at = rng.below(5);
        mutate::number(rng, &mut frame.payload, at);
        return;
    }
    let Some((&[flag, ..], message)) = frame.payload.split_first_chunk::<5>() else { return };
    let mut message = message.to_vec();
    requests::change(rng, &mut message);
    frame.payload = requests::framed(flag, &message);
}

fn pad_or_end(rng: &mut Rng, frame: &mut Frame) {
    if rng.one_in(2) {
        frame.flags ^= END_STREAM;
    } else if frame.kind == DATA && !frame.has(PADDED) {
        let padding = rng.below(20);
        frame.payload.insert(0, padding as u8);
        frame.payload.extend(std::iter::repeat_n(0, padding));
        frame.flags |= PADDED;
    }
}

/// Changes what stands before the payload.
fn field(rng: &mut Rng, frame: &mut Frame) {
    match rng.below(5) {
        0 => frame.kind = (rng.bits() % 12) as u8,
        1 => frame.flags ^= 1 << (rng.bits() % 8),
        2 => frame.stream = [0, 1, 2, 3, 5, 99, 0x7fff_ffff].get(rng.below(7)).copied().unwrap_or_default(),
        3 => {
            frame.length =
                Some((frame.payload.len() as u32).wrapping_add(rng.below(9) as u32).wrapping_sub(4))
        }
        _ => mutate::mutate(rng, &mut frame.payload, &[]),
    }
}
