//! What operators see: the console, metrics and health.

pub mod console;
pub mod http;
