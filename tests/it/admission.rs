//! The limiters of roles in front of a real server: never more than the limit, nobody lost when it changes, and every
//! refusal says whose limit it was.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::support::frontend::{self, extended, query, sync, terminate};
use crate::support::{Endpoint, Postgres, Proxy, Row, Sessions, Wire, errors, eventually, proxy, tags};

/// A limit is in force at once and no notice comes before a late answer, in tests that are about neither.
const AT_ONCE: &str = "[admission]\ninitial = 1000\nnotice_after = \"0s\"";

/// The row of a role in SHOW ROLES.
async fn role(proxy: &Proxy, name: &str) -> Row {
    let rows = proxy.console("SHOW ROLES").await;
    rows.into_iter().find(|row| row["role"] == name).unwrap_or_else(|| panic!("no role {name}"))
}

async fn number(proxy: &Proxy, name: &str, column: &str) -> u64 {
    role(proxy, name).await[column].parse().unwrap_or_else(|_| panic!("{column} is no number"))
}

async fn until(proxy: &Proxy, name: &str, active: u64, waiting: u64) {
    let wanted = (active.to_string(), waiting.to_string());
    eventually(async || {
        let row = role(proxy, name).await;
        (row["active"].clone(), row["waiting"].clone()) == wanted
    })
    .await;
}

/// Clients with a transaction open.
async fn holders(at: &Endpoint, role: &str, count: usize) -> Vec<Wire> {
    let mut wires = join_all((0..count).map(|_| at.wire(role))).await;
    for wire in &mut wires {
        assert_eq!(wire.query("BEGIN").await[1].text(), "T");
    }
    wires
}

/// Clients that have asked for something and have no answer.
async fn waiters(at: &Endpoint, role: &str, count: usize, sql: &str) -> Vec<Wire> {
    let mut wires = join_all((0..count).map(|_| at.wire(role))).await;
    for wire in &mut wires {
        wire.send(query(sql)).await;
    }
    wires
}

async fn cancel(at: &Endpoint, wire: &Wire) {
    let (process, secret) = wire.key.as_ref().expect("BackendKeyData");
    let mut request = Wire::open(at.addr).await;
    request.send(frontend::cancel_request(*process, secret)).await;
    assert!(request.rest().await.is_empty());
}

/// `[databases.second]`, another database of the same server.
async fn second() -> (String, String) {
    let postgres = Postgres::shared();
    let dbname = postgres.database().await;
    let section = format!("[databases.second]\nhost = \"127.0.0.1\"\nport = {}\ndbname = \"{dbname}\"", postgres.port);
    (section, dbname)
}

/// Repeats `sql` until `is_over`; how often it was done.
async fn repeat(at: &Endpoint, role: &str, clients: usize, sql: &str, is_over: &AtomicBool) -> u32 {
    let mut wires = join_all((0..clients).map(|_| at.wire(role))).await;
    let done = AtomicU32::new(0);
    join_all(wires.iter_mut().map(async |wire| {
        while !is_over.load(Ordering::Relaxed) {
            assert_eq!(errors(&wire.query(sql).await), [""; 0]);
            done.fetch_add(1, Ordering::Relaxed);
        }
    }))
    .await;
    done.into_inner()
}

// ## The limit

#[tokio::test]
async fn one_limit_holds_over_two_databases_of_a_role() {
    let (section, dbname) = second().await;
    let proxy = proxy().pool_size(10).role("gated", "transactions_max = 4").toml(&section).start().await;
    // The list of locks is of one moment, which that of sessions is not.
    let sql = "SELECT pg_advisory_xact_lock_shared(4711), pg_sleep(0.01)";
    let at_work = format!(
        "SELECT count(*) FILTER (WHERE datname = '{}'), count(*) FILTER (WHERE datname = '{dbname}')
         FROM pg_locks JOIN pg_database d ON d.oid = database WHERE locktype = 'advisory' AND objid = 4711",
        proxy.dbname
    );
    let is_over = AtomicBool::new(false);
    let watch = async {
        let witness = Postgres::shared().admin("postgres").await;
        let (mut most, mut seen) = (0, (0, 0));
        while most < 4 || seen.0 == 0 || seen.1 == 0 || seen.0 + seen.1 < 1_000 {
            let row = witness.query_one(&at_work, &[]).await.expect("two counts");
            let (here, there): (i64, i64) = (row.get(0), row.get(1));
            most = most.max(here + there);
            seen = (seen.0 + here, seen.1 + there);
        }
        is_over.store(true, Ordering::Relaxed);
        most
    };
    let second = proxy.database("second");
    let (here, there, most) =
        tokio::join!(repeat(&proxy, "gated", 20, sql, &is_over), repeat(&second, "gated", 20, sql, &is_over), watch);
    assert_eq!(most, 4, "all of the limit is used, and nothing above it");
    assert!(here > 0 && there > 0, "{here} {there}");
}

#[tokio::test]
async fn the_limit_of_the_star_is_each_roles_own() {
    let config = "[roles.\"*\"]\ntransactions_max = 2";
    let proxy = proxy().role("gated", "").role("other", "transactions_max = 3").toml(config).start().await;
    let mut waiting = Vec::new();
    for (name, limit) in [("app", 2), ("gated", 2), ("other", 3)] {
        waiting.extend(waiters(&proxy, name, 5, "BEGIN").await);
        until(&proxy, name, limit, 5 - limit).await;
    }
    join_all(waiting.iter_mut().map(async |wire| {
        wire.expect("C Z").await;
        wire.query("COMMIT").await;
    }))
    .await;
}

#[tokio::test]
async fn a_limit_lowered_while_a_hundred_wait_drains_and_raised_admits_at_once() {
    let proxy = proxy().pool_size(40).toml(AT_ONCE).toml("[roles.app]\ntransactions_max = 10").start().await;
    let mut inside = holders(&proxy, "app", 10).await;
    let mut outside = waiters(&proxy, "app", 100, "BEGIN").await;
    until(&proxy, "app", 10, 100).await;

    proxy.reload("[roles.app]\ntransactions_max = 3").await;
    assert_eq!(role(&proxy, "app").await["effective_limit"], "3");
    for (n, wire) in inside.iter_mut().enumerate() {
        // Nobody is killed, and nobody comes in until there is room below the new limit.
        assert_eq!(wire.value("SELECT 'at work'").await, "at work");
        assert_eq!(wire.query("COMMIT").await[1].text(), "I");
        let active = if n < 7 { 9 - n as u64 } else { 3 };
        until(&proxy, "app", active, 110 - 10 - (n as u64).saturating_sub(6)).await;
    }

    proxy.reload("[roles.app]\ntransactions_max = 30").await;
    until(&proxy, "app", 30, 70).await;
    proxy.reload("[roles.app]\ntransactions_max = 40").await;
    until(&proxy, "app", 40, 60).await;
    join_all(outside.iter_mut().map(async |wire| {
        assert_eq!(tags(&wire.cycle().await), "C Z");
        assert_eq!(wire.query("COMMIT").await[1].text(), "I");
    }))
    .await;
    until(&proxy, "app", 0, 0).await;
}

#[tokio::test]
async fn who_cancels_or_leaves_at_the_gate_makes_room_in_line_and_takes_no_permit() {
    let proxy = proxy().toml(AT_ONCE).toml("[roles.app]\ntransactions_max = 1").start().await;
    let mut inside = holders(&proxy, "app", 1).await;
    let mut outside = waiters(&proxy, "app", 4, "SELECT 'served'").await;
    until(&proxy, "app", 1, 4).await;
    cancel(&proxy, &outside[0]).await;
    assert_eq!(errors(&outside[0].expect("E Z").await), ["57014"]);
    until(&proxy, "app", 1, 3).await;
    let mut leaving = outside.remove(1);
    leaving.send(terminate()).await;
    leaving.half_close().await;
    leaving.rest().await;
    until(&proxy, "app", 1, 2).await;
    outside.remove(1).reset();
    until(&proxy, "app", 1, 1).await;
    inside[0].query("COMMIT").await;
    outside[1].expect("T D C Z").await;
    assert_eq!(outside[0].value("SELECT 'goes on'").await, "goes on");
    until(&proxy, "app", 0, 0).await;
}

#[tokio::test]
async fn one_deadline_spans_the_gate_and_the_line_behind_it() {
    let wait = Duration::from_secs(3);
    let (section, _) = second().await;
    let proxy = proxy()
        .wait_timeout("3s")
        .role("gated", "transactions_max = 1")
        .toml(&section)
        .toml("[databases.app]\nbackends_max = 1")
        .start()
        .await;
    let mut wire = proxy.wire("gated").await;
    // The limit of the role is used up in one database, the only backend of the other is taken.
    let mut elsewhere = holders(&proxy.database("second"), "gated", 1).await;
    let _taken = holders(&proxy, "app", 1).await;
    let since = Instant::now();
    wire.send(query("SELECT 1")).await;
    until(&proxy, "gated", 1, 1).await;
    // What is left of its time when it is through the limiter: a fifth.
    sleep(wait * 4 / 5 - since.elapsed()).await;
    elsewhere[0].query("COMMIT").await;
    let frames = wire.expect("E Z").await;
    assert_eq!(errors(&frames), ["53300"]);
    let waited = since.elapsed();
    assert!(waited > wait * 8 / 10 && waited < wait * 16 / 10, "{waited:?}");
    assert!(frames[0].fields()[&'H'].contains("pool.size"), "the pool was what it waited for in the end");
}

// ## Whose turn

#[tokio::test]
async fn shares_of_a_database_follow_weights() {
    let proxy = proxy()
        .pool_size(16)
        .role("heavy", "weight = 3")
        .role("light", "weight = 1")
        .toml(AT_ONCE)
        .toml("[databases.app]\nbackends_max = 8")
        .start()
        .await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    let is_over = AtomicBool::new(false);
    let starts =
        async || (number(&proxy, "heavy", "total_starts").await, number(&proxy, "light", "total_starts").await);
    let watch = async {
        sessions.until("usename = 'heavy'", 6).await;
        sessions.until("usename = 'light'", 2).await;
        let before = starts().await;
        eventually(async || starts().await.1 > before.1 + 200).await;
        let after = starts().await;
        is_over.store(true, Ordering::Relaxed);
        (after.0 - before.0, after.1 - before.1)
    };
    let sql = "SELECT pg_sleep(0.005)";
    let (_, _, (heavy, light)) =
        tokio::join!(repeat(&proxy, "heavy", 20, sql, &is_over), repeat(&proxy, "light", 20, sql, &is_over), watch);
    let share = heavy as f64 / (heavy + light) as f64;
    assert!((share - 0.75).abs() < 0.075, "{heavy} of {heavy} + {light}");
}

#[tokio::test]
async fn interactive_comes_before_batch_which_is_not_starved() {
    let proxy = proxy()
        .pool_size(8)
        .role("people", "class = \"interactive\"")
        .role("robots", "class = \"batch\"")
        .toml(AT_ONCE)
        .toml("[databases.app]\nbackends_max = 4")
        .start()
        .await;
    let is_over = AtomicBool::new(false);
    let starts =
        async || (number(&proxy, "people", "total_starts").await, number(&proxy, "robots", "total_starts").await);
    let watch = async {
        eventually(async || starts().await.0 > 200).await;
        let before = starts().await;
        eventually(async || starts().await.0 > before.0 + 1000).await;
        let after = starts().await;
        is_over.store(true, Ordering::Relaxed);
        (after.0 - before.0, after.1 - before.1)
    };
    let sql = "SELECT pg_sleep(0.002)";
    let (_, _, (people, robots)) =
        tokio::join!(repeat(&proxy, "people", 20, sql, &is_over), repeat(&proxy, "robots", 20, sql, &is_over), watch);
    assert!(robots > 0, "batch is not starved");
    assert!(people > 2 * robots, "{people} of people, {robots} of robots");
}

#[tokio::test]
async fn what_is_kept_for_a_role_is_never_lent() {
    let proxy = proxy()
        .pool_size(8)
        .role("vital", "transactions_min = 2")
        .role("greedy", "")
        .toml(AT_ONCE)
        .toml("[databases.app]\nbackends_max = 4")
        .start()
        .await;
    let mut vital = join_all((0..2).map(|_| proxy.wire("vital"))).await;
    let mut greedy = waiters(&proxy, "greedy", 10, "BEGIN").await;
    until(&proxy, "greedy", 2, 8).await;
    for wire in &mut vital {
        assert_eq!(wire.query("BEGIN").await[1].text(), "T");
    }
    for wire in &mut vital {
        assert_eq!(wire.query("COMMIT").await[1].text(), "I");
    }
    // Given back, they are still kept.
    until(&proxy, "greedy", 2, 8).await;
    assert_eq!(vital[0].value("SELECT 'at once'").await, "at once");
    join_all(greedy.iter_mut().map(async |wire| {
        wire.expect("C Z").await;
        wire.query("COMMIT").await;
    }))
    .await;
}

// ## The valve

#[tokio::test]
async fn a_closed_valve_lets_nobody_in_and_opens_step_by_step() {
    let proxy = proxy().pool_size(40).toml("[admission]\ninitial = 2").start().await;
    let mut working = holders(&proxy, "app", 1).await;
    proxy.console("LIMIT app 0").await;
    let mut outside = waiters(&proxy, "app", 30, "BEGIN").await;
    until(&proxy, "app", 1, 30).await;
    let row = role(&proxy, "app").await;
    assert_eq!((row["state"].as_str(), row["limit"].as_str()), ("closed", "0"));
    assert_eq!(working[0].query("COMMIT").await[1].text(), "I", "who is at work ends in peace");
    until(&proxy, "app", 0, 30).await;

    let since = Instant::now();
    proxy.console("LIMIT app 30 OVER '3s'").await;
    let row = role(&proxy, "app").await;
    assert_eq!(row["limit"], "30");
    assert_ne!(row["ramp_end"], "");
    assert!(row["active"].parse::<u32>().expect("a number") < 30, "{row:?}");
    // As they come in they commit, so that slow start grows too.
    join_all(outside.iter_mut().map(async |wire| {
        wire.expect("C Z").await;
        wire.query("COMMIT").await;
    }))
    .await;
    eventually(async || role(&proxy, "app").await["ramp_end"].is_empty()).await;
    assert!(since.elapsed() >= Duration::from_secs(3) - Duration::from_millis(50));
    assert_eq!(role(&proxy, "app").await["state"], "calm");
}

#[tokio::test]
async fn limit_of_the_console_holds_until_the_file_says_another() {
    let proxy = proxy().toml(AT_ONCE).toml("[roles.app]\ntransactions_max = 5").start().await;
    let limit = async || role(&proxy, "app").await["limit"].clone();
    proxy.console("LIMIT app 3").await;
    assert_eq!(limit().await, "3");
    proxy.reload("[pool]\nsize = 21").await;
    assert_eq!(limit().await, "3", "that key did not change");
    proxy.reload("[roles.app]\ntransactions_max = 6").await;
    assert_eq!(limit().await, "6");
    proxy.console("LIMIT app 3").await;
    proxy.console("LIMIT app DEFAULT").await;
    assert_eq!(limit().await, "6");
    // A role nobody has logged in as so far.
    proxy.console("LIMIT ops 1").await;
    assert_eq!(role(&proxy, "ops").await["limit"], "1");
    proxy.console("LIMIT ops DEFAULT").await;
    assert_eq!(role(&proxy, "ops").await["limit"], "");
}

#[tokio::test]
async fn ramp_lets_a_live_system_in_step_by_step() {
    // Nothing but the ramp: slow start would halve the limit when this machine stumbles.
    let proxy = proxy()
        .pool_size(40)
        .toml("[admission]\nmode = \"off\"\ninitial = 2\n[roles.app]\ntransactions_max = 40\nramp = { over = \"2s\" }")
        .start()
        .await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    let is_over = AtomicBool::new(false);
    let sql = "SELECT pg_sleep(0.01)";
    let at_work = "state = 'active' AND query LIKE '%pg_sleep%'";
    let watch = async {
        // The ramp of the start is over, and the load uses all of the limit.
        eventually(async || {
            let row = role(&proxy, "app").await;
            row["ramp_end"].is_empty() && row["effective_limit"] == "40"
        })
        .await;
        eventually(async || sessions.count(at_work).await > 20).await;
        // So long that no pause of this machine outlasts it.
        proxy.console("RAMP app OVER '60s'").await;
        // The transactions that were at work when it began end first.
        let look = async || {
            let row = role(&proxy, "app").await;
            ["effective_limit", "active"].map(|key| row[key].parse::<u64>().expect("a number"))
        };
        eventually(async || look().await.is_sorted_by(|limit, busy| busy <= limit)).await;
        let (mut limits, mut is_above) = (Vec::new(), None);
        // From 2 to 40 in a minute: seven steps take some ten seconds.
        while limits.first().is_none_or(|first| limits[limits.len() - 1] < first + 7) {
            // Of one moment. The server's own list is not: it looks at one backend after the other while they work.
            let [limit, busy] = look().await;
            if busy > limit {
                is_above = Some((busy, limit));
            }
            limits.push(limit);
        }
        is_over.store(true, Ordering::Relaxed);
        (limits, is_above)
    };
    let (done, (limits, is_above)) = tokio::join!(repeat(&proxy, "app", 60, sql, &is_over), watch);
    assert!(done > 0);
    assert_eq!(is_above, None);
    assert!(limits.is_sorted(), "{limits:?}");
    assert!(limits[0] < 40, "{limits:?}");
    // The role's own.
    proxy.console("RAMP app").await;
    let row = role(&proxy, "app").await;
    assert_eq!((row["limit"].as_str(), row["ramp_end"].is_empty()), ("40", false));
}

#[tokio::test]
async fn limit_and_ramp_say_what_is_wrong() {
    let proxy = proxy().start().await;
    let console = proxy.database("pgweir").connect("ops").await;
    for (command, code, hint) in [
        ("LIMIT nobody 5", "42704", "SHOW ROLES"),
        ("LIMIT \"*\" 5", "42704", "SHOW ROLES"),
        ("LIMIT app lots", "42601", "SHOW HELP"),
        ("RAMP nobody OVER '1s'", "42704", "SHOW ROLES"),
        ("RAMP app OVER '1s'", "55000", "transactions_max"),
    ] {
        let error = console.simple_query(command).await.expect_err(command);
        let error = error.as_db_error().unwrap_or_else(|| panic!("{command}"));
        assert_eq!(error.code().code(), code, "{command}");
        assert!(error.hint().is_some_and(|said| said.contains(hint)), "{command}: {:?}", error.hint());
    }
    proxy.console("LIMIT app 5").await;
    let error = console.simple_query("RAMP app").await.expect_err("no ramp");
    assert!(error.as_db_error().and_then(|error| error.hint()).is_some_and(|hint| hint.contains("roles.*.ramp")));
}

// ## Refusals

/// Severity, SQLSTATE, detail, hint and context of the error; the session goes on.
async fn refusal(wire: &mut Wire) -> BTreeMap<char, String> {
    let frames = wire.expect("E Z").await;
    assert_eq!(frames[1].text(), "I");
    let fields = frames[0].fields();
    assert_eq!((fields[&'S'].as_str(), fields[&'C'].as_str(), fields[&'W'].as_str()), ("ERROR", "53300", "pgweir"));
    fields
}

#[tokio::test]
async fn refusals_name_the_role_the_line_and_the_key() {
    let proxy = proxy()
        .pool_size(1)
        .wait_timeout("3s")
        .toml(AT_ONCE)
        .toml("[pool]\nwaiters_max = 2\n[roles.app]\ntransactions_max = 5")
        .start()
        .await;
    let mut inside = holders(&proxy, "app", 1).await;
    let mut wire = proxy.wire("app").await;

    // Nothing becomes free.
    wire.send(query("SELECT 1")).await;
    let said = refusal(&mut wire).await;
    assert!(said[&'D'].contains("role \"app\"") && said[&'H'].contains("pool.size"), "{said:?}");

    // The role's limit is what it waits for.
    proxy.reload("[pool]\nsize = 5\n[roles.app]\ntransactions_max = 1").await;
    wire.send([extended("SELECT 1", &[]), sync()].concat()).await;
    let said = refusal(&mut wire).await;
    assert!(said[&'D'].contains("role \"app\"") && said[&'H'].contains("roles.*.transactions_max"), "{said:?}");

    // The valve is closed.
    proxy.console("LIMIT app 0").await;
    wire.send(query("SELECT 1")).await;
    let said = refusal(&mut wire).await;
    assert!(said[&'M'].contains("closed") && said[&'H'].contains("LIMIT"), "{said:?}");
    proxy.console("LIMIT app DEFAULT").await;

    // The pool's line is full.
    proxy.reload("[pool]\nwait_timeout = \"30s\"").await;
    let mut outside = waiters(&proxy, "app", 2, "SELECT 1").await;
    until(&proxy, "app", 1, 2).await;
    wire.send(query("SELECT 1")).await;
    let said = refusal(&mut wire).await;
    assert!(said[&'D'].contains("2 clients") && said[&'H'].contains("pool.waiters_max"), "{said:?}");

    // The role's line is full.
    proxy.reload("[pool]\nwaiters_max = 100\n[roles.app]\nwaiters_max = 2").await;
    wire.send(query("SELECT 1")).await;
    let said = refusal(&mut wire).await;
    assert!(said[&'D'].contains("role \"app\"") && said[&'H'].contains("roles.*.waiters_max"), "{said:?}");

    inside[0].query("COMMIT").await;
    join_all(outside.iter_mut().map(async |wire| drop(wire.expect("T D C Z").await))).await;
    assert_eq!(wire.value("SELECT 'goes on'").await, "goes on");
    let row = role(&proxy, "app").await;
    assert_eq!((row["total_refused_full"].as_str(), row["total_wait_timeouts"].as_str()), ("2", "3"));
    let labels = ["role=\"app\""];
    assert!((proxy.metric("pgweir_role_wait_timeouts_total", &labels) - 3.0).abs() < 0.1);
    assert!((proxy.metric("pgweir_role_refused_total", &["role=\"app\"", "reason=\"full\""]) - 2.0).abs() < 0.1);
    // The log says when that began and ended, and not each of them.
    let began = proxy.logged("transactions of a role are refused, or wait for too long").await;
    assert_eq!(began["role"], "app");
    let over = proxy.logged("no transactions of a role are refused any more").await;
    assert!(over["refused"].as_u64().is_some_and(|refused| refused >= 1), "{over}");
}

#[tokio::test]
async fn who_would_wait_in_vain_is_told_at_once() {
    let proxy =
        proxy().pool_size(2).wait_timeout("3s").toml(AT_ONCE).toml("[roles.app]\ntransactions_max = 1").start().await;
    let mut crowd = join_all((0..300).map(|_| proxy.wire("app"))).await;
    let is_over = AtomicBool::new(false);
    let sql = "SELECT pg_sleep(0.02)";
    // Somebody is always in line, however slowly one comes back: what a role at rest completes says nothing about its
    // speed.
    let mut busy = join_all((0..10).map(|_| proxy.wire("app"))).await;
    let load = join_all(busy.iter_mut().map(async |wire| {
        while !is_over.load(Ordering::Relaxed) {
            wire.query(sql).await;
        }
    }));
    let crowding = async {
        // Enough of a past to know how long a line takes: less than 50 a second, of which nobody waits for more than
        // one.
        eventually(async || number(&proxy, "app", "total_starts").await > 100).await;
        join_all(crowd.iter_mut().map(|wire| wire.send(query(sql)))).await;
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(load, crowding);
    let shed = AtomicU32::new(0);
    join_all(crowd.iter_mut().map(async |wire| {
        let frames = wire.cycle().await;
        if let Some(error) = frames.iter().find(|frame| frame.tag == 'E') {
            let said = error.fields();
            assert_eq!(said[&'C'], "53300");
            if said[&'D'].contains("would wait") {
                assert!(said[&'H'].contains("transactions_max"), "{said:?}");
                shed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }))
    .await;
    assert!(shed.into_inner() > 0);
    assert!(number(&proxy, "app", "total_refused_shed").await > 0);
}

#[tokio::test]
async fn who_waits_long_gets_a_notice_and_then_its_answer() {
    let proxy = proxy().toml("[admission]\nnotice_after = \"150ms\"\n[roles.app]\ntransactions_max = 1").start().await;
    let mut inside = holders(&proxy, "app", 1).await;
    let mut wire = proxy.wire("app").await;
    wire.send(query("SELECT 'served'")).await;
    let notice = wire.expect("N").await.remove(0).fields();
    assert_eq!((notice[&'S'].as_str(), notice[&'C'].as_str()), ("NOTICE", "00000"));
    assert!(notice[&'M'].contains("waiting") && notice[&'D'].contains("role \"app\""), "{notice:?}");
    inside[0].query("COMMIT").await;
    wire.expect("T D C Z").await;

    // Never, and not for those who do not wait.
    proxy.reload("[admission]\nnotice_after = \"0s\"").await;
    inside[0].query("BEGIN").await;
    wire.send(query("SELECT 'served'")).await;
    let wait = async || number(&proxy, "app", "maxwait_us").await;
    eventually(async || wait().await > 400_000).await;
    inside[0].query("COMMIT").await;
    wire.expect("T D C Z").await;
}

// ## Looking at it, and changing it

#[tokio::test]
async fn show_roles_and_metrics_tell_the_same() {
    let proxy = proxy()
        .toml(AT_ONCE)
        .role("idle", "transactions_max = 7")
        .toml("[roles.app]\ntransactions_max = 2")
        .start()
        .await;
    // The first login of a pool takes a backend, too, to learn what its server says of itself.
    let mut inside = vec![proxy.wire("app").await];
    let before = role(&proxy, "app").await;
    let starts = |row: &Row| {
        ["total_starts", "total_starts_immediate"].map(|column| row[column].parse::<u64>().expect("a number"))
    };
    inside[0].query("BEGIN").await;
    inside.extend(holders(&proxy, "app", 1).await);
    let outside = waiters(&proxy, "app", 3, "SELECT 1").await;
    until(&proxy, "app", 2, 3).await;
    eventually(async || number(&proxy, "app", "maxwait_us").await > 20_000).await;
    let row = role(&proxy, "app").await;
    // The second had to wait for a backend to be opened.
    assert_eq!(starts(&row), [starts(&before)[0] + 2, starts(&before)[1] + 1]);
    for (column, value) in [
        ("limit", "2"),
        ("effective_limit", "2"),
        ("ramp_end", ""),
        ("maxwait", "0"),
        ("total_refused_full", "0"),
        ("total_wait_timeouts", "0"),
        ("total_limit_cuts", "0"),
    ] {
        assert_eq!(row[column], value, "{column}");
    }
    let labels = ["role=\"app\""];
    for (metric, value) in [
        ("pgweir_role_active", 2.0),
        ("pgweir_role_limit", 2.0),
        ("pgweir_role_effective_limit", 2.0),
        ("pgweir_role_waiters", 3.0),
        ("pgweir_role_starts_total", starts(&row)[0] as f64),
        ("pgweir_role_starts_immediate_total", starts(&row)[1] as f64),
    ] {
        assert!((proxy.metric(metric, &labels) - value).abs() < 0.1, "{metric}");
    }
    assert!(proxy.metric("pgweir_role_oldest_wait_seconds", &labels) > 0.02);
    let states = ["calm", "burst", "stuck", "closed"];
    let on = states.map(|state| proxy.metric("pgweir_role_state", &["role=\"app\"", &format!("state=\"{state}\"")]));
    assert!((on.iter().sum::<f64>() - 1.0).abs() < 0.1, "{on:?}");
    // Configured, and nobody has come so far.
    let idle = role(&proxy, "idle").await;
    assert_eq!((idle["limit"].as_str(), idle["active"].as_str(), idle["state"].as_str()), ("7", "0", "calm"));

    for wire in &mut inside {
        wire.query("COMMIT").await;
    }
    for mut wire in outside {
        wire.expect("T D C Z").await;
    }
    inside[0].query("SELECT 'at once'").await;
    assert_eq!(starts(&role(&proxy, "app").await), [starts(&row)[0] + 4, starts(&row)[1] + 1]);
}

#[tokio::test]
async fn a_role_begins_on_its_ramp() {
    let config = "[admission]\ninitial = 3\n[roles.app]\ntransactions_max = 40\nramp = { over = \"1h\" }";
    let proxy = proxy().pool_size(40).toml(config).start().await;
    let mut wires = waiters(&proxy, "app", 10, "BEGIN").await;
    until(&proxy, "app", 3, 7).await;
    let row = role(&proxy, "app").await;
    assert_eq!((row["limit"].as_str(), row["effective_limit"].as_str()), ("40", "3"));
    assert_ne!(row["ramp_end"], "");
    join_all(wires.iter_mut().map(async |wire| {
        wire.expect("C Z").await;
        wire.query("COMMIT").await;
    }))
    .await;
}

#[tokio::test]
async fn without_protection_the_limit_still_holds() {
    let config = "[admission]\nmode = \"off\"\ninitial = 1\n[roles.app]\ntransactions_max = 5";
    let proxy = proxy().pool_size(40).toml(config).start().await;
    let mut wires = waiters(&proxy, "app", 10, "BEGIN").await;
    // No slow start from 1: five at once.
    until(&proxy, "app", 5, 5).await;
    join_all(wires.iter_mut().map(async |wire| {
        wire.expect("C Z").await;
        wire.query("COMMIT").await;
    }))
    .await;
}

#[tokio::test]
async fn every_key_can_be_changed_while_clients_work() {
    let proxy = proxy().start().await;
    let is_over = AtomicBool::new(false);
    let keys: [(&str, &[&str]); 22] = [
        ("admission.mode", &["\"off\"", "\"on\""]),
        ("admission.initial", &["1", "50"]),
        ("admission.slow_start_idle", &["\"100ms\""]),
        ("admission.jitter", &["\"spread\"", "\"off\""]),
        ("admission.jitter_window", &["\"50ms\""]),
        ("admission.spread_max", &["\"20ms\""]),
        ("admission.notice_after", &["\"1s\""]),
        ("admission.login_rate", &["\"500/s\"", "\"off\""]),
        ("admission.login_burst", &["50"]),
        ("admission.login_delay_max", &["\"5s\""]),
        ("admission.login_concurrency", &["4"]),
        ("admission.login_rate_per_address", &["\"500/s\""]),
        ("admission.cancel_rate_per_address", &["\"off\""]),
        ("admission.zombie_max", &["\"5s\""]),
        ("roles.app.override", &["\"lower\"", "\"none\""]),
        ("roles.app.transactions_max", &["40", "4"]),
        ("roles.app.transactions_min", &["2"]),
        ("roles.app.waiters_max", &["100"]),
        ("roles.app.class", &["\"batch\""]),
        ("roles.app.weight", &["5"]),
        ("roles.app.adaptive", &["true", "false"]),
        ("roles.app.spread_max", &["\"10ms\""]),
    ];
    let paired = [
        (
            "roles.app.rate",
            "rate = \"2000/s\"\nrate_burst = 5\nrate_delay_max = \"1s\"\nrate_when = \"always\"",
            "2000/s",
        ),
        ("roles.app.rate_burst", "rate_burst = 50", "50"),
        ("roles.app.rate_delay_max", "rate_delay_max = \"500ms\"", "500ms"),
        ("roles.app.rate_when", "rate_when = \"burst\"", "burst"),
        ("roles.app.ramp.over", "ramp = { over = \"1s\" }", "1s"),
        ("roles.app.jitter", "jitter = \"soft\"", "soft"),
    ];
    let change = async {
        let in_force = async |key: &str| {
            let rows = proxy.console("SHOW CONFIG").await;
            rows.into_iter().find(|row| row["key"] == key).map(|row| row["value"].clone()).unwrap_or_default()
        };
        let moved = async || {
            let before = number(&proxy, "app", "total_starts").await;
            eventually(async || number(&proxy, "app", "total_starts").await > before + 20).await;
        };
        for (key, values) in keys {
            let (section, name) = key.rsplit_once('.').expect("a section");
            for value in values {
                proxy.reload(&format!("[{section}]\n{name} = {value}")).await;
                assert_eq!(in_force(key).await, value.trim_matches('"'), "{key}");
                moved().await;
            }
        }
        for (key, lines, value) in paired {
            proxy.reload(&format!("[roles.app]\n{lines}")).await;
            assert_eq!(in_force(key).await, value, "{key}");
            moved().await;
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let (done, ()) = tokio::join!(repeat(&proxy, "app", 20, "SELECT pg_sleep(0.001)", &is_over), change);
    assert!(done > 0);
    until(&proxy, "app", 0, 0).await;
}

#[tokio::test]
async fn more_than_a_server_stands_is_warned_of_at_the_start_and_at_a_reload() {
    let proxy = proxy().pool_size(150).start().await;
    let warned = |count: u32| proxy.log_text().contains(&format!("may get {count} transactions at once"));
    // Two roles: `app` and `ops`.
    eventually(async || warned(300)).await;
    proxy.reload("[pool]\nsize = 100").await;
    proxy.reload("[pool]\nsize = 101").await;
    eventually(async || warned(202)).await;
    assert!(!warned(200), "that many are harmless");
    proxy.reload("[roles.app]\ntransactions_max = 60").await;
    proxy.reload("[pool]\nsize = 150").await;
    eventually(async || warned(210)).await;
    assert!(!warned(161), "and so many, too");
}

/// Slow start lets eight begin. What holds its backend for long must not keep the others out for as long.
#[tokio::test]
async fn long_transactions_and_sessions_get_all_of_their_pool() {
    for mode in ["transaction", "session"] {
        let proxy = proxy().pool_size(20).mode(mode).start().await;
        let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
        let _held = holders(&proxy, "app", 20).await;
        assert_eq!(sessions.count("state = 'idle in transaction'").await, 20, "{mode}");
    }
}

#[tokio::test]
async fn the_console_says_what_binds_a_role() {
    let proxy = proxy().pool_size(20).toml("[roles.app]\ntransactions_max = 40").toml(AT_ONCE).start().await;
    let by = async || role(&proxy, "app").await["limited_by"].clone();
    assert_eq!(by().await, "limit", "nobody has logged in");
    let client = proxy.connect("app").await;
    client.batch_execute("SELECT 1").await.unwrap();
    assert_eq!(by().await, "pool", "its only pool has 20 backends");
    proxy.console("LIMIT app 10").await;
    assert_eq!(by().await, "limit");
    proxy.console("LIMIT app 15 OVER '1h'").await;
    assert_eq!(by().await, "ramp");
    proxy.console("LIMIT app DEFAULT").await;
    assert_eq!(by().await, "pool");
}
