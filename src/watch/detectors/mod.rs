//! The detectors: each looks for one thing that harms a database, in a file of its own, and the list of them.
//!
//! A detector has a question for the server, and judges the answer: no connection, no clock. The core asks each when it
//! is due and passes on what it reports. Another one is a file here that implements [`Detector`], a line in the list
//! below, and its [`FindingKind`](super::finding::FindingKind).

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::finding::Finding;
use super::incidents::{Incident, IncidentChange};
use super::own_backends::OwnBackends;
use super::row::{AnswerRow, Unreadable};
use super::server::WatchedServer;
use super::settings::WatchSettings;
use dead_tuples::DeadTuples;
use demotion::Demotion;
use horizon::{Hold, Horizon};
use notify_queue::NotifyQueue;
use outside::Outside;
use sessions::Sessions;
use wraparound::Wraparound;

pub(crate) mod dead_tuples;
pub(crate) mod demotion;
pub(crate) mod horizon;
pub(crate) mod notify_queue;
pub(crate) mod outside;
pub(crate) mod sessions;
pub(crate) mod wraparound;

/// Looks for one thing that harms a database.
pub(crate) trait Detector: fmt::Debug {
    /// The SQL it wants answered.
    fn question(&self, settings: &WatchSettings) -> Cow<'static, str>;

    /// The pause between two questions, as long as the answer costs the server little.
    fn every(&self) -> Duration;

    /// The question reads a catalog. Watches of many databases ask it at different times, and not at once on a new
    /// connection.
    fn is_catalog_scan(&self) -> bool {
        false
    }

    /// The answer is the same in each database of a server: one watch asks for all of them.
    fn is_of_server(&self) -> bool {
        false
    }

    /// The answer names processes: [`Look::own`] has to say which are pgweir's.
    fn names_processes(&self) -> bool {
        false
    }

    /// Judges the answer.
    fn answer(&mut self, rows: &[AnswerRow], look: &mut Look<'_>) -> Result<Vec<IncidentChange<Finding>>, Unreadable>;

    /// Findings that are open, the worst first.
    fn findings(&self) -> Vec<Incident<Finding>>;

    /// Closes what is open, and forgets: nobody looks any more.
    fn close(&mut self, now: Instant) -> Vec<IncidentChange<Finding>>;
}

/// Facts that a detector may use besides the answer to its own question.
#[derive(Debug)]
pub(crate) struct Look<'a> {
    pub(crate) settings: &'a WatchSettings,
    /// Processes of the server that pgweir is connected to; empty unless [`Detector::names_processes`].
    pub(crate) own: &'a OwnBackends,
    /// The oldest holder of the horizon, as last seen.
    pub(crate) oldest_hold: Option<&'a Hold>,
    /// The settings of the server, once it was asked; a detector's answer may correct them.
    pub(crate) server: Option<&'a mut WatchedServer>,
    /// This watch is the one that speaks for the whole server.
    pub(crate) leads: bool,
    pub(crate) now: Instant,
}

macro_rules! detectors {
    ($($(#[$doc:meta])+ $name:ident: $detector:ident,)+) => {
        /// One detector of the list.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum DetectorId {
            $($(#[$doc])+ $detector,)+
        }

        impl DetectorId {
            /// All detectors, in the order their findings are shown.
            pub(crate) const ALL: [Self; [$(stringify!($name)),+].len()] = [$(Self::$detector),+];
        }

        /// All detectors of one database.
        #[derive(Debug, Default)]
        pub struct Detectors {
            $($(#[$doc])+ pub $name: $detector,)+
        }

        impl Detectors {
            pub(crate) fn get(&self, id: DetectorId) -> &dyn Detector {
                match id {
                    $(DetectorId::$detector => &self.$name,)+
                }
            }

            pub(crate) fn get_mut(&mut self, id: DetectorId) -> &mut dyn Detector {
                match id {
                    $(DetectorId::$detector => &mut self.$name,)+
                }
            }
        }
    };
}

detectors! {
    /// The oldest snapshot, which keeps vacuum from removing rows.
    horizon: Horizon,
    /// Tables whose dead rows grow although vacuum runs.
    dead_tuples: DeadTuples,
    /// Sessions that idle in a transaction, and statements that take long.
    sessions: Sessions,
    /// Connections that are not pgweir's.
    outside: Outside,
    /// The queue of notifications.
    notify_queue: NotifyQueue,
    /// A primary that has become a standby.
    demotion: Demotion,
    /// Tables that are not frozen in time.
    wraparound: Wraparound,
}
