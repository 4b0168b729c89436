//! The RED counters where the actor and the pages both reach them, and how they begin.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    CurrentSettings, Merge, RedDelta, RedSettings, RedSnapshot, RedState, RedStats, RemeasureError,
    Restoring, Unmeasured,
    checkpoint::{self, Checkpoint},
    continuity::Continuity,
    regroup::regroup,
    state::unix_now,
};
use crate::{
    log::{Durability, Ordinal, Restored, SpanLog},
    span::Sampler,
};

/// The RED counters where the actor, which may fail, and the pages both reach them.
#[derive(Debug)]
pub struct RedShared {
    /// Those of the state, for everyone who counts.
    current: CurrentSettings,
    /// Nothing that happens under the lock can panic, which the lock would hide.
    state: Mutex<RedState>,
}

impl RedShared {
    /// No series yet, nothing counted before ordinal 0, and no checkpoints.
    pub fn new(settings: RedSettings) -> Self {
        let settings = Arc::new(settings);
        let state = RedState::new(Arc::clone(&settings));
        Self::with(settings, state)
    }

    /// The counters as this log's last checkpoint has them, or new ones where it cannot be used; the log has just
    /// been opened. Until what lies behind the checkpoint is counted too, the counters may be behind what was on a
    /// page before (see [`RedSnapshot::restoring`]).
    pub fn restore(settings: RedSettings, log: &dyn SpanLog) -> Self {
        let settings = Arc::new(settings);
        let (end, now) = (log.end(), unix_now());
        let durable = log.stats().durability != Durability::Memory;
        let fresh = |position: Ordinal| {
            let continuity = Continuity::new(durable, position, end);
            RedState::at(Arc::clone(&settings), position, durable.then_some(now), continuity)
        };
        let broken = |position: Ordinal, why: &str| {
            tracing::warn!(position, why, "span metrics begin at 0");
            fresh(position).not_before(now)
        };
        let state = match log.restored() {
            // The log has everything that was ever counted, and when it was committed.
            Restored::Fresh(position) => fresh(position),
            Restored::Broken { position, why } => broken(position, &why),
            Restored::Checkpoint { position, bytes } => match Checkpoint::decode(&bytes, &settings) {
                Ok(checkpoint) if checkpoint.position == position && position <= end => {
                    let (series, behind) = (checkpoint.series.len(), end - position);
                    tracing::info!(position, series, behind, "span metrics go on from their checkpoint");
                    RedState::restored(Arc::clone(&settings), checkpoint, end)
                }
                Ok(_) => broken(end, "checkpoint is of another position"),
                Err(error) => broken(end, &error.to_string()),
            },
        };
        Self::with(settings, state)
    }

    fn with(settings: Arc<RedSettings>, state: RedState) -> Self {
        Self { current: CurrentSettings::new(settings), state: Mutex::new(state) }
    }

    /// How the counters are kept at present.
    pub fn settings(&self) -> Arc<RedSettings> {
        self.current.get()
    }

    /// The same, for a scratch that is to follow it.
    pub fn current(&self) -> &CurrentSettings {
        &self.current
    }

    /// Chooses exemplars among other traces from now on, and forgets those of traces that are none of them.
    pub fn exemplify(&self, exemplars: Option<Sampler>) {
        let mut state = self.state.lock();
        let settings = RedSettings { exemplars, ..RedSettings::clone(state.settings()) };
        if settings != **state.settings() {
            self.show_with(&mut state, settings);
        }
    }

    fn show_with(&self, state: &mut RedState, settings: RedSettings) {
        let settings = Arc::new(settings);
        state.shown_with(Arc::clone(&settings));
        self.current.set(settings);
    }

    /// What is to be stored before the counters can be kept with other settings; `None` where that was done at once, because it
    /// changes only how they are shown. Until it is stored nothing may be counted.
    pub(super) fn prepare(&self, settings: RedSettings) -> Result<Option<Prepared>, RemeasureError> {
        let mut state = self.state.lock();
        let before = Arc::clone(state.settings());
        let settings = RedSettings { bounds: before.bounds.clone(), exemplars: before.exemplars, ..settings };
        if settings.goes_on_like(&before) {
            self.show_with(&mut state, settings);
            return Ok(None);
        }
        if state.continuity.restoring(state.position()).is_some() {
            return Err(RemeasureError::Restoring);
        }
        state.continuity.is_in_doubt();
        let (checkpoint, durable) = (state.as_checkpoint(), state.continuity.is_durable());
        drop(state);
        let (mut checkpoint, ended) = regroup(checkpoint, &before.dimensions, &settings.dimensions);
        if settings.max_series > before.max_series {
            // With more room new values get their own series again; what needs folding is folded anew.
            checkpoint.foldings.clear();
        }
        Ok(Some(Prepared { settings, checkpoint, ended, durable }))
    }

    /// Keeps the counters with these settings from now on.
    pub(super) fn adopt(&self, Prepared { settings, checkpoint, ended, .. }: Prepared) {
        let (position, go_on) = (checkpoint.position, checkpoint.series.len());
        let mut state = self.state.lock();
        if state.position() != position {
            // Nobody counts meanwhile.
            return;
        }
        let settings = Arc::new(RedSettings { exemplars: state.settings().exemplars, ..settings });
        state.goes_on_with(Arc::clone(&settings), checkpoint);
        self.current.set(settings);
        drop(state);
        tracing::info!(position, series = go_on, ended, "span metrics go on with other settings");
    }

    /// Every span before this ordinal is counted.
    pub fn position(&self) -> u64 {
        self.state.lock().position()
    }

    /// The counters at this moment.
    pub fn snapshot(&self) -> RedSnapshot {
        let mut snapshot = self.state.lock().snapshot();
        snapshot.series.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
        if let Some(after) = snapshot.settings.expire_after {
            // They go with the next commit; nobody is to wait for that.
            snapshot.leave_out_idle(unix_now().saturating_sub(after));
        }
        snapshot
    }

    /// What `/stats` says of them.
    pub fn stats(&self) -> RedStats {
        let (services, (foldings, turned_away)) = {
            let state = self.state.lock();
            (state.cap.services(), state.cap.offenders())
        };
        RedStats::of(&self.snapshot(), services, foldings, turned_away)
    }

    /// What is wrong with the counters at this moment, a sentence each, for `/health`.
    pub fn troubles(&self) -> Vec<String> {
        let (restoring, error) = {
            let state = self.state.lock();
            (state.continuity.restoring(state.position()), state.continuity.error().cloned())
        };
        let restoring = restoring
            .map(|Restoring { done, of }| format!("span metrics are being restored: {done} of {of} spans"));
        let error = error.map(|error| format!("span metrics cannot be checkpointed: {error}"));
        restoring.into_iter().chain(error).collect()
    }

    /// [`RedState::merge`] under the lock.
    pub fn merge(&self, first: u64, delta: &RedDelta, committed: Duration) -> Merge {
        self.state.lock().merge(first, delta, committed)
    }

    pub(super) fn merge_caught_up(&self, first: u64, delta: &RedDelta, committed: Duration) -> Merge {
        self.state.lock().merge_caught_up(first, delta, committed)
    }

    pub(super) fn skip(&self, from: u64, to: u64, now: Duration, choose: fn(&mut Unmeasured) -> &mut u64) {
        let anew = self.state.lock().skip(from, to, now, choose);
        if anew {
            let why = "the log cannot give back what was counted before";
            tracing::warn!(position = to, why, "span metrics begin at 0");
        }
    }

    /// Whether checkpoints are stored.
    pub(super) fn is_durable(&self) -> bool {
        self.state.lock().continuity.is_durable()
    }

    /// The position and bytes of a checkpoint; `None` where it is stored already, or none ever is.
    pub(super) fn checkpoint(&self) -> Option<(Ordinal, Bytes)> {
        let (checkpoint, settings) = {
            let state = self.state.lock();
            (state.checkpoint()?, Arc::clone(state.settings()))
        };
        Some((checkpoint.position, encode(checkpoint, &settings)))
    }

    /// The checkpoint at this position is stored, or is not. Returns true where that is news: the first error, an
    /// error in other words, or the first success after an error.
    pub(super) fn checkpointed(&self, position: Ordinal, stored: &Result<(), String>) -> bool {
        let error = stored.as_ref().err().cloned();
        let before = self.state.lock().continuity.answered(position, error);
        before.as_ref() != stored.as_ref().err()
    }
}

fn encode(checkpoint: Checkpoint, settings: &RedSettings) -> Bytes {
    checkpoint.encode(checkpoint::schema(settings), settings.dimensions.len())
}

/// The counters as they are to be kept with other settings.
#[derive(Debug)]
pub(super) struct Prepared {
    settings: RedSettings,
    checkpoint: Checkpoint,
    ended: usize,
    durable: bool,
}

impl Prepared {
    /// The position and the bytes of the checkpoint that is to be stored first, if any is.
    pub(super) fn stored(&self) -> Option<(Ordinal, Bytes)> {
        let bytes = || encode(self.checkpoint.clone(), &self.settings);
        self.durable.then(|| (self.checkpoint.position, bytes()))
    }
}

impl Default for RedShared {
    fn default() -> Self {
        Self::new(RedSettings::default())
    }
}
