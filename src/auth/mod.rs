//! (being built)

pub mod scram;
