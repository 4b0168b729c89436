//! Supervisors: how a tree is defined, started, watched and shut down.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix::{Actor, Context};
use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    ActorRef,
    child::{
        ActorChild, Declared, Definition, Event, Incarnation, Policy, Report, StartError, Stop, enroll_one,
    },
    dynamic::{DynamicChild, DynamicRef},
    failure::{Failure, watch as watched},
    monitor::Exit,
    node::{Node, Phase},
    record::{ChildKind, ChildRecord, Vital},
    settings::{Backoff, ChildSpec, DynamicSpec, Intensity, Restart, SettingsError, Strategy, after},
};

/// A supervisor in the making: an ordered list of children.
///
/// Children start in the order in which they are defined, each when the one before it is ready, and
/// stop in reverse. Their inboxes exist at once, so that references can be wired in any direction.
pub struct Supervisor {
    name: String,
    strategy: Strategy,
    intensity: Intensity,
    restart: Restart,
    backoff: Backoff,
    children: Vec<Box<dyn Definition>>,
}

impl Supervisor {
    /// A supervisor without children.
    pub fn new(name: impl Into<String>, strategy: Strategy, intensity: Intensity) -> Self {
        Self {
            name: name.into(),
            strategy,
            intensity,
            restart: Restart::Permanent,
            backoff: Backoff::default(),
            children: Vec::new(),
        }
    }

    /// When its own supervisor starts this one again.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// How long its own supervisor waits before that.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Adds an actor. The factory makes each of its incarnations, on the thread of its arbiter.
    pub fn child<A, F>(&mut self, spec: ChildSpec, factory: F) -> ActorRef<A>
    where
        A: Actor<Context = Context<A>>,
        F: Fn() -> Result<A, StartError> + Send + Sync + 'static,
    {
        self.declared(spec.declare(), factory)
    }

    /// Adds an actor that was declared before, because others needed its reference.
    pub fn declared<A, F>(&mut self, declared: Declared<A>, factory: F) -> ActorRef<A>
    where
        A: Actor<Context = Context<A>>,
        F: Fn() -> Result<A, StartError> + Send + Sync + 'static,
    {
        let actor_ref = declared.actor_ref();
        self.define(Box::new(ActorChild::new(declared, factory)));
        actor_ref
    }

    /// Adds a set of dynamic children, which comes and goes in this place of the order.
    pub fn dynamic(&mut self, spec: DynamicSpec) -> DynamicRef {
        let (child, dynamic_ref) = DynamicChild::new(spec);
        self.define(Box::new(child));
        dynamic_ref
    }

    pub(super) fn define(&mut self, child: Box<dyn Definition>) {
        self.children.push(child);
    }

    /// Adds a supervisor as a child. Where it gives up, it is this one's child that failed.
    pub fn nest(&mut self, inner: Supervisor) {
        self.define(Box::new(NestedChild::new(inner)));
    }

    /// Starts the tree, and returns when all its children are ready. To be called on the thread of
    /// an actix System, which becomes the one that supervises.
    ///
    /// # Errors
    /// [`TreeError`]; the children that were started by then are stopped, in reverse order.
    pub async fn start(self) -> Result<RunningTree, TreeError> {
        let Self { name, strategy, intensity, mut children, .. } = self;
        let mut roll = Vec::new();
        for child in &mut children {
            child.enroll("", intensity, &mut roll)?;
        }
        let mut node = Node::new(name, strategy, intensity, children);
        node.set_root();
        let report = Rc::new(RefCell::new(ShutdownReport::default()));
        node.share_report(&report);

        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        let (status, news) = watch::channel(Status::Starting);
        let begun = node.begin();
        let node = Rc::new(RefCell::new(node));
        let uplink = Uplink::Root { status, report };
        #[allow(clippy::disallowed_methods, reason = "the supervisor's loop, which catches its own panics")]
        let _detached = actix_rt::spawn(supervise(node, begun, inbox, uplink));

        let tree = RunningTree { orders, news, monitor: TreeMonitor { roll: roll.into() } };
        let mut news = tree.news.clone();
        let first = news.wait_for(|status| !matches!(status, Status::Starting)).await;
        match first.as_deref() {
            Ok(Status::Stopped { failure, .. }) => Err(TreeError::Start(failure.clone())),
            Ok(Status::Starting | Status::Running | Status::Escalated(_)) => {
                drop(first);
                Ok(tree)
            }
            Err(_) => Err(TreeError::Start(None)),
        }
    }
}

/// Orders that may wait; there are two kinds, and giving one twice changes nothing.
const ORDERS_MAX: usize = 4;

/// A tree did not start.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TreeError {
    /// Its settings make no sense; nothing was started.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A child failed before it was ready for the first time.
    #[error("{}", .0.as_ref().map_or("stopped while starting".to_owned(), |failure| failure.to_string()))]
    Start(Option<Arc<Failure>>),
}

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

#[derive(Clone)]
enum Status {
    Starting,
    Running,
    Escalated(Arc<Failure>),
    Stopped { report: ShutdownReport, failure: Option<Arc<Failure>> },
}

impl Status {
    fn failure(&self) -> Option<&Arc<Failure>> {
        match self {
            Self::Starting | Self::Running => None,
            Self::Escalated(failure) => Some(failure),
            Self::Stopped { failure, .. } => failure.as_ref(),
        }
    }
}

/// A tree whose children run. Dropped, it begins an ordered stop that nobody waits for.
pub struct RunningTree {
    orders: mpsc::Sender<Order>,
    news: watch::Receiver<Status>,
    monitor: TreeMonitor,
}

impl RunningTree {
    /// Stops all children in reverse order. Each drains its inbox within its own stop deadline, all
    /// together within this one; who is not done by then is given up on. May be called again, with
    /// a nearer deadline.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        let order = Order { how: Stop::Drain, overall: Some(after(Instant::now(), deadline)) };
        let _stopped_already = self.orders.send(order).await;
        let mut news = self.news.clone();
        match news.wait_for(|status| matches!(status, Status::Stopped { .. })).await.as_deref() {
            Ok(Status::Stopped { report, .. }) => report.clone(),
            Ok(_) | Err(_) => ShutdownReport::default(),
        }
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
    roll: Arc<[Arc<Vital>]>,
}

impl TreeMonitor {
    /// The records of all children, in the order of their definition.
    pub fn records(&self) -> Vec<ChildRecord> {
        self.roll.iter().map(|vital| vital.record()).collect()
    }
}

struct Order {
    how: Stop,
    overall: Option<Instant>,
}

/// To whom a supervisor reports.
enum Uplink {
    Root { status: watch::Sender<Status>, report: Rc<RefCell<ShutdownReport>> },
    Parent(Report),
}

impl Uplink {
    fn running(&self) {
        match self {
            Self::Root { status, .. } => drop(status.send_replace(Status::Running)),
            Self::Parent(report) => report.ready(),
        }
    }

    fn escalated(&self, failure: Arc<Failure>) {
        if let Self::Root { status, .. } = self {
            drop(status.send_replace(Status::Escalated(failure)));
        }
    }

    fn left(&self, failure: Option<Arc<Failure>>) {
        match self {
            Self::Root { status, report } => {
                let report = report.borrow().clone();
                status.send_modify(|status| {
                    let failure = failure.or_else(|| status.failure().cloned());
                    *status = Status::Stopped { report, failure };
                });
            }
            Self::Parent(report) => {
                report.ended(failure.map_or(Exit::Normal, |failure| Exit::Failed((*failure).clone())));
            }
        }
    }
}

/// The generation of a node's loop, and the events for it.
type Begun = (u64, mpsc::UnboundedReceiver<Event>);

/// The loop of one supervisor, and what follows its own panic: its children do not outlive it.
async fn supervise(node: Rc<RefCell<Node>>, begun: Begun, orders: mpsc::Receiver<Order>, uplink: Uplink) {
    let (generation, events) = begun;
    let mut looping = pin!(run(&node, generation, events, orders, &uplink));
    let end = poll_fn(|cx| match watched(|| looping.as_mut().poll(cx)).result {
        Ok(poll) => poll.map(Ok),
        Err(panic) => std::task::Poll::Ready(Err(panic)),
    })
    .await;
    if node.borrow().generation() != generation {
        return;
    }
    match end {
        Ok(failure) => uplink.left(failure),
        Err(panic) => {
            node.borrow_mut().kill_all();
            let panic = Arc::new(panic);
            uplink.escalated(Arc::clone(&panic));
            uplink.left(Some(panic));
        }
    }
}

async fn run(
    node: &RefCell<Node>,
    generation: u64,
    mut events: mpsc::UnboundedReceiver<Event>,
    mut orders: mpsc::Receiver<Order>,
    uplink: &Uplink,
) -> Option<Arc<Failure>> {
    let (mut told, mut ordered) = (false, true);
    loop {
        let (phase, timer) = {
            let mut node = node.borrow_mut();
            if node.generation() != generation {
                return None;
            }
            node.tick();
            node.step();
            (node.phase().clone(), node.next_timer())
        };
        match phase {
            Phase::Running if !told => {
                told = true;
                uplink.running();
            }
            Phase::Escalated { failure } => uplink.escalated(failure),
            Phase::Left { failure } => return failure,
            Phase::Starting | Phase::Running | Phase::Leaving { .. } => {}
        }
        let timer = async {
            match timer {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            order = orders.recv(), if ordered => {
                // Whoever could give orders is gone: that is one, too.
                ordered = order.is_some();
                let order = order.unwrap_or(Order { how: Stop::Drain, overall: None });
                node.borrow_mut().leave(order.how, order.overall);
            }
            event = events.recv() => if let Some(event) = event {
                node.borrow_mut().hear(event);
            },
            () = timer => {}
        }
    }
}

/// A supervisor as a child.
struct NestedChild {
    policy: Policy,
    vital: Arc<Vital>,
    node: Rc<RefCell<Node>>,
}

impl NestedChild {
    fn new(inner: Supervisor) -> Self {
        let Supervisor { name, strategy, intensity, restart, backoff, children } = inner;
        // Each child is bounded, one after the other; this bound is for the supervisor itself.
        let slack = Duration::from_secs(1);
        let sum = |of: fn(&Policy) -> Duration| {
            children.iter().map(|child| of(child.policy())).fold(Duration::ZERO, Duration::saturating_add)
        };
        let starts = sum(|policy| policy.start_deadline);
        let stops = sum(|policy| policy.stop_deadline);
        let policy = Policy {
            name: name.clone(),
            restart,
            backoff,
            start_deadline: starts.saturating_add(slack),
            stop_deadline: stops.saturating_mul(2).saturating_add(slack),
        };
        let node = Rc::new(RefCell::new(Node::new(name, strategy, intensity, children)));
        Self { policy, vital: Vital::new(ChildKind::Supervisor, None), node }
    }
}

impl Definition for NestedChild {
    fn policy(&self) -> &Policy {
        &self.policy
    }

    fn vital(&self) -> &Arc<Vital> {
        &self.vital
    }

    fn backlog(&self) -> u64 {
        self.node.borrow().backlog()
    }

    // Its children are counted one by one, in the report that it shares.
    fn abandon(&self) -> u64 {
        self.node.borrow_mut().bury_all();
        0
    }

    fn share_report(&mut self, report: &Rc<RefCell<ShutdownReport>>) {
        self.node.borrow_mut().share_report(report);
    }

    fn start(&mut self, report: Report) -> Box<dyn Incarnation> {
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        let node = Rc::clone(&self.node);
        let begun = node.borrow_mut().begin();
        #[allow(clippy::disallowed_methods, reason = "the supervisor's loop, which catches its own panics")]
        let _detached = actix_rt::spawn(supervise(node, begun, inbox, Uplink::Parent(report)));
        Box::new(RunningNode { node: Rc::clone(&self.node), orders })
    }

    fn enroll(
        &mut self,
        parent: &str,
        intensity: Intensity,
        roll: &mut Vec<Arc<Vital>>,
    ) -> Result<(), SettingsError> {
        self.policy.backoff.check(&self.policy.name, intensity)?;
        enroll_one(&self.policy.name, &self.vital, parent, roll)?;
        let mut node = self.node.borrow_mut();
        let intensity = node.intensity();
        node.children().try_for_each(|child| child.enroll(self.vital.name(), intensity, roll))
    }
}

struct RunningNode {
    node: Rc<RefCell<Node>>,
    orders: mpsc::Sender<Order>,
}

impl Incarnation for RunningNode {
    fn stop(&self, how: Stop, overall: Option<Instant>) {
        let _has_that_order = self.orders.try_send(Order { how, overall });
    }

    fn kill(&self) {
        self.node.borrow_mut().kill_all();
    }
}
