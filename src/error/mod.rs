//! Every fault that a client can meet, and the one table of the reports it gets.
//!
//! [`fault`] is what ends a cycle or a session, [`login`] what ends a login, [`console`] what is wrong with a command of the console;
//! [`sqlstate`] words them. They stand above all that raise them, so that no part of the process depends on how another's errors are worded.

pub mod console;
pub mod fault;
pub mod login;
pub mod sqlstate;

pub use console::ConsoleFault;
pub use fault::{Fault, Lost, Queue};
pub use login::{LoginFault, LookupError};
