//! What has to hold of a daemon that was killed. Each function names whatever does not.

use std::collections::BTreeMap;

use super::{
    daemon::Seen,
    senders::Told,
    sink::Arrived,
    spans::{number, sender_of},
};

/// What a daemon shows after a start, beside what the one before it showed last.
pub(crate) fn continues(before: &Seen, after: &Seen, acknowledged: u64) -> Vec<String> {
    let mut wrong = at_any_time(after);
    for (series, count) in &before.counts {
        match after.counts.get(series) {
            Some(now) if now >= count => {}
            now => wrong.push(format!("the counter {series} was {count} and is {now:?}")),
        }
        let (then, now) = (before.created.get(series), after.created.get(series));
        if now.is_some() && then != now {
            wrong.push(format!("the counter {series} was created {then:?}, now {now:?}"));
        }
    }
    let (was, is) = (before.log("end"), after.log("end"));
    if is < was || is < acknowledged {
        wrong.push(format!("the log ended at {was} with {acknowledged} acknowledged, and ends at {is}"));
    }
    wrong
}

fn at_any_time(seen: &Seen) -> Vec<String> {
    let unbalanced = seen.stats["balanced"] != true;
    unbalanced.then(|| format!("an account does not balance: {}", seen.stats)).into_iter().collect()
}

/// Everything that is known when all is settled.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) told: Told,
    /// What each destination's sink has.
    pub(crate) sinks: BTreeMap<String, Arrived>,
    /// What the last daemon shows.
    pub(crate) seen: Seen,
    pub(crate) kills: u64,
    /// Spans that a destination may see again after each kill.
    pub(crate) repeated_by_a_crash: u64,
}

impl Account {
    /// Spans that a sink may have more than once.
    pub(crate) fn duplicates_max(&self) -> u64 {
        self.told.cut_off + self.kills * self.repeated_by_a_crash
    }

    pub(crate) fn duplicates(&self) -> u64 {
        let of = |sink: &Arrived| sink.arrivals - sink.times.len() as u64;
        self.sinks.values().map(of).max().unwrap_or_default()
    }

    /// Whatever is not as it has to be; nothing, where all is well.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let mut wrong = at_any_time(&self.seen);
        wrong.extend(self.told.wrong.iter().map(|words| format!("a sender was told {words}")));
        wrong.extend(self.wrong_counts());
        for (name, sink) in &self.sinks {
            wrong.extend(self.wrong_at(name, sink).into_iter().map(|what| format!("{name}: {what}")));
        }
        wrong
    }

    fn wrong_counts(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let (acknowledged, end) = (self.told.total(), self.seen.log("end"));
        let most = acknowledged + self.told.cut_off;
        if !(acknowledged..=most).contains(&end) {
            wrong.push(format!("the log has taken {end} spans, not {acknowledged} to {most}"));
        }
        let counted = self.seen.counted();
        if counted != end {
            wrong.push(format!("the span metrics count {counted} of {end} spans"));
        }
        wrong
    }

    fn wrong_at(&self, name: &str, sink: &Arrived) -> Vec<String> {
        let mut wrong = sink.altered.clone();
        let acknowledged = |number: &u64| {
            let (sender, sequence) = sender_of(*number);
            self.told.acknowledged.get(&sender).is_some_and(|spans| sequence < *spans)
        };
        let sent = self.told.acknowledged.iter();
        let missing: Vec<u64> = sent
            .flat_map(|(sender, spans)| (0..*spans).map(|sequence| number(*sender, sequence)))
            .filter(|number| !sink.times.contains_key(number))
            .collect();
        if let Some(first) = missing.first() {
            let count = missing.len();
            wrong.push(format!("{count} acknowledged spans are missing, {:?} the first", sender_of(*first)));
        }
        let strange = sink.times.keys().filter(|number| !acknowledged(number)).count();
        if strange > 0 {
            wrong.push(format!("{strange} spans arrived that nobody sent"));
        }
        let (duplicates, most) = (sink.arrivals - sink.times.len() as u64, self.duplicates_max());
        if duplicates > most {
            wrong.push(format!("{duplicates} duplicates, more than {most}"));
        }

        let of = |key: &str| self.seen.destination(name, key);
        let (start, end, exported) = (of("start"), of("end"), of("exported"));
        let dropped: u64 = {
            let reasons = self.seen.stats["destinations"][name]["dropped"].as_object().unwrap();
            reasons.values().map(|count| count.as_u64().unwrap()).sum()
        };
        if (start, end, exported) != (0, self.seen.log("end"), self.seen.log("end")) {
            wrong.push(format!("of spans {start} to {end} {exported} are exported"));
        }
        if (of("queued"), of("sampled_out"), dropped) != (0, 0, 0) {
            let (queued, sampled_out) = (of("queued"), of("sampled_out"));
            wrong.push(format!("{queued} are queued, {sampled_out} sampled out, {dropped} dropped"));
        }
        // What the log has is exported once, and again only after a crash.
        let again = sink.arrivals.saturating_sub(exported);
        if again > self.kills * self.repeated_by_a_crash || sink.arrivals < exported {
            wrong.push(format!("{} arrivals of {exported} exported spans", sink.arrivals));
        }
        wrong
    }
}
