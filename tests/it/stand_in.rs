//! What stands in for NOTIFY, LISTEN and their functions answers as they do: each original and its stand-in, side by
//! side at Postgres itself.

use pgweir::testing::sql::{Context, stand_ins};

use crate::support::{Frame, Postgres, Wire, frontend, proxy, tags};

/// Statements that have a stand-in, some of which fail.
const STATEMENTS: &[&str] = &[
    "NOTIFY a",
    "NOTIFY \"A b\", 'payload'",
    "LISTEN a",
    "NOTIFY aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, 'cut'",
    "LISTEN \"Aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
    "SELECT pg_notify('a', 'b')",
    "SELECT pg_notify('a', NULL)",
    "SELECT pg_notify($1, $2)",
    "SELECT pg_catalog.pg_notify($1::text, $2::varchar) AS \"Done\"",
    "SELECT pg_notify(CAST($1 AS text), 'b') done",
    "SELECT pg_notify($2, $1)",
    "SELECT pg_notify($1, $1)",
    "SELECT pg_notify('a', $1) AS select",
    "SELECT pg_notify('a', $1) isnull",
    "SELECT pg_notify('a', 'b') AS aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "SELECT pg_listening_channels()",
    "SELECT pg_listening_channels() AS c",
    "SELECT * FROM pg_listening_channels()",
    // What these are refused for is left to Postgres by their stand-ins, too.
    "SELECT pg_notify('a', $2)",
    "SELECT pg_notify('a', 'b') from",
    "SELECT 1; NOTIFY a; SELECT pg_notify('a', 'b'); SELECT 2",
    "NOTIFY a; SELECT 1 / 0",
    "BEGIN; NOTIFY a; SAVEPOINT s; SELECT pg_notify('a', 'b'); ROLLBACK TO s; COMMIT; LISTEN a",
];

/// In front of a statement.
const STATES: &[&str] = &["", "BEGIN", "BEGIN READ ONLY", "BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN; SELECT 1 / 0"];

const TEXT: u32 = 25;
const VARCHAR: u32 = 1043;
const UNKNOWN: u32 = 705;

fn stand_in(sql: &str) -> String {
    let (text, _) = stand_ins(sql.as_bytes(), Context::default(), |_| true).expect(sql);
    String::from_utf8(text).expect("ASCII")
}

/// Everything a driver may ask about one text: each a cycle of its own.
fn conversations(sql: &str) -> Vec<Vec<u8>> {
    let parameters = [1, 2].into_iter().filter(|number| sql.contains(&format!("${number}"))).max().unwrap_or(0);
    let sync = frontend::sync();
    let extended = |types: &[u32], format: u16, rows_max: u32| {
        let described = [frontend::parse("", sql, types), frontend::describe_statement("")].concat();
        let executed = [frontend::describe_portal(""), frontend::execute("", rows_max), frontend::execute("", 0)];
        [described, bind(parameters, format), executed.concat(), sync.clone()].concat()
    };
    let mut conversations = vec![frontend::query(sql), extended(&[], 0, 0), extended(&[], 1, 0), extended(&[], 0, 1)];
    for types in [[TEXT; 2], [VARCHAR; 2], [UNKNOWN; 2], [0, VARCHAR]] {
        conversations.push(extended(&types[..parameters], 1, 0));
    }
    conversations
}

/// Binds the unnamed statement to texts, which are the same bytes in both formats.
fn bind(parameters: usize, format: u16) -> Vec<u8> {
    let formats = [1u16.to_be_bytes(), format.to_be_bytes()].concat();
    let mut body = [&[0, 0], &formats[..], &u16::try_from(parameters).expect("two").to_be_bytes()].concat();
    for value in &[b"first", b"other"][..parameters] {
        body.extend([&5i32.to_be_bytes()[..], *value].concat());
    }
    frontend::frame(b'B', &[body, formats].concat())
}

/// A frame as far as it must be the same: not where an error is in the text, and not the tag of a command.
fn comparable(frame: &Frame) -> String {
    let told = match frame.tag {
        'E' | 'N' => {
            let mut fields = frame.fields();
            fields.retain(|field, _| "SVCMDHW".contains(*field));
            format!("{fields:?}")
        }
        'C' if ["NOTIFY", "LISTEN", "UNLISTEN"].contains(&&*frame.text()) => "a command".to_owned(),
        _ => format!("{:?}", frame.body),
    };
    format!("{} {told}", frame.tag)
}

async fn run(wire: &mut Wire, state: &str, conversation: &[u8]) -> Vec<Frame> {
    wire.query(state).await;
    wire.send(conversation).await;
    let frames = wire.cycle().await;
    wire.query("ROLLBACK").await;
    wire.query("UNLISTEN *").await;
    frames
}

#[tokio::test]
async fn a_stand_in_answers_as_its_original_does() {
    let postgres = Postgres::shared();
    postgres.role("app").await;
    let endpoint = postgres.endpoint("postgres");
    let (mut one, mut other) = (endpoint.wire("app").await, endpoint.wire("app").await);
    for sql in STATEMENTS {
        let replaced = stand_in(sql);
        for (original, replaced) in conversations(sql).iter().zip(conversations(&replaced)) {
            for state in STATES {
                let expected = run(&mut one, state, original).await;
                // What the original tells its own connection, if it listens.
                let expected: Vec<_> = expected.iter().filter(|frame| frame.tag != 'A').map(comparable).collect();
                let came: Vec<_> = run(&mut other, state, &replaced).await.iter().map(comparable).collect();
                assert_eq!(came, expected, "{sql} after {state:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_null_payload_is_one_empty_value() {
    let postgres = Postgres::shared();
    postgres.role("app").await;
    let mut wire = postgres.endpoint("postgres").wire("app").await;
    let sql = "SELECT pg_notify($1, $2)";
    for sql in [sql, &stand_in(sql)] {
        wire.send([frontend::extended(sql, &[Some(b"a"), None]), frontend::sync()].concat()).await;
        let frames = wire.expect("1 2 T D C Z").await;
        assert_eq!(frames[3].columns(), [Some(String::new())], "{sql}");
    }
}

#[tokio::test]
async fn an_original_notifies_and_its_stand_in_does_not() {
    let postgres = Postgres::shared();
    postgres.role("app").await;
    let mut wire = postgres.endpoint("postgres").wire("app").await;
    wire.query("LISTEN a").await;
    for sql in ["NOTIFY a", "SELECT pg_notify('a', 'b')", "SELECT 1; NOTIFY a"] {
        assert!(tags(&wire.query(sql).await).ends_with("C A Z"), "{sql}");
        assert!(tags(&wire.query(&stand_in(sql)).await).ends_with("C Z"), "{sql}");
    }
}

#[tokio::test]
async fn what_has_no_stand_in_is_for_postgres_even_of_a_client_without_a_backend() {
    let proxy = proxy().start().await;
    let mut wire = proxy.wire("app").await;
    let payload = "p".repeat(8_000);
    assert_eq!(wire.failure(&format!("NOTIFY a, '{payload}'")).await, "22023");
}
