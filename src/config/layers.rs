//! The layers, each a tree of values that know where they come from.

use std::{fmt, fs::File, io::Read as _, path::Path};

use config::{ConfigError, FileFormat, Format, Map, Source, Value, ValueKind};

use super::environment::Environment;

/// `config/default.toml`, the lowest layer and the reference that users read.
pub(super) const DEFAULT_TOML: &str = include_str!("../../config/default.toml");

/// Bytes of a configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the origin of a variable's value starts with; no file's does.
const VARIABLE: &str = "variable ";

/// The OpenTelemetry variables that set keys of ours, and those keys.
const OTEL_VARIABLES: [(&str, [&str; 2]); 2] = [
    ("OTEL_EXPORTER_OTLP_ENDPOINT", ["telemetry", "otlp_endpoint"]),
    ("OTEL_SERVICE_NAME", ["telemetry", "service_name"]),
];

/// One layer, ready to be merged over those before it.
#[derive(Clone, Default)]
pub(super) struct Layer(pub(super) Map<String, Value>);

// By hand: the values of headers are secrets.
impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Layer").field(&self.0.len()).finish()
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

/// Whether a value was given as a variable, where everything is a text.
pub(super) fn is_variable(value: &Value) -> bool {
    value.origin().is_some_and(|origin| origin.starts_with(VARIABLE))
}

/// The built-in layer.
pub(super) fn built_in() -> Result<Layer, String> {
    toml("built-in default.toml".to_owned(), DEFAULT_TOML)
}

/// A file named by `--config`.
pub(super) fn file(path: &Path) -> Result<Layer, String> {
    let name = format!("file {}", path.display());
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Err(error) => Err(format!("{name}: cannot be read: {error}")),
        Ok(_) if text.len() as u64 > FILE_BYTES_MAX => {
            Err(format!("{name}: is larger than {FILE_BYTES_MAX} bytes"))
        }
        Ok(_) => toml(name, &text),
    }
}

/// A text in TOML, named `name` in errors.
pub(super) fn toml(name: String, text: &str) -> Result<Layer, String> {
    match FileFormat::Toml.parse(Some(&name), text) {
        Ok(values) => Ok(Layer(values)),
        Err(error) => Err(format!("{name}: {}", without_excerpt(&error.to_string()))),
    }
}

/// The parser's message repeats the line at fault, which may hold a secret: its place is enough.
fn without_excerpt(message: &str) -> String {
    let lines =
        message.lines().filter(|line| !line.split_once('|').is_some_and(|(margin, _)| is_margin(margin)));
    lines.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(": ")
}

fn is_margin(text: &str) -> bool {
    text.chars().all(|c| c == ' ' || c.is_ascii_digit())
}

/// `OTEL_EXPORTER_OTLP_ENDPOINT` and `OTEL_SERVICE_NAME`; an empty one counts as unset, as the
/// OpenTelemetry specification says.
pub(super) fn otel(environment: &Environment) -> Result<Layer, Vec<String>> {
    let given = OTEL_VARIABLES.iter().filter_map(|(name, path)| {
        let value = environment.text(name).transpose()?;
        Some((*name, path.map(str::to_owned).to_vec(), value))
    });
    from_variables(given.filter(|(_, _, value)| !matches!(value, Ok(text) if text.is_empty())))
}

/// Variables named `NYX__SECTION__KEY`. An empty value is a value.
pub(super) fn nyx(environment: &Environment) -> Result<Layer, Vec<String>> {
    let mut problems = Vec::new();
    let mut given = Vec::new();
    for name in environment.names() {
        match key_of(name) {
            Ok(None) => {}
            Ok(Some(path)) => {
                given.extend(environment.text(name).transpose().map(|value| (name, path, value)))
            }
            Err(problem) => problems.push(problem),
        }
    }
    match from_variables(given.into_iter()) {
        Ok(layer) if problems.is_empty() => Ok(layer),
        Ok(_) => Err(problems),
        Err(more) => {
            problems.extend(more);
            Err(problems)
        }
    }
}

/// The key that a variable sets; `None` if it is not one of ours.
fn key_of(name: &str) -> Result<Option<Vec<String>>, String> {
    let Some(rest) = name.strip_prefix("NYX__") else {
        // Such as NYX_LOG__DIR: nobody but a user of ours writes this, and it would be ignored in silence.
        // NYX_PORT and the like come from elsewhere (Kubernetes makes them for a service named nyx).
        return match name.strip_prefix("NYX_") {
            Some(rest) if rest.contains("__") => {
                Err(format!("variable {name}: not a key of ours: NYX__{rest} would be"))
            }
            _ => Ok(None),
        };
    };
    if rest.contains(|c: char| c.is_lowercase()) {
        return Err(format!("variable {name}: must be in capitals: {}", name.to_uppercase()));
    }
    let path: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
    let well_formed = |part: &String| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
    };
    if path.iter().all(well_formed) {
        Ok(Some(path))
    } else {
        Err(format!("variable {name}: must be named NYX__SECTION__KEY"))
    }
}

fn from_variables<'a>(
    given: impl Iterator<Item = (&'a str, Vec<String>, Result<&'a str, String>)>,
) -> Result<Layer, Vec<String>> {
    let mut layer = Layer::default();
    let mut problems = Vec::new();
    for (name, path, value) in given {
        let origin = format!("{VARIABLE}{name}");
        match value {
            Ok(text) => {
                if !insert(&mut layer.0, &path, Value::new(Some(&origin), text.to_owned())) {
                    problems.push(format!("{origin}: another variable sets a table or key of that name"));
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(layer) } else { Err(problems) }
}

/// Puts `value` at `path`, unless something is in the way.
fn insert(values: &mut Map<String, Value>, path: &[String], value: Value) -> bool {
    match path {
        [] => false,
        [name] => values.insert(name.clone(), value).is_none(),
        [name, rest @ ..] => {
            let inner = values.entry(name.clone()).or_insert_with(|| Map::<String, Value>::new().into());
            match &mut inner.kind {
                ValueKind::Table(inner) => insert(inner, rest, value),
                _ => false,
            }
        }
    }
}
