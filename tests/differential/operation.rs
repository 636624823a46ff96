//! What clients do, as data: it can be made at random, left out, and written down as Rust.

use std::fmt;

use crate::support::frontend;
use crate::texts::expanded;

/// A message to the server, or a point at which the client waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Query(String),
    Parse(String, String),
    /// Portal, statement, values.
    Bind(String, String, Vec<String>),
    DescribeStatement(String),
    DescribePortal(String),
    /// Portal, and the most rows; 0 is all.
    Execute(String, u32),
    CloseStatement(String),
    ClosePortal(String),
    Flush,
    Sync,
    CopyData(String),
    CopyDone,
    CopyFail,
    /// Everything up to here is written and, behind a Flush, its answers are read, before more is written.
    Await,
}

impl Message {
    pub(crate) fn encoded(&self) -> Vec<u8> {
        match self {
            Self::Query(sql) => frontend::frame(b'Q', &[&expanded(sql), &b"\0"[..]].concat()),
            Self::Parse(name, sql) => {
                let body = [name.as_bytes(), b"\0", &expanded(sql), b"\0\0\0"].concat();
                frontend::frame(b'P', &body)
            }
            Self::Bind(portal, statement, values) => {
                let values: Vec<_> = values.iter().map(|value| Some(value.as_bytes())).collect();
                frontend::bind(portal, statement, &values)
            }
            Self::DescribeStatement(name) => frontend::describe_statement(name),
            Self::DescribePortal(name) => frontend::describe_portal(name),
            Self::Execute(portal, rows) => frontend::execute(portal, *rows),
            Self::CloseStatement(name) => frontend::close_statement(name),
            Self::ClosePortal(name) => frontend::close_portal(name),
            Self::Flush => frontend::flush(),
            Self::Sync => frontend::sync(),
            Self::CopyData(data) => frontend::copy_data(data.as_bytes()),
            Self::CopyDone => frontend::copy_done(),
            Self::CopyFail => frontend::copy_fail("no"),
            Self::Await => Vec::new(),
        }
    }

    /// The text of a Query or Parse.
    pub(crate) fn sql(&self) -> Option<&str> {
        match self {
            Self::Query(sql) | Self::Parse(_, sql) => Some(sql),
            _ => None,
        }
    }

    /// It is answered by ReadyForQuery, unless it is skipped or inside a COPY.
    pub(crate) fn ends_cycle(&self) -> bool {
        matches!(self, Self::Query(_) | Self::Sync)
    }

    /// It belongs to a COPY from the client.
    pub(crate) fn is_copy(&self) -> bool {
        matches!(self, Self::CopyData(_) | Self::CopyDone | Self::CopyFail)
    }
}

/// As Rust.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Query(sql) => write!(f, "query({sql:?})"),
            Self::Parse(name, sql) => write!(f, "parse({name:?}, {sql:?})"),
            Self::Bind(portal, statement, values) => write!(f, "bind({portal:?}, {statement:?}, &{values:?})"),
            Self::DescribeStatement(name) => write!(f, "describe_statement({name:?})"),
            Self::DescribePortal(name) => write!(f, "describe_portal({name:?})"),
            Self::Execute(portal, rows) => write!(f, "execute({portal:?}, {rows})"),
            Self::CloseStatement(name) => write!(f, "close_statement({name:?})"),
            Self::ClosePortal(name) => write!(f, "close_portal({name:?})"),
            Self::CopyData(data) => write!(f, "copy_data({data:?})"),
            Self::Flush | Self::Sync | Self::CopyDone | Self::CopyFail | Self::Await => write!(f, "{self:?}"),
        }
    }
}

/// One step of one client, or of somebody who is no client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Messages in one write, or in one for each [`Message::Await`].
    Send(Vec<Message>),
    /// The client holds a backend in a transaction while others send these messages, and ends it then.
    Crowd(Vec<(usize, Vec<Message>)>),
    /// The client leaves and comes back as this role, with more in its startup message.
    Reconnect(Role, Vec<(String, String)>),
    /// The client runs something for ever, and cancels it.
    CancelRunning,
    /// The client cancels although it runs nothing.
    CancelNothing,
    /// Every backend of pgweir is ended while the client, as all others, runs nothing.
    Kill,
    /// Every backend of pgweir is ended while the client runs something for ever.
    KillRunning,
    /// pgweir reads its configuration again, in which this number stands somewhere.
    ReloadPgweir(u32),
    /// The server gets another value of this setting, or its own again, and reads its configuration.
    ReloadServer(String),
    /// Somebody without pgweir changes tables.
    Ddl(String),
}

/// Who logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Owner of the tables and member of `web`.
    Owner,
    /// May read some.
    Guest,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Guest => "guest",
        }
    }
}

/// As Rust.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(", ");
        match self {
            Self::Send(messages) => write!(f, "send(&[{}])", listed(&mut messages.iter().map(ToString::to_string))),
            Self::Reconnect(role, more) => write!(f, "reconnect({role:?}, &{more:?})"),
            Self::Crowd(others) => {
                let others = others.iter().map(|(client, messages)| {
                    format!("({client}, &[{}])", listed(&mut messages.iter().map(ToString::to_string)))
                });
                write!(f, "crowd(&[{}])", listed(&mut others.into_iter()))
            }
            Self::ReloadServer(sql) => write!(f, "reload_server({sql:?})"),
            Self::Ddl(sql) => write!(f, "ddl({sql:?})"),
            other => write!(f, "{other:?}"),
        }
    }
}

/// An operation and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) client: usize,
    pub(crate) operation: Operation,
}

impl Step {
    /// Its messages, if it sends any.
    pub(crate) fn messages(&self) -> &[Message] {
        match &self.operation {
            Operation::Send(messages) => messages,
            _ => &[],
        }
    }

    /// Every text in it.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.messages().iter().filter_map(Message::sql)
    }
}

/// As Rust.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step({}, {})", self.client, self.operation)
    }
}

/// How a pool is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pool {
    /// Transaction mode, one backend.
    One,
    /// Transaction mode, two backends.
    Two,
    /// Session mode.
    Session,
}

impl Pool {
    pub(crate) const ALL: [Self; 4] = [Self::One, Self::Session, Self::Two, Self::Session];

    /// The database to ask pgweir for.
    pub(crate) fn dbname(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Two => "two",
            Self::Session => "session",
        }
    }

    /// How many clients may hold a backend at once.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Session => usize::MAX,
        }
    }
}
