//! The admin pages: `/metrics`, `/stats`, `/health`, `/livez`, `/readyz`, `/api/v1/spans`, served by actix-web.
//!
//! Where tokens are asked for, all but `/livez` and `/readyz` are for whoever brings one: what asks those whether the
//! process is to be restarted, or sent anything, commonly has none, and learns no more than that.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Running, WrapFuture};
use actix_web::{
    App, Error, FromRequest, Handler, HttpRequest, HttpResponse, HttpServer, Resource,
    body::{BoxBody, MessageBody},
    dev::{ServerHandle, ServiceRequest, ServiceResponse},
    http::header,
    middleware::{Next, from_fn},
    web,
};
use nyx_telemetry::{
    bearer::{CHALLENGE, Gate},
    measure::exposition::Format,
    observe::{Health, Observed},
    supervise,
};

use crate::spans_page;

/// The pages that ask nobody for a token.
const LIVEZ: &str = "/livez";
const READYZ: &str = "/readyz";
/// Connections to the admin pages at most.
const MAX_CONNECTIONS: usize = 64;
/// What the status of a daemon begins with that works and has reasons to say more.
const DEGRADED: &str = "degraded";
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
    gate: Arc<Gate>,
    server: Option<ServerHandle>,
}

impl AdminPages {
    /// Pages about `observed` on `socket`, for whom `gate` lets in.
    pub(crate) fn new(socket: Arc<AdminSocket>, observed: Arc<Observed>, gate: Arc<Gate>) -> Self {
        Self { socket, observed, gate, server: None }
    }

    fn serve(&self) -> io::Result<actix_web::dev::Server> {
        let observed = web::Data::from(Arc::clone(&self.observed));
        let gate = web::Data::from(Arc::clone(&self.gate));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(observed.clone())
                .app_data(gate.clone())
                .wrap(from_fn(let_in))
                .service(page("/metrics", metrics))
                .service(page("/stats", stats))
                .service(page("/health", health))
                .service(page(spans_page::PATH, spans_page::spans))
                .service(page(LIVEZ, livez))
                .service(page(READYZ, readyz))
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

/// A page: GET answers with it, HEAD with what GET's answer has before its body (RFC 9110, section 9.3.2).
fn page<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args, Output = HttpResponse>,
    Args: FromRequest + 'static,
{
    web::resource(path)
        .route(web::get().to(handler.clone()))
        .route(web::head().to(handler))
        .default_service(web::to(other_methods))
}

async fn other_methods() -> HttpResponse {
    const ALLOWED: &str = "GET, HEAD";
    HttpResponse::MethodNotAllowed()
        .insert_header((header::ALLOW, ALLOWED))
        .content_type("text/plain; charset=utf-8")
        .body("a page is read: GET and HEAD are allowed\n")
}

/// Refuses who does not bring one of the tokens, if there are any.
async fn let_in<B: MessageBody + 'static>(
    gate: web::Data<Gate>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    const WHY: &str = "a bearer token is needed here: send authorization: Bearer TOKEN, with a token of \
                       telemetry.prometheus_token_file (in Prometheus: authorization.credentials_file)\n";
    if [LIVEZ, READYZ].contains(&request.path()) || brings_token(&gate, request.request()) {
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    }
    let refusal = HttpResponse::Unauthorized()
        .insert_header((header::WWW_AUTHENTICATE, CHALLENGE))
        .content_type("text/plain; charset=utf-8")
        .body(WHY);
    Ok(request.into_response(refusal))
}

fn brings_token(gate: &Gate, request: &HttpRequest) -> bool {
    gate.admits(request.headers().get_all(header::AUTHORIZATION).map(|value| value.as_bytes()))
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

/// The state in a line. What is wrong names addresses and destinations: without a token there is only that something is.
async fn readyz(request: HttpRequest, gate: web::Data<Gate>, observed: web::Data<Observed>) -> HttpResponse {
    let mut health = observed.health();
    if health.status.starts_with(DEGRADED) && !brings_token(&gate, &request) {
        health.status = DEGRADED.to_owned();
    }
    let mut response = if health.ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.content_type("text/plain; charset=utf-8").body(format!("{}\n", health.status))
}

async fn index() -> HttpResponse {
    const PAGES: &str = "nyx-daemon: /metrics /stats /health /livez /readyz /api/v1/spans\n";
    HttpResponse::NotFound().content_type("text/plain; charset=utf-8").body(PAGES)
}
