//! Where ended spans stood in their traces, as long as memory allows.

use std::collections::{HashMap, VecDeque};

/// Where a span stands in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The trace.
    pub(super) trace_id: u128,
    /// 1 for a root.
    pub(super) depth: u32,
}

/// The places of so many spans; the oldest is forgotten first.
#[derive(Debug)]
pub(super) struct Traces {
    places: HashMap<u64, Place>,
    order: VecDeque<u64>,
    max: usize,
}

impl Traces {
    pub(super) fn new(max: usize) -> Self {
        Self { places: HashMap::new(), order: VecDeque::new(), max }
    }

    pub(super) fn get(&self, span_id: u64) -> Option<Place> {
        self.places.get(&span_id).copied()
    }

    /// Remembers a place; a span's number comes once.
    pub(super) fn remember(&mut self, span_id: u64, place: Place) {
        if self.max == 0 {
            return;
        }
        if self.order.len() >= self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.places.remove(&oldest);
        }
        if self.places.insert(span_id, place).is_none() {
            self.order.push_back(span_id);
        }
    }
}
