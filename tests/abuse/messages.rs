//! Messages of a client that is logged in, in the wrong form, order or state.

use crate::case::Stage::{Copying, Ready, Transaction};
use crate::case::{Case, row};
use crate::support::frontend::{
    bind, close_portal, close_statement, copy_data, copy_done, copy_fail, describe_portal, describe_statement, execute,
    extended, flush, frame, function_call, parse, password, query, startup, sync,
};

/// Bind with these bytes behind the names.
fn raw_bind(rest: &[u8]) -> Vec<u8> {
    frame(b'B', &[b"\0\0", rest].concat())
}

/// These messages, and a Sync.
fn synced(messages: &[Vec<u8>]) -> Vec<u8> {
    [messages.concat(), sync()].concat()
}

fn long(n: usize) -> String {
    "x".repeat(n)
}

pub(crate) fn cases() -> Vec<Case> {
    [framing(), extended_protocol(), binds(), names(), texts(), copies(), transactions()]
        .into_iter()
        .flatten()
        .collect()
}

fn framing() -> Vec<Case> {
    vec![
        row("an unknown type", Ready, frame(b'z', b"x"), "E08P01 end"),
        row("a type of 0", Ready, [0, 0, 0, 0, 4], "E08P01 end"),
        row("a type of 255", Ready, [255, 0, 0, 0, 4], "E08P01 end"),
        row("a message of the server", Ready, frame(b'Z', b"I"), "E08P01 end"),
        row("a password", Ready, password("app"), "E08P01 end"),
        row("a StartupMessage again", Ready, startup(3 << 16, &[("user", "app")]), "E08P01 end"),
        row("a message length of 0", Ready, [b'Q', 0, 0, 0, 0], "E08P01 end"),
        row("a message length of 3", Ready, [b'Q', 0, 0, 0, 3], "E08P01 end"),
        row("a negative message length", Ready, [b'Q', 0xff, 0xff, 0xff, 0xff, 1], "E08P01 end"),
        row("a Query of 2 GiB", Ready, [b'Q', 0x7f, 0xff, 0xff, 0xff, b'S'], "E08P01 end"),
        row("a Sync of 2 GiB", Ready, [b'S', 0x7f, 0xff, 0xff, 0xff, b'S'], "E08P01 end"),
        row("garbage behind a Query", Ready, [query("SELECT 1"), vec![0; 10]].concat(), "T D C ZI E08P01 end"),
        row("an empty Query", Ready, query(""), "I ZI"),
        row("a Query without its end", Ready, frame(b'Q', b"SELECT 1"), "E08P01 ZI"),
        row("a Query with a NUL in it", Ready, frame(b'Q', b"SELECT 1\0; SELECT 2\0"), "E08P01 ZI"),
        row("a Query without a body", Ready, frame(b'Q', b""), "E08P01 ZI"),
        row("a Sync with a body", Ready, frame(b'S', b"xxxx"), "ZI"),
        row("Terminate with a body", Ready, frame(b'X', b"xxxx"), "end"),
        row("a Query behind Terminate", Ready, [frame(b'X', b""), query("SELECT 1")].concat(), "end"),
    ]
}

fn extended_protocol() -> Vec<Case> {
    vec![
        row("Bind of no statement", Ready, synced(&[bind("", "", &[])]), "E26000 ZI"),
        row("Bind of an unknown statement", Ready, synced(&[bind("", "nowhere", &[])]), "E26000 ZI"),
        row("Describe of an unknown statement", Ready, synced(&[describe_statement("nowhere")]), "E26000 ZI"),
        row("Describe of an unknown portal", Ready, synced(&[describe_portal("nowhere")]), "E34000 ZI"),
        row("Execute of an unknown portal", Ready, synced(&[execute("nowhere", 0)]), "E34000 ZI"),
        row("Execute of no portal", Ready, synced(&[execute("", 0)]), "E34000 ZI"),
        row(
            "Execute of a negative number of rows",
            Ready,
            synced(&[extended("SELECT 1", &[]), execute("", u32::MAX)]),
            "1 2 T D C C ZI",
        ),
        row("Close of an unknown statement", Ready, synced(&[close_statement("nowhere")]), "3 ZI"),
        row("Close of an unknown portal", Ready, synced(&[close_portal("nowhere")]), "3 ZI"),
        row("Close of neither", Ready, synced(&[frame(b'C', b"x\0")]), "E08P01 end"),
        row("Describe of neither", Ready, synced(&[frame(b'D', b"x\0")]), "E08P01 end"),
        row("Describe without a body", Ready, synced(&[frame(b'D', b"")]), "E08P01 end"),
        row("Close without a body", Ready, synced(&[frame(b'C', b"")]), "E08P01 end"),
        row("Execute without a number", Ready, synced(&[frame(b'E', b"\0")]), "E08P01 ZI"),
        row("Execute without an end of its name", Ready, synced(&[frame(b'E', b"abc")]), "E08P01 end"),
        row("Parse without a body", Ready, synced(&[frame(b'P', b"")]), "E08P01 end"),
        row("Parse without an end", Ready, synced(&[frame(b'P', b"name")]), "E08P01 end"),
        row("Parse without types", Ready, synced(&[frame(b'P', b"\0SELECT 1\0")]), "E08P01 ZI"),
        row(
            "Parse of fewer types than it says",
            Ready,
            synced(&[frame(b'P', b"\0SELECT 1\0\0\x05\0\0\0\x17")]),
            "E08P01 ZI",
        ),
        row("Parse of a negative number of types", Ready, synced(&[frame(b'P', b"\0SELECT 1\0\xff\xff")]), "E08P01 ZI"),
        row("Parse of an unknown type", Ready, synced(&[parse("", "SELECT $1", &[4_000_000_000])]), "EXX000 ZI"),
        row("Parse of two statements", Ready, synced(&[parse("", "SELECT 1; SELECT 2", &[])]), "E42601 ZI"),
        row("Parse of no SQL", Ready, synced(&[parse("", "selec", &[])]), "E42601 ZI"),
        row(
            "a statement twice",
            Ready,
            synced(&[parse("s", "SELECT 1", &[]), parse("s", "SELECT 2", &[])]),
            "1 E42P05 ZI",
        ),
        row(
            "what follows a fault is left out",
            Ready,
            synced(&[execute("no", 0), extended("SELECT 1", &[])]),
            "E34000 ZI",
        ),
        row(
            "a Query within a pipeline",
            Ready,
            [parse("", "SELECT 1", &[]), query("SELECT 2"), sync()].concat(),
            "1 T D C ZI ZI",
        ),
        row("Flush and no Sync", Ready, [parse("", "SELECT 1", &[]), flush()].concat(), "1"),
        row("Function call of an unknown function", Ready, function_call(4_000_000_000, &[]), "E42883 ZI"),
        row("Function call without a body", Ready, frame(b'F', b""), "E08P01 end"),
        row("Function call of too few arguments", Ready, function_call(1598, &[b"1", b"2"]), "E08P01 ZI"),
    ]
}

fn binds() -> Vec<Case> {
    let bound = |rest: &[u8]| synced(&[parse("", "SELECT $1::int", &[]), raw_bind(rest)]);
    vec![
        row("Bind without a body", Ready, synced(&[frame(b'B', b"")]), "E08P01 end"),
        row("Bind without an end of its portal", Ready, synced(&[frame(b'B', b"abc")]), "E08P01 end"),
        row("Bind without counts", Ready, bound(b""), "1 E08P01 ZI"),
        row("Bind of no values", Ready, bound(b"\0\0\0\0\0\0"), "1 E08P01 ZI"),
        row("Bind of too many values", Ready, bound(b"\0\0\0\x02\0\0\0\x011\0\0\0\x012\0\0"), "1 E08P01 ZI"),
        row("Bind of fewer values than it says", Ready, bound(b"\0\0\0\x05\0\0\0\x011\0\0"), "1 E08P01 ZI"),
        row("Bind of a value of length -2", Ready, bound(b"\0\0\0\x01\xff\xff\xff\xfe\0\0"), "1 E08P01 ZI"),
        row("Bind of a value of the least length", Ready, bound(b"\0\0\0\x01\x80\0\0\0\0\0"), "1 E08P01 ZI"),
        row("Bind of a value beyond the message", Ready, bound(b"\0\0\0\x01\0\xff\xff\xff1\0\0"), "1 E08P01 ZI"),
        row("Bind of a negative number of values", Ready, bound(b"\0\0\xff\xff\0\0"), "1 E08P01 ZI"),
        row("Bind of a negative number of formats", Ready, bound(b"\xff\xff\0\0\0\0"), "1 E08P01 ZI"),
        row("Bind of an unknown format", Ready, bound(b"\0\x01\0\x07\0\x01\0\0\0\x011\0\0"), "1 E22023 ZI"),
        row(
            "Bind of more formats than values",
            Ready,
            bound(b"\0\x03\0\0\0\0\0\0\0\x01\0\0\0\x011\0\0"),
            "1 E08P01 ZI",
        ),
        row("Bind of an unknown result format", Ready, bound(b"\0\0\0\x01\0\0\0\x011\0\x01\0\x07"), "1 2 ZI"),
        row("Bind with bytes behind it", Ready, bound(b"\0\0\0\x01\0\0\0\x011\0\0more"), "1 E08P01 ZI"),
        row(
            "Bind of a NUL",
            Ready,
            synced(&[parse("", "SELECT $1::text", &[]), bind("", "", &[Some(b"a\0b")])]),
            "1 E22021 ZI",
        ),
        row(
            "Bind of what is no text",
            Ready,
            synced(&[parse("", "SELECT $1::text", &[]), bind("", "", &[Some(b"\xff\xfe")])]),
            "1 E22021 ZI",
        ),
        row(
            "a portal twice",
            Ready,
            synced(&[parse("", "SELECT 1", &[]), bind("p", "", &[]), bind("p", "", &[])]),
            "1 2 E42P03 ZI",
        ),
        row(
            "a portal of a closed statement",
            Ready,
            synced(&[parse("s", "SELECT 1", &[]), close_statement("s"), bind("", "s", &[])]),
            "1 3 E26000 ZI",
        ),
    ]
}

fn names() -> Vec<Case> {
    vec![
        row("a statement name of 100,000 bytes", Ready, synced(&[parse(&long(100_000), "SELECT 1", &[])]), "1 ZI"),
        row(
            "a portal name of 100,000 bytes",
            Ready,
            synced(&[parse("", "SELECT 1", &[]), bind(&long(100_000), "", &[])]),
            "1 2 ZI",
        ),
        row("a statement name that is no text", Ready, synced(&[frame(b'P', b"\xff\xfe\0SELECT 1\0\0\0")]), "1 ZI"),
        row("a channel of 64 bytes", Ready, query(&format!("LISTEN {}", long(64))), "N C ZI"),
        row("a channel of 10,000 bytes", Ready, query(&format!("LISTEN {}", long(10_000))), "N C ZI"),
        row(
            "a cursor of 10,000 bytes",
            Ready,
            query(&format!("BEGIN; DECLARE {} CURSOR FOR SELECT 1; COMMIT", long(10_000))),
            "N C C C ZI",
        ),
        row("a savepoint of 10,000 bytes", Ready, query(&format!("SAVEPOINT {}", long(10_000))), "N E25P01 ZI"),
    ]
}

fn texts() -> Vec<Case> {
    vec![
        row("a text that ends within a string", Ready, query("SELECT 'abc"), "E42601 ZI"),
        row("a text that ends within a comment", Ready, query("SELECT 1 /* /* */"), "E42601 ZI"),
        row("a text that ends within dollars", Ready, query("SELECT $a$ $b$"), "E42601 ZI"),
        row("a text that is no text", Ready, frame(b'Q', b"SELECT '\xff\xfe\xfd'\0"), "E22021 ZI"),
        row(
            "10,000 parentheses",
            Ready,
            query(&format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000))),
            "E42601 ZI",
        ),
        row("1,000,000 semicolons", Ready, query(&";".repeat(1_000_000)), "I ZI"),
        row("a text of 2 MB", Ready, query(&format!("SELECT length('{}')", long(2_000_000))), "T D C ZI"),
        row("an unknown setting", Ready, query("SET nowhere = 1"), "E42704 ZI"),
        row("a setting with a wrong value", Ready, query("SET work_mem = 'much'"), "E22023 ZI"),
        row("a setting of the superuser", Ready, query("SET session_replication_role = replica"), "E42501 ZI"),
        row("another session user", Ready, query("SET SESSION AUTHORIZATION postgres"), "E42501 ZI"),
        row("another role", Ready, query("SET ROLE postgres"), "E42501 ZI"),
        row("a setting of 1 MB", Ready, query(&format!("SET my.setting = '{}'", long(1_000_000))), "E53400 ZI"),
        row(
            "a setting set from a table",
            Ready,
            query("UPDATE pg_settings SET setting = '7MB' WHERE name = 'work_mem'"),
            "T D C ZI",
        ),
        row("an encoding that is none", Ready, query("SET client_encoding = 'nothing'"), "E22023 ZI"),
        row("DISCARD ALL in a text of two", Ready, query("SELECT 1; DISCARD ALL"), "T D C E25001 ZI"),
        row("a file of the server", Ready, query("COPY abused FROM '/etc/passwd'"), "E42501 ZI"),
        row("a backend of others", Ready, query("SELECT pg_terminate_backend(1)"), "T N D C ZI"),
    ]
}

fn copies() -> Vec<Case> {
    vec![
        row("CopyData outside of COPY", Ready, [copy_data(b"1\n"), query("SELECT 1")].concat(), "T D C ZI"),
        row("CopyDone outside of COPY", Ready, [copy_done(), query("SELECT 1")].concat(), "T D C ZI"),
        row("CopyFail outside of COPY", Ready, [copy_fail("no"), query("SELECT 1")].concat(), "T D C ZI"),
        row("a COPY that fails", Copying, copy_fail("no"), "E57014 ZI"),
        row("CopyFail without an end", Copying, frame(b'f', b"no"), "E08P01 ZI"),
        row("CopyFail without a body", Copying, frame(b'f', b""), "E08P01 ZI"),
        row("a COPY of garbage", Copying, [copy_data(b"\xff\xfe\n"), copy_done()].concat(), "E22021 ZI"),
        row("a COPY of nothing", Copying, copy_done(), "C ZI"),
        row("a Query within COPY", Copying, query("SELECT 1"), "E08P01 E08P01 end"),
        row("an unknown type within COPY", Copying, frame(b'z', b""), "E08P01 end"),
        row("Sync within COPY", Copying, [sync(), copy_done()].concat(), "C ZI"),
        row("Flush within COPY", Copying, [flush(), copy_done()].concat(), "C ZI"),
        row("a message of 2 GiB within COPY", Copying, [b'd', 0x7f, 0xff, 0xff, 0xff, b'1'], "E08P01 end"),
        row("silence within COPY", Copying, "", "E57014 ZI"),
    ]
}

fn transactions() -> Vec<Case> {
    vec![
        row("BEGIN within a transaction", Transaction, query("BEGIN"), "N C ZT"),
        row(
            "a fault in a transaction",
            Transaction,
            [query("SELEC"), query("SELECT 1")].concat(),
            "E42601 ZE E25P02 ZE",
        ),
        row("COMMIT PREPARED of nothing", Ready, query("COMMIT PREPARED 'nothing'"), "E42704 ZI"),
        row("silence in a transaction", Transaction, "", "silence"),
        row("half a Query in a transaction", Transaction, [b'Q', 0, 0, 0, 100, b'S'], "silence"),
        row("a query beyond its time", Ready, query("SELECT pg_sleep(60)"), "T E57014 ZI"),
    ]
}
