//! Settings of the server, and the advice that follows from them.

use std::time::Duration;

use super::row::{AnswerRow, Unreadable};

/// With more backends than this a deadlock check a second is a danger (docs/PROTECTION.md).
const BACKENDS_MANY: u32 = 200;

/// An answer to [`sql::SERVER`](super::sql::SERVER).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedServer {
    /// `server_version_num`.
    pub version: u32,
    /// It follows another one.
    pub is_standby: bool,
    /// Other sessions' states may be seen.
    pub may_look: bool,
    /// A session looks for deadlocks after so long in wait for a lock.
    pub deadlock_timeout: Duration,
    /// How often a running statement looks for its client; zero: never.
    pub client_connection_check_interval: Duration,
    /// Zero: none.
    pub idle_in_transaction_session_timeout: Duration,
    /// Long waits for locks are logged.
    pub log_lock_waits: bool,
    /// Connections at once.
    pub connections_max: u32,
    /// The database of the connection.
    pub database: u32,
    /// Which server it is.
    pub identity: Postmaster,
}

/// A server as it tells itself from all others, whatever it is called and however it is reached: when it began, in
/// microseconds of the epoch, and its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Postmaster {
    pub began: i64,
    pub port: u16,
}

impl WatchedServer {
    /// Reads its row.
    pub fn read(row: &AnswerRow) -> Result<Self, Unreadable> {
        Ok(Self {
            version: row.value(0)?,
            is_standby: row.is(1)?,
            may_look: row.is(2)?,
            deadlock_timeout: row.duration(3)?,
            client_connection_check_interval: row.duration(4)?,
            idle_in_transaction_session_timeout: row.duration(5)?,
            log_lock_waits: row.text(6)? == "on",
            connections_max: row.value(7)?,
            database: row.value(8)?,
            identity: Postmaster { began: row.value(9)?, port: row.value(10)? },
        })
    }

    /// Advice about settings, a sentence each; `backends_max`: backends pgweir may open.
    pub fn advice(&self, backends_max: Option<u32>) -> Vec<String> {
        let mut advice = Vec::new();
        if !self.may_look {
            advice.push("the watch sees its own role's sessions only: GRANT pg_monitor to its role".to_owned());
        }
        let backends = backends_max.map_or(self.connections_max, |max| max.min(self.connections_max));
        if self.deadlock_timeout <= Duration::from_secs(1) && backends > BACKENDS_MANY {
            advice.push(format!(
                "deadlock_timeout = {} ms with up to {backends} backends: a long line for one lock stops the server; raise it or \
                 lower the pools",
                self.deadlock_timeout.as_millis()
            ));
        }
        if self.client_connection_check_interval.is_zero() {
            let text = "client_connection_check_interval = 0: statements of clients that are gone run to their end";
            advice.push(text.to_owned());
        }
        if !self.log_lock_waits {
            advice.push("log_lock_waits = off: the server's log does not say who waits for whom".to_owned());
        }
        if let Some(max) = backends_max.filter(|max| *max > self.connections_max) {
            advice.push(format!(
                "max_connections = {}: less than the {max} backends pgweir may open",
                self.connections_max
            ));
        }
        advice
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: [&str; 8] = ["150020", "f", "t", "1000", "0", "0", "off", "100"];
    const WHERE: [&str; 3] = ["5", "1700000000000000", "5432"];

    fn server(columns: [&str; 8]) -> WatchedServer {
        let columns: Vec<_> = columns.into_iter().chain(WHERE).map(Some).collect();
        WatchedServer::read(&AnswerRow::of(&columns)).unwrap()
    }

    #[test]
    fn a_server_as_shipped_gets_advice_and_one_set_up_well_gets_none() {
        assert_eq!(server(DEFAULTS).advice(Some(80)).len(), 2);
        let well = server(["180004", "f", "t", "2000", "10000", "0", "on", "500"]);
        assert_eq!(well.advice(Some(300)), [""; 0]);
    }

    #[test]
    fn many_backends_and_early_deadlock_checks_do_not_go_together() {
        let early = server(["150020", "f", "t", "1000", "10000", "0", "on", "500"]);
        assert_eq!(early.advice(Some(200)), [""; 0]);
        assert!(early.advice(Some(201))[0].starts_with("deadlock_timeout = 1000 ms with up to 201 backends"));
        assert!(early.advice(None)[0].contains("up to 500 backends"));
    }

    #[test]
    fn more_backends_than_the_server_takes_are_named() {
        let small = server(["150020", "f", "t", "2000", "10000", "0", "on", "100"]);
        assert_eq!(small.advice(Some(101)), ["max_connections = 100: less than the 101 backends pgweir may open"]);
    }

    #[test]
    fn who_may_not_look_is_told_what_to_grant() {
        let blind = server(["150020", "f", "f", "2000", "10000", "0", "on", "100"]);
        assert_eq!(blind.advice(None), ["the watch sees its own role's sessions only: GRANT pg_monitor to its role"]);
    }
}
