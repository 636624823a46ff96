//! The numbers of SHOW STATS and its relatives: totals of each database, and averages over the last period.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::format::CONSOLE;
use crate::metrics::{PoolCounter, PoolHistogram, Totals};
use crate::proxy::Proxy;

/// Counters of a database, or of all.
#[derive(Default)]
struct CountedPools {
    all: Totals,
    /// The part of `all` that came in the last period.
    lately: Totals,
    /// How long that took.
    period: Duration,
}

/// The numbers that PgBouncer shows; statements that were prepared are not counted here, so it has three more.
pub(super) struct StatsNumbers {
    pub(super) assignments: u128,
    pub(super) transactions: u128,
    pub(super) queries: u128,
    pub(super) received: u128,
    pub(super) sent: u128,
    pub(super) transaction_micros: u64,
    pub(super) query_micros: u64,
    pub(super) wait_micros: u64,
}

impl CountedPools {
    fn merge(&mut self, all: &Totals, lately: &Totals, period: Duration) {
        self.all.merge(all);
        self.lately.merge(lately);
        self.period = self.period.max(period);
    }

    fn totals(&self) -> StatsNumbers {
        let all = &self.all;
        let [transaction, query, wait] =
            [PoolHistogram::Transaction, PoolHistogram::Query, PoolHistogram::Wait].map(|of| all.durations(of));
        StatsNumbers {
            assignments: all.count(PoolCounter::Leases).into(),
            transactions: transaction.count().into(),
            queries: query.count().into(),
            received: all.count(PoolCounter::Received).into(),
            sent: all.count(PoolCounter::Sent).into(),
            transaction_micros: transaction.sum_micros,
            query_micros: query.sum_micros,
            wait_micros: wait.sum_micros,
        }
    }

    /// Counts by second, and the time that each took.
    fn averages(&self) -> StatsNumbers {
        let lately = &self.lately;
        let [transaction, query, wait] =
            [PoolHistogram::Transaction, PoolHistogram::Query, PoolHistogram::Wait].map(|of| lately.durations(of));
        let per_second = |n: u64| u128::from(n) * 1_000_000 / self.period.as_micros().max(1);
        let each = |micros: u64, n: u64| micros.checked_div(n).unwrap_or(0);
        StatsNumbers {
            assignments: per_second(lately.count(PoolCounter::Leases)),
            transactions: per_second(transaction.count()),
            queries: per_second(query.count()),
            received: per_second(lately.count(PoolCounter::Received)),
            sent: per_second(lately.count(PoolCounter::Sent)),
            transaction_micros: each(transaction.sum_micros, transaction.count()),
            query_micros: each(query.sum_micros, query.count()),
            wait_micros: each(wait.sum_micros, lately.count(PoolCounter::Leases)),
        }
    }
}

/// The columns of a line that has a `database` and, under each of the fields named, [`StatsNumbers`]. Each of
/// PgBouncer's tables names them in its own way, always in this order; the last three count what is not counted here.
macro_rules! stats_columns {
    ($line:ty; $($numbers:ident: [
        $assignments:literal, $transactions:literal, $queries:literal, $received:literal, $sent:literal,
        $transaction_time:literal, $query_time:literal, $wait_time:literal,
        $client_parses:literal, $server_parses:literal, $binds:literal,
    ],)+) => {
        $crate::admin::table::columns! { $line;
            "database" text = |it| &*it.database,
            $(
                $assignments long = |it| it.$numbers.assignments,
                $transactions long = |it| it.$numbers.transactions,
                $queries long = |it| it.$numbers.queries,
                $received long = |it| it.$numbers.received,
                $sent long = |it| it.$numbers.sent,
                $transaction_time long = |it| it.$numbers.transaction_micros,
                $query_time long = |it| it.$numbers.query_micros,
                $wait_time long = |it| it.$numbers.wait_micros,
                $client_parses long = |_it| 0,
                $server_parses long = |_it| 0,
                $binds long = |_it| 0,
            )+
        }
    };
}
pub(super) use stats_columns;

/// Numbers of one database.
pub(super) struct StatsLine {
    pub(super) database: Arc<str>,
    pub(super) total: StatsNumbers,
    pub(super) average: StatsNumbers,
}

/// Every database. The console is one, as in PgBouncer, where nothing is counted: programs that read these tables take
/// an empty one for a pooler that does not answer.
pub(super) fn by_database(proxy: &Proxy) -> Vec<StatsLine> {
    let console = (CONSOLE.into(), CountedPools::default());
    let mut by_database: BTreeMap<Arc<str>, CountedPools> = BTreeMap::from([console]);
    each_pool(proxy, |database, all, lately, period| {
        by_database.entry(Arc::clone(database)).or_default().merge(all, lately, period);
    });
    let line = |(database, counted): (_, CountedPools)| StatsLine {
        database,
        total: counted.totals(),
        average: counted.averages(),
    };
    by_database.into_iter().map(line).collect()
}

/// Totals and averages over all databases.
pub(super) fn of_all(proxy: &Proxy) -> (StatsNumbers, StatsNumbers) {
    let mut sum = CountedPools::default();
    each_pool(proxy, |_, all, lately, period| sum.merge(all, lately, period));
    (sum.totals(), sum.averages())
}

fn each_pool(proxy: &Proxy, mut visit: impl FnMut(&Arc<str>, &Totals, &Totals, Duration)) {
    let now = Instant::now();
    let history = proxy.history();
    for pool in proxy.directory.all_pools() {
        let all = pool.stats.totals();
        let (lately, period) = history.since(pool.key(), &all, now);
        visit(&pool.name.database, &all, &lately, period);
    }
}
