//! A program that reports the spans of its connections: `cargo run --example in_process [-- http://localhost:4317]`.
//!
//! It needs no server: without a destination the spans are committed, counted and released; with one that is not
//! there they wait, and the ledger says so.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::{error::Error, time::Duration};

use nyx_telemetry::{
    Connection, ConnectionId, Status, Telemetry,
    observe::Stats,
    span::{SpanKind, Value},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut builder = Telemetry::builder()
        .service_name("example-node")
        .resource_attribute("service.version", env!("CARGO_PKG_VERSION"));
    if let Some(endpoint) = std::env::args().nth(1) {
        builder = builder.destination(&endpoint);
    }
    let telemetry = builder.start()?;

    // Two ends of one exchange, each with a connection of its own; what links them is the traceparent header.
    let client = telemetry.connection(ConnectionId::new(1));
    let server = telemetry.connection(ConnectionId::new(2));
    let header = open(&client).await;
    serve(&server, &header).await?;

    // Closed, or dropped, a connection ends the spans that are still open, as errors that say so.
    let forgotten = client.span("stream_read").start();
    client.close();
    assert!(client.is_closed());
    drop(forgotten);

    // A flush is an acknowledgement: every span that had ended is in the log.
    telemetry.flush().await?;
    let observed = telemetry.observed().clone();
    let report = telemetry.shutdown().await;
    print_ledger(&observed.stats());
    println!("stopped in order: {}", report.is_clean());
    Ok(())
}

/// The client's side: a root span with a child. Returns the header that it would send along.
async fn open(connection: &Connection) -> String {
    let mut request = connection.span("connection_start").kind(SpanKind::Client).start();
    request
        .set_attribute("connection.id", i64::try_from(connection.id().inner()).unwrap_or_default())
        .set_attribute("protocol.version", "1.0")
        .set_attribute("encrypted", true)
        .set_attribute("load", 0.25)
        .set_attribute("paths", Value::array(["wifi", "lte"]));
    let negotiation = connection.span("protocol_negotiation").parent(request.context()).start();
    tokio::time::sleep(Duration::from_millis(2)).await;
    negotiation.end();
    let header = request.traceparent();
    request.set_status(Status::Ok);
    request.end();
    header
}

/// The server's side: its span continues the client's trace.
async fn serve(connection: &Connection, header: &str) -> Result<(), Box<dyn Error>> {
    let mut serving =
        connection.span("connection_accept").kind(SpanKind::Server).traceparent(header)?.start();
    tokio::time::sleep(Duration::from_millis(1)).await;
    serving.add_event("frame_received", &[("frame.bytes", 1200.into())]);

    let mut retry = connection.span("frame_processing").parent(serving.context()).start();
    retry.add_link(serving.context(), &[("reason", "retransmission".into())]);
    retry.add_event("exception", &[("exception.type", "frame_error".into())]);
    retry.set_status(Status::Error("frame is cut off"));
    retry.end();
    serving.end();
    Ok(())
}

/// Every span is somewhere.
fn print_ledger(stats: &Stats) {
    for (door, counts) in &stats.door {
        let (received, accepted) = (counts.received.requests, counts.accepted.requests);
        let (refused, pending) = (counts.refused_total().requests, counts.pending.requests);
        println!(
            "door {door}: received {received} = accepted {accepted} + refused {refused} + pending {pending}"
        );
    }
    let spans = &stats.spans;
    println!("spans: scanned {}, accepted {}, pending {}", spans.scanned, spans.accepted, spans.pending);
    for (name, destination) in &stats.destinations {
        let ledger = &destination.ledger;
        println!(
            "to {name}: {} = exported {} + sampled out {} + dropped {} + queued {}",
            ledger.end - ledger.start,
            ledger.exported,
            ledger.sampled_out,
            ledger.dropped_total(),
            ledger.queued()
        );
    }
    println!("balanced: {}", stats.balanced);
}
