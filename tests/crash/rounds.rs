//! Rounds of start, load and kill on one folder.

use std::{collections::BTreeMap, fmt, thread, time::Duration};

use serde_json::Value;

use super::{
    account::{Account, continues},
    alone,
    daemon::{Daemon, Place, Seen, Settings, until, until_no_progress},
    senders::{Load, Senders, Told},
    sink::{Mode, Sink},
    spans::mix,
};

const SINKS: [&str; 2] = ["default", "second"];
/// Every third kill comes within this time after the start.
const EARLY_MS: u64 = 200;
/// The others come within this time after the daemon is ready.
const LATE_MS: u64 = 400;

/// Rounds.
#[derive(Debug, Clone)]
pub(crate) struct Rounds {
    pub(crate) name: &'static str,
    pub(crate) durability: &'static str,
    pub(crate) count: u64,
    pub(crate) seed: u64,
    /// Whether the rounds end with a kill; without, the harness itself is tried.
    pub(crate) kills: bool,
    /// A span that the first sink acknowledges and forgets.
    pub(crate) forget: Option<u64>,
}

/// What a test prints of them.
pub(crate) struct Summary {
    pub(crate) account: Account,
    rounds: u64,
    seed: u64,
    /// How often the daemons said what.
    said: BTreeMap<String, u64>,
    starts: Starts,
    elapsed: Duration,
}

/// Where the kills found the daemons.
#[derive(Debug, Default, Clone, Copy)]
struct Starts {
    /// Killed before they were ready.
    unready: u64,
    /// Had a checkpoint, and spans to count behind it.
    caught_up: u64,
    /// Had a checkpoint, and nothing behind it.
    restored: u64,
}

impl Summary {
    /// Whether the kills came where they prove something: before and behind the start's end, and with and without spans
    /// behind the checkpoint.
    pub(crate) fn assert_meets_every_case(&self) {
        let Starts { unready, caught_up, restored } = self.starts;
        assert!(unready.min(caught_up).min(restored) > 0, "{:?}", self.starts);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { account, rounds, seed, said, starts, elapsed } = self;
        let Starts { unready, caught_up, restored } = starts;
        let Told { cut_off, refused, unsent, .. } = account.told;
        write!(
            f,
            "seed {seed}: {rounds} rounds in {elapsed:.0?}, {} kills, {unready} before ready; {} starts with a checkpoint, \
             {caught_up} with spans behind it; {} spans acknowledged, {} in the log, {cut_off} cut off; \
             {refused} requests refused, {unsent} found nobody; {} duplicates at most at a sink, {} allowed; \
             the daemons said {said:#?}",
            account.kills,
            caught_up + restored,
            account.told.total(),
            account.seen.log("end"),
            account.duplicates(),
            account.duplicates_max(),
        )
    }
}

/// A fixed sequence of random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % limit
    }

    fn pause(&mut self, ms_max: u64) {
        // A little sooner or later does not matter to an instant that is random anyway.
        thread::park_timeout(Duration::from_micros(self.below(ms_max * 1_000)));
    }

    /// Mostly up.
    fn mode(&mut self) -> Mode {
        match self.below(10) {
            0 => Mode::Refusing,
            1 => Mode::Silent,
            2 | 3 => Mode::Down,
            _ => Mode::Up,
        }
    }
}

impl Rounds {
    /// Kills, and settles at the end.
    ///
    /// # Errors
    /// What is wrong between two rounds, or at the end.
    pub(crate) fn run(&self) -> Result<Summary, Vec<String>> {
        let _alone = alone();
        let began = tokio::time::Instant::now();
        let place = Place::new(self.name);
        let sinks = SINKS.map(|name| Sink::start(place.at(&format!("{name}.sock"))));
        if let Some(number) = self.forget {
            sinks[0].forget(number);
        }
        let settings = self.settings(&place, &sinks);
        let load = Load {
            door: settings.door.clone(),
            senders: 8,
            batch: 1..100,
            payload_bytes: 0..300,
            pause: Duration::from_millis(3),
            spans: u64::MAX,
            seed: self.seed,
        };
        let senders = Senders::start(&load);
        let mut run = Run {
            rounds: self,
            place: &place,
            settings: &settings,
            sinks: &sinks,
            senders: &senders,
            random: Random(self.seed),
            last: None,
            said: BTreeMap::new(),
            starts: Starts::default(),
        };
        let mut daemon = None;
        for round in 0..self.count {
            daemon = run.round(round, daemon.take()).map_err(|wrong| self.at(round, wrong))?;
        }
        let account = run.settle(daemon).map_err(|wrong| self.at(self.count, wrong))?;
        let Run { said, starts, .. } = run;
        Ok(Summary { account, rounds: self.count, seed: self.seed, said, starts, elapsed: began.elapsed() })
    }

    fn at(&self, round: u64, mut wrong: Vec<String>) -> Vec<String> {
        wrong.insert(0, format!("after {round} rounds of seed {}", self.seed));
        wrong
    }

    fn settings(&self, place: &Place, sinks: &[Sink; 2]) -> Settings {
        let named = [(SINKS[0], &sinks[0]), (SINKS[1], &sinks[1])];
        let mut settings = Settings::new(place, self.durability, &named);
        if self.durability != "memory" {
            settings.log = "checkpoint_interval = \"30ms\"\nsegment_bytes = \"256KiB\"".to_owned();
        }
        settings
    }
}

struct Run<'a> {
    rounds: &'a Rounds,
    place: &'a Place,
    settings: &'a Settings,
    sinks: &'a [Sink; 2],
    senders: &'a Senders,
    random: Random,
    /// What was seen last, before the last kill.
    last: Option<Seen>,
    said: BTreeMap<String, u64>,
    starts: Starts,
}

impl Run<'_> {
    /// One round; the daemon that still runs, where nothing is killed.
    fn round(&mut self, round: u64, running: Option<Daemon>) -> Result<Option<Daemon>, Vec<String>> {
        self.change_sinks();
        if self.rounds.kills && round % 3 == 2 {
            let daemon = Daemon::spawn(self.place, self.settings, &[]);
            // Half of these while it starts.
            self.random.pause(if round.is_multiple_of(2) { EARLY_MS / 10 } else { EARLY_MS });
            return self.note(daemon.kill()).map(|()| None);
        }
        let daemon = match running {
            Some(daemon) => daemon,
            None => self.start()?,
        };
        self.random.pause(LATE_MS / 2);
        if self.random.below(2) == 0 {
            self.change_sinks();
        }
        self.random.pause(LATE_MS / 2);
        if !self.rounds.kills {
            return Ok(Some(daemon));
        }
        self.last = Some(daemon.see());
        self.random.pause(EARLY_MS / 10);
        self.note(daemon.kill()).map(|()| None)
    }

    fn change_sinks(&mut self) {
        for sink in self.sinks {
            sink.set(self.random.mode());
        }
    }

    /// Starts a daemon, and compares it with the one before.
    fn start(&mut self) -> Result<Daemon, Vec<String>> {
        let acknowledged = self.senders.acknowledged();
        let mut daemon = Daemon::spawn(self.place, self.settings, &[]);
        daemon.ready();
        daemon.restored();
        let seen = daemon.see();
        let wrong = self.last.as_ref().map_or_else(Vec::new, |last| continues(last, &seen, acknowledged));
        self.last = Some(seen);
        if wrong.is_empty() {
            return Ok(daemon);
        }
        self.note(daemon.kill())?;
        Err(wrong)
    }

    /// Counts what a daemon said; an error is wrong.
    fn note(&mut self, lines: Vec<Value>) -> Result<(), Vec<String>> {
        let mut wrong = Vec::new();
        self.starts.unready += u64::from(lines.iter().all(|line| line["message"] != "ready"));
        for line in lines {
            match line["behind"].as_u64() {
                Some(0) => self.starts.restored += 1,
                Some(_) => self.starts.caught_up += 1,
                None => {}
            }
            let panicked = line.as_str().is_some_and(|line| line.contains("panicked"));
            if line["level"] == "ERROR" || panicked {
                wrong.push(format!("a daemon said {line}"));
            }
            if let Some(message) = line["message"].as_str() {
                *self.said.entry(message.to_owned()).or_default() += 1;
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// The end: one more start, everything settles, and an orderly stop leaves nothing to the next.
    fn settle(&mut self, running: Option<Daemon>) -> Result<Account, Vec<String>> {
        let daemon = match running {
            Some(daemon) => daemon,
            None => self.start()?,
        };
        for sink in self.sinks {
            sink.set(Mode::Up);
        }
        let before = self.senders.acknowledged();
        until("senders go on", || self.senders.acknowledged() > before + 100);
        let told = self.senders.finish();
        let seen = settled(&daemon, &SINKS);
        let account = Account {
            told,
            sinks: SINKS
                .iter()
                .zip(self.sinks)
                .map(|(name, sink)| ((*name).to_owned(), sink.arrived()))
                .collect(),
            seen,
            kills: if self.rounds.kills { self.rounds.count } else { 0 },
            repeated_by_a_crash: self.settings.repeated_by_a_crash(),
        };
        daemon.terminate();
        let (status, lines) = daemon.end();
        self.note(lines)?;
        let mut wrong = account.wrong();
        if status.code() != Some(0) {
            wrong.push(format!("the last daemon ended with {status}"));
        }
        if self.rounds.durability != "memory" {
            self.last = Some(account.seen.clone());
            let daemon = self.start()?;
            let again = Account { seen: settled(&daemon, &SINKS), ..account.clone() };
            wrong.extend(again.wrong().into_iter().map(|what| format!("after an orderly stop: {what}")));
            self.note(daemon.kill())?;
        }
        if wrong.is_empty() { Ok(account) } else { Err(wrong) }
    }
}

/// Waits until each destination has everything and the metrics have counted it: what is to be seen then.
pub(crate) fn settled(daemon: &Daemon, destinations: &[&str]) -> Seen {
    let mut seen = daemon.see();
    until_no_progress("everything is settled", || {
        seen = daemon.see();
        let queued: u64 = destinations.iter().map(|name| seen.destination(name, "queued")).sum();
        let counted = seen.counted();
        // Counting more than there is does not settle either; the account says what is wrong.
        ((queued, counted), queued == 0 && counted >= seen.log("end"))
    });
    seen
}
