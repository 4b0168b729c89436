use std::sync::Arc;

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message as _;

use super::*;
use crate::{
    measure::{RedDelta, RedScratch, RedSettings},
    span::scan,
};

fn dimensions(attributes: &[&str]) -> Result<Dimensions, DimensionsError> {
    Dimensions::new(&attributes.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn attributes(pairs: &[(&str, Value)]) -> Vec<KeyValue> {
    let attribute = |(key, value): &(&str, Value)| KeyValue {
        key: (*key).to_owned(),
        value: Some(AnyValue { value: Some(value.clone()) }),
        ..KeyValue::default()
    };
    pairs.iter().map(attribute).collect()
}

fn text(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

type Attributes<'a> = &'a [(&'a str, Value)];

/// A request of resources with spans, each given by its attributes.
fn request(resources: &[(Attributes<'_>, &[Attributes<'_>])]) -> Vec<u8> {
    let span = |pairs: &Attributes<'_>| Span {
        trace_id: vec![1; 16],
        span_id: vec![1; 8],
        attributes: attributes(pairs),
        ..Span::default()
    };
    let resource_spans = resources.iter().map(|(resource, spans)| ResourceSpans {
        resource: Some(Resource { attributes: attributes(resource), ..Resource::default() }),
        scope_spans: vec![ScopeSpans { spans: spans.iter().map(span).collect(), ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }.encode_to_vec()
}

/// What they add.
fn counted(names: &[&str], resources: &[(Attributes<'_>, &[Attributes<'_>])]) -> RedDelta {
    let settings = RedSettings { dimensions: dimensions(names).unwrap(), ..RedSettings::default() };
    let mut scratch = RedScratch::new(Arc::new(settings));
    scan(&request(resources), |span| scratch.observe(span)).unwrap();
    scratch.take()
}

fn values(delta: &RedDelta, dimensions: usize) -> Vec<(Vec<&str>, u64)> {
    let of = |entry: crate::measure::RedEntry<'_>| entry.count;
    let entries = delta.entries().map(|entry| {
        let values = (0..dimensions).map(|number| entry.key.dimensions.get(number)).collect();
        (values, of(entry))
    });
    entries.collect()
}

#[test]
fn a_spans_attribute_wins_over_its_resources_and_absent_ones_are_empty() {
    let delta = counted(
        &["region", "http.route"],
        &[
            (
                &[("region", text("eu"))],
                &[&[("http.route", text("/a"))], &[("region", text("us"))], &[("http.route", text("/a"))]],
            ),
            (&[], &[&[("http.route", text("/a"))], &[]]),
        ],
    );
    let expected = [(vec!["eu", "/a"], 2), (vec!["us", ""], 1), (vec!["", "/a"], 1), (vec!["", ""], 1)];
    assert_eq!(values(&delta, 2), expected);
}

#[test]
fn numbers_and_truth_values_become_texts_and_the_first_of_two_counts() {
    let delta = counted(
        &["int", "bool", "double", "twice", "bytes"],
        &[(
            &[],
            &[&[
                ("int", Value::IntValue(-3)),
                ("bool", Value::BoolValue(true)),
                ("double", Value::DoubleValue(0.25)),
                ("twice", text("first")),
                ("twice", text("second")),
                ("bytes", Value::BytesValue(vec![1])),
            ]],
        )],
    );
    assert_eq!(values(&delta, 5), [(vec!["-3", "true", "0.25", "first", ""], 1)]);
}

#[test]
fn a_resource_is_looked_up_anew_in_a_batch_that_lies_where_another_lay() {
    let settings = RedSettings { dimensions: dimensions(&["region"]).unwrap(), ..RedSettings::default() };
    let mut scratch = RedScratch::new(Arc::new(settings));
    let mut bytes = request(&[(&[("region", text("eu"))], &[&[]])]);
    let mut of = |bytes: &[u8]| {
        scan(bytes, |span| scratch.observe(span)).unwrap();
        scratch.take()
    };
    assert_eq!(values(&of(&bytes), 1), [(vec!["eu"], 1)]);
    bytes.copy_from_slice(&request(&[(&[("region", text("us"))], &[&[]])]));
    assert_eq!(values(&of(&bytes), 1), [(vec!["us"], 1)]);
}

#[test]
fn a_long_value_is_cut_and_counted() {
    let long = format!("{}é", "x".repeat(255));
    let delta =
        counted(&["a", "b"], &[(&[("a", text(&long))], &[&[("b", text(&long))], &[("a", text("s"))]])]);
    let cut = "x".repeat(255);
    assert_eq!(values(&delta, 2), [(vec![&*cut, &*cut], 1), (vec!["s", ""], 1)]);
    assert_eq!(delta.cut(), 2);
}

#[test]
fn no_number_is_longer_than_a_label_may_be() {
    let numbers = [
        (f64::MAX, "1.7976931348623157e308"),
        (-f64::MAX, "-1.7976931348623157e308"),
        (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
        (5e-324, "5e-324"),
        (1e21, "1e21"),
        (1e20, "100000000000000000000"),
        (0.000_001, "0.000001"),
        (0.0, "0"),
        (f64::NAN, "NaN"),
        (f64::NEG_INFINITY, "-inf"),
    ];
    for (number, expected) in numbers {
        let delta = counted(&["a"], &[(&[], &[&[("a", Value::DoubleValue(number))]])]);
        assert_eq!(values(&delta, 1), [(vec![expected], 1)]);
    }
}

#[test]
fn attributes_that_make_no_labels_are_refused_by_name() {
    let refused = |attributes: &[&str]| dimensions(attributes).unwrap_err().to_string();
    assert_eq!(refused(&["a"; 9]), "9 dimensions are more than 8");
    assert_eq!(refused(&[""]), "dimension \"\" must have 1 to 128 bytes");
    assert_eq!(
        refused(&["service.name"]),
        "dimension \"service.name\" would be the label service_name, which is taken"
    );
    assert_eq!(refused(&["__x"]), "dimension \"__x\" would be the label __x, which is taken");
    assert_eq!(
        refused(&["http.route", "http_route"]),
        "dimensions \"http.route\" and \"http_route\" would both be the label http_route"
    );
}

#[test]
fn labels_are_names_that_every_prometheus_reads() {
    let dimensions = dimensions(&["http.route", "2nd-key", "größe"]).unwrap();
    assert_eq!(dimensions.labels().collect::<Vec<_>>(), ["http_route", "_2nd_key", "gr__e"]);
}
