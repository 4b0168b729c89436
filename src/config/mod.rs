//! The daemon's configuration: layers of values, the last of which wins, read into plain structs.
//!
//! The layers are the built-in `config/default.toml`, the files of `--config` in their order,
//! `OTEL_EXPORTER_OTLP_ENDPOINT` and `OTEL_SERVICE_NAME`, and variables named `NYX__SECTION__KEY`.
//! Reading is strict: a key that is not known, of the wrong type or out of its range is an error, and all of
//! them are reported at once. `docs/configuration.md` is the reference.

mod environment;
mod headers;
mod layers;
mod read;
mod sections;
mod settings;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use config::{Map, Value, ValueKind};
use thiserror::Error;

pub use self::{
    environment::Environment,
    settings::{Config, GrpcDoor, InProcess, Ingest, Log, LogFormat, Runtime, Shutdown, Telemetry, Tracing},
};
use self::{
    layers::Layer,
    read::{Problems, Table},
};

/// Values by name.
type Values = Map<String, Value>;

/// A configuration that cannot be used, with everything that is wrong with it, each problem a line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", problems.join("\n"))]
pub struct Invalid {
    /// The problems; at least one. A line names the key, its value (unless that may be a secret), where it comes from
    /// and what is allowed.
    pub problems: Vec<String>,
}

impl Config {
    /// Merges the layers and reads the result.
    ///
    /// # Errors
    /// Every problem found. Files and variables that cannot be understood at all are reported first and
    /// alone: without them the rest would be misread.
    pub fn load(files: &[PathBuf], environment: &Environment) -> Result<Self, Invalid> {
        Self::from_files(files.iter().map(|file| layers::file(file)), environment)
    }

    fn from_files(
        files: impl Iterator<Item = Result<Layer, String>>,
        environment: &Environment,
    ) -> Result<Self, Invalid> {
        let (values, destination) = merged(files, environment).map_err(|problems| Invalid { problems })?;
        let problems = Problems::default();
        let config = sections::whole_config(Table::root(values, &problems), &destination, environment);
        match (config, problems.into_inner()) {
            (Ok(config), problems) if problems.is_empty() => Ok(config),
            (_, problems) => Err(Invalid { problems }),
        }
    }
}

/// The values of all layers, and the built-in values of a destination.
fn merged(
    files: impl Iterator<Item = Result<Layer, String>>,
    environment: &Environment,
) -> Result<(Values, Values), Vec<String>> {
    let mut problems = Vec::new();
    let mut layers = Vec::new();
    let built_in = layers::built_in().map_err(|problem| vec![problem])?;
    let destination = table(&built_in.0, "export").and_then(|export| table(export, "default")).cloned();
    layers.push(built_in);
    for file in files {
        layers.extend(file.map_err(|problem| problems.push(problem)));
    }
    layers.extend(layers::otel(environment).map_err(|more| problems.extend(more)));
    layers.extend(layers::nyx(environment).map_err(|more| problems.extend(more)));
    if !problems.is_empty() {
        return Err(problems);
    }
    let builder =
        layers.into_iter().fold(config::Config::builder(), |builder, layer: Layer| builder.add_source(layer));
    let values =
        builder.build().and_then(|merged| merged.cache.into_table()).map_err(|e| vec![e.to_string()])?;
    Ok((values, destination.unwrap_or_default()))
}

fn table<'a>(values: &'a Values, name: &str) -> Option<&'a Values> {
    match &values.get(name)?.kind {
        ValueKind::Table(values) => Some(values),
        _ => None,
    }
}
