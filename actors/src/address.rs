//! Where a destination is and where a door listens (level 0: pure).

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use http::Uri;
use thiserror::Error;

/// What the system takes for a Unix socket's path, in bytes: `sun_path` has 108, one of them for the closing zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// The port of `https` (RFC 9110, section 4.2.2).
const HTTPS_PORT: u16 = 443;
/// Characters of a text that an error repeats.
const SHOWN_CHARS_MAX: usize = 256;

/// Where a destination is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `http://host:port` or `https://host:port`, and a path where OTLP is spoken over HTTP.
    Tcp {
        /// Whether it is spoken to over TLS.
        tls: bool,
        /// A name or an address, IPv6 without its brackets.
        host: String,
        /// The port, not 0.
        port: u16,
        /// The path, without a slash at its end: often empty.
        path: String,
    },
    /// `unix:/path`
    Unix(PathBuf),
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddr {
    /// `ip:port`; port 0 takes any free one.
    Tcp(SocketAddr),
    /// `unix:/path`
    Unix(PathBuf),
}

/// A text that is no [`Endpoint`] or [`ListenAddr`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text} {rule}")]
pub struct AddressError {
    text: String,
    rule: String,
}

impl AddressError {
    fn new(text: &str, rule: String) -> Self {
        // It may hold a password.
        let text = match text.contains('@') {
            true => "(not shown)".to_owned(),
            false => format!("{:?}", text.chars().take(SHOWN_CHARS_MAX).collect::<String>()),
        };
        Self { text, rule }
    }

    /// What is wrong or allowed, for those who name the text themselves.
    pub fn rule(&self) -> &str {
        &self.rule
    }
}

impl Endpoint {
    /// Reads `http://host:port` or `https://host:port`, behind which a path may follow, `unix:/path` or `unix:///path`.
    /// With `http` the port must be named: what a URL without one means (80) is no port of OTLP; with `https` it is 443.
    ///
    /// # Errors
    /// [`AddressError`] with the text and what is allowed.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        Self::read(text).map_err(|rule| AddressError::new(text, rule))
    }

    fn read(text: &str) -> Result<Self, String> {
        const RULE: &str = "must be http://host:port, https://host:port or unix:/path";
        if let Some(path) = text.strip_prefix("unix:") {
            return socket_path(path).map(Self::Unix);
        }
        let tls = text.starts_with("https://");
        if !tls && !text.starts_with("http://") {
            return Err(RULE.to_owned());
        }
        let uri: Uri = text.parse().map_err(|_| RULE)?;
        let authority = uri.authority().ok_or(RULE)?;
        if authority.as_str().contains('@') {
            return Err("must not hold a user name or password: use headers".to_owned());
        }
        if uri.query().is_some() || text.contains('#') {
            return Err("must not have a query or a fragment".to_owned());
        }
        let path = uri.path().trim_end_matches('/').to_owned();
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match authority.port_u16() {
            _ if host.is_empty() => Err(RULE.to_owned()),
            None if tls && !authority.as_str().ends_with(':') && authority.port().is_none() => {
                Ok(Self::Tcp { tls, host: host.to_owned(), port: HTTPS_PORT, path })
            }
            Some(0) | None if tls => Err("must be https://host:port with a port from 1 to 65535".to_owned()),
            Some(0) | None => Err("must be http://host:port with a port from 1 to 65535".to_owned()),
            Some(port) => Ok(Self::Tcp { tls, host: host.to_owned(), port, path }),
        }
    }

    /// The `:authority` of requests.
    pub(crate) fn authority(&self) -> String {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port, .. } => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }

    /// The path, without a slash at its end.
    pub fn path(&self) -> &str {
        match self {
            Self::Tcp { path, .. } => path,
            Self::Unix(_) => "",
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { tls, path, .. } => {
                let scheme = if *tls { "https" } else { "http" };
                write!(f, "{scheme}://{}{path}", self.authority())
            }
            Self::Unix(path) => show_socket(f, path),
        }
    }
}

impl FromStr for ListenAddr {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let address = match text.strip_prefix("unix:") {
            Some(path) => socket_path(path).map(Self::Unix),
            None => text.parse().map(Self::Tcp).map_err(|_| {
                "must be an IP address and port such as 127.0.0.1:14317, or unix:/path".to_owned()
            }),
        };
        address.map_err(|rule| AddressError::new(text, rule))
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
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
    let path = path.strip_prefix("//").unwrap_or(path);
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return Err("must be unix: and the absolute path of a socket".to_owned());
    }
    if path.len() > SOCKET_PATH_BYTES_MAX {
        let bytes = path.len();
        return Err(format!(
            "has a socket path of {bytes} bytes: the system takes at most {SOCKET_PATH_BYTES_MAX}"
        ));
    }
    Ok(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOCKET: &str = "must be unix: and the absolute path of a socket";

    #[test]
    fn an_endpoint_is_a_host_and_port_or_a_socket() {
        for (text, shown) in [
            ("http://localhost:4318/otlp/", "http://localhost:4318/otlp"),
            ("https://localhost:4317", "https://localhost:4317"),
            ("https://otlp.example/otlp", "https://otlp.example:443/otlp"),
            ("https://[::1]", "https://[::1]:443"),
            ("http://127.0.0.1:4317", "http://127.0.0.1:4317"),
            ("http://localhost:4317/", "http://localhost:4317"),
            ("http://[::1]:4317", "http://[::1]:4317"),
            ("unix:/run/otlp.sock", "unix:/run/otlp.sock"),
            ("unix:///run/otlp.sock", "unix:/run/otlp.sock"),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(Endpoint::parse(shown), Ok(endpoint));
        }
        let ipv6 = Endpoint::Tcp { tls: false, host: "::1".to_owned(), port: 4317, path: String::new() };
        assert_eq!(Endpoint::parse("http://[::1]:4317"), Ok(ipv6));
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_what_is_allowed() {
        let rule = "must be http://host:port, https://host:port or unix:/path";
        let port = "must be http://host:port with a port from 1 to 65535";
        let query = "must not have a query or a fragment";
        let tls = "must be https://host:port with a port from 1 to 65535";
        for (text, why) in [
            ("", rule),
            ("localhost:4317", rule),
            ("grpc://localhost:4317", rule),
            ("http://", rule),
            ("http://:4317", rule),
            ("http://a b:4317", rule),
            ("https://", rule),
            ("https://localhost:", tls),
            ("https://localhost:0", tls),
            ("http://localhost", port),
            ("http://localhost:", port),
            ("http://localhost:0", port),
            ("http://localhost:65536", port),
            ("http://localhost:4318/?a=b", query),
            ("http://localhost:4318/v1#traces", query),
            ("unix:run/otlp.sock", SOCKET),
            ("unix://run/otlp.sock", SOCKET),
            ("unix:", SOCKET),
            ("unix:/run/", SOCKET),
            ("unix:/run\0", SOCKET),
        ] {
            let error = Endpoint::parse(text).unwrap_err();
            assert_eq!(error.to_string(), format!("{text:?} {why}"));
        }
    }

    #[test]
    fn a_password_in_an_endpoint_is_not_repeated() {
        assert_eq!(
            Endpoint::parse("http://me:secret@localhost:4317").unwrap_err().to_string(),
            "(not shown) must not hold a user name or password: use headers"
        );
    }

    #[test]
    fn a_listen_address_is_ip_and_port_or_a_socket() {
        for (text, shown) in [
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::1]:14317", "[::1]:14317"),
            ("unix:/run/nyx.sock", "unix:/run/nyx.sock"),
            ("unix:///run/nyx.sock", "unix:/run/nyx.sock"),
        ] {
            assert_eq!(text.parse::<ListenAddr>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_listen_address_is_refused_with_what_is_allowed() {
        let rule = "must be an IP address and port such as 127.0.0.1:14317, or unix:/path";
        let long = format!("unix:/{}", "x".repeat(107));
        for (text, why) in [
            ("", rule),
            ("14317", rule),
            ("localhost:14317", rule),
            ("unix:nyx.sock", SOCKET),
            (&long, "has a socket path of 108 bytes: the system takes at most 107"),
        ] {
            let error = text.parse::<ListenAddr>().unwrap_err();
            assert_eq!(error.to_string(), format!("{text:?} {why}"));
        }
    }
}
