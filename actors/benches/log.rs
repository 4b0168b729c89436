//! What the span log costs: `cargo bench -p nyx-telemetry --bench log [-- quick]`.
//!
//! - **append**: groups of batches are committed one after the other, each group as soon as the one before is answered, to each form
//!   of the log in turn; a destination passes every group at once, so that positions are written and segments removed
//!   as behind an exporter that keeps up. `none` makes the same groups and commits them nowhere. Batches are of about
//!   180 kB (512 spans) and of 350 bytes (one span), from a few buffers in turn, so they come from the processor's
//!   caches as what was just received does.
//! - **backlog**: a log with a destination that takes nothing is filled, closed, opened again and read from its first
//!   span on through [`SpanLog::read`], within the limits of an exporter's batch, from the page cache. The records are checked
//!   and counted against what was written.
//! - **recovery**: opening that log, which reads its last segment, as after a kill: without the marker of an orderly
//!   stop.
//!
//! Processor time is that of the process, all threads, user and system; so the log's own threads are in it, and what
//! the kernel's threads do later (writing the page cache back) is not. MB are 10⁶ bytes of payload. A folder
//! argument (`-- /path`) puts the logs there; by default they are below Cargo's target folder.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark reads the real clock and prints"
)]

use std::{
    fs,
    hint::black_box,
    iter,
    ops::Deref,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, SendError, TrySendError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use nyx_telemetry::log::{
    Advance, Append, CommitError, Committed, DestinationId, Durability, MemoryLog, MemoryLogConfig, Ordinal,
    ReadLimit, SpanLedger, SpanLog,
    segments::{DirLock, LogDestination, OpenLog, SegmentLogConfig, StartAt, Work},
};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;

const DESTINATION: DestinationId = DestinationId(0);
/// The limits of an exporter's batch, by default.
const EXPORT: ReadLimit = ReadLimit { spans: 8_192, bytes: 3_670_016 };
/// Batches of a kind that differ only in where they are.
const BUFFERS: usize = 16;
/// Work that waits for the log's threads.
const QUEUE: usize = 1_024;
/// A group under `power` waits for the device.
const GROUPS_MAX: usize = 2_000;
const FORMS: [Durability; 3] = [Durability::Memory, Durability::Process, Durability::Power];

#[derive(Clone, Copy)]
struct Batch {
    spans: u32,
    bytes: usize,
}

const LARGE: Batch = Batch { spans: 512, bytes: 180_000 };
const SMALL: Batch = Batch { spans: 1, bytes: 350 };

/// How much is done.
struct Extent {
    rounds: usize,
    append_bytes: usize,
    backlog_bytes: usize,
}

const FULL: Extent = Extent { rounds: 7, append_bytes: 256 << 20, backlog_bytes: 1 << 30 };
const QUICK: Extent = Extent { rounds: 1, append_bytes: 2 << 20, backlog_bytes: 32 << 20 };

fn main() {
    let mut extent = &FULL;
    let mut base = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    for argument in std::env::args().skip(1).filter(|argument| argument != "--bench") {
        match argument.as_str() {
            "quick" => extent = &QUICK,
            folder => base = PathBuf::from(folder),
        }
    }
    let bench = Bench {
        runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        folder: Folder::fresh(&base),
        ledger: Arc::new(SpanLedger::default()),
    };
    println!("logs on a file system of type {}", file_system(&bench.folder.0));
    bench.append(extent);
    bench.backlog(extent, "180 kB", LARGE, extent.backlog_bytes);
    // Of small records a quarter, which is as many spans again.
    bench.backlog(extent, "350 B", SMALL, extent.backlog_bytes / 4);
}

/// A log that runs; dropped, it is closed in order.
struct Log {
    /// There until the log is dropped.
    spans: Option<Arc<dyn SpanLog>>,
    threads: Vec<JoinHandle<()>>,
}

impl Deref for Log {
    type Target = dyn SpanLog;

    fn deref(&self) -> &Self::Target {
        self.spans.as_deref().unwrap()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // The threads end when nobody can give them work.
        drop(self.spans.take());
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// The form of the log with this durability, in this folder.
fn open(durability: Durability, dir: &Path, max_bytes: usize) -> Log {
    if durability != Durability::Memory {
        return run(&recover(durability, dir));
    }
    let config = MemoryLogConfig { max_bytes, destinations: 1, measured: false };
    Log { spans: Some(Arc::new(MemoryLog::new(config))), threads: Vec::new() }
}

/// Opens the log in this folder; nothing writes to it yet.
fn recover(durability: Durability, dir: &Path) -> OpenLog {
    let destination = LogDestination { name: "default".to_owned(), start: StartAt::Beginning };
    let defaults = SegmentLogConfig::new(dir);
    let config =
        SegmentLogConfig { durability, destinations: vec![destination], measured: false, ..defaults };
    let lock = DirLock::try_acquire(dir).unwrap().expect("nobody else uses a fresh folder");
    OpenLog::open(&config, lock).unwrap()
}

/// With a thread that writes and one that reads, as in the daemon but for their supervision.
fn run(open: &OpenLog) -> Log {
    let (write, to_write) = mpsc::sync_channel::<Work>(QUEUE);
    let (read, to_read) = mpsc::sync_channel(QUEUE);
    let (mut writer, reader, report) = (open.writer(), open.reader(), write.clone());
    let writing = thread::spawn(move || {
        while let Ok(work) = to_write.recv() {
            let more: Vec<Work> = to_write.try_iter().collect();
            writer.handle(iter::once(work).chain(more));
        }
        writer.close();
    });
    let reading = thread::spawn(move || {
        while let Ok(request) = to_read.recv() {
            reader.handle(request, &mut |work| report.send(work).unwrap());
        }
    });
    let refused = |error: TrySendError<_>| match error {
        TrySendError::Full(work) | TrySendError::Disconnected(work) => work,
    };
    let log = open.log(
        move |work| write.try_send(work).map_err(refused),
        move |request| read.send(request).map_err(|SendError(request)| request),
    );
    Log { spans: Some(Arc::new(log)), threads: vec![reading, writing] }
}

/// What work cost.
#[derive(Clone, Copy)]
struct Cost {
    cpu: Duration,
    wall: Duration,
}

fn cost(work: impl FnOnce()) -> Cost {
    let cpu = || Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default();
    let (cpu_begin, wall_begin) = (cpu(), Instant::now());
    work();
    Cost { wall: wall_begin.elapsed(), cpu: cpu().saturating_sub(cpu_begin) }
}

/// The shortest and the middle one, in seconds.
fn best_and_median(costs: &[Cost], time: fn(&Cost) -> Duration) -> (f64, f64) {
    let mut seconds: Vec<f64> = costs.iter().map(|cost| time(cost).as_secs_f64()).collect();
    seconds.sort_by(f64::total_cmp);
    let at = |index: usize| seconds.get(index).copied().unwrap_or(f64::NAN);
    (at(0), at(seconds.len() / 2))
}

struct Bench {
    runtime: Runtime,
    folder: Folder,
    ledger: Arc<SpanLedger>,
}

impl Bench {
    fn append(&self, extent: &Extent) {
        println!("\nappend; {} rounds, the forms in turn", extent.rounds);
        println!(
            "{:8} {:>8} {:>6} {:>7} {:>10} {:>10} {:>10} {:>10} {:>8} {:>8}",
            "form",
            "batch B",
            "group",
            "groups",
            "ns/span",
            "median",
            "ms/MB cpu",
            "MB/s wall",
            "written",
            "syncs"
        );
        for (batch, group) in [(LARGE, 1), (LARGE, 8), (SMALL, 1), (SMALL, 64), (SMALL, 512)] {
            let groups = (extent.append_bytes / (batch.bytes * group)).clamp(1, GROUPS_MAX);
            let buffers = buffers(batch);
            let mut logs: Vec<(&str, Option<Log>, Vec<Cost>)> = vec![("none", None, Vec::new())];
            for form in FORMS {
                let dir = self.folder.0.join(format!("append-{}-{}-{group}", form.label(), batch.bytes));
                logs.push((form.label(), Some(open(form, &dir, 1 << 30)), Vec::new()));
            }
            // The first round only warms up.
            for round in 0..=extent.rounds {
                for (_, log, costs) in &mut logs {
                    let cost = cost(|| {
                        for number in 0..groups {
                            self.group(log.as_ref(), &buffers, batch, number * group, group);
                        }
                    });
                    if round > 0 {
                        costs.push(cost);
                    }
                }
            }
            let spans = (groups * group) as f64 * f64::from(batch.spans);
            let megabytes = (groups * group * batch.bytes) as f64 / 1e6;
            for (form, log, costs) in &logs {
                let (best, median) = best_and_median(costs, |cost| cost.cpu);
                let (_, wall) = best_and_median(costs, |cost| cost.wall);
                let disk = log.as_ref().and_then(|log| log.stats().disk);
                let written = disk.map_or("–".to_owned(), |disk| {
                    format!("{:.4}", disk.written_bytes as f64 / disk.payload_bytes.max(1) as f64)
                });
                let syncs = disk.map_or("–".to_owned(), |disk| disk.syncs.to_string());
                println!(
                    "{form:8} {:8} {group:6} {groups:7} {:10.1} {:10.1} {:10.3} {:10.0} {written:>8} {syncs:>8}",
                    batch.bytes,
                    best / spans * 1e9,
                    median / spans * 1e9,
                    median * 1e3 / megabytes,
                    megabytes / wall,
                );
            }
        }
    }

    /// Makes a group, commits it and has it passed.
    fn group(&self, log: Option<&Log>, buffers: &[Bytes], batch: Batch, number: usize, size: usize) {
        let (group, replies) = self.batches(buffers, batch, number, size);
        let Some(log) = log else {
            black_box((group, replies));
            return;
        };
        let outcome = self.runtime.block_on(log.commit(group));
        let spans = u64::from(batch.spans) * size as u64;
        let passed = Advance { to: outcome.end, exported: spans, ..Advance::default() };
        log.advance(DESTINATION, &passed).unwrap();
        assert_committed(replies);
    }

    fn batches(
        &self,
        buffers: &[Bytes],
        batch: Batch,
        number: usize,
        size: usize,
    ) -> (Vec<Append>, Vec<Reply>) {
        buffers
            .iter()
            .cycle()
            .skip(number % BUFFERS)
            .take(size)
            .map(|bytes| {
                let (reply, receiver) = tokio::sync::oneshot::channel();
                let pending = self.ledger.scanned(batch.spans);
                (Append { bytes: bytes.clone(), pending, reply }, receiver)
            })
            .unzip()
    }

    fn backlog(&self, extent: &Extent, name: &str, batch: Batch, bytes: usize) {
        println!("\nbacklog of {} MB in records of {name}", bytes / 1_000_000);
        println!(
            "{:8} {:>14} {:>14} {:>12}   recovery of the last segment",
            "form", "MB/cpu-s best", "median", "MB/s wall"
        );
        for form in [Durability::Memory, Durability::Process] {
            let dir = self.folder.0.join(format!("backlog-{}-{}", form.label(), batch.bytes));
            // The memory form charges a record more than its bytes.
            let mut log = open(form, &dir, 2 * bytes);
            let written = self.fill(&log, batch, bytes);
            let mut recovery = "–".to_owned();
            if form != Durability::Memory {
                drop(log);
                recovery = recovery_of(form, &dir, extent.rounds);
                log = open(form, &dir, 2 * bytes);
            }
            let costs: Vec<_> = (0..extent.rounds)
                .map(|_| cost(|| assert_eq!(self.read_all(&log), written, "(spans, bytes)")))
                .collect();
            let megabytes = written.1 as f64 / 1e6;
            let (best, median) = best_and_median(&costs, |cost| cost.cpu);
            let (_, wall) = best_and_median(&costs, |cost| cost.wall);
            println!(
                "{:8} {:14.0} {:14.0} {:12.0}   {recovery}",
                form.label(),
                megabytes / best,
                megabytes / median,
                megabytes / wall
            );
            drop(log);
            let _ = fs::remove_dir_all(dir);
        }
    }

    /// Commits batches until there are so many bytes; returns spans and bytes.
    fn fill(&self, log: &Log, batch: Batch, bytes: usize) -> (u64, u64) {
        let group = (8 * LARGE.bytes / batch.bytes).min(512);
        let buffers = buffers(batch);
        let batches = bytes / batch.bytes;
        let mut number = 0;
        while number < batches {
            let size = group.min(batches - number);
            let (group, replies) = self.batches(&buffers, batch, number, size);
            self.runtime.block_on(log.commit(group));
            assert_committed(replies);
            number += size;
        }
        (batches as u64 * u64::from(batch.spans), (batches * batch.bytes) as u64)
    }

    /// Reads the log as an exporter does, a batch after the other; returns spans and bytes.
    fn read_all(&self, log: &Log) -> (u64, u64) {
        let (mut from, mut spans, mut bytes): (Ordinal, u64, u64) = (0, 0, 0);
        loop {
            let records = self.runtime.block_on(log.read(from, EXPORT)).unwrap();
            let Some(last) = records.last() else { return (spans, bytes) };
            from = last.end();
            for record in &records {
                spans += u64::from(record.spans);
                bytes += record.bytes.len() as u64;
            }
            black_box(&records);
        }
    }
}

type Reply = tokio::sync::oneshot::Receiver<Result<Committed, CommitError>>;

/// A batch that is refused costs less.
fn assert_committed(replies: Vec<Reply>) {
    for mut reply in replies {
        reply.try_recv().unwrap().unwrap();
    }
}

/// Batches whose bytes do not compress; the log does not look into them.
fn buffers(batch: Batch) -> Vec<Bytes> {
    let mut state = 1_u64;
    let mut byte = || {
        // Knuth's MMIX.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..BUFFERS).map(|_| (0..batch.bytes).map(|_| byte()).collect()).collect()
}

/// Opens the log again and again, as after a kill.
fn recovery_of(form: Durability, dir: &Path, rounds: usize) -> String {
    let costs: Vec<_> = (0..rounds)
        .map(|_| {
            let _ = fs::remove_file(dir.join("clean"));
            cost(|| drop(recover(form, dir)))
        })
        .collect();
    let segments = fs::read_dir(dir.join("segments")).unwrap();
    let last = segments.map(|entry| entry.unwrap()).max_by_key(fs::DirEntry::file_name);
    let bytes = last.map_or(0, |last| last.metadata().unwrap().len());
    let (_, cpu) = best_and_median(&costs, |cost| cost.cpu);
    let (_, wall) = best_and_median(&costs, |cost| cost.wall);
    format!("{:.1} MB: {:.1} ms cpu, {:.1} ms wall", bytes as f64 / 1e6, cpu * 1e3, wall * 1e3)
}

/// A folder that is gone with its guard.
struct Folder(PathBuf);

impl Folder {
    fn fresh(base: &Path) -> Self {
        let path = base.join(format!("nyx-bench-log-{}", std::process::id()));
        fs::create_dir_all(base).unwrap();
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Its name where it is a common one, otherwise its number in linux/magic.h.
fn file_system(path: &Path) -> String {
    match rustix::fs::statfs(path).unwrap().f_type {
        0xef53 => "ext4".to_owned(),
        0x5846_5342 => "xfs".to_owned(),
        0x9123_683e => "btrfs".to_owned(),
        0x0102_1994 => "tmpfs, which is memory: the figures say nothing of a disk".to_owned(),
        other => format!("{other:#x}"),
    }
}
