//! What must hold for any bytes, one module for each target of `fuzz_targets/`.
//!
//! `sql` and `wire` are pgweir's own files and import nothing else of pgweir, so that the fuzzed build compiles them
//! and the few crates they use instead of the whole proxy. `session` needs that, and is compiled where it is asked for.

#[allow(dead_code, unused_imports, reason = "the proxy uses the rest")]
#[path = "../../src/sql/mod.rs"]
mod sql;
#[allow(dead_code, unused_imports, reason = "the proxy uses the rest")]
#[path = "../../src/wire/mod.rs"]
mod wire;

pub mod frames;
pub mod lexer;
#[cfg(feature = "oracle")]
pub mod oracle;
pub mod proxy_header;
#[cfg(feature = "session")]
pub mod session;
pub mod startup;
