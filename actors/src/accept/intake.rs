//! What every door does with a message once it is whole: the scan, and the wait for the log.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body::Body;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    Admission, Admitted, Arrival, Buffers, DoorLedger, Refusal, RequestLimits,
    body::{AdmittedBody, Packing},
};
use crate::{
    collect::SpansCompleted,
    log::{Append, RejectReason, SpanLedger},
    measure::{RedDelta, RedScratch, RedSettings},
    span::{ScanError, scan},
    supervise::{Recipient, TrySendError},
};

/// Scratches kept between requests; one a thread is in use at a time.
const SCRATCHES_KEPT: usize = 16;

/// What the requests of a door share, and of all doors but for the ledger.
#[derive(Debug, Clone)]
pub struct Intake {
    /// Limits on each request.
    pub limits: RequestLimits,
    /// How long a batch may wait for a place in the collector's inbox (`ingest.commit_timeout`, 5 s).
    pub commit_timeout: Duration,
    /// Bytes in flight, of all doors.
    pub admission: Admission,
    /// Requests of this door.
    pub ledger: Arc<DoorLedger>,
    /// Spans of all doors.
    pub spans: Arc<SpanLedger>,
    /// Who commits.
    pub collector: Recipient<SpansCompleted>,
    /// For the RED deltas.
    pub scratches: Arc<Scratches>,
    /// For the messages.
    pub buffers: Arc<Buffers>,
}

impl Intake {
    /// The body of a request of this door, on its way to a message.
    pub(crate) fn body<B>(&self, body: B, arrival: Arrival, packing: Packing) -> AdmittedBody<'_, B>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: fmt::Display,
    {
        AdmittedBody::new(body, arrival, packing, &self.admission, self.limits, &self.buffers)
    }

    /// A message that is whole and admitted, until it is kept or refused.
    pub(crate) async fn take(&self, bytes: Bytes, admitted: Admitted) -> Result<(), Refusal> {
        let (spans, red) = match self.scratches.scan(&bytes) {
            Ok(scanned) => scanned,
            Err(error) => {
                let refusal = Refusal::from(error);
                admitted.arrival.refuse(refusal.reason());
                return Err(refusal);
            }
        };
        if spans == 0 {
            admitted.arrival.accept();
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        let pending = self.spans.scanned(spans).and_tell(Box::new(admitted));
        let batch = SpansCompleted { append: Append { bytes, pending, reply }, red };
        // From here on the batch's own entries say what became of the request, whoever still listens.
        match self.collector.send_within(batch, self.commit_timeout).await {
            Ok(()) => answer.await.map_err(|_dropped| Refusal::Lost)?.map(drop).map_err(Refusal::from),
            Err(TrySendError::Full(batch)) => {
                batch.append.pending.reject(RejectReason::Overloaded);
                Err(Refusal::Overloaded(self.commit_timeout))
            }
            Err(TrySendError::Closed(batch)) => {
                batch.append.pending.reject(RejectReason::ShuttingDown);
                Err(Refusal::ShuttingDown)
            }
        }
    }
}

/// Scratches for the RED deltas of batches.
pub struct Scratches {
    settings: Arc<RedSettings>,
    free: Mutex<Vec<RedScratch>>,
}

impl Scratches {
    /// Scratches that count with these settings.
    pub fn new(settings: Arc<RedSettings>) -> Self {
        Self { settings, free: Mutex::new(Vec::with_capacity(SCRATCHES_KEPT)) }
    }

    /// Scans a request: its number of spans and what they add. A scratch that a panic leaves half-way is
    /// not used again.
    pub(crate) fn scan(&self, bytes: &[u8]) -> Result<(u32, RedDelta), ScanError> {
        let free = self.free.lock().pop();
        let mut scratch = free.unwrap_or_else(|| RedScratch::new(Arc::clone(&self.settings)));
        let scanned = scan(bytes, |span| scratch.observe(span));
        let result = match scanned {
            Ok(scanned) => Ok((scanned.spans, scratch.take())),
            Err(error) => {
                scratch.discard();
                Err(error)
            }
        };
        let mut free = self.free.lock();
        if free.len() < SCRATCHES_KEPT {
            free.push(scratch);
        }
        result
    }
}

impl fmt::Debug for Scratches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratches").finish_non_exhaustive()
    }
}
