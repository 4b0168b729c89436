//! What is known of a destination; it outlives the actor's incarnations.

use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Serialize, Serializer};
use tokio::sync::watch;

use super::{
    state::DestinationState,
    verdict::{Kind, Verdict},
};

/// The shared status of one destination.
#[derive(Debug)]
pub struct DestinationStatus {
    name: String,
    status: Mutex<StatusSnapshot>,
    changes: watch::Sender<u64>,
}

/// A destination's status at one moment, as `/stats` shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StatusSnapshot {
    /// What it is doing.
    pub state: DestinationState,
    /// Why it is not healthy; nothing where it is.
    pub reason: Option<String>,
    /// The newest failure, or the newest words of a partial success.
    pub last_error: Option<LastError>,
    /// When the destination last acknowledged a request, in seconds since the Unix epoch.
    pub last_success: Option<u64>,
    /// Failures that were no request's: connections that did not come about, and exporters that began anew.
    pub connect_failures: u64,
    /// Requests that had to be repeated as they were.
    pub retries: u64,
    /// Requests in flight.
    pub in_flight: usize,
    /// Requests by what came of them.
    pub requests: Requests,
    /// Bytes of the requests' bodies, after compression; of failed ones too.
    pub bytes_sent: u64,
}

/// The newest failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastError {
    /// The destination's words or ours, cut at 256 bytes.
    pub message: String,
    /// Seconds since the Unix epoch.
    pub at: u64,
}

/// Counts of requests by result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests([u64; Kind::ALL.len()]);

impl Requests {
    /// Requests with this result.
    pub fn get(&self, kind: Kind) -> u64 {
        self.0.get(kind as usize).copied().unwrap_or_default()
    }

    fn add(&mut self, kind: Kind) {
        if let Some(count) = self.0.get_mut(kind as usize) {
            *count += 1;
        }
    }
}

impl Serialize for Requests {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Kind::ALL.into_iter().map(|kind| (kind.label(), self.get(kind))))
    }
}

impl DestinationStatus {
    /// The status of a destination that nothing has been sent to.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), status: Mutex::default(), changes: watch::Sender::new(0) }
    }

    /// The destination's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The status at this moment.
    pub fn snapshot(&self) -> StatusSnapshot {
        self.status.lock().clone()
    }

    /// Waits until `reached` holds; it is looked at after each change.
    pub async fn until(&self, mut reached: impl FnMut(&StatusSnapshot) -> bool) {
        let mut changes = self.changes.subscribe();
        while !reached(&self.snapshot()) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut StatusSnapshot) -> T) -> T {
        let result = change(&mut self.status.lock());
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
        result
    }

    /// A request came to its end.
    pub(super) fn requested(&self, verdict: &Verdict, bytes: u64) {
        let (at, kind) = (unix_seconds(), verdict.kind());
        let error = verdict.message().map(|message| LastError { message: message.to_owned(), at });
        self.change(|status| {
            status.requests.add(kind);
            status.bytes_sent += bytes;
            if error.is_some() {
                status.last_error = error;
            }
            if matches!(kind, Kind::Success | Kind::Partial) {
                status.last_success = Some(at);
            }
        });
    }

    /// Something failed that was no request.
    pub(super) fn failed(&self, message: &str) {
        let error = LastError { message: super::verdict::cut(message), at: unix_seconds() };
        self.change(|status| {
            status.last_error = Some(error);
            status.connect_failures += 1;
        });
    }

    /// A batch will be sent again.
    pub(super) fn retried(&self) {
        self.change(|status| status.retries += 1);
    }

    /// Where the actor stands. Returns the state before.
    pub(super) fn stands(&self, state: DestinationState, in_flight: usize) -> DestinationState {
        {
            let status = self.status.lock();
            if (status.state, status.in_flight) == (state, in_flight) {
                return state;
            }
        }
        self.change(|status| {
            status.in_flight = in_flight;
            let before = std::mem::replace(&mut status.state, state);
            if before != state {
                status.reason = match state.is_healthy() {
                    true => None,
                    false => status.last_error.as_ref().map(|error| error.message.clone()),
                };
            }
            before
        })
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
