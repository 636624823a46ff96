//! Events of the whole process. Each is rare: they are counted where everybody counts them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::cause::{CancelCause, LoginRefusal};
use super::distribution::Distribution;

/// Events of the whole process; each is rare.
#[derive(Debug, Default)]
pub struct ProcessStats {
    login_refusals: [AtomicU64; LoginRefusal::ALL.len()],
    login_delays: Mutex<Distribution>,
    logins: Mutex<Distribution>,
    cancels_dropped: AtomicU64,
    cancels: [AtomicU64; CancelCause::ALL.len()],
    reloads_applied: AtomicU64,
    reloads_refused: AtomicU64,
    is_outdated: AtomicBool,
}

impl ProcessStats {
    /// A connection was refused before it became a client.
    pub fn login_refused(&self, reason: LoginRefusal) {
        self.login_refusals[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A login was made to wait so long.
    pub fn login_delayed(&self, delay: Duration) {
        self.login_delays.lock().expect("no panic while held").record(delay);
    }

    /// Logins that had to wait.
    pub fn login_delays(&self) -> Distribution {
        self.login_delays.lock().expect("no panic while held").clone()
    }

    /// A client was let in, so long after its first byte could have come.
    pub fn logged_in(&self, after: Duration) {
        self.logins.lock().expect("no panic while held").record(after);
    }

    /// How long logins took.
    pub fn logins(&self) -> Distribution {
        self.logins.lock().expect("no panic while held").clone()
    }

    /// A CancelRequest came from an address that had sent too many.
    pub fn cancel_dropped(&self) {
        self.cancels_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// CancelRequests that were not looked at.
    pub fn cancels_dropped(&self) -> u64 {
        self.cancels_dropped.load(Ordering::Relaxed)
    }

    /// A CancelRequest goes to a server.
    pub fn cancel(&self, cause: CancelCause) {
        self.cancels[cause as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// CancelRequests sent to servers.
    pub fn cancels(&self) -> [(&'static str, u64); CancelCause::ALL.len()] {
        CancelCause::ALL.map(|cause| (cause.word(), self.cancels[cause as usize].load(Ordering::Relaxed)))
    }

    /// The configuration was read again, with this outcome.
    pub fn reloaded(&self, is_applied: bool) {
        let count = if is_applied { &self.reloads_applied } else { &self.reloads_refused };
        count.fetch_add(1, Ordering::Relaxed);
        self.is_outdated.store(!is_applied, Ordering::Relaxed);
    }

    /// The configuration in force is not the one that was read last.
    pub fn is_outdated(&self) -> bool {
        self.is_outdated.load(Ordering::Relaxed)
    }

    /// Connections refused.
    pub fn login_refusals(&self) -> [(&'static str, u64); LoginRefusal::ALL.len()] {
        LoginRefusal::ALL.map(|reason| (reason.word(), self.login_refusals[reason as usize].load(Ordering::Relaxed)))
    }

    /// Reloads by outcome.
    pub fn reloads(&self) -> [(&'static str, u64); 2] {
        let [applied, refused] = [&self.reloads_applied, &self.reloads_refused].map(|n| n.load(Ordering::Relaxed));
        [("applied", applied), ("refused", refused)]
    }
}
