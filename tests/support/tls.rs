//! Senders that speak TLS.

use std::{
    future::{Ready, ready},
    io,
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use nyx_telemetry::tls::testing::Secured;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use tonic::{
    codegen::{Service, http::Uri},
    transport::{Channel, Endpoint},
};

/// A connection that is there already, and no other.
struct Connected(Option<Secured>);

impl Service<Uri> for Connected {
    type Response = TokioIo<Secured>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<Secured>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().map(TokioIo::new).ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

/// A client over this connection, which has no other when that is lost.
pub async fn client_over(stream: Secured) -> TraceServiceClient<Channel> {
    let endpoint = Endpoint::from_static("http://door");
    TraceServiceClient::new(endpoint.connect_with_connector(Connected(Some(stream))).await.unwrap())
}
