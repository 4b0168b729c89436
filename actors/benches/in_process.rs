//! What an in-process span costs its caller: `cargo bench -p nyx-telemetry --bench in_process [-- quick]`.
//!
//! A span with three attributes (two texts, one number) is started, described and ended through the public API of
//! a running [`Telemetry`] with one connection; its own thread does the rest. Beside it, in turn, the same span
//! through `opentelemetry_sdk` with its `BatchSpanProcessor` and an exporter that only counts. Printed is the time of
//! the caller's thread a span, as processor time (what the thread itself used) and as wall time (with what its
//! machine did meanwhile): the best and the median round. Neither side may refuse a span.
//!
//! `-- nyx ROUNDS` and `-- otel ROUNDS` run one side only, for a profiler.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark reads the real clock and prints"
)]

use std::{
    fmt,
    future::{Future, ready},
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nyx_telemetry::{Connection, ConnectionId, Telemetry};
use opentelemetry::{
    KeyValue,
    trace::{Span as _, Tracer as _, TracerProvider as _},
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider, SpanData, SpanExporter},
};
use rustix::time::{ClockId, clock_gettime};

/// Spans of a round; what follows may rest on the machine's caches, as in a program that does little else.
const SPANS: u64 = 20_000;

/// What a round cost the caller's thread.
#[derive(Clone, Copy)]
struct Cost {
    cpu: Duration,
    wall: Duration,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let rounds = |given: Option<&String>| given.and_then(|given| given.parse().ok()).unwrap_or(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (nyx, otel) = (Nyx::start(), Otel::start());
        match arguments.first().map(String::as_str) {
            Some("nyx") => {
                for _ in 0..rounds(arguments.get(1)) {
                    nyx.round().await;
                }
            }
            Some("otel") => {
                for _ in 0..rounds(arguments.get(1)) {
                    otel.round();
                }
            }
            Some("quick") => compare(&nyx, &otel, 3).await,
            _ => compare(&nyx, &otel, 51).await,
        }
    });
}

/// In turn, so that what the machine does meanwhile meets both.
async fn compare(nyx: &Nyx, otel: &Otel, rounds: usize) {
    // Buffers grow, threads are woken for the first time.
    for _ in 0..2 {
        nyx.round().await;
        otel.round();
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(nyx.round().await);
        theirs.push(otel.round());
    }
    println!("a span with three attributes, ns of the caller's thread; {rounds} rounds of {SPANS} spans");
    println!("{:34} {:>14} {:>16} {:>16}", "", "cpu best", "cpu median", "wall median");
    print("nyx-telemetry", &ours);
    print("opentelemetry_sdk, batch processor", &theirs);
    println!("refused: nyx {}, opentelemetry_sdk {}", nyx.refused(), otel.refused());
    assert_eq!((nyx.refused(), otel.refused()), (0, 0), "a refused span costs less");
}

fn print(what: &str, costs: &[Cost]) {
    let sorted = |time: fn(&Cost) -> Duration| {
        let mut nanos: Vec<f64> =
            costs.iter().map(|cost| time(cost).as_nanos() as f64 / SPANS as f64).collect();
        nanos.sort_by(f64::total_cmp);
        nanos
    };
    let (cpu, wall) = (sorted(|cost| cost.cpu), sorted(|cost| cost.wall));
    let at = |nanos: &[f64], index: usize| nanos.get(index).copied().unwrap_or_default();
    println!(
        "{what:34} {:14.1} {:16.1} {:16.1}",
        at(&cpu, 0),
        at(&cpu, cpu.len() / 2),
        at(&wall, wall.len() / 2)
    );
}

fn cost(work: impl FnOnce()) -> Cost {
    let cpu = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
    let (cpu_begin, wall_begin) = (cpu(), Instant::now());
    work();
    Cost { wall: wall_begin.elapsed(), cpu: cpu().saturating_sub(cpu_begin) }
}

struct Nyx {
    telemetry: Telemetry,
    connection: Connection,
}

impl Nyx {
    /// Without a destination: the spans are committed, counted in the RED metrics and released.
    fn start() -> Self {
        let room = |config: &mut nyx_telemetry::tree::TreeConfig| config.in_process_max_bytes = 64 << 20;
        let telemetry = Telemetry::builder().service_name("bench").configure(room).start().unwrap();
        let connection = telemetry.connection(ConnectionId::new(17));
        Self { telemetry, connection }
    }

    async fn round(&self) -> Cost {
        let cost = cost(|| {
            for number in 0..SPANS {
                let mut span = self.connection.span(black_box("frame_processing")).start();
                span.set_attribute("connection.id", black_box("conn-0017"));
                span.set_attribute("frame.bytes", number.cast_signed());
                span.set_attribute("protocol", black_box("quic"));
                span.end();
            }
        });
        self.telemetry.flush().await.unwrap();
        cost
    }

    fn refused(&self) -> u64 {
        let stats = self.telemetry.observed().stats();
        stats.door.values().map(|door| door.refused_total().requests).sum()
    }
}

struct Otel {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    exported: Arc<AtomicU64>,
    made: AtomicU64,
}

impl Otel {
    fn start() -> Self {
        let exported = Arc::new(AtomicU64::new(0));
        let queue = usize::try_from(2 * SPANS).unwrap_or_default();
        let processor = BatchSpanProcessor::builder(Counting(Arc::clone(&exported)))
            .with_batch_config(BatchConfigBuilder::default().with_max_queue_size(queue).build())
            .build();
        let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
        let tracer = provider.tracer("bench");
        Self { provider, tracer, exported, made: AtomicU64::new(0) }
    }

    fn round(&self) -> Cost {
        let cost = cost(|| {
            for number in 0..SPANS {
                let mut span = self.tracer.start(black_box("frame_processing"));
                span.set_attribute(KeyValue::new("connection.id", black_box("conn-0017")));
                span.set_attribute(KeyValue::new("frame.bytes", number.cast_signed()));
                span.set_attribute(KeyValue::new("protocol", black_box("quic")));
                span.end();
            }
        });
        self.made.fetch_add(SPANS, Ordering::Relaxed);
        self.provider.force_flush().unwrap();
        cost
    }

    fn refused(&self) -> u64 {
        self.made.load(Ordering::Relaxed) - self.exported.load(Ordering::Relaxed)
    }
}

/// Counts what it is given.
struct Counting(Arc<AtomicU64>);

impl fmt::Debug for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counting")
    }
}

impl SpanExporter for Counting {
    fn export(&self, batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        self.0.fetch_add(batch.len() as u64, Ordering::Relaxed);
        ready(Ok(()))
    }
}
