//! HTTP on the admin address: `/metrics` for Prometheus, `/healthz` and `/readyz` for systemd, Kubernetes or a
//! balancer, and the status page.
//!
//! Runs beside the workers, on the thread that accepts. One request per connection, few connections at once, little
//! time for each: nothing here can hold clients up. Streams of the status page may last, as long as they are read.
//! Where all places are taken an old connection gives way, a silent one before others: probes are always answered.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::channel::Channel;
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY, RETRY_AFTER,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout_at};

use super::actions::{ActionHandler, ActionRefusal, has_known_host};
use super::events::{EventStream, STREAMS_MAX};
use super::page::StatusPage;
use super::{health, scrape};
use crate::admission::login::PeerAddress;
use crate::admission::places::{ConnectionPlace, Places, Room, WhenFull};
use crate::proxy::Proxy;
use crate::session::context::Inbox;

/// Connections at once. All streams together leave the others their places.
const ROOM: Room = Room { clients: STREAMS_MAX, spare: 64, of_address: None };

/// From accept to the last byte of the answer; for a stream, to the next event that is read.
const LIMIT: Duration = Duration::from_secs(10);

/// From accept to the end of the request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(2);

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
}

/// The moment up to which a connection may go on.
#[derive(Debug, Clone)]
struct Deadline(Arc<Mutex<Instant>>);

/// Answers for ever. The worker of `inbox` carries actions out.
pub(crate) async fn serve(listener: TcpListener, proxy: Arc<Proxy>, inbox: Inbox) {
    let admin = Arc::new(AdminServer {
        proxy,
        events: EventStream::new(),
        actions: ActionHandler::new(inbox),
        page: StatusPage::new(),
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
            let deadline = Deadline::new();
            tokio::select! {
                () = eviction.comes() => {}
                () = deadline.clone().within(connection(stream, origin, admin, deadline, place)) => {}
            }
        });
    }
}

async fn connection(
    stream: TcpStream,
    peer: IpAddr,
    admin: Arc<AdminServer>,
    deadline: Deadline,
    place: ConnectionPlace,
) {
    let place = Mutex::new(place);
    let _ = SockRef::from(&stream).set_send_buffer_size(UNREAD_MAX);
    let service = service_fn(|request: Request<Incoming>| {
        let (admin, deadline, place) = (Arc::clone(&admin), deadline.clone(), &place);
        async move { Ok::<_, Infallible>(admin.answer(request, peer, deadline, place).await) }
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false).max_buf_size(HEAD_MAX).timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "admin connection broke");
    }
}

impl AdminServer {
    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        deadline: Deadline,
        place: &Mutex<ConnectionPlace>,
    ) -> HttpAnswer {
        place.lock().expect("no panic while held").speak();
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
            "/metrics" => whole(StatusCode::OK, PROMETHEUS, scrape::metrics(proxy)),
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => {
                let (is_ready, why) = health::ready(proxy);
                let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                whole(status, JSON, why)
            }
            "/status" => uncached(whole(StatusCode::OK, JSON, format!("{:#}\n", self.events.status(proxy)))),
            "/events" => uncached(self.events(deadline, place)),
            "/actions" => uncached(self.act(request, peer).await),
            _ => {
                let page = uncached(whole(StatusCode::OK, HTML, self.page.html.clone()));
                with(page, CONTENT_SECURITY_POLICY, self.page.policy.clone())
            }
        }
    }

    fn events(&self, deadline: Deadline, place: &Mutex<ConnectionPlace>) -> HttpAnswer {
        let stays = place.lock().expect("no panic while held").settle();
        match self.events.stream(&self.proxy, move || deadline.renew()) {
            Some(stream) if stays => response(StatusCode::OK, EVENTS, Either::Right(stream)),
            _ => {
                let answer = text(StatusCode::SERVICE_UNAVAILABLE, "too many watch already\n");
                with(answer, RETRY_AFTER, HeaderValue::from_static("10"))
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

fn with(mut answer: HttpAnswer, name: HeaderName, value: HeaderValue) -> HttpAnswer {
    answer.headers_mut().insert(name, value);
    answer
}

impl Deadline {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now() + LIMIT)))
    }

    fn renew(&self) {
        *self.0.lock().expect("no panic while held") = Instant::now() + LIMIT;
    }

    fn until(&self) -> Instant {
        *self.0.lock().expect("no panic while held")
    }

    /// Runs `work` up to its end, or to the deadline.
    async fn within(self, work: impl Future<Output = ()>) {
        let mut work = std::pin::pin!(work);
        let mut until = self.until();
        while timeout_at(until, work.as_mut()).await.is_err() && self.until() > until {
            until = self.until();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_reads_may_stay_and_who_does_not_must_go() {
        let (deadline, start) = (Deadline::new(), Instant::now());
        let reads = deadline.clone();
        let work = async move {
            for _ in 0..20 {
                sleep(Duration::from_secs(1)).await;
                reads.renew();
            }
            sleep(Duration::from_secs(3600)).await;
        };
        deadline.within(work).await;
        assert_eq!(start.elapsed(), Duration::from_secs(20) + LIMIT);
    }
}
