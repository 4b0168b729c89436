//! Runs targets: their corpus, then changes to it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashSet},
    fs, io,
    io::Write as _,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    process,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use crate::{Rng, Target, Trace, failure::Failure, mutate};

/// One input may take this much CPU; a thousand times what inputs of this size take without optimisation.
const CPU_MAX_MS: u64 = 10_000;
/// One input may have the process's address space grow so far; inputs have 16 KiB, and a length in
/// them that is believed may be 4 GiB.
const GROWTH_MAX_BYTES: u64 = 512 << 20;
/// How often the watchdog looks.
const LOOK: Duration = Duration::from_millis(500);
/// Inputs that are kept to be changed, besides the corpus.
const POOL_MAX: usize = 2_000;
/// The word of an input that is not worth changing further.
pub(crate) const FAR: &str = "far";
/// The clock is looked at after so many inputs.
const INPUTS_A_LOOK: u64 = 16;

thread_local! {
    /// What the last panic on this thread said.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// How long a target runs once its corpus is done.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// So many seconds.
    Seconds(u64),
    /// So many inputs.
    Runs(u64),
}

/// What a target came to.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Inputs of the corpus.
    pub corpus: usize,
    /// Inputs made of them.
    pub runs: u64,
    /// Wall clock in milliseconds.
    pub millis: u64,
    /// Signatures seen.
    pub signatures: usize,
    /// In how many runs each word was seen.
    pub words: BTreeMap<&'static str, u64>,
}

/// Runs targets, keeping inputs that fail below a folder.
#[derive(Debug)]
pub struct Runner {
    failures: PathBuf,
    running: Arc<Mutex<Running>>,
    /// Ends the watchdog when it is dropped.
    _stop: mpsc::Sender<()>,
}

/// The input that is running.
#[derive(Debug, Default)]
struct Running {
    number: u64,
    target: &'static str,
    input: Vec<u8>,
    idle: bool,
}

impl Runner {
    /// A runner with its watchdog.
    ///
    /// # Errors
    /// Where there can be no thread.
    pub fn new(failures: PathBuf) -> io::Result<Self> {
        let running = Arc::new(Mutex::new(Running { idle: true, ..Running::default() }));
        let (stop, stopped) = mpsc::channel();
        let (watched, dir) = (Arc::clone(&running), failures.clone());
        thread::Builder::new().name("watchdog".to_owned()).spawn(move || watch(&watched, &dir, &stopped))?;
        panic::set_hook(Box::new(|info| PANIC.set(info.to_string())));
        Ok(Self { failures, running, _stop: stop })
    }

    /// Runs a target over a corpus and changes of it.
    ///
    /// # Errors
    /// The input that failed, and how.
    pub fn run(
        &self,
        target: &Target,
        corpus: &[Vec<u8>],
        seed: u64,
        until: Until,
    ) -> Result<Report, (Failure, Vec<u8>)> {
        let mut report = Report { corpus: corpus.len(), ..Report::default() };
        let mut seen = HashSet::new();
        let mut pool = corpus.to_vec();
        for input in corpus {
            let trace = self.one(target, input).map_err(|failure| (failure, input.clone()))?;
            report.note(&trace);
            seen.insert(trace.signature());
        }
        let mut rng = Rng::new(seed);
        let begun = millis(ClockId::Monotonic);
        while match until {
            Until::Runs(runs) => report.runs < runs,
            Until::Seconds(seconds) => {
                !report.runs.is_multiple_of(INPUTS_A_LOOK)
                    || millis(ClockId::Monotonic) < begun + seconds * 1_000
            }
        } {
            report.runs += 1;
            let mut input = rng.pick(&pool).cloned().unwrap_or_default();
            if !rng.one_in(4) {
                mutate::mutate(&mut rng, &mut input, &pool);
            }
            (target.shape)(&mut rng, &mut input);
            let trace = match self.one(target, &input) {
                Ok(trace) => trace,
                Err(failure) => return Err((failure, input)),
            };
            report.note(&trace);
            // One whose numbers no log gets to ends early, and so would its changes.
            if seen.insert(trace.signature()) && !trace.words().contains(&FAR) {
                if pool.len() < corpus.len() + POOL_MAX {
                    pool.push(input);
                } else if let Some(place) = pool.get_mut(corpus.len() + rng.below(POOL_MAX)) {
                    *place = input;
                }
            }
        }
        report.millis = millis(ClockId::Monotonic).saturating_sub(begun);
        report.signatures = seen.len();
        Ok(report)
    }

    /// Runs a target with one input.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn one(&self, target: &Target, input: &[u8]) -> Result<Trace, Failure> {
        {
            let mut running = lock(&self.running);
            running.number += 1;
            running.target = target.name;
            running.idle = false;
            running.input.clear();
            running.input.extend_from_slice(input);
        }
        let (space, cpu) = (address_space_peak(), millis(ClockId::ThreadCPUTime));
        let mut trace = Trace::default();
        let ended = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input, &mut trace)));
        let cpu = millis(ClockId::ThreadCPUTime).saturating_sub(cpu);
        let growth = address_space_peak().saturating_sub(space);
        lock(&self.running).idle = true;
        match ended {
            Err(_) => Err(Failure::Panic(PANIC.take())),
            Ok(Err(why)) => Err(Failure::Broken(why)),
            Ok(Ok(())) if cpu > CPU_MAX_MS => Err(Failure::Slow(cpu)),
            Ok(Ok(())) if growth > GROWTH_MAX_BYTES => Err(Failure::Large(growth)),
            Ok(Ok(())) => Ok(trace),
        }
    }

    /// Keeps an input that failed; returns its path.
    ///
    /// # Errors
    /// The system's.
    pub fn keep(&self, target: &Target, failure: &Failure, input: &[u8]) -> io::Result<PathBuf> {
        keep(&self.failures, target.name, failure.kind(), input)
    }
}

impl Report {
    fn note(&mut self, trace: &Trace) {
        let words: HashSet<_> = trace.words().iter().collect();
        for word in words {
            *self.words.entry(word).or_default() += 1;
        }
    }
}

fn keep(failures: &Path, target: &str, kind: &str, input: &[u8]) -> io::Result<PathBuf> {
    let dir = failures.join(target);
    fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{kind}-{:08x}", crc32fast::hash(input)));
    fs::write(&path, input)?;
    Ok(path)
}

/// Ends the process when one input takes too long: nothing else gets out of an endless loop.
fn watch(running: &Mutex<Running>, failures: &Path, stopped: &mpsc::Receiver<()>) {
    let (mut number, mut since) = (0, 0);
    while stopped.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
        let running = lock(running);
        let cpu = millis(ClockId::ProcessCPUTime);
        if running.idle || running.number != number {
            (number, since) = (running.number, cpu);
        } else if cpu.saturating_sub(since) > CPU_MAX_MS {
            let kept = keep(failures, running.target, "hang", &running.input);
            let mut out = io::stderr().lock();
            let _closed = match kept {
                Ok(path) => writeln!(out, "{}: does not end: {}", running.target, path.display()),
                Err(error) => writeln!(out, "{}: does not end, and cannot be kept: {error}", running.target),
            };
            process::exit(1);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn millis(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    (time.tv_sec * 1_000 + time.tv_nsec / 1_000_000) as u64
}

/// The most address space that the process ever had, in bytes; 0 where the system does not say.
fn address_space_peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    let kib = peak.and_then(|peak| peak.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

/// The corpus of a target, in the order of the files' names.
///
/// # Errors
/// The system's.
pub fn corpus(dir: &Path) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        paths.push(entry?.path());
    }
    paths.sort();
    paths.into_iter().map(|path| fs::read(&path).map(|bytes| (path, bytes))).collect()
}
