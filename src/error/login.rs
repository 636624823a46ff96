//! Reasons why a connection did not become a client. The report for each is in [`super::sqlstate`].

use thiserror::Error;

use crate::admission::login::TooFast;
use crate::auth::client::Refusal;
use crate::metrics::LoginRefusal;
use crate::pool::lease::LeaseError;
use crate::pool::open::OpenError;
use crate::wire::build::RefusedLogin;
use crate::wire::frame::FrameError;
use crate::wire::proxy_header::BadProxyHeader;
use crate::wire::startup::{BadOptions, Malformed};

/// Why a connection did not become a client.
#[derive(Debug, Error)]
pub(crate) enum LoginFault {
    /// The socket broke or closed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Startup(#[from] Malformed),
    /// `options`.
    #[error(transparent)]
    Options(#[from] BadOptions),
    /// Bytes that are no frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Clear text behind SSLRequest: somebody in between has inserted it.
    #[error("clear text behind an SSLRequest")]
    Injected,
    /// A TLS handshake where TLS is not available.
    #[error("unexpected TLS handshake")]
    NoTls,
    /// A balancer's header, from somebody else.
    #[error("a PROXY protocol header from an address that is not in listen.proxy_protocol")]
    ForeignProxyHeader,
    /// No header of a balancer, or one that cannot be read.
    #[error(transparent)]
    ProxyHeader(#[from] BadProxyHeader),
    /// `roles.*.from`.
    #[error("role \"{0}\" may not connect from this address")]
    NotFromHere(String),
    /// `roles.*.databases`.
    #[error("role \"{role}\" may not connect to database \"{database}\"")]
    NotThisDatabase { role: String, database: String },
    /// Direct TLS without naming the protocol.
    #[error("direct TLS connection without ALPN \"postgresql\"")]
    NoAlpn,
    /// TLS is required.
    #[error("pgweir accepts only TLS connections")]
    TlsRequired,
    /// `listen.clients_max`.
    #[error("sorry, too many clients already")]
    TooManyClients,
    /// `roles.*.clients_max`.
    #[error("too many connections for role \"{0}\"")]
    TooManyOfRole(String),
    /// `databases.*.clients_max`.
    #[error("too many connections for database \"{0}\"")]
    TooManyOfDatabase(String),
    /// `listen.clients_max_per_address`.
    #[error("too many connections from this address")]
    TooManyOfAddress,
    /// `admission.login_rate` or `admission.login_rate_per_address`.
    #[error(transparent)]
    TooFast(#[from] TooFast),
    /// Not in the configuration.
    #[error("database \"{0}\" does not exist")]
    NoDatabase(String),
    /// DISABLE in the console.
    #[error("database \"{0}\" takes no new clients")]
    Disabled(String),
    /// Not allowed into the console.
    #[error("role \"{0}\" is not allowed to use the console")]
    NotAdmin(String),
    /// A pass-through password, for which the console has no server to ask.
    #[error("the console takes no pass-through logins")]
    UnprovedAdmin,
    /// The client could not prove its identity.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The secret could not be looked up.
    #[error("cannot look the role up: {0}")]
    Lookup(#[from] LookupError),
    /// A backend is needed to greet the client, and there is none.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The server refused the client's own credential, in pass-through.
    #[error("{}", .0.message)]
    Server(RefusedLogin),
    /// The server refused the credential with which pgweir logs in for this role.
    #[error("{}", .0.message)]
    Backend(RefusedLogin),
    /// The server refused a parameter of the StartupMessage.
    #[error("{}", .0.message)]
    Parameter(RefusedLogin),
    /// The credential could not be tried.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Going down.
    #[error("pgweir is shutting down")]
    Draining,
    /// `listen.login_timeout`.
    #[error("canceling authentication due to timeout")]
    TooSlow,
    /// `listen.startup_timeout`.
    #[error("canceling authentication due to timeout: no whole StartupMessage came")]
    Silent,
}

impl LoginFault {
    /// There are too many clients or logins: the client may come back later; coming back at once would help nobody.
    pub(crate) fn is_crowd(&self) -> bool {
        matches!(
            self,
            Self::TooManyClients
                | Self::TooManyOfRole(_)
                | Self::TooManyOfDatabase(_)
                | Self::TooManyOfAddress
                | Self::TooFast(_)
        )
    }

    /// The first packet is not one of this protocol.
    pub(crate) fn is_foreign(&self) -> bool {
        matches!(
            self,
            Self::NoTls
                | Self::ForeignProxyHeader
                | Self::ProxyHeader(_)
                | Self::Startup(Malformed::Length(_) | Malformed::CancelSecret(_))
        )
    }

    /// The reason it is counted under.
    pub(crate) fn reason(&self) -> LoginRefusal {
        match self {
            Self::Io(_)
            | Self::Startup(_)
            | Self::Options(_)
            | Self::Frame(_)
            | Self::Injected
            | Self::NoTls
            | Self::ForeignProxyHeader
            | Self::ProxyHeader(_)
            | Self::NoAlpn => LoginRefusal::Protocol,
            Self::NotFromHere(_)
            | Self::NotThisDatabase { .. }
            | Self::TlsRequired
            | Self::NotAdmin(_)
            | Self::UnprovedAdmin
            | Self::Refused(_)
            | Self::Server(_) => LoginRefusal::Authentication,
            Self::TooManyClients => LoginRefusal::ClientsMax,
            Self::TooManyOfRole(_) => LoginRefusal::RoleClientsMax,
            Self::TooManyOfDatabase(_) => LoginRefusal::DatabaseClientsMax,
            Self::TooManyOfAddress => LoginRefusal::AddressClientsMax,
            Self::TooFast(TooFast::Rate) => LoginRefusal::LoginRate,
            Self::TooFast(TooFast::AddressRate) => LoginRefusal::LoginRatePerAddress,
            Self::NoDatabase(_) | Self::Disabled(_) => LoginRefusal::Database,
            Self::Lookup(_) | Self::Lease(_) | Self::Backend(_) | Self::Parameter(_) | Self::Open(_) => {
                LoginRefusal::Server
            }
            Self::Draining => LoginRefusal::Draining,
            Self::TooSlow | Self::Silent => LoginRefusal::Timeout,
        }
    }
}

/// Why a secret could not be looked up.
#[derive(Debug, Error)]
pub(crate) enum LookupError {
    /// A reload took the query away.
    #[error("databases.*.auth_query was removed meanwhile")]
    NoPool,
    /// The server lets nobody into the database, or the look-up role not in.
    #[error("the server refused the login: {}", .0.message)]
    Refused(RefusedLogin),
    /// No backend for the question.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error(transparent)]
    Io(#[from] OpenError),
    /// The server refused the query.
    #[error("the query of databases.*.auth_query fails: {0}")]
    Query(String),
}
