//! What the tests of this module share: an oracle that decodes with prost, and two sources of requests.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{
        AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
    },
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Event, Link},
    },
};
use prost::Message;

use super::{SpanId, SpanKind, StatusCode, TraceId};

/// A `SpanView` that owns its texts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub(super) service: String,
    pub(super) name: String,
    pub(super) kind: SpanKind,
    pub(super) status: StatusCode,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
}

impl From<&super::SpanView<'_>> for Seen {
    fn from(view: &super::SpanView<'_>) -> Self {
        Self {
            service: view.service.into(),
            name: view.name.into(),
            kind: view.kind,
            status: view.status,
            start: view.start_unix_nano,
            end: view.end_unix_nano,
            trace_id: view.trace_id,
            span_id: view.span_id,
        }
    }
}

/// What a scan should say of these bytes, from prost and the rule for ids.
pub(super) fn oracle(bytes: &[u8]) -> Option<Vec<Seen>> {
    let request = ExportTraceServiceRequest::decode(bytes).ok()?;
    let mut seen = Vec::new();
    for resource_spans in &request.resource_spans {
        let attributes = resource_spans.resource.iter().flat_map(|resource| &resource.attributes);
        let service = attributes
            .filter(|attribute| attribute.key == "service.name")
            .find_map(|attribute| match &attribute.value.as_ref()?.value {
                Some(Value::StringValue(text)) => Some(text.clone()),
                _ => None,
            })
            .unwrap_or_default();
        for span in resource_spans.scope_spans.iter().flat_map(|scope_spans| &scope_spans.spans) {
            let links = span.links.iter();
            if !matches!(span.parent_span_id.len(), 0 | 8)
                || links.into_iter().any(|link| link.trace_id.len() != 16 || link.span_id.len() != 8)
            {
                return None;
            }
            seen.push(Seen {
                service: service.clone(),
                name: span.name.clone(),
                kind: SpanKind::from_wire(span.kind),
                status: StatusCode::from_wire(span.status.as_ref().map_or(0, |status| status.code)),
                start: span.start_time_unix_nano,
                end: span.end_time_unix_nano,
                trace_id: TraceId::from_slice(&span.trace_id)?,
                span_id: SpanId::from_slice(&span.span_id)?,
            });
        }
    }
    Some(seen)
}

pub(super) fn scanned(bytes: &[u8]) -> Result<Vec<Seen>, super::ScanError> {
    let mut seen = Vec::new();
    let scan = super::scan(bytes, |view| seen.push(Seen::from(view)))?;
    assert_eq!(scan.spans as usize, seen.len());
    Ok(seen)
}

/// A tape of choices. Proptest draws and shrinks the tape; what is read past its end is 0, which every
/// choice below takes for the plainest answer, so that a shrunk tape is a small request.
pub(super) struct Tape<'a> {
    rest: &'a [u8],
}

impl<'a> Tape<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                *first
            }
            None => 0,
        }
    }

    /// 0 to `below` − 1.
    pub(super) fn choose(&mut self, below: u8) -> u8 {
        self.byte() % below
    }

    /// True about once in `n`, for n up to 128.
    fn rarely(&mut self, n: u8) -> bool {
        self.byte() > 255 - 255 / n
    }

    fn number(&mut self) -> u64 {
        match self.choose(4) {
            0 => self.byte().into(),
            1 => 1_700_000_000_000_000_000 + u64::from(self.byte()),
            2 => u64::MAX - u64::from(self.byte()),
            _ => u64::from(self.byte()) << (self.byte() % 57),
        }
    }

    fn text(&mut self) -> String {
        const TEXTS: [&str; 8] = [
            "",
            "GET /",
            "service.name",
            "größe",
            "日本語",
            "🦀",
            "a name of some length, longer than 32",
            "k",
        ];
        let text = TEXTS[usize::from(self.choose(8))];
        if self.rarely(32) { text.repeat(9) } else { text.into() }
    }

    fn bytes(&mut self) -> Vec<u8> {
        (0..self.choose(20)).map(|_| self.byte()).collect()
    }
}

/// A request as the types of `opentelemetry-proto` can hold it, with valid ids.
pub(super) fn request(tape: &mut Tape<'_>) -> ExportTraceServiceRequest {
    let resource_spans = (0..tape.choose(4)).map(|_| resource_spans(tape)).collect();
    ExportTraceServiceRequest { resource_spans }
}

fn resource_spans(tape: &mut Tape<'_>) -> ResourceSpans {
    let resource = (tape.choose(4) > 0).then(|| Resource {
        attributes: attributes(tape),
        dropped_attributes_count: tape.choose(3).into(),
        entity_refs: (0..tape.choose(8) / 6)
            .map(|_| EntityRef {
                schema_url: tape.text(),
                r#type: tape.text(),
                id_keys: vec![tape.text()],
                description_keys: vec![tape.text()],
            })
            .collect(),
    });
    ResourceSpans {
        resource,
        scope_spans: (0..tape.choose(4)).map(|_| scope_spans(tape)).collect(),
        schema_url: tape.text(),
    }
}

fn scope_spans(tape: &mut Tape<'_>) -> ScopeSpans {
    let scope = (tape.choose(4) > 0).then(|| InstrumentationScope {
        name: tape.text(),
        version: tape.text(),
        attributes: attributes(tape),
        dropped_attributes_count: tape.choose(3).into(),
    });
    ScopeSpans { scope, spans: (0..tape.choose(5)).map(|_| span(tape)).collect(), schema_url: tape.text() }
}

pub(super) fn span(tape: &mut Tape<'_>) -> Span {
    Span {
        trace_id: vec![tape.byte(); 16],
        span_id: vec![tape.byte(); 8],
        trace_state: tape.text(),
        parent_span_id: if tape.choose(2) == 0 { vec![] } else { vec![tape.byte(); 8] },
        flags: tape.choose(3).into(),
        name: tape.text(),
        kind: i32::from(tape.choose(8)) - 1,
        start_time_unix_nano: tape.number(),
        end_time_unix_nano: tape.number(),
        attributes: attributes(tape),
        dropped_attributes_count: tape.choose(3).into(),
        events: (0..tape.choose(8) / 5)
            .map(|_| Event {
                time_unix_nano: tape.number(),
                name: tape.text(),
                attributes: attributes(tape),
                dropped_attributes_count: tape.choose(3).into(),
            })
            .collect(),
        dropped_events_count: tape.choose(3).into(),
        links: (0..tape.choose(8) / 5)
            .map(|_| Link {
                trace_id: vec![tape.byte(); 16],
                span_id: vec![tape.byte(); 8],
                trace_state: tape.text(),
                attributes: attributes(tape),
                dropped_attributes_count: tape.choose(3).into(),
                flags: tape.choose(3).into(),
            })
            .collect(),
        dropped_links_count: tape.choose(3).into(),
        status: (tape.choose(2) > 0)
            .then(|| Status { message: tape.text(), code: i32::from(tape.choose(5)) - 1 }),
    }
}

fn attributes(tape: &mut Tape<'_>) -> Vec<KeyValue> {
    (0..tape.choose(4)).map(|_| key_value(tape, 0)).collect()
}

fn key_value(tape: &mut Tape<'_>, depth: u8) -> KeyValue {
    KeyValue {
        key: tape.text(),
        value: (tape.choose(9) < 8).then(|| any_value(tape, depth)),
        key_strindex: 0,
    }
}

fn any_value(tape: &mut Tape<'_>, depth: u8) -> AnyValue {
    let value = match tape.choose(if depth < 4 { 9 } else { 6 }) {
        0 => Value::StringValue(tape.text()),
        1 => Value::BoolValue(tape.choose(2) == 1),
        2 => Value::IntValue(tape.number() as i64),
        3 => Value::DoubleValue(f64::from(tape.byte()) / 7.0),
        4 => Value::BytesValue(tape.bytes()),
        5 => return AnyValue { value: None },
        6 => Value::StringValueStrindex(tape.byte().into()),
        7 => Value::ArrayValue(ArrayValue {
            values: (0..tape.choose(4)).map(|_| any_value(tape, depth + 1)).collect(),
        }),
        _ => Value::KvlistValue(KeyValueList {
            values: (0..tape.choose(4)).map(|_| key_value(tape, depth + 1)).collect(),
        }),
    };
    AnyValue { value: Some(value) }
}

/// The messages of a trace request, each field with its number and type: what [`wild`] draws from.
#[derive(Clone, Copy)]
enum Type {
    Message(&'static [(u32, Type)]),
    /// A message that may hold itself.
    AnyValue,
    Text,
    Bytes,
    Id(usize),
    Varint,
    Fixed64,
    Fixed32,
}

use Type::{Fixed32, Fixed64, Id, Text, Varint};

const KEY_VALUE: Type = Type::Message(&[(1, Text), (2, Type::AnyValue), (2, Type::AnyValue), (3, Varint)]);
const REQUEST: Type = Type::Message(&[(1, RESOURCE_SPANS), (1, RESOURCE_SPANS), (1, RESOURCE_SPANS)]);
const RESOURCE_SPANS: Type = Type::Message(&[(2, SCOPE_SPANS), (2, SCOPE_SPANS), (1, RESOURCE), (3, Text)]);
const RESOURCE: Type = Type::Message(&[(1, KEY_VALUE), (1, KEY_VALUE), (2, Varint), (3, ENTITY_REF)]);
const ENTITY_REF: Type = Type::Message(&[(1, Text), (2, Text), (3, Text), (4, Text)]);
const SCOPE_SPANS: Type = Type::Message(&[(2, SPAN), (2, SPAN), (2, SPAN), (1, SCOPE), (3, Text)]);
const SCOPE: Type = Type::Message(&[(1, Text), (2, Text), (3, KEY_VALUE), (4, Varint)]);
const SPAN: Type = Type::Message(&[
    (1, Id(16)),
    (2, Id(8)),
    (5, Text),
    (6, Varint),
    (7, Fixed64),
    (8, Fixed64),
    (9, KEY_VALUE),
    (9, KEY_VALUE),
    (3, Text),
    (4, Id(8)),
    (10, Varint),
    (11, EVENT),
    (12, Varint),
    (13, LINK),
    (14, Varint),
    (15, STATUS),
    (15, STATUS),
    (16, Fixed32),
]);
const EVENT: Type = Type::Message(&[(1, Fixed64), (2, Text), (3, KEY_VALUE), (4, Varint)]);
const LINK: Type =
    Type::Message(&[(1, Id(16)), (2, Id(8)), (3, Text), (4, KEY_VALUE), (5, Varint), (6, Fixed32)]);
const STATUS: Type = Type::Message(&[(2, Text), (3, Varint)]);

const ANY_VALUE: &[(u32, Type)] = &[
    (1, Text),
    (2, Varint),
    (3, Varint),
    (4, Fixed64),
    (5, Type::Message(&[(1, Type::AnyValue), (1, Type::AnyValue)])),
    (6, Type::Message(&[(1, KEY_VALUE)])),
    (7, Type::Bytes),
    (8, Varint),
];

/// Bytes that follow the schema in everything that protobuf leaves free and that encoders do not use
/// (fields in any order and number, padded varints, unknown fields, groups), and once in a while break it.
pub(super) fn wild(tape: &mut Tape<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message(tape, REQUEST, 0, &mut out);
    out
}

fn message(tape: &mut Tape<'_>, kind: Type, depth: u32, out: &mut Vec<u8>) {
    let fields = match kind {
        Type::Message(fields) => fields,
        _ => ANY_VALUE,
    };
    // A span needs its ids, and so does a link: they come first, more may follow.
    for (number, kind) in fields {
        if matches!(kind, Id(_)) && (*number < 3) && !tape.rarely(64) {
            field(tape, *number, *kind, depth, out);
        }
    }
    let least = if matches!(kind, Type::AnyValue) { 1 } else { 2 };
    for _ in 0..least + tape.choose(if depth < 5 { 6 } else { 1 }) {
        let (number, kind) = fields[usize::from(tape.byte()) % fields.len()];
        let skip = matches!(kind, Type::Message(_) | Type::AnyValue) && depth > 10;
        if tape.rarely(12) {
            unknown(tape, depth, out);
        } else if !skip {
            field(tape, number, kind, depth, out);
        }
    }
}

fn field(tape: &mut Tape<'_>, number: u32, kind: Type, depth: u32, out: &mut Vec<u8>) {
    let wire_type = match kind {
        Type::Varint => 0,
        Fixed64 => 1,
        Fixed32 => 5,
        _ => 2,
    };
    let wire_type = if tape.rarely(120) { u32::from(tape.choose(8)) } else { wire_type };
    varint(tape, u64::from(number << 3 | wire_type), out);
    match kind {
        Varint => {
            let number = tape.number();
            varint(tape, number, out);
        }
        Fixed64 => out.extend(tape.number().to_le_bytes()),
        Fixed32 => out.extend([tape.byte(), 0, 0, 0]),
        Text => {
            let mut text = tape.text().into_bytes();
            if tape.rarely(120) {
                text.push(0x80 | tape.byte());
            }
            varint(tape, text.len() as u64, out);
            out.extend(text);
        }
        Type::Bytes => {
            let bytes = tape.bytes();
            varint(tape, bytes.len() as u64, out);
            out.extend(bytes);
        }
        Id(length) => {
            let length = if tape.rarely(120) { usize::from(tape.choose(20)) } else { length };
            varint(tape, length as u64, out);
            out.extend(vec![tape.byte(); length]);
        }
        Type::Message(_) | Type::AnyValue => {
            let mut inner = Vec::new();
            message(tape, kind, depth + 1, &mut inner);
            varint(tape, inner.len() as u64, out);
            out.extend(inner);
        }
    }
}

fn unknown(tape: &mut Tape<'_>, depth: u32, out: &mut Vec<u8>) {
    let number = [17, 99, 2047, 536_870_911][usize::from(tape.choose(4))];
    let number = if tape.rarely(100) { 0 } else { number };
    let wire_type = tape.choose(if depth > 14 { 3 } else { 4 });
    varint(tape, number << 3 | u64::from(wire_type), out);
    match wire_type {
        0 => {
            let number = tape.number();
            varint(tape, number, out);
        }
        1 => out.extend([7; 8]),
        2 => {
            let bytes = tape.bytes();
            varint(tape, bytes.len() as u64, out);
            out.extend(bytes);
        }
        _ => {
            for _ in 0..tape.choose(3) {
                unknown(tape, depth + 1, out);
            }
            let end = if tape.rarely(60) { 5 } else { number };
            varint(tape, end << 3 | 4, out);
        }
    }
}

fn varint(tape: &mut Tape<'_>, mut value: u64, out: &mut Vec<u8>) {
    let padding = if tape.rarely(25) { tape.choose(5) } else { 0 };
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    if padding == 0 {
        out.push(value as u8);
    } else {
        out.push(value as u8 | 0x80);
        out.extend(vec![0x80; usize::from(padding) - 1]);
        out.push(0);
    }
}

/// Flips, cuts, inserts and doubles, as the tape says.
pub(super) fn mutate(tape: &mut Tape<'_>, bytes: &mut Vec<u8>) {
    for _ in 0..=tape.choose(3) {
        let place = |tape: &mut Tape<'_>, length: usize| {
            usize::from(u16::from_be_bytes([tape.byte(), tape.byte()])) % length.max(1)
        };
        let at = place(tape, bytes.len());
        match tape.choose(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << tape.choose(8),
            1 => bytes.truncate(at),
            2 => bytes.insert(at, tape.byte()),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            4 if at < bytes.len() => bytes[at] = tape.byte(),
            _ => {
                let end = (at + usize::from(tape.byte())).min(bytes.len());
                let copy = bytes[at.min(end)..end].to_vec();
                bytes.extend(copy);
            }
        }
    }
}
