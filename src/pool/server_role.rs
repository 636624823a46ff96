//! Checks whether a pool is still connected to the server it is meant for.
//!
//! A server may stop being the primary, or a name may lead elsewhere, while its connections go on. Neither is believed
//! on first sight: an application gets 25006 in a read-only transaction of its own, and a reader endpoint answers with
//! another address each time. So 25006 makes us ask the server, and names are watched only where a primary is wanted.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::lease::Pools;
use super::names::HostNames;
use super::open;
use super::pool::Pool;
use crate::config::ServerRole;

/// How often names are resolved again.
pub(crate) const RESOLVE_EVERY: Duration = Duration::from_secs(5);

/// Asks a backend for its server's role, and replaces all backends if it is the wrong one. Once at a time per pool. A
/// topology asks the server itself, beside the pool.
pub(crate) fn recheck(pools: &Arc<Pools>, pool: &Arc<Pool>, worker: usize) {
    let wanted = pool.settings().endpoint.server_role;
    if let Some(route) = pool.route() {
        return route.doubt();
    }
    if wanted == ServerRole::Any || pool.is_rechecking.swap(true, Ordering::AcqRel) {
        return;
    }
    let (pools, pool) = (Arc::clone(pools), Arc::clone(pool));
    tokio::task::spawn_local(async move {
        let limit = pool.settings().pool.connect_timeout;
        let is_standby = timeout(limit, async {
            let mut lease = pools.wait(&pool, worker).await.ok()?;
            let is_standby = open::is_standby(&mut lease.stream).await.ok()?;
            lease.release(Instant::now());
            Some(is_standby)
        })
        .await;
        if let Ok(Some(is_standby)) = is_standby
            && is_standby != (wanted == ServerRole::Standby)
        {
            tracing::warn!(database = %pool.name.database, ?wanted, "the server changed its server role; backends are replaced");
            pools.decide(worker, |core, out| core.retire_database(pool.database, Instant::now(), out));
        }
        pool.is_rechecking.store(false, Ordering::Release);
    });
}

/// Replaces backends whose address the name of their host no longer has.
pub(crate) async fn follow_names(pools: &Arc<Pools>, worker: usize) {
    for pool in pools.all() {
        if leads_elsewhere(pools.opener().names(), &pool).await {
            tracing::info!(database = %pool.name.database, "the host's name leads elsewhere; backends are replaced");
            pools.decide(worker, |core, out| core.retire_pool(pool.id, Instant::now(), out));
        }
    }
}

/// Whether the names of a primary's hosts no longer have an address that connections of the pool were opened to; the
/// pool then forgets such addresses.
pub(crate) async fn leads_elsewhere(names: &HostNames, pool: &Pool) -> bool {
    let settings = Arc::clone(&pool.settings());
    let used: HashSet<IpAddr> = pool.addresses();
    if settings.endpoint.server_role != ServerRole::Primary || used.is_empty() || pool.route().is_some() {
        return false;
    }
    let mut named = HashSet::new();
    for host in settings.endpoint.hosts.iter().filter(|host| !host.starts_with('/')) {
        let Ok(found) = names.follow(host, settings.endpoint.port, RESOLVE_EVERY).await else { return false };
        named.extend(found.iter().map(SocketAddr::ip));
    }
    let is_elsewhere = !named.is_empty() && !used.is_subset(&named);
    if is_elsewhere {
        pool.forget_addresses();
    }
    is_elsewhere
}
