//! The rules of a lane beside those of its limiter, and its state.

use std::time::Duration;

use tokio::time::Instant;

use super::lines::LineShare;

/// The rules of a lane beside those of its limiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LaneRules {
    /// Its turns among those who wait for the same pool.
    pub share: LineShare,
    /// In the place of the pool's.
    pub wait_timeout: Option<Duration>,
    /// Transactions that would wait for it are refused.
    pub refuses: bool,
    /// Its limit is the fleet's, as that of a role.
    pub is_of_fleet: bool,
}

/// A role queue that is a lane.
#[derive(Debug)]
pub(super) struct LaneState {
    pub(super) rules: LaneRules,
    /// Its rate lets nobody start before.
    pub(super) paced: Option<Instant>,
}
