//! The daemon itself: from the configuration to a running tree, until a signal ends it.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nyx_telemetry::{
    accept::{ListenAddr, ListenError, Listener, RequestLimits},
    export::DestinationConfig,
    log::{Durability, LogStats},
    retain::RetentionConfig,
    self_tracing::{Recording, Tracer},
    supervise::{self, ChildSpec, ShutdownReport, StartError, Watchdog},
    tree::{LogForm, Running, Tree, TreeConfig},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};

use crate::{
    admin::{AdminPages, AdminSocket},
    cli::VERSION,
    config::{Config, DoorsTls, Loaded, Shutdown, Sources},
    exit::{CONFIG, Failure, SOFTWARE, UNAVAILABLE},
    gates::Gates,
    limits, log_folder,
    logging::Logging,
    reload::Reload,
    self_tracing::{SelfTracing, ended},
    service_manager::ServiceManager,
};

/// Exporters are given a little less than the whole shutdown, so that they can leave in order what they cannot
/// deliver.
const DRAIN_MARGIN: Duration = Duration::from_secs(2);
/// The port of Prometheus' node_exporter.
const NODE_EXPORTER: u16 = 9100;
/// How much longer than its timeout a shutdown may take before the process ends without it.
const WATCHDOG_MARGIN: Duration = Duration::from_secs(1);

/// Runs the daemon until SIGTERM or SIGINT, and stops it in order: signals, then the log's folder, then the doors,
/// so that nobody is listened to whose spans could not be kept. `manager` is told when all runs, and when it stops.
///
/// # Errors
/// Those of [`log_folder::open`], [`UNAVAILABLE`] where an address cannot be listened on, [`SOFTWARE`] where the
/// supervisor gave up.
pub fn run(
    sources: Sources,
    loaded: Loaded,
    logging: &Logging,
    manager: &ServiceManager,
) -> Result<(), Failure> {
    let config = loaded.config.clone();
    limits::raise_open_files(config.ingest.max_connections);
    let own = SelfTracing::start(&config)?;
    actix_rt::System::new().block_on(async {
        // First: a signal that comes while children start is heard when they run.
        let mut signals = Signals::new()?;
        let reload = Reload::new(sources, loaded, logging.clone())?;
        // The last spans have their share of the time for a stop.
        let flush = own.share(config.shutdown.timeout);
        let shutdown = Shutdown { timeout: config.shutdown.timeout - flush, ..config.shutdown.clone() };
        let result = match begin(&config, &mut signals, own.tracer()).await {
            Ok(Some(daemon)) => {
                let reload = reload.with_gates(daemon.gates.clone());
                manager.ready();
                let kept_in = daemon.kept_in.as_deref();
                attend(&daemon.tree, &mut signals, Some(reload), &shutdown, kept_in, manager, own.tracer())
                    .await
            }
            Ok(None) => Ok(()),
            Err(failure) => Err(failure),
        };
        tokio::select! {
            () = own.finish(flush) => {}
            name = signals.next() => tracing::warn!(signal = name, "spans about this daemon are left"),
        }
        result
    })
}

/// Opens the log and starts the daemon; `None` where a signal ended the wait for the log's lock.
async fn begin(config: &Config, signals: &mut Signals, tracer: &Tracer) -> Result<Option<Daemon>, Failure> {
    let mut start = tracer.rare("start");
    let opening = start.context().map_or_else(Recording::default, |start| tracer.part_of(start, "log.open"));
    let log = log_folder::open(config, signals).await;
    ended(opening, &log);
    let started = match log {
        Ok(Some(log)) => Daemon::start(config, log, tracer.clone()).await.map(Some),
        Ok(None) => Ok(None),
        Err(failure) => Err(failure),
    };
    if let Ok(Some(daemon)) = &started {
        daemon.describe(&mut start);
    }
    ended(start, &started);
    started
}

/// Waits for SIGTERM or SIGINT, or until the supervisor gives up, and stops the tree in order; behind a signal
/// there is the grace first. Another signal ends what is under way. Where a child blocks the supervisor's own
/// thread, so that nothing can be stopped in order, the process ends with [`SOFTWARE`] a second after the timeout.
///
/// On SIGHUP the configuration is reloaded, if it can be. `kept_in` is the folder in which spans that were not delivered outlive the process.
///
/// # Errors
/// [`SOFTWARE`] where the supervisor gave up.
pub async fn attend(
    tree: &Running,
    signals: &mut Signals,
    mut reload: Option<Reload>,
    shutdown: &Shutdown,
    kept_in: Option<&Path>,
    manager: &ServiceManager,
    tracer: &Tracer,
) -> Result<(), Failure> {
    let (mut stopping, failure) = loop {
        tokio::select! {
            name = signals.next() => {
                tracing::info!(signal = name, "stopping");
                manager.stopping();
                let mut stopping = tracer.rare("stop");
                stopping.set("nyx.stop.signal", name);
                break (stopping, be_gracious(tree, signals, shutdown).await);
            }
            failure = tree.escalated() => {
                manager.stopping();
                break (tracer.rare("stop"), Some(failure));
            }
            () = reload_when_asked(&mut reload, tree, tracer) => {}
        }
    };
    let stopped = stop(tree, shutdown.timeout, kept_in, signals).await;
    stopping.set("nyx.stop.messages_abandoned", stopped.abandoned);
    stopping.set("nyx.stop.spans_not_delivered", not_delivered(tree));
    if let Some(failure) = &failure {
        stopping.fail("escalated", || failure.to_string());
    } else if !stopped.given_up.is_empty() {
        stopping.fail("given_up", || format!("given up on: {}", stopped.given_up.join(", ")));
    }
    stopping.end();
    match failure {
        None => Ok(()),
        Some(failure) => Err(Failure::new(SOFTWARE, format!("the supervisor gave up: {failure}"))),
    }
}

/// Waits for SIGHUP and reloads, once; where nothing can be reloaded, for ever.
async fn reload_when_asked(reload: &mut Option<Reload>, tree: &Running, tracer: &Tracer) {
    match reload {
        None => std::future::pending().await,
        Some(reload) => {
            reload.asked().await;
            reload.reload(tree, tracer.rare("reload")).await;
        }
    }
}

/// Says that no more should come, and takes what comes all the same.
async fn be_gracious(
    tree: &Running,
    signals: &mut Signals,
    &Shutdown { grace, timeout }: &Shutdown,
) -> Option<Arc<supervise::Failure>> {
    if grace.is_zero() {
        return None;
    }
    let _watchdog = watchdog(tree, grace.saturating_add(timeout));
    tree.drain(grace);
    tokio::select! {
        () = sleep(grace) => None,
        name = signals.next() => {
            tracing::warn!(signal = name, "no grace any more");
            None
        }
        failure = tree.escalated() => Some(failure),
    }
}

/// Bounds what follows from outside.
fn watchdog(tree: &Running, limit: Duration) -> Option<Watchdog> {
    tree.watchdog(limit.saturating_add(WATCHDOG_MARGIN), i32::from(SOFTWARE))
        .inspect_err(|error| tracing::warn!(%error, "no watchdog bounds this shutdown"))
        .ok()
}

/// Stops in order; another signal cuts the rest short.
async fn stop(
    tree: &Running,
    timeout: Duration,
    kept_in: Option<&Path>,
    signals: &mut Signals,
) -> ShutdownReport {
    let _watchdog = watchdog(tree, timeout);
    let report = tokio::select! {
        report = tree.shutdown(timeout) => report,
        name = signals.next() => {
            tracing::warn!(signal = name, "stopping at once");
            tree.shutdown(Duration::ZERO).await
        }
    };
    let left = not_delivered(tree);
    let fate = (left > 0).then(|| match kept_in {
        Some(dir) => format!("kept in {}", dir.display()),
        None => "lost".to_owned(),
    });
    if !report.is_clean() || left > 0 && kept_in.is_none() {
        let given_up = (!report.given_up.is_empty()).then(|| report.given_up.join(", "));
        tracing::warn!(
            spans_not_delivered = left,
            fate,
            messages_abandoned = report.abandoned,
            given_up,
            "stopped"
        );
    } else if left > 0 {
        tracing::info!(spans_not_delivered = left, fate, "stopped");
    } else {
        tracing::info!("stopped");
    }
    report
}

/// Spans that destinations have not had.
fn not_delivered(tree: &Running) -> u64 {
    tree.observed().stats().destinations.values().map(|destination| destination.ledger.queued()).sum()
}

/// SIGTERM and SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on they no longer end the process by themselves.
    ///
    /// # Errors
    /// [`UNAVAILABLE`] where the system gives no handler.
    pub fn new() -> Result<Self, Failure> {
        let signal = |kind| {
            signal(kind)
                .map_err(|error| Failure::new(UNAVAILABLE, format!("no handler for signals: {error}")))
        };
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The name of the next one.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// A running daemon.
pub struct Daemon {
    /// Its actors.
    pub tree: Running,
    /// Where the admin pages are.
    pub pages: SocketAddr,
    /// Where the OTLP/gRPC door is.
    pub grpc: Option<ListenAddr>,
    /// Where the OTLP/HTTP door is.
    pub http: Option<ListenAddr>,
    /// The folder in which spans outlive the process.
    pub kept_in: Option<PathBuf>,
    /// What doors and pages ask whoever comes for.
    pub gates: Gates,
}

impl Daemon {
    /// Binds, defines and starts, with a log from [`log_folder::open`]. To be called on the thread of an actix System.
    ///
    /// # Errors
    /// [`UNAVAILABLE`] where an address cannot be listened on, [`CONFIG`] where the files of a door's TLS have changed for the worse
    /// since the configuration was read, [`SOFTWARE`] where a child did not start.
    pub async fn start(config: &Config, log: LogForm, tracer: Tracer) -> Result<Self, Failure> {
        let kept_in = (config.log.durability != Durability::Memory).then(|| config.log.dir.clone());
        let gates = Gates::new(config);
        let tree_config = TreeConfig { gate: Arc::clone(&gates.doors), tracer, ..tree_config(config, log)? };
        let secured = [("grpc", &tree_config.grpc_tls), ("http", &tree_config.http_tls)];
        let secured: Vec<_> =
            secured.into_iter().filter_map(|(name, tls)| tls.as_ref().map(|_| name)).collect();
        let tls = (!secured.is_empty()).then(|| secured.join(", "));
        let grpc = tree_config.grpc.as_ref().map(|listener| listener.addr().clone());
        let http = tree_config.http.as_ref().map(|listener| listener.addr().clone());
        let address = config.telemetry.prometheus_addr;
        let cannot_listen = |error| {
            let hint = hint(address, &error);
            let why = format!("cannot listen on {address} (telemetry.prometheus_addr): {error}{hint}");
            Failure::new(UNAVAILABLE, why)
        };
        let socket = Arc::new(AdminSocket::bind(address).map_err(cannot_listen)?);
        let pages = socket.local_addr().map_err(cannot_listen)?;

        let mut tree = Tree::define(tree_config);
        let (observed, gate) = (Arc::clone(tree.observed()), Arc::clone(&gates.pages));
        tree.child(ChildSpec::new("admin"), move || {
            Ok::<_, StartError>(AdminPages::new(
                Arc::clone(&socket),
                Arc::clone(&observed),
                Arc::clone(&gate),
            ))
        });
        let tree = tree
            .start()
            .await
            .map_err(|error| Failure::new(SOFTWARE, format!("the actor system did not start: {error}")))?;
        let door =
            |at: &Option<ListenAddr>| at.as_ref().map_or_else(|| "off".to_owned(), ListenAddr::to_string);
        let log = kept_in.as_ref().map_or_else(|| "memory".to_owned(), |dir| dir.display().to_string());
        tracing::info!(version = VERSION, grpc = door(&grpc), http = door(&http), tls, pages = %pages, log, "ready");
        Ok(Self { tree, pages, grpc, http, kept_in, gates })
    }

    /// What was found at the start.
    fn describe(&self, start: &mut Recording) {
        if !start.is_on() {
            return;
        }
        let LogStats { start: first, end, disk, .. } = self.tree.observed().log().stats();
        start.set("nyx.log.start_ordinal", first);
        start.set("nyx.log.end_ordinal", end);
        if let Some(disk) = disk {
            start.set("nyx.log.segments", disk.segments);
            start.set("nyx.log.torn_bytes", disk.torn_bytes);
            start.set("nyx.log.damaged_spans", disk.damaged_spans);
        }
    }

    /// Stops in order, without a grace; a signal cuts the rest short.
    pub(crate) async fn stop(&self, timeout: Duration, signals: &mut Signals) -> ShutdownReport {
        stop(&self.tree, timeout, self.kept_in.as_deref(), signals).await
    }
}

/// What an operator may not know about an address of the admin pages that cannot be listened on.
fn hint(address: SocketAddr, error: &io::Error) -> &'static str {
    if address.port() == NODE_EXPORTER && error.kind() == io::ErrorKind::AddrInUse {
        "; this port is also that of node_exporter: set another, such as 127.0.0.1:9464"
    } else {
        ""
    }
}

fn tree_config(config: &Config, log: LogForm) -> Result<TreeConfig, Failure> {
    let bind = |address: Option<&ListenAddr>, key: &str| {
        address.map(Listener::bind).transpose().map_err(|ListenError { addr, why }| {
            Failure::new(UNAVAILABLE, format!("cannot listen on {addr} ({key}): {why}"))
        })
    };
    let tls = DoorsTls::read(&config.ingest).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(|(key, why)| format!("{key}: {why}")).collect();
        Failure::new(CONFIG, lines.join("; "))
    })?;
    Ok(TreeConfig {
        service_name: config.telemetry.service_name.clone(),
        resource: config.telemetry.resource.clone(),
        destinations: destinations(config),
        measure: config.telemetry.prometheus_enabled,
        red: config.metrics.red(),
        log,
        retention: RetentionConfig { max_bytes: config.retention.max_bytes, slow: config.retention.slow },
        checkpoint_interval: config.log.checkpoint_interval,
        io_threads: config.runtime.io_threads,
        in_process_max_bytes: config.ingest.in_process.max_bytes,
        max_connections: config.ingest.max_connections,
        max_in_flight_bytes: config.ingest.max_in_flight_bytes,
        request_limits: RequestLimits {
            max_request_bytes: config.ingest.max_request_bytes,
            body_timeout: config.ingest.body_timeout,
            ..RequestLimits::default()
        },
        commit_timeout: config.ingest.commit_timeout,
        grpc: bind(config.ingest.grpc.listen.as_ref(), "ingest.grpc.listen")?,
        grpc_tls: tls.grpc,
        http: bind(config.ingest.http.listen.as_ref(), "ingest.http.listen")?,
        http_tls: tls.http,
        ..TreeConfig::default()
    })
}

/// The destinations. Exporters stop one after the other, and each is given its share of the shutdown, so that one whose
/// destination is slow does not use up the time of the next.
pub(crate) fn destinations(config: &Config) -> Vec<DestinationConfig> {
    let shares = u32::try_from(config.export.len()).unwrap_or(u32::MAX).max(1);
    let timeout = config.shutdown.timeout;
    let drain_timeout = (timeout - DRAIN_MARGIN.min(timeout / 2)) / shares;
    let with_share =
        |destination: &DestinationConfig| DestinationConfig { drain_timeout, ..destination.clone() };
    config.export.iter().map(with_share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_of_node_exporter_is_named_as_such() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let in_use = io::Error::from(io::ErrorKind::AddrInUse);
        assert_eq!(
            hint(address(9100), &in_use),
            "; this port is also that of node_exporter: set another, such as 127.0.0.1:9464"
        );
        assert_eq!(hint(address(9101), &in_use), "");
        assert_eq!(hint(address(9100), &io::Error::from(io::ErrorKind::PermissionDenied)), "");
    }
}
