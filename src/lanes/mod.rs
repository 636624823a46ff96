//! Which transactions are held back by more than their role's limit: orders about single statements.

pub(crate) mod orders;
