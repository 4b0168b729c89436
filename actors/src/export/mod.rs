//! The OtlpExportActor: delivers what the log holds to one OTLP destination.

mod backoff;
mod gate;
pub mod machine;
pub mod state;
pub mod verdict;
