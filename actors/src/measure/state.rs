//! The RED counters themselves, and the position in the log up to which they count (level 0).

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    RedCounts, RedDelta, RedSeries, RedSettings, RedSnapshot, RedTotals, Unmeasured,
    cap::{Cap, Place},
    checkpoint::Checkpoint,
    continuity::Continuity,
    red::RedEntry,
    seed::{self, Departed},
    table::Table,
};

/// A series that expires goes with the first commit of the part of that time that follows; until then pages leave it out.
const EXPIRY_PARTS: u32 = 64;

/// What became of a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// It is counted, and the position lies behind it.
    Counted,
    /// Its spans had been counted before; nothing changed.
    Already,
    /// Something lies between the position and the delta, the delta lies on both sides of the position, or it
    /// is incomplete; nothing changed. The spans up to its end are to be counted from the log.
    Gap,
}

/// The RED counters: bounded, and without a byte of the log.
#[derive(Debug)]
pub struct RedState {
    settings: Arc<RedSettings>,
    /// Has room for all series from the start.
    table: Table,
    pub(super) cap: Cap,
    overflow: Option<RedCounts>,
    departed: Departed,
    position: u64,
    totals: RedTotals,
    created: Option<Duration>,
    /// The latest commit that is counted, or when the counters began at 0 again: no series begins before one that is
    /// in the log before it, whatever the clock did, or with those that it is not to be mixed up with.
    latest: Duration,
    pub(super) continuity: Continuity,
}

impl RedState {
    /// No series yet, nothing counted before ordinal 0, and nothing that outlives the process.
    pub fn new(settings: Arc<RedSettings>) -> Self {
        Self::at(settings, 0, None, Continuity::new(false, 0, 0))
    }

    /// No series yet, nothing counted before `position`.
    pub(super) fn at(
        settings: Arc<RedSettings>,
        position: u64,
        created: Option<Duration>,
        continuity: Continuity,
    ) -> Self {
        Self {
            table: Table::with_capacity(settings.max_series),
            cap: Cap::new(settings.max_series, settings.dimensions.len()),
            settings,
            overflow: None,
            departed: Departed::new(),
            position,
            totals: RedTotals::default(),
            created,
            latest: Duration::ZERO,
            continuity,
        }
    }

    /// No series begins before this moment.
    pub(super) fn not_before(self, moment: Duration) -> Self {
        Self { latest: self.latest.max(moment), ..self }
    }

    /// The counters of a checkpoint, which has no more series than the settings allow; the log ends at `end`.
    pub(super) fn restored(settings: Arc<RedSettings>, checkpoint: Checkpoint, end: u64) -> Self {
        let Checkpoint {
            position,
            created,
            latest,
            totals,
            overflow,
            departed,
            series,
            foldings,
            turned_away,
        } = checkpoint;
        let continuity = Continuity::new(true, position, end);
        let mut state = Self::at(settings, position, Some(created), continuity);
        for series in series {
            state.table.insert(series);
        }
        let (max_series, dimensions) = (state.settings.max_series, state.settings.dimensions.len());
        let cap = Cap::restored(max_series, dimensions, &state.table, foldings, turned_away);
        Self { latest, totals, overflow, departed, cap, ..state }
    }

    /// Every span before this ordinal is counted.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Counts the delta of the spans from ordinal `first` on, if they are the next ones. Whole or not at all. They were
    /// committed at `committed`, since the Unix epoch: that is when series begin that they are the first of.
    pub fn merge(&mut self, first: u64, delta: &RedDelta, committed: Duration) -> Merge {
        let end = first.saturating_add(delta.spans());
        if end <= self.position {
            return Merge::Already;
        }
        let counts_like = delta.settings().is_some_and(|settings| settings.counts_like(&self.settings));
        if first != self.position || !delta.is_complete() || !counts_like {
            return Merge::Gap;
        }
        let before = self.latest;
        self.latest = before.max(committed);
        self.expire(before);
        for entry in delta.entries() {
            self.count(&entry);
        }
        self.totals.cut = self.totals.cut.saturating_add(delta.cut());
        self.position = end;
        Merge::Counted
    }

    /// As [`Self::merge`], for a delta that was made by reading the log.
    pub(super) fn merge_caught_up(&mut self, first: u64, delta: &RedDelta, committed: Duration) -> Merge {
        let merge = self.merge(first, delta, committed);
        if merge == Merge::Counted {
            self.totals.caught_up = self.totals.caught_up.saturating_add(delta.spans());
        }
        merge
    }

    /// Passes the spans from `from` to `to`, which the log cannot give back, and counts under the reason that
    /// `choose` picks those that lie behind the position. Nothing is passed that lies before `from`.
    ///
    /// Returns true where these spans may have been counted on a page before the process began: the counters
    /// then begin at 0 again, behind them.
    pub(super) fn skip(
        &mut self,
        from: u64,
        to: u64,
        now: Duration,
        choose: fn(&mut Unmeasured) -> &mut u64,
    ) -> bool {
        if self.position < from || self.position >= to {
            return false;
        }
        let anew = self.continuity.would_go_back(self.position);
        if anew {
            self.continuity.begin_anew();
            self.table.clear();
            self.cap.clear();
            self.overflow = None;
            self.departed.clear();
            self.totals = RedTotals::default();
            self.latest = self.latest.max(now);
            self.created = self.created.max(Some(now));
        } else {
            let count = choose(&mut self.totals.unmeasured);
            *count = count.saturating_add(to - self.position);
        }
        self.position = to;
        anew
    }

    /// The settings that the counters are kept with.
    pub(super) fn settings(&self) -> &Arc<RedSettings> {
        &self.settings
    }

    /// Goes on with settings that count alike and show something else, or choose other exemplars.
    pub(super) fn shown_with(&mut self, settings: Arc<RedSettings>) {
        let sampler = settings.exemplars;
        if sampler != self.settings.exemplars {
            self.table.counts_mut().chain(&mut self.overflow).for_each(|it| it.exemplars.keep(sampler));
        }
        self.settings = settings;
    }

    /// The counters for a checkpoint; `None` where it is stored already, or none ever is.
    pub(super) fn checkpoint(&self) -> Option<Checkpoint> {
        self.continuity.is_worth_storing(self.position).then(|| self.as_checkpoint())
    }

    /// The counters as a checkpoint has them, and their exemplars.
    pub(super) fn as_checkpoint(&self) -> Checkpoint {
        let (foldings, turned_away) = self.cap.stored();
        Checkpoint {
            position: self.position,
            created: self.created.unwrap_or_default(),
            latest: self.latest,
            totals: self.totals,
            overflow: self.overflow.clone(),
            departed: self.departed.clone(),
            series: self.table.to_vec(),
            foldings,
            turned_away,
        }
    }

    /// Goes on with the counters of a checkpoint at the same position, made of these for other settings.
    pub(super) fn goes_on_with(&mut self, settings: Arc<RedSettings>, checkpoint: Checkpoint) {
        let end = checkpoint.position;
        let (created, durable) = (self.created, self.continuity.is_durable());
        let continuity = std::mem::replace(&mut self.continuity, Continuity::new(durable, end, end));
        *self = Self { created, continuity, ..Self::restored(settings, checkpoint, end) };
    }

    fn count(&mut self, entry: &RedEntry<'_>) {
        match self.table.get_mut(&entry.key) {
            Some(series) => series.counts.add(entry, self.latest, self.settings.exemplars),
            None => self.count_new(entry),
        }
    }

    #[cold]
    fn count_new(&mut self, entry: &RedEntry<'_>) {
        let (buckets, now, exemplars) =
            (self.settings.bounds.buckets(), self.latest, self.settings.exemplars);
        match self.cap.place(&entry.key, &self.table) {
            Place::Own => {
                self.table.insert(RedSeries::new(&entry.key, buckets, now)).counts.add(entry, now, exemplars);
                return;
            }
            Place::Folded(folded) => match self.table.get_mut(&folded.key()) {
                Some(series) => series.counts.add(entry, now, exemplars),
                None => {
                    let series = RedSeries::new(&folded.key(), buckets, now);
                    self.table.insert(series).counts.add(entry, now, exemplars);
                }
            },
            Place::Overflow => {
                self.overflow.get_or_insert_with(|| RedCounts::new(buckets, now)).add(entry, now, exemplars);
            }
        }
        self.totals.folded = self.totals.folded.saturating_add(entry.count);
    }

    /// Removes what is idle, if that was not looked for since `before`, the latest commit until now: all series are looked at,
    /// so not with each commit, but where a new part of the time begins. When a series goes follows from the commits in the
    /// log, so that a process that counts them again comes to the same.
    fn expire(&mut self, before: Duration) {
        let Some(after) = self.settings.expire_after else { return };
        let part = (after / EXPIRY_PARTS).as_nanos().max(1);
        if before.as_nanos() / part == self.latest.as_nanos() / part {
            return;
        }
        let gone = self.table.expire(self.latest.saturating_sub(after));
        if !gone.is_empty() {
            self.totals.expired = self.totals.expired.saturating_add(gone.len() as u64);
            self.cap.gone(&gone, &self.table);
            seed::depart(&mut self.departed, &gone, self.table.iter(), self.overflow.as_ref());
        }
    }

    pub(super) fn snapshot(&self) -> RedSnapshot {
        RedSnapshot {
            position: self.position,
            settings: Arc::clone(&self.settings),
            series: self.table.to_vec(),
            overflow: self.overflow.clone(),
            departed: self.departed.clone(),
            totals: self.totals,
            created: self.created,
            restoring: self.continuity.restoring(self.position),
            checkpoints: self.continuity.checkpoints(),
            checkpoint_errors: self.continuity.errors(),
            checkpoint_error: self.continuity.error().cloned(),
        }
    }
}

/// The wall clock since the Unix epoch; 0 where it stands before that.
pub(super) fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
