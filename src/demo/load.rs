//! Simulated stream connections: they open, work and close.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use nyx_telemetry::{
    Connection, ConnectionId, Span, Status,
    span::{SpanContext, SpanId, SpanKind, TraceId},
    tree::InProcess,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    common::v1::{AnyValue, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span as WireSpan},
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::{
    sync::{oneshot, watch},
    time::sleep,
};

/// What the slow spans take of the time between two spans, on average, in seconds.
const SLOW_SHARE: f64 = 0.2 / 50.0;
/// Spans in one request of the remote peer.
const REMOTE_BATCH: usize = 20;

/// The load on its own thread and runtime, as an application would be.
pub(super) struct Load {
    stop: watch::Sender<bool>,
    /// Ends with the load's thread.
    ended: oneshot::Receiver<()>,
}

/// What to simulate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Stream connections at a time.
    pub(super) connections: usize,
    /// Spans a second of all together, roughly.
    pub(super) spans_per_second: f64,
    /// The OTLP/gRPC door, for a peer that is another process.
    pub(super) door: SocketAddr,
}

impl Load {
    /// Starts it.
    pub(super) fn start(in_process: InProcess, shape: Shape) -> std::io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let (running, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("demo-load".to_owned()).spawn(move || {
            let _running: oneshot::Sender<()> = running;
            runtime.block_on(async {
                let peers = (0..shape.connections as u64).map(|seed| {
                    Peer {
                        in_process: &in_process,
                        shape,
                        random: SmallRng::seed_from_u64(seed),
                        next: seed << 32,
                    }
                    .run(stopped.clone())
                });
                tokio::join!(join_all(peers), remote(shape, stopped.clone()));
            });
        })?;
        Ok(Self { stop, ended })
    }

    /// Stops it, and waits until its connections are closed. Its last request may still need an answer of the actors on
    /// this thread, so this thread must not block.
    pub(super) async fn stop(self) {
        let _gone = self.stop.send(true);
        let _ended = self.ended.await;
    }
}

/// One simulated peer: it connects again and again.
struct Peer<'a> {
    in_process: &'a InProcess,
    shape: Shape,
    random: SmallRng,
    next: u64,
}

impl Peer<'_> {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        while !*stopped.borrow() {
            self.next += 1;
            let connection = self.in_process.connection(ConnectionId::new(self.next));
            let frames = self.random.random_range(5..40);
            tokio::select! {
                () = self.live(&connection, frames) => {}
                _ = stopped.changed() => {}
            }
            connection.close();
        }
    }

    /// One connection's life: a handshake, frames, and an end.
    async fn live(&mut self, connection: &Connection, frames: u32) {
        let id = connection.id().inner();
        let mut start = connection.span("connection_start").kind(SpanKind::Server).start();
        start.set_attribute("connection.id", i64::try_from(id).unwrap_or_default());
        let parent = start.context();
        self.rest().await;
        self.work(connection, "protocol_negotiation", SpanKind::Server, parent).await;
        start.end();
        for frame in 0..frames {
            self.work(connection, "frame_processing", SpanKind::Internal, parent).await;
            if frame % 4 == 0 {
                self.work(connection, "multipath_routing", SpanKind::Client, parent).await;
            }
        }
        self.work(connection, "connection_end", SpanKind::Server, parent).await;
    }

    async fn work(&mut self, connection: &Connection, name: &str, kind: SpanKind, parent: SpanContext) {
        let mut span: Span = connection.span(name).kind(kind).parent(parent).start();
        span.set_attribute("connection.id", i64::try_from(connection.id().inner()).unwrap_or_default());
        span.set_attribute("packet.size", self.random.random_range(64i64..1500));
        self.rest().await;
        if self.random.random_ratio(1, 50) {
            // A slow one, for the histogram.
            sleep(Duration::from_millis(self.random.random_range(100..300))).await;
        }
        if self.random.random_ratio(1, 40) {
            span.add_event("exception", &[("exception.type", "frame_error".into())]);
            span.set_status(Status::Error("bad frame"));
        } else {
            span.set_status(Status::Ok);
        }
        span.end();
    }

    /// The time between two spans of one connection, at the rate asked for.
    async fn rest(&mut self) {
        let mean =
            (self.shape.connections as f64 / self.shape.spans_per_second.max(1.0) - SLOW_SHARE).max(0.0);
        sleep(Duration::from_secs_f64((mean * self.random.random_range(0.2..1.8)).min(1.0))).await;
    }
}

/// A peer in another process, as far as the daemon can tell: it reports over OTLP/gRPC.
async fn remote(shape: Shape, mut stopped: watch::Receiver<bool>) {
    let mut random = SmallRng::seed_from_u64(0xd00f);
    let pause =
        Duration::from_secs_f64((10.0 * REMOTE_BATCH as f64 / shape.spans_per_second.max(1.0)).min(2.0));
    let mut client = None;
    loop {
        tokio::select! {
            () = sleep(pause) => {}
            _ = stopped.changed() => return,
        }
        if client.is_none() {
            client = TraceServiceClient::connect(format!("http://{}", shape.door)).await.ok();
        }
        let Some(connected) = &mut client else { continue };
        // A refusal is what the ledger calls refused; this peer does not repeat itself.
        if let Err(status) = connected.export(remote_batch(&mut random)).await {
            tracing::warn!(%status, "the demo's remote peer was refused");
        }
    }
}

fn remote_batch(random: &mut SmallRng) -> ExportTraceServiceRequest {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    let trace = TraceId::random();
    let spans = (0..REMOTE_BATCH).map(|_| WireSpan {
        trace_id: trace.as_bytes().to_vec(),
        span_id: SpanId::random().as_bytes().to_vec(),
        name: "bandwidth_monitoring".to_owned(),
        kind: SpanKind::Internal as i32,
        start_time_unix_nano: now - random.random_range(100_000..5_000_000),
        end_time_unix_nano: now,
        ..WireSpan::default()
    });
    let name = AnyValue { value: Some(any_value::Value::StringValue("demo-remote-node".to_owned())) };
    let service = KeyValue { key: "service.name".to_owned(), value: Some(name), ..KeyValue::default() };
    let resource = Resource { attributes: vec![service], ..Resource::default() };
    let scope_spans = vec![ScopeSpans { spans: spans.collect(), ..ScopeSpans::default() }];
    let resource_spans = ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}
