//! Where finished spans go that belong to no [`Connection`](super::Connection).

use std::{fmt, sync::Arc};

use super::outbox::Outbox;

/// Takes spans that are encoded already, and spreads their traces over the outboxes.
#[derive(Clone)]
pub(crate) struct SpanSink(Vec<Arc<Outbox>>);

impl SpanSink {
    pub(crate) const fn new(outboxes: Vec<Arc<Outbox>>) -> Self {
        Self(outboxes)
    }

    /// Takes the content of a `Span` message if its outbox has room, and says whether it did.
    pub(crate) fn offer(&self, trace_id: u128, span: &[u8]) -> bool {
        let turn = (trace_id as usize).checked_rem(self.0.len()).unwrap_or_default();
        self.0.get(turn).is_some_and(|outbox| outbox.offer(span))
    }
}

impl fmt::Debug for SpanSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpanSink").field("outboxes", &self.0.len()).finish()
    }
}
