//! SHOW DNS_HOSTS. PgBouncer shows its cache there; pgweir has none, and shows the last answers.

use tokio::time::Instant;

use crate::admin::table::{ConsoleTable, columns, table};
use crate::pool::names::LastAnswer;
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable = table!(
    "DNS_HOSTS",
    "names of servers, and the addresses last found; ttl: seconds to the next look-up, 0: with the next connection",
    lines,
);

struct HostLine {
    host: String,
    answer: LastAnswer,
    now: Instant,
}

columns! { HostLine;
    "hostname" text = |it| &it.host,
    "ttl" long = |it| it.answer.due_in(it.now).as_secs(),
    "addrs" text = |it| it.answer.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
}

fn lines(proxy: &Proxy) -> Vec<HostLine> {
    let now = Instant::now();
    let all = proxy.pools.opener().names().all().into_iter();
    all.map(|(host, answer)| HostLine { host, answer, now }).collect()
}
