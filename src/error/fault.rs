//! Everything that can go wrong between a client and its backend, as one sum.
//!
//! The report that a client gets for each is in [`super::sqlstate`].

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::notify::exchange::Missing;
use crate::notify::notification::Unnotifiable;
use crate::notify::stats::Gap;
use crate::pool::core::Bottleneck;
use crate::sql::Digest;
use crate::state::memory::TooMuch;
use crate::state::timeout::Timeout;
use crate::wire::build::{RefusedLogin, ServerError};
use crate::wire::expected::Unexpected;
use crate::wire::frame::FrameError;

/// A fault that ends a cycle or a session.
#[derive(Debug, Error)]
pub(crate) enum Fault {
    /// Bytes that are no frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A message the protocol does not have.
    #[error("invalid frontend message type {0}")]
    MessageType(u8),
    /// A message whose body does not fit its type.
    #[error("invalid {0} message")]
    Malformed(&'static str),
    /// The backend broke the protocol.
    #[error(transparent)]
    Backend(#[from] Unexpected),
    /// Bytes of the backend that are no frames.
    #[error("{0} from the backend")]
    BackendFrame(FrameError),
    /// The endpoint stayed unreachable.
    #[error("the database cannot be reached")]
    Down,
    /// There stayed no reader that could be used.
    #[error("no reader can be used")]
    NoReader,
    /// The server refuses the login of this pool, and its error is not at hand.
    #[error("the database refuses the login")]
    Refused,
    /// The server refused pgweir's own login for this pool.
    #[error("{}", .0.message)]
    LoginRefused(RefusedLogin),
    /// `pool.waiters_max` clients are waiting.
    #[error("the queue for a backend is full")]
    PoolFull(Queue),
    /// `roles.*.waiters_max` clients are waiting.
    #[error("the queue of the role is full")]
    RoleFull(Queue),
    /// The client would have waited for far longer than it may.
    #[error("the queue moves too slowly to wait in")]
    Shed(Queue),
    /// Waited as long as allowed.
    #[error("{bottleneck}")]
    WaitTimeout { queue: Queue, waited: Duration, bottleneck: Bottleneck },
    /// An order about this statement refuses it.
    #[error("{refusal}")]
    Ordered {
        refusal: OrderRefusal,
        digest: Digest,
        /// Who gave the order.
        by: Arc<str>,
    },
    /// A lane holds this transaction, or this statement, back for good.
    #[error("{refusal}")]
    Lane {
        refusal: LaneRefusal,
        lane: Arc<str>,
        /// Transactions of the lane that wait.
        waiting: u32,
    },
    /// A CancelRequest while waiting; in the words of Postgres, as programs look for them.
    #[error("canceling statement due to user request")]
    Canceled,
    /// The backend is gone.
    #[error("the connection to the server was lost")]
    Lost(Lost),
    /// The backend is gone, and with it the session state that tied the client to it.
    #[error("the connection to the server was lost, and the state of the session with it")]
    SessionLost(Lost),
    /// The client's own transaction was lost before.
    #[error("the transaction was lost with its backend")]
    TransactionLost,
    /// A timeout of Postgres or of ours took the transaction, and the backend with it.
    #[error("the transaction was ended: {}", match timeout {
        Timeout::IdleInTransaction => "it was idle for too long",
        Timeout::Statement => "a statement took too long",
        _ => "it took too long",
    })]
    Expired {
        timeout: Timeout,
        /// Names its key.
        hint: Option<String>,
        /// The backend was tied to the client.
        ends_session: bool,
    },
    /// The server answers neither a statement over its limit nor the cancel of it.
    #[error("the server answers neither a statement that took too long nor its cancel")]
    Unanswered {
        /// Names the key of the limit.
        hint: Option<String>,
        /// The backend was tied to the client.
        ends_session: bool,
    },
    /// `watch.on_idle_holder` took the transaction.
    #[error("the transaction was ended: others waited for it while it was idle")]
    HeldUp {
        /// The backend was tied to the client.
        ends_session: bool,
    },
    /// BEGIN in statement mode.
    #[error("transaction blocks are not allowed in statement mode")]
    StatementMode,
    /// More named statements than a client may hold.
    #[error("too many prepared statements in one session")]
    TooManyStatements,
    /// `listen.memory_max` or `listen.client_memory_max`.
    #[error("out of memory: {} more than they may", match .0 {
        TooMuch::Client => "the client's statements, settings and messages take",
        TooMuch::Process => "all clients together take",
    })]
    Memory(TooMuch),
    /// More of something than a client may hold.
    #[error("too many {} in one session", .0.name())]
    HoldsTooMuch(Holding),
    /// Parse under a name that is taken.
    #[error("prepared statement \"{0}\" already exists")]
    DuplicateStatement(String),
    /// Bind or Describe under a name that is ours, not the client's.
    #[error("prepared statement \"{0}\" does not exist")]
    NoStatement(String),
    /// Bind or Describe of the unnamed statement when there is none.
    #[error("unnamed prepared statement does not exist")]
    NoUnnamedStatement,
    /// A Bind that does not fit its statement.
    #[error(transparent)]
    WrongBind(#[from] WrongBind),
    /// A prepared statement whose columns are not what they were: Postgres's error of `RevalidateCachedQuery`.
    #[error("cached plan must not change result type")]
    ResultChanged,
    /// A notification given to `pg_notify` cannot be sent.
    #[error(transparent)]
    Unnotifiable(#[from] Unnotifiable),
    /// No more notifications can be kept until the transaction commits, or until the bus takes those it has.
    #[error("too many notifications in the NOTIFY queue")]
    TooManyNotifications,
    /// `roles.*.pin_timeout`.
    #[error("idle for too long with session state that keeps a backend")]
    PinTimeout,
    /// `roles.*.pins_max`.
    #[error("too many clients of the role keep their backend")]
    TooManyPins,
    /// pgweir goes down.
    #[error("pgweir is shutting down")]
    Draining,
    /// KILL in the console.
    #[error("terminated by an administrator of pgweir")]
    Killed,
    /// The database or role left the configuration.
    #[error("the database was removed from the configuration")]
    Removed,
    /// `listen.idle_timeout`.
    #[error("idle for too long")]
    IdleTimeout,
    /// `notify.listener_queue`.
    #[error("too many notifications wait for this client to read them")]
    ListenerFull,
    /// Notifications may have been lost somewhere on the way to this process.
    #[error("notifications may have been missed: {}", match .0 {
        Gap::Bridge => "the connection that listens on the server was lost",
        Gap::Bus => "the connection to the bus was lost",
        Gap::Hole => "the bus left some out",
        Gap::Switched => "another bus has taken over",
    })]
    NotificationGap(Gap),
    /// The client's encoding is not the server's, and nothing here converts.
    #[error("a notification that is not ASCII cannot be told in this client_encoding")]
    NotificationEncoding,
    /// A LISTEN that is committed, but would hear nothing.
    #[error("LISTEN failed: {}", match .0 {
        Missing::Server => "pgweir cannot listen on the server",
        Missing::Bus { .. } => "the notification bus cannot be reached",
    })]
    ListenFailed(Missing),
}

/// Why an order about a statement refuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum OrderRefusal {
    #[error("this statement is blocked by an order")]
    Blocked,
    #[error("too many clients wait for this statement, which an order limits")]
    QueueFull,
    #[error("this statement is limited by an order, and its turn did not come in time")]
    WaitedInVain,
}

impl OrderRefusal {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 3] = [Self::Blocked, Self::QueueFull, Self::WaitedInVain];
}

/// Why a lane refuses a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum LaneRefusal {
    #[error("the lane of this transaction is full")]
    Full,
    #[error("the lane of this transaction moves too slowly to wait in")]
    Slow,
    #[error("no transaction of the lane ended in time")]
    InVain(Duration),
    #[error("the lane of this statement is full")]
    Later,
}

impl LaneRefusal {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 4] = [Self::Full, Self::Slow, Self::InVain(Duration::ZERO), Self::Later];
}

/// Things that a client may hold only so many of, besides prepared statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holding {
    Channels,
    Portals,
    Settings,
}

impl Holding {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 3] = [Self::Channels, Self::Portals, Self::Settings];

    fn name(self) -> &'static str {
        match self {
            Self::Channels => "channels",
            Self::Portals => "portals",
            Self::Settings => "settings, or too large ones,",
        }
    }
}

/// The queue of a role, as far as a client in it must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Queue {
    pub role: Arc<str>,
    pub waiting: u32,
    /// The time they will take, if it is known.
    pub expected: Option<Duration>,
}

/// The fate of what a client had under way when its backend was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LostOutcome {
    /// A transaction was open, and no COMMIT had been sent: none of it took effect.
    RolledBack,
    /// Nobody knows whether a statement outside a transaction took effect.
    Unknown,
    /// A COMMIT was under way: nobody knows whether it took effect.
    InCommit,
}

/// How a backend was lost, as far as its client must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    pub outcome: LostOutcome,
    /// The last error the server sent, if any.
    pub final_error: Option<ServerError>,
}

/// The counts of a Bind are wrong: Postgres's errors of `exec_bind_message`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WrongBind {
    #[error("bind message has {formats} parameter formats but {values} parameters")]
    Formats { formats: u16, values: u16 },
    #[error("bind message supplies {values} parameters, but prepared statement \"{statement}\" requires {wanted}")]
    Values { values: u16, statement: String, wanted: u16 },
}
