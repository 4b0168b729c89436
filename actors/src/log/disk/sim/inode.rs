//! A file with a page cache before it, and what a power cut leaves of it.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use rand::Rng;

/// What a device writes as one.
const SECTOR: usize = 512;

/// Bytes of a file, as disjoint ranges.
#[derive(Debug, Clone, Default)]
struct Ranges(Vec<Range<usize>>);

impl Ranges {
    fn insert(&mut self, mut new: Range<usize>) {
        if new.is_empty() {
            return;
        }
        self.0.retain(|old| {
            let apart = old.end < new.start || new.end < old.start;
            if !apart {
                new = old.start.min(new.start)..old.end.max(new.end);
            }
            apart
        });
        self.0.push(new);
        self.0.sort_by_key(|range| range.start);
    }

    fn remove(&mut self, gone: &Range<usize>) {
        let left = |old: &Range<usize>| {
            [old.start..old.end.min(gone.start), old.start.max(gone.end)..old.end]
                .into_iter()
                .filter(|range| !range.is_empty())
        };
        self.0 = self.0.iter().flat_map(left).collect();
    }

    /// Cut at the boundaries of sectors.
    fn sectors(&self) -> Vec<Range<usize>> {
        let mut sectors = Vec::new();
        for range in &self.0 {
            let mut start = range.start;
            while start < range.end {
                let end = (start / SECTOR + 1) * SECTOR;
                sectors.push(start..end.min(range.end));
                start = end;
            }
        }
        sectors
    }
}

/// Copies a range between contents; what lies behind the end of `from` is zeros.
fn copy_range(to: &mut [u8], from: &[u8], range: Range<usize>) {
    let end = range.end.min(to.len());
    let start = range.start.min(end);
    let middle = from.len().clamp(start, end);
    to[start..middle].copy_from_slice(from.get(start..middle).unwrap_or_default());
    to[middle..end].fill(0);
}

/// How what was not synced is lost: all alike, or up to a point in order, or each by itself.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mode {
    Nothing,
    Everything,
    Prefix,
    Each,
}

impl Mode {
    pub(super) fn pick(rng: &mut impl Rng) -> Self {
        match rng.random_range(0..8) {
            0 => Self::Nothing,
            1 => Self::Everything,
            2 | 3 => Self::Prefix,
            _ => Self::Each,
        }
    }
}

/// A file, whatever its names.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    /// The name it was last given, for the log of operations.
    pub(super) path: PathBuf,
    pub(super) cached: Vec<u8>,
    pub(super) durable: Vec<u8>,
    /// What the next sync writes.
    dirty: Ranges,
    /// What a failed sync took for clean: no sync writes it, unless it is written to again.
    lost: Ranges,
    /// Lengths that the file had since it was last synced.
    lengths: Vec<usize>,
}

impl Inode {
    pub(super) fn settled(path: &Path, bytes: Vec<u8>) -> Self {
        Self { path: path.to_owned(), durable: bytes.clone(), cached: bytes, ..Self::default() }
    }

    fn had_length(&mut self) {
        let length = self.cached.len();
        // Steps in one direction count as one.
        if let [.., before, last] = self.lengths.as_mut_slice()
            && (*before <= *last) == (*last <= length)
        {
            *last = length;
        } else {
            self.lengths.push(length);
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        let old = self.cached.len();
        if end > old {
            self.cached.resize(end, 0);
            self.had_length();
        }
        self.cached[offset..end].copy_from_slice(bytes);
        self.dirty.insert(offset.min(old)..end);
    }

    pub(super) fn truncate(&mut self, length: usize) {
        let old = self.cached.len();
        if length == old {
            return;
        }
        self.cached.resize(length, 0);
        self.had_length();
        self.dirty.insert(length.min(old)..length.max(old));
    }

    pub(super) fn sync(&mut self) {
        self.durable.resize(self.cached.len(), 0);
        for range in std::mem::take(&mut self.dirty).0 {
            copy_range(&mut self.durable, &self.cached, range.clone());
            self.lost.remove(&range);
        }
        self.lost.remove(&(self.cached.len()..usize::MAX));
        self.lengths.clear();
    }

    pub(super) fn lose(&mut self) {
        for range in std::mem::take(&mut self.dirty).0 {
            self.lost.insert(range);
        }
    }

    /// Readers see what the device has, of what no sync will write.
    pub(super) fn evict(&mut self) {
        let mut lost = std::mem::take(&mut self.lost);
        for range in &self.dirty.0 {
            lost.remove(range);
        }
        for range in lost.0 {
            copy_range(&mut self.cached, &self.durable, range);
        }
    }

    pub(super) fn is_durable(&self) -> bool {
        self.dirty.0.is_empty() && self.lost.0.is_empty() && self.lengths.is_empty()
    }

    /// After a power cut.
    pub(super) fn cut(&self, rng: &mut impl Rng) -> Self {
        let length = self.cut_length(rng);
        let mut unsynced = self.dirty.clone();
        for range in &self.lost.0 {
            unsynced.insert(range.clone());
        }
        let sectors = unsynced.sectors();
        let mut bytes = self.durable.clone();
        bytes.resize(bytes.len().max(length).max(sectors.last().map_or(0, |last| last.end)), 0);
        let mode = Mode::pick(rng);
        let kept = rng.random_range(0..=sectors.len());
        for (number, sector) in sectors.into_iter().enumerate() {
            match mode {
                Mode::Nothing => {}
                Mode::Everything => copy_range(&mut bytes, &self.cached, sector),
                Mode::Prefix if number < kept => copy_range(&mut bytes, &self.cached, sector),
                Mode::Prefix if number == kept => self.tear(&mut bytes, sector, rng),
                Mode::Prefix => {}
                Mode::Each => self.tear(&mut bytes, sector, rng),
            }
        }
        bytes.resize(length, 0);
        Self::settled(&self.path, bytes)
    }

    fn tear(&self, bytes: &mut [u8], sector: Range<usize>, rng: &mut impl Rng) {
        match rng.random_range(0..10) {
            0..4 => copy_range(bytes, &self.cached, sector),
            4..7 => {}
            7 => {
                let middle = rng.random_range(sector.clone());
                let half = if rng.random() { sector.start..middle } else { middle..sector.end };
                copy_range(bytes, &self.cached, half);
            }
            8 => bytes[sector].fill(0),
            _ => rng.fill(&mut bytes[sector]),
        }
    }

    fn cut_length(&self, rng: &mut impl Rng) -> usize {
        match Mode::pick(rng) {
            Mode::Nothing => self.durable.len(),
            Mode::Everything => self.cached.len(),
            Mode::Prefix | Mode::Each => {
                let before = std::iter::once(self.durable.len()).chain(self.lengths.iter().copied());
                let steps: Vec<_> = before.clone().zip(before.skip(1)).collect();
                match steps.as_slice() {
                    [] => self.durable.len(),
                    steps => {
                        let (from, to) = steps[rng.random_range(0..steps.len())];
                        let length = rng.random_range(from.min(to)..=from.max(to));
                        // Mostly whole sectors: that is how files grow.
                        let whole = length / SECTOR * SECTOR;
                        if rng.random_bool(0.5) && whole >= from.min(to) { whole } else { length }
                    }
                }
            }
        }
    }
}
