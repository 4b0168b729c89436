//! How the load is sent.

use clap::ValueEnum;

/// OTLP's protocols, by the names that `OTEL_EXPORTER_OTLP_PROTOCOL` has for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// gRPC.
    #[value(name = "grpc")]
    Grpc,
    /// Protobuf over HTTP/1.1.
    #[value(name = "http/protobuf")]
    HttpProtobuf,
    /// JSON over HTTP/1.1.
    #[value(name = "http/json")]
    HttpJson,
}

/// The form of a message over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Protobuf,
    Json,
}

impl Protocol {
    /// Of a message over HTTP; gRPC has one of its own.
    pub(crate) fn over_http(self) -> Option<Encoding> {
        match self {
            Self::Grpc => None,
            Self::HttpProtobuf => Some(Encoding::Protobuf),
            Self::HttpJson => Some(Encoding::Json),
        }
    }

    /// In words, for the report.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Grpc => "OTLP/gRPC",
            Self::HttpProtobuf => "OTLP/HTTP (1.1) in protobuf",
            Self::HttpJson => "OTLP/HTTP (1.1) in JSON",
        }
    }
}

impl Encoding {
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}
