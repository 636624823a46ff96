//! SHOW SERVERS.

use std::collections::HashMap;
use std::sync::Arc;

use super::format::pointer;
use super::socket::SocketLine;
use crate::admin::table::{ConsoleTable, table};
use crate::clients::{Activity, ClientEntry};
use crate::pool::address::ServerAddress;
use crate::pool::core::SlotPhase;
use crate::pool::pool::{Pool, PoolKind};
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable = table!("SERVERS", "every backend; link is its client", lines);

fn lines(proxy: &Proxy) -> Vec<SocketLine> {
    let holders: HashMap<String, String> = proxy.clients.all().iter().filter_map(holding).collect();
    let mut lines = Vec::new();
    for (index, (slot, facts)) in (0_i64..).zip(proxy.pools.backends().all()) {
        let core = proxy.pools.core();
        let Some(phase) = core.phase(slot) else { continue };
        let close_needed = phase == SlotPhase::Closing || core.is_retired(slot);
        drop(core);
        let name = &facts.pool.name;
        let ptr = pointer(&facts.target);
        lines.push(SocketLine {
            side: "S",
            user: name.role.to_string(),
            database: name.database.to_string(),
            replication: replication(&facts.pool),
            state: state(phase),
            addr: match &facts.target.address {
                ServerAddress::Tcp { addr, .. } => (addr.ip().to_string(), addr.port()),
                ServerAddress::Unix(path) => (path.display().to_string(), 0),
            },
            local: facts.local.map_or((String::new(), 0), |local| (local.ip().to_string(), local.port())),
            connected: facts.connected,
            requested: facts.connected,
            wait: (0, 0),
            close_needed,
            link: holders.get(&ptr).cloned().unwrap_or_default(),
            ptr,
            remote_pid: facts.target.key.as_ref().map_or(0, |key| key.0),
            is_tls: facts.is_tls,
            application_name: String::new(),
            id: index,
        });
    }
    lines
}

/// A client with a backend: the backend's name and its own.
fn holding(entry: &Arc<ClientEntry>) -> Option<(String, String)> {
    match entry.activity() {
        Activity::Active(target) => Some((pointer(&target), pointer(entry))),
        Activity::Idle | Activity::Waiting(_) => None,
    }
}

fn state(phase: SlotPhase) -> &'static str {
    match phase {
        SlotPhase::Opening => "new",
        SlotPhase::Idle => "idle",
        SlotPhase::Handed | SlotPhase::Leased => "active",
        SlotPhase::Closing => "closing",
        SlotPhase::Zombie => "zombie",
    }
}

/// The replication protocol that the pool's backends speak.
fn replication(pool: &Pool) -> &'static str {
    match &pool.name.kind {
        PoolKind::Replication(parameters) if parameters.iter().any(|(_, value)| value == "database") => "logical",
        PoolKind::Replication(_) => "physical",
        PoolKind::Ordinary | PoolKind::Internal => "none",
    }
}
