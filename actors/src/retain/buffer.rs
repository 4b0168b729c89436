//! The buffer's three parts and how batches move through them (pure).

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::RetentionStats;

/// The thread looks through what is in transit at most this often: an eighth of the memory each time, which bounds what
/// it costs where more comes than could be kept.
const PACE: Duration = Duration::from_millis(250);

/// A batch of spans.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    /// An `ExportTraceServiceRequest`.
    pub(super) bytes: Bytes,
    pub(super) spans: u32,
    /// Bytes charged.
    pub(super) cost: usize,
    /// It may have spans that are worth to be kept longer.
    pub(super) has_worthy: bool,
}

/// A queue of batches with a bound of its own.
#[derive(Debug)]
struct Part {
    batches: VecDeque<Batch>,
    bytes: usize,
    spans: u64,
    max_bytes: usize,
}

impl Part {
    fn new(max_bytes: usize) -> Self {
        Self { batches: VecDeque::new(), bytes: 0, spans: 0, max_bytes }
    }

    fn push(&mut self, batch: Batch) {
        self.bytes = self.bytes.saturating_add(batch.cost);
        self.spans += u64::from(batch.spans);
        self.batches.push_back(batch);
    }

    fn pop(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front()?;
        self.bytes = self.bytes.saturating_sub(batch.cost);
        self.spans = self.spans.saturating_sub(u64::from(batch.spans));
        Some(batch)
    }

    /// The oldest batch, where there are more bytes than there may be.
    fn surplus(&mut self) -> Option<Batch> {
        if self.bytes > self.max_bytes { self.pop() } else { None }
    }
}

/// Half of the memory is for the last batches, an eighth for those that wait to be looked through, three eighths for
/// what is kept of those.
#[derive(Debug)]
pub(super) struct Buffer {
    max_bytes: usize,
    recent: Part,
    transit: Part,
    /// With the thread.
    in_hand: Option<Batch>,
    kept: Part,
    unsifted: u64,
    /// When the thread was last told to look.
    woken: Option<Instant>,
}

impl Buffer {
    pub(super) fn new(max_bytes: usize) -> Self {
        let eighth = max_bytes / 8;
        Self {
            max_bytes,
            recent: Part::new(eighth * 4),
            transit: Part::new(eighth),
            in_hand: None,
            kept: Part::new(eighth * 3),
            unsifted: 0,
            woken: None,
        }
    }

    /// The newest batch. What makes room for it is in transit if it may have worthy spans, and else gone.
    pub(super) fn push(&mut self, batch: Batch) {
        if batch.cost > self.recent.max_bytes {
            // It would push everything out, and itself too.
            self.unsifted += u64::from(batch.spans);
            return;
        }
        self.recent.push(batch);
        while let Some(old) = self.recent.surplus() {
            if old.has_worthy {
                self.transit.push(old);
            }
        }
        self.bound_transit();
    }

    /// What is in hand counts as in transit.
    fn bound_transit(&mut self) {
        let in_hand = self.in_hand.as_ref().map_or(0, |batch| batch.cost);
        while self.transit.bytes.saturating_add(in_hand) > self.transit.max_bytes {
            let Some(old) = self.transit.pop() else { return };
            self.unsifted += u64::from(old.spans);
        }
    }

    /// Whether the thread should be told to look: a quarter of what may be in transit is, and the last time is long enough
    /// ago. What nobody looks through stays readable until newer comes.
    pub(super) fn wakes(&mut self, now: Instant) -> bool {
        let rested = self.woken.is_none_or(|at| now.duration_since(at) >= PACE);
        let wakes = rested && self.transit.bytes > self.transit.max_bytes / 4;
        if wakes {
            self.woken = Some(now);
        }
        wakes
    }

    /// Batches that wait to be looked through.
    pub(super) fn in_transit(&self) -> usize {
        self.transit.batches.len()
    }

    /// The batch to be looked through next; it stays readable until [`Buffer::sifted`].
    pub(super) fn next(&mut self) -> Option<Batch> {
        // What a thread that failed had in hand is looked through by nobody.
        if let Some(lost) = self.in_hand.take() {
            self.unsifted += u64::from(lost.spans);
        }
        self.in_hand = self.transit.pop();
        self.in_hand.clone()
    }

    /// What the batch in hand comes to.
    pub(super) fn sifted(&mut self, kept: Option<Batch>) {
        self.in_hand = None;
        if let Some(kept) = kept {
            self.kept.push(kept);
        }
        while self.kept.surplus().is_some() {}
    }

    /// Every batch, the newest first.
    pub(super) fn newest_first(&self) -> Vec<Bytes> {
        let parts = [&self.recent, &self.transit].into_iter().flat_map(|part| part.batches.iter().rev());
        let older = self.in_hand.iter().chain(self.kept.batches.iter().rev());
        parts.chain(older).map(|batch| batch.bytes.clone()).collect()
    }

    pub(super) fn stats(&self) -> RetentionStats {
        let (in_hand, in_hand_spans) =
            self.in_hand.as_ref().map_or((0, 0), |batch| (batch.cost, u64::from(batch.spans)));
        RetentionStats {
            bytes: self.recent.bytes + self.transit.bytes + in_hand + self.kept.bytes,
            max_bytes: self.max_bytes,
            recent_spans: self.recent.spans + self.transit.spans + in_hand_spans,
            kept_spans: self.kept.spans,
            unsifted_spans: self.unsifted,
        }
    }
}
