//! Sessions that idle in a transaction, and statements that take long.
//!
//! The server is asked for those above the limits only. Their time just grows until it ends, so nothing here needs a
//! band.

use std::borrow::Cow;
use std::time::Duration;

use tokio::time::Instant;

use super::{Detector, Look};
use crate::watch::culprit::{Culprit, ServerSession, SessionState};
use crate::watch::finding::{Finding, FindingKind, Seconds, reported};
use crate::watch::incidents::{Incident, IncidentChange, IncidentLevel, Incidents};
use crate::watch::row::{AnswerRow, Unreadable};
use crate::watch::settings::WatchSettings;
use crate::watch::sql::SESSIONS;

/// Sessions of this database that have been idle in a transaction, or at one statement, for so long. As
/// [`ACTIVITY`](crate::watch::sql::ACTIVITY).
fn lingering_sql(idle: Duration, statement: Duration) -> String {
    format!(
        "{SESSIONS}datid = (SELECT datid FROM pg_stat_get_activity(pg_backend_pid())) AND backend_type = 'client backend'\n   \
         AND pid <> pg_backend_pid()\n   \
         AND (state LIKE 'idle in transaction%' AND state_change <= clock_timestamp() - interval '{} ms'\n     \
         OR state = 'active' AND query_start <= clock_timestamp() - interval '{} ms')\n \
         ORDER BY CASE state WHEN 'active' THEN query_start ELSE state_change END LIMIT 100",
        idle.as_millis(),
        statement.as_millis()
    )
}

/// A way to take too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Overstay {
    /// Nothing, with a transaction open.
    Idling,
    Running,
}

/// A session that does something for too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lingering {
    pub doing: Overstay,
    /// The session, with its times.
    pub session: ServerSession,
}

impl Lingering {
    /// How long it has taken so far.
    pub fn age(&self) -> Duration {
        let age = match self.doing {
            Overstay::Idling => self.session.state_age,
            Overstay::Running => self.session.statement_age,
        };
        age.unwrap_or_default()
    }

    /// The session as a culprit.
    pub fn culprit(&self) -> Culprit {
        Culprit::Backend(self.session.backend.clone())
    }
}

/// Identity from look to look: way, process and beginning. A session may do the same again later.
type LingeringKey = (Overstay, i32, Option<i64>);

/// The sessions of one database.
#[derive(Debug, Default)]
pub struct Sessions(Incidents<LingeringKey, Lingering>);

impl Sessions {
    /// Takes all that [`lingering_sql`] found.
    pub fn look(&mut self, found: Vec<ServerSession>, now: Instant) -> Vec<IncidentChange<Lingering>> {
        self.0.look(found.into_iter().filter_map(lingering), now)
    }

    /// Sessions that do something for too long, the longest first.
    pub fn open(&self) -> Vec<&Incident<Lingering>> {
        let mut open: Vec<_> = self.0.open().map(|(_, open)| open).collect();
        open.sort_by_key(|open| std::cmp::Reverse(open.value.age()));
        open
    }
}

impl Detector for Sessions {
    fn question(&self, settings: &WatchSettings) -> Cow<'static, str> {
        lingering_sql(settings.idle_in_transaction, settings.long_statement).into()
    }

    /// An idle transaction is seen this long after its limit at the latest.
    fn every(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn names_processes(&self) -> bool {
        true
    }

    fn answer(&mut self, rows: &[AnswerRow], look: &mut Look<'_>) -> Result<Vec<IncidentChange<Finding>>, Unreadable> {
        let sessions = rows.iter().map(|row| ServerSession::read(row, look.own)).collect::<Result<_, _>>()?;
        Ok(reported(self.look(sessions, look.now)))
    }

    fn findings(&self) -> Vec<Incident<Finding>> {
        self.open().into_iter().map(Incident::finding).collect()
    }

    fn close(&mut self, now: Instant) -> Vec<IncidentChange<Finding>> {
        reported(self.0.clear(now))
    }
}

impl From<&Lingering> for Finding {
    fn from(lingering: &Lingering) -> Self {
        let age = Seconds(lingering.age());
        let (kind, what) = match lingering.doing {
            Overstay::Idling => (FindingKind::IdleInTransaction, format!("idle in a transaction for {age}")),
            Overstay::Running => (FindingKind::LongStatement, format!("at one statement for {age}")),
        };
        Self::new(kind, what, Some(lingering.culprit()))
    }
}

fn lingering(session: ServerSession) -> Option<(LingeringKey, IncidentLevel, Lingering)> {
    let (doing, began) = match session.backend.state {
        SessionState::IdleInTransaction => (Overstay::Idling, session.transaction),
        SessionState::Active => (Overstay::Running, session.statement),
        // It changed between the server's look at its state and at the rest.
        SessionState::Idle | SessionState::Other => return None,
    };
    Some(((doing, session.backend.pid, began), IncidentLevel::Above, Lingering { doing, session }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::culprit::ServerProcess;

    fn session(pid: i32, state: SessionState, began: i64, seconds: u64) -> ServerSession {
        let age = Some(Duration::from_secs(seconds));
        ServerSession {
            backend: ServerProcess { pid, state, application: String::new(), addr: None, client: None },
            transaction: Some(began),
            statement: Some(began),
            transaction_age: age,
            statement_age: age,
            state_age: age,
        }
    }

    fn look(sessions: &mut Sessions, found: &[ServerSession]) -> Vec<(&'static str, Overstay, i32)> {
        let changes = sessions.look(found.to_vec(), Instant::now());
        let told = changes.into_iter().map(|change| match change {
            IncidentChange::Opened(one) => ("opened", one.doing, one.session.backend.pid),
            IncidentChange::Closed(one, _) => ("closed", one.doing, one.session.backend.pid),
        });
        told.collect()
    }

    #[test]
    fn an_idle_transaction_is_told_of_once_and_again_when_it_ends() {
        let mut sessions = Sessions::default();
        let found = [session(7, SessionState::IdleInTransaction, 1, 20)];
        assert_eq!(look(&mut sessions, &found), [("opened", Overstay::Idling, 7)]);
        assert_eq!(look(&mut sessions, &[session(7, SessionState::IdleInTransaction, 1, 25)]), []);
        assert_eq!(sessions.open()[0].value.age(), Duration::from_secs(25));
        assert_eq!(look(&mut sessions, &[]), [("closed", Overstay::Idling, 7)]);
    }

    #[test]
    fn the_next_transaction_of_the_session_is_another() {
        let mut sessions = Sessions::default();
        look(&mut sessions, &[session(7, SessionState::IdleInTransaction, 1, 20)]);
        let told = look(&mut sessions, &[session(7, SessionState::IdleInTransaction, 2, 20)]);
        assert_eq!(told, [("closed", Overstay::Idling, 7), ("opened", Overstay::Idling, 7)]);
    }

    #[test]
    fn a_long_statement_is_cancelled_and_an_idle_session_ended() {
        let mut sessions = Sessions::default();
        look(
            &mut sessions,
            &[session(7, SessionState::Active, 1, 900), session(8, SessionState::IdleInTransaction, 1, 30)],
        );
        let remedies: Vec<_> = sessions.open().iter().map(|open| open.value.culprit().remedy()).collect();
        assert_eq!(remedies, ["SELECT pg_cancel_backend(7)", "SELECT pg_terminate_backend(8)"]);
    }

    #[test]
    fn who_went_idle_in_between_is_no_culprit() {
        assert_eq!(look(&mut Sessions::default(), &[session(7, SessionState::Idle, 1, 900)]), []);
    }
}
