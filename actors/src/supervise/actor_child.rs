//! An actor with an inbox as a child, and how any actor comes under its monitor.

use std::{marker::PhantomData, sync::Arc};

use actix::{Actor, AsyncContext, Context};
use actix_rt::{Arbiter, ArbiterHandle};
use tokio::time::Instant;

use super::{
    child::{Definition, Incarnation, Policy, Ready, Report, StartError, Stop},
    failure::{Failure, FailureCause, watch},
    feeder::Feeder,
    inbox::{Inbox, inbox},
    monitor::{Exit, Life, Monitor, Watcher, Watching},
    queue::Gate,
    record::Vital,
    settings::{ChildSpec, Placement},
};

/// An actor's definition whose inbox exists, but whose factory is still to come: for actors that need
/// each other's references.
pub struct Declared<A: Actor> {
    spec: ChildSpec,
    inbox: Arc<Inbox<A>>,
}

impl ChildSpec {
    /// The inbox of an actor whose factory comes later, see [`Supervisor::declared`](super::Supervisor::declared).
    pub fn declare<A: Actor<Context = Context<A>>>(self) -> Declared<A> {
        Declared::new(self)
    }
}

impl<A: Actor<Context = Context<A>>> Declared<A> {
    pub(super) fn new(spec: ChildSpec) -> Self {
        let inbox = Arc::new(inbox(spec.inbox_capacity));
        Self { spec, inbox }
    }

    /// The actor's reference. Messages wait until it is started.
    pub fn actor_ref(&self) -> super::ActorRef<A> {
        super::ActorRef::new(Arc::clone(&self.inbox))
    }
}

/// An actor as a child.
pub(super) struct ActorChild<A: Actor, F> {
    policy: Policy,
    placement: Placement,
    inbox: Arc<Inbox<A>>,
    factory: Arc<F>,
    vital: Arc<Vital>,
    actor: PhantomData<fn() -> A>,
}

impl<A, F> ActorChild<A, F>
where
    A: Actor<Context = Context<A>>,
    F: Fn() -> Result<A, StartError> + Send + Sync + 'static,
{
    pub(super) fn new(declared: Declared<A>, factory: F) -> Self {
        let Declared { spec, inbox } = declared;
        let (policy, placement) = Policy::of(spec);
        let vital = Vital::new(super::ChildKind::Actor, Some(Arc::clone(&inbox) as Arc<dyn Gate>));
        Self { policy, placement, inbox, factory: Arc::new(factory), vital, actor: PhantomData }
    }
}

impl<A, F> Definition for ActorChild<A, F>
where
    A: Actor<Context = Context<A>>,
    F: Fn() -> Result<A, StartError> + Send + Sync + 'static,
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
        let held = Held { gate: Arc::clone(&self.inbox) as Arc<dyn Gate>, life: Arc::clone(&life) };
        let ready = Ready(report.clone());
        let incarnation = report.incarnation;
        let factory = Arc::clone(&self.factory);
        let inbox = Arc::clone(&self.inbox);
        let mut watching = Watching::new(ActorWatcher { report, gate: Arc::clone(&held.gate) });
        let arbiter = match &self.placement {
            Placement::WithSupervisor => None,
            Placement::On(arbiter) => Some(arbiter.clone()),
            Placement::Chosen(choose) => match watch(|| choose()).result {
                Ok(arbiter) => Some(arbiter),
                Err(panic) => {
                    watching.ended(Exit::Failed(panic));
                    return Box::new(held);
                }
            },
        };
        let birth = move || {
            let ctx = |ctx: &mut Context<A>| {
                ctx.spawn(Feeder::new(inbox, incarnation, ready));
            };
            give_birth(|| factory(), ctx, life, watching);
        };
        spawn_on(arbiter.as_ref(), birth);
        Box::new(held)
    }
}

/// Runs `birth` on the arbiter's thread. Where there is none any more, the closure is dropped, and the
/// [`Watching`] in it tells.
pub(super) fn spawn_on(arbiter: Option<&ArbiterHandle>, birth: impl FnOnce() + Send + 'static) -> bool {
    match arbiter {
        Some(arbiter) => arbiter.spawn_fn(birth),
        None => Arbiter::try_current().is_some_and(|arbiter| arbiter.spawn_fn(birth)),
    }
}

/// Makes the actor on its own thread, and leaves it there with its monitor.
pub(super) fn give_birth<A, W>(
    factory: impl FnOnce() -> Result<A, StartError>,
    prepare: impl FnOnce(&mut Context<A>),
    life: Arc<Life>,
    mut watching: Watching<W>,
) where
    A: Actor<Context = Context<A>>,
    W: Watcher,
{
    life.born();
    if life.is_killed() {
        return watching.ended(Exit::Killed);
    }
    match watch(factory).result {
        Ok(Ok(actor)) => {
            let mut ctx = Context::new();
            prepare(&mut ctx);
            let monitor = Monitor::new(ctx.into_future(actor), life, watching);
            #[allow(clippy::disallowed_methods, reason = "this is where an actor comes under its monitor")]
            let _detached = actix_rt::spawn(monitor);
        }
        Ok(Err(StartError(why))) => watching.ended(Exit::Failed(Failure::new(FailureCause::Failed, why))),
        Err(panic) => watching.ended(Exit::Failed(panic)),
    }
}

/// Tells a supervisor how an incarnation with an inbox ended.
pub(super) struct ActorWatcher {
    pub(super) report: Report,
    pub(super) gate: Arc<dyn Gate>,
}

impl Watcher for ActorWatcher {
    fn ended(self, exit: Exit) {
        let in_hand = self.gate.forfeit(self.report.incarnation);
        let exit = match exit {
            Exit::Failed(failure) => Exit::Failed(failure.with_message_type(in_hand)),
            exit => exit,
        };
        self.report.ended(exit);
    }
}

/// An incarnation with an inbox, as its supervisor holds it.
pub(super) struct Held {
    pub(super) gate: Arc<dyn Gate>,
    pub(super) life: Arc<Life>,
}

impl Incarnation for Held {
    fn stop(&self, how: Stop, _overall: Option<Instant>) {
        match how {
            Stop::Halt => self.gate.halt(),
            Stop::Drain => self.gate.close(),
        }
        self.life.nudge();
    }

    fn kill(&self) {
        self.gate.fence();
        self.life.kill();
    }

    fn is_born(&self) -> bool {
        self.life.is_born()
    }
}
