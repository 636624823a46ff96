//! Settings follow their client from backend to backend, and nobody else sees them.

use crate::support::frontend::{bind, execute, extended, parse, query, sync};
use crate::support::{Endpoint, Link, Postgres, Proxy, Wire, on_both_with, proxy};

/// One backend for all clients: whatever leaks, leaks at once.
async fn one_backend() -> Proxy {
    proxy().pool_size(1).start().await
}

/// What `name` is in a transaction of its own.
async fn show(wire: &mut Wire, name: &str) -> String {
    wire.value(&format!("SELECT current_setting('{name}', true)")).await
}

/// Asserts that `mine` has `value` and that other clients have what a new session has, in turn and again.
async fn is_mine(proxy: &Proxy, mine: &mut Wire, name: &str, value: &str) {
    let mut other = proxy.wire("app").await;
    let fresh = show(&mut Postgres::shared().endpoint(&proxy.dbname).wire("app").await, name).await;
    for _ in 0..2 {
        assert_eq!(show(mine, name).await, value, "{name}");
        assert_eq!(show(&mut other, name).await, fresh, "{name} of another client");
    }
}

// The server never reports most settings, and values need quoting: a setting that is not tracked leaks.
#[tokio::test]
async fn a_setting_follows_its_client_and_nobody_else() {
    let proxy = one_backend().await;
    for (sql, name, value) in [
        ("SET work_mem = '7MB'", "work_mem", "7MB"),
        ("SET SESSION lock_timeout TO 1234", "lock_timeout", "1234ms"),
        ("SET TimeZone TO 'America/New_York'", "TimeZone", "America/New_York"),
        ("SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE", "TimeZone", "<-08>+08"),
        ("SET application_name TO 'it''s \\ \"a\"'", "application_name", "it's \\ \"a\""),
        ("SET app.name = 'gr\u{fc}n ''\\'", "app.name", "gr\u{fc}n '\\"),
        ("SET search_path TO \"My Schema\", public", "search_path", "\"My Schema\", public"),
        ("SET SCHEMA 'a, b'", "search_path", "\"a, b\""),
        ("SELECT set_config('search_path', 'a, b', false)", "search_path", "a, b"),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "default_transaction_isolation",
            "serializable",
        ),
        ("SELECT set_config('app.tenant', '42', false)", "app.tenant", "42"),
        ("SET NAMES 'LATIN1'", "client_encoding", "LATIN1"),
        ("SET application_name = ''", "application_name", ""),
    ] {
        let mut mine = proxy.wire("app").await;
        mine.value(sql).await;
        is_mine(&proxy, &mut mine, name, value).await;
    }
}

#[tokio::test]
async fn a_setting_in_the_extended_protocol_follows_too() {
    let proxy = one_backend().await;
    let mut mine = proxy.wire("app").await;
    mine.send([extended("SET work_mem = '7MB'", &[]), sync()].concat()).await;
    mine.expect("1 2 n C Z").await;
    mine.send([parse("s", "SET lock_timeout = 5", &[]), bind("", "s", &[]), execute("", 0), sync()].concat()).await;
    mine.expect("1 2 C Z").await;
    is_mine(&proxy, &mut mine, "work_mem", "7MB").await;
    is_mine(&proxy, &mut mine, "lock_timeout", "5ms").await;
    // A row limit suspends the portal after its effect.
    mine.send(
        [parse("", "SELECT set_config('app.x', 'y', false)", &[]), bind("", "", &[]), execute("", 1), sync()].concat(),
    )
    .await;
    mine.expect("1 2 D s Z").await;
    is_mine(&proxy, &mut mine, "app.x", "y").await;
}

// Two cycles in one write: the end of the first must not forget the second.
#[tokio::test]
async fn settings_in_pipelined_cycles_are_all_kept() {
    let proxy = one_backend().await;
    let mut mine = proxy.wire("app").await;
    mine.send(
        [
            query("SET work_mem = '7MB'"),
            query("SET lock_timeout = 5"),
            query("SET TimeZone = 'PST8PDT'"),
            query("SELECT 1"),
        ]
        .concat(),
    )
    .await;
    for _ in 0..4 {
        mine.cycle().await;
    }
    is_mine(&proxy, &mut mine, "work_mem", "7MB").await;
    is_mine(&proxy, &mut mine, "lock_timeout", "5ms").await;
    is_mine(&proxy, &mut mine, "TimeZone", "PST8PDT").await;
}

// SET, SET LOCAL and their rollback are three layers.
#[tokio::test]
async fn what_a_transaction_takes_back_is_not_kept() {
    let proxy = one_backend().await;
    for name in ["lock_timeout", "IntervalStyle"] {
        let (a, b) = if name == "lock_timeout" { ("1s", "2s") } else { ("postgres_verbose", "iso_8601") };
        let base = show(&mut proxy.wire("app").await, name).await;
        let (set_a, set_b) = (format!("SET {name} = '{a}'"), format!("SET {name} = '{b}'"));
        for (steps, kept) in [
            (vec!["BEGIN", &set_a, "ROLLBACK"], base.as_str()),
            (vec!["BEGIN", &set_a, "COMMIT"], a),
            (vec!["BEGIN", &set_a, "SELECT 1/0", "COMMIT"], &base),
            (vec![&set_a, "BEGIN", &set_b, "ROLLBACK"], a),
            (vec!["BEGIN", "SAVEPOINT s", &set_a, "ROLLBACK TO s", "COMMIT"], &base),
            (vec!["BEGIN", &set_a, "SAVEPOINT s", &set_b, "ROLLBACK TO s", "COMMIT"], a),
            (vec!["BEGIN", &set_a, "SAVEPOINT s", &set_b, "RELEASE s", "COMMIT"], b),
            (vec!["BEGIN", "SAVEPOINT s", "SAVEPOINT t", &set_a, "RELEASE t", "ROLLBACK TO s", "COMMIT"], &base),
            (vec!["BEGIN", &set_a, "SAVEPOINT s", "SELECT 1/0", "ROLLBACK TO s", "COMMIT"], a),
            (vec!["BEGIN", &set_a, "COMMIT AND CHAIN", &set_b, "ROLLBACK"], a),
            (vec![&format!("BEGIN; {set_a}; COMMIT; SELECT 1/0")], a),
            (vec![&format!("{set_a}; SELECT 1/0")], &base),
            (vec![&format!("{set_a}; COMMIT; SELECT 1/0")], a),
            (vec![&format!("{set_a}; ROLLBACK; SELECT 1")], &base),
            (vec!["BEGIN", &format!("SET LOCAL {name} = '{a}'"), "COMMIT"], &base),
            (vec!["BEGIN", &format!("SELECT set_config('{name}', '{a}', true)"), "COMMIT"], &base),
            (vec!["BEGIN", &set_a, &format!("SET LOCAL {name} = '{b}'"), "COMMIT"], a),
            (vec!["BEGIN", &set_a, &format!("RESET {name}"), "COMMIT"], &base),
            (vec!["BEGIN", "RESET ALL", &set_a, "COMMIT"], a),
            (vec![&set_a, &format!("BEGIN; RESET ALL; {set_a}; COMMIT")], a),
            (vec![&set_a, "BEGIN", "RESET ALL", "ROLLBACK"], a),
            (vec![&set_a, &format!("SET {name} TO DEFAULT")], &base),
            (vec![&set_a, "RESET ALL"], &base),
            (vec![&set_a, "DISCARD ALL"], &base),
        ] {
            let mut mine = proxy.wire("app").await;
            for step in &steps {
                mine.query(step).await;
            }
            let mut other = proxy.wire("app").await;
            assert_eq!(show(&mut other, name).await, base, "another client after {steps:?}");
            assert_eq!(show(&mut mine, name).await, kept, "{steps:?}");
        }
    }
}

#[tokio::test]
async fn an_error_in_a_pipeline_takes_its_settings_back() {
    let proxy = one_backend().await;
    let mut mine = proxy.wire("app").await;
    mine.send([extended("SET work_mem = '7MB'", &[]), extended("SELECT 1/0", &[]), sync()].concat()).await;
    mine.cycle().await;
    assert_ne!(show(&mut mine, "work_mem").await, "7MB");
    let sqls = ["BEGIN", "SET work_mem = '7MB'", "COMMIT", "SELECT 1/0"];
    mine.send([sqls.map(|sql| extended(sql, &[])).concat(), sync()].concat()).await;
    mine.cycle().await;
    is_mine(&proxy, &mut mine, "work_mem", "7MB").await;
}

// RESET comes back to the login's values, which must not be those of the first client of its backend.
#[tokio::test]
async fn startup_parameters_are_what_reset_comes_back_to() {
    let proxy = one_backend().await;
    let params = [
        ("application_name", "me"),
        ("DateStyle", "German"),
        ("TimeZone", "PST8PDT"),
        ("options", "-c search_path=a,b -c extra_float_digits=2 --work-mem=7MB -c app.user=x\\ y"),
    ];
    let (mut mine, greeting) = Wire::login_with(&proxy, "app", &params).await;
    let told: Vec<_> = greeting.iter().filter(|frame| frame.tag == 'S').map(|frame| frame.parameter()).collect();
    assert!(told.contains(&("TimeZone".into(), "PST8PDT".into())), "{told:?}");
    let values = [
        ("application_name", "me"),
        ("DateStyle", "German, DMY"),
        ("TimeZone", "PST8PDT"),
        ("search_path", "a,b"),
        ("extra_float_digits", "2"),
        ("work_mem", "7MB"),
        ("app.user", "x y"),
    ];
    for reset in [
        "SELECT 1",
        "RESET ALL",
        "DISCARD ALL",
        "RESET TimeZone; SET DateStyle TO DEFAULT",
        "BEGIN; RESET ALL; ROLLBACK",
    ] {
        mine.query("SET TimeZone = 'Asia/Tokyo'; SET work_mem = '9MB'").await;
        mine.query("RESET TimeZone; RESET work_mem").await;
        let frames = mine.query(reset).await;
        for (name, value) in values {
            is_mine(&proxy, &mut mine, name, value).await;
        }
        // The last word on each is true.
        let last = frames
            .iter()
            .filter(|frame| frame.tag == 'S')
            .map(|frame| frame.parameter())
            .filter(|(name, _)| name == "TimeZone")
            .last();
        assert!(last.is_none_or(|(_, value)| value == "PST8PDT"), "{reset}");
    }
}

#[tokio::test]
async fn an_empty_application_name_is_a_value() {
    let proxy = one_backend().await;
    let (mut mine, _) = Wire::login_with(&proxy, "app", &[("application_name", "")]).await;
    let (mut other, _) = Wire::login_with(&proxy, "app", &[("application_name", "other")]).await;
    for _ in 0..2 {
        assert_eq!(show(&mut mine, "application_name").await, "");
        assert_eq!(show(&mut other, "application_name").await, "other");
    }
}

// The server's own form of a value is kept (ISO becomes ISO, MDY), or it would be set again with every lease.
#[tokio::test]
async fn a_replay_is_confirmed_first_and_ends_when_the_backend_has_it() {
    let postgres = Postgres::shared();
    let link = Link::to(postgres.endpoint("postgres").addr).await;
    let proxy = proxy().pool_size(1).backend(link.addr).start().await;
    let (mut jdbc, _) = Wire::login_with(
        &proxy,
        "app",
        &[("DateStyle", "ISO"), ("client_encoding", "utf-8"), ("extra_float_digits", "2")],
    )
    .await;
    let (mut german, _) = Wire::login_with(&proxy, "app", &[("DateStyle", "German")]).await;
    let mut plain = proxy.wire("app").await;
    for _ in 0..2 {
        for wire in [&mut jdbc, &mut german, &mut plain] {
            wire.value("SELECT 1").await;
        }
    }
    let before = link.sent();
    for _ in 0..5 {
        for wire in [&mut jdbc, &mut german, &mut plain] {
            wire.value("SELECT 1").await;
        }
    }
    assert_eq!(link.sent() - before, 30, "the settings, and once they are confirmed the query");
    let before = link.sent();
    for _ in 0..5 {
        plain.value("SELECT 1").await;
    }
    assert_eq!(link.sent() - before, 5, "the backend has them");
    // ISO is what the backend has of its login.
    assert_eq!(show(&mut jdbc, "DateStyle").await, "ISO, MDY");
    assert_eq!(show(&mut german, "DateStyle").await, "German, DMY");
}

// A value that the server refuses must not come up in a replay, where no client waits for the error.
#[tokio::test]
async fn a_refused_startup_parameter_is_fatal_and_harms_nobody() {
    let proxy = one_backend().await;
    let mut other = proxy.wire("app").await;
    let process = other.value("SELECT pg_backend_pid()").await;
    for (name, value, code) in [
        ("work_mem", "lots", "22023"),
        ("no_such_setting", "1", "42704"),
        ("client_encoding", "klingon", "22023"),
        ("role", "nobody", "22023"),
    ] {
        let params = [(name, value)];
        let (mut mine, frames) = Wire::login_with(&proxy, "app", &params).await;
        let error = frames.last().expect("an answer");
        assert_eq!((error.fields()[&'S'].as_str(), error.sqlstate().as_str()), ("FATAL", code), "{params:?}");
        assert!(mine.rest().await.is_empty());
        assert_eq!(other.value("SELECT pg_backend_pid()").await, process, "{params:?}");
    }
}

// RESET ALL does not reset the role, so it is carried apart from the other settings.
#[tokio::test]
async fn a_role_follows_its_client() {
    let role = Postgres::shared().own_role("").await;
    let proxy = one_backend().await;
    Postgres::shared().admin("postgres").await.batch_execute(&format!("GRANT {role} TO app")).await.expect("a grant");
    let mut mine = proxy.wire("app").await;
    let mut other = proxy.wire("app").await;
    mine.value(&format!("SET ROLE {role}")).await;
    for _ in 0..2 {
        assert_eq!(mine.value("SELECT current_user").await, role);
        assert_eq!(other.value("SELECT current_user").await, "app");
    }
    // Other settings come back although the role is the same, and RESET ALL leaves a role alone.
    mine.value("SET work_mem = '7MB'").await;
    other.value("SELECT 1").await;
    mine.value("RESET ALL").await;
    other.value("SELECT 1").await;
    assert_eq!(mine.value("SELECT current_user").await, role);
    mine.value("RESET ROLE").await;
    assert_eq!(mine.value("SELECT current_user").await, "app");
    // Taken for granted, a role that was revoked would leave the client with the rights of its login.
    mine.value(&format!("SET ROLE {role}")).await;
    other.value("SELECT 1").await;
    Postgres::shared()
        .admin("postgres")
        .await
        .batch_execute(&format!("REVOKE {role} FROM app"))
        .await
        .expect("a revoke");
    mine.send(query("SELECT current_user")).await;
    assert_eq!(mine.frame().await.sqlstate(), "42501");
    assert_eq!(other.value("SELECT current_user").await, "app");
}

#[tokio::test]
async fn an_encoding_and_values_written_in_it_come_back_together() {
    let proxy = one_backend().await;
    let (mut mine, _) = Wire::login_with(&proxy, "app", &[("client_encoding", "LATIN1")]).await;
    let mut other = proxy.wire("app").await;
    mine.send(crate::support::frontend::frame(b'Q', b"SET app.name = 'gr\xfcn'\0")).await;
    mine.cycle().await;
    for _ in 0..2 {
        assert_eq!(other.value("SELECT current_setting('app.name', true)").await, "");
        assert_eq!(mine.value("SELECT convert_to(current_setting('app.name'), 'UTF8')::text").await, "\\x6772c3bc6e");
    }
}

#[tokio::test]
async fn reading_follows_standard_conforming_strings() {
    let proxy = one_backend().await;
    let mut mine = proxy.wire("app").await;
    mine.query("SET escape_string_warning = off").await;
    mine.query("BEGIN").await;
    mine.query("SET standard_conforming_strings = off").await;
    // Read the other way this would be one literal up to the second quote, and the SET hidden in another.
    mine.query(r"SELECT '\''; SET work_mem = '7MB'; SELECT '\''").await;
    mine.query("COMMIT").await;
    let mut other = proxy.wire("app").await;
    assert_ne!(show(&mut other, "work_mem").await, "7MB");
    assert_eq!(show(&mut mine, "work_mem").await, "7MB");
    assert_eq!(show(&mut mine, "standard_conforming_strings").await, "off");
}

#[tokio::test]
async fn set_transaction_and_constraints_are_over_with_their_transaction() {
    let proxy = one_backend().await;
    let mut mine = proxy.wire("app").await;
    // SET TRANSACTION and SET CONSTRAINTS are no settings of the session; a replay would change other transactions.
    for sql in [
        "SET TRANSACTION READ ONLY",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SET CONSTRAINTS ALL DEFERRED",
        "SET LOCAL transaction_read_only = on",
    ] {
        mine.query(&format!("BEGIN; {sql}; COMMIT")).await;
        assert_eq!(
            mine.value("SELECT current_setting('transaction_isolation') || current_setting('transaction_read_only')")
                .await,
            "read committedoff"
        );
    }
}

#[tokio::test]
async fn boilerplate_of_drivers_is_followed() {
    on_both_with(proxy().pool_size(1), async |at: &Endpoint| {
        let mut mine = at.wire("app").await;
        // PgJDBC; asyncpg at the end of a lease; psycopg; Rails.
        for sql in [
            "SET extra_float_digits = 3",
            "SET application_name = 'PostgreSQL JDBC Driver'",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
            "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;",
            "DEALLOCATE ALL",
            "DISCARD ALL",
            "SET client_min_messages TO 'warning'; SET standard_conforming_strings = on; SET intervalstyle = iso_8601; SET SESSION timezone TO 'UTC'",
        ] {
            mine.value(sql).await;
            // Not pinned: with one backend another client gets through.
            at.wire("app").await.value("SELECT 1").await;
        }
        assert_eq!(show(&mut mine, "IntervalStyle").await, "iso_8601");
        assert_eq!(show(&mut mine, "client_min_messages").await, "warning");
    })
    .await;
}
