//! A request's body: the records' own chunks, with gRPC behind a prefix (level 0: pure).
//!
//! ```text
//! HTTP
//!   ┌──────────┬──────────┬───
//!   │ record   │ record   │ …     each record goes out as the log holds it
//!   └──────────┴──────────┴───
//!     or the compressed bytes
//!
//! gRPC
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
use http_body::{Body, Frame, SizeHint};

/// A chunk below this many bytes is cheaper copied next to its neighbours than written on its own: each
/// chunk of a body is a frame of HTTP/2 and a write to the socket.
const SMALL: usize = 4 * 1024;
/// Small neighbours are joined up to this many bytes, the frame size that every HTTP/2 server takes.
const JOINED: usize = 16 * 1024;
/// Compressed bytes are collected in chunks of this size.
const COMPRESSED_CHUNK: usize = 64 * 1024;

/// The body of one request; a clone shares its bytes.
#[derive(Debug, Clone)]
pub(super) struct RequestBody {
    chunks: VecDeque<Bytes>,
    bytes: u64,
}

impl RequestBody {
    /// These frames, for HTTP.
    pub(super) fn http(frames: &[Bytes]) -> Self {
        Self::new(BytesMut::new(), frames)
    }

    /// These frames compressed, for HTTP.
    ///
    /// # Errors
    /// See [`compressed`].
    pub(super) fn http_gzip(frames: &[Bytes]) -> io::Result<Self> {
        Ok(Self::http(&compressed(frames)?))
    }

    /// A message of these frames, for gRPC.
    pub(super) fn grpc(frames: &[Bytes]) -> Self {
        Self::new(prefix(frames, 0), frames)
    }

    /// A compressed message of these frames, for gRPC.
    ///
    /// # Errors
    /// See [`compressed`].
    pub(super) fn grpc_gzip(frames: &[Bytes]) -> io::Result<Self> {
        let frames = compressed(frames)?;
        Ok(Self::new(prefix(&frames, 1), &frames))
    }

    fn new(mut joined: BytesMut, frames: &[Bytes]) -> Self {
        let bytes = joined.len() as u64 + length(frames) as u64;
        let mut chunks = VecDeque::with_capacity(frames.len() + 1);
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
        Self { chunks, bytes }
    }

    /// Bytes of the body, as far as they have not been sent.
    pub(super) fn bytes(&self) -> u64 {
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
        let this = self.get_mut();
        let Some(chunk) = this.chunks.pop_front() else { return Poll::Ready(None) };
        this.bytes -= chunk.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes)
    }
}

fn length(frames: &[Bytes]) -> usize {
    frames.iter().map(Bytes::len).sum()
}

fn prefix(frames: &[Bytes], compressed: u8) -> BytesMut {
    let mut prefix = BytesMut::new();
    prefix.put_u8(compressed);
    prefix.put_u32(u32::try_from(length(frames)).unwrap_or(u32::MAX));
    prefix
}

/// The frames compressed with gzip at its quickest level, which costs about 3 ms of CPU a MiB: not to be called on an
/// arbiter's thread.
///
/// # Errors
/// None in practice: it writes to memory.
fn compressed(frames: &[Bytes]) -> io::Result<Vec<Bytes>> {
    let mut encoder = GzEncoder::new(Chunks::default(), Compression::fast());
    for frame in frames {
        encoder.write_all(frame)?;
    }
    Ok(encoder.finish()?.into_chunks())
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
        let body = RequestBody::grpc(&frames);
        let lengths: Vec<_> = body.chunks.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [105, 50_000, 16_300, 3_700]);
        assert_eq!(body.chunks[1].as_ptr(), large.as_ptr(), "the record was copied");
        assert_eq!(body.bytes(), 70_105);
        assert_eq!(whole(&body)[..6], [0, 0, 1, 17, 212, 2]);
    }

    #[test]
    fn an_empty_message_is_a_prefix() {
        assert_eq!(whole(&RequestBody::grpc(&[])), [0; 5]);
    }

    #[test]
    fn with_http_there_is_no_prefix_and_the_length_is_known() {
        let (small, large) = (Bytes::from_static(b"small"), Bytes::from(vec![1; 50_000]));
        let body = RequestBody::http(&[small.clone(), large.clone()]);
        assert_eq!(body.chunks[1].as_ptr(), large.as_ptr(), "the record was copied");
        assert_eq!(whole(&body), [small, large].concat());
        assert_eq!(body.size_hint().exact(), Some(50_005));
        let empty = RequestBody::http(&[]);
        assert_eq!((empty.is_end_stream(), empty.size_hint().exact()), (true, Some(0)));
    }

    #[test]
    fn a_compressed_message_unpacks_to_the_frames() {
        let frames: Vec<_> = (0..50u32)
            .map(|i| Bytes::from((0..9_000u32).map(|j| (j * j * i) as u8).collect::<Vec<_>>()))
            .collect();
        let body = RequestBody::grpc_gzip(&frames).unwrap();
        let bytes = whole(&body);
        assert_eq!(bytes.len() as u64, body.bytes());
        assert_eq!(bytes[0], 1);
        assert_eq!(u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize, bytes.len() - 5);
        let mut unpacked = vec![];
        flate2::read::GzDecoder::new(&bytes[5..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, frames.concat());
    }
}
