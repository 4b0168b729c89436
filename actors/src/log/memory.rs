//! The memory form of the span log: what it holds is gone with the process.

use std::{future::ready, sync::atomic::AtomicU64, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    Advance, AdvanceError, Append, CommitError, Committed, DeadLetter, DestinationError, DestinationId,
    DestinationLedger, Durability, GroupOutcome, LogFuture, LogStats, Ordinal, ReadError, ReadLimit, Record,
    RejectReason, Restored, SpanLog,
    letters::KeptLetters,
    records::{Records, charge},
    segments::{LogDestination, StartAt},
    unix_now,
};

/// Settings of a [`MemoryLog`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLogConfig {
    /// Bytes held at most (`log.memory_max_bytes`); beyond it batches are refused.
    pub max_bytes: usize,
    /// The number of destinations, each of which starts at ordinal 0.
    pub destinations: usize,
    /// Whether the metrics follow the log, so that records wait for them too.
    pub measured: bool,
}

/// A [`SpanLog`] in memory.
#[derive(Debug)]
pub struct MemoryLog {
    max_bytes: usize,
    state: Mutex<State>,
    /// The state's end, readable without its lock.
    end: AtomicU64,
}

#[derive(Debug)]
struct State {
    records: Records,
    end: Ordinal,
    destinations: Vec<Destination>,
    /// The id of the next one that comes.
    next_destination: usize,
    /// The position of the metrics; `None` where there are none to wait for.
    measured: Option<Ordinal>,
}

#[derive(Debug)]
struct Destination {
    id: DestinationId,
    /// Of one that came later: whoever made the log knows the others.
    name: Option<String>,
    ledger: DestinationLedger,
    dead_letters: KeptLetters,
}

impl MemoryLog {
    /// An empty log.
    pub fn new(config: MemoryLogConfig) -> Self {
        let MemoryLogConfig { max_bytes, destinations, measured } = config;
        let state = State {
            records: Records::default(),
            end: 0,
            destinations: (0..destinations).map(|id| Destination::at(DestinationId(id), 0)).collect(),
            next_destination: destinations,
            measured: measured.then_some(0),
        };
        Self { max_bytes, state: Mutex::new(state), end: AtomicU64::new(0) }
    }
}

impl Destination {
    fn at(id: DestinationId, start: Ordinal) -> Self {
        let (ledger, dead_letters) = (DestinationLedger::starting_at(start), KeptLetters::default());
        Self { id, name: None, ledger, dead_letters }
    }
}

impl State {
    fn append(
        &mut self,
        bytes: Bytes,
        spans: u32,
        max_bytes: usize,
        (committed_at, committed_unix): (Instant, Duration),
    ) -> Result<Ordinal, CommitError> {
        let charge = charge(&bytes);
        if charge > max_bytes {
            return Err(CommitError::TooLarge { bytes: charge, limit: max_bytes });
        }
        if self.records.bytes() + charge > max_bytes {
            return Err(CommitError::Full { bytes: charge, held: self.records.bytes(), limit: max_bytes });
        }
        let first = self.end;
        self.end += u64::from(spans);
        self.records.push(Record { first, spans, bytes, committed_at, committed_unix });
        Ok(first)
    }

    /// Lets go of what every consumer has passed.
    fn release(&mut self) {
        let slowest = self.destinations.iter().map(|d| d.ledger.position).chain(self.measured).min();
        let slowest = slowest.unwrap_or(self.end);
        while self.records.pop_if(|record| record.end() <= slowest) {}
    }

    fn start(&self) -> Ordinal {
        self.records.start().unwrap_or(self.end)
    }

    fn destination(&mut self, id: DestinationId) -> Result<&mut Destination, AdvanceError> {
        let found = self.destinations.iter_mut().find(|destination| destination.id == id);
        found.ok_or(AdvanceError::Unknown(id.0))
    }
}

impl SpanLog for MemoryLog {
    fn commit(&self, group: Vec<Append>) -> LogFuture<GroupOutcome> {
        let now = (Instant::now(), unix_now());
        let firsts = Vec::with_capacity(group.len());
        let mut outcome = GroupOutcome { firsts, end: 0, committed_unix: now.1 };
        let mut replies = Vec::with_capacity(group.len());
        {
            let mut state = self.state.lock();
            for Append { bytes, pending, reply } in group {
                let answer = state.append(bytes, pending.spans(), self.max_bytes, now);
                match answer {
                    Ok(_) => pending.accept(),
                    Err(_) => pending.reject(RejectReason::LogFull),
                }
                outcome.firsts.push(answer.as_ref().ok().copied());
                replies.push((reply, answer));
            }
            state.release();
            outcome.end = state.end;
            self.end.store(state.end, std::sync::atomic::Ordering::Release);
        }
        for (reply, answer) in replies {
            // A sender that gave up does not take its batch back.
            let _gone = reply.send(answer.map(|first| Committed { first }));
        }
        Box::pin(ready(outcome))
    }

    fn read(&self, from: Ordinal, limit: ReadLimit) -> LogFuture<Result<Vec<Record>, ReadError>> {
        let state = self.state.lock();
        let start = state.start();
        if from < start {
            return Box::pin(ready(Err(ReadError::Released { from, start })));
        }
        Box::pin(ready(Ok(state.records.read(from, limit))))
    }

    fn advance(&self, id: DestinationId, advance: &Advance) -> Result<DestinationLedger, AdvanceError> {
        let mut state = self.state.lock();
        let end = state.end;
        let destination = state.destination(id)?;
        destination.ledger.advance(advance, end)?;
        let ledger = destination.ledger.clone();
        state.release();
        Ok(ledger)
    }

    fn settled(&self, id: DestinationId) -> Ordinal {
        // Nothing outlives the process: what is passed is passed.
        self.ledger(id).map(|ledger| ledger.position).unwrap_or_default()
    }

    fn settles(&self, _: DestinationId) -> LogFuture<()> {
        Box::pin(ready(()))
    }

    fn dead_letter(&self, id: DestinationId, letter: DeadLetter) {
        // The letter's span shares its record's memory: a copy of its own lets the record go.
        let letter = DeadLetter { bytes: Bytes::copy_from_slice(&letter.bytes), ..letter };
        let mut state = self.state.lock();
        if let Ok(destination) = state.destination(id) {
            destination.dead_letters.push(letter);
        }
    }

    fn dead_letters(&self, id: DestinationId) -> Vec<DeadLetter> {
        let mut state = self.state.lock();
        state.destination(id).map(|d| d.dead_letters.iter().cloned().collect()).unwrap_or_default()
    }

    fn ledger(&self, id: DestinationId) -> Result<DestinationLedger, AdvanceError> {
        let mut state = self.state.lock();
        let end = state.end;
        state.destination(id).map(|d| d.ledger.at_end(end))
    }

    fn take_in(
        &self,
        LogDestination { name, start }: LogDestination,
    ) -> LogFuture<Result<DestinationId, DestinationError>> {
        let mut state = self.state.lock();
        if state.destinations.iter().any(|destination| destination.name.as_ref() == Some(&name)) {
            return Box::pin(ready(Err(DestinationError::Taken(name))));
        }
        let begins = match start {
            StartAt::Beginning => state.start(),
            StartAt::End => state.end,
        };
        let id = DestinationId(state.next_destination);
        state.next_destination += 1;
        state.destinations.push(Destination { name: Some(name), ..Destination::at(id, begins) });
        Box::pin(ready(Ok(id)))
    }

    fn let_go(&self, id: DestinationId) -> LogFuture<Result<DestinationLedger, DestinationError>> {
        let mut state = self.state.lock();
        let Some(at) = state.destinations.iter().position(|destination| destination.id == id) else {
            return Box::pin(ready(Err(DestinationError::Unknown)));
        };
        let gone = state.destinations.remove(at);
        state.release();
        Box::pin(ready(Ok(gone.ledger.at_end(state.end))))
    }

    fn measured(&self, to: Ordinal) {
        let mut state = self.state.lock();
        let end = state.end;
        if let Some(measured) = &mut state.measured {
            *measured = to.min(end).max(*measured);
            state.release();
        }
    }

    fn checkpoint(&self, position: Ordinal, _bytes: Bytes) -> LogFuture<Result<(), String>> {
        // Nothing outlives the process: what is counted is passed.
        self.measured(position);
        Box::pin(ready(Ok(())))
    }

    fn restored(&self) -> Restored {
        Restored::Fresh(0)
    }

    fn troubles(&self) -> Vec<String> {
        Vec::new()
    }

    fn end(&self) -> Ordinal {
        self.end.load(std::sync::atomic::Ordering::Acquire)
    }

    fn stats(&self) -> LogStats {
        let state = self.state.lock();
        LogStats {
            durability: Durability::Memory,
            start: state.start(),
            end: state.end,
            records: state.records.len(),
            bytes: state.records.bytes(),
            max_bytes: self.max_bytes,
            dead_letters: state.destinations.iter().map(|d| d.dead_letters.len()).sum(),
            disk: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{super::conformance, *};

    #[test]
    fn the_memory_form_conforms() {
        conformance::suite(|max_bytes, destinations, measured| {
            Arc::new(MemoryLog::new(MemoryLogConfig { max_bytes, destinations, measured }))
        });
    }

    #[test]
    fn a_small_batch_does_not_keep_the_buffer_that_it_came_in() {
        let log = MemoryLog::new(MemoryLogConfig { max_bytes: 1 << 20, destinations: 1, measured: false });
        let network = Bytes::from(vec![7u8; 64 * 1024]);
        let (append, _reply) = conformance::append_bytes(network.slice(..100), 1);
        conformance::wait(log.commit(vec![append]));
        assert!(network.is_unique(), "the log holds a slice of the network's buffer");
    }
}
