//! A daemon without traffic: what it takes from the machine, and whether it writes.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::load;
use crate::run::{Running, Settings, SinkThread, round};
use crate::subject::Subject;
use crate::tally::seconds;
use crate::written::Io;

/// What was sent is exported, its positions and the checkpoint of the span metrics are stored (every 5 s by default).
const REST: Duration = Duration::from_secs(8);
/// The run that the spans belong to.
const RUN: u32 = 1;

/// The figures.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Idle {
    pub(crate) subject: &'static str,
    seconds: f64,
    cpu_s: f64,
    /// In percent of one core.
    cpu_percent: f64,
    /// What the clock's ticks may hide: two of them, one of user and one of system time.
    cpu_percent_uncertain: f64,
    resident_mb: f64,
    /// What the daemon wrote meanwhile, by the kernel's count; none where that is not shown.
    written: Option<Io>,
}

/// Sends a little, so that there is a log, a position and a checkpoint, lets the daemon rest, and then watches it.
///
/// # Errors
/// Where the daemon cannot be started or read, or did not forward what it was sent, in words.
pub(crate) async fn measure(subject: &Subject, settings: &Settings, watch: Duration) -> Result<Idle, String> {
    let sink = SinkThread::start(RUN, settings.spans).await?;
    let mut daemon = Running::start(subject, settings, sink.address, RUN).await?;
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
    if sink.arrival_of(settings.spans, settings.limit).await.is_none() {
        return Err(format!("{}: what was sent did not reach the sink: {sent:?}", subject.name()));
    }
    sleep(REST).await;

    let gone = || "no daemon to measure".to_owned();
    let io = |daemon: &Running| daemon.program.as_ref()?.io();
    let (usage_before, io_before) = (daemon.usage()?.ok_or_else(gone)?, io(&daemon));
    let begin = Instant::now();
    sleep(watch).await;
    let (usage, watched) = (daemon.usage()?.ok_or_else(gone)?, seconds(begin.elapsed()));
    let written = io(&daemon).zip(io_before).map(|(after, before)| after.since(before));
    daemon.stop().await;

    let percent = |cpu_s: f64| (cpu_s / watched * 1e6).round() / 1e4;
    let cpu_s = usage.cpu_s - usage_before.cpu_s;
    Ok(Idle {
        subject: subject.name(),
        seconds: round(watched),
        cpu_s: round(cpu_s),
        cpu_percent: percent(cpu_s),
        cpu_percent_uncertain: percent(2.0 / rustix::param::clock_ticks_per_second() as f64),
        resident_mb: round(usage.resident_mb),
        written,
    })
}
