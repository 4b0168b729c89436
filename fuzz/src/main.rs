//! Runs the fuzz targets; see `fuzz/README.md`.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use nyx_fuzz::{
    Target,
    run::{Report, Runner, Until, corpus},
    targets::TARGETS,
};

/// Runs every file of a target's corpus, then changes of them; a failing input is kept below `failures/`.
#[derive(Debug, Parser)]
#[command(name = "nyx-fuzz")]
struct Options {
    /// The targets; all of them by default, `list` for their names.
    targets: Vec<String>,
    /// Seconds that each target runs, once its corpus is done.
    #[arg(long, value_name = "N", default_value_t = 10, conflicts_with = "runs")]
    seconds: u64,
    /// Inputs that each target gets instead, once its corpus is done.
    #[arg(long, value_name = "N")]
    runs: Option<u64>,
    /// Another one gives other inputs.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Run this input alone.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Write the corpus anew, and run nothing.
    #[arg(long, conflicts_with = "input")]
    write_corpus: bool,
    /// The folder with `corpus/` and `failures/`.
    #[arg(long, value_name = "FOLDER", default_value = "fuzz")]
    dir: PathBuf,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _closed = writeln!(io::stderr(), "nyx-fuzz: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether all went well.
fn run(options: &Options) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    if options.targets.iter().any(|name| name == "list") {
        for target in TARGETS {
            writeln!(out, "{:15} {}", target.name, target.about)?;
        }
        return Ok(true);
    }
    let mut targets: Vec<&Target> = Vec::new();
    for name in &options.targets {
        let target = TARGETS.iter().find(|target| target.name == name);
        targets.push(target.ok_or_else(|| io::Error::other(format!("there is no target {name}: see list")))?);
    }
    if targets.is_empty() {
        targets.extend(TARGETS);
    }
    let runner = Runner::new(options.dir.join("failures"))?;
    let mut well = true;
    for target in targets {
        let dir = options.dir.join("corpus").join(target.name);
        if options.write_corpus {
            write_corpus(target, &dir)?;
            continue;
        }
        if let Some(path) = &options.input {
            match runner.one(target, &fs::read(path)?) {
                Ok(trace) => writeln!(out, "{}: {:?}", target.name, trace.words())?,
                Err(failure) => {
                    well = false;
                    writeln!(out, "{}: {failure}", target.name)?;
                }
            }
            continue;
        }
        let inputs: Vec<_> = corpus(&dir)?.into_iter().map(|(_, bytes)| bytes).collect();
        let until = options.runs.map_or(Until::Seconds(options.seconds), Until::Runs);
        match runner.run(target, &inputs, options.seed, until) {
            Ok(report) => say(&mut out, target, &report)?,
            Err((failure, input)) => {
                well = false;
                let path = runner.keep(target, &failure, &input)?;
                writeln!(out, "{}: {} {failure}", target.name, path.display())?;
            }
        }
    }
    Ok(well)
}

fn say(out: &mut impl io::Write, target: &Target, report: &Report) -> io::Result<()> {
    let Report { corpus, runs, millis, signatures, words } = report;
    let rate = runs * 1_000 / (*millis).max(1);
    let name = target.name;
    writeln!(out, "{name}: {corpus} of the corpus, {runs} more, {rate} a second, {signatures} signatures")?;
    let words: Vec<_> = words.iter().map(|(word, count)| format!("{word} {count}")).collect();
    writeln!(out, "  {}", words.join(", "))
}

fn write_corpus(target: &Target, dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for (name, bytes) in (target.seeds)()? {
        fs::write(dir.join(name), bytes)?;
    }
    Ok(())
}
