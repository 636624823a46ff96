//! Labels: their names in Prometheus.

use crate::words::words;

words! {
    /// A label. Several have the same name, and differ in what they may say.
    #[derive(PartialOrd, Ord, Hash)]
    pub enum Label {
        /// Of pgweir.
        Version = "version",
        /// Its file.
        Certificate = "file",
        /// As clients name it.
        Database = "database",
        /// Host and port.
        Server = "server",
        /// As clients log in.
        Role = "role",
        /// Of a database.
        Reader = "reader",
        /// Of a client.
        ClientState = "state",
        /// Of a backend.
        BackendState = "state",
        /// Of a role.
        RoleState = "state",
        /// Of a pin.
        PinReason = "reason",
        /// Of a login that failed.
        LoginRefusal = "reason",
        /// Of a backend that could not be opened.
        OpenFailure = "reason",
        /// Of a backend that was closed.
        CloseReason = "reason",
        /// Of a pinned client that was closed.
        PinEnd = "reason",
        /// Of a transaction that was refused.
        RoleRefusal = "reason",
        /// Of a cancel.
        CancelCause = "cause",
        /// Of a cancel that came to another instance.
        FleetCancel = "outcome",
        /// Of the fleet's leases.
        LeaseState = "state",
        /// Of a request for leases.
        RefreshOutcome = "outcome",
        /// Of a notification's loss.
        DropCause = "cause",
        /// Of a gap.
        GapCause = "cause",
        /// Of a timeout.
        Timeout = "kind",
        /// Of a statement that was sent again.
        ReplayReason = "reason",
        /// Of a command that prints a password.
        PasswordOutcome = "outcome",
        /// Of a reload.
        ReloadOutcome = "outcome",
        /// Of the watch.
        WatchState = "state",
        /// Of a session at the server.
        SessionState = "state",
        /// Of a finding.
        Finding = "kind",
        /// Of a reaction.
        Reaction = "kind",
        /// Of a lock.
        LockKind = "kind",
        /// Of the holder of the xmin horizon.
        Holder = "kind",
        /// A table.
        Relation = "relation",
        /// Of a statement.
        Digest = "digest",
        /// Of a transaction that a limit would hold back.
        Observed = "outcome",
        /// Of `[[lanes]]`.
        Lane = "lane",
        /// Of an error.
        Sqlstate = "sqlstate",
    }
}

impl Label {
    /// Its name in Prometheus.
    pub fn name(self) -> &'static str {
        self.word()
    }
}
