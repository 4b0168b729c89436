//! Layers, refusals with their whole texts, and the files that users read.

mod files;
mod layering;
mod nonsense;
mod otel;
mod refusals;
mod showing;
mod sources;
mod tokens;

use super::{Config, Environment, Invalid, Loaded, Sources, toml};

/// What these files, named `a.toml`, `b.toml` …, these variables and these flags give, for a user who lives at `/home/me`.
fn load_all(
    files: &[&str],
    variables: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Loaded, Vec<String>> {
    let home = [("HOME", "/home/me")];
    let environment = Environment::new(home.iter().chain(variables).copied(), false);
    let flags = flags.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    let sources = Sources { files: Vec::new(), environment, flags };
    let files = files.iter().zip('a'..).map(|(text, letter)| {
        let name = format!("{letter}.toml");
        toml::parse(&format!("file {name}"), text)
            .map(|values| (name, values))
            .map_err(|problem| vec![problem])
    });
    let (files, broken): (Vec<_>, Vec<_>) = files.partition(Result::is_ok);
    let broken: Vec<String> = broken.into_iter().filter_map(Result::err).flatten().collect();
    if !broken.is_empty() {
        return Err(broken);
    }
    let files = files.into_iter().filter_map(Result::ok).collect();
    sources.load_over(files).map_err(|Invalid { problems }| problems)
}

fn load(files: &[&str], variables: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    load_all(files, variables, &[]).map(|loaded| loaded.config)
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
