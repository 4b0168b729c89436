//! Idle in-process connections: what they take in memory, and how long the ordered stop takes with all of
//! them open.
//!
//! ```sh
//! cargo bench -p nyx-telemetry --bench connections            # 100,000
//! cargo bench -p nyx-telemetry --bench connections -- 5000
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a measurement, in real time"
)]

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use nyx_telemetry::{Connection, ConnectionId, Telemetry};

const CONNECTIONS: u64 = 100_000;
const IDLE: Duration = Duration::from_secs(2);
/// Whoever is not open by then never will be.
const OPEN_LIMIT: Duration = Duration::from_secs(60);
/// Every so many connections, one has a span open when the stop comes.
const WITH_SPAN_EVERY: u64 = 100;

fn main() {
    // cargo bench adds --bench.
    let connections = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(CONNECTIONS);
    let telemetry = Telemetry::builder()
        .service_name("connections")
        .configure(|config| config.max_connections = usize::try_from(connections).unwrap())
        .start()
        .unwrap();
    // What the first connection brings along is not each connection's.
    drop(telemetry.connection(ConnectionId::new(0)));
    wait_for(&telemetry, 1, 0);

    let (before, started, cpu) = (resident(), Instant::now(), cpu_s());
    let held: Vec<Connection> =
        (1..=connections).map(|id| telemetry.connection(ConnectionId::new(id))).collect();
    wait_for(&telemetry, connections + 1, connections);
    let (open_s, open_cpu_s, after) = (started.elapsed().as_secs_f64(), cpu_s() - cpu, resident());
    println!("connections           {connections:>12}");
    println!("open                  {open_s:>12.3} s     {open_cpu_s:.3} CPU-s");
    println!("resident before       {:>12.1} MB", before as f64 / 1e6);
    println!("resident with all     {:>12.1} MB", after as f64 / 1e6);
    println!("bytes a connection    {:>12.0}", (after - before) as f64 / connections as f64);

    let cpu = cpu_s();
    thread::sleep(IDLE);
    println!("CPU while idle        {:>12.2} %", (cpu_s() - cpu) / IDLE.as_secs_f64() * 100.0);

    let some = held.iter().step_by(WITH_SPAN_EVERY as usize);
    let spans: Vec<_> = some.map(|connection| connection.span("open at the stop").start()).collect();
    let (open, observed) = (spans.len() as u64, telemetry.observed().clone());
    let (stopped, cpu) = (Instant::now(), cpu_s());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let report = runtime.block_on(telemetry.shutdown());
    println!(
        "drain                 {:>12.3} s     {:.3} CPU-s",
        stopped.elapsed().as_secs_f64(),
        cpu_s() - cpu
    );
    println!("clean                 {:>12}", report.is_clean());
    let stats = observed.stats();
    println!("spans ended by it     {:>12}", stats.spans.accepted);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((stats.spans.accepted, stats.balanced), (open, true));
    assert!(held.iter().all(Connection::is_closed));
}

fn wait_for(telemetry: &Telemetry, opened: u64, open: u64) {
    let until = Instant::now() + OPEN_LIMIT;
    loop {
        let counts = telemetry.observed().stats().connections["in_process"];
        if (counts.opened, counts.open as u64) == (opened, open) {
            return;
        }
        assert!(Instant::now() < until, "{counts:?}, not {open} open of {opened}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// CPU-seconds of this process so far, in ticks of 10 ms.
fn cpu_s() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}
