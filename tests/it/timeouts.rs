//! Timeouts of a role: what clients are told of them, how they reach backends, and that nothing of them reaches anybody
//! else.

use pgweir::testing::sql::{Milliseconds, Value, milliseconds};

use crate::support::frontend::{bind, cancel_request, copy_fail, execute, extended, flush, parse, query, sync};
use crate::support::{Frame, Link, Postgres, Proxy, Sessions, Wire, eventually, proxy, tags};

const SLEEP: &str = "SELECT pg_sleep(600)";

/// SQLSTATE and HINT of the only error in `frames`.
#[track_caller]
fn error(frames: &[Frame]) -> (String, Option<String>) {
    let errors: Vec<_> = frames.iter().filter(|frame| frame.tag == 'E').collect();
    let [error] = errors[..] else { panic!("one error expected: {frames:?}") };
    (error.sqlstate(), error.fields().remove(&'H'))
}

fn hint(key: &str) -> Option<String> {
    Some(format!("roles.app.{key} in pgweir's configuration."))
}

/// A proxy with one backend and these lines in the section of the role `app`.
async fn with(lines: &str) -> Proxy {
    proxy().pool_size(1).toml(&format!("[roles.app]\n{lines}")).start().await
}

async fn sessions(proxy: &Proxy) -> Sessions {
    Sessions::of(Postgres::shared(), &proxy.dbname).await
}

fn counted(proxy: &Proxy, kind: &str) -> f64 {
    proxy.metric("pgweir_timeouts_total", &["database=\"app\"", "role=\"app\"", &format!("kind=\"{kind}\"")])
}

/// Has somebody else cancel what `proxy`'s only client runs.
async fn cancel(proxy: &Proxy, wire: &Wire) {
    let (process, secret) = wire.key.as_ref().expect("it is logged in");
    let mut other = Wire::open(proxy.addr).await;
    other.send(cancel_request(*process, secret)).await;
    assert!(other.rest().await.is_empty());
}

// ---- errors of a limit --------------------------------------------------------------------------

#[tokio::test]
async fn an_error_of_a_limit_names_its_key_and_is_counted() {
    let proxy = with("statement_timeout = \"1s\"").await;
    let mut wire = proxy.wire("app").await;
    let expected = ("57014".to_owned(), hint("statement_timeout = 1s"));
    assert_eq!(error(&wire.query(SLEEP).await), expected);
    wire.send([extended(SLEEP, &[]), sync()].concat()).await;
    assert_eq!(error(&wire.cycle().await), expected);
    // Each statement of a text has its own time; the answers come together.
    let frames = wire.query(&format!("{}{SLEEP}", "SELECT pg_sleep(0.4); ".repeat(3))).await;
    assert_eq!((tags(&frames).as_str(), error(&frames)), ("T D C T D C T D C T E Z", expected));
    assert_eq!(counted(&proxy, "statement"), 3.0);
    assert_eq!(tags(&wire.query("SELECT 1").await), "T D C Z");
}

#[tokio::test]
async fn a_lock_that_is_not_to_be_had_in_time_is_55p03_and_nowait_is_no_timeout() {
    let proxy = proxy().pool_size(2).toml("[roles.app]\nlock_timeout = \"200ms\"").start().await;
    let (mut holder, mut wire) = (proxy.wire("app").await, proxy.wire("app").await);
    holder.query("CREATE TABLE t (a int)").await;
    holder.query("BEGIN; LOCK t").await;
    assert_eq!(error(&wire.query("SELECT * FROM t").await), ("55P03".to_owned(), hint("lock_timeout = 200ms")));
    assert_eq!(counted(&proxy, "lock"), 1.0);
    assert_eq!(error(&wire.query("BEGIN; LOCK t NOWAIT").await), ("55P03".to_owned(), None));
    assert_eq!(counted(&proxy, "lock"), 1.0);
}

#[tokio::test]
async fn a_cancel_that_was_asked_for_is_no_timeout() {
    let proxy = with("statement_timeout = \"40s\"").await;
    let sessions = sessions(&proxy).await;
    let mut wire = proxy.wire("app").await;
    wire.send(query(SLEEP)).await;
    sessions.until_running(SLEEP, 1).await;
    cancel(&proxy, &wire).await;
    assert_eq!(error(&wire.cycle().await), ("57014".to_owned(), None));
    assert_eq!(counted(&proxy, "statement"), 0.0);
    // COPY that its client gives up has the same SQLSTATE.
    wire.query("CREATE TABLE t (a int)").await;
    wire.send(query("COPY t FROM STDIN")).await;
    wire.expect("G").await;
    wire.send(copy_fail("no more")).await;
    assert_eq!(error(&wire.cycle().await), ("57014".to_owned(), None));
    assert_eq!(counted(&proxy, "statement"), 0.0);
}

#[tokio::test]
async fn a_limit_that_is_not_ours_is_counted_and_names_no_key() {
    let proxy = with("statement_timeout = \"40s\"").await;
    let mut wire = proxy.wire("app").await;
    wire.query("SET statement_timeout = '100ms'").await;
    assert_eq!(error(&wire.query(SLEEP).await), ("57014".to_owned(), None));
    wire.query("RESET statement_timeout").await;
    let frames = wire.query(&format!("SET LOCAL statement_timeout = '100ms'; {SLEEP}")).await;
    assert_eq!(error(&frames), ("57014".to_owned(), None));
    assert_eq!(counted(&proxy, "statement"), 2.0);
}

#[tokio::test]
async fn a_transaction_that_was_idle_for_too_long_is_lost_and_its_client_stays() {
    let proxy = with("idle_in_transaction_timeout = \"200ms\"").await;
    let sessions = sessions(&proxy).await;
    let mut wire = proxy.wire("app").await;
    for in_extended in [false, true] {
        wire.query("BEGIN").await;
        sessions.until("true", 0).await;
        if in_extended {
            wire.send([extended("SELECT 1", &[]), sync()].concat()).await;
        } else {
            wire.send(query("SELECT 1")).await;
        }
        let frames = wire.cycle().await;
        assert_eq!(error(&frames), ("25P03".to_owned(), hint("idle_in_transaction_timeout = 200ms")));
        assert_eq!(frames.last().map(Frame::text).as_deref(), Some("E"));
        assert_eq!(error(&wire.query("SELECT 1").await).0, "25P02");
        assert_eq!(tags(&wire.query("ROLLBACK").await), "C Z");
        assert_eq!(wire.value("SELECT 1").await, "1");
    }
    assert_eq!(counted(&proxy, "idle_in_transaction"), 2.0);
    // A backend that belongs to one client takes the session with it, as without a pool.
    wire.query("CREATE TEMP TABLE t (a int)").await;
    wire.query("BEGIN").await;
    let frames = wire.rest().await;
    assert_eq!(error(&frames), ("25P03".to_owned(), hint("idle_in_transaction_timeout = 200ms")));
    assert_eq!(frames[0].fields()[&'S'], "FATAL");
}

// ---- epochs -------------------------------------------------------------------------------------

#[tokio::test]
async fn a_changed_limit_reaches_live_backends_without_a_login() {
    let link = Link::to(Postgres::shared().endpoint("postgres").addr).await;
    let proxy = proxy()
        .pool_size(1)
        .backend(link.addr)
        .toml("[roles.app]\nstatement_timeout = \"40s\"\nidle_in_transaction_timeout = \"40s\"")
        .start()
        .await;
    let sessions = sessions(&proxy).await;
    let (mut wire, mut other) = (proxy.wire("app").await, proxy.wire("app").await);
    wire.query("SELECT 1").await;
    let before = (sessions.pids().await, link.sent());
    proxy.reload("[roles.app]\nstatement_timeout = \"50s\"\nlock_timeout = \"700ms\"").await;
    let shown = "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),
        current_setting('idle_in_transaction_session_timeout')";
    for wire in [&mut wire, &mut other] {
        let expected = ["50s", "700ms", "40s"].map(|value| Some(value.to_owned()));
        assert_eq!(wire.query(shown).await[1].columns(), expected);
    }
    // Once for both, and confirmed before the statement.
    assert_eq!((sessions.pids().await, link.sent()), (before.0, before.1 + 3));
}

#[tokio::test]
async fn an_idle_backend_with_outdated_limits_is_replaced_after_a_while() {
    let proxy = proxy().pool_size(5).toml("[roles.app]\nstatement_timeout = \"40s\"").start().await;
    let sessions = sessions(&proxy).await;
    let mut wires = Vec::new();
    for _ in 0..5 {
        let mut wire = proxy.wire("app").await;
        wire.query("BEGIN").await;
        wires.push(wire);
    }
    for wire in &mut wires {
        wire.query("COMMIT").await;
    }
    let before = sessions.pids().await;
    proxy.reload("[roles.app]\nstatement_timeout = \"50s\"").await;
    assert_eq!(wires[0].value("SHOW statement_timeout").await, "50s");
    eventually(async || sessions.pids().await.iter().all(|pid| !before.contains(pid))).await;
    // A new one has it from its login.
    wires[0].query("RESET ALL").await;
    assert_eq!(wires[0].value("SELECT reset_val FROM pg_settings WHERE name = 'statement_timeout'").await, "50000");
    let fresh = sessions.pids().await;
    wires[1].query("SELECT 1").await;
    assert_eq!(sessions.pids().await, fresh);
}

#[tokio::test]
async fn nothing_takes_a_changed_limit_off_a_backend() {
    let proxy = with("statement_timeout = \"40s\"").await;
    let (mut wire, mut other) = (proxy.wire("app").await, proxy.wire("app").await);
    wire.query("SELECT 1").await;
    proxy.reload("[roles.app]\nstatement_timeout = \"50s\"").await;
    for statement in [
        "RESET statement_timeout",
        "SET statement_timeout TO DEFAULT",
        "RESET ALL",
        "DISCARD ALL",
        "BEGIN; RESET ALL; ROLLBACK",
        "BEGIN; SET LOCAL statement_timeout = 7; COMMIT",
        "SET statement_timeout = 7; RESET ALL",
        "SELECT set_config('statement_timeout', NULL, true)",
        "CREATE TEMP TABLE t (a int); DROP TABLE t",
    ] {
        wire.query(statement).await;
        for wire in [&mut wire, &mut other] {
            assert_eq!(wire.value("SHOW statement_timeout").await, "50s", "after {statement}");
        }
    }
    // What a client set itself stays with it.
    wire.query("SET statement_timeout = '7s'").await;
    proxy.reload("[roles.app]\nstatement_timeout = \"55s\"").await;
    for _ in 0..2 {
        assert_eq!(wire.value("SHOW statement_timeout").await, "7s");
        assert_eq!(other.value("SHOW statement_timeout").await, "55s");
    }
    wire.query("RESET statement_timeout").await;
    assert_eq!(wire.value("SHOW statement_timeout").await, "55s");
    // Back to what the backend logged in with.
    proxy.reload("[roles.app]\nstatement_timeout = \"40s\"").await;
    assert_eq!(other.value("SHOW statement_timeout").await, "40s");
}

#[tokio::test]
async fn a_transaction_under_way_keeps_its_limits_and_a_session_gets_them_with_its_next() {
    for mode in ["transaction", "session"] {
        let proxy = proxy().pool_size(2).mode(mode).toml("[roles.app]\nstatement_timeout = \"40s\"").start().await;
        let sessions = sessions(&proxy).await;
        let mut wire = proxy.wire("app").await;
        // Pinned, where the mode does not tie it to its backend anyway.
        wire.query("CREATE TEMP TABLE t (a int)").await;
        wire.query("BEGIN").await;
        let before = sessions.pids().await;
        proxy.reload("[roles.app]\nstatement_timeout = \"50s\"").await;
        assert_eq!(wire.value("SHOW statement_timeout").await, "40s");
        wire.send([extended("SHOW statement_timeout", &[]), sync(), query("COMMIT")].concat()).await;
        wire.expect("1 2 T D C Z C Z").await;
        wire.send([extended("SHOW statement_timeout", &[]), sync()].concat()).await;
        assert_eq!(wire.expect("1 2 T D C Z").await[3].columns(), [Some("50s".to_owned())]);
        assert_eq!(sessions.pids().await, before, "{mode}");
    }
}

#[tokio::test]
async fn a_limit_that_is_no_longer_configured_is_the_servers_again() {
    let role = Postgres::shared().own_role("").await;
    let admin = Postgres::shared().admin("postgres").await;
    admin.batch_execute(&format!("ALTER ROLE {role} SET statement_timeout = '33s'")).await.expect("an ALTER ROLE");
    let proxy = proxy().pool_size(1).role(&role, "statement_timeout = \"40s\"").start().await;
    let mut wire = proxy.wire(&role).await;
    assert_eq!(wire.value("SHOW statement_timeout").await, "40s");
    let text = std::fs::read_to_string(proxy.file()).expect("our own file").replace("statement_timeout = \"40s\"", "");
    proxy.overwrite(&text);
    proxy.console("RELOAD").await;
    assert_eq!(wire.value("SHOW statement_timeout").await, "33s");
}

#[tokio::test]
async fn a_limit_that_the_server_does_not_know_harms_nobody() {
    let proxy = with("statement_timeout = \"40s\"").await;
    let mut wire = proxy.wire("app").await;
    wire.query("SELECT 1").await;
    proxy.reload("[roles.app]\nstatement_timeout = \"50s\"\ntransaction_timeout = \"60s\"").await;
    assert_eq!(wire.value("SHOW statement_timeout").await, "50s");
    assert_eq!(proxy.wire("app").await.value("SELECT 1").await, "1");
}

// ---- override -----------------------------------------------------------------------------------

/// The texts of all warnings in `frames`, and that they come right before the end of their statement.
fn warnings(frames: &[Frame]) -> Vec<String> {
    let at = |index: usize| frames.get(index).map(|frame| frame.tag);
    let warnings: Vec<_> = (0..frames.len()).filter(|index| at(*index) == Some('N')).collect();
    assert!(warnings.iter().all(|index| matches!(at(index + 1), Some('C' | 'N'))), "{}", tags(frames));
    let fields = |index: &usize| frames[*index].fields();
    assert!(warnings.iter().all(|index| fields(index)[&'C'] == "01000" && fields(index)[&'S'] == "WARNING"));
    warnings.iter().map(|index| format!("{} {}", fields(index)[&'M'], fields(index)[&'H'])).collect()
}

const SHOW: &str = "SELECT current_setting('statement_timeout')";

/// What Postgres makes of a value must be what we compare.
#[tokio::test]
async fn values_are_read_as_postgres_reads_them() {
    Postgres::shared().role("app").await;
    let mut postgres = Postgres::shared().endpoint("postgres").wire("app").await;
    let texts = "5000|0|5s| 5 s |1.5s|1.01min|1min|2h|1d|24d|400us|1500us|500us|010|0x10|010.5|1e3|.5s|+7|-0.4|2147483647|1.5|2.5|3.5ms\
        ||abc|5 parsecs|5S|-1|09|2147483648|30d|5e|5e s|1_000|s|5s s|1.2.3|1e|08.5|--5|0x|1e+2|1e-1s|9999999999999999999|12h 5";
    let numbers = "5000|010|+7|-7|1.5|2.5|1e3|.5|5.|0|'5s'|E'5\\x73'|$$5s$$|\"5s\"|2147483648|99999999999999999999|010.5|on|'0x10'|- 5";
    let literals = texts.split('|').map(|text| (format!("'{text}'"), Value::Text(text.to_owned().into())));
    let numbers = numbers.split('|').map(|number| (number.to_owned(), Value::Raw(number.to_owned().into())));
    // A setting with the same rules that ends none of our own questions.
    for (written, value) in literals.chain(numbers) {
        let frames = postgres.query(&format!("SET lock_timeout = {written}")).await;
        let expected = match frames[0].tag {
            'E' => Milliseconds::Refused,
            _ => {
                let shown = postgres.value("SELECT setting FROM pg_settings WHERE name = 'lock_timeout'").await;
                Milliseconds::Known(shown.parse().expect("a number"))
            }
        };
        let read = milliseconds(&value);
        assert!(read == expected || read == Milliseconds::Unread, "{written}: {read:?}, Postgres {expected:?}");
    }
}

#[tokio::test]
async fn a_client_may_lower_a_limit_but_not_raise_it() {
    let proxy = with("statement_timeout = \"40s\"\noverride = \"lower\"").await;
    let mut other = proxy.wire("app").await;
    let warned = "statement_timeout was set to 40s instead roles.app.override = \"lower\" and roles.app.statement_timeout = 40s \
        in pgweir's configuration.";
    for (set, shown, is_warned) in [
        ("SET statement_timeout = '60s'", "40s", true),
        ("SET statement_timeout = 0", "40s", true),
        ("SET SESSION statement_timeout TO '400us'", "40s", true),
        ("SET statement_timeout = U&'60s'", "40s", true),
        ("SET statement_timeout = '7s'", "7s", false),
        ("SET statement_timeout = 39999", "39999ms", false),
        ("SET statement_timeout = 40000", "40s", false),
        ("SELECT set_config('statement_timeout', '1h', false)", "40s", true),
        ("SELECT set_config('statement_timeout', '7s', false)", "7s", false),
        ("SET lock_timeout = 0", "40s", false),
        ("SET statement_timeout TO DEFAULT", "40s", false),
    ] {
        for extended_too in [false, true] {
            let mut wire = proxy.wire("app").await;
            let frames = if extended_too {
                wire.send([extended(set, &[]), sync()].concat()).await;
                wire.cycle().await
            } else {
                wire.query(set).await
            };
            assert!(frames.iter().all(|frame| frame.tag != 'E'), "{set}: {frames:?}");
            let expected = if is_warned { vec![warned.to_owned()] } else { vec![] };
            assert_eq!(warnings(&frames), expected, "{set}");
            for _ in 0..2 {
                assert_eq!(wire.value(SHOW).await, shown, "{set}");
                assert_eq!(other.value(SHOW).await, "40s", "{set}");
            }
        }
    }
    // Postgres says what it does not take.
    assert_eq!(error(&other.query("SET statement_timeout = '5 parsecs'").await).0, "22023");
}

#[tokio::test]
async fn transactions_texts_and_prepared_statements_stay_what_they_are() {
    let proxy = with("statement_timeout = \"40s\"\noverride = \"lower\"").await;
    let mut wire = proxy.wire("app").await;
    let text = format!(
        "BEGIN; SET LOCAL statement_timeout = '60s'; {SHOW}; SET LOCAL statement_timeout = 7; {SHOW}; COMMIT; {SHOW}"
    );
    let frames = wire.query(&text).await;
    assert_eq!(tags(&frames), "C N C T D C C T D C C T D C Z");
    let shown: Vec<_> = frames.iter().filter(|frame| frame.tag == 'D').map(|frame| frame.columns().remove(0)).collect();
    assert_eq!(shown, ["40s", "7ms", "40s"].map(|value| Some(value.to_owned())));
    // A savepoint takes it back.
    wire.query(
        "BEGIN; SAVEPOINT s; SET statement_timeout = '60s'; ROLLBACK TO s; SET statement_timeout = '8s'; COMMIT",
    )
    .await;
    assert_eq!(wire.value(SHOW).await, "8s");
    // Under a name, again and again, and beside somebody who means what the other was given.
    let mut other = proxy.wire("app").await;
    wire.send([parse("s", "SET statement_timeout = '60s'", &[]), sync()].concat()).await;
    wire.expect("1 Z").await;
    other.send([parse("s", "SET statement_timeout = '40000'", &[]), sync()].concat()).await;
    other.expect("1 Z").await;
    for _ in 0..2 {
        wire.send([bind("", "s", &[]), execute("", 0), sync()].concat()).await;
        assert_eq!(warnings(&wire.expect("2 N C Z").await).len(), 1);
        assert_eq!(wire.value(SHOW).await, "40s");
        other.send([bind("", "s", &[]), execute("", 0), sync()].concat()).await;
        other.expect("2 C Z").await;
    }
    // An unnamed one whose parts come in different cycles.
    wire.send([parse("", "SET statement_timeout = '61s'", &[]), sync()].concat()).await;
    wire.expect("1 Z").await;
    other.query("SELECT 1").await;
    wire.send([bind("", "", &[]), execute("", 0), sync()].concat()).await;
    wire.expect("2 N C Z").await;
    assert_eq!(wire.value(SHOW).await, "40s");
}

#[tokio::test]
async fn a_client_that_may_set_nothing_sets_nothing() {
    let proxy = with("statement_timeout = \"40s\"\noverride = \"none\"").await;
    let lock_timeout = Postgres::shared().endpoint(&proxy.dbname).wire("app").await.value("SHOW lock_timeout").await;
    let (mut wire, mut other) = (proxy.wire("app").await, proxy.wire("app").await);
    for set in ["SET statement_timeout = '7s'", "SET LOCAL statement_timeout = '7s'", "SET lock_timeout = '7s'"] {
        let frames = wire.query(&format!("BEGIN; {set}; COMMIT")).await;
        assert_eq!(tags(&frames), "C N C C Z");
        let frames = wire.query(&format!("BEGIN; {set}; SHOW statement_timeout; SHOW lock_timeout; COMMIT")).await;
        let shown: Vec<_> =
            frames.iter().filter(|frame| frame.tag == 'D').map(|frame| frame.columns().remove(0)).collect();
        assert_eq!(shown, [Some("40s".to_owned()), Some(lock_timeout.clone())], "{set}");
        for wire in [&mut wire, &mut other] {
            assert_eq!(wire.value(SHOW).await, "40s", "{set}");
        }
    }
    assert_eq!(
        warnings(&wire.query("SET lock_timeout = '7s'").await)[0],
        "lock_timeout was set to its default instead roles.app.override = \"none\" in pgweir's configuration."
    );
    // Everything else is theirs.
    wire.query("SET work_mem = '7MB'").await;
    assert_eq!(wire.value("SHOW work_mem").await, "7MB");
}

#[tokio::test]
async fn startup_parameters_and_options_are_judged_too() {
    for (word, asked, shown) in [
        ("lower", "7s", "7s"),
        ("lower", "60s", "40s"),
        ("lower", "0", "40s"),
        ("none", "7s", "40s"),
        ("any", "60s", "1min"),
    ] {
        let proxy = with(&format!("statement_timeout = \"40s\"\noverride = \"{word}\"")).await;
        for params in [("statement_timeout", asked.to_owned()), ("options", format!("-c statement_timeout={asked}"))] {
            let (mut wire, greeting) = Wire::login_with(&proxy, "app", &[(params.0, &params.1)]).await;
            let warned = greeting.iter().filter(|frame| frame.tag == 'N').count();
            assert_eq!(warned, usize::from(shown == "40s"), "{word} {params:?}");
            for reset in ["SELECT 1", "RESET ALL", "DISCARD ALL", "RESET statement_timeout"] {
                wire.query(reset).await;
                assert_eq!(wire.value(SHOW).await, shown, "{word} {params:?} {reset}");
            }
        }
    }
}

#[tokio::test]
async fn a_session_s_own_value_is_judged_again_after_a_reload() {
    let proxy = with("statement_timeout = \"40s\"\noverride = \"lower\"").await;
    let (mut wire, _) = Wire::login_with(&proxy, "app", &[("options", "-c statement_timeout=20s")]).await;
    wire.query("SET statement_timeout = '30s'").await;
    wire.send([parse("s", "SET statement_timeout = '29s'", &[]), sync()].concat()).await;
    wire.expect("1 Z").await;
    proxy.reload("[roles.app]\nstatement_timeout = \"10s\"").await;
    assert_eq!(wire.value(SHOW).await, "10s");
    wire.query("RESET ALL").await;
    assert_eq!(wire.value(SHOW).await, "10s");
    // A text from before does not outlive its transaction.
    wire.send([bind("", "s", &[]), execute("", 0), sync()].concat()).await;
    wire.expect("2 C Z").await;
    assert_eq!(wire.value(SHOW).await, "10s");
    // And another say of clients counts at once.
    wire.query("SET statement_timeout = '5s'").await;
    assert_eq!(wire.value(SHOW).await, "5s");
    proxy.reload("[roles.app]\noverride = \"none\"").await;
    assert_eq!(wire.value(SHOW).await, "10s");
}

// Behind PgBouncer 40 of 200 innocent queries were cancelled by a statement_timeout of another client.
#[tokio::test]
async fn a_worker_killed_between_set_and_reset_leaves_nothing_to_others() {
    for word in ["any", "lower", "none"] {
        let proxy = with(&format!("statement_timeout = \"40s\"\noverride = \"{word}\"")).await;
        let mut other = proxy.wire("app").await;
        let steps = [
            query("SET statement_timeout = 20000"),
            query("SELECT 1"),
            query("BEGIN"),
            [extended("SELECT set_config('statement_timeout', '19s', false)", &[]), sync()].concat(),
            query("SET LOCAL statement_timeout = 18000"),
            [parse("s", "SET statement_timeout = 17000", &[]), bind("", "s", &[]), execute("", 0), sync()].concat(),
            query("COMMIT"),
            query("RESET statement_timeout"),
        ];
        let bytes: usize = steps.iter().map(Vec::len).sum();
        // After each step it waited for, and at places in the middle of messages it sent in one go.
        for kept in 0..=steps.len() {
            let mut wire = proxy.wire("app").await;
            for step in &steps[..kept] {
                wire.send(step.clone()).await;
                wire.cycle().await;
            }
            wire.reset();
            assert_eq!(other.value(SHOW).await, "40s", "{word}: killed after {kept} steps");
        }
        for cut in (0..bytes).step_by(11) {
            let mut wire = proxy.wire("app").await;
            wire.send(steps.concat()[..cut].to_vec()).await;
            if cut % 2 == 0 {
                drop(wire)
            } else {
                wire.reset()
            }
            assert_eq!(other.value(SHOW).await, "40s", "{word}: killed after {cut} bytes");
        }
    }
}

// ---- pgweir's own clock -------------------------------------------------------------------------

/// A function that lifts a timeout where nobody sees it.
async fn lifts(wire: &mut Wire, setting: &str) {
    let body = format!("BEGIN PERFORM set_config('{setting}', '0', false); END");
    wire.query(&format!("CREATE FUNCTION lift() RETURNS void LANGUAGE plpgsql AS $$ {body} $$")).await;
}

#[tokio::test]
async fn a_statement_that_postgres_lets_run_is_cancelled_a_grace_after_its_limit() {
    let proxy = with("statement_timeout = \"300ms\"").await;
    let mut wire = proxy.wire("app").await;
    lifts(&mut wire, "statement_timeout").await;
    wire.query("SELECT lift()").await;
    let expected = ("57014".to_owned(), hint("statement_timeout = 300ms"));
    assert_eq!(error(&wire.query(SLEEP).await), expected);
    wire.send([extended("SELECT 1", &[]), extended(SLEEP, &[]), sync()].concat()).await;
    assert_eq!(error(&wire.cycle().await), expected);
    wire.query("BEGIN").await;
    assert_eq!(error(&wire.query(SLEEP).await), expected);
    assert_eq!(wire.query("ROLLBACK").await[1].text(), "I");
    assert_eq!(counted(&proxy, "statement"), 3.0);
    assert_eq!(proxy.metric("pgweir_cancels_total", &["cause=\"timeout\""]), 3.0);
}

// Found by an audit: each statement of a text gave it another limit, and a text too long to be read had none.
#[tokio::test]
async fn one_text_has_one_limit_however_many_statements_are_in_it() {
    let proxy = with("statement_timeout = \"300ms\"").await;
    let mut wire = proxy.wire("app").await;
    lifts(&mut wire, "statement_timeout").await;
    wire.query("SELECT lift()").await;
    let expected = ("57014".to_owned(), hint("statement_timeout = 300ms"));
    for text in [format!("{}{SLEEP}", "SELECT 1;".repeat(200)), format!("{SLEEP} /*{}*/", "x".repeat(1_100_000))] {
        assert_eq!(error(&wire.query(&text).await), expected);
    }
    wire.send([extended("SELECT 1", &[]).repeat(200), extended(SLEEP, &[]), sync()].concat()).await;
    assert_eq!(error(&wire.cycle().await), expected);
}

// The clock must not be wrong where Postgres is right.
#[tokio::test]
async fn what_postgres_allows_is_not_cancelled() {
    let proxy = with("statement_timeout = \"1s\"").await;
    let mut wire = proxy.wire("app").await;
    // Each statement has its own time, and the server answers when all are done or a buffer is full.
    for sql in ["SELECT pg_sleep(0.1)", "SELECT pg_sleep(0.5), repeat('x', 9000)"] {
        let count = if sql.contains("repeat") { 8 } else { 12 };
        assert!(wire.query(&vec![sql; count].join(";")).await.iter().all(|frame| frame.tag != 'E'));
        wire.send([vec![extended(sql, &[]); count].concat(), sync()].concat()).await;
        assert!(wire.cycle().await.iter().all(|frame| frame.tag != 'E'));
    }
    // A client's own value counts, for as long as it has it.
    for text in [
        "SET statement_timeout = '20s'; SELECT pg_sleep(1.8)",
        "SELECT pg_sleep(1.8)",
        "RESET statement_timeout",
        "BEGIN; SET LOCAL statement_timeout = 0; SELECT pg_sleep(1.8); COMMIT",
        "SELECT set_config('statement_timeout', '20s', true); SELECT pg_sleep(1.8)",
    ] {
        assert!(wire.query(text).await.iter().all(|frame| frame.tag != 'E'), "{text}");
    }
    assert_eq!(error(&wire.query(SLEEP).await), ("57014".to_owned(), hint("statement_timeout = 1s")));
    assert_eq!(proxy.metric("pgweir_cancels_total", &["cause=\"timeout\""]), 0.0);
}

/// The server has `transaction_timeout` itself.
async fn has_transaction_timeout(wire: &mut Wire) -> bool {
    wire.value("SELECT count(*) FROM pg_settings WHERE name = 'transaction_timeout'").await == "1"
}

#[tokio::test]
async fn a_transaction_that_postgres_ends_for_taking_too_long_leaves_its_client() {
    let proxy = with("transaction_timeout = \"1s\"").await;
    let mut wire = proxy.wire("app").await;
    if !has_transaction_timeout(&mut wire).await {
        return;
    }
    let expected = ("25P04".to_owned(), hint("transaction_timeout = 1s"));
    assert_eq!(error(&wire.query(SLEEP).await), expected);
    wire.query("BEGIN").await;
    assert_eq!(error(&wire.query(SLEEP).await), expected);
    assert_eq!(error(&wire.query("SELECT 1").await).0, "25P02");
    assert_eq!(wire.query("ROLLBACK").await[1].text(), "I");
    assert_eq!(counted(&proxy, "transaction"), 2.0);
    proxy.reload("[roles.app]\ntransaction_timeout = \"40s\"").await;
    assert_eq!(wire.value("SHOW transaction_timeout").await, "40s");
}

#[tokio::test]
async fn a_transaction_that_takes_too_long_is_ended_where_postgres_cannot() {
    let proxy = with("transaction_timeout = \"1s\"").await;
    let sessions = sessions(&proxy).await;
    let mut wire = proxy.wire("app").await;
    if has_transaction_timeout(&mut wire).await {
        return;
    }
    wire.query("CREATE TABLE t (a int)").await;
    let key = hint("transaction_timeout = 1s");
    // Its own is a transaction, too.
    assert_eq!(error(&wire.query(SLEEP).await), ("57014".to_owned(), key.clone()));
    assert_eq!(counted(&proxy, "transaction"), 1.0);
    // What runs is cancelled; and if the client does not end it then, the backend is taken from it.
    wire.query("BEGIN; INSERT INTO t VALUES (1)").await;
    let frames = wire.query(SLEEP).await;
    assert_eq!(error(&frames), ("57014".to_owned(), key.clone()));
    assert_eq!(frames.last().map(Frame::text).as_deref(), Some("E"));
    sessions.until("state LIKE 'idle in transaction%'", 0).await;
    assert_eq!(counted(&proxy, "transaction"), 2.0);
    assert_eq!(error(&wire.query("SELECT 1").await), ("25P04".to_owned(), key.clone()));
    assert_eq!(error(&wire.query("SELECT 1").await).0, "25P02");
    assert_eq!(wire.query("ROLLBACK").await[1].text(), "I");
    // One in which nothing runs.
    wire.query("BEGIN; INSERT INTO t VALUES (1)").await;
    sessions.until("state LIKE 'idle in transaction%'", 0).await;
    let mut other = proxy.wire("app").await;
    assert_eq!(other.value("SELECT count(*) FROM t").await, "0");
    assert_eq!(error(&wire.query("COMMIT").await), ("25P04".to_owned(), key.clone()));
    assert_eq!(wire.value("SELECT 1").await, "1");
    assert_eq!(counted(&proxy, "transaction"), 3.0);
    // One that never ends a statement of its own, but does something all the time.
    wire.query("BEGIN").await;
    let ended = loop {
        let frames = wire.query("SELECT pg_sleep(0.1)").await;
        if frames.iter().any(|frame| frame.tag == 'E') {
            break error(&frames);
        }
    };
    assert!([("57014".to_owned(), key.clone()), ("25P04".to_owned(), key)].contains(&ended), "{ended:?}");
    assert_eq!(wire.query("ROLLBACK").await[1].text(), "I");
    // And one of a client that keeps its backend.
    wire.query("CREATE TEMP TABLE u (a int)").await;
    wire.query("BEGIN").await;
    let frames = wire.rest().await;
    assert_eq!((frames[0].sqlstate().as_str(), frames[0].fields()[&'S'].as_str()), ("25P04", "FATAL"));
    sessions.until("state LIKE 'idle in transaction%'", 0).await;
}

#[tokio::test]
async fn a_transaction_that_idles_although_a_function_lifted_the_limit_is_ended() {
    let proxy = with("idle_in_transaction_timeout = \"1s\"").await;
    let sessions = sessions(&proxy).await;
    let mut wire = proxy.wire("app").await;
    lifts(&mut wire, "idle_in_transaction_session_timeout").await;
    wire.query("SELECT lift()").await;
    let process = wire.value("SELECT pg_backend_pid()").await;
    // At work for longer than that it does not idle.
    assert_eq!(tags(&wire.query("BEGIN; SELECT pg_sleep(1.8)").await), "C T D C Z");
    sessions.until("state LIKE 'idle in transaction%'", 0).await;
    let expected = ("25P03".to_owned(), hint("idle_in_transaction_timeout = 1s"));
    assert_eq!(error(&wire.query("SELECT 1").await), expected);
    assert_eq!(wire.query("ROLLBACK").await[1].text(), "I");
    assert_eq!(counted(&proxy, "idle_in_transaction"), 1.0);
    // The backend was cleaned, not closed, and the lifted limit is back with it.
    assert_eq!(wire.value("SELECT pg_backend_pid()").await, process);
    assert_eq!(wire.value("SHOW idle_in_transaction_session_timeout").await, "1s");
}

#[tokio::test]
async fn an_unfinished_extended_query_holds_no_transaction_for_ever() {
    let proxy = with("transaction_timeout = \"1s\"").await;
    let sessions = sessions(&proxy).await;
    let mut wire = proxy.wire("app").await;
    wire.query("CREATE TABLE t (a int)").await;
    wire.send([extended("INSERT INTO t VALUES (1)", &[]), flush()].concat()).await;
    wire.expect("1 2 n C").await;
    assert_eq!(wire.expect("E").await[0].sqlstate(), "25P04");
    wire.send(sync()).await;
    assert_eq!(wire.expect("Z").await[0].text(), "I");
    sessions.until("xact_start IS NOT NULL", 0).await;
    assert_eq!(wire.value("SELECT count(*) FROM t").await, "0");
}
