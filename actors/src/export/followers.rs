//! Who is told that the log has grown.

use std::sync::Arc;

use parking_lot::Mutex;

use super::LogAdvanced;
use crate::{
    log::{DestinationId, Ordinal},
    supervise::Recipient,
};

/// The exporters, as the collector knows them: they come and go. Clones share one list.
#[derive(Debug, Clone, Default)]
pub struct Followers(Arc<Mutex<Vec<Follower>>>);

type Follower = (DestinationId, Recipient<LogAdvanced>);

impl Followers {
    /// Tells this exporter, too, from now on. Before it looks at the log for the first time, so that it misses nothing.
    pub fn follow(&self, id: DestinationId, exporter: Recipient<LogAdvanced>) {
        self.0.lock().push((id, exporter));
    }

    /// Tells it no more.
    pub fn leave(&self, id: DestinationId) {
        self.0.lock().retain(|(other, _)| *other != id);
    }

    /// The log ends here.
    pub(crate) fn wake(&self, end: Ordinal) {
        for (_, exporter) in self.0.lock().iter() {
            // Full means that a wake is already waiting there.
            let _waiting = exporter.try_send(LogAdvanced { end });
        }
    }
}
