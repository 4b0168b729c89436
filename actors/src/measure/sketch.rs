//! About how many distinct values there were (level 0): HyperLogLog with 64 registers
//! (<https://algo.inria.fr/flajolet/Publications/FlFuGaMe07.pdf>), whose estimates are off by 13 % on average.
//!
//! The hash has no seed, so that a sketch goes on in the next process. Whoever chooses values so that it is wrong spoils an
//! estimate and nothing else.

/// Bytes of a sketch.
pub(super) const SKETCH_BYTES: usize = 64;
/// Bits of a hash that choose a register.
const INDEX_BITS: u32 = SKETCH_BYTES.ilog2();

/// A bounded memory of which values were seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sketch([u8; SKETCH_BYTES]);

impl Sketch {
    /// Nothing was seen.
    pub(super) const EMPTY: Self = Self([0; SKETCH_BYTES]);

    /// A sketch that was stored; `None` where its registers could not be.
    pub(super) fn stored(registers: [u8; SKETCH_BYTES]) -> Option<Self> {
        let most = (u64::BITS - INDEX_BITS + 1) as u8;
        registers.iter().all(|&register| register <= most).then_some(Self(registers))
    }

    /// What is to be stored.
    pub(super) fn registers(&self) -> &[u8; SKETCH_BYTES] {
        &self.0
    }

    /// Remembers a value; one that was seen changes nothing.
    pub(super) fn see(&mut self, value: &str) {
        let hash = hash(value);
        let index = (hash >> (u64::BITS - INDEX_BITS)) as usize;
        // The bit below the hash bounds the run of zeros.
        let rest = hash << INDEX_BITS | 1 << (INDEX_BITS - 1);
        if let Some(register) = self.0.get_mut(index) {
            *register = (*register).max(rest.leading_zeros() as u8 + 1);
        }
    }

    /// About how many.
    pub(super) fn estimate(&self) -> u64 {
        let registers = SKETCH_BYTES as f64;
        let zeros = self.0.iter().filter(|&&register| register == 0).count() as f64;
        let sum: f64 = self.0.iter().map(|&register| (-f64::from(register)).exp2()).sum();
        let raw = 0.709 * registers * registers / sum;
        let estimate = match raw <= 2.5 * registers && zeros > 0.0 {
            true => registers * (registers / zeros).ln(),
            false => raw,
        };
        estimate.round() as u64
    }
}

/// FNV-1a, whose bits MurmurHash3's last step then mixes.
fn hash(value: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for &byte in value.as_bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(values: u64) -> Sketch {
        let mut sketch = Sketch::EMPTY;
        (0..values).for_each(|value| sketch.see(&format!("GET /user/{value}")));
        sketch
    }

    #[test]
    fn an_estimate_is_near_the_number_of_values() {
        assert_eq!(seen(0).estimate(), 0);
        for values in [1, 10, 100, 1_000, 100_000] {
            let estimate = seen(values).estimate();
            let range = values as f64 * 0.6..=values as f64 * 1.4;
            assert!(range.contains(&(estimate as f64)), "{estimate} of {values}");
        }
    }

    #[test]
    fn a_value_that_was_seen_changes_nothing() {
        let mut sketch = seen(50);
        sketch.see("GET /user/7");
        assert_eq!(sketch, seen(50));
    }

    #[test]
    fn a_stored_sketch_is_the_same_and_one_that_could_not_be_is_refused() {
        assert_eq!(Sketch::stored(*seen(500).registers()), Some(seen(500)));
        assert_eq!(Sketch::stored([60; SKETCH_BYTES]), None);
        assert!(Sketch::stored([59; SKETCH_BYTES]).is_some());
    }
}
