//! The daemon as a process of its own.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tonic::transport::Endpoint;

use super::{LIMIT, http::get_blocking, load::client, request};

pub fn command(args: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nyx-daemon"));
    command.args(args).env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("NYX__TELEMETRY__PROMETHEUS_ADDR", "127.0.0.1:0");
    command.env("NYX__INGEST__GRPC__LISTEN", "127.0.0.1:0");
    command.env("NYX__INGEST__HTTP__LISTEN", "127.0.0.1:0");
    // Those that are about the folder and the grace say so.
    command.env("NYX__LOG__DURABILITY", "memory");
    command.env("NYX__SHUTDOWN__GRACE", "0s");
    command.envs(variables.iter().copied());
    command
}

/// A daemon that runs; killed if the test ends before it does.
pub struct Daemon {
    pub process: Child,
    /// Its log lines, as they are written.
    lines: Receiver<Value>,
    seen: Vec<Value>,
    pub door: String,
    pub http: String,
    pub pages: SocketAddr,
}

impl Daemon {
    /// Starts it, and waits until it is ready.
    pub fn start(variables: &[(&str, &str)]) -> Self {
        let mut daemon = Self::begin(variables);
        daemon.ready();
        daemon
    }

    /// Starts it with this command line, and waits until it is ready.
    pub fn configured(args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut daemon = Self::begin_with(args, variables);
        daemon.ready();
        daemon
    }

    /// Starts it.
    pub fn begin(variables: &[(&str, &str)]) -> Self {
        Self::begin_with(&["run"], variables)
    }

    fn begin_with(args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut process = command(args, variables).spawn().unwrap();
        let (line, lines) = channel();
        let stderr = BufReader::new(process.stderr.take().unwrap());
        std::thread::spawn(move || {
            for text in stderr.lines() {
                let text = text.unwrap();
                let parsed = serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"));
                if line.send(parsed).is_err() {
                    return;
                }
            }
        });
        let pages = ([0, 0, 0, 0], 0).into();
        Self { process, lines, seen: vec![], door: String::new(), http: String::new(), pages }
    }

    /// Waits until it is ready.
    pub fn ready(&mut self) {
        let ready = self.line("ready", |line| line["message"] == "ready" && line["pages"].is_string());
        self.door = ready["grpc"].as_str().unwrap().to_owned();
        self.http = ready["http"].as_str().unwrap().to_owned();
        self.pages = ready["pages"].as_str().unwrap().parse().unwrap();
    }

    /// Waits for a log line.
    pub fn line(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        if let Some(line) = self.seen.iter().find(|line| is_it(line)) {
            return line.clone();
        }
        loop {
            let line = self.lines.recv_timeout(LIMIT);
            let line = line.unwrap_or_else(|error| panic!("no line {what}: {error}, but {:?}", self.seen));
            self.seen.push(line.clone());
            if is_it(&line) {
                return line;
            }
        }
    }

    /// Waits for so many log lines: those that there are by then.
    pub fn lines(&mut self, count: usize, is_it: impl Fn(&Value) -> bool) -> Vec<Value> {
        while self.seen.iter().filter(|line| is_it(line)).count() < count {
            let line = self.lines.recv_timeout(LIMIT);
            self.seen
                .push(line.unwrap_or_else(|error| panic!("no more lines: {error}, but {:?}", self.seen)));
        }
        self.seen.iter().filter(|line| is_it(line)).cloned().collect()
    }

    /// Forgets the lines so far: only later ones are found.
    pub fn forget(&mut self) {
        self.seen.clear();
    }

    /// Waits until a page shows it.
    pub fn page(&self, path: &str, shows: impl Fn(&str) -> bool) {
        for _ in 0..3_000 {
            if shows(&get_blocking(self.pages, path, None).body) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        panic!("{path} is {}", get_blocking(self.pages, path, None).body);
    }

    pub fn stats(&self) -> Value {
        get_blocking(self.pages, "/stats", None).json()
    }

    pub fn send(&self, numbers: std::ops::Range<u64>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut client = match self.door.strip_prefix("unix:") {
                Some(_) => {
                    TraceServiceClient::new(Endpoint::from_shared(self.door.clone()).unwrap().connect_lazy())
                }
                None => client(self.door.parse().unwrap()),
            };
            for first in numbers.step_by(50) {
                client.export(request(first..first + 50)).await.unwrap();
            }
        });
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Waits for the end: its status, and all log lines.
    pub fn end(mut self) -> (ExitStatus, Vec<Value>) {
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
    }
}
