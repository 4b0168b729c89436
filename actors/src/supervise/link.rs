//! Futures on another runtime, linked to an actor.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic,
    pin::{Pin, pin},
    task::{Context as TaskContext, Poll},
};

use tokio::{runtime::Handle, task::JoinHandle};

use super::failure::{panicked_at, watch_raw};

type Panic = (Box<dyn Any + Send>, Option<String>);

/// A future that runs on another runtime, linked to the actor that polls this: its panic becomes the
/// actor's, with its location, and dropping this (so the actor's end, however it comes) aborts it.
///
/// ```no_run
/// # use nyx_telemetry::supervise::Linked;
/// # async fn read_a_socket() -> usize { 0 }
/// # fn link(io: &tokio::runtime::Handle) {
/// let bytes = Linked::spawn(io, read_a_socket()); // polled inside the actor: ctx.spawn(bytes.into_actor(self)…)
/// # }
/// ```
#[derive(Debug)]
pub struct Linked<T> {
    task: JoinHandle<Result<T, Panic>>,
}

impl<T: Send + 'static> Linked<T> {
    /// Starts the future on the runtime.
    pub fn spawn(runtime: &Handle, future: impl Future<Output = T> + Send + 'static) -> Self {
        let task = runtime.spawn(async move {
            let mut future = pin!(future);
            poll_fn(|cx| match watch_raw(|| future.as_mut().poll(cx)) {
                Ok(poll) => poll.map(Ok),
                Err(panic) => Poll::Ready(Err(panic)),
            })
            .await
        });
        Self { task }
    }
}

impl<T> Future for Linked<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<T> {
        let (payload, location): Panic = match Pin::new(&mut self.task).poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(Ok(value))) => return Poll::Ready(value),
            Poll::Ready(Ok(Err(panic))) => panic,
            Poll::Ready(Err(_)) => (Box::new("the runtime of a linked future is gone"), None),
        };
        panicked_at(location);
        panic::resume_unwind(payload)
    }
}

impl<T> Drop for Linked<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
