//! The files that users read say the same as the program does.

use std::{collections::BTreeMap, fs, path::PathBuf};

use super::{load, loaded};
use crate::config::layers::DEFAULT_TOML;

const REFERENCE: &str = include_str!("../../../docs/configuration.md");

/// Every key that `default.toml` shows and its default as it stands there; `None` for one that is commented out.
/// All destinations have the same keys: their name is `NAME`.
fn shown_keys() -> BTreeMap<String, Option<String>> {
    let mut table = String::new();
    let mut keys = BTreeMap::new();
    for line in DEFAULT_TOML.lines() {
        let code = line.strip_prefix('#').unwrap_or(line);
        if let Some(name) = code.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            table = name.replace("export.default", "export.NAME").replace("export.archive", "export.NAME");
        } else if let Some((key, value)) = code.split_once(" = ")
            && !code.starts_with(' ')
        {
            let value = (code == line).then(|| value.to_owned());
            assert_eq!(keys.insert(format!("{table}.{key}"), value), None, "{key} is shown twice");
        }
    }
    keys
}

/// The rows of the reference's tables: key, variable, default.
fn documented_rows() -> Vec<[String; 3]> {
    let rows = REFERENCE.lines().filter_map(|line| line.strip_prefix("| `"));
    // The other tables are of variables of OpenTelemetry's.
    let rows = rows.filter(|row| !row.starts_with("OTEL_"));
    rows.map(|row| {
        let mut cells = row.split(" | ").map(|cell| cell.trim_matches('`').to_owned());
        std::array::from_fn(|_| cells.next().unwrap())
    })
    .collect()
}

#[test]
fn the_reference_has_exactly_the_keys_and_defaults_of_the_built_in_file() {
    let mut documented = BTreeMap::new();
    for [key, _, default] in documented_rows() {
        let default = (default != "not set").then_some(default);
        assert_eq!(documented.insert(key.clone(), default), None, "{key} is documented twice");
    }
    assert_eq!(documented, shown_keys());
}

#[test]
fn the_reference_names_the_variable_of_each_key() {
    for [key, variable, _] in documented_rows() {
        assert_eq!(variable, format!("NYX__{}", key.to_uppercase().replace('.', "__")));
    }
}

/// That the built-in file lacks no key is shown by every test that loads it: a missing one is an error.
#[test]
fn the_built_in_file_is_itself_a_valid_file_and_changes_nothing() {
    assert_eq!(loaded(&[DEFAULT_TOML], &[]), loaded(&[], &[]));
}

#[test]
fn what_the_built_in_file_shows_as_comments_can_be_turned_on() {
    let uncommented: Vec<&str> = DEFAULT_TOML
        .lines()
        .map(|line| line.strip_prefix('#').filter(|code| !code.starts_with(' ')).unwrap_or(line))
        .collect();
    let config = loaded(&[&uncommented.join("\n")], &[]);
    assert_eq!(config.export[0].max_retries, Some(10));
    assert_eq!(config.export[0].max_elapsed, Some(std::time::Duration::from_secs(3_600)));
    assert_eq!(config.export[1].name, "archive");
}

#[test]
fn every_example_is_valid() {
    let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/examples");
    let mut names = Vec::new();
    for entry in fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        load(&[&fs::read_to_string(&path).unwrap()], &[])
            .unwrap_or_else(|problems| panic!("{path:?}: {problems:#?}"));
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(names, ["metrics-only.toml", "nyx-node.toml", "two-destinations.toml"]);
}

#[test]
fn the_examples_mean_what_their_comments_say() {
    let two = loaded(&[include_str!("../../../config/examples/two-destinations.toml")], &[]);
    let shares: Vec<_> = two.export.iter().map(|d| (d.name.as_str(), d.sampling_rate)).collect();
    assert_eq!(shares, [("default", 1.0), ("archive", 0.1)]);
    let node = loaded(&[include_str!("../../../config/examples/nyx-node.toml")], &[]);
    assert_eq!(node.ingest.grpc.listen.unwrap().to_string(), "unix:/run/nyx/otlp.sock");
    let metrics = loaded(&[include_str!("../../../config/examples/metrics-only.toml")], &[]);
    assert_eq!(metrics.export, []);
}
