//! The detectors: each looks for one thing that harms a database, in a file of its own.

pub mod dead_tuples;
pub mod demotion;
pub mod horizon;
pub mod notify_queue;
pub mod outside;
pub mod sessions;
