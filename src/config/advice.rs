//! Warnings: a valid configuration may allow more than a server survives.
//!
//! Not mistakes: a test server may want them. `pgweir check` prints them, and a start or a reload logs the overloads.

use std::collections::BTreeMap;
use std::fmt;

use super::{Config, Database, Role};

/// Transactions that may wait for one lock of a server without harm. The k-th waiter costs about k³ steps of Postgres's
/// deadlock check (deadlock.c) under all lock partitions; measured, 200 are harmless and 1,000 stop the server for 40
/// s.
const TRANSACTIONS_MAX: u64 = 200;

/// A server that may get more transactions at once than it survives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overload {
    /// Host and port.
    pub server: String,
    /// Transactions it may get at once; `None`: nothing bounds them.
    pub transactions: Option<u64>,
}

impl fmt::Display for Overload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, transactions } = self;
        match transactions {
            Some(transactions) => write!(f, "{server} may get {transactions} transactions at once")?,
            None => write!(f, "{server} may get any number of transactions at once")?,
        }
        write!(
            f,
            ": the k-th waiter on one lock costs about k³ steps of the deadlock check, while all lock partitions are \
             held: {TRANSACTIONS_MAX} at once are harmless, 1,000 stop the server for 40 s; set \
             pool.backends_total_max, every database's backends_max or every role's transactions_max"
        )
    }
}

/// Roles whose statements may wait for a lock, or run, as long as they like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untimed {
    /// Roles without `statement_timeout`.
    pub statement: Vec<String>,
    /// Roles without `lock_timeout`.
    pub lock: Vec<String>,
}

impl fmt::Display for Untimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = [("statement_timeout", &self.statement), ("lock_timeout", &self.lock)];
        let missing: Vec<String> = keys
            .into_iter()
            .filter(|(_, roles)| !roles.is_empty())
            .map(|(key, roles)| format!("no {key} for {}", roles.join(", ")))
            .collect();
        write!(
            f,
            "{}: unless the server sets one, a statement that hangs keeps its backend, and one that waits for a lock \
             keeps everybody behind it waiting",
            missing.join("; ")
        )
    }
}

/// Every server that may get more transactions at once than it survives, by host and port.
pub fn overloads(config: &Config) -> Vec<Overload> {
    let mut servers: BTreeMap<(&str, u16), Vec<(&str, &Database)>> = BTreeMap::new();
    for (name, database) in &config.databases {
        for host in &database.hosts {
            servers.entry((host, database.port)).or_default().push((name, database));
        }
    }
    servers
        .into_iter()
        .map(|((host, port), databases)| Overload {
            server: match host.contains(':') {
                true => format!("[{host}]:{port}"),
                false => format!("{host}:{port}"),
            },
            transactions: transactions_max(config, &databases),
        })
        .filter(|overload| overload.transactions.is_none_or(|transactions| transactions > TRANSACTIONS_MAX))
        .collect()
}

/// The roles that leave a timeout to the server, if there are any.
pub fn untimed(config: &Config) -> Option<Untimed> {
    let without = |is_set: fn(&Role) -> bool| -> Vec<String> {
        config.roles.iter().filter(|(_, role)| !is_set(role)).map(|(name, _)| format!("{name:?}")).collect()
    };
    let untimed = Untimed {
        statement: without(|role| role.limits.timeouts.statement.is_some()),
        lock: without(|role| role.limits.timeouts.lock.is_some()),
    };
    let is_any = !untimed.statement.is_empty() || !untimed.lock.is_empty();
    is_any.then_some(untimed)
}

/// The least of what the caps allow, whichever way it is counted; `None` is no bound.
fn transactions_max(config: &Config, databases: &[(&str, &Database)]) -> Option<u64> {
    let one = |name: &str, max: u64| (name != "*").then_some(max);
    let size = |database: &Database, role: &Role| u64::from(role.limits.size.unwrap_or(database.pool.size));
    let by_database = sum(databases.iter().map(|(name, database)| {
        let pools = sum(config.roles.iter().map(|(role_name, role)| {
            let limit = role.limits.admission.transactions_max.map(u64::from);
            one(role_name, least([Some(size(database, role)), limit])?)
        }));
        one(name, least([database.backends_max.map(u64::from), pools])?)
    }));
    let by_role = sum(config.roles.iter().map(|(role_name, role)| {
        let pools = sum(databases.iter().map(|(name, database)| one(name, size(database, role))));
        one(role_name, least([role.limits.admission.transactions_max.map(u64::from), pools])?)
    }));
    least([config.backends_total_max.map(u64::from), by_database, by_role])
}

fn least(bounds: impl IntoIterator<Item = Option<u64>>) -> Option<u64> {
    bounds.into_iter().flatten().min()
}

fn sum(mut bounds: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    bounds.try_fold(0, |sum: u64, bound| Some(sum.saturating_add(bound?)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;

    fn allowed(text: &str) -> Vec<(String, Option<u64>)> {
        let config = parse(text, Path::new("proxy.toml"), &|_| None).expect("a valid file");
        overloads(&config).into_iter().map(|overload| (overload.server, overload.transactions)).collect()
    }

    /// Two databases on one server, each of 120 backends for `web`.
    const TWO: &str = "[databases.a]\nhost = \"h\"\nsize = 120\n[databases.b]\nhost = \"h\"\nsize = 120\n";
    const WEB: &str = "[roles.web]\npassword = \"w\"\n";

    #[test]
    fn databases_of_one_server_are_added_up() {
        assert_eq!(allowed(&format!("{TWO}{WEB}")), [("h:5432".to_owned(), Some(240))]);
        assert_eq!(allowed(&format!("{}{WEB}", TWO.replacen("\"h\"", "\"other\"", 1))), []);
        assert_eq!(allowed(&format!("{}{WEB}", TWO.replacen("120", "80", 1))), [], "200 are harmless");
    }

    #[test]
    fn server_named_by_a_list_of_hosts_may_get_everything() {
        let text = TWO.replacen("\"h\"", "[\"::1\", \"h\"]", 1);
        assert_eq!(allowed(&format!("{text}{WEB}")), [("h:5432".to_owned(), Some(240))]);
    }

    #[test]
    fn caps_over_all_bound_it() {
        assert_eq!(allowed(&format!("[pool]\nbackends_total_max = 200\n{TWO}{WEB}")), []);
        assert_eq!(allowed(&format!("{TWO}{WEB}transactions_max = 200\n")), []);
        let capped = TWO.replace("size = 120", "size = 120\nbackends_max = 101");
        assert_eq!(allowed(&format!("{capped}{WEB}")), [("h:5432".to_owned(), Some(202))]);
    }

    #[test]
    fn limit_of_one_role_bounds_no_other() {
        let limited = format!("{TWO}{WEB}transactions_max = 10\n[roles.batch]\npassword = \"b\"\n");
        assert_eq!(allowed(&limited), [("h:5432".to_owned(), Some(250))]);
    }

    #[test]
    fn roles_nobody_named_are_any_number_of_roles() {
        let star = "[roles.\"*\"]\nauth = \"trust\"\ntransactions_max = 1\n";
        assert_eq!(allowed(&format!("{TWO}{star}")), [("h:5432".to_owned(), None)]);
        assert_eq!(allowed(&format!("{}{star}", TWO.replace("size", "backends_max = 100\nsize"))), []);
    }

    #[test]
    fn databases_nobody_named_are_any_number_of_databases() {
        let star = "[databases.\"*\"]\nhost = \"h\"\nbackends_max = 2\n";
        assert_eq!(allowed(&format!("{star}{WEB}")), [("h:5432".to_owned(), None)]);
        assert_eq!(allowed(&format!("{star}{WEB}transactions_max = 200\n")), []);
    }

    #[test]
    fn roles_without_timeouts_are_told_in_one_line() {
        let text = "[databases.a]\nhost = \"h\"\n[roles.web]\npassword = \"w\"\nlock_timeout = \"1s\"\n\
                    [roles.batch]\npassword = \"b\"\nstatement_timeout = \"0s\"\n";
        let config = parse(text, Path::new("proxy.toml"), &|_| None).expect("a valid file");
        let told = untimed(&config).expect("both lack one").to_string();
        assert!(told.starts_with("no statement_timeout for \"web\"; no lock_timeout for \"batch\": "), "{told}");
        let timed = text
            .replace("\"1s\"", "\"1s\"\nstatement_timeout = \"5s\"")
            .replace("\"0s\"", "\"0s\"\nlock_timeout = \"1s\"");
        assert_eq!(untimed(&parse(&timed, Path::new("proxy.toml"), &|_| None).expect("a valid file")), None);
    }
}
