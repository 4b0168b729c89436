//! The admin pages: `/metrics`, `/stats`, `/health`, `/livez`, `/readyz`, `/api/v1/spans`, served by actix-web.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Running, WrapFuture};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, http::header, web};
use nyx_telemetry::{
    measure::exposition::Format,
    observe::{Health, Observed},
    supervise,
};

use crate::spans_page;

/// Connections to the admin pages at most.
const MAX_CONNECTIONS: usize = 64;
/// Seconds that requests under way are given when the pages close.
const SHUTDOWN_SECONDS: u64 = 2;

/// The bound socket of the admin pages; it lives outside the actor, so that a restart refuses no connection.
#[derive(Debug)]
pub(crate) struct AdminSocket(TcpListener);

impl AdminSocket {
    /// Binds the address.
    ///
    /// # Errors
    /// As [`TcpListener::bind`].
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).map(Self)
    }

    /// The address, with the port that the system chose where 0 was asked for.
    ///
    /// # Errors
    /// As [`TcpListener::local_addr`].
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Serves the pages.
pub(crate) struct AdminPages {
    socket: Arc<AdminSocket>,
    observed: Arc<Observed>,
    server: Option<ServerHandle>,
}

impl AdminPages {
    /// Pages about `observed` on `socket`.
    pub(crate) fn new(socket: Arc<AdminSocket>, observed: Arc<Observed>) -> Self {
        Self { socket, observed, server: None }
    }

    fn serve(&self) -> io::Result<actix_web::dev::Server> {
        let observed = web::Data::from(Arc::clone(&self.observed));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(observed.clone())
                .route("/metrics", web::get().to(metrics))
                .route("/stats", web::get().to(stats))
                .route("/health", web::get().to(health))
                .route(spans_page::PATH, web::get().to(spans_page::spans))
                .route("/livez", web::get().to(livez))
                .route("/readyz", web::get().to(readyz))
                .default_service(web::to(index))
        });
        let server = server
            .workers(1)
            .max_connections(MAX_CONNECTIONS)
            .shutdown_timeout(SHUTDOWN_SECONDS)
            .disable_signals()
            .listen(self.socket.0.try_clone()?)?;
        Ok(server.run())
    }
}

impl Actor for AdminPages {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        match self.serve() {
            Ok(server) => {
                self.server = Some(server.handle());
                ctx.spawn(server.into_actor(self).map(|ended, pages, ctx| match (ended, &pages.server) {
                    (Ok(()), None) => ActorContext::stop(ctx),
                    (Ok(()), Some(_)) => supervise::fail(ctx, "the page server ended by itself"),
                    (Err(error), _) => supervise::fail(ctx, error),
                }));
            }
            Err(error) => supervise::fail(ctx, format!("admin pages cannot listen: {error}")),
        }
    }

    fn stopping(&mut self, ctx: &mut Context<Self>) -> Running {
        let Some(server) = self.server.take() else { return Running::Stop };
        ctx.spawn(server.stop(true).into_actor(self));
        Running::Continue
    }
}

async fn metrics(request: HttpRequest, observed: web::Data<Observed>) -> HttpResponse {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if !observed.is_measured() {
        const WHY: &str = "telemetry.prometheus_enabled is false: no metrics are kept\n";
        return HttpResponse::NotFound().content_type("text/plain; charset=utf-8").body(WHY);
    }
    let format = Format::negotiate(accept);
    let page = format.encode(&observed.families());
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, format.content_type())).body(page)
}

async fn stats(observed: web::Data<Observed>) -> HttpResponse {
    HttpResponse::Ok().json(observed.stats())
}

/// 200 while the daemon works, degraded or not; 503 on its way up or down.
async fn health(observed: web::Data<Observed>) -> HttpResponse {
    let health = observed.health();
    match health {
        Health { ready: true, .. } => HttpResponse::Ok().json(health),
        Health { ready: false, .. } => HttpResponse::ServiceUnavailable().json(health),
    }
}

async fn livez() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ok\n")
}

async fn readyz(observed: web::Data<Observed>) -> HttpResponse {
    let health = observed.health();
    let mut response = if health.ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.content_type("text/plain; charset=utf-8").body(format!("{}\n", health.status))
}

async fn index() -> HttpResponse {
    const PAGES: &str = "nyx-daemon: /metrics /stats /health /livez /readyz /api/v1/spans\n";
    HttpResponse::NotFound().content_type("text/plain; charset=utf-8").body(PAGES)
}
