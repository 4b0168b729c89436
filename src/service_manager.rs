//! What the service manager is told, as systemd's `Type=notify` expects it: sd_notify(3), a datagram of
//! `VARIABLE=value` lines to the socket that `$NOTIFY_SOCKET` names.

use std::{
    io,
    os::unix::net::{SocketAddr, UnixDatagram},
    time::Duration,
};

use crate::config::Environment;

/// Names the manager's socket.
const VARIABLE: &str = "NOTIFY_SOCKET";
/// A manager that does not read holds the daemon up no longer than this.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// What it can be told.
#[derive(Clone, Copy, Debug)]
enum Fact {
    /// Everything that was configured is up.
    Ready,
    /// An ordered stop has begun.
    Stopping,
}

impl Fact {
    const fn message(self) -> &'static [u8] {
        match self {
            Self::Ready => b"READY=1\n",
            Self::Stopping => b"STOPPING=1\n",
        }
    }
}

/// The service manager that started this process, if one wants to be told.
#[derive(Debug, Default)]
pub struct ServiceManager(Option<(UnixDatagram, SocketAddr)>);

impl ServiceManager {
    /// The one that `$NOTIFY_SOCKET` names: an absolute path, or `@` and the name of an abstract socket. Nobody, with
    /// a warning, where it names something else: the daemon works without being waited for.
    pub fn of(environment: &Environment) -> Self {
        let found = environment.text(VARIABLE).and_then(|name| match name {
            None | Some("") => Ok(None),
            Some(name) => open(name).map(Some).map_err(|error| format!("{VARIABLE} is {name:?}: {error}")),
        });
        Self(found.unwrap_or_else(|why| {
            tracing::warn!("the service manager is not told anything: {why}");
            None
        }))
    }

    /// The doors are open, the pages answer, and every actor runs.
    pub fn ready(&self) {
        self.tell(Fact::Ready);
    }

    /// An ordered stop has begun.
    pub fn stopping(&self) {
        self.tell(Fact::Stopping);
    }

    fn tell(&self, fact: Fact) {
        let Some((socket, address)) = &self.0 else { return };
        if let Err(error) = socket.send_to_addr(fact.message(), address) {
            tracing::warn!(%error, ?fact, "the service manager cannot be told");
        }
    }
}

fn open(name: &str) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.strip_prefix('@') {
        Some(name) => abstract_address(name)?,
        None if name.starts_with('/') => SocketAddr::from_pathname(name)?,
        None => {
            const WHY: &str = "must be an absolute path, or @ and the name of an abstract socket";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, WHY));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    Ok((socket, address))
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &str) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_name: &str) -> io::Result<SocketAddr> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "only Linux has abstract sockets"))
}

#[cfg(test)]
mod tests {
    use std::{os::linux::net::SocketAddrExt as _, path::PathBuf};

    use super::*;

    /// The manager's end of a socket, which gives up rather than wait for good.
    fn listening(address: &SocketAddr) -> UnixDatagram {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        socket
    }

    fn told(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    fn named(socket: &str) -> ServiceManager {
        ServiceManager::of(&Environment::new([(VARIABLE, socket)], false))
    }

    #[track_caller]
    fn refuses(name: &str, why: &str) {
        assert_eq!(open(name).unwrap_err().to_string(), why);
        assert!(named(name).0.is_none());
    }

    #[test]
    fn a_socket_in_the_file_system_is_told() {
        let path = std::env::temp_dir().join(format!("nyx-notify-{}", std::process::id()));
        let _nothing_left_behind = std::fs::remove_file(&path);
        let manager = listening(&SocketAddr::from_pathname(&path).unwrap());
        let daemon = named(path.to_str().unwrap());
        daemon.ready();
        assert_eq!(told(&manager), "READY=1\n");
        daemon.stopping();
        assert_eq!(told(&manager), "STOPPING=1\n");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn an_abstract_socket_is_told() {
        let name = format!("nyx/notify/{}", std::process::id());
        let manager = listening(&SocketAddr::from_abstract_name(&name).unwrap());
        named(&format!("@{name}")).ready();
        assert_eq!(told(&manager), "READY=1\n");
    }

    #[test]
    fn without_a_socket_nobody_is_told() {
        let unset: [(&str, &str); 0] = [];
        assert!(ServiceManager::of(&Environment::new(unset, false)).0.is_none());
        assert!(named("").0.is_none());
    }

    #[test]
    fn a_name_that_is_no_socket_is_refused_and_said() {
        refuses("vsock:2:1", "must be an absolute path, or @ and the name of an abstract socket");
        refuses("run/notify", "must be an absolute path, or @ and the name of an abstract socket");
        refuses(&format!("/{}", "x".repeat(108)), "path must be shorter than SUN_LEN");
        refuses(&format!("@{}", "x".repeat(108)), "abstract socket name must be shorter than SUN_LEN");
    }

    #[test]
    fn a_manager_that_is_gone_hinders_nothing() {
        let gone = PathBuf::from("/nonexistent/notify");
        named(gone.to_str().unwrap()).ready();
    }

    #[test]
    fn a_manager_that_does_not_read_hinders_nothing_for_long() {
        let name = format!("nyx/full/{}", std::process::id());
        let manager = listening(&SocketAddr::from_abstract_name(&name).unwrap());
        let daemon = named(&format!("@{name}"));
        // As many as fit, and one more: each of these returns.
        let other = UnixDatagram::unbound().unwrap();
        other.set_nonblocking(true).unwrap();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        while other.send_to_addr(b"X=1\n", &address).is_ok() {}
        daemon.ready();
        assert_eq!(told(&manager), "X=1\n");
        daemon.stopping();
        while told(&manager) == "X=1\n" {}
    }
}
