//! One HTTP/2 connection, as one future.
//!
//! hyper wants to spawn each request; here requests are polled by the connection's own future, which its
//! actor polls. So a panic in any of them is the actor's and closes this socket alone, and dropping the
//! actor drops everything.

use std::{
    cell::RefCell,
    convert::Infallible,
    error::Error as _,
    future::{Future, poll_fn},
    io,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    future::LocalBoxFuture,
    stream::{FuturesUnordered, StreamExt as _},
};
use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, rt::Executor, server::conn::http2, service::Service};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::{
    Accepted, DoorReason, DoorTls, Stop, Unanswered,
    greet::{Speaks, greet},
    socket::Socket,
};

/// The answer to a client of HTTP/1.
const NOT_HTTP1: &str = "this port speaks OTLP over gRPC, which is HTTP/2\n";

/// Settings of a door's HTTP/2 connections.
///
/// What a connection may hold beyond the bytes in flight is bounded: HTTP/2's windows let a client send
/// `connection_window` bytes that nobody has read yet, and each open stream holds at most `max_headers`
/// bytes of headers, so 4 MiB with these defaults. In practice it is little: bodies are read as they come,
/// since a request that finds no room is refused and not kept waiting, and the window fills only while the
/// thread is busy elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2Settings {
    /// Requests that a connection may have open at once (128).
    pub max_streams: u32,
    /// Bytes that a client may send of one request ahead of the reading (1 MiB).
    pub stream_window: u32,
    /// Bytes that a client may send of all its requests ahead of the reading (2 MiB).
    pub connection_window: u32,
    /// The largest frame in bytes (256 KiB): each frame has its cost, and 16 KiB, the least that HTTP/2
    /// allows, makes a dozen of them out of a usual request.
    pub max_frame: u32,
    /// The largest header list in bytes (16 KiB).
    pub max_headers: u32,
    /// A client that was silent for so long is asked for a sign of life (30 s).
    pub ping_interval: Duration,
    /// How long it may take to give it; and a new connection, to shake hands and say that it speaks HTTP/2 (10 s).
    pub ping_timeout: Duration,
}

impl Default for Http2Settings {
    fn default() -> Self {
        Self {
            max_streams: 128,
            stream_window: 1024 * 1024,
            connection_window: 2 * 1024 * 1024,
            max_frame: 256 * 1024,
            max_headers: 16 * 1024,
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(10),
        }
    }
}

impl Http2Settings {
    fn builder(&self, requests: NewRequests) -> http2::Builder<NewRequests> {
        let mut builder = http2::Builder::new(requests);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.max_streams)
            .initial_stream_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window)
            .max_frame_size(self.max_frame)
            .max_header_list_size(self.max_headers)
            .keep_alive_interval(self.ping_interval)
            .keep_alive_timeout(self.ping_timeout)
            .auto_date_header(false);
        builder
    }
}

/// Serves a connection whose client has still to say that it speaks HTTP/2; a client of HTTP/1 is told that this is
/// no door for it. Otherwise as [`serve`].
pub(crate) async fn greet_and_serve<S, B>(
    accepted: Accepted,
    tls: &DoorTls,
    settings: Http2Settings,
    service: S,
    unanswered: Unanswered,
    mut stop: Stop,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + 'static,
    B: Body<Data = Bytes, Error = Infallible> + 'static,
{
    match greet(accepted, tls, settings.ping_timeout, &mut stop).await {
        Some((socket, Speaks::Http2)) => serve(socket, settings, service, unanswered, stop).await,
        Some((socket, Speaks::Http1)) => {
            tracing::debug!("connection closed: its client does not speak http/2");
            socket.refuse_http1(NOT_HTTP1).await;
        }
        None => {}
    }
}

/// Serves a connection to its end. Told to stop, it lets the requests that have begun finish; new ones
/// are for another connection (GOAWAY).
///
/// Dropped before its end, it tells `unanswered` why.
pub(crate) async fn serve<S, B>(
    socket: Socket,
    settings: Http2Settings,
    service: S,
    unanswered: Unanswered,
    stop: Stop,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + 'static,
    B: Body<Data = Bytes, Error = Infallible> + 'static,
{
    let socket = TokioIo::new(socket);
    let begun = NewRequests::default();
    let mut connection = Some(Box::pin(settings.builder(begun.clone()).serve_connection(socket, service)));
    let mut running = FuturesUnordered::new();
    let mut stop = Some(stop);
    // Declared last, so dropped first: it speaks before the requests go.
    let mut cut_off = CutOff::new(unanswered);
    poll_fn(|cx| {
        if stop.as_mut().is_some_and(|stop| stop.as_mut().poll(cx).is_ready()) {
            stop = None;
            cut_off.stopping();
            if let Some(connection) = &mut connection {
                connection.as_mut().graceful_shutdown();
            }
        }
        loop {
            if let Some(Poll::Ready(end)) = connection.as_mut().map(|connection| connection.as_mut().poll(cx))
            {
                if let Err(error) = end {
                    tracing::debug!(error = words(&error), "connection failed");
                }
                // The requests that are left find their streams reset.
                connection = None;
            }
            running.extend(begun.0.take());
            match running.poll_next_unpin(cx) {
                // An answer may be on its way through the connection: it is polled again.
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) if connection.is_none() => return Poll::Ready(()),
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    cut_off.over();
}

/// Why a connection failed, in the library's words and the system's. What its client said with a GOAWAY is further down
/// among the causes, and nobody's to read.
pub(super) fn words(error: &hyper::Error) -> String {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(code) = inner.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return format!("{error}: {}", io::Error::from_raw_os_error(code));
        }
        cause = inner.source();
    }
    error.to_string()
}

/// Why the requests of a connection that is dropped in its midst end unanswered.
pub(super) struct CutOff {
    unanswered: Unanswered,
    because: Option<DoorReason>,
}

impl CutOff {
    /// They are lost, unless it says otherwise.
    pub(super) fn new(unanswered: Unanswered) -> Self {
        Self { unanswered, because: Some(DoorReason::Lost) }
    }

    /// The connection is to come to its end.
    pub(super) fn stopping(&mut self) {
        self.because = Some(DoorReason::ShuttingDown);
    }

    /// The connection has come to its end by itself.
    pub(super) fn over(mut self) {
        self.because = None;
    }
}

impl Drop for CutOff {
    fn drop(&mut self) {
        if let Some(reason) = self.because {
            self.unanswered.because(reason);
        }
    }
}

/// Where hyper puts the requests that begin.
#[derive(Clone, Default)]
struct NewRequests(Rc<RefCell<Vec<LocalBoxFuture<'static, ()>>>>);

impl<F: Future<Output = ()> + 'static> Executor<F> for NewRequests {
    fn execute(&self, request: F) {
        self.0.borrow_mut().push(Box::pin(request));
    }
}
