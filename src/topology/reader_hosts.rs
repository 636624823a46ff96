//! Readers without a topology that asks them: every address of every host is one.
//!
//! Whether one answers is seen where backends are opened. One that did not is tried here once a second, beside the
//! pools, until it takes a connection: a pool that is full of others would have no place to find out.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

use super::core::{LagReport, Observation, SeenRole};
use super::monitor::{TopologyMonitor, within};
use super::observe::{ObserveTopology, configured_hosts};
use crate::config::PoolSettings;
use crate::pool::host_port::{HostPort, ServerTarget};
use crate::pool::lease::Pools;

/// A server that takes longer for a connection is of no use to clients.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Follows the names of the hosts.
pub(super) struct ReaderHosts {
    pools: Arc<Pools>,
    login: PoolSettings,
    /// The addresses last found for each name: a name server that does not answer changes nothing.
    found: BTreeMap<HostPort, BTreeSet<IpAddr>>,
}

impl ReaderHosts {
    pub(super) fn new(pools: Arc<Pools>, login: PoolSettings) -> Self {
        Self { pools, login, found: BTreeMap::new() }
    }

    /// The servers, with the name of those that were found by one.
    async fn servers(&mut self) -> BTreeMap<HostPort, Option<Arc<str>>> {
        let mut servers = BTreeMap::new();
        for host in configured_hosts(&self.login) {
            if host.host.starts_with('/') || host.host.parse::<IpAddr>().is_ok() {
                servers.insert(host, None);
                continue;
            }
            let names = self.pools.opener().names();
            if let Ok(found) = within(ANSWER_MAX, names.look_up(&host.host, host.port)).await {
                let addresses = of_one_family(&found);
                if !addresses.is_empty() {
                    self.found.insert(host.clone(), addresses);
                }
            }
            for address in self.found.get(&host).into_iter().flatten() {
                let server = HostPort { host: address.to_string(), port: host.port };
                servers.insert(server, Some(host.host.as_str().into()));
            }
        }
        servers
    }
}

/// A server with addresses of both families is one server.
fn of_one_family(found: &[SocketAddr]) -> BTreeSet<IpAddr> {
    let is_mixed = found.iter().any(SocketAddr::is_ipv4);
    found.iter().map(SocketAddr::ip).filter(|address| address.is_ipv4() || !is_mixed).collect()
}

impl ObserveTopology for ReaderHosts {
    fn run(mut self: Box<Self>, monitor: Arc<TopologyMonitor>) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            loop {
                let servers = self.servers().await;
                if !servers.is_empty() {
                    monitor.members(&servers.keys().cloned().collect());
                }
                for (server, name) in servers {
                    let (role, lag) = (SeenRole::Unasked, LagReport::Unknown);
                    monitor.observed(&server, Observation { role, timeline: None, mark: None, name, lag });
                }
                let mut looks = JoinSet::new();
                for target in monitor.down_readers() {
                    let monitor = Arc::clone(&monitor);
                    looks.spawn_local(async move {
                        if within(ANSWER_MAX, connect(&target)).await.is_ok() {
                            monitor.reached(&target);
                        }
                    });
                }
                while looks.join_next().await.is_some() {}
                monitor.next_look().await;
            }
        })
    }
}

/// Connects and leaves without a word, of which the server says nothing in its log.
async fn connect(target: &ServerTarget) -> std::io::Result<()> {
    let HostPort { host, port } = &target.host;
    if host.starts_with('/') {
        UnixStream::connect(PathBuf::from(host).join(format!(".s.PGSQL.{port}"))).await?;
        return Ok(());
    }
    match target.address {
        Some(address) => TcpStream::connect((address, *port)).await?,
        None => TcpStream::connect((host.as_str(), *port)).await?,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_with_addresses_of_both_families_is_one() {
        let addresses = |found: &[&str]| {
            let found: Vec<SocketAddr> = found.iter().map(|text| text.parse().expect("an address")).collect();
            of_one_family(&found).len()
        };
        assert_eq!(addresses(&["[::1]:1", "127.0.0.1:1"]), 1);
        assert_eq!(addresses(&["[fd00::1]:1", "[fd00::2]:1"]), 2);
        assert_eq!(addresses(&["10.0.0.1:1", "10.0.0.2:1", "10.0.0.2:1"]), 2);
    }
}
