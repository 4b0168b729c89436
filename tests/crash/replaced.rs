//! A rolling restart: the next daemon is started while the one before it runs, and waits for its folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{
    account::{Account, continues},
    alone,
    daemon::{Daemon, Place, Settings, until},
    rounds::settled,
    senders::{Load, Senders},
    sink::{Mode, Sink},
};

const TURNS: u64 = 6;

/// Ports that the system gives to nobody by itself.
fn ports() -> [u16; 2] {
    let mut free = (61_000 + (std::process::id() % 2_000) as u16..65_000)
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    [(); 2].map(|()| free.next().unwrap())
}

/// Each descriptor of a process and what it is; nothing where the process has ended.
fn open_files(pid: u32) -> Vec<(PathBuf, PathBuf)> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.filter_map(|file| Some((file.path(), fs::read_link(file.path()).ok()?))).collect()
}

/// The files of this folder that a process has open for writing, but for its lock.
fn writes(pid: u32, dir: &Path) -> Vec<PathBuf> {
    let writable = |descriptor: &Path| {
        let number = descriptor.file_name().unwrap().to_str().unwrap();
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or("0");
        u32::from_str_radix(flags.trim(), 8).unwrap() & 0b11 != 0
    };
    let files = open_files(pid)
        .into_iter()
        .filter(|(descriptor, file)| file.starts_with(dir) && !is_lock(file) && writable(descriptor));
    files.map(|(_, file)| file).collect()
}

fn is_lock(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.to_string_lossy().contains("lock"))
}

fn holds_a_lock_file(pid: u32, dir: &Path) -> bool {
    open_files(pid).iter().any(|(_, file)| file.starts_with(dir) && is_lock(file))
}

/// Bytes of a file, and when it was written; `None` where there is none.
fn stamp(file: &Path) -> Option<(u64, SystemTime)> {
    let data = fs::metadata(file).ok()?;
    Some((data.len(), data.modified().unwrap()))
}

/// The segments that a process can write to. It may keep them open to its end, if it has given the folder back.
fn segments(pid: u32, dir: &Path) -> Vec<(PathBuf, (u64, SystemTime))> {
    let files = writes(pid, &dir.join("segments")).into_iter();
    files.filter_map(|file| stamp(&file).map(|stamp| (file, stamp))).collect()
}

/// The TCP ports that a process listens on.
fn listens(pid: u32) -> BTreeSet<u16> {
    const LISTEN: &str = "0A";
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let listening: BTreeMap<String, u16> = table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let port = words[1].split_once(':').unwrap().1;
            (words[3] == LISTEN)
                .then(|| (format!("socket:[{}]", words[9]), u16::from_str_radix(port, 16).unwrap()))
        })
        .collect();
    let sockets = open_files(pid);
    sockets.iter().filter_map(|(_, socket)| listening.get(socket.to_str()?).copied()).collect()
}

#[test]
fn replaced_under_load_again_and_again_it_loses_nothing_and_one_writes_at_a_time() {
    let _alone = alone();
    let place = Place::new("replaced");
    let sink = Sink::start(place.at("sink.sock"));
    let [door, pages] = ports();
    let settings = Settings {
        // Fixed ports: who binds before the folder is free finds them taken, and ends.
        door: format!("127.0.0.1:{door}"),
        pages: format!("127.0.0.1:{pages}"),
        log: "checkpoint_interval = \"30ms\"\nsegment_bytes = \"256KiB\"".to_owned(),
        ..Settings::new(&place, "process", &[("default", &sink)])
    };
    // Every other time something is left for the next one; else there is time enough.
    let stopping = |turn: u64| {
        let timeout_s = if leaves_some(turn) { 2 } else { 50 };
        Settings { shutdown: format!("timeout = \"{timeout_s}s\"\ngrace = \"100ms\""), ..settings.clone() }
    };
    let senders = Senders::start(&Load {
        door: format!("http://{}", settings.door),
        senders: 8,
        batch: 1..100,
        payload_bytes: 0..300,
        pause: Duration::from_millis(3),
        spans: u64::MAX,
        seed: 4,
    });
    let mut cut_short = 0;
    let mut old = Daemon::spawn(&place, &stopping(0), &[]);
    old.ready();
    assert_eq!(listens(old.pid()), BTreeSet::from([door, pages]));
    assert!(holds_a_lock_file(old.pid(), &settings.log_dir));
    for turn in 0..TURNS {
        goes_on(&senders);
        let mut new = Daemon::spawn(&place, &stopping(turn + 1), &[]);
        new.line("that it waits", |line| {
            line["message"].as_str().is_some_and(|text| text.starts_with("waiting for the lock of "))
        });
        goes_on(&senders);
        sink.set(if leaves_some(turn) { Mode::Down } else { Mode::Up });
        assert_eq!((listens(new.pid()), writes(new.pid(), &settings.log_dir)), (BTreeSet::new(), vec![]));
        until("the one that runs writes", || !writes(old.pid(), &settings.log_dir).is_empty());
        let (before, acknowledged) = (old.see(), senders.acknowledged());
        old.terminate();
        let mut left = Vec::new();
        until("the next one is ready", || {
            // In this order: what is found of the old one is of a time at which the next has the folder.
            let next = writes(new.pid(), &settings.log_dir);
            if !next.is_empty() && left.is_empty() {
                assert!(!holds_a_lock_file(old.pid(), &settings.log_dir), "both have the lock: {next:?}");
                left = segments(old.pid(), &settings.log_dir);
            }
            assert!(new.is_running(), "the next one gave up");
            new.has_said(|line| line["message"] == "ready")
        });
        new.ready();
        new.restored();
        let (status, lines) = old.end();
        assert_eq!(status.code(), Some(0));
        cut_short += u64::from(lines.iter().any(|line| line["given_up"].is_string()));
        for (segment, then) in left {
            let now = stamp(&segment);
            assert!(now.is_none() || now == Some(then), "{}: {then:?}, then {now:?}", segment.display());
        }
        assert_eq!(continues(&before, &new.see(), acknowledged), Vec::<String>::new(), "turn {turn}");
        sink.set(Mode::Up);
        old = new;
    }
    goes_on(&senders);
    let told = senders.finish();
    let seen = settled(&old, &["default"]);
    let sinks = BTreeMap::from([("default".to_owned(), sink.arrived())]);
    // Nobody was killed: an orderly stop repeats nothing, unless it had to give something up.
    let repeated_by_a_crash = settings.repeated_by_a_crash();
    let account = Account { told, sinks, seen, kills: cut_short, repeated_by_a_crash };
    assert_eq!(account.wrong(), Vec::<String>::new());
    old.terminate();
    assert_eq!(old.end().0.code(), Some(0));
    println!(
        "{TURNS} daemons in a row, {cut_short} stops cut short: {} spans acknowledged, {} cut off, {} requests refused, \
         {} found nobody",
        account.told.total(),
        account.told.cut_off,
        account.told.refused,
        account.told.unsent
    );
}

/// Whether the stop of this turn finds its destination down.
fn leaves_some(turn: u64) -> bool {
    turn % 2 == 1
}

fn goes_on(senders: &Senders) {
    let before = senders.acknowledged();
    until("senders go on", || senders.acknowledged() > before + 500);
}
