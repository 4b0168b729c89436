//! Aggregation.

/// What a batch adds to the RED metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RedDelta {}
