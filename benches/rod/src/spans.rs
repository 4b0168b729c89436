//! The numbered spans. Every byte of a span, of its resource and of its scope follows from the run's id and the
//! span's number alone, so a sink that shares no state with the sender can write down what it should have received
//! and compare. The number stands in the span id, through a bijection, so that ids look as random as real ones.
//!
//! Fields are written in the order of their numbers and without defaults, as most encoders write them: a program
//! that decodes and encodes again gives back the same bytes.

mod services;

use services::{Operation, SERVER, SERVICES};

use crate::wire::{put_bytes, put_fixed32, put_fixed64, put_uint, put_varint, varint_len};

/// Spans of one trace follow each other; the first is the root.
const SPANS_PER_TRACE: u64 = 8;
/// A service's spans come in blocks, as its SDK would batch them: a request of 512 holds one resource.
const SPANS_PER_SERVICE: u64 = 512;
/// Two instrumentation scopes share a block.
const SPANS_PER_SCOPE: u64 = 256;
/// The highest span number, bounded by its 40 bits in the span id.
pub(crate) const SEQUENCE_MAX: u64 = (1 << 40) - 2;
/// The highest run id, bounded by its 24 bits in the span id.
pub(crate) const RUN_MAX: u32 = (1 << 24) - 1;
/// 2026-01-01T00:00:00Z in nanoseconds: times follow from the number too.
const EPOCH_NS: u64 = 1_767_225_600_000_000_000;

const SCOPES: [(&str, &str); 2] =
    [("io.example.instrumentation.server", "0.61.0"), ("io.example.instrumentation.client", "0.44.2")];
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.34.0";

/// One span in every 32 failed.
const ERRORS_ONE_IN: u64 = 32;
/// The fields of a varying integer attribute stay within three bytes of varint, so that a template keeps its length.
const THREE_BYTE_VARINT_MIN: u64 = 1 << 14;
const THREE_BYTE_VARINT_MASK: u64 = (1 << 20) - 1;

/// Where the varying parts of a template lie.
#[derive(Debug, Clone, Copy)]
struct Places {
    trace_id: usize,
    span_id: usize,
    parent_id: Option<usize>,
    start: usize,
    end: usize,
    peer_id: usize,
    size: usize,
}

#[derive(Debug)]
struct Template {
    bytes: Vec<u8>,
    usual_us: u64,
    places: Places,
}

/// Writes the spans of one run.
#[derive(Debug)]
pub(crate) struct Generator {
    run: u64,
    templates: Vec<Template>,
    resources: Vec<Vec<u8>>,
    scopes: Vec<Vec<u8>>,
}

impl Generator {
    /// A generator of the run `run` (at most [`RUN_MAX`]; higher bits are ignored).
    pub(crate) fn new(run: u32) -> Self {
        let operations = SERVICES.iter().flat_map(|(_, _, operations)| operations);
        let templates = operations
            .flat_map(|operation| {
                [(false, false), (false, true), (true, false), (true, true)]
                    .map(|(failed, root)| template(operation, failed, root))
            })
            .collect();
        Self {
            run: u64::from(run & RUN_MAX),
            templates,
            resources: SERVICES.iter().map(|(name, version, _)| resource(name, version)).collect(),
            scopes: SCOPES.iter().map(|(name, version)| scope(name, version)).collect(),
        }
    }

    /// The encoded `Resource` that span number `sequence` belongs to.
    pub(crate) fn resource(&self, sequence: u64) -> &[u8] {
        pick(&self.resources, sequence / SPANS_PER_SERVICE)
    }

    /// The encoded `InstrumentationScope` of span number `sequence`.
    pub(crate) fn scope(&self, sequence: u64) -> &[u8] {
        pick(&self.scopes, sequence / SPANS_PER_SCOPE)
    }

    /// The schema of every resource and scope.
    pub(crate) fn schema_url(&self) -> &'static [u8] {
        SCHEMA_URL.as_bytes()
    }

    fn span_id(&self, sequence: u64) -> [u8; 8] {
        mix(self.run << 40 | (sequence + 1)).to_be_bytes()
    }

    /// The number of the span with this id, if it is one of this run.
    pub(crate) fn sequence(&self, span_id: [u8; 8]) -> Option<u64> {
        let plain = unmix(u64::from_be_bytes(span_id));
        let sequence = (plain & ((1 << 40) - 1)).checked_sub(1)?;
        (plain >> 40 == self.run).then_some(sequence)
    }

    /// Appends the encoded `Span` of number `sequence`, without the key and length that stand before it.
    pub(crate) fn put_span(&self, out: &mut Vec<u8>, sequence: u64) {
        let random = mix(sequence ^ 0x5bd1_e995);
        let Some(template) = self.templates.get(template_index(sequence, random)) else { return };
        let from = out.len();
        out.extend_from_slice(&template.bytes);
        let Some(span) = out.get_mut(from..) else { return };

        let trace = sequence / SPANS_PER_TRACE;
        let places = template.places;
        let start = EPOCH_NS + sequence * 1_000;
        let duration_ns = template.usual_us * (250 + (random >> 40) % 4_000);
        patch(span, places.trace_id, &mix(trace ^ 0xa5a5_0000_0000).to_be_bytes());
        patch(span, places.trace_id + 8, &mix(self.run << 40 | (trace + 1)).to_be_bytes());
        patch(span, places.span_id, &self.span_id(sequence));
        if let Some(place) = places.parent_id {
            patch(span, place, &self.span_id(trace * SPANS_PER_TRACE));
        }
        patch(span, places.start, &start.to_le_bytes());
        patch(span, places.end, &(start + duration_ns).to_le_bytes());
        patch(span, places.peer_id, &hex(random));
        let size = THREE_BYTE_VARINT_MIN + (random & THREE_BYTE_VARINT_MASK);
        patch(span, places.size, &[size as u8 | 0x80, (size >> 7) as u8 | 0x80, (size >> 14) as u8]);
    }

    fn span_len(&self, sequence: u64) -> usize {
        let index = template_index(sequence, mix(sequence ^ 0x5bd1_e995));
        self.templates.get(index).map_or(0, |template| template.bytes.len())
    }

    /// Appends the encoded `ExportTraceServiceRequest` of the spans `first..first + count`.
    pub(crate) fn put_request(&self, out: &mut Vec<u8>, first: u64, count: u64) {
        let end = first + count;
        let mut at = first;
        while at < end {
            let until = end.min((at / SPANS_PER_SERVICE + 1) * SPANS_PER_SERVICE);
            self.put_resource_spans(out, at, until);
            at = until;
        }
    }

    fn put_resource_spans(&self, out: &mut Vec<u8>, first: u64, end: u64) {
        let mut scopes = Vec::new();
        let mut at = first;
        while at < end {
            let until = end.min((at / SPANS_PER_SCOPE + 1) * SPANS_PER_SCOPE);
            scopes.push((at, until, self.scope_spans_len(at, until)));
            at = until;
        }
        let resource = self.resource(first);
        let len = field_len(resource.len())
            + scopes.iter().map(|(_, _, len)| field_len(*len)).sum::<usize>()
            + field_len(SCHEMA_URL.len());
        put_header(out, 1, len);
        put_bytes(out, 1, resource);
        for (at, until, len) in scopes {
            put_header(out, 2, len);
            put_bytes(out, 1, self.scope(at));
            for sequence in at..until {
                put_header(out, 2, self.span_len(sequence));
                self.put_span(out, sequence);
            }
            put_bytes(out, 3, SCHEMA_URL.as_bytes());
        }
        put_bytes(out, 3, SCHEMA_URL.as_bytes());
    }

    fn scope_spans_len(&self, first: u64, end: u64) -> usize {
        field_len(self.scope(first).len())
            + (first..end).map(|sequence| field_len(self.span_len(sequence))).sum::<usize>()
            + field_len(SCHEMA_URL.len())
    }
}

fn template_index(sequence: u64, random: u64) -> usize {
    let service = sequence / SPANS_PER_SERVICE % SERVICES.len() as u64;
    let operation = service * 4 + (random >> 8) % 4;
    let failed = u64::from((random >> 16).is_multiple_of(ERRORS_ONE_IN));
    let root = u64::from(sequence.is_multiple_of(SPANS_PER_TRACE));
    (operation * 4 + failed * 2 + root) as usize
}

fn pick(choices: &[Vec<u8>], block: u64) -> &[u8] {
    choices.get(block as usize % choices.len().max(1)).map_or(&[], Vec::as_slice)
}

fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

fn put_header(out: &mut Vec<u8>, field: u64, len: usize) {
    put_varint(out, field << 3 | 2);
    put_varint(out, len as u64);
}

fn patch(span: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = span.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn hex(value: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    for (index, digit) in digits.iter_mut().enumerate() {
        let nibble = (value >> (60 - 4 * index) & 15) as u8;
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    }
    digits
}

fn string_attribute(key: &str, value: &[u8]) -> Vec<u8> {
    let mut any = Vec::new();
    put_bytes(&mut any, 1, value);
    key_value(key, &any)
}

fn int_attribute(key: &str, value: u64) -> Vec<u8> {
    let mut any = Vec::new();
    put_uint(&mut any, 3, value);
    key_value(key, &any)
}

fn key_value(key: &str, any: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, key.as_bytes());
    put_bytes(&mut out, 2, any);
    out
}

fn resource(name: &str, version: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in [
        ("service.name", name),
        ("service.version", version),
        ("service.instance.id", "8a1f6c52-3f0e-4c55-9d0b-7c1f0f6f2a11"),
        ("deployment.environment.name", "production"),
        ("host.name", "node-17.example.net"),
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.name", "opentelemetry"),
    ] {
        put_bytes(&mut out, 1, &string_attribute(key, value.as_bytes()));
    }
    put_bytes(&mut out, 1, &int_attribute("process.pid", 4_711));
    out
}

fn scope(name: &str, version: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, name.as_bytes());
    put_bytes(&mut out, 2, version.as_bytes());
    out
}

fn template(operation: &Operation, failed: bool, root: bool) -> Template {
    let mut out = Vec::with_capacity(512);
    put_bytes(&mut out, 1, &[0; 16]);
    let trace_id = out.len() - 16;
    put_bytes(&mut out, 2, &[0; 8]);
    let span_id = out.len() - 8;
    let parent_id = (!root).then(|| {
        put_bytes(&mut out, 4, &[0; 8]);
        out.len() - 8
    });
    put_bytes(&mut out, 5, operation.name.as_bytes());
    put_uint(&mut out, 6, operation.kind);
    put_fixed64(&mut out, 7, 0);
    let start = out.len() - 8;
    put_fixed64(&mut out, 8, 0);
    let end = out.len() - 8;
    for (key, value) in operation.attributes {
        put_bytes(&mut out, 9, &string_attribute(key, value.as_bytes()));
    }
    put_bytes(&mut out, 9, &int_attribute("http.response.status_code", if failed { 503 } else { 200 }));
    put_bytes(&mut out, 9, &string_attribute("code.function.name", b"stream_service::pipeline::step"));
    put_bytes(&mut out, 9, &string_attribute("stream.connection.id", &[b'0'; 16]));
    let peer_id = out.len() - 16;
    put_bytes(&mut out, 9, &int_attribute("stream.payload.size", THREE_BYTE_VARINT_MIN));
    let size = out.len() - 3;
    let mut status = Vec::new();
    if failed {
        put_bytes(&mut out, 9, &string_attribute("error.type", b"upstream_unavailable"));
        put_bytes(&mut status, 2, b"upstream answered 503");
        put_uint(&mut status, 3, 2);
    } else if operation.kind == SERVER {
        put_uint(&mut status, 3, 1);
    }
    put_bytes(&mut out, 15, &status);
    put_fixed32(&mut out, 16, 0x101);
    let places = Places { trace_id, span_id, parent_id, start, end, peer_id, size };
    Template { bytes: out, usual_us: operation.usual_us, places }
}

/// The finalizer of splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators"): a bijection.
fn mix(mut value: u64) -> u64 {
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// The inverse of [`mix`].
fn unmix(mut value: u64) -> u64 {
    value = (value ^ value >> 31 ^ value >> 62).wrapping_mul(0x3196_42b2_d24d_8ec3);
    value = (value ^ value >> 27 ^ value >> 54).wrapping_mul(0x96de_1b17_3f11_9089);
    value ^ value >> 30 ^ value >> 60
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Fields, Value};

    #[test]
    fn the_number_of_a_span_reads_back_from_its_id() {
        let generator = Generator::new(7);
        for sequence in [0, 1, 511, 512, 1_999_999, SEQUENCE_MAX] {
            assert_eq!(generator.sequence(generator.span_id(sequence)), Some(sequence));
        }
    }

    #[test]
    fn the_id_of_another_run_is_not_recognised() {
        assert_eq!(Generator::new(7).sequence(Generator::new(8).span_id(5)), None);
    }

    #[test]
    fn a_span_takes_350_bytes_on_average() {
        let generator = Generator::new(1);
        let mut out = Vec::new();
        (0..30_720).for_each(|sequence| generator.put_span(&mut out, sequence));
        let mean = out.len() / 30_720;
        assert!((345..=355).contains(&mean), "{mean} bytes");
    }

    #[test]
    fn a_request_nests_by_lengths_that_fit_wherever_it_starts() {
        let generator = Generator::new(1);
        for (first, count) in [(0, 512), (100, 512), (511, 2), (1_000, 1), (250, 1_600)] {
            let mut out = Vec::new();
            generator.put_request(&mut out, first, count);
            let mut spans = 0;
            for field in Fields::new(&out) {
                let (1, Value::Bytes(group)) = field.unwrap() else { panic!("no resource spans") };
                for field in Fields::new(group) {
                    let (number, Value::Bytes(scope)) = field.unwrap() else { panic!("no message") };
                    if number == 2 {
                        spans += Fields::new(scope).filter(|field| matches!(field, Ok((2, _)))).count();
                    }
                }
            }
            assert_eq!(spans as u64, count, "from {first}");
        }
    }

    #[test]
    fn the_fields_of_a_span_stand_in_the_order_of_their_numbers() {
        let generator = Generator::new(1);
        for sequence in 0..2_000 {
            let mut out = Vec::new();
            generator.put_span(&mut out, sequence);
            let numbers: Vec<u64> = Fields::new(&out).map(|field| field.unwrap().0).collect();
            assert!(numbers.is_sorted(), "span {sequence}: {numbers:?}");
        }
    }
}
