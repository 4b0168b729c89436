//! Which dead letters are kept: the newest, one a span, within bounds.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;

use super::{DeadLetter, Ordinal};

/// Dead letters kept for each destination; the oldest goes first.
pub(crate) const DEAD_LETTERS_MAX: usize = 1_000;
/// Bytes of spans in the dead letters kept for each destination.
pub(crate) const DEAD_LETTER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of the destination's words in a dead letter.
pub(crate) const DEAD_LETTER_MESSAGE_MAX: usize = 256;

/// The newest dead letters of a destination, oldest first.
#[derive(Debug, Default)]
pub(crate) struct KeptLetters {
    letters: VecDeque<DeadLetter>,
    ordinals: HashSet<Ordinal>,
    bytes: usize,
}

impl KeptLetters {
    /// Keeps a letter, unless its span has one already; returns whether it does.
    pub(crate) fn push(&mut self, letter: DeadLetter) -> bool {
        if !self.ordinals.insert(letter.ordinal) {
            return false;
        }
        let letter = bounded(letter);
        self.bytes += letter.bytes.len();
        self.letters.push_back(letter);
        while self.letters.len() > DEAD_LETTERS_MAX || self.bytes > DEAD_LETTER_BYTES_MAX {
            let Some(oldest) = self.letters.pop_front() else { break };
            self.bytes -= oldest.bytes.len();
            self.ordinals.remove(&oldest.ordinal);
        }
        true
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &DeadLetter> + ExactSizeIterator {
        self.letters.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.letters.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }
}

/// A letter whose span is alone beyond the bound is kept without the span: ordinal and words still say what
/// happened, and the other letters stay.
fn bounded(mut letter: DeadLetter) -> DeadLetter {
    if letter.bytes.len() > DEAD_LETTER_BYTES_MAX {
        letter.bytes = Bytes::new();
    }
    letter.message.truncate(letter.message.floor_char_boundary(DEAD_LETTER_MESSAGE_MAX));
    letter
}

#[cfg(test)]
mod tests {
    use super::{super::DropReason, *};

    fn letter(ordinal: Ordinal, bytes: usize) -> DeadLetter {
        let message = "é".repeat(200);
        DeadLetter { ordinal, reason: DropReason::Invalid, message, bytes: Bytes::from(vec![7; bytes]) }
    }

    fn ordinals(kept: &KeptLetters) -> Vec<Ordinal> {
        kept.iter().map(|letter| letter.ordinal).collect()
    }

    #[test]
    fn the_newest_letters_are_kept_by_number_and_by_bytes() {
        let mut kept = KeptLetters::default();
        assert!((0..1_200).all(|ordinal| kept.push(letter(ordinal, 1))));
        assert_eq!(ordinals(&kept), (200..1_200).collect::<Vec<_>>());
        kept.push(letter(2_000, DEAD_LETTER_BYTES_MAX - 2));
        assert_eq!(ordinals(&kept), [1_198, 1_199, 2_000]);
    }

    #[test]
    fn a_span_has_one_letter() {
        let mut kept = KeptLetters::default();
        assert!(kept.push(letter(5, 1)));
        assert!(!kept.push(letter(5, 2)));
        assert_eq!((ordinals(&kept), kept.iter().next().unwrap().bytes.len()), (vec![5], 1));
    }

    #[test]
    fn a_letter_beyond_all_bounds_is_cut_and_costs_no_other() {
        let mut kept = KeptLetters::default();
        kept.push(letter(1, 1));
        kept.push(letter(2, DEAD_LETTER_BYTES_MAX + 1));
        assert_eq!(ordinals(&kept), [1, 2]);
        let cut = kept.iter().next_back().unwrap();
        assert_eq!((cut.bytes.len(), cut.message.len()), (0, 256));
    }
}
