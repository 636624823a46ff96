//! Asks one server for its role, again and again, on a connection of its own.
//!
//! A connection that breaks is replaced at once: that a connection ended says little about a server, that none can be
//! opened says enough.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::monitor::{TopologyMonitor, within};
use crate::auth::Credential;
use crate::config::{PoolSettings, ServerRole};
use crate::metrics::PoolStats;
use crate::pool::address::ServerAddress;
use crate::pool::core::{DatabaseId, PoolId};
use crate::pool::host_port::HostPort;
use crate::pool::in_use::InUse;
use crate::pool::lease::Pools;
use crate::pool::link::{Link, LinkError};
use crate::pool::pool::{Pool, PoolKind, PoolName};

/// A server that takes longer for an answer of some bytes is of no use to clients either.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Name of the connection, for `pg_stat_activity`.
const APPLICATION_NAME: &str = "pgweir topology";

/// The prober of one server.
pub(super) struct Prober {
    pools: Arc<Pools>,
    pool: Arc<Pool>,
    host: HostPort,
}

/// The outcome of one look.
pub(super) enum ProbeAnswer {
    /// The answer to the question, and the address it came from.
    Text { text: String, address: Option<IpAddr> },
    /// The server refused the question.
    Refused(String),
}

impl Prober {
    /// Of `host`, with this login.
    pub(super) fn new(pools: Arc<Pools>, login: &PoolSettings, host: HostPort) -> Self {
        let mut login = login.clone();
        login.endpoint.hosts = vec![host.host.clone()];
        login.endpoint.port = host.port;
        login.endpoint.server_role = ServerRole::Any;
        login.pool.connect_timeout = login.pool.connect_timeout.min(ANSWER_MAX);
        let credential = Credential::from(login.endpoint.password.clone());
        let role = login.endpoint.role.as_str().into();
        let name = PoolName { database: login.endpoint.dbname.as_str().into(), role, kind: PoolKind::Internal };
        // In no core: only the prober logs in by it.
        let (id, database) = (PoolId::default(), DatabaseId::default());
        let pool = Arc::new(Pool::new(id, database, name, login, credential, PoolStats::new(1)));
        Self { pools, pool, host }
    }

    /// Asks `question` at each look, and hands what comes of it to `heard`; failures go to the monitor.
    pub(super) async fn run(&self, monitor: &TopologyMonitor, question: &str, mut heard: impl FnMut(ProbeAnswer)) {
        let mut link = None;
        loop {
            if let Err(reason) = self.look(&mut link, question, &mut heard).await {
                link = None;
                // Without a connection the reason is a failed look; with one it may only have been that connection.
                if let Err(reason) = self.look(&mut link, question, &mut heard).await.map_err(|_| reason) {
                    link = None;
                    monitor.failed(&self.host, &reason);
                }
            }
            self.wait(monitor, &mut link).await;
        }
    }

    /// Waits for the next look, or for the end of the connection.
    async fn wait(&self, monitor: &TopologyMonitor, link: &mut Option<Link>) {
        let Some(open) = link else { return monitor.next_look().await };
        let is_broken = tokio::select! {
            () = monitor.next_look() => false,
            said = open.said() => said.is_err(),
        };
        if is_broken {
            *link = None;
        }
    }

    async fn look(
        &self,
        link: &mut Option<Link>,
        question: &str,
        heard: &mut impl FnMut(ProbeAnswer),
    ) -> Result<(), String> {
        if let Some(open) = link
            && self.leads_elsewhere(open).await
        {
            *link = None;
        }
        if link.is_none() {
            let pool = InUse::new(Arc::clone(&self.pool));
            match within(ANSWER_MAX, Link::open(self.pools.opener(), pool, APPLICATION_NAME)).await {
                Ok(opened) => *link = Some(opened),
                // It comes back when the client that wants the database for itself is done.
                Err(reason) if reason == LinkError::Left.to_string() => return Ok(()),
                Err(reason) => return Err(reason),
            }
        }
        let Some(open) = link else { return Ok(()) };
        let answer = within(ANSWER_MAX, open.ask(question.as_bytes(), |_| ())).await?;
        let address = match open.address() {
            ServerAddress::Tcp { addr, .. } => Some(addr.ip()),
            ServerAddress::Unix(_) => None,
        };
        heard(match answer {
            Ok(text) => {
                let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
                ProbeAnswer::Text { text, address }
            }
            Err(refused) => ProbeAnswer::Refused(refused.message),
        });
        Ok(())
    }

    /// Whether the host's name no longer has the address of this connection.
    async fn leads_elsewhere(&self, link: &Link) -> bool {
        let ServerAddress::Tcp { addr, .. } = link.address() else { return false };
        let HostPort { host, port } = &self.host;
        if host.parse::<IpAddr>().is_ok() {
            return false;
        }
        let found = within(ANSWER_MAX, self.pools.opener().names().look_up(host, *port)).await;
        // A name server that does not answer says nothing about the server.
        found.is_ok_and(|found| !found.is_empty() && !found.contains(addr))
    }
}
