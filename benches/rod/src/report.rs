//! The runner's summary: medians, ratios pair by pair, JSON and a Markdown table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::run::Trial;

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) date: String,
    pub(crate) machine: String,
    /// What was measured: name to version.
    pub(crate) versions: BTreeMap<&'static str, String>,
    pub(crate) work: String,
    pub(crate) trials: Vec<Trial>,
    /// Rotel's CPU a span over nyx's, pair by pair.
    pub(crate) ratios: Vec<f64>,
    pub(crate) ratio_median: Option<f64>,
    /// Whether no trial but Rotel's lost, repeated or altered anything: what Rotel does is for the table.
    pub(crate) exact: bool,
}

impl Summary {
    pub(crate) fn new(versions: BTreeMap<&'static str, String>, work: String, trials: Vec<Trial>) -> Self {
        let cpu = |subject| {
            let of_subject = trials.iter().filter(move |trial| trial.subject == subject);
            of_subject.filter_map(|trial| trial.cpu_s_per_million)
        };
        let ratio = |(nyx, rotel): (f64, f64)| (rotel / nyx * 100.0).round() / 100.0;
        let ratios: Vec<f64> = cpu("nyx").zip(cpu("rotel")).map(ratio).collect();
        Self {
            date: today(),
            machine: machine(),
            versions,
            work,
            ratio_median: median(ratios.clone()),
            ratios,
            exact: trials.iter().all(|trial| trial.subject == "rotel" || trial.is_exact()),
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
        let mut subjects: Vec<_> = self.trials.iter().map(|trial| trial.subject).collect();
        subjects.sort_unstable();
        subjects.dedup();
        for subject in subjects {
            let of_subject: Vec<_> = self.trials.iter().filter(|trial| trial.subject == subject).collect();
            row(&mut out, &format!("**{subject}, median of {}**", of_subject.len()), &of_subject);
        }
        if let Some(median) = self.ratio_median {
            let pairs: Vec<_> = self.ratios.iter().map(f64::to_string).collect();
            let _ = writeln!(out, "\nRotel's CPU a span over nyx's: {} (median {median})", pairs.join(", "));
        }
        out
    }
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

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_middle_values() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn days_are_dates() {
        assert_eq!(
            [0, 59, 11_016, 20_453].map(date),
            ["1970-01-01", "1970-03-01", "2000-02-29", "2025-12-31"]
        );
    }
}
