//! The settings that hold at present, where everyone who counts finds them.

use std::sync::Arc;

use parking_lot::RwLock;

use super::RedSettings;

/// The settings that hold at present. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct CurrentSettings(Arc<RwLock<Arc<RedSettings>>>);

impl CurrentSettings {
    /// These, for now.
    pub fn new(settings: Arc<RedSettings>) -> Self {
        Self(Arc::new(RwLock::new(settings)))
    }

    /// Those that hold now.
    pub fn get(&self) -> Arc<RedSettings> {
        Arc::clone(&self.0.read())
    }

    /// From now on these hold. What was counted with those before may be under way still: it is not mixed up, see
    /// [`RedState::merge`](super::RedState::merge).
    pub(super) fn set(&self, settings: Arc<RedSettings>) {
        *self.0.write() = settings;
    }
}
