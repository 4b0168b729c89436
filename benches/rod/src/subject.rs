//! What is measured, and how it is set.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::protocol::Protocol;

/// Two names that the others are held against.
pub(crate) const ROTEL: &str = "rotel";
pub(crate) const NYX_MEMORY: &str = "nyx-memory";

/// What is measured.
#[derive(Debug, Clone)]
pub(crate) enum Subject {
    /// Nothing: the load goes straight to the sink.
    Direct,
    Nyx(Nyx),
    /// The binary, and further arguments.
    Rotel(PathBuf, Vec<String>),
}

/// The daemon, with its log in one of its forms.
#[derive(Debug, Clone)]
pub(crate) struct Nyx {
    pub(crate) path: PathBuf,
    pub(crate) durability: Durability,
    /// Further environment.
    pub(crate) environment: Vec<(String, String)>,
}

/// `log.durability`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Durability {
    /// The log is in memory.
    Memory,
    /// It is in files, which are in the page cache.
    Process,
    /// It is in files, synced before each acknowledgement.
    Power,
}

impl Durability {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Process => "process",
            Self::Power => "power",
        }
    }
}

impl Subject {
    /// The program.
    pub(crate) fn program(&self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nyx(_) => "nyx",
            Self::Rotel(..) => ROTEL,
        }
    }

    /// The program as it is set.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Nyx(nyx) => match nyx.durability {
                Durability::Memory => NYX_MEMORY,
                Durability::Process => "nyx-process",
                Durability::Power => "nyx-power",
            },
            Self::Direct | Self::Rotel(..) => self.program(),
        }
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Direct => None,
            Self::Nyx(Nyx { path, .. }) | Self::Rotel(path, _) => Some(path),
        }
    }
}

/// One door alone, the one for `protocol`.
pub(crate) fn nyx_environment(
    protocol: Protocol,
    door: SocketAddr,
    admin: SocketAddr,
    sink: SocketAddr,
    durability: Durability,
    log: &Path,
) -> Vec<(String, String)> {
    let (grpc, http) = match protocol {
        Protocol::Grpc => (door.to_string(), String::new()),
        Protocol::HttpProtobuf | Protocol::HttpJson => (String::new(), door.to_string()),
    };
    [
        ("NYX__INGEST__GRPC__LISTEN", grpc),
        ("NYX__INGEST__HTTP__LISTEN", http),
        ("NYX__TELEMETRY__PROMETHEUS_ADDR", admin.to_string()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{sink}")),
        ("NYX__LOG__DURABILITY", durability.label().to_owned()),
        ("NYX__LOG__DIR", log.display().to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}

/// Forwarding only; everything else as Rotel has it by default (batches of up to 8,192 spans or 200 ms). It is asked
/// not to compress, which 0.0.1a15 does nevertheless: the report tells what came.
pub(crate) fn rotel_arguments(
    door: SocketAddr,
    http: SocketAddr,
    sink: SocketAddr,
    further: &[String],
) -> Vec<String> {
    let mut arguments = vec!["start".to_owned()];
    for (option, value) in [
        ("--otlp-grpc-endpoint", door.to_string()),
        ("--otlp-http-endpoint", http.to_string()),
        ("--exporter", "otlp".to_owned()),
        ("--otlp-exporter-endpoint", format!("http://{sink}")),
        ("--otlp-exporter-protocol", "grpc".to_owned()),
        ("--otlp-exporter-compression", "none".to_owned()),
    ] {
        arguments.extend([option.to_owned(), value]);
    }
    arguments.extend_from_slice(further);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nyx_is_told_where_its_log_is_and_what_it_keeps() {
        let [door, admin, sink] = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let settings =
            nyx_environment(Protocol::Grpc, door, admin, sink, Durability::Power, Path::new("/logs/1"));
        let of_log: Vec<_> = settings.iter().filter(|(key, _)| key.starts_with("NYX__LOG__")).collect();
        let is = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(of_log, [&is("NYX__LOG__DURABILITY", "power"), &is("NYX__LOG__DIR", "/logs/1")]);
    }

    #[test]
    fn nyx_opens_the_door_for_the_protocol_of_the_load_and_no_other() {
        let [door, admin, sink] = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let doors = |protocol| {
            let settings =
                nyx_environment(protocol, door, admin, sink, Durability::Power, Path::new("/logs/1"));
            ["GRPC", "HTTP"].map(|name| {
                let key = format!("NYX__INGEST__{name}__LISTEN");
                settings.iter().find(|(other, _)| *other == key).unwrap().1.clone()
            })
        };
        assert_eq!(doors(Protocol::Grpc), ["127.0.0.1:1", ""]);
        assert_eq!(doors(Protocol::HttpProtobuf), ["", "127.0.0.1:1"]);
        assert_eq!(doors(Protocol::HttpJson), ["", "127.0.0.1:1"]);
    }

    #[test]
    fn rotel_is_told_to_forward_without_compression() {
        let [door, http, sink] = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(
            rotel_arguments(door, http, sink, &["--batch-max-size=512".to_owned()]).join(" "),
            "start --otlp-grpc-endpoint 127.0.0.1:1 --otlp-http-endpoint 127.0.0.1:2 --exporter otlp \
             --otlp-exporter-endpoint http://127.0.0.1:3 --otlp-exporter-protocol grpc \
             --otlp-exporter-compression none --batch-max-size=512"
        );
    }
}
