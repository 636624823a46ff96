//! A socket, as SHOW CLIENTS and SHOW SERVERS both have it.

use std::time::SystemTime;

use super::format::time;
use crate::admin::table::columns;

/// One connection, of a client or of a backend.
pub(super) struct SocketLine {
    /// `C` or `S`.
    pub(super) side: &'static str,
    pub(super) user: String,
    pub(super) database: String,
    pub(super) replication: &'static str,
    pub(super) state: &'static str,
    pub(super) addr: (String, u16),
    /// Our end.
    pub(super) local: (String, u16),
    pub(super) connected: SystemTime,
    /// When something last came over it.
    pub(super) requested: SystemTime,
    /// How long it has waited, seconds and microseconds.
    pub(super) wait: (u64, u32),
    pub(super) close_needed: bool,
    pub(super) ptr: String,
    /// The name of the socket at the other side, if there is one now.
    pub(super) link: String,
    pub(super) remote_pid: i32,
    pub(super) is_tls: bool,
    pub(super) application_name: String,
    pub(super) id: i64,
}

columns! { SocketLine;
    "type" text = |it| it.side,
    "user" text = |it| &it.user,
    "database" text = |it| &it.database,
    "replication" text = |it| it.replication,
    "state" text = |it| it.state,
    "addr" text = |it| &it.addr.0,
    "port" int = |it| it.addr.1,
    "local_addr" text = |it| &it.local.0,
    "local_port" int = |it| it.local.1,
    "connect_time" text = |it| time(it.connected),
    "request_time" text = |it| time(it.requested),
    "wait" int = |it| it.wait.0,
    "wait_us" int = |it| it.wait.1,
    "close_needed" int = |it| it.close_needed,
    "ptr" text = |it| &it.ptr,
    "link" text = |it| &it.link,
    "remote_pid" int = |it| it.remote_pid,
    "tls" text = |it| if it.is_tls { "TLS" } else { "" },
    "application_name" text = |it| &it.application_name,
    "prepared_statements" int = |_it| 0,
    "id" int = |it| it.id,
}
