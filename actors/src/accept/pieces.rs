//! A message of unknown length as it comes: in pieces, each charged before it is kept.

use std::{
    collections::VecDeque,
    io::{self, Write},
};

use bytes::{Bytes, BytesMut};

use super::{Buffers, Refusal, Reservation};

/// The size of a piece, so that no large buffer ever moves as it grows.
pub(crate) const PIECE: usize = 64 * 1024;

/// The pieces so far.
pub(crate) struct Pieces {
    pieces: VecDeque<Bytes>,
    open: BytesMut,
    len: usize,
    limit: usize,
    /// What a message over the limit is told.
    too_large: fn(usize) -> Refusal,
    /// `None` once handed on.
    charged: Option<Reservation>,
    /// Set once; from then on nothing is taken.
    refused: Option<Refusal>,
}

impl Pieces {
    /// `charged` is topped up where it does not suffice; `limit` is the largest message.
    pub(crate) fn new(charged: Reservation, limit: usize, too_large: fn(usize) -> Refusal) -> Self {
        Self {
            pieces: VecDeque::new(),
            open: BytesMut::new(),
            len: 0,
            limit,
            too_large,
            charged: Some(charged),
            refused: None,
        }
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Why it takes no more.
    pub(crate) fn refused(&self) -> Option<Refusal> {
        self.refused.clone()
    }

    /// Keeps `more` bytes, or none of them and no later ones.
    pub(crate) fn add(&mut self, more: &[u8]) -> Result<(), Refusal> {
        if self.refused.is_none() {
            self.refused = self.make_room(more.len()).err();
        }
        if let Some(refused) = &self.refused {
            return Err(refused.clone());
        }
        let mut rest = more;
        while !rest.is_empty() {
            if self.open.is_empty() {
                self.open.reserve(PIECE);
            }
            let room = PIECE.saturating_sub(self.open.len());
            let (now, later) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            self.open.extend_from_slice(now);
            rest = later;
            if self.open.len() >= PIECE {
                self.pieces.push_back(std::mem::take(&mut self.open).freeze());
            }
        }
        Ok(())
    }

    /// The message in one buffer, with the charge for just its length.
    pub(crate) fn join(&mut self, buffers: &Buffers) -> Result<(Bytes, Reservation), Refusal> {
        let mut charged = self.charged.take().ok_or(Refusal::Lost)?;
        charged.shrink_to(self.len);
        let mut message = buffers.take(self.len);
        self.pieces.drain(..).for_each(|piece| message.extend_from_slice(&piece));
        message.extend_from_slice(&std::mem::take(&mut self.open));
        Ok((message.freeze(), charged))
    }

    /// Room for `more` bytes under the limit and in the charge, or the refusal.
    fn make_room(&mut self, more: usize) -> Result<(), Refusal> {
        let len = self.len.saturating_add(more);
        if len > self.limit {
            return Err((self.too_large)(self.limit));
        }
        let charged = self.charged.as_mut().ok_or(Refusal::Lost)?;
        if len > charged.bytes() {
            let by_the_piece = len.next_multiple_of(PIECE).min(self.limit);
            charged.grow(by_the_piece - charged.bytes()).map_err(|over| match over {
                over if by_the_piece > over.limit => (self.too_large)(over.limit),
                over => Refusal::Admission(over),
            })?;
        }
        self.len = len;
        Ok(())
    }
}

/// What refuses ends the writing; [`Pieces::refused`] says why.
impl Write for Pieces {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        match self.add(more) {
            Ok(()) => Ok(more.len()),
            Err(_refused) => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
