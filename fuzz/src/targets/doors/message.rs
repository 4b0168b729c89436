//! What a client sent as the message of a request, and whether the log has it.

use std::{fmt, io::Read as _};

use flate2::read::MultiGzDecoder;
use nyx_telemetry::span::{from_json, keep_valid};

/// Nothing in an input unpacks to more that a door would take.
const UNPACKED_MAX: u64 = 2 << 20;

/// The body of a request that was answered with success.
#[derive(PartialEq, Eq)]
pub(super) enum Message {
    /// Of a gRPC call, behind its prefix.
    Framed(Vec<u8>),
    /// Of a POST: protobuf or JSON, packed or not.
    Body(Vec<u8>),
    /// Of a POST over HTTP/2, as it was behind each of its frames: it is whole where its `content-length` is reached,
    /// whatever comes behind that. Where something did, none of them is certain.
    Grown(Vec<Vec<u8>>),
}

impl Message {
    /// Takes it out of what the log has; true too where it has no spans that may be kept.
    pub(super) fn is_among(&self, records: &mut Vec<&[u8]>) -> bool {
        match self {
            Self::Framed(framed) => match framed.split_first_chunk::<5>() {
                Some(([0, ..], message)) => is_kept(message, records),
                Some(([1, ..], packed)) => unpacked(packed).is_some_and(|message| is_kept(&message, records)),
                _ => false,
            },
            Self::Body(body) => is_body_kept(body, records),
            Self::Grown(bodies) => bodies.iter().rev().any(|body| is_body_kept(body, records)),
        }
    }
}

fn is_body_kept(body: &[u8], records: &mut Vec<&[u8]>) -> bool {
    let readings = [Some(body.to_vec()), unpacked(body)].into_iter().flatten();
    let mut readings = readings.flat_map(|body| [converted(&body), Some(body)]).flatten();
    readings.any(|message| is_kept(&message, records))
}

fn is_kept(message: &[u8], records: &mut Vec<&[u8]>) -> bool {
    let mut valid = Vec::new();
    match keep_valid(message, &mut valid) {
        Ok(0) => true,
        Ok(_) => match records.iter().position(|record| *record == message || *record == valid) {
            Some(at) => {
                records.swap_remove(at);
                true
            }
            None => false,
        },
        Err(_) => false,
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = match self {
            Self::Framed(bytes) | Self::Body(bytes) => bytes.as_slice(),
            Self::Grown(bodies) => bodies.last().map(Vec::as_slice).unwrap_or_default(),
        };
        write!(f, "{} bytes: ", bytes.len())?;
        bytes.get(..bytes.len().min(64)).unwrap_or_default().fmt(f)
    }
}

fn unpacked(packed: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    MultiGzDecoder::new(packed).take(UNPACKED_MAX).read_to_end(&mut plain).ok().map(|_| plain)
}

fn converted(json: &[u8]) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    from_json(json, &mut message).ok().map(|()| message)
}
