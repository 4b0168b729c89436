//! Spans about nyx itself: what an operator may ask of a request, a commit, a restart (level 1).
//!
//! A [`Tracer`] is handed to whoever does something that is worth a span. It is off unless it was given a
//! [`Recorder`]: then a span costs a look at one pointer. Where it is on, a trace that the rate leaves out costs a random
//! number.
//!
//! What is recorded: each request at a door, each commit, each checkpoint of the span metrics, by the rate; and whatever
//! is rare, always. Nothing about exporting is, neither by the destinations' exporters nor by whoever sends these spans:
//! those have no tracer.

mod recording;
#[cfg(test)]
pub(crate) mod testing;

use std::{fmt, sync::Arc, time::Duration};

use serde::Serialize;

pub use recording::{Attribute, LINKS_MAX, OwnSpan, Recording};

use crate::span::{Sampler, SpanContext, SpanKind, TraceId};

/// The attribute that says what went wrong (OpenTelemetry's semantic conventions, "Recording errors").
pub const ERROR_TYPE: &str = "error.type";

/// Takes finished spans, and sends them somewhere.
pub trait Recorder: Send + Sync {
    /// A span has ended. It must neither wait nor panic: the threads that call it have other things to do.
    fn record(&self, span: OwnSpan);

    /// What became of the spans so far.
    fn counts(&self) -> RecorderCounts;
}

/// What became of finished spans: recorded = exported + failed + dropped + pending.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RecorderCounts {
    /// Spans that were recorded.
    pub recorded: u64,
    /// Spans that their destination took.
    pub exported: u64,
    /// Spans of requests that failed; they are not tried again.
    pub failed: u64,
    /// Spans that found no room among those that wait.
    pub dropped: u64,
}

/// What something belongs to that is done for another process, or for none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Origin {
    /// Nothing outside: whether it is recorded is for the rate to say.
    #[default]
    Own,
    /// Something that is not recorded, and neither is what belongs to it.
    Unrecorded,
    /// This span.
    Recorded(SpanContext),
}

/// Begins spans about nyx itself. Clones record to the same place.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<On>>);

struct On {
    sampler: Sampler,
    recorder: Arc<dyn Recorder>,
}

impl Tracer {
    /// A tracer that records this share of the traces, from 0 to 1, and all that is rare.
    pub fn new(sampling_rate: f64, recorder: Arc<dyn Recorder>) -> Self {
        Self(Some(Arc::new(On { sampler: Sampler::new(sampling_rate), recorder })))
    }

    /// Whether anything is recorded at all.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// What became of the spans, where it is on.
    pub fn counts(&self) -> Option<RecorderCounts> {
        self.0.as_ref().map(|on| on.recorder.counts())
    }

    /// Begins a trace about something rare, which is always recorded.
    pub fn rare(&self, name: &'static str) -> Recording {
        self.begin(name, SpanKind::Internal, None, |_| Some(SpanContext::random()))
    }

    /// The same about something that has lasted so long by now.
    pub(crate) fn rare_since(&self, name: &'static str, lasted: Duration) -> Recording {
        let mut recording = self.rare(name);
        recording.began_before(lasted);
        recording
    }

    /// Begins a trace about something frequent, which is recorded by the rate.
    pub(crate) fn frequent(&self, name: &'static str) -> Recording {
        self.begin(name, SpanKind::Internal, None, On::fresh)
    }

    /// Begins the span of a request. `parent` is the sender's span, if it told of one: then the request is part of that
    /// trace, is recorded only if that one is, and whether it is follows from its trace's id alone, so that whoever
    /// uses the same rate agrees.
    pub(crate) fn request(
        &self,
        name: &'static str,
        parent: impl FnOnce() -> Option<SpanContext>,
    ) -> Recording {
        let Some(on) = &self.0 else { return Recording::default() };
        match parent() {
            None => self.begin(name, SpanKind::Server, None, On::fresh),
            Some(parent) if parent.flags.is_sampled() && on.sampler.keeps(parent.trace_id) => {
                self.begin(name, SpanKind::Server, Some((parent, true)), |_| Some(parent.child()))
            }
            Some(_) => Recording::default(),
        }
    }

    /// Begins a part of what is being recorded.
    pub fn part_of(&self, parent: SpanContext, name: &'static str) -> Recording {
        self.begin(name, SpanKind::Internal, Some((parent, false)), |_| Some(parent.child()))
    }

    fn begin(
        &self,
        name: &'static str,
        kind: SpanKind,
        parent: Option<(SpanContext, bool)>,
        context: impl FnOnce(&On) -> Option<SpanContext>,
    ) -> Recording {
        let Some(on) = &self.0 else { return Recording::default() };
        match context(on) {
            Some(context) => Recording::begin(&on.recorder, name, kind, context, parent),
            None => Recording::default(),
        }
    }
}

impl On {
    /// The root of a new trace, if that is to be recorded.
    fn fresh(&self) -> Option<SpanContext> {
        let trace_id = TraceId::random();
        self.sampler.keeps(trace_id).then(|| SpanContext { trace_id, ..SpanContext::random() })
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "on" } else { "off" })
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::recording_all, *};
    use crate::span::{SpanId, TraceFlags};

    const CONTEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parent(text: &str) -> Option<SpanContext> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn without_a_recorder_nobody_asks_for_a_parent_and_nothing_is_recorded() {
        let off = Tracer::default();
        assert!(!off.is_on() && off.counts().is_none());
        let recording = off.request("a", || panic!("nothing is to be read of a request"));
        assert_eq!(recording.context(), None);
        assert!(!off.rare("b").is_on() && !off.frequent("c").is_on());
    }

    #[test]
    fn a_request_is_part_of_its_sender_s_trace() {
        let (tracer, recorded) = recording_all(1.0);
        tracer.request("a", || parent(CONTEXT)).end();
        tracer.request("b", || None).end();
        let spans = recorded.take();
        let told: SpanContext = CONTEXT.parse().unwrap();
        assert_eq!((spans[0].context.trace_id, spans[0].parent), (told.trace_id, Some((told.span_id, true))));
        assert_ne!(spans[0].context.span_id, told.span_id);
        assert_eq!((spans[1].parent, spans[1].kind), (None, SpanKind::Server));
    }

    #[test]
    fn what_its_sender_does_not_record_is_not_recorded_here() {
        let (tracer, recorded) = recording_all(1.0);
        let unsampled = CONTEXT.replace("-01", "-00");
        assert!(!tracer.request("a", || parent(&unsampled)).is_on());
        assert_eq!(recorded.take(), []);
    }

    #[test]
    fn the_rate_decides_by_the_trace_alone_and_spares_what_is_rare() {
        let (tracer, recorded) = recording_all(0.25);
        let sampler = Sampler::new(0.25);
        let mut kept = 0;
        for _ in 0..2_000 {
            let parent = SpanContext::random();
            let recording = tracer.request("a", || Some(parent));
            assert_eq!(recording.is_on(), sampler.keeps(parent.trace_id));
            kept += usize::from(tracer.frequent("b").is_on());
            assert!(tracer.rare("c").is_on());
        }
        assert!((300..700).contains(&kept), "a quarter of 2000, more or less: {kept}");
        drop(recorded);
        let (tracer, _recorded) = recording_all(0.0);
        assert!(!tracer.frequent("a").is_on() && tracer.rare("b").is_on());
    }

    #[test]
    fn a_part_has_the_trace_of_the_whole() {
        let (tracer, recorded) = recording_all(0.0);
        let whole = tracer.rare("whole");
        let context = whole.context().unwrap();
        tracer.part_of(context, "part").end();
        whole.end();
        let spans = recorded.take();
        assert_eq!(spans[0].parent, Some((context.span_id, false)));
        assert_eq!(spans[0].context.trace_id, spans[1].context.trace_id);
        let SpanContext { trace_id, span_id, flags } = spans[0].context;
        assert!(trace_id != TraceId::default() && span_id != SpanId::default());
        assert_eq!(flags, TraceFlags::SAMPLED);
    }
}
