//! File descriptors: each client takes one, and each backend. Who is let in without one left for it would wait without
//! an answer.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, Database};

/// What the process takes for itself: listeners, workers, log, watches, buses, its admin port, and [`SPARE_MIN`].
const OWN: u64 = 128;

/// Connections besides clients where files are scarce: cancels, the console, logins.
const SPARE_MIN: usize = 32;

/// Raises the limit as far as the process may; returns it, `None` if there is none (`getrlimit(2)`).
pub(super) fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

/// Lowers `listen.clients_max` to what the limit leaves for clients, and says so.
pub(super) fn fit(config: &mut Config, limit: Option<u64>) {
    let Some(limit) = limit else { return };
    let wanted = config.listen.clients_max;
    let left = u32::try_from(left_for_clients(backends(config), limit)).unwrap_or(u32::MAX);
    if left < wanted {
        tracing::warn!(
            clients_max = wanted,
            descriptors = limit,
            lowered_to = left,
            "listen.clients_max is lowered: the process may not open more files; raise LimitNOFILE or ulimit -n"
        );
        config.listen.clients_max = left;
    }
}

/// Connections besides clients that there are files for: a share of what is left, and always some of the process's own.
pub(super) fn spare(config: &Config, limit: Option<u64>) -> usize {
    let Some(limit) = limit else { return usize::MAX };
    let left = left_for_clients(backends(config), limit).saturating_sub(config.listen.clients_max.into());
    usize::try_from(left).unwrap_or(usize::MAX).max(SPARE_MIN)
}

/// Backends that there may be, each `"*"` counted as one.
fn backends(config: &Config) -> u64 {
    let roles = config.roles.len() as u64;
    let of_database = |database: &Database| match database.backends_max {
        Some(most) => u64::from(most),
        None => roles * u64::from(database.pool.size),
    };
    config.backends_total_max.map_or_else(|| config.databases.values().map(of_database).sum(), u64::from)
}

/// Backends have at most a quarter for themselves: many files allow more of them than there ever are.
fn left_for_clients(backends: u64, limit: u64) -> u64 {
    limit.saturating_sub(OWN).saturating_sub(backends.min(limit / 4)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn clients_backends_and_the_process_itself_have_room(backends in 0u64..100_000, limit in 256u64..2_000_000) {
            let clients = left_for_clients(backends, limit);
            prop_assert!(clients >= 1);
            prop_assert!(clients + OWN + backends.min(limit / 4) <= limit);
        }
    }

    #[test]
    fn the_usual_limits_are_enough_for_the_usual_file() {
        assert_eq!(left_for_clients(200, 65_536), 65_208);
        assert_eq!(left_for_clients(200, 1024), 696);
        assert_eq!(left_for_clients(200, 64), 1);
    }
}
