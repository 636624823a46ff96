//! What the server says about the backends of one role, five times a second.

use std::time::Duration;

use tokio::time::Instant;

use crate::looks::Looks;
use crate::session::Session;

/// The function, not the view pg_stat_activity: that joins catalogs, and hangs when the lock manager does.
const COUNTS: &str = "
SELECT count(*) FILTER (WHERE wait_event_type = 'Lock' OR wait_event = 'LockManager'),
       count(*) FILTER (WHERE state = 'active'),
       count(*) FILTER (WHERE state <> 'idle')
FROM pg_stat_get_activity(NULL) WHERE usesysid = ";

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(200);

/// One look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// When it was asked for.
    pub(crate) at: Instant,
    /// Backends in the queue of a lock, or checking it for a deadlock.
    pub(crate) waiting: u64,
    /// Backends that run a statement.
    pub(crate) active: u64,
    /// Backends that run a statement or have a transaction open.
    pub(crate) busy: u64,
}

/// A sampler that runs, on a thread of its own.
pub(crate) struct Sampler(Looks);

impl Sampler {
    /// Begins to look at the backends of `role` at the server on `port`. It may stop and start meanwhile.
    pub(crate) async fn start(port: u16, role: &str) -> Self {
        let oid = oid(port, role).await;
        Self(Looks::start(port, format!("{COUNTS}{oid}"), PERIOD).await)
    }

    /// Ends it.
    pub(crate) fn stop(self) -> Vec<Sample> {
        let looks = self.0.stop().into_iter();
        let sample = |at, counts: &[u64]| Sample { at, waiting: counts[0], active: counts[1], busy: counts[2] };
        looks.map(|look| sample(look.at, &look.counts)).collect()
    }
}

/// Of a role, at the server on this port.
pub(crate) async fn oid(port: u16, role: &str) -> u64 {
    let admin = Session::login(port, "postgres").await.expect("connections are reserved for the superuser");
    admin.number(&format!("SELECT oid FROM pg_roles WHERE rolname = '{role}'")).await.expect("the role is there")
}
