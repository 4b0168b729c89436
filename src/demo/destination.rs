//! The demo's own OTLP destination: it counts what arrives.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status, transport::Server, transport::server::TcpIncoming};

/// A destination on a free loopback port, on a thread of its own.
pub(super) struct Destination {
    /// Where it listens.
    pub(super) address: SocketAddr,
    spans: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Destination {
    /// Starts it.
    pub(super) fn start() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let spans = Arc::new(AtomicU64::new(0));
        let service = TraceServiceServer::new(Counting(Arc::clone(&spans)));
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("demo-destination".to_owned()).spawn(move || {
            let served = runtime.block_on(async move {
                let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener)?);
                let until = async { stopped.await.unwrap_or_default() };
                let server = Server::builder().add_service(service.max_decoding_message_size(64 << 20));
                server.serve_with_incoming_shutdown(incoming, until).await.map_err(io::Error::other)
            });
            if let Err(error) = served {
                tracing::error!(%error, "the demo's destination failed");
            }
        })?;
        Ok(Self { address, spans, stop: Some(stop), thread: Some(thread) })
    }

    /// Spans that arrived so far, each as often as it came.
    pub(super) fn spans(&self) -> u64 {
        self.spans.load(Ordering::Relaxed)
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _gone = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

struct Counting(Arc<AtomicU64>);

#[tonic::async_trait]
impl TraceService for Counting {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans;
        let spans: usize = resources.iter().flat_map(|r| &r.scope_spans).map(|scope| scope.spans.len()).sum();
        self.0.fetch_add(spans as u64, Ordering::Relaxed);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
