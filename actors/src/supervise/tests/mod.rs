//! Tests of supervision. The whole fault matrix is in these files, by mechanism.

mod changes;
mod dynamic;
mod faults;
mod inbox;
mod linked;
mod progress;
mod restarts;
mod shutdown;
mod strategies;
mod stress;
mod supervisors;
mod threads;
