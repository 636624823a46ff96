//! What can be shown, and its columns. Names, order and number of columns are PgBouncer's (1.24): its exporters count
//! them. What PgBouncer does not have stands in tables of its own.

use super::help;
use super::rows;
use super::table::Type::{Int, Long, Text};
use super::table::{Cell, Column, Row};
use super::watched;
use crate::proxy::Proxy;

macro_rules! shows {
    ($($variant:ident $name:literal $help:literal $columns:expr;)*) => {
        /// What can be shown.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Show {
            $(#[doc = $help] $variant,)*
        }

        impl Show {
            /// All, as HELP lists them.
            pub(super) const ALL: &[Self] = &[$(Self::$variant,)*];

            /// What follows SHOW.
            pub(super) fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it is about.
            pub(super) fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }

            /// Its columns.
            pub(super) fn columns(self) -> &'static [Column] {
                match self { $(Self::$variant => const { &$columns },)* }
            }
        }
    };
}

/// A socket, as SHOW CLIENTS and SHOW SERVERS have it.
const SOCKET: [Column; 21] = [
    ("type", Text),
    ("user", Text),
    ("database", Text),
    ("replication", Text),
    ("state", Text),
    ("addr", Text),
    ("port", Int),
    ("local_addr", Text),
    ("local_port", Int),
    ("connect_time", Text),
    ("request_time", Text),
    ("wait", Int),
    ("wait_us", Int),
    ("close_needed", Int),
    ("ptr", Text),
    ("link", Text),
    ("remote_pid", Int),
    ("tls", Text),
    ("application_name", Text),
    ("prepared_statements", Int),
    ("id", Int),
];

shows! {
    Help "HELP" "every command" [("command", Text), ("what it does", Text)];
    Pools "POOLS" "clients and backends by database and role" [
        ("database", Text), ("user", Text), ("cl_active", Int), ("cl_waiting", Int), ("cl_active_cancel_req", Int),
        ("cl_waiting_cancel_req", Int), ("sv_active", Int), ("sv_active_cancel", Int), ("sv_being_canceled", Int),
        ("sv_idle", Int), ("sv_used", Int), ("sv_tested", Int), ("sv_login", Int), ("maxwait", Int),
        ("maxwait_us", Int), ("pool_mode", Text), ("load_balance_hosts", Text),
    ];
    Clients "CLIENTS" "every client; link is its backend, id what KILL_CLIENT takes" SOCKET;
    Servers "SERVERS" "every backend; link is its client" SOCKET;
    Stats "STATS" "totals and averages per database; times are microseconds" [
        ("database", Text), ("total_server_assignment_count", Long), ("total_xact_count", Long),
        ("total_query_count", Long), ("total_received", Long), ("total_sent", Long), ("total_xact_time", Long),
        ("total_query_time", Long), ("total_wait_time", Long), ("total_client_parse_count", Long),
        ("total_server_parse_count", Long), ("total_bind_count", Long), ("avg_server_assignment_count", Long),
        ("avg_xact_count", Long), ("avg_query_count", Long), ("avg_recv", Long), ("avg_sent", Long),
        ("avg_xact_time", Long), ("avg_query_time", Long), ("avg_wait_time", Long), ("avg_client_parse_count", Long),
        ("avg_server_parse_count", Long), ("avg_bind_count", Long),
    ];
    StatsTotals "STATS_TOTALS" "the totals of STATS alone" [
        ("database", Text), ("server_assignment_count", Long), ("xact_count", Long), ("query_count", Long),
        ("bytes_received", Long), ("bytes_sent", Long), ("xact_time", Long), ("query_time", Long), ("wait_time", Long),
        ("client_parse_count", Long), ("server_parse_count", Long), ("bind_count", Long),
    ];
    StatsAverages "STATS_AVERAGES" "the averages of STATS alone" [
        ("database", Text), ("server_assignment_count", Long), ("xact_count", Long), ("query_count", Long),
        ("bytes_received", Long), ("bytes_sent", Long), ("xact_time", Long), ("query_time", Long), ("wait_time", Long),
        ("client_parse_count", Long), ("server_parse_count", Long), ("bind_count", Long),
    ];
    Totals "TOTALS" "STATS over all databases, a number in each row" [("name", Text), ("value", Long)];
    Databases "DATABASES" "every database, configured or asked for" [
        ("name", Text), ("host", Text), ("port", Int), ("database", Text), ("force_user", Text), ("pool_size", Int),
        ("min_pool_size", Int), ("reserve_pool_size", Int), ("server_lifetime", Int), ("pool_mode", Text),
        ("load_balance_hosts", Text), ("max_connections", Int), ("current_connections", Int),
        ("max_client_connections", Int), ("current_client_connections", Int), ("paused", Int), ("disabled", Int),
    ];
    Users "USERS" "every role, configured or connected" [
        ("name", Text), ("pool_size", Text), ("reserve_pool_size", Text), ("pool_mode", Text),
        ("max_user_connections", Int), ("current_connections", Int), ("max_user_client_connections", Int),
        ("current_client_connections", Int),
    ];
    Roles "ROLES" "the gate of every role: its limit, who is active, who waits, what has happened" [
        ("role", Text), ("state", Text), ("limit", Int), ("effective_limit", Int), ("ramp_end", Text), ("active", Int),
        ("waiting", Int), ("maxwait", Int), ("maxwait_us", Int), ("total_starts", Long),
        ("total_starts_immediate", Long), ("total_refused_full", Long), ("total_refused_shed", Long),
        ("total_wait_timeouts", Long), ("total_bursts", Long), ("total_convoys", Long), ("total_limit_cuts", Long),
        ("total_limit_reverts", Long), ("total_paced", Long), ("total_pace_overflow", Long), ("total_spread", Long),
    ];
    Pins "PINS" "clients that keep their backend between transactions, and why" [
        ("database", Text), ("user", Text), ("id", Int), ("link", Int), ("reasons", Text),
    ];
    Listeners "LISTENERS" "clients that listen, and what waits for each of them" [
        ("database", Text), ("channel", Text), ("pid", Int), ("user", Text), ("addr", Text), ("queued_bytes", Long),
        ("since", Text),
    ];
    Watch "WATCH" "every watched server: whether it answers, what it is, who is connected, what should be set otherwise" [
        ("database", Text), ("up", Int), ("state", Text), ("standing", Text), ("sessions", Int), ("active", Int),
        ("idle_in_transaction", Int), ("outside", Int), ("notify_queue_percent", Int), ("findings", Int),
        ("advice", Text),
    ];
    Convoys "CONVOYS" "waits for locks at every watched server, and the SQL that ends a convoy; client is what KILL_CLIENT takes" [
        ("database", Text), ("state", Text), ("since", Text), ("waiters", Int), ("waiters_max", Int), ("maxwait", Int),
        ("maxwait_us", Int), ("lock", Text), ("culprit", Text), ("pid", Int), ("client", Int), ("user", Text),
        ("addr", Text), ("remedy", Text),
    ];
    Horizon "HORIZON" "who keeps vacuum from its work, and tables that it does not help; since is empty where that is harmless" [
        ("database", Text), ("kind", Text), ("what", Text), ("since", Text), ("age_transactions", Long),
        ("age_seconds", Long), ("culprit", Text), ("pid", Int), ("client", Int), ("user", Text), ("addr", Text),
        ("remedy", Text),
    ];
    Blockers "BLOCKERS" "who keeps others waiting for locks, idles in a transaction, or is at one statement for too long" [
        ("database", Text), ("kind", Text), ("what", Text), ("since", Text), ("waiters", Int), ("lock", Text),
        ("transaction_seconds", Long), ("culprit", Text), ("pid", Int), ("client", Int), ("user", Text),
        ("addr", Text), ("remedy", Text),
    ];
    Lists "LISTS" "how many there are of everything" [("list", Text), ("items", Int)];
    Config "CONFIG" "every setting in force" [("key", Text), ("value", Text), ("default", Text), ("changeable", Text)];
    State "STATE" "whether everything is paused" [("key", Text), ("value", Text)];
    Version "VERSION" "the version of pgweir" [("version", Text)];
}

impl Show {
    /// The table of this name.
    pub(super) fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|show| show.name().eq_ignore_ascii_case(name))
    }

    /// Its rows at this moment.
    pub(super) fn rows(self, proxy: &Proxy) -> Vec<Row> {
        match self {
            Self::Help => help::rows(),
            Self::Pools => rows::pools(proxy),
            Self::Clients => rows::clients(proxy),
            Self::Servers => rows::servers(proxy),
            Self::Stats => rows::stats(proxy),
            Self::StatsTotals => rows::stats_totals(proxy),
            Self::StatsAverages => rows::stats_averages(proxy),
            Self::Totals => rows::totals(proxy),
            Self::Databases => rows::databases(proxy),
            Self::Users => rows::users(proxy),
            Self::Roles => rows::roles(proxy),
            Self::Pins => rows::pinned(proxy),
            Self::Listeners => rows::listeners(proxy),
            Self::Watch => watched::servers(proxy),
            Self::Convoys => watched::convoys(proxy),
            Self::Horizon => watched::horizon(proxy),
            Self::Blockers => watched::blockers(proxy),
            Self::Lists => rows::lists(proxy),
            Self::Config => rows::config(&proxy.config.load()),
            Self::State => rows::state(proxy),
            Self::Version => vec![vec![Cell::from(concat!("pgweir ", env!("CARGO_PKG_VERSION")))]],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn tables_that_the_pages_name_exist() {
        let docs = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).expect("readable");
        let docs = docs.map(|entry| entry.expect("an entry").path());
        for page in docs.chain([concat!(env!("CARGO_MANIFEST_DIR"), "/README.md").into()]).filter(|page| page.is_file())
        {
            let text = fs::read_to_string(&page).expect("readable");
            for named in text.split("SHOW ").skip(1) {
                let name = named.split(|c: char| !c.is_ascii_uppercase() && c != '_').next().unwrap_or_default();
                let is_known = Show::ALL.iter().any(|show| show.name() == name);
                assert!(is_known || name.is_empty(), "{}: there is no SHOW {name}", page.display());
            }
        }
    }
}
