//! Spans that say who they are: whoever finds one can tell whether it is whole.

use std::ops::Range;

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status},
};

const FIRST_START: u64 = 1_700_000_000_000_000_000;
/// Numbers that one sender has.
const SHARE: u64 = 1 << 40;
const PAYLOAD: &str = "payload";

/// The number of a sender's span.
pub(crate) fn number(sender: u64, sequence: u64) -> u64 {
    sender * SHARE + sequence
}

/// The sender of the span with this number, and which of its spans it is.
pub(crate) fn sender_of(number: u64) -> (u64, u64) {
    (number / SHARE, number % SHARE)
}

/// The next number of a fixed pseudo-random sequence (splitmix64).
pub(crate) fn mix(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Seven names from the first span on, and a further one every thousand spans of a sender, up to fifty, so that
/// series begin at any time.
fn name(number: u64) -> String {
    let (_, sequence) = sender_of(number);
    match sequence % 8 {
        7 => format!("late {}", sequence / 1_000 % 50),
        name => format!("work {name}"),
    }
}

/// Its letters follow from the number and the length: a part of one, or one of another span, is none.
fn payload(number: u64, bytes: usize) -> String {
    let mut random = mix(number ^ mix(bytes as u64));
    let mut letters = String::with_capacity(bytes + 8);
    while letters.len() < bytes {
        random = mix(random);
        letters.extend(random.to_le_bytes().map(|byte| char::from(b'a' + byte % 26)));
    }
    letters.truncate(bytes);
    letters
}

fn span(number: u64, payload_bytes: usize) -> Span {
    let value = Some(AnyValue { value: Some(Value::StringValue(payload(number, payload_bytes))) });
    Span {
        trace_id: [mix(number).to_be_bytes(), mix(!number).to_be_bytes()].concat(),
        span_id: (number + 1).to_be_bytes().to_vec(),
        name: name(number),
        start_time_unix_nano: FIRST_START + number,
        end_time_unix_nano: FIRST_START + number + 1_000 * (number % 5_000),
        attributes: vec![KeyValue { key: PAYLOAD.to_owned(), value, ..KeyValue::default() }],
        status: Some(Status { code: if number.is_multiple_of(10) { 2 } else { 0 }, message: String::new() }),
        ..Span::default()
    }
}

/// A request with a sender's next spans, each with a payload of between these numbers of bytes.
pub(crate) fn request(
    sender: u64,
    sequences: Range<u64>,
    payload_bytes: &Range<usize>,
) -> ExportTraceServiceRequest {
    let value = Some(AnyValue { value: Some(Value::StringValue(format!("sender {}", sender % 2))) });
    let service = KeyValue { key: "service.name".to_owned(), value, ..KeyValue::default() };
    let spans = sequences.map(|sequence| {
        let number = number(sender, sequence);
        let more = mix(number) as usize % payload_bytes.len().max(1);
        span(number, payload_bytes.start + more)
    });
    let scope_spans = vec![ScopeSpans { spans: spans.collect(), ..ScopeSpans::default() }];
    let resource = Some(Resource { attributes: vec![service], ..Resource::default() });
    let resource_spans = ResourceSpans { resource, scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

/// The number of a span that is as it was sent.
pub(crate) fn recognise(found: &Span) -> Result<u64, String> {
    let id: [u8; 8] = found.span_id.as_slice().try_into().map_err(|_| format!("{:?}", found.span_id))?;
    let number = u64::from_be_bytes(id).wrapping_sub(1);
    let payload = found.attributes.iter().find(|attribute| attribute.key == PAYLOAD);
    let length = match payload.and_then(|payload| payload.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.len(),
        _ => return Err(format!("span {number} has no payload")),
    };
    if *found == span(number, length) { Ok(number) } else { Err(format!("span {number} was altered")) }
}
