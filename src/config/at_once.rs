//! Which keys take effect at SIGHUP: one list, which the reload follows and the reference shows.

/// Keys that do, and tables of which all keys do; `NAME` stands for a destination's name.
const AT_ONCE: &[&str] = &[
    "export.NAME",
    "ingest.grpc.tls",
    "ingest.http.tls",
    "ingest.token_file",
    "metrics.dimensions",
    "metrics.expire_after",
    "metrics.max_series",
    "metrics.profile",
    "metrics.seed_families",
    "telemetry.otlp_endpoint",
    "telemetry.otlp_sampling_rate",
    "telemetry.prometheus_token_file",
    "telemetry.span_export_enabled",
    "tracing.burst",
    "tracing.level",
];

/// Whether a key takes effect at SIGHUP; all others do with the next start.
pub fn takes_effect_at_once(key: &str) -> bool {
    let named = match key.strip_prefix("export.").and_then(|rest| rest.split_once('.')) {
        Some((_, leaf)) => format!("export.NAME.{leaf}"),
        None => key.to_owned(),
    };
    let is_of = |table: &&str| {
        named.strip_prefix(*table).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    AT_ONCE.iter().any(is_of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys;

    #[test]
    fn every_entry_of_the_list_is_a_key_or_a_table_of_keys() {
        let keys = keys().keys;
        for entry in AT_ONCE {
            let is_of = |key: &str| {
                key.strip_prefix(entry).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            assert!(keys.iter().any(|key| is_of(&key.name)), "{entry}");
        }
    }

    #[test]
    fn a_key_of_any_destination_is_one_of_the_list() {
        assert!(takes_effect_at_once("export.archive.batch.max_spans"));
        assert!(takes_effect_at_once("export.NAME.timeout"));
        assert!(takes_effect_at_once("export.archive.start"), "for one that comes");
        assert!(!takes_effect_at_once("tracing.format") && !takes_effect_at_once("tracing"));
    }
}
