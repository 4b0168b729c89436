//! The settings of children and supervisors.

use std::{fmt, sync::Arc, time::Duration};

use actix_rt::ArbiterHandle;
use thiserror::Error;
use tokio::time::Instant;

use super::failure::Failure;

/// When a child that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Always.
    Permanent,
    /// After a failure; not when it stopped by itself.
    Transient,
    /// Never.
    Temporary,
}

/// Who is restarted with a child that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Nobody else.
    OneForOne,
    /// The children that were defined after it.
    RestForOne,
    /// All children of its supervisor.
    OneForAll,
}

/// How many restarts a supervisor takes for bearable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts within the window; one more escalates.
    pub max_restarts: u32,
    /// The window.
    pub window: Duration,
}

impl Default for Intensity {
    /// 10 restarts within two minutes: with the other defaults, even a child that hangs in each of its
    /// starts exceeds it.
    fn default() -> Self {
        Self { max_restarts: 10, window: Duration::from_secs(120) }
    }
}

/// How long a child that failed waits before it is started again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    initial: Duration,
    factor: f64,
    cap: Duration,
    jitter: f64,
    reset_after: Duration,
}

impl Default for Backoff {
    /// 100 ms, doubled up to 5 s, shortened by up to a fifth; anew after 30 s of stable uptime.
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(100),
            factor: 2.0,
            cap: Duration::from_secs(5),
            jitter: 0.2,
            reset_after: Duration::from_secs(30),
        }
    }
}

impl Backoff {
    /// The first wait is `initial`, each further one `factor` times the one before, up to `cap`. Each
    /// is shortened by a random share of up to `jitter`. After `reset_after` of uptime since it was
    /// ready, a child begins with `initial` anew.
    ///
    /// # Errors
    /// [`SettingsError::Backoff`] unless 1 ms ≤ `initial` ≤ `cap`, 1 ≤ `factor` and 0 ≤ `jitter` ≤ 1.
    pub fn new(
        initial: Duration,
        factor: f64,
        cap: Duration,
        jitter: f64,
        reset_after: Duration,
    ) -> Result<Self, SettingsError> {
        let refuse = |what| Err(SettingsError::Backoff(what));
        if initial < Duration::from_millis(1) {
            return refuse(format!("initial of {initial:?} is below 1ms"));
        }
        if cap < initial {
            return refuse(format!("cap of {cap:?} is below the initial {initial:?}"));
        }
        if !(factor.is_finite() && factor >= 1.0) {
            return refuse(format!("factor of {factor} is below 1"));
        }
        if !(0.0..=1.0).contains(&jitter) {
            return refuse(format!("jitter of {jitter} is not within 0 and 1"));
        }
        Ok(Self { initial, factor, cap, jitter, reset_after })
    }

    /// The wait before restart number `attempt` (from 0 on) without its jitter: the longest it can be.
    pub fn nominal(&self, attempt: u32) -> Duration {
        let power = self.factor.powi(i32::try_from(attempt).unwrap_or(i32::MAX));
        let secs = self.initial.as_secs_f64() * power;
        if secs < self.cap.as_secs_f64() { Duration::from_secs_f64(secs) } else { self.cap }
    }

    /// The wait before restart number `attempt`, where `random` lies within 0 and 1.
    pub(super) fn wait(&self, attempt: u32, random: f64) -> Duration {
        self.nominal(attempt).mul_f64(1.0 - self.jitter * random.clamp(0.0, 1.0))
    }

    pub(super) fn reset_after(&self) -> Duration {
        self.reset_after
    }

    /// Whether a child that fails as soon as it starts would escalate: its backoffs fit the window.
    pub(super) fn check(&self, child: &str, intensity: Intensity) -> Result<(), SettingsError> {
        let mut total = Duration::ZERO;
        for attempt in 0..intensity.max_restarts {
            total = total.saturating_add(self.nominal(attempt));
            if total >= intensity.window {
                return Err(SettingsError::OutlastsWindow {
                    child: child.to_owned(),
                    backoffs: attempt + 1,
                    total,
                    window: intensity.window,
                    max_restarts: intensity.max_restarts,
                });
            }
        }
        Ok(())
    }
}

/// Settings that are refused before anything starts.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// A backoff that makes no sense.
    #[error("backoff: {0}")]
    Backoff(String),
    /// So much time is spent waiting that the intensity could never be exceeded: the child would
    /// fail for ever, and nobody would be told.
    #[error(
        "child {child}: {backoffs} backoffs add up to {total:?}, which is not within the intensity window of \
         {window:?}, so that it could never exceed {max_restarts} restarts"
    )]
    OutlastsWindow {
        /// The child.
        child: String,
        /// How many backoffs reach the window.
        backoffs: u32,
        /// Their sum.
        total: Duration,
        /// The window.
        window: Duration,
        /// The restarts allowed in it.
        max_restarts: u32,
    },
    /// Two children have one name.
    #[error("child {0}: the name is taken")]
    DuplicateName(String),
}

/// A child that ended on its own is ready again.
#[derive(Debug, Clone, Copy)]
pub struct Restarted<'r> {
    /// Its name.
    pub child: &'r str,
    /// The incarnation that is ready.
    pub incarnation: u64,
    /// How long it was down.
    pub lasted: Duration,
    /// Why, the last time; `None` where it stopped by itself.
    pub failure: Option<&'r Failure>,
}

/// Who is told of restarts, on the supervisor's thread: it must neither wait nor panic.
pub(super) type OnRestart = Arc<dyn Fn(&Restarted<'_>) + Send + Sync>;

/// On which arbiter a child lives.
#[derive(Clone)]
pub(super) enum Placement {
    WithSupervisor,
    On(ArbiterHandle),
    /// Asked at each start.
    Chosen(Arc<dyn Fn() -> ArbiterHandle + Send + Sync>),
}

impl fmt::Debug for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WithSupervisor => "WithSupervisor",
            Self::On(_) => "On",
            Self::Chosen(_) => "Chosen",
        })
    }
}

/// The definition of a child: its name and how it is started, stopped and restarted.
#[derive(Debug, Clone)]
pub struct ChildSpec {
    pub(super) name: String,
    pub(super) restart: Restart,
    pub(super) backoff: Backoff,
    pub(super) start_deadline: Duration,
    pub(super) stop_deadline: Duration,
    pub(super) inbox_capacity: usize,
    pub(super) drains_more: bool,
    pub(super) progress_deadline: Option<Duration>,
    pub(super) placement: Placement,
}

impl ChildSpec {
    /// A permanent child with the default backoff, 5 s to start, 5 s to stop, 30 s to make progress and
    /// an inbox for 1,024 messages, on the arbiter of its supervisor.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            restart: Restart::Permanent,
            backoff: Backoff::default(),
            start_deadline: Duration::from_secs(5),
            stop_deadline: Duration::from_secs(5),
            inbox_capacity: 1_024,
            drains_more: false,
            progress_deadline: Some(Duration::from_secs(30)),
            placement: Placement::WithSupervisor,
        }
    }

    /// When the child is started again.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// How long it waits before that.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// How long the factory, `started` and what `started` waits for may take.
    #[must_use]
    pub fn start_deadline(mut self, deadline: Duration) -> Self {
        self.start_deadline = deadline;
        self
    }

    /// How long the child may take to drain its inbox and stop.
    #[must_use]
    pub fn stop_deadline(mut self, deadline: Duration) -> Self {
        self.stop_deadline = deadline;
        self
    }

    /// How many messages may wait, at least 1.
    #[must_use]
    pub fn inbox_capacity(mut self, messages: usize) -> Self {
        self.inbox_capacity = messages;
        self
    }

    /// Its work lies not only in its inbox: where it is down when the tree stops, it gets one more
    /// incarnation to finish, messages or not.
    #[must_use]
    pub fn drains_more(mut self) -> Self {
        self.drains_more = true;
        self
    }

    /// How long messages may wait, or one be in hand, while the child handles none. It is then taken for
    /// stuck: fenced, counted and replaced, within a quarter more than this. `None`: for ever.
    #[must_use]
    pub fn progress_deadline(mut self, deadline: Option<Duration>) -> Self {
        self.progress_deadline = deadline;
        self
    }

    /// The arbiter on which the actor is created and lives. Where it has ended, or takes no start within
    /// the start deadline because something blocks it, a restart is hopeless and escalates at once.
    #[must_use]
    pub fn arbiter(mut self, arbiter: ArbiterHandle) -> Self {
        self.placement = Placement::On(arbiter);
        self
    }

    /// As [`ChildSpec::arbiter`], chosen anew for each incarnation: one whose arbiter ended or is blocked
    /// has its successor elsewhere. Called on the supervisor's thread, so it must not wait.
    #[must_use]
    pub fn placed(mut self, choose: impl Fn() -> ArbiterHandle + Send + Sync + 'static) -> Self {
        self.placement = Placement::Chosen(Arc::new(choose));
        self
    }
}

/// How many panics of its children a dynamic set takes for bearable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PanicRate {
    /// Panics within the window; one more is the set's own failure.
    pub max_panics: u32,
    /// The window.
    pub window: Duration,
}

/// A moment `wait` from `now`; a century from now where that is too far to tell.
pub(super) fn after(now: Instant, wait: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);
    now + wait.min(CENTURY)
}

/// The definition of a set of dynamic children.
#[derive(Debug, Clone)]
pub struct DynamicSpec {
    pub(super) name: String,
    pub(super) max_children: usize,
    pub(super) stop_deadline: Duration,
    pub(super) panic_rate: PanicRate,
    pub(super) backoff: Backoff,
}

impl DynamicSpec {
    /// At most `max_children` at a time, 5 s to drain; more than 100 panics within 10 s escalate.
    pub fn new(name: impl Into<String>, max_children: usize) -> Self {
        Self {
            name: name.into(),
            max_children,
            stop_deadline: Duration::from_secs(5),
            panic_rate: PanicRate { max_panics: 100, window: Duration::from_secs(10) },
            backoff: Backoff::default(),
        }
    }

    /// How long the children may take, all at once, to end after they were told to.
    #[must_use]
    pub fn stop_deadline(mut self, deadline: Duration) -> Self {
        self.stop_deadline = deadline;
        self
    }

    /// How many panics within a window are bearable; with one more all children are killed and the
    /// set fails, which its supervisor handles as it does any failure.
    #[must_use]
    pub fn panic_rate(mut self, rate: PanicRate) -> Self {
        self.panic_rate = rate;
        self
    }

    /// How long the set stays closed after it failed.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }
}
