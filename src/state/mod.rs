//! What clients and backends both refer to: interned settings, prepared statements, reported parameters, timeouts.

pub mod limits;
pub mod parameters;
pub mod settings;
pub mod statements;
pub mod timeout;
