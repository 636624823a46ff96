//! Notifications of triggers and functions: what `pgweir notify-sql` prints, what it finds, and what becomes of each
//! call.

use std::fs;
use std::process::Command;

use crate::support::fake::{FakeServer, row};
use crate::support::frontend::{bind, copy_data, copy_done, execute, extended, parse, query, sync};
use crate::support::{Endpoint, Frame, Postgres, Proxy, Wire, output_of, proxy, tags};

/// Every way in which what is in a database can notify.
const SCHEMA: &str = include_str!("shadow.sql");

/// The path of the sessions of these tests.
const PATH: &str = "SET search_path = app, public";

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

/// pgweir in front of it, with listeners at both.
struct Theatre {
    direct: Endpoint,
    proxy: Proxy,
    behind: Wire,
    beside: Wire,
    prompter: Wire,
}

impl Theatre {
    async fn open(lines: &str) -> Self {
        let direct = stage(Postgres::shared()).await;
        let proxy = proxy().dbname(&direct.dbname).toml("[notify]\nbus = \"memory\"").toml(lines).start().await;
        let (mut behind, mut beside) = (proxy.wire("app").await, direct.wire("app").await);
        for listener in [&mut behind, &mut beside] {
            listener.value("LISTEN ch").await;
        }
        let prompter = direct.wire("app").await;
        Self { direct, proxy, behind, beside, prompter }
    }

    /// What listeners heard of the clients of pgweir, in order: behind it, and at Postgres itself. What was intercepted
    /// is heard behind pgweir only, because the bus carries nothing beyond it.
    async fn heard(&mut self) -> (Vec<String>, Vec<String>) {
        self.prompter.value("NOTIFY ch, 'curtain'").await;
        (until_curtain(&mut self.behind).await, until_curtain(&mut self.beside).await)
    }

    /// The next that listeners heard is this, once, and it was intercepted or not.
    async fn expect(&mut self, what: &str, payload: &str, is_intercepted: bool) {
        let beside = if is_intercepted { vec![] } else { vec![payload.to_owned()] };
        assert_eq!(self.heard().await, (vec![payload.to_owned()], beside), "{what}");
    }

    async fn expect_nothing(&mut self, what: &str) {
        assert_eq!(self.heard().await, (vec![], vec![]), "{what}");
    }

    /// A client of pgweir with the path of these tests.
    async fn writer(&self) -> Wire {
        let mut writer = self.proxy.wire("app").await;
        writer.value(PATH).await;
        writer
    }
}

/// Payloads on `ch`, up to the one that ends it.
async fn until_curtain(listener: &mut Wire) -> Vec<String> {
    let mut payloads = Vec::new();
    loop {
        let frame = listener.frame().await;
        assert_eq!(frame.tag, 'A', "{frame:?}");
        let mut texts = frame.body[4..].split(|&byte| byte == 0);
        assert_eq!(texts.next(), Some(&b"ch"[..]));
        let payload = String::from_utf8_lossy(texts.next().expect("a payload")).into_owned();
        if payload == "curtain" {
            return payloads;
        }
        payloads.push(payload);
    }
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

/// By its path: what adoption changes. Each with the one payload it sends.
const BY_PATH: [(&str, &str); 10] = [
    ("INSERT INTO plain VALUES ('plain')", "plain"),
    ("INSERT INTO pinned VALUES ('pinned')", "pinned"),
    ("INSERT INTO emptied VALUES ('emptied')", "emptied"),
    ("SELECT called('called')", "called"),
    ("SELECT definer()", "definer"),
    ("SELECT in_sql()", "in sql"),
    ("SELECT dynamic()", "dynamic"),
    ("SELECT in_between()", "in between"),
    ("SELECT first()", "first"),
    ("CALL in_procedure(1, NULL)", "procedure"),
];

/// What stays a NOTIFY.
const BOUND: [(&str, &str); 9] = [
    ("INSERT INTO qualified VALUES ('qualified')", "qualified"),
    ("INSERT INTO defaulted (v) VALUES ('x')", "default"),
    ("INSERT INTO c VALUES ('x') ON CONFLICT DO NOTHING", "\"c\",I,\"v\"='x'"),
    ("SELECT command()", "command"),
    ("SELECT command_in_sql()", "command in sql"),
    ("SELECT dynamic_command()", "dynamic command"),
    ("SELECT atomic()", "atomic"),
    ("SELECT * FROM viewed", "view"),
    ("UPDATE ruled SET v = 'x'", "rule"),
];

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
    assert!(refusal.contains("pgweir") && refusal.contains("does not exist"), "{refusal}");
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

#[tokio::test]
async fn every_call_reaches_each_listener_once_and_adoption_decides_how() {
    let mut theatre = Theatre::open("").await;
    let mut writer = theatre.writer().await;
    writer.value("INSERT INTO ruled VALUES ('x')").await;
    for (phase, is_adopted) in [("before", false), ("adopted", true), ("undone", false)] {
        match phase {
            "adopted" => drop(run(&theatre.direct, &["--adopt"]).await.expect("adoption")),
            "undone" => drop(run(&theatre.direct, &["--undo"]).await.expect("its undo")),
            _ => {}
        }
        let calls = BY_PATH.map(|(sql, payload)| (sql, payload, is_adopted));
        let bound = BOUND.map(|(sql, payload)| (sql, payload, false));
        let by_name = [("SELECT by_name('ch', 'by name')", "by name", true)];
        for (sql, payload, is_intercepted) in calls.into_iter().chain(bound).chain(by_name) {
            for is_simple in [true, false] {
                let what = format!("{phase}: {sql}, simple: {is_simple}");
                if payload.starts_with("\"c\"") {
                    writer.value("DELETE FROM c").await;
                }
                let through = play(&mut writer, sql, is_simple).await;
                theatre.expect(&what, payload, is_intercepted).await;
                let mut straight = theatre.direct.wire("app").await;
                straight.value(PATH).await;
                if payload.starts_with("\"c\"") {
                    straight.value("DELETE FROM c").await;
                }
                assert_eq!(play(&mut straight, sql, is_simple).await, through, "{what}");
                theatre.expect(&format!("{what}, without pgweir"), payload, false).await;

                writer.value("BEGIN; DELETE FROM c").await;
                play(&mut writer, sql, is_simple).await;
                writer.value("ROLLBACK").await;
                theatre.expect_nothing(&format!("{what}, rolled back")).await;
            }
        }
    }
}

#[tokio::test]
async fn private_notices_reach_no_client_and_no_log_whatever_it_wants_to_hear() {
    let mut theatre = Theatre::open("").await;
    run(&theatre.direct, &["--adopt"]).await.expect("adoption");
    let mut writer = theatre.writer().await;
    for level in ["debug5", "log", "notice", "warning", "error"] {
        writer.value(&format!("SET client_min_messages = {level}")).await;
        // With debug5 Postgres says a lot, of which none is ours.
        writer.send(query("SELECT called('whispered')")).await;
        let frames = writer.cycle().await;
        let notices = frames.iter().filter(|frame| frame.tag == 'N');
        assert!(notices.into_iter().all(|notice| notice.sqlstate() != "PW001"), "{level}: {frames:?}");
        theatre.expect(level, "whispered", true).await;
    }
    let admin = Postgres::shared().admin(&theatre.direct.dbname).await;
    let log = "SELECT pg_read_file(current_setting('data_directory') || '/../log')";
    let log: String = admin.query_one(log, &[]).await.expect("the superuser may").get(0);
    // Other tests write into this log, too, but not this.
    assert!(!log.contains("whispered"), "{log}");
    assert!(!theatre.proxy.log_text().contains("whispered"));
}

#[tokio::test]
async fn notices_of_the_application_pass() {
    let theatre = Theatre::open("").await;
    run(&theatre.direct, &["--adopt"]).await.expect("adoption");
    let mut writer = theatre.writer().await;
    let both =
        "DO $$ BEGIN RAISE INFO 'one'; PERFORM app.called('x'); RAISE INFO 'two' USING ERRCODE = 'PW002'; END $$";
    let frames = writer.query(both).await;
    assert_eq!(tags(&frames), "N N C Z");
    assert_eq!((&*frames[0].fields()[&'M'], &*frames[1].fields()[&'M']), ("one", "two"));
}

#[tokio::test]
async fn what_a_transaction_takes_back_is_not_sent() {
    let mut theatre = Theatre::open("").await;
    run(&theatre.direct, &["--adopt"]).await.expect("adoption");
    let mut writer = theatre.writer().await;
    for (sql, sent) in [
        (
            "BEGIN; SELECT called('a'); SAVEPOINT s; SELECT called('b'); ROLLBACK TO s; SELECT called('c'); COMMIT",
            "a c",
        ),
        ("BEGIN; SELECT called('a'); SAVEPOINT s; SELECT called('b'); RELEASE s; COMMIT", "a b"),
        ("BEGIN; SELECT called('a'); SELECT called('a'); SELECT called('b'); SELECT called('a'); COMMIT", "a b"),
        ("BEGIN; SELECT called('a'); SELECT 1/0; COMMIT", ""),
        ("SELECT called('a'); SELECT 1/0", ""),
        ("SELECT called(x) FROM (VALUES ('b'), ('a')) AS v (x)", "b a"),
        ("INSERT INTO plain VALUES ('x'), ('y')", "x y"),
        ("SELECT called('a') FROM generate_series(1, 1000)", "a"),
        ("INSERT INTO late VALUES ('deferred')", "deferred"),
        ("INSERT INTO late VALUES ('fails')", ""),
        // Known: the server does not say that it took this one back.
        ("SELECT caught()", "caught"),
    ] {
        writer.query(sql).await;
        writer.query("ROLLBACK").await;
        let sent: Vec<_> = sent.split_whitespace().map(str::to_owned).collect();
        assert_eq!(theatre.heard().await, (sent, vec![]), "{sql}");
    }
    for (end, sent) in [("COMMIT", vec!["deferred"]), ("ROLLBACK", vec![])] {
        writer.value("BEGIN").await;
        writer.value("INSERT INTO late VALUES ('deferred')").await;
        theatre.expect_nothing("a deferred trigger has not run yet").await;
        writer.value(end).await;
        assert_eq!(theatre.heard().await, (sent.into_iter().map(str::to_owned).collect(), vec![]), "{end}");
    }
    writer.value("BEGIN; INSERT INTO late VALUES ('fails')").await;
    assert_eq!(writer.failure("COMMIT").await, "P0001");
    theatre.expect_nothing("a commit that fails").await;
}

#[tokio::test]
async fn each_part_of_a_pipeline_sends_what_it_commits() {
    let mut theatre = Theatre::open("").await;
    run(&theatre.direct, &["--adopt"]).await.expect("adoption");
    let mut writer = theatre.writer().await;
    let call = |payload: &str| extended("SELECT app.called($1)", &[Some(payload.as_bytes())]);
    let failing = [call("b"), extended("SELECT 1/0", &[]), sync()].concat();
    writer.send([call("a"), call("aa"), sync(), failing, call("c"), sync()].concat()).await;
    for expected in ["1 2 T D C 1 2 T D C Z", "1 2 T D C 1 E Z", "1 2 T D C Z"] {
        writer.expect(expected).await;
    }
    let heard = theatre.heard().await;
    assert_eq!(heard, (["a", "aa", "c"].map(str::to_owned).to_vec(), vec![]));

    // A trigger below a statement that is reused.
    writer.send(parse("s", "INSERT INTO app.plain VALUES ($1)", &[])).await;
    for payload in ["one", "two"] {
        writer.send([bind("", "s", &[Some(payload.as_bytes())]), execute("", 0), sync()].concat()).await;
    }
    writer.expect("1 2 C Z 2 C Z").await;
    assert_eq!(theatre.heard().await.0, ["one", "two"]);
}

#[tokio::test]
async fn rows_that_are_copied_in_fire_their_triggers() {
    let mut theatre = Theatre::open("").await;
    run(&theatre.direct, &["--adopt"]).await.expect("adoption");
    let mut writer = theatre.writer().await;
    writer.send(query("COPY plain FROM STDIN")).await;
    writer.expect("G").await;
    writer.send([copy_data(b"one\ntwo\n"), copy_data(b"three\n"), copy_done()].concat()).await;
    writer.expect("C Z").await;
    assert_eq!(theatre.heard().await.0, ["one", "two", "three"]);

    let table: String = (0..10_000).map(|n| format!("{n}\n")).collect();
    writer.send(query("COPY plain FROM STDIN")).await;
    writer.expect("G").await;
    writer.send([copy_data(table.as_bytes()), copy_done()].concat()).await;
    writer.expect("C Z").await;
    let heard = theatre.heard().await.0;
    assert_eq!(heard, (0..10_000).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_postgres_would_refuse_is_refused_and_what_it_must_translate_is_its_own() {
    let mut theatre = Theatre::open("").await;
    let mut writer = theatre.writer().await;
    assert_eq!(writer.failure("SELECT by_name('', 'x')").await, "22023");
    assert_eq!(writer.failure("SELECT by_name(repeat('c', 64), 'x')").await, "22023");
    assert_eq!(writer.failure("SELECT by_name('ch', repeat('x', 8000))").await, "22023");
    theatre.expect_nothing("refused").await;
    for (sql, payload) in [
        ("SELECT by_name('ch', NULL)", String::new()),
        ("SELECT by_name('ch', '')", String::new()),
        ("SELECT by_name('ch', repeat('x', 7999))", "x".repeat(7999)),
        ("SELECT by_name('ch', 'é')", "é".to_owned()),
    ] {
        writer.value(sql).await;
        theatre.expect(sql, &payload, true).await;
    }
    writer.value("SET client_encoding = latin1").await;
    writer.value("SELECT by_name('ch', chr(233))").await;
    theatre.expect("é in another encoding", "é", false).await;
    writer.value("SELECT by_name('ch', 'plain')").await;
    theatre.expect("ASCII in another encoding", "plain", true).await;
}

#[tokio::test]
async fn mode_off_leaves_every_call_to_postgres() {
    let mut theatre = Theatre::open("[notify]\nmode = \"off\"").await;
    run(&theatre.direct, &["--adopt"]).await.expect("adoption");
    let mut writer = theatre.writer().await;
    for (sql, payload) in [("INSERT INTO pinned VALUES ('pinned')", "pinned"), ("SELECT by_name('ch', 'x')", "x")] {
        writer.value(sql).await;
        theatre.expect(sql, payload, false).await;
    }
    // Switched on, backends are replaced and functions tell pgweir; who holds a backend to listen goes on as before.
    theatre.proxy.reload("[notify]\nmode = \"intercept\"").await;
    theatre.behind = theatre.proxy.wire("app").await;
    theatre.behind.value("LISTEN ch").await;
    writer.value("SELECT by_name('ch', 'switched')").await;
    theatre.expect("switched on", "switched", true).await;
}
