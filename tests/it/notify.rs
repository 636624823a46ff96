//! NOTIFY, pg_notify and LISTEN beside the server: to every client it is as if Postgres itself had done them.

use crate::support::frontend::{
    bind, close_portal, close_statement, describe_portal, describe_statement, execute, extended, flush, frame, parse,
    query, sync,
};
use crate::support::{Endpoint, Frame, Postgres, Proxy, proxy};

/// One process, nothing but its own memory between its clients.
async fn one_process() -> Proxy {
    proxy().toml("[notify]\nbus = \"memory\"").start().await
}

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
    statements.chain(TEXTS.iter().map(|texts| simple(texts))).chain(units()).collect()
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

/// What a client is answered, and what another one hears of it.
async fn hold(endpoint: &Endpoint, conversation: &Conversation, listens_itself: bool) -> (Vec<String>, Vec<String>) {
    let mut listener = endpoint.wire("app").await;
    for channel in CHANNELS.iter().chain(&["the_end"]) {
        listener.value(&format!("LISTEN {channel}")).await;
    }
    let mut client = endpoint.wire("app").await;
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
    client.value("NOTIFY the_end").await;
    let mut heard = Vec::new();
    listener.send(query("SELECT 1")).await;
    while heard.last().is_none_or(|last: &String| !last.contains("the_end")) {
        let frame = listener.frame().await;
        if frame.tag == 'A' {
            heard.push(comparable(&frame, own));
        }
    }
    (answers, heard)
}

#[tokio::test]
async fn a_client_and_its_listeners_see_what_postgres_would_show_them() {
    let postgres = Postgres::shared();
    postgres.role("app").await;
    let direct = postgres.endpoint(&postgres.database().await);
    let proxy = one_process().await;
    let mut differences = Vec::new();
    for conversation in conversations() {
        for listens_itself in [false, true] {
            let expected = hold(&direct, &conversation, listens_itself).await;
            let came = hold(&proxy, &conversation, listens_itself).await;
            if came != expected {
                let name = &conversation.name;
                differences.push(format!("{name}, listens itself: {listens_itself}\n{expected:#?}\n{came:#?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
