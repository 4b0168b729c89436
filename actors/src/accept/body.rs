//! A unary gRPC request's body, below tonic: admitted before it is buffered, and unpacked.
//!
//! tonic reserves what a message's prefix declares, and unpacks, before any service runs. So the prefix
//! is read here, and what tonic gets to see is a message that was admitted and is not packed:
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
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

use super::{
    Admission, Admitted, Arrival, Refusal, Reservation,
    unpack::{Unpacked, Unpacker},
};

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

/// How a request's message may be packed (`grpc-encoding`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Not at all.
    Identity,
    /// With gzip, if its flag says so.
    Gzip,
}

/// Where the body leaves the request's charge and ledger entry once it has come to its proper end.
pub(crate) type AdmittedSlot = Arc<Mutex<Option<Admitted>>>;

/// The body that tonic reads.
pub(crate) struct AdmittedBody<B> {
    inner: B,
    state: State,
    /// For tonic, in this order.
    out: VecDeque<Bytes>,
    /// `None` once its fate is known or handed on.
    arrival: Option<Arrival>,
    slot: AdmittedSlot,
    admission: Admission,
    packing: Packing,
    limits: RequestLimits,
    pace: Pace,
}

enum State {
    /// The bytes of the prefix so far.
    Prefix(BytesMut),
    /// Passed on as it comes.
    Plain { message: Expected, charged: Reservation },
    /// `input` is what has come and is not unpacked.
    Packed { message: Expected, input: Bytes, unpacker: Box<Unpacker> },
    /// The message is complete; nothing but the end may follow.
    Complete { charged: Reservation },
    /// Handed on, or refused.
    Over,
}

/// A message's declared length, and how much of it is still to come.
#[derive(Clone, Copy)]
struct Expected {
    declared: usize,
    left: usize,
}

impl Expected {
    fn take(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.left = self.left.checked_sub(bytes).ok_or(Refusal::Trailing)?;
        Ok(())
    }

    fn truncated(self) -> Refusal {
        Refusal::Truncated { bytes: self.declared - self.left, declared: self.declared }
    }
}

impl<B> AdmittedBody<B> {
    pub(crate) fn new(
        inner: B,
        arrival: Arrival,
        packing: Packing,
        admission: Admission,
        limits: RequestLimits,
    ) -> (Self, AdmittedSlot) {
        let slot = AdmittedSlot::default();
        let body = Self {
            inner,
            state: State::Prefix(BytesMut::with_capacity(PREFIX)),
            out: VecDeque::new(),
            arrival: Some(arrival),
            slot: Arc::clone(&slot),
            admission,
            packing,
            limits,
            pace: Pace::new(),
        };
        (body, slot)
    }

    fn count(&mut self, bytes: usize) {
        if let Some(arrival) = &mut self.arrival {
            arrival.add_bytes(bytes);
        }
    }

    fn received(&self) -> u64 {
        self.arrival.as_ref().map_or(0, Arrival::bytes)
    }

    fn take(&mut self, mut data: Bytes) -> Result<(), Refusal> {
        if let State::Prefix(prefix) = &mut self.state {
            let more = data.split_to(data.len().min(PREFIX - prefix.len()));
            prefix.extend_from_slice(&more);
            if let &[flag, a, b, c, d] = prefix.as_ref() {
                self.begin(flag, u32::from_be_bytes([a, b, c, d]) as usize)?;
            }
        }
        if data.is_empty() {
            return Ok(());
        }
        self.count(data.len());
        match &mut self.state {
            State::Plain { message, .. } => {
                message.take(data.len())?;
                self.out.push_back(data);
            }
            State::Packed { message, input, .. } => {
                message.take(data.len())?;
                *input = data;
            }
            State::Prefix(_) | State::Complete { .. } | State::Over => return Err(Refusal::Trailing),
        }
        self.complete_plain();
        Ok(())
    }

    /// The prefix is here: the message gets its charge, or goes no further.
    fn begin(&mut self, flag: u8, declared: usize) -> Result<(), Refusal> {
        let limit = self.limits.max_request_bytes.min(self.admission.limit());
        if declared > limit {
            return Err(Refusal::TooLarge { bytes: declared, limit });
        }
        let message = Expected { declared, left: declared };
        self.state = match (flag, self.packing) {
            (0, _) => {
                let charged = self.admission.try_reserve(declared)?;
                self.out.push_back(prefix(declared));
                State::Plain { message, charged }
            }
            (1, Packing::Gzip) => {
                let charged = self.admission.try_reserve(declared)?;
                let unpacker = Box::new(Unpacker::new(charged, limit));
                State::Packed { message, input: Bytes::new(), unpacker }
            }
            (1, Packing::Identity) => return Err(Refusal::EncodingMissing),
            (flag, _) => return Err(Refusal::CompressedFlag(flag)),
        };
        self.complete_plain();
        Ok(())
    }

    fn complete_plain(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Over) {
            State::Plain { message: Expected { left: 0, .. }, charged } => State::Complete { charged },
            state => state,
        };
    }

    /// Unpacks what has come; false when the thread should turn to others first.
    fn unpack(&mut self) -> Result<bool, Refusal> {
        let State::Packed { message, input, unpacker } = &mut self.state else { return Ok(true) };
        let begin = unpacker.len();
        while !input.is_empty() {
            unpacker.step(input)?;
            if unpacker.len() - begin >= UNPACKED_A_TURN {
                return Ok(false);
            }
        }
        if message.left > 0 {
            return Ok(true);
        }
        if let State::Packed { unpacker, .. } = std::mem::replace(&mut self.state, State::Over) {
            let Unpacked { pieces, len, charged } = unpacker.finish()?;
            self.out.push_back(prefix(len));
            self.out.extend(pieces);
            self.state = State::Complete { charged };
        }
        Ok(true)
    }

    /// The body is at its end.
    fn end(&mut self) -> Result<(), Refusal> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Complete { charged } => {
                if let Some(arrival) = self.arrival.take() {
                    *self.slot.lock() = Some(Admitted { arrival, charged });
                }
                Ok(())
            }
            State::Prefix(prefix) if prefix.is_empty() => Err(Refusal::NoMessage),
            State::Prefix(_) => Err(Refusal::TruncatedPrefix),
            State::Plain { message, .. } | State::Packed { message, .. } => Err(message.truncated()),
            State::Over => Ok(()),
        }
    }

    fn refuse<E: From<Refusal>>(&mut self, refusal: Refusal) -> E {
        self.state = State::Over;
        self.out.clear();
        if let Some(arrival) = self.arrival.take() {
            arrival.refuse(refusal.reason());
        }
        E::from(refusal)
    }
}

impl<B> AdmittedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: fmt::Display,
{
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Refusal>> {
        loop {
            if !self.unpack()? {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(data) = self.out.pop_front() {
                return Poll::Ready(Ok(Some(data)));
            }
            if matches!(self.state, State::Over) {
                return Poll::Ready(Ok(None));
            }
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // A request's trailers say nothing that this door needs.
                    if let Ok(data) = frame.into_data() {
                        self.pace.moved();
                        self.take(data)?;
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Err(Refusal::Disconnected(error.to_string())));
                }
                // A stream that its sender reset can end like one that is complete.
                Poll::Ready(None) if !self.inner.is_end_stream() => {
                    return Poll::Ready(Err(Refusal::Disconnected("stream was reset".to_owned())));
                }
                Poll::Ready(None) => self.end()?,
                Poll::Pending => {
                    let (received, limits) = (self.received(), self.limits);
                    let waited = std::task::ready!(self.pace.poll_too_slow(cx, received, limits));
                    return Poll::Ready(Err(Refusal::SlowBody { bytes: received, waited }));
                }
            }
        }
    }
}

impl<B> Body for AdmittedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: fmt::Display,
{
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let polled = std::task::ready!(self.poll_data(cx));
        Poll::Ready(match polled {
            Ok(data) => data.map(|data| Ok(Frame::data(data))),
            Err(refusal) => Some(Err(self.refuse(refusal))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.out.is_empty() && matches!(self.state, State::Over)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

fn prefix(len: usize) -> Bytes {
    let mut prefix = BytesMut::with_capacity(PREFIX);
    prefix.put_u8(0);
    // A length that came in, or grew under a limit of, 32 bits.
    prefix.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    prefix.freeze()
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
            let deadline = (self.begun + earned).min(now) + limits.body_timeout;
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
