//! Behaviour of the running program, one file per kind of behaviour, against Postgres servers the tests start themselves.
//! `PGWEIR_TEST_PG=18` runs them on version 18.

mod admission;
mod auth;
mod bridge;
mod cancel;
mod console;
mod copy;
mod drain;
mod drivers;
mod faults;
mod harness;
mod hosts;
mod limits;
mod listen;
mod login_pace;
mod lost;
mod metrics;
mod modes;
mod notify;
mod pgbench;
mod pins;
mod prepared;
mod queries;
mod redis;
mod reload;
mod settings;
mod shadow;
mod stand_in;
mod startup;
mod support;
mod timeouts;
mod tls;
mod vanish;
mod waiting;
mod zombies;
