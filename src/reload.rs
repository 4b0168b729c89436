//! SIGHUP: the configuration is read again, judged as at the start, and what can change while the daemon runs is swapped.
//! A configuration that is not valid changes nothing, and `/health` says so until one is. One of which something cannot be
//! swapped leaves what it would have changed as it is; what may fail comes first, and is undone.
//!
//! Which keys are swapped is a list, in `config/at_once.rs`; what is swapped by them is [`Reload::swap`].

use nyx_telemetry::{
    bearer::Tokens,
    export::DestinationConfig,
    self_tracing::Recording,
    tree::{ChangeError, Running},
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    config::{Config, DoorsTls, Loaded, Sources, speaks_tls, takes_effect_at_once},
    exit::{Failure, UNAVAILABLE},
    gates::Gates,
    logging::{self, Logging},
    run,
};

/// The files of tokens, in which others may stand by now.
const DOORS: &str = "ingest.token_file";
const PAGES: &str = "telemetry.prometheus_token_file";

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
    pub(crate) async fn reload(&mut self, tree: &Running, mut recording: Recording) {
        match self.read() {
            Ok((loaded, tls)) => {
                let changes = changes(&self.started, &self.current, &loaded);
                recording.set("nyx.reload.changed_keys", changes.at_once.len());
                recording.set("nyx.reload.keys_for_restart", changes.at_restart.len());
                if let Err(problem) = self.apply(loaded, tls, &changes, tree).await {
                    recording.fail("not_swapped", || problem);
                }
            }
            Err(problems) => {
                recording.fail("invalid", || format!("{} problems", problems.len()));
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
        recording.end();
    }

    fn read(&self) -> Result<(Loaded, DoorsTls), Vec<String>> {
        let loaded = self.sources.load().map_err(|invalid| invalid.problems)?;
        logging::filter(loaded.config.tracing.level, &self.sources.environment)
            .map_err(|failure| vec![failure.message])?;
        let tls = DoorsTls::read(&loaded.config.ingest).map_err(|problems| {
            problems.iter().map(|(key, why)| format!("{key}: {why}")).collect::<Vec<_>>()
        })?;
        Ok((loaded, tls))
    }

    async fn apply(
        &mut self,
        loaded: Loaded,
        tls: DoorsTls,
        changes: &Changes,
        tree: &Running,
    ) -> Result<(), String> {
        let listed = |keys: &[String]| (!keys.is_empty()).then(|| keys.join(", "));
        let (changed, needs_restart) = (listed(&changes.at_once), listed(&changes.at_restart));
        if let Err(problem) = self.swap(&loaded.config, tls, tree).await {
            tracing::error!(changed, needs_restart, "the configuration was not swapped: {problem}");
            tree.observed().reloaded(Err(problem.clone()));
            return Err(problem);
        }
        for notice in &loaded.notices {
            tracing::info!("{notice}");
        }
        for warning in loaded.warnings.iter().filter(|warning| !self.current.warnings.contains(warning)) {
            tracing::warn!("{warning}");
        }
        if needs_restart.is_some() {
            tracing::warn!(changed, needs_restart, "configuration reloaded; some of it needs a restart");
        } else {
            tracing::info!(changed, "configuration reloaded");
        }
        tree.observed().reloaded(Ok(()));
        self.current = loaded;
        Ok(())
    }

    /// Swaps what can be swapped. What may fail comes first: until something else has changed it is undone.
    async fn swap(&self, config: &Config, tls: DoorsTls, tree: &Running) -> Result<(), String> {
        let there = tree.destinations().await;
        let wanted = run::destinations(config);
        let (new, stay): (Vec<_>, Vec<_>) =
            wanted.into_iter().partition(|it| find(&there, &it.name).is_none());
        come(tree, &new).await?;
        if let Err(error) = tree.remeasure(config.metrics.red()).await {
            go_again(tree, new.iter()).await;
            return Err(format!("the span metrics keep their settings: {error}"));
        }
        // It was read a moment ago.
        if let Err(failure) = self.logging.change(&config.tracing) {
            tracing::warn!("{failure}");
        }
        self.gates.set(config);
        for (door, tls) in tls.into_doors() {
            if tree.renew_tls(door, tls) {
                tracing::info!(door, "new connections have the certificate that is in the door's files now");
            }
        }
        for destination in &stay {
            if let Err(error) = tree.reconfigure(destination).await {
                tracing::error!(%error, "the destination keeps its settings");
            }
        }
        let go = there.iter().filter(|it| find(&stay, &it.name).is_none());
        let mut problems = Vec::new();
        for DestinationConfig { name, .. } in go {
            if let Err(error) = tree.remove_destination(name).await {
                problems.push(format!("the destination {name} cannot be removed: {error}"));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }
}

fn find<'d>(destinations: &'d [DestinationConfig], name: &str) -> Option<&'d DestinationConfig> {
    destinations.iter().find(|destination| destination.name == name)
}

/// Takes these destinations in, or none of them.
async fn come(tree: &Running, destinations: &[DestinationConfig]) -> Result<(), String> {
    for (number, destination) in destinations.iter().enumerate() {
        if let Err(error) = tree.add_destination(destination.clone()).await {
            go_again(tree, destinations.iter().take(number)).await;
            return Err(cannot_add(&destination.name, &error));
        }
    }
    Ok(())
}

async fn go_again(tree: &Running, came: impl Iterator<Item = &DestinationConfig>) {
    for DestinationConfig { name, .. } in came {
        if let Err(error) = tree.remove_destination(name).await {
            tracing::error!(destination = name, %error, "a destination stays that came in vain");
        }
    }
}

fn cannot_add(name: &str, error: &ChangeError) -> String {
    format!("the destination {name} cannot be added: {error}")
}

/// Each file of tokens with what is in it.
fn tokens(config: &Config) -> [(&'static str, Option<&Tokens>); 2] {
    let files = [(DOORS, &config.ingest.token_file), (PAGES, &config.telemetry.prometheus_token_file)];
    files.map(|(key, file)| (key, file.as_ref().map(|file| &file.tokens)))
}

/// Whether the key is of the TLS of a door that began without it, or is to be without it: that is so until the next start.
fn turns_tls(key: &str, started: &Loaded, new: &Loaded) -> bool {
    let door = key.strip_prefix("ingest.").and_then(|rest| rest.split_once(".tls."));
    let speaks = |loaded: &Loaded, door: &str| speaks_tls(&loaded.config.ingest, door);
    door.is_some_and(|(door, _)| !speaks(started, door) || !speaks(new, door))
}

fn changes(started: &Loaded, current: &Loaded, new: &Loaded) -> Changes {
    let keys = |other: &Loaded, at_once: bool| {
        let mut keys = new.differing_keys(other);
        keys.retain(|key| (takes_effect_at_once(key) && !turns_tls(key, started, new)) == at_once);
        keys
    };
    let mut now = keys(current, true);
    for ((key, tokens), (_, before)) in tokens(&new.config).into_iter().zip(tokens(&current.config)) {
        if tokens != before && !now.iter().any(|named| named == key) {
            now.push(key.to_owned());
        }
    }
    Changes { at_once: now, at_restart: keys(started, false) }
}

#[cfg(test)]
mod tests {
    use nyx_telemetry::tls::testing::Folder;

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
                "export.default.start",
                "export.default.timeout",
                "export.default.batch.max_spans"
            ])
        );
        assert_eq!(at_restart, keys(&["telemetry.service_name", "log.max_bytes", "tracing.format"]));
    }

    #[test]
    fn the_same_configuration_from_elsewhere_changes_nothing() {
        assert_eq!(changed(&[], &[("tracing.level", "info")]), (vec![], vec![]));
    }

    #[test]
    fn a_door_that_begins_or_ceases_to_speak_tls_needs_a_restart_and_other_files_do_not() {
        let folder = Folder::new("reload-doors");
        let file = |name: &str| folder.path(name).display().to_string();
        let [server, renewed, key, ca] = ["server.pem", "renewed.pem", "server.key", "ca.pem"].map(file);
        let (cert_key, key_key) = ("ingest.http.tls.cert_file", "ingest.http.tls.key_file");
        let on = [(cert_key, &*server), (key_key, &*key)];
        for (from, to) in [(&[][..], &on[..]), (&on, &[])] {
            assert_eq!(changed(from, to), (vec![], keys(&[cert_key, key_key])));
        }
        let other = [(cert_key, &*renewed), (key_key, &*key), ("ingest.http.tls.client_ca_file", &*ca)];
        assert_eq!(changed(&on, &other), (keys(&[cert_key, "ingest.http.tls.client_ca_file"]), vec![]));
        let off = [on[0], on[1], ("ingest.http.listen", "")];
        assert_eq!(changed(&on, &off), (vec![], keys(&["ingest.http.listen"])));
    }

    #[test]
    fn a_destination_that_comes_or_goes_does_so_at_once() {
        let archive =
            [("export.archive.endpoint", "http://archive:1"), ("export.archive.start", "beginning")];
        for (from, to) in [(&[][..], &archive[..]), (&archive, &[])] {
            let (at_once, at_restart) = changed(from, to);
            assert_eq!(at_restart, keys(&[]));
            assert!(at_once.contains(&"export.archive.endpoint".to_owned()), "{at_once:?}");
        }
        let off = [("telemetry.span_export_enabled", "false"), ("telemetry.otlp_endpoint", "http://c:1")];
        let (at_once, at_restart) = changed(&[], &off);
        assert_eq!(at_once, keys(&["telemetry.otlp_endpoint", "telemetry.span_export_enabled"]));
        assert_eq!(at_restart, keys(&[]));
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
