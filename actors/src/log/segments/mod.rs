//! The segment form of the span log: append-only files that survive the process, and under `power` the machine.
//!
//! ```text
//! log.dir/
//!   lock                     held by the one process that uses the folder
//!   segments/000000000001.segment      records (format.rs); the highest number is written
//!   positions/<destination>.position   position and ledger, two slots (positions.rs)
//!   dead_letters/<destination>.letters spans that a destination will never take (dead_letters.rs)
//!   red.checkpoint           the span metrics, as of a position (checkpoint.rs)
//!   clean                    there while nothing runs and everything was synced
//!   quarantine/              bytes that do not check
//! ```

mod checkpoint;
mod clean;
mod codec;
mod config;
mod dead_letters;
mod files;
mod format;
mod lock;
mod positions;
mod quarantine;

pub use config::{LogDestination, SegmentLogConfig, StartAt, WhenFull};
pub use lock::{DirLock, LockError};
