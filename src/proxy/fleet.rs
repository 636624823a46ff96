//! What this instance uses of the fleet's limits, and its shares of them.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::Proxy;
use crate::admission::fleet_share::FleetUse;
use crate::config::{Config, FleetMode, ListenAddr};
use crate::fleet::lease::facts::MemberFacts;
use crate::fleet::lease::leases::LeaseShares;
use crate::fleet::lease::order::{RoleChange, RoleOrder};
use crate::orders::given::{GivenOrder, OrderMark, OrderTarget};
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
        let lanes = self.lanes.of_file();
        let (roles, databases) = (self.directory.all_role_queues(), self.directory.all_databases());
        let name = |limit: FleetLimit| match limit {
            FleetLimit::Role(id) => {
                let role = roles.iter().find(|(_, of)| *of == id).map(|(name, _)| format!("role {name}"));
                role.or_else(|| lanes.iter().find(|lane| lane.id == id).map(|lane| format!("lane {}", lane.name)))
            }
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

    /// Changes a role's limit as was ordered so long ago. Only on a worker's thread.
    pub(crate) fn change_role(&self, worker: usize, role: &str, change: RoleChange, ago: Duration) {
        let Some(id) = self.directory.role_queue(role) else { return };
        let now = Instant::now();
        let began = now.checked_sub(ago).unwrap_or(now);
        self.pools.decide(worker, |core, out| match change {
            RoleChange::Limit { max, over } => core.limit_role_queue(id, (Some(max), over), began, now, out),
            RoleChange::Default => core.unlimit_role_queue(id, now, out),
            // One that is over has no more to say.
            RoleChange::Ramp { over } if over <= ago && !ago.is_zero() => {}
            RoleChange::Ramp { over } => core.ramp_role_queue(id, over, began, now, out),
        });
    }

    /// Has an order that was given here go to the other instances.
    pub(crate) fn give_order(&self, role: &str, change: RoleChange, by: &str, from: &str) {
        let Some(leases) = &self.leases else { return };
        let config = self.config.load();
        let at = address(&config);
        let order = RoleOrder { change, file: file_limit(&config, role), by: by.to_owned(), from: from.to_owned(), at };
        leases.give(role, order.to_string());
    }

    /// Carries out an order of another instance. Only on a worker's thread.
    pub(crate) fn obey(&self, worker: usize, role: &str, text: &str, ago: Duration) {
        let Some(order) = RoleOrder::read(text) else {
            tracing::warn!(role, "another version of pgweir gave an order that this one does not know");
            return;
        };
        let RoleOrder { change, file, by, from, at } = order;
        if file_limit(&self.config.load(), role) != file {
            tracing::info!(role, %change, %at, "the file has another limit than where an order was given: it stays");
            return;
        }
        tracing::info!(role, %change, by, from, at, ?ago, "an order of the fleet");
        self.change_role(worker, role, change, ago);
        let target = OrderTarget::Limit(role.to_owned());
        let mark = match change {
            RoleChange::Limit { .. } => OrderMark::Begins(target),
            RoleChange::Default => OrderMark::Ends(target),
            RoleChange::Ramp { .. } => return,
        };
        let at = SystemTime::now().checked_sub(ago).unwrap_or_else(SystemTime::now);
        self.given_orders.mark(mark, GivenOrder { typed: change.to_string(), by, from, at });
    }

    /// Puts these shares into force. Only on a worker's thread.
    pub(crate) fn apply_shares(&self, worker: usize, limits: &[FleetLimit], shares: &LeaseShares) {
        let own = limits.iter().copied().zip(shares.own.iter().copied()).collect();
        let parts = FleetParts { general: shares.general, own, lapses: Some(shares.until) };
        self.pools.decide(worker, |core, out| core.set_parts(parts, Instant::now(), out));
    }
}

fn file_limit(config: &Config, role: &str) -> Option<u32> {
    config.role(role)?.limits.admission.transactions_max
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
