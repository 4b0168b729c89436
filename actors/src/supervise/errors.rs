//! Why a message was not taken, or not answered. A refusal hands the message back.

use std::{error::Error, fmt};

/// [`ActorRef::try_send`](super::ActorRef::try_send) refused a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<M> {
    /// The inbox holds as many messages as it may; there may be room later.
    Full(M),
    /// The actor is stopped for good.
    Closed(M),
}

impl<M> TrySendError<M> {
    /// The message, for the caller to choose its fate.
    pub fn into_message(self) -> M {
        match self {
            Self::Full(message) | Self::Closed(message) => message,
        }
    }

    /// Whether a later attempt may succeed.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }
}

/// The actor is stopped for good; here is the message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Closed<M>(pub M);

/// [`ActorRef::ask`](super::ActorRef::ask) has no answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum AskError<M> {
    /// The actor is stopped for good; it never saw the message.
    Closed(M),
    /// The inbox had no room within the limit; the actor never saw the message.
    NotAccepted(M),
    /// The message was accepted, its answer did not come within the limit; it may still be handled.
    Timeout,
    /// The message was accepted and is lost: its handler died with it, or a shutdown abandoned it.
    Lost,
}

macro_rules! texts {
    ($name:ident { $($pattern:pat => $variant:literal, $text:literal;)+ }) => {
        // By hand, so that neither asks anything of the message, nor prints its contents.
        impl<M> fmt::Debug for $name<M> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($pattern => $variant,)+ })
            }
        }

        impl<M> fmt::Display for $name<M> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($pattern => $text,)+ })
            }
        }

        impl<M> Error for $name<M> {}
    };
}

texts!(TrySendError {
    Self::Full(_) => "Full", "inbox is full";
    Self::Closed(_) => "Closed", "inbox is closed";
});
texts!(Closed {
    Self(_) => "Closed", "inbox is closed";
});
texts!(AskError {
    Self::Closed(_) => "Closed", "inbox is closed";
    Self::NotAccepted(_) => "NotAccepted", "inbox had no room within the limit";
    Self::Timeout => "Timeout", "no answer within the limit";
    Self::Lost => "Lost", "message was lost before its answer";
});
