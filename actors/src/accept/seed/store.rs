//! What a context holds: open spans, finished ones that wait, and what is remembered of both (pure).

use std::{
    collections::{HashMap, VecDeque},
    time::SystemTime,
};

use serde::Serialize;

use super::{
    super::ConnectionId,
    config::ContextLimits,
    span::{SpanStatus, TelemetrySpan},
    traces::{Place, Traces},
};

/// What a span is charged beside its texts.
const SPAN_COST: usize = 256;
/// What an attribute is charged beside its texts.
const ATTRIBUTE_COST: usize = 64;
/// Bytes of a name at most.
const NAME_BYTES_MAX: usize = 16 << 10;
/// Connections of one open span at most.
const CONNECTIONS_MAX: usize = 16;

/// A context's account at one moment: created = open + waiting + taken + collected + dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ContextCounts {
    /// Spans that were begun.
    pub created: u64,
    /// Begun and not ended.
    pub open: u64,
    /// Ended and still here.
    pub waiting: u64,
    /// Handed out by `take_finished_spans`.
    pub taken: u64,
    /// Taken by a bridge.
    pub collected: u64,
    /// Ended, and dropped for a newer one that found no room.
    pub dropped: u64,
    /// Not begun, because they would have been nested too deep.
    pub refused_depth: u64,
    /// Not begun, because too many were open.
    pub refused_open: u64,
    /// Not begun, because their trace is not sampled.
    pub sampled_out: u64,
    /// Begun as new roots, because nothing was known of their parent.
    pub orphaned: u64,
    /// Attributes that found no room, and connections beyond a span's 16.
    pub attributes_dropped: u64,
    /// Attributes and ends for spans that were not open.
    pub too_late: u64,
}

impl ContextCounts {
    /// Whether every span that was begun is somewhere.
    pub fn balances(&self) -> bool {
        self.created == self.open + self.waiting + self.taken + self.collected + self.dropped
    }
}

/// Where a span that is to be begun belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A child.
    Child { parent: u64, place: Place },
    /// A root; its parent, if it asked for one, is unknown.
    Root { linked: Option<u64> },
}

#[derive(Debug)]
pub(super) struct Store {
    limits: ContextLimits,
    open: HashMap<u64, OpenSpan>,
    open_bytes: usize,
    finished: VecDeque<TelemetrySpan>,
    finished_bytes: usize,
    traces: Traces,
    /// Open spans by connection.
    connections: HashMap<ConnectionId, Vec<u64>>,
    /// Ended spans by connection, the oldest first.
    ended: VecDeque<(ConnectionId, u64)>,
    counts: ContextCounts,
}

#[derive(Debug)]
struct OpenSpan {
    span: TelemetrySpan,
    depth: u32,
    bytes: usize,
    connections: Vec<ConnectionId>,
}

impl Store {
    pub(super) fn new(limits: ContextLimits) -> Self {
        Self {
            limits,
            open: HashMap::new(),
            open_bytes: 0,
            finished: VecDeque::new(),
            finished_bytes: 0,
            traces: Traces::new(limits.max_remembered),
            connections: HashMap::new(),
            ended: VecDeque::new(),
            counts: ContextCounts::default(),
        }
    }

    pub(super) fn counts(&self) -> ContextCounts {
        ContextCounts { open: self.open.len() as u64, waiting: self.finished.len() as u64, ..self.counts }
    }

    /// Where a span with this parent belongs; `None`, counted, where that is too deep.
    pub(super) fn origin(&mut self, parent: Option<u64>, max_depth: u32) -> Option<Origin> {
        let place = parent.and_then(|parent| self.place(parent));
        let (origin, depth) = match (parent, place) {
            (Some(parent), Some(Place { trace_id, depth })) => {
                let depth = depth.saturating_add(1);
                (Origin::Child { parent, place: Place { trace_id, depth } }, depth)
            }
            (linked, _) => (Origin::Root { linked }, 1),
        };
        if depth > max_depth {
            self.counts.refused_depth += 1;
            return None;
        }
        Some(origin)
    }

    fn place(&self, span_id: u64) -> Option<Place> {
        match self.open.get(&span_id) {
            Some(OpenSpan { span, depth, .. }) => Some(Place { trace_id: span.trace_id, depth: *depth }),
            None => self.traces.get(span_id),
        }
    }

    pub(super) fn sampled_out(&mut self) {
        self.counts.sampled_out += 1;
    }

    /// Begins a span, unless there is no room.
    pub(super) fn begin(
        &mut self,
        span_id: u64,
        trace_id: u128,
        origin: Origin,
        name: &str,
        start_time: SystemTime,
    ) -> Option<u64> {
        let name = name.get(..name.floor_char_boundary(NAME_BYTES_MAX)).unwrap_or_default();
        let bytes = SPAN_COST + name.len();
        let full = self.open.len() >= self.limits.max_open_spans
            || self.open_bytes.saturating_add(bytes) > self.limits.max_open_bytes;
        // Two random numbers of 64 bits that are the same: the one that is there stays.
        if full || self.open.contains_key(&span_id) {
            self.counts.refused_open += 1;
            return None;
        }
        let (parent_span_id, linked_span_id, depth) = match origin {
            Origin::Child { parent, place } => (Some(parent), None, place.depth),
            Origin::Root { linked } => (None, linked, 1),
        };
        let span = TelemetrySpan {
            span_id,
            parent_span_id,
            trace_id,
            name: name.to_owned(),
            start_time,
            end_time: None,
            attributes: HashMap::new(),
            status: SpanStatus::Unset,
            linked_span_id,
        };
        self.open.insert(span_id, OpenSpan { span, depth, bytes, connections: Vec::new() });
        self.open_bytes += bytes;
        self.counts.created += 1;
        self.counts.orphaned += u64::from(linked_span_id.is_some());
        Some(span_id)
    }

    /// Sets an attribute of an open span.
    pub(super) fn set_attribute(&mut self, span_id: u64, key: &str, value: &str) {
        let Some(open) = self.open.get_mut(&span_id) else {
            self.counts.too_late += 1;
            return;
        };
        let cost = |value: &str| ATTRIBUTE_COST + key.len() + value.len();
        let (replaced, one_more) = match open.span.attributes.get(key) {
            Some(before) => (cost(before), 0),
            None => (0, 1),
        };
        let bytes = (open.bytes - replaced).saturating_add(cost(value));
        let all = (self.open_bytes - open.bytes).saturating_add(bytes);
        if open.span.attributes.len() + one_more > self.limits.max_attributes
            || bytes > self.limits.max_span_bytes
            || all > self.limits.max_open_bytes
        {
            self.counts.attributes_dropped += 1;
            return;
        }
        open.span.attributes.insert(key.to_owned(), value.to_owned());
        open.bytes = bytes;
        self.open_bytes = all;
    }

    /// Ends an open span, which then waits; what finds no room pushes the oldest out. Does nothing to one that has ended.
    pub(super) fn end(&mut self, span_id: u64, status: SpanStatus, end_time: SystemTime) {
        let Some(OpenSpan { mut span, depth, bytes, connections }) = self.open.remove(&span_id) else {
            self.counts.too_late += 1;
            return;
        };
        self.open_bytes -= bytes;
        self.traces.remember(span_id, Place { trace_id: span.trace_id, depth });
        for connection in connections {
            self.dissociate(connection, span_id);
            self.remember(connection, span_id);
        }
        span.status = status;
        span.end_time = Some(end_time);
        self.finished_bytes += bytes;
        self.finished.push_back(span);
    }

    /// Drops the oldest of the spans that wait until they fit. Returns how many.
    pub(super) fn make_room(&mut self) -> u64 {
        let mut dropped = 0;
        while self.finished_bytes > self.limits.max_finished_bytes && self.pop_finished().is_some() {
            dropped += 1;
        }
        self.counts.dropped += dropped;
        dropped
    }

    /// The oldest span that waits.
    pub(super) fn first_finished(&self) -> Option<&TelemetrySpan> {
        self.finished.front()
    }

    /// A bridge has the oldest span that waits.
    pub(super) fn collected(&mut self) {
        self.counts.collected += u64::from(self.pop_finished().is_some());
    }

    /// All spans that wait, the oldest first.
    pub(super) fn take(&mut self) -> Vec<TelemetrySpan> {
        let finished = std::mem::take(&mut self.finished);
        self.finished_bytes = 0;
        self.counts.taken += finished.len() as u64;
        finished.into()
    }

    fn pop_finished(&mut self) -> Option<TelemetrySpan> {
        let span = self.finished.pop_front()?;
        self.finished_bytes = self.finished_bytes.saturating_sub(cost(&span));
        Some(span)
    }

    /// Says that a span is of this connection.
    pub(super) fn associate(&mut self, connection: ConnectionId, span_id: u64) {
        match self.open.get_mut(&span_id) {
            Some(open) if open.connections.contains(&connection) => {}
            Some(open) if open.connections.len() >= CONNECTIONS_MAX => {
                self.counts.attributes_dropped += 1;
            }
            Some(open) => {
                open.connections.push(connection);
                self.connections.entry(connection).or_default().push(span_id);
            }
            None => self.remember(connection, span_id),
        }
    }

    /// The spans of a connection: those that ended, as far as they are remembered, then those that are open.
    pub(super) fn of_connection(&self, connection: ConnectionId) -> Vec<u64> {
        let ended = self.ended.iter().filter(|(of, _)| *of == connection).map(|(_, span_id)| *span_id);
        ended.chain(self.open_of(connection).iter().copied()).collect()
    }

    /// The open spans of a connection, the oldest first.
    pub(super) fn open_of(&self, connection: ConnectionId) -> &[u64] {
        self.connections.get(&connection).map_or(&[], Vec::as_slice)
    }

    fn dissociate(&mut self, connection: ConnectionId, span_id: u64) {
        if let Some(spans) = self.connections.get_mut(&connection) {
            spans.retain(|span| *span != span_id);
            if spans.is_empty() {
                self.connections.remove(&connection);
            }
        }
    }

    fn remember(&mut self, connection: ConnectionId, span_id: u64) {
        if self.limits.max_remembered == 0 {
            return;
        }
        if self.ended.len() >= self.limits.max_remembered {
            self.ended.pop_front();
        }
        self.ended.push_back((connection, span_id));
    }
}

fn cost(span: &TelemetrySpan) -> usize {
    let attribute = |(key, value): (&String, &String)| ATTRIBUTE_COST + key.len() + value.len();
    SPAN_COST + span.name.len() + span.attributes.iter().map(attribute).sum::<usize>()
}
