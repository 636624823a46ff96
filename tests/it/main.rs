//! Behaviour of the running program, one file per kind of behaviour, against Postgres servers the tests start
//! themselves. `PGWEIR_TEST_PG=18` runs them on version 18.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod admission;
mod auth;
mod bridge;
mod cancel;
mod console;
mod console_access;
mod console_programs;
mod copy;
mod drain;
mod drivers;
mod faults;
mod from_pgbouncer;
mod harness;
mod hosts;
mod limits;
mod listen;
mod login_pace;
mod lost;
mod metrics;
mod modes;
mod notify;
mod page;
mod pgbench;
mod pins;
mod prepared;
mod queries;
mod reactions;
mod redis;
mod reload;
mod restart;
mod settings;
mod shadow;
mod stand_in;
mod startup;
mod support;
mod systemd;
mod timeouts;
mod tls;
mod vanish;
mod waiting;
mod watch;
mod watched;
mod watchers;
mod zombies;
