//! Warnings: a valid configuration may allow more than a server survives.
//!
//! Not mistakes: a test server may want them. `pgweir check` prints them, and a start or a reload logs the overloads.

use std::collections::BTreeMap;
use std::fmt;

use super::{Config, Database, LimitMode, Role, RoleAdmission};

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

/// The most that a server may get at once, and which keys say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorstCase {
    /// Host and port.
    pub server: String,
    /// Transactions at once; `None`: nothing bounds them.
    pub transactions: Option<u64>,
    /// The sum that bounds them, such as `roles: jobs 40 + web 40`.
    pub sum: String,
}

impl WorstCase {
    /// How long the whole server stands still if all wait for one lock, at a nanosecond for a step; measured, it is up
    /// to three times as long.
    fn standstill(transactions: u64) -> f64 {
        (transactions as f64).powi(4) / 24.0 * 1e-9
    }
}

impl fmt::Display for WorstCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, transactions, sum } = self;
        let Some(transactions) = transactions else {
            return write!(f, "{server}: any number of transactions at once");
        };
        let standstill = Self::standstill(*transactions);
        write!(
            f,
            "{server}: at most {transactions} transactions at once ({sum}); if all of them wait for one lock, the \
             server stands still for {standstill:.2} s"
        )
    }
}

/// The worst case of every server, by host and port.
pub fn worst_cases(config: &Config) -> Vec<WorstCase> {
    let mut servers: BTreeMap<(&str, u16), Vec<(&str, &Database)>> = BTreeMap::new();
    for (name, database) in &config.databases {
        for host in &database.hosts {
            servers.entry((host, database.port)).or_default().push((name, database));
        }
    }
    let case = |((host, port), databases): ((&str, u16), Vec<(&str, &Database)>)| {
        let server = match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        match bound(config, &databases) {
            Some((transactions, sum)) => WorstCase { server, transactions: Some(transactions), sum },
            None => WorstCase { server, transactions: None, sum: String::new() },
        }
    };
    servers.into_iter().map(case).collect()
}

/// Every server that may get more transactions at once than it survives.
pub fn overloads(config: &Config) -> Vec<Overload> {
    worst_cases(config)
        .into_iter()
        .map(|WorstCase { server, transactions, .. }| Overload { server, transactions })
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

/// A limit that the sizes of a role's pools reach first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreached {
    /// As in the file.
    pub role: String,
    /// Its `transactions_max`.
    pub limit: u32,
    /// Backends that it may have in one database, at most.
    pub in_one: u32,
    /// Backends that it may have in all; `None`: any number of databases may be asked for.
    pub in_all: Option<u64>,
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, limit, in_one, in_all } = self;
        write!(f, "role {role:?}: transactions_max = {limit} ")?;
        match in_all {
            Some(all) => write!(f, "never holds anybody back: its pools have {all} backends in all")?,
            None => write!(f, "holds nobody back who uses one database: a pool has {in_one} backends there")?,
        }
        f.write_str(" (size, backends_max)")
    }
}

/// The limits of roles that cannot be reached, or only over several databases.
pub fn unreached(config: &Config) -> Vec<Unreached> {
    let unreached = |(name, role): (&String, &Role)| {
        let limit = role.limits.admission.transactions_max?;
        let reaches = |database: &str| database == "*" || role.access.reaches(database);
        let pools = config.databases.iter().filter(|(name, _)| reaches(name)).map(|(name, database)| {
            let size = role.limits.size.unwrap_or(database.pool.size);
            (name, database.backends_max.map_or(size, |max| max.min(size)))
        });
        let pools: Vec<(&String, u32)> = pools.collect();
        let in_one = pools.iter().map(|(_, size)| *size).max()?;
        let is_any = pools.iter().any(|(name, _)| *name == "*") && role.access.databases.len() != 1;
        let in_all = (!is_any).then(|| pools.iter().map(|(_, size)| u64::from(*size)).sum::<u64>());
        let is_unreached = in_all.map_or(in_one < limit, |all| all < limit.into());
        is_unreached.then(|| Unreached { role: name.clone(), limit, in_one, in_all })
    };
    config.roles.iter().filter_map(unreached).collect()
}

/// The least of what the caps allow, whichever way it is counted, with the sum that says so; `None` is no bound.
fn bound(config: &Config, databases: &[(&str, &Database)]) -> Option<(u64, String)> {
    let one = |name: &str, max: u64| (name != "*").then_some(max);
    let size = |database: &Database, role: &Role| u64::from(role.limits.size.unwrap_or(database.pool.size));
    // A limit that only observes bounds nothing.
    let limit = |role: &Role| {
        let RoleAdmission { limit_mode, transactions_max, .. } = role.limits.admission;
        transactions_max.filter(|_| limit_mode == LimitMode::Enforce).map(u64::from)
    };
    let by_database = databases.iter().map(|(name, database)| {
        let pools = sum(config
            .roles
            .iter()
            .map(|(role_name, role)| one(role_name, least([Some(size(database, role)), limit(role)])?)));
        (*name, least([database.backends_max.map(u64::from), pools]).and_then(|max| one(name, max)))
    });
    let by_role = config.roles.iter().map(|(role_name, role)| {
        let pools = sum(databases.iter().map(|(name, database)| one(name, size(database, role))));
        (role_name.as_str(), least([limit(role), pools]).and_then(|max| one(role_name, max)))
    });
    let total = config.backends_total_max.map(|total| (total.into(), "pool.backends_total_max".to_owned()));
    [total, told_sum("databases", by_database), told_sum("roles", by_role)]
        .into_iter()
        .flatten()
        .min_by_key(|(max, _)| *max)
}

/// Parts that are added up and told, the first few by name.
const TOLD_PARTS: usize = 5;

/// The sum of these parts, and how it comes about.
fn told_sum<'a>(of: &str, parts: impl Iterator<Item = (&'a str, Option<u64>)>) -> Option<(u64, String)> {
    let parts: Vec<_> = parts.collect();
    let all = sum(parts.iter().map(|(_, max)| *max))?;
    let told = parts.iter().take(TOLD_PARTS).filter_map(|(name, max)| Some(format!("{name} {}", (*max)?)));
    let more = parts.len().saturating_sub(TOLD_PARTS);
    let more = (more > 0).then(|| format!("{more} more"));
    Some((all, format!("{of}: {}", told.chain(more).collect::<Vec<_>>().join(" + "))))
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
    fn the_worst_case_says_which_sum_bounds_it() {
        let case = |text: &str| {
            let config = parse(text, Path::new("proxy.toml"), &|_| None).expect("a valid file");
            worst_cases(&config).remove(0).to_string()
        };
        assert_eq!(
            case(&format!("{TWO}{WEB}transactions_max = 40\n")),
            "h:5432: at most 40 transactions at once (roles: web 40); if all of them wait for one lock, the server \
             stands still for 0.00 s"
        );
        let observed = format!("{TWO}{WEB}transactions_max = 40\nlimit_mode = \"observe\"\n");
        assert!(
            case(&observed).contains("at most 240 transactions at once (databases: a 120 + b 120)"),
            "{}",
            case(&observed)
        );
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

    #[test]
    fn limit_that_the_pools_reach_first_is_told() {
        let told = |text: &str| {
            let config = parse(text, Path::new("proxy.toml"), &|_| None).expect("a valid file");
            unreached(&config).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let one = |size: u32, name: &str| {
            format!("[databases.{name}]\nhost = \"h\"\nsize = {size}\n{WEB}transactions_max = 40\n")
        };
        assert_eq!(
            told(&one(20, "a")),
            ["role \"web\": transactions_max = 40 never holds anybody back: its pools have 20 backends in all (size, \
              backends_max)"]
        );
        assert_eq!(told(&one(40, "a")), [""; 0]);
        assert_eq!(told(&one(40, "\"*\"")), [""; 0]);
        assert!(told(&one(20, "\"*\""))[0].contains("holds nobody back who uses one database"));
        let confined = format!("{TWO}{WEB}transactions_max = 121\ndatabases = [\"a\"]\n");
        assert!(told(&confined)[0].contains("120 backends in all"), "{:?}", told(&confined));
    }
}
