//! Processes of a server that pgweir is connected to, and the client each serves at this moment.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::sql::Digest;

/// A client of pgweir.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnClient {
    /// Its id: `SHOW CLIENTS` has it, `KILL` takes it.
    pub pid: i32,
    /// Login role.
    pub role: Arc<str>,
    /// Its address and port.
    pub addr: String,
    /// `application_name` at its login; may be empty.
    pub application: Box<str>,
    /// The last statement that it sent; [`Digest::NONE`]: not known.
    pub statement: Digest,
}

impl fmt::Display for OwnClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, role, addr, application, statement } = self;
        write!(f, "client {pid} (role {role:?}, from {addr}")?;
        if !application.is_empty() {
            write!(f, ", application {application:?}")?;
        }
        if *statement != Digest::NONE {
            write!(f, ", statement {statement}")?;
        }
        f.write_str(")")
    }
}

/// The processes of one server that pgweir is connected to, each with the client that has it.
#[derive(Debug, Clone, Default)]
pub struct OwnBackends(HashMap<i32, Option<OwnClient>>);

impl OwnBackends {
    /// Adds processes that no client has.
    pub fn add(&mut self, pids: impl IntoIterator<Item = i32>) {
        for pid in pids {
            self.0.entry(pid).or_insert(None);
        }
    }

    /// Adds a process that this client has.
    pub fn give(&mut self, pid: i32, client: OwnClient) {
        self.0.insert(pid, Some(client));
    }

    /// Whether pgweir is connected to this process.
    pub fn has(&self, pid: i32) -> bool {
        self.0.contains_key(&pid)
    }

    /// The client that has it.
    pub fn client(&self, pid: i32) -> Option<&OwnClient> {
        self.0.get(&pid)?.as_ref()
    }
}
