//! The client that spans about the daemon are exported with: opentelemetry-otlp's, over a connection of ours.
//!
//! That crate reads OpenTelemetry's variables by itself, and those describe the destination `default`: what is set here
//! leaves it nothing to read, and its headers, which may be credentials, are replaced.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderValue, Uri};
use hyper_util::rt::TokioIo;
use nyx_telemetry::{
    export::{Dialer, Stream},
    span::{SpanContext, TraceFlags},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use tonic::{Request, Status, codegen::Service, metadata::MetadataMap, transport::Endpoint};

use super::worker::EXPORT_MAX;

const TRACEPARENT: &str = "traceparent";
const USER_AGENT: &str =
    concat!("nyx-daemon/", env!("CARGO_PKG_VERSION"), " OTel-OTLP-Exporter-Rust/", env!("CARGO_PKG_VERSION"));

/// An exporter to where `dialer` leads. To be called within the runtime that it is to work in.
///
/// # Errors
/// Where the settings make no client, which valid ones always do.
pub(super) fn exporter(dialer: Dialer) -> Result<SpanExporter, String> {
    let origin = dialer.origin().map_err(|error| error.to_string())?;
    let headers = dialer.headers().clone();
    let channel = Endpoint::from(origin)
        .user_agent(USER_AGENT)
        .map_err(|error| error.to_string())?
        .timeout(EXPORT_MAX)
        .connect_with_connector_lazy(Connector(dialer));
    SpanExporter::builder()
        .with_tonic()
        .with_timeout(EXPORT_MAX)
        .with_channel(channel)
        .with_interceptor(move |request| headed(request, &headers))
        .build()
        .map_err(|error| error.to_string())
}

/// The request with these headers alone, and a trace context that asks its receiver to record nothing about it: traces about
/// the export of traces would have no end.
fn headed(mut request: Request<()>, headers: &HeaderMap) -> Result<Request<()>, Status> {
    let mut headers = headers.clone();
    let unrecorded = SpanContext { flags: TraceFlags::default(), ..SpanContext::random() };
    let unrecorded =
        HeaderValue::try_from(unrecorded.to_string()).map_err(|error| Status::internal(error.to_string()))?;
    headers.insert(TRACEPARENT, unrecorded);
    *request.metadata_mut() = MetadataMap::from_headers(headers);
    Ok(request)
}

/// Connections as those of the destinations' exporters.
#[derive(Debug, Clone)]
struct Connector(Dialer);

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = String;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, String>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), String>> {
        Poll::Ready(Ok(()))
    }

    /// The URI is the dialer's own.
    fn call(&mut self, _: Uri) -> Self::Future {
        let dialed = self.0.dial();
        Box::pin(async move { dialed.await.map(TokioIo::new) })
    }
}
