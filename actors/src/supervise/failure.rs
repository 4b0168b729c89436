//! What went wrong with a child, and how a panic is caught with its location.

use std::{
    any::Any,
    cell::RefCell,
    ffi::OsStr,
    fmt,
    panic::{self, AssertUnwindSafe},
    sync::Once,
    time::SystemTime,
};

use actix::{Actor, ActorContext, Context};
use serde::Serialize;

/// A failure's text is cut at this many bytes.
const MESSAGE_BYTES_MAX: usize = 256;

/// Why an incarnation of a child ended in failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCause {
    /// It panicked: in its factory, a hook, a handler, a future or a drop.
    Panicked,
    /// Its factory returned an error, or it called [`fail`].
    Failed,
    /// It was not ready within its start deadline; it is fenced.
    NotReady,
    /// It did not stop within its stop deadline; it is fenced.
    GivenUp,
    /// It had messages and handled none for its progress deadline; it is fenced.
    Stuck,
    /// Its arbiter ended under it.
    ArbiterGone,
    /// Its arbiter did not take its start within the start deadline: something blocks that thread.
    ArbiterBlocked,
    /// Its own children failed more often than its intensity allows.
    Escalated,
}

impl FailureCause {
    /// As `/stats` names it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Panicked => "panicked",
            Self::Failed => "failed",
            Self::NotReady => "not_ready",
            Self::GivenUp => "given_up",
            Self::Stuck => "stuck",
            Self::ArbiterGone => "arbiter_gone",
            Self::ArbiterBlocked => "arbiter_blocked",
            Self::Escalated => "escalated",
        }
    }
}

/// The last failure of a child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// What kind of failure.
    pub cause: FailureCause,
    /// The panic's message or the reason, cut at 256 bytes.
    pub message: String,
    /// Where it panicked, as `file:line:column`.
    pub location: Option<String>,
    /// The type of the message in hand, without its path. That message is lost.
    pub message_type: Option<String>,
    /// When, in seconds since the Unix epoch.
    pub at: u64,
}

impl Failure {
    pub(super) fn new(cause: FailureCause, message: impl Into<String>) -> Self {
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { cause, message: cut(message.into()), location: None, message_type: None, at }
    }

    pub(super) fn with_message_type(mut self, full: Option<&str>) -> Self {
        self.message_type = full.map(short_type_name);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(location) = &self.location {
            write!(f, " at {location}")?;
        }
        Ok(())
    }
}

/// Ends this incarnation of a supervised actor as a failure that is no panic. What the handler does
/// afterwards still happens, `stopped` is called, and the message in hand counts as handled; then
/// the supervisor decides as it does after a panic.
///
/// Outside supervision it terminates the actor.
pub fn fail<A: Actor<Context = Context<A>>>(ctx: &mut Context<A>, why: impl fmt::Display) {
    let why = why.to_string();
    with_frame(|frame| frame.failed = Some(why));
    ctx.terminate();
}

/// What a watched call left behind.
pub(super) struct Watched<T> {
    /// Its value, or its panic.
    pub(super) result: Result<T, Failure>,
    /// The reason given to [`fail`].
    pub(super) failed: Option<String>,
}

/// What happens on this thread inside a watched call.
#[derive(Default)]
struct Frame {
    location: Option<String>,
    failed: Option<String>,
}

thread_local! {
    static FRAME: RefCell<Option<Frame>> = const { RefCell::new(None) };
}

/// Runs `call`, catches its panic and remembers its location.
pub(super) fn watch<T>(call: impl FnOnce() -> T) -> Watched<T> {
    install_hook();
    let outer = swap_frame(Some(Frame::default()));
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    let frame = swap_frame(outer).unwrap_or_default();
    let result = result.map_err(|payload| {
        let mut failure = Failure::new(FailureCause::Panicked, text_of(payload.as_ref()));
        failure.location = frame.location;
        discard(payload);
        failure
    });
    Watched { result, failed: frame.failed }
}

/// A panic was caught on another thread and goes on here: its location comes with it, because
/// [`std::panic::resume_unwind`] calls no hook.
pub(super) fn panicked_at(location: Option<String>) {
    with_frame(|frame| frame.location = location);
}

/// The location of the panic that was just caught in a frame of its own.
pub(super) fn watch_raw<T>(call: impl FnOnce() -> T) -> Result<T, (Box<dyn Any + Send>, Option<String>)> {
    install_hook();
    let outer = swap_frame(Some(Frame::default()));
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    let frame = swap_frame(outer).unwrap_or_default();
    result.map_err(|payload| (payload, frame.location))
}

// A thread that is ending has no frame any more, which must not be a panic of its own.
fn swap_frame(frame: Option<Frame>) -> Option<Frame> {
    FRAME
        .try_with(|slot| slot.try_borrow_mut().ok().and_then(|mut slot| std::mem::replace(&mut *slot, frame)))
        .ok()
        .flatten()
}

/// Whether there was a frame to change.
fn with_frame(change: impl FnOnce(&mut Frame)) -> bool {
    let changed = FRAME.try_with(|slot| match slot.try_borrow_mut().ok().as_deref_mut() {
        Some(Some(frame)) => {
            change(frame);
            true
        }
        Some(None) | None => false,
    });
    changed.unwrap_or(false)
}

/// One hook for the process. It notes the location of a watched panic, whose record is the supervisor's log
/// line. The hook that was there before is called for any other panic, and where a backtrace is asked for.
fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = panic::take_hook();
        let backtrace = asks_for_backtrace(std::env::var_os("RUST_BACKTRACE").as_deref());
        panic::set_hook(Box::new(move |info| {
            let location = info.location().map(ToString::to_string);
            let watched = with_frame(|frame| frame.location = location);
            if backtrace || !watched {
                previous(info);
            }
        }));
    });
}

fn asks_for_backtrace(rust_backtrace: Option<&OsStr>) -> bool {
    rust_backtrace.is_some_and(|value| value != "0")
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "panic with a payload that is no text".to_owned()
    }
}

/// A payload's own drop may panic, and the payload of that panic again: the second one is leaked.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(again) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MESSAGE_BYTES_MAX));
    text
}

/// A type's name without the paths in it: `alloc::vec::Vec<a::b::C>` is `Vec<C>`.
fn short_type_name(full: &str) -> String {
    let mut short = String::with_capacity(full.len());
    for part in full.split_inclusive(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
        short.push_str(part.rsplit("::").next().unwrap_or(part));
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_names_lose_their_paths() {
        assert_eq!(short_type_name("a::b::Flush"), "Flush");
        assert_eq!(
            short_type_name("alloc::vec::Vec<(a::B, core::option::Option<&str>)>"),
            "Vec<(B, Option<&str>)>"
        );
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let failure = Failure::new(FailureCause::Failed, "ä".repeat(200));
        assert_eq!(failure.message, "ä".repeat(128));
        let failure = Failure::new(FailureCause::Failed, format!("x{}", "ä".repeat(200)));
        assert_eq!(failure.message.len(), 255);
    }

    #[test]
    fn a_watched_panic_has_its_message_and_location() {
        let line = line!() + 1;
        let watched = watch(|| panic!("number {}", 7));
        let failure = watched.result.unwrap_err();
        assert_eq!(failure.message, "number 7");
        assert_eq!(failure.location, Some(format!("{}:{line}:32", file!())));
    }

    #[test]
    fn a_watched_panic_prints_where_a_backtrace_is_asked_for() {
        let asked = |value: Option<&str>| asks_for_backtrace(value.map(OsStr::new));
        assert_eq!([None, Some("0"), Some("1"), Some("full")].map(asked), [false, false, true, true]);
    }

    #[test]
    fn a_payload_whose_drop_panics_is_contained() {
        struct Grenade;
        impl Drop for Grenade {
            fn drop(&mut self) {
                panic::panic_any(Self);
            }
        }
        let failure = watch(|| panic::panic_any(Grenade)).result.unwrap_err();
        assert_eq!(failure.message, "panic with a payload that is no text");
    }
}
