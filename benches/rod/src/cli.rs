//! The command line: `sink`, `load`, `run`, `hold`, `scale` and `idle`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::log_folder::Mount;
use crate::programs::{nyx_path, rotel_path, work_folder};
use crate::protocol::Protocol;
use crate::report::Summary;
use crate::run::{self, Settings};
use crate::sink::{self, Faults, lock};
use crate::spans::{RUN_MAX, SEQUENCE_MAX};
use crate::subject::{Durability, Nyx, Subject};
use crate::tally::Tally;
use crate::{hold, idle, interrupted, load, log_folder, process, scale};

/// A sink's memory is a byte a span number.
const CAPACITY_MAX: u64 = 200_000_000;
/// An address has about 28,000 ports for outgoing connections.
const CONNECTIONS_MAX: i64 = 25_000;
/// Spans that are sent while the connections are idle, or before a daemon is.
const FEW_SPANS: u64 = 2_048;
const _: () = assert!(CAPACITY_MAX < SEQUENCE_MAX);

/// Load generator, counting sink and runner for telemetry daemons.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Receives OTLP/gRPC, checks every numbered span, prints a JSON report at its end (SIGINT, SIGTERM, --exit-at);
    /// the report so far is at GET /report (HTTP/2 with prior knowledge).
    Sink(SinkOptions),
    /// Sends numbered spans until all are acknowledged, then prints a JSON report.
    Load(LoadOptions),
    /// Measures nyx and Rotel in turn between load and sink; prints a Markdown table and writes JSON.
    Run(RunOptions),
    /// Holds idle HTTP/2 connections until the server ends them, then prints a JSON report.
    Hold(HoldOptions),
    /// Measures nyx with many idle connections, held by a process of their own; prints JSON. Ends with 0 only if the
    /// daemon worked meanwhile, ended every connection in order and exited with 0.
    Scale(ScaleOptions),
    /// Measures what nyx takes without traffic, after it has had a little; prints JSON. Costs are not judged.
    Idle(IdleOptions),
}

/// nyx-daemon, and its log.
#[derive(Debug, Args)]
pub(crate) struct NyxOptions {
    /// nyx-daemon's binary; auto builds it in release form.
    #[arg(long, default_value = "auto")]
    nyx: String,
    /// What the log of nyx keeps (log.durability): each form is measured by itself, in turn with the others.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["process"])]
    durability: Vec<Durability>,
    /// Where the logs go, in a fresh folder for each trial, removed after it; by default target/rod, unless that is in
    /// memory (tmpfs).
    #[arg(long)]
    log_dir: Option<PathBuf>,
    /// A further setting of nyx's, as --nyx-env NYX__SECTION__KEY=value; may be repeated.
    #[arg(long, value_parser = setting)]
    nyx_env: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(crate) struct IdleOptions {
    #[command(flatten)]
    nyx: NyxOptions,
    /// How long each is watched, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
}

#[derive(Debug, Args)]
pub(crate) struct HoldOptions {
    /// Where to connect, as http://host:port.
    #[arg(long)]
    target: String,
    /// How many connections.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    connections: u32,
    /// Connections are given up after this many seconds, from the start.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
}

#[derive(Debug, Args)]
pub(crate) struct ScaleOptions {
    /// How many connections.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    connections: u32,
    /// How long they are idle before anything is asked of the daemon, in seconds.
    #[arg(long, default_value_t = 65, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    idle_seconds: u64,
    /// nyx-daemon's binary; auto builds it in release form.
    #[arg(long, default_value = "auto")]
    nyx: String,
    /// A further setting of nyx's, as --nyx-env NYX__SECTION__KEY=value; may be repeated.
    #[arg(long, value_parser = setting)]
    nyx_env: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(crate) struct SinkOptions {
    /// The address to listen on; port 0 takes a free one, which is named on the error output.
    #[arg(long, default_value = "127.0.0.1:14999")]
    listen: SocketAddr,
    /// The run whose spans are expected: as given to the load generator.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=i64::from(RUN_MAX)))]
    run_id: u32,
    /// How many spans are expected, numbered from 0.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..=CAPACITY_MAX))]
    expect: u64,
    /// Every answer waits this many milliseconds.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Refuse requests with this gRPC status; 0 answers in earnest.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=16))]
    status: u32,
    /// Refuse only so many requests with --status, from the first; 0: all.
    #[arg(long, default_value_t = 0)]
    status_first: u64,
    /// Die at this request, counted from 1, without counting or answering it; 0: never.
    #[arg(long, default_value_t = 0)]
    exit_at: u64,
}

#[derive(Debug, Args)]
pub(crate) struct LoadOptions {
    /// Where to send, as http://host:port.
    #[arg(long)]
    target: String,
    #[command(flatten)]
    shape: Shape,
    /// How many spans to send.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..=CAPACITY_MAX))]
    spans: u64,
    /// The number of the first span.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=CAPACITY_MAX))]
    first: u64,
    /// The run that the spans belong to: as given to the sink.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=i64::from(RUN_MAX)))]
    run_id: u32,
}

/// The shape of the load.
#[derive(Debug, Args)]
pub(crate) struct Shape {
    /// How the load is sent.
    #[arg(long, value_enum, default_value = "grpc")]
    protocol: Protocol,
    /// Spans in a request.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    per_request: u64,
    /// Connections.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    connections: u16,
    /// Requests in flight on each connection; over HTTP/1.1, which carries one at a time, so many times the connections.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=100))]
    in_flight: u16,
    /// Spans a second; left out, the load is as fast as it is acknowledged.
    #[arg(long)]
    rate: Option<f64>,
    /// The load, and the wait for what it sent, each end after this many seconds.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    max_seconds: u64,
}

#[derive(Debug, Args)]
pub(crate) struct RunOptions {
    /// How often each program (and each form of the log) is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pairs: u32,
    /// Spans of each trial, after the warm-up.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..=CAPACITY_MAX / 2))]
    spans: u64,
    /// Spans sent before each trial's measurement; counted and checked like the others.
    #[arg(long, default_value_t = 204_800, value_parser = clap::value_parser!(u64).range(1..=CAPACITY_MAX / 2))]
    warm_up: u64,
    #[command(flatten)]
    shape: Shape,
    /// What to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["nyx", "rotel"])]
    programs: Vec<Which>,
    /// No program at all, load straight to sink: what the rod itself costs and can do.
    #[arg(long)]
    direct: bool,
    #[command(flatten)]
    nyx: NyxOptions,
    /// Rotel's binary; auto takes the one that install-rotel.sh installs from PyPI.
    #[arg(long, default_value = "auto")]
    rotel: String,
    /// A further argument of Rotel's, as --rotel-arg=--batch-max-size=512; may be repeated.
    #[arg(long, allow_hyphen_values = true)]
    rotel_arg: Vec<String>,
    /// Where the JSON goes; by default target/rod/last.json.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Nyx,
    Rotel,
}

pub(crate) async fn execute(command: Command) -> Result<ExitCode, String> {
    match command {
        Command::Sink(options) => sink(&options).await,
        Command::Load(options) => {
            let sent = tokio::select! {
                sent = load(&options) => sent?,
                stopped = interrupted() => return stopped.map(|()| ExitCode::from(130)),
            };
            print_json(&sent)?;
            Ok(exit(sent.given_up + sent.rejected == 0))
        }
        Command::Run(options) => {
            let (subjects, settings) = prepare(&options)?;
            tokio::select! {
                done = run(&options, &subjects, &settings) => done,
                stopped = interrupted() => stopped.map(|()| ExitCode::from(130)),
            }
        }
        Command::Hold(options) => hold(&options).await,
        Command::Scale(options) => {
            tokio::select! {
                done = scale(&options) => done,
                stopped = interrupted() => stopped.map(|()| ExitCode::from(130)),
            }
        }
        Command::Idle(options) => {
            tokio::select! {
                done = idle(&options) => done,
                stopped = interrupted() => stopped.map(|()| ExitCode::from(130)),
            }
        }
    }
}

async fn hold(options: &HoldOptions) -> Result<ExitCode, String> {
    let connections = options.connections as usize;
    hold::raise_open_files(connections)?;
    let limit = Duration::from_secs(options.seconds);
    let report = tokio::select! {
        report = hold::run(hold::Plan { target: resolve(&options.target)?, connections, limit }) => report,
        stopped = interrupted() => return stopped.map(|()| ExitCode::from(130)),
    };
    print_json(&report)?;
    Ok(exit(report.failed + report.cut_off == 0))
}

async fn scale(options: &ScaleOptions) -> Result<ExitCode, String> {
    // Connections cost the same whatever the log keeps.
    let nyx = Subject::Nyx(Nyx {
        path: nyx_path(&options.nyx)?,
        durability: Durability::Memory,
        environment: options.nyx_env.clone(),
    });
    let settings = few_spans(work_folder()?)?;
    let rod = std::env::current_exe().map_err(|why| format!("cannot find this program: {why}"))?;
    let idle = Duration::from_secs(options.idle_seconds);
    let scale = scale::measure(&nyx, &settings, &rod, options.connections as usize, idle).await?;
    print_json(&scale)?;
    Ok(exit(scale.is_good()))
}

async fn idle(options: &IdleOptions) -> Result<ExitCode, String> {
    let settings = few_spans(options.nyx.log_base()?)?;
    let mut figures = Vec::new();
    for subject in options.nyx.subjects()? {
        figures.push(idle::measure(&subject, &settings, Duration::from_secs(options.seconds)).await?);
    }
    print_json(&figures)?;
    Ok(ExitCode::SUCCESS)
}

/// The settings of measurements in which the spans are not what is measured.
fn few_spans(log_base: PathBuf) -> Result<Settings, String> {
    Ok(Settings {
        protocol: Protocol::Grpc,
        spans: FEW_SPANS,
        warm_up: 0,
        per_request: 512,
        connections: 1,
        in_flight: 1,
        rate: None,
        limit: Duration::from_secs(30),
        folder: work_folder()?,
        log_base,
    })
}

impl NyxOptions {
    /// Each form of the log that is asked for, once.
    fn subjects(&self) -> Result<Vec<Subject>, String> {
        let path = nyx_path(&self.nyx)?;
        let mut subjects = Vec::new();
        for (index, durability) in self.durability.iter().copied().enumerate() {
            if !self.durability.iter().take(index).any(|before| *before == durability) {
                let (path, environment) = (path.clone(), self.nyx_env.clone());
                subjects.push(Subject::Nyx(Nyx { path, durability, environment }));
            }
        }
        Ok(subjects)
    }

    /// Where the logs go: not into memory unless told to.
    fn log_base(&self) -> Result<PathBuf, String> {
        let on_disk = self.durability.iter().any(|durability| *durability != Durability::Memory);
        let base = self.log_dir.clone().map_or_else(work_folder, Ok)?;
        let base =
            std::fs::canonicalize(&base).map_err(|why| format!("cannot find {}: {why}", base.display()))?;
        match Mount::of(&base)? {
            mount if on_disk && mount.is_in_memory() && self.log_dir.is_none() => {
                let (base, kind) = (base.display(), mount.kind);
                Err(format!("{base} is on {kind}, which keeps nothing: name a folder with --log-dir"))
            }
            _ => Ok(base),
        }
    }
}

async fn sink(options: &SinkOptions) -> Result<ExitCode, String> {
    let listener = sink::bind(options.listen).await?;
    let address = listener.local_addr().map_err(|why| why.to_string())?;
    let capacity = usize::try_from(options.expect).map_err(|why| why.to_string())?;
    let tally = Arc::new(Mutex::new(Tally::new(options.run_id, capacity)));
    let faults = Faults {
        delay: Duration::from_millis(options.delay_ms),
        status: options.status,
        status_first: options.status_first,
        exit_at: options.exit_at,
    };
    say(&format!("listening on {address}"));
    tokio::select! {
        () = sink::serve(listener, tally.clone(), faults, options.expect) => {}
        stopped = interrupted() => stopped?,
    }
    let report = lock(&tally).report(options.expect);
    print_json(&report)?;
    Ok(exit(report.is_exact()))
}

async fn load(options: &LoadOptions) -> Result<load::Report, String> {
    let shape = &options.shape;
    let plan = load::Plan {
        target: resolve(&options.target)?,
        protocol: shape.protocol,
        run: options.run_id,
        first: options.first,
        spans: options.spans,
        per_request: shape.per_request,
        connections: shape.connections.into(),
        in_flight: shape.in_flight.into(),
        rate: shape.rate()?,
        limit: Duration::from_secs(shape.max_seconds),
    };
    Ok(load::run(plan).await)
}

impl Shape {
    fn rate(&self) -> Result<Option<f64>, String> {
        match self.rate {
            Some(rate) if !(1.0..=1e9).contains(&rate) => {
                Err(format!("rate {rate} is not between 1 and 1000000000 spans a second"))
            }
            rate => Ok(rate),
        }
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is not of the form KEY=value"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// The address of `http://host:port`.
fn resolve(target: &str) -> Result<SocketAddr, String> {
    let fault = |why: String| format!("target {target:?} is not of the form http://host:port: {why}");
    let authority = target.strip_prefix("http://").ok_or_else(|| fault("no http://".to_owned()))?;
    let mut addresses =
        authority.trim_end_matches('/').to_socket_addrs().map_err(|why| fault(why.to_string()))?;
    addresses.next().ok_or_else(|| fault("no address".to_owned()))
}

fn prepare(options: &RunOptions) -> Result<(Vec<Subject>, Settings), String> {
    let folder = work_folder()?;
    let shape = &options.shape;
    let has_nyx = !options.direct && options.programs.contains(&Which::Nyx);
    let settings = Settings {
        protocol: shape.protocol,
        spans: options.spans,
        warm_up: options.warm_up,
        per_request: shape.per_request,
        connections: shape.connections.into(),
        in_flight: shape.in_flight.into(),
        rate: shape.rate()?,
        limit: Duration::from_secs(shape.max_seconds),
        log_base: if has_nyx { options.nyx.log_base()? } else { folder.clone() },
        folder,
    };
    if options.direct {
        if shape.protocol != Protocol::Grpc {
            return Err("the sink takes gRPC alone: --direct goes with --protocol grpc".to_owned());
        }
        return Ok((vec![Subject::Direct], settings));
    }
    let mut subjects = Vec::new();
    if has_nyx {
        subjects.extend(options.nyx.subjects()?);
    }
    if options.programs.contains(&Which::Rotel) {
        subjects.push(Subject::Rotel(rotel_path(&options.rotel)?, options.rotel_arg.clone()));
    }
    Ok((subjects, settings))
}

async fn run(options: &RunOptions, subjects: &[Subject], settings: &Settings) -> Result<ExitCode, String> {
    let versions: BTreeMap<_, _> = subjects
        .iter()
        .map(|subject| (subject.program(), subject.path().map_or("no program".to_owned(), process::version)))
        .collect();
    let mut trials = Vec::new();
    let work = work(settings, options)?;
    for pair in 0..options.pairs {
        // Each goes first in its turn, so that a drift of the machine favours none.
        let first = pair as usize % subjects.len().max(1);
        for subject in subjects.iter().cycle().skip(first).take(subjects.len()) {
            let run_id = trials.len() as u32 + 1;
            let trial = run::trial(subject, settings, run_id).await?;
            say(&format!("pair {}: {}", pair + 1, serde_json::to_string(&trial).unwrap_or_default()));
            trials.push(trial);
        }
    }
    let summary = Summary::new(versions, work, trials);
    let path = options.json.clone().unwrap_or_else(|| settings.folder.join("last.json"));
    let json = serde_json::to_vec_pretty(&summary).map_err(|why| why.to_string())?;
    std::fs::write(&path, json).map_err(|why| format!("cannot write {}: {why}", path.display()))?;
    print(&summary.markdown())?;
    Ok(exit(summary.exact))
}

/// The work in words, for the report.
fn work(settings: &Settings, options: &RunOptions) -> Result<String, String> {
    let Settings { spans, warm_up, per_request, connections, in_flight, rate, .. } = settings;
    let protocol = settings.protocol.words();
    let rate = rate.map_or("as fast as acknowledged".to_owned(), |rate| format!("{rate} spans/s"));
    let mut further = String::new();
    if !options.rotel_arg.is_empty() {
        further = format!("; Rotel's further arguments: {}", options.rotel_arg.join(" "));
    }
    for (key, value) in &options.nyx.nyx_env {
        further = format!("{further}; nyx with {key}={value}");
    }
    if !options.direct && options.programs.contains(&Which::Nyx) {
        further = format!("{further}; log.dir on {}", log_folder::describe(&settings.log_base)?);
    }
    Ok(format!(
        "{spans} spans of 350 bytes after {warm_up} to warm up, {per_request} a request, {protocol}, \
         sent without compression, {connections} connections with {in_flight} requests in flight each, {rate}{further}."
    ))
}

fn exit(exact: bool) -> ExitCode {
    if exact { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A line on the error output; whoever reads it may be gone.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|why| format!("cannot print: {why}"))
}

fn print_json(report: &impl serde::Serialize) -> Result<(), String> {
    let text = serde_json::to_string_pretty(report).map_err(|why| why.to_string())?;
    print(&(text + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_target_is_an_http_address() {
        assert_eq!(resolve("http://127.0.0.1:4317/"), Ok(SocketAddr::from(([127, 0, 0, 1], 4317))));
        assert_eq!(
            resolve("127.0.0.1:4317"),
            Err("target \"127.0.0.1:4317\" is not of the form http://host:port: no http://".to_owned())
        );
    }
}
