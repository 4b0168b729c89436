//! Dynamic children: temporary actors by the thousand, such as connections.
//!
//! A set of them is one child of its supervisor and has one record. A child's panic ends that child
//! and is counted; only too many panics within a window are the set's own failure. Dynamic children
//! have no inbox: whoever wants to talk to one hands the factory a channel.

use std::{collections::VecDeque, fmt, future::Future, sync::Arc};

use actix::{Actor, Context};
use actix_rt::ArbiterHandle;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    actor_child::{give_birth, spawn_on},
    child::{Definition, Incarnation, Policy, Report, StartError, Stop},
    failure::{Failure, FailureCause},
    monitor::{Exit, Life, Watcher, Watching},
    record::{ChildKind, DynamicCounts, Vital},
    settings::{DynamicSpec, PanicRate, Restart},
};

/// A dynamic child was not started; its factory is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AdmissionError {
    /// There are as many as there may be.
    #[error("{limit} children of {set} are alive, which is the limit")]
    Full {
        /// The set.
        set: String,
        /// Its limit.
        limit: usize,
    },
    /// The set is not started yet, stops, or waits for its restart.
    #[error("{set} takes no children at present")]
    Closed {
        /// The set.
        set: String,
    },
    /// The arbiter has ended.
    #[error("the arbiter of {child} is gone")]
    ArbiterGone {
        /// The child.
        child: String,
    },
}

/// Tells a dynamic child that it is to end. A child that ignores it is killed at the deadline.
#[derive(Debug, Clone)]
pub struct StopSignal(CancellationToken);

impl StopSignal {
    /// Whether the child is to end.
    pub fn is_set(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until the child is to end.
    pub fn wait(&self) -> impl Future<Output = ()> + Send + 'static {
        self.0.clone().cancelled_owned()
    }
}

/// One dynamic child, from outside. Dropping it changes nothing.
pub struct ChildHandle {
    life: Arc<Life>,
}

impl ChildHandle {
    /// Ends the child without any of its hooks; what it owns (a socket) is dropped.
    pub fn kill(&self) {
        self.life.kill();
    }
}

impl fmt::Debug for ChildHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildHandle").finish_non_exhaustive()
    }
}

/// Starts dynamic children, from any thread; stays valid while the set is restarted.
#[derive(Clone)]
pub struct DynamicRef {
    set: Arc<Set>,
}

impl DynamicRef {
    /// Starts a child on an arbiter. The factory runs on the arbiter's thread, after this returned; its
    /// failure is counted like the child's own.
    ///
    /// # Errors
    /// [`AdmissionError`]
    pub fn start<A, F>(
        &self,
        arbiter: &ArbiterHandle,
        name: impl Into<String>,
        factory: F,
    ) -> Result<ChildHandle, AdmissionError>
    where
        A: Actor<Context = Context<A>>,
        F: FnOnce(StopSignal) -> Result<A, StartError> + Send + 'static,
    {
        let life = Arc::new(Life::default());
        let (id, signal) = self.set.admit(&life)?;
        let name: Arc<str> = name.into().into();
        let watching =
            Watching::new(DynamicWatcher { set: Arc::clone(&self.set), id, name: Arc::clone(&name) });
        let handle = ChildHandle { life: Arc::clone(&life) };
        let birth = move || give_birth(|| factory(signal), |_| {}, life, watching);
        if spawn_on(Some(arbiter), birth) {
            Ok(handle)
        } else {
            Err(AdmissionError::ArbiterGone { child: name.to_string() })
        }
    }

    /// Children at this moment.
    pub fn live(&self) -> usize {
        self.set.state.lock().live
    }

    /// Makes the oldest child panic with this text: for tests of what a crash does. False where there is none.
    pub fn crash_oldest(&self, why: &'static str) -> bool {
        let oldest = {
            let state = self.set.state.lock();
            state.lives.iter().min_by_key(|(id, _)| **id).map(|(_, life)| Arc::clone(life))
        };
        oldest.is_some_and(|life| {
            life.crash(why);
            true
        })
    }

    /// What the set counted.
    pub fn counts(&self) -> DynamicCounts {
        self.set.vital.record().dynamic.unwrap_or_default()
    }
}

impl fmt::Debug for DynamicRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamicRef").field("live", &self.live()).finish_non_exhaustive()
    }
}

struct Set {
    max_children: usize,
    panic_rate: PanicRate,
    vital: Arc<Vital>,
    state: Mutex<SetState>,
}

struct SetState {
    open: bool,
    draining: bool,
    stop: CancellationToken,
    report: Option<Report>,
    next_id: u64,
    /// Children, those included that were killed and have not noticed yet.
    live: usize,
    lives: HashMap<u64, Arc<Life>, FixedState>,
    /// When children panicked, within the window.
    panics: VecDeque<Instant>,
}

impl Set {
    fn admit(&self, life: &Arc<Life>) -> Result<(u64, StopSignal), AdmissionError> {
        let set = || self.vital.name().to_owned();
        let mut state = self.state.lock();
        if !state.open {
            drop(state);
            return Err(AdmissionError::Closed { set: set() });
        }
        if state.live >= self.max_children {
            drop(state);
            return Err(AdmissionError::Full { set: set(), limit: self.max_children });
        }
        let id = state.next_id;
        state.next_id += 1;
        state.lives.insert(id, Arc::clone(life));
        state.live += 1;
        let signal = StopSignal(state.stop.clone());
        drop(state);
        self.vital.count(|counts| {
            counts.live += 1;
            counts.started_total += 1;
        });
        Ok((id, signal))
    }

    /// A child ended: counts it, and sees whether that ends the set.
    fn left(&self, id: u64, panicked: bool) {
        let now = Instant::now();
        let mut state = self.state.lock();
        let life = state.lives.remove(&id);
        state.live -= 1;
        let tripped = panicked && state.open && {
            let window = self.panic_rate.window;
            while state.panics.pop_front_if(|at| now - *at >= window).is_some() {}
            state.panics.push_back(now);
            state.panics.len() > self.panic_rate.max_panics as usize
        };
        let drained = state.draining && state.live == 0;
        let report = if tripped || drained { state.report.take() } else { None };
        drop(state);
        drop(life);
        let Some(report) = report else { return };
        if tripped {
            self.kill();
            let PanicRate { max_panics, window } = self.panic_rate;
            let message = format!("more than {max_panics} panics within {window:?}");
            report.ended(Exit::Failed(Failure::new(FailureCause::Escalated, message)));
        } else {
            report.ended(Exit::Normal);
        }
    }

    fn open(&self, report: Report) {
        let ready = report.clone();
        let mut state = self.state.lock();
        state.open = true;
        state.draining = false;
        state.stop = CancellationToken::new();
        state.panics.clear();
        state.report = Some(report);
        drop(state);
        ready.ready();
    }

    fn drain(&self) {
        let mut state = self.state.lock();
        state.open = false;
        state.draining = true;
        let stop = state.stop.clone();
        let report = if state.live == 0 { state.report.take() } else { None };
        drop(state);
        stop.cancel();
        if let Some(report) = report {
            report.ended(Exit::Normal);
        }
    }

    fn kill(&self) {
        let mut state = self.state.lock();
        state.open = false;
        state.report = None;
        let lives = std::mem::take(&mut state.lives);
        drop(state);
        for life in lives.into_values() {
            life.kill();
        }
    }
}

/// The set as a child of its supervisor.
pub(super) struct DynamicChild {
    policy: Policy,
    set: Arc<Set>,
}

impl DynamicChild {
    pub(super) fn new(spec: DynamicSpec) -> (Self, DynamicRef) {
        let DynamicSpec { name, max_children, stop_deadline, panic_rate, backoff } = spec;
        let state = SetState {
            open: false,
            draining: false,
            stop: CancellationToken::new(),
            report: None,
            next_id: 0,
            live: 0,
            lives: HashMap::default(),
            panics: VecDeque::new(),
        };
        let vital = Vital::new(ChildKind::Dynamic, None);
        let set = Arc::new(Set { max_children, panic_rate, vital, state: Mutex::new(state) });
        let policy = Policy {
            name,
            restart: Restart::Permanent,
            backoff,
            start_deadline: stop_deadline,
            stop_deadline,
            drains_more: false,
            progress_deadline: None,
            bound: false,
        };
        (Self { policy, set: Arc::clone(&set) }, DynamicRef { set })
    }
}

impl Definition for DynamicChild {
    fn policy(&self) -> &Policy {
        &self.policy
    }

    fn vital(&self) -> &Arc<Vital> {
        &self.set.vital
    }

    fn backlog(&self) -> u64 {
        0
    }

    fn abandon(&self) -> u64 {
        self.set.kill();
        0
    }

    fn start(&mut self, report: Report) -> Box<dyn Incarnation> {
        self.set.open(report);
        Box::new(RunningSet(Arc::clone(&self.set)))
    }
}

struct RunningSet(Arc<Set>);

impl Incarnation for RunningSet {
    fn stop(&self, _how: Stop, _overall: Option<Instant>) {
        self.0.drain();
    }

    fn kill(&self) {
        self.0.kill();
    }
}

struct DynamicWatcher {
    set: Arc<Set>,
    id: u64,
    name: Arc<str>,
}

impl Watcher for DynamicWatcher {
    fn ended(self, exit: Exit) {
        let vital = &self.set.vital;
        let (failed, killed, panicked) = match exit {
            Exit::Normal => (0, 0, false),
            Exit::Killed => (0, 1, false),
            Exit::Failed(failure) => {
                let panicked = failure.cause == FailureCause::Panicked;
                warn!(
                    set = vital.name(),
                    child = &*self.name,
                    cause = ?failure.cause,
                    location = failure.location.as_deref().unwrap_or("-"),
                    "{}",
                    failure.message
                );
                vital.failed(&Arc::new(failure));
                (u64::from(!panicked), 0, panicked)
            }
        };
        debug!(set = vital.name(), child = &*self.name, "ended");
        vital.count(|counts| {
            counts.live = counts.live.saturating_sub(1);
            counts.failed_total += failed;
            counts.killed_total += killed;
        });
        self.set.left(self.id, panicked);
    }
}
