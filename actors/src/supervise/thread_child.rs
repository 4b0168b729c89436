//! A plain thread as a child: for work that blocks, such as writing files.

use std::{
    any::type_name,
    sync::Arc,
    task::{Context as TaskContext, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    actor_child::{ActorWatcher, Held},
    child::{Definition, Incarnation, Policy, Ready, Report, StartError},
    failure::{Failure, FailureCause, watch},
    monitor::{Exit, Life, Watching},
    queue::{Gate, Queue, Take},
    record::{ChildKind, Vital},
    settings::ChildSpec,
};

/// A thread that is told to crash looks so often for messages to have in hand then,
const CRASH_LOOKS: u32 = 100;
/// and waits so long for each.
const CRASH_LOOK: Duration = Duration::from_millis(5);

/// What the body of a supervised thread has: its inbox, and its line to its supervisor.
///
/// The thread is to end when [`ThreadContext::recv`] says so. One that does not end in time is given up:
/// it cannot be stopped, but its context hands out nothing more.
pub struct ThreadContext<M> {
    inbox: Arc<Queue<M>>,
    incarnation: u64,
    life: Arc<Life>,
    waker: Waker,
    ready: Option<Ready>,
}

impl<M: Send + 'static> ThreadContext<M> {
    /// Says that the thread is ready, so that the next child may start; the first
    /// [`ThreadContext::recv`] says it, too.
    pub fn ready(&mut self) {
        if let Some(ready) = self.ready.take() {
            ready.report();
        }
    }

    /// Waits for messages and puts those that are there, `max` at most, behind the ones in `batch`.
    /// They are in hand until the next call, and lost where the thread panics or fails before it.
    ///
    /// `false`: there will be no more, the thread is to end.
    #[must_use]
    pub fn recv(&mut self, batch: &mut Vec<M>, max: usize) -> bool {
        self.ready();
        let mut looks = 0;
        loop {
            self.life.register(&self.waker);
            let mut cx = TaskContext::from_waker(&self.waker);
            match self.inbox.take_many(self.incarnation, &mut cx, batch, max) {
                Take::Next(()) => {
                    self.inbox.crash_if_told();
                    return true;
                }
                // Woken by a sender or by its supervisor, or for no reason.
                Take::Empty if !self.inbox.is_told_to_crash(&self.waker) => thread::park(),
                Take::Empty if looks < CRASH_LOOKS => {
                    looks += 1;
                    thread::park_timeout(CRASH_LOOK);
                }
                Take::Empty => self.inbox.crash_if_told(),
                Take::Drained | Take::Halted | Take::Fenced => return false,
            }
        }
    }

    /// A sign of life, for a thread that works on one batch for longer than its progress deadline.
    pub fn progress(&self) {
        self.inbox.beat();
    }

    /// Whether the thread is to end. What waits in its inbox may still be for it: only
    /// [`ThreadContext::recv`] tells.
    pub fn is_stopping(&self) -> bool {
        self.inbox.is_ending(self.incarnation)
    }

    /// Whether the thread was given up on: another one may be in its place by now, and what they share
    /// is that one's.
    pub fn is_fenced(&self) -> bool {
        !self.inbox.belongs_to(self.incarnation)
    }
}

/// A thread as a child.
pub(super) struct ThreadChild<M, F> {
    policy: Policy,
    inbox: Arc<Queue<M>>,
    body: Arc<F>,
    vital: Arc<Vital>,
}

impl<M, F> ThreadChild<M, F>
where
    M: Send + 'static,
    F: Fn(&mut ThreadContext<M>) -> Result<(), StartError> + Send + Sync + 'static,
{
    pub(super) fn new(spec: ChildSpec, body: F) -> (Self, Arc<Queue<M>>) {
        let inbox = Arc::new(Queue::new(spec.inbox_capacity, |_| type_name::<M>(), None));
        let vital = Vital::new(ChildKind::Thread, Some(Arc::clone(&inbox) as Arc<dyn Gate>));
        let policy = Policy { bound: false, ..Policy::of(spec).0 };
        (Self { policy, inbox: Arc::clone(&inbox), body: Arc::new(body), vital }, inbox)
    }
}

impl<M, F> Definition for ThreadChild<M, F>
where
    M: Send + 'static,
    F: Fn(&mut ThreadContext<M>) -> Result<(), StartError> + Send + Sync + 'static,
{
    fn policy(&self) -> &Policy {
        &self.policy
    }

    fn vital(&self) -> &Arc<Vital> {
        &self.vital
    }

    fn backlog(&self) -> u64 {
        self.inbox.counts().depth
    }

    fn abandon(&self) -> u64 {
        self.inbox.abandon()
    }

    fn start(&mut self, report: Report) -> Box<dyn Incarnation> {
        self.inbox.admit(report.incarnation);
        let life = Arc::new(Life::default());
        let gate = Arc::clone(&self.inbox) as Arc<dyn Gate>;
        let held = Held { gate: Arc::clone(&gate), life: Arc::clone(&life) };
        let (inbox, body, incarnation) =
            (Arc::clone(&self.inbox), Arc::clone(&self.body), report.incarnation);
        let ready = Some(Ready(report.clone()));
        // Where there is no thread to be had, nobody takes it out again.
        let watching = Arc::new(Mutex::new(Some(Watching::new(ActorWatcher { report, gate }))));
        let watched = Arc::clone(&watching);
        let main = move || {
            let Some(mut watching) = watched.lock().take() else { return };
            life.born();
            let waker = Arc::new(Unpark(thread::current())).into();
            let mut context = ThreadContext { inbox, incarnation, life, waker, ready };
            let exit = match watch(|| body(&mut context)).result {
                Ok(Ok(())) => {
                    context.inbox.settle(incarnation);
                    Exit::Normal
                }
                Ok(Err(StartError(why))) => Exit::Failed(Failure::new(FailureCause::Failed, why)),
                Err(panic) => Exit::Failed(panic),
            };
            watching.ended(exit);
        };
        let spawned = thread::Builder::new().name(self.policy.name.clone()).spawn(main);
        if let Err(error) = spawned
            && let Some(mut watching) = watching.lock().take()
        {
            let why = format!("no thread could be started: {error}");
            watching.ended(Exit::Failed(Failure::new(FailureCause::Failed, why)));
        }
        Box::new(held)
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
