//! A bound on the whole shutdown that holds even where an actor blocks the supervisor's own thread.

use std::{
    io,
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use tracing::error;

use super::{record::ChildState, running::TreeMonitor};

/// How long the last words may take: whatever they are written to may be what blocks the process.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A plain thread that ends the process where a shutdown takes too long. Dropped in time, it does nothing.
///
/// Every deadline of a tree is kept by its supervisor's loop, and so by one thread. Where an actor blocks
/// that thread, no deadline passes: this one does.
#[derive(Debug)]
pub struct Watchdog {
    _disarm: Sender<()>,
}

impl Watchdog {
    /// Unless it is dropped within `limit`, logs the names of the children that have not stopped, and
    /// ends the process with this exit status.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub(super) fn arm(monitor: TreeMonitor, limit: Duration, status: i32) -> io::Result<Self> {
        Self::arm_with(monitor, limit, move |not_stopped| {
            let (told, tell) = channel::<()>();
            let last_words = move || {
                error!(not_stopped = not_stopped.join(", "), "the shutdown hangs: ending the process");
                drop(told);
            };
            // Without a thread there are no last words; the process ends all the same.
            if thread::Builder::new().spawn(last_words).is_ok() {
                let _told_or_late = tell.recv_timeout(LAST_WORDS);
            }
            std::process::exit(status);
        })
    }

    /// As [`Watchdog::arm`], with something else to do.
    pub(super) fn arm_with(
        monitor: TreeMonitor,
        limit: Duration,
        bite: impl FnOnce(Vec<String>) + Send + 'static,
    ) -> io::Result<Self> {
        let (disarm, disarmed) = channel();
        thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            if disarmed.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                let records = monitor.records().into_iter();
                let not_stopped = records.filter(|child| child.state != ChildState::Stopped);
                bite(not_stopped.map(|child| child.name).collect());
            }
        })?;
        Ok(Self { _disarm: disarm })
    }
}
