//! A file system without room, or with a file that cannot be written: senders are told to come back where it must be,
//! and all heals when it can be written again.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{
    account::{Account, continues},
    alone,
    daemon::{Daemon, Place, Seen, Settings, until},
    rounds::settled,
    senders::{Load, Senders},
    sink::{Mode, Sink},
};

const MIB: u64 = 4;

/// A file system of its own and of a few MiB, in a namespace of its own, which lives as long as this does.
struct Small {
    holder: Child,
    mounted: PathBuf,
    enter: Vec<String>,
}

impl Small {
    /// # Panics
    /// Where the system lets this user mount nothing.
    fn mount(place: &Place) -> Self {
        let mounted = place.at("small");
        fs::create_dir(&mounted).unwrap();
        let mut said = Vec::new();
        // Root may do it as it is; others become root of a user namespace.
        for (unshare, nsenter) in [(&["-m"][..], &["-m"][..]), (&["-r", "-m"], &["-U", "-m"])] {
            match Self::hold(&mounted, unshare, nsenter) {
                Ok(small) => return small,
                Err(why) => said.push(why),
            }
        }
        panic!(
            "this test mounts a tmpfs of {MIB} MiB, which takes root, or user namespaces (unshare -rm, of util-linux; \
             sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns): {said:?}"
        );
    }

    fn hold(mounted: &Path, unshare: &[&str], nsenter: &[&str]) -> Result<Self, String> {
        let script = "mount -t tmpfs -o mode=700,size=\"$1\"m tmpfs \"$0\" && echo mounted && exec cat";
        let mut command = Command::new("unshare");
        command.args(unshare).args(["sh", "-c", script]).arg(mounted).arg(MIB.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut holder = command.spawn().map_err(|error| format!("unshare: {error}"))?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line != "mounted\n" {
            let output = holder.wait_with_output().unwrap();
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        let target = ["-t".to_owned(), holder.id().to_string()];
        let mut enter = vec!["nsenter".to_owned()];
        enter.extend(target.into_iter().chain(nsenter.iter().map(|word| (*word).to_owned())));
        if nsenter.contains(&"-U") {
            enter.push("--preserve-credentials".to_owned());
        }
        Ok(Self { holder, mounted: mounted.to_owned(), enter })
    }

    /// The ballast, as seen from outside.
    fn ballast(&self) -> PathBuf {
        let inside = self.mounted.strip_prefix("/").unwrap();
        Path::new(&format!("/proc/{}/root", self.holder.id())).join(inside).join("ballast")
    }

    /// Takes whatever room there is.
    fn fill(&self) {
        let mut ballast = OpenOptions::new().append(true).create(true).open(self.ballast()).unwrap();
        fill(&mut ballast);
    }

    /// Lets nobody open this file for writing, until [`Self::unprotect`].
    fn protect(&self, file: &Path) {
        let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\"";
        self.run(&["sh", "-c", script], file);
    }

    fn unprotect(&self, file: &Path) {
        self.run(&["umount"], file);
    }

    fn run(&self, words: &[&str], file: &Path) {
        let words = self.enter.iter().map(String::as_str).chain(words.iter().copied());
        let words: Vec<&str> = words.collect();
        let status = Command::new(words[0]).args(&words[1..]).arg(file).status().unwrap();
        assert!(status.success(), "{words:?} {}: {status}", file.display());
    }

    fn empty(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

fn fill(ballast: &mut File) {
    loop {
        match ballast.write(&[0x5a; 4096]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return,
            Err(error) => panic!("{error}"),
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Its end unmounts, once no daemon is left inside.
        let _ended = self.holder.kill();
        let _reaped = self.holder.wait();
    }
}

struct Test {
    place: Place,
    small: Small,
    sink: Sink,
    settings: Settings,
}

impl Test {
    fn new(name: &str) -> Self {
        let place = Place::new(name);
        let small = Small::mount(&place);
        let sink = Sink::start(place.at("sink.sock"));
        let settings = Settings {
            log_dir: small.mounted.join("log"),
            log: "checkpoint_interval = \"30ms\"\nsegment_bytes = \"256KiB\"\nmin_free_bytes = 0".to_owned(),
            ..Settings::new(&place, "process", &[("default", &sink)])
        };
        Self { place, small, sink, settings }
    }

    fn senders(&self) -> Senders {
        Senders::start(&Load {
            door: self.settings.door.clone(),
            senders: 4,
            batch: 1..100,
            payload_bytes: 0..300,
            pause: Duration::from_millis(3),
            spans: u64::MAX,
            seed: 4,
        })
    }

    fn start(&self) -> Daemon {
        let mut daemon = Daemon::spawn(&self.place, &self.settings, &self.small.enter);
        daemon.ready();
        daemon
    }

    /// Ends the load; everything that was acknowledged is to be there.
    fn settle(&self, daemon: Daemon, senders: &Senders, kills: u64) -> Account {
        self.settle_with(daemon, senders, kills, self.settings.repeated_by_a_crash())
    }

    /// The same, where a kill repeats so many spans at most.
    fn settle_with(
        &self,
        daemon: Daemon,
        senders: &Senders,
        kills: u64,
        repeated_by_a_crash: u64,
    ) -> Account {
        let told = senders.finish();
        let seen = settled(&daemon, &["default"]);
        let sinks = BTreeMap::from([("default".to_owned(), self.sink.arrived())]);
        let account = Account { told, sinks, seen, kills, repeated_by_a_crash };
        assert_eq!(account.wrong(), Vec::<String>::new());
        daemon.terminate();
        assert_eq!(daemon.end().0.code(), Some(0));
        account
    }
}

fn goes_on(senders: &Senders) {
    let before = senders.acknowledged();
    until("senders go on", || senders.acknowledged() > before + 500);
}

fn is_full(daemon: &Daemon, senders: &Senders) -> String {
    let before = senders.refused();
    until("all are refused", || senders.refused() > before + 20);
    let mut reason = None;
    until("health says so", || {
        reason = daemon.trouble("span log");
        reason.is_some()
    });
    let seen = daemon.see();
    assert_eq!(seen.stats["balanced"], true, "{}", seen.stats);
    reason.unwrap()
}

fn is_well(daemon: &Daemon, senders: &Senders) -> Seen {
    goes_on(senders);
    until("health is well", || daemon.get("/health")["status"] == "ok");
    daemon.see()
}

#[test]
fn on_a_full_file_system_senders_are_told_to_come_back_until_there_is_room_even_over_a_kill() {
    let _alone = alone();
    let test = Test::new("full");
    let senders = test.senders();
    let mut daemon = test.start();
    for turn in 0..3 {
        let before = is_well(&daemon, &senders);
        let refused = senders.refused();
        until("the file system is full", || {
            // The daemon still lets go of segments, which makes room.
            test.small.fill();
            senders.refused() > refused + 20
        });
        println!("full: {}, and senders are told {:?}", is_full(&daemon, &senders), senders.told().refusal);
        if turn == 2 {
            let acknowledged = senders.acknowledged();
            let full = daemon.see();
            daemon.kill();
            daemon = test.start();
            daemon.restored();
            assert_eq!(continues(&full, &daemon.see(), acknowledged), Vec::<String>::new());
        }
        test.small.empty();
        assert_eq!(continues(&before, &is_well(&daemon, &senders), 0), Vec::<String>::new());
    }
    let account = test.settle(daemon, &senders, 1);
    println!("full: {} spans, {} requests refused", account.told.total(), account.told.refused);
}

#[test]
fn while_a_position_cannot_be_written_no_segment_goes_and_a_kill_only_repeats_what_was_delivered() {
    let _alone = alone();
    let test = Test::new("position");
    let position = test.settings.log_dir.join("positions/default.position");
    let senders = test.senders();
    let daemon = test.start();
    is_well(&daemon, &senders);
    daemon.kill();

    // Nothing moves the position before the file is out of reach.
    test.sink.set(Mode::Down);
    let daemon = test.start();
    daemon.restored();
    test.small.protect(&position);
    let start = daemon.see().log("start");
    test.sink.set(Mode::Up);
    let delivered = test.sink.arrived().arrivals;
    until("several segments are delivered", || test.sink.arrived().arrivals > delivered + 5_000);
    let reason = daemon.trouble("span log").unwrap();
    assert_eq!(reason, "span log cannot write the position of default: Read-only file system (os error 30)");
    let seen = daemon.see();
    assert!(seen.log("segments") > 2, "{}", seen.stats);
    assert_eq!(seen.log("start"), start, "nothing is let go of");
    let acknowledged = senders.acknowledged();
    daemon.kill();

    test.small.unprotect(&position);
    let daemon = test.start();
    daemon.restored();
    assert_eq!(continues(&seen, &daemon.see(), acknowledged), Vec::<String>::new());
    is_well(&daemon, &senders);
    let repeated = test.sink.arrived().arrivals;
    let account = test.settle_with(daemon, &senders, 2, repeated);
    println!("position: {} spans, {} came again", account.told.total(), account.duplicates());
    assert!(account.duplicates() > 5_000);
}

#[test]
fn a_log_that_fills_its_file_system_while_its_destination_is_down_heals_when_that_comes_up() {
    let _alone = alone();
    let test = Test::new("filled");
    let senders = test.senders();
    let daemon = test.start();
    for _ in 0..2 {
        is_well(&daemon, &senders);
        test.sink.set(Mode::Down);
        let refused = senders.refused();
        until("the log has filled its file system", || senders.refused() > refused);
        println!("filled: {}, and senders are told {:?}", is_full(&daemon, &senders), senders.told().refusal);
        test.sink.set(Mode::Up);
    }
    is_well(&daemon, &senders);
    let account = test.settle(daemon, &senders, 0);
    println!("filled: {} spans, {} requests refused", account.told.total(), account.told.refused);
}
