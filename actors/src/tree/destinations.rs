//! The destinations of a tree: defined with it, and coming and going while it runs.
//!
//! ```text
//! comes:  log takes it in ─► collector wakes it ─► shown ─► exporter starts, in its place among the children
//! goes:   exporter stops within its share ─► log lets it go ─► not shown any more
//! ```
//!
//! Whatever fails on the way is undone, so that what is there has a position, an exporter and an account, and what is not has none.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use thiserror::Error;

use crate::{
    export::{
        DestinationConfig, DestinationConfigError, DestinationStatus, DrainWithin, Followers,
        OtlpExportActor, Reconfigure,
    },
    log::{DestinationError, DestinationId, DestinationLedger, SpanLog},
    observe::{Observed, ObservedDestination},
    span::Sampler,
    supervise::{
        ActorRef, Backoff, ChildError, ChildSpec, Declared, RunningTree, ShutdownReport, StartError,
        Supervisor,
    },
};

/// How much longer than its share an exporter may take before it is given up on.
const STOP_MARGIN: Duration = Duration::from_secs(1);

/// A destination did not come, or did not go; it is as it was.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChangeError {
    /// Its settings are not valid.
    #[error(transparent)]
    Config(#[from] DestinationConfigError),
    /// The log does not take it in, or does not let it go.
    #[error(transparent)]
    Log(#[from] DestinationError),
    /// Its exporter did not start, or did not stop.
    #[error("its exporter: {0}")]
    Exporter(#[from] ChildError),
}

/// A destination, with the settings that its exporter's next incarnation has.
#[derive(Clone)]
struct Destination {
    id: DestinationId,
    name: String,
    status: Arc<DestinationStatus>,
    actor: ActorRef<OtlpExportActor>,
    settings: Arc<Mutex<DestinationConfig>>,
    /// A longer share than this would end with the exporter being given up on.
    drain_max: Duration,
}

/// All that there are.
pub(super) struct Destinations {
    log: Arc<dyn SpanLog>,
    observed: Arc<Observed>,
    followers: Followers,
    backoff: Backoff,
    /// The child in front of which the exporters stand.
    before: &'static str,
    /// The time that exporters shared when the tree was defined.
    drain_max: Duration,
    /// One change at a time.
    now: tokio::sync::Mutex<Vec<Destination>>,
}

/// What the exporters of a tree in the making need.
pub(super) struct Making {
    pub(super) log: Arc<dyn SpanLog>,
    pub(super) backoff: Backoff,
    pub(super) before: &'static str,
    followers: Followers,
    drain_max: Duration,
    defined: Vec<Destination>,
}

impl Making {
    /// Defines the exporters of the destinations that the log was opened for.
    pub(super) fn define(
        supervisor: &mut Supervisor,
        log: Arc<dyn SpanLog>,
        backoff: Backoff,
        before: &'static str,
        configs: Vec<DestinationConfig>,
    ) -> Self {
        let drain_max = configs.iter().map(|config| config.drain_timeout).sum();
        let mut making =
            Self { log, backoff, before, followers: Followers::default(), drain_max, defined: Vec::new() };
        for (id, config) in configs.into_iter().enumerate() {
            let status = Arc::new(DestinationStatus::new(&config.name));
            let (declared, destination) = declare(DestinationId(id), config, status, backoff, drain_max);
            making.followers.follow(destination.id, destination.actor.recipient());
            supervisor.declared(declared, factory(&making.log, &destination));
            making.defined.push(destination);
        }
        making
    }

    pub(super) fn followers(&self) -> Followers {
        self.followers.clone()
    }

    /// They are complete, and are shown.
    pub(super) fn done(self, observed: Arc<Observed>) -> Destinations {
        let Self { log, backoff, before, followers, drain_max, defined } = self;
        defined.iter().for_each(|destination| observed.destination_came(destination.observed()));
        let now = tokio::sync::Mutex::new(defined);
        Destinations { log, observed, followers, backoff, before, drain_max, now }
    }
}

impl Destination {
    fn observed(&self) -> ObservedDestination {
        ObservedDestination { id: self.id, status: Arc::clone(&self.status) }
    }

    fn child(&self) -> String {
        child_of(&self.name)
    }
}

fn child_of(name: &str) -> String {
    format!("export.{name}")
}

/// The exporter's place among the children, and what it shares with its incarnations.
fn declare(
    id: DestinationId,
    config: DestinationConfig,
    status: Arc<DestinationStatus>,
    backoff: Backoff,
    drain_max: Duration,
) -> (Declared<OtlpExportActor>, Destination) {
    let (name, drain_max) = (config.name.clone(), drain_max.max(config.drain_timeout));
    // What it does not deliver in time it leaves; given up on is only one that does not answer at all.
    let spec = ChildSpec::new(child_of(&name)).backoff(backoff);
    let declared = spec.stop_deadline(drain_max + STOP_MARGIN).drains_more().declare();
    let (actor, settings) = (declared.actor_ref(), Arc::new(Mutex::new(config)));
    (declared, Destination { id, name, status, actor, settings, drain_max })
}

/// Of which traces exemplars may be, so that each leads somewhere: who samples least keeps all that the others keep.
pub(super) fn exemplary<'d>(configs: impl Iterator<Item = &'d DestinationConfig>) -> Option<Sampler> {
    configs.map(|config| config.sampling_rate).reduce(f64::max).map(Sampler::new)
}

/// Makes each incarnation of its exporter.
fn factory(
    log: &Arc<dyn SpanLog>,
    destination: &Destination,
) -> impl Fn() -> Result<OtlpExportActor, StartError> + Send + Sync + 'static {
    let Destination { id, status, settings, .. } = destination.clone();
    let log = Arc::clone(log);
    move || {
        let settings = settings.lock().clone();
        OtlpExportActor::new(&settings, Arc::clone(&log), id, Arc::clone(&status)).map_err(StartError::new)
    }
}

impl Destinations {
    /// The settings of each, as its exporter has them or is about to.
    pub(super) async fn settings(&self) -> Vec<DestinationConfig> {
        self.now.lock().await.iter().map(|destination| destination.settings.lock().clone()).collect()
    }

    /// Chooses exemplars by the rates of these, and not of the one named `but`.
    fn exemplify(&self, now: &[Destination], but: Option<&str>) {
        let Some(red) = self.observed.red() else { return };
        let others = now.iter().filter(|destination| Some(&*destination.name) != but);
        let configs: Vec<_> = others.map(|destination| destination.settings.lock().clone()).collect();
        red.exemplify(exemplary(configs.iter()));
    }

    /// Takes a destination in.
    pub(super) async fn add(&self, tree: &RunningTree, config: DestinationConfig) -> Result<(), ChangeError> {
        config.validate()?;
        let mut now = self.now.lock().await;
        if now.iter().any(|destination| destination.name == config.name) {
            return Err(DestinationError::Taken(config.name).into());
        }
        let (name, id) = (config.name.clone(), self.log.take_in(config.in_log()).await?);
        let status = Arc::new(DestinationStatus::new(&name));
        match self.start(tree, id, config, status).await {
            Ok(destination) => {
                let ledger = self.log.ledger(id).unwrap_or_default();
                tracing::info!(destination = name, position = ledger.position, "a destination has come");
                now.push(destination);
                // Only now: what was counted before is not for it.
                self.exemplify(&now, None);
                Ok(())
            }
            Err(error) => {
                if let Err(error) = self.log.let_go(id).await {
                    tracing::error!(destination = name, %error, "the span log keeps spans for a destination that did not come");
                }
                Err(error.into())
            }
        }
    }

    async fn start(
        &self,
        tree: &RunningTree,
        id: DestinationId,
        config: DestinationConfig,
        status: Arc<DestinationStatus>,
    ) -> Result<Destination, ChildError> {
        let (declared, destination) = declare(id, config, status, self.backoff, self.drain_max);
        self.followers.follow(id, destination.actor.recipient());
        self.observed.destination_came(destination.observed());
        let started = tree.add(declared, self.before, factory(&self.log, &destination)).await;
        if let Err(error) = started {
            self.followers.leave(id);
            self.observed.destination_went(id);
            return Err(error);
        }
        Ok(destination)
    }

    /// Lets the destination of this name go: its account as of then, or `None` where there is none.
    pub(super) async fn remove(
        &self,
        tree: &RunningTree,
        name: &str,
    ) -> Result<Option<DestinationLedger>, ChangeError> {
        let mut now = self.now.lock().await;
        let Some(at) = now.iter().position(|destination| destination.name == name) else { return Ok(None) };
        let Some(destination) = now.get(at).cloned() else { return Ok(None) };
        // At once: what it alone would have had leads nowhere from here on.
        self.exemplify(&now, Some(name));
        let report = match tree.remove(&destination.child()).await {
            Ok(report) => report,
            // Whoever asked the last time did not wait for the end.
            Err(ChildError::Unknown(_)) => ShutdownReport::default(),
            Err(error) => {
                self.exemplify(&now, None);
                return Err(error.into());
            }
        };
        self.followers.leave(destination.id);
        let ledger = match self.log.let_go(destination.id).await {
            Ok(ledger) => ledger,
            Err(error) => {
                self.bring_back(tree, &mut now, at, destination).await;
                self.exemplify(&now, None);
                return Err(error.into());
            }
        };
        self.observed.destination_went(destination.id);
        now.remove(at);
        tracing::info!(
            destination = name,
            position = ledger.position,
            exported = ledger.exported,
            sampled_out = ledger.sampled_out,
            dropped = ledger.dropped_total(),
            queued = ledger.queued(),
            given_up = !report.given_up.is_empty(),
            "a destination has gone: the log does not keep its spans"
        );
        Ok(Some(ledger))
    }

    /// The log still has it: so does the tree.
    async fn bring_back(
        &self,
        tree: &RunningTree,
        now: &mut [Destination],
        at: usize,
        destination: Destination,
    ) {
        self.observed.destination_went(destination.id);
        let config = destination.settings.lock().clone();
        match self.start(tree, destination.id, config, Arc::clone(&destination.status)).await {
            Ok(again) => now.get_mut(at).into_iter().for_each(|place| *place = again.clone()),
            Err(error) => {
                self.observed.destination_came(destination.observed());
                tracing::error!(destination = destination.name, %error, "the exporter of a destination that stays is not started again");
            }
        }
    }

    /// Gives the destination of this name other settings; false where there is none.
    pub(super) async fn reconfigure(
        &self,
        config: &DestinationConfig,
    ) -> Result<bool, DestinationConfigError> {
        config.validate()?;
        let now = self.now.lock().await;
        let Some(Destination { actor, settings, drain_max, .. }) =
            now.iter().find(|destination| destination.name == config.name)
        else {
            return Ok(false);
        };
        let is_less = config.sampling_rate < settings.lock().sampling_rate;
        let (before, config) = {
            let mut settings = settings.lock();
            // Where it begins is the log's matter, which knows it by now.
            let start = settings.start;
            let drain_timeout = config.drain_timeout.min(*drain_max);
            let config = DestinationConfig { start, drain_timeout, ..config.clone() };
            (std::mem::replace(&mut *settings, config.clone()), config)
        };
        let drain_timeout = config.drain_timeout;
        if is_less {
            // Before it delivers less, as above; more only behind.
            self.exemplify(&now, None);
        }
        // Closed, the exporter is on its way out, and needs no settings any more. What is in files of TLS may have changed
        // though their names are the same.
        if (DestinationConfig { drain_timeout, ..before }) != config || !config.tls.is_empty() {
            let _closed = actor.send(Reconfigure(Box::new(config))).await;
        } else {
            let _closed = actor.send(DrainWithin(drain_timeout)).await;
        }
        self.exemplify(&now, None);
        Ok(true)
    }
}
