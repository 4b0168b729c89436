//! The keys as data, from which `docs/configuration.md` is written.

use super::{
    Values, at_once::takes_effect_at_once, keys, layers, read::at, section::Key, show::written,
    variables::variable_of,
};

/// A table at the top of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Its name, such as `log`.
    pub table: String,
    /// What it is about, in Markdown.
    pub meaning: String,
    /// Its keys, those of the tables within it too.
    pub rows: Vec<Row>,
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its name, meaning and range.
    pub key: Key,
    /// The variable that sets it.
    pub variable: String,
    /// Its built-in value as it stands in a file, if it has one.
    pub default: Option<String>,
    /// Whether a change takes effect at SIGHUP, and not only with the next start.
    pub at_once: bool,
}

/// All tables and keys, in their order.
///
/// # Errors
/// The built-in file cannot be read.
pub fn reference() -> Result<Vec<Reference>, String> {
    let built_in = layers::built_in()?;
    let all = keys();
    Ok(all
        .tables
        .into_iter()
        .map(|(table, meaning)| {
            let prefix = format!("{table}.");
            let keys = all.keys.iter().filter(|key| key.name.starts_with(&prefix)).cloned();
            Reference { rows: keys.map(|key| row(key, &built_in)).collect(), table, meaning }
        })
        .collect())
}

fn row(key: Key, built_in: &Values) -> Row {
    let default = at(built_in, &key.name.replace(".NAME.", ".default."));
    let default = default.map(|value| written(value, key.bare, false));
    Row { variable: variable_of(&key.name), default, at_once: takes_effect_at_once(&key.name), key }
}
