//! The one ordered list of children (level 4): what is started in which order, and stopped in reverse.
//!
//! ```text
//! root (one_for_one)
//! ├── log                     the thread that writes the segment files
//! ├── log.reader              the thread that reads them
//! ├── metrics                 MetricsActor
//! ├── export.<destination>    OtlpExportActor, one a destination
//! ├── retention               the thread that looks for errors and slow spans
//! ├── collector               SpanCollector
//! ├── outbox.<n>              OutboxActor, one an io thread
//! ├── connections             StreamConnection and InProcessConnection, one a connection (dynamic)
//! ├── acceptor.grpc           Acceptor
//! ├── acceptor.http           Acceptor
//! └── whatever the program adds, such as its admin pages, or a bridge's actor
//! ```

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::available_parallelism,
    time::Duration,
};

use actix::{Actor, Context};
use actix_rt::{Arbiter, ArbiterHandle};
use parking_lot::Mutex;

use crate::{
    accept::{
        Acceptor, Admission, Connection, ConnectionId, ConnectionLimits, Connections, Door, DoorLedger,
        FlushError, GrpcDoor, Http1Settings, Http2Settings, HttpDoor, Intake, Listener, Outbox, OutboxActor,
        OutboxConfig, RequestLimits, Scratches, SpanSink, spread,
    },
    bearer::Gate,
    collect::SpanCollector,
    export::{DestinationConfig, DestinationConfigError, DestinationStatus, OtlpExportActor, Reconfigure},
    log::{
        DestinationId, MemoryLog, MemoryLogConfig, SpanLedger, SpanLog,
        segments::{OpenLog, SegmentLog},
    },
    measure::{CHECKPOINT_INTERVAL_DEFAULT, MetricsActor, RedScratch, RedSettings, RedShared, STOP_MAX},
    observe::{Observed, ObservedDestination, ObservedDoor},
    retain::{Retainer, Retention, RetentionConfig},
    span::Sampler,
    supervise::{
        ActorRef, Backoff, ChildSpec, DynamicRef, DynamicSpec, Failure, Intensity, RunningTree,
        ShutdownReport, StartError, Strategy, Supervisor, TreeError, TrySendError, Watchdog,
    },
};

/// The most io threads that are started by themselves: more only help where connections are many and busy.
const IO_THREADS_MAX: usize = 4;
/// Messages that wait for the collector at most; a connection waits for room, or refuses.
const COLLECTOR_INBOX: usize = 1_024;
/// Messages that wait for the log's threads at most. There is one group at a time, one checkpoint, a read for each
/// consumer, and one message about positions.
const LOG_INBOX: usize = 256;
/// What the log needs to sync its files when it is closed.
const LOG_STOP: Duration = Duration::from_secs(10);
/// Messages that wait for the metrics at most; what finds no room is counted from the log.
const METRICS_INBOX: usize = 64;
/// The set of all connections.
const CONNECTIONS: &str = "connections";

/// Where the span log is.
#[derive(Debug, Clone)]
pub enum LogForm {
    /// In memory, so many bytes at most.
    Memory {
        /// `log.memory_max_bytes`.
        max_bytes: usize,
    },
    /// In a folder, which was opened for the destinations of [`TreeConfig::destinations`], in their order.
    Segments(OpenLog),
}

/// What a tree is made of.
#[derive(Debug, Clone)]
pub struct TreeConfig {
    /// `service.name` of the in-process spans.
    pub service_name: String,
    /// Other attributes of their resource.
    pub resource: Vec<(String, String)>,
    /// Where the spans go.
    pub destinations: Vec<DestinationConfig>,
    /// Whether RED metrics are kept.
    pub measure: bool,
    /// How they are kept.
    pub red: RedSettings,
    /// How often a checkpoint of them is stored, where the log outlives the process: 10 ms at least.
    pub checkpoint_interval: Duration,
    /// Where the span log is.
    pub log: LogForm,
    /// Threads for connections; 0: one less than there are cores, at least one and at most four.
    pub io_threads: usize,
    /// Bytes of finished in-process spans that wait for the log at most.
    pub in_process_max_bytes: usize,
    /// Bounds of an in-process connection.
    pub connection_limits: ConnectionLimits,
    /// Open stream connections at most, remote and in-process together.
    pub max_connections: usize,
    /// Bytes of requests in flight at most.
    pub max_in_flight_bytes: usize,
    /// Asks whoever comes to a door for a token; what it is told later holds from the next request on.
    pub gate: Arc<Gate>,
    /// Limits on one request.
    pub request_limits: RequestLimits,
    /// How long a batch may wait for a place in the collector's inbox.
    pub commit_timeout: Duration,
    /// The retention buffer.
    pub retention: RetentionConfig,
    /// The OTLP/gRPC door.
    pub grpc: Option<Listener>,
    /// The OTLP/HTTP door.
    pub http: Option<Listener>,
    /// How often children may fail before the root gives up.
    pub intensity: Intensity,
    /// How long children wait before they are started again.
    pub backoff: Backoff,
}

impl Default for TreeConfig {
    fn default() -> Self {
        Self {
            service_name: "unknown_service".to_owned(),
            resource: Vec::new(),
            destinations: Vec::new(),
            measure: true,
            red: RedSettings::default(),
            checkpoint_interval: CHECKPOINT_INTERVAL_DEFAULT,
            log: LogForm::Memory { max_bytes: 256 << 20 },
            io_threads: 0,
            in_process_max_bytes: 8 << 20,
            connection_limits: ConnectionLimits::default(),
            max_connections: 10_000,
            max_in_flight_bytes: 256 << 20,
            gate: Arc::default(),
            request_limits: RequestLimits::default(),
            commit_timeout: Duration::from_secs(5),
            retention: RetentionConfig::default(),
            grpc: None,
            http: None,
            intensity: Intensity { max_restarts: 10, window: Duration::from_secs(60) },
            backoff: backoff(),
        }
    }
}

/// A tree that is defined and not started.
pub struct Tree {
    supervisor: Supervisor,
    observed: Arc<Observed>,
    in_process: InProcess,
    io: Vec<Arbiter>,
    exporters: Vec<Exporter>,
}

/// An exporter, with the settings that its next incarnation has.
struct Exporter {
    actor: ActorRef<OtlpExportActor>,
    settings: Arc<Mutex<DestinationConfig>>,
}

impl Tree {
    /// Defines the children. To be called on the thread of an actix System.
    pub fn define(config: TreeConfig) -> Self {
        let io_threads = match config.io_threads {
            // One core is for the actors that all connections share.
            0 => available_parallelism().map_or(1, |cores| (cores.get() - 1).clamp(1, IO_THREADS_MAX)),
            threads => threads,
        };
        let first = Arbiter::new();
        let mut io: Vec<Arbiter> = (1..io_threads).map(|_| Arbiter::new()).collect();
        let spans = Arc::new(SpanLedger::default());
        let mut supervisor = Supervisor::new("root", Strategy::OneForOne, config.intensity);
        let child = |name: String| ChildSpec::new(name).backoff(config.backoff);
        let log: Arc<dyn SpanLog> = match &config.log {
            &LogForm::Memory { max_bytes } => Arc::new(MemoryLog::new(MemoryLogConfig {
                max_bytes,
                destinations: config.destinations.len(),
                measured: config.measure,
            })),
            LogForm::Segments(open) => Arc::new(segment_log(&mut supervisor, open, config.backoff)),
        };

        // An exemplar is to lead somewhere. Who samples least keeps all that the others keep.
        let rates = config.destinations.iter().map(|destination| destination.sampling_rate);
        let exemplars = rates.reduce(f64::max).map(Sampler::new);
        let red = Arc::new(match config.measure {
            true => RedShared::restore(RedSettings { exemplars, ..config.red }, &*log),
            false => RedShared::default(),
        });
        let settings = Arc::clone(red.settings());
        let metrics = config.measure.then(|| {
            let (log, red, interval) = (Arc::clone(&log), Arc::clone(&red), config.checkpoint_interval);
            let spec = child("metrics".to_owned()).inbox_capacity(METRICS_INBOX).drains_more();
            // What it does not count in time the next process does.
            let spec = spec.stop_deadline(STOP_MAX + Duration::from_secs(1));
            supervisor
                .child(spec, move || Ok(MetricsActor::new(Arc::clone(&log), Arc::clone(&red), interval)))
        });

        let mut exporters = Vec::new();
        let mut changeable = Vec::new();
        let mut destinations = Vec::new();
        for (index, destination) in config.destinations.into_iter().enumerate() {
            let id = DestinationId(index);
            let name = destination.name.clone();
            let status = Arc::new(DestinationStatus::new(&name));
            destinations.push(ObservedDestination { id, status: Arc::clone(&status) });
            let log = Arc::clone(&log);
            // What it does not deliver in time it leaves; given up on is only one that does not answer at all.
            let stop = destination.drain_timeout + Duration::from_secs(1);
            let settings = Arc::new(Mutex::new(destination));
            let current = Arc::clone(&settings);
            let exporter = supervisor.child(
                child(format!("export.{name}")).stop_deadline(stop).drains_more(),
                move || {
                    let settings = current.lock().clone();
                    OtlpExportActor::new(&settings, Arc::clone(&log), id, Arc::clone(&status))
                        .map_err(StartError::new)
                },
            );
            changeable.push(Exporter { actor: exporter.clone(), settings });
            exporters.push(exporter);
        }

        let retention = (config.retention.max_bytes > 0).then(|| Arc::new(Retention::new(config.retention)));
        let retainer = retention.as_ref().map(|retention| {
            retention_thread(&mut supervisor, child("retention".to_owned()), Arc::clone(retention))
        });

        let collector = {
            let log = Arc::clone(&log);
            let exporters: Vec<_> = exporters.iter().map(ActorRef::recipient).collect();
            let metrics = metrics.as_ref().map(ActorRef::recipient);
            let spec = child("collector".to_owned()).inbox_capacity(COLLECTOR_INBOX);
            supervisor.child(spec, move || {
                let collector = SpanCollector::new(Arc::clone(&log), exporters.clone(), metrics.clone());
                Ok(collector.retaining(retainer.clone()))
            })
        };

        let outbox_config = OutboxConfig {
            max_bytes: config.in_process_max_bytes / (io.len() + 1),
            service_name: config.service_name,
            resource: config.resource,
        };
        let mut outbox = |index: usize, thread: ArbiterHandle| {
            let outbox = Arc::new(Outbox::new(&outbox_config));
            let shard = Shard { thread: thread.clone(), outbox: Arc::clone(&outbox) };
            let (recipient, spans, settings) =
                (collector.recipient(), Arc::clone(&spans), Arc::clone(&settings));
            supervisor.child(child(format!("outbox.{index}")).arbiter(thread).drains_more(), move || {
                let scratch = RedScratch::new(Arc::clone(&settings));
                Ok(OutboxActor::new(Arc::clone(&outbox), recipient.clone(), Arc::clone(&spans), scratch))
            });
            shard
        };
        let shards = Shards {
            first: outbox(0, first.handle()),
            others: io.iter().enumerate().map(|(index, thread)| outbox(index + 1, thread.handle())).collect(),
        };

        io.push(first);

        let connections = supervisor.dynamic(DynamicSpec::new(CONNECTIONS, config.max_connections));
        let in_process = InProcess {
            shards: Arc::new(shards),
            next: Arc::default(),
            limits: config.connection_limits,
            children: connections.clone(),
            connections: Arc::default(),
        };
        let mut doors = vec![ObservedDoor {
            name: "in_process",
            ledger: None,
            connections: Arc::clone(&in_process.connections),
        }];

        let intake = Intake {
            gate: config.gate,
            limits: config.request_limits,
            commit_timeout: config.commit_timeout,
            admission: Admission::new(config.max_in_flight_bytes),
            ledger: Arc::default(),
            spans: Arc::clone(&spans),
            collector: collector.recipient(),
            scratches: Arc::new(Scratches::new(settings)),
            buffers: Arc::default(),
        };
        let mut door = |name: &'static str, listener: Listener, door: fn(Intake) -> Arc<dyn Door>| {
            let ledger = Arc::new(DoorLedger::default());
            let counts = Arc::new(Connections::default());
            doors.push(ObservedDoor {
                name,
                ledger: Some(Arc::clone(&ledger)),
                connections: Arc::clone(&counts),
            });
            let door = door(Intake { ledger, ..intake.clone() });
            let arbiters = io.iter().map(Arbiter::handle).collect();
            let hand_over = spread(door, connections.clone(), arbiters, Arc::clone(&counts));
            supervisor.child(child(format!("acceptor.{name}")), move || {
                Acceptor::new(&listener, Arc::clone(&hand_over), Arc::clone(&counts)).map_err(StartError::new)
            });
        };
        if let Some(listener) = config.grpc {
            door("grpc", listener, |intake| Arc::new(GrpcDoor { http2: Http2Settings::default(), intake }));
        }
        if let Some(listener) = config.http {
            door("http", listener, |intake| {
                let (http1, http2) = (Http1Settings::default(), Http2Settings::default());
                Arc::new(HttpDoor { http1, http2, intake })
            });
        }
        let outboxes = in_process.shards.iter().map(|shard| Arc::clone(&shard.outbox)).collect();
        let red = config.measure.then_some(red);
        let observed = Arc::new(Observed::new(log, spans, doors, outboxes, destinations, red, retention));
        Self { supervisor, observed, in_process, io, exporters: changeable }
    }

    /// What can be seen of the tree; valid before it starts and after it stopped.
    pub fn observed(&self) -> &Arc<Observed> {
        &self.observed
    }

    /// Adds a child behind all others: started last, stopped first.
    pub fn child<A, F>(&mut self, spec: ChildSpec, factory: F) -> ActorRef<A>
    where
        A: Actor<Context = Context<A>>,
        F: Fn() -> Result<A, StartError> + Send + Sync + 'static,
    {
        self.supervisor.child(spec, factory)
    }

    /// Starts all children, each when the one before it is ready.
    ///
    /// # Errors
    /// [`TreeError`]; what was started by then is stopped again.
    pub async fn start(self) -> Result<Running, TreeError> {
        let tree = match self.supervisor.start().await {
            Ok(tree) => tree,
            Err(error) => {
                // Dropped, an arbiter goes on.
                for arbiter in &self.io {
                    arbiter.stop();
                }
                return Err(error);
            }
        };
        self.observed.started(tree.monitor());
        let Self { observed, in_process, io, exporters, .. } = self;
        Ok(Running { tree, observed, in_process, io, exporters })
    }
}

/// The log's threads: one that writes, and one that reads what is no longer in memory.
fn segment_log(supervisor: &mut Supervisor, open: &OpenLog, backoff: Backoff) -> SegmentLog {
    let spec = |name: &str| ChildSpec::new(name).backoff(backoff).inbox_capacity(LOG_INBOX);
    let writing = open.clone();
    // Stopped last, it finishes what waits and closes the log, even if it was down.
    let writer = spec("log").stop_deadline(LOG_STOP).drains_more();
    let write = supervisor.thread(writer, move |context| {
        let mut writer = writing.writer();
        // The one before may have ended before positions that somebody waits for were written.
        writer.handle([]);
        let mut batch = Vec::with_capacity(LOG_INBOX);
        while context.recv(&mut batch, LOG_INBOX) {
            writer.handle(batch.drain(..));
        }
        if !context.is_fenced() {
            writer.close();
        }
        Ok(())
    });
    let reader = open.reader();
    let report = write.clone();
    let read = supervisor.thread(spec("log.reader"), move |context| {
        let mut batch = Vec::with_capacity(1);
        while context.recv(&mut batch, 1) {
            for request in batch.drain(..) {
                reader.handle(request, &mut |work| {
                    // Told to nobody, it is found again after the next start.
                    let _full = report.try_send(work);
                });
            }
        }
        Ok(())
    });
    open.log(
        move |work| write.try_send(work).map_err(TrySendError::into_message),
        move |request| read.try_send(request).map_err(TrySendError::into_message),
    )
}

/// The retention's thread: it is woken when there is enough to look through.
fn retention_thread(supervisor: &mut Supervisor, spec: ChildSpec, retention: Arc<Retention>) -> Retainer {
    let sifted = Arc::clone(&retention);
    let thread = supervisor.thread(spec.inbox_capacity(1), move |context| {
        let mut wakes: Vec<()> = Vec::with_capacity(1);
        while context.recv(&mut wakes, 1) {
            wakes.clear();
            sifted.sift();
        }
        Ok(())
    });
    let wake = move || {
        // Full means that a wake is already waiting there.
        let _waiting = thread.try_send(());
    };
    Retainer::new(retention, Arc::new(wake))
}

/// Children come back quickly at first: senders wait in the meantime.
fn backoff() -> Backoff {
    let (initial, cap, stable) = (Duration::from_millis(20), Duration::from_secs(3), Duration::from_secs(30));
    Backoff::new(initial, 2.0, cap, 0.2, stable).unwrap_or_default()
}

/// An io thread, and the outbox of its in-process connections.
struct Shard {
    thread: ArbiterHandle,
    outbox: Arc<Outbox>,
}

/// The shards, at least one.
struct Shards {
    first: Shard,
    others: Vec<Shard>,
}

impl Shards {
    fn iter(&self) -> impl Iterator<Item = &Shard> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn pick(&self, turn: usize) -> &Shard {
        self.others.get(turn % (self.others.len() + 1)).unwrap_or(&self.first)
    }
}

/// Where in-process connections are made. Clones make connections of the same tree, from any thread.
#[derive(Clone)]
pub struct InProcess {
    shards: Arc<Shards>,
    next: Arc<AtomicUsize>,
    limits: ConnectionLimits,
    children: DynamicRef,
    connections: Arc<Connections>,
}

impl InProcess {
    /// A new connection. Where there are too many, or the tree is on its way down, it is closed from the
    /// start: what it is told is counted as refused.
    pub fn connection(&self, id: ConnectionId) -> Connection {
        let shard = self.shards.pick(self.next.fetch_add(1, Ordering::Relaxed));
        let connection = Connection::new(id, Arc::clone(&shard.outbox), self.limits);
        let (actor, open) = (connection.actor(), self.connections.open());
        let started = self
            .children
            .start(&shard.thread, format!("connection {id}"), move |stop| Ok(actor.until(stop.wait(), open)));
        if let Err(error) = started {
            self.connections.count_refused();
            tracing::debug!(%error, "in-process connection is refused");
            connection.close();
        }
        connection
    }

    /// Where spans go that are encoded already.
    pub(crate) fn sink(&self) -> SpanSink {
        SpanSink::new(self.shards.iter().map(|shard| Arc::clone(&shard.outbox)).collect())
    }

    /// Waits until every span that ended before this call is committed.
    ///
    /// # Errors
    /// [`FlushError`] where the tree was shut down first.
    pub async fn flush(&self) -> Result<(), FlushError> {
        for shard in self.shards.iter() {
            shard.outbox.flush().await?;
        }
        Ok(())
    }
}

/// A tree that runs.
pub struct Running {
    tree: RunningTree,
    observed: Arc<Observed>,
    in_process: InProcess,
    io: Vec<Arbiter>,
    exporters: Vec<Exporter>,
}

impl Running {
    /// What can be seen of the tree.
    pub fn observed(&self) -> &Arc<Observed> {
        &self.observed
    }

    /// Where in-process connections are made.
    pub fn in_process(&self) -> &InProcess {
        &self.in_process
    }

    /// Gives the destination of this name other settings, see [`Reconfigure`]; false where there is none. Its position, its
    /// ledger and whatever waits for it stay. Its `drain_timeout` and `start` are those that the tree was defined with.
    ///
    /// # Errors
    /// Where the settings are not valid: nothing has changed then.
    pub async fn reconfigure(&self, config: &DestinationConfig) -> Result<bool, DestinationConfigError> {
        config.validate()?;
        let Some(Exporter { actor, settings }) =
            self.exporters.iter().find(|exporter| exporter.settings.lock().name == config.name)
        else {
            return Ok(false);
        };
        let config = {
            let mut settings = settings.lock();
            let DestinationConfig { start, drain_timeout, .. } = *settings;
            *settings = DestinationConfig { start, drain_timeout, ..config.clone() };
            settings.clone()
        };
        // Closed, the exporter is on its way out, and needs no settings any more.
        let _closed = actor.send(Reconfigure(Box::new(config))).await;
        Ok(true)
    }

    /// Makes a child panic, for demonstrations and tests of what a crash does: the actor of this name, when
    /// the messages before have been handled; the thread of this name, with what it takes next in hand, if anything comes soon; or
    /// of the connections the oldest.
    ///
    /// # Errors
    /// [`TrySendError`] where its inbox is full or closed, or there is no such child.
    pub fn crash(&self, name: &str, why: &'static str) -> Result<(), TrySendError<()>> {
        if name != CONNECTIONS {
            return self.tree.monitor().crash(name, why);
        }
        match self.in_process.children.crash_oldest(why) {
            true => Ok(()),
            false => Err(TrySendError::Closed(())),
        }
    }

    /// Waits until the root gives up.
    pub async fn escalated(&self) -> Arc<Failure> {
        self.tree.escalated().await
    }

    /// Bounds the shutdown from outside, see [`RunningTree::watchdog`].
    ///
    /// # Errors
    /// Those of starting a thread.
    pub fn watchdog(&self, limit: Duration, status: i32) -> io::Result<Watchdog> {
        self.tree.watchdog(limit, status)
    }

    /// Says on `/readyz` and `/health` that spans are taken for this long still, and then no more. They are taken
    /// until [`Running::shutdown`].
    pub fn drain(&self, grace: Duration) {
        self.observed.draining(grace);
    }

    /// Stops all children in reverse order, within `deadline` altogether.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        self.observed.stopping();
        let report = self.tree.shutdown(deadline).await;
        for shard in self.in_process.shards.iter() {
            shard.outbox.abandon();
        }
        for arbiter in &self.io {
            arbiter.stop();
        }
        report
    }
}
