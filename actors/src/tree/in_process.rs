//! Where the in-process connections of a tree are made.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use actix_rt::ArbiterHandle;

use crate::{
    accept::{Connection, ConnectionId, ConnectionLimits, Connections, FlushError, Outbox, SpanSink},
    supervise::DynamicRef,
};

/// An io thread, and the outbox of its in-process connections.
pub(super) struct Shard {
    pub(super) thread: ArbiterHandle,
    pub(super) outbox: Arc<Outbox>,
}

/// The shards, at least one.
pub(super) struct Shards {
    pub(super) first: Shard,
    pub(super) others: Vec<Shard>,
}

impl Shards {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Shard> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn pick(&self, turn: usize) -> &Shard {
        self.others.get(turn % (self.others.len() + 1)).unwrap_or(&self.first)
    }
}

/// Where in-process connections are made. Clones make connections of the same tree, from any thread.
#[derive(Clone)]
pub struct InProcess {
    pub(super) shards: Arc<Shards>,
    pub(super) next: Arc<AtomicUsize>,
    pub(super) limits: ConnectionLimits,
    pub(super) children: DynamicRef,
    pub(super) connections: Arc<Connections>,
}

impl InProcess {
    /// A new connection. Where there are too many, or the tree is on its way down, it is closed from the
    /// start: what it is told is counted as refused.
    pub fn connection(&self, id: ConnectionId) -> Connection {
        let shard = self.shards.pick(self.next.fetch_add(1, Ordering::Relaxed));
        let connection = Connection::new(id, Arc::clone(&shard.outbox), self.limits);
        let (actor, open) = (connection.actor(), self.connections.open());
        let started = self
            .children
            .start(&shard.thread, format!("connection {id}"), move |stop| Ok(actor.until(stop.wait(), open)));
        if let Err(error) = started {
            self.connections.count_refused();
            tracing::debug!(%error, "in-process connection is refused");
            connection.close();
        }
        connection
    }

    /// Where spans go that are encoded already.
    pub(crate) fn sink(&self) -> SpanSink {
        SpanSink::new(self.shards.iter().map(|shard| Arc::clone(&shard.outbox)).collect())
    }

    /// Waits until every span that ended before this call is committed.
    ///
    /// # Errors
    /// [`FlushError`] where the tree was shut down first.
    pub async fn flush(&self) -> Result<(), FlushError> {
        for shard in self.shards.iter() {
            shard.outbox.flush().await?;
        }
        Ok(())
    }
}
