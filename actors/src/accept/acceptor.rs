//! Acceptor: takes connections from a listener and hands each to an actor of its own.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::{Actor, AsyncContext as _, Context, WrapFuture as _};
use actix_rt::ArbiterHandle;
use tokio::time::sleep;

use super::{
    Accepted, Connections, Door, StreamConnection,
    listener::{Accepting, Listener},
};
use crate::supervise::{DynamicRef, StopSignal};

/// The first wait after an accept that failed; it doubles up to [`WAIT_MAX`].
const WAIT: Duration = Duration::from_millis(10);
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Where an accepted socket goes. One that is dropped is closed.
pub type HandOver = Arc<dyn Fn(Accepted) + Send + Sync>;

/// Hands sockets to connection actors on these arbiters in turn, as children of `set`. One connection more
/// than `set` takes is closed and counted.
pub fn spread(
    door: Arc<dyn Door>,
    set: DynamicRef,
    arbiters: Vec<ArbiterHandle>,
    connections: Arc<Connections>,
) -> HandOver {
    let next = AtomicUsize::new(0);
    Arc::new(move |socket| {
        let turn = next.fetch_add(1, Ordering::Relaxed).checked_rem(arbiters.len());
        let Some(arbiter) = turn.and_then(|turn| arbiters.get(turn)) else { return };
        let (door, open) = (Arc::clone(&door), connections.open());
        let connection = move |stop: StopSignal| Ok(StreamConnection::new(door, socket, open, stop.wait()));
        if let Err(error) = set.start(arbiter, "connection", connection) {
            connections.count_refused();
            tracing::debug!(%error, "connection closed");
        }
    })
}

/// Accepts the connections of one listener.
pub struct Acceptor {
    /// Until it is started.
    accepting: Option<Accepting>,
    name: String,
    hand_over: HandOver,
    connections: Arc<Connections>,
}

impl Acceptor {
    /// An acceptor on this thread's runtime; a restarted one goes on with the same listener.
    ///
    /// # Errors
    /// The system has no descriptor left for it.
    pub fn new(listener: &Listener, hand_over: HandOver, connections: Arc<Connections>) -> io::Result<Self> {
        let name = listener.addr().to_string();
        Ok(Self { accepting: Some(listener.accepting()?), name, hand_over, connections })
    }
}

impl Actor for Acceptor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Some(accepting) = self.accepting.take() else { return };
        let (hand_over, connections) = (Arc::clone(&self.hand_over), Arc::clone(&self.connections));
        let mut trouble = Trouble::new(self.name.clone());
        let accept = async move {
            loop {
                match accepting.accept().await {
                    Ok(socket) => {
                        trouble.over();
                        hand_over(socket);
                    }
                    // The connection's own trouble, not the listener's.
                    Err(error) if is_gone(&error) => {}
                    Err(error) => {
                        connections.count_accept_error();
                        sleep(trouble.wait_after(&error)).await;
                    }
                }
            }
        };
        ctx.spawn(accept.into_actor(self));
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Accepts that fail one after another, as they do when there are no descriptors left: said once for each
/// kind, and waited out.
#[derive(Debug)]
struct Trouble {
    name: String,
    kind: Option<(io::ErrorKind, Option<i32>)>,
    wait: Duration,
}

impl Trouble {
    fn new(name: String) -> Self {
        Self { name, kind: None, wait: WAIT }
    }

    fn wait_after(&mut self, error: &io::Error) -> Duration {
        let kind = Some((error.kind(), error.raw_os_error()));
        if self.kind != kind {
            self.kind = kind;
            tracing::error!(%error, listener = self.name, "connections cannot be accepted");
        }
        let wait = self.wait;
        self.wait = (wait * 2).min(WAIT_MAX);
        wait
    }

    fn over(&mut self) {
        if self.kind.take().is_some() {
            self.wait = WAIT;
            tracing::info!(listener = self.name, "connections are accepted again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_that_fail_are_waited_out_longer_and_longer_until_one_succeeds() {
        let mut trouble = Trouble::new("127.0.0.1:14317".to_owned());
        let no_descriptors = io::Error::from_raw_os_error(24);
        let waits: Vec<u128> = (0..9).map(|_| trouble.wait_after(&no_descriptors).as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        trouble.over();
        assert_eq!(trouble.wait_after(&no_descriptors).as_millis(), 10);
    }
}
