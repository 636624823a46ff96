//! Clients that share backends are answered message by message as on a connection of their own, under their own
//! settings, statements and values.

mod corners;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use futures_util::future::join_all;

use crate::support::frontend::{
    self, bind, cancel_request, close_statement, describe_portal, describe_statement, execute, extended, frame, parse,
    query, sync,
};
use crate::support::{Endpoint, Frame, Postgres, Proxy, Sessions, Wire, errors, on_both_with, proxy_before};
use crate::support::{eventually, password_of, proxy, tags};

/// Every way in which backends are shared: one for all; one that keeps a single statement; two; one for each client.
const SETUPS: [&str; 4] = [
    "[pool]\nsize = 1",
    "[pool]\nsize = 1\nstatements_max = 1",
    "[pool]\nsize = 2",
    "[pool]\nsize = 8\nmode = \"session\"",
];

/// In every database: a table of the same name in two schemas, and one with a sequence.
const SCENERY: &str =
    "CREATE SCHEMA ta; CREATE SCHEMA tb; CREATE TABLE ta.t (id int, who text); CREATE TABLE tb.t (id int, who text);
    INSERT INTO ta.t VALUES (1, 'a'); INSERT INTO tb.t VALUES (1, 'b'); CREATE TABLE items (id serial, v text);
    GRANT ALL ON SCHEMA ta, tb TO PUBLIC; GRANT ALL ON ta.t, tb.t, items TO PUBLIC";

/// Where a script is played: at the server itself, or through pgweir.
struct Stage<'a> {
    at: &'a Endpoint,
    postgres: &'a Postgres,
    /// The database as the server calls it.
    dbname: String,
    /// Backends may be taken away: they are nobody's.
    is_pooled: bool,
    said: Rc<RefCell<Vec<String>>>,
}

impl Stage<'_> {
    async fn client(&self, more: &[(&str, &str)]) -> Actor {
        let (wire, frames) = Wire::login_with(self.at, "app", more).await;
        assert_eq!(frames.last().map(|frame| frame.tag), Some('Z'), "{more:?}: {frames:?}");
        let told = frames.iter().filter(|frame| frame.tag == 'S').map(Frame::parameter).collect();
        Actor { wire, told, said: self.said.clone() }
    }

    async fn clients<const N: usize>(&self) -> [Actor; N] {
        let clients = join_all((0..N).map(|_| self.client(&[]))).await;
        clients.try_into().unwrap_or_else(|_| unreachable!("as many as were asked for"))
    }

    async fn sessions(&self) -> Sessions {
        Sessions::of(self.postgres, &self.dbname).await
    }

    /// The next client of a pool has a new backend.
    async fn renew(&self) {
        if self.is_pooled {
            self.sessions().await.terminate("true").await;
        }
    }
}

/// A client, of which everything that it hears is written down.
struct Actor {
    wire: Wire,
    /// Parameters, as it was told them last.
    told: BTreeMap<String, String>,
    said: Rc<RefCell<Vec<String>>>,
}

impl Actor {
    /// Sends messages in one write, and hears the answers to all of them.
    async fn say(&mut self, messages: &[Vec<u8>]) {
        let bytes = messages.concat();
        self.wire.send(&bytes).await;
        self.hear(cycles(&bytes)).await;
    }

    async fn ask(&mut self, sql: &str) {
        self.say(&[query(sql)]).await;
        let answer = self.said.borrow_mut().pop().unwrap_or_default();
        self.note(format!("{sql}: {answer}"));
    }

    async fn hear(&mut self, cycles: usize) {
        for _ in 0..cycles {
            let frames = self.frames().await;
            let mut changes = Vec::new();
            for (name, value) in frames.iter().filter(|frame| frame.tag == 'S').map(Frame::parameter) {
                if self.told.insert(name.clone(), value.clone()).as_ref() != Some(&value) {
                    changes.push((name, value));
                }
            }
            // Postgres promises no order of those that it reports with one ReadyForQuery.
            changes.sort_by(|(one, _), (other, _)| one.cmp(other));
            let changes = changes.iter().map(|(name, value)| format!("{name}={value}"));
            let others = frames.iter().filter(|frame| frame.tag != 'S').map(said);
            self.note(others.chain(changes).collect::<Vec<_>>().join(" "));
        }
    }

    /// Up to the next ReadyForQuery, or to the end of the connection.
    async fn frames(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while frames.last().is_none_or(|frame: &Frame| frame.tag != 'Z')
            && let Some(frame) = self.wire.next().await
        {
            frames.push(frame);
        }
        frames
    }

    fn note(&self, said: impl Into<String>) {
        let said = said.into();
        println!("{said:.300}");
        self.said.borrow_mut().push(said);
    }
}

/// How many ReadyForQuery answer these messages.
fn cycles(mut messages: &[u8]) -> usize {
    let mut cycles = 0;
    while let [tag, a, b, c, d, ..] = *messages {
        cycles += usize::from(matches!(tag, b'Q' | b'S' | b'F'));
        messages = &messages[u32::from_be_bytes([a, b, c, d]) as usize + 1..];
    }
    cycles
}

/// A message as text that can be compared.
fn said(frame: &Frame) -> String {
    let tag = frame.tag;
    match tag {
        'E' | 'N' => format!("{tag}({} {} {})", frame.fields()[&'S'], frame.sqlstate(), frame.fields()[&'M']),
        'D' => {
            format!("D{:?}", frame.columns().iter().map(|value| value.as_deref().unwrap_or("NULL")).collect::<Vec<_>>())
        }
        'C' | 'Z' => format!("{tag}({})", frame.text()),
        // Types of parameters; names and types of columns, with the numbers of tables left out.
        't' => format!("t{:?}", &frame.body[2..]),
        'T' => format!("T{:?}", columns(&frame.body[2..])),
        _ => tag.into(),
    }
}

fn columns(mut body: &[u8]) -> Vec<(String, u32)> {
    let mut columns = Vec::new();
    while let Some(end) = body.iter().position(|&byte| byte == 0) {
        let oid = body[end + 7..end + 11].try_into().expect("four bytes");
        columns.push((String::from_utf8_lossy(&body[..end]).into_owned(), u32::from_be_bytes(oid)));
        body = &body[end + 19..];
    }
    columns
}

/// Whatever clients hear from the server itself, they hear through pgweir, in every setup.
async fn same(script: impl AsyncFn(&Stage<'_>)) {
    same_in(Postgres::shared(), &SETUPS, &[], script).await;
}

async fn same_in(postgres: &Postgres, setups: &[&str], roles: &[&str], script: impl AsyncFn(&Stage<'_>)) {
    let play = async |at: &Endpoint, dbname: &str, is_pooled| {
        at.wire("app").await.value(SCENERY).await;
        let stage = Stage { at, postgres, dbname: dbname.to_owned(), is_pooled, said: Rc::default() };
        script(&stage).await;
        stage.said.take()
    };
    postgres.role("app").await;
    let dbname = postgres.database().await;
    let direct = play(&postgres.endpoint(&dbname), &dbname, false).await;
    let mut differences = Vec::new();
    for setup in setups {
        println!("through pgweir with {setup:?}");
        let builder = proxy_before(postgres).wait_timeout("10s").toml(setup);
        let proxy = roles.iter().fold(builder, |builder, role| builder.role(role, "")).start().await;
        let pooled = play(&proxy, &proxy.dbname, !setup.contains("session")).await;
        for n in 0..direct.len() {
            if pooled[n] != direct[n] {
                let before = &direct[n.saturating_sub(3)..n];
                differences
                    .push(format!("{setup:?}: behind {before:#.300?}\ndirect: {}\npgweir: {}", direct[n], pooled[n]));
            }
        }
        assert_eq!(pooled.len(), direct.len());
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Prepares `sql` under a name, in a unit of its own.
fn named(name: &str, sql: &str) -> Vec<u8> {
    [parse(name, sql, &[]), sync()].concat()
}

/// Executes the statement of that name, in a unit of its own.
fn run(name: &str) -> Vec<u8> {
    run_with(name, &[])
}

fn run_with(name: &str, values: &[&str]) -> Vec<u8> {
    let values: Vec<_> = values.iter().map(|value| Some(value.as_bytes())).collect();
    [bind("", name, &values), execute("", 0), sync()].concat()
}

/// Both in one unit.
fn prepared(name: &str, sql: &str) -> Vec<u8> {
    [parse(name, sql, &[]), run(name)].concat()
}

/// The unnamed statement, in a unit of its own.
fn unit(sql: &str) -> Vec<u8> {
    [extended(sql, &[]), sync()].concat()
}

// Names and statements.

#[tokio::test]
async fn a_parse_that_fails_with_its_transaction_spoils_its_text_for_nobody() {
    same(async |stage| {
        for text in ["SELECT 1", "ROLLBACK TO SAVEPOINT sp", "", "SHOW work_mem"] {
            let [mut a, mut b] = stage.clients().await;
            a.say(&[named("s", text)]).await;
            a.say(&[run("s")]).await;
            for sql in ["BEGIN", "SAVEPOINT sp", "SELECT 1/0"] {
                b.ask(sql).await;
            }
            b.say(&[prepared("x", text)]).await;
            b.say(&[named("", text), run("")]).await;
            b.ask("ROLLBACK").await;
            // Behind an error in its unit, it is skipped.
            b.say(&[bind("", "none", &[]), parse("y", text, &[]), sync(), prepared("y", text)]).await;
            a.say(&[run("s"), run("s")]).await;
            stage.client(&[]).await.say(&[prepared("z", text)]).await;
            b.say(&[prepared("x", text)]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_rollback_to_a_savepoint_is_prepared_in_failed_transactions_again_and_again() {
    const TEXT: &str = "ROLLBACK TO SAVEPOINT sp";
    let described = |name: &str| [parse(name, TEXT, &[]), describe_statement(name), sync()].concat();
    same(async |stage| {
        let mut client = stage.client(&[]).await;
        for (n, begun) in [["BEGIN", "SAVEPOINT sp"], ["BEGIN", "SELECT 1"], ["SAVEPOINT sp", "BEGIN; SAVEPOINT sp"]]
            .iter()
            .cycle()
            .take(6)
            .enumerate()
        {
            for sql in [begun[0], begun[1], "SELECT 1/0"] {
                client.ask(sql).await;
            }
            let name = format!("s{n}");
            client.say(&[described(&name)]).await;
            client.say(&[run(&name)]).await;
            client.say(&[described("again"), run("again"), [close_statement("again"), sync()].concat()]).await;
            client.ask("COMMIT").await;
            // Outside of a transaction, too.
            client.say(&[run(&name)]).await;
        }
        // Behind a statement whose columns have changed.
        client.ask("CREATE TABLE changed (x int)").await;
        client.say(&[named("old", "SELECT * FROM changed")]).await;
        for sql in ["ALTER TABLE changed ADD y int", "BEGIN", "SAVEPOINT sp"] {
            client.ask(sql).await;
        }
        client.say(&[run("old")]).await;
        client.say(&[named("new", "SELECT * FROM changed"), described("back"), run("back")]).await;
        client.say(&[prepared("new", "SELECT * FROM changed")]).await;
        client.ask("COMMIT").await;
        client.say(&[run("new"), run("old")]).await;
    })
    .await;
}

#[tokio::test]
async fn what_is_prepared_behind_a_discard_in_one_write_is_there() {
    same(async |stage| {
        for discard in ["DISCARD ALL", "DEALLOCATE ALL"] {
            let [mut a, mut other, mut third] = stage.clients().await;
            for (n, simple) in [query(discard), unit(discard)].iter().enumerate() {
                let text = format!("SELECT {n}, '{discard}'");
                other.say(&[named(&format!("o{n}"), &text)]).await;
                for lacking in [false, true] {
                    if lacking {
                        third.ask("DISCARD ALL").await;
                    }
                    let described = [parse("p", &text, &[]), describe_statement("p"), sync()].concat();
                    a.say(&[simple.clone(), described]).await;
                    a.say(&[run("p")]).await;
                    a.say(&[simple.clone(), prepared("p", &text)]).await;
                    a.say(&[simple.clone(), run("p"), prepared("q", &text), simple.clone(), run("q")]).await;
                    other.say(&[run(&format!("o{n}"))]).await;
                    other.say(&[run(&format!("o{n}")), run(&format!("o{n}"))]).await;
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn names_that_the_server_skips_are_neither_taken_nor_freed() {
    same(async |stage| {
        let mut client = stage.client(&[]).await;
        client.say(&[named("s", "SELECT 1")]).await;
        for failing in [bind("", "none", &[]), extended("SELECT 1/0", &[]), parse("bad", "SELEKT", &[])] {
            let unit = |skipped: Vec<u8>| [failing.clone(), skipped, sync()].concat();
            client.say(&[unit(parse("new", "SELECT 2", &[])), prepared("new", "SELECT 3")]).await;
            client.say(&[unit(close_statement("s")), run("s")]).await;
            client.say(&[unit(extended("DEALLOCATE s", &[])), run("s")]).await;
            client.say(&[unit(extended("DEALLOCATE ALL", &[])), run("s"), run("new")]).await;
            client.say(&[query("SELECT 1/0; DEALLOCATE s"), run("s")]).await;
            let in_transaction = [query("BEGIN"), query("SELECT 1/0"), named("late", "SELECT 4"), query("ROLLBACK")];
            client.say(&[in_transaction.concat(), run("late"), prepared("late", "SELECT 5")]).await;
            client.say(&[[close_statement("new"), close_statement("late"), sync()].concat()]).await;
        }
    })
    .await;
}

// pgweir's own Parse of a statement that the backend lacks is skipped with the unit.
#[tokio::test]
async fn a_statement_whose_first_use_is_skipped_is_there_in_the_next_unit() {
    same(async |stage| {
        let [mut a, mut other] = stage.clients().await;
        a.say(&[named("s", "SELECT 1"), named("t", "SELECT $1::text")]).await;
        for failing in [extended("SELECT 1/0", &[]), bind("", "none", &[])] {
            for skipped in [[bind("", "s", &[]), execute("", 0)].concat(), describe_statement("t"), bind("p", "s", &[])]
            {
                other.ask("DISCARD ALL").await;
                let units = [failing.clone(), skipped, sync()].concat();
                a.say(&[units, run("s"), run_with("t", &["x"]), run("s")]).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_prepared_deallocate_frees_its_name_whenever_it_is_executed() {
    same(async |stage| {
        let mut client = stage.client(&[]).await;
        client.say(&[named("s", "SELECT 1"), named("d", "DEALLOCATE s"), named("all", "DEALLOCATE ALL")]).await;
        client.say(&[run("d")]).await;
        client.say(&[run("s"), run("d")]).await;
        client.say(&[named("s", "SELECT 2"), run("d"), named("s", "SELECT 3"), run("s")]).await;
        let twice = [parse("", "DEALLOCATE PREPARE s", &[]), bind("", "", &[]), execute("", 0), run("")];
        client.say(&[twice.concat()]).await;
        client.say(&[named("s", "SELECT 4"), run("all"), run("s"), run("all")]).await;
    })
    .await;
}

#[tokio::test]
async fn a_statement_of_sql_is_described_bound_and_closed_by_the_protocol() {
    same(async |stage| {
        let mut client = stage.client(&[]).await;
        for sql in ["PREPARE foo (int) AS SELECT $1", "PREPARE foo3 AS SELECT 2"] {
            client.ask(sql).await;
        }
        client.say(&[[describe_statement("foo"), sync()].concat(), run_with("foo", &["7"])]).await;
        client.say(&[named("foo3", "SELECT 1"), named("foo", "SELECT 1")]).await;
        client.say(&[[close_statement("foo"), sync()].concat(), named("foo", "SELECT 'again'"), run("foo")]).await;
        client.say(&[query("PREPARE behind AS SELECT 5"), run("behind"), prepared("behind", "SELECT 6")]).await;
        // Cursors and portals are one thing, too.
        client.ask("BEGIN; DECLARE c CURSOR FOR SELECT generate_series(1, 3)").await;
        client.say(&[[describe_portal("c"), execute("c", 1), sync()].concat()]).await;
        client.say(&[[frontend::close_portal("c"), sync()].concat(), query("FETCH c"), query("ROLLBACK")]).await;
        client.ask("BEGIN").await;
        let series = parse("", "SELECT generate_series(1, 5)", &[]);
        client.say(&[[series, bind("p", "", &[]), execute("p", 2), sync()].concat()]).await;
        client.say(&[query("FETCH 2 FROM p"), query("CLOSE p"), query("COMMIT"), query("DEALLOCATE ALL")]).await;
    })
    .await;
}

// Its settings, its transaction, its notifications: all as if its text had been sent.
#[tokio::test]
async fn an_execute_in_sql_does_what_its_statement_says() {
    let analyze = "EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) ";
    let texts = [
        ("SET a.x = 'set'", ""),
        ("SELECT set_config('a.x', 'called', false)", ""),
        ("SELECT set_config('a.x', $1, false)", "('bound')"),
        ("SELECT set_config($1, $2, false)", "('a.x', 'any')"),
        ("RESET a.x", ""),
        ("SET work_mem = '5MB'", ""),
        ("SET DateStyle = 'German'", ""),
        ("BEGIN", ""),
        ("LISTEN heard", ""),
        ("NOTIFY heard, 'command'", ""),
        ("SELECT pg_notify('heard', 'call')", ""),
        ("SELECT pg_notify($1, $2)", "('heard', 'argument')"),
        ("SELECT pg_listening_channels()", ""),
        ("UNLISTEN *", ""),
        ("DEALLOCATE other", ""),
    ];
    let shown =
        "SELECT nullif(current_setting('a.x', true), ''), current_setting('work_mem'), current_setting('datestyle')";
    same(async |stage| {
        for (text, arguments) in texts {
            let execute = format!("EXECUTE p{arguments}");
            // It keeps its backend: in a transaction, or with a setting that may be any.
            let holds = text == "BEGIN" || text.contains("set_config($1");
            let mut ways = vec![query(&execute), query(&format!("{execute}; SELECT 'behind'")), unit(&execute)];
            if text.starts_with("SELECT set_config") {
                ways.push(query(&format!("{analyze}{execute}")));
            }
            for way in ways {
                let [mut a, mut b] = stage.clients().await;
                a.note(format!("{text}: {:?}", String::from_utf8_lossy(&way)));
                a.say(&[query("SET a.x = 'old'"), query("LISTEN heard"), named("p", text), named("other", "SELECT 1")])
                    .await;
                a.say(&[query("BEGIN"), way.clone(), query(shown), query("ROLLBACK")]).await;
                a.say(&[way]).await;
                if !holds {
                    b.ask(shown).await;
                }
                a.say(&[query("COMMIT"), query(shown), run("other"), query("NOTIFY heard, 'end'"), query("SELECT 1")])
                    .await;
            }
        }
    })
    .await;
}

// What it says is known to the server alone.
#[tokio::test]
async fn an_execute_with_expressions_notifies_through_the_server() {
    let proxy = proxy().pool_size(2).start().await;
    let [mut wire, mut listener] = [proxy.wire("app").await, proxy.wire("app").await];
    listener.value("LISTEN heard").await;
    wire.send(named("p", "SELECT pg_notify($1, $2)")).await;
    wire.expect("1 Z").await;
    assert_eq!(tags(&wire.query("EXECUTE p('hea' || 'rd', 5)").await), "T D C Z");
    assert!(listener.expect("A").await[0].text().contains('5'));
}

// Another backend has other names for it.
#[tokio::test]
async fn an_unnamed_execute_outlives_its_backend() {
    same(async |stage| {
        let [mut a, mut b] = stage.clients().await;
        b.say(&[named("p", "SELECT 'of another'")]).await;
        a.say(&[named("p", "SELECT 'mine'"), [parse("", "EXECUTE p", &[]), sync()].concat()]).await;
        b.ask("SELECT 1").await;
        stage.renew().await;
        b.say(&[run("p")]).await;
        a.say(&[[describe_statement(""), sync()].concat(), run("")]).await;
    })
    .await;
}

#[tokio::test]
async fn a_session_has_its_statements_under_its_own_names() {
    on_both_with(proxy().mode("session"), async |at: &Endpoint| {
        let (mut a, mut b) = (at.wire("app").await, at.wire("app").await);
        for wire in [&mut a, &mut b] {
            wire.send(named("mine", "SELECT 1")).await;
            wire.expect("1 Z").await;
            let mine = "SELECT string_agg(name || from_sql || statement, ' ') FROM pg_prepared_statements";
            assert_eq!(wire.value(mine).await, "minefalseSELECT 1");
            assert_eq!(tags(&wire.query("DEALLOCATE mine").await), "C Z");
            wire.send(run("mine")).await;
            assert_eq!(errors(&wire.cycle().await), ["26000"]);
        }
    })
    .await;
}

// A program that prepares with one connection while its others hold all backends would wait for itself.
#[tokio::test]
async fn what_was_prepared_a_moment_ago_is_prepared_while_no_backend_is_free() {
    let proxy = proxy().pool_size(1).start().await;
    let (mut holder, mut waiter) = (proxy.wire("app").await, proxy.wire("app").await);
    let begin = || [parse("begin", "BEGIN", &[]), sync(), parse("one", "SELECT 1 AS one", &[]), sync()].concat();
    holder.send(begin()).await;
    holder.expect("1 Z").await;
    holder.expect("1 Z").await;
    holder.query("BEGIN").await;
    waiter.send(begin()).await;
    waiter.expect("1 Z").await;
    waiter.expect("1 Z").await;
    // What runs it waits, and so does a text that nobody analysed.
    waiter.send([run("one"), named("two", "SELECT 2")].concat()).await;
    holder.query("COMMIT").await;
    let rows = waiter.expect("2 D C Z").await;
    assert_eq!(rows[1].columns(), [Some("1".to_owned())]);
    waiter.expect("1 Z").await;
    // A text under a name that is taken is an error as ever.
    holder.query("BEGIN").await;
    waiter.send(begin()).await;
    holder.query("COMMIT").await;
    assert_eq!(errors(&waiter.cycle().await), ["42P05"]);
    assert_eq!(errors(&waiter.cycle().await), ["42P05"]);
}

// The analysis of a moment ago is good until a backend runs the statement: what it finds then is the first that counts.
#[tokio::test]
async fn what_was_prepared_without_a_backend_means_what_it_is_when_it_first_runs() {
    let proxy = proxy().pool_size(1).start().await;
    let (mut holder, mut client) = (proxy.wire("app").await, proxy.wire("app").await);
    client.query("CREATE TABLE grows AS SELECT 1 AS a").await;
    client.send(named("before", "SELECT * FROM grows")).await;
    client.expect("1 Z").await;
    holder.query("BEGIN").await;
    // Not through the pool, which would know that the analysis is worth nothing then.
    let admin = Postgres::shared().admin(&proxy.dbname).await;
    admin.batch_execute("ALTER TABLE grows ADD b int DEFAULT 2").await.expect("a column");
    client.send(named("after", "SELECT * FROM grows")).await;
    client.expect("1 Z").await;
    holder.query("COMMIT").await;
    client.send(run("after")).await;
    assert_eq!(client.expect("2 D C Z").await[1].columns(), [Some("1".to_owned()), Some("2".to_owned())]);
    client.send(run("before")).await;
    assert_eq!(errors(&client.cycle().await), ["0A000"]);
    client.send(run("after")).await;
    client.expect("2 D C Z").await;
}

#[tokio::test]
async fn nothing_is_prepared_without_a_backend_after_a_table_was_changed() {
    let proxy = proxy().pool_size(1).start().await;
    let (mut holder, mut client) = (proxy.wire("app").await, proxy.wire("app").await);
    client.query("CREATE TABLE gone AS SELECT 1 AS a").await;
    client.send(named("before", "SELECT * FROM gone")).await;
    client.expect("1 Z").await;
    client.query("DROP TABLE gone").await;
    holder.query("BEGIN").await;
    client.send(named("after", "SELECT * FROM gone")).await;
    eventually(async || proxy.console("SHOW POOLS").await.iter().any(|row| row["cl_waiting"] == "1")).await;
    holder.query("COMMIT").await;
    assert_eq!(errors(&client.cycle().await), ["42P01"]);
}

// What was analysed in a transaction may have been of a table that nobody else sees.
#[tokio::test]
async fn what_was_prepared_in_a_transaction_is_not_prepared_without_a_backend() {
    let proxy = proxy().pool_size(1).start().await;
    let (mut maker, mut waiter) = (proxy.wire("app").await, proxy.wire("app").await);
    maker.query("BEGIN").await;
    maker.query("CREATE TABLE unseen (a int)").await;
    maker.send(named("s", "SELECT * FROM unseen")).await;
    maker.expect("1 Z").await;
    waiter.send(named("s", "SELECT * FROM unseen")).await;
    maker.query("ROLLBACK").await;
    assert_eq!(errors(&waiter.cycle().await), ["42P01"]);
}

// Postgres tells names apart by their first 63 bytes.
#[tokio::test]
async fn names_are_as_long_as_postgres_takes_them() {
    same(async |stage| {
        for length in [63, 64, 100, 4000, 8000, 8180, 8190, 9000, 20_000, 70_000] {
            let mut client = stage.client(&[]).await;
            let name = "n".repeat(length);
            client.say(&[named(&name, "SELECT 1"), run(&name)]).await;
            if length <= 9000 {
                client.say(&[[describe_statement(&name), bind(&name, &name, &[]), sync()].concat()]).await;
                let portal = [bind(&name, &name, &[]), describe_portal(&name), execute(&name, 0)];
                client.say(&[portal.concat(), sync(), close_statement(&name), sync(), run(&name)]).await;
            }
        }
        let mut client = stage.client(&[]).await;
        let (one, other) = (format!("{}1", "n".repeat(63)), format!("{}2", "n".repeat(63)));
        client.say(&[named(&one, "SELECT 1"), named(&other, "SELECT 2"), run(&other), run("n")]).await;
        client.say(&[[describe_statement(&other), sync()].concat()]).await;
        client.say(&[[close_statement(&other), sync()].concat(), run(&one)]).await;
    })
    .await;
}

#[tokio::test]
async fn an_unnamed_statement_outlives_the_questions_to_its_backend() {
    same(async |stage| {
        for (text, values) in [
            ("SELECT pg_try_advisory_lock($1)", ["1", "2", "3"]),
            ("SELECT pg_advisory_unlock($1)", ["1", "2", "3"]),
            ("SELECT set_config('app.' || $1, 'x', false)", ["a", "b", "c"]),
        ] {
            let mut client = stage.client(&[]).await;
            client.say(&[named("", text)]).await;
            for value in values {
                client.say(&[run_with("", &[value])]).await;
                client.say(&[[describe_statement(""), sync()].concat()]).await;
            }
            client.ask("DISCARD ALL").await;
            client.say(&[run_with("", &["4"])]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_may_keep_twelve_thousand_statements() {
    const COUNT: usize = 12_000;
    let proxy = proxy().pool_size(1).start().await;
    let mut wire = proxy.wire("app").await;
    for first in (0..COUNT).step_by(500) {
        let all: Vec<_> = (first..first + 500).map(|n| parse(&format!("q{n}"), &format!("SELECT {n}"), &[])).collect();
        wire.send([all.concat(), sync()].concat()).await;
        assert_eq!(errors(&wire.cycle().await), [""; 0], "from {first}");
    }
    for n in [0, COUNT / 2, COUNT - 1, 1] {
        wire.send(run(&format!("q{n}"))).await;
        assert_eq!(wire.expect("2 D C Z").await[1].columns(), [Some(n.to_string())]);
    }
}

// Settings.

/// Depends on TimeZone, DateStyle and search_path as they are when it is analysed.
const READS_SETTINGS: &str =
    "SELECT timestamptz '2020-06-01 00:00' AT TIME ZONE 'UTC', date '01/02/2020' - date '2020-01-01', who FROM t";

#[tokio::test]
async fn what_was_prepared_under_settings_of_a_transaction_is_nobody_elses() {
    same(async |stage| {
        let paths = [("search_path", "ta")];
        for (set, end) in [
            ("SET LOCAL TimeZone = 'Asia/Tokyo'", "COMMIT"),
            ("SELECT set_config('search_path', 'tb', true)", "COMMIT"),
            ("SET DateStyle = 'SQL, DMY'", "ROLLBACK"),
            ("SET LOCAL search_path = tb; SET LOCAL DateStyle = 'German'", "COMMIT"),
            ("SET TimeZone = 'Asia/Tokyo'; SAVEPOINT s; SET TimeZone = 'PST8PDT'", "ROLLBACK"),
        ] {
            let (mut a, mut b) = (stage.client(&paths).await, stage.client(&paths).await);
            for sql in ["BEGIN", set] {
                b.ask(sql).await;
            }
            b.say(&[prepared("s", READS_SETTINGS)]).await;
            b.ask(end).await;
            a.say(&[prepared("s", READS_SETTINGS)]).await;
            b.say(&[run("s")]).await;
            // All in one write.
            b.say(&[query("BEGIN"), query(set), prepared("t", READS_SETTINGS), query(end), run("t")]).await;
            stage.client(&paths).await.say(&[unit(READS_SETTINGS), prepared("s", READS_SETTINGS)]).await;
            a.say(&[run("s"), unit(READS_SETTINGS)]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_prepared_before_a_set_means_what_it_meant() {
    same(async |stage| {
        let paths = [("search_path", "ta")];
        for set in ["SET TimeZone = 'Asia/Tokyo'", "SET DateStyle = 'SQL, DMY'", "SET search_path = tb"] {
            let (mut a, mut b) = (stage.client(&paths).await, stage.client(&paths).await);
            b.say(&[named("s", READS_SETTINGS)]).await;
            b.ask(set).await;
            a.say(&[named("evicting", "SELECT 1")]).await;
            stage.renew().await;
            b.say(&[run("s")]).await;
            a.say(&[prepared("s", READS_SETTINGS)]).await;
            stage.renew().await;
            b.say(&[query("RESET ALL"), prepared("t", READS_SETTINGS), query(set), run("t"), run("s")]).await;
            a.say(&[prepared("t", READS_SETTINGS), run("s")]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_plan_made_under_settings_of_a_transaction_is_nobody_elses() {
    same(async |stage| {
        let [mut a, mut b] = stage.clients().await;
        a.ask(
            "CREATE TABLE planned AS SELECT generate_series(1, 1000) x; CREATE INDEX ON planned (x); ANALYZE planned",
        )
        .await;
        let text = "SELECT count(*) FROM planned WHERE x < 1000000";
        for (set, end) in [
            ("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off", "COMMIT"),
            ("SELECT set_config('enable_seqscan', 'off', true)", "COMMIT"),
            ("SET enable_seqscan = off", "ROLLBACK"),
        ] {
            for sql in ["BEGIN", set] {
                b.ask(sql).await;
            }
            b.say(&[prepared("s", text), query("EXPLAIN (COSTS OFF) EXECUTE s"), query(end)]).await;
            a.say(&[named("s", text), query("EXPLAIN (COSTS OFF) EXECUTE s"), run("s")]).await;
            a.ask("DEALLOCATE s").await;
            b.ask("DEALLOCATE s").await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_reset_in_a_pipeline_comes_back_to_the_values_of_the_startup() {
    same(async |stage| {
        let startup = [("search_path", "tb"), ("TimeZone", "Asia/Tokyo"), ("options", "-c work_mem=5MB")];
        let (mut a, mut other) = (stage.client(&startup).await, stage.client(&[]).await);
        let shown = "SELECT who, current_setting('TimeZone'), current_setting('work_mem') FROM t";
        let set = "SET search_path = ta; SET TimeZone = 'PST8PDT'; SET work_mem = '9MB'";
        for reset in ["DISCARD ALL", "RESET ALL", "SET search_path TO DEFAULT", "RESET TimeZone"] {
            a.ask(set).await;
            a.say(&[query(reset), unit(shown), query("SHOW search_path")]).await;
            other.ask("SHOW search_path").await;
            a.say(&[query(set), unit(reset), unit(shown)]).await;
            other.ask("SELECT 1 FROM t").await;
            a.say(&[query(set), query(reset), unit("UPDATE t SET who = who"), named("p", shown), run("p")]).await;
            a.ask("DEALLOCATE ALL").await;
            if reset != "DISCARD ALL" {
                a.say(&[query("BEGIN"), query("SET LOCAL TimeZone = 'UTC'"), query(reset), unit(shown)]).await;
                a.say(&[query("ROLLBACK"), unit(shown), query(&format!("BEGIN; {reset}; COMMIT")), unit(shown)]).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_rollback_behind_a_set_in_one_pipeline_takes_it_back() {
    same(async |stage| {
        for end in [query("ROLLBACK"), unit("ROLLBACK"), query("SELECT 1/0; COMMIT"), unit("ABORT")] {
            let mut holder = stage.postgres.endpoint(&stage.dbname).wire("app").await;
            holder.value("SELECT pg_advisory_lock(7)").await;
            let [mut a, mut other] = stage.clients().await;
            other.ask("SET search_path = tb").await;
            let begun = ["SELECT 1", "BEGIN", "SELECT pg_advisory_xact_lock(7)", "SET search_path = tb"];
            a.wire.send(begun.map(query).concat()).await;
            stage.sessions().await.until("wait_event_type = 'Lock'", 1).await;
            a.wire.send([end, query("ROLLBACK"), query("SHOW search_path")].concat()).await;
            holder.value("SELECT pg_advisory_unlock(7)").await;
            a.hear(7).await;
            other.ask("SHOW search_path").await;
            a.ask("SHOW search_path").await;
            other.ask("SELECT who FROM t").await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_procedure_committed_before_it_failed_is_kept() {
    same(async |stage| {
        let make = "CREATE PROCEDURE commits_then_fails() LANGUAGE plpgsql AS
            $$ BEGIN PERFORM 1; COMMIT; PERFORM set_config('work_mem', '9MB', false); RAISE EXCEPTION 'late'; END $$";
        let [mut a, mut other] = stage.clients().await;
        a.ask(make).await;
        for call in ["CALL commits_then_fails()", "DO $$ BEGIN COMMIT; RAISE EXCEPTION 'late'; END $$"] {
            for set in
                ["SET search_path = tb", "SET DateStyle = 'German'", "SELECT set_config('TimeZone', 'PST8PDT', false)"]
            {
                a.say(&[[extended(set, &[]), extended(call, &[]), sync()].concat()]).await;
                let shown = ["SHOW search_path", "SHOW DateStyle", "SHOW TimeZone", "SHOW work_mem"].map(query);
                for _ in 0..2 {
                    other.say(&shown).await;
                    a.say(&shown).await;
                }
                a.ask("RESET ALL").await;
            }
            a.say(&[query("SET search_path = ta"), query("BEGIN"), query("SET search_path = tb"), query(call)]).await;
            a.say(&[query("ROLLBACK"), query("SHOW search_path")]).await;
            other.ask("SHOW search_path").await;
            a.ask("RESET ALL").await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_default_session_authorization_is_the_end_of_a_role() {
    let role = Postgres::shared().own_role("").await;
    Postgres::shared().role("app").await;
    let grant = format!("GRANT {role} TO app");
    Postgres::shared().admin("postgres").await.batch_execute(&grant).await.expect("a grant");
    same(async |stage| {
        let [mut a, mut wants, mut other] = stage.clients().await;
        wants.ask(&format!("SET ROLE {role}")).await;
        for (set, end) in [
            (query("SET SESSION AUTHORIZATION DEFAULT"), ""),
            (query("RESET SESSION AUTHORIZATION"), ""),
            (unit("SET SESSION AUTHORIZATION DEFAULT"), ""),
            (query("BEGIN; RESET SESSION AUTHORIZATION"), "ROLLBACK"),
            (query("BEGIN; SET SESSION AUTHORIZATION DEFAULT"), "COMMIT"),
            (query("BEGIN; SET LOCAL SESSION AUTHORIZATION DEFAULT"), "COMMIT"),
        ] {
            a.ask(&format!("SET ROLE {role}")).await;
            a.say(&[set, query("SELECT current_user"), query(end)]).await;
            a.ask("SELECT current_user").await;
            wants.ask("SELECT current_user").await;
            other.ask("SET TimeZone = 'PST8PDT'; SET a.b = '1'").await;
            other.ask("SELECT current_user").await;
            for _ in 0..2 {
                a.ask("SELECT current_user").await;
                wants.ask("SELECT current_user").await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_set_in_a_long_text_is_kept() {
    same(async |stage| {
        for length in [70_000, 1_100_000] {
            let filler = format!("SELECT 1 /*{}*/", "x".repeat(length));
            let [mut a, mut other] = stage.clients().await;
            for text in [
                format!("SET search_path = ta; SET a.b = 'x'; {filler}"),
                format!("{filler}; SET search_path = tb; SELECT set_config('work_mem', '9MB', false)"),
                format!("BEGIN; {filler}; SET search_path = ta; ROLLBACK"),
            ] {
                a.say(&[query(&text)]).await;
                a.say(&["SHOW search_path", "SHOW work_mem", "SELECT current_setting('a.b', true)"].map(query)).await;
                if length < 1 << 20 {
                    other.say(&[query("SHOW search_path"), query("SHOW work_mem")]).await;
                    a.say(&[query("SHOW search_path"), query("SHOW work_mem")]).await;
                }
            }
            a.ask("DISCARD ALL").await;
            let set = [extended(&format!("SET search_path = tb /*{}*/", "x".repeat(length)), &[]), sync()].concat();
            a.say(&[set, query("SHOW search_path")]).await;
            a.ask("DISCARD ALL").await;
            other.say(&[query("SHOW search_path"), query("SHOW work_mem")]).await;
            a.say(&[query("SHOW search_path"), query("SHOW work_mem")]).await;
        }
    })
    .await;
}

// The second byte of a character may look like a backslash or a quote in these encodings.
#[tokio::test]
async fn a_set_in_any_encoding_is_kept() {
    same(async |stage| {
        for (encoding, bytes) in [
            ("SJIS", &b"\x93\xfa\x96\x7b"[..]),
            ("SJIS", b"\x95\x5c"),
            ("GBK", b"\xd5\x5c"),
            ("BIG5", b"\xa5\x5c"),
            ("UHC", b"\xb0\xa1"),
            ("GB18030", b"\x81\x30\x84\x36"),
        ] {
            let (mut a, mut other) = (stage.client(&[("client_encoding", encoding)]).await, stage.client(&[]).await);
            let text = |before: &str, behind: &str| {
                frame(b'Q', &[before.as_bytes(), bytes, behind.as_bytes(), b"\0"].concat())
            };
            let shown = ["SHOW search_path", "SELECT encode(convert_to(current_setting('a.b', true), 'UTF8'), 'hex')"];
            for set in [
                text("SET search_path = ta; SET a.b = '", "'"),
                text("SET a.b = '", "'; SET search_path = tb"),
                text("BEGIN; SET search_path = ta; SELECT set_config('a.b', 'x", "', false); ROLLBACK"),
                text("SELECT set_config('a.b', '", "', false); SET search_path = ta /* ' */"),
            ] {
                a.say(&[set]).await;
                for _ in 0..2 {
                    other.ask("SHOW search_path").await;
                    a.say(&shown.map(query)).await;
                }
            }
        }
    })
    .await;
}

// How a tenant is usually named: the value stands in the Bind.
#[tokio::test]
async fn a_bound_set_config_follows_its_client_and_pins_nobody() {
    same(async |stage| {
        let [mut a, mut b, mut c] = stage.clients().await;
        let shown =
            "SELECT nullif(current_setting('app.tenant', true), ''), nullif(current_setting('app.user', true), '')";
        for (text, values) in [
            ("SELECT set_config('app.tenant', $1, false)", &["t1"][..]),
            ("SELECT set_config($1, $2, false)", &["app.tenant", "t2"]),
            ("SELECT set_config('app.tenant', $1, $2)", &["t3", "false"]),
            ("SELECT set_config('app.tenant', $1, false), set_config('app.user', $2, false)", &["t4", "u'4\\"]),
            ("SELECT set_config('app.tenant', 't' || $1, false)", &["5"]),
            ("SELECT set_config('app.tenant', $1, true)", &["t6"]),
            ("SELECT set_config('app.tenant', upper($1), false) FROM t", &["t7"]),
        ] {
            a.say(&[[parse("s", text, &[]), run_with("s", values)].concat()]).await;
            b.say(&[[parse("", text, &[]), sync()].concat(), run_with("", values), query("SELECT 1")]).await;
            c.ask(shown).await;
            a.ask(shown).await;
            b.ask(shown).await;
            if values[0] != "app.tenant" {
                // Again, with another value; and taken back.
                a.say(&[
                    run_with("s", &[&["9"], &values[1..]].concat()),
                    query(shown),
                    query("BEGIN"),
                    run_with("s", values),
                    query("ROLLBACK"),
                ])
                .await;
            }
            c.ask(shown).await;
            a.say(&[query(shown), query("DEALLOCATE s")]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_update_of_pg_settings_follows_its_client() {
    same(async |stage| {
        let [mut a, mut other] = stage.clients().await;
        for (update, end) in [
            ("UPDATE pg_settings SET setting = '5432' WHERE name = 'statement_timeout'", ""),
            ("UPDATE pg_catalog.pg_settings AS s SET setting = 'tb' WHERE s.name = 'search_path'", ""),
            ("BEGIN; UPDATE pg_settings SET setting = '9000' WHERE name = 'work_mem'", "ROLLBACK"),
            ("BEGIN; UPDATE pg_settings SET setting = '7000' WHERE name = 'work_mem'", "COMMIT"),
        ] {
            a.say(&[query(update), query(end)]).await;
            let shown = ["SHOW statement_timeout", "SHOW search_path", "SHOW work_mem"].map(query);
            for _ in 0..2 {
                other.say(&shown).await;
                a.say(&shown).await;
            }
        }
        let bound = parse("s", "UPDATE pg_settings SET setting = $1 WHERE name = $2", &[]);
        a.say(&[[bound, run_with("s", &["PST8PDT", "TimeZone"])].concat(), query("SHOW TimeZone")]).await;
        other.ask("SHOW TimeZone").await;
        a.say(&[query("SHOW TimeZone"), query("RESET ALL"), query("SHOW work_mem")]).await;
    })
    .await;
}

// A wait for a safe snapshot would be the next client's.
#[tokio::test]
async fn a_transaction_mode_of_the_client_before_delays_nobody() {
    let proxy = proxy().pool_size(1).start().await;
    let direct = Postgres::shared().endpoint(&proxy.dbname);
    let mut writer = direct.wire("app").await;
    writer.value(SCENERY).await;
    writer.value("BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO ta.t VALUES (2)").await;
    for set in [
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE",
        "SET default_transaction_isolation = serializable; SET default_transaction_read_only = on;
         SET default_transaction_deferrable = on",
    ] {
        let (mut a, mut next) = (proxy.wire("app").await, proxy.wire("app").await);
        next.value("SET application_name = 'next'; SET work_mem = '9MB'").await;
        a.value(set).await;
        let shown = "SELECT current_setting('application_name') || current_setting('transaction_isolation')";
        assert_eq!(next.value(shown).await, "nextread committed");
        // Its own settings are the client's own delay.
        a.send(query("SELECT 1")).await;
        let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
        sessions.until("wait_event = 'SafeSnapshot'", 1).await;
        writer.value("COMMIT").await;
        a.expect("T D C Z").await;
        writer.value("BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO ta.t VALUES (2)").await;
    }
}

// Settings that the server refuses.

/// One backend, which has the settings of `a`; those of `b` lead to the other schema.
async fn two_tenants(proxy: &Proxy, role: &str, more: &str) -> (Wire, Wire) {
    let (mut a, mut b) = (proxy.wire(role).await, proxy.wire(role).await);
    b.value(&format!("SET search_path = tb; {more}")).await;
    a.value("SET search_path = ta").await;
    a.value("SELECT who FROM t").await;
    (a, b)
}

/// What `insert` may be sent as; each answer has as many cycles.
fn inserts(insert: &str) -> [(Vec<u8>, usize); 4] {
    [
        (query(insert), 1),
        (unit(insert), 1),
        ([query("BEGIN"), query(insert), query("COMMIT")].concat(), 3),
        ([extended("BEGIN", &[]), sync(), prepared("s", insert), unit("COMMIT")].concat(), 3),
    ]
}

#[tokio::test]
async fn a_login_whose_settings_were_another_roles_right_is_refused() {
    let postgres = Postgres::shared();
    let superuser = postgres.own_role("SUPERUSER").await;
    same_in(postgres, &SETUPS, &[&superuser], async |stage| {
        let options = [("options", "-c search_path=tb -c log_min_duration_statement=1s")];
        let (mut wire, frames) = Wire::login_with(stage.at, &superuser, &options).await;
        assert_eq!(frames.last().map(|frame| frame.tag), Some('Z'));
        wire.value("SELECT 1").await;
        drop(wire);
        let mut client = stage.client(&[("search_path", "ta")]).await;
        client.ask("SELECT who FROM t").await;
        let mut refused = Wire::open(stage.at.addr).await;
        let params = [("user", "app"), ("database", &stage.at.dbname), options[0]];
        refused.send(frontend::startup(frontend::PROTOCOL_3_0, &params)).await;
        let frames = refused.authenticate("app", &password_of("app")).await;
        client.note(frames.iter().filter(|frame| frame.tag == 'E').map(said).collect::<String>());
        client.ask("SELECT who FROM t").await;
    })
    .await;
}

#[tokio::test]
async fn nothing_runs_when_the_server_refuses_the_clients_settings() {
    let postgres = Postgres::shared();
    let (user, group) = (postgres.own_role("SUPERUSER").await, postgres.own_role("").await);
    let admin = postgres.admin("postgres").await;
    let insert = "INSERT INTO t VALUES (7, 'b')";
    for (set, given, taken) in [
        (
            "SET session_replication_role = replica",
            format!("ALTER ROLE {user} SUPERUSER"),
            format!("ALTER ROLE {user} NOSUPERUSER"),
        ),
        (&format!("SET ROLE {group}"), format!("GRANT {group} TO {user}"), format!("REVOKE {group} FROM {user}")),
    ] {
        let proxy = proxy().pool_size(1).role(&user, "").start().await;
        let mut direct = postgres.endpoint(&proxy.dbname).wire("app").await;
        direct.value(SCENERY).await;
        admin.batch_execute(&given).await.expect("a superuser may");
        let (mut a, mut b) = two_tenants(&proxy, &user, set).await;
        admin.batch_execute(&taken).await.expect("a superuser may");
        for (messages, cycles) in inserts(insert) {
            b.send(messages).await;
            for _ in 0..cycles {
                let frames = b.cycle().await;
                assert_eq!((tags(&frames), errors(&frames)), ("E Z".into(), vec!["42501".into()]), "{set}");
                assert_eq!((frames[0].fields()[&'S'].as_str(), frames[1].text().as_str()), ("ERROR", "I"));
            }
            assert_eq!(a.value("SELECT count(*) || who FROM t GROUP BY who").await, "1a");
        }
        assert_eq!(direct.value("SELECT (SELECT count(*) FROM ta.t) + (SELECT count(*) FROM tb.t)").await, "2");
        // The client has lost nothing by it.
        admin.batch_execute(&given).await.expect("a superuser may");
        assert_eq!(b.value("SELECT who FROM t").await, "b");
        admin.batch_execute(&taken).await.expect("a superuser may");
    }
}

// The lookup of a tablespace waits for the lock, and with it the settings.
#[tokio::test]
async fn nothing_runs_when_a_cancel_hits_the_clients_settings() {
    let postgres = Postgres::private(&[]);
    let proxy = proxy_before(&postgres).pool_size(1).start().await;
    let sessions = Sessions::of(&postgres, &proxy.dbname).await;
    let mut direct = postgres.endpoint(&proxy.dbname).wire("app").await;
    direct.value(SCENERY).await;
    let (mut a, mut b) = two_tenants(&proxy, "app", "SET default_tablespace = 'pg_default'").await;
    let admin = postgres.admin(&proxy.dbname).await;
    sessions.open().await; // planned once, it needs no lock
    for (messages, cycles) in inserts("INSERT INTO t VALUES (7, 'b')") {
        admin.batch_execute("BEGIN; LOCK TABLE pg_tablespace IN ACCESS EXCLUSIVE MODE").await.expect("a superuser may");
        b.send(messages).await;
        sessions.until("wait_event_type = 'Lock'", 1).await;
        cancel(&proxy, &b).await;
        for _ in 0..cycles {
            let frames = b.cycle().await;
            assert_eq!((tags(&frames), errors(&frames)), ("E Z".into(), vec!["57014".into()]));
            assert_eq!(frames[1].text(), "I");
        }
        admin.batch_execute("ROLLBACK").await.expect("the end");
        assert_eq!(a.value("SELECT count(*) || who FROM t GROUP BY who").await, "1a");
    }
    assert_eq!(direct.value("SELECT (SELECT count(*) FROM ta.t) + (SELECT count(*) FROM tb.t)").await, "2");
    assert_eq!(b.value("SELECT who || current_setting('default_tablespace') FROM t").await, "bpg_default");
}

/// Sends the CancelRequest of `wire`, and waits until it was carried out.
async fn cancel(at: &Endpoint, wire: &Wire) {
    let (process, secret) = wire.key.as_ref().expect("BackendKeyData");
    let mut request = Wire::open(at.addr).await;
    request.send(cancel_request(*process, secret)).await;
    request.rest().await;
}

#[tokio::test]
async fn a_cancel_that_comes_too_late_costs_the_client_nothing() {
    let proxy = proxy().pool_size(1).start().await;
    let mut wire = proxy.wire("app").await;
    wire.value("CREATE TEMP TABLE keep (a int)").await;
    for n in 0..100 {
        // Each lets pgweir ask what the backend still holds.
        let question = ["DROP TABLE IF EXISTS none", "SELECT pg_advisory_unlock_all()", "CLOSE ALL"][n % 3];
        wire.query(question).await;
        cancel(&proxy, &wire).await;
        // A cancel may hit this one, as on a direct connection.
        let frames = wire.query("SELECT count(*) FROM keep").await;
        assert!(
            errors(&frames).iter().all(|error| error == "57014"),
            "{:?}",
            frames.iter().map(said).collect::<Vec<_>>()
        );
    }
    assert_eq!(wire.value("SELECT count(*) FROM keep").await, "0");
}

// Values of sequences and of random().

/// `sql` answers `own`, or as in a session that has called no nextval.
async fn is_own(client: &mut Wire, sql: &str, own: &str) {
    for messages in [query(sql), unit(sql)] {
        client.send(messages).await;
        let frames = client.cycle().await;
        match frames.iter().find(|frame| frame.tag == 'D') {
            Some(row) => assert_eq!(row.columns(), [Some(own.to_owned())], "{sql}"),
            None => assert_eq!(errors(&frames), ["55000"], "{sql}"),
        }
    }
}

#[tokio::test]
async fn the_last_value_of_a_sequence_is_the_clients_own_or_none() {
    for setup in SETUPS {
        let proxy = proxy().wait_timeout("20s").toml(setup).start().await;
        let (mut a, mut b, mut never) = (proxy.wire("app").await, proxy.wire("app").await, proxy.wire("app").await);
        a.value(SCENERY).await;
        a.value("CREATE FUNCTION moves() RETURNS bigint LANGUAGE sql AS $$ SELECT nextval('items_id_seq') $$").await;
        for moving in [
            "INSERT INTO items (v) VALUES ('x') RETURNING id",
            "SELECT nextval('items_id_seq')",
            "SELECT moves()",
            "WITH made AS (INSERT INTO items (v) VALUES ('x'), ('y') RETURNING id) SELECT max(id) FROM made",
        ] {
            for ask in [
                "SELECT lastval()",
                "SELECT currval('items_id_seq')",
                "SELECT CURRVAL('public.items_id_seq'::regclass)",
            ] {
                let own = a.value(moving).await;
                b.send(unit(moving)).await;
                b.cycle().await;
                is_own(&mut a, ask, &own).await;
                b.value(&format!(
                    "BEGIN; {moving}; SELECT setval('items_id_seq', 1000 + currval('items_id_seq')); COMMIT"
                ))
                .await;
                assert_eq!(never.failure(ask).await, "55000");
                is_own(&mut a, ask, &own).await;
                // In a transaction, and in one text, it is always there.
                assert_eq!(
                    a.value(&format!("{moving}; {ask}")).await,
                    a.value("SELECT last_value FROM items_id_seq").await
                );
                a.query("BEGIN").await;
                let own = a.value(moving).await;
                assert_eq!(a.value(ask).await, own);
                a.query("COMMIT").await;
            }
        }
        // A new session knows of none.
        assert_eq!(proxy.wire("app").await.failure("SELECT lastval()").await, "55000");
    }
}

// As PDO's lastInsertId() does.
#[tokio::test]
async fn ids_of_clients_at_work_together_are_their_own() {
    for setup in SETUPS {
        let proxy = proxy().wait_timeout("20s").toml(setup).start().await;
        proxy.wire("app").await.value(SCENERY).await;
        join_all((0..4).map(async |worker| {
            let mut wire = proxy.wire("app").await;
            for n in 0..30 {
                let me = format!("worker {worker}, {n}");
                let insert = [parse("s", "INSERT INTO items (v) VALUES ($1)", &[]), run_with("s", &[&me])].concat();
                wire.send([insert, close_statement("s"), sync()].concat()).await;
                wire.expect("1 2 C Z 3 Z").await;
                let frames = wire.query("SELECT LASTVAL()").await;
                match frames.iter().find(|frame| frame.tag == 'D') {
                    Some(row) => {
                        let id = row.columns().swap_remove(0).expect("a number");
                        assert_eq!(wire.value(&format!("SELECT v FROM items WHERE id = {id}")).await, me);
                    }
                    None => assert_eq!(errors(&frames), ["55000"]),
                }
            }
        }))
        .await;
    }
}

#[tokio::test]
async fn a_seed_is_its_clients_alone_and_is_sown_once() {
    same_in(Postgres::shared(), &SETUPS[2..], &[], async |stage| {
        for seed in ["SELECT setseed(0.25)", "SET seed = 0.5", "SELECT set_config('seed', '0.75', false)"] {
            let [mut a, mut other] = stage.clients().await;
            a.ask(seed).await;
            let first = a.wire.value("SELECT random()").await;
            a.note(&first);
            a.ask("SET a.b = '1'").await;
            let others = other.wire.value("SELECT random()").await;
            other.note((first == others).to_string());
            a.ask("SELECT random()").await;
            a.say(&[[parse("", "SELECT random()", &[]), sync()].concat(), run(""), run("")]).await;
            drop(a);
            let mut next = stage.client(&[]).await;
            let nexts = next.wire.value("SELECT random()").await;
            next.note((first == nexts).to_string());
        }
    })
    .await;
}

// A backend that lacks a statement analyses it under the settings of its Parse, in a savepoint: nobody hears of that.
#[tokio::test]
async fn what_is_assumed_for_an_analysis_is_told_to_nobody() {
    same(async |stage| {
        let [mut a] = stage.clients().await;
        a.say(&[named("s0", "SELECT 1 / $1::int")]).await;
        stage.renew().await;
        let [begin, set] = [query("START TRANSACTION"), query("SET datestyle = sql, dmy")];
        let temporary = query("SELECT 1 AS a INTO TEMP tmp");
        a.say(&[begin, set, temporary, run_with("s0", &["0"]), query("COMMIT")]).await;
        a.say(&[query("SHOW datestyle"), query("SELECT '2026-11-29'::date"), run_with("s0", &["1"])]).await;
    })
    .await;
}
