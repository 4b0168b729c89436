//! Layers, refusals with their whole texts, and the files that users read.

mod files;
mod layering;
mod refusals;

use super::{Config, Environment, layers};

/// What these files, named `a.toml`, `b.toml` …, and these variables give, for a user who lives at `/home/me`.
fn load(files: &[&str], variables: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let home = [("HOME", "/home/me")];
    let environment = Environment::new(home.iter().chain(variables).copied(), false);
    let files =
        files.iter().zip('a'..).map(|(text, letter)| layers::toml(format!("file {letter}.toml"), text));
    Config::from_files(files, &environment).map_err(|invalid| invalid.problems)
}

#[track_caller]
fn loaded(files: &[&str], variables: &[(&str, &str)]) -> Config {
    load(files, variables).unwrap()
}

/// The one problem of a file.
#[track_caller]
fn refused(file: &str) -> String {
    only(load(&[file], &[]).unwrap_err())
}

/// The one problem of a variable.
#[track_caller]
fn variable_refused(name: &str, value: &str) -> String {
    only(load(&[], &[(name, value)]).unwrap_err())
}

#[track_caller]
fn only(problems: Vec<String>) -> String {
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.into_iter().next().unwrap()
}
