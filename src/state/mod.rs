//! What clients and backends both refer to: interned settings, prepared statements, reported parameters, timeouts, what
//! a transaction has not made final.

pub mod limits;
pub mod parameters;
pub mod settings;
pub mod statements;
pub mod tentative;
pub mod timeout;
