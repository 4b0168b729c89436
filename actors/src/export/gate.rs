//! Whether requests may go out to a destination (level 0: pure).
//!
//! Open, every slot may be used. Shut, after a failure, nothing goes out until the pause is over, and
//! then one request alone probes the destination: a dead one is not hammered. What was sent before the
//! gate was shut says nothing about now, so that only an answer to the probe opens it again.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::time::Instant;

use super::{backoff::Backoff, state::PieceId};

/// Why the gate is shut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nothing has been tried yet: the first request goes alone.
    Untried,
    /// The server asked for another attempt.
    Retrying,
    /// No status comes from the server.
    Unreachable,
    /// The server said when to come back.
    Throttled,
    /// An operator has to mend something.
    Blocked,
}

/// The request that goes alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    /// A piece.
    Piece(PieceId),
    /// A bare connection.
    Connection,
}

/// Which requests were sent under the same circumstances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Round(u64);

/// What may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// Nothing.
    Nothing,
    /// One request, to learn whether this is over.
    Probe(Trouble),
    /// Anything.
    All,
}

#[derive(Debug)]
enum State {
    Open,
    Shut { why: Trouble, until: Instant, probe: Option<Probe> },
}

/// The gate of one destination.
#[derive(Debug)]
pub(super) struct Gate {
    state: State,
    backoff: Backoff,
    /// Failures in a row; those of requests that were under way together count once.
    failures: u32,
    round: u64,
    rng: SmallRng,
}

impl Gate {
    pub(super) fn new(backoff: Backoff, now: Instant, seed: u64) -> Self {
        let state = State::Shut { why: Trouble::Untried, until: now, probe: None };
        Self { state, backoff, failures: 0, round: 0, rng: SmallRng::seed_from_u64(seed) }
    }

    pub(super) fn round(&self) -> Round {
        Round(self.round)
    }

    /// Why it is shut.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        match &self.state {
            State::Open => None,
            State::Shut { why, .. } => Some(*why),
        }
    }

    pub(super) fn pass(&self, now: Instant) -> Pass {
        match &self.state {
            State::Open => Pass::All,
            State::Shut { probe: None, until, why } if *until <= now => Pass::Probe(*why),
            State::Shut { .. } => Pass::Nothing,
        }
    }

    /// When the pause is over; nothing while a probe is out or where there is no pause.
    pub(super) fn opens_at(&self) -> Option<Instant> {
        match &self.state {
            State::Shut { until, probe: None, .. } => Some(*until),
            State::Open | State::Shut { probe: Some(_), .. } => None,
        }
    }

    /// This is on its way; it is the probe if the gate is shut.
    pub(super) fn sent(&mut self, request: Probe) {
        if let State::Shut { probe, .. } = &mut self.state {
            *probe = Some(request);
        }
    }

    /// This is back; the verdict on it follows.
    pub(super) fn back(&mut self, request: Probe) {
        if let State::Shut { probe, .. } = &mut self.state {
            probe.take_if(|probe| *probe == request);
        }
    }

    /// A request of this round was served.
    pub(super) fn served(&mut self, round: Round) {
        if round == self.round() {
            self.state = State::Open;
            self.failures = 0;
        }
    }

    /// A request of this round failed, its `attempts`-th attempt. Returns when it may be sent again, which
    /// is not before the time that the server `asked` for.
    pub(super) fn failed(
        &mut self,
        why: Trouble,
        round: Round,
        attempts: u32,
        asked: Option<Duration>,
        now: Instant,
    ) -> Instant {
        let jitter = self.rng.random::<f64>();
        let asked = asked.unwrap_or_default();
        if round == self.round() {
            self.round += 1;
            self.failures = self.failures.saturating_add(1);
            let until = now + self.backoff.pause(self.failures, jitter).max(asked);
            self.state = State::Shut { why, until, probe: None };
        } else if let State::Shut { until, .. } = &mut self.state {
            *until = (*until).max(now + asked);
        }
        let own = now + self.backoff.pause(attempts, jitter).max(asked);
        match &self.state {
            State::Open => own,
            State::Shut { until, .. } => own.max(*until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PieceId = PieceId(1);
    const B: PieceId = PieceId(2);

    fn open() -> (Gate, Instant) {
        let now = Instant::now();
        let mut gate = Gate::new(Backoff::default(), now, 1);
        gate.served(gate.round());
        (gate, now)
    }

    #[test]
    fn requests_that_fail_together_count_as_one_failure() {
        let (mut gate, now) = open();
        let round = gate.round();
        for _ in 0..4 {
            gate.failed(Trouble::Unreachable, round, 1, None, now);
        }
        let until = gate.opens_at().unwrap();
        assert!(until <= now + Duration::from_millis(100), "four failures at once pause like one");
        assert_eq!(gate.pass(now), Pass::Nothing);
        assert_eq!(gate.pass(until), Pass::Probe(Trouble::Unreachable));
    }

    #[test]
    fn while_a_probe_is_out_nothing_else_goes() {
        let (mut gate, now) = open();
        let until = gate.failed(Trouble::Retrying, gate.round(), 1, None, now);
        gate.sent(Probe::Piece(A));
        assert_eq!((gate.pass(until), gate.opens_at()), (Pass::Nothing, None));
        gate.back(Probe::Piece(B));
        assert_eq!(gate.pass(until), Pass::Nothing, "another request's end is not the probe's");
        gate.back(Probe::Piece(A));
        gate.served(gate.round());
        assert_eq!(gate.pass(until), Pass::All);
    }

    #[test]
    fn an_answer_from_before_the_failure_does_not_open_the_gate() {
        let (mut gate, now) = open();
        let before = gate.round();
        gate.failed(Trouble::Throttled, before, 1, Some(Duration::from_secs(5)), now);
        gate.served(before);
        assert_eq!(gate.opens_at(), Some(now + Duration::from_secs(5)));
    }

    #[test]
    fn a_late_request_for_more_patience_is_honoured() {
        let (mut gate, now) = open();
        let before = gate.round();
        gate.failed(Trouble::Retrying, before, 1, None, now);
        let again = gate.failed(Trouble::Throttled, before, 1, Some(Duration::from_secs(7)), now);
        assert_eq!(
            (gate.opens_at(), again),
            (Some(now + Duration::from_secs(7)), now + Duration::from_secs(7))
        );
    }

    #[test]
    fn pauses_grow_probe_by_probe_and_begin_anew_after_a_success() {
        let (mut gate, mut now) = open();
        for failures in 1..=12 {
            let until = gate.failed(Trouble::Unreachable, gate.round(), failures, None, now);
            let whole = Backoff::default().pause(failures, 1.0);
            assert!(until - now <= whole && (until - now) * 2 >= whole, "{failures}");
            assert_eq!(gate.opens_at(), Some(until));
            now = until;
        }
        gate.served(gate.round());
        gate.failed(Trouble::Unreachable, gate.round(), 1, None, now);
        assert!(gate.opens_at().unwrap() <= now + Duration::from_millis(100));
    }
}
