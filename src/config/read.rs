//! Reads merged values, collecting every problem instead of stopping at the first.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
};

use config::{Map, Value, ValueKind};

use super::{
    layers::{is_text_only, is_variable},
    section::Key,
    suggest::nearest,
    variables::variable_of,
};

/// Characters of a value or a name that an error repeats.
const SHOWN_CHARS_MAX: usize = 100;
/// Problems that are told; a file of a megabyte can have a hundred thousand.
const PROBLEMS_MAX: usize = 100;
/// A longer name is not held against the known ones: no key has such a name.
const NAME_BYTES_MAX: usize = 255;

/// Says that a problem was noted; the value is missing because of it.
#[derive(Debug)]
pub(super) struct Noted;

/// What was read, or that the reason for its absence was noted.
pub(super) type Read<T> = Result<T, Noted>;

/// The problems found so far.
pub(super) struct Problems<'k> {
    lines: RefCell<Vec<String>>,
    /// Those that are not told.
    more: Cell<usize>,
    refused: RefCell<BTreeSet<String>>,
    known: &'k [Key],
}

impl<'k> Problems<'k> {
    /// None yet; `known` are all keys, for suggestions.
    pub(super) fn new(known: &'k [Key]) -> Self {
        Self { lines: RefCell::default(), more: Cell::new(0), refused: RefCell::default(), known }
    }

    pub(super) fn note(&self, problem: String) -> Noted {
        match self.is_full() {
            true => self.more.set(self.more.get() + 1),
            false => self.lines.borrow_mut().push(problem),
        }
        Noted
    }

    /// Whether further problems are only counted.
    fn is_full(&self) -> bool {
        self.lines.borrow().len() >= PROBLEMS_MAX
    }

    /// Notes that a key cannot have its value.
    pub(super) fn refuse(&self, key: &str, value: &Value, rule: &str) -> Noted {
        self.refused.borrow_mut().insert(key.to_owned());
        self.note(format!(
            "{} is {}{}: {rule}{}",
            shortened(key),
            shown(value),
            origin_of(value),
            as_in_a_file(value)
        ))
    }

    /// Whether the value of a key was refused already.
    pub(super) fn has_refused(&self, key: &str) -> bool {
        self.refused.borrow().contains(key)
    }

    /// The first of them, and how many more there are.
    pub(super) fn into_inner(self) -> Vec<String> {
        let mut lines = self.lines.into_inner();
        match self.more.get() {
            0 => {}
            1 => lines.push("and 1 more problem".to_owned()),
            more => lines.push(format!("and {more} more problems")),
        }
        lines
    }
}

/// A table whose keys are taken out one by one; what is left at the end is unknown.
pub(super) struct Table<'p> {
    path: String,
    values: Map<String, Value>,
    known: Vec<String>,
    pub(super) problems: &'p Problems<'p>,
}

impl<'p> Table<'p> {
    pub(super) fn root(values: Map<String, Value>, problems: &'p Problems<'p>) -> Self {
        Self { path: String::new(), values, known: Vec::new(), problems }
    }

    /// The full name of a key of this table.
    pub(super) fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The names of what is left, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.values.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Where a key of this table comes from, as a part of a sentence.
    pub(super) fn origin(&self, name: &str) -> String {
        self.values.get(name).map(origin_of).unwrap_or_default()
    }

    /// The value of a key as it is.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.known.push(name.to_owned());
        self.values.remove(name)
    }

    /// A table within this one; an absent one is empty.
    pub(super) fn table(&mut self, name: &str) -> Read<Table<'p>> {
        let path = self.key(name);
        let values = match self.take(name) {
            None => Map::new(),
            Some(Value { kind: ValueKind::Table(values), .. }) => values,
            Some(value) => return Err(self.problems.refuse(&path, &value, "must be a table")),
        };
        Ok(Table { path, values, known: Vec::new(), problems: self.problems })
    }

    /// The value of a key that may be absent.
    pub(super) fn optional<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Read<Option<T>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match parse(&value) {
            Ok(parsed) => Ok(Some(parsed)),
            Err(rule) => Err(self.problems.refuse(&self.key(name), &value, &rule)),
        }
    }

    /// The value of a key that must be there.
    pub(super) fn get<T>(&mut self, name: &str, parse: impl FnOnce(&Value) -> Result<T, String>) -> Read<T> {
        match self.optional(name, parse)? {
            Some(parsed) => Ok(parsed),
            None => Err(self.problems.note(format!("{} must be set", self.key(name)))),
        }
    }

    /// Notes every key that nobody took.
    pub(super) fn finish(self) {
        let place = match self.path.is_empty() {
            true => "the top".to_owned(),
            false => format!("[{}]", shortened(&self.path)),
        };
        for name in self.names() {
            let Some(value) = self.values.get(&name) else { continue };
            if self.problems.is_full() {
                // What it was meant to be takes long to find, and nobody would read it.
                self.problems.note(String::new());
                continue;
            }
            let what = if matches!(value.kind, ValueKind::Table(_)) { "table" } else { "key" };
            let nearest = (name.len() <= NAME_BYTES_MAX)
                .then(|| nearest(&name, &self.path, &self.known, self.problems.known))
                .flatten();
            let nearest = nearest.map(|key| match is_variable(value) {
                true => variable_of(&key),
                false => key,
            });
            let nearest = nearest.map(|key| format!("did you mean {key}? ")).unwrap_or_default();
            self.problems.note(format!(
                "{} is {}{}: unknown {what}: {nearest}{place} has {}",
                shortened(&self.key(&name)),
                shown_of_unknown(value),
                origin_of(value),
                self.known.join(", ")
            ));
        }
    }
}

/// Gives `values` what only `lower` has; tables are merged key by key. Each value keeps its origin.
pub(super) fn fill(values: &mut Map<String, Value>, lower: &Map<String, Value>) {
    for (name, value) in lower {
        match (values.get_mut(name).map(|value| &mut value.kind), &value.kind) {
            (None, _) => {
                values.insert(name.clone(), value.clone());
            }
            (Some(ValueKind::Table(values)), ValueKind::Table(lower)) => fill(values, lower),
            (Some(_), _) => {}
        }
    }
}

/// The value at a dotted path.
pub(super) fn at<'v>(values: &'v Map<String, Value>, path: &str) -> Option<&'v Value> {
    match path.split_once('.') {
        None => values.get(path),
        Some((first, rest)) => match &values.get(first)?.kind {
            ValueKind::Table(values) => at(values, rest),
            _ => None,
        },
    }
}

/// A value as an error shows it.
pub(super) fn shown(value: &Value) -> String {
    match &value.kind {
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        // A URL with a password: no error repeats it.
        ValueKind::String(text) if text.contains('@') => "(not shown)".to_owned(),
        ValueKind::String(text) => format!("{:?}", shortened(text)),
        _ => value.to_string(),
    }
}

/// What to do about a variable or a flag whose text is written as in a file.
fn as_in_a_file(value: &Value) -> &'static str {
    match &value.kind {
        ValueKind::String(text) if is_text_only(value) && text.starts_with(['"', '\'', '[', '{']) => {
            "; in a variable or a flag it stands without quotes and brackets"
        }
        _ => "",
    }
}

/// The text of a key that nobody knows may be a secret.
fn shown_of_unknown(value: &Value) -> String {
    match value.kind {
        ValueKind::String(_) if is_text_only(value) => "set".to_owned(),
        ValueKind::String(_) => "a text".to_owned(),
        _ => shown(value),
    }
}

/// The beginning of a text that may be long.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Where a value comes from, as a part of a sentence.
pub(super) fn origin_of(value: &Value) -> String {
    value.origin().map(|origin| format!(" ({origin})")).unwrap_or_default()
}
