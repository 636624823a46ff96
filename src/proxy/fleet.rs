//! What this instance uses of the fleet's limits, and its shares of them.

use tokio::time::Instant;

use super::Proxy;
use crate::admission::fleet_share::FleetUse;
use crate::config::{Config, FleetMode, ListenAddr};
use crate::fleet::lease::facts::MemberFacts;
use crate::fleet::lease::leases::LeaseShares;
use crate::pool::core::{FleetLimit, FleetParts};

/// A limit that all instances know by the same name.
#[derive(Debug, Clone)]
pub(crate) struct NamedUse {
    pub(crate) name: String,
    pub(crate) limit: FleetLimit,
    pub(crate) uses: FleetUse,
}

impl NamedUse {
    /// As the book knows it.
    pub(crate) fn pair(&self) -> (&str, FleetUse) {
        (&self.name, self.uses)
    }
}

impl Proxy {
    /// Every limit of the fleet that exists here.
    pub(crate) fn fleet_uses(&self, now: Instant) -> Vec<NamedUse> {
        let (roles, databases) = (self.directory.all_role_queues(), self.directory.all_databases());
        let name = |limit: FleetLimit| match limit {
            FleetLimit::Role(id) => roles.iter().find(|(_, of)| *of == id).map(|(name, _)| format!("role {name}")),
            FleetLimit::Database(id) => {
                databases.iter().find(|(_, of)| *of == id).map(|(name, _)| format!("database {name}"))
            }
            FleetLimit::Total => Some("total".to_owned()),
        };
        let uses = self.pools.core().fleet_uses(now);
        uses.into_iter().filter_map(|(limit, uses)| Some(NamedUse { name: name(limit)?, limit, uses })).collect()
    }

    /// About this instance, for the others.
    pub(crate) fn fleet_facts(&self, uses: &[NamedUse], now: Instant) -> MemberFacts {
        let sum = |of: fn(&FleetUse) -> u32| {
            let roles = uses.iter().filter(|one| matches!(one.limit, FleetLimit::Role(_)));
            roles.map(|one| of(&one.uses)).sum()
        };
        MemberFacts {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: address(&self.config.load()),
            state: self.fleet_state(now).to_owned(),
            clients: self.clients.len() as u64,
            active: sum(|uses| uses.used),
            waiting: sum(|uses| uses.wanted - uses.used),
            limits: uses.iter().map(|one| (one.name.clone(), (one.uses.cap, one.uses.limit))).collect(),
        }
    }

    /// The name of this instance.
    pub(crate) fn instance(&self) -> String {
        format!("{:016x}", self.cancels.id)
    }

    /// By what transactions are let in.
    pub(crate) fn fleet_state(&self, now: Instant) -> &'static str {
        match (&self.leases, &self.census) {
            (Some(leases), _) => leases.current(now).word(),
            (None, Some(_)) => FleetMode::Count.word(),
            (None, None) => FleetMode::Off.word(),
        }
    }

    /// Instances that the limits are divided among; `None`: they are ours alone.
    pub(crate) fn fleet_size(&self, now: Instant) -> Option<u32> {
        match (&self.leases, &self.census) {
            (Some(leases), _) => Some(leases.view(now).size()),
            (None, Some(census)) => Some(census.members()),
            (None, None) => None,
        }
    }

    /// Has the limits of the configuration exist, so that their leases are there before the first client is.
    pub(crate) fn make_limits(&self, config: &Config) {
        for (role, settings) in &config.roles {
            if role != "*" && settings.limits.admission.transactions_max.is_some() {
                self.directory.role_queue(role);
            }
        }
        for (database, settings) in &config.databases {
            if database != "*" && settings.backends_max.is_some() {
                self.directory.meant(Some(database));
            }
        }
    }

    /// Puts these shares into force. Only on a worker's thread.
    pub(crate) fn apply_shares(&self, worker: usize, limits: &[FleetLimit], shares: &LeaseShares) {
        let own = limits.iter().copied().zip(shares.own.iter().copied()).collect();
        let parts = FleetParts { general: shares.general, own, lapses: Some(shares.until) };
        self.pools.decide(worker, |core, out| core.set_parts(parts, Instant::now(), out));
    }
}

/// Where clients reach this instance: its first address, by the name of the host where that is every address.
fn address(config: &Config) -> String {
    match config.listen.addr.first() {
        Some(ListenAddr::Tcp(addr)) if addr.ip().is_unspecified() => {
            format!("{}:{}", rustix::system::uname().nodename().to_string_lossy(), addr.port())
        }
        Some(addr) => addr.to_string(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    }
}
