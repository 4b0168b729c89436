//! The layers that come from files, each a tree of values that know where they come from.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use config::{Map, Value, ValueKind};

use super::toml;

/// `config/default.toml`, the lowest layer and the reference that users read.
pub(super) const DEFAULT_TOML: &str = include_str!("../../config/default.toml");
/// The origin of its values.
pub(super) const BUILT_IN: &str = "built-in";

/// Bytes of a configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the origin of a variable's value starts with; no file's does.
pub(super) const VARIABLE: &str = "variable ";
/// What that of a flag's value starts with.
pub(super) const FLAG: &str = "flag ";

/// A configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it must be there: a standard place may be empty, a file that somebody named may not.
    pub required: bool,
}

impl ConfigFile {
    /// A file that somebody named.
    pub fn required(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), required: true }
    }

    /// A place where a file may be.
    pub fn optional(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), required: false }
    }
}

/// Whether a value was given as a variable.
pub(super) fn is_variable(value: &Value) -> bool {
    value.origin().is_some_and(|origin| origin.starts_with(VARIABLE))
}

/// Whether a value was given where everything is a text: as a variable or a flag.
pub(super) fn is_text_only(value: &Value) -> bool {
    is_variable(value) || value.origin().is_some_and(|origin| origin.starts_with(FLAG))
}

/// The built-in layer.
pub(super) fn built_in() -> Result<Map<String, Value>, String> {
    let mut values = toml::parse("built-in default.toml", DEFAULT_TOML)?;
    // Where in the program it stands helps nobody.
    name_origin(&mut values, BUILT_IN);
    Ok(values)
}

fn name_origin(values: &mut Map<String, Value>, origin: &str) {
    for value in values.values_mut() {
        let kind = std::mem::take(&mut value.kind);
        *value = Value::new(Some(&origin.to_owned()), kind);
        if let ValueKind::Table(inner) = &mut value.kind {
            name_origin(inner, origin);
        }
    }
}

/// A file; `None` if it is not there and need not be.
pub(super) fn file(file: &ConfigFile) -> Result<Option<Map<String, Value>>, String> {
    let name = format!("file {}", file.path.display());
    match text(&file.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !file.required => Ok(None),
        Err(error) => Err(format!("{name}: cannot be read: {error}")),
        Ok(text) if text.len() as u64 > FILE_BYTES_MAX => {
            Err(format!("{name}: is larger than {FILE_BYTES_MAX} bytes"))
        }
        Ok(text) => toml::parse(&name, &text).map(Some),
    }
}

/// The text of a file, up to one byte more than it may have.
fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    Ok(text)
}
