//! Connections in, answers out.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Version, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{any, get};
use hyper::service::Service as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use relay_station::Access;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::desk::{Desk, Stage, unix_s};
use super::prefixed::Prefixed;
use super::{CONNECTIONS_MAX, admin, api, icecast, metrics, page};

/// A worker reads a head before it hands over, so this is for those who trickle a second one.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// Nobody holds a place for longer, however slowly they read.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// How long answers under way are waited for at the end.
const FAREWELL: Duration = Duration::from_secs(1);
/// Above the largest head that a worker lets through, with room for a beginning body.
const READ_BUFFER: usize = 64 * 1024;
/// What the access log keeps of a stranger's words, in bytes.
const WORDS_MAX: usize = 256;

/// A connection as it came from a worker.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) stream: TcpStream,
    pub(super) read: Vec<u8>,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// The user who has shown the right password, for the access log.
#[derive(Clone, Copy, Debug)]
pub(super) struct User(pub(super) &'static str);

/// Answers until told to stop, or until its conductor is dropped.
pub(super) async fn serve(
    desk: Arc<Desk>,
    mut gifts: mpsc::Receiver<Given>,
    stage: oneshot::Receiver<Arc<Stage>>,
    mut stop: oneshot::Receiver<()>,
) {
    tokio::select! {
        stage = stage => match stage {
            Ok(stage) => desk.attach(stage),
            Err(_) => return,
        },
        _ = &mut stop => return,
    }
    let service = TowerToHyperService::new(router(desk.clone()));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let gift = tokio::select! {
            gift = gifts.recv() => gift,
            _ = &mut stop => None,
        };
        let Some(gift) = gift else { break };
        let Ok(place) = places.clone().try_acquire_owned() else {
            desk.tallies.refused_full.up();
            continue;
        };
        let (desk, service) = (desk.clone(), service.clone());
        tokio::spawn(async move {
            if !converse(gift, service).await {
                desk.tallies.broken.up();
            }
            drop(place);
        });
    }
    let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(FAREWELL, places.acquire_many(all)).await;
}

/// One request and its answer. Whether all went well.
async fn converse(gift: Given, service: TowerToHyperService<Router>) -> bool {
    let Ok(peer) = gift.stream.peer_addr() else {
        return false;
    };
    if gift.stream.set_nonblocking(true).is_err() {
        return false;
    }
    let Ok(stream) = tokio::net::TcpStream::from_std(gift.stream) else {
        return false;
    };
    let io = TokioIo::new(Prefixed::new(gift.read, stream));
    let answer = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        service.call(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(READ_BUFFER)
        .serve_connection(io, answer);
    matches!(
        tokio::time::timeout(ANSWER_PATIENCE, connection).await,
        Ok(Ok(()))
    )
}

fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/index.html", get(page::index))
        .route("/assets/{name}", get(page::asset))
        .route("/favicon.ico", get(page::favicon))
        .route("/status-json.xsl", get(icecast::status_json))
        .route("/status.xsl", get(icecast::status_html))
        .route("/server_version.xsl", get(icecast::version_html))
        .route("/admin/{call}", any(admin::call))
        .route("/metrics", get(metrics::metrics))
        .route("/healthz", get(api::healthz))
        .route("/readyz", get(api::readyz))
        .route("/api/v1/health", get(api::health))
        .route("/api/v1/node", get(api::node))
        .route("/api/v1/listeners", get(api::listeners))
        .route("/api/v1/channels", get(api::channels))
        .route("/api/v1/channels/{*mount}", get(api::channel))
        .fallback(page::other)
        .layer(from_fn_with_state(desk.clone(), finish))
        .with_state(desk)
}

/// What every answer has in common: fields that browsers heed, and a line in the access log.
async fn finish(State(desk): State<Arc<Desk>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let at_s = unix_s();
    let Some(Peer(peer)) = request.extensions().get::<Peer>().copied() else {
        return next.run(request).await;
    };
    let (method, version) = (request.method().clone(), request.version());
    let target = bounded(&request.uri().to_string());
    let (referer, agent) = (
        words(request.headers(), &header::REFERER),
        words(request.headers(), &header::USER_AGENT),
    );
    let mut response = next.run(request).await;
    desk.tallies.requests.up();
    dress(&mut response, &desk.house().config.software);
    let body = response.body().size_hint().exact().unwrap_or(0);
    desk.log(Access {
        peer,
        user: response.extensions().get::<User>().map(|user| user.0.to_owned()),
        at_s,
        method: method_name(&method),
        target,
        version: if version == Version::HTTP_10 {
            relay_wire::http::Version::Http10
        } else {
            relay_wire::http::Version::Http11
        },
        status: response.status().as_u16(),
        bytes: if method == Method::HEAD { 0 } else { body },
        referer,
        agent,
        seconds: began.elapsed().as_secs(),
    });
    response
}

/// Scripts, styles and media of this relay only; no frame, no form, no base.
const CONTENT_POLICY: &str = "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                              object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn dress(response: &mut Response, software: &str) {
    let fields = response.headers_mut();
    let html = fields
        .get(header::CONTENT_TYPE)
        .is_some_and(|t| t.as_bytes().starts_with(b"text/html"));
    if html {
        fields.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(CONTENT_POLICY),
        );
    }
    for (name, value) in [
        (header::CONNECTION, "close"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache, no-store"),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(server) = HeaderValue::from_str(software) {
        fields.insert(header::SERVER, server);
    }
}

fn words(fields: &HeaderMap, name: &header::HeaderName) -> String {
    fields
        .get(name)
        .map(|v| bounded(&relay_wire::text::latin1_or_utf8(v.as_bytes())))
        .unwrap_or_default()
}

fn bounded(text: &str) -> String {
    text[..text.floor_char_boundary(WORDS_MAX)].to_owned()
}

/// Methods are a stranger's too: those that nobody has heard of have one name.
fn method_name(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
    KNOWN
        .into_iter()
        .find(|known| *known == method.as_str())
        .unwrap_or("OTHER")
}
