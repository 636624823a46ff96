//! What one pool counted, over all workers, at one moment.

use super::cause::OpenFailure;
use super::distribution::Distribution;
use crate::state::timeout::Timeout;

/// The sum over all workers at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
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
    /// Lengths of cycles.
    pub query: Distribution,
    /// Lengths of transactions.
    pub transaction: Distribution,
    /// How long it took to open backends.
    pub open: Distribution,
    /// Backends that could not be opened, as [`OpenFailure::ALL`].
    pub open_failures: [u64; OpenFailure::ALL.len()],
}

impl Totals {
    /// What came since `before`, an earlier moment of the same.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            leases: self.leases.saturating_sub(before.leases),
            received: self.received.saturating_sub(before.received),
            sent: self.sent.saturating_sub(before.sent),
            zombies: self.zombies.saturating_sub(before.zombies),
            logins: self.logins.saturating_sub(before.logins),
            timeouts: std::array::from_fn(|i| self.timeouts[i].saturating_sub(before.timeouts[i])),
            wait: self.wait.since(&before.wait),
            lease: self.lease.since(&before.lease),
            query: self.query.since(&before.query),
            transaction: self.transaction.since(&before.transaction),
            open: self.open.since(&before.open),
            open_failures: std::array::from_fn(|i| self.open_failures[i].saturating_sub(before.open_failures[i])),
        }
    }

    /// Both together.
    pub fn merge(&mut self, other: &Self) {
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
        self.query.merge(&other.query);
        self.transaction.merge(&other.transaction);
        self.open.merge(&other.open);
        for (sum, other) in self.open_failures.iter_mut().zip(other.open_failures) {
            *sum += other;
        }
    }
}
