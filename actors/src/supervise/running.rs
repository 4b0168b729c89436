//! A tree that runs, as its owner sees it.

use std::{io, sync::Arc, time::Duration};

use actix::{Actor, Context};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    actor_child::{ActorChild, Declared},
    changes::{ChildError, Roll},
    child::{StartError, Stop},
    driver::Order,
    errors::TrySendError,
    failure::Failure,
    record::ChildRecord,
    settings::after,
    watchdog::Watchdog,
};

/// How a shutdown went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Children that did not stop within their deadline; their threads are fenced.
    pub given_up: Vec<String>,
    /// Messages that no handler saw.
    pub abandoned: u64,
}

impl ShutdownReport {
    /// Whether everything stopped in order and nothing was left behind.
    pub fn is_clean(&self) -> bool {
        self.given_up.is_empty() && self.abandoned == 0
    }
}

/// What the root has come to.
#[derive(Clone)]
pub(super) enum Status {
    Starting,
    Running,
    Escalated(Arc<Failure>),
    Stopped { report: ShutdownReport, failure: Option<Arc<Failure>> },
}

impl Status {
    pub(super) fn failure(&self) -> Option<&Arc<Failure>> {
        match self {
            Self::Starting | Self::Running => None,
            Self::Escalated(failure) => Some(failure),
            Self::Stopped { failure, .. } => failure.as_ref(),
        }
    }
}

/// A tree whose children run. Dropped, it begins an ordered stop that nobody waits for.
pub struct RunningTree {
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) news: watch::Receiver<Status>,
    pub(super) monitor: TreeMonitor,
}

impl RunningTree {
    /// Stops all children in reverse order. Each drains its inbox within its own stop deadline, all
    /// together within this one; who is not done by then is given up on. May be called again, with
    /// a nearer deadline.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        let order = Order::Leave { how: Stop::Drain, overall: Some(after(Instant::now(), deadline)) };
        let _stopped_already = self.orders.send(order).await;
        let mut news = self.news.clone();
        match news.wait_for(|status| matches!(status, Status::Stopped { .. })).await.as_deref() {
            Ok(Status::Stopped { report, .. }) => report.clone(),
            Ok(_) | Err(_) => ShutdownReport::default(),
        }
    }

    /// Takes an actor in as a child of the root, in front of the one named `before`: it is started after what stands before
    /// it and stopped in its turn, and its failures count with those of the others. Returns when it is ready for the first time.
    ///
    /// # Errors
    /// [`ChildError`]; then it is no child.
    pub async fn add<A, F>(&self, declared: Declared<A>, before: &str, factory: F) -> Result<(), ChildError>
    where
        A: Actor<Context = Context<A>>,
        F: Fn() -> Result<A, StartError> + Send + Sync + 'static,
    {
        let child = Box::new(ActorChild::new(declared, factory));
        let (came, answer) = oneshot::channel();
        self.order(Order::Add { child, before: before.to_owned(), came }, answer).await
    }

    /// Stops a child of the root in order, within its stop deadline, and forgets it. The others go on meanwhile.
    ///
    /// # Errors
    /// [`ChildError::Unknown`] and [`ChildError::Stopping`].
    pub async fn remove(&self, name: &str) -> Result<ShutdownReport, ChildError> {
        let (went, answer) = oneshot::channel();
        self.order(Order::Remove { name: name.to_owned(), went }, answer).await
    }

    async fn order<T>(
        &self,
        order: Order,
        answer: oneshot::Receiver<Result<T, ChildError>>,
    ) -> Result<T, ChildError> {
        if self.orders.send(order).await.is_err() {
            return Err(ChildError::Stopping);
        }
        // One that stops drops what it does not answer.
        answer.await.unwrap_or(Err(ChildError::Stopping))
    }

    /// Waits until the root gives up: a child failed more often than the root's intensity allows. It is
    /// not started again; its neighbours go on until the caller shuts the tree down.
    pub async fn escalated(&self) -> Arc<Failure> {
        let mut news = self.news.clone();
        match news.wait_for(|status| status.failure().is_some()).await.as_deref().map(Status::failure) {
            Ok(Some(failure)) => Arc::clone(failure),
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// From now on the process has `limit` to stop the tree and drop the watchdog; otherwise it ends with
    /// this exit status. To be armed before a [`RunningTree::shutdown`], with a little more than its
    /// deadline, where the tree is all that the process is for.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub fn watchdog(&self, limit: Duration, status: i32) -> io::Result<Watchdog> {
        Watchdog::arm(self.monitor(), limit, status)
    }

    /// The records of all children, in the order of their definition.
    pub fn records(&self) -> Vec<ChildRecord> {
        self.monitor.records()
    }

    /// A handle for the records, for any thread.
    pub fn monitor(&self) -> TreeMonitor {
        self.monitor.clone()
    }
}

/// Reads the records of a tree; cheap to clone, and valid after the tree is gone.
#[derive(Clone)]
pub struct TreeMonitor {
    pub(super) roll: Roll,
}

impl TreeMonitor {
    /// The records of all children, in the order of their definition.
    pub fn records(&self) -> Vec<ChildRecord> {
        let vitals = self.roll.lock().clone();
        vitals.iter().map(|vital| vital.record()).collect()
    }

    /// As [`ActorRef::crash`](super::ActorRef::crash), for the actor of this name; a thread panics with what it takes
    /// next in hand, if anything comes soon.
    ///
    /// # Errors
    /// [`TrySendError`] where its inbox is full or closed, or no actor has this name.
    pub fn crash(&self, name: &str, why: &'static str) -> Result<(), TrySendError<()>> {
        let vital = self.roll.lock().iter().find(|vital| vital.name() == name).cloned();
        vital.map_or(Err(TrySendError::Closed(())), |vital| vital.crash(why))
    }
}
