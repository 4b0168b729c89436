use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::span::testing::{Seen, Tape, mutate, oracle, request, scanned, wild};

fn tape(length: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..length)
}

fn agrees_with_prost(bytes: &[u8]) -> Result<(), TestCaseError> {
    match (scanned(bytes), oracle(bytes)) {
        (Ok(seen), Some(expected)) => prop_assert_eq!(seen, expected),
        (Err(_), None) => {}
        (Ok(_), None) => prop_assert!(false, "accepted what prost refuses: {:02x?}", bytes),
        (Err(error), Some(_)) => prop_assert!(false, "refused what prost accepts: {error}: {:02x?}", bytes),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn any_request_is_scanned_as_prost_decodes_it(tape in tape(600)) {
        let request = request(&mut Tape::new(&tape));
        let bytes = request.encode_to_vec();
        prop_assert!(scanned(&bytes).is_ok());
        agrees_with_prost(&bytes)?;
    }

    #[test]
    fn whatever_the_wire_format_allows_is_taken_or_refused_as_prost_does(tape in tape(1500)) {
        agrees_with_prost(&wild(&mut Tape::new(&tape)))?;
    }

    #[test]
    fn broken_requests_are_taken_or_refused_as_prost_does(first in tape(400), second in tape(12), plain: bool) {
        let mut tape = Tape::new(&first);
        let mut bytes = if plain { request(&mut tape).encode_to_vec() } else { wild(&mut tape) };
        mutate(&mut Tape::new(&second), &mut bytes);
        agrees_with_prost(&bytes)?;
    }

    #[test]
    fn requests_one_after_the_other_are_one_request(first in tape(300), second in tape(300)) {
        let first = request(&mut Tape::new(&first)).encode_to_vec();
        let second = request(&mut Tape::new(&second)).encode_to_vec();
        let mut expected = scanned(&first).unwrap();
        expected.extend(scanned(&second).unwrap());
        prop_assert_eq!(scanned(&[first, second].concat()).unwrap(), expected);
    }
}

#[test]
fn the_generators_reach_both_verdicts_often() {
    // A property over requests of which all are refused, or none, would prove little.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut accepted, mut refused, mut spans) = (0, 0, 0);
    for _ in 0..500 {
        let tape = tape(1500).new_tree(&mut runner).unwrap();
        let bytes = wild(&mut Tape::new(&proptest::strategy::ValueTree::current(&tape)));
        match scanned(&bytes) {
            Ok(seen) => {
                accepted += 1;
                spans += seen.len();
            }
            Err(_) => refused += 1,
        }
    }
    assert!(accepted > 150 && refused > 50 && spans > 150, "{accepted} {refused} {spans}");
}

/// A field with a length below 128.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2], &[u8::try_from(content.len()).unwrap()], content].concat()
}

fn request_of(span: &[u8]) -> Vec<u8> {
    field(1, &field(2, &field(2, span)))
}

fn ids() -> Vec<u8> {
    [field(1, &[1; 16]), field(2, &[2; 8])].concat()
}

fn error_of(bytes: &[u8]) -> String {
    scan(bytes, |_| {}).unwrap_err().to_string()
}

#[test]
fn an_error_says_where_and_what_in_one_line_without_contents() {
    let valid = request_of(&ids());
    assert_eq!(scan(&valid, |_| {}).unwrap(), Scan { spans: 1 });
    let place = "invalid trace request at byte";
    assert_eq!(error_of(&[0x0a, 5]), format!("{place} 2: message is cut off: 5 bytes needed, 0 left"));
    assert_eq!(error_of(&[0x0a, 0x80]), format!("{place} 1: message is cut off: 2 bytes needed, 1 left"));
    assert_eq!(error_of(&[0xff; 12]), format!("{place} 0: varint is longer than 64 bits"));
    let no_key = "is no field key: field 1 to 536870911, wire type 0 to 5";
    assert_eq!(error_of(&[0x02, 0]), format!("{place} 1: 2 {no_key}"));
    assert_eq!(error_of(&[0x17, 0]), format!("{place} 1: 23 {no_key}"));
    assert_eq!(error_of(&[0x80, 0x80, 0x80, 0x80, 0x10]), format!("{place} 0: 4294967296 {no_key}"));
    assert_eq!(error_of(&[0x14, 0]), format!("{place} 1: group 2 ends without its beginning"));
    assert_eq!(error_of(&[0x08, 0]), format!("{place} 1: field 1 of request does not have wire type 0"));
    assert_eq!(
        error_of(&request_of(&[ids(), field(5, b"secret\xff")].concat())),
        format!("{place} 36: span.name is not utf-8")
    );
    assert_eq!(
        error_of(&request_of(&[ids(), field(9, &field(2, &field(1, b"secret\xff")))].concat())),
        format!("{place} 40: any_value.string_value is not utf-8")
    );
    assert_eq!(
        error_of(&request_of(&field(1, &[1; 15]))),
        format!("{place} 6: span.trace_id has 15 bytes, not 16")
    );
    assert_eq!(
        error_of(&request_of(&field(1, &[1; 16]))),
        format!("{place} 6: span.span_id has 0 bytes, not 8")
    );
    let parent = [ids(), field(4, &[0; 7])].concat();
    assert_eq!(error_of(&request_of(&parent)), format!("{place} 6: span.parent_span_id has 7 bytes, not 8"));
    let link = [ids(), field(13, &field(1, &[1; 16]))].concat();
    assert_eq!(error_of(&request_of(&link)), format!("{place} 36: link.span_id has 0 bytes, not 8"));
}

/// A field of any length.
fn long_field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut field);
    field.extend(content);
    field
}

/// The content inside a message inside a message, as the field numbers of `path` lead there.
fn inside(path: &[u8], content: Vec<u8>) -> Vec<u8> {
    path.iter().rev().fold(content, |content, number| long_field(*number, &content))
}

/// Requests with `content` in a message of each kind, those that are attributes last.
fn in_every_message(content: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let span = |content: Vec<u8>| inside(&[1, 2, 2], [ids(), content].concat());
    let link = |content: Vec<u8>| span(long_field(13, &[ids(), content].concat()));
    let content = content.to_vec();
    vec![
        ("request", content.clone()),
        ("resource_spans", inside(&[1], content.clone())),
        ("resource", inside(&[1, 1], content.clone())),
        ("entity_ref", inside(&[1, 1, 3], content.clone())),
        ("scope_spans", inside(&[1, 2], content.clone())),
        ("scope", inside(&[1, 2, 1], content.clone())),
        ("span", span(content.clone())),
        ("event", span(long_field(11, &content))),
        ("link", link(content.clone())),
        ("status", span(long_field(15, &content))),
        ("resource attribute", inside(&[1, 1, 1], content.clone())),
        ("scope attribute", inside(&[1, 2, 1, 3], content.clone())),
        ("span attribute", span(long_field(9, &content))),
        ("event attribute", span(inside(&[11, 3], content.clone()))),
        ("link attribute", link(long_field(4, &content))),
    ]
}

#[test]
fn the_nesting_bound_is_prosts_to_the_level() {
    let mut verdicts = [0, 0];
    let mut compare = |bytes: &[u8], what: &str| {
        let prost = ExportTraceServiceRequest::decode(bytes).is_ok();
        assert_eq!(scan(bytes, |_| {}).is_ok(), prost, "{what}");
        verdicts[usize::from(prost)] += 1;
    };
    for depth in 92..103 {
        let groups = [[0xa3, 0x06].repeat(depth), [0xa4, 0x06].repeat(depth)].concat();
        for (place, bytes) in in_every_message(&groups) {
            compare(&bytes, &format!("{depth} groups in {place}"));
        }
    }
    // Known fields, unknown fields, plain and other attributes: each counts levels in its own way.
    let innermost: [&[u8]; 8] = [
        &[],
        &[0x18, 1],
        &[0x48, 1],
        &[0x4b, 0x4c],
        &[0x4b, 0x48, 1, 0x4c],
        &[0x2a, 0],
        &[0x32, 0],
        &[0x32, 9, 0x0a, 7, 0x0a, 1, b'k', 0x12, 2, 0x18, 1],
    ];
    for kvlists in [0, 1, 2, 29] {
        for arrays in (100 - 3 * kvlists) / 2 - 6..(100 - 3 * kvlists) / 2 + 3 {
            for innermost in innermost {
                // An array around a value takes two levels, a list of keys three.
                let path = [vec![2], [5, 1].repeat(arrays), [6, 1, 2].repeat(kvlists)].concat();
                let value = inside(&path, innermost.to_vec());
                for (place, bytes) in in_every_message(&value).into_iter().skip(10) {
                    let what = format!("{arrays} arrays, {kvlists} lists around {innermost:02x?} in {place}");
                    compare(&bytes, &what);
                }
            }
        }
    }
    assert!(verdicts[0] > 500 && verdicts[1] > 500, "{verdicts:?}");

    let error = scan(&[0x4b; 101], |_| {}).unwrap_err();
    assert_eq!(error.fault, ScanFault::Nesting { limit: 100 });
    assert_eq!(error.fault.to_string(), "messages nest deeper than 100 levels");
}

#[test]
fn whatever_stands_in_place_of_a_byte_of_an_attribute_prost_agrees() {
    let plain: [&[u8]; 8] = [
        &[0x0a, 2, b'k', b'e', 0x12, 4, 0x0a, 2, b'v', b'w'],
        &[0x0a, 1, b'k', 0x12, 2, 0x10, 1],
        &[0x0a, 1, b'k', 0x12, 2, 0x18, 1],
        &[0x0a, 1, b'k', 0x12, 3, 0x18, 0xac, 0x02],
        &[0x0a, 1, b'k', 0x12, 4, 0x18, 0xac, 0x82, 0x02],
        &[0x0a, 1, b'k', 0x12, 9, 0x21, 1, 2, 3, 4, 5, 6, 7, 8],
        &[0x0a, 1, b'k', 0x12, 8, 0x21, 1, 2, 3, 4, 5, 6, 7],
        &[0x0a, 1, b'k', 0x12, 10, 0x21, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    ];
    for attribute in plain {
        // Cut off, with more behind, and with each byte replaced by every other one.
        let mut variants = vec![[attribute, &[0x18, 1]].concat(), [attribute, &[0x18]].concat()];
        variants.extend((0..attribute.len()).map(|length| attribute[..length].to_vec()));
        for at in 0..attribute.len() {
            variants.extend((0..=255).map(|byte| {
                let mut bytes = attribute.to_vec();
                bytes[at] = byte;
                bytes
            }));
        }
        for variant in variants {
            let bytes = request_of(&[ids(), field(9, &variant)].concat());
            let prost = ExportTraceServiceRequest::decode(&bytes[..]).is_ok();
            assert_eq!(scan(&bytes, |_| {}).is_ok(), prost, "{variant:02x?}");
        }
    }
}

#[test]
fn a_varint_has_64_bits_and_ten_bytes_at_most() {
    for last in 0..=3 {
        for length in 1..=10 {
            let varint = [vec![0xff; length], vec![last]].concat();
            let bytes = request_of(&[ids(), vec![0x30], varint].concat());
            let prost = ExportTraceServiceRequest::decode(&bytes[..]).is_ok();
            assert_eq!(scan(&bytes, |_| {}).is_ok(), prost, "{length} bytes and {last}");
            assert_eq!(prost, length < 9 || length == 9 && last < 2);
        }
    }
}

#[test]
fn a_million_nested_groups_are_refused_without_a_deep_stack() {
    assert!(scan(&vec![0x4b; 1_000_000], |_| {}).is_err());
}

fn attribute_bytes(key: &str, value: &[u8]) -> Vec<u8> {
    [field(1, key.as_bytes()), field(2, value)].concat()
}

fn service_of(resources: &[Vec<u8>]) -> String {
    let attributes: Vec<u8> = resources.iter().flat_map(|attribute| field(1, &field(1, attribute))).collect();
    let scope_spans = field(2, &field(2, &ids()));
    let mut services = Vec::new();
    for order in [[attributes.clone(), scope_spans.clone()], [scope_spans, attributes]] {
        let bytes = field(1, &order.concat());
        assert_eq!(scanned(&bytes).ok(), oracle(&bytes));
        scan(&bytes, |view| services.push(view.service.to_owned())).unwrap();
    }
    assert_eq!(services.len(), 2);
    assert_eq!(services[0], services[1], "the resource counts wherever it stands");
    services.swap_remove(0)
}

#[test]
fn the_first_string_named_service_name_of_all_merged_resources_is_the_service() {
    let text = |value: &str| attribute_bytes("service.name", &field(1, value.as_bytes()));
    assert_eq!(service_of(&[]), "");
    assert_eq!(service_of(&[text("shop")]), "shop");
    assert_eq!(service_of(&[text(""), text("shop")]), "");
    assert_eq!(service_of(&[attribute_bytes("service", &field(1, b"x")), text("a"), text("b")]), "a");
    // A number does not count, nor does a string that a later number replaced.
    assert_eq!(service_of(&[attribute_bytes("service.name", &[0x18, 7]), text("shop")]), "shop");
    let replaced = attribute_bytes("service.name", &[field(1, b"old"), vec![0x18, 7]].concat());
    assert_eq!(service_of(&[replaced, text("shop")]), "shop");
    // An unknown field replaces nothing; the last key, the last string and a second value count.
    let unknown = attribute_bytes("service.name", &[field(1, b"kept"), vec![0x48, 7]].concat());
    assert_eq!(service_of(&[unknown]), "kept");
    let twice = [attribute_bytes("other", &field(1, b"first")), text("last")].concat();
    assert_eq!(service_of(&[twice]), "last");
    let renamed = [text("shop"), field(1, b"other")].concat();
    assert_eq!(service_of(&[renamed]), "");
}

#[test]
fn fields_may_come_in_any_order_and_the_last_of_several_counts() {
    let late = [
        field(9, &attribute_bytes("k", &field(1, b"v"))),
        field(5, b"first"),
        field(15, &[0x18, 2]),
        field(2, &[9; 3]),
        ids(),
        field(15, &field(2, b"a message alone leaves the code")),
        field(5, b"last"),
        vec![0x30, 9, 0x30, 3],
    ];
    let bytes = request_of(&late.concat());
    let seen = scanned(&bytes).unwrap();
    assert_eq!(Some(&seen), oracle(&bytes).as_ref());
    let [Seen { name, kind, status, span_id, .. }] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(
        (name.as_str(), *kind, *status, *span_id),
        ("last", SpanKind::Client, StatusCode::Error, SpanId::from_bytes([2; 8]))
    );
}

#[test]
fn an_empty_request_and_empty_containers_hold_no_spans() {
    for bytes in [&[][..], &[0x0a, 0], &[0x0a, 2, 0x12, 0], &[0x48, 1]] {
        assert_eq!(scan(bytes, |_| panic!("no span")).unwrap(), Scan::default());
    }
}

#[test]
fn a_byte_that_is_no_utf8_is_found_wherever_it_stands_in_a_string() {
    type Place = fn(&[u8]) -> Vec<u8>;
    let places: [Place; 8] = [
        |text| field(9, &[field(1, text), field(2, &[0x18, 1])].concat()),
        |text| field(9, &[field(1, b"k"), field(2, &field(1, text))].concat()),
        |text| field(9, &[field(2, &field(1, text)), field(1, b"k")].concat()),
        |text| field(9, &field(2, &field(5, &field(1, &field(1, text))))),
        |text| field(9, &field(2, &field(6, &field(1, &field(1, text))))),
        |text| field(5, text),
        |text| field(11, &field(2, text)),
        |text| field(15, &field(2, text)),
    ];
    for length in 0..40 {
        let mut text = vec![b'a'; length];
        for (index, place) in places.iter().enumerate() {
            assert!(scanned(&request_of(&[ids(), place(&text)].concat())).is_ok(), "place {index}, {length}");
        }
        for at in 0..length {
            text[at] = 0x80;
            for (index, place) in places.iter().enumerate() {
                let bytes = request_of(&[ids(), place(&text)].concat());
                let fault = scan(&bytes, |_| {}).unwrap_err().fault;
                assert!(
                    matches!(fault, ScanFault::Utf8 { .. }),
                    "place {index}, byte {at} of {length}: {fault}"
                );
            }
            text[at] = b'a';
        }
    }
}

#[test]
fn every_string_of_a_request_must_be_utf8() {
    let bad = b"\xff";
    let attribute = field(1, bad);
    let in_span = |content: Vec<u8>| request_of(&[ids(), content].concat());
    let in_scope_spans = |content: Vec<u8>| field(1, &field(2, &content));
    let resource = |content: Vec<u8>| field(1, &field(1, &content));
    let entity = |number| resource(field(3, &field(number, bad)));
    let link_ids = || [field(1, &[1; 16]), field(2, &[1; 8])].concat();
    for (name, bytes) in [
        ("resource_spans.schema_url", field(1, &field(3, bad))),
        ("key_value.key", resource(field(1, &attribute))),
        ("entity_ref.schema_url", entity(1)),
        ("entity_ref.type", entity(2)),
        ("entity_ref.id_keys", entity(3)),
        ("entity_ref.description_keys", entity(4)),
        ("scope_spans.schema_url", in_scope_spans(field(3, bad))),
        ("scope.name", in_scope_spans(field(1, &field(1, bad)))),
        ("scope.version", in_scope_spans(field(1, &field(2, bad)))),
        ("key_value.key", in_scope_spans(field(1, &field(3, &attribute)))),
        ("span.trace_state", in_span(field(3, bad))),
        ("span.name", in_span(field(5, bad))),
        ("key_value.key", in_span(field(9, &attribute))),
        ("any_value.string_value", in_span(field(9, &field(2, &field(1, bad))))),
        ("event.name", in_span(field(11, &field(2, bad)))),
        ("key_value.key", in_span(field(11, &field(3, &attribute)))),
        ("link.trace_state", in_span(field(13, &[link_ids(), field(3, bad)].concat()))),
        ("key_value.key", in_span(field(13, &[link_ids(), field(4, &attribute)].concat()))),
        ("status.message", in_span(field(15, &field(2, bad)))),
    ] {
        assert!(ExportTraceServiceRequest::decode(&bytes[..]).is_err(), "prost takes {name}");
        assert_eq!(scan(&bytes, |_| {}).unwrap_err().fault, ScanFault::Utf8 { field: name });
    }
}
