//! Texts as a configuration: a file, variables and flags, read as `nyx-daemon validate` reads them.
//!
//! ```text
//! the file, in TOML
//! #! include default          <- a file of config/ in its place
//! #! environment
//! NYX__LOG__DIR=/var/lib/nyx
//! #! flags
//! log.durability=power
//! ```

mod secrets;
mod shape;

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use nyx_daemon::{
    config::{Config, ConfigFile, Environment, Loaded, Sources},
    logging,
};

pub(super) use self::shape::{seeds, shape};
use crate::{Trace, ensure};

const INCLUDE: &str = "#! include ";
const ENVIRONMENT: &[u8] = b"#! environment";
const FLAGS: &[u8] = b"#! flags";

/// The files of `config/`, by the name that an include has for them.
const INCLUDED: [(&str, &str); 4] = [
    ("default", include_str!("../../../config/default.toml")),
    ("metrics-only", include_str!("../../../config/examples/metrics-only.toml")),
    ("nyx-node", include_str!("../../../config/examples/nyx-node.toml")),
    ("two-destinations", include_str!("../../../config/examples/two-destinations.toml")),
];

/// What no output may hold: it is planted as a header's value in another file, a variable and a flag.
const PLANTED: &str = "veiled-7c1e";
/// A problem has no more bytes than this, whatever is in the input.
const PROBLEM_MAX: usize = 4 << 10;
/// Problems at most, with the line that counts the others.
const PROBLEMS_MAX: usize = 101;
/// Characters of a name that a problem repeats.
const SHOWN: usize = 100;

/// An input, taken apart.
#[derive(Debug, Default)]
struct Input {
    file: Vec<u8>,
    environment: Vec<(Vec<u8>, Vec<u8>)>,
    flags: Vec<(String, String)>,
}

impl Input {
    fn of(bytes: &[u8]) -> Self {
        let mut input = Self::default();
        let mut part = 0;
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            match (part, text.split_once_at(b'=')) {
                _ if text == ENVIRONMENT => part = 1,
                _ if text == FLAGS => part = 2,
                (0, _) => input.file.extend_from_slice(included(text).unwrap_or(line)),
                // What no process can be given.
                _ if text.contains(&0) => {}
                (1, Some((name, value))) if !name.is_empty() => {
                    input.environment.push((name.to_vec(), value.to_vec()));
                }
                (2, Some((key, value))) => {
                    if let (Ok(key), Ok(value)) = (str::from_utf8(key), str::from_utf8(value)) {
                        input.flags.push((key.to_owned(), value.to_owned()));
                    }
                }
                _ => {}
            }
        }
        input
    }

    /// What the process would find around it, with a secret of its own.
    fn environment(&self) -> Environment {
        let planted = [
            ("NYX__EXPORT__BY-VARIABLE__ENDPOINT", "http://by-variable:4317".to_owned()),
            ("NYX__EXPORT__BY-VARIABLE__HEADERS", format!("authorization=Bearer%20{PLANTED}")),
        ];
        let planted = planted.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let own = self.environment.iter().cloned();
        let own = own.map(|(name, value)| (OsString::from_vec(name), OsString::from_vec(value)));
        Environment::new(planted.into_iter().chain(own), false)
    }

    fn flags(&self) -> Vec<(String, String)> {
        let planted = [
            ("export.by-flag.endpoint", "http://by-flag:4317".to_owned()),
            ("export.by-flag.headers", format!("authorization={PLANTED}")),
        ];
        let planted = planted.map(|(key, value)| (key.to_owned(), value));
        self.flags.iter().cloned().chain(planted).collect()
    }
}

trait SplitOnce {
    fn split_once_at(&self, byte: u8) -> Option<(&[u8], &[u8])>;
}

impl SplitOnce for [u8] {
    fn split_once_at(&self, byte: u8) -> Option<(&[u8], &[u8])> {
        let at = self.iter().position(|&found| found == byte)?;
        Some((self.get(..at)?, self.get(at + 1..)?))
    }
}

fn included(line: &[u8]) -> Option<&'static [u8]> {
    let name = line.strip_prefix(INCLUDE.as_bytes())?;
    let (_, text) = INCLUDED.iter().find(|(known, _)| known.as_bytes() == name)?;
    Some(text.as_bytes())
}

/// Files of a run, gone when it is over.
struct Files(PathBuf);

impl Files {
    fn new() -> io::Result<Self> {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let name = format!("nyx-fuzz-{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }

    fn write(&self, name: &str, text: &[u8]) -> io::Result<ConfigFile> {
        let path = self.0.join(name);
        fs::write(&path, text)?;
        Ok(ConfigFile::required(path))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _nobody_to_tell = fs::remove_dir_all(&self.0);
    }
}

/// Whatever it says, it is read, and what is shown of it means the same; or it is refused, each problem with its place; and
/// no header's value is in anything that is said.
pub(super) fn run(bytes: &[u8], trace: &mut Trace) -> Result<(), String> {
    let input = Input::of(bytes);
    let files = Files::new().map_err(|error| error.to_string())?;
    let write = |name: &str, text: &[u8]| files.write(name, text).map_err(|error| error.to_string());
    let planted = format!(
        "[export.by-file]\nendpoint = \"http://by-file:4317\"\nheaders.authorization = \"Bearer {PLANTED}\"\n"
    );
    let sources = Sources {
        files: vec![write("planted.toml", planted.as_bytes())?, write("nyx.toml", &input.file)?],
        environment: input.environment(),
        flags: input.flags(),
    };
    let loaded = sources.load();
    let filter = match &loaded {
        Ok(loaded) => logging::filter(loaded.config.tracing.level, &sources.environment).map(drop),
        Err(_) => Ok(()),
    };
    let mut said = match &loaded {
        Ok(loaded) => {
            trace.see("valid");
            trace.see_if(!loaded.notices.is_empty(), "notice");
            format!("{}\n{}\n{loaded:?}", loaded.notices.join("\n"), loaded.show())
        }
        Err(invalid) => {
            for problem in &invalid.problems {
                trace.see(kind(problem));
                ensure!(is_placed(problem, &input, &files.0), "a problem names no place: {problem}");
                ensure!(problem.len() <= PROBLEM_MAX, "a problem of {} bytes", problem.len());
            }
            ensure!(invalid.problems.len() <= PROBLEMS_MAX, "{} problems", invalid.problems.len());
            ensure!(!invalid.problems.is_empty(), "it is refused without a problem");
            format!("{invalid}\n{invalid:?}")
        }
    };
    if let Err(failure) = &filter {
        trace.see("no filter");
        ensure!(failure.message.contains("variable RUST_LOG"), "{failure} does not name its variable");
        said.push_str(&failure.message);
    }
    said.push_str(&format!("{sources:?}"));
    ensure!(!said.contains(PLANTED), "a planted secret is said: {}", around(&said, PLANTED));
    if secrets::is_given(&input) && !secrets::may_be_said(&input) {
        trace.see("secret");
        let secret = secrets::SECRET;
        ensure!(!said.contains(secret), "a secret is said: {}", around(&said, secret));
    }
    match loaded {
        Ok(loaded) => means_the_same(&loaded, &input, &files),
        Err(_) => Ok(()),
    }
}

/// What `config show` says is read as the same configuration, but for the values of headers.
fn means_the_same(loaded: &Loaded, input: &Input, files: &Files) -> Result<(), String> {
    let shown = loaded.show();
    let file = files.write("shown.toml", shown.as_bytes()).map_err(|error| error.to_string())?;
    // What is not set anywhere depends on the environment.
    let base = input
        .environment
        .iter()
        .filter(|(name, _)| !name.starts_with(b"NYX_") && !name.starts_with(b"OTEL_"));
    let base =
        base.map(|(name, value)| (OsString::from_vec(name.clone()), OsString::from_vec(value.clone())));
    let again = Config::load(std::slice::from_ref(&file.path), &Environment::new(base, false));
    let again = again.map_err(|problems| format!("what is shown is refused: {problems}\n{shown}"))?;
    let (one, other) = (veiled(loaded.config.clone()), veiled(again));
    ensure!(one == other, "what is shown means\n{other:?}\nnot\n{one:?}");
    Ok(())
}

/// Without the values of headers, and with pairs in an order of their own: a table has none.
fn veiled(mut config: Config) -> Config {
    config.telemetry.resource.sort_unstable();
    for destination in &mut config.export {
        destination.headers.iter_mut().for_each(|(_, value)| value.clear());
        destination.headers.sort_unstable();
    }
    config
}

/// Whether a problem names the line, the variable or the flag that it is about, or a key that is missing.
fn is_placed(problem: &str, input: &Input, dir: &Path) -> bool {
    let file = |name: &str| format!("file {}", dir.join(name).display());
    let in_file = ["nyx.toml", "planted.toml"].iter().any(|name| {
        let name = file(name);
        problem.contains(&format!("{name}, line ")) || problem.contains(&format!("{name}: "))
    });
    let names =
        ["NYX__EXPORT__BY-VARIABLE__ENDPOINT", "NYX__EXPORT__BY-VARIABLE__HEADERS"].map(str::to_owned);
    let own = input.environment.iter().filter_map(|(name, _)| String::from_utf8(name.clone()).ok());
    let mut variables = names.into_iter().chain(own);
    let mut flags = input.flags();
    in_file
        || variables.any(|name| problem.contains(&format!("variable {}", beginning(&name))))
        || flags.iter_mut().any(|(key, _)| problem.contains(&format!("flag --set {}", beginning(key))))
        || problem.contains(" must be set")
        || problem.starts_with("and ") && problem.ends_with("more problems")
        || problem == "and 1 more problem"
}

fn beginning(name: &str) -> &str {
    name.char_indices().nth(SHOWN).and_then(|(end, _)| name.get(..end)).unwrap_or(name)
}

/// What a problem is about, in a word.
fn kind(problem: &str) -> &'static str {
    const WORDS: [(&str, &str); 12] = [
        ("is not TOML", "no toml"),
        ("cannot be read", "unreadable"),
        ("unknown key", "unknown key"),
        ("unknown table", "unknown table"),
        ("must be set", "missing"),
        ("must not be above", "contradiction"),
        ("must not be the address of", "clash"),
        ("must not be where this daemon", "own door"),
        ("must be a table", "no table"),
        ("must be UTF-8", "not utf-8"),
        ("must be a whole number", "number"),
        ("headers", "headers"),
    ];
    WORDS.iter().find(|(part, _)| problem.contains(part)).map_or("rule", |(_, word)| word)
}

fn around<'t>(text: &'t str, secret: &str) -> &'t str {
    text.lines().find(|line| line.contains(secret)).unwrap_or_default()
}
