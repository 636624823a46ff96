//! Names of statements where their meaning is known late: behind what is not answered yet, in transactions that have
//! failed, behind a COPY.

use super::*;

/// A Bind with one format more than it has values for.
fn bind_with_formats(statement: &str, formats: usize) -> Vec<u8> {
    let mut body = [b"\0", statement.as_bytes(), b"\0"].concat();
    body.extend(i16::try_from(formats).expect("few").to_be_bytes());
    body.resize(body.len() + 2 * formats, 0);
    body.extend([0; 4]);
    frame(b'B', &body)
}

#[tokio::test]
async fn a_deallocate_waits_for_the_names_in_front_of_it() {
    same(async |stage| {
        let mut a = stage.client(&[]).await;
        a.say(&[query("PREPARE s AS SELECT 1"), query("DEALLOCATE ALL")]).await;
        a.say(&[describe_statement("s"), sync()]).await;
        a.say(&[named("x", "SELEC"), query("DEALLOCATE x")]).await;
        a.say(&[named("y", "SELECT 2"), query("DEALLOCATE y"), run("y")]).await;
        a.say(&[query("PREPARE z AS SELECT 3"), query("DEALLOCATE z"), named("z", "SELECT 4"), run("z")]).await;
    })
    .await;
}

#[tokio::test]
async fn a_parse_waits_for_what_sql_does_to_its_name() {
    same(async |stage| {
        let mut a = stage.client(&[]).await;
        a.ask("PREPARE s AS SELECT 'sql'").await;
        a.say(&[close_statement("s"), parse("s", "SELECT 1", &[]), sync()]).await;
        a.say(&[parse("s", "SELECT 2", &[]), sync()]).await;
        a.say(&[run("s")]).await;
        a.say(&[query("PREPARE t AS SELECT 3"), parse("t", "SELECT 4", &[]), sync(), run("t")]).await;
        a.say(&[query("DEALLOCATE t"), parse("t", "SELECT 5", &[]), sync(), run("t")]).await;
    })
    .await;
}

// `end` and `user` are words of the grammar, not names.
#[tokio::test]
async fn a_name_that_postgres_refuses_is_none() {
    same(async |stage| {
        let mut a = stage.client(&[]).await;
        a.say(&[named("end", "SELECT 1"), named("user", "SELECT 2"), named("name", "SELECT 3")]).await;
        for name in ["end", "user", "USER", "name", "\"end\"", "\"user\""] {
            a.ask(&format!("EXECUTE {name}")).await;
            a.ask(&format!("LISTEN {name}")).await;
            a.ask(&format!("NOTIFY {name}")).await;
            a.ask(&format!("UNLISTEN {name}")).await;
            a.ask(&format!("SAVEPOINT {name}")).await;
            a.ask(&format!("DEALLOCATE {name}")).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_error_quotes_the_name_that_the_client_gave() {
    same(async |stage| {
        let mut a = stage.client(&[]).await;
        a.say(&[named("mine \"1\"", "SELECT $1::int"), named("s", "SET a.x = '1'")]).await;
        a.say(&[run("mine \"1\"")]).await;
        a.say(&[run_with("s", &["1", "2"])]).await;
        a.say(&[parse("", "PREPARE s AS SELECT 1", &[]), run("")]).await;
        a.say(&[[parse("closed", "SELECT $1::int", &[]), bind("", "closed", &[]), close_statement("closed"), sync()]
            .concat()])
            .await;
        a.say(&[named("later", "SELECT $1::int")]).await;
        a.say(&[run("later"), close_statement("later"), sync()]).await;
        let both = [parse("one", "SELECT $1::text", &[]), parse("two", "SELECT $1::text", &[])].concat();
        a.say(&[[both, bind("", "one", &[]), sync()].concat(), run("two"), run("one")]).await;
        a.ask("EXECUTE \"mine \"\"1\"\"\"").await;
        a.ask("CREATE TEMP TABLE t AS EXECUTE s").await;
    })
    .await;
}

#[tokio::test]
async fn the_role_of_the_startup_comes_back_with_the_authorization() {
    let role = Postgres::shared().own_role("").await;
    Postgres::shared().role("app").await;
    let grant = format!("GRANT {role} TO app");
    Postgres::shared().admin("postgres").await.batch_execute(&grant).await.expect("a grant");
    same(async |stage| {
        let who = "SELECT current_user, session_user";
        let mut a = stage.client(&[("options", &format!("-c role={role}"))]).await;
        for back in ["RESET SESSION AUTHORIZATION", "SET SESSION AUTHORIZATION DEFAULT", "DISCARD ALL"] {
            a.say(&[query("SET ROLE NONE"), query(who)]).await;
            a.say(&[extended(back, &[]), sync()]).await;
            a.ask(who).await;
            a.ask("BEGIN").await;
            a.say(&[unit("SET SESSION AUTHORIZATION app"), query(who), query("SELECT 1/0"), query("ROLLBACK")]).await;
            a.ask(back).await;
            a.say(&[unit(who)]).await;
        }
        a.say(&[query("SET ROLE NONE")]).await;
        a.say(&[extended("RESET SESSION AUTHORIZATION", &[]), extended(who, &[]), sync(), query(who)]).await;
        a.say(&[query("BEGIN; SET LOCAL ROLE NONE; SET LOCAL SESSION AUTHORIZATION DEFAULT"), query(who)]).await;
        a.say(&[query("COMMIT"), query(who)]).await;
    })
    .await;
}

#[tokio::test]
async fn a_statement_means_in_the_middle_of_a_unit_what_it_meant() {
    same(async |stage| {
        let local = "SELECT timestamptz '2020-06-01 00:00' AT TIME ZONE 'UTC', current_setting('TimeZone')";
        for block in ["", "BEGIN"] {
            let [mut a, mut b] = stage.clients().await;
            a.say(&[query("SET search_path = tb"), named("utc", local), named("b", "SELECT who FROM t")]).await;
            a.say(&[query("SET TimeZone = 'Asia/Tokyo'"), query("SET search_path = ta")]).await;
            a.say(&[named("tokyo", local), named("a", "SELECT who FROM t")]).await;
            a.say(&[query("SET search_path = tb, \"$user\", public"), query("SET a.x = 'kept'")]).await;
            b.ask("DISCARD ALL").await;
            a.say(&[query(block)]).await;
            a.say(&[extended("SET DateStyle = 'German'", &[]), run("utc")]).await;
            a.say(&[extended("SELECT 1", &[]), run("a"), extended("SHOW search_path", &[]), run("b")]).await;
            a.say(&[extended("SET TimeZone = 'UTC'", &[]), run("tokyo"), query("SHOW TimeZone")]).await;
            a.say(&[query("COMMIT"), query("SHOW TimeZone"), query("SHOW DateStyle"), query("SHOW search_path")]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_analysis_under_other_settings_leaves_an_open_portal() {
    same(async |stage| {
        let [mut a, mut b] = stage.clients().await;
        a.say(&[named("s", "SELECT 1"), query("SET TimeZone = 'Asia/Tokyo'")]).await;
        b.ask("DISCARD ALL").await;
        a.say(&[unit("BEGIN"), parse("", "SELECT generate_series(1, 5)", &[])]).await;
        a.say(&[[bind("", "", &[]), execute("", 2), sync()].concat()]).await;
        a.say(&[[describe_statement("s"), execute("", 2), sync()].concat()]).await;
        a.say(&[[bind("p", "s", &[]), execute("", 0), execute("p", 0), sync()].concat()]).await;
        a.say(&[query("SHOW TimeZone"), query("ROLLBACK"), query("SHOW TimeZone")]).await;
    })
    .await;
}

#[tokio::test]
async fn a_statement_that_a_backend_lacks_may_begin_its_transaction() {
    same(async |stage| {
        for modes in ["SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SAVEPOINT a"] {
            let [mut a, mut b] = stage.clients().await;
            a.ask("SET TimeZone = 'Asia/Tokyo'").await;
            a.say(&[named("modes", modes), named("begin", "BEGIN")]).await;
            a.ask("RESET TimeZone").await;
            b.ask("DISCARD ALL").await;
            a.say(&[run("begin"), run("modes")]).await;
            a.say(&[query("SHOW transaction_isolation"), query("COMMIT")]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_failed_transaction_knows_statements_that_its_backend_lacks() {
    same(async |stage| {
        let texts = [
            ("rows", "SELECT $1::int + 1"),
            ("none", "INSERT INTO items (v) VALUES ($1)"),
            ("set", "SET a.x = '1'"),
            ("savepoint", "SAVEPOINT a"),
            ("rollback", "ROLLBACK"),
            ("empty", ""),
        ];
        for (name, text) in texts {
            let [mut a, mut b] = stage.clients().await;
            a.say(&[named(name, text)]).await;
            b.ask("DISCARD ALL").await;
            a.ask("BEGIN").await;
            a.ask("SELECT 1/0").await;
            a.say(&[describe_statement(name), sync()]).await;
            a.say(&[bind_with_formats(name, 2), sync()]).await;
            a.say(&[run_with(name, &["1", "2"])]).await;
            a.say(&[run_with(name, &["1"]), describe_statement(name), sync()]).await;
            a.say(&[parse("", "ROLLBACK", &[]), describe_statement(name), run(name)]).await;
            a.ask(&format!("EXECUTE {name}")).await;
            a.ask("ROLLBACK").await;
            a.say(&[describe_statement(name), sync()]).await;
        }
    })
    .await;
}

// The server has failed the COPY when it reads the rest, and carries that out.
#[tokio::test]
async fn what_comes_behind_a_copy_that_has_failed_counts() {
    same(async |stage| {
        let [mut a, mut b] = stage.clients().await;
        a.ask("CREATE TABLE copied (a int)").await;
        a.say(&[named("before", "SELECT 1"), named("gone", "SELECT 2")]).await;
        b.ask("DISCARD ALL").await;
        let value = "SELECT nullif(current_setting('a.x', true), ''), current_setting('work_mem')";
        for (messages, cycles) in [
            (vec![named("s", "SELECT 3")], 1),
            (vec![query("SET a.x = 'mine'; SET work_mem = '7MB'")], 1),
            (vec![run("before")], 1),
            (vec![close_statement("gone"), sync()], 1),
            (vec![query("PREPARE p AS SELECT 4"), query("DEALLOCATE s"), query("DEALLOCATE p")], 3),
            (vec![query("LISTEN copied"), query("NOTIFY copied, 'heard'")], 2),
            (vec![query("BEGIN"), query("SET work_mem = '9MB'"), query("SAVEPOINT a"), query("COMMIT")], 4),
            (vec![query("CREATE TEMP TABLE t (a int)"), unit("SELECT count(*) FROM t"), query("DROP TABLE t")], 3),
        ] {
            a.wire.send(query("COPY copied FROM STDIN")).await;
            let start = a.wire.next().await.expect("an answer");
            assert_eq!(start.tag, 'G');
            let wrong = frontend::copy_data(b"no number\n");
            a.wire.send([wrong, messages.concat(), frontend::copy_done()].concat()).await;
            a.hear(1 + cycles).await;
            b.ask(value).await;
            a.ask(value).await;
            for name in ["s", "before", "gone"] {
                a.say(&[describe_statement(name), sync()]).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_payload_that_postgres_warns_of_is_its_own() {
    same(async |stage| {
        let mut a = stage.client(&[]).await;
        for setting in ["standard_conforming_strings = on", "standard_conforming_strings = off"] {
            a.ask(&format!("SET {setting}")).await;
            for payload in [r"'it\''s'", r"E'it\'s'", r"'it\\'", r"E'it\\'", r"E'\x41\n'", "'it''s'"] {
                a.ask(&format!("NOTIFY judged, {payload}")).await;
                a.ask(&format!("SELECT pg_notify('judged', {payload})")).await;
                a.say(&[unit(&format!("NOTIFY judged, {payload}"))]).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_unit_may_prepare_more_than_a_backend_keeps() {
    same(async |stage| {
        let mut a = stage.client(&[]).await;
        let names = ["one", "two", "three"];
        let parses = names.map(|name| parse(name, &format!("SELECT '{name}'"), &[])).concat();
        let uses = names.map(|name| [bind("", name, &[]), execute("", 0)].concat()).concat();
        a.say(&[[parses, uses, sync()].concat()]).await;
        a.say(&names.map(run)).await;
    })
    .await;
}

#[tokio::test]
async fn a_listener_hears_nothing_that_was_notified_before_it_listened() {
    same(async |stage| {
        let mut a = stage.client(&[]).await;
        let mut b = stage.client(&[]).await;
        b.ask("LISTEN late").await;
        for _ in 0..20 {
            // From here on what the client notifies of is told behind the server's.
            a.ask("DO $$ BEGIN END $$").await;
            a.say(&[unit("NOTIFY late"), unit("LISTEN late"), query("SELECT 1")]).await;
            a.ask("UNLISTEN *").await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_bind_that_does_not_fit_hears_that_before_a_changed_or_gone_table() {
    same(async |stage| {
        let mut a = stage.client(&[]).await;
        let mut b = stage.client(&[]).await;
        for after in ["CREATE TABLE changed (a int)", "SELECT 1"] {
            a.ask("CREATE TABLE changed (a int, b int)").await;
            a.say(&[[parse("s", "SELECT * FROM changed", &[]), sync()].concat()]).await;
            b.ask("DROP TABLE changed").await;
            b.ask(after).await;
            b.ask("DISCARD ALL").await;
            for values in [&[Some(&b"1"[..])][..], &[]] {
                a.say(&[[bind("", "s", values), sync()].concat()]).await;
            }
            a.ask("DROP TABLE IF EXISTS changed").await;
            a.say(&[[close_statement("s"), sync()].concat()]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_execute_that_was_prepared_runs_what_has_the_name_when_it_runs() {
    same(async |stage| {
        let mut a = stage.client(&[]).await;
        let mut b = stage.client(&[]).await;
        for name in ["", "x"] {
            // Nothing has the name yet.
            a.say(&[[parse(name, "EXECUTE s", &[]), parse("s", "SELECT 'first'", &[]), sync()].concat()]).await;
            a.say(&[run(name)]).await;
            b.ask("DISCARD ALL").await;
            a.say(&[run(name)]).await;
            // Something else has it, and then nothing.
            a.say(&[[close_statement("s"), parse("s", "SELECT 'other'", &[]), sync()].concat()]).await;
            a.say(&[run(name)]).await;
            a.say(&[close_statement("s"), sync()]).await;
            a.say(&[run(name)]).await;
            a.say(&[[parse("s", "SELECT 'third'", &[]), run(name)].concat()]).await;
            a.say(&[close_statement("s"), close_statement(name), sync()]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_default_that_changes_is_told_with_the_backend_that_has_it_and_everybody_has_it_after_reconnect() {
    let postgres = Postgres::private(&[]);
    let proxy = proxy_before(&postgres).toml("[pool]\nsize = 2").start().await;
    let admin = postgres.admin(&proxy.dbname).await;
    let (mut older, mut newer) = (proxy.wire("app").await, proxy.wire("app").await);
    older.query("BEGIN").await;
    let default = older.value("SHOW TimeZone").await;
    admin.batch_execute("ALTER ROLE app SET TimeZone = 'Asia/Tokyo'").await.unwrap();
    let told = newer.query("SHOW TimeZone").await;
    assert_eq!((tags(&told).as_str(), told[0].text().as_str()), ("S T D C Z", "TimeZone\0Asia/Tokyo"));
    assert_eq!(older.value("SHOW TimeZone").await, default);
    older.query("COMMIT").await;

    proxy.console("RECONNECT").await;
    for wire in [&mut older, &mut newer] {
        assert_eq!(
            wire.query("SHOW TimeZone").await.iter().rev().nth(2).expect("a row").columns(),
            [Some("Asia/Tokyo".to_owned())]
        );
    }
}
