//! Bytes in flight: what the doors have taken in and nobody has settled yet (level 0).
//!
//! A request is charged before a byte of it is buffered. There is no waiting: a door that holds part
//! of a reservation and waits for the rest would wait for doors that do the same.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use thiserror::Error;

/// The bytes that all doors together may have in flight.
#[derive(Clone)]
pub struct Admission(Arc<Shared>);

struct Shared {
    limit: usize,
    in_flight: AtomicUsize,
}

/// A request does not fit beside what is in flight; it may fit later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{in_flight} of {limit} bytes are in flight, {asked} more do not fit")]
pub struct OverLimit {
    /// Bytes asked for.
    pub asked: usize,
    /// Bytes in flight when they were asked for.
    pub in_flight: usize,
    /// `ingest.max_in_flight_bytes`.
    pub limit: usize,
}

impl Admission {
    /// No more than `limit` bytes at any moment.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Shared { limit, in_flight: AtomicUsize::new(0) }))
    }

    /// Charges `bytes`, until the reservation is dropped.
    ///
    /// # Errors
    /// [`OverLimit`], and nothing charged.
    pub fn try_reserve(&self, bytes: usize) -> Result<Reservation, OverLimit> {
        self.0.charge(bytes)?;
        Ok(Reservation { shared: Arc::clone(&self.0), bytes })
    }

    /// Bytes charged at this moment.
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::Relaxed)
    }

    /// Bytes that may be charged at once.
    pub fn limit(&self) -> usize {
        self.0.limit
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("in_flight", &self.in_flight())
            .field("limit", &self.limit())
            .finish()
    }
}

impl Shared {
    // Relaxed: the counter guards no other memory.
    fn charge(&self, asked: usize) -> Result<(), OverLimit> {
        let fits = |now: usize| now.checked_add(asked).filter(|&sum| sum <= self.limit);
        let charged = self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        charged.map(drop).map_err(|in_flight| OverLimit { asked, in_flight, limit: self.limit })
    }

    fn release(&self, bytes: usize) {
        self.in_flight.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Bytes charged; dropped, they are free again.
pub struct Reservation {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Reservation {
    /// Bytes charged.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Charges `more` bytes on top.
    ///
    /// # Errors
    /// [`OverLimit`], and the reservation is as it was.
    pub fn grow(&mut self, more: usize) -> Result<(), OverLimit> {
        self.shared.charge(more)?;
        self.bytes += more;
        Ok(())
    }

    /// Gives back what is charged beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.shared.release(surplus);
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("bytes", &self.bytes).finish()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_that_does_not_fit_is_told_why_and_charges_nothing() {
        let admission = Admission::new(100);
        let held = admission.try_reserve(70).unwrap();
        let error = admission.try_reserve(31).unwrap_err();
        assert_eq!(error, OverLimit { asked: 31, in_flight: 70, limit: 100 });
        assert_eq!(error.to_string(), "70 of 100 bytes are in flight, 31 more do not fit");
        assert!(admission.try_reserve(usize::MAX).is_err());
        assert_eq!(admission.in_flight(), 70);
        drop(held);
        assert_eq!(admission.in_flight(), 0);
        assert!(admission.try_reserve(100).is_ok());
    }

    #[test]
    fn a_top_up_that_does_not_fit_leaves_the_reservation_as_it_was() {
        let admission = Admission::new(100);
        let mut held = admission.try_reserve(60).unwrap();
        assert!(held.grow(41).is_err());
        assert_eq!((held.bytes(), admission.in_flight()), (60, 60));
        held.grow(40).unwrap();
        assert_eq!((held.bytes(), admission.in_flight()), (100, 100));
        held.shrink_to(200);
        assert_eq!(admission.in_flight(), 100);
        held.shrink_to(10);
        assert_eq!((held.bytes(), admission.in_flight()), (10, 10));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Reserve(usize),
        Grow(usize, usize),
        Shrink(usize, usize),
        Drop(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let bytes = prop_oneof![0usize..200, Just(usize::MAX)];
        let step = prop_oneof![
            bytes.clone().prop_map(Step::Reserve),
            (any::<usize>(), bytes.clone()).prop_map(|(at, more)| Step::Grow(at, more)),
            (any::<usize>(), bytes).prop_map(|(at, to)| Step::Shrink(at, to)),
            any::<usize>().prop_map(Step::Drop),
        ];
        prop::collection::vec(step, 0..100)
    }

    proptest! {
        #[test]
        fn what_is_in_flight_is_what_is_held_and_never_above_the_limit(steps in steps()) {
            let admission = Admission::new(500);
            let mut held: Vec<Reservation> = Vec::new();
            for step in steps {
                let len = held.len().max(1);
                match step {
                    Step::Reserve(bytes) => held.extend(admission.try_reserve(bytes)),
                    Step::Grow(at, more) => {
                        if let Some(one) = held.get_mut(at % len) {
                            let _over = one.grow(more);
                        }
                    }
                    Step::Shrink(at, to) => {
                        if let Some(one) = held.get_mut(at % len) {
                            one.shrink_to(to);
                        }
                    }
                    Step::Drop(at) if !held.is_empty() => drop(held.swap_remove(at % len)),
                    Step::Drop(_) => {}
                }
                prop_assert!(admission.in_flight() <= 500);
                prop_assert_eq!(admission.in_flight(), held.iter().map(Reservation::bytes).sum::<usize>());
            }
            drop(held);
            prop_assert_eq!(admission.in_flight(), 0);
        }
    }

    #[test]
    fn threads_together_never_pass_the_limit_and_leak_nothing() {
        let admission = Admission::new(1_000);
        std::thread::scope(|scope| {
            for thread in 1..=4usize {
                let admission = &admission;
                scope.spawn(move || {
                    for round in 0..2_000usize {
                        let Ok(mut held) = admission.try_reserve(100 * thread) else { continue };
                        let _over = held.grow(round % 300);
                        assert!(admission.in_flight() <= 1_000);
                        held.shrink_to(50);
                    }
                });
            }
        });
        assert_eq!(admission.in_flight(), 0);
    }
}
