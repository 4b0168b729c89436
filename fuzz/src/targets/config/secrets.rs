//! Which places of an input are those of secrets.

use std::sync::LazyLock;

use nyx_daemon::config::{otel_variables, reference};
use toml::de::{DeTable, DeValue};

use super::Input;

/// The text that stands for a secret in the corpus. Mutations put it anywhere.
pub(super) const SECRET: &str = "hush-2f9c";

/// The keys of the reference, each with its parts, `NAME` for a destination's name.
static KEYS: LazyLock<Vec<Vec<String>>> = LazyLock::new(|| {
    let rows = reference().unwrap_or_default().into_iter().flat_map(|table| table.rows);
    rows.map(|row| row.key.name.split('.').map(str::to_owned).collect()).collect()
});

/// Whether the secret is in it at all.
pub(super) fn is_given(input: &Input) -> bool {
    let pairs = input.environment.iter().map(|(name, value)| [name.as_slice(), value]);
    let flags = input.flags.iter().map(|(key, value)| [key.as_bytes(), value.as_bytes()]);
    holds(&input.file) || pairs.chain(flags).flatten().any(holds)
}

fn holds(bytes: &[u8]) -> bool {
    bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
}

/// Whether it is somewhere where nobody would put a secret: in a name, or as the value of a key that is known and no
/// header's.
pub(super) fn may_be_said(input: &Input) -> bool {
    // As it is read, with numbers that are beyond any type.
    let in_file = str::from_utf8(&input.file).ok().and_then(|text| DeTable::parse(text).ok());
    let in_file = in_file.is_some_and(|table| of_table(&mut Vec::new(), table.get_ref()));
    in_file
        || input.environment.iter().any(|(name, value)| {
            let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
            name.contains(SECRET) || value.contains(SECRET) && of_variable(&name, &value)
        })
        || input.flags.iter().any(|(key, value)| {
            key.contains(SECRET) || value.contains(SECRET) && of_text(key.split('.'), value)
        })
}

fn of_table(path: &mut Vec<String>, table: &DeTable<'_>) -> bool {
    table.iter().any(|(key, value)| {
        path.push(key.get_ref().to_string());
        let may_be = key.get_ref().contains(SECRET)
            || match value.get_ref() {
                DeValue::Table(table) => of_table(path, table),
                DeValue::String(text) => {
                    text.contains(SECRET) && is_plain(path) && !is_url_with_user(path, text)
                }
                // A list is never repeated; what is in it can still name something.
                DeValue::Array(items) => {
                    items.iter().any(|item| matches!(item.get_ref(), DeValue::Table(t) if of_table(path, t)))
                }
                _ => false,
            };
        path.pop();
        may_be
    })
}

fn of_variable(name: &str, value: &str) -> bool {
    match name {
        "OTEL_EXPORTER_OTLP_HEADERS" | "OTEL_EXPORTER_OTLP_TRACES_HEADERS" => in_a_name(value),
        "HOME" | "STATE_DIRECTORY" | "XDG_STATE_HOME" | "RUST_LOG" => true,
        _ if otel_variables().iter().any(|(known, _)| *known == name) => {
            !(name.ends_with("_ENDPOINT") && value.contains('@'))
        }
        _ => match name.strip_prefix("NYX__") {
            Some(rest) => of_text(rest.to_lowercase().split("__"), value),
            None => false,
        },
    }
}

/// A value given as a text.
fn of_text<'p>(path: impl Iterator<Item = &'p str>, value: &str) -> bool {
    let path: Vec<String> = path.map(str::to_owned).collect();
    match path.as_slice() {
        [export, _, headers] if export == "export" && headers == "headers" => in_a_name(value),
        path => is_plain(path) && !is_url_with_user(path, value),
    }
}

/// Whether it is in the name of one of these pairs.
fn in_a_name(pairs: &str) -> bool {
    pairs.split(',').any(|pair| pair.split_once('=').is_some_and(|(name, _)| name.contains(SECRET)))
}

/// Whether this can be where a destination is, with a name and a password.
fn is_url_with_user(path: &[String], value: &str) -> bool {
    path.last().is_some_and(|key| key.ends_with("endpoint")) && value.contains('@')
}

/// Whether this is a known key, a table of known keys or an attribute, and no header.
fn is_plain(path: &[String]) -> bool {
    if let [export, _, headers, ..] = path
        && export == "export"
        && headers == "headers"
    {
        return false;
    }
    let fits = |key: &Vec<String>| {
        key.len() >= path.len() && key.iter().zip(path).all(|(known, part)| known == "NAME" || known == part)
    };
    KEYS.iter().any(fits) || path.starts_with(&["telemetry".to_owned(), "resource".to_owned()])
}
