//! Accepted sockets, TCP and Unix, and what a client says first.

use std::{
    io::{self, IoSlice},
    os::unix,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpStream, UnixStream},
    time::timeout,
};

/// What an HTTP/2 client says first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The answer to a client of HTTP/1.
const NOT_HTTP1: &str = "this port speaks OTLP over gRPC, which is HTTP/2\n";
/// What is read of such a client's request before the connection is closed: closed with bytes unread, a
/// socket takes back the answer.
const LINGER_BYTES: usize = 64 * 1024;
const LINGER: Duration = Duration::from_secs(1);

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
        Ok(Socket { replay: &[], stream })
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A socket; what was read of it to see who is there can be read again.
#[derive(Debug)]
pub(crate) struct Socket {
    replay: &'static [u8],
    stream: Stream,
}

impl Socket {
    /// Reads the HTTP/2 preface, and lets it be read again. `None` if the client says something else, or
    /// nothing in time; a client of HTTP/1 is told.
    pub(crate) async fn expect_http2(mut self, limit: Duration) -> io::Result<Option<Self>> {
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
        match heard.await {
            Ok(Ok(true)) => {
                self.replay = PREFACE;
                Ok(Some(self))
            }
            Ok(Ok(false)) if said.first().is_some_and(u8::is_ascii_uppercase) => {
                // Whether the answer arrives is the client's affair.
                let _late = timeout(LINGER, self.refuse_http1()).await;
                Ok(None)
            }
            Ok(Ok(false)) | Err(_) => Ok(None),
            Ok(Err(error)) => Err(error),
        }
    }

    async fn refuse_http1(&mut self) -> io::Result<()> {
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{NOT_HTTP1}",
            NOT_HTTP1.len()
        );
        self.write_all(answer.as_bytes()).await?;
        self.shutdown().await?;
        let mut unread = [0; 4096];
        for _ in 0..LINGER_BYTES / unread.len() {
            if self.read(&mut unread).await? == 0 {
                break;
            }
        }
        Ok(())
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
            let (now, later) = self.replay.split_at_checked(now).unwrap_or_default();
            into.put_slice(now);
            self.replay = later;
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
