//! Values that labels may have, and how many at most: every series costs its store. Words come from the enums that are
//! counted by.

use crate::admission::limiter;
use crate::fleet::lease::holder::LeaseState;
use crate::metrics::{
    CancelCause, CloseReason, FleetCancel, Label, LoginRefusal, OpenFailure, PasswordOutcome, PinEnd, ReloadOutcome,
    ReplayReason,
};
use crate::notify::stats::{Dropped, Gap};
use crate::pool::core::SlotPhase;
use crate::session::pins;
use crate::state::timeout::Timeout;
use crate::watch::activity::LockKind;
use crate::watch::convoy::ConvoyState;
use crate::watch::culprit::CulpritKind;
use crate::watch::finding::FindingKind;
use crate::watch::stats::Reaction;
use crate::words::words;

words! {
    /// States of a client.
    pub(super) enum ClientState {
        /// It has no backend and wants none.
        Idle = "idle",
        /// It waits for one.
        Waiting = "waiting",
        /// It has one.
        Active = "active",
    }

    /// States of a session at the server.
    pub(super) enum ServerSessionState {
        /// A statement runs.
        Active = "active",
        /// Between the statements of a transaction.
        IdleInTransaction = "idle_in_transaction",
        /// Outside of one.
        Idle = "idle",
    }

    /// Outcomes of a request for leases.
    pub(super) enum RefreshOutcome {
        /// The book has answered.
        Answered = "answered",
        /// It has not.
        Failed = "failed",
    }

    /// What a limit that only observes would have done.
    pub(super) enum ObservedOutcome {
        /// It would have waited.
        Waits = "waits",
        /// It would have waited for too long.
        TimedOut = "timed_out",
        /// It would have been refused at once.
        Refused = "refused",
    }

    /// Reasons for which a role's transaction is refused.
    pub(super) enum RoleRefusal {
        /// The queue is full.
        Full = "full",
        /// It would wait too long.
        Shed = "shed",
    }
}

/// Values that a label may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelValues {
    /// One of these.
    Words(&'static [&'static str]),
    /// Names that are known only at run time.
    Open {
        /// Their meaning.
        what: &'static str,
        /// Their limit.
        bound: &'static str,
    },
}

/// Values that a label may have.
pub fn values(label: Label) -> LabelValues {
    use LabelValues::{Open, Words};
    match label {
        Label::Version => Open { what: "pgweir's own", bound: "one" },
        Label::Certificate => {
            Open { what: "a PEM file, as the configuration names it", bound: "one for each that it names as `cert`" }
        }
        Label::Database => Open {
            what: "as clients name it",
            bound: "those of the file, and 200 that only `databases.\"*\"` serves, while somebody uses them",
        },
        Label::Server => Open {
            what: "host and port of a watched server, as configured for the first of its databases",
            bound: "one for each database",
        },
        Label::Role => Open {
            what: "as clients log in",
            bound: "those of the file, and 200 that only `roles.\"*\"` serves, while somebody uses them",
        },
        Label::Reader => Open { what: "a server, as SHOW READERS has it", bound: "32 for each database" },
        Label::ClientState => Words(&ClientState::WORDS),
        Label::BackendState => Words(&SlotPhase::WORDS),
        Label::RoleState => Words(&limiter::LimiterState::WORDS),
        Label::PinReason => Words(&pins::NAMES),
        Label::LoginRefusal => Words(&LoginRefusal::WORDS),
        Label::OpenFailure => Words(&OpenFailure::WORDS),
        Label::PinEnd => Words(&PinEnd::WORDS),
        Label::CloseReason => Words(&CloseReason::WORDS),
        Label::RoleRefusal => Words(&RoleRefusal::WORDS),
        Label::LeaseState => Words(&LeaseState::WORDS),
        Label::RefreshOutcome => Words(&RefreshOutcome::WORDS),
        Label::FleetCancel => Words(&FleetCancel::WORDS),
        Label::CancelCause => Words(&CancelCause::WORDS),
        Label::DropCause => Words(&Dropped::WORDS),
        Label::GapCause => Words(&Gap::WORDS),
        Label::Timeout => Words(&Timeout::WORDS),
        Label::ReplayReason => Words(&ReplayReason::WORDS),
        Label::ReloadOutcome => Words(&ReloadOutcome::WORDS),
        Label::PasswordOutcome => Words(&PasswordOutcome::WORDS),
        Label::WatchState => Words(&ConvoyState::WORDS),
        Label::SessionState => Words(&ServerSessionState::WORDS),
        Label::Finding => Words(&FindingKind::WORDS),
        Label::Reaction => Words(&Reaction::WORDS),
        Label::LockKind => Words(&LockKind::WORDS),
        Label::Holder => Words(&CulpritKind::WORDS),
        Label::Relation => Open { what: "a table with its schema", bound: "five for each database" },
        Label::Observed => Words(&ObservedOutcome::WORDS),
        Label::Lane => Open { what: "a lane of `proxy.toml`", bound: "100" },
        Label::Digest => Open {
            what: "of a statement, as SHOW STATEMENTS has it",
            bound: "the 20 that kept the servers busy longest",
        },
        Label::Sqlstate => Open {
            what: "as clients got it; `?????` is what a server sent that is none",
            bound: "256; what comes after that is `other`",
        },
    }
}
