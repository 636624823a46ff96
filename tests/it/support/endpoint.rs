//! Somewhere to connect to: Postgres itself or pgweir, which is the same to a client.

use std::net::SocketAddr;
use std::process::{Command, Output};

use futures_util::stream::poll_fn;
use futures_util::{StreamExt, pin_mut};
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};

use super::{PATIENCE, Wire, soon};

/// Every role of the tests has a password made of its name.
pub(crate) fn password_of(role: &str) -> String {
    format!("{role}-secret")
}

/// An address that speaks Postgres, and the database to ask for there.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) addr: SocketAddr,
    pub(crate) dbname: String,
}

impl Endpoint {
    /// The same address with another database.
    pub(crate) fn database(&self, dbname: &str) -> Self {
        Self { dbname: dbname.to_owned(), ..*self }
    }

    /// For drivers and tools.
    pub(crate) fn url(&self, role: &str) -> String {
        format!("postgres://{role}:{}@{}/{}", password_of(role), self.addr, self.dbname)
    }

    /// What `tokio_postgres` connects with, for tests that change some of it.
    pub(crate) fn config(&self, role: &str) -> Config {
        self.url(role).parse().expect("a valid URL")
    }

    /// A client that is logged in.
    pub(crate) async fn connect(&self, role: &str) -> Client {
        self.try_connect(role).await.unwrap_or_else(|error| panic!("{role} cannot log in: {error:?}"))
    }

    /// A client, or why it cannot log in.
    pub(crate) async fn try_connect(&self, role: &str) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = soon(self.config(role).connect(NoTls)).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// A client, and its notices and notifications as they arrive.
    pub(crate) async fn connect_and_hear(&self, role: &str) -> (Client, mpsc::Receiver<AsyncMessage>) {
        let (client, mut connection) = soon(self.config(role).connect(NoTls)).await.expect("a login");
        let (tx, rx) = mpsc::channel(100_000);
        tokio::spawn(async move {
            let messages = poll_fn(move |context| connection.poll_message(context));
            pin_mut!(messages);
            while let Some(Ok(message)) = messages.next().await {
                if tx.send(message).await.is_err() {
                    break;
                }
            }
        });
        (client, rx)
    }

    /// A raw connection that is logged in.
    pub(crate) async fn wire(&self, role: &str) -> Wire {
        Wire::login(self, role).await
    }

    /// Runs `program` with `DATABASE_URL` and libpq's variables set; panics with its output unless it succeeds.
    pub(crate) async fn run(&self, role: &str, program: Command) -> String {
        self.run_at(&self.url(role), role, program).await
    }

    /// The same, where names are looked up in `schema` first: by a startup parameter, as clients set it.
    pub(crate) async fn run_in(&self, schema: &str, role: &str, mut program: Command) -> String {
        program.env("SCHEMA", schema).env("PGOPTIONS", format!("-c search_path={schema}"));
        self.run_at(&format!("{}?options=-c%20search_path%3D{schema}", self.url(role)), role, program).await
    }

    async fn run_at(&self, url: &str, role: &str, mut program: Command) -> String {
        program
            .env("DATABASE_URL", url)
            .env("PGHOST", self.addr.ip().to_string())
            .env("PGPORT", self.addr.port().to_string())
            .env("PGUSER", role)
            .env("PGPASSWORD", password_of(role))
            .env("PGDATABASE", &self.dbname);
        let line = format!("{program:?}");
        let mut program = tokio::process::Command::from(program);
        // A program that waits for ever is killed and fails its test.
        let ended = tokio::time::timeout(4 * PATIENCE, program.kill_on_drop(true).output()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{line}: still running after {:?}", 4 * PATIENCE));
        let Output { status, stdout, stderr } = ended.unwrap_or_else(|error| panic!("{line}: {error}"));
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        assert!(status.success(), "{line}: {status}\n{stdout}{}", String::from_utf8_lossy(&stderr));
        stdout
    }

    /// Runs `sql` in psql as `role`; returns its rows, unaligned and without headers.
    pub(crate) async fn psql(&self, role: &str, sql: &str) -> String {
        let mut psql = Command::new("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        self.run(role, psql).await
    }
}
