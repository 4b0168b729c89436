//! What every door does with a message once it is whole: the scan, and the wait for the log.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use http_body::Body;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    Admission, Admitted, Arrival, Buffers, DoorLedger, Refusal, RequestLimits,
    body::{AdmittedBody, Packing},
    response::Taken,
};
use crate::{
    bearer::Gate,
    collect::SpansCompleted,
    log::{Append, Oddity, PendingSpans, RejectReason, SpanLedger},
    measure::{CurrentSettings, RedDelta, RedScratch},
    self_tracing::{Origin, Tracer},
    span::{Inspection, ScanError, inspect, keep_valid},
    supervise::{Recipient, TrySendError},
};

/// Scratches kept between requests; one a thread is in use at a time.
const SCRATCHES_KEPT: usize = 16;

/// Times further from now are odd: clocks may differ, but not by so much.
const FAR_FUTURE: Duration = Duration::from_secs(24 * 3_600);

/// What the requests of a door share, and of all doors but for the ledger.
#[derive(Debug, Clone)]
pub struct Intake {
    /// Asks for a token, of all doors.
    pub gate: Arc<Gate>,
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
    /// For spans about the requests.
    pub tracer: Tracer,
}

impl Intake {
    /// Whether a request with these headers may come any further: judged before anything of its body is read.
    pub(crate) fn let_in(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match self.gate.admits(headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes)) {
            true => Ok(()),
            false => Err(Refusal::Unauthenticated),
        }
    }

    /// The body of a request of this door, on its way to a message.
    pub(crate) fn body<B>(&self, body: B, arrival: Arrival, packing: Packing) -> AdmittedBody<'_, B>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: fmt::Display,
    {
        AdmittedBody::new(body, arrival, packing, &self.admission, self.limits, &self.buffers)
    }

    /// A message that is whole and admitted, until it is kept or refused. What is returned says which of its spans were
    /// not kept. `origin` is the request's own span.
    pub(crate) async fn take(
        &self,
        bytes: Bytes,
        mut admitted: Admitted,
        origin: Origin,
    ) -> Result<Taken, Refusal> {
        let inspected = self.scratches.inspect(&bytes).map_err(Refusal::from).and_then(|(found, red)| {
            match found.rejected.total() {
                0 => Ok((found, red, bytes)),
                _ => Ok((found, red, only_valid(&bytes, &mut admitted)?)),
            }
        });
        let (found, red, bytes) = match inspected {
            Ok(inspected) => inspected,
            Err(refusal) => {
                admitted.arrival.refuse(refusal.reason());
                return Err(refusal);
            }
        };
        let taken = Taken::of(&found);
        if found.kept == 0 && taken.rejected == 0 {
            admitted.arrival.accept();
            return Ok(taken);
        }
        let mut pending = self.spans.scanned(found.kept.saturating_add(found.rejected.total()));
        pending = pending.and_tell(Box::new(admitted));
        account(&mut pending, &found);
        if found.kept == 0 {
            pending.accept();
            return Ok(taken);
        }
        let (reply, answer) = oneshot::channel();
        let batch = SpansCompleted { append: Append { bytes, pending, reply }, red, origin };
        // From here on the batch's own entries say what became of the request, whoever still listens.
        match self.collector.send_within(batch, self.commit_timeout).await {
            Ok(()) => {
                answer.await.map_err(|_dropped| Refusal::Lost)?.map_err(Refusal::from)?;
                Ok(taken)
            }
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

/// The request with those of its spans that may be kept, charged for its own length.
fn only_valid(bytes: &[u8], admitted: &mut Admitted) -> Result<Bytes, Refusal> {
    admitted.charged.grow(bytes.len())?;
    let mut valid = Vec::with_capacity(bytes.len());
    keep_valid(bytes, &mut valid)?;
    valid.shrink_to_fit();
    admitted.charged.shrink_to(valid.len());
    Ok(valid.into())
}

fn account(pending: &mut PendingSpans, found: &Inspection) {
    let Inspection { rejected, odd, .. } = found;
    for (spans, reason) in [
        (rejected.invalid_id, RejectReason::InvalidId),
        (rejected.name_too_long, RejectReason::NameTooLong),
        (rejected.too_many_attributes, RejectReason::TooManyAttributes),
    ] {
        if spans > 0 {
            pending.reject_some(spans, reason);
        }
    }
    pending.note_odd(Oddity::EndBeforeStart, odd.end_before_start);
    pending.note_odd(Oddity::EmptyName, odd.empty_name);
    pending.note_odd(Oddity::FarFuture, odd.far_future);
}

/// Scratches for the RED deltas of batches.
pub struct Scratches {
    settings: CurrentSettings,
    free: Mutex<Vec<RedScratch>>,
}

impl Scratches {
    /// Scratches that count each request with the settings that hold at its scan.
    pub fn new(settings: CurrentSettings) -> Self {
        Self { settings, free: Mutex::new(Vec::with_capacity(SCRATCHES_KEPT)) }
    }

    /// Scans a request: what its spans are, and what those that may be kept add. A scratch that a panic leaves half-way
    /// is not used again.
    fn inspect(&self, bytes: &[u8]) -> Result<(Inspection, RedDelta), ScanError> {
        let free = self.free.lock().pop();
        let mut scratch = free.unwrap_or_else(|| RedScratch::following(self.settings.clone()));
        scratch.begin();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let horizon = u64::try_from((now + FAR_FUTURE).as_nanos()).unwrap_or(u64::MAX);
        let inspected = inspect(bytes, horizon, |span| scratch.observe(span));
        let result = match inspected {
            Ok(found) => Ok((found, scratch.take())),
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
