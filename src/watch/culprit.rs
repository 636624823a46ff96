//! The culprit of a finding, and the SQL that would end it. pgweir names the SQL and does not run it.

use std::fmt;
use std::time::Duration;

use super::own_backends::{OwnBackends, OwnClient};
use super::row::{AnswerRow, Unreadable};
use crate::sql::quote_literal;
use crate::words::words;

/// The state of a session (manual: `pg_stat_activity.state`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// A statement runs, or waits for a lock.
    Active,
    /// Between the statements of a transaction, failed or not.
    IdleInTransaction,
    /// Outside a transaction.
    Idle,
    /// None of these: a process of the server's own, or one that may not be looked at.
    Other,
}

impl SessionState {
    fn read(text: Option<&str>) -> Self {
        match text {
            Some("active") => Self::Active,
            Some("idle in transaction" | "idle in transaction (aborted)") => Self::IdleInTransaction,
            Some("idle") => Self::Idle,
            _ => Self::Other,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::IdleInTransaction => "idle in transaction",
            Self::Idle => "idle",
            Self::Other => "in the background",
        }
    }
}

/// A process of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerProcess {
    /// Process id.
    pub pid: i32,
    /// Its state.
    pub state: SessionState,
    /// `application_name`; may be empty.
    pub application: String,
    /// Address of its client; `None`: a Unix socket, or no client at all.
    pub addr: Option<String>,
    /// The client of pgweir that has it.
    pub client: Option<OwnClient>,
}

impl ServerProcess {
    /// Of `pid`, with state, application and address in three columns from `column` on.
    pub(super) fn read(row: &AnswerRow, pid: i32, column: usize, own: &OwnBackends) -> Result<Self, Unreadable> {
        Ok(Self {
            pid,
            state: SessionState::read(row.text_or_null(column)?),
            application: row.text_or_null(column + 1)?.unwrap_or_default().to_owned(),
            addr: row.text_or_null(column + 2)?.map(str::to_owned),
            client: own.client(pid).cloned(),
        })
    }
}

/// A culprit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Culprit {
    /// A session.
    Backend(ServerProcess),
    /// A standby that reports its own oldest query, by `hot_standby_feedback`. Ending its walsender would not help: it
    /// comes back.
    Standby(ServerProcess),
    /// A replication slot.
    Slot {
        /// Its name.
        name: String,
        /// The process that reads it now.
        reader: Option<i32>,
    },
    /// A prepared transaction.
    Prepared {
        /// Its name.
        gid: String,
    },
}

words! {
    /// Kinds of culprits, as metrics and the console call them.
    pub enum CulpritKind {
        /// A session.
        Backend = "backend",
        /// A standby's connection.
        Walsender = "walsender",
        /// A replication slot.
        Slot = "slot",
        /// A prepared transaction.
        Prepared = "prepared",
    }
}

impl Culprit {
    /// Its kind.
    pub fn kind(&self) -> CulpritKind {
        match self {
            Self::Backend(_) => CulpritKind::Backend,
            Self::Standby(_) => CulpritKind::Walsender,
            Self::Slot { .. } => CulpritKind::Slot,
            Self::Prepared { .. } => CulpritKind::Prepared,
        }
    }

    /// The process at the server, where there is one.
    pub fn pid(&self) -> Option<i32> {
        match self {
            Self::Backend(backend) | Self::Standby(backend) => Some(backend.pid),
            Self::Slot { reader, .. } => *reader,
            Self::Prepared { .. } => None,
        }
    }

    /// The client of pgweir that has the process.
    pub fn client(&self) -> Option<&OwnClient> {
        match self {
            Self::Backend(backend) => backend.client.as_ref(),
            Self::Standby(_) | Self::Slot { .. } | Self::Prepared { .. } => None,
        }
    }

    /// The SQL that would end it.
    pub fn remedy(&self) -> String {
        match self {
            // A running statement is first asked to stop.
            Self::Backend(ServerProcess { pid, state: SessionState::Active, .. }) => {
                format!("SELECT pg_cancel_backend({pid})")
            }
            Self::Backend(ServerProcess { pid, .. }) => format!("SELECT pg_terminate_backend({pid})"),
            Self::Standby(_) => {
                "ALTER SYSTEM SET hot_standby_feedback = off; SELECT pg_reload_conf() -- on the standby".to_owned()
            }
            Self::Slot { name, reader } => {
                let drop = format!("SELECT pg_drop_replication_slot({})", literal(name));
                match reader {
                    Some(pid) => format!("SELECT pg_terminate_backend({pid}, 5000); {drop}"),
                    None => drop,
                }
            }
            Self::Prepared { gid } => format!("ROLLBACK PREPARED {}", literal(gid)),
        }
    }
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend(backend) => write!(f, "{backend}"),
            Self::Standby(backend) => write!(f, "standby behind {backend}"),
            Self::Slot { name, reader: None } => write!(f, "replication slot {name:?}, which nobody reads"),
            Self::Slot { name, reader: Some(pid) } => write!(f, "replication slot {name:?}, read by process {pid}"),
            Self::Prepared { gid } => write!(f, "prepared transaction {gid:?}"),
        }
    }
}

impl fmt::Display for ServerProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}, {}", self.pid, self.state.words())?;
        // The name and address that the server shows are pgweir's.
        if let Some(client) = &self.client {
            return write!(f, ", of our {client}");
        }
        if !self.application.is_empty() {
            write!(f, ", application {:?}", self.application)?;
        }
        if let Some(addr) = &self.addr {
            write!(f, ", from {addr}")?;
        }
        Ok(())
    }
}

fn literal(text: &str) -> String {
    String::from_utf8_lossy(&quote_literal(text.as_bytes())).into_owned()
}

/// A session with its times, as `sql` asks for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSession {
    /// The process.
    pub backend: ServerProcess,
    /// Beginning of its transaction, in microseconds of the epoch, which with the process tells transactions apart.
    pub transaction: Option<i64>,
    /// Beginning of its statement, likewise.
    pub statement: Option<i64>,
    /// Since the transaction began.
    pub transaction_age: Option<Duration>,
    /// Since the statement began.
    pub statement_age: Option<Duration>,
    /// Since it has been in its state.
    pub state_age: Option<Duration>,
}

impl ServerSession {
    /// A row of the questions for sessions, of all or of those that linger.
    pub fn read(row: &AnswerRow, own: &OwnBackends) -> Result<Self, Unreadable> {
        Ok(Self {
            backend: ServerProcess::read(row, row.value(0)?, 6, own)?,
            transaction: row.value_or_null(1)?,
            statement: row.value_or_null(2)?,
            transaction_age: row.duration_or_null(3)?,
            statement_age: row.duration_or_null(4)?,
            state_age: row.duration_or_null(5)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Digest;

    fn backend(state: SessionState) -> ServerProcess {
        ServerProcess {
            pid: 42,
            state,
            application: "worker".to_owned(),
            addr: Some("10.0.0.7".to_owned()),
            client: None,
        }
    }

    #[test]
    fn what_runs_is_cancelled_and_what_idles_is_ended() {
        assert_eq!(Culprit::Backend(backend(SessionState::Active)).remedy(), "SELECT pg_cancel_backend(42)");
        assert_eq!(
            Culprit::Backend(backend(SessionState::IdleInTransaction)).remedy(),
            "SELECT pg_terminate_backend(42)"
        );
    }

    #[test]
    fn names_are_quoted_so_that_the_remedy_is_what_it_says() {
        let prepared = Culprit::Prepared { gid: "it's'; DROP TABLE x --".to_owned() };
        assert_eq!(prepared.remedy(), "ROLLBACK PREPARED 'it''s''; DROP TABLE x --'");
        assert_eq!(prepared.to_string(), r#"prepared transaction "it's'; DROP TABLE x --""#);
    }

    #[test]
    fn a_slot_is_dropped_once_nobody_reads_it() {
        let slot = |reader| Culprit::Slot { name: "cdc".to_owned(), reader }.remedy();
        assert_eq!(slot(None), "SELECT pg_drop_replication_slot('cdc')");
        assert_eq!(slot(Some(7)), "SELECT pg_terminate_backend(7, 5000); SELECT pg_drop_replication_slot('cdc')");
    }

    #[test]
    fn a_session_is_read_with_its_times() {
        let row = ["42", "1000", "2000", "3500", "1500", "1400", "idle in transaction (aborted)", "worker", "10.0.0.7"];
        let session = ServerSession::read(&AnswerRow::of(&row.map(Some)), &OwnBackends::default()).unwrap();
        assert_eq!(session.backend, backend(SessionState::IdleInTransaction));
        assert_eq!(session.transaction_age, Some(Duration::from_millis(3500)));
        let culprit = Culprit::Backend(session.backend);
        assert_eq!(culprit.to_string(), r#"process 42, idle in transaction, application "worker", from 10.0.0.7"#);
    }

    #[test]
    fn a_session_of_a_client_of_ours_is_named_by_the_client() {
        let (row, mut own) =
            (["42", "1", "2", "3", "4", "5", "idle in transaction", "pool", "10.0.0.1"], OwnBackends::default());
        let addr = "10.0.0.7:4444".to_owned();
        own.give(
            42,
            OwnClient { pid: 12, role: "web".into(), addr, application: "worker".into(), statement: Digest(0x9f3a) },
        );
        own.add([42, 43]);
        assert!(own.has(42) && own.has(43) && !own.has(44) && own.client(43).is_none());
        let culprit = Culprit::Backend(ServerSession::read(&AnswerRow::of(&row.map(Some)), &own).unwrap().backend);
        let client = r#"client 12 (role "web", from 10.0.0.7:4444, application "worker", statement 0000000000009f3a)"#;
        assert_eq!(culprit.to_string(), format!("process 42, idle in transaction, of our {client}"));
        assert_eq!(culprit.remedy(), "SELECT pg_terminate_backend(42)");
    }

    #[test]
    fn a_session_that_may_not_be_looked_at_has_no_times() {
        let mut row = [None; 9];
        row[0] = Some("42");
        let session = ServerSession::read(&AnswerRow::of(&row), &OwnBackends::default()).unwrap();
        assert_eq!((session.backend.state, session.transaction_age), (SessionState::Other, None));
    }
}
