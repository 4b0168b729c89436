//! What is recorded of a commit, where nyx traces itself.

use super::SpansCompleted;
use crate::{
    log::GroupOutcome,
    self_tracing::{Origin, Recording, Tracer},
};

/// Begins the span of a commit of these batches. It is a part of the first request among them that is recorded, and linked
/// to the others; where there is none, and batches that came with no request, a trace of its own, by the rate. A request that
/// its sender did not want to be recorded makes none: it may be about such spans itself.
pub(super) fn begin<'b>(
    tracer: &Tracer,
    group: impl Iterator<Item = &'b SpansCompleted> + Clone,
) -> Recording {
    if !tracer.is_on() {
        return Recording::default();
    }
    let mut requests = group.clone().filter_map(|batch| match batch.origin {
        Origin::Recorded(request) => Some(request),
        Origin::Own | Origin::Unrecorded => None,
    });
    let mut recording = match requests.next() {
        Some(request) => tracer.part_of(request, "commit"),
        None if group.clone().any(|batch| batch.origin == Origin::Own) => tracer.frequent("commit"),
        None => Recording::default(),
    };
    if recording.is_on() {
        requests.for_each(|request| recording.link(request));
        let (mut batches, mut spans, mut bytes) = (0_usize, 0_u64, 0_usize);
        for SpansCompleted { append, .. } in group {
            batches += 1;
            spans += u64::from(append.pending.spans());
            bytes += append.bytes.len();
        }
        recording.set("nyx.commit.batches", batches);
        recording.set("nyx.commit.spans", spans);
        recording.set("nyx.commit.bytes", bytes);
    }
    recording
}

/// The log has answered.
pub(super) fn end(mut recording: Recording, outcome: &GroupOutcome) {
    if recording.is_on() {
        let refused = outcome.firsts.iter().filter(|first| first.is_none()).count();
        recording.set("nyx.log.end_ordinal", outcome.end);
        recording.set("nyx.commit.refused_batches", refused);
        if refused > 0 {
            recording.fail("refused", || format!("the log refused {refused} of its batches"));
        }
    }
    recording.end();
}
