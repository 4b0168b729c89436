//! A span about the daemon in the form of OpenTelemetry's SDK, and the resource of all of them.

use nyx_telemetry::{
    observe::VERSION,
    self_tracing::{Attribute, OwnSpan},
    span::{SpanContext, SpanKind},
};
use opentelemetry::{
    InstrumentationScope, KeyValue, Value,
    trace::{self, Link, SpanId, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanEvents, SpanLinks},
};
use rand::random;

use crate::config::Telemetry;

const SCOPE: &str = "nyx-daemon";

/// What the spans are of: `telemetry.service_name` and `telemetry.resource`, and what tells this process from others.
pub(super) fn resource(telemetry: &Telemetry) -> Resource {
    let known = [
        KeyValue::new("service.version", VERSION),
        KeyValue::new("service.instance.id", instance_id(random())),
        KeyValue::new("process.pid", i64::from(std::process::id())),
    ];
    let set = telemetry.resource.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    let service = KeyValue::new("service.name", telemetry.service_name.clone());
    // A later one wins.
    Resource::builder_empty().with_attributes(known.into_iter().chain(set).chain([service])).build()
}

/// A random UUID (RFC 9562, version 4), as the semantic conventions recommend it.
fn instance_id(random: u128) -> String {
    let id = random & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{id:032x}");
    let groups = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)];
    groups.map(|(from, to)| hex.get(from..to).unwrap_or_default()).join("-")
}

/// The span.
pub(super) fn span_data(span: OwnSpan) -> SpanData {
    let parent = span.parent.map(|(id, is_remote)| (SpanId::from_bytes(*id.as_bytes()), is_remote));
    let mut links = SpanLinks::default();
    links.links = span.links.into_iter().map(|link| Link::with_context(context(link))).collect();
    links.dropped_count = span.dropped_links;
    SpanData {
        span_context: context(span.context),
        parent_span_id: parent.map_or(SpanId::INVALID, |(id, _)| id),
        parent_span_is_remote: parent.is_some_and(|(_, is_remote)| is_remote),
        span_kind: kind(span.kind),
        name: span.name.into(),
        start_time: span.start,
        end_time: span.end,
        attributes: span.attributes.into_iter().map(|(name, of)| KeyValue::new(name, value(of))).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links,
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: InstrumentationScope::builder(SCOPE).with_version(VERSION).build(),
    }
}

fn context(context: SpanContext) -> trace::SpanContext {
    let SpanContext { trace_id, span_id, flags } = context;
    trace::SpanContext::new(
        TraceId::from_bytes(*trace_id.as_bytes()),
        SpanId::from_bytes(*span_id.as_bytes()),
        TraceFlags::new(flags.bits()),
        false,
        TraceState::default(),
    )
}

fn kind(kind: SpanKind) -> trace::SpanKind {
    match kind {
        SpanKind::Server => trace::SpanKind::Server,
        SpanKind::Client => trace::SpanKind::Client,
        SpanKind::Producer => trace::SpanKind::Producer,
        SpanKind::Consumer => trace::SpanKind::Consumer,
        SpanKind::Internal | SpanKind::Unspecified => trace::SpanKind::Internal,
    }
}

fn value(attribute: Attribute) -> Value {
    match attribute {
        Attribute::Word(word) => word.into(),
        Attribute::Text(text) => text.into(),
        Attribute::Number(number) => number.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn an_instance_s_id_is_a_uuid_of_version_4() {
        assert_eq!(instance_id(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(instance_id(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(
            instance_id(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            "01234567-89ab-4def-8123-456789abcdef"
        );
    }

    #[test]
    fn the_resource_is_the_daemon_s_own_and_what_was_set_of_it_wins() {
        let telemetry = crate::config::Config::load(
            &[],
            &crate::config::Environment::new(
                [
                    ("OTEL_SERVICE_NAME", "edge"),
                    (
                        "OTEL_RESOURCE_ATTRIBUTES",
                        "service.instance.id=node-7,deployment.environment.name=test",
                    ),
                ],
                false,
            ),
        );
        let resource = resource(&telemetry.unwrap().telemetry);
        let of = |name: &'static str| resource.get(&name.into()).map(|value| value.to_string());
        assert_eq!(of("service.name").as_deref(), Some("edge"));
        assert_eq!(of("service.version").as_deref(), Some(VERSION));
        assert_eq!(of("service.instance.id").as_deref(), Some("node-7"));
        assert_eq!(of("deployment.environment.name").as_deref(), Some("test"));
        assert_eq!(of("process.pid"), Some(std::process::id().to_string()));
    }

    #[test]
    fn nothing_of_a_span_is_lost() {
        let (parent, link) = (SpanContext::random(), SpanContext::random());
        let span = OwnSpan {
            name: "commit",
            kind: SpanKind::Internal,
            context: parent.child(),
            parent: Some((parent.span_id, true)),
            links: vec![link],
            dropped_links: 2,
            start: UNIX_EPOCH + Duration::from_secs(1),
            end: UNIX_EPOCH + Duration::from_secs(2),
            attributes: vec![("a", Attribute::Number(1)), ("b", "c".into())],
            error: Some("no".to_owned()),
        };
        let data = span_data(span.clone());
        assert_eq!(data.span_context, context(span.context));
        assert_eq!(data.span_context.trace_id().to_bytes(), *parent.trace_id.as_bytes());
        assert_eq!(
            (data.parent_span_id.to_bytes(), data.parent_span_is_remote),
            (*parent.span_id.as_bytes(), true)
        );
        assert_eq!((data.links.len(), data.links.dropped_count), (1, 2));
        assert_eq!(data.links.iter().next().unwrap().span_context, context(link));
        assert_eq!((data.start_time, data.end_time, &*data.name), (span.start, span.end, "commit"));
        assert_eq!(data.attributes, [KeyValue::new("a", 1), KeyValue::new("b", "c")]);
        assert_eq!((data.status, data.span_kind), (Status::error("no"), trace::SpanKind::Internal));
    }
}
