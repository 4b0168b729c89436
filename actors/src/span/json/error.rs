//! Why a text is no trace request in JSON.

use std::fmt::Write as _;

use thiserror::Error;

/// Characters of a place that are shown: what it consists of are names of OTLP's, but they may be many.
const PLACE_MAX: usize = 160;

/// The text is no JSON, or JSON that is no `ExportTraceServiceRequest`. Of what it holds nothing is echoed but numbers.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid JSON at line {line}, column {column}{}: {why}", in_place(place))]
pub struct JsonError {
    /// Line, from 1.
    pub line: usize,
    /// Column in bytes.
    pub column: usize,
    /// Where in the request, such as `resourceSpans[0].scopeSpans[0].spans[3].traceId`; empty where it is no part of it.
    pub place: String,
    /// What is wrong there.
    pub why: String,
}

fn in_place(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!(" ({place})") }
}

/// A step from a value to one inside it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Field(&'static str),
    Element(usize),
}

impl JsonError {
    pub(super) fn not_utf8(text: &[u8], at: usize) -> Self {
        let before = text.get(..at).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n');
        let column = before.rsplit(|byte| *byte == b'\n').next().map_or(0, <[u8]>::len);
        Self { line: line.count(), column: column + 1, place: String::new(), why: "not utf-8".to_owned() }
    }

    pub(super) fn new(error: &serde_json::Error, path: &[Step], why: Option<String>) -> Self {
        let (line, column) = (error.line(), error.column());
        let why = why.unwrap_or_else(|| {
            let text = error.to_string();
            let at = format!(" at line {line} column {column}");
            text.strip_suffix(&at).unwrap_or(&text).chars().take(PLACE_MAX).collect()
        });
        Self { line, column, place: place(path), why }
    }
}

fn place(path: &[Step]) -> String {
    let mut place = String::new();
    for step in path {
        let _infallible = match step {
            Step::Field(name) if place.is_empty() => write!(place, "{name}"),
            Step::Field(name) => write!(place, ".{name}"),
            Step::Element(index) => write!(place, "[{index}]"),
        };
        if place.len() > PLACE_MAX {
            place.push('…');
            break;
        }
    }
    place
}
