//! How the process ends: its exit status, and what it says last.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests are tests")]

use std::{
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStderr, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use actix::{Actor, AsyncContext, Context, Running, WrapFuture};
use nyx_daemon::{
    config::{Environment, LogFormat, Shutdown, Tracing},
    logging, run,
    service_manager::ServiceManager,
};
use nyx_telemetry::{
    self_tracing::Tracer,
    supervise::{Backoff, ChildSpec, Intensity},
    tree::{Tree, TreeConfig},
};
use rustix::process::{Pid, Signal, kill_process};
use tracing::level_filters::LevelFilter;

/// Says which end a process of this test is to come to.
const ENDS: &str = "NYX_TEST_ENDS";

/// A process whose log lines are read one by one.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The daemon itself, on free ports.
    fn daemon() -> Self {
        let variables = [
            ("NYX__TELEMETRY__PROMETHEUS_ADDR", "127.0.0.1:0"),
            ("NYX__INGEST__GRPC__LISTEN", "127.0.0.1:0"),
            ("NYX__INGEST__HTTP__LISTEN", "127.0.0.1:0"),
            ("NYX__LOG__DURABILITY", "memory"),
            ("NYX__SHUTDOWN__GRACE", "0s"),
        ];
        let daemon = env!("CARGO_BIN_EXE_nyx-daemon");
        Self::start(Command::new(daemon).arg("run").env_clear().envs(variables))
    }

    /// This test's own program, which runs [`a_process_that_ends_in_its_way`] and nothing else.
    fn that_ends(how: &str) -> Self {
        let program = std::env::current_exe().unwrap();
        let args = ["--exact", "a_process_that_ends_in_its_way", "--nocapture"];
        Self::start(Command::new(program).args(args).env_clear().env(ENDS, how))
    }

    fn until(&mut self, what: &str) {
        let line = self.lines.by_ref().map(Result::unwrap).find(|line| line.contains(what));
        assert!(line.is_some(), "the process ended without saying {what}");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its exit status and the lines that it still said.
    fn end(mut self) -> (Option<i32>, Vec<String>) {
        let lines = self.lines.map(Result::unwrap).collect();
        (self.child.wait().unwrap().code(), lines)
    }
}

fn says(lines: &[String], what: &str) -> bool {
    lines.iter().any(|line| line.contains(what))
}

/// An actor that does not end as it should.
struct Difficult(String);

impl Actor for Difficult {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if self.0 == "escalation" {
            ctx.run_later(Duration::from_millis(1), |_, _| panic!("difficult on purpose"));
        }
    }

    fn stopping(&mut self, ctx: &mut Self::Context) -> Running {
        match self.0.as_str() {
            // Blocks the supervisor's own thread: nobody ever sends.
            "blocked" => {
                let (_never, nothing) = mpsc::channel::<()>();
                let _for_ever = nothing.recv_timeout(Duration::MAX);
            }
            "slow" => ctx.wait(std::future::pending().into_actor(self)),
            _ => return Running::Stop,
        }
        Running::Continue
    }
}

/// Not a test of its own: the process that the tests start.
#[test]
fn a_process_that_ends_in_its_way() {
    let Ok(how) = std::env::var(ENDS) else { return };
    let tracing = Tracing { level: LevelFilter::DEBUG, format: LogFormat::Text, burst: 50 };
    let logging = logging::install(&tracing, &Environment::of_process()).unwrap();
    if how == "repeats" {
        repeat_itself();
        logging.finish();
        std::process::exit(0);
    }
    let result = actix_rt::System::new().block_on(async {
        let intensity = Intensity { max_restarts: 2, window: Duration::from_secs(60) };
        let mut tree = Tree::define(TreeConfig { intensity, ..TreeConfig::default() });
        let ms = Duration::from_millis(1);
        let backoff = Backoff::new(ms, 1.0, ms, 0.0, Duration::from_secs(60)).unwrap();
        let timeout = Duration::from_millis(if how == "blocked" { 100 } else { 60_000 });
        let spec = ChildSpec::new("difficult").backoff(backoff).stop_deadline(Duration::from_secs(60));
        let mut signals = run::Signals::new().unwrap();
        tree.child(spec, move || Ok(Difficult(how.clone())));
        let tree = tree.start().await.unwrap();
        tracing::info!("all is up");
        let shutdown = Shutdown { timeout, grace: Duration::ZERO };
        let manager = ServiceManager::of(&Environment::of_process());
        run::attend(&tree, &mut signals, None, &shutdown, None, &manager, &Tracer::default()).await
    });
    let status = result.map_or_else(
        |failure| {
            tracing::error!("{failure}");
            i32::from(failure.status)
        },
        |()| 0,
    );
    std::process::exit(status);
}

fn repeat_itself() {
    for number in 0..200 {
        tracing::warn!(number, "something is wrong");
        tracing::info!(target: "other", "something is fine");
    }
}

#[test]
fn a_line_that_repeats_itself_is_cut_off_and_how_often_is_told() {
    let (status, lines) = Process::that_ends("repeats").end();
    assert_eq!(status, Some(0), "{lines:?}");
    let count = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!((count("something is wrong"), count("something is fine")), (50, 50));
    assert_eq!(count("further lines like the last are left out for up to 10 s"), 2);
    let told: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("lines like one before were left out") && line.contains("left_out=150"))
        .collect();
    assert_eq!(told.len(), 2, "{lines:#?}");
    assert!(told.iter().any(|line| line.contains("WARN") && line.contains("place=\"exit:")), "{told:?}");
    assert!(told.iter().any(|line| line.contains("INFO") && line.contains("place=\"other:")), "{told:?}");
}

#[test]
fn an_ordered_stop_exits_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = Process::daemon();
        daemon.until("\"version\":");
        daemon.signal(signal);
        let (status, lines) = daemon.end();
        assert_eq!(status, Some(0), "{lines:?}");
        assert!(says(&lines, "stopping") && says(&lines, "stopped"), "{lines:?}");
    }
}

#[test]
fn an_escalation_stops_the_others_in_order_and_exits_70() {
    let mut process = Process::that_ends("escalation");
    process.until("all is up");
    let (status, lines) = process.end();
    assert_eq!(status, Some(70), "{lines:?}");
    let gave_up =
        "the supervisor gave up: more than 2 restarts within 60s, last of difficult: difficult on purpose";
    assert!(says(&lines, gave_up), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("stopped") && line.contains("collector")), "{lines:?}");
}

#[test]
fn a_child_that_blocks_the_supervisors_own_thread_at_a_shutdown_is_named_and_the_process_exits_70() {
    let mut process = Process::that_ends("blocked");
    process.until("all is up");
    process.signal(Signal::TERM);
    let (status, lines) = process.end();
    assert_eq!(status, Some(70), "{lines:?}");
    let last = lines.last().unwrap();
    assert!(last.contains("the shutdown hangs: ending the process"), "{last}");
    assert!(last.contains("collector") && last.contains("difficult"), "{last}");
}

#[test]
fn a_second_signal_cuts_a_slow_stop_short() {
    let mut process = Process::that_ends("slow");
    process.until("all is up");
    process.signal(Signal::TERM);
    process.until("child=\"difficult\"");
    process.signal(Signal::TERM);
    let (status, lines) = process.end();
    assert_eq!(status, Some(0), "{lines:?}");
    assert!(says(&lines, "stopping at once"), "{lines:?}");
    assert!(lines.last().unwrap().contains("given_up=\"difficult"), "{lines:?}");
}
