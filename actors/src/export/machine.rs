//! The state machine of one destination (level 0: pure; the caller passes in the time).
//!
//! ```text
//!   position                                  next                     end of the log
//!      │ in flight │ done │ waiting │ in flight │ not yet cut into pieces │
//!      ├───────────┼──────┼─────────┼───────────┼─────────────────────────┤
//!      └─ settled up to here: the first piece is not done
//! ```
//!
//! The spans from the position on are cut into pieces as slots for requests come free, so that a batch is
//! as large as the queue became meanwhile: small while the destination keeps up, large while it does not.
//! While the destination is in trouble its gate is shut: one request at a time probes it.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::{
    gate::{Gate, Pass, Probe, Round, Trouble},
    state::{Action, Answered, DestinationState, Doomed, Load, PieceId, Settings},
    verdict::Verdict,
};
use crate::log::{Advance, DropReason, Ordinal};

/// After a refusal for its size no batch is cut below this many bytes before it is sent.
const LEARNED_BYTES_MIN: usize = 64 * 1024;

#[derive(Debug)]
struct Piece<L> {
    id: PieceId,
    first: Ordinal,
    end: Ordinal,
    phase: Phase<L>,
}

#[derive(Debug)]
enum Phase<L> {
    Waiting { load: L, not_before: Instant, past: Past },
    InFlight { load: L, round: Round, past: Past },
    Done(Settled),
}

/// What becomes of a piece that was in flight.
enum Fate<L> {
    Delivered { rejected: u64 },
    Again(L, Past),
    Halved(L, L),
    Doomed(Doomed<L>),
}

/// The attempts that a piece has behind it.
#[derive(Debug, Clone, Copy, Default)]
struct Past {
    attempts: u32,
    first: Option<Instant>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Settled {
    exported: u64,
    sampled_out: u64,
    dropped: Option<(DropReason, u64)>,
}

/// The state machine; see the module.
#[derive(Debug)]
pub struct Machine<L> {
    settings: Settings,
    position: Ordinal,
    /// Where a crash of the process would go back to; `None`: the position itself.
    settled: Option<Ordinal>,
    next: Ordinal,
    pieces: VecDeque<Piece<L>>,
    ids: u64,
    in_flight: usize,
    forming: bool,
    gate: Gate,
    /// The log's end, as far as it is known.
    end: Ordinal,
    /// Not later than the commit of the oldest span that is in no piece.
    waiting_since: Option<Instant>,
    /// `max_batch_bytes`, or less once the destination refused a batch for its size.
    bytes_max: usize,
    draining: bool,
}

impl<L: Load> Machine<L> {
    /// A destination that has everything before `position`; `seed` is for the jitter.
    pub fn new(settings: Settings, position: Ordinal, now: Instant, seed: u64) -> Self {
        Self {
            bytes_max: settings.max_batch_bytes,
            gate: Gate::new(settings.backoff, now, seed),
            settings,
            position,
            settled: None,
            next: position,
            pieces: VecDeque::new(),
            ids: 0,
            in_flight: 0,
            forming: false,
            end: position,
            waiting_since: None,
            draining: false,
        }
    }

    /// Everything before it is settled.
    pub fn position(&self) -> Ordinal {
        self.position
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// What the piece carries, while it does.
    pub fn load(&self, id: PieceId) -> Option<&L> {
        self.pieces.iter().find(|piece| piece.id == id).and_then(|piece| match &piece.phase {
            Phase::Waiting { load, .. } | Phase::InFlight { load, .. } => Some(load),
            Phase::Done(_) => None,
        })
    }

    /// From now on a batch of any size goes out at once.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// True if nothing can move before `deadline`.
    pub fn rests_until(&self, deadline: Instant) -> bool {
        self.in_flight == 0 && !self.forming && self.gate.opens_at().is_some_and(|opens| opens > deadline)
    }

    /// The destination's state, while the log ends at `end`.
    pub fn state(&self, end: Ordinal) -> DestinationState {
        let busy = self.in_flight > 0 || self.position < end;
        match self.gate.trouble() {
            Some(Trouble::Unreachable) => DestinationState::Unreachable,
            Some(Trouble::Blocked) if busy => DestinationState::Blocked,
            Some(Trouble::Throttled) if busy => DestinationState::Throttled,
            Some(Trouble::Retrying) if busy => DestinationState::Retrying,
            Some(Trouble::Untried) | None if busy => DestinationState::Exporting,
            Some(_) | None => DestinationState::Idle,
        }
    }

    /// The next thing to do, while the log ends at `end`; to be called until there is none.
    pub fn next_action(&mut self, end: Ordinal, now: Instant) -> Option<Action> {
        self.end = self.end.max(end);
        if end > self.next {
            self.waiting_since.get_or_insert(now);
        }
        let pass = self.gate.pass(now);
        if self.in_flight >= self.settings.concurrency || pass == Pass::Nothing {
            return None;
        }
        if let Some(id) = self.take_off(now) {
            self.gate.sent(Probe::Piece(id));
            return Some(Action::Send(id));
        }
        if self.forming {
            return None;
        }
        if self.due(end, now) && self.within_bound() {
            self.forming = true;
            let Settings { max_batch, .. } = self.settings;
            return Some(Action::Form { from: self.next, spans: max_batch, bytes: self.bytes_max });
        }
        if matches!(pass, Pass::Probe(Trouble::Untried | Trouble::Unreachable)) {
            self.gate.sent(Probe::Connection);
            return Some(Action::Connect);
        }
        None
    }

    /// When [`Machine::next_action`] may have something without any other event.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let oldest = self.waiting_since.map(|since| since + self.settings.max_delay);
        self.waiting().chain(self.gate.opens_at()).chain(oldest).filter(|t| *t > now).min()
    }

    /// The batch asked for is here. `rest` is when the first span behind it was committed, if that is known.
    pub fn formed(&mut self, load: L, rest: Option<Instant>, now: Instant) {
        self.forming = false;
        let end = load.end();
        self.push(end, rest, |load| Phase::waiting(load, now), load);
    }

    /// The log cannot give the spans before `to`, for this reason.
    pub fn gone(&mut self, to: Ordinal, reason: DropReason) {
        self.forming = false;
        let count = to.saturating_sub(self.next);
        let settled = Settled { dropped: Some((reason, count)), ..Settled::default() };
        self.push(to, None, |()| Phase::Done(settled), ());
    }

    /// The verdict on a piece in flight.
    pub fn answered(&mut self, id: PieceId, verdict: Verdict, now: Instant) -> Answered<L> {
        let nothing = Answered { retried: false, doomed: None };
        let Some((at, piece)) = self.land(id) else { return nothing };
        let Piece { first, end, phase: Phase::InFlight { load, round, past }, .. } = piece else {
            return nothing;
        };
        let not_before = self.gate_hears(&verdict, round, past.attempts, now);
        let kept = load.kept();
        let sampled_out = (end - first).saturating_sub(kept);
        let done = |exported, dropped| Phase::Done(Settled { exported, sampled_out, dropped });
        match self.fate(load, past, verdict, now) {
            Fate::Delivered { rejected } => {
                let dropped = (rejected > 0).then_some((DropReason::Rejected, rejected));
                let phase = done(kept.saturating_sub(rejected), dropped);
                self.pieces.insert(at, Piece { id, first, end, phase });
                nothing
            }
            Fate::Again(load, past) => {
                let phase = Phase::Waiting { load, not_before, past };
                self.pieces.insert(at, Piece { id, first, end, phase });
                Answered { retried: true, doomed: None }
            }
            Fate::Halved(low, high) => {
                let middle = low.end();
                let low = self.piece(first, middle, Phase::waiting(low, now));
                let high = self.piece(middle, end, Phase::waiting(high, now));
                self.pieces.insert(at, high);
                self.pieces.insert(at, low);
                nothing
            }
            Fate::Doomed(doomed) => {
                let phase = done(0, Some((doomed.reason, kept)));
                self.pieces.insert(at, Piece { id, first, end, phase });
                Answered { retried: false, doomed: Some(doomed) }
            }
        }
    }

    /// Takes a piece in flight out of its place, which is to be filled again.
    fn land(&mut self, id: PieceId) -> Option<(usize, Piece<L>)> {
        let flying = |piece: &Piece<L>| piece.id == id && matches!(piece.phase, Phase::InFlight { .. });
        let at = self.pieces.iter().position(flying)?;
        let piece = self.pieces.remove(at)?;
        self.in_flight -= 1;
        self.gate.back(Probe::Piece(id));
        Some((at, piece))
    }

    /// What the verdict says of the destination; returns when the piece may be sent again, if it may.
    fn gate_hears(&mut self, verdict: &Verdict, round: Round, attempts: u32, now: Instant) -> Instant {
        let (why, asked) = match verdict {
            Verdict::Success | Verdict::Partial { .. } | Verdict::Bisect { .. } | Verdict::Refused { .. } => {
                self.gate.served(round);
                return now;
            }
            Verdict::Unreachable { .. } => (Trouble::Unreachable, None),
            Verdict::Retryable { .. } => (Trouble::Retrying, None),
            Verdict::Throttled { delay, .. } => (Trouble::Throttled, Some(*delay)),
            Verdict::Blocked { .. } => (Trouble::Blocked, Some(self.settings.backoff.cap)),
        };
        self.gate.failed(why, round, attempts, asked, now)
    }

    /// What the verdict says of the spans.
    fn fate(&mut self, load: L, past: Past, verdict: Verdict, now: Instant) -> Fate<L> {
        let doomed = |load, reason, message| Fate::Doomed(Doomed { load, reason, message });
        match verdict {
            Verdict::Success => Fate::Delivered { rejected: 0 },
            Verdict::Partial { rejected, .. } => Fate::Delivered { rejected: rejected.min(load.kept()) },
            Verdict::Refused { message } => doomed(load, DropReason::Refused, message),
            Verdict::Bisect { reason, message } if load.kept() <= 1 => doomed(load, reason, message),
            Verdict::Bisect { reason, .. } => {
                if reason == DropReason::TooLarge {
                    let learned = (load.bytes() / 2).max(LEARNED_BYTES_MIN);
                    self.bytes_max = self.bytes_max.min(learned);
                }
                match load.halve() {
                    Ok((low, high)) => Fate::Halved(low, high),
                    Err(load) => doomed(load, DropReason::Damaged, "cannot be read".to_owned()),
                }
            }
            Verdict::Unreachable { message }
            | Verdict::Retryable { message }
            | Verdict::Throttled { message, .. }
                if self.is_exhausted(past, now) =>
            {
                doomed(load, DropReason::RetriesExhausted, message)
            }
            Verdict::Unreachable { .. } | Verdict::Retryable { .. } | Verdict::Throttled { .. } => {
                Fate::Again(load, past)
            }
            // The time that an operator needs is no attempt of the piece.
            Verdict::Blocked { .. } => Fate::Again(load, Past::default()),
        }
    }

    fn is_exhausted(&self, past: Past, now: Instant) -> bool {
        let elapsed = past.first.map_or(Duration::ZERO, |first| now.saturating_duration_since(first));
        self.settings.max_retries.is_some_and(|max| past.attempts > max)
            || self.settings.max_elapsed.is_some_and(|max| elapsed >= max)
    }

    /// The result of [`Action::Connect`].
    pub fn connected(&mut self, succeeded: bool, now: Instant) {
        self.gate.back(Probe::Connection);
        let round = self.gate.round();
        if succeeded {
            self.gate.served(round);
        } else {
            self.gate.failed(Trouble::Unreachable, round, 0, None, now);
        }
    }

    /// What is settled from the position on; the position moves with it.
    pub fn settle(&mut self) -> Option<Advance> {
        let mut advance = Advance { to: self.position, ..Advance::default() };
        while let Some(Piece { end, phase: Phase::Done(settled), .. }) = self.pieces.front() {
            advance.to = *end;
            advance.exported += settled.exported;
            advance.sampled_out += settled.sampled_out;
            if let Some((reason, count)) = settled.dropped {
                match advance.dropped.iter_mut().find(|(known, _)| *known == reason) {
                    Some((_, sum)) => *sum += count,
                    None => advance.dropped.push((reason, count)),
                }
            }
            self.pieces.pop_front();
        }
        let moved = advance.to > self.position;
        self.position = advance.to;
        moved.then_some(advance)
    }

    fn waiting(&self) -> impl Iterator<Item = Instant> {
        self.pieces.iter().filter_map(|piece| match &piece.phase {
            Phase::Waiting { not_before, .. } => Some(*not_before),
            Phase::InFlight { .. } | Phase::Done(_) => None,
        })
    }

    fn due(&self, end: Ordinal, now: Instant) -> bool {
        let count = end.saturating_sub(self.next);
        let waited = self.waiting_since.is_some_and(|since| since + self.settings.max_delay <= now);
        count > 0 && (count >= self.settings.min_batch || waited || self.draining)
    }

    /// The position that a crash of the process would go back to.
    pub fn settled(&mut self, position: Ordinal) {
        self.settled = Some(position.min(self.position));
    }

    /// Whether nothing but an older settled position keeps it from beginning a batch.
    pub fn waits_to_settle(&self) -> bool {
        !self.within_bound() && self.next <= self.position + self.ahead()
    }

    /// A batch that begins here cannot end beyond the settled position + concurrency × `max_batch`: so much is
    /// repeated after a crash at most.
    fn within_bound(&self) -> bool {
        self.next <= self.settled.unwrap_or(self.position) + self.ahead()
    }

    fn ahead(&self) -> u64 {
        (self.settings.concurrency as u64 - 1) * self.settings.max_batch
    }

    /// Puts the first piece that may be sent in flight.
    fn take_off(&mut self, now: Instant) -> Option<PieceId> {
        let ready = |piece: &&mut Piece<L>| matches!(&piece.phase, Phase::Waiting { not_before, .. } if *not_before <= now);
        let piece = self.pieces.iter_mut().find(ready)?;
        let phase = std::mem::replace(&mut piece.phase, Phase::Done(Settled::default()));
        if let Phase::Waiting { load, past, .. } = phase {
            let past = Past { attempts: past.attempts + 1, first: past.first.or(Some(now)) };
            piece.phase = Phase::InFlight { load, round: self.gate.round(), past };
        }
        self.in_flight += 1;
        Some(piece.id)
    }

    fn piece(&mut self, first: Ordinal, end: Ordinal, phase: Phase<L>) -> Piece<L> {
        self.ids += 1;
        Piece { id: PieceId(self.ids), first, end, phase: phase.without_nothing(end - first) }
    }

    fn push<T>(&mut self, end: Ordinal, rest: Option<Instant>, phase: impl FnOnce(T) -> Phase<L>, load: T) {
        let piece = self.piece(self.next, end, phase(load));
        self.pieces.push_back(piece);
        self.next = end;
        // Where the rest's time is unknown, the older time holds: too early rather than too late.
        self.waiting_since = rest.or(self.waiting_since.filter(|_| end < self.end));
    }
}

impl<L: Load> Phase<L> {
    fn waiting(load: L, now: Instant) -> Self {
        Self::Waiting { load, not_before: now, past: Past::default() }
    }

    /// A load with nothing to deliver is done.
    fn without_nothing(self, spans: u64) -> Self {
        match self {
            Self::Waiting { load, .. } if load.kept() == 0 => {
                Self::Done(Settled { sampled_out: spans, ..Settled::default() })
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests;
