//! Values as `config show` and the reference show them.

use std::{collections::BTreeSet, fmt::Write as _};

use config::{Map, Value, ValueKind};

use super::{
    Loaded,
    destinations::{DEFAULT, FROM_TELEMETRY},
    layers::is_text_only,
    metrics::texts,
    pairs,
    read::at,
    section::Key,
    table,
};

/// Stands for a secret.
const REDACTED: &str = "(redacted)";

impl Loaded {
    /// Every key with its value and, behind a `#`, where that comes from: TOML that means the same configuration, except
    /// that the values of headers are not shown. What an operator should know comes first, behind a `#` too.
    pub fn show(&self) -> String {
        let values = &self.values.0;
        let mut names: Vec<&str> = table(values, "export")
            .map(|export| export.keys().map(String::as_str).collect())
            .unwrap_or_default();
        names.sort_unstable_by_key(|name| (*name != DEFAULT, *name));
        let (of_destinations, others): (Vec<Key>, Vec<Key>) =
            super::keys().keys.into_iter().partition(|key| key.name.contains(".NAME."));
        let mut shown: String = self.notices.iter().map(|notice| format!("# {}\n", plain(notice))).collect();
        shown.extend(self.warnings.iter().map(|warning| format!("# warning: {}\n", plain(warning))));
        for key in others {
            line(&mut shown, values, &key.name, &key);
            if key.name == "log.dir" {
                // The one key whose empty value means something that depends on the environment.
                let _infallible =
                    writeln!(shown, "# log.dir is {}", plain(&self.config.log.dir.to_string_lossy()));
            }
        }
        for name in names {
            for key in &of_destinations {
                let leaf = key.name.rsplit('.').next().unwrap_or_default();
                if name != DEFAULT || !FROM_TELEMETRY.iter().any(|(key, _)| *key == leaf) {
                    line(&mut shown, values, &key.name.replace("NAME", name), key);
                }
            }
        }
        shown
    }
}

impl Loaded {
    /// The keys that have another value here than in `other`, or are set in only one of them, in the order of the reference.
    pub fn differing_keys(&self, other: &Self) -> Vec<String> {
        let names = |loaded: &Self| -> BTreeSet<String> {
            table(&loaded.values.0, "export")
                .map(|export| export.keys().cloned().collect())
                .unwrap_or_default()
        };
        let names: BTreeSet<_> = names(self).union(&names(other)).cloned().collect();
        let (of_destinations, mut keys): (Vec<_>, Vec<_>) =
            super::keys().keys.into_iter().map(|key| key.name).partition(|key| key.contains(".NAME."));
        for name in names {
            keys.extend(of_destinations.iter().map(|key| key.replace("NAME", &name)));
        }
        keys.retain(|key| !same(at(&self.values.0, key), at(&other.values.0, key)));
        keys
    }
}

/// Whether two values are the same, wherever they come from: a number is the same as a text from a variable.
fn same(one: Option<&Value>, other: Option<&Value>) -> bool {
    let text = |value: &Value| written(value, false, false).trim_matches(['"', '\'']).to_owned();
    one.map(text) == other.map(text)
}

fn line(shown: &mut String, values: &Map<String, Value>, name: &str, key: &Key) {
    // Writing to a text does not fail.
    let _infallible = match at(values, name) {
        None => writeln!(shown, "# {name} is not set"),
        Some(value) => {
            let origin = plain(value.origin().unwrap_or("several"));
            let list = key.list.then(|| texts(value)).flatten().map(Value::from);
            let written = written(list.as_ref().unwrap_or(value), key.bare, key.secret);
            writeln!(shown, "{name} = {written}  # {origin}")
        }
    };
}

/// A text as a comment can have it: on one line, and without characters that end it or that no TOML holds.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A value as it would stand in a file.
pub(super) fn written(value: &Value, bare: bool, secret: bool) -> String {
    match &value.kind {
        ValueKind::Table(values) => inline(values.iter().map(|(name, value)| (name.as_str(), value)), secret),
        // Of the keys only those that hold pairs are bare and can be a text that is no number.
        ValueKind::String(text) if bare && is_text_only(value) => {
            let number = text.trim();
            if number.parse::<f64>().is_ok() || number.parse::<bool>().is_ok() {
                number.to_owned()
            } else if let Some(pairs) = pairs::parse(text) {
                let pairs: Vec<_> = pairs.into_iter().map(|(name, text)| (name, Value::from(text))).collect();
                inline(pairs.iter().map(|(name, value)| (name.as_str(), value)), secret)
            } else {
                quoted(text)
            }
        }
        ValueKind::String(text) => quoted(if secret { REDACTED } else { text }),
        ValueKind::Float(number) => format!("{number:?}"),
        ValueKind::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| written(item, bare, secret)).collect();
            format!("[{}]", items.join(", "))
        }
        _ => value.to_string(),
    }
}

fn inline<'v>(pairs: impl Iterator<Item = (&'v str, &'v Value)>, secret: bool) -> String {
    let mut pairs: Vec<_> =
        pairs.map(|(name, value)| format!("{} = {}", quoted(name), written(value, false, secret))).collect();
    pairs.sort_unstable();
    if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", pairs.join(", ")) }
}

fn quoted(text: &str) -> String {
    ::toml::Value::from(text).to_string()
}
