//! What a supervisor knows of its children: how to start one, and how it hears from it.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{sync::mpsc, time::Instant};

use super::{
    monitor::Exit,
    record::Vital,
    running::ShutdownReport,
    settings::{Backoff, ChildSpec, Intensity, Placement, Restart, SettingsError},
};

/// A factory could not make its actor, or a thread gave up; the supervisor tries again.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct StartError(pub(super) String);

impl StartError {
    /// An error with this reason.
    pub fn new(why: impl ToString) -> Self {
        Self(why.to_string())
    }
}

/// How a supervisor treats a child.
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) restart: Restart,
    pub(super) backoff: Backoff,
    pub(super) start_deadline: Duration,
    pub(super) stop_deadline: Duration,
    /// What it has to finish lies not only in its inbox.
    pub(super) drains_more: bool,
    pub(super) progress_deadline: Option<Duration>,
    /// It can live on one arbiter only: where that is gone or blocked, no restart can work.
    pub(super) bound: bool,
}

impl Policy {
    /// The policy of a child, and where it is placed.
    pub(super) fn of(spec: ChildSpec) -> (Self, Placement) {
        let ChildSpec { name, restart, backoff, start_deadline, stop_deadline, .. } = spec;
        let ChildSpec { progress_deadline, placement, drains_more, .. } = spec;
        let bound = matches!(placement, Placement::On(_));
        let policy = Self {
            name,
            restart,
            backoff,
            start_deadline,
            stop_deadline,
            drains_more,
            progress_deadline,
            bound,
        };
        (policy, placement)
    }
}

/// A child that can be started again and again.
pub(super) trait Definition {
    fn policy(&self) -> &Policy;
    fn vital(&self) -> &Arc<Vital>;
    /// Messages that wait for it.
    fn backlog(&self) -> u64;
    /// It never comes back: closes its inbox for good. Returns how many messages are abandoned with it.
    fn abandon(&self) -> u64;
    /// Starts an incarnation; whatever becomes of it is reported, nothing is returned or thrown.
    fn start(&mut self, report: Report) -> Box<dyn Incarnation>;
    /// Where a supervisor's shutdown is reported.
    fn share_report(&mut self, _report: &Rc<RefCell<ShutdownReport>>) {}
    /// Names the child and all below it, adds their records to the roll and checks the settings.
    fn enroll(
        &mut self,
        parent: &str,
        intensity: Intensity,
        roll: &mut Vec<Arc<Vital>>,
    ) -> Result<(), SettingsError> {
        self.policy().backoff.check(&self.policy().name, intensity)?;
        enroll_one(&self.policy().name, self.vital(), parent, roll)
    }
}

pub(super) fn enroll_one(
    name: &str,
    vital: &Arc<Vital>,
    parent: &str,
    roll: &mut Vec<Arc<Vital>>,
) -> Result<(), SettingsError> {
    let path = if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") };
    if roll.iter().any(|other| other.name() == path) {
        return Err(SettingsError::DuplicateName(path));
    }
    vital.enroll(path);
    roll.push(Arc::clone(vital));
    Ok(())
}

/// How a child is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// For a restart: the message in hand is finished, the others wait for the next incarnation.
    Halt,
    /// For good: the inbox is closed and drained.
    Drain,
}

/// A started child. Neither call waits, and neither can fail.
pub(super) trait Incarnation {
    /// Stops it in order; `overall` is when the whole tree will be cut off.
    fn stop(&self, how: Stop, overall: Option<Instant>);
    /// Fences it at once and lets it go; nothing that it reports afterwards counts.
    fn kill(&self);
    /// Whether its thread has begun to make it.
    fn is_born(&self) -> bool {
        true
    }
}

/// What a supervisor hears from its children.
pub(super) enum Event {
    Ready { child: usize, incarnation: u64 },
    Ended { child: usize, incarnation: u64, exit: Exit },
}

/// A child's line to its supervisor. The queue is bounded by what may go over it: two events an
/// incarnation.
#[derive(Clone)]
pub(super) struct Report {
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) child: usize,
    pub(super) incarnation: u64,
}

impl Report {
    // A supervisor that is gone has no use for the news.
    pub(super) fn ready(&self) {
        let _gone = self.events.send(Event::Ready { child: self.child, incarnation: self.incarnation });
    }

    pub(super) fn ended(&self, exit: Exit) {
        let _gone = self.events.send(Event::Ended { child: self.child, incarnation: self.incarnation, exit });
    }
}

/// Reports that an incarnation is ready.
pub(super) struct Ready(pub(super) Report);

impl Ready {
    pub(super) fn report(self) {
        self.0.ready();
    }
}
