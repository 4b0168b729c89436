//! The headers of a destination. Their values are secrets: no error and no `Debug` repeats one.

use config::{Map, Value, ValueKind};
use nyx_telemetry::export::{self, HeaderProblem};

use super::{
    layers::is_variable,
    read::{Noted, Problems, Read, Table, origin},
};

/// Reads the key `headers`: a table of texts, or, from a variable, `name=value,name=value`.
pub(super) fn read(table: &mut Table<'_>) -> Read<Vec<(String, String)>> {
    let key = table.key("headers");
    let problems = table.problems;
    let Some(value) = table.take("headers") else { return Ok(Vec::new()) };
    let origin = origin(&value).map(|origin| format!(" ({origin})")).unwrap_or_default();
    let from_variable = is_variable(&value);
    match value.kind {
        ValueKind::Table(values) => from_table(&key, values, problems),
        ValueKind::String(text) if from_variable => match pairs(&text) {
            Some(pairs) => collect(&key, &origin, pairs, problems),
            None => Err(problems.note(format!(
                "{key}{origin}: must be name=value,name=value, with %2C for a comma and %25 for a percent sign \
                 in a value"
            ))),
        },
        _ => Err(problems.note(format!("{key}{origin}: must be a table of texts"))),
    }
}

fn from_table(key: &str, values: Map<String, Value>, problems: &Problems) -> Read<Vec<(String, String)>> {
    let mut headers = Vec::new();
    let mut all = Ok(());
    for (name, value) in values {
        let origin = value.origin().map(|origin| format!(" ({origin})")).unwrap_or_default();
        // A variable cannot spell the dash of most names, and a guess at it would be silent when wrong.
        if is_variable(&value) {
            all = Err(problems.note(format!(
                "{key}.{name}{origin}: a variable sets all headers at once: must be {} as name=value,name=value",
                variable_of(key)
            )));
            continue;
        }
        match value.kind {
            ValueKind::String(text) => headers.push((name, text)),
            _ => all = Err(problems.note(format!("{key}.{name}{origin}: must be a text"))),
        }
    }
    headers.sort_unstable();
    all?;
    collect(key, "", headers, problems)
}

fn variable_of(key: &str) -> String {
    format!("NYX__{}", key.to_uppercase().replace('.', "__"))
}

fn collect(
    key: &str,
    origin: &str,
    headers: Vec<(String, String)>,
    problems: &Problems,
) -> Read<Vec<(String, String)>> {
    let Err(wrong) = export::headers(&headers) else { return Ok(headers) };
    let mut noted = Noted;
    for HeaderProblem { name, rule } in wrong {
        let header = name.map(|name| format!(".{name}")).unwrap_or_default();
        noted = problems.note(format!("{key}{header}{origin}: {rule}"));
    }
    Err(noted)
}

/// `name=value,name=value`, values URL-decoded: the form of `OTEL_EXPORTER_OTLP_HEADERS`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    text.split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((name.trim().to_owned(), url_decoded(value.trim())?))
        })
        .collect()
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
