//! NOTIFY and LISTEN beside the server: notifications are kept out of its one global lock, and listeners off its
//! backends.
//!
//! [`pending`] holds the uncommitted part of a transaction. At the commit it goes to the [`exchange`] of its database,
//! which has the listeners of this process and hands everything on through its [`outbox`]. Each listener has a
//! [`mailbox`]; its client's task empties it. The [`hub`] has all exchanges. None of these knows clients, statements or
//! sockets.
//!
//! `run::bus_supervisor` connects an exchange with the world: a [`bridge`] hears the server's notifications, a [`bus`]
//! carries those that the exchange publishes. Both use [links](crate::pool::link), connections of their own.

pub(crate) mod bridge;
pub(crate) mod bus;
pub(crate) mod exchange;
pub(crate) mod hub;
pub(crate) mod mailbox;
pub(crate) mod nature;
pub(crate) mod notification;
pub(crate) mod outbox;
pub(crate) mod pending;
pub(crate) mod senders;
pub(crate) mod stats;
