//! The loop that drives a supervisor's state: it hears, and lets the state take the next step.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    changes::{Came, Went},
    child::{Definition, Event, Report, Stop},
    failure::{Failure, watch as watched},
    monitor::Exit,
    node::{Node, Phase},
    running::{ShutdownReport, Status},
};

/// Orders that may wait. Of those to leave there are two kinds, and giving one twice changes nothing.
pub(super) const ORDERS_MAX: usize = 4;

/// What a supervisor is told.
pub(super) enum Order {
    /// To stop its children.
    Leave { how: Stop, overall: Option<Instant> },
    /// To take a child in, in front of another.
    Add { child: Box<dyn Definition + Send>, before: String, came: Came },
    /// To let a child go.
    Remove { name: String, went: Went },
}

/// To whom a supervisor reports.
pub(super) enum Uplink {
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
pub(super) type Begun = (u64, mpsc::UnboundedReceiver<Event>);

/// The loop of one supervisor, and what follows its own panic: its children do not outlive it.
pub(super) async fn supervise(
    node: Rc<RefCell<Node>>,
    begun: Begun,
    orders: mpsc::Receiver<Order>,
    uplink: Uplink,
) {
    let (generation, events) = begun;
    let mut looping = pin!(run(&node, generation, events, orders, &uplink));
    let end = poll_fn(|cx| match watched(|| looping.as_mut().poll(cx)).result {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
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
            let now = Instant::now();
            node.tick(now);
            node.step(now);
            (node.phase().clone(), node.next_timer(now))
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
                let mut node = node.borrow_mut();
                match order.unwrap_or(Order::Leave { how: Stop::Drain, overall: None }) {
                    Order::Leave { how, overall } => node.leave(how, overall),
                    Order::Add { child, before, came } => node.add(child, &before, came),
                    Order::Remove { name, went } => node.remove(&name, went),
                }
            }
            event = events.recv() => if let Some(event) = event {
                node.borrow_mut().hear(event);
            },
            () = timer => {}
        }
    }
}
