//! The actor that looks now and then whether spans wait.

use std::{sync::Arc, time::Duration};

use actix::{Actor, AsyncContext, Context};

use crate::accept::seed::BridgeCounts;

/// Spans leave a context at their end; this is for those that found the outbox full.
pub(super) struct BridgeActor {
    counts: Arc<BridgeCounts>,
    poll_interval: Duration,
}

impl BridgeActor {
    pub(super) fn new(counts: Arc<BridgeCounts>, poll_interval: Duration) -> Self {
        Self { counts, poll_interval }
    }
}

impl Actor for BridgeActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.counts.poll();
        ctx.run_interval(self.poll_interval, |bridge, _| bridge.counts.poll());
    }
}
