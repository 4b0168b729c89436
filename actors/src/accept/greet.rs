//! From an accepted socket to one that requests come through: TLS where the door has it, and what the client says first.

use std::{sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::time::{Instant, timeout_at};

use super::{
    Accepted, DoorTls, Stop, TlsFailure,
    socket::{Greeting, Socket},
};

/// The first byte of whoever begins a handshake of TLS: a record of that type (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;
/// What a client of HTTP/1 is told that speaks plain text to a door with TLS.
const NOT_PLAINTEXT: &str = "this port speaks TLS: use https\n";
/// What a client of HTTP/2 is told: SETTINGS without any (RFC 9113, section 6.5), and GOAWAY (section 6.8) for
/// INADEQUATE_SECURITY, with the same words.
const NOT_PLAINTEXT_FRAMES: &[u8] = b"\0\0\0\x04\0\0\0\0\0\
    \0\0\x27\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0cthis port speaks TLS: use https";

/// What a client that can be served speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http1,
    Http2,
}

/// Joins this thread's runtime, and greets the client, all of it within `limit`; `None` where nothing came of it, which has
/// been told to whom it concerns, or where `stop` came first.
pub(crate) async fn greet(
    accepted: Accepted,
    tls: &DoorTls,
    limit: Duration,
    stop: &mut Stop,
) -> Option<(Socket, Speaks)> {
    let greeted = async {
        let deadline = Instant::now() + limit;
        let socket = match accepted.into_socket() {
            Ok(socket) => socket,
            Err(error) => {
                tracing::debug!(%error, "connection closed before it was set up");
                return None;
            }
        };
        let socket = match tls.config() {
            None => socket,
            // It is large, and a connection without it is not to be.
            Some(config) => Box::pin(secure(socket, config, tls, deadline)).await?,
        };
        speaks(socket, tls, deadline).await
    };
    tokio::select! {
        biased;
        () = stop => None,
        greeted = greeted => greeted,
    }
}

/// What is spoken, within TLS if there is any.
async fn speaks(mut socket: Socket, tls: &DoorTls, deadline: Instant) -> Option<(Socket, Speaks)> {
    match socket.greeting(deadline).await {
        Ok(Greeting::Http2) => return Some((socket, Speaks::Http2)),
        Ok(Greeting::Http1) => return Some((socket, Speaks::Http1)),
        Ok(Greeting::Tls) if !socket.is_secure() => {
            tls.failed(TlsFailure::NotConfigured, &socket.peer(), None);
        }
        Ok(Greeting::Tls | Greeting::Other) => {
            tracing::debug!("connection closed: its client does not speak http");
            socket.close().await;
        }
        Err(error) => tracing::debug!(%error, "connection closed before its first request"),
    }
    None
}

/// The handshake of TLS (RFC 8446, section 2; RFC 5246, section 7.3).
async fn secure(
    socket: Socket,
    config: Arc<ServerConfig>,
    tls: &DoorTls,
    deadline: Instant,
) -> Option<Socket> {
    // Of one that was reset it is no longer known.
    let peer = socket.peer();
    let failed = |reason, error| tls.failed(reason, &peer, error);
    match timeout_at(deadline, socket.first_byte()).await {
        Ok(Ok(Some(HANDSHAKE))) => {}
        Ok(Ok(Some(_))) => {
            failed(TlsFailure::Plaintext, None);
            refuse_plaintext(socket, deadline).await;
            return None;
        }
        // As those do who look whether anybody listens.
        Ok(Ok(None)) => return None,
        Ok(Err(error)) => {
            tracing::debug!(%error, "connection closed before its first request");
            return None;
        }
        Err(_elapsed) => {
            failed(TlsFailure::Timeout, None);
            return None;
        }
    }
    match timeout_at(deadline, socket.secured(config)).await {
        Ok(Ok(socket)) => Some(socket),
        Ok(Err((error, socket))) => {
            failed(TlsFailure::of(&error), Some(&error));
            // The alert that says why is on its way.
            socket.let_go().await;
            None
        }
        Err(_elapsed) => {
            failed(TlsFailure::Timeout, None);
            None
        }
    }
}

async fn refuse_plaintext(mut socket: Socket, deadline: Instant) {
    match socket.greeting(deadline).await {
        Ok(Greeting::Http1) => socket.refuse_http1(NOT_PLAINTEXT).await,
        Ok(Greeting::Http2) => socket.refuse(NOT_PLAINTEXT_FRAMES).await,
        Ok(Greeting::Tls | Greeting::Other) => {}
        Err(error) => tracing::debug!(%error, "connection closed before its first request"),
    }
}
