//! What is known of a child; it outlives the child's incarnations.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde::Serialize;

use super::{
    errors::TrySendError,
    failure::{Failure, FailureCause},
    queue::{Gate, InboxCounts},
};

/// What a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildKind {
    /// An actor with an inbox.
    Actor,
    /// A plain thread with an inbox.
    Thread,
    /// A set of dynamic children.
    Dynamic,
    /// A supervisor.
    Supervisor,
}

/// What a child does at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildState {
    /// Waits for its turn to be started.
    Waiting,
    /// Started, not ready yet.
    Starting,
    /// Ready.
    Running,
    /// Failed, and will be started again after its backoff.
    BackingOff,
    /// Told to stop.
    Stopping,
    /// Will not be started again.
    Stopped,
}

/// A child's record at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChildRecord {
    /// Its name; behind that of its supervisor and a slash where that is not the root.
    pub name: String,
    /// What it is.
    pub kind: ChildKind,
    /// What it does.
    pub state: ChildState,
    /// The number of its incarnation, from 1 on; 0 before its first start.
    pub incarnation: u64,
    /// How often it was started again.
    pub restarts: u64,
    /// How often it panicked; of a dynamic set, its children's panics.
    pub panics: u64,
    /// How often it had messages and handled none, and was replaced.
    pub stuck: u64,
    /// Where its messages are; all zero for a child without an inbox.
    #[serde(flatten)]
    pub inbox: InboxCounts,
    /// The children of a dynamic set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic: Option<DynamicCounts>,
    /// Its last failure.
    pub last_failure: Option<Failure>,
}

/// The children of a dynamic set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DynamicCounts {
    /// Children at this moment.
    pub live: usize,
    /// Children ever started.
    pub started_total: u64,
    /// Children that ended with a failure that is no panic.
    pub failed_total: u64,
    /// Children that were killed, at a drain's deadline, by the breaker or by their handle.
    pub killed_total: u64,
}

/// The living part of a [`ChildRecord`].
pub(super) struct Vital {
    kind: ChildKind,
    path: OnceLock<String>,
    gate: Option<Arc<dyn Gate>>,
    now: Mutex<Now>,
}

struct Now {
    state: ChildState,
    incarnation: u64,
    panics: u64,
    stuck: u64,
    dynamic: Option<DynamicCounts>,
    last_failure: Option<Arc<Failure>>,
}

impl Vital {
    pub(super) fn new(kind: ChildKind, gate: Option<Arc<dyn Gate>>) -> Arc<Self> {
        let dynamic = (kind == ChildKind::Dynamic).then(DynamicCounts::default);
        let now = Now {
            state: ChildState::Waiting,
            incarnation: 0,
            panics: 0,
            stuck: 0,
            dynamic,
            last_failure: None,
        };
        Arc::new(Self { kind, path: OnceLock::new(), gate, now: Mutex::new(now) })
    }

    /// Names the child once the tree is complete.
    pub(super) fn enroll(&self, path: String) {
        let _named_before = self.path.set(path);
    }

    pub(super) fn name(&self) -> &str {
        self.path.get().map_or("", String::as_str)
    }

    pub(super) fn gate(&self) -> Option<&dyn Gate> {
        self.gate.as_deref()
    }

    pub(super) fn set_state(&self, state: ChildState) {
        self.now.lock().state = state;
    }

    pub(super) fn next_incarnation(&self) -> u64 {
        let mut now = self.now.lock();
        now.incarnation += 1;
        now.state = ChildState::Starting;
        now.incarnation
    }

    pub(super) fn restarts(&self) -> u64 {
        self.now.lock().incarnation.saturating_sub(1)
    }

    pub(super) fn failed(&self, failure: &Arc<Failure>) {
        let failure = Arc::clone(failure);
        let mut now = self.now.lock();
        now.panics += u64::from(failure.cause == FailureCause::Panicked);
        now.stuck += u64::from(failure.cause == FailureCause::Stuck);
        let before = now.last_failure.replace(failure);
        drop(now);
        drop(before);
    }

    /// Counts the children of a dynamic set.
    pub(super) fn count(&self, counts: impl FnOnce(&mut DynamicCounts)) {
        if let Some(dynamic) = &mut self.now.lock().dynamic {
            counts(dynamic);
        }
    }

    /// Makes the actor panic when the messages before have been handled.
    pub(super) fn crash(&self, why: &'static str) -> Result<(), TrySendError<()>> {
        self.gate.as_ref().map_or(Err(TrySendError::Closed(())), |gate| gate.crash(why))
    }

    pub(super) fn record(&self) -> ChildRecord {
        let now = self.now.lock();
        let (state, incarnation, panics, stuck) = (now.state, now.incarnation, now.panics, now.stuck);
        let (dynamic, last_failure) = (now.dynamic, now.last_failure.clone());
        drop(now);
        ChildRecord {
            name: self.name().to_owned(),
            kind: self.kind,
            state,
            incarnation,
            restarts: incarnation.saturating_sub(1),
            panics,
            stuck,
            inbox: self.gate.as_ref().map_or_else(InboxCounts::default, |gate| gate.counts()),
            dynamic,
            last_failure: last_failure.map(|failure| (*failure).clone()),
        }
    }
}
