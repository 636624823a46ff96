//! State that clients and backends both refer to: interned settings, prepared statements, reported parameters,
//! timeouts, the memory that clients take, and changes that a transaction has not made final.

pub(crate) mod limits;
pub(crate) mod memory;
pub(crate) mod parameters;
pub(crate) mod settings;
pub(crate) mod statements;
pub(crate) mod tentative;
pub(crate) mod timeout;
