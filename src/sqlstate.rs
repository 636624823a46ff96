//! The one table of what clients are told.
//!
//! ERROR keeps the session, FATAL ends it. Every hint names the setting to change. Nothing here shows an address or
//! another role's data.

use crate::error::Fault;
use crate::pool::lease::LeaseError;
use crate::wire::build::Report;

/// The report for a fault.
pub fn report(fault: &Fault) -> Report {
    let (severity, code, hint): (_, _, Option<&str>) = match fault {
        Fault::Frame(_) => ("FATAL", "08P01", Some("The client sent bytes that are not the Postgres protocol; check what connects to listen.addr.")),
        Fault::MessageType(_) => ("FATAL", "08P01", None),
        Fault::Malformed(_) => ("FATAL", "08P01", None),
        Fault::Backend(_) => ("FATAL", "08P01", Some("The server behind databases.*.host broke the protocol; is it Postgres?")),
        Fault::Lease(LeaseError::Full) => ("ERROR", "53300", Some("Raise pool.waiters_max or pool.size, or let fewer clients work at once.")),
        Fault::Lease(LeaseError::Down) => ("ERROR", "57P03", Some("Check databases.*.host and databases.*.port, and the server behind them; pool.connect_timeout is how long a client waits for it to return.")),
        Fault::Lease(LeaseError::Refused) => ("ERROR", "57P03", Some("Check roles.*.password, roles.*.backend_password and roles.*.login_as.")),
        Fault::Lease(LeaseError::Removed) | Fault::Removed => ("FATAL", "57P01", Some("The database or role was removed from proxy.toml.")),
        Fault::LoginRefused(_) => ("FATAL", "08006", Some("Check roles.*.password, roles.*.backend_password and roles.*.login_as, and pg_hba.conf of the server.")),
        Fault::WaitTimeout { .. } => ("ERROR", "53300", Some("Raise pool.size or pool.wait_timeout, or look for transactions that stay open: SHOW CLIENTS in the console.")),
        Fault::Canceled => ("ERROR", "57014", None),
        Fault::Lost(lost) if lost.in_commit => ("ERROR", "08007", Some("The transaction may or may not have been committed.")),
        Fault::Lost(_) => ("ERROR", "08006", Some("The session stays usable; run the transaction again.")),
        Fault::TransactionLost => ("ERROR", "25P02", Some("The transaction was lost with its backend; send ROLLBACK and run it again.")),
        Fault::SettingsRefused(_) => ("FATAL", "22023", Some("A StartupMessage parameter, options or SET of this session is not accepted by the server.")),
        Fault::StatementMode => ("ERROR", "0A000", Some("Set mode = \"transaction\" under pool, databases or roles to allow transactions of several statements.")),
        Fault::TooManyStatements => ("ERROR", "53400", Some("Close prepared statements that are no longer used.")),
        Fault::DuplicateStatement(_) => ("ERROR", "42P05", None),
        Fault::NoUnnamedStatement => ("ERROR", "26000", None),
        Fault::Draining => ("FATAL", "57P01", Some("Connect again; another pgweir may answer.")),
        Fault::Killed => ("FATAL", "57P01", None),
        Fault::IdleTimeout => ("FATAL", "57P05", Some("Raise listen.idle_timeout.")),
    };
    let detail = match fault {
        Fault::Lost(lost) => lost.last_words.as_ref().map(|said| format!("The server said {}: {}", said.code, said.message)),
        Fault::WaitTimeout { waited } => Some(format!("Waited {:.1} s.", waited.as_secs_f64())),
        Fault::LoginRefused(error) | Fault::SettingsRefused(error) => Some(format!("The server said {}.", error.code)),
        _ => None,
    };
    Report { severity, code, message: fault.to_string(), detail, hint: hint.map(str::to_owned) }
}
