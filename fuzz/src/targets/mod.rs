//! The targets: each takes any bytes, and says what does not hold of what nyx makes of them.

mod config;
mod damage;
mod doors;
#[allow(clippy::ptr_arg, reason = "a shape is one of Target's, whatever it does")]
mod files;
mod folder;
mod json;
#[allow(clippy::ptr_arg, reason = "a shape is one of Target's, whatever it does")]
mod segment;
mod spans;
mod walk;

use std::io;

use crate::{Rng, Trace};

/// A target's inputs with their names, made by the code that writes such bytes.
pub type Seeds = io::Result<Vec<(&'static str, Vec<u8>)>>;

/// Something that reads bytes which others wrote.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in the corpus.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Runs it, and says what does not hold.
    pub run: fn(&[u8], &mut Trace) -> Result<(), String>,
    /// Changes an input as somebody would who knows what it is, checksums included.
    pub shape: fn(&mut Rng, &mut Vec<u8>),
    /// Its corpus.
    pub seeds: fn() -> Seeds,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "segment",
        about: "bytes as a log's last segment: open, read all of it, commit, crash, read again",
        run: segment::last,
        shape: segment::shape,
        seeds: segment::seeds,
    },
    Target {
        name: "segment_middle",
        about: "bytes as a segment between two good ones",
        run: segment::middle,
        shape: segment::shape,
        seeds: segment::middle_seeds,
    },
    Target {
        name: "segment_walk",
        about: "the walk over a segment, with small and large reads, against a plain search",
        run: walk::run,
        shape: walk::shape,
        seeds: walk::seeds,
    },
    Target {
        name: "damage",
        about: "a log that is written, damaged and opened as the bytes say, against what was written",
        run: damage::run,
        shape: no_shape,
        seeds: damage::seeds,
    },
    Target {
        name: "position",
        about: "bytes as a destination's position",
        run: files::position,
        shape: files::shape_position,
        seeds: files::position_seeds,
    },
    Target {
        name: "dead_letters",
        about: "bytes as a destination's dead letters",
        run: files::dead_letters,
        shape: files::shape_letters,
        seeds: files::letter_seeds,
    },
    Target {
        name: "checkpoint",
        about: "bytes as the checkpoint of the span metrics",
        run: files::checkpoint,
        shape: files::shape_checkpoint,
        seeds: files::checkpoint_seeds,
    },
    Target {
        name: "clean",
        about: "bytes as the marker of an orderly end",
        run: files::clean,
        shape: files::shape_clean,
        seeds: files::clean_seeds,
    },
    Target {
        name: "scan",
        about: "bytes as a request: scan, select and cut agree",
        run: spans::scan_select_cut,
        shape: no_shape,
        seeds: spans::request_seeds,
    },
    Target {
        name: "inspect",
        about: "bytes as a request at a door: what is kept is valid, and every span is accounted for",
        run: spans::inspected,
        shape: no_shape,
        seeds: spans::request_seeds,
    },
    Target {
        name: "json",
        about: "bytes as a request in JSON: what comes out is a request, within its bound",
        run: json::converted,
        shape: no_shape,
        seeds: json::seeds,
    },
    Target {
        name: "grpc_door",
        about: "bytes of a client at the gRPC door: it ends, everything is accounted for, what is answered is kept",
        run: doors::grpc,
        shape: doors::grpc_shape,
        seeds: doors::grpc_seeds,
    },
    Target {
        name: "http_door",
        about: "bytes of a client at the HTTP door, likewise",
        run: doors::http,
        shape: doors::http_shape,
        seeds: doors::http_seeds,
    },
    Target {
        name: "config",
        about: "text as a configuration: read, or refused with its places, and no secret said",
        run: config::run,
        shape: config::shape,
        seeds: config::seeds,
    },
    Target {
        name: "traceparent",
        about: "bytes as a traceparent header",
        run: spans::traceparent,
        shape: no_shape,
        seeds: spans::traceparent_seeds,
    },
];

fn no_shape(_: &mut Rng, _: &mut Vec<u8>) {}
