//! StreamConnection: one actor an open connection.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use actix::{Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, WrapFuture as _};
use futures_util::future::LocalBoxFuture;
use serde::Serialize;

use super::Accepted;

/// Ready when a connection is to come to its end.
pub type Stop = LocalBoxFuture<'static, ()>;

/// A protocol that connections are served with.
pub trait Door: Send + Sync + 'static {
    /// Serves a connection to its end, on the thread that it lives on. Told to stop, it finishes what has
    /// begun and begins nothing. Dropped, it leaves nothing behind.
    fn serve(self: Arc<Self>, socket: Accepted, stop: Stop) -> LocalBoxFuture<'static, ()>;
}

/// How many connections there are and were, of one door.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicUsize,
    opened: AtomicU64,
    refused: AtomicU64,
    accept_errors: AtomicU64,
}

/// [`Connections`] at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ConnectionCounts {
    /// Open now.
    pub open: usize,
    /// Ever opened.
    pub opened: u64,
    /// Closed at once, because there were too many.
    pub refused: u64,
    /// Failures to accept one.
    pub accept_errors: u64,
}

impl Connections {
    /// The counts at this moment.
    pub fn counts(&self) -> ConnectionCounts {
        ConnectionCounts {
            open: self.open.load(Ordering::Relaxed),
            opened: self.opened.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            accept_errors: self.accept_errors.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_accept_error(&self) {
        self.accept_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection is accepted; it is open as long as the value returned, and opened once it has its actor.
    pub fn open(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(self))
    }
}

/// Counts as an open connection.
#[derive(Debug)]
pub struct Open(Arc<Connections>);

impl Open {
    /// The connection has its actor.
    pub(super) fn opened(&self) {
        self.0.opened.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An open connection. Everything about it, each of its requests too, runs inside its own context: a
/// panic ends this connection and no other, and with the actor everything of it is gone.
pub struct StreamConnection {
    /// Until it is started.
    serving: Option<LocalBoxFuture<'static, ()>>,
    _open: Open,
}

impl StreamConnection {
    /// A connection that `door` serves, until `stop` is ready and what had begun by then has finished.
    pub fn new(
        door: Arc<dyn Door>,
        socket: Accepted,
        open: Open,
        stop: impl Future<Output = ()> + 'static,
    ) -> Self {
        open.opened();
        Self { serving: Some(door.serve(socket, Box::pin(stop))), _open: open }
    }
}

impl Actor for StreamConnection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        match self.serving.take() {
            Some(serving) => {
                ctx.spawn(serving.into_actor(self).map(|(), _connection, ctx| ctx.stop()));
            }
            None => ctx.stop(),
        }
    }
}
