//! What protects the database from a crowd.

pub mod entrance;
pub mod login;
