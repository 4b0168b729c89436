//! A request's body: admitted before it is buffered, and read into one buffer.
//!
//! Over HTTP the body is the message. In a unary gRPC call the message stands behind a prefix. A library would
//! reserve what that declares, and unpack, before any service runs; so the door reads it itself:
//!
//! ```text
//!  0      1               5                5 + length
//!  ├──────┼───────────────┼────────────────┤
//!  │ flag │ length, be32  │ message        │   flag 0: as it is; 1: packed as grpc-encoding says
//!  └──────┴───────────────┴────────────────┘
//! ```
//!
//! Nothing here waits for room: a request that does not fit is refused.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::Body;
use tokio::time::{Instant, Sleep};

use super::{Admission, Admitted, Arrival, Buffers, Refusal, Reservation, pieces::Pieces, unpack::Unpacker};

const PREFIX: usize = 5;
/// Bytes unpacked in one go before others on the thread get their turn.
const UNPACKED_A_TURN: usize = 1024 * 1024;

/// Limits on one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// The largest message in bytes, packed and unpacked (`ingest.max_request_bytes`, 64 MiB).
    pub max_request_bytes: usize,
    /// How long a body may stand still, and how long it may take before it has to come at
    /// `min_bytes_per_s` (`ingest.body_timeout`, 30 s).
    pub body_timeout: Duration,
    /// A body slower than this, in bytes per second, is refused (1 KiB).
    pub min_bytes_per_s: u32,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            max_request_bytes: 64 * 1024 * 1024,
            body_timeout: Duration::from_secs(30),
            min_bytes_per_s: 1024,
        }
    }
}

/// However steadily a body comes, it holds its reservation no longer than this and the timeout.
const EARNED_MAX: Duration = Duration::from_secs(600);

/// How a request's message is packed (`grpc-encoding`, `content-encoding`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Not at all.
    Identity,
    /// With gzip; over gRPC, if its flag says so.
    Gzip,
}

/// The body of a request, on its way to a message.
pub(crate) struct AdmittedBody<'a, B> {
    inner: B,
    /// What has come and is not taken.
    unread: Bytes,
    arrival: Arrival,
    packing: Packing,
    admission: &'a Admission,
    limits: RequestLimits,
    buffers: &'a Buffers,
    pace: Pace,
    /// The body's end is that of a stream.
    framed_by_stream: bool,
}

impl<'a, B> AdmittedBody<'a, B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: fmt::Display,
{
    pub(crate) fn new(
        inner: B,
        arrival: Arrival,
        packing: Packing,
        admission: &'a Admission,
        limits: RequestLimits,
        buffers: &'a Buffers,
    ) -> Self {
        let (unread, pace) = (Bytes::new(), Pace::new());
        Self { inner, unread, arrival, packing, admission, limits, buffers, pace, framed_by_stream: true }
    }

    /// For a message that needs so much room once more, and an eighth, while it is converted.
    pub(crate) fn with_room_to_convert(mut self) -> Self {
        let fits = self.admission.limit() / 17 * 8;
        self.limits.max_request_bytes = self.limits.max_request_bytes.min(fits);
        self
    }

    /// Over HTTP/1, whose framing itself says where a body ends, and where it breaks off.
    pub(crate) fn over_http1(mut self) -> Self {
        self.framed_by_stream = false;
        self
    }

    /// A gRPC call's message, whole and not packed, with the request's charge and its entry in the ledger.
    ///
    /// # Errors
    /// The refusal, which the ledger knows of; nothing stays charged.
    pub(crate) async fn message(mut self) -> Result<(Bytes, Admitted), Refusal> {
        let read = self.read_message().await;
        self.admitted(read)
    }

    /// The whole body as the message, likewise. `declared` is its `content-length`.
    ///
    /// # Errors
    /// As [`AdmittedBody::message`].
    pub(crate) async fn whole(mut self, declared: Option<u64>) -> Result<(Bytes, Admitted), Refusal> {
        let read = self.read_whole(declared).await;
        self.admitted(read)
    }

    fn admitted(self, read: Result<(Bytes, Reservation), Refusal>) -> Result<(Bytes, Admitted), Refusal> {
        match read {
            Ok((message, charged)) => Ok((message, Admitted { arrival: self.arrival, charged })),
            Err(refusal) => {
                self.arrival.refuse(refusal.reason());
                Err(refusal)
            }
        }
    }

    fn limit(&self) -> usize {
        self.limits.max_request_bytes.min(self.admission.limit())
    }

    async fn read_whole(&mut self, declared: Option<u64>) -> Result<(Bytes, Reservation), Refusal> {
        let limit = self.limit();
        let declared = declared.map(|declared| usize::try_from(declared).unwrap_or(usize::MAX));
        let charged = match declared {
            Some(bytes) if bytes > limit => return Err(Refusal::TooLarge { bytes, limit }),
            declared => self.admission.try_reserve(declared.unwrap_or_default())?,
        };
        match (self.packing, declared) {
            (Packing::Identity, Some(declared)) => {
                let message = self.plain(declared).await?;
                self.is_over().await?;
                Ok((message, charged))
            }
            (Packing::Identity, None) => {
                let mut pieces = Pieces::new(charged, limit, |limit| Refusal::GrowsTooLarge { limit });
                while let Some(data) = self.data().await? {
                    self.arrival.add_bytes(data.len());
                    pieces.add(&data)?;
                }
                pieces.join(self.buffers)
            }
            (Packing::Gzip, _) => {
                let mut unpacker = Unpacker::new(charged, limit);
                while let Some(data) = self.data().await? {
                    self.arrival.add_bytes(data.len());
                    if self.arrival.bytes() > limit as u64 {
                        return Err(Refusal::GrowsTooLarge { limit });
                    }
                    unpack(&mut unpacker, data).await?;
                }
                unpacker.finish(self.buffers)
            }
        }
    }

    async fn read_message(&mut self) -> Result<(Bytes, Reservation), Refusal> {
        let (flag, declared) = self.prefix().await?;
        let limit = self.limit();
        if declared > limit {
            return Err(Refusal::TooLarge { bytes: declared, limit });
        }
        let admitted = match (flag, self.packing) {
            (0, _) => {
                let charged = self.admission.try_reserve(declared)?;
                (self.plain(declared).await?, charged)
            }
            (1, Packing::Gzip) => {
                let charged = self.admission.try_reserve(declared)?;
                self.packed(declared, Unpacker::new(charged, limit)).await?
            }
            (1, Packing::Identity) => return Err(Refusal::EncodingMissing),
            (flag, _) => return Err(Refusal::CompressedFlag(flag)),
        };
        self.is_over().await?;
        Ok(admitted)
    }

    /// Nothing comes behind the message. A stream of HTTP/2 can go on behind its `content-length`, and be reset.
    async fn is_over(&mut self) -> Result<(), Refusal> {
        match self.data().await? {
            None => Ok(()),
            Some(more) => self.take(&more, 0).map(drop),
        }
    }

    /// The message's flag and its declared length in bytes.
    async fn prefix(&mut self) -> Result<(u8, usize), Refusal> {
        let mut prefix = Vec::with_capacity(PREFIX);
        loop {
            if let &[flag, a, b, c, d] = prefix.as_slice() {
                return Ok((flag, u32::from_be_bytes([a, b, c, d]) as usize));
            }
            let Some(mut data) = self.data().await? else {
                return Err(if prefix.is_empty() { Refusal::NoMessage } else { Refusal::TruncatedPrefix });
            };
            prefix.extend_from_slice(&data.split_to(data.len().min(PREFIX - prefix.len())));
            self.unread = data;
        }
    }

    async fn plain(&mut self, declared: usize) -> Result<Bytes, Refusal> {
        let mut message = self.buffers.take(declared);
        while message.len() < declared {
            let bytes = message.len();
            let data = self.data().await?.ok_or(Refusal::Truncated { bytes, declared })?;
            self.take(&data, declared - bytes)?;
            message.extend_from_slice(&data);
        }
        Ok(message.freeze())
    }

    async fn packed(
        &mut self,
        declared: usize,
        mut unpacker: Unpacker,
    ) -> Result<(Bytes, Reservation), Refusal> {
        let mut left = declared;
        while left > 0 {
            let bytes = declared - left;
            let data = self.data().await?.ok_or(Refusal::Truncated { bytes, declared })?;
            left = self.take(&data, left)?;
            unpack(&mut unpacker, data).await?;
        }
        unpacker.finish(self.buffers)
    }

    /// Counts what has come of a message of which `left` bytes are to come, and says what is left then.
    fn take(&mut self, data: &[u8], left: usize) -> Result<usize, Refusal> {
        self.arrival.add_bytes(data.len());
        left.checked_sub(data.len()).ok_or(Refusal::Trailing)
    }

    /// The next bytes, at least one; `None` at the body's end.
    async fn data(&mut self) -> Result<Option<Bytes>, Refusal> {
        match std::mem::take(&mut self.unread) {
            unread if unread.is_empty() => poll_fn(|cx| self.poll_data(cx)).await,
            unread => Ok(Some(unread)),
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Refusal>> {
        loop {
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // A request's trailers say nothing that this door needs.
                    let Ok(data) = frame.into_data() else { continue };
                    self.pace.moved();
                    if !data.is_empty() {
                        return Poll::Ready(Ok(Some(data)));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Err(Refusal::Disconnected(error.to_string())));
                }
                // A stream that its sender reset can end like one that is complete.
                Poll::Ready(None) if self.framed_by_stream && !self.inner.is_end_stream() => {
                    return Poll::Ready(Err(Refusal::Disconnected("stream was reset".to_owned())));
                }
                Poll::Ready(None) => return Poll::Ready(Ok(None)),
                Poll::Pending => {
                    let (received, limits) = (self.arrival.bytes(), self.limits);
                    let waited = std::task::ready!(self.pace.poll_too_slow(cx, received, limits));
                    return Poll::Ready(Err(Refusal::SlowBody { bytes: received, waited }));
                }
            }
        }
    }
}

/// Unpacks what has come, and lets others on the thread have their turn.
async fn unpack(unpacker: &mut Unpacker, mut data: Bytes) -> Result<(), Refusal> {
    let mut begin = unpacker.len();
    while !data.is_empty() {
        unpacker.step(&mut data)?;
        if unpacker.len() - begin >= UNPACKED_A_TURN {
            tokio::task::yield_now().await;
            begin = unpacker.len();
        }
    }
    Ok(())
}

/// How fast a body comes. There is no timer until it makes someone wait.
struct Pace {
    begun: Instant,
    moved: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    fn new() -> Self {
        Self { begun: Instant::now(), moved: true, timer: None }
    }

    fn moved(&mut self) {
        self.moved = true;
    }

    /// Ready with the time since the begin, once the body has stood still for too long or come too slowly.
    fn poll_too_slow(
        &mut self,
        cx: &mut Context<'_>,
        received: u64,
        limits: RequestLimits,
    ) -> Poll<Duration> {
        if std::mem::take(&mut self.moved) {
            let now = Instant::now();
            let earned = Duration::from_secs(received / u64::from(limits.min_bytes_per_s.max(1)));
            let deadline = (self.begun + earned.min(EARNED_MAX)).min(now) + limits.body_timeout;
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(deadline),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(deadline))),
            }
        }
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(cx).map(|()| in_ms(self.begun.elapsed())),
            None => Poll::Pending,
        }
    }
}

fn in_ms(exact: Duration) -> Duration {
    Duration::new(exact.as_secs(), exact.subsec_millis() * 1_000_000)
}

#[cfg(test)]
mod tests;
