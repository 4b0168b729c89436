//! The known key that an unknown one was probably meant to be.

use super::section::Key;

/// How alike two names must be, from 0 to 1, to be taken for each other.
const ALIKE: f64 = 0.6;

/// The key that is nearest to `name` of the table `path`: one of the same table if that is alike, else one of the same name
/// in another table, else whichever name is alike.
pub(super) fn nearest(name: &str, path: &str, same_table: &[String], all: &[Key]) -> Option<String> {
    let within = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let own = best(name, same_table.iter().map(|known| (known.as_str(), within(known))));
    let leaf = |key: &Key| key.name.rsplit('.').next().unwrap_or_default().to_owned();
    let elsewhere: Vec<(String, String)> = all.iter().map(|key| (leaf(key), key.name.clone())).collect();
    let exact = elsewhere.iter().find(|(leaf, _)| leaf == name).map(|(_, full)| full.clone());
    own.or(exact).or_else(|| best(name, elsewhere.iter().map(|(leaf, full)| (leaf.as_str(), full.clone()))))
}

fn best<'n>(name: &str, candidates: impl Iterator<Item = (&'n str, String)>) -> Option<String> {
    let name = name.to_lowercase().replace('-', "_");
    let rated = candidates.map(|(known, full)| (strsim::normalized_damerau_levenshtein(&name, known), full));
    let alike = rated.filter(|(rate, _)| *rate >= ALIKE);
    // Of several that are equally alike the first.
    alike
        .fold(None, |best: Option<(f64, String)>, found| match best {
            Some(best) if best.0 >= found.0 => Some(best),
            _ => Some(found),
        })
        .map(|(_, full)| full)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suggested(name: &str, path: &str, same_table: &[&str], all: &[&str]) -> Option<String> {
        let same_table: Vec<String> = same_table.iter().map(|&name| name.to_owned()).collect();
        let key = |name: &&str| Key {
            name: (*name).to_owned(),
            meaning: String::new(),
            allowed: String::new(),
            bare: false,
            list: false,
            secret: false,
        };
        nearest(name, path, &same_table, &all.iter().map(key).collect::<Vec<_>>())
    }

    #[test]
    fn a_misspelt_key_is_near_one_of_its_own_table() {
        let all = ["a.timeouts", "shutdown.timeout"];
        assert_eq!(
            suggested("timeouts", "shutdown", &["timeout", "grace"], &all).as_deref(),
            Some("shutdown.timeout")
        );
        assert_eq!(
            suggested("Time-Out", "shutdown", &["timeout"], &all).as_deref(),
            Some("shutdown.timeout")
        );
        assert_eq!(suggested("telemtry", "", &["telemetry", "log"], &[]).as_deref(), Some("telemetry"));
    }

    #[test]
    fn a_key_in_the_wrong_table_is_found_in_its_own() {
        let all = ["telemetry.prometheus_addr", "ingest.grpc.listen"];
        assert_eq!(
            suggested("prometheus_addr", "log", &["dir"], &all).as_deref(),
            Some("telemetry.prometheus_addr")
        );
        assert_eq!(
            suggested("prometheus_address", "", &["log"], &all).as_deref(),
            Some("telemetry.prometheus_addr")
        );
    }

    #[test]
    fn what_is_like_nothing_gets_no_suggestion() {
        assert_eq!(suggested("xyz", "log", &["durability"], &["log.durability"]), None);
    }
}
