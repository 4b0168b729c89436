//! Notices a child that has messages and handles none.
//!
//! Nobody tells when a message begins to wait, so the supervisor looks now and then. Where two looks in a
//! row see messages and none of them moved, they waited all the time in between. A child is stuck after
//! [`LOOKS`] such looks, each a share of the deadline after the one before it: a supervisor that was
//! itself held up (by a stopped process, by an actor that blocked its thread) sees that as one look, and
//! not as the deadline gone by.

use std::time::Duration;

use tokio::time::Instant;

use super::{queue::Standing, settings::after};

/// Looks that make up one deadline.
const LOOKS: u32 = 4;

/// What was seen of one incarnation.
pub(super) struct Progress {
    next: Instant,
    moved: Option<u64>,
    unmoved: u32,
}

impl Progress {
    /// It became ready `now`.
    pub(super) fn new(now: Instant, deadline: Option<Duration>) -> Self {
        Self { next: after(now, deadline.unwrap_or(Duration::MAX) / LOOKS), moved: None, unmoved: 0 }
    }

    /// When to look next.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Looks; whether it is stuck.
    pub(super) fn look(&mut self, now: Instant, deadline: Duration, standing: Standing) -> bool {
        self.next = after(now, deadline / LOOKS);
        let moved = (standing.waiting > 0).then_some(standing.moved);
        self.unmoved = if moved.is_some() && moved == self.moved { self.unmoved + 1 } else { 0 };
        self.moved = moved;
        self.unmoved >= LOOKS
    }
}
