//! Buffers of messages, used again once the log has let go of them (level 0).
//!
//! A fresh buffer costs a page fault for each 4 KiB of it. A message takes all of its buffer, and is
//! handed on without a word about where it came from; an empty handle stays behind, and when it is the
//! last one the buffer is free.

use std::{collections::VecDeque, fmt};

use bytes::BytesMut;
use parking_lot::Mutex;

/// Below this many bytes a fresh buffer costs as little; above the other, too much memory would lie idle.
const SMALLEST: usize = 8 * 1024;
const LARGEST: usize = 1024 * 1024;
/// Buffers kept in sight at most, and their bytes together. The oldest is forgotten first.
const KEPT: usize = 64;
const KEPT_BYTES: usize = 16 * 1024 * 1024;
/// What a buffer may have beyond a quarter more than its message.
const SLACK: usize = 4 * 1024;

/// The buffers that the connections of a door share.
#[derive(Default)]
pub struct Buffers(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// In the order of their last use: the first is the likeliest to be free.
    handles: VecDeque<Handle>,
    bytes: usize,
}

/// A buffer of `capacity` bytes, in use as long as the handle is not the only one.
struct Handle {
    empty: BytesMut,
    capacity: usize,
}

impl Buffers {
    /// An empty buffer for a message of `len` bytes: exact if it is fresh, and at most a quarter and 4 KiB
    /// larger if it was used before, since what a message keeps is charged by its length.
    pub(crate) fn take(&self, len: usize) -> BytesMut {
        if !(SMALLEST..=LARGEST).contains(&len) {
            return BytesMut::with_capacity(len);
        }
        let free = self.0.lock().reclaim(len);
        let mut buffer = free.unwrap_or_else(|| BytesMut::with_capacity(len));
        let capacity = buffer.capacity();
        let empty = buffer.split_off(capacity);
        self.0.lock().keep(Handle { empty, capacity });
        buffer
    }

    /// Keeps none in sight, so that a message can be asked for what it alone keeps.
    #[cfg(test)]
    pub(crate) fn forget(&self) {
        *self.0.lock() = Kept::default();
    }
}

impl Kept {
    fn reclaim(&mut self, len: usize) -> Option<BytesMut> {
        let fitting = len..=len + len / 4 + SLACK;
        let free = |handle: &mut Handle| {
            fitting.contains(&handle.capacity) && handle.empty.try_reclaim(handle.capacity)
        };
        let at = self.handles.iter_mut().position(free)?;
        let handle = self.handles.remove(at)?;
        self.bytes -= handle.capacity;
        Some(handle.empty)
    }

    fn keep(&mut self, handle: Handle) {
        self.bytes += handle.capacity;
        self.handles.push_back(handle);
        while self.handles.len() > KEPT || self.bytes > KEPT_BYTES {
            let Some(oldest) = self.handles.pop_front() else { break };
            self.bytes -= oldest.capacity;
        }
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.0.lock();
        f.debug_struct("Buffers").field("kept", &kept.handles.len()).field("bytes", &kept.bytes).finish()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn message(buffers: &Buffers, len: usize) -> Bytes {
        let mut buffer = buffers.take(len);
        buffer.resize(len, 7);
        buffer.freeze()
    }

    fn kept(buffers: &Buffers) -> (usize, usize) {
        let kept = buffers.0.lock();
        assert_eq!(kept.bytes, kept.handles.iter().map(|handle| handle.capacity).sum::<usize>());
        (kept.handles.len(), kept.bytes)
    }

    #[test]
    fn a_buffer_is_used_again_when_the_last_of_its_message_is_gone_and_not_before() {
        let buffers = Buffers::default();
        let first = message(&buffers, 100_000);
        let (at, slice) = (first.as_ptr(), first.slice(50_000..));
        drop(first);
        let second = message(&buffers, 100_000);
        assert_ne!(second.as_ptr(), at, "a slice of it is still held");
        drop(slice);
        assert_eq!(message(&buffers, 99_000).as_ptr(), at);
        // A request that ends half-way gives its buffer back as well.
        drop(buffers.take(99_000));
        assert_eq!((buffers.take(100_000).as_ptr(), kept(&buffers)), (at, (2, 200_000)));
    }

    #[test]
    fn a_message_never_keeps_a_buffer_much_larger_than_itself() {
        let buffers = Buffers::default();
        let at = message(&buffers, 104_096).as_ptr();
        assert_eq!(buffers.take(79_999).capacity(), 79_999);
        assert_ne!(buffers.take(104_097).as_ptr(), at);
        let reused = buffers.take(80_000);
        assert_eq!((reused.as_ptr(), reused.capacity()), (at, 104_096));
        for len in [0, 1, SMALLEST, 200_000, LARGEST, LARGEST + 1] {
            assert_eq!(Buffers::default().take(len).capacity(), len, "a fresh one is exact");
        }
    }

    #[test]
    fn what_is_kept_in_sight_is_bounded_in_number_in_bytes_and_in_size() {
        let buffers = Buffers::default();
        let held: Vec<_> = (0..KEPT + 10).map(|_| message(&buffers, SMALLEST)).collect();
        assert_eq!(kept(&buffers), (KEPT, KEPT * SMALLEST));
        drop(held);
        let held: Vec<_> = (0..20).map(|_| message(&buffers, LARGEST)).collect();
        assert_eq!(kept(&buffers), (16, KEPT_BYTES));
        drop(held);
        let buffers = Buffers::default();
        drop((message(&buffers, SMALLEST - 1), message(&buffers, LARGEST + 1)));
        assert_eq!(kept(&buffers), (0, 0));
    }
}
