//! Supervisors under a supervisor.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};

use super::{
    child::{Definition, Incarnation, Policy, Report, Stop, enroll_one},
    driver::{ORDERS_MAX, Order, Uplink, supervise},
    node::Node,
    record::{ChildKind, Vital},
    running::ShutdownReport,
    settings::{Intensity, SettingsError},
    supervisor::Supervisor,
};

/// A supervisor as a child.
pub(super) struct NestedChild {
    policy: Policy,
    vital: Arc<Vital>,
    node: Rc<RefCell<Node>>,
}

impl NestedChild {
    pub(super) fn new(inner: Supervisor) -> Self {
        let Supervisor { name, strategy, intensity, restart, backoff, children, on_restart } = inner;
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
            drains_more: false,
            progress_deadline: None,
            bound: false,
        };
        let mut node = Node::new(name, strategy, intensity, children);
        node.tell_of_restarts(on_restart);
        let node = Rc::new(RefCell::new(node));
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
        let _has_that_order = self.orders.try_send(Order::Leave { how, overall });
    }

    fn kill(&self) {
        self.node.borrow_mut().kill_all();
    }
}
