//! Accepted sockets, TCP, with or without TLS, and Unix, and what a client says first.

use std::{
    io::{self, IoSlice},
    os::unix,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// What an HTTP/2 client says first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a client of TLS says first: a record of a handshake, of version 3 whichever is meant (RFC 8446, section 5.1).
const CLIENT_HELLO: &[u8; 2] = &[22, 3];
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
    /// A handshake of TLS.
    Tls,
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
    /// A connection within the process, whose ends know no time but the runtime's.
    #[cfg(feature = "fuzzing")]
    Memory(tokio::io::DuplexStream),
}

impl Accepted {
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
            #[cfg(feature = "fuzzing")]
            Self::Memory(stream) => Stream::Memory(stream),
        };
        Ok(Socket { replay: Bytes::new(), stream })
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// With its keys and buffers: many times as large as the others.
    Tls(Box<TlsStream<TcpStream>>),
    #[cfg(feature = "fuzzing")]
    Memory(tokio::io::DuplexStream),
}

/// A socket; what was read of it to see who is there is read again.
#[derive(Debug)]
pub(crate) struct Socket {
    replay: Bytes,
    stream: Stream,
}

impl Socket {
    /// Who is at the other end.
    pub(super) fn peer(&self) -> String {
        let address = match &self.stream {
            Stream::Tcp(stream) => stream.peer_addr(),
            Stream::Tls(stream) => stream.get_ref().0.peer_addr(),
            Stream::Unix(_) => return "unix".to_owned(),
            #[cfg(feature = "fuzzing")]
            Stream::Memory(_) => return "memory".to_owned(),
        };
        address.map_or_else(|_gone| "tcp".to_owned(), |peer| peer.to_string())
    }

    /// Waits for the first byte, which stays to be read; `None` at the end. Of a TCP socket only.
    pub(super) async fn first_byte(&self) -> io::Result<Option<u8>> {
        let Stream::Tcp(stream) = &self.stream else { return Err(not_tcp()) };
        let mut byte = [0];
        let there = stream.peek(&mut byte).await?;
        Ok(byte.first().copied().filter(|_| there > 0))
    }

    /// Shakes hands over a TCP socket of which nothing was read.
    ///
    /// # Errors
    /// What went wrong, and the socket, through which the client was told.
    pub(super) async fn secured(self, config: Arc<ServerConfig>) -> Result<Self, (io::Error, Self)> {
        let plain = |stream| Self { replay: Bytes::new(), stream: Stream::Tcp(stream) };
        match self.stream {
            Stream::Tcp(stream) => {
                let accepted = TlsAcceptor::from(config).accept(stream).into_fallible().await;
                let stream = accepted.map_err(|(error, stream)| (error, plain(stream)))?;
                Ok(Self { replay: Bytes::new(), stream: Stream::Tls(Box::new(stream)) })
            }
            stream @ (Stream::Unix(_) | Stream::Tls(_)) => {
                Err((not_tcp(), Self { replay: self.replay, stream }))
            }
            #[cfg(feature = "fuzzing")]
            stream @ Stream::Memory(_) => Err((not_tcp(), Self { replay: self.replay, stream })),
        }
    }

    /// Whether what is said stays between the two ends.
    pub(super) fn is_secure(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Reads as much as it takes to tell who is there, and lets it be read again.
    pub(crate) async fn greeting(&mut self, deadline: Instant) -> io::Result<Greeting> {
        let mut said = [0; PREFACE.len()];
        let mut read = 0;
        let heard = timeout_at(deadline, async {
            while let Some(rest @ [_, ..]) = said.get_mut(read..) {
                match self.read(rest).await? {
                    0 => return Ok(false),
                    more => read += more,
                }
                let begins = |with: &[u8]| said.get(..read) == with.get(..read);
                if !begins(PREFACE) && (read >= CLIENT_HELLO.len() || !begins(CLIENT_HELLO)) {
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
            Ok(Ok(false)) if said.starts_with(CLIENT_HELLO) => Ok(Greeting::Tls),
            Ok(Ok(false)) | Err(_) => Ok(Greeting::Other),
            Ok(Err(error)) => Err(error),
        }
    }

    /// Tells a client of HTTP/1 why it is at the wrong door.
    pub(crate) async fn refuse_http1(self, why: &str) {
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{why}",
            why.len()
        );
        self.refuse(answer.as_bytes()).await;
    }

    /// Sends a last answer.
    pub(super) async fn refuse(mut self, answer: &[u8]) {
        // Whether the answer arrives is the client's affair.
        let _late = timeout(LINGER, self.write_all(answer)).await;
        self.let_go().await;
    }

    /// Lets a client go that was told why.
    pub(super) async fn let_go(self) {
        self.linger(LINGER_BYTES).await;
    }

    /// Says within TLS that nothing was cut off (RFC 8446, section 6.1). Plain text ends with its socket.
    pub(crate) async fn close(mut self) {
        if self.is_secure() {
            // Whether it arrives is the client's affair.
            let _late = timeout(LINGER, self.shutdown()).await;
        }
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
            Stream::Tls($stream) => $call,
            #[cfg(feature = "fuzzing")]
            Stream::Memory($stream) => $call,
        }
    };
}

fn not_tcp() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "TLS is spoken over TCP alone")
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
        let read = delegate!(self, stream => Pin::new(stream).poll_read(cx, into));
        match read {
            // TLS that ends without a word of its end. Requests say how long they are, so it is an end like any other.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            read => read,
        }
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
