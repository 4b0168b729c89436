//! What a target met on its way, in place of coverage.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
};

/// The words that a run of a target left, in their order.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    words: Vec<&'static str>,
}

/// So many changes of words count for a signature.
const STEPS_MAX: usize = 12;

impl Trace {
    /// Leaves a word.
    pub fn see(&mut self, word: &'static str) {
        self.words.push(word);
    }

    /// Leaves a word, if this holds.
    pub fn see_if(&mut self, holds: bool, word: &'static str) {
        if holds {
            self.see(word);
        }
    }

    /// The words.
    pub fn words(&self) -> &[&'static str] {
        &self.words
    }

    /// What runs have in common that did about the same: the first changes from word to word, and of each word how
    /// often it came, roughly.
    pub fn signature(&self) -> u64 {
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for word in &self.words {
            *counts.entry(word).or_default() += 1;
        }
        let mut hasher = DefaultHasher::new();
        for (word, count) in counts {
            (word, count.ilog2()).hash(&mut hasher);
        }
        let mut changes = self.words.clone();
        changes.dedup();
        changes.truncate(STEPS_MAX);
        changes.hash(&mut hasher);
        hasher.finish()
    }
}
