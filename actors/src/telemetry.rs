//! The actor system for a program that has no actix System of its own (level 5 of the library).

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use thiserror::Error;
use tokio::sync::oneshot;

use crate::{
    accept::{
        AddressError, Connection, ConnectionId, FlushError, ListenAddr, ListenError, Listener, SpanSink,
    },
    bridge::{OtlpConfig, OtlpConfigError},
    export::{DestinationConfig, DestinationConfigError},
    log::{
        Durability,
        segments::{DirLock, LockError, OpenError, OpenLog, SegmentLogConfig, Unsent, unsent},
    },
    observe::Observed,
    supervise::{ShutdownReport, TreeError},
    tls::{ServerTlsError, ServerTlsFiles},
    tree::{InProcess, LogForm, Tree, TreeConfig},
};

/// How long a shutdown may take if nobody says otherwise.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);
/// What the other actors may need of it; the rest is shared by the exporters, who stop one after the other.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(5);

/// A telemetry system on a thread of its own: usable from any program, with or without a runtime.
///
/// ```no_run
/// use nyx_telemetry::{ConnectionId, Telemetry};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let telemetry =
///     Telemetry::builder().service_name("my-node").destination("http://localhost:4317").start()?;
/// let connection = telemetry.connection(ConnectionId::new(12345));
/// let mut span = connection.span("connection_start").start();
/// span.set_attribute("protocol.version", "1.0");
/// span.end();
/// telemetry.flush().await?;
/// telemetry.shutdown().await;
/// # Ok(())
/// # }
/// ```
pub struct Telemetry {
    in_process: InProcess,
    observed: Arc<Observed>,
    grpc: Option<ListenAddr>,
    http: Option<ListenAddr>,
    stop: Option<oneshot::Sender<Duration>>,
    stopped: Option<oneshot::Receiver<ShutdownReport>>,
}

/// A telemetry system in the making.
#[derive(Debug, Default)]
#[must_use = "a telemetry system begins with `start`"]
pub struct Builder {
    config: TreeConfig,
    grpc: Option<String>,
    http: Option<String>,
    grpc_tls: ServerTlsFiles,
    http_tls: ServerTlsFiles,
    log_dir: Option<PathBuf>,
    durability: Option<Durability>,
    more: More,
}

/// What is added to the tree before it starts.
#[derive(Default)]
struct More(Option<Add>);

type Add = Box<dyn FnOnce(&mut Tree) + Send>;

impl fmt::Debug for More {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("More").field(&self.0.is_some()).finish()
    }
}

/// A telemetry system did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A destination's settings are not valid.
    #[error(transparent)]
    Destination(#[from] DestinationConfigError),
    /// A durability beyond memory was asked for, and no folder was given.
    #[error("durability {:?} needs a folder for the log", durability.label())]
    NoLogDir {
        /// What was asked for.
        durability: Durability,
    },
    /// Another system has the folder of the log, in this process or another: it may be free later.
    #[error("the log's folder {} is locked{}", dir.display(), holder.map(|id| format!(" by process {id}")).unwrap_or_default())]
    Locked {
        /// The folder.
        dir: PathBuf,
        /// The process that has it.
        holder: Option<u32>,
    },
    /// The folder of the log cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The folder of the log cannot be used.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The log is to be in memory, and its folder holds what would be forgotten.
    #[error("the log's folder {} holds {spans} spans that were not delivered: a log in memory would forget them", dir.display())]
    Unsent {
        /// The folder.
        dir: PathBuf,
        /// The number of spans.
        spans: u64,
    },
    /// The door's address is none.
    #[error("the door's address {0}")]
    Address(#[from] AddressError),
    /// The door's address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The door's TLS cannot be set up.
    #[error("the {door} door's TLS: {error}")]
    Tls {
        /// `grpc` or `http`.
        door: &'static str,
        /// What is wrong.
        error: ServerTlsError,
    },
    /// The system has no thread left.
    #[error("no thread for the actor system: {0}")]
    Thread(#[from] io::Error),
    /// A child failed before it was ready.
    #[error("the actor system did not start: {0}")]
    Tree(#[from] TreeError),
    /// The thread ended before the tree was ready.
    #[error("the actor system ended while it was starting")]
    Ended,
}

impl Builder {
    /// `service.name` of the spans; `unknown_service` unless told.
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.config.service_name = name.into();
        self
    }

    /// Another attribute of the spans' resource.
    pub fn resource_attribute(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.resource.push((key.into(), value.into()));
        self
    }

    /// A destination with default settings: `http://host:port` or `unix:/path`. The first is called
    /// `default`, the second `destination-2`, and so on.
    pub fn destination(self, endpoint: &str) -> Self {
        let name = self.next_name();
        self.destination_config(DestinationConfig::new(&name, endpoint))
    }

    /// A destination with the settings of the design that nyx began with, named as by [`Builder::destination`].
    ///
    /// # Errors
    /// [`OtlpConfigError`] with every setting that is wrong.
    pub fn otlp(self, otlp: &OtlpConfig) -> Result<Self, OtlpConfigError> {
        let destination = otlp.destination(&self.next_name())?;
        Ok(self.destination_config(destination))
    }

    fn next_name(&self) -> String {
        match self.config.destinations.len() {
            0 => "default".to_owned(),
            before => format!("destination-{}", before + 1),
        }
    }

    /// A destination with these settings.
    pub fn destination_config(mut self, destination: DestinationConfig) -> Self {
        self.config.destinations.push(destination);
        self
    }

    /// Keeps the span log in this folder, where it outlives the process: what was not delivered is when the folder is
    /// used again, and the span metrics go on. It is made where there is none, and is for one system at a time.
    /// Without it the log is in memory.
    pub fn log_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.log_dir = Some(dir.into());
        self
    }

    /// What a flushed span survives: [`Durability::Process`] where there is a folder, [`Durability::Memory`] where
    /// there is none. A log in memory leaves its folder alone, and does not start where that holds spans still.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Keeps the last spans readable in memory, so many bytes of them; 16 MiB unless told, and none with 0. See
    /// [`Observed::retention`].
    pub fn retention(mut self, max_bytes: usize) -> Self {
        self.config.retention.max_bytes = max_bytes;
        self
    }

    /// Opens an OTLP/gRPC door: `ip:port` or `unix:/path`.
    pub fn grpc_door(mut self, address: impl Into<String>) -> Self {
        self.grpc = Some(address.into());
        self
    }

    /// Opens an OTLP/HTTP door: `ip:port` or `unix:/path`.
    pub fn http_door(mut self, address: impl Into<String>) -> Self {
        self.http = Some(address.into());
        self
    }

    /// Has the OTLP/gRPC door speak TLS, with these files as they are at the start, and no plain text.
    pub fn grpc_tls(mut self, files: ServerTlsFiles) -> Self {
        self.grpc_tls = files;
        self
    }

    /// Has the OTLP/HTTP door speak TLS, likewise.
    pub fn http_tls(mut self, files: ServerTlsFiles) -> Self {
        self.http_tls = files;
        self
    }

    /// Every other setting.
    pub fn configure(mut self, change: impl FnOnce(&mut TreeConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Adds to the tree, on its thread, before it starts.
    pub(crate) fn more(mut self, add: impl FnOnce(&mut Tree) + Send + 'static) -> Self {
        self.more = More(Some(Box::new(add)));
        self
    }

    /// Starts the system on a thread of its own, and returns when all its actors are ready, which takes
    /// milliseconds. A log on disk is opened on the caller's thread, and its last segment read, 64 MiB as a rule; the
    /// folder's lock is not waited for.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(mut self) -> Result<Telemetry, StartError> {
        for destination in &self.config.destinations {
            destination.validate()?;
        }
        if let Some(log) = self.open_log()? {
            self.config.log = LogForm::Segments(log);
        }
        if let Some(address) = self.grpc {
            let address: ListenAddr = address.parse()?;
            let tls = self.grpc_tls.read_for(&address);
            self.config.grpc_tls = tls.map_err(|error| StartError::Tls { door: "grpc", error })?;
            self.config.grpc = Some(Listener::bind(&address)?);
        }
        if let Some(address) = self.http {
            let address: ListenAddr = address.parse()?;
            let tls = self.http_tls.read_for(&address);
            self.config.http_tls = tls.map_err(|error| StartError::Tls { door: "http", error })?;
            self.config.http = Some(Listener::bind(&address)?);
        }
        let grpc = self.config.grpc.as_ref().map(|listener| listener.addr().clone());
        let http = self.config.http.as_ref().map(|listener| listener.addr().clone());
        let shares = u32::try_from(self.config.destinations.len()).unwrap_or(u32::MAX).max(1);
        for destination in &mut self.config.destinations {
            destination.drain_timeout = (SHUTDOWN_TIMEOUT - SHUTDOWN_MARGIN) / shares;
        }
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let (stop, stopping) = oneshot::channel();
        let (report, stopped) = oneshot::channel();
        let (config, more) = (self.config, self.more);
        thread::Builder::new().name("nyx-telemetry".to_owned()).spawn(move || {
            actix_rt::System::new().block_on(async move {
                let mut tree = Tree::define(config);
                if let Some(add) = more.0 {
                    add(&mut tree);
                }
                let tree = match tree.start().await {
                    Ok(tree) => tree,
                    Err(error) => {
                        let _gone = ready.send(Err(error));
                        return;
                    }
                };
                let _gone = ready.send(Ok((tree.in_process().clone(), Arc::clone(tree.observed()))));
                let deadline = tokio::select! {
                    // Dropped without a word, the system stops in order all the same.
                    deadline = stopping => deadline.unwrap_or(SHUTDOWN_TIMEOUT),
                    failure = tree.escalated() => {
                        tracing::error!(%failure, "the supervisor gave up: telemetry stops");
                        SHUTDOWN_TIMEOUT
                    }
                };
                let ended = tree.shutdown(deadline).await;
                // Whoever hears of the end may use the log's folder.
                drop(tree);
                let _nobody_waits = report.send(ended);
            });
        })?;
        let (in_process, observed) = started.recv().map_err(|_| StartError::Ended)??;
        Ok(Telemetry { in_process, observed, grpc, http, stop: Some(stop), stopped: Some(stopped) })
    }

    fn open_log(&self) -> Result<Option<OpenLog>, StartError> {
        let usual = if self.log_dir.is_some() { Durability::Process } else { Durability::Memory };
        let durability = self.durability.unwrap_or(usual);
        match (&self.log_dir, durability) {
            (None, Durability::Memory) => Ok(None),
            (None, Durability::Process | Durability::Power) => Err(StartError::NoLogDir { durability }),
            (Some(dir), Durability::Memory) => match unsent(dir)? {
                Some(Unsent { spans: spans @ 1.., .. }) => {
                    Err(StartError::Unsent { dir: dir.clone(), spans })
                }
                Some(_) | None => Ok(None),
            },
            (Some(dir), Durability::Process | Durability::Power) => {
                let lock = DirLock::try_acquire(dir)?.ok_or_else(|| locked(dir))?;
                let destinations = self.config.destinations.iter().map(DestinationConfig::in_log).collect();
                let measured = self.config.measure;
                let config =
                    SegmentLogConfig { durability, destinations, measured, ..SegmentLogConfig::new(dir) };
                Ok(Some(OpenLog::open(&config, lock)?))
            }
        }
    }
}

fn locked(dir: &Path) -> StartError {
    StartError::Locked { dir: dir.to_owned(), holder: DirLock::holder(dir) }
}

impl Telemetry {
    /// A system to be configured and started.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A new stream connection of this process. After the shutdown, or beyond the limit of connections, it is
    /// closed from the start, and what it is told is counted as refused.
    pub fn connection(&self, id: ConnectionId) -> Connection {
        self.in_process.connection(id)
    }

    /// Where spans go that are encoded already.
    pub(crate) fn sink(&self) -> SpanSink {
        self.in_process.sink()
    }

    /// Waits until every span that ended before this call is in the log.
    ///
    /// # Errors
    /// [`FlushError`] where the system was shut down first.
    pub async fn flush(&self) -> Result<(), FlushError> {
        self.in_process.flush().await
    }

    /// Where the OTLP/gRPC door is, with the port that the system chose where 0 was asked for.
    pub fn grpc_door(&self) -> Option<&ListenAddr> {
        self.grpc.as_ref()
    }

    /// Where the OTLP/HTTP door is, likewise.
    pub fn http_door(&self) -> Option<&ListenAddr> {
        self.http.as_ref()
    }

    /// The ledgers, states and metrics.
    pub fn observed(&self) -> &Arc<Observed> {
        &self.observed
    }

    /// Stops in order: connections are closed and their open spans ended, everything is committed, and the
    /// exporters deliver what they can in time.
    pub async fn shutdown(mut self) -> ShutdownReport {
        if let Some(stop) = self.stop.take() {
            let _ended_already = stop.send(SHUTDOWN_TIMEOUT);
        }
        match self.stopped.take() {
            Some(stopped) => stopped.await.unwrap_or_default(),
            None => ShutdownReport::default(),
        }
    }
}
