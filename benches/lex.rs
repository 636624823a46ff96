//! What reading a text costs: the statements of everyday load, and the ones a session has to follow.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use pgweir::testing::sql::{Context, classify};

fn main() {
    divan::main();
}

const STATEMENTS: [(&str, &str); 7] = [
    ("pgbench_select", "SELECT abalance FROM pgbench_accounts WHERE aid = 4242424;"),
    ("pgbench_update", "UPDATE pgbench_accounts SET abalance = abalance + 4242 WHERE aid = 42424;"),
    (
        "orm_join",
        "SELECT \"t1\".\"id\", \"t1\".\"name\", \"t1\".\"created_at\", \"t2\".\"id\", \"t2\".\"title\", \"t2\".\"body\", \"t2\".\"user_id\", \
         COUNT(\"t3\".\"id\") AS \"comments\" FROM \"users\" AS \"t1\" LEFT OUTER JOIN \"posts\" AS \"t2\" ON (\"t2\".\"user_id\" = \"t1\".\"id\") \
         LEFT OUTER JOIN \"comments\" AS \"t3\" ON (\"t3\".\"post_id\" = \"t2\".\"id\") WHERE ((\"t1\".\"active\" = $1) AND (\"t2\".\"published_at\" > $2)) \
         GROUP BY 1, 4 ORDER BY \"t1\".\"id\" ASC LIMIT $3 OFFSET $4",
    ),
    ("insert_2_kb_literal", ""),
    ("begin_notify_commit", "BEGIN; NOTIFY channel, 'payload'; COMMIT"),
    ("pg_notify", "SELECT pg_notify('channel', 'payload')"),
    ("set", "SET statement_timeout = '5s'"),
];

#[divan::bench(args = STATEMENTS.map(|(name, _)| name))]
fn read(bencher: Bencher<'_, '_>, name: &str) {
    let (_, text) = STATEMENTS.into_iter().find(|(other, _)| *other == name).expect("a name of the list");
    let text = match text {
        "" => format!("INSERT INTO documents VALUES (1, '{}')", "x y ".repeat(504)),
        text => text.to_owned(),
    };
    bencher.counter(BytesCount::of_str(&text)).bench(|| classify(black_box(text.as_bytes()), Context::default()));
}
