//! A fixed workload, ended or failed at each of its changes to the disk, and gone on with.
//!
//! The workload is run once to count its changes. Then each of them is a point: the process dies there (before, in the
//! middle, behind), or the change fails once. What is found afterwards, and after each further step, is held
//! against the account in `world.rs`. With `NYX_MODEL_CASES` (see `model.rs`) a power cut is tried with more seeds.

use super::{
    super::{Advance, LogDestination, SegmentLogConfig, StartAt},
    model::longer_run,
    world::{DIR, End, WIDE, World},
};
use crate::log::{
    Durability,
    disk::sim::{Done, Effect, Errno, Ops},
};

fn config(durability: Durability) -> SegmentLogConfig {
    let destination = |name: &str| LogDestination { name: name.to_owned(), start: StartAt::Beginning };
    SegmentLogConfig {
        durability,
        segment_bytes: 600,
        max_bytes: 6_000,
        min_free_bytes: 0,
        destinations: vec![destination("a"), destination("b")],
        ..SegmentLogConfig::new(format!("{DIR}/nyx"))
    }
}

/// One step of the workload.
fn step(world: &mut World, step: usize) {
    let to = |world: &World, id: usize, by: u64| (world.position(id) + by).min(world.end());
    let both = world.config.destinations.clone();
    match step {
        0 => drop(world.commit(&[(100, 3), (1, 1), (200, 5)])),
        1 => drop(world.commit(&[(500, 7)])),
        // Letters, and a part of a record.
        2 => advance(world, 0, to(world, 0, 5), &[0, 3]),
        3 => drop(world.commit(&[(300, 2), (700, 4)])),
        4 => checkpoint(world, 9),
        5 => advance(world, 1, to(world, 1, 12), &[1]),
        6 => world.restart(End::Kill, both, None),
        7 => drop(world.commit(&[(20, 2)])),
        // A segment is passed by all.
        8 => advance(world, 0, to(world, 0, 12), &[6]),
        9 => checkpoint(world, 16),
        10 => world.restart(End::Close, both, None),
        11 => drop(world.commit(&[(900, 9), (10, 1)])),
        // Bytes that are no record, behind the last one.
        12 => {
            let last =
                world.disk.paths().into_iter().filter(|path| path.to_string_lossy().contains("/segments/"));
            // (Not behind a group that a power cut has torn: it would look whole.)
            if let Some(last) = last.max()
                && world.torn_bytes() == 0
                && !world.disk.is_dead()
            {
                world.disk.edit(last, |bytes| bytes.extend([0xa5; 90]));
            }
            world.restart(End::Kill, both, None);
        }
        13 => drop(world.commit(&[(40, 4)])),
        14 => advance(world, 1, world.end(), &[]),
        15 => advance(world, 0, world.end(), &[]),
        16 => checkpoint(world, world.end()),
        // One goes, and comes back.
        17 => world.restart(End::Close, both[..1].to_vec(), None),
        18 => drop(world.commit(&[(10, 2)])),
        19 => {
            let b = LogDestination { name: "b".to_owned(), start: StartAt::End };
            world.restart(End::Close, vec![both[0].clone(), b], None);
        }
        20 => drop(world.commit(&[(10, 2)])),
        21 => world.read(world.start(), WIDE),
        _ => panic!("there is no step {step}"),
    }
}

const STEPS: usize = 22;

fn advance(world: &mut World, id: usize, to: u64, letters: &[u64]) {
    let position = world.position(id);
    let to = to.max(position);
    let letters: Vec<_> =
        letters.iter().copied().filter(|ordinal| (position..to).contains(ordinal)).collect();
    let exported = to - position - letters.len() as u64;
    world.advance(id, Advance { to, exported, ..Advance::default() }, &letters);
}

fn checkpoint(world: &mut World, position: u64) {
    world.checkpoint(position.clamp(world.counted, world.end()));
}

fn changes(durability: Durability) -> u64 {
    let mut world = World::new(config(durability));
    (0..STEPS).for_each(|number| step(&mut world, number));
    world.heal();
    let changes = world.disk.count(&Ops::changes());
    assert!(changes > 40, "{changes} changes");
    changes
}

/// The workload with an effect at one change; what dies ends like this.
fn run(durability: Durability, change: u64, effect: Effect, end: End) {
    println!("{durability:?} {change} {effect:?} {end:?}");
    let mut world = World::new_on(config(durability), |disk| {
        disk.plan(Ops::changes().nth(change), effect);
    });
    world.keeps_faults = true;
    world.faulty = true;
    if !matches!(effect, Effect::Die(_)) {
        world.unsyncable = true;
    }
    for number in 0..STEPS {
        if world.disk.is_dead() {
            let destinations = world.config.destinations.clone();
            world.restart(end, destinations, None);
        }
        step(&mut world, number);
    }
    if world.disk.is_dead() {
        let destinations = world.config.destinations.clone();
        world.restart(end, destinations, None);
    }
    world.heal();
}

fn deaths(durability: Durability, ends: impl Fn(u64) -> Vec<End>) {
    for change in 0..changes(durability) {
        for done in [Done::Nothing, Done::Half, Done::Whole] {
            ends(change).into_iter().for_each(|end| run(durability, change, Effect::Die(done), end));
        }
    }
}

#[test]
fn a_process_killed_at_any_change_loses_nothing() {
    deaths(Durability::Process, |_| vec![End::Kill]);
}

#[test]
fn a_power_cut_at_any_change_loses_nothing() {
    let seeds = if longer_run().is_some() { 10 } else { 1 };
    deaths(Durability::Power, |change| (0..seeds).map(|seed| End::Power(change + 1_000 * seed)).collect());
}

#[test]
fn a_change_that_fails_once_loses_nothing() {
    for durability in [Durability::Process, Durability::Power] {
        for change in 0..changes(durability) {
            for (done, errno) in
                [(Done::Nothing, Errno::NoSpace), (Done::Half, Errno::NoSpace), (Done::Whole, Errno::Io)]
            {
                run(durability, change, Effect::FailAfter(done, errno), End::Kill);
            }
        }
    }
}
