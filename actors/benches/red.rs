//! What RED costs a span: `cargo bench -p nyx-telemetry --bench red [-- BATCHES]`.
//!
//! Prints nanoseconds a span for batches of 512 spans of one service, aggregated and merged; the best of five
//! runs. Under `valgrind --tool=callgrind`, the difference between two numbers of batches gives instructions.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark reads the real clock and prints"
)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use nyx_telemetry::{
    measure::{RedScratch, RedShared},
    span::{SpanBytes, SpanId, SpanKind, SpanView, StatusCode, TraceId},
};

const SPANS: usize = 512;

fn main() {
    let batches = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(2_000_usize);
    for names in [1, 16, 64] {
        let names: Vec<String> = (0..names).map(|i| format!("GET /api/v1/resource/{i}")).collect();
        let spans: Vec<SpanView<'_>> = names.iter().cycle().take(SPANS).enumerate().map(span).collect();
        let best = (0..5).map(|_| run(&spans, batches)).min().unwrap_or_default();
        let nanos = best.as_nanos() as f64 / (batches * SPANS) as f64;
        println!("{:2} names: {nanos:.1} ns a span", names.len());
    }
}

fn span((i, name): (usize, &String)) -> SpanView<'_> {
    let start_unix_nano = 1_700_000_000_000_000_000;
    SpanView {
        service: "checkout-service",
        name,
        kind: SpanKind::Server,
        status: if i % 50 == 0 { StatusCode::Error } else { StatusCode::Unset },
        start_unix_nano,
        end_unix_nano: start_unix_nano + (i as u64 * 7_919 % 300) * 100_000,
        trace_id: TraceId::from_int(1),
        span_id: SpanId::from_int(1),
        bytes: SpanBytes::default(),
    }
}

fn run(spans: &[SpanView<'_>], batches: usize) -> Duration {
    let red = RedShared::default();
    let mut scratch = RedScratch::new(red.settings());
    let start = Instant::now();
    for _ in 0..batches {
        for span in spans {
            scratch.observe(black_box(span));
        }
        let _counted = red.merge(red.position(), &scratch.take(), Duration::ZERO);
    }
    start.elapsed()
}
