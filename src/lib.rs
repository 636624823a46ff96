//! pgweir: a connection-pooling proxy for Postgres that keeps the database from tipping over.
//!
//! `docs/ARCHITECTURE.md` lists the modules in the order data flows. `config`, `wire`, `sql` and `state` know nothing of the rest.
//!
//! A query's way: `net::listen` accepts → `session::login` → `session::client` waits for a first message → `pool::lease`
//! gives a backend, opens one, or queues → `session::frontend` puts messages on their way while `wire::expected` counts
//! what is outstanding → `session::answers` takes account of what comes back → at the release point the oldest waiter
//! gets the backend. Any fault on the way → `sqlstate` → ErrorResponse.

pub mod admin;
pub mod admission;
pub mod auth;
pub mod clients;
pub mod config;
pub mod error;
pub mod metrics;
pub mod net;
pub mod notify;
pub mod orders;
pub mod pgbouncer;
pub mod pool;
pub mod proxy;
pub mod run;
pub mod session;
pub mod sql;
pub mod state;
pub mod watch;
pub mod wire;
mod words;
