//! Notifications of triggers and functions: what `pgweir notify-sql` prints, what it finds, and what becomes of each call.

use std::fs;
use std::process::Command;

use crate::support::fake::{FakeServer, row};
use crate::support::frontend::{extended, query, sync};
use crate::support::{Endpoint, Frame, Postgres, Wire, output_of, proxy, tags};

/// Every way in which what is in a database can notify.
const SCHEMA: &str = include_str!("shadow.sql");

fn notify_sql(flags: &[&str]) -> String {
    let mut pgweir = Command::new(env!("CARGO_BIN_EXE_pgweir"));
    pgweir.arg("notify-sql").args(flags);
    output_of(pgweir)
}

/// Has psql run what `pgweir notify-sql` prints; returns the rows it shows, or what it says if that fails.
async fn run(at: &Endpoint, flags: &[&str]) -> Result<String, String> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("notify.sql");
    fs::write(&file, notify_sql(flags)).expect("our own directory");
    let (host, port) = (at.addr.ip().to_string(), at.addr.port().to_string());
    let mut psql = tokio::process::Command::new("psql");
    psql.args(["-XAtq", "-h", &host, "-p", &port, "-U", "postgres", "-d", &at.dbname, "-f"]).arg(file);
    psql.env("PGOPTIONS", "-c search_path=app,public");
    let ended = psql.output().await.expect("psql");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if ended.status.success() { Ok(text(&ended.stdout)) } else { Err(text(&ended.stderr)) }
}

/// A database with everything in it that notifies.
async fn stage(postgres: &Postgres) -> Endpoint {
    let dbname = postgres.database().await;
    postgres.role("app").await;
    postgres.admin(&dbname).await.batch_execute(SCHEMA).await.expect("valid SQL");
    let direct = postgres.endpoint(&dbname);
    run(&direct, &[]).await.expect("it can be run");
    direct
}

/// Runs `sql` in one of the protocols; it succeeds. Returns the tags of its frames.
async fn play(wire: &mut Wire, sql: &str, is_simple: bool) -> String {
    let bytes = if is_simple { query(sql) } else { [extended(sql, &[]), sync()].concat() };
    wire.send(bytes).await;
    let frames = wire.cycle().await;
    let tags = tags(&frames);
    assert!(!tags.contains('E'), "{sql}: {frames:?}");
    tags
}

#[tokio::test]
async fn callers_are_found_with_how_they_call_and_what_adopts_them() {
    let direct = stage(Postgres::shared()).await;
    let adopts = |function: &str, path: &str, before: &str| {
        let undo = if before.is_empty() { "RESET search_path".into() } else { format!("SET search_path = {before}") };
        let kind = if function.contains("procedure") { "PROCEDURE" } else { "FUNCTION" };
        format!("ALTER {kind} app.{function} SET search_path = {path}|ALTER {kind} app.{function} {undo}")
    };
    let session = "pgweir, pg_catalog, app, public, pgweir_undo_reset";
    let unset = |function: &str| adopts(function, session, "") + "|has no path of its own, gets this session's";
    let own = |function: &str, path: &str, before: &str| adopts(function, path, before) + "|";
    let by_path = [
        ("both\"()||pg_notify()", unset("\"both\"()")),
        ("called(text)||pg_notify()", unset("called(pg_catalog.text)")),
        ("caught()||pg_notify()", unset("caught()")),
        ("definer()||pg_notify()", unset("definer()")),
        ("dynamic()||EXECUTE … pg_notify()", unset("dynamic()")),
        ("emptied()|app.emptied|pg_notify()", own("emptied()", "pgweir, pg_catalog, ''", "''")),
        (
            "first()||pg_notify()",
            own("first()", "pgweir, pg_catalog, pg_catalog, app, pg_temp", "pg_catalog, app, pg_temp"),
        ),
        (
            "in_between()||pg_notify()",
            own("in_between()", r#"app, "A ""b", pgweir, pg_catalog, "$user""#, r#"app, "A ""b", pg_catalog, "$user""#),
        ),
        ("in_procedure(integer,app.c)||pg_notify()", unset("in_procedure(integer,app.c)")),
        ("in_sql()||pg_notify()", unset("in_sql()")),
        ("late()|app.late|pg_notify()", own("late()", "pgweir, pg_catalog, app", "app")),
        ("pinned()|app.pinned|pg_notify()", own("pinned()", "pgweir, pg_catalog, app, public", "app, public")),
        ("plain()|app.plain|pg_notify()", unset("plain()")),
    ];
    let by_path = by_path.map(|(who, how)| {
        let quote = if who.starts_with("both") { "\"" } else { "" };
        format!("function app.{quote}{who}|can be adopted|{how}")
    });
    let (bound, command, qualified) = (
        "bound when it was made: make it anew with pgweir.notify",
        "a command: let it call pgweir.notify",
        "names pg_catalog: let it call pgweir.notify",
    );
    let stays = [
        ("default value for column w of table app.defaulted||pg_notify()", bound),
        ("function app.\"both\"()||pg_catalog.pg_notify()", qualified),
        ("function app.atomic()||pg_notify()", bound),
        ("function app.command()||NOTIFY", command),
        ("function app.command_in_sql()||NOTIFY", command),
        ("function app.commits()||pg_notify()", "with a path of its own it could not COMMIT"),
        ("function app.dynamic_command()||EXECUTE … NOTIFY", command),
        ("function app.makes()||pg_notify()", "makes objects, which would go to schema pgweir"),
        ("function app.qualified()|app.qualified|pg_catalog.pg_notify()", qualified),
        ("rule _RETURN on view app.viewed||pg_notify()", bound),
        ("rule told on table app.ruled||NOTIFY", "a command: make it a trigger"),
        ("trigger t on table app.c||pg_notify()", "written in C"),
    ];
    let stays = stays.map(|(who, why)| format!("{who}|stays a NOTIFY|||{why}"));
    let by_name = "function app.by_name(text,text)||pgweir.notify()|adopted|||".to_owned();
    let expected: Vec<_> = [by_name].into_iter().chain(by_path).chain(stays).collect();
    let found = run(&direct, &["--callers"]).await.expect("a query");
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn adoption_is_undone_exactly_and_the_schema_is_not_dropped_under_it() {
    let direct = stage(Postgres::shared()).await;
    let admin = Postgres::shared().admin(&direct.dbname).await;
    let paths = async || {
        let sql =
            "SELECT coalesce(string_agg(p.oid::regprocedure || coalesce(proconfig::text, ''), ' ' ORDER BY p.oid), '')
                   FROM pg_proc p WHERE pronamespace = 'app'::regnamespace";
        admin.query_one(sql, &[]).await.expect("a row").get::<_, String>(0)
    };
    let before = paths().await;
    run(&direct, &["--adopt"]).await.expect("functions of our own");
    let adopted = paths().await;
    assert_ne!(adopted, before);
    run(&direct, &["--adopt"]).await.expect("nothing is left to adopt");
    assert_eq!(paths().await, adopted);

    let refusal = run(&direct, &["--remove"]).await.expect_err("functions name it");
    assert!(refusal.contains("still named by") && refusal.contains("app.pinned()"), "{refusal}");
    run(&direct, &["--undo"]).await.expect("functions of our own");
    assert_eq!(paths().await, before);
    let refusal = run(&direct, &["--remove"]).await.expect_err("one still calls it by name");
    assert!(refusal.contains("app.by_name(text,text)") && !refusal.contains("app.pinned()"), "{refusal}");
    admin.batch_execute("DROP FUNCTION app.by_name").await.expect("our own function");
    run(&direct, &["--remove"]).await.expect("nothing names it");
    let refusal = run(&direct, &["--adopt"]).await.expect_err("a path without the schema adopts nothing");
    assert!(refusal.contains("schema \"pgweir\" does not exist"), "{refusal}");
    assert_eq!(paths().await.len(), before.len() - "app.by_name(text,text) ".len());
    run(&direct, &[]).await.expect("it can be made again");
    run(&direct, &[]).await.expect("and again");
}

#[tokio::test]
async fn schema_that_somebody_else_made_is_not_used() {
    let postgres = Postgres::shared();
    let direct = postgres.endpoint(&postgres.database().await);
    let role = postgres.own_role("").await;
    let admin = postgres.admin(&direct.dbname).await;
    admin.batch_execute(&format!("CREATE SCHEMA pgweir AUTHORIZATION {role}")).await.expect("the superuser may");
    let refusal = run(&direct, &[]).await.expect_err("its owner could replace the functions");
    assert!(refusal.contains(&format!("schema pgweir belongs to role {role}")), "{refusal}");
}

#[tokio::test]
async fn functions_tell_pgweir_what_postgres_would_send_and_nothing_it_would_refuse() {
    let direct = stage(Postgres::shared()).await;
    let mut wire = direct.wire("app").await;
    wire.value("SET pgweir.intercept = on").await;
    let longest = ("c".repeat(63), "p".repeat(7999));
    for (channel, payload, told) in [
        ("'ch'", "'text'".to_owned(), Some(("ch", "text"))),
        ("'ch'", "NULL".to_owned(), Some(("ch", ""))),
        ("'ch'", "''".to_owned(), Some(("ch", ""))),
        ("'Ch \"x'", "e'two\\nlines'".to_owned(), Some(("Ch \"x", "two\nlines"))),
        ("'ch'", "'é'".to_owned(), Some(("ch", "é"))),
        ("repeat('c', 63)", "repeat('p', 7999)".to_owned(), Some((&longest.0, &longest.1))),
        ("repeat('c', 64)", "''".to_owned(), None),
        ("repeat('é', 32)", "''".to_owned(), None),
        ("'ch'", "repeat('p', 8000)".to_owned(), None),
        ("''", "''".to_owned(), None),
        ("NULL", "''".to_owned(), None),
    ] {
        for function in ["pgweir.notify", "pgweir.pg_notify"] {
            let mut frames = wire.query(&format!("SELECT {function}({channel}, {payload})")).await;
            let what = format!("{function}({channel}, {payload})");
            let Some((channel, payload)) = told else {
                let error = frames.iter().find(|frame| frame.tag == 'E').unwrap_or_else(|| panic!("{what} is refused"));
                let refused = wire.query(&what.replace(function, "SELECT pg_catalog.pg_notify")).await;
                let fields = |error: &Frame| (error.sqlstate(), error.fields()[&'M'].clone());
                let refused = refused.iter().find(|frame| frame.tag == 'E').expect("Postgres refuses it");
                assert_eq!(fields(error), fields(refused), "{what}");
                continue;
            };
            assert_eq!(tags(&frames), "T N D C Z", "{what}");
            let fields = frames.swap_remove(1).fields();
            assert_eq!((&*fields[&'S'], &*fields[&'C']), ("INFO", "PW001"), "{what}");
            assert_eq!((&*fields[&'c'], &*fields[&'M']), (channel, payload), "{what}");
        }
    }
    // On the way to this client é would become another byte.
    wire.value("SET client_encoding = latin1").await;
    assert_eq!(play(&mut wire, "SELECT pgweir.notify('ch', 'plain')", true).await, "T N D C Z");
    assert_eq!(play(&mut wire, "SELECT pgweir.notify('ch', 'not ' || chr(233))", true).await, "T D C Z");
    wire.value("RESET client_encoding; SET pgweir.intercept = off").await;
    assert_eq!(play(&mut wire, "SELECT pgweir.notify('ch', 'off')", true).await, "T D C Z");
}

#[tokio::test]
async fn no_path_and_no_operator_of_the_caller_leads_the_functions_astray() {
    let direct = stage(Postgres::shared()).await;
    let admin = Postgres::shared().admin(&direct.dbname).await;
    let hostile = "CREATE SCHEMA hostile;
        CREATE FUNCTION hostile.no(text, text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE 'astray'; END $$;
        CREATE FUNCTION hostile.no(int, int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE 'astray'; END $$;
        CREATE FUNCTION hostile.no(name, name) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE 'astray'; END $$;
        CREATE OPERATOR hostile.= (FUNCTION = hostile.no, LEFTARG = text, RIGHTARG = text);
        CREATE OPERATOR hostile.= (FUNCTION = hostile.no, LEFTARG = name, RIGHTARG = name);
        CREATE OPERATOR hostile.!~ (FUNCTION = hostile.no, LEFTARG = text, RIGHTARG = text);
        CREATE OPERATOR hostile.< (FUNCTION = hostile.no, LEFTARG = int, RIGHTARG = int);
        CREATE OPERATOR hostile.>= (FUNCTION = hostile.no, LEFTARG = int, RIGHTARG = int);
        CREATE FUNCTION hostile.octet_length(text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE 'astray'; END $$;
        CREATE FUNCTION hostile.pg_notify(text, text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'astray'; END $$;
        GRANT USAGE ON SCHEMA hostile TO PUBLIC;";
    admin.batch_execute(hostile).await.expect("the superuser may");
    let mut wire = direct.wire("app").await;
    wire.value("SET search_path = hostile, pg_catalog, app; LISTEN ch").await;
    for encoding in ["utf8", "latin1"] {
        wire.value(&format!("SET client_encoding = {encoding}; SET pgweir.intercept = on")).await;
        assert_eq!(play(&mut wire, "SELECT pgweir.notify('ch', 'x')", true).await, "T N D C Z");
        wire.value("SET pgweir.intercept = off").await;
        assert_eq!(play(&mut wire, "SELECT pgweir.pg_notify('ch', 'x')", true).await, "T D C A Z");
    }
}

#[tokio::test]
async fn backends_say_whose_they_are_as_long_as_pgweir_intercepts() {
    let proxy = proxy().pool_size(2).start().await;
    let setting =
        "SELECT coalesce(nullif(current_setting('pgweir.intercept', true), ''), 'none') FROM pg_backend_pid()";
    let mut wire = proxy.wire("app").await;
    assert_eq!(wire.value(setting).await, "on");
    for undo in ["RESET ALL", "DISCARD ALL", "RESET pgweir.intercept"] {
        wire.value(undo).await;
        assert_eq!(wire.value(setting).await, "on", "{undo}");
    }
    let backend = wire.value("SELECT pg_backend_pid()").await;
    proxy.reload("[notify]\nmode = \"off\"").await;
    assert_eq!(wire.value(setting).await, "none");
    proxy.reload("[notify]\nmode = \"intercept\"").await;
    assert_eq!(wire.value(setting).await, "on");
    assert_ne!(wire.value("SELECT pg_backend_pid()").await, backend);
    // A change of something else replaces nobody.
    let backend = wire.value("SELECT pg_backend_pid()").await;
    proxy.reload("[notify]\nbus = \"memory\"").await;
    assert_eq!(wire.value("SELECT pg_backend_pid()").await, backend);
}

#[tokio::test]
async fn server_that_refuses_the_setting_is_used_without_it() {
    let refused = ("pgweir.intercept", "08P01");
    let server = FakeServer::refusing(refused, |tag, _| if tag == b'Q' { row("served") } else { Vec::new() }).await;
    let proxy = proxy().backend(server.addr).pool_size(1).start().await;
    assert_eq!(proxy.wire("app").await.value("SELECT 1").await, "served");
    let record = proxy.logged("the server takes no pgweir.intercept; what its functions notify stays a NOTIFY").await;
    assert_eq!((&record["database"], &record["role"]), (&"app".into(), &"app".into()));
}
