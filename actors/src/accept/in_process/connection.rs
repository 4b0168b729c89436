//! A stream connection of this process and its open spans.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    super::{DoorReason, Open},
    outbox::Outbox,
    span::SpanBuilder,
};
use crate::span::{SpanEncoder, StatusCode};

/// Encoders kept for reuse by a connection.
const POOLED_ENCODERS: usize = 16;

/// The number by which the application knows a stream connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// The connection with this number.
    pub const fn new(id: u64) -> Self {
        Self(id)
    }

    /// The number.
    pub const fn inner(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Bounds of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Open spans at most; beyond it a new span is counted as refused and records nothing.
    pub max_open_spans: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { max_open_spans: 1024 }
    }
}

/// A stream connection: where spans begin. Clones are the same connection.
///
/// Closing it, or dropping its last clone, ends the spans that are still open.
#[derive(Debug, Clone)]
pub struct Connection {
    shared: Arc<Shared>,
    /// Dropped with the last clone, which closes the connection.
    _closer: Arc<Closer>,
}

#[derive(Debug)]
struct Closer(Arc<Shared>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What a connection, its spans and its actor share.
pub(super) struct Shared {
    id: ConnectionId,
    outbox: Arc<Outbox>,
    limits: ConnectionLimits,
    open: Mutex<OpenSpans>,
    closed: AtomicBool,
    gone: Notify,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let closed = self.closed.load(Ordering::Relaxed);
        f.debug_struct("Connection").field("id", &self.id).field("closed", &closed).finish_non_exhaustive()
    }
}

/// Open spans by slot. A slot's turn tells its users apart: a span handle that outlived its span
/// finds another turn there, and does nothing.
#[derive(Default)]
struct OpenSpans {
    slots: Vec<Slot>,
    free: Vec<u32>,
    pool: Vec<OpenSpan>,
}

#[derive(Default)]
struct Slot {
    turn: u32,
    span: Option<OpenSpan>,
}

/// A span under way.
#[derive(Debug, Default)]
pub(super) struct OpenSpan {
    /// What was said of it so far.
    pub(super) encoder: SpanEncoder,
    status: StatusCode,
}

impl OpenSpan {
    /// Sets the status by the rules of the OpenTelemetry trace API ("Set Status"): `Ok` is final, `Unset`
    /// changes nothing, and only an error has a message.
    pub(super) fn set_status(&mut self, code: StatusCode, message: &str) {
        match (self.status, code) {
            (StatusCode::Ok, _) | (_, StatusCode::Unset) => return,
            (_, StatusCode::Ok) => self.encoder.status(code, ""),
            (_, StatusCode::Error) => self.encoder.status(code, message),
        }
        self.status = code;
    }
}

/// Which open span of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    slot: u32,
    turn: u32,
}

impl OpenSpans {
    fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn insert(&mut self, span: OpenSpan) -> Option<Key> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(Slot::default());
                u32::try_from(self.slots.len() - 1).ok()?
            }
        };
        let slot = self.slots.get_mut(index as usize)?;
        slot.span = Some(span);
        Some(Key { slot: index, turn: slot.turn })
    }

    fn get_mut(&mut self, key: Key) -> Option<&mut OpenSpan> {
        self.slots.get_mut(key.slot as usize).filter(|slot| slot.turn == key.turn)?.span.as_mut()
    }

    fn remove(&mut self, key: Key) -> Option<OpenSpan> {
        let slot = self.slots.get_mut(key.slot as usize).filter(|slot| slot.turn == key.turn)?;
        let span = slot.span.take()?;
        slot.turn = slot.turn.wrapping_add(1);
        self.free.push(key.slot);
        Some(span)
    }

    fn recycle(&mut self, mut span: OpenSpan) {
        span.status = StatusCode::Unset;
        if self.pool.len() < POOLED_ENCODERS {
            self.pool.push(span);
        }
    }
}

impl Shared {
    /// Begins a span with `write`; `None`, counted, where the connection takes no more.
    pub(super) fn begin(&self, write: impl FnOnce(&mut OpenSpan)) -> Option<Key> {
        let mut open = self.open.lock();
        // Under the lock, so that a close either sees this span or is seen by it.
        let refused = if self.closed.load(Ordering::Relaxed) {
            Some(DoorReason::Closed)
        } else if open.len() >= self.limits.max_open_spans {
            Some(DoorReason::TooManyOpen)
        } else {
            None
        };
        if let Some(reason) = refused {
            drop(open);
            self.outbox.refuse(reason);
            return None;
        }
        let mut span = open.pool.pop().unwrap_or_default();
        write(&mut span);
        open.insert(span)
    }

    /// Changes an open span; does nothing to one that has ended.
    pub(super) fn change(&self, key: Key, write: impl FnOnce(&mut OpenSpan)) {
        if let Some(span) = self.open.lock().get_mut(key) {
            write(span);
        }
    }

    /// Ends an open span; does nothing to one that has ended.
    pub(super) fn end(&self, key: Key, end_unix_nano: u64, write: impl FnOnce(&mut OpenSpan)) {
        let mut open = self.open.lock();
        let Some(mut span) = open.remove(key) else { return };
        write(&mut span);
        self.outbox.push(span.encoder.end(end_unix_nano));
        open.recycle(span);
    }

    fn close(&self) {
        let mut open = self.open.lock();
        if self.closed.swap(true, Ordering::Relaxed) {
            return;
        }
        let now = unix_nanos();
        for mut span in std::mem::take(&mut open.slots).into_iter().filter_map(|slot| slot.span) {
            span.set_status(StatusCode::Error, "connection closed before the span ended");
            self.outbox.push(span.encoder.end(now));
        }
        open.free.clear();
        drop(open);
        self.gone.notify_one();
    }
}

impl Connection {
    /// A connection whose spans go to `outbox`.
    pub(crate) fn new(id: ConnectionId, outbox: Arc<Outbox>, limits: ConnectionLimits) -> Self {
        let shared = Arc::new(Shared {
            id,
            outbox,
            limits,
            open: Mutex::new(OpenSpans::default()),
            closed: AtomicBool::new(false),
            gone: Notify::new(),
        });
        Self { _closer: Arc::new(Closer(Arc::clone(&shared))), shared }
    }

    /// The supervised actor of this connection; it lives until the connection is closed, and closes it
    /// where it is stopped first.
    pub(crate) fn actor(&self) -> InProcessConnection {
        InProcessConnection { shared: Arc::clone(&self.shared), stop: None, open: None }
    }

    /// The connection's number.
    pub fn id(&self) -> ConnectionId {
        self.shared.id
    }

    /// A span of this connection, to be described and started.
    pub fn span<'a>(&'a self, name: &'a str) -> SpanBuilder<'a> {
        SpanBuilder::new(&self.shared, name)
    }

    /// Spans begun and not ended.
    pub fn open_spans(&self) -> usize {
        self.shared.open.lock().len()
    }

    /// Ends the open spans, as errors that say so, and takes no more.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Whether the connection was closed, by this process or by its supervisor.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Relaxed)
    }
}

/// The actor of one [`Connection`]: a temporary child of the connections' supervisor. With it, the
/// connection is closed.
pub struct InProcessConnection {
    shared: Arc<Shared>,
    stop: Option<BoxFuture<'static, ()>>,
    open: Option<Open>,
}

impl InProcessConnection {
    /// The same, stopped by its supervisor when `stop` is ready, and counted as open meanwhile.
    pub(crate) fn until(mut self, stop: impl Future<Output = ()> + Send + 'static, open: Open) -> Self {
        open.opened();
        self.stop = Some(Box::pin(stop));
        self.open = Some(open);
        self
    }
}

impl Actor for InProcessConnection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let shared = Arc::clone(&self.shared);
        let stop = self.stop.take().unwrap_or_else(|| Box::pin(std::future::pending()));
        let end = async move {
            tokio::select! {
                () = shared.gone.notified() => {}
                () = stop => {}
            }
        };
        ctx.spawn(end.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

impl Drop for InProcessConnection {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// The time by the wall clock, in nanoseconds since the Unix epoch.
pub(super) fn unix_nanos() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}
