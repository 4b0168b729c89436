//! Where a destination is (level 0: pure).

use std::{fmt, path::PathBuf};

use thiserror::Error;

/// An endpoint of OTLP over gRPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `http://host:port`
    Tcp {
        /// A name or an address, IPv6 without its brackets.
        host: String,
        /// The port, not 0.
        port: u16,
    },
    /// `unix:/path`
    Unix(PathBuf),
}

/// A text that is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("endpoint {text:?} {problem}; allowed are http://host:port and unix:/path")]
pub struct EndpointError {
    text: String,
    problem: String,
}

impl Endpoint {
    /// Reads `http://host:port` (a `/` may follow) or `unix:/path`.
    ///
    /// # Errors
    /// [`EndpointError`] with the text, what is wrong with it and what is allowed.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        Self::read(text).map_err(|problem| EndpointError { text: text.chars().take(256).collect(), problem })
    }

    fn read(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.starts_with('/') {
                true => Ok(Self::Unix(path.into())),
                false => Err(format!("names the relative path {path:?}")),
            };
        }
        let uri: http::Uri = text.parse().map_err(|error| format!("is no URL ({error})"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err("asks for TLS, which this version does not speak yet".to_owned()),
            Some(other) => return Err(format!("has the unknown scheme {other:?}")),
            None => return Err("has no scheme".to_owned()),
        }
        let authority = uri.authority().ok_or("names no host")?;
        if authority.as_str().contains('@') {
            return Err("carries credentials: they belong into the destination's headers".to_owned());
        }
        if uri.path_and_query().is_some_and(|path| path.as_str() != "/") {
            return Err("has a path, which OTLP over gRPC does not use".to_owned());
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match authority.port_u16() {
            _ if host.is_empty() => Err("names no host".to_owned()),
            Some(0) | None => Err("names no port (OTLP over gRPC is usually at 4317)".to_owned()),
            Some(port) => Ok(Self::Tcp { host: host.to_owned(), port }),
        }
    }

    /// The `:authority` of requests.
    pub(super) fn authority(&self) -> String {
        match self {
            Self::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port } => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { .. } => write!(f, "http://{}", self.authority()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_reads_as_it_prints() {
        for text in
            ["http://127.0.0.1:4317", "http://[::1]:4317", "http://collector:55", "unix:/run/otlp.sock"]
        {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            Endpoint::parse("http://localhost:4317/"),
            Ok(Endpoint::Tcp { host: "localhost".to_owned(), port: 4317 })
        );
        assert_eq!(Endpoint::parse("unix:///run/x"), Ok(Endpoint::Unix("/run/x".into())));
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_what_is_allowed() {
        let errors = [
            ("https://host:4317", "asks for TLS, which this version does not speak yet"),
            ("localhost:4317", "has no scheme"),
            ("grpc://host:4317", "has the unknown scheme \"grpc\""),
            ("http://host", "names no port (OTLP over gRPC is usually at 4317)"),
            ("http://host:0", "names no port (OTLP over gRPC is usually at 4317)"),
            ("http://host:4317/v1/traces", "has a path, which OTLP over gRPC does not use"),
            ("http://me:secret@host:4317", "carries credentials: they belong into the destination's headers"),
            ("unix:run/otlp.sock", "names the relative path \"run/otlp.sock\""),
            ("", "is no URL (empty string)"),
        ];
        for (text, problem) in errors {
            assert_eq!(
                Endpoint::parse(text).unwrap_err().to_string(),
                format!("endpoint {text:?} {problem}; allowed are http://host:port and unix:/path")
            );
        }
    }
}
