//! How full the server's queue of notifications is. Full, it fails every NOTIFY; it fills while one listening session
//! stays in a transaction.

use std::borrow::Cow;
use std::time::Duration;

use tokio::time::Instant;

use super::{Detector, Look};
use crate::watch::finding::{Finding, FindingKind, Reach};
use crate::watch::incidents::{Incident, IncidentChange, IncidentLevel, Incidents};
use crate::watch::row::{AnswerRow, Unreadable, only};
use crate::watch::settings::WatchSettings;

/// How full the queue of NOTIFY is, from 0 to 1, over all databases. Microseconds; takes locks of that queue only.
const NOTIFY_QUEUE: &str = "SELECT pg_notification_queue_usage()";

/// From 0 to 1; half of it closes again. The whole is 8 GiB (manual: NOTIFY), so a tenth is no backlog of a moment.
const OPENS: f64 = 0.1;

/// The queue of one server.
#[derive(Debug, Default)]
pub struct NotifyQueue {
    usage: f64,
    incidents: Incidents<(), f64>,
}

impl NotifyQueue {
    /// Takes an answer to [`NOTIFY_QUEUE`].
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
}

impl Detector for NotifyQueue {
    fn question(&self, _: &WatchSettings) -> Cow<'static, str> {
        NOTIFY_QUEUE.into()
    }

    fn every(&self) -> Duration {
        Duration::from_secs(15)
    }

    fn is_of_server(&self) -> bool {
        true
    }

    fn answer(&mut self, rows: &[AnswerRow], look: &mut Look<'_>) -> Result<Vec<IncidentChange<Finding>>, Unreadable> {
        let changes = self.look(only(rows)?.value(0)?, look.now);
        Ok(changes.into_iter().map(|change| change.map(finding)).collect())
    }

    fn findings(&self) -> Vec<Incident<Finding>> {
        self.incidents.open().map(|(_, open)| open.map(finding)).collect()
    }

    fn close(&mut self, now: Instant) -> Vec<IncidentChange<Finding>> {
        self.usage = 0.0;
        self.incidents.clear(now).into_iter().map(|change| change.map(finding)).collect()
    }
}

fn finding(usage: f64) -> Finding {
    let percent = usage * 100.0;
    let what =
        format_args!("the queue of notifications is {percent:.0} % full; a session that listens is in a transaction");
    Finding::new(FindingKind::NotifyQueue, what, None).reaching(Reach::Server)
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
