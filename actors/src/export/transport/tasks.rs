//! The futures of connections, polled by the actor whose connections they are.
//!
//! A transport spawns nothing: hyper's own futures go into [`Tasks`], which the actor polls beside the requests. So a
//! panic in any of them is the actor's, and the actor's end is theirs.

use std::{future::Future, pin::Pin, sync::Arc, task::Waker};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// A future that somebody has to poll.
pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The futures of the connections, on their way to the actor that polls them.
#[derive(Clone, Default)]
pub(crate) struct Tasks(Arc<TasksInner>);

#[derive(Default)]
struct TasksInner {
    new: Mutex<Vec<Task>>,
    actor: AtomicWaker,
}

impl Tasks {
    fn push(&self, task: Task) {
        self.0.new.lock().push(task);
        self.0.actor.wake();
    }

    /// Takes what is new; `waker` is woken when there is more.
    pub(crate) fn take(&self, waker: &Waker) -> Vec<Task> {
        self.0.actor.register(waker);
        std::mem::take(&mut *self.0.new.lock())
    }
}

/// What hyper runs the futures of one connection on; they end with it.
#[derive(Clone)]
pub(super) struct Executor {
    pub(super) tasks: Tasks,
    pub(super) end: CancellationToken,
}

impl Executor {
    pub(super) fn new(tasks: &Tasks) -> Self {
        Self { tasks: tasks.clone(), end: CancellationToken::new() }
    }

    pub(super) fn run(&self, future: impl Future<Output = ()> + Send + 'static) {
        let end = self.end.clone();
        self.tasks.push(Box::pin(async move {
            // Cancelled or done, there is nobody to tell.
            let _ended = end.run_until_cancelled(future).await;
        }));
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        self.run(future);
    }
}
