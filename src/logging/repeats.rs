//! How many lines one place in the code may write: a fault that repeats a thousand times a second fills no disk.

use std::{
    collections::HashMap,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{Level, Metadata, callsite::Identifier};
use tracing_subscriber::fmt::MakeWriter;

/// The time in which the lines of a place are counted.
const WINDOW: Duration = Duration::from_secs(10);
/// The target of the lines about lines; these are not limited.
const TARGET: &str = "nyx_daemon::lines";

/// Counts the lines of each place. The places are those of the program's code, so they are bounded.
#[derive(Debug, Default)]
struct Places {
    places: HashMap<Identifier, Place>,
    /// Places that have left out lines.
    exceeded: Vec<Identifier>,
}

#[derive(Debug)]
struct Place {
    metadata: &'static Metadata<'static>,
    window_ends: Instant,
    lines: u32,
    left_out: u64,
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Written,
    /// The first of its window that is left out.
    FirstLeftOut,
    LeftOut,
}

/// What a place has left out.
#[derive(Debug, Clone, Copy)]
struct LeftOut {
    metadata: &'static Metadata<'static>,
    lines: u64,
}

impl Places {
    /// Counts a line. `burst` lines of one place are written within a window; 0 is no limit.
    fn count(&mut self, metadata: &'static Metadata<'static>, burst: u32, now: Instant) -> Fate {
        if burst == 0 {
            return Fate::Written;
        }
        let id = metadata.callsite();
        let new = || Place { metadata, window_ends: now + WINDOW, lines: 0, left_out: 0 };
        let place = self.places.entry(id.clone()).or_insert_with(new);
        // What the window before has left out is told first, by `over`.
        if now >= place.window_ends && place.left_out == 0 {
            *place = new();
        }
        if place.lines < burst {
            place.lines += 1;
            return Fate::Written;
        }
        place.left_out += 1;
        if place.left_out > 1 {
            return Fate::LeftOut;
        }
        self.exceeded.push(id);
        Fate::FirstLeftOut
    }

    /// What was left out in windows that have ended; with `now` `None`, in all.
    fn over(&mut self, now: Option<Instant>) -> Vec<LeftOut> {
        let mut over = Vec::new();
        let places = &mut self.places;
        self.exceeded.retain(|id| {
            let Some(place) = places.get_mut(id) else { return false };
            if now.is_some_and(|now| now < place.window_ends) {
                return true;
            }
            over.push(LeftOut { metadata: place.metadata, lines: std::mem::take(&mut place.left_out) });
            false
        });
        over
    }
}

/// Writes lines to standard error, up to a limit for each place in the code.
#[derive(Debug, Clone, Default)]
pub(super) struct Limited(Arc<State>);

#[derive(Debug, Default)]
struct State {
    burst: AtomicU32,
    places: Mutex<Places>,
}

impl Limited {
    /// Lines that one place may write within [`WINDOW`]; 0 is no limit.
    pub(super) fn set_burst(&self, burst: u32) {
        self.0.burst.store(burst, Ordering::Relaxed);
    }

    /// Says what was left out, at the end.
    pub(super) fn finish(&self) {
        let over = self.0.places.lock().over(None);
        over.iter().for_each(tell);
    }

    fn fate(&self, metadata: &Metadata<'_>) -> Fate {
        // Only a place that is known by its static metadata can be told of later.
        let Some(metadata) = known(metadata) else { return Fate::Written };
        let now = Instant::now();
        let (over, fate) = {
            let mut places = self.0.places.lock();
            (places.over(Some(now)), places.count(metadata, self.0.burst.load(Ordering::Relaxed), now))
        };
        // Behind the lock: these are lines themselves.
        over.iter().for_each(tell);
        fate
    }
}

/// The metadata of a place, but for those of lines about lines.
fn known(metadata: &Metadata<'_>) -> Option<&'static Metadata<'static>> {
    (metadata.target() != TARGET).then(|| metadata.callsite().0.metadata())
}

fn place(metadata: &Metadata<'_>) -> String {
    format!("{}:{}", metadata.target(), metadata.line().unwrap_or_default())
}

fn tell(LeftOut { metadata, lines }: &LeftOut) {
    let place = place(metadata);
    // As severe as what was left out, so that a filter lets through both or none.
    match *metadata.level() {
        Level::ERROR => {
            tracing::error!(target: TARGET, place, left_out = lines, "lines like one before were left out")
        }
        Level::WARN => {
            tracing::warn!(target: TARGET, place, left_out = lines, "lines like one before were left out")
        }
        _ => tracing::info!(target: TARGET, place, left_out = lines, "lines like one before were left out"),
    }
}

fn announce(metadata: &Metadata<'_>) {
    let (place, seconds) = (place(metadata), WINDOW.as_secs());
    match *metadata.level() {
        Level::ERROR => {
            tracing::error!(target: TARGET, place, "further lines like the last are left out for up to {seconds} s");
        }
        Level::WARN => {
            tracing::warn!(target: TARGET, place, "further lines like the last are left out for up to {seconds} s");
        }
        _ => {
            tracing::info!(target: TARGET, place, "further lines like the last are left out for up to {seconds} s")
        }
    }
}

/// Where a line goes.
pub(super) enum Out {
    Written(io::Stderr),
    LeftOut,
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Written(stderr) => stderr.write(bytes),
            Self::LeftOut => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Written(stderr) => stderr.flush(),
            Self::LeftOut => Ok(()),
        }
    }
}

impl<'a> MakeWriter<'a> for Limited {
    type Writer = Out;

    fn make_writer(&'a self) -> Out {
        Out::Written(io::stderr())
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Out {
        match self.fate(metadata) {
            Fate::Written => Out::Written(io::stderr()),
            Fate::LeftOut => Out::LeftOut,
            Fate::FirstLeftOut => {
                announce(metadata);
                Out::LeftOut
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::Callsite;

    use super::*;

    macro_rules! metadata {
        () => {{
            static SITE: tracing::callsite::DefaultCallsite = tracing::callsite::DefaultCallsite::new(&META);
            static META: Metadata<'static> = tracing::metadata! {
                name: "line",
                target: "test",
                level: Level::INFO,
                fields: &["message"],
                callsite: &SITE,
                kind: tracing::metadata::Kind::EVENT,
            };
            SITE.metadata()
        }};
    }

    fn counted(places: &mut Places, of: &'static Metadata<'static>, times: usize, now: Instant) -> Vec<Fate> {
        (0..times).map(|_| places.count(of, 2, now)).collect()
    }

    #[test]
    fn a_place_that_repeats_itself_is_cut_off_and_another_is_not() {
        let (one, other) = (metadata!(), metadata!());
        let mut places = Places::default();
        let now = Instant::now();
        let expected = [Fate::Written, Fate::Written, Fate::FirstLeftOut, Fate::LeftOut, Fate::LeftOut];
        assert_eq!(counted(&mut places, one, 5, now), expected);
        assert_eq!(counted(&mut places, other, 1, now), [Fate::Written]);
        assert!(places.over(Some(now + WINDOW - Duration::from_millis(1))).is_empty());
        let over = places.over(Some(now + WINDOW));
        assert_eq!(over.iter().map(|over| over.lines).collect::<Vec<_>>(), [3]);
        // It begins anew.
        assert_eq!(counted(&mut places, one, 3, now + WINDOW), expected[..3]);
    }

    #[test]
    fn a_slow_place_is_never_cut_off() {
        let one = metadata!();
        let mut places = Places::default();
        let mut now = Instant::now();
        for _ in 0..20 {
            assert_eq!(counted(&mut places, one, 2, now), [Fate::Written, Fate::Written]);
            now += WINDOW;
            assert!(places.over(Some(now)).is_empty());
        }
    }

    #[test]
    fn what_was_left_out_is_told_at_the_end_whenever_that_is() {
        let one = metadata!();
        let mut places = Places::default();
        counted(&mut places, one, 4, Instant::now());
        assert_eq!(places.over(None).iter().map(|over| over.lines).sum::<u64>(), 2);
        assert!(places.over(None).is_empty());
    }

    #[test]
    fn without_a_limit_everything_is_written_and_nothing_kept() {
        let one = metadata!();
        let mut places = Places::default();
        for _ in 0..1_000 {
            assert_eq!(places.count(one, 0, Instant::now()), Fate::Written);
        }
        assert!(places.places.is_empty());
    }
}
