//! SHOW CLIENTS.

use std::sync::Arc;
use std::time::Duration;

use super::format::{address, pointer, wait};
use super::socket::SocketLine;
use crate::admin::table::{ConsoleTable, table};
use crate::clients::{Activity, ClientEntry};
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable =
    table!("CLIENTS", "every client; link is its backend, id what KILL_CLIENT takes", lines);

fn lines(proxy: &Proxy) -> Vec<SocketLine> {
    let line = |entry: Arc<ClientEntry>| {
        let (state, since, link) = match &entry.activity() {
            Activity::Idle => ("idle", None, String::new()),
            Activity::Waiting(since) => ("waiting", Some(since.elapsed()), String::new()),
            Activity::Active(target) => ("active", None, pointer(target)),
        };
        let active = proxy.clock.started_at() + Duration::from_secs(entry.last_active().into());
        SocketLine {
            side: "C",
            user: entry.role.to_string(),
            database: entry.database.to_string(),
            replication: "none",
            state,
            addr: address(&entry.addr),
            local: (String::new(), 0),
            connected: entry.connected,
            requested: active.max(entry.connected),
            wait: wait(since),
            close_needed: false,
            ptr: pointer(&entry),
            link,
            remote_pid: 0,
            is_tls: entry.is_tls,
            application_name: entry.application_name.to_string(),
            id: entry.pid.into(),
        }
    };
    proxy.clients.all().into_iter().map(line).collect()
}
