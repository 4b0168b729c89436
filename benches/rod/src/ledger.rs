//! What the measured daemon says of itself on `/stats`, held against what the rod sent and the sink received.

use serde_json::Value;

use crate::subject::Durability;

/// What a log on disk counts when something went wrong.
const LOG_FAULTS: [&str; 7] = [
    "write_errors",
    "sync_errors",
    "read_errors",
    "damaged_spans",
    "quarantined_bytes",
    "torn_bytes",
    "evicted_spans",
];

/// Checks the daemon's page: everything that was `sent` accepted, everything accepted exported, nothing left over, and
/// the log of the form that was asked for and without a fault. The faults found, in words; none if the ledger agrees.
pub(crate) fn disagreements(stats: &Value, sent: u64, durability: Durability) -> Vec<String> {
    let mut faults = of_spans(stats, sent);
    faults.extend(of_log(stats.get("log"), durability));
    faults
}

/// A daemon that measured itself in another form than it was told would be measured under a wrong name.
fn of_log(log: Option<&Value>, durability: Durability) -> Vec<String> {
    let mut faults = Vec::new();
    let (is, should) = (log.and_then(|log| log.get("durability")?.as_str()), durability.label());
    if is != Some(should) {
        faults.push(format!("log.durability is {}, expected {should}", is.unwrap_or("absent")));
    }
    for key in LOG_FAULTS {
        let count = total(log, key);
        if count != 0 {
            faults.push(format!("log.{key} is {count}, expected 0"));
        }
    }
    let mut expect_some = |key: &str| {
        if number(log, key).unwrap_or_default() == 0 {
            faults.push(format!("log.{key} is 0 or absent, expected more"));
        }
    };
    if durability != Durability::Memory {
        expect_some("payload_bytes");
        expect_some("written_bytes");
    }
    if durability == Durability::Power {
        expect_some("syncs");
    }
    faults
}

fn of_spans(stats: &Value, sent: u64) -> Vec<String> {
    let mut faults = Vec::new();
    let mut expect = |what: String, is: Option<u64>, should: u64| {
        if is != Some(should) {
            let is = is.map_or("absent".to_owned(), |is| is.to_string());
            faults.push(format!("{what} is {is}, expected {should}"));
        }
    };
    let spans = stats.get("spans");
    expect("spans.scanned".into(), number(spans, "scanned"), sent);
    expect("spans.accepted".into(), number(spans, "accepted"), sent);
    expect("spans.rejected".into(), Some(total(spans, "rejected")), 0);
    let destinations = stats.get("destinations").and_then(Value::as_object);
    expect("the number of destinations".into(), destinations.map(|all| all.len() as u64), 1);
    for (name, destination) in destinations.into_iter().flatten() {
        let destination = Some(destination);
        expect(format!("destinations.{name}.exported"), number(destination, "exported"), sent);
        for key in ["sampled_out", "dropped", "queued"] {
            expect(format!("destinations.{name}.{key}"), Some(total(destination, key)), 0);
        }
    }
    faults
}

fn number(page: Option<&Value>, key: &str) -> Option<u64> {
    page?.get(key)?.as_u64()
}

/// The number at `key`, or the sum of the numbers by reason there; 0 if it is absent.
fn total(page: Option<&Value>, key: &str) -> u64 {
    match page.and_then(|page| page.get(key)) {
        Some(Value::Object(reasons)) => reasons.values().filter_map(Value::as_u64).sum(),
        Some(value) => value.as_u64().unwrap_or_default(),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_balanced_page_agrees() {
        let stats = json!({
            "log": { "durability": "power", "payload_bytes": 9, "written_bytes": 9, "syncs": 1, "torn_bytes": 0 },
            "spans": { "scanned": 9, "accepted": 9, "rejected": {} },
            "destinations": { "default": {
                "exported": 9, "sampled_out": 0, "dropped": { "rejected": 0 }, "queued": 0
            } }
        });
        assert_eq!(disagreements(&stats, 9, Durability::Power), Vec::<String>::new());
    }

    #[test]
    fn each_figure_that_is_off_is_named() {
        let stats = json!({
            "spans": { "scanned": 9, "accepted": 8, "rejected": { "invalid": 1 } },
            "destinations": { "default": {
                "exported": 6, "sampled_out": 0, "dropped": { "rejected": 1 }, "queued": 1
            } }
        });
        assert_eq!(
            of_spans(&stats, 9),
            [
                "spans.accepted is 8, expected 9",
                "spans.rejected is 1, expected 0",
                "destinations.default.exported is 6, expected 9",
                "destinations.default.dropped is 1, expected 0",
                "destinations.default.queued is 1, expected 0",
            ]
        );
    }
    #[test]
    fn a_log_of_another_form_or_with_a_fault_is_named() {
        assert_eq!(of_log(None, Durability::Memory), ["log.durability is absent, expected memory"]);
        let log =
            json!({ "durability": "process", "payload_bytes": 9, "written_bytes": 9, "write_errors": 2 });
        assert_eq!(of_log(Some(&log), Durability::Process), ["log.write_errors is 2, expected 0"]);
        assert_eq!(
            of_log(Some(&log), Durability::Power),
            [
                "log.durability is process, expected power",
                "log.write_errors is 2, expected 0",
                "log.syncs is 0 or absent, expected more",
            ]
        );
        let memory = json!({ "durability": "memory" });
        assert_eq!(of_log(Some(&memory), Durability::Memory), Vec::<String>::new());
    }
}
