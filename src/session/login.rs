//! From the first byte of a connection to its first ReadyForQuery.
//!
//! Runs in a boxed future that is gone before the client idles. Everything here is bounded: packets by length, the
//! client's part by `listen.startup_timeout` and `listen.login_timeout`, our part by the timeouts of its pool, the
//! number of connections by [`Places`](crate::admission::places::Places), and the number of logins and their cost by
//! [`Entrance`](crate::admission::entrance::Entrance). Cancel requests pass before any of these limits but
//! the last two.

mod cancel;
mod confirm;
mod first;
mod head_clock;
mod origin;

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use self::cancel::Sender;
use self::head_clock::HeadClock;
use self::origin::ClientOrigin;
use super::auth_query;
use super::client::Client;
use super::notifications::Notifications;
use super::session::Session;
use crate::admission::fair_queue::Caller;
use crate::admission::login::PeerAddress;
use crate::admission::places::ConnectionPlace;
use crate::auth::client::{Applicant, ClientCertificate, ClientLogin, ClientLoginStep, Method, Refusal};
use crate::auth::mock::SecretForm;
use crate::auth::secrets::Stored;
use crate::auth::{AUTHENTICATION_OK, BODY_MAX, Channel, Credential};
use crate::clients::{ClientFacts, ClientHandle, ClientSlot, Signal};
use crate::config::{Auth, CONSOLE_NAMES, CertificateField, Config, PoolMode};
use crate::error::{LoginFault, sqlstate};
use crate::metrics::{PoolCounter, ProcessCounter, ProcessHistogram};
use crate::net::certificate;
use crate::net::listen::Accepted;
use crate::net::stream::{GOODBYE_MAX, Socket, Stream};
use crate::net::tls::ServerTls;
use crate::pool::core::Bottleneck;
use crate::pool::lease::{Lease, LeaseError};
use crate::pool::pool::{Pool, PoolKind, PoolName};
use crate::proxy::Proxy;
use crate::session::context::Worker;
use crate::sql::Value;
use crate::state::parameters::Parameters;
use crate::state::settings::Values;
use crate::wire::build;
use crate::wire::expected::TransactionStatus;
use crate::wire::frame::{HEADER_LEN, header};
use crate::wire::startup::{MINOR_MAX, Replication, Startup, split_options};
use crate::workload::role_bit;

const APPLICATION_NAME: &str = "application_name";

/// Outcome of a login.
pub(crate) enum Welcome {
    /// A client, ready for its first message, and its place in `listen.clients_max`.
    Client(Box<Client>, ConnectionPlace),
    /// A user of the console, let in on this connection.
    Console(Stream, ClientFacts, ConnectionPlace),
}

/// Logs a connection in, from its first byte to its first ReadyForQuery. `None`: it was refused, has gone, or was a
/// CancelRequest.
pub(crate) async fn log_in(worker: Rc<Worker>, accepted: Accepted) -> Option<Welcome> {
    let origin = accepted.ip().map(PeerAddress::from);
    let (place, mut eviction) = worker.proxy.places.enter(origin, worker.proxy.room())?;
    tokio::select! {
        biased;
        () = eviction.comes() => {
            tracing::debug!("connection gave way before it had logged in");
            worker.proxy.process.add(ProcessCounter::GaveWay);
            None
        }
        welcome = let_in(&worker, accepted, place) => welcome,
    }
}

/// Serves a connection that has a place, up to its login.
async fn let_in(worker: &Rc<Worker>, accepted: Accepted, mut place: ConnectionPlace) -> Option<Welcome> {
    let since = Instant::now();
    let ip = accepted.ip();
    let (socket, addr) = Socket::open(accepted).ok()?;
    let mut origin = ClientOrigin::new(ip, addr);
    let _ = socket.tune();
    let mut stream = Stream::Plain(socket);
    let limit = worker.proxy.config.load().listen.login_timeout;
    let mut named = None;
    let identified = timeout(limit, identify(worker, &mut stream, &mut origin, &mut place, &mut named)).await;
    let welcomed = match identified.unwrap_or(Err(LoginFault::TooSlow)) {
        Ok(None) => {
            // The end of its TLS shows a client that its cancel was dealt with.
            let _ = timeout(GOODBYE_MAX, stream.shutdown()).await;
            return None;
        }
        // A client that waits for its first backend may go away, and must not keep its place then.
        Ok(Some((attempt, credential))) => tokio::select! {
            biased;
            guest = welcome(worker, attempt, &credential, &origin.addr, stream.is_tls()) => guest,
            () = stream.ended() => return None,
        },
        Err(fault) => Err(fault),
    };
    let settled = welcomed.and_then(|guest| settle(worker, &mut place, guest));
    match settled {
        Ok(Guest::Client(newcomer)) => {
            let greeted = timeout(limit, greet(worker, stream, *newcomer)).await;
            let client = greeted.ok()?.ok()?;
            worker.proxy.process.record(ProcessHistogram::Login, since.elapsed());
            record_login(worker, &origin.addr, named.as_ref(), "client", since);
            Some(Welcome::Client(Box::new(client), place))
        }
        Ok(Guest::Console(facts)) => {
            timeout(limit, stream.write_all(&AUTHENTICATION_OK)).await.ok()?.ok()?;
            record_login(worker, &origin.addr, named.as_ref(), "console", since);
            Some(Welcome::Console(stream, facts, place))
        }
        Err(fault) => {
            if fault.is_crowd() {
                // A client that waits for its refusal takes nobody's place.
                drop(place);
                tokio::select! {
                    () = worker.proxy.entrance.hold() => {}
                    () = stream.ended() => return None,
                }
            }
            record_refusal(worker, &origin.addr, named.as_ref(), &fault);
            refuse(worker, &mut stream, &fault).await;
            None
        }
    }
}

/// Gives a guest its place for as long as it stays.
fn settle(worker: &Worker, place: &mut ConnectionPlace, guest: Guest) -> Result<Guest, LoginFault> {
    let has_place = match guest {
        Guest::Client(_) => place.settle_client(worker.proxy.room()),
        // The console lets an administrator in, however many clients there are.
        Guest::Console(_) => place.settle(),
    };
    if has_place { Ok(guest) } else { Err(LoginFault::TooManyClients) }
}

/// Serves a connection on which only CancelRequests come in: of a sibling, or at the address for peers.
pub(crate) async fn serve_peer(proxy: &Arc<Proxy>, accepted: Accepted, is_sibling: bool) {
    let address = accepted.ip().map(PeerAddress::from);
    let sender = if is_sibling { Sender::Sibling } else { Sender::Client(address) };
    let Ok((socket, _)) = Socket::open(accepted) else { return };
    if is_sibling && !matches!(&socket, Socket::Unix(unix) if crate::fleet::is_ours(unix)) {
        return;
    }
    let mut stream = Stream::Plain(socket);
    let tls = Arc::clone(&proxy.tls.load());
    let limit = proxy.config.load().listen.login_timeout;
    let mut head = HeadClock::new(proxy.config.load().listen.startup_timeout);
    let _ = timeout(limit, first::packet(proxy, &mut stream, sender, tls.as_ref().as_ref(), &mut head)).await;
    let _ = timeout(GOODBYE_MAX, stream.shutdown()).await;
}

/// As whom a connection wants to come in, before that is proved.
struct ClaimedIdentity {
    role: String,
    database: String,
}

/// Records a login, if that is wanted.
fn record_login(worker: &Worker, addr: &str, named: Option<&ClaimedIdentity>, kind: &str, since: Instant) {
    if let Some(ClaimedIdentity { role, database }) = named.filter(|_| worker.proxy.config.load().listen.log_logins) {
        tracing::info!(client.addr = %addr, role, database, kind, took = ?since.elapsed(), "login");
    }
}

/// Records a login that failed, unless there are too many of them.
fn record_refusal(worker: &Worker, addr: &str, named: Option<&ClaimedIdentity>, fault: &LoginFault) {
    let (role, database) = named.map_or(("", ""), |named| (&named.role, &named.database));
    let reason = fault.reason().word();
    // A client that has vanished says nothing about anybody's password.
    if matches!(fault, LoginFault::Io(_)) {
        tracing::debug!(client.addr = %addr, role, database, reason, %fault, "login failed");
        return;
    }
    let Some(left_out) = worker.proxy.entrance.record_refusal() else { return };
    if let LoginFault::Lookup(_) = fault {
        tracing::warn!(client.addr = %addr, role, database, reason, %fault, left_out, "login failed");
    } else {
        tracing::info!(client.addr = %addr, role, database, reason, %fault, left_out, "login failed");
    }
}

/// Sends a client the reason for its refusal.
async fn refuse(worker: &Worker, stream: &mut Stream, fault: &LoginFault) {
    if matches!(fault, LoginFault::Io(_) | LoginFault::Injected) {
        return;
    }
    worker.proxy.process.add(ProcessCounter::LoginFailures(fault.reason()));
    let mut error = Vec::new();
    // To one that speaks another protocol Postgres says nothing, either.
    if !fault.is_foreign() {
        let report = sqlstate::login(fault);
        worker.proxy.errors.count(&report.code);
        build::error_response(&mut error, &report);
    }
    let goodbye = async {
        if stream.write_all(&error).await.is_ok() && stream.shutdown().await.is_ok() {
            stream.closed().await;
        }
    };
    let _ = timeout(GOODBYE_MAX, goodbye).await;
}

/// Reads from a client until its identity is known. `None`: it was a CancelRequest, which is dealt with.
async fn identify(
    worker: &Rc<Worker>,
    stream: &mut Stream,
    origin: &mut ClientOrigin,
    place: &mut ConnectionPlace,
    named: &mut Option<ClaimedIdentity>,
) -> Result<Option<(LoginAttempt, Credential)>, LoginFault> {
    // The login keeps one set of certificates throughout: a reload may come in between.
    let tls = Arc::clone(&worker.proxy.tls.load());
    let tls = tls.as_ref().as_ref();
    let mut head = HeadClock::new(worker.proxy.config.load().listen.startup_timeout);
    if origin.read_header(&worker.proxy.config.load().listen, stream, &head).await? {
        place.come_from(origin.address(), worker.proxy.room());
    }
    let packet = first::packet(&worker.proxy, stream, Sender::Client(origin.address()), tls, &mut head);
    let Some(startup) = packet.await? else { return Ok(None) };
    if tls.is_some_and(|tls| tls.is_required) && !stream.is_tls() && !origin.is_unix() {
        return Err(LoginFault::TlsRequired);
    }
    place.speak();
    *named = Some(ClaimedIdentity { role: startup.user.clone(), database: startup.database.clone() });
    if let Some(negotiation) = startup.negotiation() {
        stream.write_all(&negotiation).await?;
    }
    if worker.proxy.is_draining() {
        return Err(LoginFault::Draining);
    }
    if !is_console(&startup) {
        if worker.proxy.places.is_full(worker.proxy.room()) {
            return Err(LoginFault::TooManyClients);
        }
        if place.is_beyond_address {
            return Err(LoginFault::TooManyOfAddress);
        }
    }
    origin.check_role(&worker.proxy.config.load(), &startup.user)?;
    let is_admin = is_console(&startup) && worker.proxy.config.load().admin.access(&startup.user).is_some();
    let caller = Caller::new(origin.address(), &startup.user, is_known(worker, &startup.user));
    wait_for_slot(worker, stream, caller, is_admin).await?;
    let attempt = LoginAttempt { startup, caller };
    let credential = authenticate(worker, stream, origin, &attempt, tls).await?;
    Ok(Some((attempt, credential)))
}

/// How much is known of a role before it has proved anything.
fn is_known(worker: &Worker, role: &str) -> bool {
    worker.proxy.config.load().roles.contains_key(role) || worker.proxy.clients.has_role(role)
}

/// Waits until [`Entrance`](crate::admission::entrance::Entrance) lets the client in, or it leaves.
async fn wait_for_slot(worker: &Worker, stream: &Stream, caller: Caller, is_admin: bool) -> Result<(), LoginFault> {
    let entrance = &worker.proxy.entrance;
    let slot = async { if is_admin { entrance.console_slot(caller).await } else { entrance.slot(caller).await } };
    let waited = tokio::select! {
        biased;
        waited = slot => waited?,
        () = stream.ended() => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    };
    if waited.is_zero() {
        return Ok(());
    }
    worker.proxy.process.record(ProcessHistogram::LoginDelay, waited);
    // The drain may have begun meanwhile.
    if worker.proxy.is_draining() { Err(LoginFault::Draining) } else { Ok(()) }
}

fn is_console(startup: &Startup) -> bool {
    CONSOLE_NAMES.contains(&startup.database.as_str())
}

// ---- authentication -----------------------------------------------------------------------------

/// A StartupMessage, and who sent it.
struct LoginAttempt {
    startup: Startup,
    caller: Caller,
}

/// A client or console user that may log in.
enum Guest {
    Client(Box<Newcomer>),
    Console(ClientFacts),
}

/// A client before its greeting.
struct Newcomer {
    session: Session,
    handle: ClientHandle,
    /// Settings that its role may not have as it wants them.
    refused: Vec<&'static str>,
}

async fn welcome(
    worker: &Rc<Worker>,
    LoginAttempt { startup, caller }: LoginAttempt,
    credential: &Credential,
    addr: &str,
    is_tls: bool,
) -> Result<Guest, LoginFault> {
    let proxy = &worker.proxy;
    if is_console(&startup) {
        if proxy.config.load().admin.access(&startup.user).is_none() {
            return Err(LoginFault::NotAdmin(startup.user));
        }
        if let Credential::Unproved(_) = credential {
            return Err(LoginFault::UnprovedAdmin);
        }
        // The console lets an administrator in, however many clients the role has.
        let slot = proxy.clients.role_slot(&startup.user.as_str().into(), None).expect("there is no limit");
        let database = startup.database.as_str().into();
        return Ok(Guest::Console(facts(&startup, (slot, None), database, addr, is_tls)));
    }
    if proxy.directory.is_disabled(&startup.database) {
        return Err(LoginFault::Disabled(startup.database));
    }
    if proxy.config.load().role(&startup.user).is_some_and(|role| !role.access.reaches(&startup.database)) {
        return Err(LoginFault::NotThisDatabase { role: startup.user, database: startup.database });
    }
    let mut settings = startup_settings(&startup)?;
    if proxy.config.load().listen.application_name_address {
        add_address(&mut settings, addr);
    }
    let name = PoolName {
        database: startup.database.as_str().into(),
        role: startup.user.as_str().into(),
        kind: replication(&startup).map_or(PoolKind::Ordinary, |parameters| PoolKind::Replication(parameters.into())),
    };
    let pool = proxy
        .directory
        .pool(name, credential, worker.id)
        .ok_or_else(|| LoginFault::NoDatabase(startup.database.clone()))?;
    if let Credential::Unproved(password) = credential {
        proxy.prove(&pool, password, caller, worker.id).await?;
    }
    let slots = slots(worker, &pool)?;
    let reported = greeting(worker, &pool).await?;
    let mode = if pool.is_dedicated() { PoolMode::Session } else { pool.settings().pool.mode };
    let settings = if pool.is_dedicated() { proxy.settings.none() } else { proxy.settings.intern(settings) };
    let exchange = proxy.hub.exchange(&pool.name.database);
    let facts = facts(&startup, slots, Arc::clone(&pool.name.database), addr, is_tls);
    let handle = proxy.clients.admit(facts, proxy.clock.second());
    let mut session = Session {
        role_bit: role_bit(&handle.entry().role),
        pool,
        mode,
        reported,
        startup: settings.clone(),
        settings,
        epoch: 0,
        statements: Default::default(),
        follow: None,
        knows_sequences: None,
        unknown_settings: None,
        pins: Default::default(),
        lexer: Default::default(),
        lanes: None,
        entry: Arc::clone(handle.entry()),
        notifications: Notifications::new(exchange),
    };
    session.update_lexer();
    let refused = session.begin_epoch(&proxy.settings);
    confirm::startup(worker, &mut session).await?;
    session.suspect_startup();
    Ok(Guest::Client(Box::new(Newcomer { session, handle, refused })))
}

/// The places of one more client among those of its role and of its database.
fn slots(worker: &Worker, pool: &Pool) -> Result<(ClientSlot, Option<ClientSlot>), LoginFault> {
    let PoolName { role, database, .. } = &pool.name;
    let clients = &worker.proxy.clients;
    let config = worker.proxy.config.load();
    let of_role = config.role(role).and_then(|role| role.limits.clients_max);
    let of_database = config.database(database).and_then(|database| database.clients_max);
    let role_slot = clients.role_slot(role, of_role).ok_or_else(|| LoginFault::TooManyOfRole(role.to_string()))?;
    let database_slot = clients.database_slot(database, of_database);
    Ok((role_slot, Some(database_slot.ok_or_else(|| LoginFault::TooManyOfDatabase(database.to_string()))?)))
}

fn facts(
    startup: &Startup,
    (slot, database_slot): (ClientSlot, Option<ClientSlot>),
    database: Arc<str>,
    addr: &str,
    is_tls: bool,
) -> ClientFacts {
    let application_name = startup.parameters.iter().rfind(|(name, _)| name == APPLICATION_NAME);
    ClientFacts {
        slot,
        database_slot,
        database,
        addr: addr.to_owned(),
        application_name: application_name.map_or("", |(_, value)| value).into(),
        is_tls,
        secret_len: if startup.agreed_minor() >= MINOR_MAX { 32 } else { 4 },
    }
}

/// Settings of the StartupMessage and its `options`; of two with one name the plain parameter counts, as in Postgres.
fn startup_settings(startup: &Startup) -> Result<Values, LoginFault> {
    let mut values = Values::new();
    let options = startup.options.as_deref().map(split_options).transpose()?.unwrap_or_default();
    for (name, value) in options.into_iter().chain(startup.parameters.iter().cloned()) {
        values.insert(name.to_ascii_lowercase(), Value::Text(Bytes::from(value)));
    }
    Ok(values)
}

/// Puts a client's address behind its `application_name`, as PgBouncer does. Of both together Postgres keeps the first
/// 63 bytes, so a long name gives way.
fn add_address(settings: &mut Values, addr: &str) {
    const LENGTH_MAX: usize = 63;
    let name = match settings.get(APPLICATION_NAME) {
        Some(Value::Text(name)) => String::from_utf8_lossy(name).into_owned(),
        _ => String::new(),
    };
    let shown = match name.is_empty() {
        true => addr.to_owned(),
        false => {
            let behind = format!(" - {addr}");
            let kept = name.floor_char_boundary(LENGTH_MAX.saturating_sub(behind.len()));
            format!("{}{behind}", &name[..kept])
        }
    };
    settings.insert(APPLICATION_NAME.to_owned(), Value::Text(shown.into()));
}

/// A replication connection takes all its parameters to the server in its StartupMessage: SET is impossible there.
fn replication(startup: &Startup) -> Option<Vec<(String, String)>> {
    let kind = match startup.replication {
        Replication::No => return None,
        Replication::Physical => "true",
        Replication::Logical => "database",
    };
    let mut parameters = vec![("replication".to_owned(), kind.to_owned())];
    parameters.extend(startup.options.clone().map(|options| ("options".to_owned(), options)));
    parameters.extend(startup.parameters.iter().cloned());
    Some(parameters)
}

async fn authenticate(
    worker: &Rc<Worker>,
    stream: &mut Stream,
    origin: &ClientOrigin,
    attempt: &LoginAttempt,
    tls: Option<&ServerTls>,
) -> Result<Credential, LoginFault> {
    let method = method(worker, attempt).await?;
    let LoginAttempt { startup, caller } = attempt;
    let channel = match stream {
        Stream::Plain(socket) if origin.is_local(socket) => Channel::Local,
        Stream::Plain(_) => Channel::Open,
        _ => Channel::Tls { binding: tls.and_then(|tls| tls.binding.clone()) },
    };
    let certificate = match stream {
        Stream::Client(inner) if tls.is_some_and(|tls| tls.verifies_clients) => {
            let shown = inner.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            match shown.is_some_and(|shown| is_of_role(&worker.proxy.config.load(), shown, &startup.user)) {
                true => ClientCertificate::OfRole,
                false => ClientCertificate::OfAnother,
            }
        }
        _ => ClientCertificate::NotAsked,
    };
    let applicant = Applicant { role: startup.user.clone(), channel, certificate };
    let mut login = ClientLogin::new(applicant, method, Arc::clone(&worker.proxy.secrets));
    let mut step = login.start();
    loop {
        step = match step {
            ClientLoginStep::Send(bytes) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
                let (tag, body) = read_message(stream).await?;
                login.message(tag, &body)
            }
            ClientLoginStep::Hash(job) => {
                let keys = worker.proxy.entrance.compute(*caller, move || job.run()).await?;
                login.hashed(keys)
            }
            ClientLoginStep::Done { send, credential } => {
                stream.write_all(&send).await?;
                return Ok(credential);
            }
            ClientLoginStep::Refused(refusal) => return Err(refusal.into()),
        };
    }
}

/// Whether a certificate is one of a role's.
fn is_of_role(config: &Config, certificate: &CertificateDer<'_>, name: &str) -> bool {
    let names = certificate::names(certificate);
    match config.role(name).map(|role| &role.access.certificates).filter(|patterns| !patterns.is_empty()) {
        Some(patterns) => names.iter().any(|(field, name)| patterns.iter().any(|pattern| pattern.fits(*field, name))),
        None => names.iter().any(|(field, shown)| *field == CertificateField::CommonName && shown == name),
    }
}

/// Reads a message of a client that is not authenticated yet.
async fn read_message(stream: &mut Stream) -> Result<(u8, Vec<u8>), LoginFault> {
    let mut head = [0; HEADER_LEN];
    stream.read_exact(&mut head).await?;
    let frame = header(&head)?.ok_or(io::ErrorKind::UnexpectedEof).map_err(io::Error::from)?;
    if frame.body > BODY_MAX {
        return Err(Refusal::TooLong(frame.body).into());
    }
    let mut body = vec![0; frame.body];
    stream.read_exact(&mut body).await?;
    Ok((frame.tag, body))
}

async fn method(worker: &Rc<Worker>, attempt: &LoginAttempt) -> Result<Method, LoginFault> {
    let startup = &attempt.startup;
    let config = Arc::clone(&worker.proxy.config.load());
    let usual = worker.proxy.usual_login.load();
    let auth = config.role(&startup.user).map(|role| &role.auth);
    let has_query = config.database(&startup.database).is_some_and(|database| database.auth_query.is_some());
    // A role that does not exist is treated as most of those that do, whether or not the outcome matters.
    let (auth, is_known) = match auth {
        Some(auth) => (auth.clone(), true),
        None => (usual.auth.clone(), false),
    };
    let looked_up = match auth {
        Auth::AuthQuery => look_up(worker, &config, attempt).await?,
        Auth::Passthrough if has_query => look_up(worker, &config, attempt).await?,
        Auth::Password { .. } | Auth::Passthrough | Auth::Trust | Auth::Certificate => None,
    };
    let looked_up = looked_up.filter(|_| is_known);
    Ok(match (auth, looked_up) {
        (Auth::Trust, _) => Method::Trust,
        (Auth::Certificate, _) => Method::Certificate,
        (Auth::Password { secret, md5 }, _) if is_known => match Stored::parse(&secret) {
            Ok(secret) => Method::Password { secret, md5 },
            Err(_) => Method::Nobody(usual.form),
        },
        (Auth::Password { .. }, _) => Method::Nobody(usual.form),
        (Auth::AuthQuery, Some(secret)) => Method::Password { secret, md5: false },
        (Auth::Passthrough, Some(Stored::Verifier(verifier))) => Method::Passthrough { verifier: Some(verifier) },
        (Auth::Passthrough, _) if !has_query && is_known => Method::Passthrough { verifier: None },
        (Auth::Passthrough, _) if !has_query => Method::NobodyPassthrough,
        (Auth::AuthQuery | Auth::Passthrough, _) => Method::Nobody(worker.proxy.looked_up_forms.most_common()),
    })
}

async fn look_up(
    worker: &Rc<Worker>,
    config: &Config,
    LoginAttempt { startup, caller }: &LoginAttempt,
) -> Result<Option<Stored>, LoginFault> {
    // No server is asked for the console, which has no database.
    let database = config.database(&startup.database).filter(|_| !is_console(startup));
    let Some(query) = database.and_then(|found| found.auth_query.as_ref()) else { return Ok(None) };
    let _turn = worker.proxy.turn_to_ask(&startup.database, *caller).await;
    let found = auth_query::look_up(worker, &startup.database.as_str().into(), query, &startup.user).await?;
    if let Some(secret) = &found {
        worker.proxy.looked_up_forms.note(&startup.user, SecretForm::of(secret, false));
    }
    Ok(found)
}

/// Parameters that backends of this pool report; the first client has to wait for a backend to find out.
async fn greeting(worker: &Rc<Worker>, pool: &Arc<Pool>) -> Result<Parameters, LoginFault> {
    // A dedicated backend is opened for this client alone: the client learns now whether the server lets it in. So does
    // one whose server has just said no.
    if !pool.is_dedicated()
        && (pool.refusal().is_none() || has_backends(worker, pool))
        && let Some(told) = pool.parameters.current()
    {
        return Ok(told);
    }
    let lease = lease(worker, pool).await?;
    let told = lease.parameters.clone();
    lease.release(Instant::now());
    Ok(told)
}

/// A backend for a login, or why there is none.
async fn lease(worker: &Rc<Worker>, pool: &Arc<Pool>) -> Result<Lease, LoginFault> {
    match (worker.proxy.pools.wait(pool, worker.id).await, pool.refusal()) {
        (Err(LeaseError::Refused), Some(refusal)) => Err(LoginFault::Backend(refusal)),
        // It waited for a server that is full, not for others' backends.
        (Err(LeaseError::TimedOut(Bottleneck::Pool)), Some(refusal)) if !has_backends(worker, pool) => {
            Err(LoginFault::Backend(refusal))
        }
        (lease, _) => Ok(lease?),
    }
}

fn has_backends(worker: &Worker, pool: &Pool) -> bool {
    worker.proxy.pools.core().pool(pool.id).is_some_and(|view| view.counts.live() > 0)
}

/// Sends AuthenticationOk, the session's parameters and key, and ReadyForQuery.
async fn greet(worker: &Rc<Worker>, mut stream: Stream, newcomer: Newcomer) -> Result<Client, LoginFault> {
    let Newcomer { session, handle, refused } = newcomer;
    let proxy = &worker.proxy;
    let mut out = AUTHENTICATION_OK.to_vec();
    for (name, value) in session.reported.iter() {
        let told = session.reported_value(name);
        build::parameter_status(&mut out, name, told.as_deref().unwrap_or(value));
    }
    session.pool.stats.worker(worker.id).add(PoolCounter::Logins);
    if proxy.is_draining() {
        // The drain began while this client was logging in.
        handle.signal(Signal::Drain);
    }
    build::backend_key_data(&mut out, handle.pid, handle.secret());
    session.warn(refused, |warning| build::notice_response(&mut out, warning));
    build::ready_for_query(&mut out, TransactionStatus::Idle);
    stream.write_all(&out).await?;
    stream.flush().await?;
    Ok(Client::new(Rc::clone(worker), handle, stream, session))
}
