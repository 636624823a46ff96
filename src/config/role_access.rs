//! The keys of `[roles.NAME]` about who may come in.

use std::net::IpAddr;
use std::time::Duration;

use super::form::{certificate_pattern, client_source, duration_above_zero, list, text};
use super::keys::section;
use super::{CertificatePattern, ClientSource};

section! {
    /// Who may come in as a role; `Default` is the shipped file. Named roles begin with those of `[roles."*"]`.
    pub struct RoleAccess {
        /// Where its clients may come from; empty: everywhere.
        pub from: Vec<ClientSource> = Vec::new() => key(list(client_source()));
        /// Databases that it may connect to; empty: all.
        pub databases: Vec<String> = Vec::new() => key(list(text()));
        /// Certificates that are its own; empty: those with its name as their common name.
        pub certificates: Vec<CertificatePattern> = Vec::new() => key(list(certificate_pattern()));
        /// A pass-through password that the server has accepted counts as right for this long.
        pub proof_age_max: Duration = Duration::from_secs(60) => key(duration_above_zero());
    }
}

impl RoleAccess {
    /// Whether its clients may come from this address; those of a Unix socket have none.
    pub fn is_open_to(&self, address: Option<IpAddr>) -> bool {
        self.from.is_empty() || self.from.iter().any(|source| source.covers(address))
    }

    /// Whether its clients may connect to this database.
    pub fn reaches(&self, database: &str) -> bool {
        self.databases.is_empty() || self.databases.iter().any(|name| name == database)
    }
}
