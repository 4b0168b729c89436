//! The bounds of the duration histogram.

use std::time::Duration;

use thiserror::Error;

/// Bounds at most, so that a series' memory is bounded.
const BOUNDS_MAX: usize = 64;

/// The upper bounds of the histogram's buckets, each inclusive; above the last lies `+Inf`.
///
/// The default is that of the spanmetrics connector: 2, 4, 6, 8, 10, 50, 100, 200, 400, 800 ms and 1, 1.4,
/// 2, 5, 10, 15 s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    nanos: Box<[u64]>,
}

/// Bounds that make no histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BoundsError {
    /// More than the limit.
    #[error("{0} histogram bounds are more than {BOUNDS_MAX}")]
    TooMany(usize),
    /// A bound is not above the one before it, or not above 0.
    #[error("histogram bound {bound:?} is not above {before:?}")]
    NotAscending {
        /// The bound.
        bound: Duration,
        /// The one before it, or 0.
        before: Duration,
    },
    /// A bound does not fit into 64 bits of nanoseconds.
    #[error("histogram bound {0:?} is longer than 584 years")]
    TooLong(Duration),
}

impl Bounds {
    /// Bounds in ascending order.
    ///
    /// # Errors
    /// [`BoundsError`] where they are too many, too long or not ascending.
    pub fn new(bounds: &[Duration]) -> Result<Self, BoundsError> {
        if bounds.len() > BOUNDS_MAX {
            return Err(BoundsError::TooMany(bounds.len()));
        }
        let mut before = Duration::ZERO;
        let mut nanos = Vec::with_capacity(bounds.len());
        for &bound in bounds {
            if bound <= before {
                return Err(BoundsError::NotAscending { bound, before });
            }
            nanos.push(u64::try_from(bound.as_nanos()).map_err(|_| BoundsError::TooLong(bound))?);
            before = bound;
        }
        Ok(Self { nanos: nanos.into() })
    }

    /// The number of buckets, `+Inf` included.
    pub fn buckets(&self) -> usize {
        self.nanos.len() + 1
    }

    /// The bounds in seconds, without `+Inf`.
    pub fn seconds(&self) -> impl Iterator<Item = f64> + '_ {
        self.in_units_of(1e9)
    }

    /// The bounds in units of so many nanoseconds, without `+Inf`.
    pub(super) fn in_units_of(&self, unit: f64) -> impl Iterator<Item = f64> + '_ {
        // Both numbers are exact, so the quotient is the double nearest to the decimal that was configured.
        self.nanos.iter().map(move |&nanos| nanos as f64 / unit)
    }

    /// The bounds in nanoseconds, without `+Inf`.
    pub(super) fn nanos(&self) -> &[u64] {
        &self.nanos
    }

    /// The bucket of a duration in nanoseconds, below [`Self::buckets`].
    #[inline]
    pub(crate) fn bucket(&self, nanos: u64) -> usize {
        self.nanos.partition_point(|&bound| bound < nanos)
    }
}

impl Default for Bounds {
    fn default() -> Self {
        const DEFAULT_MS: [u64; 16] =
            [2, 4, 6, 8, 10, 50, 100, 200, 400, 800, 1_000, 1_400, 2_000, 5_000, 10_000, 15_000];
        Self { nanos: DEFAULT_MS.map(|ms| ms * 1_000_000).into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_on_a_bound_lies_in_the_bucket_of_that_bound() {
        let bounds = Bounds::default();
        assert_eq!(bounds.bucket(0), 0);
        assert_eq!(bounds.bucket(2_000_000), 0);
        assert_eq!(bounds.bucket(2_000_001), 1);
        assert_eq!(bounds.bucket(15_000_000_000), 15);
        assert_eq!(bounds.bucket(u64::MAX), 16);
        assert_eq!(bounds.buckets(), 17);
    }

    #[test]
    fn the_default_bounds_in_seconds_are_those_of_the_spanmetrics_connector() {
        let seconds: Vec<f64> = Bounds::default().seconds().collect();
        let expected =
            [0.002, 0.004, 0.006, 0.008, 0.01, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.4, 2.0, 5.0, 10.0, 15.0];
        assert_eq!(seconds, expected);
    }

    #[test]
    fn bounds_that_make_no_histogram_are_refused_by_name() {
        let ms = Duration::from_millis;
        let refused = |bounds: &[Duration]| Bounds::new(bounds).unwrap_err().to_string();
        assert_eq!(refused(&[ms(2), ms(2)]), "histogram bound 2ms is not above 2ms");
        assert_eq!(refused(&[ms(0)]), "histogram bound 0ns is not above 0ns");
        assert_eq!(
            refused(&[Duration::from_secs(u64::MAX)]),
            "histogram bound 18446744073709551615s is longer than 584 years"
        );
        assert_eq!(refused(&(1..=65).map(ms).collect::<Vec<_>>()), "65 histogram bounds are more than 64");
        assert_eq!(Bounds::new(&[]).unwrap().buckets(), 1);
    }
}
