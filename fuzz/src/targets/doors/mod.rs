//! Bytes as a client sends them over a connection, through the doors as they are, with a log in memory behind them.
//!
//! ```text
//!  0        1        2            4
//!  ├────────┼────────┼────────────┼──────────────
//!  │ world  │ end    │ pace, le16 │ what the client says
//!  └────────┴────────┴────────────┴──────────────
//! ```
//!
//! `world` says what is behind the door ([`World`]), `end` what the client does once it has said everything, and `pace` in
//! which pieces and with which pauses it says it. The clock is the runtime's and stands still while anybody has something to do.

mod frames;
mod http1;
mod message;
mod oracle;
mod seeds;
mod shape;

use std::{io, sync::Arc, time::Duration};

use futures_util::future::LocalBoxFuture;
use nyx_telemetry::{
    accept::{
        Accepted, Admission, Buffers, Door, DoorLedger, DoorReason, DoorTls, GrpcDoor, Http1Settings,
        Http2Settings, HttpDoor, Intake, RequestLimits, Scratches, Tally,
    },
    bearer::{Gate, Tokens},
    collect::SpansCompleted,
    log::{MemoryLog, MemoryLogConfig, ReadLimit, Record, SpanLedger, SpanLog},
    measure::CurrentSettings,
    self_tracing::Tracer,
    span::inspect,
    supervise::Recipient,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    runtime::Builder,
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};

pub(super) use self::{
    seeds::{grpc as grpc_seeds, http as http_seeds},
    shape::{grpc as grpc_shape, http as http_shape},
};
use crate::{Rng, Trace, ensure};

/// What a door asks for that asks for a token.
const TOKEN: &str = "0123456789abcdef";
/// Bytes before what the client says.
const HEAD: usize = 4;
/// Bytes between the two ends of a connection.
const PIPE: usize = 64 << 10;
/// A connection ends so long after its client's last byte: the time for a body, for the next head and for a sign of life,
/// one after the other, and what a body of the longest input may earn.
const END_MAX: Duration = Duration::from_secs(30 + 16 + 60 + 40 + 10);
/// Nothing takes longer on the runtime's clock.
const HANGS: Duration = Duration::from_secs(3_600);

/// Which door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Grpc,
    Http,
}

/// Bytes at the gRPC door.
pub(super) fn grpc(bytes: &[u8], trace: &mut Trace) -> Result<(), String> {
    run(Protocol::Grpc, bytes, trace)
}

/// Bytes at the HTTP door.
pub(super) fn http(bytes: &[u8], trace: &mut Trace) -> Result<(), String> {
    run(Protocol::Http, bytes, trace)
}

/// What an input says.
struct Script<'b> {
    world: u8,
    end: End,
    pace: u16,
    said: &'b [u8],
}

/// What a client does that has said everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It says nothing more and reads on.
    Silent,
    /// It ends its side and reads on.
    Closes,
    /// It is gone, with whatever was on its way to it.
    Gone,
}

impl<'b> Script<'b> {
    fn of(bytes: &'b [u8]) -> Self {
        let (head, said) = bytes.split_at_checked(HEAD).unwrap_or((&[0; HEAD], bytes));
        let at = |at: usize| head.get(at).copied().unwrap_or_default();
        let end = match at(1) % 4 {
            0 | 3 => End::Silent,
            1 => End::Closes,
            _ => End::Gone,
        };
        Self { world: at(0), end, pace: u16::from_le_bytes([at(2), at(3)]), said }
    }

    fn has(&self, bit: u8) -> bool {
        self.world & bit != 0
    }
}

/// What is behind the door, and what the door has to account for.
struct World {
    admission: Admission,
    ledger: Arc<DoorLedger>,
    spans: Arc<SpanLedger>,
    log: Arc<MemoryLog>,
}

impl World {
    fn new(script: &Script<'_>) -> Self {
        let max_bytes = if script.has(4) { 600 } else { 64 << 20 };
        let log = MemoryLog::new(MemoryLogConfig { max_bytes, destinations: 1, measured: false });
        let in_flight = if script.has(8) { 1_000 } else { 4 << 20 };
        Self {
            admission: Admission::new(in_flight),
            ledger: Arc::default(),
            spans: Arc::default(),
            log: Arc::new(log),
        }
    }

    /// The door; whoever serves with it is all that sends batches.
    fn door(
        &self,
        protocol: Protocol,
        script: &Script<'_>,
    ) -> (Arc<dyn Door>, mpsc::Receiver<SpansCompleted>) {
        let (collector, batches) = Recipient::channel(1);
        let max_request_bytes = if script.has(8) { 700 } else { 1 << 20 };
        let tokens = Tokens::parse(TOKEN.as_bytes()).ok().filter(|_| script.has(32));
        let intake = Intake {
            gate: Arc::new(Gate::new(tokens)),
            limits: RequestLimits { max_request_bytes, ..RequestLimits::default() },
            commit_timeout: Duration::from_millis(20),
            admission: self.admission.clone(),
            ledger: Arc::clone(&self.ledger),
            spans: Arc::clone(&self.spans),
            collector,
            scratches: Arc::new(Scratches::new(CurrentSettings::default())),
            buffers: Arc::new(Buffers::default()),
            tracer: Tracer::default(),
        };
        let http2 = Http2Settings::default();
        let door: Arc<dyn Door> = match protocol {
            Protocol::Grpc => Arc::new(GrpcDoor { http2, tls: Arc::new(DoorTls::grpc(None)), intake }),
            Protocol::Http => {
                let (http1, tls) = (Http1Settings::default(), Arc::new(DoorTls::http(None)));
                Arc::new(HttpDoor { http1, http2, tls, intake })
            }
        };
        (door, batches)
    }
}

/// Commits what comes: at once, late, only every other batch, or nothing at all.
async fn collect(world: u8, log: Arc<MemoryLog>, mut batches: mpsc::Receiver<SpansCompleted>) {
    if world % 4 == 3 {
        batches.close();
    }
    let mut number = 0;
    while let Some(batch) = batches.recv().await {
        number += 1;
        match world % 4 {
            1 => sleep(Duration::from_millis(50)).await,
            2 if number % 2 == 0 => continue,
            _ => {}
        }
        log.commit(vec![batch.append]).await;
    }
}

/// Says what the script has to say; what came back, and when the last was said.
async fn client(script: &Script<'_>, stream: DuplexStream, stop: oneshot::Sender<()>) -> (Vec<u8>, Instant) {
    let (mut reading, mut writing) = tokio::io::split(stream);
    let mut stop = Some(stop).filter(|_| script.has(16));
    let saying = async {
        let mut rng = Rng::new(u64::from(script.pace));
        let mut rest = script.said;
        while !rest.is_empty() {
            let longest = 1 << rng.below(12);
            let length = if script.pace == 0 { rest.len() } else { 1 + rng.below(longest) };
            let (now, later) = rest.split_at(length.min(rest.len()));
            rest = later;
            if writing.write_all(now).await.is_err() {
                break;
            }
            match rng.below(16) {
                _ if script.pace == 0 => {}
                0 => sleep(Duration::from_millis(rng.bits() % 2_000)).await,
                1 if rng.one_in(20) => sleep(Duration::from_secs(rng.bits() % 70)).await,
                2..8 => tokio::task::yield_now().await,
                _ => {}
            }
            if rest.len() < script.said.len() / 2
                && let Some(stop) = stop.take()
            {
                // Nobody to tell where the connection is over.
                let _over = stop.send(());
            }
        }
        if script.end == End::Closes {
            let _over = writing.shutdown().await;
        }
        Instant::now()
    };
    let mut answers = Vec::new();
    let said = {
        let mut saying = std::pin::pin!(saying);
        let hearing = async {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = reading.read(&mut piece).await {
                answers.extend_from_slice(piece.get(..length).unwrap_or_default());
            }
        };
        let mut hearing = std::pin::pin!(hearing);
        tokio::select! {
            // At random the same seed would give another run.
            biased;
            said = &mut saying => {
                if script.end != End::Gone {
                    hearing.await;
                }
                said
            }
            () = &mut hearing => saying.await,
        }
    };
    (answers, said)
}

/// What a run came to.
struct Ended {
    answers: Vec<u8>,
    records: Vec<Record>,
    took: Duration,
}

/// Serves the connection to its end, and commits what came of it.
async fn serve(protocol: Protocol, script: &Script<'_>, world: &World) -> Result<Ended, String> {
    let (near, far) = duplex(PIPE);
    let (stop, stopped) = oneshot::channel();
    let stop_at: LocalBoxFuture<'static, ()> = Box::pin(async move {
        if stopped.await.is_err() {
            std::future::pending().await
        }
    });
    let (door, batches) = world.door(protocol, script);
    let serving = async {
        door.serve(Accepted::Memory(far), stop_at).await;
        Instant::now()
    };
    let collecting = collect(script.world, Arc::clone(&world.log), batches);
    let all = async { tokio::join!(client(script, near, stop), serving, collecting) };
    let ((answers, said), over, ()) =
        timeout(HANGS, all).await.map_err(|_| format!("a connection does not end in {HANGS:?}"))?;
    let read = world.log.read(0, ReadLimit { spans: u64::MAX, bytes: usize::MAX }).await;
    let records = read.map_err(|error| error.to_string())?;
    Ok(Ended { answers, records, took: over.saturating_duration_since(said) })
}

fn run(protocol: Protocol, bytes: &[u8], trace: &mut Trace) -> Result<(), String> {
    let script = Script::of(bytes);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.map_err(|error: io::Error| error.to_string())?;
    let world = World::new(&script);
    let Ended { answers, records, took } = runtime.block_on(serve(protocol, &script, &world))?;
    ensure!(took <= END_MAX, "a connection ends {took:?} after its client's last byte");
    drop(runtime);

    let World { admission, ledger, spans, log } = &world;
    let (door, spans) = (ledger.counts(), spans.counts());
    for &reason in DoorReason::ALL {
        trace.see_if(door.refused(reason).requests > 0, reason.label());
    }
    (0..door.accepted.requests.min(8)).for_each(|_| trace.see("accepted"));
    trace.see_if(door.accepted.requests > records.len() as u64, "nothing to keep");
    trace.see_if(spans.scanned > spans.accepted, "some rejected");
    ensure!(admission.in_flight() == 0, "{} bytes stay in flight", admission.in_flight());
    ensure!(door.balances() && door.pending == Tally::default(), "the door does not balance: {door:?}");
    ensure!(spans.balances() && spans.pending == 0, "the spans do not balance: {spans:?}");
    let kept: u64 = records.iter().map(|record| u64::from(record.spans)).sum();
    ensure!(
        kept == spans.accepted && log.end() == kept,
        "{kept} spans in the log, {} accepted",
        spans.accepted
    );
    ensure!(door.accepted.requests >= records.len() as u64, "{door:?} with {} records", records.len());
    for record in &records {
        let found = inspect(&record.bytes, u64::MAX, |_| {}).map_err(|error| format!("a record: {error}"))?;
        ensure!(found.kept == record.spans && found.rejected.total() == 0, "{record:?} is {found:?}");
    }

    let heard = oracle::heard(protocol, script.said, &answers);
    trace.see(heard.spoke);
    heard.words.iter().for_each(|word| trace.see(word));
    ensure!(
        heard.successes <= door.accepted.requests,
        "{} requests were answered with success: {door:?}",
        heard.successes
    );
    let mut left: Vec<&[u8]> = records.iter().map(|record| &*record.bytes).collect();
    for message in heard.taken {
        trace.see("answered");
        ensure!(
            message.is_among(&mut left),
            "a request was answered with success and is not in the log: {message:?}"
        );
    }
    Ok(())
}
