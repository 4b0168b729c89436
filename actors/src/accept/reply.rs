//! What follows a gRPC response's headers: a message without bytes and the trailers of a success, or
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

/// The prefix of a message without bytes: an `ExportTraceServiceResponse` without a `partial_success`.
const EMPTY: Bytes = Bytes::from_static(&[0; 5]);
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// The body of a response.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// An empty message comes next.
    Message,
    /// The trailers come next.
    Trailers,
    /// Nothing follows.
    #[default]
    Over,
}

impl Reply {
    /// A success, whole.
    pub(crate) fn success() -> http::Response<Self> {
        let mut response = http::Response::new(Self::Message);
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
        let (frame, next) = match *self {
            Self::Message => (Frame::data(EMPTY), Self::Trailers),
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

fn ok() -> HeaderMap {
    HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))])
}
