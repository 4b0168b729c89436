//! Random operations, crashes and faults against a plain account (`world.rs`).
//!
//! Each case is made from a seed. The usual run has a fixed number of them; `NYX_MODEL_CASES=20000 cargo test -p
//! nyx-telemetry --lib segments::tests::model` runs as many of each kind. Seeds that have failed are kept in
//! `proptest-regressions/log/segments/model.txt` and are run first.
//!
//! `NYX_MODEL_TRACE=1` shows every operation of a case that fails.
//!
//! It does not prove anything about threads (the log is driven on one) and real disks.

use rand::{Rng as _, SeedableRng as _, rngs::SmallRng, seq::IndexedRandom as _};

use super::{
    super::{Advance, LogDestination, ReadLimit, SegmentLogConfig, StartAt, WhenFull},
    world::{DIR, End, World},
};
use crate::log::{
    DropReason, Durability,
    disk::sim::{Done, Effect, Errno, Kind, Ops, Trigger},
};

/// Cases of each kind in the usual run.
const CASES: u64 = 150;
const FAILED: &str = include_str!("../../../../proptest-regressions/log/segments/model.txt");

/// What a case takes for granted, and how its processes end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `process`, and processes are killed: nothing is lost.
    Process,
    /// `power`, and the power goes: nothing is lost.
    Power,
    /// `process`, and the power goes: much may be lost, and nothing is made up.
    Beyond,
}

/// The number of cases that a longer run has.
pub(super) fn longer_run() -> Option<u64> {
    Some(std::env::var("NYX_MODEL_CASES").ok()?.parse().expect("NYX_MODEL_CASES is a number"))
}

fn cases(form: Form) {
    let cases = longer_run().unwrap_or(CASES);
    let name = format!("{form:?}");
    let failed = FAILED.lines().filter_map(|line| line.split_once(' '));
    let failed = failed.filter(|(of, _)| *of == name).map(|(_, seed)| seed.parse().unwrap());
    for seed in failed.chain(0..cases) {
        // Shown if the case fails.
        println!("{name} {seed}");
        Case::new(form, seed).run();
    }
}

#[test]
fn a_killed_process_loses_nothing_under_process() {
    cases(Form::Process);
}

#[test]
fn a_power_cut_loses_nothing_under_power() {
    cases(Form::Power);
}

#[test]
fn a_power_cut_under_process_makes_nothing_up() {
    cases(Form::Beyond);
}

struct Case {
    form: Form,
    rng: SmallRng,
    world: World,
}

fn destinations(rng: &mut SmallRng) -> Vec<LogDestination> {
    let names = ["a", "b", "c"].into_iter().filter(|_| rng.random_bool(0.6)).collect::<Vec<_>>();
    let start = |rng: &mut SmallRng| if rng.random() { StartAt::End } else { StartAt::Beginning };
    names.into_iter().map(|name| LogDestination { name: name.to_owned(), start: start(rng) }).collect()
}

impl Case {
    fn new(form: Form, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let config = SegmentLogConfig {
            durability: if form == Form::Power { Durability::Power } else { Durability::Process },
            max_bytes: *[3_000, 10_000, 1 << 30, 1 << 30].choose(&mut rng).unwrap(),
            when_full: if rng.random() { WhenFull::Refuse } else { WhenFull::DropOldest },
            min_free_bytes: *[0, 1_000].choose(&mut rng).unwrap(),
            segment_bytes: *[1, 500, 4_000, 1 << 20].choose(&mut rng).unwrap(),
            destinations: destinations(&mut rng),
            measured: rng.random_bool(0.8),
            ..SegmentLogConfig::new(format!("{DIR}/nyx"))
        };
        Self { form, rng, world: World::new(config) }
    }

    fn run(&mut self) {
        for _ in 0..self.rng.random_range(10..80) {
            self.step();
            if self.world.disk.is_dead() {
                self.crash();
            }
        }
        self.world.heal();
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..36 => self.commit(),
            36..58 => self.advance(),
            58..66 => self.checkpoint(),
            66..75 => self.read(),
            75..79 => self.close(),
            79..84 => self.crash(),
            84..88 => self.die_soon(),
            88..93 => self.fault(),
            93..96 => {
                let room = self.rng.random_range(0..3_000);
                self.world.disk.set_capacity(self.world.disk.used_bytes() + room);
                self.world.faulty = true;
            }
            96..98 => self.world.well(),
            _ => self.world.heal(),
        }
    }

    fn commit(&mut self) {
        let rng = &mut self.rng;
        let batches = rng.random_range(0..5);
        let sizes = [1, 7, 8, 100, 600, 2_500, 5_000];
        let group: Vec<_> = (0..batches)
            .map(|_| {
                let size = *sizes.choose(rng).unwrap();
                (rng.random_range(1..=size), rng.random_range(1..20))
            })
            .collect();
        self.world.commit(&group);
    }

    fn advance(&mut self) {
        let destinations = self.world.config.destinations.len();
        if destinations == 0 {
            return;
        }
        let rng = &mut self.rng;
        let id = rng.random_range(0..destinations);
        let position = self.world.position(id);
        if position < self.world.start() {
            let to = self.world.start().min(self.world.end());
            let dropped = vec![(DropReason::Evicted, to - position)];
            return self.world.advance(id, Advance { to, dropped, ..Advance::default() }, &[]);
        }
        let to = rng.random_range(position..=self.world.end());
        let letters: Vec<_> = (position..to).filter(|_| rng.random_bool(0.05)).collect();
        let mut left = to - position - letters.len() as u64;
        let mut some = || {
            let some = rng.random_range(0..=left);
            left -= some;
            some
        };
        let (sampled_out, rejected) = (some(), some());
        let dropped = vec![(DropReason::Rejected, rejected)];
        self.world.advance(id, Advance { to, exported: left, sampled_out, dropped }, &letters);
    }

    fn checkpoint(&mut self) {
        if self.world.config.measured {
            let position = self.rng.random_range(self.world.counted..=self.world.end());
            self.world.checkpoint(position);
        }
    }

    fn read(&mut self) {
        let rng = &mut self.rng;
        let from = rng.random_range(0..=self.world.end() + 1);
        let spans = *[1, 10, u64::MAX].choose(rng).unwrap();
        let bytes = *[1, 500, usize::MAX].choose(rng).unwrap();
        self.world.read(from, ReadLimit { spans, bytes });
    }

    fn next_destinations(&mut self) -> Vec<LogDestination> {
        if self.rng.random_bool(0.3) {
            destinations(&mut self.rng)
        } else {
            self.world.config.destinations.clone()
        }
    }

    fn close(&mut self) {
        let only_close = self.form == Form::Process && self.world.faulty;
        let end = if only_close || self.rng.random_bool(0.7) {
            End::Close
        } else {
            End::CloseAndPower(self.rng.random())
        };
        self.restart(end);
    }

    fn crash(&mut self) {
        let end = match self.form {
            Form::Process => End::Kill,
            Form::Power | Form::Beyond if self.rng.random_bool(0.7) => End::Power(self.rng.random()),
            Form::Power | Form::Beyond => End::Kill,
        };
        self.restart(end);
    }

    fn restart(&mut self, end: End) {
        let destinations = self.next_destinations();
        let fault = self.rng.random_bool(0.3).then(|| {
            let nth = self.rng.random_range(0..20);
            // Not of syncs: a folder's name that a sync did not make durable, no later one does.
            let kinds = [&Kind::CHANGES[..], &Kind::LOOKS].concat();
            let kinds = kinds.into_iter().filter(|kind| !matches!(kind, Kind::Sync | Kind::SyncDir));
            let errno = if self.rng.random() { Errno::Io } else { Errno::NoSpace };
            match self.rng.random() {
                true => (Ops::of(kinds).nth(nth), Effect::Fail(errno)),
                false => (Ops::changes().nth(nth / 2), self.death()),
            }
        });
        self.world.restart(end, destinations, fault);
    }

    fn death(&mut self) -> Effect {
        let bytes = self.rng.random_range(0..400);
        Effect::Die(
            *[Done::Nothing, Done::Half, Done::Whole, Done::Bytes(bytes)].choose(&mut self.rng).unwrap(),
        )
    }

    fn die_soon(&mut self) {
        let nth = self.rng.random_range(0..12);
        let death = self.death();
        self.world.disk.plan(Ops::changes().nth(nth), death);
        self.world.faulty = true;
    }

    fn fault(&mut self) {
        let kinds = [
            vec![Kind::Write],
            vec![Kind::Sync],
            vec![Kind::SyncDir],
            vec![Kind::Sync, Kind::SyncDir, Kind::Truncate],
            vec![Kind::Write, Kind::Truncate, Kind::Remove],
            vec![Kind::Rename, Kind::Remove],
            vec![Kind::Create, Kind::Open],
            Kind::CHANGES.to_vec(),
        ];
        let kinds = kinds.choose(&mut self.rng).unwrap().clone();
        self.world.unsyncable |= kinds.contains(&Kind::Sync) || kinds.contains(&Kind::SyncDir);
        let effects = [
            Effect::Fail(Errno::Io),
            Effect::Fail(Errno::NoSpace),
            Effect::FailAfter(Done::Half, Errno::Io),
            Effect::FailAfter(Done::Half, Errno::NoSpace),
            Effect::FailAfter(Done::Whole, Errno::Io),
            Effect::Short(self.rng.random_range(1..100)),
        ];
        let effect = *effects.choose(&mut self.rng).unwrap();
        let ops = Ops::of(kinds);
        if self.rng.random_bool(0.1) {
            // All reads, or one: a place that fails while the next one does not is damage.
            let reads = Ops::of([Kind::Read]);
            let trigger =
                if self.rng.random() { reads.always() } else { reads.nth(self.rng.random_range(0..4)) };
            self.world.disk.plan(trigger, Effect::Fail(Errno::Io));
        }
        let trigger: Trigger = match self.rng.random_range(0..3) {
            0 => ops.always(),
            1 => ops.nth(self.rng.random_range(0..4)),
            _ => ops.chance(0.3, self.rng.random()),
        };
        self.world.disk.plan(trigger, effect);
        self.world.faulty = true;
    }
}
