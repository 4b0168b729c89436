//! Texts that nobody meant.

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

use super::{load, load_all, only};
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

#[test]
fn a_key_with_more_parts_than_any_has_is_refused_by_its_beginning() {
    let deep = vec!["a"; 50_000];
    let (flag, variable) = (deep.join("."), format!("NYX__{}", deep.join("__").to_uppercase()));
    let shown = |text: &str| text.chars().take(100).collect::<String>();
    assert_eq!(
        only(load_all(&[], &[], &[(&flag, "1")]).unwrap_err()),
        format!("flag --set {}…: must be named section.key", shown(&flag))
    );
    assert_eq!(
        only(load(&[], &[(&variable, "1")]).unwrap_err()),
        format!("variable {}…: must be named NYX__SECTION__KEY", shown(&variable))
    );
    // In a file the reading itself ends there.
    let problem = only(load(&[&format!("{flag} = 1")], &[]).unwrap_err());
    assert_eq!(problem, "file a.toml: is not TOML: recursion limit");
}

#[test]
fn a_name_or_a_value_of_any_length_is_told_by_its_beginning() {
    let long = "n".repeat(900_000);
    for file in [
        format!("{long} = 1"),
        format!("[log]\n{long} = 1"),
        format!("[log]\ndir = \"{long}\""),
        format!("[export.{long}]\nendpoint = \"http://a:1\""),
        format!("export.{long} = 5"),
        format!("[export.default.headers]\n{long} = 5"),
        format!("[telemetry.resource]\n{long} = \"x\""),
        format!("[log]\n{long} = 1979-05-27"),
    ] {
        let problem = only(load(&[&file], &[]).unwrap_err());
        let beginning: String = file.chars().take(40).collect();
        assert!(problem.len() < 1_000 && problem.contains("file a.toml, line "), "{beginning}: {problem}");
    }
    for variable in ["OTEL_BSP_SCHEDULE_DELAY", "OTEL_SDK_DISABLED", "OTEL_TRACES_SAMPLER", "NYX__LOG__DIR"] {
        let problem = only(load(&[], &[(variable, &long)]).unwrap_err());
        assert!(problem.len() < 1_000 && problem.contains(variable), "{variable}: {problem}");
    }
}

#[test]
fn of_many_problems_the_first_hundred_are_told_and_the_others_counted() {
    let file: String = (0..50_000).map(|key| format!("k{key} = 1\n")).collect();
    let problems = load(&[&file], &[]).unwrap_err();
    assert_eq!(problems.len(), 101);
    assert!(problems[99].starts_with("k"), "{}", problems[99]);
    assert_eq!(problems[100], "and 49900 more problems");
    let file: String = (0..101).map(|key| format!("k{key} = 1\n")).collect();
    assert_eq!(load(&[&file], &[]).unwrap_err()[100], "and 1 more problem");
}
