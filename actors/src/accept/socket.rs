//! Accepted sockets, TCP and Unix, and what a client says first.

use std::{
    io::{self, IoSlice},
    os::unix,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpStream, UnixStream},
    time::timeout,
};

/// What an HTTP/2 client says first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The answer to a client of HTTP/1.
const NOT_HTTP1: &str = "this port speaks OTLP over gRPC, which is HTTP/2\n";
/// What is read of such a client's request before the connection is closed.
const LINGER_BYTES: usize = 64 * 1024;
const LINGER: Duration = Duration::from_secs(1);

/// What a client says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// HTTP/2, by its preface.
    Http2,
    /// Something in capitals, as the methods of HTTP/1 are.
    Http1,
    /// Something else, or nothing in time.
    Other,
}

/// A socket on its way from the acceptor to the thread on which it will live.
#[derive(Debug)]
pub enum Accepted {
    /// A TCP connection.
    Tcp(std::net::TcpStream),
    /// A connection to a Unix socket.
    Unix(unix::net::UnixStream),
}

impl Accepted {
    /// Who is at the other end.
    pub fn peer(&self) -> String {
        match self {
            Self::Tcp(stream) => {
                stream.peer_addr().map_or_else(|_gone| "tcp".to_owned(), |peer| peer.to_string())
            }
            Self::Unix(_) => "unix".to_owned(),
        }
    }

    /// Joins this thread's runtime.
    pub(crate) fn into_socket(self) -> io::Result<Socket> {
        let stream = match self {
            Self::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                // Acknowledgements are small and somebody waits for each.
                stream.set_nodelay(true)?;
                Stream::Tcp(TcpStream::from_std(stream)?)
            }
            Self::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Stream::Unix(UnixStream::from_std(stream)?)
            }
        };
        Ok(Socket { replay: Bytes::new(), stream })
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A socket; what was read of it to see who is there is read again.
#[derive(Debug)]
pub(crate) struct Socket {
    replay: Bytes,
    stream: Stream,
}

impl Socket {
    /// Reads as much as it takes to tell who is there, and lets it be read again.
    pub(crate) async fn greeting(&mut self, limit: Duration) -> io::Result<Greeting> {
        let mut said = [0; PREFACE.len()];
        let mut read = 0;
        let heard = timeout(limit, async {
            while let Some(rest @ [_, ..]) = said.get_mut(read..) {
                match self.read(rest).await? {
                    0 => return Ok(false),
                    more => read += more,
                }
                if said.get(..read) != PREFACE.get(..read) {
                    return Ok(false);
                }
            }
            io::Result::Ok(true)
        });
        let heard = heard.await;
        self.replay = Bytes::copy_from_slice(said.get(..read).unwrap_or_default());
        match heard {
            Ok(Ok(true)) => Ok(Greeting::Http2),
            Ok(Ok(false)) if said.first().is_some_and(u8::is_ascii_uppercase) => Ok(Greeting::Http1),
            Ok(Ok(false)) | Err(_) => Ok(Greeting::Other),
            Ok(Err(error)) => Err(error),
        }
    }

    /// Tells a client of HTTP/1 that it is at the wrong door.
    pub(crate) async fn refuse_http1(mut self) {
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{NOT_HTTP1}",
            NOT_HTTP1.len()
        );
        // Whether the answer arrives is the client's affair.
        let _late = timeout(LINGER, self.write_all(answer.as_bytes())).await;
        self.linger(LINGER_BYTES).await;
    }

    /// Ends what is sent, and reads on for a moment, so many bytes at most: closed with bytes unread, a socket takes
    /// back the last answer.
    pub(crate) async fn linger(mut self, bytes_max: usize) {
        let _late = timeout(LINGER, async {
            self.shutdown().await?;
            let mut unread = [0; 4096];
            let mut read = 0;
            while read < bytes_max {
                match self.read(&mut unread).await? {
                    0 => break,
                    more => read += more,
                }
            }
            io::Result::Ok(())
        })
        .await;
    }
}

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().stream {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.replay.is_empty() && into.remaining() > 0 {
            let now = self.replay.len().min(into.remaining());
            into.put_slice(self.replay.get(..now).unwrap_or_default());
            self.replay.advance(now);
            return Poll::Ready(Ok(()));
        }
        delegate!(self, stream => Pin::new(stream).poll_read(cx, into))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, stream => Pin::new(stream).poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
