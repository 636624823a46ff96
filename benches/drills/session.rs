//! One client's connection: to Postgres or to a proxy in front of it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow};
use tokio_util::task::AbortOnDropHandle;

/// The database of every drill.
pub(crate) const DBNAME: &str = "drill";

/// Who may use pgweir's console, with this as the password.
pub(crate) const OPERATOR: &str = "operator";

/// Logins under way at once: enough for both cores, too few to be a storm.
const LOGINS_MAX: usize = 48;

/// A whole crowd's logins; direct ones to Postgres cost it 5 ms of CPU each.
const LOGINS_TIMEOUT: Duration = Duration::from_secs(90);

/// Between two looks whether a session is still there.
const LOOK: Duration = Duration::from_millis(10);

/// Why a client got no answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// An error with a SQLSTATE.
    Sqlstate(String),
    /// The connection broke, or could not be made.
    Connection,
    /// The drill ended first.
    Unanswered,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlstate(code) => f.write_str(code),
            Self::Connection => f.write_str("connection lost"),
            Self::Unanswered => f.write_str("unanswered"),
        }
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        error.code().map_or(Self::Connection, |code| Self::Sqlstate(code.code().to_owned()))
    }
}

/// A logged-in client. Dropped, it is gone without a word, as a killed process is.
pub(crate) struct Session {
    client: Client,
    /// Ends with it.
    connection: AbortOnDropHandle<()>,
}

impl Session {
    /// Logs in on a port of loopback.
    pub(crate) async fn login(port: u16, role: &str) -> Result<Self, Failure> {
        Self::login_as(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), role, None).await
    }

    /// Logs in with this `application_name`.
    pub(crate) async fn login_as(at: SocketAddr, role: &str, name: Option<&str>) -> Result<Self, Failure> {
        let mut config = Config::new();
        config.host(at.ip().to_string()).port(at.port()).user(role).dbname(DBNAME);
        name.map(|name| config.application_name(name));
        Self::open(&config).await
    }

    /// Logs in to pgweir's console.
    pub(crate) async fn console(port: u16) -> Result<Self, Failure> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(port).user(OPERATOR).password(OPERATOR).dbname("pgweir");
        Self::open(&config).await
    }

    async fn open(config: &Config) -> Result<Self, Failure> {
        let (client, connection) = config.connect(NoTls).await?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async {
            // Its end shows in the client's next request.
            let _ = connection.await;
        }));
        Ok(Self { client, connection })
    }

    /// So many, all logged in.
    pub(crate) async fn crowd(port: u16, role: &str, count: usize) -> Vec<Self> {
        let mut waiting = std::iter::repeat_with(|| Self::login(port, role)).take(count);
        let mut under_way: FuturesUnordered<_> = waiting.by_ref().take(LOGINS_MAX).collect();
        let mut crowd = Vec::with_capacity(count);
        let everybody = async {
            while let Some(session) = under_way.next().await {
                crowd.push(session.unwrap_or_else(|failure| panic!("a login of {role} at rest: {failure}")));
                under_way.extend(waiting.next());
            }
        };
        let in_time = timeout(LOGINS_TIMEOUT, everybody).await;
        assert!(in_time.is_ok(), "{} of {count} clients logged in within {LOGINS_TIMEOUT:?}", crowd.len());
        crowd
    }

    /// One Query message, whatever its answer's rows.
    pub(crate) async fn run(&self, sql: &str) -> Result<(), Failure> {
        Ok(self.client.batch_execute(sql).await?)
    }

    /// The last row of a Query's answer.
    pub(crate) async fn row(&self, sql: &str) -> Result<Vec<String>, Failure> {
        let row = self.client.simple_query(sql).await?.into_iter().rev().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let row = row.unwrap_or_else(|| panic!("no row: {sql}"));
        Ok((0..row.len()).map(|column| row.get(column).unwrap_or_default().to_owned()).collect())
    }

    /// The rows of a Query's answer, by the names of their columns.
    pub(crate) async fn table(&self, sql: &str) -> Result<Vec<BTreeMap<String, String>>, Failure> {
        let cells = |row: SimpleQueryRow| {
            let cell = |at: usize| row.get(at).unwrap_or_default().to_owned();
            row.columns().iter().enumerate().map(|(at, column)| (column.name().to_owned(), cell(at))).collect()
        };
        let rows = self.client.simple_query(sql).await?.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(cells(row)),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// The only number of a Query's answer.
    pub(crate) async fn number(&self, sql: &str) -> Result<u64, Failure> {
        Ok(self.row(sql).await?[0].parse().unwrap_or_else(|_| panic!("no number: {sql}")))
    }

    /// Until the server has ended it.
    pub(crate) async fn gone(&self) {
        while !self.client.is_closed() {
            sleep(LOOK).await;
        }
    }

    /// Leaves with a Terminate message.
    pub(crate) async fn close(self) {
        let Self { client, connection } = self;
        drop(client);
        // However the connection ends, it has ended.
        let _ = connection.await;
    }
}
