//! A stream on which only reading fails.
//!
//! A server may answer and close while the request is still on its way to it (413, say). Then the next write fails,
//! though the answer has arrived; and the answer is what counts.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Takes what can no longer be written as written, and leaves it to the reading side to say how it ends: with the
/// answer, the end, or the error.
pub(super) struct Forward<S> {
    stream: S,
    broken: bool,
}

impl<S> Forward<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, broken: false }
    }

    fn outcome(&mut self, length: usize, written: io::Result<usize>) -> io::Result<usize> {
        match written {
            Err(error) if is_closed(&error) => {
                self.broken = true;
                Ok(length)
            }
            other => other,
        }
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
}

impl<S: AsyncRead + Unpin> AsyncRead for Forward<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Forward<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.broken {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        Poll::Ready(self.outcome(buf.len(), written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if self.broken {
            return Poll::Ready(Ok(length));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        Poll::Ready(self.outcome(length, written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.broken {
            return Poll::Ready(Ok(()));
        }
        match ready!(Pin::new(&mut self.stream).poll_flush(cx)) {
            Err(error) if is_closed(&error) => {
                self.broken = true;
                Poll::Ready(Ok(()))
            }
            other => Poll::Ready(other),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::Bytes;
    use http::Request;
    use hyper::client::conn::http1::handshake;
    use hyper_util::rt::TokioIo;

    use super::{super::super::body::RequestBody, *};

    /// A server that has answered and gone: writing fails so, reading gives what it said.
    struct Gone {
        error: io::ErrorKind,
        said: &'static [u8],
        /// Who reads, until somebody has written.
        reader: Option<Waker>,
        written: bool,
    }

    impl AsyncRead for Gone {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if !self.written {
                self.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            buf.put_slice(std::mem::take(&mut self.said));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Gone {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            _buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.written = true;
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
            Poll::Ready(Err(self.error.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(self.error.into()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn request(error: io::ErrorKind, said: &'static [u8]) -> Result<u16, hyper::Error> {
        let stream = Forward::new(Gone { error, said, reader: None, written: false });
        let (mut sender, driver) = handshake(TokioIo::new(stream)).await?;
        let body = RequestBody::http(&[Bytes::from(vec![0; 1_000_000])]);
        let (response, _ended) = tokio::join!(sender.send_request(Request::new(body)), driver);
        Ok(response?.status().as_u16())
    }

    #[tokio::test]
    async fn what_a_server_said_before_it_closed_is_read_though_writing_fails() {
        for error in [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset] {
            let answer = b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n";
            assert_eq!(request(error, answer).await.unwrap(), 413);
            assert!(request(error, b"").await.unwrap_err().is_incomplete_message(), "it said nothing");
        }
        assert!(request(io::ErrorKind::TimedOut, b"").await.is_err());
    }
}
