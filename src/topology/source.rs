//! The source that a configuration asks for.

use std::sync::Arc;

use super::aurora::AuroraSource;
use super::core::{ReaderLimits, ReaderSettings};
use super::dns::DnsSource;
use super::observe::ObserveTopology;
use super::patroni::PatroniSource;
use super::probe::ProbeSource;
use super::reader_hosts::ReaderHosts;
use crate::config::{AuroraCluster, Database, PatroniApi, PoolSettings, TopologySource, WatchLogin, own_settings};
use crate::pool::core::ReaderRules;
use crate::pool::lease::Pools;

/// The part of the configuration that says how a cluster is looked at; another one begins a new look.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SourceSettings {
    pub(super) source: TopologySource,
    /// How servers are asked.
    pub(super) login: PoolSettings,
    patroni: Option<PatroniApi>,
    aurora: Option<AuroraCluster>,
    /// Where the database is read from several servers.
    pub(super) readers: Option<ReaderSettings>,
}

impl SourceSettings {
    /// Of a database that clients ask for by this name; `None`: it has no topology and no readers. `watch` is the role
    /// that watches it, where it has no login for this purpose.
    pub(super) fn of(name: &str, database: &Database, watch: Option<&WatchLogin>) -> Option<Self> {
        let keys = &database.reads;
        if database.topology == TopologySource::Off && !keys.readers {
            return None;
        }
        let (role, password) = match (&database.probe, watch) {
            (Some(probe), _) => (probe.role.as_str(), probe.password.as_ref()),
            (None, Some(watch)) => (watch.role.as_str(), watch.password.as_ref()),
            (None, None) => ("", None),
        };
        let mut login = own_settings(name, database, role, password);
        if let Some(probe) = &database.probe {
            login.endpoint.dbname.clone_from(&probe.dbname);
        }
        let (patroni, aurora) = (database.patroni.clone(), database.aurora.clone());
        let readers = keys.readers.then(|| ReaderSettings {
            rules: ReaderRules { load_balance: keys.load_balance, fallback_max: keys.fallback_max },
            limits: ReaderLimits::new(keys, &database.hosts),
        });
        Some(Self { source: database.topology, login, patroni, aurora, readers })
    }

    /// The source that they describe.
    pub(super) fn start(&self, pools: &Arc<Pools>) -> Box<dyn ObserveTopology> {
        let (pools, login) = (Arc::clone(pools), self.login.clone());
        match (self.source, self.patroni.clone(), self.aurora.clone()) {
            (TopologySource::Patroni, Some(api), _) => Box::new(PatroniSource::new(pools, api)),
            (TopologySource::Aurora, _, Some(cluster)) => Box::new(AuroraSource::new(pools, login, cluster)),
            (TopologySource::Off | TopologySource::Dns, ..) if self.readers.is_some() => {
                Box::new(ReaderHosts::new(pools, login))
            }
            (TopologySource::Dns, ..) => Box::new(DnsSource::new(pools, login)),
            _ => Box::new(ProbeSource::new(pools, login)),
        }
    }
}
