//! One client from accept to goodbye.
//!
//! [`login`] takes a connection in and becomes a [`client`]; its messages are judged by [`frontend`], the backend's by
//! [`answers`]; [`cycle`] holds the accounting while it has a backend, [`session`] what it keeps between backends.

pub mod answers;
pub mod auth_query;
pub mod cleanup;
pub mod client;
pub mod context;
pub mod cycle;
pub mod follow;
pub mod frontend;
pub mod leased;
pub mod login;
pub mod notifications;
pub mod orphan;
pub mod pins;
pub mod reply_action;

pub mod local_reply;
pub mod rewrite;
#[expect(clippy::module_inception, reason = "the session is what this module is about")]
pub mod session;
mod side;
pub mod statements;
pub mod stopwatch;
mod transaction;
