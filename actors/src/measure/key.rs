//! What tells one series from another (level 0).

use std::sync::Arc;

use super::dimensions::DIMENSIONS_MAX;
use crate::span::{SpanKind, StatusCode};

/// The value of a label whose values are folded.
pub const OTHER: &str = "__other__";

/// What tells one series from another; the texts are cut at [`LABEL_BYTES_MAX`](super::LABEL_BYTES_MAX).
///
/// In this order the series of one operation, which differ in their status, stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RedKey<'a> {
    /// `service.name`; empty where the resource has none. The spanmetrics connector leaves such spans out;
    /// here every span counts, in a series without that label.
    pub service: &'a str,
    /// The span's name, possibly empty.
    pub name: &'a str,
    /// The span's kind.
    pub kind: SpanKind,
    /// The values of the configured dimensions.
    pub dimensions: Values<'a>,
    /// Whether [`OTHER`] stands for further values of a label.
    pub overflow: bool,
    /// The status code.
    pub status: StatusCode,
}

impl<'a> RedKey<'a> {
    /// The text of a label whose number of values is not bounded.
    pub(super) fn label(&self, label: Label) -> &'a str {
        match label {
            Label::NAME => self.name,
            Label(dimension) => self.dimensions.get(usize::from(dimension) - 1),
        }
    }

    /// Whether this is the operation of that key: all but the status is the same.
    pub(super) fn is_operation_of(&self, other: &RedKey<'_>) -> bool {
        RedKey { status: other.status, ..*self } == *other
    }
}

/// A label that can be folded: the span's name, or a dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Label(u8);

impl Label {
    /// The span's name.
    pub(super) const NAME: Self = Self(0);

    /// All of them, where there are so many dimensions.
    pub(super) fn all(dimensions: usize) -> impl Iterator<Item = Self> {
        (0..=dimensions.min(DIMENSIONS_MAX) as u8).map(Self)
    }

    /// The one with this number, where there are so many dimensions.
    pub(super) fn from_number(number: u8, dimensions: usize) -> Option<Self> {
        Self::all(dimensions).find(|label| label.0 == number)
    }

    pub(super) const fn number(self) -> u8 {
        self.0
    }

    /// The dimension with this number, from 0.
    pub(super) fn of_dimension(number: usize) -> Option<Self> {
        Self::all(DIMENSIONS_MAX).nth(number + 1)
    }

    /// Which dimension it is, from 0; none is the span's name.
    pub(super) fn dimension(self) -> Option<usize> {
        usize::from(self.0).checked_sub(1)
    }
}

/// The values of the configured dimensions, in their order; empty where a span has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Values<'a> {
    /// One after the other ...
    pub(super) text: &'a str,
    /// ... each up to here; 0 behind the last.
    pub(super) ends: Ends,
}

/// Where values end in their text.
pub(super) type Ends = [u16; DIMENSIONS_MAX];

impl<'a> Values<'a> {
    /// The value of the dimension with this number, from 0.
    pub fn get(&self, number: usize) -> &'a str {
        let start = match number.checked_sub(1) {
            None => 0,
            Some(before) => self.ends.get(before).copied().unwrap_or_default(),
        };
        let end = self.ends.get(number).copied().unwrap_or_default();
        self.text.get(usize::from(start)..usize::from(end)).unwrap_or_default()
    }
}

/// [`Values`] that own their text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnedValues {
    text: Arc<str>,
    ends: Ends,
}

impl OwnedValues {
    /// The values.
    pub fn values(&self) -> Values<'_> {
        Values { text: &self.text, ends: self.ends }
    }
}

impl From<Values<'_>> for OwnedValues {
    fn from(values: Values<'_>) -> Self {
        match values.text {
            "" => Self::default(),
            text => Self { text: text.into(), ends: values.ends },
        }
    }
}

/// Puts values one after the other.
#[derive(Debug, Default)]
pub(super) struct Joined {
    text: String,
    ends: Ends,
    number: usize,
}

impl Joined {
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.ends = Ends::default();
        self.number = 0;
    }

    pub(super) fn push(&mut self, value: &str) {
        self.text.push_str(value);
        if let Some(end) = self.ends.get_mut(self.number) {
            // 8 values of 256 bytes.
            *end = u16::try_from(self.text.len()).unwrap_or(u16::MAX);
        }
        self.number += 1;
    }

    pub(super) fn values(&self) -> Values<'_> {
        Values { text: &self.text, ends: self.ends }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_and_a_border_between_them_is_not_blurred() {
        let joined = |values: &[&str]| {
            let mut joined = Joined::default();
            values.iter().for_each(|value| joined.push(value));
            joined
        };
        let (a, b) = (joined(&["ab", "", "c"]), joined(&["a", "b", "c"]));
        assert_eq!([0, 1, 2, 3, 99].map(|i| a.values().get(i)), ["ab", "", "c", "", ""]);
        assert_eq!([0, 1, 2].map(|i| b.values().get(i)), ["a", "b", "c"]);
        assert_ne!(a.values(), b.values());
    }
}
