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

mod destinations;
mod in_process;
mod threads;

use std::{io, sync::Arc, thread::available_parallelism, time::Duration};

use actix::{Actor, Context};
use actix_rt::{Arbiter, ArbiterHandle};
use tokio::{sync::oneshot, time::timeout};

use crate::{
    accept::{
        Acceptor, Admission, ConnectionLimits, Connections, Door, DoorLedger, DoorTls, GrpcDoor,
        Http1Settings, Http2Settings, HttpDoor, Intake, Listener, Outbox, OutboxActor, OutboxConfig,
        RequestLimits, Scratches, spread,
    },
    bearer::Gate,
    collect::SpanCollector,
    export::{DestinationConfig, DestinationConfigError},
    log::{DestinationLedger, MemoryLog, MemoryLogConfig, SpanLedger, SpanLog, segments::OpenLog},
    measure::{
        CHECKPOINT_INTERVAL_DEFAULT, MetricsActor, RedScratch, RedSettings, RedShared, Remeasure,
        RemeasureError, STOP_MAX,
    },
    observe::{Observed, ObservedDoor},
    retain::{Retention, RetentionConfig},
    self_tracing::Tracer,
    supervise::{
        ActorRef, Backoff, ChildSpec, DynamicSpec, Failure, Intensity, Restarted, RunningTree,
        ShutdownReport, StartError, Strategy, Supervisor, TreeError, TrySendError, Watchdog,
    },
    tls::ServerTls,
};

pub use destinations::ChangeError;
use destinations::{Destinations, Making, exemplary};
pub use in_process::InProcess;
use in_process::{Shard, Shards};
use threads::{retention_thread, segment_log};

/// The most io threads that are started by themselves: more only help where connections are many and busy.
const IO_THREADS_MAX: usize = 4;
/// Messages that wait for the collector at most; a connection waits for room, or refuses.
const COLLECTOR_INBOX: usize = 1_024;
/// Messages that wait for the metrics at most; what finds no room is counted from the log.
const METRICS_INBOX: usize = 64;
/// How long the metrics may take for a change of their settings: a checkpoint has to be stored.
const REMEASURE_MAX: Duration = Duration::from_secs(10);
/// The thread of the retention.
const RETENTION: &str = "retention";
/// The collector.
const COLLECTOR: &str = "collector";
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
    /// For spans about the tree itself; off.
    pub tracer: Tracer,
    /// The OTLP/gRPC door.
    pub grpc: Option<Listener>,
    /// Its TLS, over TCP alone; none: it speaks plain text.
    pub grpc_tls: Option<ServerTls>,
    /// The OTLP/HTTP door.
    pub http: Option<Listener>,
    /// Its TLS, likewise.
    pub http_tls: Option<ServerTls>,
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
            tracer: Tracer::default(),
            grpc: None,
            grpc_tls: None,
            http: None,
            http_tls: None,
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
    destinations: Destinations,
    metrics: Option<Metrics>,
    tls: Vec<Arc<DoorTls>>,
}

/// The counters, and who counts.
struct Metrics {
    red: Arc<RedShared>,
    actor: ActorRef<MetricsActor>,
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
        let tracer = config.tracer;
        if tracer.is_on() {
            let tracer = tracer.clone();
            supervisor = supervisor.on_restart(move |restarted| record_restart(&tracer, restarted));
        }
        let child = |name: String| ChildSpec::new(name).backoff(config.backoff);
        let log: Arc<dyn SpanLog> = match &config.log {
            &LogForm::Memory { max_bytes } => Arc::new(MemoryLog::new(MemoryLogConfig {
                max_bytes,
                destinations: config.destinations.len(),
                measured: config.measure,
            })),
            LogForm::Segments(open) => Arc::new(segment_log(&mut supervisor, open, config.backoff)),
        };

        let exemplars = exemplary(config.destinations.iter());
        let red = Arc::new(match config.measure {
            true => RedShared::restore(RedSettings { exemplars, ..config.red }, &*log),
            false => RedShared::default(),
        });
        let settings = red.current().clone();
        let metrics = config.measure.then(|| {
            let (log, red, interval) = (Arc::clone(&log), Arc::clone(&red), config.checkpoint_interval);
            let tracer = tracer.clone();
            let spec = child("metrics".to_owned()).inbox_capacity(METRICS_INBOX).drains_more();
            // What it does not count in time the next process does.
            let spec = spec.stop_deadline(STOP_MAX + Duration::from_secs(1));
            supervisor.child(spec, move || {
                let actor = MetricsActor::new(Arc::clone(&log), Arc::clone(&red), interval);
                Ok(actor.traced(tracer.clone()))
            })
        });

        let before = if config.retention.max_bytes > 0 { RETENTION } else { COLLECTOR };
        let exporters =
            Making::define(&mut supervisor, Arc::clone(&log), config.backoff, before, config.destinations);

        let retention = (config.retention.max_bytes > 0).then(|| Arc::new(Retention::new(config.retention)));
        let retainer = retention.as_ref().map(|retention| {
            retention_thread(&mut supervisor, child(RETENTION.to_owned()), Arc::clone(retention))
        });

        let collector = {
            let log = Arc::clone(&log);
            let followers = exporters.followers();
            let metrics = metrics.as_ref().map(ActorRef::recipient);
            let tracer = tracer.clone();
            let spec = child(COLLECTOR.to_owned()).inbox_capacity(COLLECTOR_INBOX);
            supervisor.child(spec, move || {
                let collector = SpanCollector::new(Arc::clone(&log), followers.clone(), metrics.clone());
                Ok(collector.retaining(retainer.clone()).traced(tracer.clone()))
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
            let (recipient, spans, settings) = (collector.recipient(), Arc::clone(&spans), settings.clone());
            supervisor.child(child(format!("outbox.{index}")).arbiter(thread).drains_more(), move || {
                let scratch = RedScratch::following(settings.clone());
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
            tls: None,
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
            tracer: tracer.clone(),
        };
        let mut secured = Vec::new();
        let mut door = |listener: Listener, tls: DoorTls, door: fn(Intake, Arc<DoorTls>) -> Arc<dyn Door>| {
            let (name, tls) = (tls.door(), Arc::new(tls));
            let ledger = Arc::new(DoorLedger::default());
            let counts = Arc::new(Connections::default());
            doors.push(ObservedDoor {
                name,
                ledger: Some(Arc::clone(&ledger)),
                connections: Arc::clone(&counts),
                tls: Some(Arc::clone(&tls)),
            });
            secured.push(Arc::clone(&tls));
            let door = door(Intake { ledger, ..intake.clone() }, tls);
            let arbiters = io.iter().map(Arbiter::handle).collect();
            let hand_over = spread(door, connections.clone(), arbiters, Arc::clone(&counts));
            supervisor.child(child(format!("acceptor.{name}")), move || {
                Acceptor::new(&listener, Arc::clone(&hand_over), Arc::clone(&counts)).map_err(StartError::new)
            });
        };
        if let Some(listener) = config.grpc {
            door(listener, DoorTls::grpc(config.grpc_tls), |intake, tls| {
                Arc::new(GrpcDoor { http2: Http2Settings::default(), tls, intake })
            });
        }
        if let Some(listener) = config.http {
            door(listener, DoorTls::http(config.http_tls), |intake, tls| {
                let (http1, http2) = (Http1Settings::default(), Http2Settings::default());
                Arc::new(HttpDoor { http1, http2, tls, intake })
            });
        }
        let outboxes = in_process.shards.iter().map(|shard| Arc::clone(&shard.outbox)).collect();
        let red = config.measure.then_some(red);
        let observed = Observed::new(log, spans, doors, outboxes, red, retention).tracing(tracer);
        let observed = Arc::new(observed);
        let destinations = exporters.done(Arc::clone(&observed));
        let red = observed.red().cloned();
        let metrics = red.zip(metrics).map(|(red, actor)| Metrics { red, actor });
        Self { supervisor, observed, in_process, io, destinations, metrics, tls: secured }
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
        let Self { observed, in_process, io, destinations, metrics, tls, .. } = self;
        Ok(Running { tree, observed, in_process, io, destinations, metrics, tls })
    }
}

/// A restart lasts from the end of an incarnation until the next one is ready.
fn record_restart(tracer: &Tracer, restarted: &Restarted<'_>) {
    let mut recording = tracer.rare_since("restart", restarted.lasted);
    recording.set("nyx.actor.name", restarted.child.to_owned());
    recording.set("nyx.actor.incarnation", restarted.incarnation);
    if let Some(failure) = restarted.failure {
        recording.fail(failure.cause.label(), || failure.to_string());
    }
    recording.end();
}

/// Children come back quickly at first: senders wait in the meantime.
fn backoff() -> Backoff {
    let (initial, cap, stable) = (Duration::from_millis(20), Duration::from_secs(3), Duration::from_secs(30));
    Backoff::new(initial, 2.0, cap, 0.2, stable).unwrap_or_default()
}

/// A tree that runs.
pub struct Running {
    tree: RunningTree,
    observed: Arc<Observed>,
    in_process: InProcess,
    io: Vec<Arbiter>,
    destinations: Destinations,
    metrics: Option<Metrics>,
    tls: Vec<Arc<DoorTls>>,
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

    /// The settings of each destination that there is.
    pub async fn destinations(&self) -> Vec<DestinationConfig> {
        self.destinations.settings().await
    }

    /// Takes a destination in: it begins where it would begin at a start, and is from then on like the others. To be waited
    /// for to the end, unless the tree is shut down.
    ///
    /// # Errors
    /// [`ChangeError`]; then there is no such destination, and no trace of it.
    pub async fn add_destination(&self, config: DestinationConfig) -> Result<(), ChangeError> {
        self.destinations.add(&self.tree, config).await
    }

    /// Lets the destination of this name go, as a start without it would: its exporter delivers what it can within its
    /// `drain_timeout`, and what is left is not kept for it. Returns its account as of then, or `None` where there is no such
    /// destination. To be waited for to the end, unless the tree is shut down.
    ///
    /// # Errors
    /// [`ChangeError`]; then it is still there, and is delivered to.
    pub async fn remove_destination(&self, name: &str) -> Result<Option<DestinationLedger>, ChangeError> {
        self.destinations.remove(&self.tree, name).await
    }

    /// Gives the destination of this name other settings, see [`Reconfigure`](crate::export::Reconfigure); false where there
    /// is none. Its position, its ledger and whatever waits for it stay. Its `start` is that with which it came, and its
    /// `drain_timeout` is no longer than what all of them had together at the start.
    ///
    /// # Errors
    /// Where the settings are not valid: nothing has changed then.
    pub async fn reconfigure(&self, config: &DestinationConfig) -> Result<bool, DestinationConfigError> {
        self.destinations.reconfigure(config).await
    }

    /// Keeps the span metrics with other settings, where they are kept. Their histogram's bounds stay as they are, and exemplars
    /// follow the destinations. Series that can be the same go on, the others end; see `measure/regroup.rs`.
    ///
    /// # Errors
    /// [`RemeasureError`]; then they are kept as before.
    pub async fn remeasure(&self, settings: RedSettings) -> Result<(), RemeasureError> {
        let Some(Metrics { red, actor }) = &self.metrics else { return Ok(()) };
        let before = red.settings();
        let (bounds, exemplars) = (before.bounds.clone(), before.exemplars);
        if (RedSettings { bounds, exemplars, ..settings.clone() }) == *before {
            return Ok(());
        }
        let (done, answer) = oneshot::channel();
        let asked = async {
            let asked = actor.send(Remeasure { settings: Box::new(settings), done }).await;
            asked.map_err(|_| RemeasureError::Lost)?;
            answer.await.unwrap_or(Err(RemeasureError::Lost))
        };
        timeout(REMEASURE_MAX, asked).await.unwrap_or(Err(RemeasureError::Lost))
    }

    /// How the span metrics are kept, where they are.
    pub fn measured(&self) -> Option<Arc<RedSettings>> {
        self.metrics.as_ref().map(|metrics| metrics.red.settings())
    }

    /// Gives new connections at the door of this name (`grpc` or `http`) this TLS; false where there is no such door, or where it
    /// speaks plain text, which does not change while it is open. Connections that are open go on as they are.
    pub fn renew_tls(&self, door: &str, tls: ServerTls) -> bool {
        self.tls.iter().find(|of_door| of_door.door() == door).is_some_and(|of_door| of_door.renew(tls))
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
