//! The OpenTelemetry Rust SDK as a sender: what it sends through nyx arrives as if nyx were not there.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

mod support;

use std::collections::BTreeMap;

use nyx_telemetry::export::testing::ScriptedDestination;
use opentelemetry::{
    Array, Context, KeyValue, StringValue, Value,
    trace::{Link, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, resource::v1::Resource as WireResource,
    trace::v1::Span as WireSpan,
};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use prost::Message as _;

use self::support::{Nyx, quick, system};

/// Spans by their ids, each with its resource, its scope and the schema URLs of both.
type Spans = BTreeMap<Vec<u8>, (Option<WireResource>, String, WireSpan)>;

fn spans(destination: &ScriptedDestination) -> Spans {
    let mut spans = Spans::new();
    for received in destination.received() {
        let request = ExportTraceServiceRequest::decode(&*received.message).unwrap();
        for mut resource in request.resource_spans {
            for scope in std::mem::take(&mut resource.scope_spans) {
                let about = format!("{} {:?} {}", resource.schema_url, scope.scope, scope.schema_url);
                for span in scope.spans {
                    let id = [&*span.trace_id, &span.span_id].concat();
                    let before = spans.insert(id, (resource.resource.clone(), about.clone(), span));
                    assert_eq!(before, None, "a span came twice");
                }
            }
        }
    }
    spans
}

fn exporter(endpoint: String) -> SpanExporter {
    SpanExporter::builder().with_tonic().with_endpoint(endpoint).build().unwrap()
}

/// A trace of three generations with everything that a span can say.
fn trace(provider: &SdkTracerProvider) {
    let tracer = provider.tracer("shop");
    let root = tracer
        .span_builder("GET /cart")
        .with_kind(SpanKind::Server)
        .with_attributes([
            KeyValue::new("text", "grüße, 世界"),
            KeyValue::new("flag", true),
            KeyValue::new("count", i64::MIN),
            KeyValue::new("ratio", -0.125),
            KeyValue::new("numbers", Value::Array(Array::I64(vec![1, -2, 3]))),
            KeyValue::new("texts", Value::Array(Array::String(vec![StringValue::from("a"), "".into()]))),
        ])
        .start(&tracer);
    let root = Context::new().with_span(root);
    let child = tracer
        .span_builder("SELECT")
        .with_kind(SpanKind::Client)
        .with_links(vec![Link::new(
            root.span().span_context().clone(),
            vec![KeyValue::new("why", "both ways")],
            0,
        )])
        .start_with_context(&tracer, &root);
    let child = root.with_span(child);
    child.span().add_event("retry", vec![KeyValue::new("attempt", 2)]);
    child.span().set_status(Status::error("deadlock"));
    let grandchild = provider.tracer("driver").span_builder("fetch");
    let grandchild = child.with_span(grandchild.start_with_context(&provider.tracer("driver"), &child));
    grandchild.span().end();
    child.span().end();
    root.span().set_status(Status::Ok);
    root.span().end();
}

#[test]
fn what_the_sdk_sends_through_nyx_is_what_it_sends_directly() {
    system(async {
        let (through, direct) =
            (ScriptedDestination::start().unwrap(), ScriptedDestination::start().unwrap());
        let nyx = Nyx::start(vec![quick("default", &through.endpoint())], |_| {}).await;
        let resource =
            Resource::builder_empty().with_service_name("shop").with_attribute(KeyValue::new("replica", 3));
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_batch_exporter(exporter(format!("http://{}", nyx.door)))
            .with_batch_exporter(exporter(direct.endpoint()))
            .build();
        // The exporters' connections live on this thread, so that the waiting has to be done on another.
        let (tell, told) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            (0..100).for_each(|_| trace(&provider));
            tell.send((provider.force_flush(), provider.shutdown()))
        });
        let (flushed, shut_down) = told.await.unwrap();
        flushed.unwrap();
        shut_down.unwrap();
        nyx.settled().await;

        let (through, direct) = (spans(&through), spans(&direct));
        assert_eq!(through.len(), 300);
        assert_eq!(through, direct);
        for (_, _, span) in through.values().filter(|(_, _, span)| span.name != "GET /cart") {
            let parent = [&*span.trace_id, &span.parent_span_id].concat();
            let expected = if span.name == "SELECT" { "GET /cart" } else { "SELECT" };
            assert_eq!(through[&parent].2.name, expected);
        }
        let stats = nyx.stop().await;
        assert!(stats.balanced && stats.spans.accepted == 300, "{stats:?}");
    });
}
