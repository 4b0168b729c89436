//! Many idle connections: what they cost the daemon, whether it works meanwhile, and how it stops.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::process::{Program, Usage, json_page, text_page};
use crate::run::{Running, Settings, SinkThread, round};
use crate::sink::lock;
use crate::subject::Subject;
use crate::tally::seconds;
use crate::{hold, load};

/// Connections beyond the held ones: those of the load, and who asks whether the daemon is ready.
const SPARE: usize = 64;
const OPEN_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// The holder outlives the daemon by far, unless something is wrong.
const HOLD_LIMIT_S: u64 = 600;
/// The run that the spans belong to.
const RUN: u32 = 1;

/// The figures.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Scale {
    connections: usize,
    /// Resident before any connection, and with all of them.
    resident_before_mb: f64,
    resident_with_all_mb: f64,
    resident_peak_mb: f64,
    bytes_per_connection: f64,
    /// CPU-seconds of the daemon for opening them all.
    open_cpu_s: f64,
    idle_s: f64,
    /// CPU of the daemon while nothing is asked of it, in percent of one core.
    idle_cpu_percent: f64,
    /// One scrape of `/metrics`, with all connections open.
    scrape_ms: f64,
    /// From the sending of a request to its acknowledgement, with all connections open.
    ack_ms: load::Quantiles,
    /// From SIGTERM to the process' end.
    stop_s: f64,
    /// The process' exit status; none if it did not end by itself.
    exit_status: Option<i32>,
    hold: hold::Report,
    faults: Vec<String>,
}

impl Scale {
    /// Whether everything went as it should; costs are not judged.
    pub(crate) fn is_good(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Holds `connections` to a daemon for `idle`, from a process of their own.
///
/// # Errors
/// Where something cannot be started or read, in words. What the daemon does wrong stands in the figures.
pub(crate) async fn measure(
    subject: &Subject,
    settings: &Settings,
    rod: &Path,
    connections: usize,
    idle: Duration,
) -> Result<Scale, String> {
    let mut subject = subject.clone();
    if let Subject::Nyx(nyx) = &mut subject {
        nyx.environment.push(("NYX__INGEST__MAX_CONNECTIONS".to_owned(), (connections + SPARE).to_string()));
    }
    let sink = SinkThread::start(RUN, settings.spans).await?;
    let mut daemon = Running::start(&subject, settings, sink.address, RUN).await?;
    let before = daemon.settle().await?.ok_or("no daemon to measure")?;

    let log = settings.folder.join("hold.log");
    let arguments = [
        "hold",
        "--target",
        &format!("http://{}", daemon.door),
        "--connections",
        &connections.to_string(),
        "--seconds",
        &HOLD_LIMIT_S.to_string(),
    ]
    .map(str::to_owned);
    let holder = Program::start(rod, &arguments, &[], &settings.folder, log)?;
    wait_for(&daemon, connections).await?;
    let open = usage(&daemon)?;

    let idle_from = Instant::now();
    sleep(idle).await;
    let (idle_s, after_idle) = (seconds(idle_from.elapsed()), usage(&daemon)?);

    let asked = Instant::now();
    let page = text_page(daemon.admin.ok_or("no admin pages")?, "/metrics").await;
    let scrape_ms = seconds(asked.elapsed()) * 1e3;
    let sent = load::run(load::Plan {
        target: daemon.door,
        protocol: settings.protocol,
        run: RUN,
        first: 0,
        spans: settings.spans,
        per_request: settings.per_request,
        connections: settings.connections,
        in_flight: settings.in_flight,
        rate: settings.rate,
        limit: settings.limit,
    })
    .await;
    sink.arrival_of(settings.spans, settings.limit).await;

    let held = open_now(&daemon).await.unwrap_or_default();
    let peak = usage(&daemon)?;
    let program = daemon.program.take().ok_or("no daemon to stop")?;
    let (stop, exit_status) = program.terminate(STOP_LIMIT).await;
    let hold: hold::Report = holder.report(STOP_LIMIT).await?;

    let mut faults = Vec::new();
    let mut expect = |holds: bool, what: String| {
        if !holds {
            faults.push(what);
        }
    };
    let gauge = "nyx_door_connections{door=\"grpc\"} ";
    let scraped = page.as_deref().and_then(|page| page.lines().find_map(|line| line.strip_prefix(gauge)));
    expect(scraped == Some(&connections.to_string()), format!("/metrics counts {scraped:?} connections"));
    // The load's own may still be closing.
    expect(held >= connections as u64, format!("{held} connections were open in the end"));
    let arrived = lock(&sink.tally).report(settings.spans);
    expect(sent.acknowledged == settings.spans, format!("{} spans acknowledged", sent.acknowledged));
    expect(arrived.is_exact(), format!("the sink is not exact: {arrived:?}"));
    expect(exit_status == Some(0), format!("the exit status is {exit_status:?}"));
    expect(hold.ended_in_order == connections, format!("{} ended in order", hold.ended_in_order));

    let cpu = |from: Usage, to: Usage| to.cpu_s - from.cpu_s;
    Ok(Scale {
        connections,
        resident_before_mb: round(before.resident_mb),
        resident_with_all_mb: round(after_idle.resident_mb),
        resident_peak_mb: round(peak.resident_peak_mb),
        bytes_per_connection: ((after_idle.resident_mb - before.resident_mb) * 1e6 / connections as f64)
            .round(),
        open_cpu_s: round(cpu(before, open)),
        idle_s: round(idle_s),
        idle_cpu_percent: round(cpu(open, after_idle) / idle_s * 100.0),
        scrape_ms: round(scrape_ms),
        ack_ms: sent.ack_ms,
        stop_s: round(seconds(stop)),
        exit_status,
        hold,
        faults,
    })
}

fn usage(daemon: &Running) -> Result<Usage, String> {
    daemon.usage()?.ok_or_else(|| "no daemon to measure".to_owned())
}

/// Connections that the daemon says are open.
async fn open_now(daemon: &Running) -> Option<u64> {
    json_page(daemon.admin?, "/stats").await?.pointer("/connections/grpc/open")?.as_u64()
}

async fn wait_for(daemon: &Running, connections: usize) -> Result<(), String> {
    let until = Instant::now() + OPEN_LIMIT;
    loop {
        let open = open_now(daemon).await.unwrap_or_default();
        if open >= connections as u64 {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(format!("only {open} of {connections} connections are open"));
        }
        sleep(POLL).await;
    }
}
