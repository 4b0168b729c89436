//! Conservation at the door: received = accepted + refused{reason} + pending, in requests and in bytes.
//!
//! Bytes are those of the encoded message as it came over the wire, before unpacking and without
//! framing; a request refused half-way counts with what had come of it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use parking_lot::Mutex;
use serde::Serialize;

use super::Reservation;
use crate::log::{Labelled, RejectReason, Settle, reasons};

reasons! {
    /// Why a request was not accepted.
    DoorReason {
        /// No room among the bytes in flight; the sender may try again.
        Admission => "admission",
        /// Larger than `ingest.max_request_bytes`, packed or unpacked.
        TooLarge => "too_large",
        /// No valid OTLP.
        Invalid => "invalid",
        /// A method, content type or encoding that this door does not serve.
        Unsupported => "unsupported",
        /// No token, or none of those that the doors ask for.
        Unauthenticated => "unauthenticated",
        /// The log had no room.
        LogFull => "log_full",
        /// The log could not write; the sender may try again.
        LogFailed => "log_failed",
        /// The collector did not take it in time.
        Overloaded => "overloaded",
        /// The daemon is on its way down.
        ShuttingDown => "shutting_down",
        /// Its sender gave up while it came, or its connection broke.
        Disconnected => "disconnected",
        /// Its body came too slowly, or stopped coming.
        SlowBody => "slow_body",
        /// An actor failed with it in hand, or its sender gave up before the collector had room.
        Lost => "lost",
        /// In-process: `ingest.in_process.max_bytes` of finished spans wait already.
        InProcessFull => "in_process_full",
        /// In-process: the connection has as many open spans as it may have.
        TooManyOpen => "too_many_open",
        /// In-process: the connection is closed.
        Closed => "closed",
    }
}

impl From<RejectReason> for DoorReason {
    fn from(reason: RejectReason) -> Self {
        match reason {
            RejectReason::LogFull => Self::LogFull,
            RejectReason::LogFailed => Self::LogFailed,
            RejectReason::Overloaded => Self::Overloaded,
            RejectReason::ShuttingDown => Self::ShuttingDown,
            RejectReason::Lost => Self::Lost,
            // Of single spans: a request that has others is accepted.
            RejectReason::InvalidId | RejectReason::NameTooLong | RejectReason::TooManyAttributes => {
                Self::Invalid
            }
        }
    }
}

/// A number of requests and of their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Requests.
    pub requests: u64,
    /// Bytes of their encoded messages.
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, requests: u64, bytes: u64) {
        self.requests += requests;
        self.bytes += bytes;
    }

    fn sub(&mut self, requests: u64, bytes: u64) {
        self.requests -= requests;
        self.bytes -= bytes;
    }
}

/// The request counts of one door.
#[derive(Debug, Default)]
pub struct DoorLedger(Mutex<DoorCounts>);

/// The door's ledger at one moment: `received = accepted + refused + pending`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DoorCounts {
    /// What came, whole or in part.
    pub received: Tally,
    /// What the log holds or held, and requests without a span.
    pub accepted: Tally,
    /// What is between its first byte and its answer.
    pub pending: Tally,
    refused: [Tally; DoorReason::ALL.len()],
}

impl DoorCounts {
    /// What was refused for this reason.
    pub fn refused(&self, reason: DoorReason) -> Tally {
        self.refused.get(reason as usize).copied().unwrap_or_default()
    }

    /// What was refused, whatever the reason.
    pub fn refused_total(&self) -> Tally {
        let mut sum = Tally::default();
        self.refused.iter().for_each(|tally| sum.add(tally.requests, tally.bytes));
        sum
    }

    /// Requests that have come with all their bytes; they are pending.
    pub(super) fn receive(&mut self, requests: u64, bytes: u64) {
        self.received.add(requests, bytes);
        self.pending.add(requests, bytes);
    }

    /// Pending requests that have their fate.
    pub(super) fn settle(&mut self, requests: u64, bytes: u64, fate: Result<(), DoorReason>) {
        self.pending.sub(requests, bytes);
        let tally = match fate {
            Ok(()) => Some(&mut self.accepted),
            Err(reason) => self.refused.get_mut(reason as usize),
        };
        if let Some(tally) = tally {
            tally.add(requests, bytes);
        }
    }

    /// Adds another door's counts.
    pub fn merge(&mut self, other: &Self) {
        let refused = self.refused.iter_mut().zip(&other.refused);
        let rest = [
            (&mut self.received, &other.received),
            (&mut self.accepted, &other.accepted),
            (&mut self.pending, &other.pending),
        ];
        for (mine, theirs) in rest.into_iter().chain(refused) {
            mine.add(theirs.requests, theirs.bytes);
        }
    }

    /// True if every request and every byte is accounted for.
    pub fn balances(&self) -> bool {
        let mut sum = self.refused_total();
        sum.add(self.accepted.requests, self.accepted.bytes);
        sum.add(self.pending.requests, self.pending.bytes);
        sum == self.received
    }
}

impl fmt::Debug for DoorCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("DoorCounts");
        out.field("received", &self.received).field("accepted", &self.accepted);
        for &reason in DoorReason::ALL {
            if self.refused(reason) != Tally::default() {
                out.field(reason.label(), &self.refused(reason));
            }
        }
        out.field("pending", &self.pending).finish()
    }
}

impl Serialize for DoorCounts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("DoorCounts", 4)?;
        out.serialize_field("received", &self.received)?;
        out.serialize_field("accepted", &self.accepted)?;
        out.serialize_field("refused", &Labelled(DoorReason::ALL, DoorReason::label, &self.refused))?;
        out.serialize_field("pending", &self.pending)?;
        out.end()
    }
}

impl DoorLedger {
    /// A request has come, none of its bytes yet; the value returned owes the ledger its fate.
    /// `unanswered` says which fate that is if nobody decides.
    pub fn received(self: &Arc<Self>, unanswered: &Unanswered) -> Arrival {
        self.0.lock().receive(1, 0);
        Arrival { ledger: Arc::clone(self), unanswered: unanswered.clone(), bytes: 0, open: true }
    }

    /// The counts at this moment.
    pub fn counts(&self) -> DoorCounts {
        self.0.lock().clone()
    }
}

/// Why a connection's requests end unanswered, should they: the sender has gone, unless the connection
/// says otherwise before it lets go of them.
#[derive(Debug, Clone)]
pub struct Unanswered(Arc<AtomicU8>);

impl Default for Unanswered {
    fn default() -> Self {
        Self(Arc::new(AtomicU8::new(DoorReason::Disconnected as u8)))
    }
}

impl Unanswered {
    /// From now on for this reason.
    pub fn because(&self, reason: DoorReason) {
        self.0.store(reason as u8, Ordering::Relaxed);
    }

    pub(super) fn reason(&self) -> DoorReason {
        if std::thread::panicking() {
            return DoorReason::Lost;
        }
        let at = usize::from(self.0.load(Ordering::Relaxed));
        DoorReason::ALL.get(at).copied().unwrap_or(DoorReason::Lost)
    }
}

/// A request whose fate is open.
pub struct Arrival {
    ledger: Arc<DoorLedger>,
    unanswered: Unanswered,
    bytes: u64,
    open: bool,
}

impl Arrival {
    /// More of the message has come.
    pub fn add_bytes(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        self.bytes += bytes;
        let mut counts = self.ledger.0.lock();
        counts.received.add(0, bytes);
        counts.pending.add(0, bytes);
    }

    /// Bytes of the message that have come.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The request is kept, or had nothing to keep.
    pub fn accept(mut self) {
        self.end(Ok(()));
    }

    /// The request is not kept.
    pub fn refuse(mut self, reason: DoorReason) {
        self.end(Err(reason));
    }

    fn end(&mut self, outcome: Result<(), DoorReason>) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        self.ledger.0.lock().settle(1, self.bytes, outcome);
    }
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrival").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let reason = self.unanswered.reason();
        self.end(Err(reason));
    }
}

/// A request that is in memory as a whole. In the collector's hands ([`Settle`]) its entry in the door's
/// ledger and its bytes in flight wait for the batch's fate, not for the sender, who may have gone.
#[derive(Debug)]
pub struct Admitted {
    /// Its entry in the door's ledger.
    pub arrival: Arrival,
    /// Its bytes in flight.
    pub charged: Reservation,
}

impl Settle for Admitted {
    fn settle(self: Box<Self>, outcome: Result<(), RejectReason>) {
        let Self { arrival, charged } = *self;
        match outcome {
            Ok(()) => arrival.accept(),
            Err(reason) => arrival.refuse(reason.into()),
        }
        drop(charged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{accept::Admission, log::SpanLedger};

    fn door() -> (Arc<DoorLedger>, Unanswered) {
        (Arc::new(DoorLedger::default()), Unanswered::default())
    }

    fn tally(requests: u64, bytes: u64) -> Tally {
        Tally { requests, bytes }
    }

    #[test]
    fn a_request_is_pending_until_its_fate_is_known() {
        let (ledger, unanswered) = door();
        let mut one = ledger.received(&unanswered);
        one.add_bytes(10);
        one.add_bytes(20);
        let mut two = ledger.received(&unanswered);
        two.add_bytes(5);
        assert_eq!(ledger.counts().pending, tally(2, 35));
        assert!(ledger.counts().balances());
        one.accept();
        two.refuse(DoorReason::Invalid);
        let counts = ledger.counts();
        assert_eq!(
            (counts.received, counts.accepted, counts.pending),
            (tally(2, 35), tally(1, 30), tally(0, 0))
        );
        assert_eq!(counts.refused(DoorReason::Invalid), tally(1, 5));
        assert!(counts.balances());
    }

    #[test]
    fn a_forgotten_request_counts_as_its_connection_says() {
        let (ledger, unanswered) = door();
        drop(ledger.received(&unanswered));
        assert_eq!(ledger.counts().refused(DoorReason::Disconnected), tally(1, 0));
        let late = ledger.received(&unanswered);
        unanswered.because(DoorReason::ShuttingDown);
        drop(late);
        assert_eq!(ledger.counts().refused(DoorReason::ShuttingDown), tally(1, 0));
        assert!(ledger.counts().balances());
    }

    #[test]
    fn a_request_in_hand_of_a_panic_counts_as_lost() {
        let (ledger, unanswered) = door();
        let arrival = ledger.received(&unanswered);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = arrival;
            panic!("on purpose");
        }));
        assert!(caught.is_err());
        assert_eq!(ledger.counts().refused(DoorReason::Lost), tally(1, 0));
    }

    #[test]
    fn a_request_in_the_collector_shares_its_batchs_fate_and_keeps_its_charge_until_then() {
        let (ledger, unanswered) = door();
        let (spans, admission) = (Arc::new(SpanLedger::default()), Admission::new(100));
        let fates: [(fn(crate::log::PendingSpans), _); 3] = [
            (|pending| pending.accept(), None),
            (|pending| pending.reject(RejectReason::Overloaded), Some(DoorReason::Overloaded)),
            (drop, Some(DoorReason::Lost)),
        ];
        for (settle, reason) in fates {
            let arrival = ledger.received(&unanswered);
            let charged = admission.try_reserve(60).unwrap();
            let pending = spans.scanned(3).and_tell(Box::new(Admitted { arrival, charged }));
            assert_eq!((admission.in_flight(), ledger.counts().pending.requests), (60, 1));
            settle(pending);
            assert_eq!((admission.in_flight(), ledger.counts().pending.requests), (0, 0));
            let counted = reason.map_or(ledger.counts().accepted, |reason| ledger.counts().refused(reason));
            assert_eq!(counted, tally(1, 0));
        }
        assert!(ledger.counts().balances());
    }

    #[test]
    fn the_statistics_name_every_reason() {
        let (ledger, unanswered) = door();
        let mut arrival = ledger.received(&unanswered);
        arrival.add_bytes(7);
        arrival.refuse(DoorReason::SlowBody);
        let json = serde_json::to_value(ledger.counts()).unwrap();
        assert_eq!(json["received"], serde_json::json!({"requests": 1, "bytes": 7}));
        assert_eq!(json["refused"]["slow_body"], serde_json::json!({"requests": 1, "bytes": 7}));
        let labels: Vec<&str> = json["refused"].as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected: Vec<&str> = DoorReason::ALL.iter().map(|reason| reason.label()).collect();
        expected.sort_unstable();
        assert_eq!(labels, expected);
    }
}
