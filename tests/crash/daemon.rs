//! The daemon's own program as a process, and what its pages say.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{
    http::{Samples, get_blocking},
    sink::Sink,
};

/// Nothing here waits longer without progress.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(5);

/// Waits for a condition that no event announces.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    until_no_progress(what, || ((), holds()));
}

/// Waits for a condition, for as long as what goes with it changes.
pub(crate) fn until_no_progress<P: PartialEq>(what: &str, mut look: impl FnMut() -> (P, bool)) {
    let mut last = None;
    let mut since = tokio::time::Instant::now();
    loop {
        let (progress, holds) = look();
        if holds {
            return;
        }
        if last.as_ref() != Some(&progress) {
            (last, since) = (Some(progress), tokio::time::Instant::now());
        }
        assert!(since.elapsed() < LIMIT, "waited {LIMIT:?} in vain: {what}");
        thread::park_timeout(LOOK);
    }
}

/// A folder of a test, short enough for sockets. It stays if the test fails.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        Self::under(&std::env::temp_dir(), name)
    }

    /// The same on the file system of the build, where there is more room.
    pub(crate) fn roomy(name: &str) -> Self {
        Self::under(Path::new(env!("CARGO_TARGET_TMPDIR")), name)
    }

    fn under(parent: &Path, name: &str) -> Self {
        let place = parent.join(format!("nyx-{name}-{}", std::process::id()));
        fs::create_dir_all(&place).unwrap();
        Self(place)
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn unix(&self, name: &str) -> String {
        format!("unix:{}", self.at(name).display())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("what the test leaves is in {}", self.0.display());
        } else {
            let _in_use = fs::remove_dir_all(&self.0);
        }
    }
}

/// What a daemon is told.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// `log.durability`.
    pub(crate) durability: &'static str,
    /// Further lines of `[log]`.
    pub(crate) log: String,
    pub(crate) log_dir: PathBuf,
    /// `ingest.grpc.listen` and `telemetry.prometheus_addr`.
    pub(crate) door: String,
    pub(crate) pages: String,
    /// Name, endpoint: the first is "default".
    pub(crate) destinations: Vec<(String, String)>,
    /// `concurrency` and `batch.max_spans` of each.
    pub(crate) concurrency: u64,
    pub(crate) max_spans: u64,
    /// Lines of `[shutdown]`.
    pub(crate) shutdown: String,
}

impl Settings {
    pub(crate) fn new(place: &Place, durability: &'static str, sinks: &[(&str, &Sink)]) -> Self {
        let destinations = sinks.iter().map(|(name, sink)| ((*name).to_owned(), sink.endpoint())).collect();
        Self {
            durability,
            log: String::new(),
            log_dir: place.at("log"),
            door: place.unix("door.sock"),
            pages: "127.0.0.1:0".to_owned(),
            destinations,
            concurrency: 2,
            max_spans: 64,
            shutdown: "timeout = \"10s\"".to_owned(),
        }
    }

    /// Spans that a crash makes a destination see again, at most.
    pub(crate) fn repeated_by_a_crash(&self) -> u64 {
        self.concurrency * self.max_spans
    }

    fn text(&self) -> String {
        let Self { durability, log, log_dir, door, pages, destinations, shutdown, .. } = self;
        let log_dir = log_dir.display();
        let (concurrency, max_spans) = (self.concurrency, self.max_spans);
        let (_, endpoint) = &destinations[0];
        let mut text = format!(
            "[telemetry]\notlp_endpoint = \"{endpoint}\"\nprometheus_addr = \"{pages}\"\n\
             [ingest.grpc]\nlisten = \"{door}\"\n[ingest.http]\nlisten = \"\"\n\
             [log]\ndurability = \"{durability}\"\ndir = \"{log_dir}\"\n{log}\n\
             [shutdown]\n{shutdown}\n"
        );
        for (at, (name, endpoint)) in destinations.iter().enumerate() {
            let endpoint = if at == 0 { String::new() } else { format!("endpoint = \"{endpoint}\"\n") };
            text += &format!(
                "[export.{name}]\n{endpoint}concurrency = {concurrency}\n\
                 batch = {{ min_spans = {}, max_spans = {max_spans}, max_delay = \"5ms\" }}\n\
                 retry = {{ initial = \"5ms\", max = \"50ms\" }}\n",
                max_spans / 4
            );
        }
        text
    }
}

/// A daemon, from its start on; killed if the test ends before it does.
pub(crate) struct Daemon {
    process: Child,
    lines: Receiver<Value>,
    seen: Vec<Value>,
    pages: Option<SocketAddr>,
}

impl Daemon {
    /// Starts it, by way of another program where `through` names one. It is not ready yet.
    pub(crate) fn spawn(place: &Place, settings: &Settings, through: &[String]) -> Self {
        let file = place.at("nyx.toml");
        fs::write(&file, settings.text()).unwrap();
        let daemon = env!("CARGO_BIN_EXE_nyx-daemon").to_owned();
        let run = ["run".to_owned(), "--config".to_owned(), file.display().to_string()];
        let words: Vec<String> = through.iter().cloned().chain([daemon]).chain(run).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().envs(std::env::var("PATH").map(|path| ("PATH", path)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let (tell, lines) = channel();
        let stderr = BufReader::new(process.stderr.take().unwrap());
        thread::spawn(move || {
            for text in stderr.lines().map_while(Result::ok) {
                // A killed process may leave half a line.
                let line = serde_json::from_str(&text).unwrap_or(Value::String(text));
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Self { process, lines, seen: vec![], pages: None }
    }

    /// Waits until it is ready.
    pub(crate) fn ready(&mut self) {
        let ready = self.line("ready", |line| line["message"] == "ready" && line["pages"].is_string());
        self.pages = Some(ready["pages"].as_str().unwrap().parse().unwrap());
    }

    /// Waits for a log line.
    pub(crate) fn line(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            if let Some(line) = self.seen.iter().find(|line| is_it(line)) {
                return line.clone();
            }
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) => self.seen.push(line),
                Err(error) => panic!("no line {what}: {error}, but {:#?}", self.seen),
            }
        }
    }

    /// Whether it said so by now.
    pub(crate) fn has_said(&mut self, is_it: impl Fn(&Value) -> bool) -> bool {
        self.seen.extend(self.lines.try_iter());
        self.seen.iter().any(is_it)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        get_blocking(self.pages.unwrap(), path, None).json()
    }

    /// Waits until the span metrics are on the page again: until they count everything that the log held at the
    /// start, they are on none.
    pub(crate) fn restored(&self) {
        until_no_progress("the span metrics are restored", || {
            let restoring = self.trouble("span metrics are being restored");
            (restoring.clone(), restoring.is_none())
        });
    }

    /// The first reason of `/health` that has these words.
    pub(crate) fn trouble(&self, words: &str) -> Option<String> {
        let health = self.get("/health");
        let reasons = health["reasons"].as_array().unwrap().iter().map(|reason| reason.as_str().unwrap());
        reasons.filter(|reason| reason.contains(words)).map(str::to_owned).next()
    }

    /// What its pages show.
    pub(crate) fn see(&self) -> Seen {
        let open_metrics = Some("application/openmetrics-text");
        let page = get_blocking(self.pages.unwrap(), "/metrics", open_metrics).body;
        Seen::new(self.get("/stats"), &Samples::parse(&page))
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
    }

    /// Kills it where it stands: what it said.
    pub(crate) fn kill(mut self) -> Vec<Value> {
        self.process.kill().unwrap();
        self.end().1
    }

    /// Waits for its end: how that was, and what it said.
    pub(crate) fn end(mut self) -> (ExitStatus, Vec<Value>) {
        while let Ok(line) = self.lines.recv_timeout(LIMIT) {
            self.seen.push(line);
        }
        (self.process.wait().unwrap(), std::mem::take(&mut self.seen))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
        if thread::panicking() {
            self.seen.extend(self.lines.try_iter());
            for line in &self.seen {
                eprintln!("the daemon said {line}");
            }
        }
    }
}

/// The pages of a daemon at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) stats: Value,
    /// `nyx_span_count`, by the labels.
    pub(crate) counts: BTreeMap<String, f64>,
    /// When each of them was created.
    pub(crate) created: BTreeMap<String, f64>,
}

impl Seen {
    fn new(stats: Value, samples: &Samples) -> Self {
        let of = |wanted: &str| {
            let found = samples.0.iter().filter(|((name, _), _)| name == wanted);
            found.map(|((_, labels), value)| (labels.clone(), *value)).collect()
        };
        Self { stats, counts: of("nyx_span_count_total"), created: of("nyx_span_count_created") }
    }

    /// Spans counted.
    pub(crate) fn counted(&self) -> u64 {
        self.counts.values().sum::<f64>() as u64
    }

    pub(crate) fn log(&self, key: &str) -> u64 {
        self.stats["log"][key].as_u64().unwrap()
    }

    pub(crate) fn destination(&self, name: &str, key: &str) -> u64 {
        self.stats["destinations"][name][key].as_u64().unwrap()
    }
}
