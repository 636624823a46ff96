//! The end of the process, as clients and probes see it: leaving, draining, gone.

use std::sync::atomic::Ordering;

use super::Proxy;
use crate::clients::Signal;

impl Proxy {
    /// From now on nobody new should be sent here; those who are here notice nothing yet.
    pub(crate) fn leave(&self) {
        self.is_leaving.store(true, Ordering::Release);
    }

    /// From now on clients leave as soon as no transaction of theirs is open, and nobody is taken in.
    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Ordering::Release);
        self.entrance.close();
        for entry in self.clients.all() {
            entry.signal(Signal::Drain);
        }
    }

    /// All clients leave now, whatever they do.
    pub(crate) fn kill(&self) {
        for entry in self.clients.all() {
            entry.signal(Signal::Kill);
        }
    }

    /// Whether the process is going down, with or without clients having been asked to leave.
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Acquire)
    }

    /// Whether the process is going down and clients have been asked to leave.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }
}
