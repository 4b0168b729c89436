use proptest::prelude::*;

use super::{super::backoff::Backoff, *};

/// Spans `first..end`, of which every `1/rate` is kept; the bytes are 100 a span.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Spans {
    first: Ordinal,
    end: Ordinal,
    kept: u64,
}

impl Load for Spans {
    fn end(&self) -> Ordinal {
        self.end
    }

    fn kept(&self) -> u64 {
        self.kept
    }

    fn bytes(&self) -> usize {
        self.kept as usize * 100
    }

    fn halve(self) -> Result<(Self, Self), Self> {
        let middle = self.first + (self.end - self.first) / 2;
        let kept = (self.kept / 2).min(middle - self.first);
        let low = Self { first: self.first, end: middle, kept };
        Ok((low, Self { first: middle, end: self.end, kept: self.kept - kept }))
    }
}

fn all(first: Ordinal, end: Ordinal) -> Spans {
    Spans { first, end, kept: end - first }
}

fn settings() -> Settings {
    Settings {
        concurrency: 4,
        min_batch: 512,
        max_batch: 8192,
        max_batch_bytes: 3_670_016,
        max_delay: Duration::from_secs(1),
        backoff: Backoff::default(),
        max_retries: None,
        max_elapsed: None,
    }
}

/// A machine, and a destination with a log that the test plays.
struct World {
    machine: Machine<Spans>,
    now: Instant,
    end: Ordinal,
    in_flight: Vec<PieceId>,
    advances: Vec<Advance>,
    doomed: Vec<Doomed<Spans>>,
}

impl World {
    /// A destination that has been reached once.
    fn new(settings: Settings) -> Self {
        let mut world = Self::untried(settings);
        assert_eq!(world.machine.next_action(0, world.now), Some(Action::Connect));
        world.machine.connected(true, world.now);
        world
    }

    fn untried(settings: Settings) -> Self {
        let now = Instant::now();
        let machine = Machine::new(settings, 0, now, 7);
        Self { machine, now, end: 0, in_flight: vec![], advances: vec![], doomed: vec![] }
    }

    /// Does what the machine wants, with batches of all that waits; the new requests' ranges.
    fn run(&mut self) -> Vec<(Ordinal, Ordinal)> {
        let mut sent = vec![];
        while let Some(action) = self.machine.next_action(self.end, self.now) {
            match action {
                Action::Send(id) => {
                    let load = self.machine.load(id).unwrap();
                    sent.push((load.first, load.end));
                    self.in_flight.push(id);
                }
                Action::Form { from, spans, bytes } => {
                    let spans = spans.min(bytes as u64 / 100);
                    let to = self.end.min(from + spans);
                    self.machine.formed(all(from, to), None, self.now);
                }
                Action::Connect => self.machine.connected(false, self.now),
            }
        }
        sent
    }

    fn arrive(&mut self, spans: u64) -> Vec<(Ordinal, Ordinal)> {
        self.end += spans;
        self.run()
    }

    fn pass(&mut self, time: Duration) -> Vec<(Ordinal, Ordinal)> {
        self.now += time;
        self.run()
    }

    /// Answers the oldest request in flight, or the one at `at`.
    fn answer_at(&mut self, at: usize, verdict: Verdict) -> Vec<(Ordinal, Ordinal)> {
        let id = self.in_flight.remove(at);
        self.doomed.extend(self.machine.answered(id, verdict, self.now).doomed);
        self.advances.extend(self.machine.settle());
        self.run()
    }

    fn answer(&mut self, verdict: Verdict) -> Vec<(Ordinal, Ordinal)> {
        self.answer_at(0, verdict)
    }

    fn state(&self) -> DestinationState {
        self.machine.state(self.end)
    }
}

fn unreachable() -> Verdict {
    Verdict::Unreachable { message: "connection refused".to_owned() }
}

fn retryable() -> Verdict {
    Verdict::Retryable { message: "UNAVAILABLE".to_owned() }
}

fn bisect(reason: DropReason) -> Verdict {
    Verdict::Bisect { reason, message: "no".to_owned() }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_batch_goes_out_when_512_spans_wait_or_the_oldest_has_waited_a_second() {
    let mut world = World::new(settings());
    assert_eq!(world.arrive(511), []);
    assert_eq!(world.machine.wake_at(world.now), Some(world.now + SECOND));
    assert_eq!(world.arrive(1), [(0, 512)]);
    assert_eq!(world.machine.wake_at(world.now), None, "nothing waits");
    assert_eq!(world.arrive(3), []);
    world.now += SECOND / 2;
    assert_eq!(world.arrive(4), []);
    assert_eq!(world.pass(SECOND / 2), [(512, 519)]);
}

#[test]
fn batches_grow_while_the_destination_is_slower_than_the_arrivals() {
    let mut world = World::new(settings());
    for _ in 0..4 {
        assert_eq!(world.arrive(512).len(), 1);
    }
    for _ in 0..20 {
        assert_eq!(world.arrive(512), [], "four are in flight");
    }
    assert_eq!(world.answer(Verdict::Success), [(2048, 2048 + 8192)]);
    assert_eq!(world.answer(Verdict::Success), [(10240, 12288)]);
}

#[test]
fn the_position_moves_over_the_acknowledged_prefix_only() {
    let mut world = World::new(settings());
    for _ in 0..3 {
        world.arrive(600);
    }
    world.answer_at(2, Verdict::Success);
    world.answer_at(1, Verdict::Partial { rejected: 7, message: String::new() });
    assert_eq!((world.advances.len(), world.machine.position()), (0, 0));
    world.answer(Verdict::Success);
    let dropped = vec![(DropReason::Rejected, 7)];
    assert_eq!(world.advances, [Advance { to: 1800, exported: 1793, sampled_out: 0, dropped }]);
    assert_eq!(world.state(), DestinationState::Idle);
}

#[test]
fn nothing_starts_where_it_could_end_beyond_position_and_four_batches() {
    let mut world = World::new(settings());
    world.end = 100_000;
    assert_eq!(world.run().len(), 4);
    let mut most = 0;
    for _ in 0..20 {
        // The first piece stalls, the others are served.
        while world.in_flight.len() > 1 {
            let sent = world.answer_at(1, Verdict::Success);
            most = sent.iter().map(|(_, end)| *end).max().unwrap_or(0).max(most);
        }
    }
    assert_eq!((world.machine.position(), most), (0, 0), "four full batches reach the bound");
    assert_eq!(world.answer(Verdict::Success).len(), 4);
}

#[test]
fn a_dead_destination_is_probed_by_one_request_at_a_time() {
    let mut world = World::new(settings());
    world.end = 100_000;
    world.run();
    for _ in 0..4 {
        assert_eq!(world.answer(unreachable()), []);
    }
    assert_eq!(world.state(), DestinationState::Unreachable);
    for _ in 0..20 {
        let wake = world.machine.wake_at(world.now).unwrap();
        assert!(wake - world.now <= Duration::from_secs(30));
        assert_eq!(world.pass(wake - world.now), [(0, 8192)], "the oldest batch is the probe");
        assert_eq!(world.pass(SECOND), [], "one probe at a time");
        assert_eq!(world.answer(unreachable()), []);
    }
    let wake = world.machine.wake_at(world.now).unwrap();
    world.pass(wake - world.now);
    assert_eq!(world.answer(Verdict::Success).len(), 4, "reached again, every slot is used");
    assert_eq!(world.state(), DestinationState::Exporting);
}

#[test]
fn a_destination_that_is_not_there_is_found_out_before_any_span_arrives() {
    let mut world = World::untried(settings());
    assert_eq!(world.state(), DestinationState::Idle);
    world.run();
    assert_eq!(world.state(), DestinationState::Unreachable);
    let wake = world.machine.wake_at(world.now).unwrap();
    assert!(wake <= world.now + Duration::from_millis(100));
    assert_eq!(world.machine.next_action(0, wake), Some(Action::Connect));
    world.machine.connected(true, wake);
    assert_eq!(world.state(), DestinationState::Idle);
}

#[test]
fn the_first_request_of_all_goes_alone() {
    let mut world = World::untried(settings());
    world.end = 100_000;
    assert_eq!(world.run(), [(0, 8192)]);
    assert_eq!(world.answer(Verdict::Success).len(), 4);
}

#[test]
fn a_throttled_destination_is_left_alone_for_the_time_that_it_asked_for() {
    let mut world = World::new(settings());
    world.arrive(600);
    world.arrive(600);
    let asked = Duration::from_secs(100);
    world.answer(Verdict::Throttled { delay: asked, message: "later".to_owned() });
    assert_eq!(world.answer(Verdict::Success), [], "a success from before is no permission");
    assert_eq!(world.state(), DestinationState::Throttled);
    assert_eq!(world.pass(asked - Duration::from_millis(1)), []);
    assert_eq!(world.pass(Duration::from_millis(1)), [(0, 600)]);
}

#[test]
fn a_blocked_destination_is_probed_once_a_cap_and_loses_nothing() {
    let mut world = World::new(Settings { max_retries: Some(1), max_elapsed: Some(SECOND), ..settings() });
    world.arrive(600);
    for _ in 0..5 {
        world.answer(Verdict::Blocked { message: "UNAUTHENTICATED".to_owned() });
        assert_eq!(world.state(), DestinationState::Blocked);
        assert_eq!(world.pass(Duration::from_secs(29)), []);
        assert_eq!(world.pass(SECOND), [(0, 600)]);
    }
    world.answer(Verdict::Success);
    assert_eq!(world.advances, [Advance { to: 600, exported: 600, ..Advance::default() }]);
}

#[test]
fn a_batch_is_given_up_after_max_retries() {
    let mut world = World::new(Settings { max_retries: Some(2), ..settings() });
    world.arrive(600);
    for _ in 0..2 {
        world.answer(retryable());
        assert_eq!(world.pass(Duration::from_secs(30)), [(0, 600)]);
    }
    world.answer(retryable());
    let message = "UNAVAILABLE".to_owned();
    assert_eq!(world.doomed, [Doomed { load: all(0, 600), reason: DropReason::RetriesExhausted, message }]);
    let dropped = vec![(DropReason::RetriesExhausted, 600)];
    assert_eq!(world.advances, [Advance { to: 600, dropped, ..Advance::default() }]);
}

#[test]
fn a_batch_is_given_up_after_max_elapsed() {
    let mut world = World::new(Settings { max_elapsed: Some(Duration::from_secs(60)), ..settings() });
    world.arrive(600);
    world.answer(unreachable());
    world.pass(Duration::from_secs(59));
    world.answer(unreachable());
    assert_eq!(world.doomed, []);
    world.pass(SECOND);
    world.answer(unreachable());
    assert_eq!(world.doomed.len(), 1);
}

#[test]
fn one_invalid_span_is_found_and_alone_becomes_a_dead_letter() {
    let mut world = World::new(settings());
    world.arrive(600);
    let bad = 357;
    let mut requests = 0;
    while let Some(id) = world.in_flight.first() {
        let load = world.machine.load(*id).unwrap();
        let holds = (load.first..load.end).contains(&bad);
        world.answer(if holds { bisect(DropReason::Invalid) } else { Verdict::Success });
        requests += 1;
    }
    assert_eq!(world.doomed.len(), 1);
    assert_eq!(world.doomed[0].load, all(bad, bad + 1));
    assert_eq!(world.advances.iter().map(|a| a.exported).sum::<u64>(), 599);
    assert_eq!(world.machine.position(), 600);
    assert!(requests <= 21, "{requests} requests for ten halvings");
}

#[test]
fn after_a_refusal_for_its_size_batches_are_cut_smaller_at_once() {
    let mut world = World::new(settings());
    world.end = 8192;
    world.run();
    assert_eq!(world.answer(bisect(DropReason::TooLarge)), [(0, 4096), (4096, 8192)]);
    world.answer(Verdict::Success);
    world.answer(Verdict::Success);
    let sent = world.arrive(8192);
    assert_eq!(sent, [(8192, 12288), (12288, 16384)]);
}

#[test]
fn spans_that_sampling_left_out_are_settled_without_a_request() {
    let mut world = World::new(settings());
    assert!(matches!(world.machine.next_action(600, world.now), Some(Action::Form { from: 0, .. })));
    world.machine.formed(Spans { first: 0, end: 600, kept: 0 }, None, world.now);
    let sampled_out = Some(Advance { to: 600, sampled_out: 600, ..Advance::default() });
    assert_eq!(world.machine.settle(), sampled_out);
    assert_eq!(world.machine.next_action(600, world.now), None);
}

#[test]
fn spans_that_cannot_be_read_are_dropped_as_damaged() {
    let mut world = World::new(settings());
    assert!(matches!(world.machine.next_action(600, world.now), Some(Action::Form { from: 0, .. })));
    world.machine.gone(200, DropReason::Damaged);
    let dropped = vec![(DropReason::Damaged, 200)];
    assert_eq!(world.machine.settle(), Some(Advance { to: 200, dropped, ..Advance::default() }));
    assert!(matches!(world.machine.next_action(800, world.now), Some(Action::Form { from: 200, .. })));
}

#[test]
fn while_draining_a_batch_of_any_size_goes_out_at_once() {
    let mut world = World::new(settings());
    assert_eq!(world.arrive(3), []);
    world.machine.drain();
    assert_eq!(world.run(), [(0, 3)]);
}

#[test]
fn the_rest_of_a_read_waits_from_its_own_commit_on() {
    let mut world = World::new(settings());
    let committed = world.now;
    world.now += SECOND / 2;
    assert!(matches!(world.machine.next_action(700, world.now), Some(Action::Form { .. })));
    world.machine.formed(all(0, 600), Some(committed), world.now);
    assert!(matches!(world.machine.next_action(700, world.now), Some(Action::Send(_))));
    assert_eq!(world.machine.next_action(700, world.now), None);
    assert_eq!(world.machine.wake_at(world.now), Some(committed + SECOND));
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    let message = || "why".to_owned();
    prop_oneof![
        4 => Just(Verdict::Success),
        1 => (0..9000u64).prop_map(move |rejected| Verdict::Partial { rejected, message: message() }),
        2 => Just(unreachable()),
        1 => Just(retryable()),
        1 => (0..100u64).prop_map(move |s| Verdict::Throttled { delay: SECOND * s as u32, message: message() }),
        2 => Just(bisect(DropReason::Invalid)),
        1 => Just(bisect(DropReason::TooLarge)),
        1 => Just(Verdict::Blocked { message: "why".to_owned() }),
        1 => Just(Verdict::Refused { message: "why".to_owned() }),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Arrive(u64),
    Pass(u64),
    Answer(usize, Verdict),
    Connected(bool),
    Form(u64, u64),
    Damaged(u64),
    Drain,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..2000u64).prop_map(Step::Arrive),
        2 => (0..40_000u64).prop_map(Step::Pass),
        5 => (0..8usize, any_verdict()).prop_map(|(at, verdict)| Step::Answer(at, verdict)),
        1 => any::<bool>().prop_map(Step::Connected),
        3 => (1..9000u64, 0..9000u64).prop_map(|(spans, kept)| Step::Form(spans, kept)),
        1 => (1..500u64).prop_map(Step::Damaged),
        1 => Just(Step::Drain),
    ]
}

/// A run of the machine that checks at every step what must always hold.
struct Checked {
    machine: Machine<Spans>,
    settings: Settings,
    now: Instant,
    end: Ordinal,
    in_flight: Vec<PieceId>,
    connecting: bool,
    form: Option<(Ordinal, u64)>,
    counted: u64,
}

impl Checked {
    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Arrive(spans) => self.end += spans,
            Step::Pass(millis) => self.now += Duration::from_millis(millis),
            Step::Answer(at, verdict) if !self.in_flight.is_empty() => {
                let id = self.in_flight.swap_remove(at % self.in_flight.len());
                let answered = self.machine.answered(id, verdict, self.now);
                prop_assert!(!(answered.retried && answered.doomed.is_some()));
                if let Some(doomed) = answered.doomed {
                    prop_assert!(doomed.load.kept() > 0);
                }
            }
            Step::Connected(succeeded) if self.connecting => {
                self.connecting = false;
                self.machine.connected(succeeded, self.now);
            }
            Step::Form(spans, kept) => {
                if let Some((from, most)) = self.form.take() {
                    let to = self.end.min(from + spans.min(most));
                    let kept = kept.min(to - from);
                    self.machine.formed(Spans { first: from, end: to, kept }, None, self.now);
                }
            }
            Step::Damaged(spans) => {
                if let Some((from, most)) = self.form.take() {
                    self.machine.gone(self.end.min(from + spans.min(most)), DropReason::Damaged);
                }
            }
            Step::Drain => self.machine.drain(),
            Step::Answer(..) | Step::Connected(_) => {}
        }
        self.run()
    }

    fn run(&mut self) -> Result<(), TestCaseError> {
        let alone = !self.machine.state(self.end).is_healthy();
        let before = self.in_flight.len();
        loop {
            if let Some(advance) = self.machine.settle() {
                let dropped: u64 = advance.dropped.iter().map(|(_, count)| count).sum();
                self.counted += advance.exported + advance.sampled_out + dropped;
                prop_assert_eq!(advance.to, self.machine.position());
                prop_assert_eq!(advance.to, self.counted, "every span is settled once and in order");
            }
            match self.machine.next_action(self.end, self.now) {
                Some(Action::Send(id)) => {
                    prop_assert!(!self.in_flight.contains(&id));
                    let load = self.machine.load(id).cloned();
                    let load = load.ok_or_else(|| TestCaseError::fail("a piece in flight has no load"))?;
                    let bound =
                        self.machine.position() + self.settings.concurrency as u64 * self.settings.max_batch;
                    prop_assert!(load.end <= bound, "{load:?} ends beyond {bound}");
                    self.in_flight.push(id);
                }
                Some(Action::Form { from, spans, bytes }) => {
                    prop_assert!(self.form.is_none() && spans <= self.settings.max_batch);
                    prop_assert!(from < self.end && bytes <= self.settings.max_batch_bytes);
                    self.form = Some((from, spans));
                }
                Some(Action::Connect) => {
                    prop_assert!(!self.connecting);
                    self.connecting = true;
                }
                None => break,
            }
            prop_assert!(self.in_flight.len() <= self.settings.concurrency);
            prop_assert_eq!(self.in_flight.len(), self.machine.in_flight());
            prop_assert!(!alone || self.in_flight.len() <= before + 1, "in trouble, one probe at a time");
        }
        if let Some(wake) = self.machine.wake_at(self.now) {
            prop_assert!(wake > self.now);
        }
        Ok(())
    }

    /// From now on everything succeeds: the rest must be settled, and soon.
    fn finish(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..100_000 {
            if self.machine.position() == self.end {
                return Ok(());
            }
            if !self.in_flight.is_empty() {
                self.step(Step::Answer(0, Verdict::Success))?;
            } else if self.form.is_some() {
                self.step(Step::Form(8192, 8192))?;
            } else if self.connecting {
                self.step(Step::Connected(true))?;
            } else {
                let wake = self.machine.wake_at(self.now);
                self.now = wake.ok_or_else(|| TestCaseError::fail(format!("stuck: {:?}", self.machine)))?;
                self.run()?;
            }
        }
        Err(TestCaseError::fail("no end"))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn whatever_happens_every_span_is_settled_once_and_in_order(
        steps in prop::collection::vec(any_step(), 1..120),
        max_retries in prop::option::weighted(0.3, 0..4u32),
        max_elapsed in prop::option::weighted(0.2, (0..100u32).prop_map(|s| SECOND * s)),
        concurrency in 1..5usize,
    ) {
        let settings = Settings { concurrency, max_retries, max_elapsed, ..settings() };
        let now = Instant::now();
        let mut run = Checked {
            machine: Machine::new(settings.clone(), 0, now, 3),
            settings,
            now,
            end: 0,
            in_flight: vec![],
            connecting: false,
            form: None,
            counted: 0,
        };
        for step in steps {
            run.step(step)?;
        }
        run.finish()?;
        prop_assert_eq!(run.counted, run.end);
    }
}

#[test]
fn no_batch_begins_further_ahead_of_what_a_crash_would_go_back_to_than_the_bound() {
    let mut world = World::new(Settings { concurrency: 2, min_batch: 1, max_batch: 100, ..settings() });
    world.machine.settled(0);
    for first in [0, 100] {
        assert!(
            matches!(world.machine.next_action(1_000, world.now), Some(Action::Form { from, .. }) if from == first)
        );
        world.machine.formed(Spans { first, end: first + 100, kept: 0 }, None, world.now);
        world.machine.settle();
    }
    assert_eq!(world.machine.position(), 200);
    assert_eq!(world.machine.next_action(1_000, world.now), None, "both batches would be repeated");
    assert!(world.machine.waits_to_settle());
    world.machine.settled(100);
    assert!(matches!(world.machine.next_action(1_000, world.now), Some(Action::Form { from: 200, .. })));
}
