//! Faults of commands to the console. The reports its user gets are in [`super::sqlstate`].

use thiserror::Error;

use crate::sql::Digest;
use crate::wire::frame::FrameError;

/// A fault of the console.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ConsoleFault {
    /// No command begins like this.
    #[error("invalid command \"{text}\"")]
    Command {
        /// Part of the text that was sent.
        text: String,
        /// A command that looks alike.
        meant: Option<String>,
    },
    /// A known command that goes on otherwise.
    #[error("the command is: {0}")]
    Usage(String),
    /// A command that PgBouncer has.
    #[error("pgweir has no {command}")]
    Absent {
        command: &'static str,
        /// Advice on doing it another way.
        instead: &'static str,
    },
    /// SET of a setting; the key of `proxy.toml` that sets it, if there is one.
    #[error("the console changes no settings")]
    Setting(Option<String>),
    /// SET log_level to what is none.
    #[error("invalid log_level: {0}")]
    LogLevel(String),
    /// A statement for a server.
    #[error("this is the console of pgweir, which runs no SQL")]
    Sql,
    /// A command that changes something, by a role of `admin.stats_roles`.
    #[error("role \"{0}\" may look, but not act")]
    MayOnlyLook(String),
    /// A reload took the role out of `admin`.
    #[error("role \"{0}\" is no longer allowed to use the console")]
    NoLongerAllowed(String),
    /// Several commands in one Parse.
    #[error("cannot insert multiple commands into a prepared statement")]
    SeveralCommands,
    /// Values for parameters that no command has.
    #[error("commands take no parameters")]
    Parameters,
    /// Not in the configuration.
    #[error("database \"{0}\" does not exist")]
    NoDatabase(String),
    /// Not in the configuration.
    #[error("role \"{0}\" does not exist")]
    NoRole(String),
    /// RAMP of a role without a limit to grow to.
    #[error("role \"{0}\" has no limit")]
    NoLimit(String),
    /// RAMP without OVER of a role without a ramp.
    #[error("role \"{0}\" has no ramp")]
    NoRamp(String),
    /// PAUSE UNTIL PRIMARY of a database whose primary nobody looks for.
    #[error("database \"{0}\" has no topology")]
    NoTopology(String),
    /// RESUME, though nothing it names is paused.
    #[error("not paused")]
    NotPaused,
    /// A CancelRequest ended PAUSE.
    #[error("PAUSE was canceled, and what it paused resumed")]
    PauseCanceled,
    /// A CancelRequest ended WAIT_CLOSE.
    #[error("WAIT_CLOSE was canceled")]
    WaitCanceled,
    /// Orders about statements need their digests.
    #[error("statements are not tracked")]
    StatementsUntracked,
    /// No statement of this digest, or no order about it.
    #[error("nothing is known of statement {0}")]
    NoStatementOrder(Digest),
    #[error("too many orders are in force")]
    TooManyOrders,
    /// No such client.
    #[error("no client has the id {0}")]
    NoClient(i32),
    /// The file is not valid; its mistakes.
    #[error("the configuration is invalid; the old one stays in force")]
    Reload(String),
    /// Nobody is there to carry the order out.
    #[error("pgweir is shutting down")]
    GoingDown,
    /// Bind or Describe of an unknown statement.
    #[error("prepared statement \"{0}\" does not exist")]
    NoStatement(String),
    /// Parse under a name that is taken.
    #[error("prepared statement \"{0}\" already exists")]
    DuplicateStatement(String),
    /// Execute or Describe of an unknown portal.
    #[error("portal \"{0}\" does not exist")]
    NoPortal(String),
    /// More statements or portals than a console may hold.
    #[error("too many prepared statements or portals")]
    TooMany,
    /// Bytes that are no frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A message of a type the console does not have, or whose body does not fit its type.
    #[error("invalid frontend message of type {0:?}")]
    Message(char),
    /// A message no command needs.
    #[error("message of {0} bytes")]
    TooLong(usize),
    /// KILL_CLIENT ends this client of the console.
    #[error("terminated by an administrator of pgweir")]
    Killed,
    /// The console's client has to go because pgweir is shutting down.
    #[error("pgweir is shutting down")]
    Draining,
}
