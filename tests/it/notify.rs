//! NOTIFY, pg_notify and LISTEN beside the server: to every client it is as if Postgres itself had done them.

use crate::support::frontend::{
    bind, close_portal, close_statement, describe_portal, describe_statement, execute, extended, flush, frame, parse,
    query, sync,
};
use crate::support::{Endpoint, Frame, Link, Postgres, Sessions, Toward, Wire, eventually, proxy, tags};

/// Nothing but the memory of one process between its clients.
const IN_MEMORY: &str = "[notify]\nbus = \"memory\"";

/// Everything that the conversations below notify of.
const CHANNELS: [&str; 7] = ["a", "b", "c", "\"A b\"", "x", "\"é\"", "ab"];

/// What a client sends, message by message, and how it is called.
struct Conversation {
    name: String,
    sends: Vec<Vec<u8>>,
}

fn conversation(name: impl Into<String>, sends: impl IntoIterator<Item = Vec<u8>>) -> Conversation {
    Conversation { name: name.into(), sends: sends.into_iter().collect() }
}

/// Each text a Query that waits for its answer.
fn simple(texts: &[&str]) -> Conversation {
    conversation(format!("{texts:?}"), texts.iter().map(|text| query(text)))
}

/// Each text a unit of the extended protocol that waits for its answer.
fn one_by_one(texts: &[&str]) -> Conversation {
    let units = texts.iter().map(|text| [described(text), sync()].concat());
    conversation(format!("extended {texts:?}"), units)
}

/// All texts in one unit.
fn in_one_unit(texts: &[&str]) -> Conversation {
    let unit: Vec<_> = texts.iter().flat_map(|text| described(text)).chain(sync()).collect();
    conversation(format!("one unit {texts:?}"), [unit])
}

/// Every text a unit, and all of them sent at once.
fn pipelined(texts: &[&str]) -> Conversation {
    let units = texts.iter().flat_map(|text| [described(text), sync()].concat()).collect();
    conversation(format!("pipelined {texts:?}"), [units])
}

fn described(text: &str) -> Vec<u8> {
    [parse("", text, &[]), describe_statement(""), bind("", "", &[]), describe_portal(""), execute("", 0)].concat()
}

/// Statements one after the other, as every kind of client sends them.
const TRANSACTIONS: &[&[&str]] = &[
    &["NOTIFY a"],
    &["NOTIFY a, 'x'", "NOTIFY a, 'x'", "NOTIFY b"],
    &["SELECT pg_notify('a', 'x')", "SELECT pg_notify('a', NULL) AS done", "SELECT pg_catalog.pg_notify('A b', '')"],
    &[
        "NOTIFY A, 'folded'",
        "NOTIFY \"A b\", 'quoted'",
        "NOTIFY a, E'it\\'s'",
        "NOTIFY \"é\", 'ü'",
        "SELECT pg_notify('é', 'ü')",
    ],
    &["BEGIN", "NOTIFY a, '1'", "NOTIFY a, '2'", "SELECT pg_notify('b', '3')", "COMMIT"],
    &["BEGIN", "NOTIFY a, '1'", "NOTIFY b, '1'", "NOTIFY a, '1'", "NOTIFY a, '2'", "NOTIFY b, '1'", "COMMIT"],
    &["BEGIN", "NOTIFY a", "ROLLBACK", "NOTIFY b"],
    &["BEGIN", "NOTIFY a", "SELECT 1/0", "NOTIFY b", "COMMIT", "NOTIFY c"],
    &["BEGIN", "NOTIFY a", "COMMIT AND CHAIN", "NOTIFY b", "ROLLBACK AND CHAIN", "NOTIFY c", "COMMIT"],
    &["BEGIN", "NOTIFY a", "END", "START TRANSACTION", "NOTIFY b", "ABORT"],
    &["BEGIN", "SAVEPOINT s", "NOTIFY a", "ROLLBACK TO s", "NOTIFY b", "COMMIT"],
    &["BEGIN", "NOTIFY a", "SAVEPOINT s", "NOTIFY b", "RELEASE s", "NOTIFY c", "COMMIT"],
    &["BEGIN", "NOTIFY a", "SAVEPOINT s", "NOTIFY b", "SAVEPOINT t", "NOTIFY c", "ROLLBACK TO SAVEPOINT s", "COMMIT"],
    &[
        "BEGIN",
        "SAVEPOINT s",
        "NOTIFY a",
        "SAVEPOINT s",
        "NOTIFY b",
        "ROLLBACK TO s",
        "NOTIFY c",
        "RELEASE s",
        "ROLLBACK TO s",
        "COMMIT",
    ],
    &["BEGIN", "NOTIFY a", "SAVEPOINT s", "NOTIFY a", "ROLLBACK TO s", "NOTIFY b", "NOTIFY a", "COMMIT"],
    &["BEGIN", "NOTIFY a", "SAVEPOINT s", "NOTIFY b", "SELECT 1/0", "ROLLBACK TO s", "NOTIFY c", "COMMIT"],
    &["BEGIN", "SAVEPOINT s", "NOTIFY b", "SELECT 1/0", "ROLLBACK TO s", "COMMIT"],
    &["COMMIT", "ROLLBACK", "SAVEPOINT s", "NOTIFY a"],
    &["LISTEN x", "NOTIFY x", "UNLISTEN x", "NOTIFY x", "NOTIFY a"],
    &["BEGIN", "LISTEN x", "NOTIFY x, '1'", "COMMIT", "NOTIFY x, '2'"],
    &["BEGIN", "LISTEN x", "ROLLBACK", "NOTIFY x", "SELECT pg_listening_channels()"],
    &["BEGIN", "SAVEPOINT s", "LISTEN x", "ROLLBACK TO s", "LISTEN b", "COMMIT", "NOTIFY x", "NOTIFY b"],
    &["LISTEN x", "BEGIN", "UNLISTEN x", "NOTIFY x", "ROLLBACK", "NOTIFY x, '2'"],
    &["LISTEN x", "BEGIN", "UNLISTEN x", "NOTIFY x", "COMMIT"],
    &["LISTEN x", "LISTEN b", "UNLISTEN *", "NOTIFY x", "SELECT * FROM pg_listening_channels()"],
    &["LISTEN x", "DISCARD ALL", "NOTIFY x", "SELECT pg_listening_channels()"],
    &[
        "LISTEN x",
        "LISTEN \"A b\"",
        "LISTEN x",
        "SELECT pg_listening_channels()",
        "SELECT * FROM pg_listening_channels()",
    ],
    &["BEGIN", "LISTEN x", "SELECT pg_listening_channels()", "COMMIT", "SELECT pg_listening_channels() AS c"],
    &["BEGIN READ ONLY", "NOTIFY a", "LISTEN x", "COMMIT"],
    &[
        "BEGIN; SELECT 1/0",
        "NOTIFY a",
        "LISTEN a",
        "SELECT pg_notify('a', '')",
        "SELECT pg_listening_channels()",
        "ROLLBACK",
    ],
    // A commit that fails.
    &[
        "DROP TABLE IF EXISTS d",
        "CREATE TABLE d (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
        "BEGIN",
        "NOTIFY a",
        "INSERT INTO d VALUES (1), (1)",
        "COMMIT",
        "NOTIFY b",
    ],
    &[
        "DROP TABLE IF EXISTS d",
        "CREATE TABLE d (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
        "NOTIFY a",
        "INSERT INTO d VALUES (1), (1)",
        "NOTIFY b",
    ],
    // Limits, and what Postgres says to them.
    &["SELECT pg_notify('', '')", "SELECT pg_notify(NULL, '')", "SELECT pg_notify(NULL, NULL)"],
    &["SELECT pg_notify('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '')"],
    &["NOTIFY aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, 'cut'"],
    &["LISTEN aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "SELECT pg_listening_channels()"],
    &["UNLISTEN aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"],
    &["NOTIFY", "NOTIFY 'a'", "NOTIFY a 'b'", "LISTEN", "SELECT pg_notify('a')", "NOTIFY \"\""],
    // Postgres does not prepare a transaction that has to do with channels.
    &["BEGIN", "NOTIFY a", "PREPARE TRANSACTION 'p'", "NOTIFY b"],
    &["BEGIN", "LISTEN x", "PREPARE TRANSACTION 'p'", "NOTIFY x"],
    &["LISTEN x", "UNLISTEN x", "BEGIN", "UNLISTEN *", "PREPARE TRANSACTION 'p'"],
    &["LISTEN x", "DISCARD ALL", "BEGIN", "UNLISTEN x", "PREPARE TRANSACTION 'p'"],
];

/// Texts of several statements.
const TEXTS: &[&[&str]] = &[
    &["NOTIFY a; NOTIFY b; SELECT 1"],
    &["NOTIFY a; SELECT 1/0", "NOTIFY b"],
    &["SELECT 1/0; NOTIFY a"],
    &["BEGIN; NOTIFY a; COMMIT; SELECT 1/0"],
    &["NOTIFY a; COMMIT; NOTIFY b; SELECT 1/0"],
    &["NOTIFY a; ROLLBACK; NOTIFY b"],
    &["NOTIFY a; BEGIN; NOTIFY b; ROLLBACK"],
    &["NOTIFY a; BEGIN; NOTIFY b", "NOTIFY c; COMMIT"],
    &["BEGIN; NOTIFY a", "SAVEPOINT s; NOTIFY b; ROLLBACK TO s; NOTIFY c; COMMIT; NOTIFY x"],
    &["BEGIN; NOTIFY a; SAVEPOINT s; SELECT 1/0", "ROLLBACK TO s; COMMIT"],
    &["LISTEN x; NOTIFY x; SELECT pg_listening_channels(); UNLISTEN x"],
    &["LISTEN x; SELECT pg_notify('x', '1'); SELECT 2; NOTIFY b"],
    &["BEGIN; NOTIFY a; PREPARE TRANSACTION 'p'", "NOTIFY b"],
    &["BEGIN; NOTIFY a", "SELECT 1; PREPARE TRANSACTION 'p'; NOTIFY b"],
    &["/* first */ NOTIFY a -- last\n; ; NOTIFY b;"],
    &[
        "DROP TABLE IF EXISTS d; CREATE TABLE d (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
        "NOTIFY a; INSERT INTO d VALUES (1), (1)",
        "INSERT INTO d VALUES (1), (1); NOTIFY b",
        "INSERT INTO d VALUES (1); NOTIFY c",
    ],
    &["SET work_mem = '1MB'; NOTIFY a; SHOW work_mem"],
    &[";", "NOTIFY a;"],
];

/// What only the extended protocol can do.
fn units() -> Vec<Conversation> {
    let call = "SELECT pg_notify($1, $2)";
    let (long, longer) = ("c".repeat(64), "p".repeat(8000));
    let (short, shorter) = (&longer.as_bytes()[1..], &longer.as_bytes()[..100]);
    let run = |values: &[Option<&[u8]>]| [bind("", "s", values), describe_portal(""), execute("", 0), sync()].concat();
    let prepared = |name: &str, values: &[&[Option<&[u8]>]]| {
        let first = [parse("s", call, &[]), describe_statement("s"), sync()].concat();
        conversation(name, [first].into_iter().chain(values.iter().map(|values| run(values))))
    };
    // One format for all: binary.
    let binary = frame(b'B', b"\0\0\0\x01\0\x01\0\x02\0\0\0\x01a\0\0\0\x01b\0\x01\0\x01");
    vec![
        prepared(
            "arguments",
            &[
                &[Some(b"a"), Some(b"1")],
                &[Some(b"b"), None],
                &[Some(b"A b"), Some(b"")],
                &[Some("é".as_bytes()), Some("ü".as_bytes())],
            ],
        ),
        prepared(
            "limits",
            &[
                &[None, None],
                &[Some(b""), Some(b"")],
                &[Some(long.as_bytes()), Some(b"")],
                &[Some(b"a"), Some(longer.as_bytes())],
                &[Some(&long.as_bytes()[1..]), Some(short)],
                &[Some(b"a"), Some(shorter)],
            ],
        ),
        prepared(
            "far too long",
            &[
                &[Some(b"a"), Some("p".repeat(20_000).as_bytes())],
                &[Some("c".repeat(20_000).as_bytes()), Some(b"")],
                &[Some(b"a"), Some(b"1")],
            ],
        ),
        prepared("wrong", &[&[Some(b"a"), Some(b"\xff")], &[Some(b"a"), Some(b"1")]]),
        conversation(
            "binary",
            [[parse("", call, &[25, 1043]), describe_statement(""), binary.clone(), execute("", 0), sync()].concat()],
        ),
        conversation(
            "types",
            [
                [parse("", "SELECT pg_notify('a', $1)", &[23]), sync()].concat(),
                [
                    parse("", "SELECT pg_notify('a', $1::text)", &[0]),
                    bind("", "", &[Some(b"1")]),
                    execute("", 0),
                    sync(),
                ]
                .concat(),
            ],
        ),
        conversation(
            "portals",
            [[
                parse("s", call, &[]),
                bind("p", "s", &[Some(b"a"), Some(b"p")]),
                bind("q", "s", &[Some(b"b"), Some(b"q")]),
                execute("q", 0),
                execute("p", 0),
                close_portal("p"),
                bind("p", "s", &[Some(b"c"), Some(b"p")]),
                execute("p", 0),
                sync(),
            ]
            .concat()],
        ),
        conversation(
            "suspended",
            [[
                parse("s", call, &[]),
                query("BEGIN"),
                bind("p", "s", &[Some(b"a"), Some(b"p")]),
                execute("p", 1),
                sync(),
                query("SAVEPOINT s"),
                execute("p", 1),
                sync(),
                query("ROLLBACK TO s"),
                query("COMMIT"),
            ]
            .concat()],
        ),
        conversation(
            "flushed",
            [[parse("", call, &[]), bind("", "", &[Some(b"a"), Some(b"1")]), execute("", 0), flush()].concat(), sync()],
        ),
        conversation(
            "never executed",
            [[parse("", call, &[]), bind("", "", &[Some(b"a"), Some(b"1")]), sync()].concat()],
        ),
        conversation(
            "refused in a block",
            [
                query("BEGIN"),
                query("NOTIFY a"),
                [
                    parse("s", call, &[]),
                    bind("", "s", &[Some(b""), None]),
                    execute("", 0),
                    bind("", "s", &[Some(b"b"), None]),
                    execute("", 0),
                    sync(),
                ]
                .concat(),
                query("COMMIT"),
            ],
        ),
        conversation(
            "names",
            [
                [parse("s", "NOTIFY a", &[]), parse("t", "NOTIFY b", &[]), parse("u", "LISTEN x", &[]), sync()]
                    .concat(),
                [
                    bind("", "s", &[]),
                    execute("", 0),
                    bind("", "t", &[]),
                    execute("", 0),
                    bind("", "u", &[]),
                    execute("", 0),
                    sync(),
                ]
                .concat(),
                [bind("", "s", &[]), execute("", 0), close_statement("s"), bind("", "s", &[]), execute("", 0), sync()]
                    .concat(),
                [parse("s", "NOTIFY c", &[]), describe_statement("s"), bind("", "s", &[]), execute("", 0), sync()]
                    .concat(),
                query("NOTIFY x"),
            ],
        ),
        conversation("a Query before the Sync", [[extended("NOTIFY a", &[]), query("NOTIFY b"), sync()].concat()]),
        conversation(
            "an error behind it",
            [[
                extended("NOTIFY a", &[]),
                sync(),
                extended("NOTIFY b", &[]),
                extended("SELECT 1/0", &[]),
                extended("NOTIFY c", &[]),
                sync(),
                extended("NOTIFY c", &[]),
                sync(),
            ]
            .concat()],
        ),
        conversation(
            "blocks in one write",
            [[
                query("BEGIN"),
                query("NOTIFY a"),
                query("COMMIT"),
                query("NOTIFY b"),
                query("BEGIN"),
                query("NOTIFY c"),
                query("ROLLBACK"),
                query("SELECT 1"),
            ]
            .concat()],
        ),
        conversation(
            "prepared in one write",
            [[query("BEGIN"), query("NOTIFY a"), query("PREPARE TRANSACTION 'p'"), query("NOTIFY b")].concat()],
        ),
        conversation(
            "channels as they are committed",
            [[
                extended("LISTEN x", &[]),
                extended("SELECT pg_listening_channels()", &[]),
                sync(),
                extended("SELECT pg_listening_channels()", &[]),
                sync(),
            ]
            .concat()],
        ),
    ]
}

fn conversations() -> Vec<Conversation> {
    let kinds = [simple, one_by_one, in_one_unit, pipelined];
    let statements = TRANSACTIONS.iter().flat_map(|texts| kinds.map(|kind| kind(texts)));
    let broken: [&[u8]; 3] = [b"NOTIFY a, '\xff'", b"LISTEN \"a\xc3\"", b"SELECT pg_notify('a', '\xff')"];
    let broken = broken.map(raw_query);
    let broken = conversation("bytes that are no text", broken);
    statements.chain(TEXTS.iter().map(|texts| simple(texts))).chain(units()).chain([broken]).collect()
}

/// A Query of bytes that need not be a text.
fn raw_query(text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(size_of::<u32>() + text.len() + 1).expect("it is short");
    [b"Q", &length.to_be_bytes()[..], text, b"\0"].concat()
}

/// ReadyForQuery is due for each of these.
fn cycles(bytes: &[u8]) -> usize {
    let (mut rest, mut cycles) = (bytes, 0);
    while let Some(&[tag, a, b, c, d]) = rest.first_chunk() {
        cycles += usize::from(matches!(tag, b'Q' | b'S'));
        rest = &rest[1 + u32::from_be_bytes([a, b, c, d]) as usize..];
    }
    cycles
}

/// A frame as far as it must be the same.
fn comparable(frame: &Frame, own: u32) -> String {
    let told = match frame.tag {
        'E' | 'N' => {
            let mut fields = frame.fields();
            fields.retain(|field, _| "SVCMDH".contains(*field));
            format!("{fields:?}")
        }
        'A' => {
            let from = u32::from_be_bytes(*frame.body.first_chunk().expect("a process id"));
            let whose = if from == own { "own" } else { "another's" };
            format!("{whose} {}", String::from_utf8_lossy(&frame.body[4..]).replace('\0', "|"))
        }
        _ => String::from_utf8_lossy(&frame.body).into_owned(),
    };
    format!("{} {told}", frame.tag)
}

/// A client, and another one that hears everything.
struct Stage {
    client: Wire,
    listener: Wire,
}

impl Stage {
    async fn at(endpoint: &Endpoint) -> Self {
        let mut listener = endpoint.wire("app").await;
        let listens: Vec<_> = CHANNELS.iter().map(|channel| format!("LISTEN {channel}")).collect();
        listener.value(&format!("LISTEN the_end; {}", listens.join("; "))).await;
        Self { client: endpoint.wire("app").await, listener }
    }

    /// What the client is answered, and what the other one hears of it.
    async fn hold(&mut self, conversation: &Conversation, listens_itself: bool) -> (Vec<String>, Vec<String>) {
        let Self { client, listener } = self;
        let own = client.key.as_ref().expect("logged in").0;
        if listens_itself {
            client.value("LISTEN a").await;
            client.value("BEGIN; LISTEN b; LISTEN c; COMMIT").await;
        }
        let mut answers = Vec::new();
        for send in &conversation.sends {
            client.send(send).await;
            for _ in 0..cycles(send) {
                answers.extend(client.cycle().await.iter().map(|frame| comparable(frame, own)));
            }
        }
        client.query("ROLLBACK").await;
        client.value("DISCARD ALL").await;
        client.value("NOTIFY the_end").await;
        let mut heard = Vec::new();
        while heard.last().is_none_or(|last: &String| !last.contains("the_end")) {
            heard.extend(listener.expect("A").await.iter().map(|frame| comparable(frame, own)));
        }
        (answers, heard)
    }
}

#[tokio::test]
async fn a_client_and_its_listeners_see_what_postgres_would_show_them() {
    let postgres = Postgres::shared();
    postgres.role("app").await;
    let proxy = proxy().toml(IN_MEMORY).start().await;
    let mut direct = Stage::at(&postgres.endpoint(&postgres.database().await)).await;
    let mut pooled = Stage::at(&proxy).await;
    let mut differences = Vec::new();
    for conversation in conversations() {
        for listens_itself in [false, true] {
            let expected = direct.hold(&conversation, listens_itself).await;
            let came = pooled.hold(&conversation, listens_itself).await;
            if came != expected {
                let name = &conversation.name;
                differences.push(format!("{name}, listens itself: {listens_itself}\n{expected:#?}\n{came:#?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

// Where a backend is not given back, and where there are no transaction blocks.
#[tokio::test]
async fn it_is_the_same_in_every_pool_mode() {
    let postgres = Postgres::shared();
    postgres.role("app").await;
    for mode in ["session", "statement"] {
        let mut direct = Stage::at(&postgres.endpoint(&postgres.database().await)).await;
        let proxy = proxy().toml(IN_MEMORY).mode(mode).start().await;
        let mut pooled = Stage::at(&proxy).await;
        for mut conversation in TEXTS.iter().map(|texts| simple(texts)).chain(units()) {
            // Names of prepared transactions are those of the whole server, where the test before may run.
            for send in &mut conversation.sends {
                let name = send.windows(3).position(|part| part == b"'p'");
                name.into_iter().for_each(|at| send[at + 1] = b'q');
            }
            let begins = |send: &Vec<u8>| send.windows(5).any(|part| part == b"BEGIN");
            if mode == "session" || !conversation.sends.iter().any(begins) {
                let expected = direct.hold(&conversation, false).await;
                assert_eq!(pooled.hold(&conversation, false).await, expected, "{}", conversation.name);
            }
        }
    }
}

/// A client that listens to `a`.
async fn listener(endpoint: &Endpoint) -> Wire {
    let mut wire = endpoint.wire("app").await;
    wire.value("LISTEN a").await;
    wire
}

/// Payloads that have come to a listener before the one that is sent now.
async fn heard(endpoint: &Endpoint, listener: &mut Wire) -> Vec<String> {
    endpoint.wire("app").await.value("NOTIFY a, 'the end'").await;
    let mut payloads = Vec::new();
    loop {
        let frame = listener.expect("A").await.remove(0);
        let text = String::from_utf8_lossy(&frame.body[4..]).into_owned();
        let payload = text.trim_end_matches('\0').split_once('\0').map_or("", |(_, payload)| payload);
        if payload == "the end" {
            return payloads;
        }
        payloads.push(payload.to_owned());
    }
}

#[tokio::test]
async fn what_a_client_commits_as_it_leaves_is_heard() {
    let commits: [&[Vec<u8>]; 4] = [
        &[query("BEGIN"), query("NOTIFY a, '1'"), query("COMMIT")],
        &[query("SELECT 1"), query("BEGIN; NOTIFY a, '1'; COMMIT; SELECT 1/0")],
        &[query("SELECT 1"), [extended("NOTIFY a, '1'", &[]), sync()].concat()],
        &[query("SELECT 1"), [extended("SELECT pg_notify('a', $1)", &[Some(b"1")]), sync()].concat()],
    ];
    let postgres = Postgres::shared();
    for (number, sends) in commits.iter().enumerate() {
        for half in [&b""[..], b"Q\0\0"] {
            let link = Link::to(postgres.endpoint("postgres").addr).await;
            let proxy = proxy().toml(IN_MEMORY).backend(link.addr).start().await;
            let mut listener = listener(&proxy).await;
            let mut wire = proxy.wire("app").await;
            let (last, before) = sends.split_last().expect("a COMMIT");
            for send in before {
                wire.send(send).await;
                wire.cycle().await;
            }
            let sessions = Sessions::of(postgres, &proxy.dbname).await;
            link.pause_toward(Toward::Frontend);
            wire.send([last, half].concat()).await;
            let done = "backend_xid IS NULL AND state = 'idle' AND query NOT LIKE 'LISTEN%'
                AND (query LIKE '%COMMIT%' OR query LIKE '%pgweir%' OR query LIKE '%void_in%')";
            eventually(async || sessions.count(done).await > 0).await;
            drop(wire);
            eventually(async || {
                proxy.console("SHOW CLIENTS").await.iter().filter(|row| row["user"] == "app").count() == 1
            })
            .await;
            link.resume();
            eventually(async || proxy.metric("pgweir_notify_published_total", &[]) >= 1.0).await;
            assert_eq!(heard(&proxy, &mut listener).await, ["1"], "{number} {half:?}");
        }
    }
}

/// A DO that notifies, and the server is slow to tell of it.
fn at_server(payload: &str) -> String {
    format!("DO $$ BEGIN PERFORM pg_notify('a', '{payload}'); END $$")
}

// Some go through the server and some do not; who listens must not notice.
#[tokio::test]
async fn notifications_beside_those_of_a_do_keep_their_order_and_are_folded() {
    for bus in [IN_MEMORY, ""] {
        let proxy = proxy().pool_size(2).toml(bus).start().await;
        let mut listener = listener(&proxy).await;
        let mut wire = proxy.wire("app").await;
        for sql in ["BEGIN", &at_server("1"), "NOTIFY a, '2'", "NOTIFY a, '1'", &at_server("3"), "COMMIT"] {
            wire.query(sql).await;
        }
        let unit = |sql: &str| [extended(sql, &[]), sync()].concat();
        for sql in ["BEGIN", &at_server("4"), "SELECT pg_notify('a', '5')", "COMMIT"] {
            wire.send(unit(sql)).await;
            wire.cycle().await;
        }
        for n in 0..30 {
            wire.query(&at_server(&format!("do {n}"))).await;
            wire.query(&format!("NOTIFY a, 'plain {n}'")).await;
            wire.query(&format!("NOTIFY a, 'second {n}'")).await;
        }
        let each = (0..30).flat_map(|n| ["do", "plain", "second"].map(|kind| format!("{kind} {n}")));
        let expected: Vec<_> = ["1", "2", "3", "4", "5"].map(str::to_owned).into_iter().chain(each).collect();
        let told = listener.expect(&vec!["A"; expected.len()].join(" ")).await;
        let payload =
            |told: &Frame| String::from_utf8_lossy(&told.body[b"pid_a\0".len()..]).trim_end_matches('\0').to_owned();
        assert_eq!(told.iter().map(payload).collect::<Vec<_>>(), expected, "{bus}");
    }
}

#[tokio::test]
async fn what_a_client_leaves_uncommitted_is_not_heard() {
    let proxy = proxy().toml(IN_MEMORY).pool_size(1).start().await;
    let mut listener = listener(&proxy).await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    for left in ["BEGIN; NOTIFY a", "BEGIN; NOTIFY a; SELECT pg_sleep(600)", "NOTIFY a; SELECT pg_sleep(600)"] {
        let mut wire = proxy.wire("app").await;
        wire.send(query(left)).await;
        let is_there = "state = 'idle in transaction' OR query LIKE '%pg_sleep%' AND state = 'active'";
        sessions.until(is_there, 1).await;
        drop(wire);
        proxy.wire("app").await.value("SELECT 1").await;
        assert!(heard(&proxy, &mut listener).await.is_empty(), "{left}");
    }
    // A Sync of ours ends the unit it left open, and must not commit it.
    let mut wire = proxy.wire("app").await;
    wire.send([extended("NOTIFY a", &[]), flush()].concat()).await;
    wire.expect("1 2 n C").await;
    drop(wire);
    proxy.wire("app").await.value("SELECT 1").await;
    assert!(heard(&proxy, &mut listener).await.is_empty());
}

#[tokio::test]
async fn what_is_lost_with_its_backend_is_not_heard() {
    let postgres = Postgres::shared();
    let link = Link::to(postgres.endpoint("postgres").addr).await;
    let proxy = proxy().toml(IN_MEMORY).toml("[notify]\non_gap = \"count\"").backend(link.addr).start().await;
    let sessions = Sessions::of(postgres, &proxy.dbname).await;
    let mut listener = listener(&proxy).await;
    let mut wire = proxy.wire("app").await;
    wire.value("BEGIN").await;
    wire.value("NOTIFY a").await;
    sessions.terminate("state = 'idle in transaction'").await;
    // Until pgweir has seen that, nobody would know what became of a COMMIT.
    eventually(async || proxy.console("SHOW SERVERS").await.is_empty()).await;
    assert_eq!(wire.failure("COMMIT").await, "40001");
    assert!(heard(&proxy, &mut listener).await.is_empty());
    assert_eq!(proxy.metric("pgweir_notify_dropped_total", &["cause=\"commit\""]), 0.0);

    // Nobody knows what became of this one.
    wire.value("BEGIN").await;
    wire.value("NOTIFY a").await;
    link.pause_toward(Toward::Frontend);
    wire.send(query("COMMIT")).await;
    sessions.until("query = 'COMMIT' AND state = 'idle'", 1).await;
    link.cut();
    assert_eq!(wire.expect("E Z").await[0].sqlstate(), "08007");
    link.resume();
    wire.value("SELECT 1").await;
    assert!(heard(&proxy, &mut listener).await.is_empty());
    assert_eq!(proxy.metric("pgweir_notify_dropped_total", &["cause=\"commit\""]), 1.0);
}

#[tokio::test]
async fn a_lone_notify_needs_no_backend() {
    let proxy = proxy().toml(IN_MEMORY).pool_size(1).start().await;
    let mut listener = listener(&proxy).await;
    let (mut holder, mut wire) = (proxy.wire("app").await, proxy.wire("app").await);
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    holder.value("BEGIN").await;
    for (sql, answer) in [
        ("NOTIFY a, '1'", "C Z"),
        ("notify A, '2' ; -- done", "C Z"),
        ("LISTEN b", "C Z"),
        ("NOTIFY b", "C A Z"),
        ("UNLISTEN b", "C Z"),
        ("NOTIFY b", "C Z"),
        ("UNLISTEN *", "C Z"),
    ] {
        let frames = wire.query(sql).await;
        let tag = sql.split_whitespace().next().expect("a word").to_ascii_uppercase();
        // It may have been woken for it first.
        let came =
            tags(&frames.into_iter().filter(|frame| frame.tag != 'C' || frame.text() == tag).collect::<Vec<_>>());
        assert!(came == answer, "{sql}: {came}");
    }
    assert_eq!(sessions.count("state = 'idle in transaction'").await, 1);
    holder.value("COMMIT").await;
    assert_eq!(heard(&proxy, &mut listener).await, ["1", "2"]);
}

#[tokio::test]
async fn a_prepared_call_goes_from_backend_to_backend() {
    let proxy = proxy().toml(IN_MEMORY).toml("[notify]\non_gap = \"count\"").pool_size(2).start().await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    let mut listener = listener(&proxy).await;
    let mut clients = [proxy.wire("app").await, proxy.wire("app").await];
    for client in &mut clients {
        let both = [parse("s", "SELECT pg_notify('a', $1)", &[]), parse("t", "NOTIFY a, 't'", &[])].concat();
        client.send([both, sync()].concat()).await;
        client.expect("1 1 Z").await;
    }
    for payload in [b"1", b"2"] {
        for client in &mut clients {
            client.send([query("BEGIN"), bind("", "s", &[Some(payload)]), execute("", 0), sync()].concat()).await;
            client.expect("C Z 2 D C Z").await;
        }
        for client in &mut clients {
            client.send([bind("", "t", &[]), execute("", 0), sync(), query("COMMIT")].concat()).await;
            client.expect("2 C Z C Z").await;
        }
        sessions.terminate("query LIKE '%COMMIT%'").await;
    }
    assert_eq!(heard(&proxy, &mut listener).await, ["1", "t", "1", "t", "2", "t", "2", "t"]);
}

// What the functions of `pgweir notify-sql` say; a text in the place of their callers.
#[tokio::test]
async fn what_functions_tell_pgweir_reaches_listeners_and_never_the_client() {
    let proxy = proxy().toml(IN_MEMORY).start().await;
    let mut listener = listener(&proxy).await;
    let mut wire = proxy.wire("app").await;
    let tell = |payload: &str| {
        format!(
            "DO $$ BEGIN RAISE INFO USING MESSAGE = '{payload}', ERRCODE = 'PW001', COLUMN = 'a'; RAISE INFO 'seen'; END $$"
        )
    };
    for sends in [
        vec![query(&tell("1"))],
        vec![query("BEGIN"), query(&tell("2")), query("COMMIT")],
        vec![query("BEGIN"), query(&tell("no")), query("ROLLBACK")],
        vec![query("BEGIN"), query("SAVEPOINT s"), query(&tell("no")), query("ROLLBACK TO s"), query("COMMIT")],
        vec![
            query("BEGIN"),
            query(&tell("3")),
            query("SAVEPOINT s"),
            query(&tell("no")),
            query("ROLLBACK TO s"),
            query("COMMIT"),
        ],
        vec![
            query("BEGIN"),
            query("SAVEPOINT s"),
            query("SELECT 1/0"),
            query("ROLLBACK TO s"),
            query(&tell("4")),
            query("END"),
        ],
        vec![query(&format!("{}; SELECT 1/0", tell("no")))],
        vec![[extended(&tell("5"), &[]), sync()].concat()],
        vec![[extended(&tell("no"), &[]), extended("SELECT 1/0", &[]), sync()].concat()],
        vec![query(&tell(&"6".repeat(7999)))],
    ] {
        for send in sends.iter().cloned().chain([sends.concat()]) {
            wire.send(&send).await;
            for _ in 0..cycles(&send) {
                let notices: Vec<_> = wire.cycle().await.into_iter().filter(|frame| frame.tag == 'N').collect();
                assert!(notices.iter().all(|notice| notice.fields()[&'M'] == "seen"), "{notices:?}");
            }
        }
    }
    let expected: Vec<_> = ["1", "2", "3", "4", "5"].map(str::to_owned).into_iter().chain(["6".repeat(7999)]).collect();
    let twice: Vec<_> = expected.iter().flat_map(|payload| [payload.clone(), payload.clone()]).collect();
    assert_eq!(heard(&proxy, &mut listener).await, twice);
}

#[tokio::test]
async fn texts_that_the_server_converts_are_left_to_it() {
    let proxy = proxy().toml(IN_MEMORY).start().await;
    let mut listener = listener(&proxy).await;
    let (mut wire, _) = Wire::login_with(&proxy, "app", &[("client_encoding", "LATIN1")]).await;
    wire.send(frame(b'Q', b"NOTIFY a, '\xfc'\0")).await;
    wire.expect("C Z").await;
    wire.send(
        [
            parse("", "SELECT pg_notify($1, $2)", &[]),
            bind("", "", &[Some(b"a"), Some(b"\xfc2")]),
            execute("", 0),
            sync(),
        ]
        .concat(),
    )
    .await;
    wire.expect("1 2 D C Z").await;
    for expected in ["a\0ü\0", "a\0ü2\0"] {
        assert_eq!(String::from_utf8_lossy(&listener.expect("A").await[0].body[4..]), expected);
    }
    assert_eq!(proxy.metric("pgweir_notify_intercepted_total", &[]), 0.0);
    wire.value("NOTIFY a, 'ascii'").await;
    listener.expect("A").await;
    assert_eq!(proxy.metric("pgweir_notify_intercepted_total", &[]), 1.0);

    // Prepared while there was nothing to convert.
    let mut wire = proxy.wire("app").await;
    wire.send([parse("s", "SELECT pg_notify('a', $1)", &[]), sync(), query("SET client_encoding = 'LATIN1'")].concat())
        .await;
    wire.expect("1 Z C S Z").await;
    wire.send(
        [
            bind("", "s", &[Some(b"ascii")]),
            execute("", 0),
            sync(),
            bind("", "s", &[Some(b"\xfc")]),
            execute("", 0),
            sync(),
        ]
        .concat(),
    )
    .await;
    let frames = wire.expect("2 D C Z 2 E Z").await;
    assert_eq!(frames[5].sqlstate(), "22P05");
    listener.expect("A").await;
}

#[tokio::test]
async fn nothing_is_kept_from_the_server_when_told_so() {
    let proxy = proxy().toml(IN_MEMORY).start().await;
    let mut wire = proxy.wire("app").await;
    wire.send([parse("s", "NOTIFY a", &[]), sync()].concat()).await;
    wire.expect("1 Z").await;
    proxy.reload("[notify]\nmode = \"off\"").await;
    for sql in ["NOTIFY a", "SELECT pg_notify('a', 'b')", "BEGIN; NOTIFY a; COMMIT"] {
        wire.value(sql).await;
        wire.send([extended(sql.trim_start_matches("BEGIN; ").trim_end_matches("; COMMIT"), &[]), sync()].concat())
            .await;
        wire.cycle().await;
    }
    assert_eq!(proxy.metric("pgweir_notify_intercepted_total", &[]), 0.0);
    // This one keeps its stand-in.
    wire.send([bind("", "s", &[]), execute("", 0), sync()].concat()).await;
    assert_eq!(wire.expect("2 C Z").await[1].text(), "NOTIFY");
    assert_eq!(proxy.metric("pgweir_notify_intercepted_total", &[]), 1.0);
    proxy.reload("[notify]\nmode = \"intercept\"").await;
    wire.value("NOTIFY a").await;
    assert_eq!(proxy.metric("pgweir_notify_intercepted_total", &[]), 2.0);
}

#[tokio::test]
async fn a_bus_that_takes_nothing_can_make_notify_fail() {
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let toml =
        format!("[notify]\nbus = \"redis\"\nredis_url = \"redis://{nowhere}\"\nbus_queue = 1\nwhen_down = \"error\"");
    let proxy = proxy().toml(&toml).start().await;
    let mut wire = proxy.wire("app").await;
    wire.value("NOTIFY a").await;
    assert_eq!(wire.failure("NOTIFY a").await, "54000");
    assert_eq!(tags(&wire.query("BEGIN").await), "C Z");
    assert_eq!(wire.failure("SELECT pg_notify('a', '')").await, "54000");
    assert_eq!(wire.query("COMMIT").await[0].text(), "ROLLBACK");
    wire.send(
        [parse("", "SELECT pg_notify('a', $1)", &[]), bind("", "", &[Some(b"")]), execute("", 0), sync()].concat(),
    )
    .await;
    assert_eq!(wire.expect("1 2 E Z").await[2].sqlstate(), "54000");
    wire.value("UNLISTEN a").await;
    wire.value("SELECT 1").await;
}
