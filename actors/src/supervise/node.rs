//! The state of one supervisor: what each child does, and what has to be done next.
//!
//! ```text
//!            start            ready             failure, restart allowed
//!  Waiting ─────────► Starting ─────► Up ───────────────────────────► BackingOff ──► Starting …
//!                        │  │          │ stop                              │
//!                        │  └──────────┴────────► Stopping ──► Down        │ stop
//!                        │ deadline: fenced          │ deadline: fenced    ▼
//!                        ▼                           ▼                   Down
//!                    BackingOff                    Down
//! ```
//!
//! Nothing here waits: a supervisor hears an event, an order or a timer, changes the state, and
//! [`Node::step`] then starts and stops whatever the state calls for. Children marked `gated` start one
//! after the other, each when those before it are ready (a first start, a restart of several); children
//! marked `halt` stop one after the other, the last one first.

use std::{cell::RefCell, collections::VecDeque, rc::Rc, sync::Arc};

use tokio::{sync::mpsc, time::Instant};
use tracing::{debug, info, warn};

use super::{
    changes::{Change, Roll},
    child::{Definition, Event, Stop},
    failure::{Failure, FailureCause},
    monitor::Exit,
    progress::Progress,
    record::ChildState,
    running::ShutdownReport,
    settings::{Intensity, OnRestart, Restart, Restarted, Strategy, after},
    slot::{Slot, State},
};

/// What a supervisor has come to.
#[derive(Clone)]
pub(super) enum Phase {
    /// Its children are started for the first time.
    Starting,
    /// All its children were ready once.
    Running,
    /// The root gave up: it restarts nobody any more, the others go on until they are shut down.
    Escalated { failure: Arc<Failure> },
    /// It stops its children; with a failure it was not told to.
    Leaving { how: Stop, failure: Option<Arc<Failure>>, overall: Option<Instant> },
    /// All its children are down.
    Left { failure: Option<Arc<Failure>> },
}

/// One supervisor's children and what it has come to.
pub(super) struct Node {
    name: String,
    root: bool,
    strategy: Strategy,
    pub(super) intensity: Intensity,
    pub(super) slots: Vec<Slot>,
    /// Of the next child.
    pub(super) next_key: usize,
    /// The tree's records, if this is its root.
    pub(super) roll: Roll,
    pub(super) phase: Phase,
    /// When children failed, within the window.
    failures: VecDeque<Instant>,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) shutdown: Rc<RefCell<ShutdownReport>>,
    /// Who is told of restarts.
    on_restart: Option<OnRestart>,
    /// How often it was started; an older loop that still runs has nothing to say.
    generation: u64,
}

impl Node {
    pub(super) fn new(
        name: String,
        strategy: Strategy,
        intensity: Intensity,
        children: Vec<Box<dyn Definition>>,
    ) -> Self {
        let slots: Vec<_> =
            children.into_iter().enumerate().map(|(key, child)| Slot::new(key, child)).collect();
        Self {
            name,
            root: false,
            strategy,
            intensity,
            next_key: slots.len(),
            slots,
            roll: Roll::default(),
            phase: Phase::Left { failure: None },
            failures: VecDeque::new(),
            events: mpsc::unbounded_channel().0,
            shutdown: Rc::default(),
            on_restart: None,
            generation: 0,
        }
    }

    pub(super) fn children(&mut self) -> impl Iterator<Item = &mut Box<dyn Definition>> {
        self.slots.iter_mut().map(|slot| &mut slot.child)
    }

    pub(super) fn intensity(&self) -> Intensity {
        self.intensity
    }

    pub(super) fn tell_of_restarts(&mut self, on_restart: Option<OnRestart>) {
        self.on_restart = on_restart;
    }

    pub(super) fn set_root(&mut self, roll: Roll) {
        self.root = true;
        self.roll = roll;
    }

    pub(super) fn share_report(&mut self, report: &Rc<RefCell<ShutdownReport>>) {
        self.shutdown = Rc::clone(report);
        for slot in &mut self.slots {
            slot.child.share_report(report);
        }
    }

    /// Messages that wait for children.
    pub(super) fn backlog(&self) -> u64 {
        self.slots.iter().map(|slot| slot.child.backlog()).sum()
    }

    /// All children are over: what waits for them is abandoned.
    pub(super) fn bury_all(&mut self) {
        for slot in self.slots.iter_mut().rev() {
            slot.kill();
            slot.bury(Some(&self.shutdown));
        }
    }

    pub(super) fn phase(&self) -> &Phase {
        &self.phase
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Begins anew with all children that are not over.
    pub(super) fn begin(&mut self) -> (u64, mpsc::UnboundedReceiver<Event>) {
        let (events, receiver) = mpsc::unbounded_channel();
        self.events = events;
        self.generation += 1;
        self.phase = Phase::Starting;
        self.failures.clear();
        self.slots.iter_mut().for_each(Slot::begin);
        (self.generation, receiver)
    }

    /// When there is something to do next, if no event comes before; `now` is that of the last step.
    pub(super) fn next_timer(&self, now: Instant) -> Option<Instant> {
        let overall = match self.phase {
            Phase::Leaving { overall, .. } => overall,
            Phase::Starting | Phase::Running | Phase::Escalated { .. } | Phase::Left { .. } => None,
        };
        let looks = self.slots.iter().filter_map(Slot::next_look);
        let timers = self.slots.iter().filter_map(|slot| match slot.state {
            State::Starting { deadline, .. } | State::Stopping { deadline, .. } => Some(deadline),
            // One that is over waits for its gate or for a neighbour to stop, not for time.
            State::BackingOff { until } => (slot.wanted && until > now).then_some(until),
            State::Down | State::Up { .. } => None,
        });
        timers.chain(looks).chain(overall).min()
    }

    /// Stops all children in reverse order.
    pub(super) fn leave(&mut self, how: Stop, overall: Option<Instant>) {
        match &mut self.phase {
            Phase::Left { .. } => return,
            // It is leaving for a restart, and now is to stop for good.
            Phase::Leaving { how: before, overall: cut, .. } => {
                *cut = [*cut, overall].into_iter().flatten().min();
                if *before == how || how == Stop::Halt {
                    return;
                }
                *before = how;
            }
            Phase::Starting | Phase::Running | Phase::Escalated { .. } => {
                self.phase = Phase::Leaving { how, failure: None, overall };
            }
        }
        self.halt_all(how);
    }

    fn leave_failed(&mut self, failure: Arc<Failure>) {
        let how = if self.root { Stop::Drain } else { Stop::Halt };
        self.phase = Phase::Leaving { how, failure: Some(failure), overall: None };
        self.halt_all(how);
    }

    fn halt_all(&mut self, how: Stop) {
        for slot in &mut self.slots {
            slot.halt = Some(how);
            slot.wanted = false;
        }
    }

    /// Lets everything go at once: the overall deadline is over, or the supervisor itself is.
    pub(super) fn kill_all(&mut self) {
        let (drain, failure) = match &self.phase {
            Phase::Leaving { how, failure, .. } => (*how == Stop::Drain, failure.clone()),
            Phase::Left { .. } => return,
            Phase::Starting | Phase::Running | Phase::Escalated { .. } => (self.root, None),
        };
        for slot in self.slots.iter_mut().rev() {
            if slot.kill() {
                let failure = Arc::new(Failure::new(FailureCause::GivenUp, "killed with its supervisor"));
                slot.fail(&failure, "none");
                if drain {
                    self.shutdown.borrow_mut().given_up.push(slot.name().to_owned());
                }
            }
            if drain {
                slot.bury(Some(&self.shutdown));
            }
        }
        self.phase = Phase::Left { failure };
    }

    /// A child reports.
    pub(super) fn hear(&mut self, event: Event) {
        let (Event::Ready { child: key, .. } | Event::Ended { child: key, .. }) = event;
        // One that has gone has nothing to say any more.
        let Some(child) = self.slots.iter().position(|slot| slot.key == key) else { return };
        match event {
            Event::Ready { incarnation, .. } => self.ready(child, incarnation),
            Event::Ended { incarnation, exit, .. } => self.ended(child, incarnation, exit),
        }
    }

    fn ready(&mut self, child: usize, incarnation: u64) {
        let Some(slot) = self.slots.get_mut(child) else { return };
        if slot.incarnation != incarnation || !matches!(slot.state, State::Starting { .. }) {
            return;
        }
        if let State::Starting { run, .. } = std::mem::replace(&mut slot.state, State::Down) {
            let since = Instant::now();
            let progress = Progress::new(since, slot.policy().progress_deadline);
            slot.state = State::Up { run, since, progress };
            slot.gated = false;
            slot.has_come();
            slot.child.vital().set_state(ChildState::Running);
            // The first is as expected; a later one ends what a warning began.
            match incarnation {
                1 => debug!(child = slot.name(), incarnation, "ready"),
                _ => info!(child = slot.name(), incarnation, "ready again"),
            }
            if let (Some((down, failure)), Some(tell)) = (slot.down_since.take(), &self.on_restart) {
                let lasted = since - down;
                tell(&Restarted { child: slot.name(), incarnation, lasted, failure: failure.as_deref() });
            }
        }
    }

    fn ended(&mut self, child: usize, incarnation: u64, exit: Exit) {
        let Some(slot) = self.slots.get_mut(child) else { return };
        if slot.incarnation != incarnation || slot.is_down() {
            return;
        }
        let failure = match exit {
            Exit::Normal | Exit::Killed => None,
            Exit::Failed(failure) => Some(Arc::new(failure)),
        };
        match std::mem::replace(&mut slot.state, State::Down) {
            State::Stopping { .. } => {
                slot.finished = failure.is_none();
                if let Some(failure) = &failure {
                    slot.fail(failure, "none");
                }
            }
            State::Starting { .. } => self.gone(child, None, failure),
            State::Up { since, .. } => self.gone(child, Some(since), failure),
            State::Down | State::BackingOff { .. } => {}
        }
    }

    /// A child ended on its own.
    fn gone(&mut self, child: usize, since: Option<Instant>, failure: Option<Arc<Failure>>) {
        let now = Instant::now();
        let Some(slot) = self.slots.get_mut(child) else { return };
        let again = match slot.policy().restart {
            Restart::Permanent => true,
            Restart::Transient => failure.is_some(),
            Restart::Temporary => false,
        };
        match &self.phase {
            Phase::Leaving { .. } => {
                if let Some(failure) = &failure {
                    slot.fail(failure, "none");
                }
                return;
            }
            Phase::Escalated { .. } if again => {
                if let Some(failure) = &failure {
                    slot.fail(failure, "none");
                }
                return slot.child.vital().set_state(ChildState::Stopped);
            }
            Phase::Starting if slot.gated && since.is_none() && (again || failure.is_some()) => {
                let failure = failure.unwrap_or_else(stopped_before_ready);
                slot.fail(&failure, "none");
                return self.leave_failed(failure_of_start(&self.slots, child, &failure));
            }
            Phase::Starting | Phase::Running | Phase::Escalated { .. } | Phase::Left { .. } => {}
        }
        if since.is_none() && slot.change.is_some() {
            let failure = failure.clone().unwrap_or_else(stopped_before_ready);
            if self.turn_away(child, &failure) {
                return;
            }
        }
        let Some(slot) = self.slots.get_mut(child) else { return };
        if !again {
            match &failure {
                Some(failure) => slot.fail(failure, "none"),
                None => info!(child = slot.name(), "ended"),
            }
            return slot.bury(None);
        }
        let hopeless = since.is_none() && slot.is_hopeless(failure.as_deref());
        if hopeless {
            let name = slot.name().to_owned();
            return self.escalate(child, failure, |last| format!("{name} cannot be restarted: {last}"));
        }
        if since.is_some_and(|since| now - since >= slot.policy().backoff.reset_after()) {
            slot.attempt = 0;
        }
        let wait = slot.policy().backoff.wait(slot.attempt, rand::random());
        let bearable = self.failures_bearable(now);
        let Some(slot) = self.slots.get_mut(child) else { return };
        if !bearable {
            let (name, Intensity { max_restarts, window }) = (slot.name().to_owned(), self.intensity);
            return self.escalate(child, failure, |last| {
                format!("more than {max_restarts} restarts within {window:?}, last of {name}: {last}")
            });
        }
        match &failure {
            Some(failure) => slot.fail(failure, &format!("restart in {wait:?}")),
            None => warn!(child = slot.name(), next = ?wait, "stopped by itself, though it is permanent"),
        }
        slot.attempt = slot.attempt.saturating_add(1);
        let down = slot.down_since.take().map_or(now, |(down, _)| down);
        slot.down_since = Some((down, failure));
        slot.state = State::BackingOff { until: after(now, wait) };
        slot.child.vital().set_state(ChildState::BackingOff);
        self.take_along(child);
    }

    fn failures_bearable(&mut self, now: Instant) -> bool {
        let window = self.intensity.window;
        while self.failures.pop_front_if(|at| now - *at >= window).is_some() {}
        if self.failures.len() >= self.intensity.max_restarts as usize {
            return false;
        }
        self.failures.push_back(now);
        true
    }

    fn escalate(&mut self, child: usize, failure: Option<Arc<Failure>>, why: impl FnOnce(&str) -> String) {
        let Some(slot) = self.slots.get_mut(child) else { return };
        if let Some(failure) = &failure {
            slot.fail(failure, "escalation");
        }
        slot.wanted = false;
        slot.child.vital().set_state(ChildState::Stopped);
        let last = failure.map_or_else(|| "stopped by itself".to_owned(), |failure| failure.to_string());
        let escalation = Arc::new(Failure::new(FailureCause::Escalated, why(&last)));
        warn!(supervisor = self.name, "{}", escalation.message);
        // Before all its children were ready once, the root's start has failed.
        if self.root && !matches!(self.phase, Phase::Starting) {
            self.phase = Phase::Escalated { failure: escalation };
            for slot in &mut self.slots {
                slot.wanted = false;
                if slot.is_down() {
                    slot.child.vital().set_state(ChildState::Stopped);
                }
            }
        } else {
            self.leave_failed(escalation);
        }
    }

    /// Those who are restarted with a child that failed.
    fn take_along(&mut self, child: usize) {
        let from = match self.strategy {
            Strategy::OneForOne => return,
            Strategy::RestForOne => child,
            Strategy::OneForAll => 0,
        };
        for (index, slot) in self.slots.iter_mut().enumerate().skip(from) {
            if slot.over || slot.is_going() {
                continue;
            }
            slot.gated = true;
            if index != child && !slot.is_down() {
                let comes_back = slot.policy().restart != Restart::Temporary;
                slot.halt = Some(if comes_back { Stop::Halt } else { Stop::Drain });
                slot.wanted = comes_back;
            }
        }
    }

    /// Timers: deadlines of children, and that of the whole.
    pub(super) fn tick(&mut self, now: Instant) {
        if matches!(&self.phase, Phase::Leaving { overall: Some(overall), .. } if *overall <= now) {
            return self.kill_all();
        }
        for child in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(child) else { return };
            match &slot.state {
                State::Starting { deadline, .. } if *deadline <= now => {
                    let failure = slot.not_ready();
                    slot.kill();
                    self.gone(child, None, Some(Arc::new(failure)));
                }
                State::Stopping { deadline, .. } if *deadline <= now => {
                    slot.kill();
                    let limit = slot.policy().stop_deadline;
                    let failure =
                        Failure::new(FailureCause::GivenUp, format!("did not stop within {limit:?}"));
                    slot.fail(&Arc::new(failure), "none");
                    slot.last_go = true;
                    if let Some(Change::Going { given_up, .. }) = &mut slot.change {
                        *given_up = true;
                    }
                    if matches!(self.phase, Phase::Leaving { .. }) {
                        self.shutdown.borrow_mut().given_up.push(slot.name().to_owned());
                    }
                }
                State::Up { since, .. } => {
                    let since = *since;
                    if let Some(failure) = slot.look(now) {
                        slot.kill();
                        self.gone(child, Some(since), Some(Arc::new(failure)));
                    }
                }
                _ => {}
            }
        }
    }

    /// Starts and stops what the state calls for.
    pub(super) fn step(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Running | Phase::Escalated { .. }) {
            self.let_go(now);
        }
        if matches!(self.phase, Phase::Left { .. }) || self.stop_next(now) {
            return;
        }
        if let Phase::Leaving { failure, .. } = &self.phase {
            self.phase = Phase::Left { failure: failure.clone() };
            return;
        }
        self.start_next(now);
        if matches!(self.phase, Phase::Starting) && !self.slots.iter().any(|slot| slot.gated) {
            self.phase = Phase::Running;
        }
    }

    /// Stops the last of those that are to stop; whether there is one that has not stopped yet.
    fn stop_next(&mut self, now: Instant) -> bool {
        let (report, overall, failed) = match &self.phase {
            Phase::Leaving { overall, failure, .. } => (Some(&*self.shutdown), *overall, failure.is_some()),
            Phase::Starting | Phase::Running | Phase::Escalated { .. } | Phase::Left { .. } => {
                (None, None, false)
            }
        };
        let leaves = report.is_some();
        // Those that go on their own hold nobody up.
        let to_stop = self.slots.iter_mut().rev().filter(|slot| leaves || !slot.is_going());
        for slot in to_stop {
            if slot.stop(now, overall, report, !failed, &self.events) {
                return true;
            }
        }
        false
    }

    fn start_next(&mut self, now: Instant) {
        let mut gate_closed = false;
        for slot in &mut self.slots {
            let due = match slot.state {
                State::Down => slot.wanted,
                State::BackingOff { until } => slot.wanted && until <= now,
                State::Starting { .. } | State::Up { .. } | State::Stopping { .. } => false,
            };
            if due && !(slot.gated && gate_closed) {
                let run = slot.start(&self.events);
                slot.state = State::Starting { run, deadline: after(now, slot.policy().start_deadline) };
            }
            gate_closed |= slot.gated;
        }
    }
}

fn stopped_before_ready() -> Arc<Failure> {
    Arc::new(Failure::new(FailureCause::Failed, "stopped before it was ready"))
}

fn failure_of_start(slots: &[Slot], child: usize, failure: &Failure) -> Arc<Failure> {
    let name = slots.get(child).map_or("", Slot::name);
    let mut failure = failure.clone();
    failure.message = format!("child {name}: {}", failure.message);
    Arc::new(failure)
}

impl Drop for Node {
    // The core's thread ends: children on other threads are not to go on without a supervisor.
    fn drop(&mut self) {
        for slot in &mut self.slots {
            slot.kill();
        }
    }
}
