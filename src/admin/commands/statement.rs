//! Orders about one statement: BLOCK STATEMENT, UNBLOCK STATEMENT, CANCEL STATEMENT; LIMIT STATEMENT is in `limit`.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::admin::command::{ConsoleCommand, FollowUp};
use crate::admin::words::{CommandArguments, duration};
use crate::error::ConsoleFault;
use crate::lanes::orders::{OrderKind, StatementOrder};
use crate::metrics::{CancelCause, ProcessCounter};
use crate::session::context::Worker;
use crate::sql::Digest;

/// Longest time for which an order may hold: longer belongs into the file.
const LASTS_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The statement of `STATEMENT digest`, as the first two words say it.
pub(super) fn digest(arguments: &CommandArguments<'_>) -> Option<Digest> {
    let is_statement = arguments.folded().first() == Some(&"statement");
    is_statement.then(|| arguments.name(1)).flatten().and_then(|name| Digest::read(&name))
}

/// How long an order is to hold.
pub(super) fn lasts(word: &str) -> Option<Duration> {
    duration(word).filter(|lasts| !lasts.is_zero() && *lasts <= LASTS_MAX)
}

/// Puts an order into force.
pub(super) fn give(
    worker: &Worker,
    digest: Digest,
    kind: impl FnOnce() -> OrderKind,
    by: &str,
    lasts: Duration,
) -> Result<FollowUp, ConsoleFault> {
    let proxy = &worker.proxy;
    let workload = proxy.workload.as_ref().ok_or(ConsoleFault::StatementsUntracked)?;
    // A digest that nobody has called is most likely one that was copied wrongly.
    let text = workload.text(digest).ok_or(ConsoleFault::NoStatementOrder(digest))?;
    let now = Instant::now();
    let order = StatementOrder::new(digest, kind(), by, now, lasts);
    if !proxy.lanes.order(order, &proxy.pools, worker.id) {
        return Err(ConsoleFault::TooManyOrders);
    }
    Ok(FollowUp::later(ready(Ok(vec![text]))))
}

#[derive(Debug)]
pub(super) struct BlockStatement {
    digest: Digest,
    lasts: Duration,
}

impl ConsoleCommand for BlockStatement {
    const TAG: &'static str = "BLOCK";
    const USAGE: &'static [(&'static str, &'static str)] =
        &[("BLOCK STATEMENT digest FOR '10m'", "refuse a statement of SHOW STATEMENTS with 53400")];

    fn read(arguments: &CommandArguments<'_>) -> Option<Self> {
        match arguments.folded() {
            [_, _, "for", time] => Some(Self { digest: digest(arguments)?, lasts: lasts(time)? }),
            _ => None,
        }
    }

    fn run(&self, worker: &Worker, by: &str) -> Result<FollowUp, ConsoleFault> {
        give(worker, self.digest, || OrderKind::Block, by, self.lasts)
    }
}

#[derive(Debug)]
pub(super) struct UnblockStatement(Digest);

impl ConsoleCommand for UnblockStatement {
    const TAG: &'static str = "UNBLOCK";
    const USAGE: &'static [(&'static str, &'static str)] =
        &[("UNBLOCK STATEMENT digest", "take the BLOCK or LIMIT of a statement back")];

    fn read(arguments: &CommandArguments<'_>) -> Option<Self> {
        match arguments.folded() {
            [_, _] => digest(arguments).map(Self),
            _ => None,
        }
    }

    fn run(&self, worker: &Worker, _: &str) -> Result<FollowUp, ConsoleFault> {
        let proxy = &worker.proxy;
        match proxy.lanes.take_back(self.0, &proxy.pools, worker.id) {
            true => Ok(FollowUp::Nothing),
            false => Err(ConsoleFault::NoStatementOrder(self.0)),
        }
    }
}

#[derive(Debug)]
pub(super) struct CancelStatement(Digest);

impl ConsoleCommand for CancelStatement {
    const TAG: &'static str = "CANCEL";
    const USAGE: &'static [(&'static str, &'static str)] =
        &[("CANCEL STATEMENT digest", "cancel a statement wherever clients of pgweir run it now")];

    fn read(arguments: &CommandArguments<'_>) -> Option<Self> {
        match arguments.folded() {
            [_, _] => digest(arguments).map(Self),
            _ => None,
        }
    }

    fn run(&self, worker: &Worker, _: &str) -> Result<FollowUp, ConsoleFault> {
        let proxy = &worker.proxy;
        let aims = proxy.clients.aim_at_statement(self.0);
        let said = format!("{} canceled", aims.len());
        let limit = proxy.cancel_timeout();
        for aim in aims {
            let proxy = Arc::clone(proxy);
            proxy.process.add(ProcessCounter::Cancels(CancelCause::Order));
            tokio::task::spawn_local(async move {
                let _ = timeout(limit, proxy.pools.opener().cancel(aim.target())).await;
            });
        }
        Ok(FollowUp::later(ready(Ok(vec![said]))))
    }
}
