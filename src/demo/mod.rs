//! The demonstration: the real actor system and doors, simulated connections, and a destination of its own.

mod destination;
mod folder;
mod load;

use std::{
    fmt::Display,
    io::{self, Write as _},
    time::Duration,
};

use nyx_telemetry::{
    accept::ListenAddr,
    observe::{Observed, Stats},
    self_tracing::Tracer,
    supervise::ChildState,
};
use tokio::time::{Instant, interval, sleep_until, timeout};

use self::{
    destination::Destination,
    folder::Folder,
    load::{Load, Shape},
};
use crate::{
    cli::DemoArgs,
    config::{Config, Environment},
    exit::{Failure, SOFTWARE, UNAVAILABLE},
    log_folder,
    run::{Daemon, Signals},
};

/// Simulated stream connections at a time.
const CONNECTIONS: usize = 40;
/// When the collector is crashed if nobody says how long the demonstration lasts.
const CRASH_AFTER: Duration = Duration::from_secs(10);
/// How long the last spans may take to the destination.
const DRAIN: Duration = Duration::from_secs(10);

/// Runs the demonstration until its time is over or Ctrl-C.
///
/// # Errors
/// [`SOFTWARE`] where the ledger does not balance in the end, [`UNAVAILABLE`] where it cannot start.
pub fn demo(args: &DemoArgs) -> Result<(), Failure> {
    let destination = Destination::start().map_err(unavailable)?;
    let folder = Folder::new().map_err(unavailable)?;
    let config = configuration(&destination, &folder)?;
    actix_rt::System::new().block_on(show(args, &config, &destination))
}

fn unavailable(error: impl Display) -> Failure {
    Failure::new(UNAVAILABLE, format!("the demo cannot start: {error}"))
}

/// The built-in settings, on free ports and with the demo's own destination and folder.
fn configuration(destination: &Destination, folder: &Folder) -> Result<Config, Failure> {
    let endpoint = format!("http://{}", destination.address);
    let dir =
        folder.path().to_str().ok_or_else(|| unavailable("the temporary folder's name is not UTF-8"))?;
    let environment = [
        ("NYX__LOG__DIR", dir),
        // A few seconds of spans fit wherever temporary files do.
        ("NYX__LOG__MIN_FREE_BYTES", "0"),
        ("NYX__TELEMETRY__OTLP_ENDPOINT", endpoint.as_str()),
        ("NYX__TELEMETRY__SERVICE_NAME", "demo-node"),
        ("NYX__TELEMETRY__PROMETHEUS_ADDR", "127.0.0.1:0"),
        ("NYX__INGEST__GRPC__LISTEN", "127.0.0.1:0"),
        ("NYX__INGEST__HTTP__LISTEN", "127.0.0.1:0"),
    ];
    Config::load(&[], &Environment::new(environment, false)).map_err(unavailable)
}

async fn show(args: &DemoArgs, config: &Config, destination: &Destination) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let Some(log) = log_folder::open(config, &mut signals).await? else { return Ok(()) };
    let daemon = Daemon::start(config, log, Tracer::default()).await?;
    let Some(ListenAddr::Tcp(door)) = daemon.grpc else {
        return Err(unavailable("the demo's door is not on a TCP address".to_owned()));
    };
    say(format_args!("metrics      http://{}/metrics", daemon.pages));
    say(format_args!("stats        http://{}/stats", daemon.pages));
    say(format_args!("health       http://{}/health", daemon.pages));
    say(format_args!("OTLP/gRPC    http://{door}"));
    if let Some(http) = &daemon.http {
        say(format_args!("OTLP/HTTP    http://{http}/v1/traces"));
    }
    say(format_args!("destination  http://{}", destination.address));
    say(format_args!(
        "{CONNECTIONS} simulated stream connections, about {} spans/s; Ctrl-C ends it\n",
        args.rate
    ));

    let shape = Shape { connections: CONNECTIONS, spans_per_second: f64::from(args.rate), door };
    let load = Load::start(daemon.tree.in_process().clone(), shape).map_err(unavailable)?;
    let observed = daemon.tree.observed();
    let begun = Instant::now();
    let end = args.seconds.map(|seconds| begun + Duration::from_secs(seconds.get()));
    let crash = begun + args.seconds.map_or(CRASH_AFTER, |s| Duration::from_secs(s.get()) / 2);
    let mut live = Live::new(begun);
    let mut seconds = interval(Duration::from_secs(1));
    seconds.tick().await;
    let mut crashed = false;
    loop {
        tokio::select! {
            _ = signals.next() => break,
            () = sleep_until(end.unwrap_or(begun)), if end.is_some() => break,
            () = sleep_until(crash), if !crashed => {
                crashed = true;
                crash_collector(&daemon).await;
            }
            _ = seconds.tick() => live.line(observed),
        }
    }
    live.line(observed);

    say("\nending: connections close, the last spans are delivered");
    if timeout(DRAIN, load.stop()).await.is_err() {
        say("its connections did not close in time");
    }
    let flushed = timeout(DRAIN, daemon.tree.in_process().flush()).await;
    daemon.stop(DRAIN, &mut signals).await;
    let stats = observed.stats();
    ledger(&stats);
    verdict(&stats, destination.spans(), matches!(flushed, Ok(Ok(()))))
}

/// Makes the collector panic, and waits until it runs again.
async fn crash_collector(daemon: &Daemon) {
    let collector = || daemon.tree.observed().records().into_iter().find(|record| record.name == "collector");
    let before = collector().map_or(0, |record| record.incarnation);
    say("\n*** crashing the SpanCollector on purpose ***");
    let asked = Instant::now();
    if daemon.tree.crash("collector", "crashed by the demo, on purpose").is_err() {
        return say("*** its inbox is full: not this time ***");
    }
    let mut look = interval(Duration::from_millis(2));
    let again = timeout(Duration::from_secs(5), async {
        loop {
            look.tick().await;
            if let Some(record) = collector()
                && record.incarnation > before
                && record.state == ChildState::Running
            {
                return record;
            }
        }
    });
    match again.await {
        Ok(record) => {
            let failure = record.last_failure.map(|failure| failure.to_string()).unwrap_or_default();
            let millis = asked.elapsed().as_millis();
            say(format_args!("*** it panicked: {failure}"));
            say(format_args!(
                "*** restarted by its supervisor after {millis} ms; what waited in its inbox was kept\n"
            ));
        }
        Err(_) => say("*** it did not come back within 5 s\n"),
    }
}

/// The live line.
struct Live {
    begun: Instant,
    at: Instant,
    accepted: u64,
    exported: u64,
}

impl Live {
    fn new(begun: Instant) -> Self {
        Self { begun, at: begun, accepted: 0, exported: 0 }
    }

    fn line(&mut self, observed: &Observed) {
        let stats = observed.stats();
        let (exported, queued) = sums(&stats);
        let errors = observed.red().map_or(0.0, |red| {
            let red = red.snapshot();
            let (spans, errors) = red
                .series
                .iter()
                .fold((0, 0), |sum, series| (sum.0 + series.counts.count, sum.1 + series.counts.errors));
            100.0 * errors as f64 / (spans as f64).max(1.0)
        });
        let now = Instant::now();
        let seconds = (now - self.at).as_secs_f64().max(0.001);
        let rate = |now: u64, before: u64| (now - before) as f64 / seconds;
        say(format_args!(
            "{:>4} s  in {:>6.0}/s  out {:>6.0}/s  queue {queued:>5}  errors {errors:.1} %  connections {}",
            (now - self.begun).as_secs(),
            rate(stats.spans.accepted, self.accepted),
            rate(exported, self.exported),
            stats.connections.values().map(|counts| counts.open).sum::<usize>(),
        ));
        (self.at, self.accepted, self.exported) = (now, stats.spans.accepted, exported);
    }
}

/// Spans exported and queued, of all destinations.
fn sums(stats: &Stats) -> (u64, u64) {
    stats.destinations.values().fold((0, 0), |sum, destination| {
        (sum.0 + destination.ledger.exported, sum.1 + destination.ledger.queued())
    })
}

fn ledger(stats: &Stats) {
    say("\nthe ledger");
    for (name, door) in &stats.door {
        let (received, accepted) = (door.received.requests, door.accepted.requests);
        let (refused, pending) = (door.refused_total().requests, door.pending.requests);
        let what = if *name == "in_process" { "spans" } else { "requests" };
        say(format_args!(
            "  door {name:<12} received {received} {what} = accepted {accepted} + refused {refused} + pending {pending}"
        ));
    }
    let spans = &stats.spans;
    let rejected = spans.scanned - spans.accepted - spans.pending;
    say(format_args!(
        "  spans             scanned {} = accepted {} + rejected {rejected} + pending {}",
        spans.scanned, spans.accepted, spans.pending
    ));
    for (name, destination) in &stats.destinations {
        let ledger = &destination.ledger;
        say(format_args!(
            "  to {name:<14} {} = exported {} + sampled out {} + dropped {} + queued {}",
            ledger.end - ledger.start,
            ledger.exported,
            ledger.sampled_out,
            ledger.dropped_total(),
            ledger.queued()
        ));
    }
}

/// The demonstration has shown what it should: all accounts balance, and everything accepted has arrived.
fn verdict(stats: &Stats, arrived: u64, flushed: bool) -> Result<(), Failure> {
    let (exported, queued) = sums(stats);
    let mut wrong = Vec::new();
    if !stats.balanced {
        wrong.push("an account does not balance".to_owned());
    }
    if !flushed {
        wrong.push("the last in-process spans were not committed".to_owned());
    }
    if queued > 0 {
        wrong.push(format!("{queued} spans are still queued"));
    }
    if stats.spans.accepted != exported {
        wrong.push(format!("{} spans were accepted, {exported} exported", stats.spans.accepted));
    }
    if arrived < exported {
        wrong.push(format!("the destination counted {arrived} spans of {exported}"));
    }
    if wrong.is_empty() {
        say(format_args!("\nthe ledger balances, and the destination counted {arrived} spans"));
        return Ok(());
    }
    Err(Failure::new(SOFTWARE, format!("the demo's ledger does not hold: {}", wrong.join("; "))))
}

fn say(line: impl Display) {
    // A closed pipe leaves nobody to tell; the demonstration ends in order all the same.
    let _closed = writeln!(io::stdout().lock(), "{line}");
}
