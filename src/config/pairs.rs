//! Keys that hold a table of texts: the headers of a destination and the attributes of a resource.
//!
//! The values of headers are secrets: no error and no `Debug` repeats one.

use config::{Map, Value, ValueKind};
use nyx_telemetry::export::{self, HeaderProblem};

use super::{
    layers::{is_text_only, is_variable},
    read::{Noted, Problems, Read, Table, origin_of, shortened},
    section::{Field, Keys},
    variables::variable_of,
};

/// Attributes of a resource at most.
const ATTRIBUTES_MAX: usize = 64;
/// Bytes of one attribute, its name included, at most.
const ATTRIBUTE_BYTES_MAX: usize = 1_024;

type Pairs = Vec<(String, String)>;

/// Headers of requests.
pub(super) struct Headers;

/// Headers of requests.
pub(super) fn headers() -> Headers {
    Headers
}

impl Field for Headers {
    type Value = Pairs;

    fn read(&self, table: &mut Table<'_>, name: &str) -> Read<Pairs> {
        let key = table.key(name);
        let problems = table.problems;
        let Some(value) = table.take(name) else { return Ok(Vec::new()) };
        let origin = match value.kind {
            // Of a table each header has its own.
            ValueKind::Table(_) => String::new(),
            _ => origin_of(&value),
        };
        let headers = read(&key, value, problems, "headers")?;
        let Err(wrong) = export::headers(&headers) else { return Ok(headers) };
        let mut noted = Noted;
        for HeaderProblem { name, rule } in wrong {
            let header = name.map(|name| format!(".{}", shortened(&name))).unwrap_or_default();
            noted = problems.note(format!("{key}{header}{origin}: {rule}"));
        }
        Err(noted)
    }

    fn describe(&self, keys: &mut Keys, name: &str, meaning: &str) {
        let allowed = "up to 64 texts of printable ASCII, 16 KiB with their names";
        keys.secrets(name, meaning, allowed);
    }
}

/// Attributes of a resource.
pub(super) struct Attributes;

/// Attributes of a resource.
pub(super) fn attributes() -> Attributes {
    Attributes
}

impl Field for Attributes {
    type Value = Pairs;

    fn read(&self, table: &mut Table<'_>, name: &str) -> Read<Pairs> {
        let key = table.key(name);
        let problems = table.problems;
        let Some(value) = table.take(name) else { return Ok(Vec::new()) };
        let origin = origin_of(&value);
        let attributes = read(&key, value, problems, "attributes")?;
        if attributes.len() > ATTRIBUTES_MAX {
            let found = attributes.len();
            return Err(problems
                .note(format!("{key}{origin}: has {found} attributes: must have at most {ATTRIBUTES_MAX}")));
        }
        let mut all = Ok(());
        for (at, (name, value)) in attributes.iter().enumerate() {
            let rule = if name.is_empty() {
                "must have a name".to_owned()
            } else if name == "service.name" {
                "is telemetry.service_name: set that".to_owned()
            } else if name.len() + value.len() > ATTRIBUTE_BYTES_MAX {
                format!("must not be longer than {ATTRIBUTE_BYTES_MAX} bytes with its name")
            } else if attributes.iter().take(at).any(|(before, _)| before == name) {
                "must be set once".to_owned()
            } else {
                continue;
            };
            all = Err(problems.note(format!("{key}.{}{origin}: {rule}", shortened(name))));
        }
        all.map(|()| attributes)
    }

    fn describe(&self, keys: &mut Keys, name: &str, meaning: &str) {
        let allowed = format!("up to {ATTRIBUTES_MAX} texts of {ATTRIBUTE_BYTES_MAX} bytes with their names");
        keys.key(name, meaning, &allowed, true);
    }
}

/// A table of texts, or, from a variable or a flag, `name=value,name=value`.
fn read(key: &str, value: Value, problems: &Problems<'_>, what: &str) -> Read<Pairs> {
    let (origin, text_only) = (origin_of(&value), is_text_only(&value));
    match value.kind {
        ValueKind::Table(values) => from_table(key, values, problems, what),
        ValueKind::String(text) if text_only => match parse(&text) {
            Some(pairs) => Ok(pairs),
            None => Err(problems.note(format!("{key}{origin}: {RULE}"))),
        },
        _ => Err(problems.note(format!("{key}{origin}: must be a table of texts"))),
    }
}

fn from_table(key: &str, values: Map<String, Value>, problems: &Problems<'_>, what: &str) -> Read<Pairs> {
    let mut pairs = Vec::new();
    let mut all = Ok(());
    // In an order of its own, so that the same file is refused in the same words.
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    for (name, value) in values {
        let origin = origin_of(&value);
        // A variable cannot spell the dash of most names, nor either of them a dot; and one of them alone would silently take
        // the place of what another variable says of all.
        let whole = match is_text_only(&value) {
            false => None,
            true if is_variable(&value) => Some(("variable", variable_of(key) + " as ")),
            true => Some(("flag", format!("--set {key}="))),
        };
        if let Some((a, whole)) = whole {
            let rule = format!("a {a} sets all {what} at once: must be {whole}name=value,name=value");
            all = Err(problems.note(format!("{key}.{}{origin}: {rule}", shortened(&name))));
            continue;
        }
        match value.kind {
            ValueKind::String(text) => pairs.push((name, text)),
            _ => all = Err(problems.note(format!("{key}.{}{origin}: must be a text", shortened(&name)))),
        }
    }
    all.map(|()| pairs)
}

/// What a text of pairs must be.
pub(super) const RULE: &str =
    "must be name=value,name=value, with %2C for a comma and %25 for a percent sign in a value";

/// `name=value,name=value`, values URL-decoded: the form of `OTEL_EXPORTER_OTLP_HEADERS` and
/// `OTEL_RESOURCE_ATTRIBUTES`.
pub(super) fn parse(text: &str) -> Option<Pairs> {
    text.split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((url_decoded(name.trim())?, url_decoded(value.trim())?))
        })
        .collect()
}

/// The same pairs as a text that [`parse`] reads.
pub(super) fn text(pairs: &[(String, String)]) -> String {
    let encoded = |text: &str| {
        let mut encoded = String::new();
        for byte in text.bytes() {
            match byte {
                b'%' | b',' | b'=' | 0..=b' ' | 0x7f.. => encoded.push_str(&format!("%{byte:02X}")),
                _ => encoded.push(char::from(byte)),
            }
        }
        encoded
    };
    let pairs: Vec<_> =
        pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    pairs.join(",")
}

fn url_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut decoded = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        if !code.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        decoded.push(u8::from_str_radix(code, 16).ok()?);
        decoded.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_read_what_they_write() {
        let pairs = vec![("a b".to_owned(), "1,2=3%é".to_owned()), ("c".to_owned(), String::new())];
        assert_eq!(text(&pairs), "a%20b=1%2C2%3D3%25%C3%A9,c=");
        assert_eq!(parse(&text(&pairs)), Some(pairs));
    }
}
