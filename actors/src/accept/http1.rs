//! One HTTP/1 connection, as one future.
//!
//! Its requests are polled within, one after the other: a panic in one of them is the connection's actor's, and
//! dropping the actor drops everything.

use std::{cell::Cell, convert::Infallible, future::poll_fn, pin::Pin, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::{
    Stop, Unanswered,
    http2::{CutOff, words},
    socket::Socket,
};

/// Settings of a door's HTTP/1 connections.
///
/// What a connection may hold beyond the bytes in flight is bounded by `read_buffer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http1Settings {
    /// How long a new connection may take to shake hands and begin, and an old one to come with the whole head of its next
    /// request (60 s).
    pub head_timeout: Duration,
    /// Bytes read ahead of whoever takes them (64 KiB); it bounds a request's head too.
    pub read_buffer: usize,
}

impl Default for Http1Settings {
    fn default() -> Self {
        Self { head_timeout: Duration::from_secs(60), read_buffer: 64 * 1024 }
    }
}

/// Serves a connection to its end. Told to stop, it lets the request that has begun finish.
///
/// Where a request was answered before it was read, `unread` is set: then so many bytes at most are read, and thrown
/// away, so that the answer arrives. Dropped before its end, it tells `unanswered` why.
pub(crate) async fn serve<S, B>(
    socket: Socket,
    settings: Http1Settings,
    service: S,
    unanswered: Unanswered,
    unread: (Rc<Cell<bool>>, usize),
    stop: Stop,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Unpin + 'static,
    S::Future: Unpin,
    B: Body<Data = Bytes, Error = Infallible> + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(settings.head_timeout)
        .max_buf_size(settings.read_buffer);
    let mut connection = builder.serve_connection(TokioIo::new(socket), service);
    let mut stop = Some(stop);
    // Declared last, so dropped first: it speaks before the requests go.
    let mut cut_off = CutOff::new(unanswered);
    let ended = poll_fn(|cx| {
        if stop.as_mut().is_some_and(|stop| stop.as_mut().poll(cx).is_ready()) {
            stop = None;
            cut_off.stopping();
            Pin::new(&mut connection).graceful_shutdown();
        }
        connection.poll_without_shutdown(cx)
    })
    .await;
    // A request that is still in its midst is one whose sender has gone.
    cut_off.over();
    let socket = connection.into_parts().io.into_inner();
    let (unread, bytes_max) = unread;
    match ended {
        Ok(()) if unread.get() => return socket.linger(bytes_max).await,
        Ok(()) => {}
        Err(error) => tracing::debug!(error = words(&error), "connection failed"),
    }
    socket.close().await;
}
