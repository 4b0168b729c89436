//! The records of one segment one after the other, over damage.

use std::io;

use bytes::Bytes;

use super::{
    super::disk::DiskFile,
    format::{ALIGN, RECORD_HEADER, RECORD_MAGIC, RecordHeader},
};

/// After an unreadable place the walk goes on at the next multiple of this.
const PAGE: u64 = 4096;
/// So many unreadable pages, and the walk gives up: the disk is failing, not a sector.
const UNREADABLE_MAX: usize = 16;

/// Where a walk begins: the place and the number of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    /// Where the record is in the file.
    pub(super) offset: u64,
    /// Its number in the log.
    pub(super) sequence: u64,
    /// The ordinal of its first span.
    pub(super) first: u64,
}

/// What comes next in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A record that checks. Where its ordinal is not the one behind the record before, spans between are lost.
    Record {
        /// Its header.
        header: RecordHeader,
        /// Where it is.
        offset: u64,
        /// Its payload.
        payload: Bytes,
    },
    /// Bytes that hold no record that checks.
    Bad {
        /// Where they begin.
        from: u64,
        /// Where the next header that checks is, or the walk's end.
        to: u64,
        /// The header at their beginning, if that checks though its payload does not, or is not all there.
        header: Option<RecordHeader>,
    },
}

/// Reads a segment's records in order. It looks at no byte behind its length, for no record that reaches behind its end, and
/// after damage only for records that can be there: in their place, with a number and an ordinal that fit.
pub(super) struct Walk<'a> {
    block: Block<'a>,
    key: [u8; 16],
    next: Point,
    /// Where the damage before `next` begins, if there is some.
    bad: Option<u64>,
    end: u64,
    /// A place could not be read, twice.
    unreadable: bool,
}

enum At {
    Record(RecordHeader, Bytes),
    /// The header checks, the payload does not, or reaches beyond the walk's length.
    Header(RecordHeader),
    Nothing,
}

impl<'a> Walk<'a> {
    /// A walk from `next` on, over `length` bytes of the file, up to the record that would reach behind the
    /// ordinal `end`. It reads `block` bytes at a time, or a record if that is larger.
    pub(super) fn new(
        file: &'a dyn DiskFile,
        key: [u8; 16],
        next: Point,
        length: u64,
        end: u64,
        block: usize,
    ) -> Self {
        Self {
            block: Block { file, length, size: block, start: 0, bytes: Bytes::new() },
            key,
            next,
            bad: None,
            end,
            unreadable: false,
        }
    }

    /// The place and numbers of the record that is expected next.
    pub(super) fn point(&self) -> Point {
        self.next
    }

    /// Whether a place could not be read so far.
    pub(super) fn was_unreadable(&self) -> bool {
        self.unreadable
    }

    /// The next step; `None` at the end.
    ///
    /// # Errors
    /// Where the file cannot be read and no readable record follows.
    pub(super) fn next(&mut self) -> io::Result<Option<Step>> {
        let Point { offset, first, .. } = self.next;
        if offset >= self.block.length || first >= self.end {
            return Ok(None);
        }
        // An error may be a passing one: what is called damage is given up for good.
        let (header, trouble) = match self.at(offset).or_else(|_| self.at(offset)) {
            Ok(At::Record(header, payload)) if self.follows(&header) => {
                return Ok(self.pass(header, offset, payload));
            }
            Ok(At::Header(header)) if self.follows(&header) => (Some(header), None),
            Ok(At::Record(..) | At::Header(_) | At::Nothing) => (None, None),
            Err(error) => {
                self.unreadable = true;
                (None, Some(error))
            }
        };
        self.bad.get_or_insert(offset);
        let to = self.resync(offset, header, trouble)?;
        self.next.offset = to;
        Ok(Some(Step::Bad { from: offset, to, header }))
    }

    /// Whether its numbers can be those of a record behind the last one: they never go back, and no record reaches
    /// into what is behind the walk's end.
    fn follows(&self, header: &RecordHeader) -> bool {
        let Point { sequence, first, .. } = self.next;
        let within = header.end() <= self.end || header.first >= self.end;
        header.sequence >= sequence && header.first >= first && within
    }

    fn pass(&mut self, header: RecordHeader, offset: u64, payload: Bytes) -> Option<Step> {
        if header.end() > self.end {
            self.next.offset = self.block.length;
            return None;
        }
        self.bad = None;
        self.next = Point {
            offset: offset + header.size(),
            sequence: header.sequence.saturating_add(1),
            first: header.end(),
        };
        Some(Step::Record { header, offset, payload })
    }

    fn at(&mut self, offset: u64) -> io::Result<At> {
        let Some(bytes) = self.block.bytes(offset, RECORD_HEADER as u64)? else { return Ok(At::Nothing) };
        let Some(header) = RecordHeader::decode(&self.key, offset, &bytes) else { return Ok(At::Nothing) };
        // Only a header that checks is believed about its length, and only within the file's.
        let Some(record) = self.block.bytes(offset, header.size())? else { return Ok(At::Header(header)) };
        let payload = record.slice(RECORD_HEADER..RECORD_HEADER + header.length as usize);
        Ok(match header.checks(&self.key, offset, &payload) {
            true => At::Record(header, payload),
            false => At::Header(header),
        })
    }

    /// Where the next header is that can be one of this segment's; the walk's length where there is none.
    fn resync(
        &mut self,
        bad: u64,
        header: Option<RecordHeader>,
        mut trouble: Option<io::Error>,
    ) -> io::Result<u64> {
        let mut unreadable = 0usize;
        // A header that checks tells where its record ends; only if nothing is there, every place is looked at.
        let mut at = match header.map(|header| bad.saturating_add(header.size())) {
            Some(behind) if behind < self.block.length && matches!(self.fits(behind), Ok(true)) => {
                return Ok(behind);
            }
            _ => bad + ALIGN,
        };
        while at < self.block.length {
            match self.candidate(at) {
                Ok(None) => break,
                Ok(Some(candidate)) => match self.fits(candidate) {
                    Ok(true) => return Ok(candidate),
                    Ok(false) => at = candidate + ALIGN,
                    Err(error) => {
                        trouble.get_or_insert(error);
                        at = candidate + ALIGN;
                    }
                },
                Err(error) => {
                    trouble.get_or_insert(error);
                    unreadable += 1;
                    if unreadable > UNREADABLE_MAX {
                        break;
                    }
                    at = (at / PAGE + 1) * PAGE;
                }
            }
        }
        trouble.map_or(Ok(self.block.length), Err)
    }

    /// The next place from `at` on that begins as a record does.
    fn candidate(&mut self, mut at: u64) -> io::Result<Option<u64>> {
        while let Some(bytes) = self.block.from(at, ALIGN)? {
            let (chunks, rest) = bytes.as_chunks::<{ ALIGN as usize }>();
            if let Some(index) = chunks.iter().position(|chunk| chunk.starts_with(&RECORD_MAGIC)) {
                return Ok(Some(at + index as u64 * ALIGN));
            }
            at += (bytes.len() - rest.len()) as u64;
        }
        Ok(None)
    }

    /// Whether a record is here that can follow the last one, with damage between them: each record that is lost took
    /// its header's bytes, and each span at least one. Its own payload may be damaged, too.
    fn fits(&mut self, at: u64) -> io::Result<bool> {
        let lost = at - self.bad.unwrap_or(self.next.offset);
        let Point { sequence, first, .. } = self.next;
        Ok(match self.at(at)? {
            At::Record(header, _) | At::Header(header) => {
                let records = header.sequence.checked_sub(sequence);
                let spans = header.first.checked_sub(first);
                records.is_some_and(|records| records <= lost / RECORD_HEADER as u64)
                    && spans.is_some_and(|spans| spans <= lost)
                    && header.end() <= self.end
            }
            At::Nothing => false,
        })
    }
}

/// A part of a file in memory. It is given away in slices; nothing is copied.
struct Block<'a> {
    file: &'a dyn DiskFile,
    /// Bytes of the file that count.
    length: u64,
    size: usize,
    start: u64,
    bytes: Bytes,
}

impl Block<'_> {
    /// Exactly these bytes; `None` where they are not all within the length.
    fn bytes(&mut self, offset: u64, count: u64) -> io::Result<Option<Bytes>> {
        Ok(self.from(offset, count)?.map(|held| held.slice(..count as usize)))
    }

    /// So many bytes or more, as many as are at hand; `None` where the file ends before.
    fn from(&mut self, offset: u64, count: u64) -> io::Result<Option<Bytes>> {
        let left = self.length.saturating_sub(offset);
        let Some(count) = usize::try_from(count).ok().filter(|_| count <= left) else { return Ok(None) };
        if self.held(offset).is_none_or(|held| held.len() < count) {
            self.load(offset, count)?;
        }
        Ok(self.held(offset).filter(|held| held.len() >= count))
    }

    fn held(&self, offset: u64) -> Option<Bytes> {
        let at = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        (at < self.bytes.len()).then(|| self.bytes.slice(at..))
    }

    /// Reads a block from `offset` on; an error counts only where `count` bytes are not there.
    fn load(&mut self, offset: u64, count: usize) -> io::Result<()> {
        let left = usize::try_from(self.length - offset).unwrap_or(usize::MAX);
        let mut buffer = vec![0; self.size.max(count).min(left)];
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if done < count => return Err(error),
                Err(_) => break,
            }
        }
        buffer.truncate(done);
        self.start = offset;
        self.bytes = buffer.into();
        Ok(())
    }
}
