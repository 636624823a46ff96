//! Messages cut at each of their bytes, behind which the client is gone.

use crate::case::{Case, Stage, at, run};
use crate::support::frontend::{PROTOCOL_3_0, bind, copy_data, execute, parse, query, sasl_initial, startup, sync};

/// The client closes, or resets.
#[derive(Clone, Copy)]
enum End {
    Close,
    Reset,
}

pub(crate) fn cases() -> Vec<Case> {
    let statement = parse("s", "SELECT $1::int", &[23]);
    let messages = [
        ("a StartupMessage", Stage::Connected, startup(PROTOCOL_3_0, &[("user", "app"), ("database", "app")])),
        ("a SASL message", Stage::Sasl, sasl_initial("SCRAM-SHA-256", b"n,,n=,r=abcdef")),
        ("a Query", Stage::Ready, query("SELECT 1")),
        ("a Query in a transaction", Stage::Transaction, query("INSERT INTO abused VALUES (1)")),
        ("a Parse", Stage::Ready, statement.clone()),
        ("a pipeline", Stage::Ready, [statement, bind("", "s", &[Some(b"1")]), execute("", 0), sync()].concat()),
        ("a CopyData", Stage::Copying, copy_data(b"1\n2\n")),
    ];
    let mut cases = Vec::new();
    for (name, stage, message) in messages {
        for (how, end) in [("closed", End::Close), ("reset", End::Reset)] {
            let message = message.clone();
            cases.push(run(format!("{name}, {how} at each byte"), "", move |target| {
                let message = message.clone();
                Box::pin(async move {
                    for cut in 0..message.len() {
                        let mut wire = at(target, stage).await;
                        wire.send(&message[..cut]).await;
                        if matches!(end, End::Reset) {
                            wire.reset();
                        }
                    }
                    String::new()
                })
            }));
        }
    }
    cases
}
