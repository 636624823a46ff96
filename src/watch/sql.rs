//! Questions of the core as SQL; those of detectors stand with them.
//!
//! Two rules. Privileges: a member of `pg_monitor` may run all of it, `pg_read_all_stats` is enough. Nothing here waits
//! in a lock convoy, but for [`LOCKS`]: [`ACTIVITY`] and its like call functions over shared memory and touch no
//! relation. The views over the same functions (`pg_stat_activity`, `pg_stat_progress_vacuum`, `pg_prepared_xacts`)
//! join `pg_database` and `pg_authid`, shared catalogs, whose locks never take the fast path (lock.c:
//! `EligibleForRelationFastPath`): while 600 sessions ran their deadlock checks the view took 4 to 11 s, the function 9
//! ms. `pg_blocking_pids` took 5 to 15 s for one session; the lock table answers the same question in one look.
//!
//! Costs are of PostgreSQL 15, the statement prepared anew each time, with 1,000 idle backends (the middle, then the
//! worst seen). Every answer is text; `answer` reads the columns in their order. All is known to Postgres 14 and later.

use std::collections::BTreeSet;
use std::fmt::Write;

/// Settings of the watch's connection: names resolve in `pg_catalog`, and no question takes longer than the watch may
/// be blind.
pub const SESSION: &str = "SET search_path = pg_catalog; SET statement_timeout = '2s'; SET lock_timeout = '1s'; \
    SET default_transaction_read_only = on; \
    SET client_encoding = 'UTF8'";

/// How the server is set up, asked once. `pg_has_role` and `pg_settings` look into catalogs.
///
/// Columns: version, is a standby, may see other sessions, then in milliseconds `deadlock_timeout`,
/// `client_connection_check_interval`, `idle_in_transaction_session_timeout`, then `log_lock_waits`, `max_connections`,
/// the database, the beginning of the server in microseconds of the epoch, and its port.
pub const SERVER: &str = "\
SELECT max(setting) FILTER (WHERE name = 'server_version_num'),
       pg_is_in_recovery(),
       pg_has_role('pg_read_all_stats', 'USAGE'),
       max(setting) FILTER (WHERE name = 'deadlock_timeout'),
       max(setting) FILTER (WHERE name = 'client_connection_check_interval'),
       max(setting) FILTER (WHERE name = 'idle_in_transaction_session_timeout'),
       max(setting) FILTER (WHERE name = 'log_lock_waits'),
       max(setting) FILTER (WHERE name = 'max_connections'),
       (SELECT datid FROM pg_stat_get_activity(pg_backend_pid())),
       (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint,
       max(setting) FILTER (WHERE name = 'port')
  FROM pg_settings";

/// How many sessions of the whole server wait, and for what kind of lock. 9 ms, 36 ms at worst, about 15 µs for each
/// backend; 9 and 27 ms amid 600 sessions in their deadlock checks.
///
/// A convoy stops the server, not a database, so all databases count. Columns: sessions in wait for the lock manager
/// itself, those that run something, those idle in a transaction, client backends, then for each session in wait for a
/// lock its process, what the lock is on, and its database.
pub const ACTIVITY: &str = "\
SELECT count(*) FILTER (WHERE wait_event_type = 'LWLock' AND wait_event = 'LockManager'),
       count(*) FILTER (WHERE state = 'active'),
       count(*) FILTER (WHERE state LIKE 'idle in transaction%'),
       count(*) FILTER (WHERE backend_type = 'client backend'),
       string_agg(concat_ws(' ', pid, wait_event, coalesce(datid, 0)), ',') FILTER (WHERE wait_event_type = 'Lock')
  FROM pg_stat_get_activity(NULL) WHERE pid <> pg_backend_pid()";

/// Every lock that somebody waits for, with all who have it or want it. 4 ms, 12 ms at worst at rest; 1.5 to 12 s amid
/// deadlock checks, since it takes all partitions of the lock table at once. Not to be asked then, and never often.
///
/// Columns: the tag as in `pg_locks` (type, database, relation, page, tuple, virtual transaction, transaction, class,
/// object, column), the relation by name if it is of this
/// database, then each locker as process, mode, `t` or `f` for
/// granted, milliseconds of its wait, these separated by blanks and lockers by commas. Predicate locks, which nobody
/// waits for, are left out. A prepared transaction is `x` and its transaction id in place of a process.
pub const LOCKS: &str = "\
WITH held AS MATERIALIZED (SELECT * FROM pg_lock_status() WHERE mode <> 'SIReadLock'),
prepared AS (SELECT virtualtransaction, transactionid AS xid FROM held WHERE locktype = 'transactionid' AND pid IS NULL AND granted)
SELECT locktype, database, relation, page, tuple, virtualxid, transactionid, classid, objid, objsubid,
       CASE WHEN relation IS NOT NULL AND database IN (0, (SELECT datid FROM pg_stat_get_activity(pg_backend_pid())))
            THEN relation::regclass::text END,
       string_agg(concat_ws(' ', coalesce(pid::text, 'x' || xid::text, 'x0'), mode, granted,
           (extract(epoch FROM clock_timestamp() - waitstart) * 1000)::bigint), ',')
  FROM held LEFT JOIN prepared USING (virtualtransaction)
 GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 HAVING NOT bool_and(granted)
 ORDER BY count(*) FILTER (WHERE NOT granted) DESC LIMIT 200";

/// One session. Columns: process, beginning of the transaction and of the statement in microseconds of the epoch, age
/// in milliseconds of the transaction, of the statement, of the state, the state, application, client address.
pub(super) const SESSIONS: &str = "\
SELECT pid, (extract(epoch FROM xact_start) * 1000000)::bigint, (extract(epoch FROM query_start) * 1000000)::bigint,
       (extract(epoch FROM clock_timestamp() - xact_start) * 1000)::bigint,
       (extract(epoch FROM clock_timestamp() - query_start) * 1000)::bigint,
       (extract(epoch FROM clock_timestamp() - state_change) * 1000)::bigint, state, application_name, host(client_addr)
  FROM pg_stat_get_activity(NULL)
 WHERE ";

/// These sessions, wherever they are. As [`ACTIVITY`].
pub fn sessions(pids: &[i32]) -> String {
    let mut sql = format!("{SESSIONS}pid = ANY ('{{");
    for (i, pid) in pids.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        write!(sql, "{comma}{pid}").expect("a String takes everything");
    }
    sql.push_str("}'::int[])");
    sql
}

/// Prepared transactions by transaction id, for locks that one of them holds. Columns: transaction id, name, age in
/// milliseconds.
pub const PREPARED: &str = "\
SELECT transaction, gid, (extract(epoch FROM clock_timestamp() - prepared) * 1000)::bigint FROM pg_prepared_xact()";

/// Names of relations of this database. Columns: oid, name with its schema.
pub fn relations(oids: &BTreeSet<u32>) -> String {
    let oids: Vec<_> = oids.iter().map(u32::to_string).collect();
    format!("SELECT oid, oid::regclass::text FROM pg_class WHERE oid = ANY ('{{{}}}'::oid[])", oids.join(","))
}

/// How many columns [`PREPARED`] has; no other answer has as few.
pub(super) const PREPARED_COLUMNS: usize = 3;
