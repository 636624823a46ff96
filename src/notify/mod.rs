//! NOTIFY and LISTEN beside the server: notifications are kept out of its one global lock, and listeners off its backends.
//!
//! [`pending`] holds what a transaction has not committed. What it commits goes to the [`exchange`] of its database, which has the
//! listeners of this process and hands everything on through its [`outbox`]. Each listener has a [`mailbox`]; its client's task
//! empties it. The [`hub`] has all exchanges. None of these knows clients, statements or sockets.
//!
//! `run::bus_supervisor` connects an exchange with the world: a [`bridge`] hears what the server notifies of, a [`bus`] carries what the
//! exchange publishes. Both use [links](crate::pool::link), connections of their own.

pub mod bridge;
pub mod bus;
pub mod exchange;
pub mod hub;
pub mod mailbox;
pub mod nature;
pub mod notification;
pub mod outbox;
pub mod pending;
pub mod senders;
pub mod stats;
