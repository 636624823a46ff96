//! How full the server's queue of notifications is. Full, it fails every NOTIFY; it fills while one listening session stays in a transaction.

use tokio::time::Instant;

use crate::watch::incidents::{Incident, IncidentChange, IncidentLevel, Incidents};

/// From 0 to 1; half of it closes again. The whole is 8 GiB (manual: NOTIFY), so a tenth is no backlog of a moment.
const OPENS: f64 = 0.1;

/// The queue of one server.
#[derive(Debug, Default)]
pub struct NotifyQueue {
    usage: f64,
    incidents: Incidents<(), f64>,
}

impl NotifyQueue {
    /// Takes an answer to [`sql::NOTIFY_QUEUE`](crate::watch::sql::NOTIFY_QUEUE).
    pub fn look(&mut self, usage: f64, now: Instant) -> Vec<IncidentChange<f64>> {
        self.usage = usage;
        let level = match usage {
            usage if usage >= OPENS => Some(IncidentLevel::Above),
            usage if usage >= OPENS / 2.0 => Some(IncidentLevel::Between),
            _ => None,
        };
        self.incidents.look(level.map(|level| ((), level, usage)), now)
    }

    /// As last seen, from 0 to 1.
    pub fn usage(&self) -> f64 {
        self.usage
    }

    /// It is too full.
    pub fn open(&self) -> Option<&Incident<f64>> {
        self.incidents.open().map(|(_, open)| open).next()
    }

    /// Closes what is open: nobody looks any more.
    pub fn end(&mut self, now: Instant) -> Vec<IncidentChange<f64>> {
        self.usage = 0.0;
        self.incidents.clear(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_at_a_tenth_and_closes_below_half_of_that() {
        let (mut queue, now) = (NotifyQueue::default(), Instant::now());
        let told = [0.0, 0.09, 0.1, 0.3, 0.05, 0.049, 0.09].map(|usage| queue.look(usage, now).len());
        assert_eq!(told, [0, 0, 1, 0, 0, 1, 0]);
    }
}
