//! Reading spans that are no longer in memory.

use std::{io, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    super::{Ordinal, ReadError, ReadLimit, Record, disk::DiskFile, records::Taken, unix_now},
    format::RecordHeader,
    segment::INDEX_SPACING,
    shared::{Shared, State},
    walk::{Point, Step, Walk},
    writer::{Damaged, Work},
};

/// Bytes that are read at a time, at least and at most.
const BLOCK: std::ops::RangeInclusive<usize> = 64 << 10..=4 << 20;

/// A segment as it was when a read looked at it.
struct View {
    number: u64,
    file: Arc<dyn DiskFile>,
    key: [u8; 16],
    point: Point,
    length: u64,
    end: Ordinal,
}

/// A place that does not hold the spans that it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damage {
    /// The segment.
    pub(super) number: u64,
    /// The bytes that do not check, as ranges; none where they are missing.
    pub(super) bytes: Vec<(u64, u64)>,
    /// The ordinal of the first span that is lost.
    pub(super) first: Ordinal,
    /// The ordinal behind the last.
    pub(super) end: Ordinal,
}

impl State {
    fn view(&self, from: Ordinal) -> Option<View> {
        // Of segments that begin at the same ordinal only the last has records.
        let at = self.segments.partition_point(|segment| segment.begin.first <= from);
        let segment = self.segments.get(at.checked_sub(1)?)?;
        Some(View {
            number: segment.number,
            file: Arc::clone(&segment.file),
            key: segment.key,
            point: segment.point_before(from),
            length: segment.length,
            end: segment.end,
        })
    }
}

impl Shared {
    /// Reads from the files. What is found damaged goes to `report`, each place once.
    ///
    /// # Errors
    /// Where a file cannot be read for now.
    pub(super) fn read_files(
        &self,
        from: Ordinal,
        limit: ReadLimit,
        report: &mut dyn FnMut(Work),
    ) -> io::Result<Result<Vec<Record>, ReadError>> {
        let mut records = Vec::new();
        let mut taken = Taken::new(from, limit);
        // The ordinal behind the last record.
        let mut expected = from;
        loop {
            let (view, start, end, missing) = {
                let state = self.state.lock();
                (state.view(expected), state.start(), state.end, state.missing.clone())
            };
            let Some(view) = view.filter(|_| expected < end) else {
                return Ok(match records.is_empty() && from < start {
                    true if missing.contains(&from) => Err(ReadError::Damaged { from, to: missing.end }),
                    true => Err(ReadError::Released { from, start }),
                    false => Ok(records),
                });
            };
            match self.read_segment(&view, &mut expected, &mut taken, &mut records, report)? {
                Pass::On => {}
                Pass::Enough => return Ok(Ok(records)),
                Pass::Gap(to) if records.is_empty() => {
                    return Ok(Err(ReadError::Damaged { from, to }));
                }
                Pass::Gap(_) => return Ok(Ok(records)),
            }
        }
    }

    fn read_segment(
        &self,
        view: &View,
        expected: &mut Ordinal,
        taken: &mut Taken,
        records: &mut Vec<Record>,
        report: &mut dyn FnMut(Work),
    ) -> io::Result<Pass> {
        let block = taken.bytes_left().clamp(*BLOCK.start(), *BLOCK.end());
        let mut walk = Walk::new(&*view.file, view.key, view.point, view.length, view.end, block);
        let mut bad = Vec::new();
        let mut noted = view.point.offset;
        loop {
            let before = walk.point();
            let step = match walk.next() {
                Ok(step) => step,
                // What was read before the trouble is good.
                Err(_) if !records.is_empty() => return Ok(Pass::Enough),
                Err(error) => return Err(error),
            };
            let (behind, next) = match &step {
                Some(Step::Bad { from, to, .. }) => {
                    bad.push((*from, *to));
                    continue;
                }
                Some(Step::Record { header, .. }) => (header.first, header.end()),
                None => (view.end, view.end),
            };
            if behind > before.first {
                let damage = Damage {
                    number: view.number,
                    bytes: std::mem::take(&mut bad),
                    first: before.first,
                    end: behind,
                };
                self.found(damage, report);
                if *expected < behind {
                    // A gap ends a read, and one that begins in it says how far it goes.
                    return Ok(Pass::Gap(behind));
                }
            }
            let Some(Step::Record { header, offset, payload }) = step else {
                *expected = (*expected).max(view.end);
                return Ok(Pass::On);
            };
            if offset >= noted + INDEX_SPACING {
                noted = offset;
                if let Some(segment) = self.state.lock().segment(view.number) {
                    segment.note(Point { offset, sequence: header.sequence, first: header.first });
                }
            }
            if next <= *expected {
                continue;
            }
            let record = Record {
                first: header.first,
                spans: header.spans,
                bytes: payload,
                committed_at: committed_at(&header),
                committed_unix: Duration::from_nanos(header.committed),
            };
            if !taken.takes(&record) {
                return Ok(Pass::Enough);
            }
            records.push(record);
            *expected = next;
            if taken.is_full(next) {
                return Ok(Pass::Enough);
            }
        }
    }

    /// Tells of damage, unless it was told of before.
    fn found(&self, damage: Damage, report: &mut dyn FnMut(Work)) {
        let new = {
            let mut state = self.state.lock();
            let segment = state.segment(damage.number);
            segment.is_some_and(|segment| segment.damage.insert(damage.end))
        };
        if new {
            report(Work::Damaged(Damaged(damage)));
        }
    }
}

enum Pass {
    /// The segment's end.
    On,
    /// The limit.
    Enough,
    /// Nothing readable before this ordinal.
    Gap(Ordinal),
}

/// When a record was committed, on this process's clock; the wall clock may have gone back.
fn committed_at(header: &RecordHeader) -> Instant {
    let now = Instant::now();
    let age = unix_now().saturating_sub(Duration::from_nanos(header.committed));
    now.checked_sub(age).unwrap_or(now)
}
