//! Drill 13: a limit that only observes, and then the same load under the limit.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};

use crate::Choice;
use crate::postgres::Postgres;
use crate::report::{Report, Table};
use crate::route::{Pgweir, Route};
use crate::session::Session;
use crate::supervisor::Scratch;

/// Clients that come together, each second once.
const CLIENTS: usize = 100;

/// Waves.
const WAVES: u32 = 12;

/// The clients of a wave come within this time.
const WITHIN: Duration = Duration::from_millis(100);

/// What each does.
const SQL: &str = "SELECT pg_sleep(0.04)";

const STORY: &str = "
A hundred clients come each second within a tenth of it, twelve times, and each runs a transaction of 40 ms. First the limit of ten at once only observes and counts;
then it holds. Once it is the limit of a role, with room for 60 who wait, and once that of a lane, where nobody waits for more than 0.2 s.

- *waits*, *timed out*, *refused*: transactions that would have, and then did.
- Both runs have a pool of 120, so nothing else lets anybody wait.
";

/// What a limit did, or would have done.
#[derive(Clone, Copy)]
struct Counts {
    waits: u64,
    timed_out: u64,
    refused: u64,
}

struct Outcome {
    limit: &'static str,
    observed: Counts,
    enforced: Counts,
}

/// Runs it with the limit of a role and with that of a lane.
pub(crate) async fn run(_choice: &Choice) -> Report {
    let files = Scratch::in_memory();
    let postgres = Postgres::start_in(&files.path, 200, None).await;
    let role = |mode: &str| Pgweir {
        burst: format!("transactions_max = 10\nwaiters_max = 60\nlimit_mode = \"{mode}\""),
        ..Pgweir::pool(120)
    };
    let lane = |mode: &str| Pgweir {
        lanes: format!(
            "[[lanes]]\nname = \"burst\"\nmatch = {{ role = \"burst\" }}\ntransactions_max = 10\nwait_timeout = \"200ms\"\nmode = \"{mode}\""
        ),
        ..Pgweir::pool(120)
    };
    let mut outcomes = Vec::new();
    println!("observe, role");
    outcomes.push(Outcome {
        limit: "role, waiters_max = 60",
        observed: waves(&postgres, &files, role("observe"), "ROLES", true).await,
        enforced: waves(&postgres, &files, role("enforce"), "ROLES", false).await,
    });
    println!("observe, lane");
    outcomes.push(Outcome {
        limit: "lane, wait_timeout = 0.2 s",
        observed: waves(&postgres, &files, lane("observe"), "LANES", true).await,
        enforced: waves(&postgres, &files, lane("queue"), "LANES", false).await,
    });
    Report {
        name: "observe",
        title: "Observe: what a limit would do, and what it does",
        story: STORY,
        tables: vec![table(&outcomes)],
        pictures: Vec::new(),
    }
}

async fn waves(postgres: &Postgres, files: &Scratch, pgweir: Pgweir, shown: &str, observes: bool) -> Counts {
    let open = Route::Pgweir(pgweir).open(postgres, &files.path).await;
    let crowd = Session::crowd(open.port, "burst", CLIENTS).await;
    let began = Instant::now();
    for wave in 0..WAVES {
        let begins = began + Duration::from_secs((wave + 1).into());
        join_all((0..).zip(&crowd).map(|(number, session)| async move {
            sleep_until(begins + WITHIN * number / CLIENTS as u32).await;
            // Refused or too late: counted at the console.
            let _ = session.run(SQL).await;
        }))
        .await;
    }
    let console = Session::console(open.port).await.expect("the operator may");
    // What would have waited counts when its shadow ends.
    sleep_until(Instant::now() + Duration::from_secs(1)).await;
    let rows = console.table(&format!("SHOW {shown}")).await.expect("the operator may");
    let row =
        rows.iter().find(|row| ["role", "lane"].iter().any(|name| row.get(*name).is_some_and(|of| of == "burst")));
    let row = row.expect("it has logged in");
    let count = |column: &str| row.get(column).and_then(|cell| cell.parse().ok()).unwrap_or(0);
    if observes {
        let [waits, timed_out, refused] =
            ["total_would_wait", "total_would_time_out", "total_would_be_refused"].map(count);
        return Counts { waits, timed_out, refused };
    }
    let timed_out = count("total_wait_timeouts");
    let refused = count("total_refused_full") + count("total_refused_shed") + count("total_refused");
    Counts { waits: count("total_starts") - count("total_starts_immediate") + timed_out, timed_out, refused }
}

fn table(outcomes: &[Outcome]) -> Table {
    let both = |observed: u64, enforced: u64| format!("{observed} : {enforced}");
    let row = |Outcome { limit, observed, enforced }: &Outcome| {
        vec![
            (*limit).to_owned(),
            both(observed.waits, enforced.waits),
            both(observed.timed_out, enforced.timed_out),
            both(observed.refused, enforced.refused),
        ]
    };
    Table {
        title: "1,200 transactions: observed : enforced".into(),
        columns: &["", "waits", "timed out", "refused"],
        rows: outcomes.iter().map(row).collect(),
    }
}
