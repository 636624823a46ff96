//! Who is connected to the database without pgweir: what pgweir cannot limit, and what its limits do not count.

use tokio::time::Instant;

use crate::watch::incidents::{Incident, IncidentChange, IncidentLevel, Incidents};
use crate::watch::own_backends::OwnBackends;
use crate::watch::row::{AnswerRow, Unreadable};

/// Connections of one kind; a row of [`sql::CONNECTED`](crate::watch::sql::CONNECTED).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// `application_name`; may be empty.
    pub application: String,
    /// Where they come from; `None`: a Unix socket.
    pub addr: Option<String>,
    /// Their processes.
    pub pids: Vec<i32>,
}

impl Connected {
    /// Its row.
    pub fn read(row: &AnswerRow) -> Result<Self, Unreadable> {
        let pids = row.text(2)?.split(',').map(str::parse).collect::<Result<_, _>>();
        Ok(Self {
            application: row.text_or_null(0)?.unwrap_or_default().to_owned(),
            addr: row.text_or_null(1)?.map(str::to_owned),
            pids: pids.map_err(|_| row.unreadable(2))?,
        })
    }
}

/// Connections of one kind that are not pgweir's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideGroup {
    /// `application_name`; may be empty.
    pub application: String,
    /// Where they come from.
    pub addr: Option<String>,
    /// How many.
    pub count: usize,
}

/// The connections of one database.
#[derive(Debug, Default)]
pub struct Outside {
    groups: Vec<OutsideGroup>,
    incidents: Incidents<(), usize>,
}

impl Outside {
    /// Takes all there are and which are pgweir's own. More than `max` are too many; `None`: any number is fine.
    pub fn look(
        &mut self,
        connected: Vec<Connected>,
        own: &OwnBackends,
        max: Option<usize>,
        now: Instant,
    ) -> Vec<IncidentChange<usize>> {
        let groups = connected.into_iter().map(|Connected { application, addr, pids }| {
            let count = pids.iter().filter(|pid| !own.has(**pid)).count();
            OutsideGroup { application, addr, count }
        });
        self.groups = groups.filter(|group| group.count > 0).collect();
        self.groups.sort_by_key(|group| std::cmp::Reverse(group.count));
        let count = self.count();
        let level = match max {
            Some(max) if count > max => Some(IncidentLevel::Above),
            Some(max) if count > max / 2 => Some(IncidentLevel::Between),
            _ => None,
        };
        self.incidents.look(level.map(|level| ((), level, count)), now)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.groups.iter().map(|group| group.count).sum()
    }

    /// By kind, the most first.
    pub fn groups(&self) -> &[OutsideGroup] {
        &self.groups
    }

    /// There are too many.
    pub fn open(&self) -> Option<&Incident<usize>> {
        self.incidents.open().map(|(_, open)| open).next()
    }

    /// Closes what is open, and forgets: nobody looks any more.
    pub fn end(&mut self, now: Instant) -> Vec<IncidentChange<usize>> {
        let changes = self.incidents.clear(now);
        self.groups.clear();
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected(application: &str, pids: &str) -> Connected {
        Connected::read(&AnswerRow::of(&[Some(application), Some("10.0.0.7"), Some(pids)])).unwrap()
    }

    fn of(pids: [i32; 4]) -> OwnBackends {
        let mut own = OwnBackends::default();
        own.add(pids);
        own
    }

    #[test]
    fn what_pgweir_opened_does_not_count() {
        let mut outside = Outside::default();
        let all = vec![connected("web", "1,2,3"), connected("psql", "4"), connected("cron", "5,6")];
        outside.look(all, &of([1, 2, 3, 5]), None, Instant::now());
        let groups: Vec<_> = outside.groups().iter().map(|group| (group.application.as_str(), group.count)).collect();
        assert_eq!((outside.count(), groups), (2, vec![("psql", 1), ("cron", 1)]));
    }

    #[test]
    fn too_many_open_and_half_of_that_closes() {
        let (mut outside, now) = (Outside::default(), Instant::now());
        let mut look = |pids| outside.look(vec![connected("cron", pids)], &OwnBackends::default(), Some(4), now).len();
        assert_eq!(["1,2,3,4", "1,2,3,4,5", "1,2,3", "1,2", "1,2,3,4"].map(&mut look), [0, 1, 0, 1, 0]);
    }

    #[test]
    fn without_a_limit_they_are_only_counted() {
        let mut outside = Outside::default();
        assert_eq!(outside.look(vec![connected("", "1,2,3")], &OwnBackends::default(), None, Instant::now()), []);
        assert_eq!(outside.count(), 3);
    }
}
