//! Labels beyond the four of RED: attributes of spans and resources that an operator asks for (level 0).

use std::fmt::{self, Write as _};

use thiserror::Error;

use super::{
    LABEL_BYTES_MAX,
    key::{Joined, Values},
    red::cut,
};
use crate::span::{Scalar, SpanBytes};

/// Dimensions at most, so that a series' memory is bounded.
pub const DIMENSIONS_MAX: usize = 8;
/// Bytes of an attribute's key.
const KEY_BYTES_MAX: usize = 128;
/// Labels that the metrics have anyway under some profile, or that the formats reserve.
const TAKEN: [&str; 8] = [
    "service_name",
    "service",
    "span_name",
    "span_kind",
    "status_code",
    "otel_metric_overflow",
    "le",
    "quantile",
];

/// Attributes whose values become labels. A span's attribute wins over its resource's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dimensions(Box<[Dimension]>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Dimension {
    attribute: String,
    label: String,
}

/// Attributes that make no dimensions.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DimensionsError {
    /// More than the limit.
    #[error("{0} dimensions are more than {DIMENSIONS_MAX}")]
    TooMany(usize),
    /// No key, or one that is too long.
    #[error("dimension {0:?} must have 1 to {KEY_BYTES_MAX} bytes")]
    Length(String),
    /// The label has another meaning.
    #[error("dimension {attribute:?} would be the label {label}, which is taken")]
    Taken {
        /// The attribute's key.
        attribute: String,
        /// The label.
        label: String,
    },
    /// Two of them would be one label.
    #[error("dimensions {first:?} and {second:?} would both be the label {label}")]
    Same {
        /// The one that came first.
        first: String,
        /// The other.
        second: String,
        /// The label.
        label: String,
    },
}

impl Dimensions {
    /// The attributes with these keys, each as a label of that name in which everything but ASCII letters, digits and
    /// `_` is a `_`.
    ///
    /// # Errors
    /// [`DimensionsError`] where they are too many or make no labels.
    pub fn new(attributes: &[String]) -> Result<Self, DimensionsError> {
        if attributes.len() > DIMENSIONS_MAX {
            return Err(DimensionsError::TooMany(attributes.len()));
        }
        let mut dimensions: Vec<Dimension> = Vec::with_capacity(attributes.len());
        for attribute in attributes {
            if !(1..=KEY_BYTES_MAX).contains(&attribute.len()) {
                return Err(DimensionsError::Length(cut(attribute).to_owned()));
            }
            let (attribute, label) = (attribute.clone(), label_of(attribute));
            // Names that begin with two underscores are Prometheus' own.
            if TAKEN.contains(&label.as_str()) || label.starts_with("__") {
                return Err(DimensionsError::Taken { attribute, label });
            }
            if let Some(other) = dimensions.iter().find(|other| other.label == label) {
                return Err(DimensionsError::Same {
                    first: other.attribute.clone(),
                    second: attribute,
                    label,
                });
            }
            dimensions.push(Dimension { attribute, label });
        }
        Ok(Self(dimensions.into()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The labels' names.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|dimension| dimension.label.as_str())
    }

    /// The attributes' keys.
    pub(super) fn attributes(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|dimension| dimension.attribute.as_str())
    }

    fn position(&self, attribute: &[u8]) -> Option<usize> {
        self.0.iter().position(|dimension| dimension.attribute.as_bytes() == attribute)
    }
}

fn label_of(attribute: &str) -> String {
    let mut label = String::with_capacity(attribute.len() + 1);
    if attribute.starts_with(|c: char| c.is_ascii_digit()) {
        label.push('_');
    }
    label.extend(attribute.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }));
    label
}

/// Looks the values up, span after span.
#[derive(Debug, Default)]
pub(super) struct LookUp {
    resource: Found,
    span: Found,
    joined: Joined,
    /// Where the resource that was looked up last lies; spans of one resource come together.
    resource_at: Option<(usize, usize)>,
    cut: u64,
}

impl LookUp {
    /// Forgets the resource: what lies at its place next may be another.
    pub(super) fn forget(&mut self) {
        self.resource_at = None;
    }

    /// Looks up a span's values; returns how many of them were cut.
    pub(super) fn look_up(&mut self, dimensions: &Dimensions, bytes: &SpanBytes<'_>) -> u64 {
        let at = Some((bytes.resource_spans.as_ptr().addr(), bytes.resource_spans.len()));
        if self.resource_at != at {
            self.resource.clear(dimensions.len());
            bytes.resource_attributes(|key, value| self.resource.put(dimensions, key, value));
            self.resource_at = at;
        }
        self.span.clear(dimensions.len());
        bytes.attributes(|key, value| self.span.put(dimensions, key, value));
        self.joined.clear();
        self.cut = 0;
        for (own, resource) in self.span.0.iter().zip(&self.resource.0) {
            let value = if own.is_some { own } else { resource };
            self.joined.push(&value.text);
            self.cut += u64::from(value.is_cut);
        }
        self.cut
    }

    pub(super) fn values(&self) -> Values<'_> {
        self.joined.values()
    }
}

/// The first value of each dimension.
#[derive(Debug, Default)]
struct Found(Vec<Slot>);

#[derive(Debug, Clone, Default)]
struct Slot {
    is_some: bool,
    is_cut: bool,
    text: String,
}

impl Found {
    fn clear(&mut self, dimensions: usize) {
        self.0.resize_with(dimensions, Slot::default);
        for slot in &mut self.0 {
            (slot.is_some, slot.is_cut) = (false, false);
            slot.text.clear();
        }
    }

    fn put(&mut self, dimensions: &Dimensions, key: &[u8], value: Scalar<'_>) {
        let Some(slot) = dimensions.position(key).and_then(|at| self.0.get_mut(at)) else { return };
        if slot.is_some {
            return;
        }
        slot.is_some = true;
        // Writing to a string cannot fail.
        let _infallible = match value {
            Scalar::Text(text) => {
                slot.is_cut = text.len() > LABEL_BYTES_MAX;
                slot.text.write_str(cut(text))
            }
            Scalar::Bool(value) => write!(slot.text, "{value}"),
            Scalar::Int(value) => write!(slot.text, "{value}"),
            Scalar::Double(value) => write_double(&mut slot.text, value),
        };
    }
}

/// With an exponent where JavaScript and the OpenTelemetry collector write one: without, a number has up to 326 digits.
fn write_double(text: &mut String, value: f64) -> fmt::Result {
    let size = value.abs();
    let is_plain = value == 0.0 || (1e-6..1e21).contains(&size) || !value.is_finite();
    if is_plain { write!(text, "{value}") } else { write!(text, "{value:e}") }
}

#[cfg(test)]
mod tests;
