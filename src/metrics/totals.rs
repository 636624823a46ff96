//! What one pool counted, over all workers, at one moment.

use super::distribution::Distribution;
use crate::state::timeout::Timeout;

/// The sum over all workers at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Cycles ended.
    pub queries: u64,
    /// Transactions ended.
    pub transactions: u64,
    /// Leases ended.
    pub leases: u64,
    /// Bytes from clients.
    pub received: u64,
    /// Bytes to clients.
    pub sent: u64,
    /// Clients that vanished while their query ran.
    pub zombies: u64,
    /// Logins.
    pub logins: u64,
    /// What timeouts ended, as [`Timeout::ALL`].
    pub timeouts: [u64; Timeout::ALL.len()],
    /// Waits for a backend, of those that had to.
    pub wait: Distribution,
    /// Lengths of leases.
    pub lease: Distribution,
}

impl Totals {
    /// What came since `before`, an earlier moment of the same.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            queries: self.queries.saturating_sub(before.queries),
            transactions: self.transactions.saturating_sub(before.transactions),
            leases: self.leases.saturating_sub(before.leases),
            received: self.received.saturating_sub(before.received),
            sent: self.sent.saturating_sub(before.sent),
            zombies: self.zombies.saturating_sub(before.zombies),
            logins: self.logins.saturating_sub(before.logins),
            timeouts: std::array::from_fn(|i| self.timeouts[i].saturating_sub(before.timeouts[i])),
            wait: self.wait.since(&before.wait),
            lease: self.lease.since(&before.lease),
        }
    }

    /// Both together.
    pub fn merge(&mut self, other: &Self) {
        self.queries += other.queries;
        self.transactions += other.transactions;
        self.leases += other.leases;
        self.received += other.received;
        self.sent += other.sent;
        self.zombies += other.zombies;
        self.logins += other.logins;
        for (sum, other) in self.timeouts.iter_mut().zip(other.timeouts) {
            *sum += other;
        }
        self.wait.merge(&other.wait);
        self.lease.merge(&other.lease);
    }
}
