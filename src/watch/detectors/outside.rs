//! Connections to the database that are not pgweir's: its limits neither bound nor count them.

use std::borrow::Cow;
use std::time::Duration;

use tokio::time::Instant;

use super::{Detector, Look};
use crate::watch::finding::{Finding, FindingKind};
use crate::watch::incidents::{Incident, IncidentChange, IncidentLevel, Incidents};
use crate::watch::own_backends::OwnBackends;
use crate::watch::row::{AnswerRow, Unreadable};
use crate::watch::settings::WatchSettings;

/// All connections to this database. As [`ACTIVITY`](crate::watch::sql::ACTIVITY).
///
/// Columns: application, client address, processes.
const CONNECTED: &str = "\
SELECT application_name, host(client_addr), string_agg(pid::text, ',')
  FROM pg_stat_get_activity(NULL)
 WHERE datid = (SELECT datid FROM pg_stat_get_activity(pg_backend_pid())) AND backend_type = 'client backend'
   AND pid <> pg_backend_pid()
 GROUP BY 1, 2 ORDER BY count(*) DESC LIMIT 200";

/// Connections of one kind; a row of [`CONNECTED`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// `application_name`; may be empty.
    pub application: String,
    /// Where they come from; `None`: a Unix socket.
    pub addr: Option<String>,
    /// Server processes of these connections.
    pub pids: Vec<i32>,
}

impl Connected {
    /// Reads its row.
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
    /// Client address; `None`: a Unix socket.
    pub addr: Option<String>,
    pub count: usize,
}

/// The connections of one database.
#[derive(Debug, Default)]
pub struct Outside {
    groups: Vec<OutsideGroup>,
    /// A backend that pgweir just opens or closes passes for a stranger: one look alone tells nothing.
    was_above: bool,
    incidents: Incidents<(), usize>,
}

impl Outside {
    /// Takes all connections, and pgweir's own processes. More than `max` connections of others at two looks in a row
    /// are too many; `None`: any number is fine.
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
        let is_above = max.is_some_and(|max| count > max);
        let level = match max {
            Some(_) if is_above && self.was_above => Some(IncidentLevel::Above),
            Some(max) if count > max / 2 => Some(IncidentLevel::Between),
            _ => None,
        };
        self.was_above = is_above;
        self.incidents.look(level.map(|level| ((), level, count)), now)
    }

    /// How many connections are not pgweir's.
    pub fn count(&self) -> usize {
        self.groups.iter().map(|group| group.count).sum()
    }

    /// By kind, the most first.
    pub fn groups(&self) -> &[OutsideGroup] {
        &self.groups
    }
}

impl Detector for Outside {
    fn question(&self, _: &WatchSettings) -> Cow<'static, str> {
        CONNECTED.into()
    }

    fn every(&self) -> Duration {
        Duration::from_secs(15)
    }

    fn names_processes(&self) -> bool {
        true
    }

    fn answer(&mut self, rows: &[AnswerRow], look: &mut Look<'_>) -> Result<Vec<IncidentChange<Finding>>, Unreadable> {
        let connected = rows.iter().map(Connected::read).collect::<Result<_, _>>()?;
        let changes = self.look(connected, look.own, look.settings.outside_max, look.now);
        Ok(changes.into_iter().map(|change| change.map(finding)).collect())
    }

    fn findings(&self) -> Vec<Incident<Finding>> {
        self.incidents.open().map(|(_, open)| open.map(finding)).collect()
    }

    fn close(&mut self, now: Instant) -> Vec<IncidentChange<Finding>> {
        self.groups.clear();
        self.incidents.clear(now).into_iter().map(|change| change.map(finding)).collect()
    }
}

fn finding(count: usize) -> Finding {
    Finding::new(FindingKind::Outside, format_args!("{count} connections that are not pgweir's"), None)
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
        let seen = ["1,2,3,4", "1,2,3,4,5", "1,2,3,4,5,6", "1,2,3", "1,2", "1,2,3,4"];
        assert_eq!(seen.map(&mut look), [0, 0, 1, 0, 1, 0]);
    }

    #[test]
    fn a_backend_seen_before_pgweir_knows_its_process_opens_nothing() {
        let (mut outside, now) = (Outside::default(), Instant::now());
        let mut look = |own| outside.look(vec![connected("web", "1")], &own, Some(0), now).len();
        let known = || of([1; 4]);
        let looks = [OwnBackends::default(), known(), OwnBackends::default(), known()];
        assert_eq!(looks.map(&mut look), [0; 4]);
    }

    #[test]
    fn without_a_limit_they_are_only_counted() {
        let mut outside = Outside::default();
        assert_eq!(outside.look(vec![connected("", "1,2,3")], &OwnBackends::default(), None, Instant::now()), []);
        assert_eq!(outside.count(), 3);
    }
}
