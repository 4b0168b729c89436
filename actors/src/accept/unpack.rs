//! Gzip as it streams in: the packed bytes are let go at once, the unpacked ones are charged before
//! they are kept.

use std::{
    collections::VecDeque,
    io::{self, Write},
};

use bytes::{Bytes, BytesMut};
use flate2::write::GzDecoder;

use super::{Refusal, Reservation};

/// Unpacked bytes come in pieces of this size, so that no large buffer ever moves as it grows.
const PIECE: usize = 64 * 1024;
/// Packed bytes taken in one step; they unpack to about 1 MiB at the very most.
const STEP: usize = 1024;

/// Unpacks one message.
pub(crate) struct Unpacker(GzDecoder<Kept>);

/// What came of it.
pub(crate) struct Unpacked {
    /// The message, in pieces.
    pub(crate) pieces: VecDeque<Bytes>,
    /// Its length in bytes.
    pub(crate) len: usize,
    /// The charge for just that length.
    pub(crate) charged: Reservation,
}

struct Kept {
    pieces: VecDeque<Bytes>,
    open: BytesMut,
    len: usize,
    limit: usize,
    /// `None` once handed on.
    charged: Option<Reservation>,
    /// Set once; from then on nothing is taken.
    refused: Option<Refusal>,
}

impl Unpacker {
    /// `charged` covers what is declared and is topped up beyond it; `limit` is the largest message.
    pub(crate) fn new(charged: Reservation, limit: usize) -> Self {
        Self(GzDecoder::new(Kept {
            pieces: VecDeque::new(),
            open: BytesMut::new(),
            len: 0,
            limit,
            charged: Some(charged),
            refused: None,
        }))
    }

    /// Bytes unpacked so far.
    pub(crate) fn len(&self) -> usize {
        self.0.get_ref().len
    }

    /// Takes some of `packed` from its front: a step small enough for a thread that others share.
    pub(crate) fn step(&mut self, packed: &mut Bytes) -> Result<(), Refusal> {
        let step = packed.get(..STEP.min(packed.len())).unwrap_or_default();
        let taken = self.0.write(step).map_err(|error| self.refusal(&error))?;
        if taken == 0 && !packed.is_empty() {
            return Err(Refusal::Gzip("bytes after its end"));
        }
        let _taken = packed.split_to(taken);
        Ok(())
    }

    /// The packed message is complete.
    pub(crate) fn finish(mut self) -> Result<Unpacked, Refusal> {
        self.0.try_finish().map_err(|error| self.refusal(&error))?;
        let kept = self.0.get_mut();
        kept.close_piece();
        let mut charged = kept.charged.take().ok_or(Refusal::Lost)?;
        charged.shrink_to(kept.len);
        Ok(Unpacked { pieces: std::mem::take(&mut kept.pieces), len: kept.len, charged })
    }

    fn refusal(&self, error: &io::Error) -> Refusal {
        let text = match error.kind() {
            io::ErrorKind::UnexpectedEof => "it ends early",
            _ => "it is corrupt",
        };
        self.0.get_ref().refused.clone().unwrap_or(Refusal::Gzip(text))
    }
}

impl Kept {
    /// Room for `more` bytes under the limit and in the charge, or the refusal.
    fn make_room(&mut self, more: usize) -> Result<(), Refusal> {
        let len = self.len.saturating_add(more);
        if len > self.limit {
            return Err(Refusal::UnpacksTooLarge { limit: self.limit });
        }
        let charged = self.charged.as_mut().ok_or(Refusal::Lost)?;
        if len > charged.bytes() {
            let by_the_piece = len.next_multiple_of(PIECE).min(self.limit);
            charged.grow(by_the_piece - charged.bytes()).map_err(|over| match over {
                over if by_the_piece > over.limit => Refusal::UnpacksTooLarge { limit: over.limit },
                over => Refusal::Admission(over),
            })?;
        }
        self.len = len;
        Ok(())
    }

    fn close_piece(&mut self) {
        if !self.open.is_empty() {
            self.pieces.push_back(std::mem::take(&mut self.open).freeze());
        }
    }
}

impl Write for Kept {
    fn write(&mut self, unpacked: &[u8]) -> io::Result<usize> {
        if self.refused.is_none() {
            self.refused = self.make_room(unpacked.len()).err();
        }
        if self.refused.is_some() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut rest = unpacked;
        while !rest.is_empty() {
            if self.open.is_empty() {
                self.open.reserve(PIECE);
            }
            let room = PIECE.saturating_sub(self.open.len());
            let (now, later) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            self.open.extend_from_slice(now);
            rest = later;
            if self.open.len() >= PIECE {
                self.close_piece();
            }
        }
        Ok(unpacked.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};

    use super::*;
    use crate::accept::{Admission, OverLimit};

    fn pack(plain: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap().into()
    }

    fn unpack(mut packed: Bytes, admission: &Admission, limit: usize) -> Result<Unpacked, Refusal> {
        let charged = admission.try_reserve(packed.len()).unwrap();
        let mut unpacker = Unpacker::new(charged, limit);
        while !packed.is_empty() {
            unpacker.step(&mut packed)?;
        }
        unpacker.finish()
    }

    #[test]
    fn what_was_packed_comes_back_in_pieces_and_is_charged_to_the_byte() {
        let plain: Vec<u8> = (0..300_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        let admission = Admission::new(1 << 20);
        let Ok(unpacked) = unpack(pack(&plain), &admission, 1 << 20) else { panic!("refused") };
        assert_eq!((unpacked.len, admission.in_flight()), (plain.len(), plain.len()));
        assert!(unpacked.pieces.iter().all(|piece| piece.len() <= PIECE));
        assert_eq!(unpacked.pieces.iter().flatten().copied().collect::<Vec<u8>>(), plain);
        drop(unpacked);
        assert_eq!(admission.in_flight(), 0);
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit_and_charges_no_more_than_the_limit() {
        let admission = Admission::new(10 << 20);
        let mut packed = pack(&vec![0; 8 << 20]);
        let mut unpacker = Unpacker::new(admission.try_reserve(packed.len()).unwrap(), 1 << 20);
        let refusal = loop {
            match unpacker.step(&mut packed) {
                Ok(()) => assert!(unpacker.len() <= 1 << 20 && admission.in_flight() <= 1 << 20),
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(refusal, Refusal::UnpacksTooLarge { limit: 1 << 20 });
        assert_eq!(refusal.to_string(), "message unpacks to more than the limit of 1048576 bytes");
        drop(unpacker);
        assert_eq!(admission.in_flight(), 0);
    }

    #[test]
    fn a_top_up_that_does_not_fit_is_refused_at_once() {
        let admission = Admission::new(1 << 20);
        let others = admission.try_reserve(900 << 10).unwrap();
        let refusal = unpack(pack(&vec![7; 200 << 10]), &admission, 1 << 20).err().unwrap();
        assert!(matches!(refusal, Refusal::Admission(OverLimit { limit: 1_048_576, .. })), "{refusal}");
        drop(others);
        assert_eq!(admission.in_flight(), 0);
    }

    #[test]
    fn a_stream_that_is_cut_changed_or_continued_is_refused() {
        let admission = Admission::new(1 << 20);
        let packed = pack(b"telemetry, telemetry, telemetry");
        let refusal = |bytes: Vec<u8>| unpack(bytes.into(), &admission, 1 << 20).err().unwrap().to_string();
        let mut corrupt = packed.to_vec();
        corrupt[packed.len() - 5] ^= 1;
        assert_eq!(refusal(corrupt), "message is no valid gzip: it is corrupt");
        assert_eq!(refusal(b"no gzip at all".to_vec()), "message is no valid gzip: it is corrupt");
        let continued = [packed.as_ref(), packed.as_ref()].concat();
        assert_eq!(refusal(continued), "message is no valid gzip: bytes after its end");
        for cut in 0..packed.len() {
            assert!(unpack(packed.slice(..cut), &admission, 1 << 20).is_err(), "cut at {cut}");
        }
        assert_eq!(admission.in_flight(), 0);
    }
}
