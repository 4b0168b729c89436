//! A destination that outlives the daemon and remembers every span that it acknowledged. It is tonic's server, which
//! shares nothing with the daemon but the messages' types.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use futures_util::stream;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use tokio::{net::UnixListener, sync::watch};
use tonic::{Request, Response, Status, transport::Server};

use super::spans;

const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// How a sink behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Acknowledges everything.
    Up,
    /// Refuses everything, and is to be asked again.
    Refusing,
    /// Answers nothing until it behaves otherwise, and then refuses what waited.
    Silent,
    /// Nobody listens. What was acknowledged before is answered first.
    Down,
    /// Ends.
    Gone,
}

/// What a sink has acknowledged.
#[derive(Debug, Default, Clone)]
pub(crate) struct Arrived {
    /// How often each number.
    pub(crate) times: HashMap<u64, u32>,
    /// Spans in all.
    pub(crate) arrivals: u64,
    /// Spans that are not as they were sent.
    pub(crate) altered: Vec<String>,
    /// How far, in a sender's numbers, a span came behind one that was sent after it: the most.
    pub(crate) late_by: u64,
    newest: HashMap<u64, u64>,
    /// A lie, for the tests of these tests: the span of this number is acknowledged and forgotten.
    forget: Option<u64>,
}

impl Arrived {
    fn take(&mut self, request: ExportTraceServiceRequest) {
        let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        for span in scopes.flat_map(|scope| scope.spans) {
            match spans::recognise(&span) {
                Ok(number) if self.forget == Some(number) => {}
                Ok(number) => self.count(number),
                Err(why) => self.altered.push(why),
            }
        }
    }

    pub(crate) fn count(&mut self, number: u64) {
        self.arrivals += 1;
        *self.times.entry(number).or_default() += 1;
        let (sender, sequence) = spans::sender_of(number);
        let newest = self.newest.entry(sender).or_default();
        self.late_by = self.late_by.max(newest.saturating_sub(sequence));
        *newest = sequence.max(*newest);
    }
}

/// The sink; it ends when this is dropped.
pub(crate) struct Sink {
    path: PathBuf,
    mode: watch::Sender<Mode>,
    arrived: Arc<Mutex<Arrived>>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// A sink on a Unix socket.
    pub(crate) fn start(path: PathBuf) -> Self {
        let (mode, follow) = watch::channel(Mode::Up);
        let arrived = Arc::<Mutex<Arrived>>::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (at, service) = (path.clone(), Service { mode: follow, arrived: Arc::clone(&arrived) });
        let thread = thread::spawn(move || runtime.block_on(serve(&at, service)));
        Self { path, mode, arrived, thread: Some(thread) }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("unix:{}", self.path.display())
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Acknowledges this span and keeps nothing of it.
    pub(crate) fn forget(&self, number: u64) {
        self.arrived.lock().unwrap().forget = Some(number);
    }

    pub(crate) fn arrived(&self) -> Arrived {
        self.arrived.lock().unwrap().clone()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.set(Mode::Gone);
        // A panic of the thread shows as spans that never arrived.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

async fn serve(path: &Path, service: Service) {
    let mut mode = service.mode.clone();
    loop {
        let now = *mode.wait_for(|mode| *mode != Mode::Down).await.unwrap();
        let _absent = fs::remove_file(path);
        if now == Mode::Gone {
            return;
        }
        let listener = UnixListener::bind(path).unwrap();
        let connections = stream::unfold(listener, |listener| async {
            let stream = listener.accept().await.map(|(stream, _)| stream);
            Some((stream, listener))
        });
        let mut until = service.mode.clone();
        let down = async move {
            let _closed = until.wait_for(|mode| matches!(mode, Mode::Down | Mode::Gone)).await;
        };
        let service = TraceServiceServer::new(service.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        Server::builder().add_service(service).serve_with_incoming_shutdown(connections, down).await.unwrap();
        let _absent = fs::remove_file(path);
    }
}

#[derive(Clone)]
struct Service {
    mode: watch::Receiver<Mode>,
    arrived: Arc<Mutex<Arrived>>,
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let now = *self.mode.borrow();
        match now {
            Mode::Up => {
                self.arrived.lock().unwrap().take(request.into_inner());
                Ok(Response::new(ExportTraceServiceResponse::default()))
            }
            Mode::Silent => {
                let mut mode = self.mode.clone();
                let _closed = mode.wait_for(|mode| *mode != Mode::Silent).await;
                Err(Status::unavailable("silent until now"))
            }
            Mode::Refusing | Mode::Down | Mode::Gone => Err(Status::unavailable("refused on purpose")),
        }
    }
}
