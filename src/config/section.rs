//! How a table of the configuration is declared: its struct, its reading and its part of the reference in one place.
//!
//! To add a key, add a field to its table in `settings.rs`, with a doc comment that says its meaning (it becomes
//! the reference's), its type, and behind `=` the kind of its values (`kinds.rs`):
//!
//! ```text
//! /// How long the body of a request may take to arrive.
//! body_timeout: Duration = duration(ms(10, HOUR_MS)),
//! ```
//!
//! then a line with its default in `config/default.toml`, and run `NYX_GOLDEN=write cargo test -p nyx-daemon --test
//! docs`, which writes its row of `docs/configuration.md`. `kind.or_unset()` is a key that may be absent,
//! `section()` a table within the table; a new table at the top is a field of `Config`. What contradicts another key is
//! refused in `checks.rs`, and whatever listens is to be in its list of listeners.

use std::marker::PhantomData;

use super::{
    kinds::Kind,
    read::{Read, Table},
};

/// A table of a fixed set of keys.
pub(super) trait Section: Sized {
    /// Reads all its keys before it gives up on any, so that one run names every problem.
    fn read(table: Table<'_>) -> Read<Self>;

    /// Describes its keys.
    fn describe(keys: &mut Keys);
}

/// A key or a table within a section.
pub(super) trait Field {
    /// What it is read into.
    type Value;

    /// Takes it out of `table`.
    fn read(&self, table: &mut Table<'_>, name: &str) -> Read<Self::Value>;

    /// Describes it; `meaning` is its doc comment.
    fn describe(&self, keys: &mut Keys, name: &str, meaning: &str);
}

/// A key of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its full name; the part that names a destination is `NAME`.
    pub name: String,
    /// Its meaning, in Markdown.
    pub meaning: String,
    /// The values that are allowed.
    pub allowed: String,
    /// Whether its value stands without quotes in a file.
    pub(super) bare: bool,
    /// Whether it is a list of texts.
    pub(super) list: bool,
    /// Whether nothing may show its value.
    pub(super) secret: bool,
}

/// The keys described so far, and the table that is being described.
#[derive(Debug, Default)]
pub(super) struct Keys {
    path: String,
    pub(super) keys: Vec<Key>,
    /// Tables at the top with their meaning, in their order.
    pub(super) tables: Vec<(String, String)>,
}

impl Keys {
    pub(super) fn key(&mut self, name: &str, meaning: &str, allowed: &str, bare: bool) {
        let name = self.full(name);
        let meaning = paragraph(meaning);
        self.keys.push(Key { name, meaning, allowed: allowed.to_owned(), bare, list: false, secret: false });
    }

    /// A key whose values are secrets; whoever reads them repeats none in an error.
    pub(super) fn secrets(&mut self, name: &str, meaning: &str, allowed: &str) {
        self.key(name, meaning, allowed, true);
        if let Some(key) = self.keys.last_mut() {
            key.secret = true;
        }
    }

    pub(super) fn within(&mut self, name: &str, meaning: &str, describe: impl FnOnce(&mut Self)) {
        if self.path.is_empty() {
            self.tables.push((name.to_owned(), meaning.to_owned()));
        }
        let path = self.full(name);
        let outer = std::mem::replace(&mut self.path, path);
        describe(self);
        self.path = outer;
    }

    fn full(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

/// The lines of a doc comment as one.
fn paragraph(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl<T: 'static> Field for Kind<T> {
    type Value = T;

    fn read(&self, table: &mut Table<'_>, name: &str) -> Read<T> {
        table.get(name, |value| self.parse(value))
    }

    fn describe(&self, keys: &mut Keys, name: &str, meaning: &str) {
        keys.key(name, meaning, &self.allowed, self.bare);
        if let Some(key) = keys.keys.last_mut() {
            key.list = self.list;
        }
    }
}

/// A key that may be absent.
pub(super) struct OrUnset<T>(Kind<T>);

impl<T: 'static> Kind<T> {
    /// The key may be absent.
    pub(super) fn or_unset(self) -> OrUnset<T> {
        OrUnset(self)
    }
}

impl<T: 'static> Field for OrUnset<T> {
    type Value = Option<T>;

    fn read(&self, table: &mut Table<'_>, name: &str) -> Read<Option<T>> {
        table.optional(name, |value| self.0.parse(value))
    }

    fn describe(&self, keys: &mut Keys, name: &str, meaning: &str) {
        self.0.describe(keys, name, meaning);
    }
}

/// A table within a table.
pub(super) struct Within<S>(PhantomData<S>);

/// A table within a table.
pub(super) fn section<S: Section>() -> Within<S> {
    Within(PhantomData)
}

impl<S: Section> Field for Within<S> {
    type Value = S;

    fn read(&self, table: &mut Table<'_>, name: &str) -> Read<S> {
        table.table(name).and_then(S::read)
    }

    fn describe(&self, keys: &mut Keys, name: &str, meaning: &str) {
        keys.within(name, meaning, S::describe);
    }
}

/// Reads a field of this type.
pub(super) fn read<T, F: Field<Value = T>>(how: &F, table: &mut Table<'_>, name: &str) -> Read<T> {
    how.read(table, name)
}

/// Describes a field of this type.
pub(super) fn describe<T, F: Field<Value = T>>(how: &F, keys: &mut Keys, name: &str, meaning: &str) {
    how.describe(keys, name, meaning);
}

/// Declares a struct with how each of its fields is read.
macro_rules! section {
    (
        $(#[doc = $doc:literal])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $meaning:literal])*
                $field:ident: $type:ty = $how:expr,
            )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq)]
        $vis struct $name {
            $(
                $(#[doc = $meaning])*
                $vis $field: $type,
            )*
        }

        impl $crate::config::section::Section for $name {
            fn read(mut table: $crate::config::read::Table<'_>) -> $crate::config::read::Read<Self> {
                $(
                    let $field = $crate::config::section::read::<$type, _>(&$how, &mut table, stringify!($field));
                )*
                table.finish();
                Ok(Self { $($field: $field?,)* })
            }

            fn describe(keys: &mut $crate::config::section::Keys) {
                $(
                    let meaning = concat!($($meaning, "\n",)*);
                    $crate::config::section::describe::<$type, _>(&$how, keys, stringify!($field), meaning);
                )*
            }
        }
    };
}
pub(super) use section as declare;
