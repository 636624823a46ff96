//! Reasons and outcomes that events are counted by.

use crate::words::words;

words! {
    /// Why a query is cancelled.
    pub(crate) enum CancelCause {
        /// Its client asked for it.
        Client = "client",
        /// Its client is gone.
        Zombie = "zombie",
        /// It took longer than its role may.
        Timeout = "timeout",
        /// CANCEL STATEMENT.
        Order = "order",
    }

    /// Why a statement is sent again.
    pub enum ReplayReason {
        /// Not a byte of it was written.
        Unsent = "unsent",
        /// A server that may not write refused it.
        ReadOnly = "read_only",
    }

    /// The outcome of a CancelRequest that came to another instance than the client's own.
    pub(crate) enum FleetCancel {
        /// Its owner dealt with it.
        Forwarded = "forwarded",
        /// Nobody has such a client.
        Unknown = "unknown",
        /// Some instance could not be asked.
        Unreached = "unreached",
        /// It was ours, and another instance handed it to us.
        Received = "received",
    }

    /// Why a connection does not become a client.
    pub(crate) enum LoginRefusal {
        /// Not what the protocol has here, or TLS where there is none.
        Protocol = "protocol",
        /// It did not prove who it is, or may not do what it wants.
        Authentication = "authentication",
        /// No such database, or it takes no clients.
        Database = "database",
        /// `listen.clients_max`.
        ClientsMax = "clients_max",
        /// `roles.*.clients_max`.
        RoleClientsMax = "role_clients_max",
        /// `databases.*.clients_max`.
        DatabaseClientsMax = "database_clients_max",
        /// `listen.clients_max_per_address`.
        AddressClientsMax = "address_clients_max",
        /// `admission.login_rate`.
        LoginRate = "login_rate",
        /// `admission.login_rate_per_address`.
        LoginRatePerAddress = "login_rate_per_address",
        /// The server was needed, and could not be had.
        Server = "server",
        /// `listen.startup_timeout` or `listen.login_timeout`.
        Timeout = "timeout",
        /// Going down.
        Draining = "draining",
    }

    /// Why a pinned client is closed.
    pub enum PinEnd {
        /// `roles.*.pin_timeout`.
        Timeout = "pin_timeout",
        /// `roles.*.pins_max`.
        Max = "pins_max",
    }

    /// Why a backend could not be opened.
    pub enum OpenFailure {
        /// The server could not be reached.
        Unreachable = "unreachable",
        /// It does not let the role in.
        Refused = "refused",
        /// It has no room.
        Busy = "busy",
    }

    /// Why a backend is closed.
    pub enum CloseReason {
        /// The pool has no more use for it.
        Retired = "retired",
        /// Its lease ended without a release: no other client may have it.
        Unfit = "unfit",
    }

    /// What came of running a command that prints a password.
    pub(crate) enum PasswordOutcome {
        /// There is a password.
        Succeeded = "succeeded",
        /// There is none; the last one is kept.
        Failed = "failed",
    }

    /// What came of reading the configuration again.
    pub(crate) enum ReloadOutcome {
        /// It is in force.
        Applied = "applied",
        /// It has mistakes; the old one stays in force.
        Refused = "refused",
    }
}
