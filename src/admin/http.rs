//! HTTP on the admin address: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever starts and stops pgweir.
//!
//! Runs beside the workers, on the thread that accepts. One request per connection, few connections at once, little time
//! for each: nothing here can hold clients up.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::{health, scrape};
use crate::proxy::Proxy;

/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;

/// From accept to the last byte of the answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Bytes of a request's head.
const HEAD_MAX: usize = 16 * 1024;

/// Wait after an accept that failed: out of file descriptors, most likely.
const PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// Version 0.0.4 is the text format (Prometheus: "Exposition formats").
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers for ever.
pub async fn serve(listener: TcpListener, proxy: Arc<Proxy>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("it is never closed");
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let proxy = Arc::clone(&proxy);
        tokio::spawn(async move {
            let _ = timeout(LIMIT, connection(stream, proxy)).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, proxy: Arc<Proxy>) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path(), &proxy);
        async { Ok::<_, Infallible>(answer) }
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false).max_buf_size(HEAD_MAX).timer(TokioTimer::new()).header_read_timeout(LIMIT);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "admin connection broke");
    }
}

fn answer(method: &Method, path: &str, proxy: &Proxy) -> Response<Full<Bytes>> {
    let is_known = matches!(path, "/metrics" | "/healthz" | "/readyz");
    if is_known && !matches!(*method, Method::GET | Method::HEAD) {
        let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/metrics" => response(StatusCode::OK, PROMETHEUS, scrape::metrics(proxy)),
        "/healthz" => response(StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/readyz" => {
            let (is_ready, why) = health::ready(proxy);
            let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            response(status, JSON, why)
        }
        _ => response(StatusCode::NOT_FOUND, TEXT, "try /metrics, /healthz or /readyz\n".to_owned()),
    }
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
