//! pgweir: a connection-pooling proxy for Postgres that keeps the database from tipping over.
//!
//! Modules stand in the order data flows; each imports only modules above it.

pub mod admin;
pub mod auth;
pub mod config;
pub mod net;
pub mod pool;
pub mod session;
pub mod sql;
pub mod wire;
