//! Parts of the tables of findings: their moment, and the culprits they name.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::format::{address, time};
use crate::proxy::Proxy;
use crate::sql::Digest;
use crate::watch::core::WatchCore;
use crate::watch::culprit::Culprit;
use crate::watch::finding::Reach;
use crate::watch::watches::listed;

/// A culprit at a server: its name, its process, and the client of ours that has it.
#[derive(Default)]
pub(super) struct NamedCulprit {
    pub(super) who: Option<String>,
    pub(super) pid: Option<i32>,
    /// The id that KILL_CLIENT takes.
    pub(super) client: Option<i32>,
    pub(super) user: Option<String>,
    pub(super) addr: Option<String>,
    /// The digest that LIMIT STATEMENT takes.
    pub(super) digest: Option<String>,
}

impl NamedCulprit {
    pub(super) fn of(culprit: Option<&Culprit>) -> Self {
        let client = culprit.and_then(Culprit::client);
        Self {
            who: culprit.map(ToString::to_string),
            pid: culprit.and_then(Culprit::pid),
            client: client.map(|client| client.pid),
            user: client.map(|client| client.role.to_string()),
            addr: client.map(|client| address(&client.addr).0),
            digest: client
                .map(|client| client.statement)
                .filter(|digest| *digest != Digest::NONE)
                .map(|digest| digest.to_string()),
        }
    }
}

/// The columns of a line that has fields `culprit` and `remedy`: its own, then those of all tables of findings.
macro_rules! columns_to_culprit {
    ($line:ty; $($own:tt)*) => {
        $crate::admin::table::columns! { $line;
            $($own)*
            "culprit" text = |it| it.culprit.who.as_ref(),
            "pid" int = |it| it.culprit.pid,
            "client" int = |it| it.culprit.client,
            "user" text = |it| it.culprit.user.as_ref(),
            "addr" text = |it| it.culprit.addr.as_ref(),
            "digest" text = |it| it.culprit.digest.as_ref(),
            "remedy" text = |it| it.remedy.as_ref(),
        }
    };
}
pub(super) use columns_to_culprit;

/// The moment that a table is of, by both clocks.
pub(super) struct Today {
    instant: Instant,
    calendar: SystemTime,
}

impl Today {
    pub(super) fn now() -> Self {
        Self { instant: Instant::now(), calendar: SystemTime::now() }
    }

    /// The date of an earlier moment.
    pub(super) fn date(&self, at: Instant) -> String {
        time(self.calendar - self.instant.saturating_duration_since(at))
    }
}

/// Lines of each watched database; a finding's reach leads to the names of the databases that it concerns.
pub(super) fn each<L>(proxy: &Proxy, lines: impl Fn(&str, &WatchCore, &dyn Fn(&Reach) -> String) -> Vec<L>) -> Vec<L> {
    proxy.watches.each(|database, core, reached| lines(database, core, &|reach| listed(&reached(reach))))
}

pub(super) fn seconds(age: Option<Duration>) -> Option<u64> {
    age.map(|age| age.as_secs())
}
