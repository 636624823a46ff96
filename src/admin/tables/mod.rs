//! The tables of SHOW, one file each.
//!
//! Names, order and number of columns are PgBouncer's (1.25): its exporters count them. Facts that PgBouncer does not
//! have stand in tables of their own. Each lock of the process is held for one copy, never for a table.

mod clients;
mod config;
mod databases;
mod dns_hosts;
mod dns_zones;
mod findings;
mod fleet_orders;
mod lanes;
mod listeners;
mod lists;
mod log_level;
mod peer_pools;
mod peers;
mod pins;
mod pools;
mod readers;
mod roles;
mod servers;
mod state;
mod statements;
mod stats;
mod stats_averages;
mod stats_totals;
mod topology;
mod totals;
mod users;
mod version;
mod watch;

pub(super) mod blockers;
pub(super) mod convoys;
pub(super) mod fleet;
pub(super) mod horizon;
pub(super) mod orders;

mod counted;
mod culprits;
mod format;
mod socket;
#[cfg(test)]
mod tests;

use super::table::ConsoleTable;

/// All tables but HELP, which lists them, in its order.
pub(super) const ALL: &[&ConsoleTable] = &[
    &pools::TABLE,
    &clients::TABLE,
    &servers::TABLE,
    &stats::TABLE,
    &stats_totals::TABLE,
    &stats_averages::TABLE,
    &totals::TABLE,
    &databases::TABLE,
    &users::TABLE,
    &roles::TABLE,
    &lanes::TABLE,
    &fleet::TABLE,
    &fleet_orders::TABLE,
    &pins::TABLE,
    &statements::TABLE,
    &orders::TABLE,
    &listeners::TABLE,
    &watch::TABLE,
    &findings::TABLE,
    &convoys::TABLE,
    &horizon::TABLE,
    &blockers::TABLE,
    &topology::TABLE,
    &readers::TABLE,
    &dns_hosts::TABLE,
    &dns_zones::TABLE,
    &peers::TABLE,
    &peer_pools::TABLE,
    &lists::TABLE,
    &config::TABLE,
    &log_level::TABLE,
    &state::TABLE,
    &version::TABLE,
];
