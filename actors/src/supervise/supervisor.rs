//! Supervisors in the making: how a tree is defined and started.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use actix::{Actor, Context};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use super::{
    ActorRef, Recipient,
    actor_child::{ActorChild, Declared},
    changes::Roll,
    child::{Definition, StartError},
    driver::{ORDERS_MAX, Uplink, supervise},
    dynamic::{DynamicChild, DynamicRef},
    failure::Failure,
    nested::NestedChild,
    node::Node,
    running::{RunningTree, ShutdownReport, Status, TreeMonitor},
    settings::{
        Backoff, ChildSpec, DynamicSpec, Intensity, OnRestart, Restart, Restarted, SettingsError, Strategy,
    },
    thread_child::{ThreadChild, ThreadContext},
};

/// A supervisor in the making: an ordered list of children.
///
/// Children start in the order in which they are defined, each when the one before it is ready, and
/// stop in reverse. Their inboxes exist at once, so that references can be wired in any direction.
pub struct Supervisor {
    pub(super) name: String,
    pub(super) strategy: Strategy,
    pub(super) intensity: Intensity,
    pub(super) restart: Restart,
    pub(super) backoff: Backoff,
    pub(super) children: Vec<Box<dyn Definition>>,
    pub(super) on_restart: Option<OnRestart>,
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
            on_restart: None,
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

    /// Tells of each restart of one of its children, when the child is ready again. It is called on the supervisor's thread,
    /// so it must neither wait nor panic.
    #[must_use]
    pub fn on_restart(mut self, tell: impl Fn(&Restarted<'_>) + Send + Sync + 'static) -> Self {
        self.on_restart = Some(Arc::new(tell));
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

    /// Adds a plain thread, for work that blocks. Its body is called anew for each incarnation, on a
    /// thread of its own; where the child is placed means nothing to it.
    ///
    /// ```
    /// # use std::{io::Write as _, time::Duration};
    /// # use nyx_telemetry::supervise::{ChildSpec, Intensity, StartError, Strategy, Supervisor};
    /// # actix_rt::System::new().block_on(async {
    /// # let mut tree = Supervisor::new("root", Strategy::OneForOne, Intensity::default());
    /// let lines = tree.thread(ChildSpec::new("writer"), |thread| {
    ///     let (mut file, mut batch) = (std::io::sink(), Vec::new());
    ///     while thread.recv(&mut batch, 256) {
    ///         for line in batch.drain(..) {
    ///             writeln!(file, "{line}").map_err(StartError::new)?;
    ///         }
    ///     }
    ///     Ok(())
    /// });
    /// let running = tree.start().await.unwrap();
    /// lines.send("hello").await.unwrap();
    /// assert!(running.shutdown(Duration::from_secs(5)).await.is_clean());
    /// # });
    /// ```
    pub fn thread<M, F>(&mut self, spec: ChildSpec, body: F) -> Recipient<M>
    where
        M: Send + 'static,
        F: Fn(&mut ThreadContext<M>) -> Result<(), StartError> + Send + Sync + 'static,
    {
        let (child, inbox) = ThreadChild::new(spec, body);
        self.define(Box::new(child));
        Recipient::of_thread(inbox)
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
        let Self { name, strategy, intensity, mut children, on_restart, .. } = self;
        let mut roll = Vec::new();
        for child in &mut children {
            child.enroll("", intensity, &mut roll)?;
        }
        let roll = Roll::new(Mutex::new(roll));
        let mut node = Node::new(name, strategy, intensity, children);
        node.set_root(Roll::clone(&roll));
        node.tell_of_restarts(on_restart);
        let report = Rc::new(RefCell::new(ShutdownReport::default()));
        node.share_report(&report);

        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        let (status, news) = watch::channel(Status::Starting);
        let begun = node.begin();
        let node = Rc::new(RefCell::new(node));
        let uplink = Uplink::Root { status, report };
        #[allow(clippy::disallowed_methods, reason = "the supervisor's loop, which catches its own panics")]
        let _detached = actix_rt::spawn(supervise(node, begun, inbox, uplink));

        let tree = RunningTree { orders, news, monitor: TreeMonitor { roll } };
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
