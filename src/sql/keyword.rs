//! The words that matter to us, each as one integer that `match` can take.

/// A word of up to 16 bytes folded to lower case and packed; zero for a longer one.
#[inline]
pub(super) const fn keyword(word: &[u8]) -> u128 {
    if word.len() > 16 {
        return 0;
    }
    let mut folded = 0;
    let mut at = 0;
    while at < word.len() {
        folded = folded << 8 | word[at].to_ascii_lowercase() as u128;
        at += 1;
    }
    folded
}

macro_rules! keywords {
    ($($word:ident)*) => { $(pub(super) const $word: u128 = keyword(stringify!($word).as_bytes());)* };
}

keywords! {
    ABORT ALL ALTER ANALYSE ANALYZE AND AS ATOMIC AUTHORIZATION BEGIN BOOL BOOLEAN CALL CAST CHAIN CHARACTER
    CHARACTERISTICS CLOSE COMMIT COMMITTED CONSTRAINTS CONTENT COPY CREATE CURRENT CURRENT_SETTING DEALLOCATE
    DECLARE DEFAULT DEFERRABLE DELETE DISCARD DO DOCUMENT DROP END EXECUTE EXPLAIN FALSE FROM FUNCTION GLOBAL HOLD
    INSERT INTERVAL INTO ISOLATION LEVEL LISTEN LOAD LOCAL MERGE NAMES NO NOT NOTIFY NULL ONLY OPTION OR PG_CATALOG
    PLANS PREPARE PREPARED PROCEDURE READ RELEASE REPEATABLE REPLACE RESET ROLE ROLLBACK SAVEPOINT SCHEMA SELECT
    SEQUENCES SERIALIZABLE SESSION SET START TABLE TEMP TEMPORARY TEXT TIME TO TRANSACTION TRUE UESCAPE UNCOMMITTED
    UNLISTEN UNLOGGED UPDATE VALUES VARCHAR VARYING VERBOSE WITH WORK WRITE XML ZONE
}

/// Words that Postgres takes for no name unless they are quoted: those of `pg_get_keywords()` with the category R or T,
/// in order. Versions after 15 reserve more.
const RESERVED: [&str; 100] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];

/// True for a word that is a name only in quotes.
pub(super) fn is_reserved(folded: &[u8]) -> bool {
    RESERVED.binary_search_by(|known| known.as_bytes().cmp(folded)).is_ok()
}
