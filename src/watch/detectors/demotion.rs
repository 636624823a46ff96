//! A primary that has become a standby: after a failover its name may lead to a server that follows the new primary.

use std::borrow::Cow;
use std::time::Duration;

use tokio::time::Instant;

use super::{Detector, Look};
use crate::pool::open::IS_STANDBY;
use crate::watch::finding::{Finding, FindingKind, Reach};
use crate::watch::incidents::{Incident, IncidentChange, IncidentLevel, Incidents};
use crate::watch::row::{AnswerRow, Unreadable, only};
use crate::watch::settings::WatchSettings;

/// The server behind one database.
#[derive(Debug, Default)]
pub struct Demotion {
    /// It has been a primary while it was watched; a server that never was one is meant to be a standby.
    was_primary: bool,
    incidents: Incidents<(), ()>,
}

impl Demotion {
    /// What a new connection has said; one server after the other may be behind a database.
    pub(crate) fn connected(&mut self, is_standby: bool) {
        self.was_primary |= !is_standby;
    }

    /// Takes the place of another watch of the server.
    pub(crate) fn succeed(&mut self, other: Self) {
        self.was_primary |= other.was_primary;
        self.incidents = other.incidents;
    }

    /// Takes an answer to [`IS_STANDBY`]: a promotion ends no connection.
    pub fn look(&mut self, is_standby: bool, now: Instant) -> Vec<IncidentChange<()>> {
        self.was_primary |= !is_standby;
        let is_demoted = is_standby && self.was_primary;
        self.incidents.look(is_demoted.then_some(((), IncidentLevel::Above, ())), now)
    }
}

impl Detector for Demotion {
    fn question(&self, _: &WatchSettings) -> Cow<'static, str> {
        IS_STANDBY.into()
    }

    fn every(&self) -> Duration {
        Duration::from_secs(15)
    }

    fn is_of_server(&self) -> bool {
        true
    }

    fn answer(&mut self, rows: &[AnswerRow], look: &mut Look<'_>) -> Result<Vec<IncidentChange<Finding>>, Unreadable> {
        let is_standby = only(rows)?.is(0)?;
        if let Some(server) = &mut look.server {
            server.is_standby = is_standby;
        }
        let changes = self.look(is_standby, look.now);
        Ok(changes.into_iter().map(|change| change.map(finding)).collect())
    }

    fn findings(&self) -> Vec<Incident<Finding>> {
        self.incidents.open().map(|(_, open)| open.map(finding)).collect()
    }

    fn close(&mut self, now: Instant) -> Vec<IncidentChange<Finding>> {
        self.incidents.clear(now).into_iter().map(|change| change.map(finding)).collect()
    }
}

fn finding((): ()) -> Finding {
    let what = "the server was the primary and is a standby now: writes fail";
    Finding::new(FindingKind::ServerRole, what, None).reaching(Reach::Server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_that_follows_is_told_of_until_it_leads_again() {
        let (mut demotion, now) = (Demotion::default(), Instant::now());
        let told = [false, true, true, false, true].map(|is_standby| demotion.look(is_standby, now).len());
        assert_eq!(told, [0, 1, 0, 1, 1]);
        assert_eq!((demotion.close(now).len(), demotion.findings().len()), (1, 0));
    }

    #[test]
    fn a_standby_is_what_it_should_be_until_it_has_led() {
        let (mut demotion, now) = (Demotion::default(), Instant::now());
        let told = [true, true, false, true].map(|is_standby| demotion.look(is_standby, now).len());
        assert_eq!(told, [0, 0, 0, 1]);
    }
}
