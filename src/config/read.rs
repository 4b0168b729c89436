//! Reads merged values, collecting every problem instead of stopping at the first.

use std::{cell::RefCell, fmt::Display, net::SocketAddr, ops::RangeInclusive, str::FromStr, time::Duration};

use config::{Map, Value, ValueKind};
use humantime_serde::re::humantime;

use super::layers::is_variable;

/// Characters of a value that an error repeats.
const SHOWN_CHARS_MAX: usize = 100;

/// Says that a problem was noted; the value is missing because of it.
#[derive(Debug)]
pub(super) struct Noted;

/// What was read, or that the reason for its absence was noted.
pub(super) type Read<T> = Result<T, Noted>;

/// The problems found so far.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<String>>);

impl Problems {
    pub(super) fn note(&self, problem: String) -> Noted {
        self.0.borrow_mut().push(problem);
        Noted
    }

    pub(super) fn into_inner(self) -> Vec<String> {
        self.0.into_inner()
    }
}

/// A table whose keys are taken out one by one; what is left at the end is unknown.
pub(super) struct Table<'p> {
    path: String,
    values: Map<String, Value>,
    known: Vec<String>,
    pub(super) problems: &'p Problems,
}

impl<'p> Table<'p> {
    pub(super) fn root(values: Map<String, Value>, problems: &'p Problems) -> Self {
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
            Some(value) => return Err(self.problems.note(refusal(&path, &value, "must be a table"))),
        };
        Ok(Table { path, values, known: Vec::new(), problems: self.problems })
    }

    /// Gives the keys that are absent the values that they have in `defaults`.
    pub(super) fn fill(&mut self, defaults: &Map<String, Value>) {
        fill(&mut self.values, defaults);
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
            Err(rule) => Err(self.problems.note(refusal(&self.key(name), &value, &rule))),
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
        let place = if self.path.is_empty() { "the top".to_owned() } else { format!("[{}]", self.path) };
        for name in self.names() {
            let origin =
                self.values.get(&name).and_then(origin).map(|o| format!(" ({o})")).unwrap_or_default();
            let known = self.known.join(", ");
            let key = self.key(&name);
            self.problems.note(format!("{key}{origin}: unknown key: {place} has {known}"));
        }
    }
}

fn fill(values: &mut Map<String, Value>, defaults: &Map<String, Value>) {
    for (name, default) in defaults {
        match (values.get_mut(name).map(|value| &mut value.kind), &default.kind) {
            (None, _) => {
                values.insert(name.clone(), default.clone());
            }
            (Some(ValueKind::Table(values)), ValueKind::Table(defaults)) => fill(values, defaults),
            (Some(_), _) => {}
        }
    }
}

/// The text of a refusal: key, value, origin, and what is allowed.
pub(super) fn refusal(key: &str, value: &Value, rule: &str) -> String {
    let shown = match &value.kind {
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        // A URL with a password: no error repeats it.
        ValueKind::String(text) if text.contains('@') => "(not shown)".to_owned(),
        ValueKind::String(text) => format!("{:?}", shortened(text)),
        _ => value.to_string(),
    };
    match origin(value) {
        Some(origin) => format!("{key} is {shown} ({origin}): {rule}"),
        None => format!("{key} is {shown}: {rule}"),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Where a value comes from. Merging forgets it for tables: then the first of their keys tells.
pub(super) fn origin(value: &Value) -> Option<&str> {
    if let Some(origin) = value.origin() {
        return Some(origin);
    }
    let ValueKind::Table(values) = &value.kind else { return None };
    let first = values.iter().min_by_key(|(name, _)| name.as_str())?;
    origin(first.1)
}

/// A text; a variable's value is one whatever it looks like.
fn text_of(value: &Value) -> Option<&str> {
    match &value.kind {
        ValueKind::String(text) => Some(text),
        _ => None,
    }
}

/// Variables are texts: what they mean is the key's matter. In a file a number in quotes stays a text.
fn variable_as<T: FromStr>(value: &Value) -> Option<T> {
    if is_variable(value) { text_of(value)?.trim().parse().ok() } else { None }
}

fn integer_of(value: &Value) -> Option<i128> {
    match value.kind {
        ValueKind::I64(n) => Some(n.into()),
        ValueKind::U64(n) => Some(n.into()),
        ValueKind::I128(n) => Some(n),
        _ => variable_as(value),
    }
}

/// A text of so many bytes.
pub(super) fn text(bytes: RangeInclusive<usize>) -> impl FnOnce(&Value) -> Result<String, String> {
    move |value| {
        let text = text_of(value).filter(|text| bytes.contains(&text.len()));
        text.map(str::to_owned)
            .ok_or_else(|| format!("must be a text of {} to {} bytes", bytes.start(), bytes.end()))
    }
}

/// A text that `parse` understands.
pub(super) fn parsed<T>(
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> impl FnOnce(&Value) -> Result<T, String> {
    |value| parse(text_of(value).ok_or("must be a text")?)
}

/// An IP address and port.
pub(super) fn address(value: &Value) -> Result<SocketAddr, String> {
    text_of(value)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| "must be an IP address and port such as 127.0.0.1:9100".to_owned())
}

/// True or false.
pub(super) fn flag(value: &Value) -> Result<bool, String> {
    match value.kind {
        ValueKind::Boolean(flag) => Some(flag),
        _ => variable_as(value),
    }
    .ok_or_else(|| "must be true or false".to_owned())
}

/// A whole number.
pub(super) fn whole<T>(range: RangeInclusive<T>) -> impl FnOnce(&Value) -> Result<T, String>
where
    T: TryFrom<i128> + PartialOrd + Display,
{
    move |value| {
        integer_of(value)
            .and_then(|n| T::try_from(n).ok())
            .filter(|n| range.contains(n))
            .ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
    }
}

/// A number.
pub(super) fn number(range: RangeInclusive<f64>) -> impl FnOnce(&Value) -> Result<f64, String> {
    move |value| {
        let number = match value.kind {
            ValueKind::Float(number) => Some(number),
            // Only small numbers are in any range here, and those are exact.
            ValueKind::I64(number) => i32::try_from(number).ok().map(f64::from),
            _ => variable_as(value),
        };
        number
            .filter(|n| range.contains(n))
            .ok_or_else(|| format!("must be a number from {} to {}", range.start(), range.end()))
    }
}

/// A size in bytes: a whole number, or a text such as `64MiB`.
pub(super) fn bytes<T>(range: RangeInclusive<T>) -> impl FnOnce(&Value) -> Result<T, String>
where
    T: TryFrom<i128> + PartialOrd + Display,
{
    move |value| {
        let size = integer_of(value).or_else(|| text_of(value).and_then(size));
        size.and_then(|n| T::try_from(n).ok()).filter(|n| range.contains(n)).ok_or_else(|| {
            format!(
                "must be a size from {} to {} bytes, such as 65536 or \"64KiB\"",
                range.start(),
                range.end()
            )
        })
    }
}

fn size(text: &str) -> Option<i128> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let factor: i128 = match unit.trim_start() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<i128>().ok()?.checked_mul(factor)
}

/// A duration with a unit.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl FnOnce(&Value) -> Result<Duration, String> {
    move |value| {
        text_of(value)
            .and_then(|text| humantime::parse_duration(text).ok())
            .filter(|duration| range.contains(duration))
            .ok_or_else(|| {
                let (min, max) =
                    (humantime::format_duration(*range.start()), humantime::format_duration(*range.end()));
                format!("must be a duration from {min} to {max}, such as \"10s\"")
            })
    }
}
