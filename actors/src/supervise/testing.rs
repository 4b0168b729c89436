//! A harness for tests of supervision: paused time, one thread, and an actor that does what a test
//! wants at each point of its life.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{Arc, Weak},
    time::Duration,
};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, Running, WrapFuture};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::{
    ActorRef, Backoff, ChildRecord, ChildSpec, Intensity, RunningTree, StartError, Strategy, Supervisor,
};

/// Runs a test on an actix System with one thread and paused time.
pub(crate) fn paused<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    // In paused time, a test that waits for nothing is at this deadline at once.
    let hour = Duration::from_secs(3_600);
    actix_rt::System::with_tokio_rt(runtime)
        .block_on(async { timeout(hour, test).await })
        .expect("the test waits for ever")
}

/// Runs a test with real threads, and so in real time, which none of its outcomes depends on.
pub(crate) fn threads<T>(test: impl Future<Output = T>) -> T {
    let minute = Duration::from_secs(60);
    actix_rt::System::new().block_on(async { timeout(minute, test).await }).expect("the test waits for ever")
}

/// Waits, in paused time, until everything that is on its way has come to rest.
pub(crate) async fn settle() {
    sleep(Duration::from_nanos(1)).await;
}

/// Waits, in paused time, until a condition holds; a minute at most.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what} did not happen within a minute");
        sleep(Duration::from_millis(1)).await;
    }
}

/// Where a worker can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Factory,
    Started,
    Stopping,
    Stopped,
    Drop,
}

/// What it does there, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Do {
    Panic,
    /// The factory's error; elsewhere [`super::fail`].
    Fail,
    /// Waits for ever.
    Hang,
    /// Refuses to stop.
    Refuse,
}

/// What a test knows of its workers, and has in store for them.
#[derive(Clone, Default)]
pub(crate) struct Script(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    log: Vec<(Instant, String)>,
    plan: VecDeque<(String, At, Do)>,
    alive: Vec<Weak<()>>,
}

impl Script {
    /// `worker` does this when it comes to that point the next time.
    pub(crate) fn plan(&self, worker: &str, at: At, what: Do) {
        self.0.lock().plan.push_back((worker.to_owned(), at, what));
    }

    fn next(&self, worker: &str, at: At) -> Option<Do> {
        let mut inner = self.0.lock();
        let index = inner.plan.iter().position(|(who, when, _)| who == worker && *when == at)?;
        inner.plan.remove(index).map(|(_, _, what)| what)
    }

    pub(crate) fn note(&self, line: impl Into<String>) {
        self.0.lock().log.push((Instant::now(), line.into()));
    }

    /// What happened since the last call.
    pub(crate) fn log(&self) -> Vec<String> {
        self.0.lock().log.drain(..).map(|(_, line)| line).collect()
    }

    /// What happened, without forgetting it.
    pub(crate) fn seen(&self, line: &str) -> usize {
        self.0.lock().log.iter().filter(|(_, seen)| seen == line).count()
    }

    /// When a line was noted.
    pub(crate) fn times(&self, line: &str) -> Vec<Instant> {
        self.0.lock().log.iter().filter(|(_, seen)| seen == line).map(|(at, _)| *at).collect()
    }

    /// Workers that exist.
    pub(crate) fn alive(&self) -> usize {
        self.0.lock().alive.iter().filter(|worker| worker.strong_count() > 0).count()
    }

    pub(crate) fn factory(
        &self,
        name: &str,
    ) -> impl Fn() -> Result<Worker, StartError> + Send + Sync + use<> {
        let (script, name) = (self.clone(), name.to_owned());
        move || script.worker(&name)
    }

    pub(crate) fn worker(&self, name: &str) -> Result<Worker, StartError> {
        match self.next(name, At::Factory) {
            Some(Do::Panic) => panic!("factory of {name} panics"),
            Some(Do::Fail) => return Err(StartError::new("no such device")),
            _ => {}
        }
        let alive = Arc::new(());
        self.0.lock().alive.push(Arc::downgrade(&alive));
        Ok(Worker { name: name.to_owned(), script: self.clone(), _alive: alive })
    }
}

/// The actor of the tests.
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) script: Script,
    _alive: Arc<()>,
}

impl Worker {
    fn at(&mut self, at: At, ctx: &mut Context<Self>) -> Running {
        self.script.note(format!("{} {at:?}", self.name).to_lowercase());
        match self.script.next(&self.name, at) {
            Some(Do::Panic) => panic!("{} panics in {at:?}", self.name),
            Some(Do::Fail) => super::fail(ctx, format!("{} fails in {at:?}", self.name)),
            Some(Do::Hang) => ctx.wait(std::future::pending().into_actor(self)),
            Some(Do::Refuse) => return Running::Continue,
            None => {}
        }
        Running::Stop
    }
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.at(At::Started, ctx);
    }

    fn stopping(&mut self, ctx: &mut Self::Context) -> Running {
        self.at(At::Stopping, ctx)
    }

    fn stopped(&mut self, ctx: &mut Self::Context) {
        self.at(At::Stopped, ctx);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.script.note(format!("{} drop", self.name));
        if self.script.next(&self.name, At::Drop) == Some(Do::Panic) {
            panic!("{} panics in its drop", self.name);
        }
    }
}

/// Handled: noted as `name: number`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Note(pub(crate) u32);

impl Message for Note {
    type Result = u32;
}

impl Handler<Note> for Worker {
    type Result = u32;

    fn handle(&mut self, Note(number): Note, _: &mut Context<Self>) -> u32 {
        self.script.note(format!("{}: {number}", self.name));
        number
    }
}

type Action = Box<dyn FnOnce(&mut Worker, &mut Context<Worker>) + Send>;

/// Handled: done.
pub(crate) struct Run(Action);

impl Run {
    pub(crate) fn new(action: impl FnOnce(&mut Worker, &mut Context<Worker>) + Send + 'static) -> Self {
        Self(Box::new(action))
    }
}

impl Message for Run {
    type Result = ();
}

impl Handler<Run> for Worker {
    type Result = ();

    fn handle(&mut self, Run(action): Run, ctx: &mut Context<Self>) {
        action(self, ctx);
    }
}

/// Handled: `name: number` is noted after a pause in which the actor takes nothing else.
pub(crate) struct Slow(pub(crate) u32, pub(crate) Duration);

impl Message for Slow {
    type Result = ();
}

impl Handler<Slow> for Worker {
    type Result = ();

    fn handle(&mut self, Slow(number, pause): Slow, ctx: &mut Context<Self>) {
        let done = sleep(pause).into_actor(self);
        ctx.wait(done.map(move |(), actor, _| actor.script.note(format!("{}: {number}", actor.name))));
    }
}

/// 100 ms, 200 ms, 400 ms, … 2 s without jitter; anew after 10 s.
pub(crate) fn exact_backoff() -> Backoff {
    let ms = Duration::from_millis;
    Backoff::new(ms(100), 2.0, ms(2_000), 0.0, ms(10_000)).unwrap()
}

pub(crate) fn spec(name: &str) -> ChildSpec {
    ChildSpec::new(name).backoff(exact_backoff())
}

/// A tree of workers.
pub(crate) struct Tree {
    pub(crate) script: Script,
    pub(crate) running: RunningTree,
    pub(crate) refs: Vec<ActorRef<Worker>>,
}

/// A supervisor of workers with these names.
pub(crate) fn workers(
    script: &Script,
    strategy: Strategy,
    intensity: Intensity,
    names: &[&str],
) -> (Supervisor, Vec<ActorRef<Worker>>) {
    let mut supervisor = Supervisor::new("root", strategy, intensity);
    let refs = names.iter().map(|name| supervisor.child(spec(name), script.factory(name))).collect();
    (supervisor, refs)
}

impl Tree {
    pub(crate) async fn start(strategy: Strategy, names: &[&str]) -> Self {
        let script = Script::default();
        let (supervisor, refs) = workers(&script, strategy, Intensity::default(), names);
        let running = supervisor.start().await.unwrap();
        Self { script, running, refs }
    }

    /// A child's record; its depth, which is what adds up, is what its channel holds.
    pub(crate) fn record(&self, name: &str) -> ChildRecord {
        let records = self.running.records();
        let index = records.iter().position(|record| record.name == name).unwrap();
        let record = record(&self.running, name);
        assert_eq!(record.inbox.depth as usize, self.refs[index].depth());
        record
    }
}

/// A child's record, whose messages add up.
pub(crate) fn record(running: &RunningTree, name: &str) -> ChildRecord {
    let record = running.records().into_iter().find(|record| record.name == name).unwrap();
    let inbox = record.inbox;
    let sum = inbox.handled + inbox.lost + inbox.abandoned + inbox.depth + inbox.in_hand;
    assert_eq!(inbox.accepted, sum, "{inbox:?}");
    record
}
