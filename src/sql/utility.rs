//! Statements that Postgres reads when they run: a Parse of one keeps its raw tree (`stmt_requires_parse_analysis` of
//! `analyze.c`), and that of an empty text nothing.

use super::effect::Context;
use super::read::Reader;

/// True for a text whose Parse means the same under all settings, among those that may have to be the first of their
/// transaction (`PreventInTransactionBlock` of `xact.c`) and those that a failed one takes. Letters outside
/// ASCII and backslashes are read by settings.
pub(crate) fn is_read_when_run(text: &[u8], context: Context) -> bool {
    if !text.is_ascii() || memchr::memchr(b'\\', text).is_some() {
        return false;
    }
    let mut reader = Reader::new(text, context);
    while reader.symbol(b';') {}
    if reader.is_at_end() {
        return true;
    }
    let Some(command) = reader.name() else { return false };
    match &command[..] {
        b"discard" | b"vacuum" | b"cluster" | b"reindex" | b"drop" | b"alter" | b"commit" | b"rollback" => true,
        b"create" => reader.name().is_some_and(|what| {
            matches!(&what[..], b"database" | b"tablespace" | b"subscription" | b"index" | b"unique")
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_to_be_first_is_read_when_it_runs() {
        let is_so = |text: &str| is_read_when_run(text.as_bytes(), Context::default());
        for text in [
            "",
            " ; -- nothing",
            "DISCARD ALL",
            "/* all */ vacuum (analyze) t;",
            "CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)",
            "CREATE DATABASE d TEMPLATE 'x'",
            "ALTER SYSTEM SET work_mem = '4MB'",
            "COMMIT PREPARED 'x'",
        ] {
            assert!(is_so(text), "{text}");
        }
        for text in
            ["SELECT 1", "CREATE TABLE t AS SELECT 1", "DROP TABLE \"ä\"", "ALTER SYSTEM SET a = '\\'", "CALL p()"]
        {
            assert!(!is_so(text), "{text}");
        }
    }
}
