//! A request's body: a gRPC prefix and the records' own chunks (level 0: pure).
//!
//! ```text
//!   ┌──────┬─────────────┬──────────┬──────────┬───
//!   │ 0, 1 │ u32 length  │ record   │ record   │ …     each record goes out as the log holds it
//!   └──────┴─────────────┴──────────┴──────────┴───
//!     1 = gzip, then the compressed bytes follow instead
//! ```

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use http_body::{Body, Frame};

/// A chunk below this many bytes is cheaper copied next to its neighbours than written on its own: each
/// chunk of a body is a frame of HTTP/2 and a write to the socket.
const SMALL: usize = 4 * 1024;
/// Small neighbours are joined up to this many bytes, the frame size that every HTTP/2 server takes.
const JOINED: usize = 16 * 1024;
/// Compressed bytes are collected in chunks of this size.
const COMPRESSED_CHUNK: usize = 64 * 1024;

/// The body of one request; a clone shares its bytes.
#[derive(Debug, Clone)]
pub(crate) struct RequestBody {
    chunks: VecDeque<Bytes>,
    bytes: u64,
}

impl RequestBody {
    /// A message of these frames.
    pub(crate) fn plain(frames: &[Bytes]) -> Self {
        Self::new(frames, 0)
    }

    /// A message of these frames, compressed with gzip at its quickest level, which costs about 3 ms of
    /// CPU a MiB: not to be called on an arbiter's thread.
    ///
    /// # Errors
    /// None in practice: it writes to memory.
    pub(crate) fn gzip(frames: &[Bytes]) -> io::Result<Self> {
        let mut encoder = GzEncoder::new(Chunks::default(), Compression::fast());
        for frame in frames {
            encoder.write_all(frame)?;
        }
        Ok(Self::new(&encoder.finish()?.into_chunks(), 1))
    }

    fn new(frames: &[Bytes], compressed: u8) -> Self {
        let length: usize = frames.iter().map(Bytes::len).sum();
        let mut chunks = VecDeque::with_capacity(frames.len() + 1);
        let mut joined = BytesMut::new();
        joined.put_u8(compressed);
        joined.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        for frame in frames {
            if frame.len() >= SMALL || joined.len() + frame.len() > JOINED {
                chunks.extend(Some(joined.split().freeze()).filter(|chunk| !chunk.is_empty()));
            }
            match frame.len() {
                0 => {}
                SMALL.. => chunks.push_back(frame.clone()),
                _ => joined.extend_from_slice(frame),
            }
        }
        chunks.extend(Some(joined.freeze()).filter(|chunk| !chunk.is_empty()));
        Self { chunks, bytes: 5 + length as u64 }
    }

    /// Bytes of the body.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.get_mut().chunks.pop_front().map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_empty()
    }
}

/// What is written, in chunks: one growing buffer would be moved again and again.
#[derive(Debug, Default)]
struct Chunks {
    full: Vec<Bytes>,
    last: BytesMut,
}

impl Chunks {
    fn into_chunks(mut self) -> Vec<Bytes> {
        self.full.push(self.last.freeze());
        self.full
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.last.len() + bytes.len() > COMPRESSED_CHUNK && !self.last.is_empty() {
            self.full.push(self.last.split().freeze());
        }
        self.last.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn whole(body: &RequestBody) -> Vec<u8> {
        body.chunks.iter().flatten().copied().collect()
    }

    #[test]
    fn a_large_record_goes_out_as_it_is_and_small_ones_together() {
        let large = Bytes::from(vec![1; 50_000]);
        let small = Bytes::from(vec![2; 100]);
        let mut frames = vec![small.clone(), large.clone()];
        frames.extend(std::iter::repeat_n(small, 200));
        let body = RequestBody::plain(&frames);
        let lengths: Vec<_> = body.chunks.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [105, 50_000, 16_300, 3_700]);
        assert_eq!(body.chunks[1].as_ptr(), large.as_ptr(), "the record was copied");
        assert_eq!(body.bytes(), 70_105);
        assert_eq!(whole(&body)[..6], [0, 0, 1, 17, 212, 2]);
    }

    #[test]
    fn an_empty_message_is_a_prefix() {
        assert_eq!(whole(&RequestBody::plain(&[])), [0; 5]);
    }

    #[test]
    fn a_compressed_message_unpacks_to_the_frames() {
        let frames: Vec<_> = (0..50u32)
            .map(|i| Bytes::from((0..9_000u32).map(|j| (j * j * i) as u8).collect::<Vec<_>>()))
            .collect();
        let body = RequestBody::gzip(&frames).unwrap();
        let bytes = whole(&body);
        assert_eq!(bytes.len() as u64, body.bytes());
        assert_eq!(bytes[0], 1);
        assert_eq!(u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize, bytes.len() - 5);
        let mut unpacked = vec![];
        flate2::read::GzDecoder::new(&bytes[5..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, frames.concat());
    }
}
