//! SIGHUP: the configuration is read again, judged as at the start, and what can change while the daemon runs is swapped.
//! A configuration that is not valid changes nothing, and `/health` says so until one is.

use nyx_telemetry::{bearer::Tokens, export::DestinationConfig, tree::Running};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    config::{Config, Loaded, Sources, takes_effect_at_once},
    exit::{Failure, UNAVAILABLE},
    gates::Gates,
    logging::{self, Logging},
};

/// The files of tokens, in which others may stand by now.
const DOORS: &str = "ingest.token_file";
const PAGES: &str = "telemetry.prometheus_token_file";
/// The destination that `telemetry.otlp_endpoint` and `telemetry.otlp_sampling_rate` describe.
const DEFAULT: &str = "default";

/// Reads the configuration again when it is told to.
pub struct Reload {
    sources: Sources,
    /// What the daemon was started with.
    started: Loaded,
    /// What holds of that and of what came since.
    current: Loaded,
    logging: Logging,
    gates: Gates,
    hangup: Signal,
}

/// What a new configuration changes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    /// Keys that take effect now.
    at_once: Vec<String>,
    /// Keys that differ from what the daemon was started with, and take effect with its next start.
    at_restart: Vec<String>,
}

impl Reload {
    /// From now on SIGHUP no longer ends the process. `loaded` is what `sources` gave for the start.
    ///
    /// # Errors
    /// [`UNAVAILABLE`] where the system gives no handler.
    pub fn new(sources: Sources, loaded: Loaded, logging: Logging) -> Result<Self, Failure> {
        let hangup = signal(SignalKind::hangup())
            .map_err(|error| Failure::new(UNAVAILABLE, format!("no handler for signals: {error}")))?;
        let (started, gates) = (loaded.clone(), Gates::default());
        Ok(Self { sources, started, current: loaded, logging, gates, hangup })
    }

    /// These are the gates that a new configuration gives other tokens.
    #[must_use]
    pub fn with_gates(self, gates: Gates) -> Self {
        Self { gates, ..self }
    }

    /// Waits for SIGHUP.
    pub(crate) async fn asked(&mut self) {
        self.hangup.recv().await;
    }

    /// Reads the configuration, and swaps what can be swapped.
    pub(crate) async fn reload(&mut self, tree: &Running) {
        match self.read() {
            Ok(loaded) => self.apply(loaded, tree).await,
            Err(problems) => {
                tracing::error!(
                    problems = problems.len(),
                    "the configuration was not reloaded, and the one before stays: {}",
                    problems.join("; ")
                );
                let first = problems.first().map(String::as_str).unwrap_or_default();
                let more = match problems.len() {
                    0 | 1 => String::new(),
                    problems => format!(" (and {} more)", problems - 1),
                };
                tree.observed().reloaded(Err(format!("{first}{more}")));
            }
        }
    }

    fn read(&self) -> Result<Loaded, Vec<String>> {
        let loaded = self.sources.load().map_err(|invalid| invalid.problems)?;
        logging::filter(loaded.config.tracing.level, &self.sources.environment)
            .map_err(|failure| vec![failure.message])?;
        Ok(loaded)
    }

    async fn apply(&mut self, loaded: Loaded, tree: &Running) {
        let changes = changes(&self.started, &self.current, &loaded);
        // It was read a moment ago.
        if let Err(failure) = self.logging.change(&loaded.config.tracing) {
            tracing::warn!("{failure}");
        }
        self.gates.set(&loaded.config);
        for destination in reconfigured(&self.current.config, &loaded.config) {
            if let Err(error) = tree.reconfigure(destination).await {
                tracing::error!(%error, "the destination keeps its settings");
            }
        }
        for notice in &loaded.notices {
            tracing::info!("{notice}");
        }
        for warning in loaded.warnings.iter().filter(|warning| !self.current.warnings.contains(warning)) {
            tracing::warn!("{warning}");
        }
        let listed = |keys: &[String]| (!keys.is_empty()).then(|| keys.join(", "));
        let (changed, needs_restart) = (listed(&changes.at_once), listed(&changes.at_restart));
        if needs_restart.is_some() {
            tracing::warn!(changed, needs_restart, "configuration reloaded; some of it needs a restart");
        } else {
            tracing::info!(changed, "configuration reloaded");
        }
        tree.observed().reloaded(Ok(()));
        self.current = loaded;
    }
}

/// The destinations that both have and that are to change; those with files of TLS always, since what is in the files may have
/// changed.
fn reconfigured<'n>(current: &'n Config, new: &'n Config) -> impl Iterator<Item = &'n DestinationConfig> {
    new.export.iter().filter(|new| {
        let same = current.export.iter().find(|current| current.name == new.name);
        same.is_some_and(|current| current != *new || !new.tls.is_empty())
    })
}

/// Each file of tokens with what is in it.
fn tokens(config: &Config) -> [(&'static str, Option<&Tokens>); 2] {
    let files = [(DOORS, &config.ingest.token_file), (PAGES, &config.telemetry.prometheus_token_file)];
    files.map(|(key, file)| (key, file.as_ref().map(|file| &file.tokens)))
}

fn changes(started: &Loaded, current: &Loaded, new: &Loaded) -> Changes {
    let runs = |name: &str| {
        [&started.config, &new.config]
            .iter()
            .all(|config| config.export.iter().any(|destination| destination.name == name))
    };
    let at_once = |key: &String| {
        let of = match key.strip_prefix("export.").and_then(|rest| rest.split_once('.')) {
            Some((name, _)) => Some(name),
            None => key.starts_with("telemetry.otlp_").then_some(DEFAULT),
        };
        takes_effect_at_once(key) && of.is_none_or(runs)
    };
    let mut now: Vec<String> = new.differing_keys(current).into_iter().filter(at_once).collect();
    for ((key, tokens), (_, before)) in tokens(&new.config).into_iter().zip(tokens(&current.config)) {
        if tokens != before && !now.iter().any(|named| named == key) {
            now.push(key.to_owned());
        }
    }
    Changes {
        at_once: now,
        at_restart: new.differing_keys(started).into_iter().filter(|key| !at_once(key)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(flags: &[(&str, &str)]) -> Loaded {
        let flags = flags.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        Sources { flags, ..Sources::default() }.load().unwrap()
    }

    fn changed(from: &[(&str, &str)], to: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let from = loaded(from);
        let Changes { at_once, at_restart } = changes(&from, &from, &loaded(to));
        (at_once, at_restart)
    }

    fn keys(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|&key| key.to_owned()).collect()
    }

    #[test]
    fn what_can_change_takes_effect_and_the_rest_is_named() {
        let to = [
            ("tracing.level", "debug"),
            ("tracing.format", "json"),
            ("telemetry.otlp_sampling_rate", "0.5"),
            ("telemetry.service_name", "other"),
            ("export.default.timeout", "5s"),
            ("export.default.batch.max_spans", "1000"),
            ("export.default.start", "beginning"),
            ("log.max_bytes", "1TiB"),
        ];
        let (at_once, at_restart) = changed(&[], &to);
        assert_eq!(
            at_once,
            keys(&[
                "telemetry.otlp_sampling_rate",
                "tracing.level",
                "export.default.timeout",
                "export.default.batch.max_spans"
            ])
        );
        assert_eq!(
            at_restart,
            keys(&["telemetry.service_name", "log.max_bytes", "tracing.format", "export.default.start"])
        );
    }

    #[test]
    fn the_same_configuration_from_elsewhere_changes_nothing() {
        assert_eq!(changed(&[], &[("tracing.level", "info")]), (vec![], vec![]));
    }

    #[test]
    fn a_destination_with_files_of_tls_gets_them_anew_though_their_names_are_the_same() {
        let mut config = loaded(&[("telemetry.otlp_endpoint", "https://c")]).config;
        assert_eq!(reconfigured(&config, &config).count(), 0);
        config.export[0].tls.ca_file = Some("/etc/nyx/ca.pem".into());
        assert_eq!(reconfigured(&config, &config).count(), 1);
    }

    #[test]
    fn a_destination_that_comes_or_goes_needs_a_restart() {
        let archive = [("export.archive.endpoint", "http://archive:1")];
        for (from, to) in [(&[][..], &archive[..]), (&archive, &[])] {
            let (at_once, at_restart) = changed(from, to);
            assert_eq!(at_once, keys(&[]));
            assert!(at_restart.contains(&"export.archive.endpoint".to_owned()), "{at_restart:?}");
        }
        let moved = [("export.archive.endpoint", "http://archive:2")];
        assert_eq!(changed(&archive, &moved), (keys(&["export.archive.endpoint"]), vec![]));
        let off = [("telemetry.span_export_enabled", "false"), ("telemetry.otlp_endpoint", "http://c:1")];
        let (at_once, at_restart) = changed(&[], &off);
        assert_eq!(at_once, keys(&[]));
        assert_eq!(at_restart, keys(&["telemetry.otlp_endpoint", "telemetry.span_export_enabled"]));
    }

    #[test]
    fn tokens_are_nothing_to_the_destinations_and_others_in_the_same_file_are_a_change() {
        let path = std::env::temp_dir().join(format!("nyx-reload-tokens-{}", std::process::id()));
        let off = ("telemetry.span_export_enabled", "false");
        let on = [off, ("telemetry.prometheus_token_file", path.to_str().unwrap())];
        let one = |token: &str| {
            std::fs::write(&path, token).unwrap();
            loaded(&on)
        };
        let (before, none) = (one("0123456789abcdef"), loaded(&[off]));
        let (same, after) = (one("0123456789abcdef"), one("fedcba9876543210"));
        std::fs::remove_file(&path).unwrap();
        for (from, to, expected) in [
            (&none, &before, &[PAGES][..]),
            (&before, &same, &[]),
            (&before, &after, &[PAGES]),
            (&after, &none, &[PAGES]),
        ] {
            let Changes { at_once, at_restart } = changes(from, from, to);
            assert_eq!((at_once, at_restart), (keys(expected), vec![]));
        }
    }

    #[test]
    fn what_needs_a_restart_is_named_until_there_is_one() {
        let (started, current) =
            (loaded(&[]), loaded(&[("log.max_bytes", "1TiB"), ("tracing.level", "debug")]));
        let Changes { at_once, at_restart } = changes(&started, &current, &current);
        assert_eq!((at_once, at_restart), (vec![], keys(&["log.max_bytes"])));
        let Changes { at_once, at_restart } = changes(&started, &current, &started);
        assert_eq!((at_once, at_restart), (keys(&["tracing.level"]), vec![]));
    }
}
