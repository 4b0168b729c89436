//! The daemon's configuration: layers of values, the last of which wins, read into plain structs.
//!
//! The layers are the built-in `config/default.toml`, `/etc/nyx/nyx.toml`, `./nyx.toml`, the files of `--config` in their
//! order, OpenTelemetry's variables, variables named `NYX__SECTION__KEY`, and flags `--set section.key=value`.
//! Reading is strict: a key that is not known, of the wrong type or out of its range is an error, and all of
//! them are reported at once. `docs/configuration.md` is the reference. `section.rs` says how a key is added.

mod at_once;
mod checks;
mod destinations;
mod doors;
mod environment;
mod kinds;
mod layers;
mod metrics;
mod node;
mod otel;
mod pairs;
mod read;
mod reference;
mod section;
mod self_tracing;
mod settings;
mod show;
mod suggest;
#[cfg(test)]
mod tests;
mod toml;
mod variables;
mod warnings;

use std::path::PathBuf;

use ::config::{Map, Value, ValueKind};
use thiserror::Error;

pub use self::{
    at_once::takes_effect_at_once,
    doors::{DoorsTls, speaks_tls},
    environment::Environment,
    layers::ConfigFile,
    metrics::Metrics,
    node::{NODE_KEYS, NODE_TABLES},
    otel::otel_variables,
    reference::{Reference, Row, reference},
    section::Key,
    settings::{
        Config, DoorTls, GrpcDoor, HttpDoor, InProcess, Ingest, Log, LogFormat, Retention, Runtime, Shutdown,
        Telemetry, Tracing,
    },
};
use self::{
    destinations::DEFAULT,
    read::{Problems, Table, fill},
    section::{Keys, Section as _},
};

/// Values by name.
type Values = Map<String, Value>;

/// Where files are looked for that nobody named.
const STANDARD_PLACES: [&str; 2] = ["/etc/nyx/nyx.toml", "nyx.toml"];

/// A configuration that cannot be used, with everything that is wrong with it, each problem a line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", problems.join("\n"))]
pub struct Invalid {
    /// The problems; at least one. A line names the key, its value (unless that may be a secret), where it comes from
    /// and what is allowed.
    pub problems: Vec<String>,
}

/// What a configuration is read from, beside the built-in layer.
#[derive(Clone, Default)]
pub struct Sources {
    /// Files, a later one wins.
    pub files: Vec<ConfigFile>,
    /// Variables, which win over files; those of OpenTelemetry first.
    pub environment: Environment,
    /// Keys and values of `--set`, which win over everything; of two for one key the later.
    pub flags: Vec<(String, String)>,
}

/// A configuration, and what it was read from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What an operator should know and is no error, each a line.
    pub notices: Vec<String>,
    /// What an operator should look at, each a line: it works, and is perhaps not what they want.
    pub warnings: Vec<String>,
    values: ShownValues,
}

/// All values with their origins. No `Debug`: there are secrets among them.
#[derive(Clone)]
struct ShownValues(Values);

impl std::fmt::Debug for ShownValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tables", self.0.len())
    }
}

// By hand: flags hold secrets, as variables do.
impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources")
            .field("files", &self.files)
            .field("environment", &self.environment)
            .field("flags", &self.flags.len())
            .finish()
    }
}

impl Sources {
    /// Those of the daemon: the standard places, then `files`, which must be there.
    pub fn of_daemon(files: &[PathBuf], environment: Environment, flags: Vec<(String, String)>) -> Self {
        let standard = STANDARD_PLACES.iter().map(ConfigFile::optional);
        Self { files: standard.chain(files.iter().map(ConfigFile::required)).collect(), environment, flags }
    }

    /// Merges the layers and reads the result.
    ///
    /// # Errors
    /// Every problem found. Files that cannot be understood at all are reported first and alone: without them the rest would
    /// be misread.
    pub fn load(&self) -> Result<Loaded, Invalid> {
        let mut problems = Vec::new();
        let mut files = Vec::new();
        for file in &self.files {
            match layers::file(file) {
                Ok(values) => files.extend(values.map(|values| (file.path.display().to_string(), values))),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { self.load_over(files) } else { Err(Invalid { problems }) }
    }

    /// Merges the layers, with the values of these files by their names.
    fn load_over(&self, files: Vec<(String, Values)>) -> Result<Loaded, Invalid> {
        let invalid = |problem| Invalid { problems: vec![problem] };
        let (mut lines, mut notices) = (Vec::new(), Vec::new());
        let known = keys().keys;
        let built_in = layers::built_in().map_err(invalid)?;
        let destination = table(&built_in, "export").and_then(|export| table(export, DEFAULT)).cloned();
        let mut layers = vec![built_in];
        for (name, mut values) in files {
            let nodes = node::take(&mut values);
            if !nodes.is_empty() {
                notices.push(format!("file {name}: not read, since a Nyx node's: {}", nodes.join(", ")));
            }
            layers.push(values);
        }
        layers.push(otel::layer(&self.environment, &mut lines, &mut notices));
        layers.push(variables::nyx(&self.environment, &known, &mut lines));
        layers.push(variables::flags(&self.flags, &mut lines));
        if self.environment.rust_log().is_ok_and(|text| text.is_some()) {
            notices.push("variable RUST_LOG is set, and wins over tracing.level".to_owned());
        }
        let mut values = Values::new();
        for layer in layers.iter().rev() {
            fill(&mut values, layer);
        }
        if let Some(destination) = &destination {
            fill_destinations(&mut values, destination);
        }

        let problems = Problems::new(&known);
        for line in lines {
            problems.note(line);
        }
        let config = Config::read(Table::root(values.clone(), &problems))
            .map(|config| config.finish(&self.environment));
        checks::contradictions(&values, &problems);
        if let Ok(config) = &config {
            for destination in &config.export {
                let table = format!("export.{}", destination.name);
                destinations::as_a_whole(destination, &table, &values, &problems);
            }
            if let Some(destination) = &config.self_tracing {
                destinations::as_a_whole(destination, self_tracing::TABLE, &values, &problems);
            }
        }
        if let Ok(config) = &config {
            doors::judge(&config.ingest, &values, &problems);
        }
        match (config, problems.into_inner()) {
            (Ok(config), problems) if problems.is_empty() => {
                let warnings = warnings::of(&config, &values);
                Ok(Loaded { config, notices, warnings, values: ShownValues(values) })
            }
            (_, problems) => Err(Invalid { problems }),
        }
    }
}

impl Config {
    /// Merges the layers, without the standard places of files, and reads the result.
    ///
    /// # Errors
    /// Those of [`Sources::load`].
    pub fn load(files: &[PathBuf], environment: &Environment) -> Result<Self, Invalid> {
        let files = files.iter().map(ConfigFile::required).collect();
        let sources = Sources { files, environment: environment.clone(), flags: Vec::new() };
        sources.load().map(|loaded| loaded.config)
    }

    /// What one table has from another, and from the environment.
    fn finish(mut self, environment: &Environment) -> Self {
        if self.log.dir.as_os_str().is_empty() {
            self.log.dir = environment.state_dir();
        }
        for destination in self.export.iter_mut().filter(|destination| destination.name == DEFAULT) {
            destination.endpoint = self.telemetry.otlp_endpoint.to_string();
            destination.sampling_rate = self.telemetry.otlp_sampling_rate;
        }
        if !self.telemetry.span_export_enabled {
            self.export.clear();
        }
        self
    }
}

/// All keys, in the order of the reference.
fn keys() -> Keys {
    let mut keys = Keys::default();
    Config::describe(&mut keys);
    keys
}

/// Every destination has the built-in values of `default` for what it does not say.
fn fill_destinations(values: &mut Values, destination: &Values) {
    let Some(ValueKind::Table(export)) = values.get_mut("export").map(|value| &mut value.kind) else {
        return;
    };
    for value in export.values_mut() {
        if let ValueKind::Table(values) = &mut value.kind {
            fill(values, destination);
        }
    }
}

fn table<'a>(values: &'a Values, name: &str) -> Option<&'a Values> {
    match &values.get(name)?.kind {
        ValueKind::Table(values) => Some(values),
        _ => None,
    }
}
