//! pgweir: a connection-pooling proxy for Postgres that keeps the database from tipping over.
//!
//! `docs/ARCHITECTURE.md` lists the modules in the order data flows. `config`, `wire`, `sql` and `state` know nothing
//! of the rest.
//!
//! A query's way: `net::listen` accepts → `session::login` → `session::client` waits for a first message →
//! `pool::lease` gives a backend, opens one, or queues → `session::frontend` puts messages on their way while
//! `wire::expected` counts what is outstanding → `session::answers` takes account of what comes back → at the release
//! point the oldest waiter gets the backend. Any fault on the way → `sqlstate` → ErrorResponse.

mod admin;
mod admission;
mod auth;
mod clients;
pub mod config;
mod error;
mod fleet;
mod lanes;
mod metrics;
mod net;
mod notify;
mod orders;
pub mod pgbouncer;
mod pool;
#[cfg(test)]
mod printed;
mod proxy;
mod recorder;
pub mod replay;
pub mod run;
mod session;
mod sql;
mod state;
#[doc(hidden)]
pub mod testing;
mod topology;
mod watch;
mod wire;
mod words;
mod workload;

pub use auth::scram::Verifier;
pub use orders::log_level::LogLevel;
