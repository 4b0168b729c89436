//! A text in TOML, read into values that know the line of their key.

use ::config::{Map, Value, ValueKind};
use ::toml::de::{DeTable, DeValue};

use super::read::shortened;

/// Reads `text`, which errors and origins call `name`.
///
/// # Errors
/// The text is not TOML, or holds a value that no key here can have. The line itself is not repeated: it may hold a
/// secret.
pub(super) fn parse(name: &str, text: &str) -> Result<Map<String, Value>, String> {
    // A file of a megabyte can have a hundred thousand keys: its lines are counted once.
    let ends: Vec<usize> = text.match_indices('\n').map(|(end, _)| end).collect();
    let place = |offset: usize| format!("{name}, line {}", line(&ends, offset));
    let table = DeTable::parse(text).map_err(|error| match error.span() {
        Some(span) => {
            let (place, column) = (place(span.start), column(text, span.start));
            format!("{place}, column {column}: is not TOML: {}", error.message())
        }
        None => format!("{name}: is not TOML: {}", error.message()),
    })?;
    tree(table.into_inner(), &place)
}

fn tree(table: DeTable<'_>, place: &dyn Fn(usize) -> String) -> Result<Map<String, Value>, String> {
    let mut values = Map::new();
    for (key, value) in table {
        let origin = place(key.span().start);
        let kind = kind(value.into_inner(), place).map_err(|problem| match problem {
            Problem::Here(rule) => format!("{} ({origin}): {rule}", shortened(key.get_ref())),
            Problem::Within(problem) => problem,
        })?;
        values.insert(key.into_inner().into_owned(), Value::new(Some(&origin), kind));
    }
    Ok(values)
}

enum Problem {
    /// What is wrong with the value itself.
    Here(&'static str),
    /// The whole text about a value within it.
    Within(String),
}

fn kind(value: DeValue<'_>, place: &dyn Fn(usize) -> String) -> Result<ValueKind, Problem> {
    Ok(match value {
        DeValue::String(text) => ValueKind::String(text.into_owned()),
        DeValue::Boolean(flag) => ValueKind::Boolean(flag),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map(|wide| i64::try_from(wide).map_or(ValueKind::I128(wide), ValueKind::I64))
            .map_err(|_| Problem::Here("is beyond any number here"))?,
        // Beyond all numbers it is infinite, and so beyond every range.
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .map(ValueKind::Float)
            .map_err(|_| Problem::Here("is beyond any number here"))?,
        DeValue::Datetime(_) => return Err(Problem::Here("is a date, and no key is one: put it in quotes")),
        DeValue::Array(items) => {
            let items = items.into_iter().map(|item| Ok(Value::new(None, kind(item.into_inner(), place)?)));
            ValueKind::Array(items.collect::<Result<_, Problem>>()?)
        }
        DeValue::Table(table) => ValueKind::Table(tree(table, place).map_err(Problem::Within)?),
    })
}

/// The number of the line that `offset` is in, of lines that end there; the first is 1.
fn line(ends: &[usize], offset: usize) -> usize {
    ends.partition_point(|end| *end < offset) + 1
}

/// The number of the character that `offset` is at; the first of a line is 1.
fn column(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    before.rsplit('\n').next().unwrap_or_default().chars().count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(values: &Map<String, Value>, path: &[&str]) -> Option<String> {
        let [first, rest @ ..] = path else { return None };
        match (rest, &values.get(*first)?.kind) {
            ([], _) => values[*first].origin().map(str::to_owned),
            (_, ValueKind::Table(inner)) => origin(inner, rest),
            _ => None,
        }
    }

    #[test]
    fn every_value_knows_the_line_of_its_key() {
        let text = "a.b = 1\n\n[c] # ä\nd = [\n  1,\n]\ne = { f = \"\"\"\n\n\"\"\", g = 2 }\n[h]\n";
        let values = parse("file x", text).unwrap();
        for (path, line) in [
            (&["a"][..], 1),
            (&["a", "b"], 1),
            (&["c"], 3),
            (&["c", "d"], 4),
            (&["c", "e"], 7),
            (&["c", "e", "f"], 7),
            (&["c", "e", "g"], 9),
            (&["h"], 10),
        ] {
            assert_eq!(origin(&values, path), Some(format!("file x, line {line}")), "{path:?}");
        }
    }

    #[test]
    fn what_is_not_toml_is_refused_with_its_place() {
        for (text, problem) in [
            (
                "[a]\nb = Bearer hush",
                "file x, line 2, column 5: is not TOML: string values must be quoted, expected literal string",
            ),
            ("ä = 1\na = 1\na = 2", "file x, line 1, column 1: is not TOML: invalid unquoted key"),
            ("a = 1\na = 2", "file x, line 2, column 1: is not TOML: duplicate key"),
        ] {
            let found = parse("file x", text).unwrap_err();
            assert!(found.starts_with(problem), "{found}");
        }
    }

    #[test]
    fn what_no_key_can_be_is_refused() {
        assert_eq!(
            parse("file x", "[a]\nb = { c = 1979-05-27 }").unwrap_err(),
            "c (file x, line 2): is a date, and no key is one: put it in quotes"
        );
        let large = "9".repeat(50);
        assert_eq!(
            parse("file x", &format!("[a]\nb = [{large}]")).unwrap_err(),
            "b (file x, line 2): is beyond any number here"
        );
    }
}
