//! The one table of reports to clients.
//!
//! ERROR keeps the session, FATAL ends it. Every hint names the setting to change. Nothing here shows an address or
//! another role's data. `docs/SQLSTATES.md` is printed from it.

#[cfg(test)]
mod document;

use std::time::Duration;

use crate::admission::login::TooFast;
use crate::auth::client::Refusal;
use crate::error::ConsoleFault;
use crate::error::{Fault, Holding, LaneRefusal, Lost, LostOutcome, OrderRefusal, Queue};
use crate::error::{LoginFault, LookupError};
use crate::notify::exchange::Missing;
use crate::notify::notification::Unnotifiable;
use crate::pool::core::Bottleneck;
use crate::pool::lease::LeaseError;
use crate::state::memory::TooMuch;
use crate::state::timeout::Timeout;
use crate::wire::build::{RefusedLogin, Report};
use crate::wire::startup::Malformed;

/// The notice that a waiting client gets once, after `admission.notice_after`.
pub(crate) fn still_waiting(role: &str, waited: Duration, waiting: u32, is_unproved: bool) -> Report {
    let hint = "SHOW ROLES in the console tells what the queue waits for; admission.notice_after is when this is said.";
    Report {
        severity: "NOTICE",
        code: "00000".into(),
        message: format!("still waiting after {:.1} s", waited.as_secs_f64()),
        detail: Some(match is_unproved {
            false => format!("{} waiting.", clients(waiting, role)),
            true => format!("No primary of the database is known; {} waiting.", clients(waiting, role)),
        }),
        hint: Some(if is_unproved { UNPROVED } else { hint }.to_owned()),
        routine: None,
    }
}

/// The hint where no primary is known.
const UNPROVED: &str = "SHOW TOPOLOGY in the console tells why; databases.*.topology looks for one, pool.wait_timeout is how long clients wait.";

/// The hint where no reader can be used.
const NO_READER: &str = "SHOW READERS in the console tells why; databases.*.lag_max is how far one may be behind, databases.*.fallback_max lets the primary stand in, pool.connect_timeout is how long a client waits.";

/// The report for a fault.
pub(crate) fn report(fault: &Fault) -> Report {
    let (severity, code, hint): (_, _, Option<&str>) = match fault {
        Fault::Frame(_) => (
            "FATAL",
            "08P01",
            Some("The client sent bytes that are not the Postgres protocol; check what connects to listen.addr."),
        ),
        Fault::MessageType(_) => ("FATAL", "08P01", None),
        Fault::Malformed(_) => ("FATAL", "08P01", None),
        Fault::Backend(_) | Fault::BackendFrame(_) => {
            ("FATAL", "08P01", Some("The server behind databases.*.host broke the protocol; is it Postgres?"))
        }
        Fault::PoolFull(_) => {
            ("ERROR", "53300", Some("Raise pool.waiters_max or pool.size, or let fewer clients work at once."))
        }
        Fault::RoleFull(_) => (
            "ERROR",
            "53300",
            Some("Raise roles.*.waiters_max or roles.*.transactions_max, or let fewer clients work at once."),
        ),
        Fault::Shed(_) => (
            "ERROR",
            "53300",
            Some(
                "Try again later; if the server is not busy, raise roles.*.transactions_max or pool.size. pool.wait_timeout is how long a client may wait.",
            ),
        ),
        Fault::Down => (
            "ERROR",
            "57P03",
            Some(
                "Check databases.*.host and databases.*.port, and the server behind them; pool.connect_timeout is how long a client waits for it to return.",
            ),
        ),
        Fault::NoReader => ("ERROR", "57P03", Some(NO_READER)),
        Fault::Refused => {
            ("ERROR", "57P03", Some("Check roles.*.password, roles.*.backend_password and roles.*.login_as."))
        }
        Fault::Removed => ("FATAL", "57P01", Some("The database or role was removed from proxy.toml.")),
        Fault::LoginRefused(refused) => return of_server(refused, Some(OWN_LOGIN)),
        Fault::WaitTimeout { bottleneck: bottleneck @ Bottleneck::Unproved, .. } => {
            ("ERROR", "57P03", Some(in_vain(*bottleneck)))
        }
        Fault::WaitTimeout { bottleneck, .. } => ("ERROR", "53300", Some(in_vain(*bottleneck))),
        Fault::Lane { refusal: LaneRefusal::Later, .. } => ("ERROR", "53400", None),
        Fault::Lane { .. } => ("ERROR", "53300", None),
        Fault::Ordered { refusal: OrderRefusal::Blocked, .. } => ("ERROR", "53400", None),
        Fault::Ordered { refusal: OrderRefusal::QueueFull | OrderRefusal::WaitedInVain, .. } => {
            ("ERROR", "53300", None)
        }
        Fault::Canceled => ("ERROR", "57014", Some("It was waiting for a backend and did not run.")),
        Fault::Lost(Lost { outcome: LostOutcome::InCommit, .. }) => {
            ("ERROR", "08007", Some("The transaction may or may not have been committed."))
        }
        Fault::Lost(Lost { outcome: LostOutcome::RolledBack, .. }) => {
            ("ERROR", "40001", Some("None of the transaction took effect, and the session stays usable; run it again."))
        }
        Fault::Lost(Lost { outcome: LostOutcome::Unknown, .. }) => (
            "ERROR",
            "08006",
            Some("The session stays usable; look whether the statement took effect before it is run again."),
        ),
        Fault::SessionLost(lost) => {
            let code = if lost.outcome == LostOutcome::InCommit { "08007" } else { "08006" };
            (
                "FATAL",
                code,
                Some("Session mode, or a pin that SHOW PINS names, ties a client to its backend; connect again."),
            )
        }
        Fault::TransactionLost => {
            ("ERROR", "25P02", Some("The transaction was lost with its backend; send ROLLBACK and run it again."))
        }
        Fault::Expired { timeout, ends_session, .. } => {
            (if *ends_session { "FATAL" } else { "ERROR" }, timeout.sqlstate(), None)
        }
        Fault::Unanswered { ends_session, .. } => (if *ends_session { "FATAL" } else { "ERROR" }, "08007", None),
        Fault::HeldUp { ends_session } => (
            if *ends_session { "FATAL" } else { "ERROR" },
            Timeout::IdleInTransaction.sqlstate(),
            Some(
                "Commit before doing something else. watch.on_idle_holder = \"observe\" ends nobody; watch.blocked is how long others have to wait for it.",
            ),
        ),
        Fault::StatementMode => (
            "ERROR",
            "0A000",
            Some(
                "Set mode = \"transaction\" under pool, databases or roles to allow transactions of several statements.",
            ),
        ),
        Fault::TooManyStatements => ("ERROR", "53400", Some("Close prepared statements that are no longer used.")),
        Fault::Memory(TooMuch::Client) => (
            "FATAL",
            "53200",
            Some("Close prepared statements that are no longer used, or raise listen.client_memory_max."),
        ),
        Fault::Memory(TooMuch::Process) => {
            ("FATAL", "53200", Some("Raise listen.memory_max; pgweir_client_memory_bytes is how much clients take."))
        }
        Fault::HoldsTooMuch(Holding::Channels) => {
            ("ERROR", "53400", Some("UNLISTEN from channels that are no longer used, or LISTEN in several sessions."))
        }
        Fault::HoldsTooMuch(Holding::Portals) => {
            ("ERROR", "53400", Some("Close portals that are no longer used, or end the transaction."))
        }
        Fault::HoldsTooMuch(Holding::Settings) => ("ERROR", "53400", Some("RESET settings that are no longer used.")),
        Fault::DuplicateStatement(_) => ("ERROR", "42P05", None),
        Fault::WrongBind(_) => ("ERROR", "08P01", None),
        Fault::ResultChanged => ("ERROR", "0A000", None),
        Fault::NoStatement(_) | Fault::NoUnnamedStatement => ("ERROR", "26000", None),
        Fault::PinTimeout => (
            "FATAL",
            "57P05",
            Some("Raise roles.*.pin_timeout, or let go of the state that SHOW PINS names: locks, temporary tables."),
        ),
        Fault::TooManyPins => (
            "FATAL",
            "53400",
            Some("Raise roles.*.pins_max, or let go of the state that SHOW PINS names: locks, temporary tables."),
        ),
        Fault::Draining => ("FATAL", "57P01", Some("Connect again; another pgweir may answer.")),
        Fault::Killed => ("FATAL", "57P01", None),
        Fault::Unnotifiable(Unnotifiable::Refused(_)) => ("ERROR", "22023", None),
        Fault::Unnotifiable(Unnotifiable::Untranslatable) => {
            ("ERROR", "22P05", Some("Prepare the statement again, or call pg_notify with a literal."))
        }
        Fault::TooManyNotifications => (
            "ERROR",
            "54000",
            Some(
                "The bus takes too little: raise notify.bus_queue, or set notify.when_down; or the transaction notifies of too much.",
            ),
        ),
        Fault::IdleTimeout => ("FATAL", "57P05", Some("Raise listen.idle_timeout.")),
        Fault::ListenerFull => (
            "FATAL",
            "53400",
            Some(
                "Read notifications as they come, or raise notify.listener_queue; connect again, LISTEN, and look for what was missed.",
            ),
        ),
        Fault::NotificationGap(_) => (
            "FATAL",
            "08006",
            Some("Connect again, LISTEN, and look for what was missed. With notify.on_gap = \"count\" nobody is told."),
        ),
        Fault::NotificationEncoding => {
            ("FATAL", "22P05", Some("Use the encoding of the database as client_encoding in sessions that LISTEN."))
        }
        Fault::ListenFailed(Missing::Server) => (
            "FATAL",
            "08006",
            Some(
                "Check the server behind databases.*.host, and that the role may log in once more; pool.connect_timeout is how long a LISTEN waits.",
            ),
        ),
        Fault::ListenFailed(Missing::Bus { hint }) => ("FATAL", "08006", Some(*hint)),
    };
    let detail = match fault {
        Fault::Lost(lost) | Fault::SessionLost(lost) => {
            lost.final_error.as_ref().map(|said| format!("The server said {}: {}", said.code, said.message))
        }
        Fault::Unanswered { .. } => Some("The statement may or may not have taken effect.".to_owned()),
        Fault::PoolFull(queue) | Fault::RoleFull(queue) | Fault::Shed(queue) => Some(depth(queue)),
        Fault::WaitTimeout { queue, waited, .. } => {
            Some(format!("Waited {:.1} s. {}", waited.as_secs_f64(), depth(queue)))
        }
        Fault::Lane { refusal: LaneRefusal::InVain(waited), lane, .. } => {
            Some(format!("Waited {:.1} s, in lane {lane:?}.", waited.as_secs_f64()))
        }
        Fault::Lane { lane, waiting, .. } => Some(format!("Transactions of lane {lane:?} that wait: {waiting}.")),
        _ => None,
    };
    let hint = match fault {
        Fault::Expired { hint, .. } | Fault::Unanswered { hint, .. } => hint.clone(),
        Fault::Lane { lane, .. } => Some(format!(
            "Raise lanes.{lane}.transactions_max or its rate, or look for transactions of it that stay open: SHOW LANES \
             in the console."
        )),
        Fault::Ordered { digest, by, .. } => {
            Some(format!("Ordered by {by}. SHOW ORDERS says until when; UNBLOCK STATEMENT {digest} ends it."))
        }
        _ => hint.map(str::to_owned),
    };
    Report { severity, code: code.into(), message: fault.to_string(), detail, hint, routine: routine(fault) }
}

/// Postgres's function behind an error that we raise in its place. postgres.js and pgjdbc prepare a statement again by
/// it.
fn routine(fault: &Fault) -> Option<&'static str> {
    match fault {
        Fault::DuplicateStatement(_) => Some("StorePreparedStatement"),
        Fault::NoStatement(_) => Some("FetchPreparedStatement"),
        Fault::ResultChanged => Some("RevalidateCachedQuery"),
        Fault::WrongBind(_) => Some("exec_bind_message"),
        Fault::Canceled => Some("ProcessInterrupts"),
        _ => None,
    }
}

/// The hint where the server refuses the credential with which pgweir logs in for a role.
const OWN_LOGIN: &str =
    "Check roles.*.password, roles.*.backend_password and roles.*.login_as, and pg_hba.conf of the server.";

/// The report for a login that the server refused, in its own words; `hint` if it is about the credential and the
/// server has none.
fn of_server(refused: &RefusedLogin, hint: Option<&str>) -> Report {
    let RefusedLogin { code, message, detail, hint: own } = refused.clone();
    let hint = own.or_else(|| hint.filter(|_| code.starts_with("28")).map(str::to_owned));
    Report { severity: "FATAL", code: code.into(), message, detail, hint, routine: None }
}

/// The hint for a client that waited in vain: the setting to change.
fn in_vain(bottleneck: Bottleneck) -> &'static str {
    match bottleneck {
        Bottleneck::Pool => {
            "Raise pool.size or pool.wait_timeout, or look for transactions that stay open: SHOW CLIENTS in the console."
        }
        Bottleneck::Role => {
            "Raise roles.*.transactions_max or pool.wait_timeout, or look for transactions that stay open: SHOW CLIENTS in the console."
        }
        Bottleneck::Lane => "SHOW LANES and SHOW ORDERS tell what is limited.",
        Bottleneck::Unproved => UNPROVED,
        Bottleneck::Closed => {
            "Raise roles.*.transactions_max above 0, or say LIMIT role transactions OVER '60s' in the console."
        }
    }
}

fn depth(queue: &Queue) -> String {
    let clients = clients(queue.waiting, &queue.role);
    match queue.expected {
        Some(expected) => format!("{clients} waiting; one more would wait about {:.1} s.", expected.as_secs_f64()),
        None => format!("{clients} waiting."),
    }
}

fn clients(count: u32, role: &str) -> String {
    match count {
        1 => format!("1 client of role {role:?} is"),
        count => format!("{count} clients of role {role:?} are"),
    }
}

/// The report for a login that failed; always FATAL, and never more than the peer knows already.
pub(crate) fn login(fault: &LoginFault) -> Report {
    let mut message = fault.to_string();
    let (code, hint): (_, Option<&str>) = match fault {
        LoginFault::Io(_) | LoginFault::Injected => ("08006", None),
        LoginFault::Startup(Malformed::Version { .. }) => ("0A000", None),
        LoginFault::Startup(Malformed::NoUser) => ("28000", None),
        LoginFault::Startup(Malformed::Replication(_)) => ("22023", None),
        LoginFault::Startup(_) | LoginFault::Frame(_) => ("08P01", None),
        LoginFault::Options(_) => ("42601", Some("options may hold -c name=value and --name=value.")),
        LoginFault::ForeignProxyHeader | LoginFault::ProxyHeader(_) => ("08P01", Some("Check listen.proxy_protocol.")),
        LoginFault::NotFromHere(_) => ("28000", Some("Add the address to roles.*.from.")),
        LoginFault::NotThisDatabase { .. } => ("28000", Some("Add the database to roles.*.databases.")),
        LoginFault::NoTls => ("08P01", Some("Set listen.tls, or connect with sslnegotiation=postgres.")),
        LoginFault::NoAlpn => ("08P01", Some("Use sslnegotiation=postgres, or a client that sends ALPN.")),
        LoginFault::TlsRequired => ("28000", Some("listen.tls requires it; connect with sslmode=require.")),
        LoginFault::TooManyClients => ("53300", Some("Raise listen.clients_max.")),
        LoginFault::TooManyOfRole(_) => ("53300", Some("Raise roles.*.clients_max.")),
        LoginFault::TooManyOfDatabase(_) => ("53300", Some("Raise databases.*.clients_max.")),
        LoginFault::TooManyOfAddress => ("53300", Some("Raise listen.clients_max_per_address.")),
        LoginFault::TooFast(TooFast::Rate) => (
            "53300",
            Some(
                "Raise admission.login_rate, admission.login_burst or admission.login_delay_max, or connect less often.",
            ),
        ),
        LoginFault::TooFast(TooFast::AddressRate) => {
            ("53300", Some("Raise admission.login_rate_per_address, or connect less often."))
        }
        LoginFault::NoDatabase(_) => ("3D000", Some("Add it under [databases] in proxy.toml.")),
        LoginFault::Disabled(_) => ("3D000", Some("ENABLE in the console takes clients again.")),
        LoginFault::NotAdmin(_) => {
            ("28000", Some("Add the role to admin.roles, or to admin.stats_roles if it shall only look."))
        }
        LoginFault::UnprovedAdmin => {
            ("28000", Some("Give the role a password of its own under [roles] in proxy.toml."))
        }
        LoginFault::Refused(refusal) => match refusal {
            Refusal::Password(_) | Refusal::EmptyPassword => ("28P01", None),
            Refusal::CertificateMissing | Refusal::ClearText => ("28000", Some("Set listen.tls.")),
            Refusal::CertificateName(_) => ("28000", None),
            Refusal::Unexpected(_) | Refusal::TooLong(_) | Refusal::Malformed | Refusal::Scram(_) => ("08P01", None),
        },
        // The database is the client's own affair, the look-up role is not.
        LoginFault::Lookup(LookupError::Refused(refused)) if !refused.code.starts_with("28") => {
            return of_server(refused, None);
        }
        LoginFault::Lookup(_) => {
            message = "the role's secret cannot be looked up".to_owned();
            ("57P03", Some("Check databases.*.auth_query; the log of pgweir says more."))
        }
        LoginFault::Lease(LeaseError::TimedOut(bottleneck @ Bottleneck::Unproved)) => {
            ("57P03", Some(in_vain(*bottleneck)))
        }
        LoginFault::Lease(LeaseError::TimedOut(bottleneck)) => ("53300", Some(in_vain(*bottleneck))),
        LoginFault::Lease(LeaseError::PoolFull { .. }) => ("53300", Some("Raise pool.waiters_max or pool.size.")),
        LoginFault::Lease(LeaseError::RoleFull { .. } | LeaseError::LaneFull { .. }) => {
            ("53300", Some("Raise roles.*.waiters_max or roles.*.transactions_max."))
        }
        LoginFault::Lease(LeaseError::Shed { .. }) => {
            ("53300", Some("Try again later, or raise roles.*.transactions_max or pool.size."))
        }
        LoginFault::Lease(LeaseError::Removed) => ("57P01", Some("The database or role was removed from proxy.toml.")),
        LoginFault::Lease(LeaseError::Down) => {
            ("57P03", Some("Check databases.*.host and databases.*.port, and the server behind them."))
        }
        LoginFault::Lease(LeaseError::NoReader) => ("57P03", Some(NO_READER)),
        LoginFault::Lease(LeaseError::Refused) => {
            ("57P03", Some("Check roles.*.password, roles.*.backend_password and roles.*.login_as."))
        }
        LoginFault::Server(refused) | LoginFault::Parameter(refused) => return of_server(refused, None),
        LoginFault::Backend(refused) => return of_server(refused, Some(OWN_LOGIN)),
        LoginFault::Open(_) => {
            message = "the database cannot be reached".to_owned();
            ("57P03", Some("Check databases.*.host and databases.*.port; the log of pgweir says more."))
        }
        LoginFault::Draining => ("57P01", Some("Connect again; another pgweir may answer.")),
        LoginFault::TooSlow => {
            ("57014", Some("Raise listen.login_timeout, if the client or the network is that slow."))
        }
        LoginFault::Silent => {
            ("57014", Some("Raise listen.startup_timeout, if the client or the network is that slow."))
        }
    };
    Report { severity: "FATAL", code: code.into(), message, detail: None, hint: hint.map(str::to_owned), routine: None }
}

/// The report for a fault of the console.
pub(crate) fn console(fault: &ConsoleFault) -> Report {
    let (severity, code, hint): (_, _, Option<&str>) = match fault {
        ConsoleFault::Command { .. } => ("ERROR", "42601", Some("SHOW HELP lists all commands.")),
        ConsoleFault::Absent { instead, .. } => ("ERROR", "0A000", Some(instead)),
        ConsoleFault::Setting(_) => ("ERROR", "0A000", Some("All settings are in proxy.toml; RELOAD reads it again.")),
        ConsoleFault::LogLevel(_) => {
            ("ERROR", "22023", Some("Say a level, or levels by module, such as 'info,pgweir::pool=trace'."))
        }
        ConsoleFault::Sql => (
            "ERROR",
            "0A000",
            Some("Connect to one of SHOW DATABASES for that; SHOW HELP lists what the console does."),
        ),
        ConsoleFault::Usage(_) => ("ERROR", "42601", Some("SHOW HELP tells what it does.")),
        ConsoleFault::MayOnlyLook(_) => ("ERROR", "42501", Some("Add the role to admin.roles.")),
        ConsoleFault::NoLongerAllowed(_) => {
            ("ERROR", "42501", Some("Add the role to admin.roles, or to admin.stats_roles if it shall only look."))
        }
        ConsoleFault::SeveralCommands => ("ERROR", "42601", Some("Send them one by one, or as a simple query.")),
        ConsoleFault::Parameters => ("ERROR", "08P01", Some("Write names and values into the command.")),
        ConsoleFault::NoDatabase(_) => ("ERROR", "3D000", Some("SHOW DATABASES lists all databases.")),
        ConsoleFault::NoRole(_) => ("ERROR", "42704", Some("SHOW ROLES lists all roles.")),
        ConsoleFault::NoLimit(_) => {
            ("ERROR", "55000", Some("Set roles.*.transactions_max, or say LIMIT role transactions OVER '60s'."))
        }
        ConsoleFault::NoRamp(_) => ("ERROR", "55000", Some("Set roles.*.ramp, or say RAMP role OVER '60s'.")),
        ConsoleFault::NoTopology(_) => {
            ("ERROR", "55000", Some("Set databases.*.topology, which looks for the primary; PAUSE ends with RESUME."))
        }
        ConsoleFault::NotPaused => ("ERROR", "55000", Some("SHOW DATABASES tells what is paused.")),
        ConsoleFault::PauseCanceled | ConsoleFault::WaitCanceled => ("ERROR", "57014", None),
        ConsoleFault::NoClient(_) => {
            ("ERROR", "42704", Some("SHOW CLIENTS lists all clients; the id is the last column."))
        }
        ConsoleFault::StatementsUntracked => ("ERROR", "55000", Some("Set statements.track, and start pgweir again.")),
        ConsoleFault::NoStatementOrder(_) => {
            ("ERROR", "42704", Some("SHOW STATEMENTS lists all statements, SHOW ORDERS the orders about them."))
        }
        ConsoleFault::TooManyOrders => ("ERROR", "53400", Some("SHOW ORDERS lists them; UNBLOCK STATEMENT ends one.")),
        ConsoleFault::Reload(_) => ("ERROR", "F0000", Some("pgweir check FILE says the same before a reload.")),
        ConsoleFault::GoingDown => ("ERROR", "57P01", None),
        ConsoleFault::NoStatement(_) => ("ERROR", "26000", None),
        ConsoleFault::DuplicateStatement(_) => ("ERROR", "42P05", None),
        ConsoleFault::NoPortal(_) => ("ERROR", "34000", None),
        ConsoleFault::TooMany => ("ERROR", "53400", Some("Close prepared statements that are no longer used.")),
        ConsoleFault::Frame(_) | ConsoleFault::Message(_) => ("FATAL", "08P01", None),
        ConsoleFault::TooLong(_) => ("FATAL", "54000", None),
        ConsoleFault::Killed => ("FATAL", "57P01", None),
        ConsoleFault::Draining => ("FATAL", "57P01", Some("Connect again; another pgweir may answer.")),
    };
    let detail = match fault {
        ConsoleFault::Reload(mistakes) => Some(mistakes.clone()),
        _ => None,
    };
    let hint = match fault {
        ConsoleFault::Command { meant: Some(meant), .. } => {
            Some(format!("Did you mean {meant}? SHOW HELP lists all commands."))
        }
        ConsoleFault::Setting(Some(key)) => Some(format!("Change {key} in proxy.toml; RELOAD reads it again.")),
        _ => hint.map(str::to_owned),
    };
    Report { severity, code: code.into(), message: fault.to_string(), detail, hint, routine: None }
}
