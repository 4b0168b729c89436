//! Where a door listens. A bound socket lives outside the actors: while an acceptor is restarted, those
//! who connect wait in the socket's queue and are not refused.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
};

use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};

use super::Accepted;
use crate::address::ListenAddr;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Read and write for the owner and the group.
const UNIX_MODE: u32 = 0o660;

/// An address cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {addr}: {why}")]
pub struct ListenError {
    /// The address.
    pub addr: ListenAddr,
    /// Why not.
    pub why: io::Error,
}

/// A bound socket. Its clones are the same socket; a Unix socket's file goes with the last of them.
#[derive(Debug, Clone)]
pub struct Listener(Arc<Bound>);

#[derive(Debug)]
struct Bound {
    socket: Socket,
    addr: ListenAddr,
    /// Device and inode of a Unix socket's file.
    file: Option<(u64, u64)>,
}

impl Listener {
    /// Binds and listens. A Unix socket's file that nobody answers on any more is replaced; the new one
    /// has mode 0660.
    ///
    /// # Errors
    /// [`ListenError`], also where somebody answers on the Unix socket, or its path is no socket.
    pub fn bind(addr: &ListenAddr) -> Result<Self, ListenError> {
        let bound = match addr {
            ListenAddr::Tcp(at) => bind_tcp(*at),
            ListenAddr::Unix(path) => bind_unix(path),
        };
        match bound {
            Ok(bound) => Ok(Self(Arc::new(bound))),
            Err(why) => Err(ListenError { addr: addr.clone(), why }),
        }
    }

    /// Where it listens; the port is the real one.
    pub fn addr(&self) -> &ListenAddr {
        &self.0.addr
    }

    /// For this thread's runtime. The descriptor is a copy: another incarnation may still have its own.
    pub(crate) fn accepting(&self) -> io::Result<Accepting> {
        let socket = self.0.socket.try_clone()?;
        match self.0.addr {
            ListenAddr::Tcp(_) => TcpListener::from_std(socket.into()).map(Accepting::Tcp),
            ListenAddr::Unix(_) => UnixListener::from_std(socket.into()).map(Accepting::Unix),
        }
    }
}

/// A listener in a runtime.
#[derive(Debug)]
pub(crate) enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Accepting {
    /// The next connection, out of this runtime again: it will live in another.
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => listener.accept().await?.0.into_std().map(Accepted::Tcp),
            Self::Unix(listener) => listener.accept().await?.0.into_std().map(Accepted::Unix),
        }
    }
}

fn bind_tcp(at: SocketAddr) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    // A restarted daemon gets its port though connections of the old one linger.
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    listen(&socket)?;
    let addr = socket.local_addr()?.as_socket().unwrap_or(at);
    Ok(Bound { socket, addr: ListenAddr::Tcp(addr), file: None })
}

fn bind_unix(path: &Path) -> io::Result<Bound> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Nobody can connect before `listen`, whatever mode the file was made with.
    let file = fs::symlink_metadata(path)?;
    let bound =
        Bound { socket, addr: ListenAddr::Unix(path.to_owned()), file: Some((file.dev(), file.ino())) };
    fs::set_permissions(path, fs::Permissions::from_mode(UNIX_MODE))?;
    listen(&bound.socket)?;
    Ok(bound)
}

fn listen(socket: &Socket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)
}

/// Removes a socket that its process left behind.
fn remove_stale(path: &Path) -> io::Result<()> {
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !file.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file exists and is no socket"));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Its queue is full: somebody is there.
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        Ok(()) | Err(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody answers on it")),
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let (ListenAddr::Unix(path), Some(ours)) = (&self.addr, self.file) else { return };
        // Another daemon may have put its own in the place of ours.
        let there = fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()));
        let removed = if there.is_ok_and(|there| there == ours) { fs::remove_file(path) } else { Ok(()) };
        if let Err(error) = removed {
            tracing::warn!(%error, path = %path.display(), "socket file is left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A path of this test's own, gone with the value.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(test: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("nyx-listener-{}-{test}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }

        fn socket(&self) -> PathBuf {
            self.0.join("door.sock")
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _left_behind = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_port_in_use_is_refused_by_name() {
        let first = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let error = Listener::bind(first.addr()).unwrap_err();
        assert_eq!(error.why.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().starts_with(&format!("cannot listen on {}: ", first.addr())));
    }

    #[test]
    fn a_unix_socket_is_for_owner_and_group_and_goes_with_its_last_clone() {
        let scratch = Scratch::new("mode");
        let listener = Listener::bind(&ListenAddr::Unix(scratch.socket())).unwrap();
        let mode = fs::metadata(scratch.socket()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let clone = listener.clone();
        drop(listener);
        assert!(scratch.socket().exists());
        drop(clone);
        assert!(!scratch.socket().exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_one_that_answers_is_not() {
        let scratch = Scratch::new("stale");
        let addr = ListenAddr::Unix(scratch.socket());
        drop(std::os::unix::net::UnixListener::bind(scratch.socket()).unwrap());
        let listener = Listener::bind(&addr).unwrap();
        let error = Listener::bind(&addr).unwrap_err().to_string();
        assert_eq!(error, format!("cannot listen on {addr}: somebody answers on it"));
        assert!(scratch.socket().exists());
        drop(listener);
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let scratch = Scratch::new("file");
        let addr = ListenAddr::Unix(scratch.socket());
        fs::write(scratch.socket(), "precious").unwrap();
        let error = Listener::bind(&addr).unwrap_err().to_string();
        assert_eq!(error, format!("cannot listen on {addr}: the file exists and is no socket"));
        assert!(scratch.socket().exists());
    }

    #[test]
    fn a_socket_that_another_put_in_the_place_of_ours_stays() {
        let scratch = Scratch::new("replaced");
        let listener = Listener::bind(&ListenAddr::Unix(scratch.socket())).unwrap();
        fs::rename(scratch.socket(), scratch.0.join("old.sock")).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(scratch.socket()).unwrap();
        drop(listener);
        assert!(scratch.socket().exists());
    }
}
