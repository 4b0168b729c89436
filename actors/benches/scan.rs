//! What reading and writing spans as bytes costs: `cargo bench -p nyx-telemetry --bench scan`.
//!
//! `-- WORK ROUNDS` runs one of `scan`, `inspect`, `red`, `exemplars`, `prost`, `cut`, `select`, `encode` that often and
//! prints nothing else, for counting instructions (two runs, and the difference):
//! `valgrind --tool=callgrind target/release/deps/scan-… scan 200`.
//!
//! `inspect` is the scan of a door; `red` and `exemplars` are what a door makes of a request: that, and the RED delta,
//! without exemplars or with some of every trace.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a bench measures and prints"
)]

use std::{hint::black_box, sync::Arc, time::Instant};

use nyx_telemetry::{
    measure::{RedScratch, RedSettings},
    span::{
        Reporter, RequestBuffer, Sampler, SpanContext, SpanEncoder, SpanKind, SpanStart, Value, cut, inspect,
        scan, select,
    },
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span},
};
use prost::Message;

const SPANS: u32 = 512;

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.into()))
}

/// Spans of about 350 bytes with six attributes, and one in eight with an event.
fn request() -> Vec<u8> {
    let span = |number: u32| Span {
        trace_id: SpanContext::random().trace_id.as_bytes().to_vec(),
        span_id: SpanContext::random().span_id.as_bytes().to_vec(),
        parent_span_id: SpanContext::random().span_id.as_bytes().to_vec(),
        flags: 0x101,
        name: ["GET /cart/{id}", "SELECT shop.orders", "process frame"][number as usize % 3].into(),
        kind: 1 + number as i32 % 3,
        start_time_unix_nano: 1_700_000_000_000_000_000 + u64::from(number) * 1000,
        end_time_unix_nano: 1_700_000_000_002_000_000 + u64::from(number) * 1777,
        attributes: vec![
            text("http.request.method", "GET"),
            text("url.path", format!("/cart/{}", 100_000 + number)),
            text("server.address", "shop-backend-7f9c4.internal"),
            attribute("http.response.status_code", any_value::Value::IntValue(200)),
            attribute("nyx.retry", any_value::Value::BoolValue(false)),
            text("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64) Firefox/131"),
        ],
        events: (0..u32::from(number.is_multiple_of(8)))
            .map(|_| span::Event {
                time_unix_nano: 1_700_000_000_000_000_000,
                name: "cache.miss".into(),
                attributes: vec![text("cache.key", "cart")],
                ..span::Event::default()
            })
            .collect(),
        status: number.is_multiple_of(10).then(|| Status { code: 2, message: "timeout".into() }),
        ..Span::default()
    };
    let scope = InstrumentationScope {
        name: "shop".into(),
        version: "1.2.3".into(),
        ..InstrumentationScope::default()
    };
    let attributes = vec![text("service.name", "shop-frontend"), text("host.name", "node-17")];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans: (0..SPANS).map(span).collect(),
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
    .encode_to_vec()
}

struct Bench {
    request: Vec<u8>,
    out: Vec<u8>,
    encoder: SpanEncoder,
    buffer: RequestBuffer,
    red: RedScratch,
    exemplars: RedScratch,
}

impl Bench {
    /// One round of the work: `SPANS` spans.
    fn round(&mut self, work: &str) {
        match work {
            "scan" => {
                let mut nanos = 0;
                let scanned = scan(black_box(&self.request), |span| {
                    nanos += span.duration_nanos() + span.name.len() as u64 + span.kind as u64;
                });
                assert_eq!(scanned.unwrap().spans, SPANS);
                black_box(nanos);
            }
            "inspect" => {
                let mut nanos = 0;
                let inspected = inspect(black_box(&self.request), black_box(u64::MAX), |span| {
                    nanos += span.duration_nanos() + span.name.len() as u64 + span.kind as u64;
                });
                assert_eq!(inspected.unwrap().kept, SPANS);
                black_box(nanos);
            }
            "red" => door(&self.request, &mut self.red),
            "exemplars" => door(&self.request, &mut self.exemplars),
            "prost" => {
                let request = ExportTraceServiceRequest::decode(black_box(&self.request[..])).unwrap();
                black_box(request);
            }
            "cut" => {
                self.out.clear();
                let written = cut(black_box(&self.request), 0, SPANS, usize::MAX, &mut self.out).unwrap();
                assert_eq!(written, SPANS);
            }
            "select" => {
                self.out.clear();
                let kept =
                    select(black_box(&self.request), |index, _| index.is_multiple_of(2), &mut self.out)
                        .unwrap();
                assert_eq!(kept, SPANS / 2);
            }
            "encode" => {
                for number in 0..SPANS {
                    self.span(number);
                }
                assert_eq!(black_box(self.buffer.take()).1, SPANS);
            }
            _ => println!("no such work: {work}"),
        }
    }

    /// An in-process span with three attributes, random ids included.
    fn span(&mut self, number: u32) {
        self.encoder.start(&SpanStart {
            context: black_box(SpanContext::random()),
            parent: None,
            parent_is_remote: false,
            name: black_box("frame_processing"),
            kind: SpanKind::Internal,
            start_unix_nano: black_box(1_700_000_000_000_000_000),
        });
        self.encoder.attribute(black_box("connection.id"), black_box("conn-0017"));
        self.encoder.attribute(black_box("frame.bytes"), i64::from(number));
        self.encoder.attribute(black_box("protocol"), black_box("quic"));
        self.buffer.push(self.encoder.end(black_box(1_700_000_000_000_001_000)));
    }
}

/// What a door makes of a request.
fn door(request: &[u8], scratch: &mut RedScratch) {
    let inspected = inspect(black_box(request), black_box(u64::MAX), |span| scratch.observe(span));
    assert_eq!(inspected.unwrap().kept, SPANS);
    assert_eq!(black_box(scratch.take()).spans(), u64::from(SPANS));
}

fn main() {
    let exemplars = RedSettings { exemplars: Some(Sampler::new(1.0)), ..RedSettings::default() };
    let mut bench = Bench {
        request: request(),
        out: Vec::new(),
        encoder: SpanEncoder::default(),
        buffer: RequestBuffer::new(
            &Reporter {
                resource: &[("service.name", Value::from("shop"))],
                scope_name: "nyx",
                scope_version: "0",
            },
            64 << 10,
        ),
        red: RedScratch::new(Arc::default()),
        exemplars: RedScratch::new(Arc::new(exemplars)),
    };
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [work, rounds] = &arguments[..] {
        for _ in 0..rounds.parse().unwrap_or(1) {
            bench.round(work);
        }
        return;
    }
    println!(
        "{SPANS} spans of {} bytes each; ns a span, best and median of 50",
        bench.request.len() / SPANS as usize
    );
    // In turn, so that what the machine does meanwhile meets all of them.
    let mut nanos = [
        ("scan", vec![]),
        ("inspect", vec![]),
        ("red", vec![]),
        ("exemplars", vec![]),
        ("prost", vec![]),
        ("cut", vec![]),
        ("select", vec![]),
        ("encode", vec![]),
    ];
    for _ in 0..50 {
        for (work, nanos) in &mut nanos {
            bench.round(work);
            let begin = Instant::now();
            for _ in 0..10 {
                bench.round(work);
            }
            nanos.push(begin.elapsed().as_nanos() as f64 / f64::from(10 * SPANS));
        }
    }
    for (work, mut nanos) in nanos {
        nanos.sort_by(f64::total_cmp);
        println!("{work:9} {:7.1} {:7.1}", nanos[0], nanos[nanos.len() / 2]);
    }
}
