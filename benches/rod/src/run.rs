//! The runner: each program in turn, several times in one run, between the same load and the same sink.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::log_folder::LogFolder;
use crate::process::{Program, Usage, json_page, own_usage};
use crate::protocol::Protocol;
use crate::sink::{self, Faults, lock};
use crate::subject::{Durability, Subject, nyx_environment, rotel_arguments};
use crate::tally::{Tally, seconds};
use crate::written::{LogCounts, Written};
use crate::{ledger, load, tally};

const READY_LIMIT: Duration = Duration::from_secs(20);
/// The sink has the warm-up's spans so long after the last is acknowledged, or the trial ends there.
const WARM_UP_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// A program rests so long before its idle memory is read.
const REST: Duration = Duration::from_secs(2);
/// Duplicates may come this long after the last span.
const LINGER: Duration = Duration::from_millis(500);
const ARRIVAL_POLL: Duration = Duration::from_millis(2);
const LEDGER_LIMIT: Duration = Duration::from_secs(5);
const LEDGER_POLL: Duration = Duration::from_millis(50);

/// What all trials of one run share.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Of the load; exports are gRPC.
    pub(crate) protocol: Protocol,
    pub(crate) spans: u64,
    pub(crate) warm_up: u64,
    pub(crate) per_request: u64,
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    pub(crate) rate: Option<f64>,
    /// The bound on the load and on the wait for the sink, each.
    pub(crate) limit: Duration,
    pub(crate) folder: PathBuf,
    /// Where the daemons' logs are, each in a folder of its own.
    pub(crate) log_base: PathBuf,
}

/// One trial's figures.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Trial {
    pub(crate) subject: &'static str,
    /// None when there is no program between load and sink.
    pub(crate) cpu_s_per_million: Option<f64>,
    /// Load generator and sink together.
    pub(crate) rod_cpu_s_per_million: f64,
    /// From the first sending to the last arrival.
    pub(crate) spans_per_s: f64,
    pub(crate) ack_ms: load::Quantiles,
    pub(crate) idle_mb: Option<f64>,
    pub(crate) peak_mb: Option<f64>,
    /// Spans in a request at the sink, on average.
    pub(crate) spans_per_export: f64,
    /// The part of the exports that came compressed.
    pub(crate) exports_compressed: f64,
    /// Over the trial; none when there is no program.
    pub(crate) written: Option<Written>,
    pub(crate) load: load::Report,
    pub(crate) sink: tally::Report,
    /// Where the daemon's own ledger disagrees, or that it cannot be read; none for programs without a ledger.
    pub(crate) ledger_faults: Option<Vec<String>>,
}

impl Trial {
    /// Whether nothing was lost, repeated, altered or miscounted.
    pub(crate) fn is_exact(&self) -> bool {
        let lost = self.load.given_up + self.load.rejected;
        lost == 0 && self.sink.is_exact() && self.ledger_faults.as_ref().is_none_or(Vec::is_empty)
    }

    /// What the kernel counted as dirtied for a byte that was sent.
    pub(crate) fn dirtied_per_byte(&self) -> Option<f64> {
        let dirtied = self.written?.kernel?.write_bytes;
        Some(dirtied as f64 / self.load.bytes.max(1) as f64)
    }
}

/// A sink on a thread and a runtime of its own, which end when this is dropped.
pub(crate) struct SinkThread {
    pub(crate) address: SocketAddr,
    pub(crate) tally: Arc<Mutex<Tally>>,
    thread: Option<std::thread::JoinHandle<()>>,
    stop: Option<oneshot::Sender<()>>,
}

impl SinkThread {
    pub(crate) async fn start(run: u32, capacity: u64) -> Result<Self, String> {
        let listener = sink::bind((Ipv4Addr::LOCALHOST, 0).into()).await?;
        let address = listener.local_addr().map_err(|why| why.to_string())?;
        let listener = listener.into_std().map_err(|why| why.to_string())?;
        let capacity_len = usize::try_from(capacity).map_err(|_| "too many spans".to_owned())?;
        let tally = Arc::new(Mutex::new(Tally::new(run, capacity_len)));
        let (stop, stopped) = oneshot::channel();
        let shared = tally.clone();
        let runtime = crate::runtime()?;
        let thread = std::thread::Builder::new()
            .name("sink".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    let Ok(listener) = TcpListener::from_std(listener) else { return };
                    tokio::select! {
                        () = sink::serve(listener, shared, Faults::default(), capacity) => {}
                        _ = stopped => {}
                    }
                });
            })
            .map_err(|why| format!("cannot start the sink's thread: {why}"))?;
        Ok(Self { address, tally, thread: Some(thread), stop: Some(stop) })
    }

    /// Waits until `distinct` spans have come: when the last did, or none after `limit`.
    pub(crate) async fn arrival_of(&self, distinct: u64, limit: Duration) -> Option<Instant> {
        let until = Instant::now() + limit;
        loop {
            {
                let tally = lock(&self.tally);
                if tally.distinct() >= distinct {
                    return tally.last_arrival();
                }
            }
            if Instant::now() >= until {
                return None;
            }
            sleep(ARRIVAL_POLL).await;
        }
    }
}

impl Drop for SinkThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Measures `subject` once.
///
/// # Errors
/// When the program cannot be started, does not become ready, or ends during the trial. Lost or altered spans are no
/// error but a figure of the trial.
pub(crate) async fn trial(subject: &Subject, settings: &Settings, run: u32) -> Result<Trial, String> {
    let total = settings.warm_up + settings.spans;
    let sink = SinkThread::start(run, total).await?;
    let mut running = Running::start(subject, settings, sink.address, run).await?;
    let idle = running.settle().await?;

    let plan = load::Plan {
        target: running.door,
        protocol: settings.protocol,
        run,
        first: 0,
        spans: settings.warm_up,
        per_request: settings.per_request,
        connections: settings.connections,
        in_flight: settings.in_flight,
        rate: settings.rate,
        limit: settings.limit,
    };
    load::run(plan).await;
    if sink.arrival_of(settings.warm_up, WARM_UP_LIMIT).await.is_none() {
        let arrived = lock(&sink.tally).report(settings.warm_up);
        return Err(format!("{}: the warm-up did not reach the sink: {arrived:?}", subject.name()));
    }
    let requests_before = lock(&sink.tally).requests_seen();
    let written_before = running.written().await;
    let before = running.usage()?;
    let rod_before = own_usage();
    let started = Instant::now();
    let sent = load::run(load::Plan { first: settings.warm_up, spans: settings.spans, ..plan }).await;
    let last = sink.arrival_of(total, settings.limit).await.unwrap_or_else(Instant::now);
    let after = running.usage()?;
    let rod_after = own_usage();
    sleep(LINGER).await;
    let ledger_faults = running.ledger_faults(total).await;
    let written = running.written().await.zip(written_before).map(|(after, before)| after.since(before));
    running.stop().await;

    let millions = settings.spans as f64 / 1e6;
    let report = lock(&sink.tally).report(total);
    let all_requests = report.counts.requests.max(1);
    let exports_compressed = report.counts.compressed as f64 / all_requests as f64;
    let exports = lock(&sink.tally).requests_seen() - requests_before;
    let cpu = |before: Usage, after: Usage| round(seconds_between(before, after) / millions);
    Ok(Trial {
        subject: subject.name(),
        cpu_s_per_million: before.zip(after).map(|(before, after)| cpu(before, after)),
        rod_cpu_s_per_million: cpu(rod_before, rod_after),
        spans_per_s: (settings.spans as f64 / seconds(last.duration_since(started)).max(1e-6)).round(),
        ack_ms: sent.ack_ms,
        idle_mb: idle.map(|usage| round(usage.resident_mb)),
        peak_mb: after.map(|usage| round(usage.resident_peak_mb)),
        spans_per_export: (settings.spans as f64 / exports.max(1) as f64).round(),
        exports_compressed: round(exports_compressed),
        written,
        load: sent,
        sink: report,
        ledger_faults,
    })
}

fn seconds_between(before: Usage, after: Usage) -> f64 {
    after.cpu_s - before.cpu_s
}

pub(crate) fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// The program under measurement, if there is one, and the address that the load goes to.
pub(crate) struct Running {
    pub(crate) program: Option<Program>,
    pub(crate) door: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
    /// What its log is to keep, for programs that have one.
    durability: Option<Durability>,
    /// Behind the program: removed when that has ended.
    _log: Option<LogFolder>,
}

impl Running {
    pub(crate) async fn start(
        subject: &Subject,
        settings: &Settings,
        sink: SocketAddr,
        run: u32,
    ) -> Result<Self, String> {
        let mut running = Self { program: None, door: sink, admin: None, durability: None, _log: None };
        let (path, arguments, environment) = match subject {
            Subject::Direct => return Ok(running),
            Subject::Nyx(nyx) => {
                let (door, admin) = (free_address().await?, free_address().await?);
                let log = LogFolder::fresh(&settings.log_base, run)?;
                let mut environment =
                    nyx_environment(settings.protocol, door, admin, sink, nyx.durability, log.path());
                environment.extend_from_slice(&nyx.environment);
                let durability = Some(nyx.durability);
                running = Self { program: None, door, admin: Some(admin), durability, _log: Some(log) };
                (&nyx.path, Vec::new(), environment)
            }
            Subject::Rotel(path, further) => {
                let (grpc, http) = (free_address().await?, free_address().await?);
                running.door = match settings.protocol {
                    Protocol::Grpc => grpc,
                    Protocol::HttpProtobuf | Protocol::HttpJson => http,
                };
                (path, rotel_arguments(grpc, http, sink, further), Vec::new())
            }
        };
        let fault = |why| format!("{}: {why}", path.display());
        let log = settings.folder.join(format!("{}-{run}.log", subject.name()));
        let mut program =
            Program::start(path, &arguments, &environment, &settings.folder, log).map_err(fault)?;
        program.ready(running.door, READY_LIMIT).await.map_err(fault)?;
        running.program = Some(program);
        Ok(running)
    }

    pub(crate) async fn settle(&self) -> Result<Option<Usage>, String> {
        if self.program.is_some() {
            sleep(REST).await;
        }
        self.usage()
    }

    pub(crate) fn usage(&self) -> Result<Option<Usage>, String> {
        self.program.as_ref().map(Program::usage).transpose()
    }

    /// What it has written so far; none when there is no program.
    pub(crate) async fn written(&self) -> Option<Written> {
        let kernel = self.program.as_ref()?.io();
        let log = match self.admin {
            Some(admin) => json_page(admin, "/stats").await.as_ref().and_then(LogCounts::of),
            None => None,
        };
        Some(Written { log, kernel })
    }

    // The last acknowledgements may reach the daemon's ledger after the last span reached the sink. A daemon
    // that ought to have the page and does not show it is at fault too.
    async fn ledger_faults(&self, sent: u64) -> Option<Vec<String>> {
        let (admin, durability) = self.admin.zip(self.durability)?;
        let until = Instant::now() + LEDGER_LIMIT;
        loop {
            let faults = match json_page(admin, "/stats").await {
                Some(page) => ledger::disagreements(&page, sent, durability),
                None => vec![format!("http://{admin}/stats does not answer with a page of JSON")],
            };
            if faults.is_empty() || Instant::now() >= until {
                return Some(faults);
            }
            sleep(LEDGER_POLL).await;
        }
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(program) = self.program.take() {
            program.stop(STOP_LIMIT).await;
        }
    }
}

/// An address that was free a moment ago.
async fn free_address() -> Result<SocketAddr, String> {
    let listener = sink::bind((Ipv4Addr::LOCALHOST, 0).into()).await?;
    listener.local_addr().map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runner_measures_the_direct_way_from_load_to_sink() {
        let settings = Settings {
            protocol: Protocol::Grpc,
            spans: 2_000,
            warm_up: 500,
            per_request: 100,
            connections: 2,
            in_flight: 2,
            rate: None,
            limit: Duration::from_secs(60),
            folder: std::env::temp_dir(),
            log_base: std::env::temp_dir(),
        };
        let trial = crate::runtime().unwrap().block_on(trial(&Subject::Direct, &settings, 5)).unwrap();
        assert!(trial.is_exact(), "{trial:?}");
        assert_eq!((trial.sink.expected, trial.load.acknowledged), (2_500, 2_000));
        assert_eq!(trial.cpu_s_per_million, None);
    }

    #[test]
    fn a_ledger_that_cannot_be_read_is_a_fault() {
        let faults = crate::runtime().unwrap().block_on(async {
            tokio::time::pause();
            let nowhere = free_address().await.unwrap();
            let running = Running {
                program: None,
                door: nowhere,
                admin: Some(nowhere),
                durability: Some(Durability::Process),
                _log: None,
            };
            (
                running.ledger_faults(1).await,
                format!("http://{nowhere}/stats does not answer with a page of JSON"),
            )
        });
        assert_eq!(faults.0, Some(vec![faults.1]));
    }
}
