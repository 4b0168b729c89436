//! What a service manager hears from the daemon, and when.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

mod support;

use std::{
    fs,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

use rustix::process::Signal;

use self::support::{LIMIT, folder::Folder, http::get_blocking, process::Daemon};

/// The manager's end of the socket.
struct Manager(UnixDatagram);

impl Manager {
    fn at(address: &SocketAddr) -> Self {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Self(socket)
    }

    fn hears(&self) -> String {
        let mut buffer = [0; 256];
        let length = self.0.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    fn hears_nothing(&self) {
        self.0.set_nonblocking(true).unwrap();
        assert!(self.0.recv(&mut [0; 256]).is_err());
        self.0.set_nonblocking(false).unwrap();
    }
}

#[test]
fn it_is_told_that_the_daemon_is_ready_when_it_is_and_that_it_stops_when_it_begins_to() {
    let name = format!("nyx/daemon/{}", std::process::id());
    let manager = Manager::at(&SocketAddr::from_abstract_name(&name).unwrap());
    let socket = format!("@{name}");
    let mut daemon = Daemon::begin(&[
        ("NOTIFY_SOCKET", socket.as_str()),
        ("NYX__SHUTDOWN__GRACE", "60s"),
        ("NYX__TELEMETRY__SPAN_EXPORT_ENABLED", "false"),
    ]);
    assert_eq!(manager.hears(), "READY=1\n");
    daemon.ready();
    assert_eq!(get_blocking(daemon.pages, "/readyz", None).status, 200);
    daemon.send(0..50);
    manager.hears_nothing();

    daemon.signal(Signal::TERM);
    assert_eq!(manager.hears(), "STOPPING=1\n");
    // Within its grace it still answers.
    daemon.page("/readyz", |page| page.starts_with("stopping"));
    daemon.signal(Signal::TERM);
    let (status, lines) = daemon.end();
    assert_eq!(status.code(), Some(0), "{lines:?}");
    manager.hears_nothing();
}

#[test]
fn it_hears_nothing_from_a_daemon_that_waits_for_the_folder_of_its_log() {
    let folder = Folder::new("service-manager");
    fs::create_dir_all(folder.path()).unwrap();
    let log = [("NYX__LOG__DURABILITY", "process"), ("NYX__LOG__DIR", folder.text())];
    let first = Daemon::start(&log);
    let path = folder.path().join("notify");
    let manager = Manager::at(&SocketAddr::from_pathname(&path).unwrap());
    let mut second = Daemon::begin(&[log[0], log[1], ("NOTIFY_SOCKET", path.to_str().unwrap())]);
    second.line("waiting", |line| line["message"].as_str().unwrap().starts_with("waiting for the lock"));
    manager.hears_nothing();
    first.signal(Signal::TERM);
    assert_eq!(manager.hears(), "READY=1\n");
    assert_eq!(first.end().0.code(), Some(0));
}

#[test]
fn a_socket_that_cannot_be_told_is_a_warning() {
    let mut daemon = Daemon::start(&[("NOTIFY_SOCKET", "vsock:2:1")]);
    let line = daemon.line("warning", |line| line["level"] == "WARN");
    let said = "the service manager is not told anything: NOTIFY_SOCKET is \"vsock:2:1\": must be an absolute path, or \
                @ and the name of an abstract socket";
    assert_eq!(line["message"], said);
}
