//! Who gets which backend, and how backends are opened, kept and closed.

pub mod core;
