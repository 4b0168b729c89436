//! What follows a gRPC response's headers: the message of a success, which mostly has no bytes, and its trailers; or
//! nothing, where the headers tell the whole story.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame};
use tonic::Status;

use super::response::Taken;

/// The prefix of a message without bytes: an `ExportTraceServiceResponse` without a `partial_success`.
const EMPTY: Bytes = Bytes::from_static(&[0; 5]);
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// The body of a response.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A message, with its prefix, comes next.
    Message(Bytes),
    /// The trailers come next.
    Trailers,
    /// Nothing follows.
    #[default]
    Over,
}

impl Reply {
    /// A success, full or partial.
    pub(crate) fn success(taken: &Taken) -> http::Response<Self> {
        let mut response = http::Response::new(Self::Message(message(taken)));
        response.headers_mut().insert(http::header::CONTENT_TYPE, GRPC);
        response
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let (frame, next) = match std::mem::take(&mut *self) {
            Self::Message(message) => (Frame::data(message), Self::Trailers),
            Self::Trailers => (Frame::trailers(ok()), Self::Over),
            Self::Over => return Poll::Ready(None),
        };
        *self = next;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Over)
    }
}

/// The response's message behind its prefix.
fn message(taken: &Taken) -> Bytes {
    if taken.rejected == 0 {
        return EMPTY;
    }
    let response = taken.to_protobuf();
    let length = u32::try_from(response.len()).unwrap_or_default();
    [&[0][..], &length.to_be_bytes(), &response].concat().into()
}

fn ok() -> HeaderMap {
    HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))])
}
