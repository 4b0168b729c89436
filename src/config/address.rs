//! Where something listens or is reached.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use http::Uri;

/// Bytes of a socket's path: `sun_path` has 108, one of them for the closing zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// An OTLP/gRPC destination, without TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `http://host:port`.
    Http {
        /// A name or an IP address; an IPv6 address stands in brackets.
        host: String,
        /// 1 to 65535; 80 where the URL names none, as for any URL.
        port: u16,
    },
    /// `unix:/path`, a socket in the file system.
    Unix(PathBuf),
}

/// Where a door listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// The door is off.
    Off,
    /// An IP address and port; port 0 takes any free one.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl Endpoint {
    /// Reads `http://host:port` or `unix:/path`.
    ///
    /// # Errors
    /// What is allowed instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        const RULE: &str = "must be http://host:port or unix:/path";
        if let Some(path) = text.strip_prefix("unix:") {
            return socket_path(path).map(Self::Unix);
        }
        if text.starts_with("https://") {
            return Err(
                "https:// is known, but TLS is not part of this version: must be http://host:port or \
                        unix:/path"
                    .into(),
            );
        }
        if !text.starts_with("http://") {
            return Err(RULE.into());
        }
        let uri: Uri = text.parse().map_err(|_| RULE)?;
        let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or(RULE)?;
        if authority.as_str().contains('@') {
            return Err("must not hold a user name or password: use headers".into());
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err("must be http://host:port without a path: OTLP/gRPC has its own".into());
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => 80,
            Some(port) => port
                .strip_prefix(':')
                .and_then(|port| port.parse().ok())
                .filter(|port| *port != 0)
                .ok_or("must be http://host:port with a port from 1 to 65535")?,
            None => return Err(RULE.into()),
        };
        Ok(Self::Http { host: authority.host().into(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { host, port } => write!(f, "http://{host}:{port}"),
            Self::Unix(path) => show_socket(f, path),
        }
    }
}

impl Listen {
    /// Reads an IP address and port, `unix:/path`, or nothing at all.
    ///
    /// # Errors
    /// What is allowed instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::Off);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return socket_path(path).map(Self::Unix);
        }
        let address = text.parse().map_err(
            |_| "must be an IP address and port such as 127.0.0.1:14317, unix:/path, or empty for off",
        )?;
        Ok(Self::Tcp(address))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => show_socket(f, path),
        }
    }
}

fn show_socket(f: &mut fmt::Formatter<'_>, path: &Path) -> fmt::Result {
    write!(f, "unix:{}", path.display())
}

/// Both `unix:/path` and gRPC's other spelling `unix:///path` are in use.
fn socket_path(path: &str) -> Result<PathBuf, String> {
    let path = path.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(path);
    if !path.starts_with('/') || path.ends_with('/') {
        return Err("must be unix: and the absolute path of a socket".into());
    }
    if path.contains('\0') {
        return Err("must be a path without zero bytes".into());
    }
    if path.len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!(
            "is a socket path of {} bytes: the system takes at most {SOCKET_PATH_BYTES_MAX}",
            path.len()
        ));
    }
    Ok(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_port_or_a_socket() {
        for (text, shown) in [
            ("http://localhost:4317", "http://localhost:4317"),
            ("http://localhost:4317/", "http://localhost:4317"),
            ("http://collector", "http://collector:80"),
            ("http://[::1]:4317", "http://[::1]:4317"),
            ("unix:/run/otlp.sock", "unix:/run/otlp.sock"),
            ("unix:///run/otlp.sock", "unix:/run/otlp.sock"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn an_endpoint_that_cannot_be_used_is_refused_with_the_reason() {
        let rule = "must be http://host:port or unix:/path";
        let port = "must be http://host:port with a port from 1 to 65535";
        let path = "must be http://host:port without a path: OTLP/gRPC has its own";
        for (text, why) in [
            ("", rule),
            ("localhost:4317", rule),
            ("grpc://localhost:4317", rule),
            ("http://", rule),
            ("http://:4317", rule),
            ("http://a b:4317", rule),
            (
                "https://localhost:4317",
                "https:// is known, but TLS is not part of this version: must be http://host:port or unix:/path",
            ),
            ("http://localhost:0", port),
            ("http://localhost:65536", port),
            ("http://localhost:", port),
            ("http://localhost:4318/v1/traces", path),
            ("http://localhost:4318/?a=b", path),
            ("http://me:secret@localhost:4317", "must not hold a user name or password: use headers"),
            ("unix:run/otlp.sock", "must be unix: and the absolute path of a socket"),
            ("unix:", "must be unix: and the absolute path of a socket"),
            ("unix:/run/", "must be unix: and the absolute path of a socket"),
        ] {
            assert_eq!(Endpoint::parse(text), Err(why.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn a_door_listens_on_an_address_or_a_socket_or_not_at_all() {
        for (text, shown) in [
            ("", "off"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::]:14317", "[::]:14317"),
            ("unix:/run/nyx.sock", "unix:/run/nyx.sock"),
        ] {
            assert_eq!(Listen::parse(text).unwrap().to_string(), shown);
        }
        let long = format!("unix:/{}", "x".repeat(107));
        assert_eq!(
            Listen::parse(&long).unwrap_err(),
            "is a socket path of 108 bytes: the system takes at most 107"
        );
        assert_eq!(
            Listen::parse("localhost:14317").unwrap_err(),
            "must be an IP address and port such as 127.0.0.1:14317, unix:/path, or empty for off"
        );
    }
}
