//! One connection of our own to a server, outside the core: listeners, notifiers and watches have one each.
//!
//! It is opened as a backend of a pool is (hosts, TLS, login, server role), then made fit to stay: no timeout of its
//! role ends it, and bytes come and go in the server's own encoding. No setting of a client is ever applied to it.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::address::ServerAddress;
use super::backend::{Backend, BackendHandle};
use super::control_connections::ListedConnection;
use super::in_use::InUse;
use super::open::{IS_STANDBY, OpenError, Opener};
use super::pool::Pool;
use crate::config::{Endpoint, PoolSettings, ServerRole};
use crate::net::stream::Stream;
use crate::sql::quote_literal;
use crate::wire::build::{self, ServerError, error_fields};
use crate::wire::frame::{HEADER_LEN, header};

/// Longest body of a message on such a connection: no question is asked that has a longer answer.
const BODY_MAX: usize = 1 << 20;

/// An answer may take this many times `connect_timeout`. A server that stands still for some seconds under its locks is
/// alive, and leaving it would cost every listener its connection just then.
const PATIENCE: u32 = 6;

/// Longest wait before another try to open a connection. A LISTEN waits `connect_timeout` for the connection, by
/// default 5 s: there is more than one try in it.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Bytes read at once.
const READ_SIZE: usize = 16 * 1024;

/// Sets every timeout by which a server ends sessions or statements to none. Versions differ in which they have.
const NO_TIMEOUTS: &str = "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings \
    WHERE name OPERATOR(pg_catalog.=) ANY ('{statement_timeout,lock_timeout,idle_in_transaction_session_timeout,\
    idle_session_timeout,transaction_timeout}'::pg_catalog.text[])";

/// The reason why a connection cannot be used (any more).
#[derive(Debug, Error)]
pub(crate) enum LinkError {
    /// No client has logged in yet, so there is no login to use.
    #[error("no client has logged in so far")]
    NoLogin,
    /// It was not opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// Half a message, or one that is too long.
    #[error("the server broke the protocol")]
    Protocol,
    /// The server ended the connection, or refuses a statement that it needs before it is of use.
    #[error("the server says {}: {}", .0.code, .0.message)]
    Server(ServerError),
    /// The server became a standby, or its name leads elsewhere.
    #[error("this is not the server to be connected to any more")]
    Moved,
    /// A client drops, renames or copies the database, which it can only alone.
    #[error("a client wants the database for itself")]
    Left,
}

/// A notification as the server sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Process id of the backend that sent it.
    pub pid: i32,
    pub channel: Bytes,
    /// The text with it, which may be empty.
    pub payload: Bytes,
}

/// A message of an idle or asked server, as far as it matters.
#[derive(Debug)]
pub(crate) enum Said {
    /// NotificationResponse.
    Heard(Heard),
    /// The body of a DataRow.
    Row(Bytes),
    Refused(ServerError),
    /// ReadyForQuery.
    Ready,
}

/// A connection that is logged in.
#[derive(Debug)]
pub(crate) struct Link {
    stream: Stream,
    unread: BytesMut,
    target: Arc<BackendHandle>,
    /// The pool whose login it has, and its settings at that time.
    pool: InUse<Pool>,
    settings: Arc<PoolSettings>,
    pid: i32,
    /// From the end of its login on.
    listed: Option<ListedConnection>,
}

impl Link {
    /// Logs in as backends of `pool` do; `name` is for `pg_stat_activity`.
    pub(crate) async fn open(opener: &Opener, pool: InUse<Pool>, name: &str) -> Result<Self, LinkError> {
        let settings = Arc::clone(&pool.settings());
        if opener.control_connections().is_left(&settings.endpoint, Instant::now()) {
            return Err(LinkError::Left);
        }
        let Backend { stream, parameters, target, .. } = opener.open_own(&pool, 0).await?;
        let mut link = Self { stream, unread: BytesMut::new(), target, pool, settings, pid: 0, listed: None };
        let mut sql = format!("{NO_TIMEOUTS}; SET application_name = '{name}'; ").into_bytes();
        if let Some(encoding) = parameters.value("server_encoding")
            && parameters.value("client_encoding") != Some(encoding)
        {
            sql.extend_from_slice(b"SET client_encoding = ");
            sql.extend_from_slice(&quote_literal(encoding.as_bytes()));
            sql.extend_from_slice(b"; ");
        }
        // Asked last: its value is the one that counts. BackendKeyData may be another proxy's invention.
        sql.extend_from_slice(b"SELECT pg_catalog.pg_backend_pid()");
        let pid = link.ask(&sql, |_| ()).await?.map_err(LinkError::Server)?;
        let pid = pid.and_then(|pid| std::str::from_utf8(&pid).ok()?.parse().ok());
        link.pid = pid.ok_or(LinkError::Protocol)?;
        link.listed = Some(opener.control_connections().enter(
            link.target.address.clone(),
            link.pid,
            link.settings.endpoint.clone(),
        ));
        Ok(link)
    }

    /// The process at the server, as notifications name it.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Becomes notified when the connection has to leave its database.
    pub(crate) fn leave(&self) -> Arc<Notify> {
        self.listed.as_ref().map_or_else(Arc::default, ListedConnection::leave)
    }

    /// Where the server is.
    pub(crate) fn address(&self) -> &ServerAddress {
        &self.target.address
    }

    /// Sends whole messages.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        let limit = self.limit();
        let sent = timeout(limit, async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        });
        sent.await.map_err(|_| LinkError::Silent(limit))?.map_err(LinkError::Io)
    }

    /// The next message of the server, however long it takes. May be dropped at any time: nothing that was read is
    /// lost.
    pub(crate) async fn said(&mut self) -> Result<Said, LinkError> {
        loop {
            let (tag, body) = self.frame().await?;
            if let Some(said) = understand(tag, body)? {
                return Ok(said);
            }
        }
    }

    /// As [`Self::said`] for an answer; a healthy server has given it long before the time limit.
    pub(crate) async fn answer(&mut self) -> Result<Said, LinkError> {
        let limit = self.limit();
        timeout(limit, self.said()).await.map_err(|_| LinkError::Silent(limit))?
    }

    /// Runs statements as one Query. Returns the first value of the last row, or why the server refused them;
    /// notifications that come meanwhile go to `heard`.
    pub(crate) async fn ask(
        &mut self,
        sql: &[u8],
        mut heard: impl FnMut(Heard),
    ) -> Result<Result<Option<Bytes>, ServerError>, LinkError> {
        let mut query = Vec::with_capacity(sql.len() + 6);
        build::query(&mut query, sql);
        self.send(&query).await?;
        let mut outcome = Ok(None);
        loop {
            match self.answer().await? {
                Said::Heard(notification) => heard(notification),
                Said::Row(row) => {
                    if let Ok(last) = &mut outcome {
                        *last = first_value(row);
                    }
                }
                Said::Refused(error) => outcome = Err(error),
                Said::Ready => return Ok(outcome),
            }
        }
    }

    /// Waits until the server has answered a Sync: everything that it had to say is said. Notifications go to `heard`.
    pub(crate) async fn sync(&mut self, mut heard: impl FnMut(Heard)) -> Result<(), LinkError> {
        self.send(build::SYNC).await?;
        loop {
            match self.answer().await? {
                Said::Heard(notification) => heard(notification),
                Said::Ready => return Ok(()),
                Said::Row(_) | Said::Refused(_) => {}
            }
        }
    }

    /// Checks that the server is still there and still the right one, which no idle connection shows by itself.
    pub(crate) async fn check(&mut self, heard: impl FnMut(Heard)) -> Result<(), LinkError> {
        if self.has_moved() {
            return Err(LinkError::Moved);
        }
        let is_standby = self.ask(IS_STANDBY.as_bytes(), heard).await?.map_err(LinkError::Server)?;
        match self.settings.endpoint.server_role {
            ServerRole::Primary if is_standby.as_deref() == Some(b"t") => Err(LinkError::Moved),
            _ => Ok(()),
        }
    }

    /// Whether the configuration or the name server leads elsewhere by now.
    pub(crate) fn has_moved(&self) -> bool {
        let route = |endpoint: &Endpoint| {
            let Endpoint { hosts, port, dbname, tls, .. } = endpoint.clone();
            (hosts, port, dbname, tls)
        };
        if route(&self.pool.settings().endpoint) != route(&self.settings.endpoint) {
            return true;
        }
        // The pool knows the address since its login, and forgets it when the name leads elsewhere.
        matches!(&self.target.address, ServerAddress::Tcp { addr, .. } if !self.pool.addresses().contains(&addr.ip()))
    }

    /// Has the server give up an unanswered request, so that it does not carry it out later, too.
    pub(crate) async fn cancel(&self, opener: &Opener) {
        let _ = timeout(self.settings.pool.connect_timeout, opener.cancel(&self.target)).await;
    }

    fn limit(&self) -> Duration {
        self.settings.pool.connect_timeout * PATIENCE
    }

    async fn frame(&mut self) -> Result<(u8, Bytes), LinkError> {
        loop {
            if let Some(head) = header(&self.unread).map_err(|_| LinkError::Protocol)? {
                if head.body > BODY_MAX {
                    return Err(LinkError::Protocol);
                }
                if self.unread.len() >= HEADER_LEN + head.body {
                    self.unread.advance(HEADER_LEN);
                    return Ok((head.tag, self.unread.split_to(head.body).freeze()));
                }
            }
            self.unread.reserve(READ_SIZE);
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(LinkError::Io(std::io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

impl Drop for Link {
    /// Sends a Terminate, if there is room for it: the server logs connections that end without.
    fn drop(&mut self) {
        let _ = self.stream.poll_write_some(&mut Context::from_waker(Waker::noop()), build::TERMINATE);
    }
}

/// `None`: it does not matter.
fn understand(tag: u8, body: Bytes) -> Result<Option<Said>, LinkError> {
    Ok(Some(match tag {
        b'A' => Said::Heard(notification(body).ok_or(LinkError::Protocol)?),
        b'D' => Said::Row(body),
        b'Z' => Said::Ready,
        b'E' => {
            let fields = error_fields(&body);
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            let error = ServerError { code: text(fields.code), message: text(fields.message) };
            if fields.severity != b"ERROR" {
                return Err(LinkError::Server(error));
            }
            Said::Refused(error)
        }
        _ => return Ok(None),
    }))
}

fn notification(mut body: Bytes) -> Option<Heard> {
    let pid = body.try_get_i32().ok()?;
    let channel = cstring(&mut body)?;
    let payload = cstring(&mut body)?;
    Some(Heard { pid, channel, payload })
}

fn cstring(body: &mut Bytes) -> Option<Bytes> {
    let end = memchr::memchr(0, body)?;
    let text = body.split_to(end);
    body.advance(1);
    Some(text)
}

fn first_value(mut row: Bytes) -> Option<Bytes> {
    row.try_get_i16().ok().filter(|columns| *columns > 0)?;
    let length = usize::try_from(row.try_get_i32().ok()?).ok()?;
    (length <= row.len()).then(|| row.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(tag: u8, body: &'static [u8]) -> Result<Option<Said>, LinkError> {
        understand(tag, Bytes::from_static(body))
    }

    #[test]
    fn a_notification_has_pid_channel_and_payload() {
        let Ok(Some(Said::Heard(heard))) = said(b'A', b"\0\0\x01\x02jobs\0now\0") else { panic!("it is whole") };
        assert_eq!(heard, Heard { pid: 258, channel: "jobs".into(), payload: "now".into() });
        let silent = said(b'A', b"\0\0\x01\x02jobs\0\0");
        assert!(matches!(silent, Ok(Some(Said::Heard(heard))) if heard.payload.is_empty()));
    }

    #[test]
    fn half_a_notification_breaks_the_protocol() {
        for body in [&b""[..], b"\0\0\x01", b"\0\0\x01\x02", b"\0\0\x01\x02jobs", b"\0\0\x01\x02jobs\0now"] {
            assert!(matches!(said(b'A', body), Err(LinkError::Protocol)), "{body:?}");
        }
    }

    #[test]
    fn a_failed_statement_is_an_answer_and_a_fatal_error_the_end() {
        let refused = said(b'E', b"SERROR\0VERROR\0C22021\0Minvalid\0\0");
        assert!(matches!(refused, Ok(Some(Said::Refused(error))) if error.code == "22021"));
        let fatal = said(b'E', b"SFATAL\0VFATAL\0C57P01\0Mterminating\0\0");
        assert!(matches!(fatal, Err(LinkError::Server(error)) if error.code == "57P01"));
    }

    #[test]
    fn rows_may_be_empty_null_or_cut_short() {
        let value = |body| match said(b'D', body) {
            Ok(Some(Said::Row(row))) => first_value(row),
            other => panic!("{other:?}"),
        };
        assert_eq!(value(b"\0\x01\0\0\0\x02ab"), Some(Bytes::from("ab")));
        for body in [&b""[..], b"\0\0", b"\0\x01\xff\xff\xff\xff", b"\0\x01\0\0\0\x09ab"] {
            assert_eq!(value(body), None);
        }
    }
}
