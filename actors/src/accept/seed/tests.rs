use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value, trace::v1::Span as WireSpan,
};
use prost::Message as _;

use super::{super::ConnectionId, *};

fn context() -> StreamTelemetryContext {
    StreamTelemetryContext::new(TelemetryConfig::default())
}

fn with_limits(limits: ContextLimits) -> StreamTelemetryContext {
    StreamTelemetryContext::with_limits(TelemetryConfig::default(), limits)
}

fn with_rate(sampling_rate: f64) -> StreamTelemetryContext {
    StreamTelemetryContext::new(TelemetryConfig { sampling_rate, ..TelemetryConfig::default() })
}

/// The only span that waits.
async fn only(context: &StreamTelemetryContext) -> TelemetrySpan {
    let mut spans = context.take_finished_spans().await;
    assert_eq!(spans.len(), 1);
    spans.remove(0)
}

fn decoded(bytes: &[u8]) -> (HashMap<String, String>, WireSpan) {
    let mut request = ExportTraceServiceRequest::decode(bytes).unwrap();
    let mut resource = request.resource_spans.remove(0);
    let text = |value: any_value::Value| match value {
        any_value::Value::StringValue(text) => text,
        other => panic!("{other:?}"),
    };
    let attributes = resource.resource.unwrap().attributes.into_iter();
    let attributes = attributes.map(|a| (a.key, text(a.value.unwrap().value.unwrap()))).collect();
    (attributes, resource.scope_spans.remove(0).spans.remove(0))
}

#[tokio::test]
async fn a_span_is_handed_out_once_with_all_that_was_said_of_it() {
    let context = context();
    let before = SystemTime::now();
    let id = context.create_span(span_names::FRAME_PROCESSING, None).await.unwrap();
    context.add_span_attribute(id, "key", "first").await;
    context.add_span_attribute(id, "key", "second").await;
    assert_eq!(context.take_finished_spans().await, []);
    context.end_span(id, SpanStatus::Error).await;
    let span = only(&context).await;
    assert_eq!((span.span_id, span.parent_span_id, span.linked_span_id), (id, None, None));
    assert_eq!((&*span.name, span.status), ("frame_processing", SpanStatus::Error));
    assert_eq!(span.attributes, HashMap::from([("key".to_owned(), "second".to_owned())]));
    assert!(span.start_time >= before && span.end_time.unwrap() >= span.start_time);
    assert!(id != 0 && span.trace_id > u128::from(u64::MAX), "ids of 8 and 16 bytes");
    assert_eq!(context.take_finished_spans().await, []);
    let counts = context.counts();
    assert_eq!((counts.created, counts.taken, counts.balances()), (1, 1, true), "{counts:?}");
}

#[tokio::test]
async fn only_finished_spans_are_taken_and_the_others_stay_open() {
    let context = context();
    let first = context.create_span("1", None).await.unwrap();
    let second = context.create_span("2", None).await.unwrap();
    let third = context.create_span("3", None).await.unwrap();
    context.end_span(third, SpanStatus::Ok).await;
    context.end_span(first, SpanStatus::Ok).await;
    let taken: Vec<_> = context.take_finished_spans().await.iter().map(|span| span.span_id).collect();
    assert_eq!(taken, [third, first], "in the order of their ends");
    context.end_span(second, SpanStatus::Ok).await;
    assert_eq!(only(&context).await.span_id, second);
}

#[tokio::test]
async fn the_first_end_counts_and_what_comes_later_changes_nothing() {
    let context = context();
    let id = context.create_span("span", None).await.unwrap();
    context.end_span(id, SpanStatus::Error).await;
    context.end_span(id, SpanStatus::Ok).await;
    context.add_span_attribute(id, "late", "1").await;
    let span = only(&context).await;
    assert_eq!((span.status, span.attributes.len()), (SpanStatus::Error, 0));
    context.end_span(id, SpanStatus::Ok).await;
    assert_eq!(context.take_finished_spans().await, []);
    assert_eq!(context.counts().too_late, 3);
}

#[tokio::test]
async fn a_child_belongs_to_its_parents_trace_whether_that_has_ended_or_was_taken() {
    let context = context();
    let root = context.create_span("root", None).await.unwrap();
    let child = context.create_span("child", Some(root)).await.unwrap();
    context.end_span(root, SpanStatus::Ok).await;
    let trace_id = only(&context).await.trace_id;
    let late = context.create_span("late child", Some(root)).await.unwrap();
    let grandchild = context.create_span("grandchild", Some(child)).await.unwrap();
    let other = context.create_span("other", None).await.unwrap();
    for id in [child, late, grandchild, other] {
        context.end_span(id, SpanStatus::Ok).await;
    }
    let spans = context.take_finished_spans().await;
    let parents: Vec<_> = spans.iter().map(|span| span.parent_span_id).collect();
    assert_eq!(parents, [Some(root), Some(root), Some(child), None]);
    assert!(spans[..3].iter().all(|span| span.trace_id == trace_id));
    assert_ne!(spans[3].trace_id, trace_id);
}

#[tokio::test]
async fn a_child_of_a_parent_that_is_no_longer_known_is_a_new_root_with_a_link_to_it() {
    let context = with_limits(ContextLimits { max_remembered: 2, ..ContextLimits::default() });
    let mut ids = Vec::new();
    for name in ["forgotten", "kept", "kept too"] {
        let id = context.create_span(name, None).await.unwrap();
        context.end_span(id, SpanStatus::Ok).await;
        ids.push(id);
    }
    let traces: Vec<_> = context.take_finished_spans().await.iter().map(|span| span.trace_id).collect();
    let orphan = context.create_span("orphan", Some(ids[0])).await.unwrap();
    let child = context.create_span("child", Some(ids[1])).await.unwrap();
    context.end_span(child, SpanStatus::Ok).await;
    context.end_span(orphan, SpanStatus::Ok).await;
    let spans = context.take_finished_spans().await;
    assert_eq!((spans[0].trace_id, spans[0].linked_span_id), (traces[1], None));
    assert_eq!((spans[1].parent_span_id, spans[1].linked_span_id), (None, Some(ids[0])));
    assert!(!traces.contains(&spans[1].trace_id));
    assert_eq!(context.counts().orphaned, 1);

    let bytes = convert_to_otlp_span(&spans[1], "service").unwrap();
    crate::span::scan(&bytes, |_| ()).unwrap();
    let (_, span) = decoded(&bytes);
    assert!(span.parent_span_id.is_empty());
    assert_eq!(span.links[0].span_id, ids[0].to_be_bytes());
    assert_eq!(span.links[0].attributes[0].key, "link.reason");
}

#[tokio::test]
async fn beyond_the_depth_there_is_no_span_and_it_is_counted() {
    for max_span_depth in [0, 1, 3] {
        let config = TelemetryConfig { max_span_depth, ..TelemetryConfig::default() };
        let context = StreamTelemetryContext::new(config);
        let mut parent = None;
        for _ in 0..max_span_depth {
            parent = Some(context.create_span("deeper", parent).await.unwrap());
        }
        assert_eq!(context.create_span("too deep", parent).await, None);
        if let Some(parent) = parent {
            // An ended parent is as deep as an open one.
            context.end_span(parent, SpanStatus::Ok).await;
            assert_eq!(context.create_span("too deep", Some(parent)).await, None);
        }
        let counts = context.counts();
        assert_eq!(counts.refused_depth, if max_span_depth == 0 { 1 } else { 2 });
        assert_eq!((counts.created, counts.balances()), (u64::from(max_span_depth), true));
    }
}

#[tokio::test]
async fn with_telemetry_off_there_are_no_spans() {
    let context =
        StreamTelemetryContext::new(TelemetryConfig { enabled: false, ..TelemetryConfig::default() });
    assert_eq!(context.create_span("span", None).await, None);
    assert_eq!(context.counts(), ContextCounts::default());
}

#[tokio::test]
async fn a_sampler_decides_on_roots_and_children_go_with_them() {
    assert!(context().with_sampler(TelemetrySampler::AlwaysOn).create_span("span", None).await.is_some());
    let off = context().with_sampler(TelemetrySampler::AlwaysOff);
    assert_eq!(off.create_span("span", None).await, None);
    assert_eq!((off.counts().sampled_out, off.counts().created), (1, 0));

    let half = context().with_sampler(TelemetrySampler::TraceIdRatioBased(0.5));
    let mut kept = 0_u64;
    for _ in 0..1000 {
        if let Some(root) = half.create_span("root", None).await {
            kept += 1;
            let child = half.create_span("child", Some(root)).await.unwrap();
            half.end_span(child, SpanStatus::Ok).await;
            half.end_span(root, SpanStatus::Ok).await;
        }
    }
    assert!((400..600).contains(&kept), "{kept} of 1000");
    assert_eq!(half.counts().sampled_out, 1000 - kept);
    let sampler = TelemetrySampler::TraceIdRatioBased(0.5);
    assert!(half.take_finished_spans().await.iter().all(|span| sampler.should_sample(span.trace_id)));
}

#[test]
fn a_custom_sampler_sees_the_low_64_bits_of_the_trace_id() {
    let sampler = TelemetrySampler::Custom(|low| low == 7);
    assert!(sampler.should_sample(9 << 64 | 7));
    assert!(!sampler.should_sample(7 << 64 | 9));
}

#[test]
fn ratio_sampling_keeps_what_a_destination_of_that_rate_gets() {
    let destination = crate::span::Sampler::new(0.25);
    for _ in 0..1000 {
        let trace_id = crate::span::TraceId::random();
        let kept = TelemetrySampler::TraceIdRatioBased(0.25).should_sample(trace_id.to_int());
        assert_eq!(kept, destination.keeps(trace_id));
    }
}

#[tokio::test]
async fn the_sampling_rate_of_the_configuration_is_followed() {
    for (rate, range) in
        [(0.0, 0..1), (0.25, 150..350), (1.0, 1000..1001), (f64::NAN, 1000..1001), (-1.0, 0..1)]
    {
        let context = with_rate(rate);
        let mut kept = 0;
        for _ in 0..1000 {
            kept += i32::from(context.create_span("span", None).await.is_some());
        }
        assert!(range.contains(&kept), "{rate}: {kept}");
    }
}

#[test]
fn a_sampling_rate_that_is_no_share_is_named() {
    for (rate, text) in [
        (1.5, "sampling_rate is 1.5: must be a number from 0 to 1"),
        (f64::NAN, "sampling_rate is NaN: must be a number from 0 to 1"),
    ] {
        let config = TelemetryConfig { sampling_rate: rate, ..TelemetryConfig::default() };
        assert_eq!(config.validate().unwrap_err().to_string(), text);
    }
    assert_eq!(TelemetryConfig::default().validate(), Ok(()));
}

#[test]
fn the_defaults_are_those_of_the_design() {
    let TelemetryConfig { enabled, sampling_rate, max_span_depth, service_name, environment } =
        TelemetryConfig::default();
    assert_eq!((enabled, sampling_rate, max_span_depth), (true, 1.0, 10));
    assert_eq!((&*service_name, &*environment), ("nyx-stream", "development"));
}

#[tokio::test]
async fn spans_that_nobody_takes_are_bounded_and_the_oldest_goes_first() {
    let context = with_limits(ContextLimits { max_finished_bytes: 1_000, ..ContextLimits::default() });
    let mut ids = Vec::new();
    for _ in 0..10 {
        let id = context.create_span("span", None).await.unwrap();
        context.end_span(id, SpanStatus::Ok).await;
        ids.push(id);
    }
    let counts = context.counts();
    assert_eq!((counts.waiting, counts.dropped, counts.balances()), (3, 7, true), "{counts:?}");
    let kept: Vec<_> = context.take_finished_spans().await.iter().map(|span| span.span_id).collect();
    assert_eq!(kept, ids[7..]);
}

#[tokio::test]
async fn open_spans_are_bounded_in_number_and_in_bytes() {
    let limits = ContextLimits { max_open_spans: 2, max_open_bytes: 2_000, ..ContextLimits::default() };
    let context = with_limits(limits);
    let first = context.create_span("1", None).await.unwrap();
    let _second = context.create_span("2", None).await.unwrap();
    assert_eq!(context.create_span("3", None).await, None);
    context.end_span(first, SpanStatus::Ok).await;
    let third = context.create_span("3", None).await.unwrap();
    context.add_span_attribute(third, "large", &"x".repeat(1_500)).await;
    context.add_span_attribute(third, "small", "x").await;
    let counts = context.counts();
    assert_eq!((counts.refused_open, counts.attributes_dropped), (1, 1), "{counts:?}");
    let _taken = context.take_finished_spans().await;
    context.end_span(third, SpanStatus::Ok).await;
    let names: Vec<_> = only(&context).await.attributes.into_keys().collect();
    assert_eq!(names, ["small"]);
    assert!(context.create_span("4", None).await.is_some(), "an ended span makes room");
}

#[tokio::test]
async fn the_attributes_of_a_span_are_bounded() {
    let limits = ContextLimits { max_attributes: 2, max_span_bytes: 600, ..ContextLimits::default() };
    let context = with_limits(limits);
    let id = context.create_span(&"é".repeat(10_000), None).await.unwrap();
    context.add_span_attribute(id, "a", "1").await;
    context.end_span(id, SpanStatus::Ok).await;
    let span = only(&context).await;
    assert_eq!((span.name.len(), span.attributes.len()), (16 << 10, 0), "a long name leaves no room");

    let id = context.create_span("span", None).await.unwrap();
    context.add_span_attribute(id, "a", "1").await;
    context.add_span_attribute(id, "b", "2").await;
    context.add_span_attribute(id, "c", "3").await;
    context.add_span_attribute(id, "b", "new").await;
    context.add_span_attribute(id, "a", &"x".repeat(600)).await;
    context.end_span(id, SpanStatus::Ok).await;
    let expected = [("a", "1"), ("b", "new")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(only(&context).await.attributes, HashMap::from(expected));
    assert_eq!(context.counts().attributes_dropped, 3);
}

#[tokio::test]
async fn a_connection_has_its_ended_and_its_open_spans() {
    let context = with_limits(ContextLimits { max_remembered: 2, ..ContextLimits::default() });
    let (here, there) = (ConnectionId::new(1), ConnectionId::new(2));
    let mut ids = Vec::new();
    for name in ["1", "2", "3", "4"] {
        let id = context.create_span(name, None).await.unwrap();
        context.associate_connection(here, id).await;
        context.associate_connection(here, id).await;
        ids.push(id);
    }
    context.associate_connection(there, ids[3]).await;
    assert_eq!(context.get_connection_spans(here).await, ids);
    assert_eq!(context.get_connection_spans(there).await, ids[3..]);
    context.end_span(ids[1], SpanStatus::Ok).await;
    assert_eq!(context.get_connection_spans(here).await, [ids[1], ids[0], ids[2], ids[3]]);
    context.end_span(ids[0], SpanStatus::Ok).await;
    context.end_span(ids[2], SpanStatus::Ok).await;
    assert_eq!(context.get_connection_spans(here).await, [ids[0], ids[2], ids[3]], "the oldest is forgotten");
    assert!(context.get_connection_spans(ConnectionId::new(3)).await.is_empty());
}

#[tokio::test]
async fn clones_are_the_same_context() {
    let context = context();
    let id = context.clone().create_span("span", None).await.unwrap();
    context.end_span(id, SpanStatus::Ok).await;
    assert_eq!(only(&context.clone()).await.span_id, id);
}

#[tokio::test]
async fn a_connection_is_one_trace_from_its_begin_to_its_end() {
    let instrumentation = NyxTelemetryInstrumentation::new(TelemetryConfig::default());
    let (context, connection) = (instrumentation.get_context(), ConnectionId::new(456));
    let root = instrumentation.start_connection_instrumentation(connection).await.unwrap();
    instrumentation.record_packet_processing(connection, 1024).await;
    instrumentation.record_bandwidth_usage(connection, 2048, Duration::from_millis(100)).await;
    let packets = context.take_finished_spans().await;
    assert_eq!(packets.len(), 2, "what is over has ended");
    assert_eq!(context.get_connection_spans(connection).await.len(), 3);
    instrumentation.end_connection_instrumentation(connection, true).await;
    let start = only(context).await;
    assert_eq!((start.span_id, &*start.name, start.status), (root, "connection_start", SpanStatus::Ok));
    for span in packets.iter() {
        assert_eq!((span.parent_span_id, span.trace_id), (Some(root), start.trace_id));
        assert_eq!((span.status, &*span.attributes["connection.id"]), (SpanStatus::Ok, "456"));
    }
    assert_eq!((&*packets[0].name, &*packets[0].attributes["packet.size"]), ("packet_processing", "1024"));
    assert_eq!(&*packets[1].name, "bandwidth_usage");
    assert_eq!(packets[1].attributes["bandwidth.bytes"], "2048");
    assert_eq!(packets[1].attributes["duration.ms"], "100");
    let took = packets[1].end_time.unwrap().duration_since(packets[1].start_time).unwrap();
    assert!(took >= Duration::from_millis(100), "{took:?}");
}

#[tokio::test]
async fn a_connection_that_fails_ends_its_open_spans_as_errors() {
    let instrumentation = NyxTelemetryInstrumentation::new(TelemetryConfig::default());
    let (context, connection) = (instrumentation.get_context(), ConnectionId::new(1));
    let root = instrumentation.start_connection_instrumentation(connection).await.unwrap();
    let child = context.create_span(span_names::SECURITY_CHECK, Some(root)).await.unwrap();
    context.associate_connection(connection, child).await;
    let unrelated = context.create_span("other", None).await.unwrap();
    instrumentation.end_connection_instrumentation(connection, false).await;
    let spans = context.take_finished_spans().await;
    let ended: Vec<_> = spans.iter().map(|span| (span.span_id, span.status)).collect();
    assert_eq!(ended, [(child, SpanStatus::Error), (root, SpanStatus::Error)]);
    assert_eq!(context.counts().open, 1);
    context.end_span(unrelated, SpanStatus::Ok).await;
}

#[tokio::test]
async fn instrumentation_without_a_connection_or_a_sample_makes_roots_or_nothing() {
    let instrumentation = NyxTelemetryInstrumentation::new(TelemetryConfig::default());
    instrumentation.record_packet_processing(ConnectionId::new(789), 1024).await;
    assert_eq!(only(instrumentation.get_context()).await.parent_span_id, None);
    let off = NyxTelemetryInstrumentation::new(TelemetryConfig::default())
        .with_sampler(TelemetrySampler::AlwaysOff);
    assert_eq!(off.start_connection_instrumentation(ConnectionId::new(1)).await, None);
    off.record_packet_processing(ConnectionId::new(1), 1).await;
    off.record_bandwidth_usage(ConnectionId::new(1), 1, Duration::MAX).await;
    off.end_connection_instrumentation(ConnectionId::new(1), true).await;
    assert_eq!(off.get_context().counts().created, 0);
}

#[test]
fn names_are_as_the_nodes_agreed_on() {
    use {attribute_names as a, span_names as s};
    let spans = [
        (s::CONNECTION_START, "connection_start"),
        (s::CONNECTION_END, "connection_end"),
        (s::PACKET_PROCESSING, "packet_processing"),
        (s::RATE_LIMITING, "rate_limiting"),
        (s::MULTIPATH_ROUTING, "multipath_routing"),
        (s::BANDWIDTH_MONITORING, "bandwidth_monitoring"),
        (s::BANDWIDTH_USAGE, "bandwidth_usage"),
        (s::SECURITY_CHECK, "security_check"),
        (s::PROTOCOL_NEGOTIATION, "protocol_negotiation"),
        (s::FRAME_PROCESSING, "frame_processing"),
    ];
    let attributes = [
        (a::CONNECTION_ID, "connection.id"),
        (a::PACKET_SIZE, "packet.size"),
        (a::BANDWIDTH_BYTES, "bandwidth.bytes"),
        (a::DURATION_MS, "duration.ms"),
        (a::ERROR_CODE, "error.code"),
        (a::ERROR_MESSAGE, "error.message"),
        (a::RATE_LIMIT_EXCEEDED, "rate_limit.exceeded"),
        (a::SECURITY_VIOLATION, "security.violation"),
        (a::PROTOCOL_VERSION, "protocol.version"),
    ];
    assert!(spans.iter().chain(&attributes).all(|(constant, name)| constant == name));
}

/// The span of the design's own test.
fn designed() -> TelemetrySpan {
    let start_time = SystemTime::UNIX_EPOCH + Duration::from_nanos(5);
    TelemetrySpan {
        span_id: 12345,
        parent_span_id: Some(67890),
        trace_id: 111_213,
        name: "test-span".to_owned(),
        start_time,
        end_time: Some(start_time + Duration::from_nanos(4)),
        attributes: HashMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())]),
        status: SpanStatus::Ok,
        linked_span_id: None,
    }
}

#[test]
fn a_span_becomes_otlp_with_its_service_as_the_resource() {
    let (resource, span) = decoded(&convert_to_otlp_span(&designed(), "test-service").unwrap());
    assert_eq!(resource, HashMap::from([("service.name".to_owned(), "test-service".to_owned())]));
    assert_eq!((&*span.name, span.kind), ("test-span", 1));
    assert_eq!(span.trace_id, 111_213_u128.to_be_bytes());
    assert_eq!(span.span_id, 12_345_u64.to_be_bytes());
    assert_eq!(span.parent_span_id, 67_890_u64.to_be_bytes());
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (5, 9));
    let keys: Vec<_> = span.attributes.iter().map(|attribute| &*attribute.key).collect();
    assert_eq!(keys, ["a", "b"], "ids and the service's name are no attributes of the span");
    assert!(span.links.is_empty());
}

#[test]
fn each_status_becomes_the_one_of_otlp() {
    for (status, code) in [(SpanStatus::Unset, 0), (SpanStatus::Ok, 1), (SpanStatus::Error, 2)] {
        let span = TelemetrySpan { status, parent_span_id: None, ..designed() };
        let (_, span) = decoded(&convert_to_otlp_span(&span, "s").unwrap());
        assert_eq!(span.status.unwrap_or_default().code, code);
        assert!(span.parent_span_id.is_empty());
    }
}

#[test]
fn what_otlp_has_no_form_for_is_refused() {
    let error = |span: TelemetrySpan| convert_to_otlp_span(&span, "s").unwrap_err().to_string();
    assert_eq!(
        error(TelemetrySpan { end_time: None, ..designed() }),
        "span 0000000000003039 has not ended: end_span comes first"
    );
    assert_eq!(
        error(TelemetrySpan { trace_id: 0, ..designed() }),
        "trace_id is 0: OTLP has no span with that"
    );
    assert_eq!(error(TelemetrySpan { span_id: 0, ..designed() }), "span_id is 0: OTLP has no span with that");
}
