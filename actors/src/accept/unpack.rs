//! Gzip as it streams in: the packed bytes are let go at once, the unpacked ones are charged before
//! they are kept.

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::write::GzDecoder;

use super::{Buffers, Refusal, Reservation, pieces::Pieces};

/// Packed bytes taken in one step; they unpack to about 1 MiB at the very most.
const STEP: usize = 1024;

/// Unpacks one message.
pub(crate) struct Unpacker(GzDecoder<Pieces>);

impl Unpacker {
    /// `charged` covers what is declared and is topped up beyond it; `limit` is the largest message.
    pub(crate) fn new(charged: Reservation, limit: usize) -> Self {
        let too_large = |limit| Refusal::UnpacksTooLarge { limit };
        Self(GzDecoder::new(Pieces::new(charged, limit, too_large)))
    }

    /// Bytes unpacked so far.
    pub(crate) fn len(&self) -> usize {
        self.0.get_ref().len()
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

    /// The packed message is complete: it is joined in one buffer, and charged for just its length.
    pub(crate) fn finish(mut self, buffers: &Buffers) -> Result<(Bytes, Reservation), Refusal> {
        self.0.try_finish().map_err(|error| self.refusal(&error))?;
        self.0.get_mut().join(buffers)
    }

    fn refusal(&self, error: &io::Error) -> Refusal {
        let text = match error.kind() {
            io::ErrorKind::UnexpectedEof => "it ends early",
            _ => "it is corrupt",
        };
        self.0.get_ref().refused().unwrap_or(Refusal::Gzip(text))
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

    fn unpack(
        mut packed: Bytes,
        admission: &Admission,
        limit: usize,
    ) -> Result<(Bytes, Reservation), Refusal> {
        let charged = admission.try_reserve(packed.len()).unwrap();
        let mut unpacker = Unpacker::new(charged, limit);
        while !packed.is_empty() {
            unpacker.step(&mut packed)?;
        }
        unpacker.finish(&Buffers::default())
    }

    #[test]
    fn what_was_packed_comes_back_and_is_charged_to_the_byte() {
        let plain: Vec<u8> = (0..300_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        let admission = Admission::new(1 << 20);
        let (unpacked, charged) = unpack(pack(&plain), &admission, 1 << 20).unwrap();
        assert_eq!((charged.bytes(), admission.in_flight()), (plain.len(), plain.len()));
        assert_eq!(unpacked, plain);
        drop(charged);
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
