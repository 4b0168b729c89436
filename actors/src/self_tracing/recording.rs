//! A span while it lasts, and when it is over.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{ERROR_TYPE, Recorder};
use crate::span::{SpanContext, SpanId, SpanKind};

/// Links of one span at most.
pub const LINKS_MAX: usize = 32;

/// What is wrong with a span whose maker did not come to its end.
const UNFINISHED: &str = "unfinished";

/// A value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// A word of ours.
    Word(&'static str),
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<&'static str> for Attribute {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}

impl From<String> for Attribute {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

macro_rules! numbers {
    ($($int:ty)*) => {$(
        impl From<$int> for Attribute {
            fn from(number: $int) -> Self {
                Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }
    )*};
}

numbers! { u16 u32 u64 usize }

/// A span about nyx itself that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnSpan {
    /// Its name: one of a few.
    pub name: &'static str,
    /// What it is to its parent.
    pub kind: SpanKind,
    /// Its ids.
    pub context: SpanContext,
    /// The span that it is a part of, and whether that one is another process's.
    pub parent: Option<(SpanId, bool)>,
    /// Others that it has to do with, [`LINKS_MAX`] at most.
    pub links: Vec<SpanContext>,
    /// Links beyond that.
    pub dropped_links: u32,
    /// When it began.
    pub start: SystemTime,
    /// When it ended: not before its start, whatever was done to the clock.
    pub end: SystemTime,
    /// Its attributes, each name once.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// What went wrong, where its status is error.
    pub error: Option<String>,
}

/// A span that is being recorded, or none.
///
/// It ends with [`Recording::end`]; dropped before, it says that it was not finished.
#[derive(Default)]
#[must_use]
pub struct Recording(Option<Box<Open>>);

struct Open {
    recorder: Arc<dyn Recorder>,
    began: Instant,
    span: OwnSpan,
}

impl Recording {
    pub(super) fn begin(
        recorder: &Arc<dyn Recorder>,
        name: &'static str,
        kind: SpanKind,
        context: SpanContext,
        parent: Option<(SpanContext, bool)>,
    ) -> Self {
        let start = SystemTime::now();
        let span = OwnSpan {
            name,
            kind,
            context,
            parent: parent.map(|(parent, is_remote)| (parent.span_id, is_remote)),
            links: Vec::new(),
            dropped_links: 0,
            start,
            end: start,
            attributes: Vec::new(),
            error: None,
        };
        Self(Some(Box::new(Open { recorder: Arc::clone(recorder), began: Instant::now(), span })))
    }

    /// It began so long ago.
    pub(super) fn began_before(&mut self, lasted: Duration) {
        let Some(open) = &mut self.0 else { return };
        if let (Some(start), Some(began)) =
            (open.span.start.checked_sub(lasted), open.began.checked_sub(lasted))
        {
            (open.span.start, open.began) = (start, began);
        }
    }

    /// Whether anything is recorded.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The ids, for its parts and for links to it.
    pub fn context(&self) -> Option<SpanContext> {
        self.0.as_ref().map(|open| open.span.context)
    }

    /// Sets an attribute; a value that it had is replaced.
    pub fn set(&mut self, name: &'static str, value: impl Into<Attribute>) {
        let Some(open) = &mut self.0 else { return };
        let attributes = &mut open.span.attributes;
        match attributes.iter_mut().find(|(before, _)| *before == name) {
            Some((_, before)) => *before = value.into(),
            None => attributes.push((name, value.into())),
        }
    }

    /// Says of what kind an error was, and in words what.
    pub fn fail(&mut self, kind: &'static str, what: impl FnOnce() -> String) {
        self.set(ERROR_TYPE, kind);
        if let Some(open) = &mut self.0 {
            open.span.error = Some(what());
        }
    }

    /// It has to do with this span, too.
    pub(crate) fn link(&mut self, context: SpanContext) {
        let Some(open) = &mut self.0 else { return };
        if open.span.links.len() < LINKS_MAX {
            open.span.links.push(context);
        } else {
            open.span.dropped_links += 1;
        }
    }

    /// It is over.
    pub fn end(mut self) {
        self.record();
    }

    fn record(&mut self) {
        if let Some(open) = self.0.take() {
            let Open { recorder, began, mut span } = *open;
            span.end = span.start + began.elapsed();
            recorder.record(span);
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if self.is_on() {
            self.fail(UNFINISHED, || "it was given up on, or whoever did it failed".to_owned());
            self.record();
        }
    }
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_ref().map_or("none", |open| open.span.name))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::recording_all, *};

    #[tokio::test(start_paused = true)]
    async fn a_span_lasts_from_its_begin_to_its_end() {
        let (tracer, recorded) = recording_all(1.0);
        let recording = tracer.rare("a");
        tokio::time::advance(Duration::from_millis(250)).await;
        recording.end();
        tracer.rare_since("b", Duration::from_secs(3)).end();
        let lasted: Vec<_> =
            recorded.take().iter().map(|span| span.end.duration_since(span.start).unwrap()).collect();
        assert_eq!(lasted, [Duration::from_millis(250), Duration::from_secs(3)]);
    }

    #[test]
    fn an_attribute_has_its_last_value_and_links_have_a_bound() {
        let (tracer, recorded) = recording_all(1.0);
        let mut recording = tracer.rare("a");
        recording.set("n", 1_u32);
        recording.set("n", u64::MAX);
        recording.set("w", "word");
        for _ in 0..LINKS_MAX + 3 {
            recording.link(SpanContext::random());
        }
        recording.end();
        let [span] = &recorded.take()[..] else { panic!("one span") };
        assert_eq!(span.attributes, [("n", Attribute::Number(i64::MAX)), ("w", Attribute::Word("word"))]);
        assert_eq!((span.links.len(), span.dropped_links, &span.error), (LINKS_MAX, 3, &None));
    }

    #[test]
    fn a_span_that_nobody_ends_says_so() {
        let (tracer, recorded) = recording_all(1.0);
        drop(tracer.rare("a"));
        let [span] = &recorded.take()[..] else { panic!("one span") };
        assert_eq!(span.attributes, [(ERROR_TYPE, Attribute::Word(UNFINISHED))]);
        assert!(span.error.is_some());
    }
}
