//! Requests of every kind, most of them such as senders make.

use std::{io::Write as _, sync::LazyLock};

use flate2::{Compression, write::GzEncoder};

use super::super::{Protocol, TOKEN};
use crate::{
    Rng, mutate,
    targets::{json, spans},
};

pub(in super::super) const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
pub(in super::super) const TRACES: &str = "/v1/traces";

/// Messages of requests, each with whether it is JSON.
static MESSAGES: LazyLock<Vec<(Vec<u8>, bool)>> = LazyLock::new(|| {
    let requests = spans::request_seeds().unwrap_or_default().into_iter().map(|(_, bytes)| (bytes, false));
    let texts = json::seeds().unwrap_or_default().into_iter().map(|(_, bytes)| (bytes, true));
    requests.chain(texts).chain([(Vec::new(), false), (b"{}".to_vec(), true)]).collect()
});

/// A bomb: 4 MiB of nothing.
static BOMB: LazyLock<Vec<u8>> = LazyLock::new(|| packed(&vec![0; 4 << 20]));

pub(in super::super) fn packed(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory does not fail.
    let _infallible = encoder.write_all(plain);
    encoder.finish().unwrap_or_default()
}

/// A gRPC message behind its prefix.
pub(in super::super) fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

/// A message, often as it should be, and whether it is JSON.
pub(super) fn message(rng: &mut Rng) -> (Vec<u8>, bool) {
    let (mut bytes, is_json) = rng.pick(&MESSAGES).cloned().unwrap_or_default();
    if rng.one_in(3) {
        change(rng, &mut bytes);
    }
    (bytes, is_json)
}

/// Changes a message: most of the time where it stays one.
pub(super) fn change(rng: &mut Rng, message: &mut Vec<u8>) {
    match rng.below(4) {
        // The ids of the seeds are bytes that come again and again: one of zeros.
        0 => {
            let ids = message
                .windows(8)
                .position(|id| id.first().is_some_and(|one| id.iter().all(|byte| byte == one)));
            if let Some(id) = ids.and_then(|at| message.get_mut(at..at + 16)) {
                id.fill(0);
            }
        }
        1 => *message = [message.as_slice(), message].concat(),
        2 => message.extend_from_slice(&[0xfa, 0x3f, 2, 1, 2]),
        _ => mutate::mutate(rng, message, &[]),
    }
}

/// A request as its headers, pseudo-headers first, and its body.
pub(super) struct New {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

/// A request, to the other door now and then; one in three has something unusual.
pub(super) fn new(door: Protocol, rng: &mut Rng) -> New {
    let (mut message, mut is_json) = self::message(rng);
    let grpc = (door == Protocol::Grpc) != rng.one_in(16);
    while grpc && is_json {
        (message, is_json) = self::message(rng);
    }
    let gzip = rng.one_in(3);
    let bytes = match gzip {
        true if rng.one_in(8) => BOMB.clone(),
        true => packed(&message),
        false => message,
    };
    let (path, kind, encoding) = match (grpc, is_json) {
        (true, _) => (EXPORT, "application/grpc", "grpc-encoding"),
        (false, true) => (TRACES, "application/json", "content-encoding"),
        (false, false) => (TRACES, "application/x-protobuf", "content-encoding"),
    };
    let mut headers = vec![("content-type", kind.to_owned())];
    if gzip {
        headers.push((encoding, "gzip".to_owned()));
    }
    if rng.one_in(2) {
        headers.push(("authorization", format!("Bearer {TOKEN}")));
    }
    let body = if grpc { framed(u8::from(gzip), &bytes) } else { bytes };
    let mut new = New { method: "POST", path, headers, body };
    if rng.one_in(3) {
        unusual(rng, &mut new);
    }
    new
}

fn unusual(rng: &mut Rng, new: &mut New) {
    let pick = |rng: &mut Rng, of: &[&'static str]| rng.pick(of).copied().unwrap_or_default();
    match rng.below(8) {
        0 => new.method = pick(rng, &["GET", "HEAD", "PUT", "OPTIONS", "CONNECT", "post", "PRI"]),
        1 => {
            new.path = pick(
                rng,
                &["/", "/v1/traces/", "/v1/logs", EXPORT, TRACES, "*", "/grpc.health.v1.Health/Check"],
            )
        }
        2 => new.headers.retain(|(name, _)| *name != "content-type"),
        3 => {
            let kinds = [
                "application/grpc+proto",
                "application/grpc-web",
                "text/plain",
                "application/json; charset=utf-8",
                "",
            ];
            new.headers.insert(0, ("content-type", pick(rng, &kinds).to_owned()));
        }
        4 => {
            let name = pick(rng, &["content-encoding", "grpc-encoding"]);
            new.headers
                .push((name, pick(rng, &["gzip", "identity", "br", "zstd", "gzip, gzip", ""]).to_owned()));
        }
        5 => {
            let name =
                pick(rng, &["expect", "te", "grpc-timeout", "content-length", "x", "connection", "upgrade"]);
            let value = pick(
                rng,
                &["100-continue", "trailers", "1m", "0", "5", "18446744073709551616", "close", "h2c"],
            );
            new.headers.push((name, value.to_owned()));
        }
        6 => new.headers.push(("x-long", "x".repeat(rng.below(14_000)))),
        _ => {
            let at = rng.below(new.body.len().min(6));
            mutate::number(rng, &mut new.body, at);
        }
    }
}
