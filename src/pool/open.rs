//! Opens backends: name to address, TLS, login, server role.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::address::ServerAddress;
use super::backend::{Backend, BackendHandle, Epoch};
use super::control_connections::ControlConnections;
use super::core::FailureKind;
use super::host_port::{HostPort, ServerTarget};
use super::names::HostNames;
use super::passwords::{PasswordError, Passwords};
use super::pool::{Pool, PoolKind};
use super::route::Route;
use crate::auth::secrets::Secrets;
use crate::auth::server::{BackendLogin, BackendLoginStep, LoggedIn, LoginError};
use crate::auth::{BODY_MAX, Channel, Credential};
use crate::config::{BackendTls, Endpoint, PoolSettings, ServerRole};
use crate::metrics::{OpenFailure, PoolCounter, PoolHistogram};
use crate::net::certificate::Binding;
use crate::net::stream::{Socket, Stream};
use crate::net::tls::{ClientSide, TlsError, server_name};

use crate::state::parameters::Parameters;
use crate::state::settings::Settings;
use crate::state::timeout::Timeout;
use crate::wire::build;
use crate::wire::build::{RefusedLogin, error_fields};
use crate::wire::frame::{HEADER_LEN, header};
use crate::wire::startup::{CancelKey, SSL_REQUEST, Unsendable, build_cancel, build_startup};

/// Towards servers we speak 3.0: every server does, and 3.2 adds nothing but longer cancel keys.
const MINOR: u16 = 0;

/// The setting that the functions of `pgweir notify-sql` look at.
const INTERCEPT: (&str, &str) = ("pgweir.intercept", "on");

/// Connections of our own look names up in no schema that the owner of a database can write to: their statements run
/// with the rights of roles that may do more than he. In the StartupMessage it outranks ALTER DATABASE and ALTER ROLE.
const SEARCH_PATH: (&str, &str) = ("search_path", "pg_catalog");

/// The functions of Postgres that hold `CONNECTION LIMIT` of a role and of a database; full servers have the same
/// SQLSTATE.
const LIMITS: [&[u8]; 2] = [b"InitializeSessionUserId", b"CheckMyDatabase"];

/// Where a failed command is described further.
const LOG: &str = "The log of pgweir says more about the command.";

/// Why a backend could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The pool is gone.
    #[error("the pool was removed")]
    Removed,
    /// No address for the host.
    #[error("cannot resolve {host}: {source}")]
    Resolve {
        /// As configured.
        host: String,
        /// The error of the resolver.
        source: io::Error,
    },
    #[error("cannot reach {address}: {source}")]
    Io {
        address: String,
        /// The error of the system.
        source: io::Error,
    },
    /// `connect_timeout`.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The server does not do TLS, and the mode wants it.
    #[error("the server does not support TLS")]
    NoTls,
    /// The server spoke behind its answer to SSLRequest.
    #[error("the server sent clear text behind its TLS answer")]
    Injected,
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Login(#[from] LoginError),
    /// The command that prints it has not done so yet.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// A name or value that cannot be sent.
    #[error(transparent)]
    Unsendable(#[from] Unsendable),
    /// The server is a standby where a primary is wanted, or the reverse.
    #[error("the server is not a {0:?}")]
    ServerRole(ServerRole),
    /// `transaction_timeout` is no parameter of this server (before 17); the next login goes without it.
    #[error("the server has no transaction_timeout")]
    NoTransactionTimeout,
    /// Half a message, or one that is too long.
    #[error("the server broke the protocol")]
    Protocol,
}

impl OpenError {
    /// The server's refusal, or that of our side of the login; `None` if it did not come to a login.
    pub(crate) fn refusal(&self) -> Option<RefusedLogin> {
        let without = |code: &str, message| RefusedLogin { code: code.into(), message, detail: None, hint: None };
        match self {
            Self::Login(LoginError::Server(error)) => {
                let said = error.sqlstate.as_ref().and_then(|_| RefusedLogin::read(&error.body));
                Some(said.unwrap_or_else(|| without("XX000", error.message.clone())))
            }
            Self::Login(error) => Some(without("28000", error.to_string())),
            Self::Password(error) => {
                Some(RefusedLogin { hint: Some(LOG.into()), ..without("57P03", error.to_string()) })
            }
            _ => None,
        }
    }

    /// Whether the server knows the role or its password no longer, or wants neither.
    pub(crate) fn is_denial(&self) -> bool {
        match self {
            Self::Login(LoginError::NothingAsked(_)) => true,
            // invalid_authorization_specification and below, insufficient_privilege (CONNECT)
            Self::Login(LoginError::Server(error)) => {
                error.sqlstate.as_deref().is_some_and(|code| code.starts_with("28") || code == "42501")
            }
            _ => false,
        }
    }

    /// Whether another password might be the right one.
    fn may_be_about_the_password(&self) -> bool {
        let Self::Login(LoginError::Server(error)) = self else { return false };
        matches!(error.sqlstate.as_deref(), Some("28P01" | "28000"))
    }

    /// Whether the server, or a pooler in between, may have refused a parameter of the StartupMessage that it does not
    /// know: PgBouncer says protocol_violation, others that there is no such parameter or feature.
    fn may_be_about_a_setting(&self) -> bool {
        let Self::Login(LoginError::Server(error)) = self else { return false };
        matches!(error.sqlstate.as_deref(), Some("08P01" | "0A000" | "22023" | "42602" | "42704"))
    }
}

impl From<&OpenError> for FailureKind {
    fn from(error: &OpenError) -> Self {
        match error {
            OpenError::Login(LoginError::Server(error)) => match error.sqlstate.as_deref() {
                // too_many_connections: of the role, of the database, or of the server
                Some("53300") if LIMITS.contains(&error_fields(&error.body).routine) => Self::Full,
                Some("53300") => Self::Busy,
                // cannot_connect_now, admin_shutdown, crash_shutdown
                Some(code) if code.starts_with("57P") => Self::Unreachable,
                _ => Self::Refused,
            },
            OpenError::Login(_) | OpenError::Password(_) | OpenError::Removed | OpenError::Unsendable(_) => {
                Self::Refused
            }
            _ => Self::Unreachable,
        }
    }
}

impl From<FailureKind> for OpenFailure {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Unreachable => Self::Unreachable,
            FailureKind::Refused => Self::Refused,
            FailureKind::Full | FailureKind::Busy => Self::Busy,
        }
    }
}

/// A backend that is to be opened.
#[derive(Clone, Copy)]
struct Opening<'a> {
    pool: &'a Pool,
    settings: &'a PoolSettings,
    credential: &'a Credential,
    worker: usize,
    user: BackendUser,
    /// The one server that is meant, where there are several.
    to: Option<&'a ServerTarget>,
}

/// Whose statements a backend will run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BackendUser {
    /// Clients of its pool.
    Clients,
    /// We ourselves.
    Pgweir,
}

/// The parts that dials need besides the pool.
pub struct Opener {
    secrets: Arc<Secrets>,
    none: Settings,
    control_connections: ControlConnections,
    names: HostNames,
    passwords: Passwords,
    tls: Mutex<HashMap<BackendTls, ClientSide>>,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").finish_non_exhaustive()
    }
}

impl Opener {
    /// `none` is the settings of a backend as it logs in.
    pub fn new(secrets: Arc<Secrets>, none: Settings) -> Self {
        Self {
            secrets,
            none,
            control_connections: ControlConnections::default(),
            names: HostNames::default(),
            passwords: Passwords::default(),
            tls: Mutex::default(),
        }
    }

    /// Connections opened here that are in no pool.
    pub fn control_connections(&self) -> &ControlConnections {
        &self.control_connections
    }

    /// The names of servers.
    pub(crate) fn names(&self) -> &HostNames {
        &self.names
    }

    /// The passwords that commands print.
    pub(crate) fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    /// Forgets certificates, so that the next connection reads them again.
    pub fn forget_certificates(&self) {
        self.tls.lock().expect("no panic while held").clear();
    }

    /// Opens a backend of `pool` on the current reactor, which is `worker`'s; at this one of its servers, if one is
    /// said.
    pub async fn open(&self, pool: &Pool, to: Option<&ServerTarget>, worker: usize) -> Result<Backend, OpenError> {
        let user = if pool.name.kind == PoolKind::Internal { BackendUser::Pgweir } else { BackendUser::Clients };
        self.open_for(user, pool, to, worker).await
    }

    /// As [`Self::open`], for statements of our own.
    pub(crate) async fn open_own(&self, pool: &Pool, worker: usize) -> Result<Backend, OpenError> {
        self.open_for(BackendUser::Pgweir, pool, None, worker).await
    }

    async fn open_for(
        &self,
        user: BackendUser,
        pool: &Pool,
        to: Option<&ServerTarget>,
        worker: usize,
    ) -> Result<Backend, OpenError> {
        let since = Instant::now();
        let opened = self.open_with(user, pool, &pool.credential(), to, worker).await;
        match &opened {
            Ok(_) => {
                pool.stats.worker(worker).record(PoolHistogram::Open, since.elapsed());
                pool.set_refusal(None);
            }
            Err(error) => {
                pool.stats.worker(worker).add(PoolCounter::OpenFailures(FailureKind::from(error).into()));
                tracing::warn!(database = %pool.name.database, role = %pool.name.role, %error, "cannot open a backend");
                let kind = FailureKind::from(error);
                if kind != FailureKind::Unreachable {
                    pool.set_refusal(error.refusal());
                }
            }
        }
        opened
    }

    /// Opens a backend with a credential that is to be tried, and that clients will not use.
    pub(crate) async fn check(
        &self,
        pool: &Pool,
        credential: &Credential,
        worker: usize,
    ) -> Result<Backend, OpenError> {
        match self.open_with(BackendUser::Pgweir, pool, credential, None, worker).await {
            // A pooler in between knows no search_path, and the only statement of a check has no operator.
            Err(error) if error.may_be_about_a_setting() => {
                self.open_with(BackendUser::Clients, pool, credential, None, worker).await
            }
            other => other,
        }
    }

    async fn open_with(
        &self,
        user: BackendUser,
        pool: &Pool,
        credential: &Credential,
        to: Option<&ServerTarget>,
        worker: usize,
    ) -> Result<Backend, OpenError> {
        let settings = &*Arc::clone(&pool.settings());
        let limit = settings.pool.connect_timeout;
        let attempt = async |credential: &Credential| {
            let opening = Opening { pool, settings, credential, worker, user, to };
            timeout(limit, self.try_hosts(opening)).await.map_err(|_| OpenError::Timeout(limit))?
        };
        let Credential::Command(command) = credential else {
            return attempt(credential).await;
        };
        let issued = self.passwords.current(command).await?;
        match attempt(&Credential::Password(issued.clone())).await {
            // The password at the server is another one by now, or a token has had its time.
            Err(error) if error.may_be_about_the_password() => {
                match self.passwords.other_than(&issued, command).await {
                    Some(other) => attempt(&Credential::Password(other)).await,
                    None => Err(error),
                }
            }
            opened => opened,
        }
    }

    /// One host after the other, beginning with the one that worked last, so that a dead one costs only once.
    async fn try_hosts(&self, opening: Opening<'_>) -> Result<Backend, OpenError> {
        let Opening { pool, settings, to, .. } = opening;
        if let Some(to) = to {
            return self.try_target(opening, to).await;
        }
        if let Some(route) = pool.route() {
            return self.try_route(opening, &route).await;
        }
        let hosts = &settings.endpoint.hosts;
        let share = host_share(settings);
        let first = pool.host.load(Ordering::Relaxed);
        let mut last = OpenError::Removed;
        for index in (0..hosts.len()).map(|i| (first + i) % hosts.len()) {
            let attempt = self.try_host(opening, &hosts[index], settings.endpoint.port);
            match timeout(share, attempt).await {
                Ok(Ok(backend)) => {
                    pool.host.store(index, Ordering::Relaxed);
                    return Ok(backend);
                }
                // Another host of the same cluster would refuse the same login.
                Ok(Err(error)) if FailureKind::from(&error) == FailureKind::Refused => return Err(error),
                Ok(Err(error)) => last = error,
                Err(_) => last = OpenError::Timeout(share),
            }
        }
        Err(last)
    }

    /// The one reader that is meant. A topology is asked to look again if it cannot be opened.
    async fn try_target(&self, opening: Opening<'_>, to: &ServerTarget) -> Result<Backend, OpenError> {
        let HostPort { host, port } = &to.host;
        let opened = match to.address {
            Some(address) => {
                let (addr, tls) = ((address, *port).into(), opening.settings.endpoint.tls.clone());
                self.try_address(opening, ServerAddress::Tcp { addr, host: host.clone(), tls }).await
            }
            None => self.try_host(opening, host, *port).await,
        };
        if let (Err(_), Some(route)) = (&opened, opening.pool.route()) {
            route.doubt();
        }
        opened
    }

    /// The servers that a topology has found, which is asked to look again if none of them can be opened.
    async fn try_route(&self, opening: Opening<'_>, route: &Route) -> Result<Backend, OpenError> {
        let mut last = OpenError::ServerRole(opening.settings.endpoint.server_role);
        for HostPort { host, port } in route.servers().iter() {
            match self.try_host(opening, host, *port).await {
                Ok(backend) => return Ok(backend),
                Err(error) if FailureKind::from(&error) == FailureKind::Refused => return Err(error),
                Err(error) => last = error,
            }
        }
        route.doubt();
        Err(last)
    }

    async fn try_host(&self, opening: Opening<'_>, host: &str, port: u16) -> Result<Backend, OpenError> {
        let settings = opening.settings;
        // Names are resolved at every connect: after a failover the name leads elsewhere.
        let addresses = self.addresses(host, port, &settings.endpoint).await?;
        let deadline = Instant::now() + host_share(settings);
        let mut last = OpenError::Resolve { host: host.to_owned(), source: io::ErrorKind::NotFound.into() };
        for (left, address) in (1..=addresses.len() as u32).rev().zip(addresses) {
            // Each address leaves the others their part of the time: one that swallows packets must not hide those
            // behind it.
            let limit = deadline.saturating_duration_since(Instant::now()) / left;
            let attempt = self.try_address(opening, address);
            match timeout(limit, attempt).await {
                Ok(Ok(backend)) => return Ok(backend),
                Ok(Err(error)) if FailureKind::from(&error) == FailureKind::Refused => return Err(error),
                Ok(Err(error)) => last = error,
                Err(_) => last = OpenError::Timeout(limit),
            }
        }
        Err(last)
    }

    async fn addresses(&self, host: &str, port: u16, endpoint: &Endpoint) -> Result<Vec<ServerAddress>, OpenError> {
        if host.starts_with('/') {
            return Ok(vec![ServerAddress::Unix(PathBuf::from(host).join(format!(".s.PGSQL.{port}")))]);
        }
        let found = self.names.look_up(host, port).await;
        let found = found.map_err(|source| OpenError::Resolve { host: host.to_owned(), source })?;
        let address = |addr| ServerAddress::Tcp { addr, host: host.to_owned(), tls: endpoint.tls.clone() };
        Ok(found.into_iter().map(address).collect())
    }

    async fn try_address(&self, opening: Opening<'_>, address: ServerAddress) -> Result<Backend, OpenError> {
        let Opening { pool, settings, .. } = opening;
        let intercepts =
            settings.intercepts && pool.name.kind == PoolKind::Ordinary && pool.takes_intercept.load(Ordering::Relaxed);
        let attempt = |intercepts| self.log_in(opening, address.clone(), intercepts);
        let opened = match attempt(intercepts).await {
            Err(OpenError::NoTransactionTimeout) => attempt(intercepts).await,
            other => other,
        };
        match opened {
            Err(error) if intercepts && error.may_be_about_a_setting() => {
                let opened = attempt(false).await;
                if opened.is_ok() && pool.takes_intercept.swap(false, Ordering::Relaxed) {
                    tracing::warn!(
                        database = %pool.name.database, role = %pool.name.role, %error,
                        "the server takes no pgweir.intercept; what its functions notify stays a NOTIFY"
                    );
                }
                opened
            }
            other => other,
        }
    }

    async fn log_in(
        &self,
        opening: Opening<'_>,
        address: ServerAddress,
        intercepts: bool,
    ) -> Result<Backend, OpenError> {
        let Opening { pool, settings, credential, worker, .. } = opening;
        let endpoint = &settings.endpoint;
        let (mut stream, channel) = self.connect(&address).await?;
        let packet = startup_packet(opening, intercepts)?;
        let failed = |source| OpenError::Io { address: address.to_string(), source };
        stream.write_all(&packet).await.map_err(failed)?;
        let mut login =
            BackendLogin::new(endpoint.role.clone(), credential.clone(), channel, MINOR, Arc::clone(&self.secrets));
        let logged_in = match drive(&mut stream, &mut login).await {
            Err(OpenError::Login(LoginError::Server(error)))
                if error.sqlstate.as_deref() == Some("42704")
                    && settings.timeouts.transaction.is_some()
                    && pool.takes_transaction_timeout.swap(false, Ordering::Relaxed) =>
            {
                return Err(OpenError::NoTransactionTimeout);
            }
            other => other?,
        };
        let LoggedIn { parameters, key, .. } = logged_in;
        let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
        let parameters = Parameters::new(parameters.into_iter().map(|(name, value)| (name, text(value))).collect());
        self.check_server_role(&mut stream, endpoint.server_role, &parameters).await?;
        // Clients are told those of their own backends: ours begin with a search_path, which Postgres 18 reports.
        let parameters = match opening.user {
            BackendUser::Clients => pool.parameters.share(parameters),
            BackendUser::Pgweir => parameters,
        };
        if let ServerAddress::Tcp { addr, .. } = &address {
            pool.add_address(addr.ip());
        }
        let target = BackendHandle::new(address, key.map(|key| (key.pid, key.secret.into_vec())));
        let epoch = Epoch::new(pool, settings.timeouts);
        Ok(Backend::new(stream, parameters, self.none.clone(), epoch, target, worker))
    }

    /// A connection to another pgweir, under TLS if the address says so.
    pub(crate) async fn reach(&self, address: &ServerAddress) -> Result<Stream, OpenError> {
        Ok(self.connect(address).await?.0)
    }

    /// Connects, under TLS if the address says so.
    async fn connect(&self, address: &ServerAddress) -> Result<(Stream, Channel), OpenError> {
        let failed = |source| OpenError::Io { address: address.to_string(), source };
        let (addr, host, tls) = match address {
            ServerAddress::Unix(path) => {
                let socket = UnixStream::connect(path).await.map_err(failed)?;
                return Ok((Stream::Plain(Socket::Unix(socket)), Channel::Local));
            }
            ServerAddress::Tcp { addr, host, tls } => (addr, host, tls),
        };
        let mut socket = Socket::Tcp(TcpStream::connect(addr).await.map_err(failed)?);
        socket.tune().map_err(failed)?;
        let Some(side) = self.client_side(tls)? else {
            let channel = if socket.is_local() { Channel::Local } else { Channel::Open };
            return Ok((Stream::Plain(socket), channel));
        };
        socket.write_all(&SSL_REQUEST).await.map_err(failed)?;
        let mut answer = [0; 1];
        socket.read_exact(&mut answer).await.map_err(failed)?;
        match answer[0] {
            b'S' if socket.has_input() => Err(OpenError::Injected),
            b'S' => {
                let may_have_passwords = socket.is_local() || tls.mode.checks_certificate() || tls.clear_text_password;
                let connector = TlsConnector::from(side.config);
                let stream = connector.connect(server_name(host)?, socket).await.map_err(failed)?;
                let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                let binding = certificate.and_then(Binding::of);
                let channel = match may_have_passwords {
                    true => Channel::Tls { binding },
                    false => Channel::Unverified { binding },
                };
                Ok((Stream::Backend(Box::new(stream)), channel))
            }
            b'N' if !side.is_required => {
                let channel = if socket.is_local() { Channel::Local } else { Channel::Open };
                Ok((Stream::Plain(socket), channel))
            }
            b'N' => Err(OpenError::NoTls),
            _ => Err(OpenError::Protocol),
        }
    }

    fn client_side(&self, tls: &BackendTls) -> Result<Option<ClientSide>, TlsError> {
        let mut known = self.tls.lock().expect("no panic while held");
        if let Some(side) = known.get(tls) {
            return Ok(Some(side.clone()));
        }
        let side = ClientSide::new(tls)?;
        if let Some(side) = &side {
            known.insert(tls.clone(), side.clone());
        }
        Ok(side)
    }

    async fn check_server_role(
        &self,
        stream: &mut Stream,
        wanted: ServerRole,
        parameters: &Parameters,
    ) -> Result<(), OpenError> {
        if wanted == ServerRole::Any {
            return Ok(());
        }
        let is_standby = match parameters.value("in_hot_standby") {
            Some(value) => value == "on",
            // Servers before 14 do not report it.
            None => is_standby(stream).await?,
        };
        if is_standby == (wanted == ServerRole::Standby) { Ok(()) } else { Err(OpenError::ServerRole(wanted)) }
    }

    /// Sends a CancelRequest and waits until the server has dealt with it, which the server shows by closing.
    pub async fn cancel(&self, target: &BackendHandle) -> Result<(), OpenError> {
        let Some((pid, secret)) = &target.key else { return Ok(()) };
        let (mut stream, _) = self.connect(&target.address).await?;
        let key = CancelKey { pid: *pid, secret: secret.clone().into() };
        let failed = |source| OpenError::Io { address: target.address.to_string(), source };
        stream.write_all(&build_cancel(&key)).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        stream.closed().await;
        Ok(())
    }
}

/// The part of `connect_timeout` that each of several hosts gets.
fn host_share(settings: &PoolSettings) -> Duration {
    settings.pool.connect_timeout / u32::try_from(settings.endpoint.hosts.len()).unwrap_or(1).max(1)
}

/// The StartupMessage, with only the pool's own parameters: RESET ALL and DISCARD ALL come back to exactly this.
fn startup_packet(opening: Opening<'_>, intercepts: bool) -> Result<Vec<u8>, Unsendable> {
    let Opening { pool, settings, user, .. } = opening;
    let endpoint = &settings.endpoint;
    let takes =
        |timeout: &Timeout| *timeout != Timeout::Transaction || pool.takes_transaction_timeout.load(Ordering::Relaxed);
    let limit =
        |timeout: Timeout| Some((timeout.setting(), timeout.limit(&settings.timeouts)?.as_millis().to_string()));
    let limits: Vec<_> = Timeout::ALL.into_iter().filter(takes).filter_map(limit).collect();
    let named = [("user", endpoint.role.as_str()), ("database", endpoint.dbname.as_str())];
    let limits = limits.iter().map(|(n, v)| (*n, v.as_str()));
    let replication = pool.name.parameters().iter().map(|(n, v)| (n.as_str(), v.as_str()));
    let intercept = intercepts.then_some(INTERCEPT);
    let search_path = (user == BackendUser::Pgweir).then_some(SEARCH_PATH);
    build_startup(MINOR, named.into_iter().chain(limits).chain(replication).chain(intercept).chain(search_path))
}

async fn drive(stream: &mut Stream, login: &mut BackendLogin) -> Result<LoggedIn, OpenError> {
    loop {
        let (tag, body) = read_frame(stream).await?;
        let mut step = login.message(tag, &body)?;
        if let BackendLoginStep::Hash(job) = step {
            let keys = tokio::task::spawn_blocking(move || job.run()).await.map_err(|_| OpenError::Protocol)?;
            step = login.hashed(keys);
        }
        match step {
            BackendLoginStep::Read => {}
            BackendLoginStep::Send(bytes) => send(stream, &bytes).await?,
            BackendLoginStep::Done(logged_in) => return Ok(logged_in),
            BackendLoginStep::Hash(_) => return Err(OpenError::Protocol),
        }
    }
}

async fn send(stream: &mut Stream, bytes: &[u8]) -> Result<(), OpenError> {
    let failed = |source| OpenError::Io { address: "the server".into(), source };
    stream.write_all(bytes).await.map_err(failed)?;
    stream.flush().await.map_err(failed)
}

/// Reads one frame, no longer than anything a login or a one-row answer may hold.
pub(crate) async fn read_frame(stream: &mut Stream) -> Result<(u8, Vec<u8>), OpenError> {
    let failed = |source| OpenError::Io { address: "the server".into(), source };
    let mut head = [0; HEADER_LEN];
    stream.read_exact(&mut head).await.map_err(failed)?;
    let frame = header(&head).ok().flatten().filter(|frame| frame.body <= BODY_MAX).ok_or(OpenError::Protocol)?;
    let mut body = vec![0; frame.body];
    stream.read_exact(&mut body).await.map_err(failed)?;
    Ok((frame.tag, body))
}

/// Whether the server is a standby, as one boolean; its answer shows at the same time that it is there.
pub(crate) const IS_STANDBY: &str = "SELECT pg_catalog.pg_is_in_recovery()";

/// Asks the server [`IS_STANDBY`].
pub(crate) async fn is_standby(stream: &mut Stream) -> Result<bool, OpenError> {
    let mut query = Vec::new();
    build::query(&mut query, IS_STANDBY.as_bytes());
    send(stream, &query).await?;
    let mut value = None;
    loop {
        match read_frame(stream).await? {
            (b'D', body) => value = Some(body.last() == Some(&b't')),
            (b'Z', _) => return value.ok_or(OpenError::Protocol),
            (b'E', _) => return Err(OpenError::Protocol),
            _ => {}
        }
    }
}
