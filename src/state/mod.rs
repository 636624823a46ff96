//! What clients and backends both refer to: interned settings, prepared statements and reported parameters.

pub mod parameters;
pub mod settings;
pub mod statements;
