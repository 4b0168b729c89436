//! Senders that repeat each request until it is acknowledged, and remember what they were told.

use std::{
    collections::BTreeMap,
    error::Error as _,
    io,
    ops::Range,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use futures_util::future::join_all;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use super::{
    daemon::LIMIT,
    spans::{mix, request},
};

/// A request that has no answer by then gets none; no daemon here takes so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between a failure and the next attempt.
const AGAIN: Duration = Duration::from_millis(4);

/// Who sends what.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// Where the door is.
    pub(crate) door: String,
    pub(crate) senders: u64,
    /// Spans in a request, at random.
    pub(crate) batch: Range<u64>,
    /// Bytes of each span's payload, at random.
    pub(crate) payload_bytes: Range<usize>,
    /// Between two requests of a sender.
    pub(crate) pause: Duration,
    /// Spans of each sender, after which it ends by itself.
    pub(crate) spans: u64,
    pub(crate) seed: u64,
}

/// What the senders were told so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct Told {
    /// Spans acknowledged, of each sender: the first so many of its numbers.
    pub(crate) acknowledged: BTreeMap<u64, u64>,
    /// Spans of attempts that ended without an answer: the log may have taken them.
    pub(crate) cut_off: u64,
    /// Attempts that the daemon refused, to be repeated.
    pub(crate) refused: u64,
    /// The newest refusal.
    pub(crate) refusal: String,
    /// Attempts that found nobody.
    pub(crate) unsent: u64,
    /// Answers that no sender should ever get.
    pub(crate) wrong: Vec<String>,
}

impl Told {
    pub(crate) fn total(&self) -> u64 {
        self.acknowledged.values().sum()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    Told,
    /// The next acknowledgement.
    Acknowledged,
    /// Now: the test has failed.
    Abandoned,
}

/// Senders on a thread of their own.
pub(crate) struct Senders {
    told: Arc<Mutex<Told>>,
    until: watch::Sender<Until>,
    /// Closed when the last sender has ended.
    ended: mpsc::Receiver<()>,
}

impl Senders {
    pub(crate) fn start(load: &Load) -> Self {
        let told = Arc::<Mutex<Told>>::default();
        let (until, follow) = watch::channel(Until::Told);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (load, tell) = (load.clone(), Arc::clone(&told));
        let (end, ended) = mpsc::channel();
        thread::spawn(move || {
            let _end: mpsc::Sender<()> = end;
            runtime.block_on(join_all((0..load.senders).map(|sender| send(sender, &load, &tell, &follow))));
        });
        Self { told, until, ended }
    }

    pub(crate) fn told(&self) -> Told {
        self.told.lock().unwrap().clone()
    }

    /// Spans acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.told.lock().unwrap().total()
    }

    pub(crate) fn refused(&self) -> u64 {
        self.told.lock().unwrap().refused
    }

    /// Ends each after its next acknowledgement.
    pub(crate) fn finish(&self) -> Told {
        self.until.send_replace(Until::Acknowledged);
        let ended = self.ended.recv_timeout(LIMIT);
        assert_eq!(ended, Err(mpsc::RecvTimeoutError::Disconnected), "senders wait for an acknowledgement");
        self.told()
    }
}

impl Drop for Senders {
    fn drop(&mut self) {
        self.until.send_replace(Until::Abandoned);
    }
}

async fn send(sender: u64, load: &Load, told: &Mutex<Told>, until: &watch::Receiver<Until>) {
    let channel = Endpoint::from_shared(load.door.clone()).unwrap().connect_lazy();
    let mut client = TraceServiceClient::new(channel);
    let (mut next, mut random) = (0, mix(load.seed ^ mix(sender)));
    while *until.borrow() == Until::Told && next < load.spans {
        random = mix(random);
        let spans = load.batch.start + random % (load.batch.end - load.batch.start);
        let numbers = next..(next + spans).min(load.spans);
        while !attempt(&mut client, sender, numbers.clone(), load, told).await {
            if *until.borrow() == Until::Abandoned {
                return;
            }
            sleep(AGAIN).await;
        }
        next = numbers.end;
        told.lock().unwrap().acknowledged.insert(sender, next);
        sleep(load.pause).await;
    }
}

/// True once the request is acknowledged.
async fn attempt(
    client: &mut TraceServiceClient<Channel>,
    sender: u64,
    sequences: Range<u64>,
    load: &Load,
    told: &Mutex<Told>,
) -> bool {
    let spans = sequences.end - sequences.start;
    let answer = timeout(PATIENCE, client.export(request(sender, sequences, &load.payload_bytes))).await;
    let answer = match answer {
        Ok(Ok(_)) => return true,
        Ok(Err(status)) => Answer::of(&status),
        Err(_late) => Answer::Wrong(format!("no answer within {PATIENCE:?}")),
    };
    let mut told = told.lock().unwrap();
    match answer {
        Answer::Unsent => told.unsent += 1,
        Answer::CutOff => told.cut_off += spans,
        Answer::Refused(words) => {
            told.refused += 1;
            told.refusal = words;
        }
        Answer::Wrong(words) => {
            told.cut_off += spans;
            told.wrong.push(words);
        }
    }
    false
}

/// What an attempt without success means.
enum Answer {
    /// Nobody listened.
    Unsent,
    /// The connection broke before the answer: the log may have taken it.
    CutOff,
    /// The daemon said that it did not take it, and to come back.
    Refused(String),
    /// Nothing that a sender may be told.
    Wrong(String),
}

impl Answer {
    fn of(status: &Status) -> Self {
        let words = || format!("{:?}: {}", status.code(), status.message());
        let mut source = status.source();
        if source.is_some() {
            // Made by the client: no answer came.
            while let Some(cause) = source {
                let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
                if let Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) = kind {
                    return Self::Unsent;
                }
                source = cause.source();
            }
            return Self::CutOff;
        }
        match status.code() {
            Code::Unavailable => Self::Refused(words()),
            Code::ResourceExhausted if has_retry_info(status.details()) => Self::Refused(words()),
            // What the client makes of a stream that ends too early.
            Code::Internal | Code::Unknown => Self::CutOff,
            _ => Self::Wrong(words()),
        }
    }
}

/// Whether the first detail of a `google.rpc.Status` is a RetryInfo.
fn has_retry_info(details: &[u8]) -> bool {
    #[derive(Message)]
    struct Any {
        #[prost(string, tag = "1")]
        type_url: String,
    }
    #[derive(Message)]
    struct Details {
        #[prost(message, repeated, tag = "3")]
        details: Vec<Any>,
    }
    let details = Details::decode(details).unwrap_or_default().details;
    details.first().is_some_and(|detail| detail.type_url == "type.googleapis.com/google.rpc.RetryInfo")
}
