//! The OtlpExportActor: delivers what the log holds to one OTLP destination.
//!
//! The actor is a shell: [`machine`] decides, [`batch`] forms, a transport sends, and the position in the log is the
//! only truth. Requests, connections and the timer are polled in one future inside the actor's context.

mod actor;
mod backoff;
pub mod batch;
mod config;
mod dialer;
mod followers;
mod gate;
mod headers;
pub mod machine;
mod messages;
pub mod state;
mod status;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod testing;
mod transport;
pub mod verdict;

pub use crate::{
    address::{AddressError, Endpoint},
    tls::TlsFiles,
};
pub use actor::OtlpExportActor;
pub use backoff::Backoff;
pub use config::{DestinationConfig, DestinationConfigError, Problem};
pub use dialer::Dialer;
pub use followers::Followers;
pub use headers::{HeaderProblem, headers};
pub use messages::{Drain, DrainWithin, Drained, LogAdvanced, Reconfigure};
pub use state::DestinationState;
pub use status::{DestinationStatus, LastError, Requests, StatusSnapshot};
pub use transport::{Protocol, Stream};
