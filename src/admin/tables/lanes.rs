//! SHOW LANES: the lanes of the file, in their order, and those that orders have made.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::format::wait;
use crate::admin::group;
use crate::admin::table::{ConsoleTable, columns, table};
use crate::admission::limiter::LimiterView;
use crate::admission::shadow::ObservedCounts;
use crate::config::Config;
use crate::lanes::Lanes;
use crate::pool::core::{RoleQueueId, RoleQueueView};
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable =
    table!("LANES", "kinds of transactions with limits of their own, in the order in which they are looked at", lines,);

struct LaneLine {
    lane: String,
    mode: &'static str,
    matches: String,
    limiter: LimiterView,
    observed: Option<(LimiterView, ObservedCounts)>,
    longest: (u64, u32),
    refused_later: u64,
}

columns! { LaneLine;
    "lane" text = |it| &*it.lane,
    "mode" text = |it| it.mode,
    "match" text = |it| &*it.matches,
    "state" text = |it| it.limiter.state.word(),
    "limit" int = |it| it.limits().limit,
    "effective_limit" int = |it| group::effective_limit(it.limits()),
    "active" int = |it| it.limiter.active,
    "waiting" int = |it| it.limiter.waiting,
    "maxwait" int = |it| it.longest.0,
    "maxwait_us" int = |it| it.longest.1,
    "total_starts" long = |it| it.limiter.counters.starts,
    "total_starts_immediate" long = |it| it.limiter.counters.immediate,
    "total_refused" long = |it| group::refused(&it.limiter.counters),
    "total_refused_later" long = |it| it.refused_later,
    "total_wait_timeouts" long = |it| it.limiter.counters.timed_out,
    "total_paced" long = |it| it.limiter.counters.paced,
    "total_would_wait" long = |it| it.observed.as_ref().map(|(_, counts)| counts.waits),
    "total_would_time_out" long = |it| it.observed.as_ref().map(|(_, counts)| counts.timed_out),
    "total_would_be_refused" long = |it| it.observed.as_ref().map(|(_, counts)| counts.refused),
}

impl LaneLine {
    /// A limit that only observes is shown as it would be.
    fn limits(&self) -> &LimiterView {
        self.observed.as_ref().map_or(&self.limiter, |(limiter, _)| limiter)
    }
}

fn lines(proxy: &Proxy) -> Vec<LaneLine> {
    let now = Instant::now();
    let config = proxy.config.load();
    let seen = |id: RoleQueueId| proxy.pools.core().role_queue(id, now);
    let line = |lane: String,
                mode,
                matches,
                RoleQueueView { limiter, observed, waiting_since }: RoleQueueView,
                refused_later| {
        let longest = wait(waiting_since.map(|since| now.saturating_duration_since(since)));
        LaneLine { lane, mode, matches, limiter, observed, longest, refused_later }
    };
    let Lanes { orders, .. } = &proxy.lanes;
    let by_order = orders.all().into_iter().filter_map(|order| {
        let name = format!("statement {}", order.digest);
        Some(line(name, "queue", format!("digest {}, by order", order.digest), seen(order.lane()?)?, 0))
    });
    let of_file = proxy.lanes.of_file();
    let of_file = of_file.iter().filter_map(|lane| {
        let refused = lane.refused_later.load(Ordering::Relaxed);
        Some(line(lane.name.to_string(), lane.mode.word(), matches(&config, &lane.name), seen(lane.id)?, refused))
    });
    by_order.chain(of_file).collect()
}

fn matches(config: &Config, name: &str) -> String {
    config.lanes.iter().find(|lane| lane.name == name).map(|lane| lane.matches.to_string()).unwrap_or_default()
}
