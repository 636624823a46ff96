//! One client from accept to goodbye.
//!
//! [`login`] logs a connection in and becomes a [`client`]; [`frontend`] handles its messages, [`answers`] the
//! backend's; [`cycle`] holds the accounting while it has a backend, [`session`] the state it keeps between backends.

pub(crate) mod answers;
pub(crate) mod auth_query;
pub(crate) mod cleanup;
pub(crate) mod client;
mod client_words;
pub(crate) mod context;
pub(crate) mod cycle;
mod facts;
pub(crate) mod follow;
pub(crate) mod frontend;
pub(crate) mod lanes;
mod leased;
pub(crate) mod login;
pub(crate) mod notifications;
pub(crate) mod orphan;
pub(crate) mod pins;
mod prepare;
pub(crate) mod replay;
mod reply_action;

pub(crate) mod local_reply;
pub(crate) mod rewrite;
mod running;
#[expect(clippy::module_inception, reason = "the session is what this module is about")]
pub(crate) mod session;
mod side;
pub(crate) mod statements;
pub(crate) mod stopwatch;
mod transaction;
mod unknown_settings;
