//! SHOW TOPOLOGY: one line for each server of each database that has a topology.

use std::sync::Arc;

use crate::admin::table::{ConsoleTable, columns, table};
use crate::pool::core::{ReaderDuty, ReaderSpec};
use crate::pool::host_port::HostPort;
use crate::proxy::Proxy;
use crate::topology::core::{MemberState, Observation};
use crate::topology::monitor::{TopologyMonitor, TopologyView};

pub(super) const TABLE: ConsoleTable = table!(
    "TOPOLOGY",
    "servers of databases with a topology: the role each was seen to have, and which is used, or why none is",
    lines,
);

struct ServerLine {
    database: Arc<str>,
    source: &'static str,
    host: HostPort,
    state: MemberState,
    is_used: bool,
    /// Of the database.
    epoch: u64,
    /// Time since the primary became known, or unknown.
    age_seconds: u64,
    /// The reason why no server is used, or why this one cannot be asked.
    reason: Option<String>,
}

impl ServerLine {
    fn seen(&self) -> Option<&Observation> {
        match &self.state {
            MemberState::Seen(observation) => Some(observation),
            MemberState::Unknown | MemberState::Failed(_) => None,
        }
    }
}

columns! { ServerLine;
    "database" text = |it| &*it.database,
    "source" text = |it| it.source,
    "host" text = |it| it.host.to_string(),
    "role" text = |it| it.seen().map(|seen| seen.role.word()),
    "timeline" long = |it| it.seen().and_then(|seen| seen.timeline),
    "used" int = |it| it.is_used,
    "epoch" long = |it| it.epoch,
    "since_seconds" long = |it| it.age_seconds,
    "reason" text = |it| it.reason.as_ref(),
}

fn lines(proxy: &Proxy) -> Vec<ServerLine> {
    let of = |monitor: Arc<TopologyMonitor>| {
        let TopologyView { members, verdict, age, epoch, readers } = monitor.view();
        let reads = |host: &HostPort| {
            let is_it = |spec: &ReaderSpec| spec.duty == ReaderDuty::Reads && spec.is_at(host);
            readers.as_ref().map(|specs| specs.iter().any(is_it))
        };
        let line = move |(host, state): (HostPort, MemberState)| ServerLine {
            database: Arc::clone(&monitor.database),
            source: monitor.source.word(),
            is_used: reads(&host).unwrap_or_else(|| verdict.as_ref() == Ok(&host)),
            reason: match (&state, &verdict) {
                (MemberState::Failed(reason), _) => Some(reason.to_string()),
                (_, Err(doubt)) if reads(&host).is_none() => Some(doubt.to_string()),
                (_, _) => None,
            },
            host,
            state,
            epoch,
            age_seconds: age.as_secs(),
        };
        members.into_iter().map(line).collect::<Vec<_>>()
    };
    proxy.topologies.all().into_iter().flat_map(of).collect()
}
