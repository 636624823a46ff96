//! HTTP on the admin address: `/metrics` for Prometheus, `/healthz` and `/readyz` for systemd, Kubernetes or a
//! balancer, and the status page.
//!
//! Runs beside the workers, on the thread that accepts; a scrape has a thread of its own. Few connections at once,
//! little time for each answer: nothing here can hold clients up. Connections may be used again, and streams of the
//! status page may last, as long as they are read. Where all places are taken an old connection gives way, one that
//! asks for nothing before others: probes are always answered.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::channel::Channel;
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    HeaderName, HeaderValue, REFERRER_POLICY, RETRY_AFTER, VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::actions::{ActionHandler, ActionRefusal, has_known_host};
use super::conversation::{Conversation, ConversationStream};
use super::events::{EventStream, STREAMS_MAX};
use super::page::StatusPage;
use super::{gzip, health, scrape};
use crate::admission::login::PeerAddress;
use crate::admission::places::{Places, Room, WhenFull};
use crate::proxy::Proxy;
use crate::session::context::Inbox;

/// Connections at once. All streams together leave the others their places.
const ROOM: Room = Room { clients: STREAMS_MAX, spare: 64, of_address: None };

/// Bytes of a request's head.
const HEAD_MAX: usize = 16 * 1024;

/// Bytes that the kernel keeps for somebody who does not read: a minute of news, not an hour of it.
const UNREAD_MAX: usize = 256 * 1024;

/// Wait after an accept that failed: out of file descriptors, most likely.
const PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const EVENTS: &str = "text/event-stream";
/// Version 0.0.4 is the text format (Prometheus: "Exposition formats").
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

type HttpAnswer = Response<Either<Full<Bytes>, Channel<Bytes>>>;

/// The parts that all connections share.
struct AdminServer {
    proxy: Arc<Proxy>,
    events: EventStream,
    actions: ActionHandler,
    page: StatusPage,
    /// One scrape at a time, the others wait: it takes a thread and the memory of its text.
    scrape: Arc<Semaphore>,
}

/// Answers for ever. The worker of `inbox` carries actions out.
pub(crate) async fn serve(listener: TcpListener, proxy: Arc<Proxy>, inbox: Inbox) {
    let admin = Arc::new(AdminServer {
        proxy,
        events: EventStream::new(),
        actions: ActionHandler::new(inbox),
        page: StatusPage::new(),
        scrape: Arc::new(Semaphore::new(1)),
    });
    tokio::select! {
        () = admin.events.keep(&admin.proxy) => {}
        () = accept(listener, &admin) => {}
    }
}

async fn accept(listener: TcpListener, admin: &Arc<AdminServer>) {
    let places = Places::new(WhenFull::Oldest);
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let origin = peer.ip();
        let Some((place, mut eviction)) = places.enter(Some(PeerAddress::from(origin)), ROOM) else { continue };
        let admin = Arc::clone(admin);
        tokio::spawn(async move {
            let conversation = Conversation::new(place);
            tokio::select! {
                () = eviction.comes() => {}
                () = conversation.clone().within(connection(stream, origin, admin, conversation)) => {}
            }
        });
    }
}

async fn connection(stream: TcpStream, peer: IpAddr, admin: Arc<AdminServer>, conversation: Conversation) {
    let _ = SockRef::from(&stream).set_send_buffer_size(UNREAD_MAX);
    let service = service_fn(|request: Request<Incoming>| {
        let (admin, conversation) = (Arc::clone(&admin), conversation.clone());
        async move {
            conversation.asked();
            let answer = admin.answer(request, peer, &conversation).await;
            conversation.answered();
            // The next request is for the instance that takes over.
            Ok::<_, Infallible>(if admin.proxy.is_leaving() { once(answer) } else { answer })
        }
    });
    let mut http = http1::Builder::new();
    http.max_buf_size(HEAD_MAX).header_read_timeout(None);
    let stream = TokioIo::new(ConversationStream { stream, conversation: conversation.clone() });
    if let Err(error) = http.serve_connection(stream, service).await {
        tracing::debug!(%error, "admin connection broke");
    }
}

impl AdminServer {
    async fn answer(&self, request: Request<Incoming>, peer: IpAddr, conversation: &Conversation) -> HttpAnswer {
        let (method, path) = (request.method(), request.uri().path());
        let allowed: &[Method] = match path {
            "/" | "/metrics" | "/healthz" | "/readyz" | "/status" => &[Method::GET, Method::HEAD],
            "/events" => &[Method::GET],
            "/actions" => &[Method::POST],
            _ => return text(StatusCode::NOT_FOUND, "try /, /status, /metrics, /healthz or /readyz\n"),
        };
        if !allowed.contains(method) {
            let allowed: Vec<&str> = allowed.iter().map(Method::as_str).collect();
            let answer = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {}\n", allowed.join(" and ")));
            return with(answer, ALLOW, HeaderValue::try_from(allowed.join(", ")).expect("ASCII"));
        }
        let proxy = &self.proxy;
        let hosts = &proxy.config.load().admin.hosts;
        if matches!(path, "/status" | "/metrics" | "/events") && !has_known_host(request.headers(), hosts) {
            return text(
                StatusCode::FORBIDDEN,
                "no answer under this name; list it in admin.hosts, or use an address\n",
            );
        }
        match path {
            "/metrics" => self.metrics(gzip::is_wanted(request.headers())).await,
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => {
                let (is_ready, why) = health::ready(proxy);
                let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                whole(status, JSON, why)
            }
            "/status" => uncached(whole(StatusCode::OK, JSON, format!("{:#}\n", self.events.status(proxy)))),
            "/events" => uncached(self.events(conversation)),
            // Some of the request's body may be left unread.
            "/actions" => once(uncached(self.act(request, peer).await)),
            _ => {
                let page = uncached(whole(StatusCode::OK, HTML, self.page.html.clone()));
                with(page, CONTENT_SECURITY_POLICY, self.page.policy.clone())
            }
        }
    }

    /// On a thread of its own: a thousand pools take tens of milliseconds, in which nobody would be let in.
    async fn metrics(&self, is_compressed: bool) -> HttpAnswer {
        let permit = Arc::clone(&self.scrape).acquire_owned().await.expect("it is never closed");
        let proxy = Arc::clone(&self.proxy);
        let scraped = spawn_blocking(move || {
            let _permit = permit;
            let page = scrape::metrics(&proxy);
            if is_compressed { gzip::compress(&page) } else { page.into_bytes() }
        });
        let Ok(page) = scraped.await else { return text(StatusCode::INTERNAL_SERVER_ERROR, "the scrape failed\n") };
        let answer = with(whole(StatusCode::OK, PROMETHEUS, page), VARY, HeaderValue::from(ACCEPT_ENCODING));
        if is_compressed { with(answer, CONTENT_ENCODING, HeaderValue::from_static("gzip")) } else { answer }
    }

    fn events(&self, conversation: &Conversation) -> HttpAnswer {
        let (stays, reader) = (conversation.streams(), conversation.clone());
        match self.events.stream(&self.proxy, move || reader.renew()) {
            Some(stream) if stays => once(response(StatusCode::OK, EVENTS, Either::Right(stream))),
            _ => {
                let answer = text(StatusCode::SERVICE_UNAVAILABLE, "too many watch already\n");
                once(with(answer, RETRY_AFTER, HeaderValue::from_static("10")))
            }
        }
    }

    async fn act(&self, request: Request<Incoming>, peer: IpAddr) -> HttpAnswer {
        match self.actions.handle(&self.proxy, request, peer).await {
            Ok(done) => whole(StatusCode::OK, JSON, format!("{done}\n")),
            Err(refusal) => {
                let answer = whole(refusal.status(), JSON, format!("{}\n", refusal.shown()));
                match refusal {
                    ActionRefusal::Token => with(answer, WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
                    _ => answer,
                }
            }
        }
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> HttpAnswer {
    whole(status, TEXT, text)
}

fn whole(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> HttpAnswer {
    response(status, kind, Either::Left(Full::new(body.into())))
}

fn response(status: StatusCode, kind: &'static str, body: Either<Full<Bytes>, Channel<Bytes>>) -> HttpAnswer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let answer = with(response, CONTENT_TYPE, HeaderValue::from_static(kind));
    with(answer, X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
}

/// Of this moment only, and nobody else's business.
fn uncached(answer: HttpAnswer) -> HttpAnswer {
    let answer = with(answer, CACHE_CONTROL, HeaderValue::from_static("no-store"));
    with(answer, REFERRER_POLICY, HeaderValue::from_static("no-referrer"))
}

/// The last answer of its connection.
fn once(answer: HttpAnswer) -> HttpAnswer {
    with(answer, CONNECTION, HeaderValue::from_static("close"))
}

fn with(mut answer: HttpAnswer, name: HeaderName, value: HeaderValue) -> HttpAnswer {
    answer.headers_mut().insert(name, value);
    answer
}
