//! An export batch: a range of the log as chunks of bytes (level 0: pure).
//!
//! Whole records go out as the log holds them; only a record that is larger than a batch, or that the
//! position or a bisection divides, is cut. Sampling happens here, so that the log and RED hold everything.

use bytes::Bytes;
use tokio::time::Instant;

use super::state::Load;
use crate::{
    log::{Ordinal, ReadLimit, Record},
    span::{self, Sampler, SpanView},
};

/// Spans of the log, ready to be sent.
#[derive(Debug, Clone)]
pub struct Batch {
    frames: Vec<Frame>,
    end: Ordinal,
    sampler: Sampler,
}

/// A record, or a part of one.
#[derive(Debug, Clone)]
struct Frame {
    first: Ordinal,
    spans: u32,
    /// Exactly these spans.
    source: Bytes,
    /// Those that sampling kept; nothing where it kept none.
    sent: Bytes,
    kept: u32,
}

/// What became of records.
#[derive(Debug)]
pub enum Formed {
    /// A batch.
    Batch {
        /// The spans from the position on.
        batch: Batch,
        /// When the first span behind it was committed, if that is known.
        rest: Option<Instant>,
    },
    /// The spans from the position to here cannot be read.
    Damaged {
        /// The ordinal behind them.
        to: Ordinal,
    },
    /// There was nothing at the position.
    Nothing,
}

impl Batch {
    /// A batch of the spans from `from` on, within `limit`; a span that is larger alone is alone.
    pub fn form(records: &[Record], from: Ordinal, limit: ReadLimit, sampler: Sampler) -> Formed {
        let mut batch = Self { frames: Vec::with_capacity(records.len()), end: from, sampler };
        let mut room = limit;
        let mut rest = None;
        for record in records.iter().filter(|record| record.end() > from) {
            let frame = match record.first > batch.end {
                false => Frame::within(record, batch.end, room, batch.frames.is_empty(), sampler),
                true => Err(Unreadable { to: record.first }),
            };
            match frame {
                Ok(Some(frame)) => {
                    room.spans = room.spans.saturating_sub(u64::from(frame.spans));
                    room.bytes = room.bytes.saturating_sub(frame.source.len());
                    batch.end = frame.end();
                    batch.frames.push(frame);
                }
                Ok(None) => {}
                Err(Unreadable { to }) if batch.frames.is_empty() => return Formed::Damaged { to },
                // What is readable goes first; the next batch begins with what is not.
                Err(_) => {}
            }
            if batch.end < record.end() {
                rest = Some(record.committed_at);
                break;
            }
        }
        match batch.frames.is_empty() {
            true => Formed::Nothing,
            false => Formed::Batch { batch, rest },
        }
    }

    /// The bytes to send, in order; together they are one request.
    pub fn frames(&self) -> Vec<Bytes> {
        self.frames.iter().map(|frame| frame.sent.clone()).filter(|sent| !sent.is_empty()).collect()
    }

    /// Shows every span alone, with its ordinal, as far as they can be read.
    pub fn each(self, visit: &mut dyn FnMut(Ordinal, Bytes)) {
        match self.kept() {
            0 => {}
            1 => {
                for frame in self.frames.into_iter().filter(|frame| frame.kept > 0) {
                    visit(frame.first_kept(self.sampler), frame.sent);
                }
            }
            _ => {
                // Halves of halves: cutting out one span after the other would scan a record for each.
                if let Ok((low, high)) = self.halve() {
                    low.each(visit);
                    high.each(visit);
                }
            }
        }
    }

    fn of(frames: Vec<Frame>, end: Ordinal, sampler: Sampler) -> Self {
        Self { frames, end, sampler }
    }
}

impl Load for Batch {
    fn end(&self) -> Ordinal {
        self.end
    }

    fn kept(&self) -> u64 {
        self.frames.iter().map(|frame| u64::from(frame.kept)).sum()
    }

    fn bytes(&self) -> usize {
        self.frames.iter().map(|frame| frame.sent.len()).sum()
    }

    /// Divides at the record boundary that is nearest to the middle, or the one record that has spans.
    fn halve(self) -> Result<(Self, Self), Self> {
        let total = self.kept();
        let mut kept = 0;
        let boundary = (self.frames.iter().enumerate())
            .map(|(at, frame)| {
                kept += u64::from(frame.kept);
                (at + 1, kept)
            })
            .filter(|(_, low)| *low > 0 && *low < total)
            .min_by_key(|(_, low)| (low * 2).abs_diff(total));
        let Self { mut frames, end, sampler } = self;
        if let Some((at, _)) = boundary {
            let high = frames.split_off(at);
            let middle = frames.last().map_or(end, Frame::end);
            return Ok((Self::of(frames, middle, sampler), Self::of(high, end, sampler)));
        }
        let halves = frames.iter().position(|frame| frame.kept > 0).and_then(|at| {
            let (low, high) = frames.get(at)?.halve(sampler)?;
            Some((at, low, high))
        });
        let Some((at, low, high)) = halves else { return Err(Self::of(frames, end, sampler)) };
        let middle = low.end();
        let high = std::iter::once(high).chain(frames.drain(at..).skip(1)).collect();
        frames.push(low);
        Ok((Self::of(frames, middle, sampler), Self::of(high, end, sampler)))
    }
}

/// Spans up to here cannot be read.
struct Unreadable {
    to: Ordinal,
}

impl Frame {
    /// The record's spans from `from` on: all of them, or where `alone` as many as there is room for.
    fn within(
        record: &Record,
        from: Ordinal,
        room: ReadLimit,
        alone: bool,
        sampler: Sampler,
    ) -> Result<Option<Self>, Unreadable> {
        let unreadable = || Unreadable { to: record.end() };
        let skip = u32::try_from(from.saturating_sub(record.first)).map_err(|_| unreadable())?;
        let fits = u64::from(record.spans) <= room.spans && record.bytes.len() <= room.bytes;
        let frame = if fits && skip == 0 {
            Self::sampled(from, record.spans, record.bytes.clone(), sampler)
        } else if alone {
            let spans = u32::try_from(room.spans).unwrap_or(u32::MAX).min(record.spans.saturating_sub(skip));
            let (source, spans) = cut(&record.bytes, skip, spans, room.bytes).ok_or_else(unreadable)?;
            Self::sampled(from, spans, source, sampler)
        } else {
            return Ok(None);
        };
        frame.map(Some).ok_or_else(unreadable)
    }

    fn sampled(first: Ordinal, spans: u32, source: Bytes, sampler: Sampler) -> Option<Self> {
        if sampler.keeps_all() {
            return Some(Self { first, spans, sent: source.clone(), source, kept: spans });
        }
        let mut out = Vec::new();
        let keep = |_, view: &SpanView<'_>| sampler.keeps(view.trace_id);
        let kept = span::select(&source, keep, &mut out).ok()?;
        let sent = if kept == spans { source.clone() } else { out.into() };
        Some(Self { first, spans, source, sent, kept })
    }

    fn end(&self) -> Ordinal {
        self.first + u64::from(self.spans)
    }

    fn halve(&self, sampler: Sampler) -> Option<(Self, Self)> {
        let half = self.spans / 2;
        let (low, low_spans) = cut(&self.source, 0, half, usize::MAX)?;
        let (high, high_spans) = cut(&self.source, half, self.spans - half, usize::MAX)?;
        if half == 0 || low_spans + high_spans != self.spans {
            return None;
        }
        let low = Self::sampled(self.first, low_spans, low, sampler)?;
        let high = Self::sampled(low.end(), high_spans, high, sampler)?;
        Some((low, high))
    }

    fn first_kept(&self, sampler: Sampler) -> Ordinal {
        let (mut index, mut found) = (0, None);
        // What was scanned before scans again; if it did not, the first ordinal would stand for the span.
        let _scan = span::scan(&self.source, |view| {
            if sampler.keeps(view.trace_id) {
                found.get_or_insert(index);
            }
            index += 1;
        });
        self.first + found.unwrap_or(0)
    }
}

fn cut(bytes: &[u8], first: u32, spans: u32, max_bytes: usize) -> Option<(Bytes, u32)> {
    let mut out = Vec::new();
    let spans = span::cut(bytes, first, spans, max_bytes, &mut out).ok().filter(|spans| *spans > 0)?;
    Some((out.into(), spans))
}

#[cfg(test)]
mod tests;
