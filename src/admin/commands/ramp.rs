//! RAMP.

use std::time::Duration;

use tokio::time::Instant;

use super::targets;
use crate::admin::command::{ConsoleCommand, FollowUp};
use crate::admin::words::{CommandArguments, duration};
use crate::config;
use crate::error::ConsoleFault;
use crate::fleet::lease::order::RoleChange;
use crate::proxy::Proxy;
use crate::session::context::Worker;

#[derive(Debug)]
pub(super) struct RampRole {
    role: String,
    /// In this time; `None`: as the role's `ramp` says.
    over: Option<Duration>,
}

impl ConsoleCommand for RampRole {
    const TAG: &'static str = "RAMP";
    const USAGE: &'static [(&'static str, &'static str)] =
        &[("RAMP role [OVER '60s']", "let the limit grow from admission.initial")];

    fn read(arguments: &CommandArguments<'_>) -> Option<Self> {
        let over = match arguments.folded() {
            [_] => None,
            [_, "over", over] => Some(duration(over)?),
            _ => return None,
        };
        Some(Self { role: arguments.name(0)?, over })
    }

    fn run(&self, worker: &Worker, _: &str) -> Result<FollowUp, ConsoleFault> {
        let (proxy, role) = (&worker.proxy, &self.role);
        let role_queue = targets::role(proxy, role)?;
        let now = Instant::now();
        if proxy.pools.core().role_queue(role_queue, now).is_none_or(|role_queue| role_queue.limiter.limit.is_none()) {
            return Err(ConsoleFault::NoLimit(role.clone()));
        }
        let over = self.over(proxy).ok_or_else(|| ConsoleFault::NoRamp(role.clone()))?;
        proxy.change_role(worker.id, role, RoleChange::Ramp { over }, Duration::ZERO);
        Ok(FollowUp::Nothing)
    }

    fn order(&self, proxy: &Proxy) -> Option<(&str, RoleChange)> {
        Some((&self.role, RoleChange::Ramp { over: self.over(proxy)? }))
    }
}

impl RampRole {
    fn over(&self, proxy: &Proxy) -> Option<Duration> {
        self.over.or_else(|| config::role_queue_settings(&proxy.config.load(), &self.role)?.ramp)
    }
}
