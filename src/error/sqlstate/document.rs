//! `docs/SQLSTATES.md`, printed from the table. `UPDATE_EXPECTED=1 cargo test --lib sqlstate` writes it anew.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use super::{console, login, report};
use crate::admission::login::TooFast;
use crate::auth::client::Refusal;
use crate::auth::scram::ScramError;
use crate::config::{Bus, Timeouts};
use crate::error::ConsoleFault;
use crate::error::LoginFault;
use crate::error::LookupError;
use crate::error::{Fault, Holding, LaneRefusal, Lost, LostOutcome, OrderRefusal, Queue, WrongBind};
use crate::notify::exchange::Missing;
use crate::notify::nature::BusNature;
use crate::notify::notification::{RefusedNotification, Unnotifiable};
use crate::notify::stats::Gap;
use crate::pool::core::Bottleneck;
use crate::pool::lease::LeaseError;
use crate::pool::open::OpenError;
use crate::printed::assert_printed;
use crate::sql::Digest;
use crate::state::memory::TooMuch;
use crate::state::timeout::Timeout;
use crate::wire::build::{RefusedLogin, Report};
use crate::wire::expected::Unexpected;
use crate::wire::frame::FrameError;
use crate::wire::startup::{BadOptions, Malformed};

const HEAD: &str = "\
# What clients are told

Every error that pgweir itself raises has the CONTEXT `pgweir`; errors of Postgres are passed on as they are. A login that
the server refuses ends with the server's SQLSTATE and words, and that CONTEXT. ERROR keeps the session, FATAL ends it.
`…` stands for what differs from case to case. A first packet of another protocol gets no answer, as from Postgres.

This file is printed from `src/error/sqlstate.rs`: `UPDATE_EXPECTED=1 cargo test --lib sqlstate`.
";

const FOOT: &str = "\nNext: [CONFIG.md](CONFIG.md) for the settings that hints name, [TIMEOUTS.md](TIMEOUTS.md) for errors of Postgres that have a hint of pgweir's.\n";

/// Stands for every name and text in samples.
const ANY: &str = "…";

fn any() -> String {
    ANY.to_owned()
}

fn refused(code: &str) -> RefusedLogin {
    RefusedLogin { code: code.to_owned(), message: any(), detail: None, hint: None }
}

fn frame() -> FrameError {
    FrameError::Length { tag: 'Q', length: -1 }
}

const LEASES: [LeaseError; 11] = [
    LeaseError::PoolFull { waiting: 20_000 },
    LeaseError::RoleFull { waiting: 20_000 },
    LeaseError::Shed { waiting: 20_000, expected: Duration::from_secs(60) },
    LeaseError::TimedOut(Bottleneck::Pool),
    LeaseError::TimedOut(Bottleneck::Role),
    LeaseError::TimedOut(Bottleneck::Closed),
    LeaseError::TimedOut(Bottleneck::Unproved),
    LeaseError::Down,
    LeaseError::NoReader,
    LeaseError::Refused,
    LeaseError::Removed,
];

fn queue() -> Queue {
    Queue { role: any().into(), waiting: 20_000, expected: Some(Duration::from_secs(60)) }
}

fn in_vain(bottleneck: Bottleneck) -> Fault {
    Fault::WaitTimeout { queue: queue(), waited: Duration::from_secs(30), bottleneck }
}

fn faults() -> Vec<Fault> {
    let lost = |outcome| Lost { outcome, final_error: None };
    let expired = |timeout, ends_session| {
        let limit = Some(Duration::from_secs(20));
        let timeouts =
            Timeouts { statement: limit, idle_in_transaction: limit, transaction: limit, ..Timeouts::default() };
        Fault::Expired { timeout, hint: timeout.hint("*", &timeouts), ends_session }
    };
    let unanswered = |ends_session| {
        let Fault::Expired { hint, .. } = expired(Timeout::Statement, ends_session) else { unreachable!() };
        Fault::Unanswered { hint, ends_session }
    };
    let mut faults = vec![
        Fault::Frame(frame()),
        Fault::MessageType(b'?'),
        Fault::Malformed(ANY),
        Fault::Backend(Unexpected { tag: '?' }),
        Fault::BackendFrame(frame()),
        Fault::LoginRefused(refused(ANY)),
        Fault::LoginRefused(refused("28P01")),
        in_vain(Bottleneck::Pool),
        in_vain(Bottleneck::Role),
        in_vain(Bottleneck::Closed),
        in_vain(Bottleneck::Unproved),
        Fault::PoolFull(queue()),
        Fault::RoleFull(queue()),
        Fault::Shed(queue()),
        Fault::Down,
        Fault::NoReader,
        Fault::Refused,
        Fault::Canceled,
        Fault::Lost(lost(LostOutcome::RolledBack)),
        Fault::Lost(lost(LostOutcome::Unknown)),
        Fault::Lost(lost(LostOutcome::InCommit)),
        Fault::SessionLost(lost(LostOutcome::Unknown)),
        Fault::SessionLost(lost(LostOutcome::InCommit)),
        Fault::TransactionLost,
        expired(Timeout::Statement, false),
        expired(Timeout::Statement, true),
        expired(Timeout::IdleInTransaction, false),
        expired(Timeout::IdleInTransaction, true),
        expired(Timeout::Transaction, false),
        expired(Timeout::Transaction, true),
        unanswered(false),
        unanswered(true),
        Fault::HeldUp { ends_session: false },
        Fault::HeldUp { ends_session: true },
        Fault::StatementMode,
        Fault::TooManyStatements,
        Fault::DuplicateStatement(any()),
        Fault::NoStatement(any()),
        Fault::NoUnnamedStatement,
        Fault::WrongBind(WrongBind::Formats { formats: 2, values: 1 }),
        Fault::WrongBind(WrongBind::Values { values: 1, statement: any(), wanted: 2 }),
        Fault::ResultChanged,
        Fault::PinTimeout,
        Fault::TooManyPins,
        Fault::Memory(TooMuch::Client),
        Fault::Memory(TooMuch::Process),
        Fault::Draining,
        Fault::Killed,
        Fault::Removed,
        Fault::IdleTimeout,
        Fault::ListenerFull,
        Fault::NotificationEncoding,
        Fault::ListenFailed(Missing::Server),
        Fault::ListenFailed(Missing::Bus { hint: BusNature::of(Bus::Redis).hint }),
        Fault::Unnotifiable(RefusedNotification::NoChannel.into()),
        Fault::Unnotifiable(RefusedNotification::ChannelTooLong.into()),
        Fault::Unnotifiable(RefusedNotification::PayloadTooLong.into()),
        Fault::Unnotifiable(Unnotifiable::Untranslatable),
        Fault::TooManyNotifications,
    ];
    faults.extend(OrderRefusal::ALL.map(|refusal| Fault::Ordered { refusal, digest: Digest::NONE, by: any().into() }));
    faults.extend(LaneRefusal::ALL.map(|refusal| Fault::Lane { refusal, lane: "*".into(), waiting: 3 }));
    faults.extend(Gap::ALL.map(Fault::NotificationGap));
    faults.extend(Holding::ALL.map(Fault::HoldsTooMuch));
    faults
}

/// A new variant stops the build here: [`faults`] needs a sample of it.
fn index(fault: &Fault) -> usize {
    match fault {
        Fault::Frame(_) => 0,
        Fault::MessageType(_) => 1,
        Fault::Malformed(_) => 2,
        Fault::Backend(_) => 3,
        Fault::BackendFrame(_) => 4,
        Fault::Down => 5,
        Fault::LoginRefused(_) => 6,
        Fault::WaitTimeout { .. } => 7,
        Fault::Canceled => 8,
        Fault::Ordered { .. } => 39,
        Fault::Lane { .. } => 40,
        Fault::Lost(_) => 9,
        Fault::SessionLost(_) => 10,
        Fault::TransactionLost => 11,
        Fault::StatementMode => 13,
        Fault::TooManyStatements => 14,
        Fault::DuplicateStatement(_) => 15,
        Fault::NoStatement(_) => 16,
        Fault::NoUnnamedStatement => 17,
        Fault::Draining => 18,
        Fault::Killed => 19,
        Fault::Removed => 20,
        Fault::IdleTimeout => 21,
        Fault::Expired { .. } => 22,
        Fault::PoolFull(_) => 23,
        Fault::RoleFull(_) => 24,
        Fault::Shed(_) => 25,
        Fault::Refused => 26,
        Fault::ListenerFull => 27,
        Fault::NotificationGap(_) => 28,
        Fault::NotificationEncoding => 29,
        Fault::ListenFailed(_) => 30,
        Fault::Unnotifiable(_) => 31,
        Fault::TooManyNotifications => 32,
        Fault::HeldUp { .. } => 33,
        Fault::Unanswered { .. } => 34,
        Fault::PinTimeout => 35,
        Fault::TooManyPins => 36,
        Fault::HoldsTooMuch(_) => 37,
        Fault::Memory(_) => 38,
        Fault::ResultChanged => 12,
        Fault::NoReader => 41,
        Fault::WrongBind(_) => 42,
    }
}

fn login_faults() -> Vec<LoginFault> {
    let mut faults = vec![
        LoginFault::Startup(Malformed::Version(2, 0)),
        LoginFault::Startup(Malformed::Layout),
        LoginFault::Startup(Malformed::Duplicate(ANY)),
        LoginFault::Startup(Malformed::NotUtf8),
        LoginFault::Startup(Malformed::NoUser),
        LoginFault::Startup(Malformed::Replication(any())),
        LoginFault::Options(BadOptions::Unknown(any())),
        LoginFault::Options(BadOptions::NoValue(any())),
        LoginFault::Frame(frame()),
        LoginFault::NoAlpn,
        LoginFault::NotFromHere(any()),
        LoginFault::NotThisDatabase { role: any(), database: any() },
        LoginFault::TlsRequired,
        LoginFault::TooManyClients,
        LoginFault::TooManyOfRole(any()),
        LoginFault::TooManyOfDatabase(any()),
        LoginFault::TooFast(TooFast::Rate),
        LoginFault::TooFast(TooFast::AddressRate),
        LoginFault::NoDatabase(any()),
        LoginFault::Disabled(any()),
        LoginFault::NotAdmin(any()),
        LoginFault::UnprovedAdmin,
        LoginFault::Refused(Refusal::Password(any())),
        LoginFault::Refused(Refusal::EmptyPassword),
        LoginFault::Refused(Refusal::CertificateMissing),
        LoginFault::Refused(Refusal::CertificateName(any())),
        LoginFault::Refused(Refusal::ClearText),
        LoginFault::Refused(Refusal::Unexpected(b'?')),
        LoginFault::Refused(Refusal::TooLong(100_000)),
        LoginFault::Refused(Refusal::Malformed),
        LoginFault::Refused(Refusal::Scram(ScramError::Malformed(ANY))),
        LoginFault::Lookup(LookupError::NoPool),
        LoginFault::Server(refused(ANY)),
        LoginFault::Backend(refused("28P01")),
        LoginFault::Open(OpenError::NoTls),
        LoginFault::Draining,
        LoginFault::TooSlow,
        LoginFault::TooManyOfAddress,
        LoginFault::Silent,
    ];
    faults.extend(LEASES.map(LoginFault::Lease));
    faults
}

/// As [`index`]; 0 stands for faults that are not reported, because nobody is there to read the report or ought to.
fn login_index(fault: &LoginFault) -> usize {
    match fault {
        LoginFault::Io(_)
        | LoginFault::Injected
        | LoginFault::NoTls
        | LoginFault::ForeignProxyHeader
        | LoginFault::ProxyHeader(_) => 0,
        LoginFault::Startup(_) => 1,
        LoginFault::Options(_) => 2,
        LoginFault::Frame(_) => 3,
        LoginFault::TooFast(_) => 4,
        LoginFault::NoAlpn => 5,
        LoginFault::TlsRequired => 6,
        LoginFault::TooManyClients => 7,
        LoginFault::TooManyOfRole(_) => 8,
        LoginFault::NoDatabase(_) => 9,
        LoginFault::Disabled(_) => 10,
        LoginFault::NotAdmin(_) => 11,
        LoginFault::UnprovedAdmin => 12,
        LoginFault::Refused(_) => 13,
        LoginFault::Lookup(_) => 14,
        LoginFault::Lease(_) => 15,
        LoginFault::Server(_) | LoginFault::Parameter(_) => 16,
        LoginFault::Backend(_) => 17,
        LoginFault::Open(_) => 18,
        LoginFault::Draining => 19,
        LoginFault::TooSlow => 20,
        LoginFault::NotFromHere(_) => 21,
        LoginFault::NotThisDatabase { .. } => 22,
        LoginFault::TooManyOfAddress => 21,
        LoginFault::Silent => 22,
        LoginFault::TooManyOfDatabase(_) => 23,
    }
}

fn console_faults() -> Vec<ConsoleFault> {
    vec![
        ConsoleFault::Command { text: any(), meant: None },
        ConsoleFault::Command { text: any(), meant: Some(any()) },
        ConsoleFault::Absent { command: ANY, instead: ANY },
        ConsoleFault::Setting(None),
        ConsoleFault::Setting(Some(any())),
        ConsoleFault::LogLevel(any()),
        ConsoleFault::Sql,
        ConsoleFault::WaitCanceled,
        ConsoleFault::SeveralCommands,
        ConsoleFault::Parameters,
        ConsoleFault::NoDatabase(any()),
        ConsoleFault::NotPaused,
        ConsoleFault::NoTopology(any()),
        ConsoleFault::Usage(any()),
        ConsoleFault::MayOnlyLook(any()),
        ConsoleFault::NoLongerAllowed(any()),
        ConsoleFault::NoRole(any()),
        ConsoleFault::NoLimit(any()),
        ConsoleFault::NoRamp(any()),
        ConsoleFault::PauseCanceled,
        ConsoleFault::NoClient(0),
        ConsoleFault::StatementsUntracked,
        ConsoleFault::NoStatementOrder(Digest::NONE),
        ConsoleFault::TooManyOrders,
        ConsoleFault::Reload(any()),
        ConsoleFault::GoingDown,
        ConsoleFault::NoStatement(any()),
        ConsoleFault::DuplicateStatement(any()),
        ConsoleFault::NoPortal(any()),
        ConsoleFault::TooMany,
        ConsoleFault::Frame(frame()),
        ConsoleFault::Message('?'),
        ConsoleFault::TooLong(100_000),
        ConsoleFault::Killed,
        ConsoleFault::Draining,
    ]
}

/// As [`index`].
fn console_index(fault: &ConsoleFault) -> usize {
    match fault {
        ConsoleFault::Command { .. } => 0,
        ConsoleFault::SeveralCommands => 1,
        ConsoleFault::Parameters => 2,
        ConsoleFault::NoDatabase(_) => 3,
        ConsoleFault::NotPaused => 4,
        ConsoleFault::PauseCanceled => 5,
        ConsoleFault::NoClient(_) => 6,
        ConsoleFault::Reload(_) => 7,
        ConsoleFault::GoingDown => 8,
        ConsoleFault::NoStatement(_) => 9,
        ConsoleFault::DuplicateStatement(_) => 10,
        ConsoleFault::NoPortal(_) => 11,
        ConsoleFault::TooMany => 12,
        ConsoleFault::Frame(_) => 13,
        ConsoleFault::Message(_) => 14,
        ConsoleFault::TooLong(_) => 15,
        ConsoleFault::Killed => 16,
        ConsoleFault::Draining => 17,
        ConsoleFault::Usage(_) => 18,
        ConsoleFault::NoRole(_) => 19,
        ConsoleFault::NoLimit(_) => 20,
        ConsoleFault::NoRamp(_) => 21,
        ConsoleFault::MayOnlyLook(_) => 22,
        ConsoleFault::NoLongerAllowed(_) => 23,
        ConsoleFault::Absent { .. } => 24,
        ConsoleFault::Setting(_) => 25,
        ConsoleFault::Sql => 26,
        ConsoleFault::WaitCanceled => 27,
        ConsoleFault::NoTopology(_) => 31,
        ConsoleFault::StatementsUntracked => 28,
        ConsoleFault::NoStatementOrder(_) => 29,
        ConsoleFault::TooManyOrders => 30,
        ConsoleFault::LogLevel(_) => 32,
    }
}

fn document() -> String {
    let (faults, logins, consoles) = (faults(), login_faults(), console_faults());
    let sections = [
        ("Queries and sessions", faults.iter().map(report).collect::<Vec<_>>()),
        ("Logins", logins.iter().map(login).collect()),
        ("The console", consoles.iter().map(console).collect()),
    ];
    let mut out = HEAD.to_owned();
    for (title, mut reports) in sections {
        out += &format!("\n## {title}\n\n| SQLSTATE | severity | message | hint |\n|---|---|---|---|\n");
        reports.sort_by(|a, b| (&a.code, &a.message).cmp(&(&b.code, &b.message)));
        for Report { severity, code, message, hint, .. } in reports {
            out += &format!("| {code} | {severity} | {message} | {} |\n", hint.unwrap_or_default());
        }
    }
    out + FOOT
}

#[test]
fn every_fault_has_its_line() {
    let all = |indices: BTreeSet<usize>, first: usize, count: usize| assert!(indices.into_iter().eq(first..count));
    all(faults().iter().map(index).collect(), 0, 43);
    all(login_faults().iter().map(login_index).collect(), 1, 24);
    all(console_faults().iter().map(console_index).collect(), 0, 33);
    assert_eq!(login_index(&LoginFault::Io(io::ErrorKind::BrokenPipe.into())), 0);
}

#[test]
fn the_document_says_what_the_code_says() {
    assert_printed("docs/SQLSTATES.md", &document(), "sqlstate");
}

#[test]
fn hints_name_settings_that_exist() {
    let reference = include_str!("../../../docs/CONFIG.md");
    let keys: Vec<&str> = reference.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let reports = faults().iter().map(report).chain(login_faults().iter().map(login)).collect::<Vec<_>>();
    for hint in reports.into_iter().filter_map(|report| report.hint) {
        let words = hint.split([' ', ',', ';', ':']).map(|word| word.trim_end_matches('.'));
        let is_in_a_section = |word: &&str| {
            let section = word.split_once('.').map(|(section, _)| format!("{section}."));
            section.is_some_and(|section| keys.iter().any(|key| key.starts_with(&section)))
        };
        for setting in words.filter(is_in_a_section) {
            let table = format!("{setting}.");
            assert!(keys.iter().any(|key| *key == setting || key.starts_with(&table)), "{setting}: {hint}");
        }
    }
}
