//! Exponential backoff (level 0: pure).

use std::time::Duration;

/// Growing pauses with jitter.
///
/// The pause before attempt n + 1 is drawn from the upper half of `initial × factorⁿ⁻¹`, which `cap` bounds:
/// clients that failed together do not come back together, and none comes back at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// The first pause, before jitter.
    pub initial: Duration,
    /// The growth from one pause to the next, at least 1.
    pub factor: f64,
    /// No pause is longer.
    pub cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Duration::from_millis(100), factor: 2.0, cap: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The pause after so many failures in a row, with `jitter` from 0 (half of it) to 1 (all of it).
    pub fn pause(&self, failures: u32, jitter: f64) -> Duration {
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.initial.as_secs_f64() * self.factor.powi(exponent);
        let whole = seconds.min(self.cap.as_secs_f64());
        let share = 0.5 + 0.5 * jitter.clamp(0.0, 1.0);
        Duration::try_from_secs_f64(whole * share).unwrap_or(self.cap).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_double_from_100_ms_to_30_s() {
        let backoff = Backoff::default();
        let pauses: Vec<_> = (1..=11).map(|n| backoff.pause(n, 1.0).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
        assert_eq!(backoff.pause(1, 0.0).as_millis(), 50);
    }

    proptest! {
        #[test]
        fn a_pause_lies_in_the_upper_half_of_its_step(failures in 1..u32::MAX, jitter in 0.0..=1.0f64) {
            let backoff = Backoff::default();
            let whole = backoff.pause(failures, 1.0);
            let pause = backoff.pause(failures, jitter);
            prop_assert!(pause <= whole && pause * 2 + Duration::from_nanos(2) >= whole);
            prop_assert!(pause <= backoff.cap);
        }
    }
}
