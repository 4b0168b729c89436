//! Senders, on a thread of their own as applications are.

use std::{
    net::SocketAddr,
    ops::Range,
    thread,
    time::{Duration, UNIX_EPOCH},
};

use futures_util::future::join_all;
use nyx_telemetry::{Connection, ConnectionId, Status, tree::InProcess};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use tokio::sync::{oneshot, watch};
use tonic::transport::{Channel, Endpoint};

use super::{ERROR_EVERY, name_of, request, start_of};

/// Spans in one request.
const BATCH: u64 = 20;
/// Numbers that one sender has.
const SHARE: u64 = 1 << 32;
/// The first number of an in-process span.
pub const FIRST_LOCAL: u64 = 1 << 40;
/// Between two requests, and between two spans of a connection: the load is steady, not a flood.
const PAUSE: Duration = Duration::from_millis(3);

/// A client of the door. It connects when it first has to, and again after each broken connection.
pub fn client(door: SocketAddr) -> TraceServiceClient<Channel> {
    TraceServiceClient::new(Endpoint::from_shared(format!("http://{door}")).unwrap().connect_lazy())
}

/// What the senders were told.
#[derive(Debug, Default)]
pub struct Told {
    /// Numbers of the spans that were acknowledged, each once.
    pub acknowledged: Vec<u64>,
    /// Attempts beyond the first, in spans: what a sender's retry may have made arrive twice.
    pub repeated: u64,
    /// Requests that were accepted, or in-process spans that were recorded.
    pub accepted: u64,
    /// In-process spans that a closed connection refused to begin.
    pub refused: u64,
}

/// Senders that go on until they are stopped.
pub struct Load {
    stop: watch::Sender<bool>,
    told: oneshot::Receiver<(Told, Told)>,
}

impl Load {
    /// Starts so many remote senders, and so many in-process connections.
    pub fn start(door: SocketAddr, in_process: InProcess, remote: u64, local: u64) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (tell, told) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        thread::spawn(move || {
            let remote = (0..remote).map(|sender| send(door, sender * SHARE, stopped.clone()));
            let local = (0..local)
                .map(|sender| work(in_process.clone(), FIRST_LOCAL + sender * SHARE, stopped.clone()));
            let told = runtime.block_on(async { tokio::join!(join_all(remote), join_all(local)) });
            // A test that has failed already does not wait.
            let _gone = tell.send((sum(told.0), sum(told.1)));
        });
        Self { stop, told }
    }

    /// Stops the senders, each after its last acknowledgement: of the remote ones, and of the local ones.
    pub async fn stop(self) -> (Told, Told) {
        self.stop.send(true).unwrap();
        self.told.await.unwrap()
    }
}

fn sum(all: Vec<Told>) -> Told {
    let mut sum = Told::default();
    for told in all {
        sum.acknowledged.extend(told.acknowledged);
        sum.repeated += told.repeated;
        sum.accepted += told.accepted;
        sum.refused += told.refused;
    }
    sum
}

/// Sends until each span is acknowledged: at least once. Returns how many attempts failed.
pub async fn deliver(client: &mut TraceServiceClient<Channel>, numbers: Range<u64>) -> u64 {
    let mut failed = 0;
    loop {
        match client.export(request(numbers.clone())).await {
            Ok(_) => return failed,
            Err(_refused_or_broken) => failed += 1,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn send(door: SocketAddr, first: u64, stopped: watch::Receiver<bool>) -> Told {
    let (mut client, mut told) = (client(door), Told::default());
    let mut next = first;
    while !*stopped.borrow() {
        told.repeated += BATCH * deliver(&mut client, next..next + BATCH).await;
        told.accepted += 1;
        told.acknowledged.extend(next..next + BATCH);
        next += BATCH;
        tokio::time::sleep(PAUSE).await;
    }
    told
}

async fn work(in_process: InProcess, first: u64, stopped: watch::Receiver<bool>) -> Told {
    let (mut told, mut next) = (Told::default(), first);
    let open = |next| in_process.connection(ConnectionId::new(next));
    let mut connection = open(next);
    while !*stopped.borrow() {
        if connection.is_closed() {
            connection = open(next);
        }
        if span(&connection, next) {
            told.acknowledged.push(next);
            told.accepted += 1;
        } else {
            told.refused += 1;
        }
        next += 1;
        tokio::time::sleep(PAUSE / 3).await;
    }
    told
}

/// A span with this number; false where the connection is closed.
pub fn span(connection: &Connection, number: u64) -> bool {
    let start = UNIX_EPOCH + Duration::from_nanos(start_of(number));
    let name = name_of(number);
    let mut span = connection.span(&name).start_time(start).start();
    if !span.is_recording() {
        return false;
    }
    if number.is_multiple_of(ERROR_EVERY) {
        span.set_status(Status::Error("on purpose"));
    }
    span.end_at(start + Duration::from_millis(1));
    true
}
