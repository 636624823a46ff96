//! Whether the server is still the primary that it was: after a failover a name may lead to what follows the new one.

use tokio::time::Instant;

use crate::watch::incidents::{IncidentChange, IncidentLevel, Incidents};

/// The server behind one database.
#[derive(Debug, Default)]
pub struct Demotion {
    /// It was one since it is watched; what never was is meant to follow.
    was_primary: bool,
    incidents: Incidents<(), ()>,
}

impl Demotion {
    /// Takes an answer to [`sql::STANDING`](crate::watch::sql::STANDING).
    pub fn look(&mut self, is_standby: bool, now: Instant) -> Vec<IncidentChange<()>> {
        self.was_primary |= !is_standby;
        let is_demoted = is_standby && self.was_primary;
        self.incidents.look(is_demoted.then_some(((), IncidentLevel::Above, ())), now)
    }

    /// It was the primary, and follows another one now.
    pub fn is_demoted(&self) -> bool {
        !self.incidents.is_empty()
    }

    /// Closes what is open: nobody looks any more.
    pub fn end(&mut self, now: Instant) -> Vec<IncidentChange<()>> {
        self.incidents.clear(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_that_follows_is_told_of_until_it_leads_again() {
        let (mut standing, now) = (Demotion::default(), Instant::now());
        let told = [false, true, true, false, true].map(|is_standby| standing.look(is_standby, now).len());
        assert_eq!(told, [0, 1, 0, 1, 1]);
        assert_eq!((standing.end(now).len(), standing.is_demoted()), (1, false));
    }

    #[test]
    fn a_standby_is_what_it_should_be_until_it_has_led() {
        let (mut standing, now) = (Demotion::default(), Instant::now());
        let told = [true, true, false, true].map(|is_standby| standing.look(is_standby, now).len());
        assert_eq!(told, [0, 0, 0, 1]);
    }
}
