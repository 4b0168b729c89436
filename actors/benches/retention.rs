//! What the retention buffer costs: `cargo bench -p nyx-telemetry --bench retention [-- BATCHES]`.
//!
//! Prints nanoseconds a span for batches of 512 spans: what the collector does with a batch, which has no errors or one in
//! fifty, and what the retention's thread does with one that has some. Beside it the scan of such a batch at the door. The
//! best of five runs.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark reads the real clock and prints"
)]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use nyx_telemetry::{
    measure::{RedDelta, RedScratch, RedSettings},
    retain::{Retention, RetentionConfig},
    span::{Reporter, RequestBuffer, SpanContext, SpanEncoder, SpanKind, SpanStart, StatusCode, Value, scan},
};

const SPANS: usize = 512;

fn main() {
    let batches = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(5_000_usize);
    for (what, error_every) in [("no errors", usize::MAX), ("errors", 50)] {
        let (bytes, delta) = batch(error_every);
        let best = |measure: &dyn Fn() -> Duration| {
            let best = (0..5).map(|_| measure()).min().unwrap_or_default();
            best.as_nanos() as f64 / (batches * SPANS) as f64
        };
        let scanned = best(&|| {
            time(batches, || {
                let _scanned = black_box(scan(&bytes, |_| ()));
            })
        });
        let retained = best(&|| {
            let retention = Retention::new(RetentionConfig::default());
            time(batches, || {
                black_box(retention.retain([(copy(&bytes), &delta)].into_iter()));
            })
        });
        let copied = best(&|| time(batches, || drop(black_box(copy(&bytes)))));
        let sifted = best(&|| {
            let retention = Retention::new(RetentionConfig::default());
            time(batches, || {
                retention.retain([(copy(&bytes), &delta)].into_iter());
                retention.sift();
            })
        });
        println!(
            "{what}: {} bytes; ns a span: scan {scanned:.2}, collector {:.2}, collector and thread {:.2}",
            bytes.len(),
            retained - copied,
            sifted - copied
        );
    }
}

fn time(times: usize, mut what: impl FnMut()) -> Duration {
    let start = Instant::now();
    (0..times).for_each(|_| what());
    start.elapsed()
}

/// A batch with a buffer of its own, as one from the door: what the buffer lets go of is really given back.
fn copy(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn batch(error_every: usize) -> (Bytes, RedDelta) {
    let resource = [("service.name", Value::from("checkout-service"))];
    let reporter = Reporter { resource: &resource, scope_name: "bench", scope_version: "1" };
    let (mut request, mut encoder) = (RequestBuffer::new(&reporter, 0), SpanEncoder::default());
    for number in 0..SPANS {
        encoder.start(&SpanStart {
            context: SpanContext::random(),
            parent: None,
            parent_is_remote: false,
            name: "GET /api/v1/resource",
            kind: SpanKind::Server,
            start_unix_nano: 1_700_000_000_000_000_000,
        });
        for key in ["http.request.method", "url.path", "server.address", "network.protocol.version"] {
            encoder.attribute(key, "a value of some length");
        }
        let error = number % error_every == error_every - 1;
        encoder.status(if error { StatusCode::Error } else { StatusCode::Unset }, "");
        request.push(encoder.end(1_700_000_000_002_000_000));
    }
    let (bytes, _) = request.take();
    let mut scratch = RedScratch::new(Arc::new(RedSettings::default()));
    // Encoded here, it scans.
    let _scanned = scan(&bytes, |span| scratch.observe(span));
    (bytes, scratch.take())
}
