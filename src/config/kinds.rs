//! The kinds of values that keys have: how one is read, and what is allowed, for errors and for the reference.

use std::{
    fmt::Display,
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use config::{Value, ValueKind};
use humantime_serde::re::humantime;
use nyx_telemetry::{
    accept::{AddressError, ListenAddr},
    bearer::TokenFile,
    export::Endpoint,
};

use super::layers::is_text_only;

type Parse<T> = Box<dyn Fn(&Value) -> Result<T, String>>;

/// A kind of value.
pub(super) struct Kind<T> {
    /// What is allowed, for the reference.
    pub(super) allowed: String,
    /// Whether it stands without quotes in a file: a number, or true or false.
    pub(super) bare: bool,
    /// Whether it is a list of texts, which a variable or a flag has with commas between them.
    pub(super) list: bool,
    parse: Parse<T>,
}

impl<T: 'static> Kind<T> {
    /// Values that `parse` understands; its error says what is allowed, beginning with `must`.
    pub(super) fn new(
        allowed: impl Into<String>,
        parse: impl Fn(&Value) -> Result<T, String> + 'static,
    ) -> Self {
        Self { allowed: allowed.into(), bare: false, list: false, parse: Box::new(parse) }
    }

    fn bare(self) -> Self {
        Self { bare: true, ..self }
    }

    /// The values are lists of texts.
    pub(super) fn list(self) -> Self {
        Self { list: true, ..self }
    }

    /// Reads a value.
    ///
    /// # Errors
    /// What is allowed.
    pub(super) fn parse(&self, value: &Value) -> Result<T, String> {
        (self.parse)(value)
    }

    /// What `f` makes of the values.
    pub(super) fn map<U: 'static>(self, f: impl Fn(T) -> U + 'static) -> Kind<U> {
        Kind {
            allowed: self.allowed,
            bare: self.bare,
            list: self.list,
            parse: Box::new(move |value| (self.parse)(value).map(&f)),
        }
    }
}

/// A text.
fn text_of(value: &Value) -> Option<&str> {
    match &value.kind {
        ValueKind::String(text) => Some(text),
        _ => None,
    }
}

/// Variables and flags are texts: what they mean is the key's matter. In a file a number in quotes stays a text.
fn text_as<T: FromStr>(value: &Value) -> Option<T> {
    if is_text_only(value) { text_of(value)?.trim().parse().ok() } else { None }
}

fn integer_of(value: &Value) -> Option<i128> {
    match value.kind {
        ValueKind::I64(n) => Some(n.into()),
        ValueKind::U64(n) => Some(n.into()),
        ValueKind::I128(n) => Some(n),
        _ => text_as(value),
    }
}

/// A text of so many bytes.
pub(super) fn text(bytes: RangeInclusive<usize>) -> Kind<String> {
    let (min, max) = (*bytes.start(), *bytes.end());
    let allowed = if min == 0 { format!("up to {max} bytes") } else { format!("{min} to {max} bytes") };
    Kind::new(allowed, move |value| {
        let text = text_of(value).filter(|text| bytes.contains(&text.len()));
        text.map(str::to_owned).ok_or_else(|| format!("must be a text of {min} to {max} bytes"))
    })
}

/// A text that `parse` understands.
pub(super) fn parsed<T: 'static>(
    allowed: &str,
    parse: impl Fn(&str) -> Result<T, String> + 'static,
) -> Kind<T> {
    Kind::new(allowed, move |value| parse(text_of(value).ok_or("must be a text")?))
}

/// One of a few words, each with its meaning.
pub(super) fn word<T: Clone + 'static>(words: impl Into<Vec<(&'static str, T)>>) -> Kind<T> {
    let words = words.into();
    let quoted: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    let allowed = quoted.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    let rule = match quoted.split_last() {
        Some((last, [])) => format!("must be {last}"),
        Some((last, others)) => format!("must be {} or {last}", others.join(", ")),
        None => "must not be set".to_owned(),
    };
    Kind::new(allowed, move |value| {
        let text = text_of(value).ok_or_else(|| rule.clone())?;
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, meaning)| meaning.clone()).ok_or_else(|| rule.clone())
    })
}

/// A path, empty where something else decides.
pub(super) fn path() -> Kind<PathBuf> {
    text(0..=4095).map(PathBuf::from)
}

/// Where a destination is.
pub(super) fn endpoint() -> Kind<Endpoint> {
    parsed("endpoint", |text| Endpoint::parse(text).map_err(|error| error.rule().to_owned()))
}

/// Where a destination is; empty is off.
pub(super) fn endpoint_or_off() -> Kind<Option<Endpoint>> {
    parsed("endpoint", |text| match text {
        "" => Ok(None),
        _ => Endpoint::parse(text).map(Some).map_err(|error| format!("{}; empty is off", error.rule())),
    })
}

/// Where a door listens; empty is off.
pub(super) fn listen() -> Kind<Option<ListenAddr>> {
    parsed("listen", |text| match text {
        "" => Ok(None),
        _ => text.parse().map(Some).map_err(|error: AddressError| format!("{}; empty is off", error.rule())),
    })
}

/// A file of tokens, read with the configuration; empty asks for none.
pub(super) fn token_file() -> Kind<Option<TokenFile>> {
    parsed("file", |text| match text {
        "" => Ok(None),
        path => TokenFile::read(Path::new(path))
            .map(Some)
            .map_err(|error| format!("{error}; empty asks for no token")),
    })
}

/// An IP address and port.
pub(super) fn address() -> Kind<SocketAddr> {
    Kind::new("IP address and port", |value| {
        text_of(value)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| "must be an IP address and port such as 127.0.0.1:9100".to_owned())
    })
}

/// True or false.
pub(super) fn flag() -> Kind<bool> {
    Kind::new("true, false", |value| {
        match value.kind {
            ValueKind::Boolean(flag) => Some(flag),
            _ => text_as(value),
        }
        .ok_or_else(|| "must be true or false".to_owned())
    })
    .bare()
}

/// A whole number.
pub(super) fn whole<T>(range: RangeInclusive<T>) -> Kind<T>
where
    T: TryFrom<i128> + PartialOrd + Display + 'static,
{
    Kind::new(format!("{} to {}", range.start(), range.end()), move |value| {
        integer_of(value)
            .and_then(|n| T::try_from(n).ok())
            .filter(|n| range.contains(n))
            .ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
    })
    .bare()
}

/// A number.
pub(super) fn number(range: RangeInclusive<f64>) -> Kind<f64> {
    Kind::new(format!("{} to {}", range.start(), range.end()), move |value| {
        let number = match value.kind {
            ValueKind::Float(number) => Some(number),
            // Only small numbers are in any range here, and those are exact.
            ValueKind::I64(number) => i32::try_from(number).ok().map(f64::from),
            _ => text_as(value),
        };
        number
            .filter(|n| range.contains(n))
            .ok_or_else(|| format!("must be a number from {} to {}", range.start(), range.end()))
    })
    .bare()
}

/// A size in bytes: a whole number, or a text such as `64MiB`.
pub(super) fn bytes<T>(range: RangeInclusive<T>) -> Kind<T>
where
    T: TryFrom<i128> + PartialOrd + Display + Copy + Into<Bytes> + 'static,
{
    let (min, max): (Bytes, Bytes) = ((*range.start()).into(), (*range.end()).into());
    Kind::new(format!("size, {min} to {max}"), move |value| {
        let size = integer_of(value).or_else(|| text_of(value).and_then(size));
        size.and_then(|n| T::try_from(n).ok()).filter(|n| range.contains(n)).ok_or_else(|| {
            format!(
                "must be a size from {} to {} bytes, such as 65536 or \"64KiB\"",
                range.start(),
                range.end()
            )
        })
    })
    .bare()
}

const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A size, shown in the largest unit that it is a whole number of.
pub(super) struct Bytes(u64);

impl From<u64> for Bytes {
    fn from(bytes: u64) -> Self {
        Self(bytes)
    }
}

impl From<usize> for Bytes {
    fn from(bytes: usize) -> Self {
        Self(bytes as u64)
    }
}

impl Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whole = UNITS.iter().find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor));
        match whole {
            Some((unit, factor)) => write!(f, "{} {unit}", self.0 / factor),
            None => self.0.fmt(f),
        }
    }
}

fn size(text: &str) -> Option<i128> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<i128>().ok()?.checked_mul(i128::from(*factor))
}

/// A duration with a unit.
pub(super) fn duration(range: RangeInclusive<Duration>) -> Kind<Duration> {
    let shown = |duration: &Duration| humantime::format_duration(*duration).to_string();
    let (min, max) = (shown(range.start()), shown(range.end()));
    Kind::new(format!("duration, {min} to {max}"), move |value| {
        text_of(value)
            .and_then(|text| humantime::parse_duration(text).ok())
            .filter(|duration| range.contains(duration))
            .ok_or_else(|| format!("must be a duration from {min} to {max}, such as \"10s\""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_says_what_it_allows_in_the_units_of_people() {
        assert_eq!(bytes(64_usize << 10..=64 << 30).allowed, "size, 64 KiB to 64 GiB");
        assert_eq!(bytes(0_u64..=3_670_016).allowed, "size, 0 to 3584 KiB");
        assert_eq!(
            duration(Duration::from_millis(10)..=Duration::from_secs(3_600)).allowed,
            "duration, 10ms to 1h"
        );
        assert_eq!(word([("a", 1), ("b", 2)]).allowed, "`\"a\"`, `\"b\"`");
        assert_eq!(text(0..=9).allowed, "up to 9 bytes");
        assert_eq!(number(0.0..=1.0).allowed, "0 to 1");
    }
}
