//! Children that come and go while their supervisor runs.
//!
//! One that comes gets a place in the order, and is from then on a child like any other: of the same strategy, and its failures
//! count with theirs. Until it was ready once it is on trial: if it fails before, it is out again, as at the start of a tree.
//! One that goes is stopped as at a shutdown, within its own deadline, and then forgotten; the others go on meanwhile.

use std::{cell::RefCell, sync::Arc};

use parking_lot::Mutex;
use thiserror::Error;
use tokio::{sync::oneshot, time::Instant};

use super::{
    child::{Definition, Stop},
    failure::Failure,
    node::{Node, Phase},
    record::{ChildState, Vital},
    running::ShutdownReport,
    settings::SettingsError,
    slot::Slot,
};

/// A child did not come, or did not go.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChildError {
    /// Its settings make no sense, or its name is taken.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// It failed before it was ready for the first time, and is gone again.
    #[error("{0}")]
    Start(Arc<Failure>),
    /// There is no child of this name, or it is on its way out already.
    #[error("there is no child {0}")]
    Unknown(String),
    /// The supervisor stops, or has given up.
    #[error("the supervisor is stopping")]
    Stopping,
}

/// The records of a tree's children, in their order.
pub(super) type Roll = Arc<Mutex<Vec<Arc<Vital>>>>;

/// Told what became of a child that was to come.
pub(super) type Came = oneshot::Sender<Result<(), ChildError>>;
/// Told what became of a child that was to go.
pub(super) type Went = oneshot::Sender<Result<ShutdownReport, ChildError>>;

/// What is under way with a child while its supervisor runs.
pub(super) enum Change {
    /// It has come, and was not ready yet.
    Coming(Came),
    /// It is to go.
    Going {
        went: Went,
        /// It did not stop within its deadline.
        given_up: bool,
    },
}

impl Slot {
    pub(super) fn is_going(&self) -> bool {
        matches!(self.change, Some(Change::Going { .. }))
    }

    /// It is ready: it has come for good.
    pub(super) fn has_come(&mut self) {
        match self.change.take() {
            Some(Change::Coming(came)) => drop(came.send(Ok(()))),
            other => self.change = other,
        }
    }
}

impl Node {
    /// Takes a child in, in front of the one named `before`.
    pub(super) fn add(&mut self, child: Box<dyn Definition>, before: &str, came: Came) {
        match self.take_in(child, before) {
            Ok(slot) => slot.change = Some(Change::Coming(came)),
            // Who asked may be gone.
            Err(error) => drop(came.send(Err(error))),
        }
    }

    fn take_in(&mut self, mut child: Box<dyn Definition>, before: &str) -> Result<&mut Slot, ChildError> {
        if !matches!(self.phase, Phase::Running) {
            return Err(ChildError::Stopping);
        }
        let at = self.slots.iter().position(|slot| slot.name() == before);
        let at = at.ok_or_else(|| ChildError::Unknown(before.to_owned()))?;
        {
            let mut roll = self.roll.lock();
            child.enroll("", self.intensity, &mut roll)?;
            // It is behind all others now, and belongs where its place is.
            let place = roll.iter().position(|vital| vital.name() == before).unwrap_or(roll.len());
            if let Some(vital) = roll.pop() {
                roll.insert(place, vital);
            }
        }
        child.share_report(&self.shutdown);
        let mut slot = Slot::new(self.next_key, child);
        self.next_key += 1;
        slot.wanted = true;
        self.slots.insert(at, slot);
        self.slots.get_mut(at).ok_or(ChildError::Stopping)
    }

    /// Lets the child of this name go.
    pub(super) fn remove(&mut self, name: &str, went: Went) {
        let is_free = |slot: &&mut Slot| slot.name() == name && slot.change.is_none();
        let error = if !matches!(self.phase, Phase::Running) {
            ChildError::Stopping
        } else if let Some(slot) = self.slots.iter_mut().find(is_free) {
            slot.change = Some(Change::Going { went, given_up: false });
            slot.halt = Some(Stop::Drain);
            slot.wanted = false;
            return;
        } else {
            ChildError::Unknown(name.to_owned())
        };
        drop(went.send(Err(error)));
    }

    /// A child on trial failed: it is out again. False where it is not on trial.
    pub(super) fn turn_away(&mut self, child: usize, failure: &Arc<Failure>) -> bool {
        let Some(slot) = self.slots.get_mut(child) else { return false };
        match slot.change.take() {
            Some(Change::Coming(came)) => {
                slot.fail(failure, "none");
                slot.bury(None);
                self.forget(child);
                drop(came.send(Err(ChildError::Start(Arc::clone(failure)))));
                true
            }
            other => {
                slot.change = other;
                false
            }
        }
    }

    /// Stops those that are to go, each on its own, and forgets those that have stopped.
    pub(super) fn let_go(&mut self, now: Instant) {
        let mut child = 0;
        while let Some(slot) = self.slots.get_mut(child) {
            let report = RefCell::default();
            if !slot.is_going() || slot.stop(now, None, Some(&report), true, &self.events) {
                child += 1;
                continue;
            }
            let mut report: ShutdownReport = report.into_inner();
            let (name, change) = (slot.name().to_owned(), slot.change.take());
            self.forget(child);
            if let Some(Change::Going { went, given_up }) = change {
                report.given_up.extend(given_up.then_some(name));
                drop(went.send(Ok(report)));
            }
        }
    }

    fn forget(&mut self, child: usize) {
        let slot = self.slots.remove(child);
        slot.child.vital().set_state(ChildState::Stopped);
        self.roll.lock().retain(|vital| !Arc::ptr_eq(vital, slot.child.vital()));
    }
}
