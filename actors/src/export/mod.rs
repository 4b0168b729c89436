//! The OtlpExportActor: delivers what the log holds to one OTLP destination.

mod backoff;
pub mod batch;
mod endpoint;
mod gate;
mod grpc;
pub mod machine;
pub mod state;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod testing;
pub mod verdict;

pub use backoff::Backoff;
pub use endpoint::{Endpoint, EndpointError};
