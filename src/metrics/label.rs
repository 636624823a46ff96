//! Labels, what values each may have, and how many at most: every series costs whoever stores it.

/// What tells the series of one metric apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Label {
    /// `version`
    Version,
    /// `database`
    Database,
    /// `role`
    Role,
    /// `state` of a client.
    ClientState,
    /// `state` of a backend.
    BackendState,
    /// `state` of a role.
    RoleState,
    /// `reason` of a pin.
    PinReason,
    /// `reason` of a login that failed.
    LoginReason,
    /// `reason` for which a backend could not be opened.
    OpenReason,
    /// `reason` of a transaction that was refused.
    RefusalReason,
    /// `cause` of a cancel.
    CancelCause,
    /// `cause` of a notification's loss.
    DropCause,
    /// `cause` of a gap.
    GapCause,
    /// `kind` of a timeout.
    Timeout,
    /// `outcome` of a reload.
    Outcome,
    /// `state` of the watch.
    WatchState,
    /// `state` of a session at the server.
    SessionState,
    /// `kind` of a finding.
    Finding,
    /// `kind` of a reaction.
    Reaction,
    /// `kind` of a lock.
    LockKind,
    /// `kind` of whoever holds the horizon.
    Holder,
    /// `relation`
    Relation,
    /// `sqlstate`
    Sqlstate,
}

/// What a label may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// One of these.
    Words(&'static [&'static str]),
    /// Whatever there is.
    Open {
        /// What it says.
        what: &'static str,
        /// Why it is not endless.
        bound: &'static str,
    },
}

use Values::{Open, Words};

impl Label {
    /// All.
    pub const ALL: [Self; 23] = [
        Self::Version,
        Self::Database,
        Self::Role,
        Self::ClientState,
        Self::BackendState,
        Self::RoleState,
        Self::PinReason,
        Self::LoginReason,
        Self::OpenReason,
        Self::RefusalReason,
        Self::CancelCause,
        Self::DropCause,
        Self::GapCause,
        Self::Timeout,
        Self::Outcome,
        Self::WatchState,
        Self::SessionState,
        Self::Finding,
        Self::Reaction,
        Self::LockKind,
        Self::Holder,
        Self::Relation,
        Self::Sqlstate,
    ];

    /// As Prometheus knows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Database => "database",
            Self::Role => "role",
            Self::ClientState | Self::BackendState | Self::RoleState | Self::WatchState | Self::SessionState => "state",
            Self::PinReason | Self::LoginReason | Self::OpenReason | Self::RefusalReason => "reason",
            Self::CancelCause | Self::DropCause | Self::GapCause => "cause",
            Self::Timeout | Self::Finding | Self::Reaction | Self::LockKind | Self::Holder => "kind",
            Self::Outcome => "outcome",
            Self::Relation => "relation",
            Self::Sqlstate => "sqlstate",
        }
    }

    /// What it may say.
    pub fn values(self) -> Values {
        match self {
            Self::Version => Open { what: "pgweir's own", bound: "one" },
            Self::Database => Open {
                what: "as clients name it",
                bound: "those of the file, and 200 that only `databases.\"*\"` serves, while somebody uses them",
            },
            Self::Role => Open {
                what: "as clients log in",
                bound: "those of the file, and 200 that only `roles.\"*\"` serves, while somebody uses them",
            },
            Self::ClientState => Words(&["idle", "waiting", "active"]),
            Self::BackendState => Words(&["opening", "idle", "closing", "handed", "leased", "zombie"]),
            Self::RoleState => Words(&["calm", "burst", "convoy", "closed"]),
            Self::PinReason => Words(&[
                "temp",
                "hold_cursor",
                "advisory_lock",
                "sql_prepare",
                "listen",
                "settings",
                "session_authorization",
                "load",
                "large_statement",
            ]),
            Self::LoginReason => Words(&[
                "protocol",
                "authentication",
                "database",
                "clients_max",
                "role_clients_max",
                "login_rate",
                "login_rate_per_address",
                "server",
                "timeout",
                "draining",
            ]),
            Self::OpenReason => Words(&["unreachable", "refused", "busy"]),
            Self::RefusalReason => Words(&["full", "shed"]),
            Self::CancelCause => Words(&["client", "zombie", "timeout"]),
            Self::DropCause => Words(&["listener", "bus", "commit"]),
            Self::GapCause => Words(&["bridge", "bus", "hole", "switched"]),
            Self::Timeout => Words(&["statement", "lock", "idle_in_transaction", "transaction"]),
            Self::Outcome => Words(&["applied", "refused"]),
            Self::WatchState => Words(&["calm", "suspect", "convoy", "blind", "recovered"]),
            Self::SessionState => Words(&["active", "idle_in_transaction", "idle"]),
            Self::Finding => Words(&[
                "convoy",
                "blind",
                "blocker",
                "horizon",
                "dead_tuples",
                "idle_in_transaction",
                "long_statement",
                "outside",
                "notify_queue",
                "standing",
            ]),
            Self::Reaction => Words(&["tighten", "cancel"]),
            Self::LockKind => Words(&["extension", "relation", "row", "object", "advisory", "other"]),
            Self::Holder => Words(&["backend", "walsender", "slot", "prepared"]),
            Self::Relation => Open { what: "a table with its schema", bound: "five for each database" },
            Self::Sqlstate => Open {
                what: "as clients got it; `?????` is what a server sent that is none",
                bound: "256; what comes after that is `other`",
            },
        }
    }
}
