//! What protects the database from a crowd.

pub mod login;
