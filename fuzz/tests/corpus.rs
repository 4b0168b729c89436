//! The corpus is what its makers make today, and the runner tells a good target from a bad one.

use std::{collections::BTreeMap, path::Path};

use nyx_fuzz::{
    Rng, Target, Trace,
    failure::Failure,
    run::{Runner, Until, corpus},
    targets::TARGETS,
};

fn folder(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A file of each target that was found by fuzzing, and kept, begins with this.
const FOUND: &str = "found_";

#[test]
fn the_corpus_is_up_to_date() {
    for target in TARGETS {
        let made: BTreeMap<_, _> =
            (target.seeds)().unwrap().into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
        let kept: BTreeMap<_, _> = corpus(&folder("corpus").join(target.name))
            .unwrap()
            .into_iter()
            .map(|(path, bytes)| (path.file_name().unwrap().to_str().unwrap().to_owned(), bytes))
            .filter(|(name, _)| !name.starts_with(FOUND))
            .collect();
        assert!(made == kept, "run nyx-fuzz --write-corpus {}", target.name);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let runner = Runner::new(folder("failures")).unwrap();
    for target in TARGETS {
        let inputs: Vec<_> = corpus(&folder("corpus").join(target.name))
            .unwrap()
            .into_iter()
            .map(|(_, bytes)| bytes)
            .collect();
        let run = || {
            let report = runner.run(target, &inputs, 7, Until::Runs(20)).unwrap();
            (report.signatures, report.words)
        };
        assert_eq!(run(), run(), "{}", target.name);
    }
}

fn never_ends_well(bytes: &[u8], _: &mut Trace) -> Result<(), String> {
    assert!(bytes.len() < 2, "too long");
    match bytes {
        [] => Ok(()),
        _ => Err(format!("{} byte", bytes.len())),
    }
}

#[test]
fn a_panic_and_a_broken_promise_are_told_apart() {
    let runner = Runner::new(folder("failures")).unwrap();
    let shape: fn(&mut Rng, &mut Vec<u8>) = |_, _| {};
    let target = Target { name: "test", about: "", run: never_ends_well, shape, seeds: || Ok(Vec::new()) };
    assert!(runner.one(&target, b"").is_ok());
    assert_eq!(runner.one(&target, b"1").unwrap_err(), Failure::Broken("1 byte".to_owned()));
    let Err(Failure::Panic(text)) = runner.one(&target, b"12") else { panic!("it did not panic") };
    assert!(text.ends_with("too long"), "{text}");
    let (_, input) = runner.run(&target, &[b"1234".to_vec()], 1, Until::Runs(9)).unwrap_err();
    assert_eq!(input, b"1234");
}
