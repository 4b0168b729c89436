//! The runner's summary: medians, ratios pair by pair, JSON and a Markdown table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::run::Trial;
use crate::subject::{NYX_MEMORY, ROTEL};
use crate::written::LogCounts;

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) date: String,
    pub(crate) machine: String,
    /// What was measured: name to version.
    pub(crate) versions: BTreeMap<&'static str, String>,
    pub(crate) work: String,
    pub(crate) trials: Vec<Trial>,
    pub(crate) ratios: Vec<Ratio>,
    /// Whether no trial but Rotel's lost, repeated or altered anything: what Rotel does is for the table.
    pub(crate) exact: bool,
}

/// The CPU a span of one subject over that of another, round by round.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Ratio {
    pub(crate) of: &'static str,
    pub(crate) over: &'static str,
    pub(crate) pairs: Vec<f64>,
    pub(crate) median: f64,
}

impl Summary {
    pub(crate) fn new(versions: BTreeMap<&'static str, String>, work: String, trials: Vec<Trial>) -> Self {
        Self {
            date: today(),
            machine: machine(),
            versions,
            work,
            ratios: ratios(&trials),
            exact: trials.iter().all(|trial| trial.subject == ROTEL || trial.is_exact()),
            trials,
        }
    }

    /// The table for docs/performance.md.
    pub(crate) fn markdown(&self) -> String {
        let mut out = String::new();
        let versions: Vec<_> =
            self.versions.iter().map(|(name, version)| format!("{name}: {version}")).collect();
        let _ =
            writeln!(out, "{} · {} · {}\n\n{}\n", self.date, self.machine, versions.join(", "), self.work);
        out.push_str(
            "| program | CPU-s/M spans | spans/s | ack p50 ms | ack p99 ms | idle MB | peak MB | spans an export \
             | exports gzip | missing | twice | altered | rod CPU-s/M |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for trial in &self.trials {
            row(&mut out, trial.subject, &[trial]);
        }
        for subject in subjects(&self.trials) {
            let of_subject = of(&self.trials, subject);
            row(&mut out, &format!("**{subject}, median of {}**", of_subject.len()), &of_subject);
        }
        if self.trials.iter().any(|trial| trial.written.is_some_and(|written| written.log.is_some())) {
            self.writing(&mut out);
        }
        for Ratio { of, over, pairs, median } in &self.ratios {
            let pairs: Vec<_> = pairs.iter().map(f64::to_string).collect();
            let _ =
                writeln!(out, "\nCPU a span of {of} over {over}'s: {} (median {median})", pairs.join(", "));
        }
        out
    }

    /// What went to files, by two counts that know nothing of each other.
    fn writing(&self, out: &mut String) {
        out.push_str(
            "\n| medians | payload MB | written / payload (/stats) | written beyond nyx-memory / sent (kernel, rod) \
             | dirtied / sent (kernel) | groups | spans a group | syncs |\n|---|---|---|---|---|---|---|---|\n",
        );
        let memory = of(&self.trials, NYX_MEMORY);
        for subject in subjects(&self.trials) {
            let trials = of(&self.trials, subject);
            let cell = |figures: Vec<Option<f64>>, digits: usize| {
                let value = median(figures.into_iter().flatten().collect());
                value.map_or("–".to_owned(), |value| format!("{value:.digits$}"))
            };
            let log = |figure: &dyn Fn(&LogCounts, &Trial) -> f64| {
                trials.iter().map(|trial| Some(figure(&trial.written?.log?, trial))).collect()
            };
            let beyond = trials.iter().zip(&memory).map(|(trial, memory)| {
                trial.written?.log?;
                trial.written?.amplification_beyond(&memory.written?, trial.load.bytes)
            });
            let spans = |trial: &Trial| trial.load.acknowledged as f64;
            let cells = [
                subject.to_owned(),
                cell(log(&|log, _| log.payload_bytes as f64 / 1e6), 0),
                cell(trials.iter().map(|trial| trial.written?.amplification()).collect(), 4),
                cell(beyond.collect(), 4),
                cell(trials.iter().map(|trial| trial.dirtied_per_byte()).collect(), 2),
                cell(log(&|log, _| log.groups as f64), 0),
                cell(log(&|log, trial| spans(trial) / log.groups.max(1) as f64), 0),
                cell(log(&|log, _| log.syncs as f64), 0),
            ];
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        }
    }
}

/// What Rotel takes beside each of the others, and each of nyx's forms beside the one in memory.
fn ratios(trials: &[Trial]) -> Vec<Ratio> {
    let ratio = |of_name: &'static str, over: &'static str| {
        let cpu = |name| of(trials, name).into_iter().map(|trial| trial.cpu_s_per_million);
        let pairs = cpu(of_name).zip(cpu(over)).filter_map(|(of, over)| of.zip(over));
        let pairs: Vec<f64> = pairs.map(|(of, over)| hundredths(of / over)).collect();
        let median = hundredths(median(pairs.clone())?);
        Some(Ratio { of: of_name, over, pairs, median })
    };
    let nyx: Vec<_> = subjects(trials).into_iter().filter(|name| *name != ROTEL).collect();
    let to_rotel = nyx.iter().filter_map(|name| ratio(ROTEL, name));
    let to_memory = nyx.iter().filter(|name| **name != NYX_MEMORY).filter_map(|name| ratio(name, NYX_MEMORY));
    to_rotel.chain(to_memory).collect()
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The names of what was measured, each once.
fn subjects(trials: &[Trial]) -> Vec<&'static str> {
    let mut subjects: Vec<_> = trials.iter().map(|trial| trial.subject).collect();
    subjects.sort_unstable();
    subjects.dedup();
    subjects
}

/// The trials of one subject, in the order of the rounds.
fn of<'a>(trials: &'a [Trial], subject: &str) -> Vec<&'a Trial> {
    trials.iter().filter(|trial| trial.subject == subject).collect()
}

/// A row of medians; missing, repeated and altered spans are summed up.
fn row(out: &mut String, name: &str, trials: &[&Trial]) {
    let cell = |figure: &dyn Fn(&Trial) -> Option<f64>, digits: usize| {
        let value = median(trials.iter().filter_map(|trial| figure(trial)).collect());
        value.map_or("–".to_owned(), |value| format!("{value:.digits$}"))
    };
    let sum = |count: fn(&Trial) -> u64| trials.iter().map(|trial| count(trial)).sum::<u64>().to_string();
    let cells = [
        name.to_owned(),
        cell(&|trial| trial.cpu_s_per_million, 3),
        cell(&|trial| Some(trial.spans_per_s), 0),
        cell(&|trial| Some(trial.ack_ms.p50), 1),
        cell(&|trial| Some(trial.ack_ms.p99), 1),
        cell(&|trial| trial.idle_mb, 1),
        cell(&|trial| trial.peak_mb, 1),
        cell(&|trial| Some(trial.spans_per_export), 0),
        cell(&|trial| Some(trial.exports_compressed * 100.0), 0) + " %",
        sum(|trial| trial.sink.missing),
        sum(|trial| trial.sink.counts.duplicates),
        sum(|trial| trial.sink.counts.corrupted + trial.sink.counts.foreign + trial.sink.counts.malformed),
        cell(&|trial| Some(trial.rod_cpu_s_per_million), 3),
    ];
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

/// The middle value; of an even number the mean of the two.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    match values.len() % 2 {
        0 => values.get(values.len() / 2 - 1).map(|lower| (lower + upper) / 2.0),
        _ => Some(upper),
    }
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = model.map_or("unknown processor", |(_, model)| model);
    format!("{cores} cores ({model}), Linux {}", kernel.trim())
}

fn today() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    date(since.as_secs() / 86_400)
}

/// The date of a day counted from 1970-01-01 (Hinnant: "chrono-compatible low-level date algorithms").
fn date(day: u64) -> String {
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{}-{month:02}-{of_month:02}", year + era * 400 + next_year)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load;
    use crate::written::{Io, Written};

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_middle_values() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    fn trial(subject: &'static str, cpu_s_per_million: f64, written: Written) -> Trial {
        Trial {
            subject,
            cpu_s_per_million: Some(cpu_s_per_million),
            load: load::Report { acknowledged: 1_000, bytes: 350_000, ..load::Report::default() },
            written: Some(written),
            ..Trial::default()
        }
    }

    fn written(wchar: u64, write_bytes: u64, log: Option<LogCounts>) -> Written {
        Written { log, kernel: Some(Io { wchar, write_bytes }) }
    }

    #[test]
    fn forms_of_the_log_are_held_against_rotel_and_the_memory_form_round_by_round() {
        let mut trials = Vec::new();
        for (memory, process, rotel) in [(0.5, 1.0, 6.0), (0.6, 0.9, 6.3), (0.5, 0.75, 4.5)] {
            trials.push(trial("nyx-process", process, Written::default()));
            trials.push(trial("rotel", rotel, Written::default()));
            trials.push(trial("nyx-memory", memory, Written::default()));
        }
        let ratio = |of, over, pairs: [f64; 3], median| Ratio { of, over, pairs: pairs.to_vec(), median };
        assert_eq!(
            ratios(&trials),
            [
                ratio("rotel", "nyx-memory", [12.0, 10.5, 9.0], 10.5),
                ratio("rotel", "nyx-process", [6.0, 7.0, 6.0], 6.0),
                ratio("nyx-process", "nyx-memory", [2.0, 1.5, 1.5], 1.5),
            ]
        );
    }

    #[test]
    fn what_was_written_is_shown_by_the_daemons_count_and_by_the_kernels() {
        let log = LogCounts { groups: 20, syncs: 21, payload_bytes: 350_000, written_bytes: 357_000 };
        let trials = vec![
            trial("nyx-memory", 0.5, written(353_500, 0, None)),
            trial("nyx-power", 0.8, written(714_000, 420_000, Some(log))),
            trial("rotel", 6.0, written(100_000, 0, None)),
        ];
        let summary = Summary::new(BTreeMap::new(), String::new(), trials);
        let markdown = summary.markdown();
        let rows: Vec<_> =
            markdown.lines().skip_while(|line| !line.starts_with("| medians")).skip(2).collect();
        assert_eq!(
            rows,
            [
                "| nyx-memory | – | – | – | 0.00 | – | – | – |",
                "| nyx-power | 0 | 1.0200 | 1.0300 | 1.20 | 20 | 50 | 21 |",
                "| rotel | – | – | – | 0.00 | – | – | – |",
                "",
                "CPU a span of rotel over nyx-memory's: 12 (median 12)",
                "",
                "CPU a span of rotel over nyx-power's: 7.5 (median 7.5)",
                "",
                "CPU a span of nyx-power over nyx-memory's: 1.6 (median 1.6)",
            ]
        );
    }

    #[test]
    fn days_are_dates() {
        assert_eq!(
            [0, 59, 11_016, 20_453].map(date),
            ["1970-01-01", "1970-03-01", "2000-02-29", "2025-12-31"]
        );
    }
}
