//! Changes to what a client says, by somebody who knows HTTP and OTLP.

mod http1;
mod http2;
mod requests;

pub(super) use self::requests::{EXPORT, TRACES, framed, packed};
use super::{HEAD, Protocol, frames::PREFACE};
use crate::{Rng, mutate::LENGTH_MAX};

/// For the gRPC door.
pub(in super::super) fn grpc(rng: &mut Rng, input: &mut Vec<u8>) {
    shape(Protocol::Grpc, rng, input);
}

/// For the HTTP door.
pub(in super::super) fn http(rng: &mut Rng, input: &mut Vec<u8>) {
    shape(Protocol::Http, rng, input);
}

/// Whole frames, heads and messages are changed, doubled, cut and put in other places, and new requests added.
fn shape(door: Protocol, rng: &mut Rng, input: &mut Vec<u8>) {
    if input.len() < HEAD {
        input.resize(HEAD, 0);
    }
    let said = input.split_off(HEAD);
    // Most worlds are good ones, and most clients read on.
    let world = if rng.one_in(4) { rng.bits() as u8 } else { 0 };
    let end = if rng.one_in(3) { rng.bits() as u8 } else { 0 };
    input.splice(0..2, [world, end]);
    if rng.one_in(2)
        && let Some([pace, also]) = input.get_mut(2..4)
    {
        (*pace, *also) = (rng.bits() as u8, rng.bits() as u8);
    }
    let said = match said.strip_prefix(PREFACE) {
        // A client that says nothing but what is right, up to what its requests have that is unusual.
        _ if rng.one_in(3) => match door {
            Protocol::Http if rng.one_in(2) => http1::fresh(door, rng),
            _ => [PREFACE, &http2::fresh(door, rng)].concat(),
        },
        _ if rng.one_in(5) => said,
        Some(frames) => [PREFACE, &http2::changed(door, rng, frames)].concat(),
        None => http1::changed(door, rng, &said),
    };
    input.extend_from_slice(&said);
    input.truncate(LENGTH_MAX);
}
