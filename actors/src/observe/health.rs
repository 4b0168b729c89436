//! `/health`: what is wrong at this moment.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::time::Instant;

use super::{Observed, Phase};
use crate::{export::StatusSnapshot, supervise::ChildState};

/// The body of `/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// One line: `ok`, `degraded: …`, `starting`, `stopping: accepting for another …s` or `stopping`.
    pub status: String,
    /// Whether spans are accepted, and will be.
    pub ready: bool,
    /// What is wrong, a sentence each.
    pub reasons: Vec<String>,
}

impl Observed {
    /// The body of `/health`.
    pub fn health(&self) -> Health {
        let log = self.log.troubles().into_iter();
        let metrics = self.red.iter().flat_map(|red| red.troubles());
        let reasons: Vec<_> = log
            .chain(self.sick_destinations())
            .chain(metrics)
            .chain(self.sick_actors())
            .chain(self.expired_certificates())
            .chain(self.not_reloaded())
            .collect();
        let (status, ready) = match self.phase() {
            Phase::Starting => ("starting".to_owned(), false),
            Phase::Draining => {
                let left = self.drains_until.get().map(|until| until.duration_since(Instant::now()));
                let seconds = left.unwrap_or_default().as_millis().div_ceil(1_000);
                (format!("stopping: accepting for another {seconds}s"), false)
            }
            Phase::Stopping => ("stopping".to_owned(), false),
            Phase::Running if reasons.is_empty() => ("ok".to_owned(), true),
            Phase::Running => (format!("degraded: {}", reasons.join("; ")), true),
        };
        Health { status, ready, reasons }
    }

    fn not_reloaded(&self) -> Option<String> {
        let failure = self.reloads.lock().last_failure.clone()?;
        Some(format!("the configuration was not reloaded: {failure}"))
    }

    fn sick_destinations(&self) -> impl Iterator<Item = String> {
        self.destinations().filter_map(|(name, destination)| {
            let StatusSnapshot { state, reason, .. } = destination.status;
            let state_is = state.label();
            match reason {
                _ if state.is_healthy() => None,
                Some(reason) => Some(format!("{name} {state_is} ({reason})")),
                None => Some(format!("{name} {state_is}")),
            }
        })
    }

    fn expired_certificates(&self) -> impl Iterator<Item = String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.doors.iter().filter_map(move |door| {
            let expires = door.tls.as_ref()?.stats().certificate_expires?;
            (expires < now).then(|| format!("the certificate of the door {} has expired", door.name))
        })
    }

    fn sick_actors(&self) -> impl Iterator<Item = String> {
        self.records().into_iter().filter_map(|record| match record.state {
            ChildState::Running | ChildState::Waiting => None,
            ChildState::Starting => Some(format!("actor {} is starting", record.name)),
            ChildState::BackingOff => Some(format!("actor {} failed and will be restarted", record.name)),
            ChildState::Stopping => Some(format!("actor {} is stopping", record.name)),
            ChildState::Stopped => Some(format!("actor {} has stopped", record.name)),
        })
    }
}
