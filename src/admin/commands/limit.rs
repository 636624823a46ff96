//! LIMIT of a role, and of a statement.

use std::time::Duration;

use tokio::time::Instant;

use super::{statement, targets};
use crate::admin::command::{ConsoleCommand, FollowUp};
use crate::admin::words::{CommandArguments, duration};
use crate::config::lane_settings;
use crate::error::ConsoleFault;
use crate::fleet::lease::order::RoleChange;
use crate::lanes::orders::OrderKind;
use crate::orders::given::{OrderMark, OrderTarget};
use crate::pool::core::LaneRules;
use crate::proxy::Proxy;
use crate::session::context::Worker;
use crate::sql::Digest;

/// Clients that may wait for one limited statement.
const LANE_WAITERS_MAX: u32 = 10_000;

#[derive(Debug)]
pub(super) enum LimitCommand {
    LimitRole {
        role: String,
        /// Transactions at once; 0: all wait. `None`: as the file says.
        max: Option<u32>,
        /// Step by step in this time, not at once.
        over: Option<Duration>,
    },
    LimitStatement {
        digest: Digest,
        /// Transactions that begin with it, at once; 0: all wait.
        max: u32,
        lasts: Duration,
    },
}

impl ConsoleCommand for LimitCommand {
    const TAG: &'static str = "LIMIT";
    const USAGE: &'static [(&'static str, &'static str)] = &[
        ("LIMIT role n [OVER '60s']", "another transactions_max until the file says another one; 0: all wait"),
        ("LIMIT role DEFAULT", "the transactions_max of the file again"),
        (
            "LIMIT STATEMENT digest n FOR '10m'",
            "so many transactions at once that begin with this statement; the others wait",
        ),
    ];

    fn read(arguments: &CommandArguments<'_>) -> Option<Self> {
        let role = arguments.name(0)?;
        match arguments.folded() {
            [_, "default"] => Some(Self::LimitRole { role, max: None, over: None }),
            [_, max] => Some(Self::LimitRole { role, max: Some(max.parse().ok()?), over: None }),
            [_, max, "over", over] => {
                Some(Self::LimitRole { role, max: Some(max.parse().ok()?), over: Some(duration(over)?) })
            }
            ["statement", _, max, "for", lasts] => Some(Self::LimitStatement {
                digest: statement::digest(arguments)?,
                max: max.parse().ok()?,
                lasts: statement::lasts(lasts)?,
            }),
            _ => None,
        }
    }

    fn run(&self, worker: &Worker, by: &str) -> Result<FollowUp, ConsoleFault> {
        let proxy = &worker.proxy;
        match self {
            Self::LimitRole { role, max, over } => {
                targets::role(proxy, role)?;
                proxy.change_role(worker.id, role, change(*max, *over), Duration::ZERO);
                Ok(FollowUp::Nothing)
            }
            Self::LimitStatement { digest, max, lasts } => {
                let lane = || {
                    let settings = lane_settings(&proxy.config.load(), Some(*max), Some(LANE_WAITERS_MAX));
                    proxy.pools.core().add_lane(settings, LaneRules::default(), Instant::now())
                };
                statement::give(worker, *digest, || OrderKind::Limit(*max, lane()), by, *lasts)
            }
        }
    }

    fn mark(&self) -> Option<OrderMark> {
        match self {
            Self::LimitRole { role, max, .. } => {
                let target = OrderTarget::Limit(role.clone());
                Some(if max.is_some() { OrderMark::Begins(target) } else { OrderMark::Ends(target) })
            }
            Self::LimitStatement { .. } => None,
        }
    }

    fn order(&self, _: &Proxy) -> Option<(&str, RoleChange)> {
        match self {
            Self::LimitRole { role, max, over } => Some((role, change(*max, *over))),
            Self::LimitStatement { .. } => None,
        }
    }
}

fn change(max: Option<u32>, over: Option<Duration>) -> RoleChange {
    match max {
        Some(max) => RoleChange::Limit { max, over },
        None => RoleChange::Default,
    }
}
