//! Logins of clients, logins to Postgres, and the credentials with which the one opens the other.
//!
//! No I/O: [`client::ClientLogin`] and [`server::BackendLogin`] take whole messages and return the next step. PBKDF2 is
//! a step of its own, [`hashing::HashJob`], which the driver runs with `spawn_blocking`.
//!
//! Pass-through (`auth = "passthrough"`): a client's own login opens its backends. Where the role's verifier is known,
//! SCRAM gives its keys without showing the password. Where it is not, the password itself is asked for, which is done
//! over TLS, a Unix socket or loopback only; pgweir cannot check it, so a backend has to: [`Credential::Unproved`].

pub(crate) mod client;
pub(crate) mod hashing;
pub(crate) mod md5;
mod message;
pub(crate) mod mock;
pub(crate) mod random;
pub(crate) mod scram;
pub(crate) mod secrets;
pub(crate) mod server;

pub use message::AUTHENTICATION_OK;
pub(crate) use message::BODY_MAX;

use crate::config::{PasswordCommand, PasswordSource, Secret};
use crate::net::certificate::Binding;

/// The channel that carries a login, as far as it decides which methods may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channel {
    /// TLS; `binding` is that of the TLS server's certificate, be it ours or the peer's.
    Tls {
        /// `None` if the certificate's algorithm has none: no SCRAM-SHA-256-PLUS.
        binding: Option<Binding>,
    },
    /// TLS with a server whose certificate nobody checked: it may be an impostor's.
    Unverified {
        /// As for [`Self::Tls`].
        binding: Option<Binding>,
    },
    /// Clear text that does not leave the machine: a Unix socket, or a loopback address.
    Local,
    /// Clear text over a network.
    Open,
}

impl Channel {
    /// Whether a password may be sent as it is.
    fn hides_passwords(&self) -> bool {
        match self {
            Self::Tls { .. } | Self::Local => true,
            Self::Unverified { .. } | Self::Open => false,
        }
    }

    fn binding(&self) -> Option<Binding> {
        match self {
            Self::Tls { binding } | Self::Unverified { binding } => binding.clone(),
            Self::Local | Self::Open => None,
        }
    }
}

/// A credential that opens a backend: left by a client's login, or configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// Nothing: the server must trust us, or know us by our TLS certificate.
    Nothing,
    /// A password that was checked, or is configured.
    Password(Secret),
    /// The password of a pass-through client that nobody has checked yet. Answer such a client only when a backend
    /// opened; a server that lets us in without asking for the password does not count as a check.
    Unproved(Secret),
    /// A password that a command prints: it has to be asked for before a login.
    Command(PasswordCommand),
    /// Only the MD5 hash is known: enough for a server that asks for MD5.
    Md5(md5::Md5Hash),
    /// The client's SCRAM keys: enough for a server that has the verifier they were recovered from.
    Keys(scram::RecoveredKeys),
}

impl From<Option<PasswordSource>> for Credential {
    fn from(password: Option<PasswordSource>) -> Self {
        match password {
            Some(PasswordSource::Known(password)) => Self::Password(password),
            Some(PasswordSource::Command(command)) => Self::Command(command),
            None => Self::Nothing,
        }
    }
}

impl Credential {
    /// After a backend was opened with it.
    pub fn proved(self) -> Self {
        match self {
            Self::Unproved(password) => Self::Password(password),
            other => other,
        }
    }
}
