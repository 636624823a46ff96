//! One GET of a REST API over HTTP/1.1, with TLS and basic authentication.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::{BackendTls, BackendTlsMode, PasswordSource, PatroniApi, Secret};
use crate::net::tls::{ClientSide, TlsError, server_name};
use crate::pool::lease::Pools;
use crate::pool::passwords::PasswordError;

/// Longer than the answer about any cluster.
const BODY_MAX: usize = 1 << 20;

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum RestError {
    #[error("the URL has no host and port")]
    Url,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("the answer is too long, or was cut short")]
    Body,
}

/// How a REST API is reached.
pub(super) struct RestClient {
    /// For basic authentication.
    login: Option<(String, PasswordSource)>,
    pools: Arc<Pools>,
    tls: Option<Arc<ClientConfig>>,
}

impl RestClient {
    /// With the credentials and trust anchors of `api`.
    pub(super) fn new(pools: Arc<Pools>, api: &PatroniApi) -> Result<Self, TlsError> {
        let login = api.username.clone().zip(api.password.clone());
        let keys = BackendTls { mode: BackendTlsMode::VerifyFull, ca: api.ca.clone(), ..BackendTls::default() };
        let mut tls = None;
        if api.urls.iter().any(|url| url.starts_with("https://")) {
            tls = ClientSide::new(&keys)?.map(|side| {
                let mut config = (*side.config).clone();
                // Postgres's name in it would be refused.
                config.alpn_protocols.clear();
                Arc::new(config)
            });
        }
        Ok(Self { login, pools, tls })
    }

    /// Status and body of `path` at an API, whose URL has no path of its own.
    pub(super) async fn get(&self, url: &str, path: &str) -> Result<(StatusCode, Bytes), RestError> {
        let (username, command) = match &self.login {
            None => return self.get_as(None, url, path).await,
            Some((username, PasswordSource::Known(password))) => {
                return self.get_as(basic(username, password), url, path).await;
            }
            Some((username, PasswordSource::Command(command))) => (username, command),
        };
        let passwords = self.pools.opener().passwords();
        let issued = passwords.current(command).await?;
        let answer = self.get_as(basic(username, &issued), url, path).await?;
        if answer.0 != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        match passwords.other_than(&issued, command).await {
            Some(other) => self.get_as(basic(username, &other), url, path).await,
            None => Ok(answer),
        }
    }

    async fn get_as(
        &self,
        authorization: Option<HeaderValue>,
        url: &str,
        path: &str,
    ) -> Result<(StatusCode, Bytes), RestError> {
        let (is_secure, authority) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(RestError::Url),
        };
        let authority = authority.split('/').next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()) {
            Some((host, port)) => (host, port.parse().map_err(|_| RestError::Url)?),
            None => (authority, if is_secure { 443_u16 } else { 80 }),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let socket = TcpStream::connect((host, port)).await?;
        match (is_secure, &self.tls) {
            (false, _) => ask(socket, authorization, authority, path).await,
            (true, Some(tls)) => {
                let stream = TlsConnector::from(Arc::clone(tls)).connect(server_name(host)?, socket).await?;
                ask(stream, authorization, authority, path).await
            }
            (true, None) => Err(RestError::Url),
        }
    }
}

/// `Authorization` of this login; `None`: it cannot be sent.
fn basic(username: &str, password: &Secret) -> Option<HeaderValue> {
    let encoded = STANDARD.encode(format!("{username}:{}", password.expose()));
    let mut value = HeaderValue::try_from(format!("Basic {encoded}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

async fn ask<S>(
    stream: S,
    authorization: Option<HeaderValue>,
    authority: &str,
    path: &str,
) -> Result<(StatusCode, Bytes), RestError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::get(path).header(HOST, authority);
    if let Some(authorization) = authorization {
        request = request.header(AUTHORIZATION, authorization);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| RestError::Url)?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_MAX).collect().await.map_err(|_| RestError::Body)?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => answer,
        closed = &mut connection => match closed {
            // The connection may end before its last bytes are looked at.
            Ok(()) => answer.await,
            Err(error) => Err(error.into()),
        },
    }
}
