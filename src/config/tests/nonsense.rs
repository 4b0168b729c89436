//! Texts that nobody meant.

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

use super::load;
use crate::config::layers::DEFAULT_TOML;

/// What is put into a configuration: what means something to TOML, and what a key may choke on.
const PIECES: [&str; 20] = [
    "\"",
    "'",
    "[",
    "]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "\n",
    "#",
    "\"\"\"",
    "-1",
    "1e999",
    "99999999999999999999",
    "nan",
    "é",
    "\0",
    "\"unix:\"",
    "\"http://[::1\"",
];

/// The built-in file with some of its text gone, doubled or replaced.
fn spoiled(random: &mut SmallRng) -> String {
    let mut text: Vec<char> = DEFAULT_TOML.chars().collect();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..text.len());
        let to = (at + random.random_range(0..12)).min(text.len());
        let piece = match random.random_range(0..3) {
            0 => Vec::new(),
            1 => text[at..to].repeat(2),
            _ => PIECES.choose(random).map(|piece| piece.chars().collect()).unwrap_or_default(),
        };
        text.splice(at..to, piece);
    }
    text.into_iter().collect()
}

#[test]
fn whatever_a_file_says_it_is_read_or_refused_with_the_place() {
    let mut read = 0;
    for seed in 0..150 {
        let text = spoiled(&mut SmallRng::seed_from_u64(seed));
        match load(&[&text], &[]) {
            Ok(_) => read += 1,
            Err(problems) => {
                let placed = |problem: &String| {
                    problem.contains("file a.toml, line ") || problem.contains("must be set")
                };
                assert!(problems.iter().all(placed), "seed {seed}: {problems:#?}");
            }
        }
    }
    assert!((1..150).contains(&read), "{read} of 150 were read: the others test nothing");
}

#[test]
fn whatever_a_variable_says_it_is_read_or_refused_by_its_name() {
    let keys = crate::config::reference().unwrap().into_iter().flat_map(|table| table.rows);
    let variables = keys.map(|row| row.variable.replace("NAME", "DEFAULT"));
    let otel = crate::config::otel_variables().into_iter().map(|(name, _)| name.to_owned());
    for name in variables.chain(otel) {
        for piece in PIECES.into_iter().filter(|piece| !piece.contains('\0')).step_by(3) {
            if let Err(problems) = load(&[], &[(&name, piece)]) {
                let named = |problem: &String| problem.contains(&name);
                assert!(problems.iter().all(named), "{name}={piece:?}: {problems:#?}");
            }
        }
    }
}
