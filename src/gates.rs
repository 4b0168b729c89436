//! The gates of doors and admin pages, which ask whoever comes for a token.

use std::sync::Arc;

use nyx_telemetry::bearer::{Gate, TokenFile};

use crate::config::Config;

/// The gates of a daemon; clones are the same gates.
#[derive(Debug, Clone, Default)]
pub struct Gates {
    /// That of the doors.
    pub doors: Arc<Gate>,
    /// That of the admin pages.
    pub pages: Arc<Gate>,
}

impl Gates {
    /// Gates that ask for the tokens of this configuration.
    pub fn new(config: &Config) -> Self {
        let gates = Self::default();
        gates.set(config);
        gates
    }

    /// From now on they ask for the tokens of this configuration.
    pub(crate) fn set(&self, config: &Config) {
        let tokens = |file: &Option<TokenFile>| file.as_ref().map(|file| file.tokens.clone());
        self.doors.set(tokens(&config.ingest.token_file));
        self.pages.set(tokens(&config.telemetry.prometheus_token_file));
    }
}
