//! One child in its supervisor's list.

use std::{cell::RefCell, sync::Arc};

use tokio::{sync::mpsc, time::Instant};
use tracing::{debug, warn};

use super::{
    changes::Change,
    child::{Definition, Event, Incarnation, Policy, Report, Stop},
    failure::{Failure, FailureCause},
    progress::Progress,
    record::ChildState,
    running::ShutdownReport,
    settings::{Restart, after},
};

/// Where a child is.
pub(super) enum State {
    Down,
    Starting { run: Box<dyn Incarnation>, deadline: Instant },
    Up { run: Box<dyn Incarnation>, since: Instant, progress: Progress },
    BackingOff { until: Instant },
    Stopping { run: Box<dyn Incarnation>, deadline: Instant },
}

/// A child in its place among its supervisor's.
pub(super) struct Slot {
    /// By which its reports find it, wherever it stands.
    pub(super) key: usize,
    pub(super) child: Box<dyn Definition>,
    pub(super) state: State,
    pub(super) incarnation: u64,
    /// Backoffs since the last stable uptime.
    pub(super) attempt: u32,
    /// Whether it is to be up.
    pub(super) wanted: bool,
    /// Whether the gated ones behind it wait until it is ready.
    pub(super) gated: bool,
    pub(super) halt: Option<Stop>,
    /// It had its one incarnation for draining what a crash left behind.
    pub(super) last_go: bool,
    /// Its last incarnation stopped as it was told to: it has finished.
    pub(super) finished: bool,
    /// Its inbox is closed and abandoned; it never comes back.
    pub(super) over: bool,
    /// It is about to come, or to go.
    pub(super) change: Option<Change>,
    /// When it ended on its own, until its next incarnation is ready, and the last failure by then.
    pub(super) down_since: Option<(Instant, Option<Arc<Failure>>)>,
}

impl Slot {
    pub(super) fn new(key: usize, child: Box<dyn Definition>) -> Self {
        Self {
            key,
            child,
            state: State::Down,
            incarnation: 0,
            attempt: 0,
            wanted: false,
            gated: false,
            halt: None,
            last_go: false,
            finished: false,
            over: false,
            change: None,
            down_since: None,
        }
    }

    /// Its supervisor starts; a child that is over stays so.
    pub(super) fn begin(&mut self) {
        self.kill();
        self.attempt = 0;
        self.wanted = !self.over;
        self.gated = self.wanted;
        self.halt = None;
        self.last_go = false;
    }

    /// Starts the next incarnation.
    pub(super) fn start(&mut self, events: &mpsc::UnboundedSender<Event>) -> Box<dyn Incarnation> {
        self.finished = false;
        self.incarnation = self.child.vital().next_incarnation();
        self.child.start(Report { events: events.clone(), child: self.key, incarnation: self.incarnation })
    }

    /// Takes the next step of stopping it, if it is to stop; whether it has not stopped yet. One that is down gets its last
    /// go where it `may` have one.
    pub(super) fn stop(
        &mut self,
        now: Instant,
        overall: Option<Instant>,
        report: Option<&RefCell<ShutdownReport>>,
        may_go_last: bool,
        events: &mpsc::UnboundedSender<Event>,
    ) -> bool {
        let Some(how) = self.halt else { return false };
        let run = match std::mem::replace(&mut self.state, State::Down) {
            stopping @ State::Stopping { .. } => {
                self.state = stopping;
                return true;
            }
            State::Starting { run, .. } | State::Up { run, .. } => run,
            State::Down | State::BackingOff { .. } => {
                if how == Stop::Halt || !may_go_last || !self.deserves_last_go() {
                    self.stopped(how, report);
                    return false;
                }
                self.last_go = true;
                self.start(events)
            }
        };
        debug!(child = self.name(), "stopping");
        run.stop(how, overall);
        self.child.vital().set_state(ChildState::Stopping);
        self.state = State::Stopping { run, deadline: after(now, self.policy().stop_deadline) };
        true
    }

    pub(super) fn policy(&self) -> &Policy {
        self.child.policy()
    }

    pub(super) fn name(&self) -> &str {
        self.child.vital().name()
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(self.state, State::Down | State::BackingOff { .. })
    }

    /// It will not come back: senders are told, what waits is abandoned.
    pub(super) fn bury(&mut self, report: Option<&RefCell<ShutdownReport>>) {
        self.state = State::Down;
        self.wanted = false;
        self.gated = false;
        self.halt = None;
        self.child.vital().set_state(ChildState::Stopped);
        if !self.over {
            self.over = true;
            let abandoned = self.child.abandon();
            if let Some(report) = report {
                report.borrow_mut().abandoned += abandoned;
            }
        }
    }

    /// It stopped as it was told to.
    pub(super) fn stopped(&mut self, how: Stop, report: Option<&RefCell<ShutdownReport>>) {
        debug!(child = self.name(), "stopped");
        self.halt = None;
        if how == Stop::Drain {
            return self.bury(report);
        }
        let state = if self.wanted { ChildState::Waiting } else { ChildState::Stopped };
        self.child.vital().set_state(state);
    }

    /// It crashed, or was about to be restarted, and messages or other work wait: one more incarnation may
    /// finish before they are abandoned.
    pub(super) fn deserves_last_go(&self) -> bool {
        let restarts = self.policy().restart != Restart::Temporary;
        let work = (self.policy().drains_more && !self.finished) || self.child.backlog() > 0;
        restarts && !self.last_go && !self.over && work
    }

    /// Lets its incarnation go, if there is one.
    pub(super) fn kill(&mut self) -> bool {
        match std::mem::replace(&mut self.state, State::Down) {
            State::Starting { run, .. } | State::Up { run, .. } | State::Stopping { run, .. } => {
                run.kill();
                true
            }
            State::Down | State::BackingOff { .. } => false,
        }
    }

    /// When to look at its progress.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.child.vital().gate().and(self.policy().progress_deadline)?;
        match &self.state {
            State::Up { progress, .. } => Some(progress.next()),
            State::Down | State::Starting { .. } | State::BackingOff { .. } | State::Stopping { .. } => None,
        }
    }

    /// Looks at its progress: the failure of one that is stuck.
    pub(super) fn look(&mut self, now: Instant) -> Option<Failure> {
        let limit = self.policy().progress_deadline?;
        let gate = self.child.vital().gate()?;
        let State::Up { progress, .. } = &mut self.state else { return None };
        let standing = gate.standing();
        if progress.next() > now || !progress.look(now, limit, standing) {
            return None;
        }
        let in_hand = gate.forfeit(self.incarnation);
        let message = format!("handled nothing for {limit:?} while {} messages waited", standing.waiting);
        Some(Failure::new(FailureCause::Stuck, message).with_message_type(in_hand))
    }

    /// No restart can work, because of the one arbiter that it may live on.
    pub(super) fn is_hopeless(&self, failure: Option<&Failure>) -> bool {
        let cause = failure.map(|failure| failure.cause);
        self.policy().bound && matches!(cause, Some(FailureCause::ArbiterGone | FailureCause::ArbiterBlocked))
    }

    /// Its incarnation was not ready in time.
    pub(super) fn not_ready(&self) -> Failure {
        let limit = self.policy().start_deadline;
        match &self.state {
            State::Starting { run, .. } if !run.is_born() => {
                let message = format!("its arbiter took no start within {limit:?}");
                Failure::new(FailureCause::ArbiterBlocked, message)
            }
            _ => Failure::new(FailureCause::NotReady, format!("not ready within {limit:?}")),
        }
    }

    /// Notes and logs a failure, and what comes next.
    pub(super) fn fail(&self, failure: &Arc<Failure>, next: &str) {
        let vital = self.child.vital();
        vital.failed(failure);
        warn!(
            child = vital.name(),
            cause = ?failure.cause,
            location = failure.location.as_deref().unwrap_or("-"),
            message_type = failure.message_type.as_deref().unwrap_or("-"),
            restarts = vital.restarts(),
            next,
            "{}",
            failure.message
        );
    }
}
