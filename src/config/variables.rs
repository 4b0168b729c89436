//! The layers of variables named `NYX__SECTION__KEY`, and of flags `--set section.key=value`.

use config::{Map, Value, ValueKind};

use super::{
    environment::Environment,
    layers::{FLAG, VARIABLE},
    read::shortened,
    section::Key,
};

/// Bytes of a key's name, as a variable or a flag has it.
const KEY_BYTES_MAX: usize = 255;

/// The variable of a key.
pub(super) fn variable_of(key: &str) -> String {
    format!("NYX__{}", key.to_uppercase().replace('.', "__"))
}

/// Variables named `NYX__SECTION__KEY`. An empty value is a value.
pub(super) fn nyx(
    environment: &Environment,
    known: &[Key],
    problems: &mut Vec<String>,
) -> Map<String, Value> {
    let mut layer = Map::new();
    for name in environment.names() {
        match key_of(name, known) {
            Ok(None) => {}
            Ok(Some(path)) => match environment.text(name) {
                Ok(None) => {}
                Ok(Some(text)) => {
                    if !set(&mut layer, &path, text_value(&format!("{VARIABLE}{name}"), text)) {
                        problems.push(format!(
                            "{VARIABLE}{name}: another variable sets a table or key of that name"
                        ));
                    }
                }
                Err(problem) => problems.push(problem),
            },
            Err(problem) => problems.push(problem),
        }
    }
    layer
}

/// Flags `--set section.key=value`; of several for one key the last counts.
pub(super) fn flags(flags: &[(String, String)], problems: &mut Vec<String>) -> Map<String, Value> {
    let mut layer = Map::new();
    for (key, text) in flags {
        let origin = format!("{FLAG}--set {}", shortened(key));
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        if key.len() > KEY_BYTES_MAX || path.iter().any(String::is_empty) {
            problems.push(format!("{origin}: must be named section.key"));
        } else if !set(&mut layer, &path, text_value(&origin, text)) {
            problems.push(format!("{origin}: another flag sets a table or key of that name"));
        }
    }
    layer
}

/// A value given as a text.
pub(super) fn text_value(origin: &str, text: &str) -> Value {
    Value::new(Some(&origin.to_owned()), text.to_owned())
}

/// The key that a variable sets; `None` if it is not one of ours.
fn key_of(name: &str, known: &[Key]) -> Result<Option<Vec<String>>, String> {
    let Some(rest) = name.strip_prefix("NYX__") else {
        // NYX_PORT and the like come from elsewhere: Kubernetes makes them for a service named nyx. But one that is a key
        // but for its underscores nobody but a user of ours writes, and it would be ignored in silence.
        let meant = name.strip_prefix("NYX_").and_then(|rest| meant_by(rest, known));
        return match meant {
            Some(meant) => Err(format!("{VARIABLE}{name}: is not read: did you mean {meant}?")),
            None => Ok(None),
        };
    };
    if name.len() > KEY_BYTES_MAX {
        return Err(format!("{VARIABLE}{}: must be named NYX__SECTION__KEY", shortened(name)));
    }
    if rest.contains(|c: char| c.is_lowercase()) {
        return Err(format!("{VARIABLE}{name}: must be in capitals: {}", name.to_uppercase()));
    }
    let path: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
    let well_formed = |part: &String| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
    };
    if path.iter().all(well_formed) {
        Ok(Some(path))
    } else {
        Err(format!("{VARIABLE}{name}: must be named NYX__SECTION__KEY"))
    }
}

/// The variable of the key whose parts `rest` has with other underscores between them.
fn meant_by(rest: &str, known: &[Key]) -> Option<String> {
    let single = |text: &str| {
        text.to_lowercase().split(['_', '.']).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_")
    };
    let rest = single(rest);
    known.iter().find_map(|key| match key.name.split_once(".NAME.") {
        None => (single(&key.name) == rest).then(|| variable_of(&key.name)),
        Some((export, leaf)) => {
            let name = rest.strip_prefix(&single(export))?.strip_prefix('_')?;
            let name = name.strip_suffix(&single(leaf))?.strip_suffix('_')?;
            (!name.is_empty()).then(|| variable_of(&format!("{export}.{name}.{leaf}")))
        }
    })
}

/// Puts `value` at `path`, unless a table is there or something else in the way.
pub(super) fn set(values: &mut Map<String, Value>, path: &[String], value: Value) -> bool {
    match path {
        [] => false,
        [name] => match values.get(name).map(|there| &there.kind) {
            Some(ValueKind::Table(_)) => false,
            _ => {
                values.insert(name.clone(), value);
                true
            }
        },
        [name, rest @ ..] => {
            let inner = values.entry(name.clone()).or_insert_with(|| {
                Value::new(value.origin().map(str::to_owned).as_ref(), Map::<String, Value>::new())
            });
            match &mut inner.kind {
                ValueKind::Table(inner) => set(inner, rest, value),
                _ => false,
            }
        }
    }
}
